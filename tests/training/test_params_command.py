"""`tandem params`: counts of new and of stored policies, without their weights."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment
from tandem_policies.files import outlined, save
from tandem_policies.network import create
from tandem_policies.parameters import parts_of, serving_bytes, total, weights_in, weights_of
from tandem_training import cli


def described(capsys, *arguments: str) -> dict:
    assert cli.main(["params", *arguments, "json=true"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def robot() -> Embodiment:
    action = tuple(ActionScalar(f"arm/{axis}", "m", -1.0, 1.0, ActionKind.DELTA_STEP) for axis in "xy")
    return Embodiment(
        name="arm", rate_hz=10.0, hears_instruction=True, cameras=(Camera("top", 32, 32),), state=(), action=action
    )


@pytest.fixture
def stored(robot, tmp_path) -> Path:
    return save(create("tinyvla", robot, dim=32), tmp_path / "policy")


def test_the_parts_of_a_part_sum_up_to_it(robot):
    with outlined():
        network = create("tinyvla", robot, language_depth=2, head_depth=3)
    weights = weights_of(network)
    assert total(weights).parameters == sum(value.numel() for value in network.parameters())
    assert total(weights).weight_bytes == sum(4 * value.numel() for value in network.state_dict().values())
    rows = parts_of(weights, 3)
    tops = [row for row in rows if row.depth == 1]
    assert {row.name for row in tops} == {"vision", "language", "head", "fusion"}
    assert [row.parameters for row in tops] == sorted((row.parameters for row in tops), reverse=True)
    for at, row in enumerate(rows):
        inside = []
        for below in rows[at + 1 :]:
            if below.depth <= row.depth:
                break
            inside += [below] if below.depth == row.depth + 1 else []
        assert row.depth == 3 or not inside or sum(part.parameters for part in inside) == row.parameters
        assert all(part.name.startswith(f"{row.name}.") for part in inside)
    assert {row.depth for row in parts_of(weights, 1)} == {1}


def test_only_what_is_trained_needs_gradients_and_states(robot):
    network = create("tinyvla", robot)
    network.vision.requires_grad_(False)
    network.head.to(torch.bfloat16)
    rows = {row.name: row for row in parts_of(weights_of(network), 1)}
    assert (rows["vision"].trainable, rows["vision"].gradient_bytes, rows["vision"].adamw_bytes) == (0, 0, 0)
    head = rows["head"]
    assert head.trainable == head.parameters
    assert (head.weight_bytes, head.gradient_bytes, head.adamw_bytes) == tuple(head.parameters * n for n in (2, 2, 4))
    every = total(weights_of(network))
    assert every.trainable == every.parameters - rows["vision"].parameters
    stored = sum(value.numel() for value in network.state_dict().values())
    assert serving_bytes(weights_of(network), torch.float32) == 4 * stored
    assert serving_bytes(weights_of(network), torch.bfloat16) == 2 * stored


@pytest.mark.parametrize(("size", "low", "high"), [("nano", 0.1, 0.5), ("large", 430, 470)])
def test_a_new_policy_is_counted_without_weights(capsys, size, low, high):
    facts = described(capsys, f"policy=tinyvla/{size}")
    count = facts["total"]["parameters"]
    assert low * 1e6 <= count <= high * 1e6
    assert facts["total"]["trainable"] == count
    assert facts["training_bytes"] == facts["total"]["weight_bytes"] + 3 * 4 * count
    assert facts["policy"] == "tinyvla for 'blockfind'"


def test_keys_and_depth_change_what_is_counted(capsys):
    plain = described(capsys, "depth=1")
    assert {part["depth"] for part in plain["parts"]} == {1}
    wider = described(capsys, "policy.dim=128", "env.options.horizon=16")
    assert wider["total"]["parameters"] > 2 * plain["total"]["parameters"]


def test_a_stored_policy_is_counted_from_its_header(capsys, stored):
    facts = described(capsys, f"policy={stored}")
    assert facts["total"]["weight_bytes"] == sum(
        4 * weight.count for weight in weights_in(stored / "model.safetensors")
    )
    assert facts["policy"] == str(stored)
    file = stored / "model.safetensors"
    with file.open("r+b") as opened:  # the numbers are not read
        opened.truncate(file.stat().st_size - 4)
    assert cli.main(["params", f"policy={stored}"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_lerobots_policies_are_counted_without_building_them(capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"type": "act"}')
    weights = {"model.backbone.w": torch.zeros(4, 4), "model.head.w": torch.zeros(3), "model.head.b": torch.zeros(3)}
    save_file(weights, tmp_path / "model.safetensors")
    facts = described(capsys, f"policy={tmp_path}")
    assert facts["total"]["parameters"] == 22
    assert facts["total"]["trainable"] is None
    assert [part["name"] for part in facts["parts"]] == ["model", "model.backbone", "model.head"]
    assert cli.main(["params", f"policy={tmp_path}"]) == 0
    assert "training: unknown" in capsys.readouterr().out


def test_the_table_names_parts_shares_and_memory(capsys):
    assert cli.main(["params", "policy=tinyvla/large"]) == 0
    shown = capsys.readouterr().out
    for text in ("vision", "  blocks", "448,0", "100%", "GiB", "training: 6.", "serving: float32", "bfloat16"):
        assert text in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy=tinyvla/larg"], "did you mean 'tinyvla/large'.*or a policy directory"),
        (["policy=/nowhere"], "unknown name '/nowhere'"),
        (["policy=."], "no config.json"),
        (["policy=.", "policy.dim=32"], "is a stored policy"),
        (["policy.dim=30"], "dim is 30"),
        (["depth=0"], "depth=0"),
        (["policy.vision_backbone=./nothing/there"], "no such folder"),
    ],
)
def test_mistakes_are_told_in_a_line(refused, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, refused("params", *arguments))
