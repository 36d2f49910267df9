"""From a backbone's name to its files on this machine: of a local folder, or from the hub by way of its cache.

Weights are safetensors or nothing; transformers never gets to see a name that it could fetch by itself.
"""

from pathlib import Path

from tandem_datasets.errors import TandemError
from tandem_policies.hub import folder_of, local_folder
from tandem_policies.untrusted import PICKLES, read_json

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_SHARDS = "model-*-of-*.safetensors"
_ADAPTER = "adapter_config.json"


def find(name: str, where: str, weights: bool = True) -> Path:
    """The folder with a model's ``config.json`` and, if wanted, its safetensors weights.

    Args:
        name: a local folder, or a name on the hub.
        where: begins an error's line.
        weights: whether they are needed; without them only small texts are fetched.

    Raises:
        TandemError: there is no such folder or name, the hub cannot be reached, or a file is missing.
    """
    here = local_folder(name)
    if here is not None:
        _check_pickles(here, where, weights)
        _checked(here, where)
        if weights and (missing := _lacks(here)):
            raise TandemError(f"{where}: no {missing}, which {_WEIGHTS[1]} names (wanted: the whole model)")
        return here
    texts = (CONFIG, PREPROCESSOR, _ADAPTER)
    if weights:
        return _checked(folder_of(name, _WEIGHTS, where, (*texts, _SHARDS), _lacks), where)
    return _checked(folder_of(name, texts[:1], where, texts), where)


def _lacks(folder: Path) -> str | None:
    """The first file that a model with weights needs and that is not there; an adapter needs no more than its name."""
    if (folder / _ADAPTER).exists():
        return None
    shards: list[str] = []
    whole, index = (folder / name for name in _WEIGHTS)
    if not whole.is_file():
        names = read_json(index).get("weight_map") if index.is_file() else None
        shards = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else [_WEIGHTS[0]]
    beside = [name for name in (CONFIG, *shards) if Path(name).name == name]  # an index may name any path
    return next((name for name in beside if not (folder / name).is_file()), None)


def _checked(folder: Path, where: str) -> Path:
    if (folder / _ADAPTER).exists():
        raise TandemError(f"{where}: {_ADAPTER} says that it is an adapter for another model (allowed: whole models)")
    if not (folder / CONFIG).is_file():
        raise TandemError(f"{where}: no {CONFIG} (wanted: a model as transformers saves it)")
    return folder


def _check_pickles(folder: Path, where: str, weights: bool) -> None:
    if weights and not any((folder / name).is_file() for name in _WEIGHTS):
        pickles = sorted(item.name for item in folder.iterdir() if item.suffix in PICKLES)
        hint = f"; pickles such as {pickles[0]} are never opened" if pickles else ""
        raise TandemError(f"{where}: no {_WEIGHTS[0]} (allowed: weights as safetensors{hint})")
