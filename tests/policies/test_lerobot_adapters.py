"""Our networks and environments through LeRobot's own doors, in one process: its import costs 16 s of CPU time."""

import json
import os
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch

import tandem_policies
from tandem_datasets.errors import TandemError
from tandem_datasets.formats.lerobot import export
from tandem_datasets.rollout import EXPERT, EnvSpec, RolloutRequest
from tandem_datasets.store import Store
from tandem_policies import files
from tandem_policies.network import create
from tandem_sim.blockfind import task
from tandem_sim.rollout import run

ROOT = Path(__file__).resolve().parents[2]
ENV = EnvSpec("tandem/BlockFind-v0")
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
TINY = {
    "dim": 32,
    "heads": 2,
    "fusion_heads": 4,
    "head_dim": 16,
    "vision_depth": 1,
    "chunk_size": 3,
    "n_action_steps": 2,
}
VARIANTS = {
    "continuous": {},
    "flow": {"head": "flow", "fusion": "gated"},
    "bins": {"head": "bins", "fusion": "tokens"},
    "speaking": {"text_decoder": True, "fusion": "pooled"},
}


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory):
    """LeRobot as its commands start: plugins found by their distributions, no hub."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    torch.set_num_threads(1)


def make_policy_directory(target: Path, **config) -> Path:
    torch.manual_seed(0)
    network = create("tinyvla", task.EMBODIMENT, **{**TINY, **config})
    rng = np.random.default_rng(1)
    network.set_statistics(
        {key: dict(zip(("min", "mean", "max", "std"), np.sort(rng.random((4, 2)), axis=0), strict=True))
         for key in ("state", "action")}
    )  # fmt: skip
    return files.save(network, target)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_policy_directory(tmp_path_factory.mktemp("policies") / "policy")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "episodes.zarr"
    run(RolloutRequest(ENV, EXPERT, episodes=4, seed=0, record=path), lambda _: None)
    return Store(path)


@pytest.fixture(scope="module")
def dataset(lerobot, store, tmp_path_factory):
    return export(store, tmp_path_factory.mktemp("datasets") / "blockfind")


def load(directory: Path, *overrides: str):
    """What ``lerobot-eval --policy.path=`` makes: config, policy and processors."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import make_env_config
    from lerobot.policies import make_policy, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(directory, cli_overrides=["--device=cpu", *overrides])
    config.pretrained_path = directory
    policy = make_policy(config, env_cfg=make_env_config("tandem"))
    return config, policy, make_pre_post_processors(config, pretrained_path=str(directory))


def rolled_out(policy, processors, seeds: list[int]) -> dict[str, torch.Tensor]:
    """LeRobot's own rollout on our environment, all seeds at once."""
    from lerobot.envs import make_env, make_env_config, make_env_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout

    config = make_env_config("tandem")
    envs = make_env(config, n_envs=len(seeds))["tandem"][0]
    found = rollout(envs, policy, *make_env_pre_post_processors(config, policy.config), *processors, seeds=seeds)
    envs.close()
    return found


def meta(dataset: Path):
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

    return LeRobotDatasetMetadata("tandem/blockfind", root=dataset)


def training_batch(dataset: Path, config, size: int) -> dict:
    """A batch as ``lerobot-train`` makes one, before its preprocessor."""
    from lerobot.datasets.factory import resolve_delta_timestamps
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    deltas = resolve_delta_timestamps(config, meta(dataset))
    samples = LeRobotDataset("tandem/blockfind", root=dataset, delta_timestamps=deltas)
    return torch.utils.data.default_collate([samples[index] for index in range(size)])


