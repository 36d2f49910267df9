"""A network on disk: one directory in LeRobot's layout, written atomically and read with distrust.

``config.json`` holds ``type``, LeRobot's features, the fields of the type's config and the whole ``embodiment``;
``model.safetensors`` the weights and the statistics; ``tokenizer.json`` the tokenizer; some networks have further texts
of their own (:meth:`tandem_policies.network.PolicyNetwork.assets`); the two processor files are
LeRobot's and change next to nothing, because normalisation happens inside the network. Pickles are never opened.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_policies.network import Assets, PolicyNetwork
from tandem_policies.processors import PROCESSOR_FILES
from tandem_policies.registry import config_class, network_class, policy_types
from tandem_policies.replacing import replacing_directory
from tandem_policies.settings import PolicyConfig
from tandem_policies.untrusted import PICKLES, read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EMBODIMENT = "embodiment.json"  # beside the files of a LeRobot policy, whose config has no place for it
_LARGEST_ASSET_BYTES = 64 * 2**20
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}  # in safetensors

# What LeRobot's config base and its adapters' (adapters/configuration.py) add; it says nothing about the network.
_LEROBOT_KEYS = {
    "n_obs_steps", "device", "use_amp", "use_peft", "push_to_hub", "repo_id", "private", "tags", "license",
    "pretrained_path", "pretrained_revision", "normalization_mapping",
    "optimizer_lr", "optimizer_weight_decay", "optimizer_grad_clip_norm", "scheduler_warmup_steps",
}  # fmt: skip


def save(network: PolicyNetwork, directory: str | Path) -> Path:
    """Writes a policy directory, complete or not at all; an older policy in its place is replaced.

    Raises:
        TandemError: the place is taken by something that is no policy, or cannot be written.
    """
    target = Path(directory)
    if target.exists() and not (target.is_dir() and ((target / CONFIG).is_file() or not any(target.iterdir()))):
        raise TandemError(f"{target}: is in use (allowed: a new or empty directory, or an older policy's)")
    try:
        with replacing_directory(target) as fresh:
            network.write(fresh)
    except (OSError, SafetensorError) as error:
        raise TandemError(f"{target}: the policy cannot be written: {error}") from None
    return target


def load_network(directory: str | Path, device: str | torch.device = "cpu") -> PolicyNetwork:
    """The network of a policy directory, in evaluation mode.

    Its names and shapes are compared with the file's before anything is allocated.

    Raises:
        TandemError: a file is missing, damaged, pickled or contradicts another; the type is not ours.
    """
    path = Path(directory)
    outline = outline_network(path)
    weights = _read_weights(path / WEIGHTS)
    with torch.random.fork_rng(devices=[]), _Uninitialised():  # what draws all the same must not move the caller's
        network = type(outline)(outline.config, outline.embodiment, outline.assets())
    network.load_state_dict(weights)
    return network.to(device).eval()


def outline_network(directory: str | Path) -> PolicyNetwork:
    """The network of a policy directory without its weights, on ``meta``; only their file's header is read.

    Raises:
        TandemError: as :func:`load_network`, numbers that are not finite excepted.
    """
    path = Path(directory)
    _refuse_wrong_places(path)
    config = read_config(path)
    where = str(path / CONFIG)
    name = config.pop("type")
    embodiment = Embodiment.from_dict(config.pop("embodiment"), where)
    wanted = json.loads(json.dumps(policy_features(embodiment)))
    for key, features in wanted.items():
        if config.pop(key) != features:
            raise TandemError(f"{where}: {key} contradict the embodiment (wanted: {json.dumps(features)})")
    own = {key: value for key, value in config.items() if key not in _LEROBOT_KEYS}
    settings = config_class(name, where).from_dict(own, where)
    network_type = network_class(name, where)
    assets = read_assets(path, network_type, settings)
    try:
        with outlined():
            outline = network_type(settings, embodiment, assets)
    except TandemError as error:
        raise TandemError(f"{where}: {error}") from None
    _compare(path / WEIGHTS, outline.state_dict())
    return outline


@contextmanager
def outlined() -> Iterator[None]:
    """Networks that are built inside have shapes and types, but no weights: they are on ``meta``."""
    with torch.device("meta"), _Uninitialised():
        yield


def open_network(directory: str | Path, device: str | torch.device = "cpu") -> PolicyNetwork:
    """The network of any policy directory, in this process: for one of LeRobot's own that imports LeRobot.

    Raises:
        TandemError: see :func:`load_network` and :func:`tandem_policies.lerobot.files.open_policy`.
    """
    if not is_lerobots(Path(directory)):
        return load_network(directory, device)
    from tandem_policies.lerobot.files import open_policy

    return open_policy(directory, device)


def settings_of(directory: str | Path) -> tuple[str, PolicyConfig]:
    """The registered type and the config of any policy directory; errors as of :func:`open_network`."""
    path = Path(directory)
    if is_lerobots(path):
        from tandem_policies.lerobot.files import check_directory
        from tandem_policies.lerobot.files import read_config as read_lerobots

        return "lerobot", read_lerobots(check_directory(path))
    found = read_config(path)
    cls = config_class(found["type"], str(path / CONFIG))
    own = {key: value for key, value in found.items() if key in cls.__dataclass_fields__}
    return found["type"], cls.from_dict(own, str(path / CONFIG))


def own_types() -> list[str]:
    """What ``config.json`` of one of our own networks may name; a network of type ``lerobot`` names LeRobot's type."""
    return [name for name in policy_types() if name != "lerobot"]


