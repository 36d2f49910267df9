"""Controls for a policy that should need image and instruction: the same data with one of them taken away."""

from dataclasses import replace
from typing import Any

import numpy as np

from tandem_datasets.errors import unknown
from tandem_training.data import Frames

ABLATIONS = ("vision_only", "language_only", "shuffled")


def ablated(frames: Frames, kind: Any, seed: int) -> Frames:
    """The frames without what ``kind`` takes away; as they are, if it is None.

    Args:
        frames: what is learned from.
        kind: ``vision_only``: instructions empty; ``language_only``: images black; ``shuffled``: each frame has the
            instruction of another one.
        seed: of the shuffling.

    Raises:
        TandemError: no such kind.
    """
    if kind is None:
        return frames
    if kind == "vision_only":
        return replace(frames, instruction=np.zeros_like(frames.instruction), instructions=("",))
    if kind == "language_only":
        return replace(
            frames, images={name: np.zeros(images.shape, images.dtype) for name, images in frames.images.items()}
        )
    if kind == "shuffled":
        order = np.random.default_rng([seed, 3]).permutation(len(frames.instruction))
        return replace(frames, instruction=frames.instruction[order])
    raise unknown("stage.ablate", str(kind), ABLATIONS)
