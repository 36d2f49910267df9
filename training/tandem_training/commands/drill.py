"""Try what happens to data when processes die and disks refuse (`tandem drill store`).

    tandem drill store
    tandem drill store quick=true

Prints a table and writes <out>/metrics.json, with every case that went wrong. Exits with 1 if there was one.
"""


def main(argv: list[str]) -> int:
    from importlib import import_module
    from pkgutil import iter_modules

    from tandem_datasets.errors import unknown
    from tandem_training import drills
    from tandem_training.config import parse
    from tandem_training.results import claimed, machine, print_rows, write_rows

    names = [module.name for module in iter_modules(drills.__path__) if not module.name.startswith("_")]
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: tandem drill NAME [key=value ...]   NAME: {', '.join(names)}\n\n{(__doc__ or '').strip()}")
        return 0
    if argv[0] not in names:
        raise unknown("tandem drill", argv[0], names)
    drill = import_module(f"{drills.__name__}.{argv[0]}")
    config = parse(f"drill_{argv[0]}", argv[1:], drill.__doc__ or "")
    if config is None:
        return 0
    with claimed(config.out, f"tandem drill {argv[0]}", argv[0]) as out:
        facts = machine()
        rows, wrong = drill.measure(config)
        write_rows(out, rows, facts, drill=argv[0], wrong=wrong)
    print_rows(f"tandem drill {argv[0]}", rows, facts)
    print(f"written to {out}")
    return 1 if wrong else 0
