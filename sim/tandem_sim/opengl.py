"""Imports MuJoCo on machines without OpenGL too, where its own import can fail although physics needs none.

MuJoCo looks for the back end that MUJOCO_GL names (GLFW, if none) when it is imported. Without the libraries behind it,
that ends in whatever PyOpenGL or GLFW happen to raise.
"""

import os
import sys

_BACK_ENDS = ("mujoco.rendering", "mujoco.egl", "mujoco.glfw", "mujoco.osmesa", "OpenGL", "glfw")


def import_mujoco() -> None:
    """Has MuJoCo imported, without its own renderer where there is no OpenGL; nothing else happens a second time."""
    if "mujoco" in sys.modules:
        return
    try:
        import mujoco
    except Exception:  # noqa: BLE001 - each back end fails in its own way
        for name in [name for name in sys.modules if name.startswith(_BACK_ENDS)]:
            del sys.modules[name]
        wanted = os.environ.get("MUJOCO_GL")
        os.environ["MUJOCO_GL"] = "disabled"
        try:
            import mujoco  # noqa: F401
        finally:
            del os.environ["MUJOCO_GL"]
            if wanted is not None:
                os.environ["MUJOCO_GL"] = wanted
