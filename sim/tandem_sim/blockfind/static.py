"""BlockFind without motion: a board, an instruction, and the direction from the middle cell to the named block.

The smallest task in which a policy has to see, to read and to combine both: an image alone or an instruction alone
does not say where to point. Samples are stored as episodes of one frame, so that no chunk runs from one to the next.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_sim.blockfind.drawing import draw_board
from tandem_sim.blockfind.task import BOARD, IMAGE_PX, Layout, Options, lay_out

NAME = "blockfind_static"
CENTRE = (4, 4)  # the grid point (column, row) that directions begin at, a whole cell index
ORIGIN = ((CENTRE[0] + 0.5) / BOARD, (CENTRE[1] + 0.5) / BOARD)  # its middle (x, y), as shares of the picture

EMBODIMENT = Embodiment(
    name=NAME,
    rate_hz=1.0,  # one sample a second on the store's clock; nothing moves
    hears_instruction=True,
    cameras=(Camera("top", IMAGE_PX, IMAGE_PX, frame_id="board"),),
    state=(),
    action=tuple(
        ActionScalar(f"direction/{axis}", "1", -1.0, 1.0, ActionKind.DELTA_OBSERVATION, frame="board") for axis in "xy"
    ),
)

_GROUP = 1024  # episodes committed together: one by one they cost 1 ms each
_NAMESPACE = uuid.UUID("5e4c6a0e-6d1c-5d6b-9b0e-0f6a3a7f4c21")


@dataclass(frozen=True)
class Sample:
    """One board and its answer."""

    image: np.ndarray  # (64, 64, 3) uint8 RGB, without an agent
    instruction: str  # "find the red block"
    direction: np.ndarray  # (2,) float32, (x, y) of unit length; zero where the block lies in the cell CENTRE
    colour: str  # of the named block
    cell: tuple[int, int]  # its column and row
    blocks: int  # on the board

    @property
    def distance(self) -> float:
        """From CENTRE to the block's cell, in cells."""
        return float(np.hypot(self.cell[0] - CENTRE[0], self.cell[1] - CENTRE[1]))


def samples(count: int, seed: int) -> Iterator[Sample]:
    """``count`` samples; with the same seed always the same, and fewer are the first ones of more."""
    rng, options = np.random.default_rng(seed), Options()
    for _ in range(count):
        yield _sample(lay_out(rng, options))


def direction(cell: tuple[int, int]) -> np.ndarray:
    """The unit vector from :data:`CENTRE` to a cell (column, row), (2,) float32; zero for CENTRE itself."""
    gap = np.subtract(cell, CENTRE).astype(np.float64)
    length = np.hypot(*gap)
    return (gap / (length or 1.0)).astype(np.float32)


def write(path: Path, count: int, seed: int) -> None:
    """Records the samples of a seed into a new store, lossless; content and uuids depend on the arguments alone.

    Each episode's provenance carries ``groups``: by what an evaluation may break its figures down.

    Raises:
        TandemError: the store cannot be made.
    """
    period = EMBODIMENT.period_ns
    with Recorder(path, EMBODIMENT, exist_ok=False, fsync=False, group=_GROUP) as recorder:
        for index, sample in enumerate(samples(count, seed)):
            stamp = index * period
            info = EpisodeInfo(
                seed=seed,
                instruction=sample.instruction,
                env=NAME,
                outcome="success",
                success=True,
                begin_ns=stamp,
                uuid=str(uuid.uuid5(_NAMESPACE, f"{seed}/{index}")),
                provenance={"index": index, "groups": _groups(sample)},
            )
            recorder.write_episode(info, [_frame(sample, stamp)])


def _sample(layout: Layout) -> Sample:
    column, row = (int(value) for value in layout.goal)  # a centre's whole part is its cell
    colour = layout.colours[layout.named]
    return Sample(
        draw_board(layout), layout.instruction, direction((column, row)), colour, (column, row), len(layout.colours)
    )


def _groups(sample: Sample) -> dict[str, str | float]:
    return {"colour": sample.colour, "blocks": sample.blocks, "distance (cells)": round(sample.distance, 3)}


def _frame(sample: Sample, stamp_ns: int) -> Frame:
    observation = Observation(
        images={"top": sample.image}, state=np.zeros(0, np.float32), instruction=sample.instruction, stamp_ns=stamp_ns
    )
    return Frame(observation, sample.direction, Source.EXPERT, reward=1.0, terminated=True, success=True)
