"""`tandem data`: every subcommand on real stores, and one line for every mistake."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tandem_datasets.ops.changing import delete
from tandem_datasets.ops.choosing import Choice
from tandem_datasets.store import Store
from tandem_training import cli
from tandem_training.commands.data import NAMES
from tandem_training.data_commands.drawing import scalar_plot


@pytest.fixture(scope="module")
def made(tmp_path_factory, record):
    return record(tmp_path_factory.mktemp("made") / "demos.zarr", ["eeee", "ppphhhnnnNNN", "ee|ee", "pp"])


@pytest.fixture
def path(tmp_path, record):
    return record(tmp_path / "demos.zarr", ["eeee", "ppphhhnnnNNN", "ee|ee", "pp"])


def data(*arguments):
    return cli.main(["data", *map(str, arguments)])


def said(capsys, *arguments):
    assert data(*arguments) == 0
    return capsys.readouterr().out


def test_alone_it_lists_what_there_is_without_anything_heavy(capsys):
    code = (
        "import sys; from tandem_training.commands.data import main; assert main([]) == 0 == main(['--help'])\n"
        "heavy = {'torch', 'zarr', 'hydra', 'numpy', 'rich'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in NAMES)
    for name in NAMES:
        text = said(capsys, name, "--help")
        assert text.startswith(f"usage: tandem data {name} ")
        assert f"tandem data {name} " in text.partition("\n\n")[2]
    text = said(capsys, "export", "--help")
    assert "vcodec=libsvtav1" in text


def test_info_and_stats(capsys, made, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    facts = json.loads(said(capsys, "info", made, "json=true"))
    assert (facts["episodes"], facts["frames"], facts["labelled"]) == (4, 22, 3)
    assert facts["sources"] == {"policy": 6, "person": 5, "expert": 8, "hold": 3}
    assert facts["tasks"] == {"find red": 4}
    text = said(capsys, "info", made)
    assert "top 16x16 rgb8" in text
    assert "agent/dx" in text
    found = json.loads(said(capsys, "stats", f"store={made}", "json=true"))
    assert set(found) == {"state", "action", "images.top"}
    assert "agent/dx" in said(capsys, "stats", made)


def test_validate_tells_and_repairs(capsys, path):
    assert "all is well" in said(capsys, "validate", path)
    (path / "data/top/c.0.0.0.0").unlink()
    assert data("validate", path) == 1
    text = capsys.readouterr().out
    assert "broken: data/top/c.0.0.0.0: " in text
    assert "repair=true mends" in text
    assert data("validate", path, "json=true") == 1
    flaws = json.loads(capsys.readouterr().out)["flaws"]
    assert "shard" in {flaw["kind"] for flaw in flaws}
    text = said(capsys, "validate", path, "repair=true")
    assert "repaired: data/top/c.0.0.0.0" in text
    assert "marked as deleted: 0, 1, 2, 3" in text
    assert Store(path).kept.tolist() == []


def test_stores_are_written_and_changed(capsys, path, tmp_path):
    assert "8 episodes" not in said(capsys, "merge", path, f"out={tmp_path / 'merged'}")
    assert "3 episodes" in said(capsys, "filter", path, f"out={tmp_path / 'long'}", "min_frames=4")
    said(capsys, "filter", path, f"out={tmp_path / 'some'}", "episodes=[0,2-3]", "task=find*")
    assert Store(tmp_path / "some").n_frames == 10
    said(capsys, "split", path, f"out={tmp_path / 'parts'}", "fractions={a: 0.5, b: 0.5}")
    assert Store(tmp_path / "parts/a.zarr").n_episodes == 2
    assert "2 frames cut off" in said(capsys, "trim", path, f"out={tmp_path / 'cut'}", "first=2", "episodes=1")
    said(capsys, "relabel", path, "episodes=1-2", "to.outcome=dropped", "to.failure_reason=too fast")
    assert [info.outcome for info in Store(path).infos()] == ["", "dropped", "dropped", ""]
    said(capsys, "relabel", path, "episodes=3", "to.task=find blue")
    assert Store(path).frames(3)[0].observation.instruction == "find blue"
    assert "2 episodes (1, 2) marked" in said(capsys, "delete", path, "outcome=dropped")
    said(capsys, "delete", path, "episodes=2", "undo=true")
    assert "1 episode dropped" in said(capsys, "compact", path)
    assert Store(path).n_episodes == 3


def test_formats_get_their_options(capsys, made, tmp_path):
    out = tmp_path / "buffer.zarr"
    said(capsys, "export", made, "replay_buffer", out, "map={top: img}", "episodes=[1,3]", "compressor=none")
    assert (out / "data/img").exists()
    text = said(capsys, "import", out, tmp_path / "again.zarr", "codec=raw")
    assert "2 episodes, 14 frames of replay_buffer" in text
    again = Store(tmp_path / "again.zarr")
    assert again.codec == "raw"
    assert again.info(0) == Store(made).info(1)


def test_mistakes(refused, made, tmp_path):
    assert "'validate'" in refused("data", "valdate")
    assert "missing store=..." in refused("data", "info")
    assert "there is none" in refused("data", "info", tmp_path / "none")
    assert "too much" in refused("data", "info", made, made)
    assert "no condition" in refused("data", "delete", made)
    assert "no episode 9" in refused("data", "delete", made, "episodes=9")
    assert "'compressor'" in refused("data", "export", made, "replay_buffer", tmp_path / "x", "compresor=none")
    assert "'workers'" in refused("data", "export", made, "replay_buffer", tmp_path / "x", "worker=2")
    assert "'replay_buffer'" in refused("data", "export", made, "replaybuffer", tmp_path / "x")
    assert "success" in refused("data", "filter", made, f"out={tmp_path / 'x'}", "success=1")
    assert "contradict" in refused("data", "relabel", made, "episodes=0", "to.outcome=success", "to.success=false")
    assert "remote" in refused("data", "compact", "memory://somewhere")
    assert not list(tmp_path.iterdir())
    assert "seed is -1" in refused("data", "split", made, f"out={tmp_path / 'x'}", "seed=-1")
    assert "inside the store" in refused("data", "filter", made, f"out={made / 'x'}")
    for key in ("out", "rerun"):
        assert f"{key} is {tmp_path}, a folder" in refused("data", "view", made, f"{key}={tmp_path}")
        assert "inside the store" in refused("data", "view", made, f"{key}={made / 'x'}")
    assert "no episode is left to show" in refused("data", "view", made, f"out={tmp_path / 'x'}", "min_frames=99")
    assert not list(tmp_path.iterdir())


def test_places_may_have_any_name(capsys, made, tmp_path):
    for name in ("a=b.zarr", "it's [1], {2}.zarr"):
        place = shutil.copytree(made, tmp_path / name)
        assert str(Store(place).digest) in said(capsys, "info", place, "json=true")


# -- pages, cards and recordings


def test_a_page_needs_nothing_else_and_says_what_is_left_out(capsys, path, tmp_path):
    delete(path, Choice(episodes=0))
    out = tmp_path / "page.html"
    assert "2 episodes of 3" in said(capsys, "view", path, f"out={out}", "shown=2", "frames=3")
    page = out.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "<script" not in page
    assert "url(" not in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count("<article") == 2
    assert "1 more episodes are not shown" in page
    assert "agent/dx (cell)" in page
    assert "prefers-color-scheme: dark" in page
    assert page.count('class="who"') == 2
    assert "class=label" in page  # the expert's labels of episode 1
    said(capsys, "view", path, f"out={out}", "deleted=true")
    assert "class=deleted" in out.read_text()


def test_what_people_wrote_is_escaped(capsys, tmp_path, record):
    path = record(tmp_path / "odd.zarr", ["ee"], wording="<script>alert({!r})</script>")
    said(capsys, "view", path, f"out={tmp_path / 'page.html'}")
    assert "<script" not in (tmp_path / "page.html").read_text()
    said(capsys, "card", path)
    assert "<script" not in (tmp_path / "odd.md").read_text()


def test_an_empty_store_has_a_page_and_a_card(capsys, tmp_path, small_embodiment):
    from tandem_datasets.recorder import Recorder

    path = tmp_path / "empty.zarr"
    Recorder(path, small_embodiment).close()
    said(capsys, "info", path)
    said(capsys, "view", path, f"out={tmp_path / 'page.html'}")
    said(capsys, "card", path)


def test_plots_keep_peaks_gaps_and_limits():
    values = np.zeros(1000)
    values[777] = 5.0
    values[400:500] = np.nan
    plot = scalar_plot("x<", "m", {"": values}, -1.0, 1.0)
    assert plot.count("M") == 2
    assert "0 … 5 m" in plot
    assert "<rect" in plot
    assert "x&lt;" in plot
    assert "<rect" not in scalar_plot("x", "m", {"": np.zeros(3)}, -1.0, 1.0)


def test_a_card_is_yaml_in_front_of_markdown(capsys, made, tmp_path, refused):
    import yaml

    out = tmp_path / "README.md"
    said(capsys, "card", made, f"out={out}", "license=cc-by-4.0", "name=Red: blocks")
    _, front, body = out.read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-4.0"
    assert facts["pretty_name"] == "Red: blocks"
    assert facts["size_categories"] == ["n<1K"]
    for text in ("| camera | top | 16x16 rgb8 |", "agent/dx", "find red", "## Outcomes", "## Licence"):
        assert text in body
    assert "there already" in refused("data", "card", made, f"out={out}")
    assert yaml.safe_load(said_card(capsys, made, tmp_path).split("---\n", 2)[1])["license"] is None


def said_card(capsys, made, tmp_path):
    said(capsys, "card", made, f"out={tmp_path / 'plain.md'}")
    return (tmp_path / "plain.md").read_text()


def test_a_rerun_recording(capsys, made, tmp_path):
    out = tmp_path / "run.rrd"
    said(capsys, "view", made, f"out={tmp_path / 'page.html'}", f"rerun={out}", "episodes=1")
    assert out.stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run.rrd"]
    from rerun.chunk import RrdReader

    rows: Counter[str] = Counter()
    for chunk in RrdReader(out).stream().to_chunks():
        rows[chunk.entity_path] += chunk.num_rows
    assert rows["/episode_0001/camera/top"] == 12
    assert rows["/episode_0001/state"] == rows["/episode_0001/action"] == 12 + 1  # with the names
    assert rows["/episode_0001/action_label"] == 3 + 1
