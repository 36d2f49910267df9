"""The demo's page from real pieces: a recorded rollout of an untrained policy stands for every step of the demo."""

import json
import re

import pytest

from tandem_datasets.rollout import EnvSpec, RolloutRequest
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_sim import registry
from tandem_training.demo import Evaluated
from tandem_training.evaluation import evaluate, policy_loader
from tandem_training.report.demo_page import write_page
from tandem_training.results import Row, machine
from tandem_training.steps import Done

ENV = EnvSpec("tandem/BlockFind-v0", {"horizon": 3})


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    training = folder / "policy"
    training.mkdir()
    save(create("tinyvla", registry.embodiment(ENV)), training / "best")
    points = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 2, "val": {"loss": 0.7}}]
    (training / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    trained = Done(training, "key", 1.0, False, {"metrics": {"steps": 2, "seconds": 1.0}})
    directory = str(training / "best")
    store = folder / "episodes.zarr"
    request = RolloutRequest(ENV, directory, 3, 500_000, policy_loader(directory, "cpu", 1), record=store)
    found = evaluate(request, "inprocess")
    rolled = Done(folder, "key", 1.0, False, {"metrics": found.metrics, "successes": found.successes})
    demos = Done(store, "key", 1.0, False, {"episodes": 3, "frames": 9})
    evaluated = {name: Evaluated(rolled) for name in ("before", "after", "control", "realtime")}
    named = {name: trained for name in ("first", "last", "control")} | {"demos": demos, "rollouts": rolled}
    rows = [Row("demo_s", 1.0, "s", target="<= 360", met=True, note="a <note>")]
    write_page(folder / "report.html", rows, evaluated, named, ENV, machine())
    assert not list(folder.glob(".report*"))
    return (folder / "report.html").read_text()


def test_the_page_needs_nothing_from_anywhere_else(page):
    assert page.rstrip().endswith("</html>")
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "<script" not in page
    assert "url(http" not in page


def test_it_shows_curves_films_and_what_every_instruction_looks_at(page):
    assert page.count("<svg") == 2
    assert page.count("data:image/gif;base64,") >= 6  # before and after on three seeds
    assert page.count("data:image/png;base64,") >= 9  # three or four blocks on each of three boards
    for colour in ("red", "green", "blue"):
        assert f"find the {colour} block" in page


def test_it_escapes_what_it_is_given(page):
    assert "a &lt;note&gt;" in page
    assert "a <note>" not in page
