"""The stage ``policy``: a network learns to act as demonstrated, from one or several stores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tandem_datasets.embodiment import ActionKind, Embodiment
from tandem_datasets.errors import TandemError
from tandem_policies.files import save
from tandem_policies.network import PolicyNetwork, create
from tandem_training.data import Frames, Order, Origin, Split, load_frames, split_episodes, statistics
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages.base import Batch, Best, Shard, Stage

_SAME_WAY = 0.8  # cosine above which two directions count as equal
_STANDS = 0.1  # of the action's range: a shorter target has no direction
_VAL_BATCH = 256


@dataclass(kw_only=True)
class PolicyStage(Stage):
    """Behaviour cloning with the network's own loss; see :func:`build`."""

    module: PolicyNetwork
    frames: Frames
    order: Order
    validation: np.ndarray  # frames to validate on
    tokens: dict[str, Tensor]  # of every instruction, as the network tokenizes them: (I, ...) each

    def batch(self, index: int, shard: Shard) -> Batch:
        return self._gather(self.order(index)[shard.rank :: shard.world])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.module.loss(batch)

    def validate(self) -> dict[str, float]:
        """``loss``; ``action_l2``, the mean Euclidean error of the actions that would be played, in units; and where
        actions are directions their mean ``direction_cosine`` and ``direction_accuracy``.
        """
        played = self.module.config.n_action_steps
        losses, predicted, wanted, real = [], [], [], []
        for at in range(0, len(self.validation), _VAL_BATCH):
            batch = {
                key: value.to(self.module.device)
                for key, value in self._gather(self.validation[at : at + _VAL_BATCH]).items()
            }
            losses.append(self.module.loss(batch)[0].float() * len(batch["action"]))
            predicted.append(self.module.predict(batch)[:, :played].float())
            wanted.append(batch["action"][:, :played])
            real.append(~batch["action_is_pad"][:, :played])
        ours, theirs, there = torch.cat(predicted), torch.cat(wanted), torch.cat(real)
        misses = (ours - theirs).norm(dim=-1)[there]
        metrics = {"loss": float(torch.stack(losses).sum() / len(self.validation)), "action_l2": float(misses.mean())}
        return metrics | _directions(self.module.embodiment, ours[there], theirs[there])

    def save(self, folder: Path) -> None:
        save(self.module, folder)

    def _gather(self, indices: np.ndarray) -> dict[str, Tensor]:
        frames = self.frames
        action, is_pad = frames.windows(indices, self.module.chunk_size)
        steps = self.module.n_obs_steps
        seen = indices if steps == 1 else frames.history(indices, steps)
        batch = {f"images.{name}": torch.from_numpy(images[seen]) for name, images in frames.images.items()}
        spoken = torch.from_numpy(frames.instruction[indices])
        return batch | {
            "state": torch.from_numpy(frames.state[seen]),
            "action": torch.from_numpy(action),
            "action_is_pad": torch.from_numpy(is_pad),
            **{key: rows[spoken] for key, rows in self.tokens.items()},
        }


def build(config: Any, trainer: TrainerSettings) -> PolicyStage:
    """A fresh network and its data, from the composed configuration of `tandem train`.

    Raises:
        TandemError: unusable data (see :func:`tandem_training.data.load_frames`), or a policy that does not fit them.
    """
    from omegaconf import OmegaConf

    data: Any = OmegaConf.select(config, "data")
    data = OmegaConf.to_container(data) if OmegaConf.is_config(data) else data
    paths = [data] if isinstance(data, str) else data
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise TandemError(f"data is {data} (allowed: a store, or a list of stores '[a,b]')")
    frames, digest = load_frames(paths)
    torch.manual_seed(config.seed)
    values: dict[str, Any] = OmegaConf.to_container(config.policy)  # type: ignore[assignment]
    network = create(values.pop("type"), frames.embodiment, **values)
    longest = int((frames.run_end - np.arange(len(frames.run_end)))[frames.usable].max())
    if network.chunk_size > longest:
        raise TandemError(
            f"policy.chunk_size is {network.chunk_size} "
            f"(allowed: 1..{longest}, the longest stretch of targets in the data)"
        )
    split = split_episodes(frames, _fraction(config.stage.val_fraction), config.seed)
    network.set_statistics(statistics(frames, split.train))
    facts = {"data": paths, **_facts(frames, split)}
    return PolicyStage(
        name="policy",
        module=network,
        best=Best("action_l2"),
        facts=facts,
        notes=_notes(facts),
        fingerprint={"data": digest},
        frames=frames,
        order=Order(split.train, trainer.batch_size, config.seed),
        validation=_thinned(split.validation, config.stage.val_frames),
        tokens=network.tokenize(frames.instructions),
    )


def _fraction(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise TandemError(f"stage.val_fraction is {value} (allowed: above 0, below 1)")
    return float(value)


def _thinned(indices: np.ndarray, most: Any) -> np.ndarray:
    """At most ``most`` of the indices, evenly spread."""
    if not isinstance(most, int) or most < 1:
        raise TandemError(f"stage.val_frames is {most} (allowed: a whole number, at least 1)")
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]


def _facts(frames: Frames, split: Split) -> dict[str, Any]:
    counts = {origin: int((frames.origin == origin).sum()) for origin in Origin}
    return {
        "frames": len(frames.origin),
        "frames_labelled": counts[Origin.LABEL],
        "frames_left_out": counts[Origin.NONE],
        "episodes_train": split.train_episodes,
        "episodes_validation": split.validation_episodes,
        "validates_on_training_data": split.shared,
        "instructions": len(frames.instructions),
    }


def _notes(facts: dict[str, Any]) -> list[str]:
    episodes = f"{facts['episodes_train']} episodes to learn from, {facts['episodes_validation']} to validate on"
    notes = [f"{facts['frames']} frames; {episodes}"]
    if facts["frames_left_out"]:
        notes.append(
            f"{facts['frames_left_out']} frames have no target (a policy acted, no expert was asked): left out"
        )
    if facts["validates_on_training_data"]:
        notes.append("warning: there is a single episode; it is validated on what it learns from")
    return notes


def _directions(embodiment: Embodiment, ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Cosine metrics over actions (N, A), where the action is a displacement in a plane or in space."""
    scalars = embodiment.action
    kinds = {scalar.kind for scalar in scalars}
    if not 2 <= len(scalars) <= 3 or len({scalar.unit for scalar in scalars}) > 1 or ActionKind.ABSOLUTE in kinds:
        return {}
    reach = max(max(abs(scalar.low), abs(scalar.high)) for scalar in scalars)
    moves = theirs.norm(dim=-1) > _STANDS * reach
    if not moves.any():
        return {}
    cosines = F.cosine_similarity(ours[moves], theirs[moves], dim=-1)
    return {
        "direction_cosine": float(cosines.mean()),
        "direction_accuracy": float((cosines > _SAME_WAY).float().mean()),
    }
