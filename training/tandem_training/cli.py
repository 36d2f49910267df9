"""The ``tandem`` command: finds its subcommands through the entry-point group ``tandem.commands``."""

import os
import signal
import sys
from importlib.metadata import EntryPoint, entry_points

from tandem_datasets.errors import TandemError, unknown

GROUP = "tandem.commands"


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status: 0 fine, 2 bad input, 130 interrupted."""
    args = sys.argv[1:] if argv is None else argv
    # OpenMP's threads wait for each other by spinning, which is 5 times slower as soon as cores are shared; it reads
    # this when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help(commands))
        return 0
    if args[0] == "--version":
        from importlib.metadata import version

        print(version("tandem-robotics"))
        return 0
    try:
        if args[0] not in commands:
            raise unknown("tandem", args[0], commands)
        return commands[args[0]].load()(args[1:])
    except TandemError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"tandem {args[0]}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tandem list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _terminate(signum: int, _frame: object) -> None:
    """SIGTERM unwinds like an error, so that whatever was started is ended and nothing is left half-written."""
    sys.exit(128 + signum)


def _help(commands: dict[str, EntryPoint]) -> str:
    width = max((len(name) for name in commands), default=0)
    lines = [f"  {name:<{width}}  {_summary(entry)}" for name, entry in sorted(commands.items())]
    return "\n".join(
        [
            "usage: tandem COMMAND [key=value ...]",
            "",
            "One loop for robot policies: demonstrate, train, serve in ROS 2, roll out, record, train again.",
            "",
            *lines,
            "",
            "tandem COMMAND --help says more of one; --version prints the version.",
        ]
    )


def _summary(entry: EntryPoint) -> str:
    import importlib

    try:
        doc = importlib.import_module(entry.module).__doc__ or ""
    except ImportError as error:
        return f"(cannot be imported: {error})"
    return doc.strip().split("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
