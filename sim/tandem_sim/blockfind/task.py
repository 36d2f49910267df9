"""BlockFind's rules, without images: what is laid out, how the agent moves, when it has arrived.

The board is 8 x 8 cells; x points right, y down, in cells; cell (i, j) has its centre at (i + 0.5, j + 0.5).
All functions take one position (2,) or many (N, 2) and round alike, so that single and vectorised
environments agree bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.errors import TandemError, unknown

BOARD = 8  # cells a side
CELL_PX = 8  # pixels a cell
IMAGE_PX = BOARD * CELL_PX
ARRIVED = 0.5  # cells: the agent has arrived at a block within this distance of its centre
NEAR = 1.0  # cells: an episode that ends within this distance of another block went to the wrong one

PALETTE = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 90, 220),
    "yellow": (245, 205, 30),
    "purple": (150, 60, 190),
    "cyan": (50, 200, 210),
    "orange": (240, 130, 20),
    "white": (240, 240, 240),
}
DEFAULT_COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")

WORDINGS = {
    "plain": ("find the {colour} block",),
    "varied": (
        "find the {colour} block",
        "go to the {colour} block",
        "move to the {colour} block",
        "move to the block that is {colour}",
        "reach the {colour} one",
        "head for the {colour} block",
        "please find the {colour} block",
        "walk over to the {colour} square",
        "where is the {colour} block? go there",
        "the {colour} block, please",
    ),
}

EMBODIMENT = Embodiment(
    name="blockfind",
    rate_hz=30.0,
    hears_instruction=True,
    cameras=(Camera("top", IMAGE_PX, IMAGE_PX, frame_id="board"),),
    state=tuple(StateScalar(f"agent/{axis}", "cell", 0.0, BOARD, StateSource.POSE, "board") for axis in "xy"),
    action=tuple(
        ActionScalar(f"agent/d{axis}", "cell", -1.0, 1.0, ActionKind.DELTA_STEP, frame="board") for axis in "xy"
    ),
)

_SHORTEN_ABOVE = 1.0 + 1e-6  # above 1 by more than float32 rounding: an executed action runs again unchanged


@dataclass(frozen=True)
class Options:
    """What can be chosen of the task.

    Raises:
        TandemError: an option outside of what is allowed.
    """

    wordings: str = "plain"  # a key of WORDINGS
    horizon: int = 32  # steps
    colours: Sequence[str] = DEFAULT_COLOURS  # drawn from, at least as many as blocks
    n_blocks: Sequence[int] = (3, 4)  # fewest and most

    def __post_init__(self) -> None:
        where = "BlockFind"
        if self.wordings not in WORDINGS:
            raise unknown(f"{where}: wordings", str(self.wordings), WORDINGS)
        if not _is_int(self.horizon) or self.horizon < 1:
            raise TandemError(f"{where}: horizon is {self.horizon!r} (allowed: a whole number of steps above 0)")
        if isinstance(self.colours, str) or not isinstance(self.colours, Sequence):
            raise TandemError(f"{where}: colours is {self.colours!r} (allowed: a list of {', '.join(PALETTE)})")
        for colour in self.colours:
            if colour not in PALETTE:
                raise unknown(f"{where}: colours", str(colour), PALETTE)
        if len(set(self.colours)) < len(self.colours):
            raise TandemError(f"{where}: colours are {list(self.colours)} (allowed: each once)")
        pair = isinstance(self.n_blocks, Sequence) and len(self.n_blocks) == 2 and all(map(_is_int, self.n_blocks))
        if not pair or not 1 <= self.n_blocks[0] <= self.n_blocks[1] <= len(self.colours):
            raise TandemError(
                f"{where}: n_blocks is {self.n_blocks!r} "
                f"(allowed: [fewest, most] from 1 to the number of colours, {len(self.colours)})"
            )
        object.__setattr__(self, "colours", tuple(self.colours))
        object.__setattr__(self, "n_blocks", tuple(self.n_blocks))


@dataclass(frozen=True)
class Layout:
    """One episode's board."""

    centres: np.ndarray  # (n, 2) float32, of the blocks, in cells
    colours: tuple[str, ...]  # of the blocks
    named: int  # index of the block that the instruction names
    start: np.ndarray  # (2,) float32, in cells
    instruction: str

    @property
    def goal(self) -> np.ndarray:
        """Centre of the named block, (2,) float32."""
        return self.centres[self.named]


def lay_out(rng: np.random.Generator, options: Options) -> Layout:
    """Draws an episode. Wordings are drawn last, so that they change nothing else of it."""
    fewest, most = options.n_blocks
    n = int(rng.integers(fewest, most + 1))
    cells = rng.permutation(BOARD * BOARD)[:n]
    colours = tuple(options.colours[k] for k in rng.permutation(len(options.colours))[:n])
    centres = np.stack([cells % BOARD, cells // BOARD], axis=1).astype(np.float32) + np.float32(0.5)
    named = int(rng.integers(n))
    start = _start(rng, centres)
    phrases = WORDINGS[options.wordings]
    phrase = phrases[int(rng.integers(len(phrases)))]
    return Layout(centres, colours, named, start, phrase.format(colour=colours[named]))


def advance(position: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves by at most one cell and not over the board's edge.

    Args:
        position: (..., 2) float32, in cells.
        action: (..., 2), finite, in cells; longer than one cell (Euclidean): shortened to it.

    Returns:
        The new position and the action really executed, both (..., 2) float32. Executing that action again
        from the same position gives the same result.
    """
    wide = np.asarray(action, np.float64)
    length = np.sqrt(wide[..., 0] * wide[..., 0] + wide[..., 1] * wide[..., 1])
    short = (wide / np.where(length > _SHORTEN_ABOVE, length, 1.0)[..., None]).astype(np.float32)
    executed = np.clip(short, -position, np.float32(BOARD) - position)
    return np.clip(position + executed, np.float32(0), np.float32(BOARD)), executed


def distance(position: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Euclidean distance in cells, float64 (...,), of (..., 2) float32."""
    gap = np.subtract(position, centre, dtype=np.float64)
    return np.sqrt(gap[..., 0] * gap[..., 0] + gap[..., 1] * gap[..., 1])


def expert(position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Straight to the goal by unit length, (..., 2) float32; on the goal itself: nothing."""
    gap = np.subtract(goal, position, dtype=np.float64)
    length = np.sqrt(gap[..., 0] * gap[..., 0] + gap[..., 1] * gap[..., 1])
    return (gap / np.where(length > 0, length, 1.0)[..., None]).astype(np.float32)


def outcome(layout: Layout, position: np.ndarray, success: bool) -> str:
    """How an episode that ends here went: ``success``, ``wrong_block`` or ``no_block``."""
    if success:
        return "success"
    others = np.delete(layout.centres, layout.named, axis=0)
    return "wrong_block" if (distance(position, others) <= NEAR).any() else "no_block"


def check_finite(action: np.ndarray, where: str) -> None:
    """Raises TandemError if a command holds NaN or infinity."""
    if not np.isfinite(action).all():
        raise TandemError(f"{where}: action {np.asarray(action).tolist()} is not finite (allowed: finite cells)")


def _start(rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
    """Uniform over the board without the blocks' cells, (2,) float32."""
    while True:
        start = rng.random(2, np.float32) * np.float32(BOARD)
        if (np.abs(start - centres).max(axis=1) > 0.5).all():
            return start


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
