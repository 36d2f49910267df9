"""What can be chosen of the H1 environments, and which choices contradict each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from tandem_datasets.errors import TandemError, unknown
from tandem_sim.bricks import shapes

TASKS = ("reach", "pick", "place", "stack", "handover", "join", "build", "disassemble")
CAMERAS = ("front", "head", "left_wrist", "right_wrist")
ACTION_MODES = ("joint", "ee_delta")
ROTATIONS = ("yaw", "full")
RATES_HZ = (50, 25, 20)
PITCHES_MM = (16, 8)
WORDINGS = ("plain", "varied")
COLOURS = tuple(shapes.COLOURS)
BASEPLATES = ("8x8", "16x16")
MAX_IMAGE_PX = 1024  # a side
MAX_STRENGTH = 3.0  # of a randomisation: 1 is what the documentation states, more is more of it

SUBSTEP_S = 0.002  # of the physics


@dataclass(frozen=True)
class Randomise:
    """How much of each kind an episode draws; 0: none of it, 1: the range stated here."""

    light: float = 0.0  # direction of the light by up to 30 degrees, its strength by up to 30 %
    colour: float = 0.0  # of bricks, table and robot: each channel by up to 0.08 of 1
    camera: float = 0.0  # position by up to 15 mm, direction by up to 1.5 degrees, field of view by up to 3 %
    friction: float = 0.0  # of bricks and fingers by up to 25 %
    mass: float = 0.0  # of bricks by up to 25 %
    latency: float = 0.0  # of the drives: up to 10 ms from command to effect, at most a control step

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not _is_number(value) or not 0 <= value <= MAX_STRENGTH:
                raise TandemError(f"H1: randomise.{item.name} is {value!r} (allowed: 0 to {MAX_STRENGTH:g})")
            object.__setattr__(self, item.name, float(value))

    @property
    def any(self) -> bool:
        """Whether anything is drawn at all."""
        return any(getattr(self, item.name) > 0 for item in fields(self))

    @classmethod
    def of(cls, value: Any) -> Self:
        """From an option: a Randomise, true (all of it), false, names of kinds, or strengths by kind."""
        if isinstance(value, cls):
            return value
        names = [item.name for item in fields(cls)]
        if isinstance(value, bool):
            return cls(**{name: float(value) for name in names})
        if isinstance(value, Mapping):
            given = {str(key): strength for key, strength in value.items()}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            given = {str(name): 1.0 for name in value}
        else:
            raise TandemError(f"H1: randomise is {value!r} (allowed: true, false, names or strengths of {names})")
        for name in given:
            if name not in names:
                raise unknown("H1: randomise", name, names)
        return cls(**given)


@dataclass(frozen=True)
class Settings:
    """One H1 environment. Sequences may come as lists; they are kept as tuples.

    Raises:
        TandemError: a choice outside of what is allowed, or two that contradict each other.
    """

    task: str = "reach"  # of TASKS
    robot: str = "primitives"  # or "menagerie", or the path of an H1 in MJCF
    action_mode: str = "ee_delta"  # "joint": 17 absolute targets; "ee_delta": steps of the grippers
    rotation: str = "yaw"  # of ee_delta: about the vertical only, or "full"
    rate_hz: int = 50  # control steps a second
    cameras: Sequence[str] = ("front", "head")  # any of CAMERAS; none: only the state is observed
    image_size: int | Sequence[int] = 128  # pixels: one side, or (height, width)
    depth: bool = False  # beside each camera X also X_depth, uint16 millimetres
    segmentation: bool = False  # beside each camera X also X_segmentation, uint16 ids
    privileged: bool = False  # what no camera sees goes into the state: poses of bricks, goal, what is attached
    pitch_mm: int = 16  # between studs; 8 is true LEGO scale
    wordings: str = "plain"  # or "varied"
    horizon: int | None = None  # control steps; None: the task's own, in seconds
    colours: Sequence[str] = COLOURS  # that bricks are drawn from
    distractors: int | None = None  # bricks that nobody asks for; None: the task's own number
    baseplate: str = "8x8"  # of Place
    bricks: int | None = None  # of Build: how many
    plan: str | None = None  # of Build: always this one, as "red 2x4 on blue 2x4, shifted by one stud"
    randomise: Randomise = field(default_factory=Randomise)
    strict: bool = False  # refuse actions outside of the limits, instead of clamping and counting them

    def __post_init__(self) -> None:
        self._check_names()
        self._check_cameras()
        for name in ("depth", "segmentation", "privileged", "strict"):
            if not isinstance(getattr(self, name), bool):
                raise TandemError(f"H1: {name} is {getattr(self, name)!r} (allowed: true, false)")
        for name, least in (("horizon", 1), ("distractors", 0), ("bricks", 2)):
            value = getattr(self, name)
            if value is not None and (not _is_int(value) or value < least):
                raise TandemError(f"H1: {name} is {value!r} (allowed: a whole number from {least}, or null)")
        self._check_task()
        object.__setattr__(self, "randomise", Randomise.of(self.randomise))

    @property
    def substeps(self) -> int:
        """Physics steps a control step."""
        return round(1 / (self.rate_hz * SUBSTEP_S))

    @property
    def pitch(self) -> float:
        """Between studs, in metres."""
        return self.pitch_mm * 1e-3

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        assert isinstance(self.image_size, tuple)
        return self.image_size[0], self.image_size[1]

    @classmethod
    def of(cls, task: str, options: Mapping[str, Any]) -> Self:
        """From keyword options, as ``gymnasium.make`` hands them on."""
        known = [item.name for item in fields(cls) if item.name != "task"]
        for name in options:
            if name not in known:
                raise unknown("H1: option", str(name), [*known, "render_mode"])
        return cls(task=task, **options)

    def _check_names(self) -> None:
        choices: tuple[tuple[str, Sequence[Any]], ...] = (
            ("task", TASKS),
            ("action_mode", ACTION_MODES),
            ("rotation", ROTATIONS),
            ("wordings", WORDINGS),
            ("baseplate", BASEPLATES),
        )
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise unknown(f"H1: {name}", str(getattr(self, name)), allowed)
        for name, numbers in (("rate_hz", RATES_HZ), ("pitch_mm", PITCHES_MM)):
            value = getattr(self, name)
            if not _is_number(value) or value not in numbers:
                raise TandemError(f"H1: {name} is {value!r} (allowed: {', '.join(map(str, numbers))})")
            object.__setattr__(self, name, int(value))
        if self.rotation == "full" and self.action_mode == "joint":
            raise TandemError("H1: rotation is 'full' with action_mode 'joint' (allowed: with action_mode 'ee_delta')")
        if not isinstance(self.robot, str) or not self.robot:
            raise TandemError(f"H1: robot is {self.robot!r} (allowed: primitives, menagerie, or a path)")
        object.__setattr__(self, "colours", _names("colours", self.colours, COLOURS))

    def _check_cameras(self) -> None:
        object.__setattr__(self, "cameras", _names("cameras", self.cameras, CAMERAS))
        object.__setattr__(self, "image_size", _image_size(self.image_size))
        for name in ("depth", "segmentation"):
            if getattr(self, name) is True and not self.cameras:
                raise TandemError(f"H1: {name} is true without cameras (allowed: with at least one of {CAMERAS})")

    def _check_task(self) -> None:
        for name in ("bricks", "plan"):
            if getattr(self, name) is not None and self.task != "build":
                raise TandemError(f"H1: {name} is {getattr(self, name)!r} in task '{self.task}' (allowed: in 'build')")
        if self.plan is not None and not isinstance(self.plan, str):
            raise TandemError(f"H1: plan is {self.plan!r} (allowed: text, or null)")
        if self.plan is not None and self.bricks is not None:
            raise TandemError("H1: both plan and bricks are given (allowed: one of them)")
        if self.baseplate != "8x8" and self.task != "place":
            raise TandemError(f"H1: baseplate is '{self.baseplate}' in task '{self.task}' (allowed: in 'place')")


def _names(what: str, came: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    if isinstance(came, str) or not isinstance(came, Sequence):
        raise TandemError(f"H1: {what} is {came!r} (allowed: a list of {', '.join(allowed)})")
    for name in came:
        if name not in allowed:
            raise unknown(f"H1: {what}", str(name), allowed)
    if len(set(came)) < len(came):
        raise TandemError(f"H1: {what} are {list(came)} (allowed: each once)")
    return tuple(came)


def _image_size(came: Any) -> tuple[int, int]:
    pair = (came, came) if _is_int(came) else came
    fine = isinstance(pair, Sequence) and len(pair) == 2 and all(_is_int(side) for side in pair)
    if not fine or not all(8 <= side <= MAX_IMAGE_PX for side in pair):
        allowed = f"pixels from 8 to {MAX_IMAGE_PX}, one side or [height, width]"
        raise TandemError(f"H1: image_size is {came!r} (allowed: {allowed})")
    return (int(pair[0]), int(pair[1]))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
