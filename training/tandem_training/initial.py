"""What a training of a policy begins from: fresh weights, or ``init=<policy directory>`` to fine-tune."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_training.config import compose, given, section

WHERE = "tandem train"
STATISTICS = ("checkpoint", "data")
# Data that lie further from what the checkpoint's statistics say are of other units or of another task.
_FARTHEST = 5.0  # of the checkpoint's standard deviations between the means
_WIDEST, _NARROWEST = 10.0, 0.01  # the data's standard deviation over the checkpoint's
_SMALLEST = 1e-6  # what varies less stands still


def adopted(config: Any) -> Any:
    """``config`` with the policy of ``config.init``, where there is one: what else it says of the policy is kept.

    That is what differs from the defaults of `tandem train`, such as another dropout; whether the weights still fit is
    seen in :func:`start_network`.

    Raises:
        TandemError: ``init`` is no policy directory, or of another type than the policy that is asked for.
    """
    from omegaconf import OmegaConf

    if config.init_statistics not in STATISTICS:
        raise unknown(f"{WHERE}: init_statistics", str(config.init_statistics), STATISTICS)
    if not config.init:
        return config
    folder, found = _found(config)
    plain, asked = section(compose("train", []).policy), section(config.policy)
    asked = {key: value for key, value in asked.items() if key not in plain or value != plain[key]}
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
    for key, value in section(config.policy).items():
        if f"policy.{key}" not in {text.partition("=")[0] for text in overrides} and value != found.get(key):
            raise TandemError(
                f"{WHERE}: init={folder} is of another architecture than policy={chosen}: {key} is {found.get(key)}, "
                f"not {value} (allowed: leave policy=... out, it comes from init)"
            )


def _found(config: Any) -> tuple[Path, dict[str, Any]]:
    """The directory of ``init``, and its policy's type and settings."""
    from tandem_policies.files import settings_of

    folder = _folder(config)
    name, settings = settings_of(folder)
    return folder, {"type": name, **settings.to_dict()}


def start_network(config: Any, embodiment: Embodiment) -> Any:
    """The network to train, in training mode: fresh, or with the weights and statistics of ``config.init``.

    Args:
        config: of `tandem train`, as :func:`adopted` leaves it.
        embodiment: the data's.

    Raises:
        TandemError: ``init`` is damaged, of another architecture or of another embodiment.
    """
    from omegaconf import OmegaConf

    from tandem_policies.network import create

    values: dict[str, Any] = OmegaConf.to_container(config.policy)  # type: ignore[assignment]
    name = values.pop("type")
    if not config.init:
        return create(name, embodiment, **values)
    from tandem_policies.files import open_network
    from tandem_policies.registry import config_class, network_class
    from tandem_training.data import first_difference

    folder = _folder(config)
    source = open_network(folder)
    where = f"{WHERE}: init={folder}"
    if source.embodiment != embodiment:
        difference = first_difference(embodiment.to_dict(), source.embodiment.to_dict())
        raise TandemError(f"{where} is of another embodiment than the data: {difference}")
    settings = config_class(name).from_dict(values, "policy")
    network = network_class(name)(settings, embodiment, source.assets())
    _check_shapes(where, source.state_dict(), network.state_dict(), source.config.to_dict(), settings.to_dict())
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
    if sizes[0] == sizes[1]:
        return
    settings = [f"policy.{key} is {now[key]}, not {was[key]}" for key in now if now[key] != was.get(key)]
    raise TandemError(
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
