"""Pretrained vision and language backbones by name, for any policy: frozen, with LoRA adapters, or trained in full.

Everything here goes through transformers and peft, which are imported only when a config asks for a backbone:

- :mod:`settings`: the config fields; a policy's config derives from :class:`settings.BackboneSettings`;
- :mod:`sources`: a hub name or a folder to files on this machine;
- :mod:`architectures`: which models are supported, and how one is built from its config, with or without weights;
- :mod:`lora`: adapters;
- :mod:`tower`, :mod:`vision`, :mod:`language`: what a policy gets.

A policy calls ``vision.vision_tower`` and ``language.language_tower`` where its config names a backbone, and adds each
tower's ``asset()`` to its own assets. Importing this package imports no torch.
"""
