"""LeRobot's own policies in Tandem: ACT, Diffusion, VQ-BeT, multi-task DiT, SmolVLA, pi0, EO-1 and others that it has.

They train here like any network, and lie on disk in LeRobot's own layout. :mod:`.client` serves such a directory from a
process of its own, because importing LeRobot takes 16 s and 1 GB. Leans on lerobot, which nothing else here imports.
"""
