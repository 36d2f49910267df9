"""LeRobot's policies as networks of ours, in one process: they train, repeat, hear, and come back from disk equal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, Encoding, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_policies.files import is_lerobots, load_network, save
from tandem_policies.lerobot.kinds import kind, leaves_padding_out
from tandem_policies.network import PolicyNetwork, create

BODY = Embodiment(
    name="tester",
    rate_hz=10.0,
    hears_instruction=True,
    cameras=(Camera("top", 64, 64),),
    state=tuple(StateScalar(f"agent/s{i}", "m", -1.0, 1.0, StateSource.POSE) for i in range(2)),
    action=tuple(ActionScalar(f"agent/a{i}", "m", -1.0, 1.0, ActionKind.DELTA_STEP) for i in range(2)),
)
STATISTICS = {
    key: {
        quantity: np.array(row, np.float32)
        for quantity, row in {"mean": [0.2, -0.3], "std": [0.5, 0.7], "min": [-2, -1], "max": [1, 3]}.items()
    }
    for key in ("state", "action")
}
NO_DOWNLOAD = {"pretrained_backbone_weights": None}
ACT: dict[str, Any] = {
    "policy": "act", "chunk_size": 3, "n_action_steps": 2,
    "options": {**NO_DOWNLOAD, "dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1,
                "n_vae_encoder_layers": 1},
}  # fmt: skip
ENLARGED: dict[str, Any] = {**ACT, "image_scale": 2}
DIFFUSION: dict[str, Any] = {
    "policy": "diffusion", "chunk_size": 3,
    "options": {**NO_DOWNLOAD, "n_obs_steps": 2, "down_dims": [8, 16], "diffusion_step_embed_dim": 8,
                "use_group_norm": True, "noise_scheduler_type": "DDIM", "num_inference_steps": 2},
}  # fmt: skip
DDPM: dict[str, Any] = {
    "policy": "diffusion", "chunk_size": 4,
    "options": {**DIFFUSION["options"], "n_obs_steps": 1, "noise_scheduler_type": "DDPM", "num_train_timesteps": 3},
}  # fmt: skip
VQBET: dict[str, Any] = {
    "policy": "vqbet", "chunk_size": 2, "n_action_steps": 2,
    "options": {**NO_DOWNLOAD, "n_obs_steps": 2, "n_action_pred_token": 2, "crop_shape": None, "gpt_n_layer": 1,
                "n_vqvae_training_steps": 2, "vqvae_embedding_dim": 8, "vqvae_enc_hidden_dim": 8, "gpt_block_size": 16,
                "gpt_input_dim": 16, "gpt_output_dim": 16, "gpt_hidden_dim": 16, "gpt_n_head": 2},
}  # fmt: skip
BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"


def make(settings: dict[str, Any]) -> PolicyNetwork:
    torch.manual_seed(0)
    network = create("lerobot", BODY, **settings)
    network.set_statistics(STATISTICS)
    return network


def predict(network: PolicyNetwork, batch: dict[str, Tensor], keys: list[tuple[int, int]] | None = None) -> Tensor:
    with torch.no_grad():
        return network.predict(batch, keys)


@pytest.mark.parametrize(
    "settings", [ACT, ENLARGED, DIFFUSION, DDPM, VQBET], ids=["act", "enlarged", "diffusion", "ddpm", "vqbet"]
)
def test_it_trains_repeats_and_comes_back_equal(settings, batch_of, train_on, chunks_of, tmp_path):
    network = make(settings)
    batch = batch_of(network, texts=("find red", "", "größe"))
    network.start(batch)
    train_on(network, batch, range(3))  # VQ-BeT's codes are learned in the first two
    noisy = settings["policy"] != "act"
    chunks = chunks_of(network, batch, noisy)
    assert chunks.shape[1] == settings["chunk_size"]

    folder = save(network, tmp_path / "policy")
    again = open_directory(folder)
    assert (again.embodiment, again.training) == (BODY, False)
    assert again.config.options.items() >= settings["options"].items()
    for key in ("chunk_size", "n_action_steps", "embedding_size", "image_scale"):
        assert getattr(again.config, key) == getattr(network.config, key)
    assert torch.equal(chunks_of(again, batch, noisy), chunks)
    again.forget_processors()
    assert torch.equal(chunks_of(again, batch, noisy), chunks), "statistics did not come back whole"


def open_directory(folder: Path) -> Any:
    from tandem_policies.lerobot.files import open_policy

    return open_policy(folder)


@pytest.mark.parametrize("settings", [ACT, VQBET], ids=["act", "vqbet"])
def test_a_state_dict_is_all_that_a_resumed_training_needs(settings, batch_of, train_on, chunks_of):
    """Regression: LeRobot counts the steps of VQ-BeT's first phase in a plain number, and counts validations too."""
    through = make(settings)
    batch = batch_of(through)
    through.start(batch)
    train_on(through, batch, range(1))
    through.loss(batch)  # a validation
    kept = {name: value.clone() for name, value in through.state_dict().items()}
    train_on(through, batch, range(1, 3))
    resumed = make(settings)
    resumed.load_state_dict(kept)
    train_on(resumed, batch, range(1, 3))
    differ = [
        name for name, value in through.state_dict().items() if not torch.equal(value, resumed.state_dict()[name])
    ]
    assert differ == []
    noisy = settings is VQBET
    assert torch.equal(chunks_of(resumed, batch, noisy), chunks_of(through, batch, noisy))


