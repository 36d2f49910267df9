"""`tandem params` as functions: the network of a configuration or of a directory, and its table."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tandem_datasets.errors import TandemError, unknown
from tandem_training.config import given, group_options

WHERE = "tandem params"


def split(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``policy=<a directory>``, and that directory; None if a policy is chosen by its group.

    Raises:
        TandemError: neither a group's option nor a directory, or keys of a policy whose directory is given.
    """
    arguments = list(argv)
    chosen = given("params", arguments, "policy")
    if chosen is None or isinstance(chosen, dict) or str(chosen) in group_options("policy"):
        return arguments, None
    if not Path(str(chosen)).exists():
        error = unknown(f"{WHERE}: policy", str(chosen), group_options("policy"))
        raise TandemError(f"{str(error)[:-1]}; or a policy directory)")
    inside = [text for text in arguments if text.startswith("policy.")]
    if inside:
        raise TandemError(f"{WHERE}: {inside[0]}: {chosen} is a stored policy (allowed: policy.* with a new one)")
    return [text for text in arguments if not text.startswith("policy=")], Path(str(chosen))


def describe(config: Any, directory: Path | None) -> dict[str, Any]:
    """Parts, totals and memory of a stored policy, or of a new one for the configuration's environment; plain JSON.

    No weights are read or made.

    Raises:
        TandemError: a directory that is no policy's, or a policy that cannot be built.
    """
    import torch

    from tandem_policies.parameters import parts_of, serving_bytes, total

    name, weights = _new(config) if directory is None else _stored(directory)
    every = total(weights)
    shown = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    known = every.gradient_bytes is not None and every.adamw_bytes is not None
    training = every.weight_bytes + (every.gradient_bytes or 0) + (every.adamw_bytes or 0) if known else None
    return {
        "policy": name,
        "parts": [asdict(part) for part in parts_of(weights, config.depth)],
        "total": asdict(every),
        "training_bytes": training,
        "serving_bytes": {kind: serving_bytes(weights, dtype) for kind, dtype in shown.items()},
    }


def _new(config: Any) -> tuple[str, list]:
    from tandem_policies.files import outlined
    from tandem_policies.network import create
    from tandem_policies.parameters import weights_of
    from tandem_sim.registry import embodiment
    from tandem_training.config import env_spec, section

    values = section(config.policy)
    kind = str(values.pop("type"))
    robot = embodiment(env_spec(config))
    with outlined():
        network = create(kind, robot, **values)
    return f"{kind} for '{robot.name}'", weights_of(network)


def _stored(directory: Path) -> tuple[str, list]:
    from tandem_policies.files import WEIGHTS, is_lerobots, outline_network
    from tandem_policies.parameters import weights_in, weights_of

    if is_lerobots(directory):  # LeRobot would build it with all its weights
        return str(directory), weights_in(directory / WEIGHTS)
    return str(directory), weights_of(outline_network(directory))


def print_description(facts: dict[str, Any]) -> None:
    """The table on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    title = f"{escape(facts['policy'])}: {facts['total']['parameters']:,} parameters"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part")
    for name in ("parameters", "trained", "weights", "gradients", "AdamW"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in [*facts["parts"], facts["total"]]:
        if part["name"] == "total":
            table.add_section()
        style = "" if part["depth"] < 2 else "dim"
        table.add_row(*_row(part), style=style)
    console.print(table)
    serving = ", ".join(f"{kind} {_size(count)}" for kind, count in facts["serving_bytes"].items())
    if facts["training_bytes"] is None:
        console.print("training: unknown (the file does not tell what is trained)")
    else:
        console.print(
            f"training: {_size(facts['training_bytes'])} for weights, gradients and AdamW, in mixed precision too, "
            "and activations on top"
        )
    console.print(f"serving: {serving}")


def _row(part: dict[str, Any]) -> tuple[str, ...]:
    from rich.markup import escape

    share = "-"
    if part["trainable"] is not None and part["parameters"]:
        share = _share(part["trainable"] / part["parameters"])
    sizes = [_size(part[key]) for key in ("weight_bytes", "gradient_bytes", "adamw_bytes")]
    name = part["name"] if part["depth"] < 2 else "  " * (part["depth"] - 1) + part["name"].rpartition(".")[2]
    return (escape(name), f"{part['parameters']:,}", share, *sizes)


def _share(share: float) -> str:
    """A percentage; a little is not none, and nearly all not all."""
    return f"{share:.0%}" if share in (0, 1) else f"{min(max(share, 0.0001), 0.9999):.2%}"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
