"""From joint targets to the servos' inputs: smooth at every control rate, without a line of Python within a step.

MuJoCo's PID actuators do the rest at 500 Hz: position and speed feedback, gravity and the integral within the published
torque limits. The integral takes up lasting loads such as a press; ``imax`` stops it from winding up.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from tandem_datasets.errors import TandemError
from tandem_sim.h1 import robot as h1

RATES_HZ = (50, 25, 20)  # control steps a second; each is a whole number of physics steps
_STILL = 1e-9  # rad/s; a slew of 0 would mean an unlimited one


@dataclass(frozen=True)
class Command:
    """What a control step writes into MuJoCo; the last axis is the servo's or the input's."""

    ctrl: np.ndarray  # (..., 34): position and speed of each servo
    slew: np.ndarray  # (..., 17) rad/s or m/s at which the setpoints move, for ``actuator_dynprm[:, 1]``


def substeps(rate_hz: float) -> int:
    """Physics steps in a control step.

    Raises:
        TandemError: a rate that is not one of ``RATES_HZ``.
    """
    if rate_hz not in RATES_HZ:
        raise TandemError(f"H1: control rate is {rate_hz} Hz (allowed: {', '.join(map(str, RATES_HZ))})")
    return round(1 / (rate_hz * h1.TIMESTEP))


class Servo:
    """Moves the setpoints of a model's servos in a straight line to the targets within one control step.

    Nothing of an episode is kept here but in ``MjData``: one servo may command many of them.

    Args:
        model: with the actuators of :func:`tandem_sim.h1.robot.robot_spec`, in any scene.
        rate_hz: control steps a second, one of ``RATES_HZ``.
    """

    def __init__(self, model: mujoco.MjModel, rate_hz: float) -> None:
        self.substeps = substeps(rate_hz)
        self._period = self.substeps * h1.TIMESTEP
        servos = [model.actuator(name).id for name in h1.ACTIONS]
        first = servos[0]
        assert servos == list(range(first, first + len(servos))), "the servos lie side by side"
        self.slew = model.actuator_dynprm[first : first + len(servos), 1]  # a view: what is written there steers
        begin = int(model.actuator_ctrladr[first])
        self.ctrl = slice(begin, begin + 2 * len(servos))
        self._setpoints = model.actuator_actadr[servos].copy()
        acts = [range(model.actuator_actadr[s], model.actuator_actadr[s] + model.actuator_actnum[s]) for s in servos]
        self._integrals = np.array([index for row in acts for index in row[1:]])
        self._low, self._high = model.actuator_ctrlrange[self.ctrl][::2].T.copy()
        self._step = h1.limits.speed * self._period
        self._back = -self._step
        self._now, self._move, self._flat = np.empty(len(servos)), np.empty(len(servos)), np.empty(2 * len(servos))
        self._pairs = self._flat.reshape(-1, 2)
        self._joints, self._dofs, self._rows = _places(model)

    def reset(self, data: mujoco.MjData, posture: np.ndarray) -> None:
        """Puts the robot into ``posture`` (17,) rad or m, at rest, its setpoints there and its integrals empty."""
        held = np.clip(posture, self._low, self._high)
        data.qpos[self._joints] = held[self._rows] * np.where(np.isin(self._rows, h1.GRIPS), 0.5, 1.0)
        data.qvel[self._dofs] = 0.0
        data.act[self._integrals] = 0.0
        data.act[self._setpoints] = held
        self.command(data, held)

    def command(self, data: mujoco.MjData, targets: np.ndarray) -> None:
        """Commands ``targets`` (17,) rad or m for a control step, in ``data.ctrl`` and the model's slew."""
        now, move = self._now, self._move  # as in inputs(), without making arrays
        data.act.take(self._setpoints, out=now, mode="clip")
        np.minimum(np.maximum(targets, self._low, out=move), self._high, out=move)
        np.subtract(move, now, out=move)
        np.minimum(np.maximum(move, self._back, out=move), self._step, out=move)
        np.add(now, move, out=self._pairs[:, 0])
        np.divide(move, self._period, out=self._pairs[:, 1])
        data.ctrl[self.ctrl] = self._flat
        np.maximum(np.abs(self._pairs[:, 1], out=move), _STILL, out=self.slew)

    def setpoints(self, act: np.ndarray) -> np.ndarray:
        """Where the setpoints are now, (..., 17) rad or m, from activations (..., na)."""
        return act[..., self._setpoints]

    def inputs(self, act: np.ndarray, targets: np.ndarray) -> Command:
        """The same for many simulations at once, as ``mujoco.batch`` runs them; writes nothing.

        Args:
            act: (..., na) activations.
            targets: (..., 17) rad or m; beyond the joints' range or speed they are cut.
        """
        now = act[..., self._setpoints]
        move = self._moves(now, targets)
        ctrl = np.empty((*now.shape[:-1], 2 * now.shape[-1]))
        speed = move / self._period
        ctrl[..., ::2] = now + move
        ctrl[..., 1::2] = speed
        return Command(ctrl, np.maximum(np.abs(speed), _STILL))

    def _moves(self, now: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """How far the setpoints move, (..., 17)."""
        move = np.minimum(np.maximum(targets, self._low), self._high) - now
        return np.minimum(np.maximum(move, self._back, out=move), self._step, out=move)


def _places(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of hinges and fingers: where in ``qpos``, where in ``qvel``, and whose action."""
    names = {name: row for row, name in enumerate(h1.ACTIONS) if row not in h1.GRIPS}
    for arm, row in zip(h1.ARMS, h1.GRIPS, strict=True):
        names |= {f"{arm}_finger_{side}": row for side in "ab"}
    joints = [model.joint(name) for name in names]
    return (
        np.array([joint.qposadr[0] for joint in joints]),
        np.array([joint.dofadr[0] for joint in joints]),
        np.array(list(names.values())),
    )
