"""A LeRobot policy as a network of Tandem's: our batches and units outside, its own processors and losses inside."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lerobot.processor import ProcessorStep
from torch import Tensor

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.policy import NoiseKey
from tandem_policies.lerobot import backbones, building, predicting, starting
from tandem_policies.lerobot.building import IMAGES, Pipelines
from tandem_policies.lerobot.config import LerobotConfig
from tandem_policies.lerobot.feature_cache import remember_features
from tandem_policies.lerobot.kinds import STATE, is_random, kind, leaves_padding_out
from tandem_policies.lerobot.steps import EnlargeImagesStep, InstructionEmbeddingStep
from tandem_policies.network import Assets, Batch, PolicyNetwork

_QUANTITIES = ("mean", "std", "min", "max")
_UNCHANGED = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}  # with these, normalising changes nothing


class LerobotPolicy(PolicyNetwork):
    """Any LeRobot policy that imitates chunks of actions.

    LeRobot normalises in its processors. Their statistics are buffers here, so that a resumed training has them, and
    are written into the processor files of a policy directory. ``tokenize`` carries the instruction as bytes: texts
    are LeRobot's own affair.
    """

    policy_type = "lerobot"

    def __init__(self, config: LerobotConfig, embodiment: Embodiment, assets: Assets | None = None) -> None:
        super().__init__(config, embodiment, assets)
        self.config: LerobotConfig = config
        self._where = f"policy 'lerobot/{config.policy}'"
        self._kind = kind(config.policy)
        self._embedded_in = building.embedding_key(config, embodiment)
        settings = building.lerobot_config(config, embodiment)
        self.n_obs_steps, self.n_past_actions, self._window = building.time_window(settings)
        outlined = torch.get_default_device().type == "meta"
        if outlined:
            settings.device = "meta"  # some policies go to their device by themselves
        with building.weights_come_later(settings) if assets is not None or outlined else nullcontext():
            self.policy = building.make_policy(settings, self._where)
        for camera in embodiment.cameras:
            for quantity in _QUANTITIES:
                start = torch.ones(3) if quantity in ("std", "max") else torch.zeros(3)
                self.register_buffer(_pixels(camera.name, quantity), start)
        self.register_buffer("vqvae_steps", torch.zeros((), dtype=torch.long))  # LeRobot's count is no buffer
        self._remembers = False
        self._pipelines: tuple[torch.device, Pipelines] | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module.forget_processors())

    @property
    def chunk_size(self) -> int:
        """Actions from the newest observation on that its loss wants; :meth:`predict` gives the config's."""
        return self._window

    @classmethod
    def asset_names(cls, config: Any) -> tuple[str, ...]:
        """None: texts are LeRobot's own affair."""
        return ()

    def assets(self) -> Assets:
        """None: texts are LeRobot's own affair."""
        return {}

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """``text`` uint8 (B, L): the texts' bytes in UTF-8, padded with zeros. Nothing, if no instruction is heard."""
        if not self.embodiment.hears_instruction:
            return {}
        rows = [text.encode("utf-8", "replace") for text in texts]
        table = np.zeros((len(rows), max([1, *map(len, rows)])), np.uint8)
        for row, data in zip(table, rows, strict=True):
            row[: len(data)] = np.frombuffer(data, np.uint8)
        return {"text": torch.from_numpy(table)}

    def set_statistics(self, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """As the base; the processors are made anew with them."""
        super().set_statistics(statistics)
        self.forget_processors()

    def train(self, mode: bool = True) -> Self:
        """As the base; image backbones are quicker while training, and round as LeRobot's otherwise."""
        backbones.quicken(self, quick=mode)
        return super().train(mode)

    def start(self, batch: Batch) -> None:
        """Takes the images' statistics, and the scales of a backbone whose normalisation is frozen, from a batch.

        Warns of a vision-language-action model that begins at random.
        """
        if is_random(self._kind, self.policy.config):
            count = sum(value.numel() for value in self.policy.parameters()) / 1e6
            warnings.warn(
                f"{self._where}: no weights of its {count:,.0f} M parameters are pretrained; "
                "expect little of it without much data and compute",
                stacklevel=2,
            )
        for camera in self.embodiment.cameras:
            for quantity, values in starting.pixel_statistics(batch[f"images.{camera.name}"]).items():
                self.get_buffer(_pixels(camera.name, quantity)).copy_(values)
        self.forget_processors()
        if (
            getattr(self.policy.config, "pretrained_backbone_weights", None) is not None
        ):  # LeRobot's default is not None
            return  # its scales are part of the weights
        inputs = self._before(self._raw(batch))
        starting.calibrate(self.policy, [inputs[IMAGES + camera.name] for camera in self.embodiment.cameras])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """LeRobot's ``forward``, and the numbers that it tells beside the loss."""
        if self.training and not self._remembers:
            remember_features(self.policy)  # only now is it known what is frozen
            self._remembers = True
        raw = self._raw(batch)
        raw["action"], raw["action_is_pad"] = batch["action"], batch["action_is_pad"]
        if self.n_past_actions:
            raw["action"] = torch.cat([batch["past_action"], raw["action"]], dim=1)
            raw["action_is_pad"] = torch.cat([batch["past_action_is_pad"], raw["action_is_pad"]], dim=1)
        with starting.counted(self.policy, self.get_buffer("vqvae_steps"), self.training):
            loss, told = self.policy.forward(self._before(raw))
        loss = loss.mean()  # VQ-VAEs give one number in a row
        numbers = {name: torch.as_tensor(value) for name, value in (told or {}).items() if _is_number(value)}
        return loss, {**numbers, "loss": loss.detach()}

    def weight(self, batch: Batch) -> Tensor:
        """Padding is left out of some policies' losses, and of others if asked; else all batches weigh the same."""
        if not leaves_padding_out(self._kind, self.policy.config):
            return batch["action"].new_ones(())
        names = ["action_is_pad", *(["past_action_is_pad"] if self.n_past_actions else [])]
        return (~torch.cat([batch[name] for name in names], dim=1)).float().mean()

    def predict(self, batch: Batch, keys: Sequence[NoiseKey] | None = None) -> Tensor:
        """Chunks float32 (B, K, A) in units. With keys, row b depends on its observations and ``keys[b]`` alone."""
        raw = self._raw(batch)
        noise = None
        if keys is not None and predicting.takes_noise(self.policy, self._kind):
            noise = predicting.draw(self.policy, self._kind, keys)
        elif keys is not None and predicting.is_random(self.config.policy):
            rows = [self._chunks(_row(raw, at), seed=key) for at, key in enumerate(keys)]
            return torch.cat(rows)
        return self._chunks(raw, noise=noise)

    def write(self, folder: Path) -> None:
        """LeRobot's layout, written by LeRobot, and beside it our embodiment."""
        from tandem_policies.lerobot.files import write_policy

        write_policy(self, folder)

    def forget_processors(self) -> None:
        """Has the processors made anew, after their statistics have changed."""
        self._pipelines = None

    def take_processors(self, pipelines: Pipelines) -> None:
        """Uses these processors, and their statistics, instead of those that LeRobot would make."""
        for state in pipelines[0].state_dict().values():
            for name, values in state.items():
                key, _, quantity = name.rpartition(".")
                buffer = self._statistic(key, quantity)
                if buffer is not None:
                    if values.numel() < buffer.numel() or not torch.isfinite(values).all():
                        raise TandemError(f"{self._where}: statistics of {key} are no {buffer.numel()} finite numbers")
                    buffer.copy_(values.flatten()[: buffer.numel()])
        self._pipelines = (self.device, pipelines)

    def processors(self) -> Pipelines:
        """LeRobot's processors with our statistics, on the network's device."""
        if self._pipelines is None or self._pipelines[0] != self.device:
            self.policy.config.device = str(self.device)
            made = building.make_processors(self.policy.config, self._statistics(), self._steps())
            self._pipelines = (self.device, made)
        return self._pipelines[1]

    def _before(self, raw: dict[str, Any]) -> dict[str, Any]:
        inputs = self.processors()[0](raw)
        return {key: value for key, value in inputs.items() if value is not None}

    def _chunks(self, raw: dict[str, Any], noise: Tensor | None = None, seed: NoiseKey | None = None) -> Tensor:
        inputs = self._before(raw)
        chunks = predicting.chunks(self.policy, self._kind, inputs, self.config.chunk_size, noise, seed)
        return self.processors()[1](chunks.float()).to(self.device)

    def _raw(self, batch: Batch) -> dict[str, Any]:
        """What LeRobot's processors take: images float32 (B, [T,] C, H, W) in 0..1, units, and the task as texts."""
        raw: dict[str, Any] = {}
        for camera in self.embodiment.cameras:
            pixels = batch[f"images.{camera.name}"].movedim(-1, -3)
            if not self.training:
                pixels = pixels.contiguous()  # as LeRobot has them, so that its predictions are ours bit for bit
            raw[IMAGES + camera.name] = pixels.float() / 255
        if self.embodiment.state_dim:
            raw[STATE] = batch["state"]
        if self._kind.history and self.n_obs_steps == 1:
            raw = {key: value.unsqueeze(1) for key, value in raw.items()}
        if self.embodiment.hears_instruction:
            raw["task"] = [bytes(row).rstrip(b"\0").decode("utf-8", "replace") for row in batch["text"].cpu().numpy()]
        return raw

    def _steps(self) -> list[ProcessorStep]:
        """Steps of ours, where they are wanted."""
        steps: list[ProcessorStep] = []
        if self._embedded_in:
            steps.append(InstructionEmbeddingStep(self.config.embedding_size, self._embedded_in))
        if self.config.image_scale > 1:
            steps.append(EnlargeImagesStep(self.config.image_scale))
        return steps

    def _statistic(self, key: str, quantity: str) -> Tensor | None:
        """The buffer of a statistic by LeRobot's key."""
        name = {STATE: "state", "action": "action"}.get(key, f"images_{key.removeprefix(IMAGES)}")
        return dict(self.named_buffers(recurse=False)).get(f"{name}_{quantity}")

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        """LeRobot's statistics; what is appended to the state keeps its numbers."""
        keys = [STATE, "action", *(IMAGES + camera.name for camera in self.embodiment.cameras)]
        made: dict[str, dict[str, Tensor]] = {}
        for key in keys:
            for quantity in _QUANTITIES:
                buffer = self._statistic(key, quantity)
                assert buffer is not None, key
                values = buffer.detach().clone()
                if key == self._embedded_in:
                    values = torch.cat([values, values.new_full((self.config.embedding_size,), _UNCHANGED[quantity])])
                if values.numel():
                    made.setdefault(key, {})[quantity] = values.view(-1, 1, 1) if key.startswith(IMAGES) else values
        return made


Network = LerobotPolicy


def _pixels(camera: str, quantity: str) -> str:
    return f"images_{camera}_{quantity}"


def _row(raw: Mapping[str, Any], at: int) -> dict[str, Any]:
    return {key: value[at : at + 1] for key, value in raw.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
