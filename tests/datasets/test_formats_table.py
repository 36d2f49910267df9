import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.formats import FORMATS, checked_options, open_source, recognise
from tandem_datasets.formats.importing import require_vacant
from tandem_datasets.recorder import Recorder


def _function(path: str, *, fps: float = 1.0, video: bool = False, map: dict[str, str] | None = None, n: int = 0):
    """Options of the kinds that formats have."""


@pytest.mark.parametrize(
    "options", [{}, {"fps": 2}, {"fps": 2.5, "video": True}, {"map": None}, {"map": {"a": "b"}}, {"n": 3}]
)
def test_options_that_fit_are_taken_as_they_are(options):
    assert checked_options(_function, options, "here") == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fsp": 1}, "here: option: unknown name 'fsp'; did you mean 'fps'"),
        ({"path": "x"}, "unknown name 'path'"),
        ({"fps": "fast"}, r"option fps is 'fast' \(allowed: float\)"),
        ({"fps": True}, "option fps is True"),
        ({"video": 1}, r"option video is 1 \(allowed: bool\)"),
        ({"n": 1.5}, r"option n is 1.5 \(allowed: int\)"),
        ({"map": "a"}, "option map is 'a'"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(TandemError, match=message):
        checked_options(_function, options, "here")


def test_every_format_reads_or_writes():
    assert all(form.reads or form.writes for form in FORMATS.values())


def test_unknown_formats_and_places_are_refused(tmp_path):
    with pytest.raises(TandemError, match=r"import: format: unknown name 'lerobt'; did you mean 'lerobot'"):
        open_source(str(tmp_path), "lerobt")
    with pytest.raises(TandemError, match="format 'webdataset' cannot be imported"):
        open_source(str(tmp_path), "webdataset")
    with pytest.raises(TandemError, match="there is nothing"):
        recognise(str(tmp_path / "nowhere"))


def test_what_is_no_foreign_episodes_is_told_by_its_name(tmp_path, embodiment):
    Recorder(tmp_path / "ours", embodiment).close()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/shard-000000.tar").touch()
    for name, words in (("ours", "it is a store already"), ("shards", "WebDataset shards hold windows")):
        with pytest.raises(TandemError, match=words):
            recognise(str(tmp_path / name))
    for place in ("ours/data/new", "ours/new"):
        with pytest.raises(TandemError, match="is inside the store"):
            require_vacant(tmp_path / place, "export")
