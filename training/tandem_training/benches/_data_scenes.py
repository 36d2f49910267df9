"""The episodes that `tandem bench data` measures with: two cameras of 128x128, 28 state and 28 action scalars."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder

SIDE, SCALARS = 128, 28
BODY = Embodiment(
    name="bench",
    rate_hz=30.0,
    hears_instruction=True,
    cameras=(Camera("left", SIDE, SIDE), Camera("right", SIDE, SIDE)),
    state=tuple(StateScalar(f"joint{k}", "rad", -3.0, 3.0, StateSource.JOINT_POSITION) for k in range(SCALARS)),
    action=tuple(ActionScalar(f"joint{k}", "rad", -3.0, 3.0, ActionKind.ABSOLUTE) for k in range(SCALARS)),
)
_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float32)


def picture(random: np.random.Generator, step: int, camera: int) -> np.ndarray:
    """What a camera might see, uint8 (128, 128, 3): smooth light, a moving disc and a box, slight noise."""
    light = 110 + 50 * np.sin((_X + 2 * step + 40 * camera) / 37) + 40 * np.cos((_Y - step) / 29)
    image = np.stack([light, light * 0.9 + 12, light * 0.7 + 30], -1)
    x, y = 64 + 38 * np.sin(step / 17 + camera), 64 + 38 * np.cos(step / 13)
    image[(_X - x) ** 2 + (_Y - y) ** 2 < 150] = (205, 50, 45)
    image[(abs(_X - 90 + 8 * camera) < 11) & (abs(_Y - 40) < 15)] = (45, 90, 190)
    return np.clip(image + random.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def frames(length: int, seed: int) -> Iterator[Frame]:
    """One episode's frames, an expert acting."""
    random = np.random.default_rng(seed)
    for step in range(length):
        phases = (step / 20 + np.arange(SCALARS)).astype(np.float32)
        yield Frame(
            Observation(
                images={camera.name: picture(random, step, k) for k, camera in enumerate(BODY.cameras)},
                state=np.sin(phases),
                instruction="put the disc into the box",
                stamp_ns=step * BODY.period_ns,
            ),
            action=np.sin(phases + 0.05),
            source=Source.EXPERT,
        )


def record(path: Path, codec: str, episodes: int, length: int) -> None:
    """A store of such episodes."""
    with Recorder(path, BODY, codec=codec, fsync=False, group=episodes) as recorder:
        for seed in range(episodes):
            recorder.write_episode(EpisodeInfo(seed, "put the disc into the box"), frames(length, seed))
