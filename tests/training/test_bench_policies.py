import json

import pytest

from tandem_datasets.errors import TandemError
from tandem_training.benches import policies
from tandem_training.cli import main
from tandem_training.config import compose

SHORT = ["policy=tinyvla/flow", "preset=debug", "trainer.max_steps=3", "policy.head_dim=16", "policy.dim=32"]
ENV = ["env=h1_reach", "env.options.cameras=[]", "env.options.privileged=true", "env.options.horizon=60"]


def _texts(texts):
    return "[" + ",".join(f'"{text}"' for text in texts) + "]"


def test_a_row_trains_rolls_out_and_lays_the_baselines_beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        f"policy_reach_state.env={_texts(ENV)}",
        f"policy_reach_state.flow={_texts(SHORT)}",
        "policy_reach_state.demonstrations=3",
        "rows=policy_reach_state",
        "episodes=2",
        "baseline_episodes=2",
        "out=out",
    ]
    assert main(["bench", "policies", *arguments]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]}
    assert list(rows) == list(policies.TARGETS)
    row = rows["policy_reach_state"]
    assert (row["value"], row["met"]) == (0.0, False)  # in three steps
    for told in ("flow: 0 of 2 unseen seeds", "3 demonstrations", "3 steps in", "hold 0 of 2, mean 0 of 2, nearest"):
        assert told in row["note"]
    assert (rows["policy_pick_state"]["value"], rows["policy_pick_state"]["note"]) == (None, "left out")


@pytest.mark.parametrize("name", policies.TARGETS)
def test_each_row_composes_for_each_policy(name):
    row = compose("bench_policies", [])[name]
    env = compose("eval", list(row.env)).env
    assert env.options.privileged == name.endswith("_state")
    assert bool(env.options.cameras) == name.endswith("_pixels")
    for which in policies.WHICH:
        trained = compose("train", [*row[which], "data=x"])
        assert trained.policy.type == {"flow": "tinyvla", "act": "lerobot"}[which]
        assert trained.policy.n_action_steps <= trained.policy.chunk_size


def test_another_policy_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TandemError, match="which: unknown name 'atc'; did you mean 'act'"):
        policies.measure(compose("bench_policies", ["which=atc"]), {"policy_reach_state"})
