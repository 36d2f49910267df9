"""What a brick measures and when a press fit locks and lets go; each number with its unit and source.

Sources, by the names used below:

* Bartneck: C. Bartneck, LEGO Brick Dimensions and Measurements (2019): pitch 8 mm, brick 9.6 mm, plate 3.2 mm, stud
  4.8 mm wide and 1.7 mm high, 0.2 mm between neighbours.
* BrickSim: H. Wen et al., BrickSim, arXiv:2603.16853 and its published code: masses of weighed bricks; gates of 1 mm,
  2 mm, 5 degrees, 1 N; a clutch of 3.5 N preload and friction 0.2 at three or four points of a stud (2.1 to 2.8 N).
* StableLego: R. Liu et al., StableLego, RA-L 2024, published configuration: a stud holds 100 g (0.98 N).
* ours: chosen here, and measured to work with the trials of :mod:`tandem_sim.bricks.trials`.
"""

import math
from dataclasses import dataclass

from tandem_datasets.errors import TandemError

LEGO_PITCH = 0.008  # m, Bartneck
PITCH = 0.016  # m, ours: twice LEGO, so that a gripper with 4 degrees of freedom an arm can place it
BRICK_HEIGHT = 1.2  # pitches (9.6 mm of 8 mm), Bartneck
PLATE_HEIGHT = 0.4  # pitches (3.2 mm of 8 mm), Bartneck
STUD_DIAMETER = 0.6  # pitches (4.8 mm of 8 mm), Bartneck
STUD_HEIGHT = 0.2125  # pitches (1.7 mm of 8 mm), Bartneck
GAP = 0.025  # pitches (0.2 mm of 8 mm) between the walls of neighbours, Bartneck
SEAM = 0.003  # pitches (0.05 mm of 16 mm) that a box is lower than its grid cell; ours: a seated pair then hangs in its
# weld alone, where weld and contacts together would strain against each other over micrometres


@dataclass(frozen=True)
class BrickSize:
    """Studs along x and y of the brick's own frame; ``plate`` is a third as high and has no underside to press on."""

    nx: int
    ny: int
    plate: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.nx <= 64 and 1 <= self.ny <= 64):
            raise TandemError(f"brick size: {self.nx}x{self.ny} studs (allowed: 1 to 64 a side)")

    @property
    def height(self) -> float:
        """Without studs, in pitches."""
        return PLATE_HEIGHT if self.plate else BRICK_HEIGHT

    @property
    def studs(self) -> int:
        return self.nx * self.ny

    def footprint(self, turns: int) -> tuple[int, int]:
        """Studs along x and y after ``turns`` quarter turns."""
        return (self.nx, self.ny) if turns % 2 == 0 else (self.ny, self.nx)


@dataclass(frozen=True)
class SnapParameters:
    """When a press fit locks, how it locks, what it holds. Lengths in pitches, so that they scale with the brick."""

    planar: float = 1.5 / 16
    """Largest distance in the stud plane from the nearest grid pose, pitches (1.5 mm of 16 mm): ours; the studs of a
    real brick have to meet the cavities with about a tenth of a pitch to centre themselves."""
    vertical: float = 0.15 * BRICK_HEIGHT
    """Largest distance from the seated height, pitches (2.9 mm of 16 mm): ours, less than a stud is high."""
    yaw: float = math.radians(5)
    """Largest turn away from the nearest quarter turn, rad: BrickSim."""
    tilt: float = math.radians(3)
    """Largest angle between the stud axes, rad: ours; BrickSim allows 5 degrees, from where a stiff wrist that holds on
    strains the fit enough to peel it off again."""
    press: float = 1.0
    """Contact normal force per engaged stud that presses the studs in, N: ours; BrickSim asks 1 N of the whole brick,
    StableLego's stud holds 0.98 N, and a friction fit takes about as much to press as to pull."""
    hold: float = 0.010
    """What is felt of the force follows it with this time constant, s, and starts anew when a gate fails: ours. No more
    than 1.5 times the needed force counts, so that a strong press locks after 10 ms and one of 1.2 times after 18. Up
    to 20 ms more pass until a press in a scene at rest is noticed."""
    ramp: float = 0.040
    """From locking to the grid pose, s: ours; a brick 1.5 mm off moves at 0.06 m/s at most."""
    pull: float = 3.0
    """Pull along the stud axis that a stud holds, N: ours, between BrickSim (2.1 to 2.8 N at LEGO's scale) and
    StableLego (0.98 N at LEGO's scale, by the area of a press fit 3.9 N at twice that)."""
    overload: float = 0.004
    """A load beyond what the studs hold lets go after this time, s: ours; a single solver step breaks nothing."""
    cooldown: float = 0.100
    """A pair that let go does not lock again within this time, s: ours; BrickSim waits 0.05 s."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TandemError(f"snap parameters: {name} {value} (allowed: a finite number above 0)")
        for name, most in (("planar", 0.5), ("vertical", PLATE_HEIGHT), ("yaw", math.pi / 4), ("tilt", math.pi / 8)):
            if getattr(self, name) >= most:
                raise TandemError(f"snap parameters: {name} {getattr(self, name):g} (allowed: below {most:g})")
