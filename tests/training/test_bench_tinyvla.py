import json

from tandem_training.benches import tinyvla
from tandem_training.cli import main

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
        assert found[name]["value"] >= 0
        assert "3 steps in" in found[name]["note"]
    assert found["nano_l2"]["met"] is False  # nothing is learned in three steps
    assert (found["act_success"]["value"], found["act_success"]["met"]) == (None, None)
    assert "slow=true" in found["act_success"]["note"]
    assert (found["nano_l2_final"]["value"], found["nano_l2_final"]["note"]) == (None, "left out")
