import json

from omegaconf import OmegaConf

from tandem_training.benches import _overhead, tinyvla
from tandem_training.cli import main
from tandem_training.engine import loop

SHORT = '["preset=static","trainer.max_steps=3","policy.dim=32","policy.fusion_heads=4"]'


def test_static_rows_controls_and_what_is_left_out(small_static, capsys):
    wanted = ["nano_direction_accuracy", "nano_l2", "vision_only", "minimal_l2_gpu", "act_success"]
    arguments = [f"nano={SHORT}", f"controls={SHORT}", f"rows=[{','.join(wanted)}]", "out=out"]
    assert main(["bench", "tinyvla", *arguments]) == 0
    assert "nano_l2" in capsys.readouterr().out
    with open("out/metrics.json") as file:
        rows = json.load(file)["rows"]
    assert [row["name"] for row in rows] == list(tinyvla.TARGETS)
    found = {row["name"]: row for row in rows}
    for name in ("nano_direction_accuracy", "nano_l2", "vision_only"):
        assert "3 steps in" in found[name]["note"]
    assert (found["nano_direction_accuracy"]["met"], found["nano_l2"]["met"]) == (False, False)  # in three steps
    assert 0.05 < found["nano_l2"]["value"] < 2
    trained = {
        name: OmegaConf.load(f"outputs/bench/tinyvla/policy_{name}/config.yaml") for name in ("nano", "vision_only")
    }
    assert {name: config.stage.ablate for name, config in trained.items()} == {
        "nano": None,
        "vision_only": "vision_only",
    }
    assert (found["act_success"]["value"], found["act_success"]["met"]) == (None, None)
    assert "slow=true" in found["act_success"]["note"]
    assert (found["nano_l2_final"]["value"], found["nano_l2_final"]["note"]) == (None, "left out")


def test_what_the_engine_costs(small_static, monkeypatch):
    """Neither figure can be right to a few per cent here; wrong turns, or a clock that never ran, would be far off."""
    small = [*_overhead.STATIC, "policy.dim=32", "policy.fusion_heads=4", "policy.vision_depth=1", "device=cpu"]
    small += ["trainer.batch_size=4", "trainer.log_every=5"]
    monkeypatch.setattr(_overhead, "_WAIT_STEPS", 15)
    monkeypatch.setattr(_overhead, "_TURNS", 3)
    threads = []
    feed = loop.Feed
    monkeypatch.setattr(loop, "Feed", lambda *arguments: threads.append(arguments[2]) or feed(*arguments))
    row = _overhead.train_overhead(1, [*small, "trainer.prefetch=2"])
    assert threads == [0]  # a thread would ask for batches in the other side's turn
    assert (row.repeats, row.reference, row.ratio) == (1, 1.0, row.value)
    assert 0.5 < row.value < 5
    assert "ms a step, bare" in row.note
    waited = _overhead.wait_fraction(1, small)
    assert 0 < waited.value < 0.5
    assert "15 steps each" in waited.note


def test_targets_name_the_time_that_belongs_to_them():
    texts = {name: target.text for name, target in tinyvla.TARGETS.items()}
    assert texts["nano_direction_accuracy"] == ">= 0.98 by steps of <= 30 s on 2 cores"
    assert texts["nano_l2_final"] == "<= 0.004 by steps of <= 150 s on 2 cores"
    assert texts["act_success"] == ">= 0.80 within 40 min"
