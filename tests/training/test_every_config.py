"""Every configuration composes, with every option of each of its groups."""

from importlib.resources import files

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import OmegaConf

from tandem_training.config import CONF_MODULE, compose, group_options
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages import stage_names

COMMANDS = sorted(
    item.name.removesuffix(".yaml") for item in files(CONF_MODULE).iterdir() if item.name.endswith(".yaml")
)


def groups(command):
    with initialize_config_module(CONF_MODULE, version_base="1.3"):
        chosen = hydra_compose(command, return_hydra_config=True).hydra.runtime.choices
    return [name for name in chosen if not name.startswith("hydra/")]


CHOICES = [
    (command, f"{group}={option}")
    for command in COMMANDS
    for group in groups(command)
    for option in group_options(group)
]


def test_there_is_something_to_compose():
    assert "train" in COMMANDS
    assert ("train", "policy=tinyvla/nano") in CHOICES
    assert ("train", "preset=demo") in CHOICES


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_compose(command):
    OmegaConf.to_container(compose(command, []), resolve=True)


@pytest.mark.parametrize(("command", "choice"), CHOICES, ids=[" ".join(pair) for pair in CHOICES])
def test_every_option_composes(command, choice):
    config = OmegaConf.to_container(compose(command, [choice]), resolve=True)
    assert isinstance(config, dict)
    if command == "train":
        TrainerSettings.from_mapping(config["trainer"])
        assert config["stage"]["name"] in stage_names()


@pytest.mark.parametrize("preset", group_options("preset"))
def test_presets_set_trainer_and_policy_only(preset):
    path = files(CONF_MODULE).joinpath("preset", f"{preset}.yaml")
    text = path.read_text()
    assert text.startswith("# @package _global_\n")
    assert {"trainer"} <= set(OmegaConf.create(text)) <= {"policy", "trainer"}


@pytest.mark.parametrize("stage", group_options("stage"))
def test_stage_files_name_a_stage(stage):
    assert compose("train", [f"stage={stage}"]).stage.name in stage_names()
