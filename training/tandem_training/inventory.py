"""What there is to choose from, read from the configuration groups and the entry points; imports no torch."""

from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_training.config import CONF_MODULE, group_options

Inventory = dict[str, dict[str, dict[str, Any]]]  # section -> name -> facts

_SHOWN_SETTINGS = 6
_SHOWN_STREAMS = 6


def take_inventory() -> Inventory:
    """Environments, every other configuration group, backends and commands, in plain JSON types."""
    inventory: Inventory = {"env": {name: _environment(name) for name in group_options("env")}}
    for group in _groups():
        inventory.setdefault(group, {name: _option(group, name) for name in group_options(group)})
    inventory["backend"] = _registered("tandem.backends")
    inventory["command"] = _registered("tandem.commands")
    return inventory


def _groups() -> list[str]:
    """The folders of ``conf/``."""
    items = files(CONF_MODULE).iterdir()
    return sorted(item.name for item in items if item.is_dir() and not item.name.startswith("_"))


def _environment(name: str) -> dict[str, Any]:
    from tandem_datasets.rollout import EnvSpec
    from tandem_sim.registry import embodiment

    settings = _settings("env", name)
    robot = embodiment(EnvSpec(settings["id"], settings.get("options", {})))
    return {"id": settings["id"], "rate_hz": robot.rate_hz, "instruction": robot.hears_instruction} | _streams(robot)


def _streams(robot: Embodiment) -> dict[str, Any]:
    return {
        "cameras": [f"{item.name} {item.width}x{item.height} {item.encoding}" for item in robot.cameras],
        "state": [f"{item.name} ({item.unit}, {item.low:g}..{item.high:g})" for item in robot.state],
        "action": [f"{item.name} ({item.unit}, {item.low:g}..{item.high:g}, {item.kind})" for item in robot.action],
    }


def _option(group: str, name: str) -> dict[str, Any]:
    settings = _settings(group, name)
    about = _first_comment(group, name)
    if group == "policy" and not about:
        about = _summary(f"tandem_policies.{settings['type']}")
    return {"about": about, "settings": settings}


def _registered(group: str) -> dict[str, dict[str, Any]]:
    entries = sorted(entry_points(group=group), key=lambda entry: entry.name)
    return {entry.name: {"about": _summary(entry.module), "from": entry.value} for entry in entries}


def _summary(module: str) -> str:
    """The first line of a module's docstring."""
    try:
        return (import_module(module).__doc__ or "").strip().split("\n")[0]
    except ImportError as error:
        return f"cannot be imported: {error}"


def _text(group: str, name: str) -> str:
    return files(CONF_MODULE).joinpath(group, f"{name}.yaml").read_text()


def _settings(group: str, name: str) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(_text(group, name)) or {}


def _first_comment(group: str, name: str) -> str:
    line = next((line for line in _text(group, name).splitlines() if not line.startswith("# @package")), "")
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def print_inventory(inventory: Inventory) -> None:
    """A table per section; how each is chosen stands in its title."""
    from rich.console import Console

    console = Console(highlight=False)
    for section, entries in inventory.items():
        if entries:
            console.print(_table(section, entries))
            console.print()


def _table(section: str, entries: dict[str, dict[str, Any]]):
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"[bold]{_title(section)}[/]", title_justify="left", show_header=False, box=None, padding=(0, 2)
    )
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, facts in entries.items():
        lines = {"env": _environment_lines, "data": _data_lines}.get(section, _lines)(facts)
        table.add_row(name, escape("\n".join(lines)))
    return table


def _title(section: str) -> str:
    return "commands (tandem ...)" if section == "command" else f"{section}=..."


def _environment_lines(facts: dict[str, Any]) -> list[str]:
    heard = "hears an instruction" if facts["instruction"] else "no instruction"
    lines = [f"{facts['id']}, {facts['rate_hz']:g} Hz, {heard}"]
    return lines + [f"{part}: {_in_short(facts[part])}" for part in ("cameras", "state", "action")]


def _in_short(streams: list[str]) -> str:
    """All of a few; of many how many, the first and the last (``json=true`` has them all)."""
    if len(streams) > _SHOWN_STREAMS:
        return f"{len(streams)} numbers, {streams[0]} to {streams[-1]}"
    return ", ".join(streams) or "none"


def _data_lines(facts: dict[str, Any]) -> list[str]:
    splits = {key: value for key, value in facts["settings"].items() if isinstance(value, dict)}
    shown = [f"{name} {values['samples']} (seed {values['seed']})" for name, values in splits.items()]
    return [facts["about"], ", ".join(shown)]


def _lines(facts: dict[str, Any]) -> list[str]:
    settings = {key: value for key, value in _flat(facts.get("settings", {})) if key != "defaults"}
    shown = ", ".join(f"{key}={value}" for key, value in list(settings.items())[:_SHOWN_SETTINGS])
    more = ", ..." if len(settings) > _SHOWN_SETTINGS else ""
    return [line for line in (facts["about"], shown + more) if line]


def _flat(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += _flat(value) if isinstance(value, dict) else [(key, value)]
    return rows
