"""The one training engine: seeds, precision, schedule, checkpoints, resume and progress, for every stage.

It knows stages only by the interface :class:`tandem_training.stages.base.Stage`; no stage has a loop of its own.
"""
