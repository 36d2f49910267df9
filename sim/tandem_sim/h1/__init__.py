"""A Unitree H1's upper body that handles studded bricks on a table, in MuJoCo.

``settings`` says what can be chosen; ``robot`` and ``scene`` build the model; ``control``, ``ik`` and ``actions`` move
it; ``tasks`` say what is asked and judge it; ``env`` and ``vector`` are the Gymnasium environments on top.
"""
