"""Training jobs with objectives of their own: one file here and one yaml in ``conf/stage`` each.

``stages/<name>.py`` has ``build(config, trainer) -> Stage``; the engine runs it.
"""

import importlib
from pathlib import Path
from typing import Any

from tandem_datasets.errors import unknown
from tandem_training.engine.settings import TrainerSettings
from tandem_training.stages.base import Stage

_HERE = Path(__file__).parent


def stage_names() -> list[str]:
    """The names of all stages, sorted; imports none of them."""
    return sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in ("__init__", "base"))


def build_stage(config: Any, trainer: TrainerSettings) -> Stage:
    """The stage that ``config.stage.name`` names, for the composed configuration of `tandem train`."""
    name = str(config.stage.name)
    if name not in stage_names():
        raise unknown("stage", name, stage_names())
    return importlib.import_module(f"tandem_training.stages.{name}").build(config, trainer)
