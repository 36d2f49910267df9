import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tandem_datasets.errors import TandemError
from tandem_sim.bricks.shapes import COLOURS
from tandem_sim.h1.cameras import described, intrinsics
from tandem_sim.h1.env import H1Env
from tandem_sim.h1.scene import BRICK_ID, ROBOT_ID, TABLE_ID
from tandem_sim.h1.settings import CAMERAS, Settings

NO_GL = """
import ctypes, sys
whole = ctypes.CDLL.__init__
def without(self, name, *args, **kwargs):
    if name and any(word in str(name) for word in ("EGL", "OpenGL", "libGL", "glfw")):
        raise OSError(f"{name}: cannot open shared object file")
    whole(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = without
import gymnasium, tandem_sim
"""


def seen(task="stack", seed=0, **options):
    env = H1Env(task, action_mode="joint", **options)
    return env, env.reset(seed=seed)[0]["pixels"]


def project(env, camera, point, side):
    """Where a world point is in a square picture, (column, row), by the embodiment's intrinsics alone."""
    data, at = env.world.data, env.world.scene.cameras[camera]
    inside = data.cam_xmat[at].reshape(3, 3).T @ (np.asarray(point) - data.cam_xpos[at])
    lens = intrinsics(camera, side, side)
    return lens.cx + lens.fx * inside[0] / -inside[2], lens.cy - lens.fy * inside[1] / -inside[2], -inside[2]


def test_all_streams_have_the_shapes_and_types_that_the_embodiment_tells():
    env, pixels = seen(cameras=CAMERAS, image_size=(24, 32), depth=True, segmentation=True)
    streams = described(env.settings)
    assert [camera.name for camera in streams[:3]] == ["front", "front_depth", "front_segmentation"]
    assert set(pixels) == {camera.name for camera in streams}
    for camera in streams:
        assert pixels[camera.name].shape == camera.shape
        assert pixels[camera.name].dtype == camera.dtype
        assert camera.intrinsics.fx == camera.intrinsics.fy
    assert len({pixels[name].tobytes() for name in CAMERAS}) == 4


def test_bricks_are_where_the_intrinsics_say_in_the_colours_that_the_instruction_names():
    env, pixels = seen(cameras=("front",), image_size=128, depth=True, segmentation=True)
    ids, image, depth = pixels["front_segmentation"][..., 0], pixels["front"], pixels["front_depth"][..., 0]
    assert {TABLE_ID, ROBOT_ID} <= set(np.unique(ids).tolist())
    poses = env.world.observer.poses(env.world.data.qpos)
    for slot, pose in enumerate(poses):
        top = pose[:3] + np.array([0, 0, env.task.height / 2])
        column, row, away = project(env, "front", top, 128)
        assert ids[round(row), round(column)] == BRICK_ID + slot
        assert depth[round(row), round(column)] == pytest.approx(1e3 * away, abs=8)
        shown = image[ids == BRICK_ID + slot].mean(0) / 255
        assert len(image[ids == BRICK_ID + slot]) > 30
        nearest = min(COLOURS, key=lambda name: np.abs(shown / shown.max() - _hue(name)).sum())
        assert _told(nearest) == _told(env.layout.colours[slot])


def _hue(name):
    rgb = np.array(COLOURS[name][:3])
    return rgb / rgb.max()


def _told(name):
    return "grey" if name in ("black", "white") else name  # the light tells them apart, not the hue


def test_every_colour_stands_out_from_the_table_and_from_each_other_at_128_pixels():
    means = {}
    for seed in range(8):
        env, pixels = seen("reach", seed, cameras=("front",), image_size=128, segmentation=True)
        ids = pixels["front_segmentation"][..., 0]
        means["table"] = pixels["front"][ids == TABLE_ID].mean(0)
        for slot, colour in enumerate(env.layout.colours):
            means[colour] = pixels["front"][ids == BRICK_ID + slot].mean(0)
    assert len(means) == 9
    names = sorted(means)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            assert np.abs(means[one] - means[other]).max() > 25, (one, other)


def test_large_pictures_carry_the_instruction():
    env = H1Env("reach", cameras=(), render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (512 + 48, 512, 3)
    assert picture.std() > 20
    assert H1Env("reach", cameras=()).render() is None


def test_threads_take_turns_and_scenes_do_not_disturb_each_other():
    env, pixels = seen("stack", 1, cameras=("front",), image_size=32)
    other, _ = seen("place", 1, cameras=("front",), image_size=48)
    found = []

    def look():
        other.reset(seed=1)
        found.append(env.reset(seed=1)[0]["pixels"]["front"])

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [image.tobytes() for image in found] == [pixels["front"].tobytes()] * 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_from_one_that_draws_says_so_instead_of_waiting():
    env, _ = seen("reach", 0, cameras=("front",), image_size=16)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            env.reset(seed=0)
        except TandemError as error:
            os.write(theirs, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"was forked from one that draws" in os.read(ours, 1000)


def test_steps_that_nobody_looks_at_draw_nothing():
    code = "import sys\n" + (
        "from tandem_sim.h1.env import H1Env\n"
        "env = H1Env('reach', cameras=[]); env.reset(seed=0); env.step(None)\n"
        "print([name for name in sys.modules if name.startswith(('OpenGL', 'mujoco.egl'))])"
    )
    plain = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}  # of which MuJoCo itself imports
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("setting", ["", "egl"])
def test_without_opengl_the_state_is_there_and_a_camera_says_what_to_install(setting):
    code = NO_GL + (
        "env = gymnasium.make('tandem/H1Reach-v0', cameras=[])\n"
        "env.reset(seed=0); env.step(env.action_space.sample())\n"
        "from tandem_datasets.errors import TandemError\n"
        "try:\n    gymnasium.make('tandem/H1Reach-v0', cameras=['front'])\n"
        "except TandemError as error:\n    print(error)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    environment |= {"MUJOCO_GL": setting} if setting else {}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "libegl1" in done.stdout
    assert "MUJOCO_GL=egl" in done.stdout


def test_opengl_that_was_switched_off_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(TandemError, match="MUJOCO_GL is 'disabled'") as caught:
        H1Env("reach", cameras=("front",))
    assert "\n" not in str(caught.value)
    H1Env("reach", cameras=()).reset(seed=0)


def test_unknown_render_modes_are_refused():
    with pytest.raises(TandemError, match="render_mode is 'ascii'"):
        H1Env("reach", cameras=(), render_mode="ascii")


def test_settings_name_streams_in_order():
    settings = Settings(cameras=("head", "front"), image_size=(48, 64))
    assert [(camera.name, camera.height, camera.width) for camera in described(settings)] == [
        ("head", 48, 64),
        ("front", 48, 64),
    ]
