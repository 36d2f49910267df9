"""What a training of a policy begins from: fresh weights, or ``init=<policy directory>`` to fine-tune."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_training.config import compose, given, keys_set, recompose, section
from tandem_training.engine.folder import LAST, has_checkpoint, recover
from tandem_training.resuming import saved

WHERE = "tandem train"
STATISTICS = ("checkpoint", "data")
# Data that lie further from what the checkpoint's statistics say are of other units or of another task.
_FARTHEST = 5.0  # of the checkpoint's standard deviations between the means
_WIDEST, _NARROWEST = 10.0, 0.01  # the data's standard deviation over the checkpoint's
_SMALLEST = 1e-6  # what varies less stands still
# They decide which texts a network is built from, and those come from the checkpoint.
_OF_ASSETS = ("tokenizer", "tokenizer_pad", "vision_backbone", "language_backbone")


def adopted(config: Any, overrides: Sequence[str] | None = None) -> Any:
    """``config`` with the policy of ``config.init``, where there is one: what else is asked of the policy is kept.

    Whether the weights still fit is seen in :func:`start_network`. A training that goes on takes its own configuration:
    ``init`` may be gone by then.

    Args:
        config: of `tandem train`.
        overrides: what it was composed from. None: unknown, so that what differs from the defaults counts as asked.

    Raises:
        TandemError: ``init`` is no policy directory, or of another type than the policy that is asked for.
    """
    from omegaconf import OmegaConf

    if config.init_statistics not in STATISTICS:
        raise unknown(f"{WHERE}: init_statistics", str(config.init_statistics), STATISTICS)
    if not config.init:
        return config
    folder, found = _found(config)
    asked = section(config.policy)
    if overrides is None:
        plain = section(compose("train", []).policy)
        asked = {key: value for key, value in asked.items() if key not in plain or value != plain[key]}
    else:
        named = keys_set("train", overrides)
        asked = {key: value for key, value in asked.items() if f"policy.{key}" in named}
    if asked.get("type", found["type"]) != found["type"]:
        raise TandemError(f"{WHERE}: init={folder} is of type {found['type']} (the policy's: {asked['type']})")
    changed = OmegaConf.create(OmegaConf.to_container(config))
    changed.policy = {**found, **asked}
    return changed


def check_chosen(config: Any, overrides: Sequence[str]) -> None:
    """Raises TandemError if ``policy=...`` was chosen beside ``init``, and says otherwise."""
    chosen = given("train", overrides, "policy")
    if not config.init or chosen is None:
        return
    folder, found = _found(config)
    named = keys_set("train", overrides)
    for key, value in section(config.policy).items():
        if f"policy.{key}" not in named and value != found.get(key):
            raise TandemError(
                f"{WHERE}: init={folder} is of another architecture than policy={chosen}: {key} is {found.get(key)}, "
                f"not {value} (allowed: leave policy=... out, it comes from init)"
            )


def goes_on(config: Any) -> bool:
    """Whether the training of ``config`` goes on from a checkpoint of its own."""
    return bool(config.resume and config.out and has_checkpoint(Path(str(config.out))))


def _found(config: Any) -> tuple[Path, dict[str, Any]]:
    """The directory of ``init``, or of the training that goes on, and its policy's type and settings."""
    from tandem_policies.files import settings_of

    if goes_on(config):
        out = Path(str(config.out))
        return out, section(recompose("train", saved(out), []).policy)
    folder = _folder(config)
    name, settings = settings_of(folder)
    return folder, {"type": name, **settings.to_dict()}


