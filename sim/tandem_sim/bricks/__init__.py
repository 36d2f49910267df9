"""Studded bricks in MuJoCo: shapes, the stud grid, press-fit connections, and the trials that measure them.

Leans on MuJoCo and tandem_datasets only. A scene adds bricks to an ``MjSpec`` (:mod:`.shapes`), allocates their welds
(:func:`.shapes.prepare`), compiles, and from then on steps through :class:`.snap.Snapping`.
"""

from tandem_sim.opengl import import_mujoco

import_mujoco()
