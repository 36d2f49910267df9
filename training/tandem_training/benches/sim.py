"""The simulation: what locks of its bricks, holds and stands; how fast the H1 is against bare MuJoCo; equal bits.

    tandem bench sim
    tandem bench sim rows='[snap_false,snap_true]' presses=20
    tandem bench sim rows='[rate_joint,rate_ee]' task=build

Bricks are pressed, pulled and turned by motorised carriages that hold them by friction, in scenes of their own
(`tandem_sim.bricks.trials`). At 16 mm between studs unless `pitch_mm` says otherwise. Rates are ratios to a bare loop
around `mj_step` that plays the same motion (`tandem_sim.h1.rates`).
"""

from collections.abc import Callable
from functools import cached_property
from statistics import median
from typing import Any

from tandem_sim.bricks import trials
from tandem_sim.h1 import rates
from tandem_training.benches._measuring import Target, measure_groups, median_row
from tandem_training.results import Row

TARGETS = {
    "snap_false": Target("", "0 of all lock", lambda found: found == 0),
    "snap_true": Target("", "all stay attached", lambda found: found == 1),
    "snap_release": Target("", "within 0.05 of the set force and torque", lambda found: found <= 0.05),
    "snap_residual_mm": Target("mm", "<= 0.02", lambda found: found <= 0.02),
    "tower": Target("", "ten bricks stand for 10 s", bool),
    "no_teleport_mm": Target("mm", "<= 0.5", lambda found: found <= 0.5),
    "rate_joint": Target("x bare mj_step", ">= 0.85", lambda found: found >= 0.85),
    "rate_ee": Target("x bare mj_step", ">= 0.65", lambda found: found >= 0.65),
    "rate_vector": Target("x two bare mj_step", ">= 0.8", lambda found: found >= 0.8),
    "rate_pixels": Target("x bare mj_step and Renderer", ">= 0.8", lambda found: found >= 0.8),
    "deterministic": Target("", "equal bits", bool),
}


def measure(config: Any, wanted: set[str]) -> list[Row]:
    """The rows of :data:`TARGETS`."""
    bench = SimBench(config)
    groups = [
        (["snap_false"], bench.snap_false),
        (["snap_true", "snap_residual_mm"], bench.snap_true),
        (["snap_release"], bench.snap_release),
        (["tower"], bench.tower),
        (["no_teleport_mm"], bench.no_teleport),
        (["rate_joint"], bench.rate_joint),
        (["rate_ee"], bench.rate_ee),
        (["rate_vector"], bench.rate_vector),
        (["rate_pixels"], bench.rate_pixels),
        (["deterministic"], bench.deterministic),
    ]
    rows = {row.name: row for row in measure_groups(TARGETS, groups, wanted)}
    return [rows[name] for name in TARGETS]


class SimBench:
    """One configuration's measurements; each method gives the rows of one group."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.pitch = config.pitch_mm / 1000

    # what several rows need

    @cached_property
    def presses(self) -> trials.Presses:
        return trials.snap_true(self.config.presses, self.config.seed, self.pitch)

    @cached_property
    def releases(self) -> trials.Releases:
        return trials.snap_release(self.pitch)

    @cached_property
    def built(self) -> trials.Tower:
        return trials.tower(seconds=self.config.tower_s, seed=self.config.seed, pitch=self.pitch)

    # rows

    def snap_false(self) -> list[Row]:
        count = self.config.presses
        found = trials.snap_false(count, self.config.seed, self.pitch)
        control = trials.snap_control(count, self.config.seed, self.pitch)
        counted = ", ".join(f"{axis} {locked}" for axis, locked in found.items())
        opened = ", ".join(f"{axis} {locked}" for axis, locked in control.items())
        note = f"locked of {count} each: {counted}; the same presses with that one gate twice as wide: {opened}"
        return [Row("", float(sum(found.values())), repeats=count * len(found), note=note)]

    def snap_true(self) -> list[Row]:
        found = self.presses
        errors = "1.2 x the force, errors in the plane and in yaw up to half their tolerance"
        note = f"{found.attached} of {found.count} random pairs and overlaps, {errors}"
        worst = "the worst corner of a brick, when the carriage has left"
        return [
            Row("", found.attached / found.count, repeats=found.count, note=note),
            Row("", found.residual_mm, repeats=found.count, note=worst),
        ]

    def snap_release(self) -> list[Row]:
        found = self.releases
        pull, peel = found.pull.values(), found.peel.values()
        note = f"measured over set: {len(pull)} pulls {min(pull):.3f} to {max(pull):.3f}, "
        note += f"{len(peel)} torques {min(peel):.3f} to {max(peel):.3f}; 1 to 8 studs"
        return [Row("", found.worst, repeats=len(pull) + len(peel), note=note)]

    def tower(self) -> list[Row]:
        found = self.built
        note = f"stacked loosely, pressed once: {found.joined} fits, {found.held} after {self.config.tower_s:g} s, "
        return [Row("", found.stands, note=f"{note}top {found.lean_mm:.4f} mm off")]

    def no_teleport(self) -> list[Row]:
        jumps = {
            "presses": self.presses.jump_mm,
            "pulls and torques": self.releases.jump_mm,
            "tower": self.built.jump_mm,
        }
        note = "beyond its speed in one step: " + ", ".join(f"{name} {most:.3f}" for name, most in jumps.items())
        return [Row("", max(jumps.values()), note=note)]

    def rate_joint(self) -> list[Row]:
        return [self._rate(rates.rate_joint, "state only, 17 joint targets")]

    def rate_ee(self) -> list[Row]:
        return [self._rate(rates.rate_ee, "state only, through inverse kinematics")]

    def rate_vector(self) -> list[Row]:
        return [self._rate(rates.rate_vector, "32 under joint targets on 2 threads of mujoco.batch, by the clock")]

    def rate_pixels(self) -> list[Row]:
        return [self._rate(rates.rate_pixels, "two 128x128 cameras")]

    def _rate(self, measure: Callable[..., list[float]], what: str) -> Row:
        config = self.config
        with_own = median(measure(config.repeats, config.task, None))
        note = f"{config.task} with {config.distractors} distractors, {what}; with its own number {with_own:.3f}"
        return median_row(measure(config.repeats, config.task, config.distractors), note)

    def deterministic(self) -> list[Row]:
        same = rates.deterministic()
        differ = [name for name, equal in same.items() if not equal]
        note = f"differ: {', '.join(differ)}" if differ else ", ".join(same)
        return [Row("", not differ, repeats=len(same), note=note)]