def start_network(config: Any, embodiment: Embodiment) -> Any:
    """The network to train, in training mode: fresh, or with the weights and statistics of ``config.init``.

    That of a training that goes on is built from the texts in its own folder; its weights come later.

    Args:
        config: of `tandem train`, as :func:`adopted` leaves it.
        embodiment: the data's.

    Raises:
        TandemError: ``init`` is damaged, of another architecture or of another embodiment.
    """
    from omegaconf import OmegaConf

    from tandem_policies.network import create
    from tandem_policies.registry import config_class, network_class

    values: dict[str, Any] = OmegaConf.to_container(config.policy)  # type: ignore[assignment]
    name = values.pop("type")
    settings, network_type = config_class(name).from_dict(values, f"policy '{name}'"), network_class(name)
    kept = _kept_assets(Path(str(config.out)), network_type, settings) if goes_on(config) else None
    if kept is not None:
        return network_type(settings, embodiment, kept).train()
    if not config.init:
        return create(name, embodiment, **values)
    from tandem_policies.files import open_network
    from tandem_training.data import first_difference

    folder = _folder(config)
    source = open_network(folder)
    where = f"{WHERE}: init={folder}"
    if source.embodiment != embodiment:
        difference = first_difference(embodiment.to_dict(), source.embodiment.to_dict())
        raise TandemError(f"{where} is of another embodiment than the data: {difference}")
    was, now = source.config.to_dict(), settings.to_dict()
    if set(network_type.asset_names(settings)) != set(source.assets()) or any(
        now.get(key) != was.get(key) for key in _OF_ASSETS
    ):
        raise _another_architecture(where, was, now)
    network = network_type(settings, embodiment, source.assets())
    _check_shapes(where, source.state_dict(), network.state_dict(), was, now)
    network.load_state_dict(source.state_dict())
    return network.train()


def start_statistics(config: Any, network: Any, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Gives the network the data's statistics, unless it keeps those that it came with.

    Raises:
        TandemError: it keeps its own, and they clearly do not fit the data.
    """
    if not config.init or config.init_statistics == "data":
        network.set_statistics(statistics)
        return
    names = {
        "state": [scalar.name for scalar in network.embodiment.state],
        "action": [scalar.name for scalar in network.embodiment.action],
    }
    for key, scalars in names.items():
        if not scalars:
            continue
        own = {part: network.get_buffer(f"{key}_{part}").double().cpu().numpy() for part in ("mean", "std")}
        bad = _misfits(own, statistics[key])
        if bad.any():
            at = int(bad.argmax())
            pairs = [f"mean {one['mean'][at]:.3g}, std {one['std'][at]:.3g}" for one in (statistics[key], own)]
            raise TandemError(
                f"{WHERE}: init={_folder(config)}: its statistics do not fit the data: {key} {scalars[at]} has "
                f"{pairs[0]}, the checkpoint says {pairs[1]} (allowed: init_statistics=data, or data of the same units)"
            )


def _kept_assets(out: Path, network_type: Any, settings: Any) -> Mapping[str, str] | None:
    """The texts that a network is built from, of a checkpoint or of a policy in ``out``; None if they are nowhere."""
    from tandem_policies.files import read_assets

    recover(out / LAST)
    names = network_type.asset_names(settings)
    for folder in (out / LAST, out / "best", out / "final"):
        if all((folder / name).is_file() for name in names):
            return read_assets(folder, network_type, settings)
    return None


def _misfits(own: Mapping[str, np.ndarray], data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which scalars (N,) lie far outside of what the statistics say. Data that stand still fit anywhere near."""
    far = np.abs(data["mean"] - own["mean"]) > _FARTHEST * own["std"]
    ratio = data["std"] / own["std"]
    return far | (ratio > _WIDEST) | ((ratio < _NARROWEST) & (data["std"] > _SMALLEST))


def _check_shapes(
    where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], was: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raises TandemError if the weights do not fit, naming the settings that differ."""
    sizes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise _another_architecture(where, was, now)


def _another_architecture(where: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> TandemError:
    settings = [f"policy.{key} is {now[key]}, not {was[key]}" for key in now if now[key] != was.get(key)]
    return TandemError(
        f"{where} is of another architecture: {', '.join(settings)[:200]} (allowed: leave the policy's settings out, "
        "they come from init)"
    )


def _folder(config: Any) -> Path:
    if not isinstance(config.init, str):
        raise TandemError(f"{WHERE}: init is {config.init!s:.60} (allowed: a policy directory)")
    folder = Path(config.init)
    if not (folder / "config.json").exists() and (folder / "best" / "config.json").exists():
        raise TandemError(f"{WHERE}: init={folder} is a training, no policy (allowed: init={folder / 'best'})")
    return folder
