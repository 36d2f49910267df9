"""Going on with a training: which folder, its configuration, and what must not have changed since."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError
from tandem_training.config import given, parse, recompose
from tandem_training.engine.folder import CONFIG, LAST, has_checkpoint, holds_something
from tandem_training.engine.settings import OPEN_SCHEDULES
from tandem_training.results import METRICS

FOLDER = Path("outputs/train")
WHERE = "tandem train"
# A resumed run may differ in these: none of them changes what is learned. The data is compared by content.
_FREE = (
    "out", "resume", "data", "device", "stage.images", "trainer.log_every", "trainer.checkpoint_every",
    "trainer.threads", "trainer.prefetch", "trainer.early_stop_after", "trainer.wandb", "trainer.wandb_project",
    "trainer.wandb_name",
)  # fmt: skip


def find(out: str | None) -> Path:
    """The training to go on with: ``out``, or of those below ``outputs/train`` that are not finished the newest one.

    Its last checkpoint says how new one is; before the first one its configuration does, and it begins anew.

    Raises:
        TandemError: there is none.
    """
    if out is not None:
        if not (Path(out) / CONFIG).is_file():
            raise TandemError(f"{WHERE}: --resume: out={out} is no training to resume (it has no {CONFIG})")
        return Path(out)
    found = [path.parent for path in FOLDER.glob(f"*/{CONFIG}") if not (path.parent / METRICS).exists()]
    if not found:
        raise TandemError(f"{WHERE}: --resume: no unfinished training in {FOLDER} (allowed: out=<its folder>)")
    return max(found, key=_mark)


def _mark(folder: Path) -> int:
    """When a training was last kept, in ns."""
    places = [folder / name / "progress.json" for name in (LAST, f".{LAST}.old")]  # the latter in the midst of a change
    return next((place for place in places if place.is_file()), folder / CONFIG).stat().st_mtime_ns


def resumed_config(overrides: Sequence[str], doc: str) -> Any:
    """The configuration of `tandem train --resume`: the folder's own, under the overrides.

    Raises:
        TandemError: no such folder, or see :func:`tandem_training.config.parse`.
    """
    named = given("train", overrides, "out")
    out = find(None if named is None else str(named))
    config = parse("train", overrides, doc, saved(out))
    if config is None:
        return None
    config.out, config.resume = str(out), True
    if os.environ.get("RANK", "0") == "0":
        print(f"resuming {out}" if has_checkpoint(out) else f"resuming {out}: no checkpoint yet, begins at step 0")
    return config


def saved(out: Path) -> Any:
    """The configuration that the training in ``out`` was begun with.

    Raises:
        TandemError: it is missing or unreadable.
    """
    from omegaconf import DictConfig, OmegaConf

    path = out / CONFIG
    try:
        config = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise TandemError(f"{WHERE}: out={out} is no training to resume (it has no {CONFIG})") from error
    except Exception as error:  # yaml and omegaconf raise families of their own
        raise TandemError(f"{path}: unreadable ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(config, DictConfig):
        raise TandemError(f"{path}: unreadable (it holds no keys)")
    return config


def check_same(config: Any, out: Path, speaks: bool) -> None:
    """Raises TandemError naming the first key in which a resumed run differs from its beginning."""
    from omegaconf import OmegaConf

    if not holds_something(out):
        if speaks:
            print(f"nothing to resume in {out}: begins at step 0")
        return
    begun = recompose("train", saved(out), [])  # keys that came later have their defaults
    before = dict(_leaves(OmegaConf.to_container(begun)))
    now = dict(_leaves(OmegaConf.to_container(config, resolve=True)))
    for key in sorted(before.keys() | now.keys()):
        if key in _FREE or key.startswith("data.") or before.get(key) == now.get(key):
            continue
        if key == "trainer.max_steps" and _extends(before[key], now):
            continue
        allowed = f"the same; more with schedule={' or '.join(OPEN_SCHEDULES)}" if "max_steps" in key else "the same"
        raise TandemError(
            f"{WHERE}: resume: {key} is {now.get(key)}, but {out} was begun with {before.get(key)} (allowed: {allowed})"
        )


def _extends(before: int, now: dict[str, Any]) -> bool:
    """Whether a longer run's first steps are the shorter one's: the rate must not depend on the end."""
    return now["trainer.schedule"] in OPEN_SCHEDULES and now["trainer.max_steps"] > before


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
