"""Pretrained vision and language backbones by name, for any policy: frozen, with LoRA adapters, or trained in full.

Everything here goes through transformers and peft, which are imported only when a config asks for a backbone:

- :mod:`settings`: the config fields (free of torch); a policy's config derives from :class:`BackboneSettings`;
- :mod:`sources`: a hub name or a folder to files on this machine;
- :mod:`architectures`: which models are supported, and how one is built from its config, with or without weights;
- :mod:`vision`, :mod:`language`: the towers, ``vision_tower(config, embodiment, assets)`` and
  ``language_tower(config, assets)``;
- :mod:`lora`: adapters.
"""
