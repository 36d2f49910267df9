"""The H1's contract: cameras, state and action as one :class:`~tandem_datasets.embodiment.Embodiment`."""

from tandem_datasets.embodiment import Camera, Embodiment, StateScalar
from tandem_sim.h1 import actions, state
from tandem_sim.h1.actions import ControlSettings


def embodiment(
    settings: ControlSettings,
    cameras: tuple[Camera, ...] = (),
    privileged: tuple[StateScalar, ...] = (),
    name: str = "h1",
) -> Embodiment:
    """The robot as commanded by ``settings``; the same whichever file its body comes from.

    Args:
        settings: of control.
        cameras: that are looked through.
        privileged: further state, behind the robot's own, which no real robot would have.
        name: of the embodiment.
    """
    return Embodiment(
        name=name,
        rate_hz=float(settings.rate_hz),
        hears_instruction=True,
        cameras=cameras,
        state=state.scalars() + privileged,
        action=actions.scalars(settings),
        tells_subgoals=True,
    )
