"""LeRobot's real commands on our policies, environments and stores; each start costs half a minute."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tandem_policies
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.lerobot import export
from tandem_datasets.rollout import EXPERT, RolloutRequest
from tandem_datasets.store import Store
from tandem_sim.blockfind import task
from tandem_sim.rollout import run
from tandem_training.benches._lerobot import ENV, lerobot_environment, lerobot_eval_equal, run_lerobot

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ["--policy.device=cpu", "--policy.push_to_hub=false", "--batch_size=8", "--num_workers=0", "--log_freq=1"]


def test_commands_start_without_what_ros_left_behind(tmp_path):
    ours = {"LD_LIBRARY_PATH": "/x/ros_rclpy.libs", "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "PATH": "/bin"}
    theirs = lerobot_environment(ours, tmp_path)
    assert theirs["PATH"] == "/bin"
    assert theirs["HF_HUB_OFFLINE"] == "1"
    assert not {"LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"} & set(theirs)


def test_a_command_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TandemError, match=r"lerobot-fly: not found beside .* \(wanted: the extra 'lerobot'\)"):
        run_lerobot("lerobot-fly", [], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lerobot_eval_tells_of_the_same_episodes_as_ours(half_trained):
    row = lerobot_eval_equal(half_trained, episodes=20, seed=500_000)
    assert row.value is True, row.note
    told = re.match(r"lerobot-eval (\d+), tandem eval (\d+) of 20 episodes .*; 0 episodes differ", row.note)
    assert told, row.note
    assert 0 < int(told[1]) == int(told[2]) < 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lerobot_trains_a_policy_trains_it_on_and_goes_on(tmp_path):
    run(RolloutRequest(ENV, EXPERT, episodes=6, seed=0, record=tmp_path / "episodes.zarr"), lambda _: None)
    dataset = export(Store(tmp_path / "episodes.zarr"), tmp_path / "dataset")
    data = ["--dataset.repo_id=tandem/episodes", f"--dataset.root={dataset}"]

    first = tmp_path / "first"
    evaluation = ["--env.type=tandem", "--env_eval_freq=3", "--eval.n_episodes=2", "--eval.batch_size=2",
                  "--eval.use_async_envs=true"]  # fmt: skip
    fresh = ["--policy.type=tinyvla", "--policy.dim=32", "--policy.fusion_heads=4", f"--output_dir={first}"]
    said = run_lerobot("lerobot-train", [*data, *TRAINING, *fresh, *evaluation, "--steps=3"], tmp_path)
    assert "action_l2:" in said
    assert "pc_success" in said
    trained = first / "checkpoints/last/pretrained_model"
    policy = tandem_policies.load(trained, "cpu")
    assert policy.embodiment == task.EMBODIMENT
    request = RolloutRequest(ENV, str(trained), episodes=1, seed=1, load_policy=lambda: policy)
    assert run(request, lambda _: None)[0].steps > 0

    second = tmp_path / "second"
    on = [f"--policy.path={trained}", "--policy.n_action_steps=2", f"--output_dir={second}", "--steps=2"]
    run_lerobot("lerobot-train", [*data, *TRAINING, *on], tmp_path)
    tuned = tandem_policies.load(second / "checkpoints/last/pretrained_model", "cpu")
    assert tuned.n_action_steps == 2
    assert tuned.identity != policy.identity

    config = second / "checkpoints/last/pretrained_model/train_config.json"
    said = run_lerobot("lerobot-train", [f"--config_path={config}", "--resume=true", "--steps=3"], tmp_path)
    assert "step:3 " in said
    assert (second / "checkpoints/last").resolve().name == "000003"


@pytest.mark.slow
@pytest.mark.parametrize("project", ["policies/lerobot_policy_tandem", "sim/lerobot_env_tandem"])
def test_the_plugins_build_as_wheels_under_their_names(tmp_path, project):
    name = Path(project).name
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "build", "--quiet", "--wheel", "--python", sys.executable, "-o", str(tmp_path), project]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        assert f"{name}.py" in opened.namelist()
        [metadata] = [entry for entry in opened.namelist() if entry.endswith("METADATA")]
        assert f"\nName: {name}\n" in opened.read(metadata).decode()