def test_the_plugins_are_found_under_their_names(lerobot):
    """LeRobot looks for distributions by their prefix, underscores included."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs import EnvConfig
    from lerobot.processor import ProcessorStepRegistry

    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for folder, name in (("policies", "lerobot_policy_tandem"), ("sim", "lerobot_env_tandem")):
        assert distribution(name).metadata["Name"] == name
        project = tomllib.loads((ROOT / folder / name / "pyproject.toml").read_text())["project"]
        assert project["version"] == distribution(name).version == ours
        assert project["dependencies"] == [f"tandem-robotics[lerobot]=={ours}"]
    assert "tinyvla" in PreTrainedConfig.get_known_choices()
    assert "tandem" in EnvConfig.get_known_choices()
    assert "tandem_instruction_embedding" in ProcessorStepRegistry.list()


@pytest.mark.parametrize("variant", VARIANTS)
def test_actions_are_bit_equal_on_both_roads(lerobot, tmp_path, variant):
    """Whole episodes by LeRobot's rollout and by ours; the flow head draws its noise from the episode's seed."""
    from tandem_training.benches._lerobot import adapter_equal

    directory = make_policy_directory(tmp_path / "policy", **VARIANTS[variant])
    row = adapter_equal(directory, episodes=3)
    assert row.value is True, row.note
    assert row.repeats >= 20


def test_what_either_writes_the_other_reads(lerobot, directory, tmp_path):
    _, policy, processors = load(directory, "--n_action_steps=1")
    for part in (policy, *processors):
        part.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in directory.iterdir()}
    for name in (files.WEIGHTS, "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()
    for name in PROCESSORS:
        assert json.loads((tmp_path / name).read_text()) == json.loads((directory / name).read_text())

    ours, back = tandem_policies.load(directory, "cpu"), tandem_policies.load(tmp_path, "cpu")
    assert (back.identity, back.embodiment) == (ours.identity, ours.embodiment)
    assert (ours.n_action_steps, back.n_action_steps) == (2, 1)

    again = type(policy).from_pretrained(tmp_path)
    assert again.config.n_action_steps == 1
    assert all(map(torch.equal, again.state_dict().values(), policy.state_dict().values()))
    assert not again.training


def test_processors_load_with_what_lerobot_train_overrides(lerobot, directory):
    """It names the normalisers' steps when it trains a policy on, and a name that is not there is an error."""
    from lerobot.policies import make_pre_post_processors

    config, _, _ = load(directory)
    features = {**config.input_features, **config.output_features}
    normal = {"features": features, "norm_map": config.normalization_mapping, "stats": {"action": {"mean": np.ones(2)}}}
    before, after = make_pre_post_processors(
        config,
        pretrained_path=str(directory),
        preprocessor_overrides={
            "device_processor": {"device": "cpu"},
            "normalizer_processor": normal,
            "rename_observations_processor": {"rename_map": {}},
        },
        postprocessor_overrides={"unnormalizer_processor": normal},
    )
    state, action = torch.rand(1, 2), torch.rand(1, 2)
    batch = before({"observation.state": state, "action": action, "task": ["find the red block"]})
    assert torch.equal(batch["observation.state"], state)
    assert torch.equal(batch["action"], action)
    assert batch["task"] == ["find the red block"]
    assert torch.equal(after(action), action)


def test_every_byte_of_a_picture_survives_lerobots_floats(lerobot, directory):
    _, policy, _ = load(directory)
    picture = torch.arange(256).repeat(48).to(torch.uint8).view(1, 64, 64, 3)
    floats = picture.permute(0, 3, 1, 2).contiguous().type(torch.float32) / 255  # as preprocess_observation does
    seen = {"observation.images.top": floats, "observation.state": torch.zeros(1, 2), "task": ["go"]}
    assert torch.equal(policy._seen(seen)["images.top"], picture)
    assert torch.equal(
        policy._seen({**seen, "observation.images.top": picture.permute(0, 3, 1, 2)})["images.top"], picture
    )


