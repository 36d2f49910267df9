"""Real presses on real bricks: when a fit locks, where it ends, and what takes it apart."""

import mujoco
import pytest

from tandem_sim.bricks.shapes import add_baseplate, add_brick, prepare
from tandem_sim.bricks.snap import Snapping


def _press_on_plate(force: float, offset: tuple[float, float]) -> Snapping:
    """A 2x4 on a baseplate with a plunger that presses with ``force`` for 0.3 s."""
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.cone = 0.002, mujoco.mjtCone.mjCONE_ELLIPTIC
    add_baseplate(spec, "plate")
    add_brick(spec, "brick", "2x4", "red", pos=(*offset, 0.013))
    plunger = spec.worldbody.add_body(name="plunger", pos=(0, 0, 0.04), gravcomp=1)
    plunger.add_joint(name="plunger", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1), damping=5)
    plunger.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 0.04, 0.01), mass=0.2)
    spec.add_actuator(name="plunger", trntype=mujoco.mjtTrn.mjTRN_JOINT, target="plunger").set_to_motor()
    prepare(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    snapping = Snapping(model)
    snapping.reset(data)
    data.ctrl[0] = -force
    snapping.step(data, 150)
    return snapping


@pytest.mark.parametrize(
    ("force", "offset", "studs"), [(9.6, (0.0005, 0.001), 8), (6.0, (0, 0), 0), (9.6, (0.00225, 0), 0)]
)
def test_presses_lock_in_the_right_place_only(force, offset, studs):
    edges = _press_on_plate(force, offset).connections.edges
    assert [edge.studs for edge in edges] == ([studs] if studs else [])
