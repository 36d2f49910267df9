"""One simulated world: model, data, bricks that snap, robot under control, and the task that it is about.

Environments, single and many, are made of worlds; a world knows neither Gymnasium nor pictures.
"""

from functools import lru_cache

import mujoco
import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_sim.bricks.graph import Connections
from tandem_sim.bricks.snap import Snapping
from tandem_sim.h1 import embodiment as contract
from tandem_sim.h1 import robot as h1
from tandem_sim.h1 import scene as scenes
from tandem_sim.h1.actions import ControlSettings, Executed, make_actions
from tandem_sim.h1.cameras import described
from tandem_sim.h1.control import Servo
from tandem_sim.h1.observing import Observer, privileged_scalars
from tandem_sim.h1.randomising import Randomiser
from tandem_sim.h1.settings import Settings
from tandem_sim.h1.state import StateReader
from tandem_sim.h1.tasks import make as make_task
from tandem_sim.h1.tasks.base import MIDDLE, Layout, Seen, Task


class World:
    """A world under the settings, without an episode until :meth:`reset`.

    Raises:
        TandemError: a task that does not fit its settings, or a robot that cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.task: Task = make_task(settings, scenes.TABLE_TOP)
        self.task.lay_out(np.random.default_rng(0))  # more bricks than fit are refused at once
        parts = scenes.Parts(settings.robot, self.task.sizes, self.task.plate(), MIDDLE, settings.pitch)
        self.scene = scenes.build(parts)
        self.model = self.scene.copy()
        self.data = mujoco.MjData(self.model)
        self.snapping = Snapping(self.model)
        self.servo = Servo(self.model, settings.rate_hz)
        self.actions = make_actions(control_settings(settings), robot_alone(settings.robot))
        self.observer = Observer(self.scene, self.model, self.task, settings.privileged)
        # views that stay valid as long as the data: finding them costs more than reading them
        self._sensed = self.data.sensordata
        self._poses = self.observer.poses(self.data.qpos)
        self._speeds = self.observer.speeds(self.data.qvel)
        self._places = StateReader.places(self._sensed)
        self._randomiser = Randomiser(self.scene, self.model, settings.randomise)
        self._layout: Layout | None = None
        self._substeps = settings.substeps
        self.late_substeps = 0  # before a command takes effect

    @property
    def connections(self) -> Connections:
        """Who is attached to whom."""
        return self.snapping.connections

    def reset(self, rng: np.random.Generator) -> Layout:
        """Begins an episode drawn from ``rng``."""
        data, task = self.data, self.task
        layout = self._layout = task.lay_out(rng)
        self.late_substeps = min(self._randomiser.apply(rng, layout), self._substeps)
        mujoco.mj_resetData(self.model, data)
        begin = self.scene.brick_qpos
        for slot, place in enumerate(layout.places):
            up = task.table + task.height / 2
            half = place.yaw / 2
            pose = (place.x, place.y, up, np.cos(half), 0.0, 0.0, np.sin(half))
            data.qpos[begin + 7 * slot : begin + 7 * slot + 7] = pose
        self.servo.reset(data, h1.HOME)
        self.snapping.reset(data)
        for piece in layout.attachments:
            lower, upper, seat = scenes.brick_name(piece.lower), scenes.brick_name(piece.upper), piece.seat
            self.snapping.attach(data, lower, upper, seat.i, seat.j, seat.turns)
        mujoco.mj_forward(self.model, data)
        self.actions.reset(h1.HOME)
        self.observer.begin(layout)
        return layout

    def step(self, action: np.ndarray | None) -> Executed:
        """Executes an action (A,) float32 for a control step; None holds. Errors as :meth:`Actions.step`."""
        executed = self.actions.step(action)
        self.advance(executed.targets)
        return executed

    def advance(self, targets: np.ndarray) -> None:
        """A control step towards joint targets (17,)."""
        data, late = self.data, self.late_substeps
        if late:
            self.snapping.step(data, late)
        self.servo.command(data, targets)
        self.snapping.step(data, self.settings.substeps - late)
        self.observer.reader.refresh(data)

    def own(self) -> np.ndarray:
        """The robot's own state, (48,) float32."""
        return self.observer.reader.states(self._sensed)

    def state(self, own: np.ndarray) -> np.ndarray:
        """(S,) float32 as the embodiment has it, from the robot's own."""
        return self.observer.state(own, self._poses, self.snapping.connections)

    def seen(self, own: np.ndarray) -> Seen:
        """What the task judges by."""
        poses, tcps = self._poses.tolist(), self._places.tolist()
        return self.observer.seen(own, poses, self._speeds, tcps, self.snapping.connections)


def control_settings(settings: Settings) -> ControlSettings:
    """The part of the settings that says how the robot is commanded."""
    return ControlSettings(settings.action_mode, settings.rotation, settings.rate_hz, settings.strict)


def embodiment(settings: Settings, task: Task) -> Embodiment:
    """The contract of an environment with these settings."""
    more = privileged_scalars(task) if settings.privileged else ()
    return contract.embodiment(control_settings(settings), described(settings), more)


def described_by(settings: Settings) -> Embodiment:
    """The same from the settings alone."""
    return embodiment(settings, make_task(settings, scenes.TABLE_TOP))


@lru_cache(maxsize=4)
def robot_alone(robot: str) -> mujoco.MjSpec:
    """The robot without a scene, for its inverse kinematics; not to be changed."""
    return h1.robot_spec(robot)
