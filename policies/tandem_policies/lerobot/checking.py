"""What is refused of a LeRobot policy directory before anything of it is opened; imports no LeRobot.

LeRobot would import whatever class a processor file names, so that only steps named by their registered names are let
through, and of those :mod:`.files` takes only known ones. Nothing may ask the libraries below to run code that comes
with a model (``trust_remote_code``). A directory of LeRobot's own training lacks ``embodiment.json``, and LeRobot's
features have no units, limits, rate and names to make one from: write it there
(:meth:`tandem_datasets.embodiment.Embodiment.to_dict`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_policies.files import CONFIG, EMBODIMENT, WEIGHTS
from tandem_policies.untrusted import read_json

PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
_TRUST = "trust_remote_code"


@dataclass(frozen=True)
class Contents:
    """The JSON files of a policy directory, read once."""

    path: Path
    config: dict[str, Any]
    embodiment: Embodiment
    steps: dict[str, list[dict[str, Any]]]  # of each of PROCESSORS


def check_directory(directory: str | Path) -> Contents:
    """Reads what is JSON.

    Raises:
        TandemError: a file is missing or no JSON, a processor's step is not named by its registered name, its state
            lies elsewhere, or something is to be run that comes with a model.
    """
    path = Path(directory)
    for name in (CONFIG, WEIGHTS, *PROCESSORS):
        if not (path / name).is_file():
            raise TandemError(f"{path}: no {name} (wanted: a directory that LeRobot's save_pretrained wrote)")
    if not (path / EMBODIMENT).is_file():
        raise TandemError(
            f"{path}: no {EMBODIMENT} (wanted: names, units, limits and rate of cameras, state and action, which "
            f"LeRobot's {CONFIG} does not hold: meta/embodiment.json of a dataset that Tandem exported has them)"
        )
    embodiment = Embodiment.from_dict(read_json(path / EMBODIMENT), str(path / EMBODIMENT))
    config = read_json(path / CONFIG)
    for name in (CONFIG, *PROCESSORS):
        if _names(read_json(path / name), _TRUST):
            raise TandemError(f"{path / name}: {_TRUST} is set (allowed: not there, for code of others is never run)")
    if config.get("use_peft"):
        raise TandemError(f"{path / CONFIG}: use_peft is true (allowed: whole weights, not an adapter's)")
    return Contents(path, config, embodiment, {name: _steps(path / name) for name in PROCESSORS})


def _names(value: Any, key: str) -> bool:
    """Whether anything in a JSON value has a key."""
    if isinstance(value, dict):
        return key in value or any(_names(part, key) for part in value.values())
    return isinstance(value, list) and any(_names(part, key) for part in value)


def _steps(file: Path) -> list[dict[str, Any]]:
    steps = read_json(file).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise TandemError(f"{file}: steps is {type(steps).__name__} (wanted: a list of objects)")
    for step in steps:
        if not isinstance(step.get("registry_name"), str) or "class" in step:
            raise TandemError(
                f"{file}: a step of class {step.get('class')!r:.80} (allowed: steps by their registered name)"
            )
        state = step.get("state_file")
        if state is not None:
            plain = isinstance(state, str) and Path(state).name == state and state.endswith(".safetensors")
            if not plain or not (file.parent / state).is_file():
                raise TandemError(f"{file}: state_file is {state!r:.80} (allowed: a .safetensors file beside it)")
    return steps
