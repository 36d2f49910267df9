"""Bricks as bodies: sizes, masses, colours, welds, and what is refused."""

import itertools

import mujoco
import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.bricks.parameters import LEGO_PITCH, BrickSize
from tandem_sim.bricks.shapes import COLOURS, KINDS, add_baseplate, add_brick, bricks_of, mass, paint, prepare
from tandem_sim.bricks.snap import Snapping
from tandem_sim.h1.rendering import renderer


def scene(*bricks: str, plate: bool = False, **options) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    if plate:
        add_baseplate(spec, "plate")
    for at, size in enumerate(bricks):
        add_brick(spec, f"b{at}", size, "red", pos=(0, 0.1 * at, 0.1), **options)
    prepare(spec)
    return spec.compile()


@pytest.mark.parametrize("name", [name for name, size in KINDS.items() if not size.plate])
@pytest.mark.parametrize("pitch", [0.016, 0.008])
def test_a_brick_has_real_proportions_and_a_hollow_bricks_mass(name, pitch):
    model = scene(name, pitch=pitch)
    nx, ny = (int(number) for number in name.split("x"))
    size = 2 * model.geom("b0/box").size
    assert size == pytest.approx([nx * pitch, ny * pitch, 1.2 * pitch], rel=0.03)
    assert (size[:2] < [nx * pitch, ny * pitch]).all(), "neighbours on the grid do not touch"
    grams = {"1x2": 0.81, "1x4": 1.57, "2x2": 1.15, "2x3": 1.66, "2x4": 2.16}[name]
    assert float(model.body("b0").mass[0]) == pytest.approx(grams / 1000 * (pitch / LEGO_PITCH) ** 3)


def test_masses_grow_with_size():
    assert mass(BrickSize(1, 1)) < mass(KINDS["1x2"]) < mass(KINDS["2x4"]) < mass(BrickSize(4, 4))
    assert mass(BrickSize(8, 8, plate=True)) < mass(BrickSize(16, 16, plate=True))


def test_studs_are_seen_but_never_felt():
    model = scene("2x4", plate=True)
    for name, vertices in (("b0/studs", 8 * 17), ("plate/studs", 64 * 17)):
        geom = model.geom(name)
        assert not geom.contype[0]
        assert not geom.conaffinity[0]
        assert model.mesh_vertnum[geom.dataid[0]] == vertices


def test_a_model_knows_its_bricks():
    plate, first, second = bricks_of(scene("2x4", "1x2", plate=True))
    assert plate.fixed
    assert plate.size == KINDS["baseplate 8x8"]
    assert (first.name, first.size, first.pitch) == ("b0", KINDS["2x4"], 0.016)
    assert (second.qpos, second.dof) == (7, 6)


def test_welds_join_bricks_only_and_begin_inactive():
    model = scene("2x4", "1x2", "2x2", plate=True)
    assert model.neq == 6
    assert not model.eq_active0.any()
    assert set(model.eq_type) == {int(mujoco.mjtEq.mjEQ_WELD)}
    bodies = {brick.body for brick in bricks_of(model)}
    assert {*model.eq_obj1id.tolist(), *model.eq_obj2id.tolist()} <= bodies


def test_colours_change_in_a_compiled_model():
    model = scene("2x4")
    paint(model, "b0", "yellow")
    assert model.geom("b0/box").rgba == pytest.approx(COLOURS["yellow"])
    assert model.geom("b0/studs").rgba == pytest.approx(COLOURS["yellow"])
    with pytest.raises(TandemError, match="brick colour: unknown name 'yelow'; did you mean 'yellow'"):
        paint(model, "b0", "yelow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "2x5"}, r"brick size: unknown name '2x5'.*allowed: .*2x4"),
        ({"colour": "rde"}, r"brick colour: unknown name 'rde'; did you mean 'red'"),
        ({"name": "b0"}, r"brick 'b0': the name is taken"),
        ({"name": ""}, r"brick '': .*no name"),
        ({"name": "a/b"}, r"brick 'a/b': .*without '/'"),
        ({"pitch": 0.001}, r"brick 'new': pitch 0.001 m \(allowed: 0.004 to 0.064\)"),
        ({"pitch": 0.008}, r"brick 'new': pitch 0.008 m beside 0.016 m \(allowed: one pitch"),
        ({"colour": (1, 0, 0)}, r"brick 'new': colour \(1, 0, 0\) \(allowed: .*four numbers"),
    ],
)
def test_bad_bricks_are_refused_in_one_line(change, message):
    spec = mujoco.MjSpec()
    add_brick(spec, "b0", "2x4", "red")
    with pytest.raises(TandemError, match=message) as caught:
        add_brick(spec, **{"name": "new", "size": "2x4", "colour": "red", **change})
    assert "\n" not in str(caught.value)


def test_bricks_without_welds_and_long_time_steps_are_refused():
    spec = mujoco.MjSpec()
    add_brick(spec, "a", "2x4", "red")
    add_brick(spec, "b", "2x4", "red", pos=(0, 0, 1))
    with pytest.raises(TandemError, match=r"'a' and 'b' have no weld \(allowed: prepare\(spec\)"):
        Snapping(spec.compile())
    prepare(spec)
    spec.option.timestep = 0.004
    with pytest.raises(TandemError, match=r"time step 0.004 s \(allowed: up to 0.002 s\)"):
        Snapping(spec.compile())


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of sRGB from 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_eight_colours_are_told_apart_in_a_small_picture():
    """In a picture of 128x128 with a brick in each colour, what shows of a brick is nearest to its own colour."""
    spec = mujoco.MjSpec()
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.4] * 3, [0.6] * 3
    spec.worldbody.add_camera(name="above", pos=(0, 0, 0.5), fovy=40)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1, 1, 1), rgba=(0.5, 0.5, 0.5, 1))
    for at, name in enumerate(COLOURS):
        add_brick(spec, name, "2x4", name, pos=((at % 4 - 1.5) * 0.07, (at // 4 - 0.5) * 0.12, 0.0096))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with renderer("colours", model) as drawing:
        drawing.update(model, data)
        image = drawing.draw(model, data, 0, 128, 128)[0] / 255
        ids = drawing.segment(model, data, 0, 128, 128, np.arange(model.ngeom, dtype=np.uint16))[..., 0]
    wanted = _lab(np.array([rgba[:3] for rgba in COLOURS.values()]))
    for at, name in enumerate(COLOURS):
        box, studs = (ids == model.geom(f"{name}/{part}").id for part in ("box", "studs"))
        assert studs.sum() >= 8, "studs are seen"
        nearest = np.linalg.norm(_lab(image[box | studs])[:, None] - wanted, axis=2).argmin(1)
        assert (nearest == at).mean() > 0.75, f"{name}: the rest are walls in the shade"
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(wanted, 2)) > 30  # 2 is just seen