@pytest.fixture(scope="module")
def act(batch_of) -> PolicyNetwork:
    network = make(ACT)
    network.start(batch_of(network))
    return network.eval()


@pytest.fixture(scope="module")
def act_directory(act, tmp_path_factory) -> Path:
    return save(act, tmp_path_factory.mktemp("act") / "policy")


@pytest.fixture
def copied(act_directory, tmp_path) -> Path:
    """A copy to spoil; the weights are shared."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in act_directory.iterdir():
        if file.name == "model.safetensors":
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_instructions_are_heard(act, batch_of):
    one = predict(act, batch_of(act, texts=["find the red block"]))
    other = predict(act, batch_of(act, texts=["find the blue block"]))
    assert (one - other).abs().max() > 1e-4
    assert torch.equal(predict(act, batch_of(act, texts=["Find the RED block!"])), one)


def test_without_an_embedding_they_are_not(batch_of):
    deaf = make({**ACT, "embedding_size": 0}).eval()
    assert "observation.environment_state" not in deaf.policy.config.input_features
    one, other = (predict(deaf, batch_of(deaf, texts=[text])) for text in ("find the red block", "go"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("settings", [ACT, ENLARGED], ids=["act", "enlarged"])
def test_lerobots_own_road_gives_the_same_actions(settings, batch_of, tmp_path):
    """With LeRobot's factory alone, as its commands open a directory; one observation at a time, from its queue."""
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    network = make(settings)
    network.start(batch_of(network))
    directory = save(network.eval(), tmp_path / "policy")
    policy = get_policy_class("act").from_pretrained(directory)
    side = 64 * settings.get("image_scale", 1)
    assert policy.config.image_features["observation.images.top"].shape == (3, side, side)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(directory))
    batch = batch_of(network, 1)
    ours = predict(network, batch, [(0, 0)])[0, : network.config.n_action_steps]
    policy.reset()
    observation = {
        "observation.images.top": batch["images.top"].permute(0, 3, 1, 2).contiguous().float() / 255,
        "observation.state": batch["state"],
        "task": ["find the red block"],
    }
    theirs = [after(policy.select_action(before(dict(observation)))) for _ in ours]
    assert torch.equal(torch.cat(theirs), ours)


