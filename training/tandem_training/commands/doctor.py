"""Say what works on this machine, and what to do about what does not.

    tandem doctor
    tandem doctor json=true           # the same for programs, on standard output
    tandem doctor out=outputs/doctor  # and as <out>/metrics.json
    tandem doctor skip='[training]'   # without the short training that estimates the time of a full one

Exits 0 when the loop can run here (limits are listed), 1 when something that it needs is broken.
"""


def main(argv: list[str]) -> int:
    from tandem_datasets.errors import TandemError

    try:
        return _examine(argv)
    except ModuleNotFoundError as error:
        raise TandemError(f"tandem doctor: the package '{error.name}' is missing (mend: make setup)") from error


def _examine(argv: list[str]) -> int:
    from contextlib import nullcontext

    from tandem_training.config import parse
    from tandem_training.doctor.report import examine, print_table, summary
    from tandem_training.results import METRICS, claimed, write_json

    config = parse("doctor", argv, __doc__ or "")
    if config is None:
        return 0
    with nullcontext() if config.out is None else claimed(config.out, "tandem doctor", "doctor") as out:
        findings = examine(skip=list(config.skip))
        facts = summary(findings)
        if out:
            write_json(out / METRICS, facts)
    if config.json:
        import json

        print(json.dumps(facts, indent=2))
    else:
        print_table(findings)
    return 0 if facts["ready"] else 1
