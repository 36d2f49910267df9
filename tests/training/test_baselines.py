"""Policies that learn nothing: what they do, and how `tandem eval` takes them."""

import json

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_datasets.frames import blank_observation
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_sim import rollout
from tandem_training.baselines import CHUNK, load_baseline
from tandem_training.cli import main

REACH = EnvSpec("tandem/H1Reach-v0", {"cameras": [], "privileged": True})


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = tmp_path_factory.mktemp("baselines") / "demos.zarr"
    rollout.run(RolloutRequest(REACH, EXPERT, 4, 0, record=path, label=True), lambda result: None)
    return path


def test_the_nearest_neighbour_of_a_demonstrated_frame_is_that_frame(demos):
    store = Store(demos)
    policy = load_baseline(f"nearest:{demos}", REACH)
    frames = store.frames(2)
    chunk = policy.infer([[frames[7].observation]], [(0, 0)])[0]
    assert chunk.shape == (CHUNK, policy.embodiment.action_dim)
    wanted = [frame.label if frame.label is not None else frame.action for frame in frames[7 : 7 + CHUNK]]
    np.testing.assert_array_equal(chunk, np.stack(wanted))
    assert policy.say([[frames[7].observation]], [(0, 0)]) == [""]


def test_the_mean_is_the_mean(demos):
    policy = load_baseline(f"mean:{demos}", REACH)
    labels = Store(demos).load("action_label")
    chunk = policy.infer([[blank_observation(policy.embodiment)]] * 2, [(0, 0), (1, 0)])
    np.testing.assert_allclose(chunk, np.broadcast_to(labels.mean(0), chunk.shape), atol=1e-6)


@pytest.mark.parametrize("mode", ["ee_delta", "joint"])
def test_who_holds_stays_where_it_is(mode):
    env = EnvSpec("tandem/H1Reach-v0", {"cameras": [], "action_mode": mode, "horizon": 20})
    results = rollout.run(
        RolloutRequest(env, "hold", 1, 3, load_policy=lambda: load_baseline("hold", env)), lambda result: None
    )
    assert results[0].info.outcome == "not_reached"
    policy = load_baseline("hold", env)
    seen = blank_observation(policy.embodiment)
    seen.state[:] = np.linspace(0.01, 0.06, len(seen.state), dtype=np.float32)
    action = policy.infer([[seen]], [(0, 0)])[0, 0]
    states = {scalar.name: value for scalar, value in zip(policy.embodiment.state[:15], seen.state, strict=False)}
    states |= {s.name: v for s, v in zip(policy.embodiment.state[30:], seen.state[30:], strict=True)}
    for scalar, value in zip(policy.embodiment.action, action, strict=True):
        wanted = states.get(scalar.name, states[f"{scalar.name}per/width"] if "grip" in scalar.name else 0.0)
        assert value == pytest.approx(wanted), scalar.name


def test_eval_takes_them_in_process_only(demos, tmp_path, capsys):
    arguments = ["env=h1_reach", "env.options.cameras=[]", "env.options.privileged=true", "env.options.horizon=15"]
    assert main(["eval", f"policy=nearest:{demos}", *arguments, "episodes=2", f"out={tmp_path / 'out'}"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["episodes"], metrics["policy"]) == (2, f"nearest:{demos}")
    assert metrics["films"] == []  # there is no camera
    assert main(["eval", "policy=hold", *arguments, "backend=ros2", f"out={tmp_path / 'ros'}"]) == 2
    assert "policy 'hold' with backend=ros2 (allowed: backend=inprocess)" in capsys.readouterr().err


def test_a_baseline_without_its_store_is_refused():
    with pytest.raises(TandemError, match=r"policy 'mean:': no store \(allowed: mean:STORE\)"):
        load_baseline("mean:", REACH)
