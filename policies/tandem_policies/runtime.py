"""A policy directory made a :class:`tandem_datasets.policy.Policy`: observations in, chunks out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.frames import blank_observation, check_observation
from tandem_datasets.policy import History, NoiseKey, Policy
from tandem_policies.files import WEIGHTS, is_lerobots, load_network
from tandem_policies.network import PolicyNetwork

DEVICES = ("auto", "cpu", "cuda", "mps")
_MOST_INSTRUCTIONS = 1024  # remembered as encoded


class TorchPolicy:
    """A network at work. Equal observations give bit-equal chunks on CPU in batch 1 and with the same thread count."""

    def __init__(self, network: PolicyNetwork, identity: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.embodiment: Embodiment = network.embodiment
        self.chunk_size: int = network.config.chunk_size
        self.n_action_steps: int = network.config.n_action_steps
        self.n_obs_steps: int = network.n_obs_steps
        self.speaks: bool = network.speaks
        self.identity = identity
        self._encoded: dict[str, Tensor] = {}

    def infer(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> np.ndarray:
        """Chunks float32 (B, K, A) in the embodiment's units, one per history.

        Raises:
            TandemError: an observation does not fit the embodiment.
        """
        with torch.no_grad():
            return self.network.predict(self._batch(histories), keys).cpu().numpy()

    def say(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> list[str]:
        """What it says to each, beside :meth:`infer`; empty texts from a policy that does not speak."""
        if not self.speaks:
            return [""] * len(histories)
        with torch.no_grad():
            return self.network.say(self._batch(histories), keys)

    def attention(self, histories: Sequence[History], camera: str | None = None) -> np.ndarray:
        """Where it looks in a camera's image (the first one's): float32 (B, rows, columns) of patches."""
        with torch.no_grad():
            return self.network.attention(self._batch(histories), camera).cpu().numpy()

    def warm_up(self, inferences: int = 3) -> None:
        """Runs on a blank observation, so that the first real one is not slower than the others."""
        for _ in range(inferences):
            self.infer([[blank_observation(self.embodiment)] * self.n_obs_steps], [(0, 0)])

    def _batch(self, histories: Sequence[History]) -> dict[str, Tensor]:
        for history in histories:
            assert len(history) == self.n_obs_steps, f"{len(history)} observations, not {self.n_obs_steps}"
            for observation in history:
                check_observation(self.embodiment, observation, f"policy '{self.network.policy_type}'", more=True)
        batch = {
            f"images.{camera.name}": self._stacked([[seen.images[camera.name] for seen in rows] for rows in histories])
            for camera in self.embodiment.cameras
        }
        batch["state"] = self._stacked([[seen.state for seen in rows] for rows in histories])
        tensors = {key: torch.from_numpy(value).to(self.network.device) for key, value in batch.items()}
        if self.embodiment.hears_instruction:
            tensors |= self._instructions([rows[-1].instruction for rows in histories])
        return tensors

    def _stacked(self, rows: list[list[np.ndarray]]) -> np.ndarray:
        """(B, ...), or (B, T, ...) where several observations are seen at once."""
        if self.n_obs_steps == 1:
            return np.stack([row[0] for row in rows])
        return np.stack([np.stack(row) for row in rows])

    def _instructions(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Encoded once per text and remembered, where the network can; else as the network tokenizes them."""
        for text in texts:
            if text not in self._encoded:
                encoded = self.network.encode_language(self._tokens([text]))
                if encoded is None:
                    return self._tokens(texts)
                if len(self._encoded) >= _MOST_INSTRUCTIONS:
                    self._encoded = {known: self._encoded[known] for known in texts if known in self._encoded}
                self._encoded[text] = encoded
        return {"language": torch.cat([self._encoded[text] for text in texts])}

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return {key: value.to(self.network.device) for key, value in self.network.tokenize(texts).items()}


def load(path: str | Path, device: str = "auto", threads: int = 1) -> Policy:
    """Opens a policy directory: one of our own networks in this process, one of LeRobot's in a process of its own.

    Args:
        path: the directory.
        device: "auto" takes CUDA, then MPS, then the CPU.
        threads: torch's threads on the CPU, for the whole process that computes.

    Raises:
        TandemError: the directory is no policy (see :func:`tandem_policies.files.load_network` and
            :mod:`tandem_policies.lerobot.client`), or the device is not there.
    """
    if threads < 1:
        raise TandemError(f"policy: threads is {threads} (allowed: 1 or more)")
    if is_lerobots(Path(path)):
        from tandem_policies.lerobot.client import RemotePolicy

        return RemotePolicy(path, choose_device(device).type, threads)
    torch.set_num_threads(threads)
    network = load_network(path, choose_device(device))
    return TorchPolicy(network, identity_of(path))


def identity_of(path: str | Path) -> str:
    """The content hash of a policy directory's weights."""
    with (Path(path) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def choose_device(name: str) -> torch.device:
    """The torch device for one of ``DEVICES``; TandemError if it is unknown or not there."""
    if name not in DEVICES:
        raise unknown("policy: device", name, DEVICES)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, present in there.items() if present)
    if not there[name]:
        present = ", ".join(device for device, here in there.items() if here)
        raise TandemError(f"policy: device '{name}' is not on this machine (allowed: auto, {present})")
    return torch.device(name)