def test_a_batch_of_episodes_acts_like_single_ones(lerobot, half_trained):
    """Each in its own length, which its success decides."""
    _, policy, processors = load(half_trained)
    seeds = list(range(11, 23))
    together = rolled_out(policy, processors, seeds)
    successes = []
    for place, seed in enumerate(seeds):
        alone = rolled_out(policy, processors, [seed])
        length = alone["action"].shape[1]
        torch.testing.assert_close(together["action"][place, :length], alone["action"][0], rtol=0, atol=1e-5)
        for key in ("success", "done"):
            assert torch.equal(together[key][place, :length], alone[key][0])
        successes.append(bool(alone["success"].any()))
    assert 0 < sum(successes) < len(seeds)


def test_a_dataset_is_what_was_recorded(dataset, store):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    found = LeRobotDataset("tandem/blockfind", root=dataset)
    assert (len(found), found.num_episodes, found.fps) == (store.n_frames, 4, 30)
    pictures, state, action = (store.load(key) for key in ("top", "state", "action"))
    texts = [store.instructions[code] for code in store.load("instruction")]
    for row in range(0, store.n_frames, 3):
        item = found[row]
        picture = item["observation.images.top"].mul(255).round().to(torch.uint8).permute(1, 2, 0)
        np.testing.assert_array_equal(picture.numpy(), pictures[row])
        np.testing.assert_array_equal(item["observation.state"].numpy(), state[row])
        np.testing.assert_array_equal(item["action"].numpy(), action[row])
        assert item["task"] == texts[row]


def test_a_place_in_use_is_not_overwritten(dataset, store):
    def contents() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in [*dataset.parent.iterdir(), *dataset.rglob("*")]}

    before = contents()
    with pytest.raises(TandemError, match="is in use"):
        export(store, dataset)
    assert contents() == before


def test_a_fresh_policy_learns_from_a_dataset_and_opens_in_tandem(lerobot, dataset, store, tmp_path):
    """What ``lerobot-train --policy.type=tinyvla`` does, step by step."""
    from lerobot.policies import make_policy, make_policy_config, make_pre_post_processors

    config = make_policy_config("tinyvla", device="cpu", **TINY)
    torch.manual_seed(3)
    policy = make_policy(config, ds_meta=meta(dataset))
    assert policy.network.embodiment == task.EMBODIMENT
    statistics = meta(dataset).stats
    np.testing.assert_allclose(policy.network.action_mean, store.load("action").mean(0), atol=1e-6)
    np.testing.assert_allclose(policy.network.state_max, statistics["observation.state"]["max"], atol=1e-6)

    processors = make_pre_post_processors(config, dataset_stats=statistics)
    batch = processors[0](training_batch(dataset, config, 8))
    assert batch["action"].shape == (8, 3, 2)
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    policy.train()
    losses = []
    for _ in range(15):
        loss, logged = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(isinstance(value, float) for value in logged.values())
    assert min(losses[-3:]) < 0.8 * losses[0]

    policy.save_pretrained(tmp_path / "trained")
    ours = tandem_policies.load(tmp_path / "trained", "cpu")
    request = RolloutRequest(ENV, "trained", episodes=1, seed=9, load_policy=lambda: ours)
    assert run(request, lambda _: None)[0].steps > 0


