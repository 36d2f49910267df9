"""The stage ``policy``: a network learns to act as demonstrated, from one or several stores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_policies.files import save
from tandem_policies.network import PolicyNetwork
from tandem_training.ablation import ablated
from tandem_training.accuracy import are_directions, directions, errors
from tandem_training.data import (
    Frames,
    Order,
    Origin,
    Split,
    WeightedOrder,
    load_frames,
    split_episodes,
    split_stores,
    statistics,
    thinned,
)
from tandem_training.engine.settings import TrainerSettings
from tandem_training.initial import goes_on, start_network, start_statistics
from tandem_training.named_data import TrainingStores, training_stores, training_weights
from tandem_training.stages.base import Batch, Best, Shard, Stage

_VAL_BATCH = 256
_FIRST_LOOK = 256  # samples that a fresh network may look at before its first step
_SHOWN = 16  # validation samples on a sheet of predictions


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

    def weight(self, batch: Batch) -> Tensor:
        return self.module.weight(batch)

    def validate(self) -> dict[str, float]:
        """``loss``; ``action_l2``, the mean Euclidean error of the actions that would be played, in units; and where
        actions are directions their mean ``direction_cosine`` and ``direction_accuracy``.
        """
        losses: list[tuple[Tensor, Tensor]] = []
        ours, theirs, there = self._predictions(self.validation, losses)
        totals, weights = (torch.stack(column).sum() for column in zip(*losses, strict=True))
        loss = float(totals / weights.clamp(min=1e-12))
        metrics = {"loss": loss, "action_l2": float(errors(ours, theirs)[there].mean())}
        return metrics | _directions(self.module.embodiment, ours[there], theirs[there])

    def pictures(self) -> dict[str, np.ndarray]:
        """``predictions``: a sheet of validation samples with what was asked, the true and the predicted action."""
        from tandem_training.sheets import Case, sheet

        shown = thinned(self.validation, _SHOWN)
        ours, theirs, there = self._predictions(shown)
        embodiment, frames = self.module.embodiment, self.frames
        cases = [
            Case(
                images={name: images[index] for name, images in frames.images.items()},
                state=frames.state[index],
                instruction=frames.instructions[frames.instruction[index]],
                theirs=theirs[place][there[place]],
                ours=ours[place][there[place]],
            )
            for place, index in enumerate(shown)
        ]
        return {"predictions": sheet(embodiment, cases)}

    def save(self, folder: Path) -> None:
        save(self.module, folder)

    def _predictions(
        self, indices: np.ndarray, losses: list[tuple[Tensor, Tensor]] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicted and true actions (N, P, A) of those that would be played, and which are no padding (N, P).

        ``losses`` takes the loss of each batch times its weight, and that weight.
        """
        played = self.module.config.n_action_steps
        found: list[tuple[np.ndarray, ...]] = []
        for at in range(0, len(indices), _VAL_BATCH):
            gathered = self._gather(indices[at : at + _VAL_BATCH])
            batch = {key: value.to(self.module.device) for key, value in gathered.items()}
            with torch.no_grad():
                if losses is not None:
                    weight = self.module.weight(batch).float() * len(batch["action"])
                    losses.append((self.module.loss(batch)[0].float() * weight, weight))
                chunk = self.module.predict(batch)[:, :played].float()
            columns = chunk, batch["action"][:, :played], ~batch["action_is_pad"][:, :played]
            found.append(tuple(column.cpu().numpy() for column in columns))
        ours, theirs, there = (np.concatenate(column) for column in zip(*found, strict=True))
        return ours, theirs, there

    def _gather(self, indices: np.ndarray) -> dict[str, Tensor]:
        frames = self.frames
        action, is_pad = frames.windows(indices, self.module.chunk_size)
        steps = self.module.n_obs_steps
        seen = indices if steps == 1 else frames.history(indices, steps)
        batch = {f"images.{name}": torch.from_numpy(images[seen]) for name, images in frames.images.items()}
        if self.module.n_past_actions:
            past, past_is_pad = frames.past(indices, self.module.n_past_actions)
            batch |= {"past_action": torch.from_numpy(past), "past_action_is_pad": torch.from_numpy(past_is_pad)}
        spoken = torch.from_numpy(frames.instruction[indices])
        return batch | {
            "state": torch.from_numpy(frames.state[seen]),
            "action": torch.from_numpy(action),
            "action_is_pad": torch.from_numpy(is_pad),
            **{key: rows[spoken] for key, rows in self.tokens.items()},
        }


