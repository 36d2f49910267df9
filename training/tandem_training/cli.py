"""The ``tandem`` command: finds its subcommands through the entry-point group ``tandem.commands``."""

import os
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from tandem_datasets.errors import TandemError, unknown

GROUP = "tandem.commands"


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status: 0 fine, 2 bad input, 130 interrupted."""
    args = sys.argv[1:] if argv is None else argv
    # GNU OpenMP's threads spin for milliseconds when they wait for each other, which on shared cores keeps them from
    # the very work they wait for; a short spin costs little on quiet ones. It is read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    _unwind_on(signal.SIGTERM, signal.SIGHUP)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help(commands))
        return 0
    if args[0] == "--version":
        from importlib.metadata import version

        print(version("tandem-robotics"))
        return 0
    return _run(commands, args)


def _run(commands: Mapping[str, EntryPoint], args: list[str]) -> int:
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
    except OSError as error:  # a full disk, a file without permission
        print(f"error: tandem {args[0]}: {_one_line(error)}", file=sys.stderr)
        return 2


def _unwind_on(*signals: int) -> None:
    """These unwind like an error, so that whatever was started is ended and nothing is left half-written."""
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _terminate)


def _terminate(signum: int, _frame: object) -> None:
    sys.exit(128 + signum)


def _one_line(error: OSError) -> str:
    named = f"{error.filename}: " if error.filename is not None else ""
    return " ".join(f"{named}{error.strerror or error}".split())


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