def test_the_loss_is_the_networks_own(lerobot, dataset, directory):
    config, policy, processors = load(directory)
    batch = processors[0](training_batch(dataset, config, 4))
    store_like = {
        "images.top": (batch["observation.images.top"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1),
        "state": batch["observation.state"],
        "action": batch["action"],
        "action_is_pad": batch["action_is_pad"],
        **policy.network.tokenize(batch["task"]),
    }
    assert batch["action_is_pad"].any()
    assert torch.equal(policy.forward(batch)[0], policy.network.loss(store_like)[0])


def test_any_robots_features_make_a_policy_that_comes_back(lerobot, tmp_path):
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies import get_policy_class, make_policy_config

    config = make_policy_config(
        "tinyvla",
        device="cpu",
        input_features={
            "observation.images.wrist": PolicyFeature(FeatureType.VISUAL, (3, 32, 48)),
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (4,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
        **TINY,
    )
    policy = get_policy_class("tinyvla")(config).eval()
    assert set(config.input_features) == {"observation.images.wrist", "observation.state"}
    policy.save_pretrained(tmp_path)
    back = tandem_policies.load(tmp_path, "cpu")
    assert (back.embodiment.state_dim, back.embodiment.action_dim) == (6, 7)
    again = type(policy).from_pretrained(tmp_path)
    seen = {"observation.images.wrist": torch.rand(2, 3, 32, 48), "observation.state": torch.rand(2, 6), "task": "go"}
    assert torch.equal(again.predict_action_chunk(seen), policy.predict_action_chunk(seen))


def test_weights_gathered_from_shards_are_saved_the_same(lerobot, directory, tmp_path):
    """FSDP hands over this module's whole state dict, whose names have a prefix that the file's have not."""
    _, policy, _ = load(directory)
    gathered = {key: value.clone() for key, value in policy.state_dict().items()}
    policy.save_pretrained(tmp_path, state_dict=gathered)
    assert (tmp_path / files.WEIGHTS).read_bytes() == (directory / files.WEIGHTS).read_bytes()


def test_noise_is_drawn_from_seeds_and_inferences(lerobot, tmp_path):
    _, policy, _ = load(make_policy_directory(tmp_path / "flow", head="flow"))
    seen = {"observation.images.top": torch.rand(1, 3, 64, 64), "observation.state": torch.rand(1, 2), "task": ["go"]}
    seeded = {**seen, "observation.episode_seed": torch.tensor([[5.0, 1.0, 0.0, 0.0]])}
    first = policy.predict_action_chunk(seeded)
    assert not torch.equal(policy.predict_action_chunk(seeded), first)
    policy.reset()
    assert torch.equal(policy.predict_action_chunk(seeded), first)
    policy.reset()
    assert not torch.equal(policy.predict_action_chunk(seen), first)
    with pytest.raises(TandemError, match=r"noise is given \(allowed: none"):
        policy.select_action(seen | {"task": "go"}, noise=torch.zeros(1))


def test_contradictions_are_named(lerobot, dataset, directory, tmp_path):
    from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
    from lerobot.policies import get_policy_class, make_policy_config

    policy_class = get_policy_class("tinyvla")
    _, policy, _ = load(directory)
    seen = {"observation.images.top": torch.rand(1, 3, 64, 64), "observation.state": torch.rand(1, 2), "task": ["go"]}
    for change, message in (
        ({"observation.images.top": torch.rand(1, 3, 32, 32)}, r"observation.images.top has shape .*\(B, 3, 64, 64\)"),
        ({"observation.state": torch.rand(1, 3)}, r"observation.state has shape \(1, 3\) \(allowed: \(1, 2\)\)"),
    ):
        with pytest.raises(TandemError, match=message):
            policy.predict_action_chunk({**seen, **change})
    with pytest.raises(TandemError, match="the batch lacks task"):
        policy.predict_action_chunk({key: value for key, value in seen.items() if key != "task"})

    config = PreTrainedConfig.from_pretrained(directory)
    with pytest.raises(TandemError, match=r"statistics: action.mean is .* \(allowed: 2 finite numbers\)"):
        policy_class(config, dataset_stats={"observation.state": meta(dataset).stats["observation.state"],
                                            "action": {"mean": np.zeros(3)}})  # fmt: skip
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
    with pytest.raises(TandemError, match=r"policy 'tinyvla': action has shape \(7,\) \(allowed: \(2,\)"):
        policy_class.from_pretrained(directory, config=config)
    with pytest.raises(TandemError, match="dim is 30"):
        make_policy_config("tinyvla", device="cpu", **{**TINY, "dim": 30})

    broken = make_policy_directory(tmp_path / "broken")
    (broken / files.WEIGHTS).write_bytes((broken / files.WEIGHTS).read_bytes()[:-8])
    with pytest.raises(TandemError, match=r"model.safetensors: damaged"):
        policy_class.from_pretrained(broken)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(TandemError, match=r"tokenizer.json: cannot be read"):
        policy_class.from_pretrained(broken)