def is_lerobots(directory: Path) -> bool:
    """Whether a directory names a policy type that is not ours; TandemError if it is no policy directory at all."""
    _refuse_wrong_places(directory)
    file = directory / CONFIG
    name = read_json(file).get("type") if file.is_file() else None
    return isinstance(name, str) and name not in own_types()


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a policy directory, its ``type`` one of ours and the keys that all have present.

    Raises:
        TandemError: it is missing, no JSON object, of another type, or lacks a key.
    """
    file = path / CONFIG
    if not file.is_file():
        raise TandemError(f"{path}: no {CONFIG} (wanted: a policy directory with {CONFIG} and {WEIGHTS})")
    config = read_json(file)
    missing = [key for key in ("type", "embodiment", "input_features", "output_features") if key not in config]
    name = config.get("type")
    if name is not None and name not in own_types():
        ours = ", ".join(own_types())
        raise TandemError(
            f"{file}: type is {name!r:.60} (allowed: {ours}; LeRobot's own policies are opened by tandem_policies.load)"
        )
    if missing:
        raise TandemError(f"{file}: lacks {', '.join(missing)}")
    return config


def read_assets(folder: Path, network_type: type[PolicyNetwork], settings: PolicyConfig) -> Assets:
    """The texts that a network of this type and config is built from; TandemError for one that cannot be read."""
    return {asset: _read_asset(folder / asset) for asset in network_type.asset_names(settings)}


def load_weights(network: PolicyNetwork, file: Path) -> None:
    """Takes the weights and statistics of a safetensors file.

    Raises:
        TandemError: it is missing or damaged, has other names or shapes, or numbers that are not finite.
    """
    _compare(file, network.state_dict())
    network.load_state_dict(_read_weights(file))


def write_layout(network: PolicyNetwork, folder: Path, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
    """The files of one of our own networks, into a folder; ``tensors`` stand for its own weights where given."""
    config = {
        "type": network.policy_type,
        "n_obs_steps": 1,
        **policy_features(network.embodiment),
        "normalization_mapping": dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY"),
        **network.config.to_dict(),
        "embodiment": network.embodiment.to_dict(),
    }
    _write_json(folder / CONFIG, config)
    for name, content in PROCESSOR_FILES.items():
        _write_json(folder / name, content)
    for name, text in network.assets().items():
        (folder / name).write_text(text, "utf-8")
    weights = network.state_dict() if tensors is None else tensors
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def policy_features(embodiment: Embodiment) -> dict[str, dict[str, Any]]:
    """LeRobot's policy features; images as (C, H, W)."""
    inputs: dict[str, Any] = {}
    for camera in embodiment.cameras:
        height, width, channels = camera.shape
        inputs[f"observation.images.{camera.name}"] = {"type": "VISUAL", "shape": [channels, height, width]}
    if embodiment.state:
        inputs["observation.state"] = {"type": "STATE", "shape": [embodiment.state_dim]}
    return {
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [embodiment.action_dim]}},
    }


def _refuse_wrong_places(path: Path) -> None:
    if path.suffix in PICKLES:
        raise TandemError(f"{path}: pickled weights are never opened (allowed: a directory with {WEIGHTS})")
    if not path.is_dir():
        kind = "is no directory" if path.exists() else "does not exist"
        raise TandemError(f"{path}: {kind} (wanted: a policy directory with {CONFIG} and {WEIGHTS})")
    pickles = sorted(item.name for item in path.iterdir() if item.suffix in PICKLES)
    if pickles and not (path / WEIGHTS).is_file():
        raise TandemError(f"{path}: pickled weights ({pickles[0]}) are never opened (allowed: {WEIGHTS})")


class _Uninitialised(TorchFunctionMode):
    """Leaves out values that nobody will read: those to load come after them, and on ``meta`` there are none.

    Drawing them takes longer than reading them from a file. On ``meta`` torch even runs them through decompositions in
    Python, and to import those (torch._dynamo, sympy) takes longer than to import torch: 3.6 s.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return (torch.empty if func in (torch.rand, torch.randn) else func)(*args, **(kwargs or {}))


def _compare(file: Path, outline: Mapping[str, torch.Tensor]) -> None:
    """Raises TandemError unless the file's header lists exactly the outline's names, shapes and types."""
    wanted = {name: (_TYPES[value.dtype], list(value.shape)) for name, value in outline.items()}
    if not file.is_file():
        raise TandemError(f"{file}: is missing")
    try:
        with safe_open(file, "pt") as opened:
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            there = {name: (part.get_dtype(), part.get_shape()) for name, part in found.items()}
    except (SafetensorError, OSError) as error:
        raise TandemError(f"{file}: damaged: {str(error)[:120]}") from None
    for name in sorted(set(wanted) ^ set(there)):
        raise TandemError(f"{file}: {'lacks' if name in wanted else 'has an unknown'} tensor '{name[:80]}'")
    for name, (kind, shape) in wanted.items():
        if there[name] != (kind, shape):
            came = "{} {}".format(*there[name])
            raise TandemError(f"{file}: tensor '{name}' is {came} (wanted: {kind} {shape})")


def _read_asset(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_ASSET_BYTES:
            raise TandemError(f"{file}: {file.stat().st_size} bytes (allowed: {_LARGEST_ASSET_BYTES})")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TandemError(f"{file}: cannot be read: {error}") from None


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise TandemError(f"{file}: damaged: {str(error)[:120]}") from None
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise TandemError(f"{file}: tensor '{name}' holds numbers that are not finite")
    return weights
