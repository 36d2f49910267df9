"""Hydra's configuration tree: `<command>.yaml` and one folder per group. Data only."""
