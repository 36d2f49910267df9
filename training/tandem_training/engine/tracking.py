"""Weights & Biases: one run per output folder, which a resumed training goes on with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_training.engine.settings import TrainerSettings
from tandem_training.results import write_json

RUN = "wandb.json"
_ANSWER_S, _START_S, _LOGIN_S, _FINISH_S = 10, 30, 30, 60  # the most that each is waited for


class Tracker(Protocol):
    """Where curves and pictures go besides the folder."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars at ``step``; a step may come again after a resume."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures uint8 (H, W, 3) by name at ``step``."""

    def close(self, failed: bool) -> None:
        """Nothing comes any more."""


class WandbTracker:
    """A run of Weights & Biases; see :func:`open_wandb`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        import wandb

        self._run.log({"step": step, **{f"pictures/{name}": wandb.Image(image) for name, image in pictures.items()}})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def open_wandb(settings: TrainerSettings, out: Path, config: Mapping[str, Any]) -> tuple[WandbTracker, str] | None:
    """The run of the training in ``out`` and a line that says where it is, or None if ``trainer.wandb`` is off.

    Its id stands in ``<out>/wandb.json``; files lie in ``<out>/wandb``. An offline run that was resumed has a folder
    per part there; ``wandb sync`` makes one run of them.

    Raises:
        TandemError: not installed, not logged in, or no answer in time.
    """
    if settings.wandb == "off":
        return None
    where, online = f"trainer.wandb={settings.wandb}", settings.wandb == "online"
    try:
        import wandb
    except ImportError as error:
        raise TandemError(f"{where}: wandb cannot be imported: {error} (allowed: pip install wandb, or off)") from None
    identity = _known_id(out / RUN) or wandb.util.generate_id()
    options = wandb.Settings(
        console="off", quiet=True, silent=True, disable_git=True, disable_code=True,
        init_timeout=_START_S, login_timeout=_LOGIN_S, finish_timeout=_FINISH_S,
    )  # fmt: skip
    if online:
        _require_server(wandb.setup().settings.base_url, where)
    try:
        run = wandb.init(
            project=settings.wandb_project, name=settings.wandb_name or out.name, id=identity, dir=out,
            mode="online" if online else "offline", resume="allow" if online else None,
            config=dict(config), settings=options,
        )  # fmt: skip
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())[:160]
        raise TandemError(f"{where}: {reason} (allowed: `wandb login` and a network, offline, or off)") from None
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")  # its own counter refuses the steps that a resume repeats
    write_json(out / RUN, {"id": identity})
    return WandbTracker(run), f"W&B run {identity}: {run.url if online else Path(run.dir).parent}"


def _require_server(address: str, where: str) -> None:
    """Raises TandemError if nobody answers at the address: W&B would try again for ever before it begins."""
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        urlopen(address, timeout=_ANSWER_S).close()
    except HTTPError:  # an answer
        pass
    except (URLError, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:100]
        raise TandemError(f"{where}: {address} does not answer: {reason} (allowed: offline, or off)") from None


def _known_id(path: Path) -> str | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise TandemError(f"{path}: unreadable ({error}); without it a new run begins") from error
    identity = found.get("id") if isinstance(found, dict) else None
    if not isinstance(identity, str) or not identity:
        raise TandemError(f"{path}: holds no run id (allowed: remove it, and a new run begins)")
    return identity
