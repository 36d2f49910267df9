"""A network of ours as a policy of LeRobot's: the same weights, the same file, the same actions bit for bit."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import snapshot_download
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from tandem_datasets.embodiment import Camera, Embodiment, Encoding
from tandem_datasets.errors import TandemError
from tandem_datasets.policy import NoiseKey
from tandem_policies import files
from tandem_policies.adapters import embodiments
from tandem_policies.adapters.configuration import NetworkConfig
from tandem_policies.adapters.embodiments import ACTION, IMAGES, STATE, Statistics
from tandem_policies.network import Assets, PolicyNetwork
from tandem_policies.registry import network_class

EPISODE_SEED = "observation.episode_seed"
"""Where Tandem's environments tell LeRobot the episode's seed, (B, 4): 16 bits in each number, the lowest first."""

_PREFIX = "network."  # of the network's tensors in this module's state dict; the file on disk has them without
_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]  # what is fetched from a hub: no pickles, no code


class NetworkPolicy(PreTrainedPolicy):
    """The base of all adapters. Subclasses name their ``config_class`` and, as ``name``, their policy type.

    ``network`` is the plain module, which normalises, tokenizes and computes the loss. Training through LeRobot takes
    its statistics from ``dataset_stats``; a policy that is trained on keeps those that it was trained with.

    Raises:
        TandemError: the config's values, features, embodiment and statistics contradict one another.
    """

    config_class: ClassVar[type[NetworkConfig]] = NetworkConfig  # type: ignore[misc]
    name: ClassVar[str] = "network"  # type: ignore[misc]

    def __init__(
        self,
        config: NetworkConfig,
        dataset_stats: Statistics | None = None,
        dataset_meta: Any = None,
        assets: Assets | None = None,
    ) -> None:
        super().__init__(config)
        self.config: NetworkConfig = config
        body = _embodiment(config, dataset_stats, dataset_meta)
        self.network: PolicyNetwork = network_class(self.name)(config.settings(), body, assets)
        _require_plain(self.network)
        if dataset_stats:
            self.network.set_statistics(
                {"state": dataset_stats.get(STATE, {}), "action": dataset_stats.get(ACTION, {})}
            )
        config.describe(body)
        self.reset()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        revision: str | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **others: Any,
    ) -> Self:
        """A policy directory, or a repository of the hub, as a policy in evaluation mode.

        ``others`` are LeRobot's further keywords and the constructor's.

        Raises:
            TandemError: a file is missing, damaged or contradicts another, or the policy is of another type.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            fetched = snapshot_download(
                str(pretrained_name_or_path),
                revision=revision,
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=_PATTERNS,
            )
            folder = Path(fetched)
        config = config or PreTrainedConfig.from_pretrained(folder)
        if not isinstance(config, cls.config_class):
            raise TandemError(f"{folder}: type is '{config.type}' (allowed: '{cls.name}')")
        assets = files.read_assets(folder, network_class(cls.name), config.settings())
        return super().from_pretrained(folder, config=config, assets=assets, **others)

    def reset(self) -> None:
        """Begins episodes: forgets what is left of chunks, and who they were drawn for."""
        self._queue: deque[Tensor] = deque()
        self._inferences = 0
        self._seeds: list[int] | None = None

    def get_optim_params(self) -> list[torch.nn.Parameter]:  # type: ignore[override]
        """What is to be trained."""
        return [value for value in self.parameters() if value.requires_grad]

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:  # type: ignore[override]
        """The loss of a batch with ``action`` (B, K, A) in units, and what of it is worth logging."""
        action = batch[ACTION]
        is_pad = batch.get(f"{ACTION}_is_pad")
        targets = {
            "action": action,
            "action_is_pad": torch.zeros(action.shape[:2], dtype=torch.bool, device=action.device)
            if is_pad is None
            else is_pad,
        }
        loss, logged = self.network.loss({**self._seen(batch), **targets})
        return loss, {key: float(value) for key, value in logged.items()}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Chunks float32 (B, K, A) in units.

        Randomness is drawn from (episode seed, inference index), as everywhere in Tandem: ``noise`` is refused.
        """
        if noise is not None:
            raise TandemError(
                f"policy '{self.name}': noise is given (allowed: none, it is drawn from the episode's seed)"
            )
        self.eval()
        tensors = self._seen(batch)
        keys = self._keys(batch, tensors["state"].shape[0])
        self._inferences += 1
        return self.network.predict(tensors, keys)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The next action (B, A) of each; a fresh chunk where the last one's ``n_action_steps`` are played."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch, noise)
            self._queue.extend(chunk[:, : self.config.settings().n_action_steps].unbind(1))
        return self._queue.popleft()

    def _seen(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The observations of a LeRobot batch as the network's (see :mod:`tandem_policies.network`)."""
        body = self.network.embodiment
        tensors = {f"images.{camera.name}": self._pixels(batch, camera) for camera in body.cameras}
        size = next(iter(tensors.values())).shape[0] if tensors else self._entry(batch, STATE).shape[0]
        tensors["state"] = self._entry(batch, STATE).float() if body.state else torch.zeros(size, 0)
        if tensors["state"].shape != (size, body.state_dim):
            self._refuse(STATE, tensors["state"], f"({size}, {body.state_dim})")
        if body.hears_instruction:
            texts = self._entry(batch, "task")
            tensors |= self.network.tokenize([texts] * size if isinstance(texts, str) else list(texts))
        return {key: value.to(self.network.device) for key, value in tensors.items()}

    def _pixels(self, batch: Mapping[str, Any], camera: Camera) -> Tensor:
        """uint8 (B, H, W, C) from LeRobot's float (B, C, H, W) in 0..1, which came from just these bytes."""
        key = IMAGES + camera.name
        image = self._entry(batch, key)
        height, width, channels = camera.shape
        if image.shape[1:] != (channels, height, width):
            self._refuse(key, image, f"(B, {channels}, {height}, {width})")
        if image.is_floating_point():
            image = image.clamp(0, 1).mul(255).round().to(torch.uint8)
        return image.permute(0, 2, 3, 1).contiguous()

    def _entry(self, batch: Mapping[str, Any], key: str) -> Any:
        if key not in batch:
            there = ", ".join(name for name in batch if name == "task" or name.startswith("observation."))
            raise TandemError(f"policy '{self.name}': the batch lacks {key} (it has: {there or 'no observation'})")
        return batch[key]

    def _refuse(self, key: str, came: Tensor, allowed: str) -> None:
        raise TandemError(f"policy '{self.name}': {key} has shape {tuple(came.shape)} (allowed: {allowed})")

    def _keys(self, batch: Mapping[str, Any], size: int) -> list[NoiseKey]:
        """The noise keys of this inference; an environment that tells no seeds gets random ones, until the reset."""
        if self._seeds is None or len(self._seeds) != size:
            told = batch.get(EPISODE_SEED)
            if told is None:
                self._seeds = torch.randint(2**31, (size,)).tolist()
            else:
                self._seeds = [sum(int(part) << 16 * place for place, part in enumerate(row)) for row in told.tolist()]
        return [(seed, self._inferences) for seed in self._seeds]

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Our directory with LeRobot's ``config.json``, which says a little more than ours.

        ``state_dict`` is this module's, gathered from all processes, where weights are sharded.
        """
        tensors = state_dict and {key.removeprefix(_PREFIX): value for key, value in state_dict.items()}
        files.write_layout(self.network, Path(save_directory), tensors)
        self.config._save_pretrained(Path(save_directory))

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:  # type: ignore[override]
        """Takes the file's weights, always strictly: names, shapes and finite numbers are checked."""
        files.load_weights(model.network, Path(model_file))
        return model


