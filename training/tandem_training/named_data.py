"""Data sets by name: ``data=blockfind_static`` stands for stores that are made when they are first asked for.

Each is a file ``conf/data/<name>.yaml`` that says what draws it, with how many samples and which seed a split. It lies
in ``outputs/data/<name>-<hash>/{train,validation,test}.zarr``; the hash covers that file and the code that draws.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError, unknown
from tandem_training.config import CONF_MODULE, group_options
from tandem_training.provenance import code_digest

FOLDER = Path("outputs/data")
SPLITS = ("train", "validation", "test")
_CODE = ("tandem_datasets", "tandem_sim")  # what the samples and their store depend on
_GROUP = "data"


@dataclass(frozen=True)
class NamedData:
    """What a data set is made from."""

    name: str
    draws: str  # a name of tandem_sim.registry.draw
    splits: Mapping[str, tuple[int, int]]  # split -> (samples, seed)

    @property
    def folder(self) -> Path:
        """Where it lies, relative to the working directory."""
        basis = json.dumps([self.draws, dict(self.splits), code_digest(_CODE)], sort_keys=True)
        return FOLDER / f"{self.name}-{hashlib.sha256(basis.encode()).hexdigest()[:12]}"

    def store(self, split: str) -> Path:
        """The path of a split's store."""
        return self.folder / f"{split}.zarr"


@dataclass(frozen=True)
class TrainingStores:
    """Stores to learn from, and to validate on; without the latter some episodes of the former are held out."""

    learn: list[str]
    validate: list[str]


def names() -> list[str]:
    """All named data sets."""
    return group_options(_GROUP)


def named(name: str) -> NamedData:
    """The data set of that name; TandemError with the nearest one otherwise."""
    from importlib.resources import files

    import yaml

    if name not in names():
        raise unknown("data", name, names())
    values = yaml.safe_load(files(CONF_MODULE).joinpath(_GROUP, f"{name}.yaml").read_text())
    return NamedData(name, values["draws"], {split: _split(values[split]) for split in SPLITS})


def training_stores(data: Any) -> TrainingStores:
    """What ``data=`` of `tandem train` means: a name, a store or a list of stores.

    Raises:
        TandemError: it is none of these, or a name among others.
    """
    paths = _paths(data)
    if paths == [data] and data in names():
        found = ready(named(data))
        return TrainingStores([str(found.store("train"))], [str(found.store("validation"))])
    return TrainingStores(paths, [])


def training_weights(weights: Any, stores: TrainingStores) -> list[float] | None:
    """What ``data_weights=`` of `tandem train` means: what share of the samples comes from each store; None: nothing.

    Raises:
        TandemError: they are no positive numbers, or not one for each of the stores of ``data=``.
    """
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(weights) if OmegaConf.is_config(weights) else weights
    if found is None:
        return None
    if not isinstance(found, list) or not all(_is_weight(weight) for weight in found):
        raise TandemError(f"data_weights is {found} (allowed: positive numbers, one for each store of data='[a,b]')")
    if stores.validate or len(found) != len(stores.learn):
        given = "a named data set" if stores.validate else f"{len(stores.learn)} stores"
        raise TandemError(f"data_weights: {len(found)} for {given} (allowed: one for each store of data='[a,b]')")
    return [float(weight) for weight in found]


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def evaluation_stores(data: Any, split: str) -> list[str]:
    """What ``data=`` of `tandem eval` means: of a name the one ``split``, of stores all they hold.

    Raises:
        TandemError: as for :func:`training_stores`; no such split.
    """
    if split not in SPLITS:
        raise unknown("split", str(split), SPLITS)
    paths = _paths(data)
    return [str(ready(named(data)).store(split))] if paths == [data] and data in names() else paths


def ready(data: NamedData) -> NamedData:
    """Makes the data set where it is not there yet; several processes may ask at once.

    Raises:
        TandemError: it cannot be written.
    """
    folder = data.folder
    if folder.is_dir():  # it gets its name when it is whole
        return data
    try:
        with _alone(data.name):
            if not folder.is_dir():
                _make(data, folder)
    except OSError as error:
        raise TandemError(f"data={data.name}: {folder} cannot be made: {error.strerror or error}") from error
    return data


def _make(data: NamedData, folder: Path) -> None:
    from tandem_sim.registry import draw

    total = sum(count for count, _ in data.splits.values())
    print(f"making the data set {data.name}, {total:,} samples, in {folder}", flush=True)
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # of a killed process: nobody else makes one now
    beside.mkdir()
    try:
        for split, (count, seed) in data.splits.items():
            draw(data.draws, beside / f"{split}.zarr", count, seed)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time inside; the others wait, and the kernel frees the lock of one that died."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    handle = os.open(FOLDER / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _paths(data: Any) -> list[str]:
    from omegaconf import OmegaConf

    data = OmegaConf.to_container(data) if OmegaConf.is_config(data) else data
    paths = [data] if isinstance(data, str) else data
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise TandemError(f"data is {data} (allowed: {', '.join(names())}, a store, or a list of stores '[a,b]')")
    for path in paths:
        if len(paths) > 1 and path in names():
            raise TandemError(f"data: {path} stands among others (allowed: a named data set alone, or stores)")
        if path not in names() and not Path(path).exists() and get_close_matches(path, names(), n=1):
            raise unknown("data", path, names())  # a name mistyped, rather than a store
    return paths


def _split(values: Mapping[str, int]) -> tuple[int, int]:
    return values["samples"], values["seed"]
