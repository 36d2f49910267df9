"""What `tandem data NAME` does: one function each, whose docstring is its help. The work is ``tandem_datasets``'s."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class _Command:
    function: str  # module:function below this package
    given: tuple[str, ...] = ("store",)  # keys that may be left out in front; the last one of a list takes all others
    several: bool = False
    options: str = ""  # "import" or "export": keys that are none of its own are a format's


_COMMANDS = {
    "info": _Command("looking:info"),
    "validate": _Command("looking:check"),
    "stats": _Command("looking:stats"),
    "view": _Command("looking:view"),
    "card": _Command("looking:card"),
    "merge": _Command("changing:merge", ("stores",), several=True),
    "split": _Command("changing:split"),
    "filter": _Command("changing:filter_"),
    "trim": _Command("changing:trim"),
    "relabel": _Command("changing:relabel"),
    "delete": _Command("changing:delete"),
    "compact": _Command("changing:compact"),
    "export": _Command("moving:export", ("store", "format", "out"), options="export"),
    "import": _Command("moving:import_", ("source", "out"), options="import"),
}


def run(name: str, argv: Sequence[str]) -> int:
    """Runs `tandem data <name>`; the exit status."""
    from tandem_training.config import parse
    from tandem_training.data_commands.arguments import own_and_others, with_keys

    command = _COMMANDS[name]
    module, _, function = command.function.partition(":")
    work: Callable[..., int] = getattr(import_module(f"{__name__}.{module}"), function)
    where = f"data_{name}"
    arguments = with_keys(argv, command.given, command.several, f"tandem data {name}")
    doc = work.__doc__ or ""
    if not command.options:
        config = parse(where, arguments, doc)
        return 0 if config is None else work(config)
    own, others = own_and_others(where, arguments)
    if "--help" in own or "-h" in own:
        from tandem_training.data_commands.moving import formats_help

        doc = f"{doc.rstrip()}\n\n{formats_help(command.options)}"
    config = parse(where, own, doc)
    options: dict[str, Any] = others
    return 0 if config is None else work(config, options)