def _require_plain(network: PolicyNetwork) -> None:
    """Raises TandemError for a network that wants more of its data than this adapter brings it."""
    starts = type(network).start is not PolicyNetwork.start
    if network.n_obs_steps > 1 or network.n_past_actions or starts:
        raise TandemError(
            f"policy '{network.policy_type}': cannot go LeRobot's road: it sees {network.n_obs_steps} observations, "
            f"learns from {network.n_past_actions} past actions, {'' if starts else 'does not '}look at data first "
            "(allowed: 1, 0, does not)"
        )


def _embodiment(config: NetworkConfig, statistics: Statistics | None, meta: Any) -> Embodiment:
    """The config's own embodiment, else the dataset's, else what the config's features tell; all must agree."""
    where = f"policy '{config.type}'"
    features = {
        key: {"shape": tuple(item.shape)} for part in (config.input_features, config.output_features) if part
        for key, item in part.items()
    }  # fmt: skip
    if config.embodiment is not None:
        body = Embodiment.from_dict(config.embodiment, f"{where}: embodiment")
    elif meta is not None:
        body = embodiments.of_dataset(meta, statistics)
    else:
        body = embodiments.of_features(features, where)
    embodiments.require_shapes(body, features, where)
    if meta is not None:
        embodiments.require_shapes(body, meta.features, f"dataset '{meta.repo_id}'")
    for camera in body.cameras:
        if camera.encoding is not Encoding.RGB8:
            raise TandemError(f"{where}: camera '{camera.name}' is {camera.encoding} (LeRobot's road: rgb8)")
    return body