def build(config: Any, trainer: TrainerSettings) -> PolicyStage:
    """A network, fresh or one to fine-tune, and its data, from the composed configuration of `tandem train`.

    Raises:
        TandemError: unusable data (see :func:`tandem_training.data.load_frames`), or a policy that does not fit them.
    """
    from omegaconf import OmegaConf

    stores = training_stores(OmegaConf.select(config, "data"))
    weights = training_weights(config.data_weights, stores)
    frames, digest = load_frames([*stores.learn, *stores.validate], images=config.stage.images)
    frames = ablated(frames, config.stage.ablate, config.seed)
    torch.manual_seed(config.seed)
    network = start_network(config, frames.embodiment)
    longest = int((frames.run_end - np.arange(len(frames.run_end)))[frames.usable].max())
    if network.chunk_size > longest:
        raise TandemError(
            f"policy.chunk_size is {network.chunk_size} "
            f"(allowed: 1..{longest}, the longest stretch of targets in the data)"
        )
    fraction = _fraction(config.stage.val_fraction)
    if stores.validate:
        split = split_stores(frames, len(stores.learn))
    else:
        split = split_episodes(frames, fraction, config.seed)
    resumed = goes_on(config)  # then what was looked at is in the checkpoint
    if not resumed:
        start_statistics(config, network, statistics(frames, split.train, weights))
    facts = {"data": [*stores.learn, *stores.validate], "data_weights": weights, **_facts(frames, split)}
    fingerprint = {"data": _fingerprint(digest, stores)}
    if weights:
        fingerprint["data_weights"] = str(weights)
    stage = PolicyStage(
        name="policy",
        module=network,
        best=Best("action_l2"),
        facts=facts,
        notes=_notes(facts),
        assets=network.assets(),
        fingerprint=fingerprint,
        frames=frames,
        order=_order(frames, split, stores, weights, trainer.batch_size, config.seed),
        validation=thinned(split.validation, _most(config.stage.val_frames)),
        tokens=network.tokenize(frames.instructions),
    )
    if not (config.init or resumed):
        network.start(stage._gather(thinned(split.train, _FIRST_LOOK)))
    return stage


def _order(
    frames: Frames, split: Split, stores: TrainingStores, weights: list[float] | None, batch_size: int, seed: int
) -> Order:
    if weights is None:
        return Order(split.train, batch_size, seed)
    owner = frames.store[split.train]
    groups = {name: split.train[owner == place] for place, name in enumerate(stores.learn)}
    return WeightedOrder(groups, weights, batch_size, seed, "data_weights")


def _fingerprint(digest: str, stores: TrainingStores) -> str:
    """The content of all stores, and which of them are only validated on: that must not move into the training."""
    return f"{digest}, validates on the last {len(stores.validate)}" if stores.validate else digest


def _fraction(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise TandemError(f"stage.val_fraction is {value} (allowed: above 0, below 1)")
    return float(value)


def _most(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise TandemError(f"stage.val_frames is {value} (allowed: a whole number, at least 1)")
    return value


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


def _directions(embodiment: Embodiment, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Cosine metrics over actions (N, A), where the action is a displacement in a plane or in space."""
    if not are_directions(embodiment):
        return {}
    found = directions(embodiment, ours, theirs)
    if not found.moves.any():
        return {}
    return {
        "direction_cosine": float(found.cosine[found.moves].mean()),
        "direction_accuracy": float(found.right[found.moves].mean()),
    }
