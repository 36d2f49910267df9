"""Measure what Tandem promises, against its targets (`tandem bench loop`).

    tandem bench loop
    tandem bench loop rows='[help_s,env_rate_single]'

Prints a table and writes <out>/metrics.json. Exits 0 when each row was measured, met or not. Policies and
stores that a bench needs are made once and cached under outputs/bench.
"""


def main(argv: list[str]) -> int:
    from importlib import import_module
    from pkgutil import iter_modules

    from tandem_datasets.errors import TandemError, unknown
    from tandem_training import benches
    from tandem_training.config import parse, section

    names = [module.name for module in iter_modules(benches.__path__) if not module.name.startswith("_")]
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: tandem bench NAME [key=value ...]   NAME: {', '.join(names)}\n\n{(__doc__ or '').strip()}")
        return 0
    if argv[0] not in names:
        raise unknown("tandem bench", argv[0], names)
    bench = import_module(f"{benches.__name__}.{argv[0]}")
    config = parse(f"bench_{argv[0]}", argv[1:], bench.__doc__ or "")
    if config is None:
        return 0
    known = list(bench.TARGETS)
    named = section(config)["rows"]
    wanted = known if named is None else named if isinstance(named, list) else [named]
    for name in wanted:
        if name not in known:
            raise unknown(f"tandem bench {argv[0]}: rows", str(name), known)
    if not wanted:
        raise TandemError(f"tandem bench {argv[0]}: rows is empty (allowed: some of {', '.join(known)})")
    return _measure(argv[0], bench, config, set(wanted))


def _measure(name: str, bench, config, wanted: set[str]) -> int:
    from tandem_training.results import claimed, machine, print_rows, write_rows

    with claimed(config.out, f"tandem bench {name}", name) as out:
        facts = machine()
        rows = bench.measure(config, wanted)
        write_rows(out, rows, facts, bench=name)
    print_rows(f"tandem bench {name}", rows, facts)
    print(f"written to {out}")
    return 1 if any(row.value is None and row.met is False for row in rows) else 0
