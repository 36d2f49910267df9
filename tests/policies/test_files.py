"""Policy directories: what is written comes back bit for bit; what is damaged, hostile or foreign is refused."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError
from tandem_policies import replacing
from tandem_policies.files import load_network, save
from tandem_policies.network import create


@pytest.fixture
def saved(body, statistics_of, tmp_path) -> Path:
    network = create("tinyvla", body(), dim=32, chunk_size=2)
    network.set_statistics(statistics_of(network.embodiment))
    return save(network, tmp_path / "policy")


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "parts", [{}, {"states": 0, "hears": False}, {"cameras": (Camera("a", 16, 16), Camera("b", 8, 8))}]
)
def test_predictions_statistics_and_contract_come_back_equal(body, batch_of, statistics_of, tmp_path, parts):
    network = create("tinyvla", body(**parts), dim=32).eval()
    network.set_statistics(statistics_of(network.embodiment))
    again = load_network(save(network, tmp_path / "deep" / "policy"))
    batch = batch_of(network)
    assert torch.equal(again.predict(batch), network.predict(batch))
    assert torch.equal(again.action_mean, network.action_mean)
    assert (again.embodiment, again.config) == (network.embodiment, network.config)
    assert again.tokenizer.text == network.tokenizer.text
    assert not again.training


def test_loading_leaves_the_callers_randomness_alone(saved):
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    load_network(saved)
    assert torch.equal(torch.rand(4), wanted)


def test_the_layout_is_lerobots(saved):
    names = {path.name for path in saved.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "tokenizer.json", "policy_preprocessor.json", "policy_postprocessor.json"
    }  # fmt: skip
    config = json.loads((saved / "config.json").read_text())
    assert config["type"] == "tinyvla"
    assert config["input_features"] == {
        "observation.images.top": {"type": "VISUAL", "shape": [3, 32, 32]},
        "observation.state": {"type": "STATE", "shape": [2]},
    }
    assert config["output_features"] == {"action": {"type": "ACTION", "shape": [2]}}
    assert set(config["normalization_mapping"].values()) == {"IDENTITY"}
    steps = json.loads((saved / "policy_preprocessor.json").read_text())["steps"]
    assert [step["registry_name"] for step in steps][-2:] == ["device_processor", "normalizer_processor"]
    assert steps[-1]["config"]["features"] == {}  # nothing is normalised outside of the network


def test_an_older_policy_is_replaced_and_nothing_is_left_beside(body, saved):
    (saved.parent / ".policy.partial").mkdir()  # of a killed run
    fresh = create("tinyvla", body(), dim=64)
    save(fresh, saved)
    assert load_network(saved).config.dim == 64
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_a_failed_save_leaves_the_older_policy(body, saved, monkeypatch):
    before = (saved / "model.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(replacing, "_sync", full)
    with pytest.raises(TandemError, match="cannot be written: no space left"):
        save(create("tinyvla", body()), saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_a_place_in_use_is_not_overwritten(body, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TandemError, match="is in use"):
        save(create("tinyvla", body()), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(TandemError, match=name):
        load_network(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "noise"])
def test_a_damaged_file_is_named_in_one_line(saved, name, damage):
    content = (saved / name).read_bytes()
    broken = {"truncated": content[: len(content) // 2], "empty": b"", "noise": os.urandom(500)}
    (saved / name).write_bytes(broken[damage])
    with pytest.raises(TandemError, match=name) as caught:
        load_network(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "smolvla"}, "type is 'smolvla' .*LeRobot's own policies are opened by"),
        ({"type": ["tinyvla"]}, "type is .*allowed: tinyvla"),
        ({"dim": 4096}, "tensor '.*' is F32 .*wanted: F32"),
        ({"dim": 10**12}, "dim is 1000000000000"),
        ({"vision_depth": 48}, "lacks tensor 'vision.blocks"),
        ({"chunk_size": "many"}, "chunk_size is 'many'"),
        ({"queries": -1}, "queries is -1"),
        ({"_target_": "os.system"}, "unknown name '_target_'"),
        ({"embodiment": {"name": "x"}}, "Embodiment lacks"),
        ({"embodiment": 7}, "Embodiment must be a mapping"),
        ({"output_features": {}}, "output_features contradict the embodiment"),
        ({"loss_beta": float("nan")}, "not JSON: NaN"),
    ],
)
def test_a_wrong_or_hostile_config_is_refused(saved, changes, message):
    edit_config(saved, **changes)
    with pytest.raises(TandemError, match=message) as caught:
        load_network(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", '{"type": "tinyvla"}', "[" * 100_000, '{"a": ' * 5000])
def test_a_config_that_is_no_policys_is_refused(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(TandemError, match=r"config\.json"):
        load_network(saved)


def test_what_lerobot_adds_to_a_config_is_no_error(saved):
    edit_config(saved, device="cpu", use_amp=False, push_to_hub=True, repo_id=None, license=None)
    assert load_network(saved).config.dim == 32


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.0.weight", torch.zeros(3, 3), r"'head.0.weight' is F32 \[3, 3\] \(wanted"),
        ("head.0.bias", torch.zeros(128, dtype=torch.float64), "'head.0.bias' is F64"),
        ("extra", torch.zeros(1), "unknown tensor 'extra'"),
        ("action_mean", torch.tensor([0.0, float("nan")]), "'action_mean' holds numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, name, value, message):
    weights = load_file(saved / "model.safetensors")
    save_file({key: tensor.clone() for key, tensor in weights.items()} | {name: value}, saved / "model.safetensors")
    with pytest.raises(TandemError, match=message):
        load_network(saved)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "policy.pkl"])
def test_pickles_are_never_opened(saved, name):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (saved / "sprung",))

    (saved / name).write_bytes(pickle.dumps(Trap()))
    (saved / "model.safetensors").unlink()
    for path in (saved, saved / name):
        with pytest.raises(TandemError, match=r"pickled weights.* never opened"):
            load_network(path)
    assert not (saved / "sprung").exists()


def test_places_that_are_no_policy_are_refused(tmp_path):
    with pytest.raises(TandemError, match="does not exist"):
        load_network(tmp_path / "nowhere")
    with pytest.raises(TandemError, match=r"no config\.json"):
        load_network(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TandemError, match="is no directory"):
        load_network(tmp_path / "file")