def test_a_pixel_becomes_a_square():
    from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature

    from tandem_policies.lerobot.steps import EnlargeImagesStep

    step = EnlargeImagesStep(2)
    state = torch.rand(1, 2)
    row = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    wanted = torch.tensor([[[[1.0, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6], [4, 4, 5, 5, 6, 6]]]])
    for given, large in ((row, wanted), (row.unsqueeze(1), wanted.unsqueeze(1))):  # also a history of them
        seen: Any = step({"observation": {"observation.images.top": given, "observation.state": state}})["observation"]
        assert torch.equal(seen["observation.images.top"], large)
        assert seen["observation.state"] is state
    features = {PipelineFeatureType.OBSERVATION: {
        "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    }}  # fmt: skip
    shapes = {key: of.shape for key, of in step.transform_features(features)[PipelineFeatureType.OBSERVATION].items()}
    assert shapes == {"observation.images.top": (3, 96, 128), "observation.state": (2,)}
    with pytest.raises(TandemError, match=r"factor is 0 \(allowed: 1\.\.16"):
        EnlargeImagesStep(0)


def test_the_layout_is_lerobots_with_our_embodiment_beside(act_directory):
    names = {path.name for path in act_directory.iterdir()}
    assert names == {
        "config.json", "embodiment.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json",
        "policy_preprocessor_step_4_normalizer_processor.safetensors",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    }  # fmt: skip
    config = json.loads((act_directory / "config.json").read_text())
    assert (config["type"], config["push_to_hub"], config["pretrained_path"]) == ("act", False, None)
    assert is_lerobots(act_directory)
    with pytest.raises(TandemError, match=r"LeRobot's own policies are opened by tandem_policies\.load"):
        load_network(act_directory)


def test_a_frozen_norm_takes_the_scale_of_its_first_data(act, batch_of):
    """A ResNet from scratch has frozen norms that do nothing: features would grow from layer to layer."""
    features = []
    layer = act.policy.model.backbone["layer4"]
    hook = layer.register_forward_hook(lambda module, inputs, output: features.append(output))
    predict(act, batch_of(act))
    hook.remove()
    assert 0.3 < float(features[0].std()) < 3
    assert not torch.equal(act.policy.model.backbone["bn1"].running_var, torch.ones(64))


def test_pretrained_norms_are_left_as_they_are(batch_of):
    """Regression: LeRobot's default is ImageNet's weights, which an option that is left out stands for."""
    network = make({**ACT, "options": dict(ACT["options"])})
    network.policy.config.pretrained_backbone_weights = "ResNet18_Weights.IMAGENET1K_V1"
    network.config.options.pop("pretrained_backbone_weights", None)
    network.start(batch_of(network))
    assert torch.equal(network.policy.model.backbone["bn1"].running_var, torch.ones(64))


@pytest.mark.parametrize("width", [64, 48], ids=["equal", "different"])
def test_all_cameras_count_for_frozen_norms(width):
    """Regression: of several cameras the last one's scales stayed."""
    from torchvision.models import resnet18
    from torchvision.ops.misc import FrozenBatchNorm2d

    from tandem_policies.lerobot.starting import calibrate

    torch.manual_seed(0)
    backbone: Any = resnet18(norm_layer=FrozenBatchNorm2d)
    images = [torch.rand(4, 3, 64, 64), 5 + 3 * torch.rand(4, 3, 64, width)]
    calibrate(torch.nn.ModuleList([backbone]), images)
    reached = []
    backbone.layer2[0].bn2.register_forward_hook(lambda norm, inputs, output: reached.append(output.clone()))
    with torch.no_grad():
        for camera in images:
            backbone(camera[::2])
    values = torch.cat([output.transpose(0, 1).flatten(1) for output in reached], dim=1)
    torch.testing.assert_close(values.mean(1), torch.zeros(128), atol=1e-3, rtol=0)
    torch.testing.assert_close(values.std(1), torch.ones(128), atol=1e-2, rtol=0)


def test_losses_that_leave_padding_out_are_told_by_their_settings():
    assert leaves_padding_out(kind("eo1"), SimpleNamespace(supervise_padding_actions=False))
    assert not leaves_padding_out(kind("eo1"), SimpleNamespace(supervise_padding_actions=True))
    assert leaves_padding_out(kind("diffusion"), SimpleNamespace(do_mask_loss_for_padding=True))
    assert not leaves_padding_out(kind("diffusion"), SimpleNamespace(do_mask_loss_for_padding=False))


def test_a_plugins_policies_are_known_and_our_own_are_not(monkeypatch):
    """Regression: a plugin was imported only after its policy had been refused."""
    from lerobot.policies.act.configuration_act import ACTConfig

    from tandem_policies.lerobot import building

    class PluginsConfig(ACTConfig):
        pass

    def register() -> None:
        ACTConfig.register_subclass("act_of_a_plugin")(PluginsConfig)

    with monkeypatch.context() as patch:
        patch.setattr(building, "register_third_party_plugins", register)
        assert building.config_class("act_of_a_plugin", "here") is PluginsConfig
    with pytest.raises(TandemError, match="unknown name 'tinyvla'"):
        building.config_class("tinyvla", "here")
    assert not {"tinyvla", "lerobot", "groot", "pi0_fast", "wall_x"} & {*building.known_policies()}


def test_a_batch_weighs_as_much_as_its_loss_is_the_mean_of(act, batch_of):
    batch = batch_of(act)
    batch["action_is_pad"][0, 1:] = True
    assert float(act.weight(batch)) == pytest.approx(7 / 9)
    assert float(make({**DDPM, "embedding_size": 0}).weight(batch)) == 1


def test_actions_are_in_units(act, batch_of):
    batch = batch_of(act)
    plain = predict(act, batch)
    other = make(ACT)
    other.load_state_dict(act.state_dict())
    other.set_statistics({**STATISTICS, "action": {**STATISTICS["action"], "mean": np.array([5, 5], np.float32)}})
    shift = torch.tensor([5.0 - 0.2, 5.0 + 0.3])
    torch.testing.assert_close(predict(other.eval(), batch), plain + shift, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "diffusin"}, "unknown name 'diffusin'; did you mean 'diffusion'"),
        ({"policy": "tdmpc"}, "unknown name 'tdmpc'"),
        ({"policy": "act", "options": {"dim_modl": 8}}, "unknown name 'dim_modl'; did you mean 'dim_model'"),
        ({"policy": "act", "options": {"chunk_size": 8}}, "options.chunk_size .allowed: policy.chunk_size"),
        ({"policy": "act", "options": {"optimizer_lr": 1.0}}, "is of LeRobot's training .allowed: trainer.lr"),
        ({"policy": "act", "options": {"device": "cuda"}}, "unknown name 'device'"),
        ({"policy": "act", "options": {"dim_model": "wide"}}, "Couldn't parse 'wide' into an int"),
        ({"policy": "act", "options": {"n_obs_steps": 2}}, "Multiple observation steps not handled"),
        ({"policy": "diffusion", "chunk_size": 3}, "horizon should be an integer multiple"),
        ({"policy": "vqbet", "chunk_size": 4, "n_action_steps": 2}, "n_action_steps is 2 .allowed: chunk_size = 4"),
        ({"policy": "Act"}, "policy is 'Act' .allowed: a type of LeRobot's"),
        (
            {**ACT, "n_action_steps": 1, "options": {**ACT["options"], "temporal_ensemble_coeff": 0.01}},
            r"options.temporal_ensemble_coeff is 0.01 .allowed: null",
        ),
        ({"policy": "act", "embedding_size": 12}, "embedding_size is 12 .allowed: a multiple of 8"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(TandemError, match=message) as caught:
        create("lerobot", BODY, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [ACT, DIFFUSION, VQBET], ids=["act", "diffusion", "vqbet"])
def test_a_robot_without_state_is_refused(settings):
    """Regression: a KeyError inside LeRobot in the first step."""
    with pytest.raises(
        TandemError, match=r"embodiment 'tester' has no state, which it reads \(allowed: .*tinyvla/nano"
    ):
        create("lerobot", replace(BODY, state=()), **settings)


def test_a_camera_of_depth_is_refused():
    body = Embodiment("deep", 10.0, False, (Camera("top", 64, 64, Encoding.DEPTH),), BODY.state, BODY.action)
    with pytest.raises(TandemError, match=r"camera 'top' is depth .allowed: rgb8"):
        create("lerobot", body, **ACT)


def edit(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (BEFORE, lambda c: c["steps"].append({"class": "os.path.Popen", "config": {}}), "a step of class 'os"),
        (BEFORE, lambda c: c["steps"].append({"registry_name": "evil"}), "step: unknown name 'evil'"),
        (
            BEFORE,
            lambda c: c["steps"].append(
                {"registry_name": "action_tokenizer_processor", "config": {"action_tokenizer_name": "."}}
            ),
            "step: unknown name 'action_tokenizer_processor'",
        ),
        (BEFORE, lambda c: c["steps"][0]["config"].update(trust_remote_code=False), "trust_remote_code is set"),
        ("config.json", lambda c: c.update(type="pi0_fast"), "unknown name 'pi0_fast'"),
        ("config.json", lambda c: c.update(temporal_ensemble_coeff=0.01, n_action_steps=1), "coeff is 0.01"),
        (AFTER, lambda c: c["steps"][0].update(state_file="../x.safetensors"), "state_file is"),
        (BEFORE, lambda c: c.update(steps={}), "steps is dict"),
        ("config.json", lambda c: c.update(type="nonsense"), "unknown name 'nonsense'"),
        ("config.json", lambda c: c.update(use_peft=True), "use_peft is true"),
        ("config.json", lambda c: c.update(chunk_size="x"), "chunk_size is 'x' .allowed: int"),
        ("config.json", lambda c: c.update(dim_model=64), "model.safetensors.*size mismatch"),
        ("config.json", lambda c: c["input_features"].pop("observation.state"), "contradict embodiment.json"),
        ("embodiment.json", lambda c: c.update(rate_hz="fast"), "rate_hz must be"),
    ],
)  # fmt: skip
def test_a_hostile_or_broken_directory_is_refused(copied, file, change, message):
    edit(copied / file, change)
    with pytest.raises(TandemError, match=message) as caught:
        open_directory(copied)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(copied):
    weights = load_file(copied / "model.safetensors")
    weights["model.action_head.bias"][0] = float("nan")
    (copied / "model.safetensors").unlink()
    save_file(weights, copied / "model.safetensors")
    with pytest.raises(TandemError, match=r"'model\.action_head\.bias' holds numbers that are not finite"):
        open_directory(copied)
