"""`make conformance`: models of every type, up-scaled and compared with what torch composes.

    python -m tests.conformance [--write] [TYPE …]

Ends with exit code 1 if a single result is wrong. `--write` updates docs/architectures.md.
"""

# ruff: noqa: T201

import argparse

from tests.bench.page import write_part
from tests.conformance.build import model_types, quiet
from tests.conformance.judge import judge
from tests.conformance.pool import run
from tests.conformance.verdicts import (
    DROPS,
    PAGE,
    Judgement,
    Results,
    Verdict,
    reasons,
    summary,
    types,
)


def said(model_type: str, result: Judgement | str) -> str:
    """A line for each m about one type."""
    if isinstance(result, str):
        return f"{model_type}: {Verdict.NOT_BUILT}: {result}"
    return "\n".join(
        f"{model_type} m={drop}: {ruling.verdict}: {ruling.reason}"
        for drop, ruling in zip(DROPS, result.rulings, strict=True)
    )


def write(results: Results) -> None:
    """Brings docs/architectures.md up to date."""
    for part, text in (
        ("summary", summary(results)),
        ("types", types(results)),
        ("reasons", reasons(results)),
    ):
        write_part(PAGE, part, text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="all, if none is given")
    parser.add_argument("--write", action="store_true", help="update docs/architectures.md")
    options = parser.parse_args()
    if options.types and options.write:
        parser.error("--write needs all types")
    quiet()
    results: dict[str, Judgement | str] = {}
    for outcome in run(judge, options.types or model_types()):
        results[outcome.item] = outcome.result if outcome.error is None else outcome.error
        print(said(outcome.item, results[outcome.item]), flush=True)
    print(summary(results))
    if options.write:
        write(results)
    judgements = [result for result in results.values() if isinstance(result, Judgement)]
    if any(ruling.verdict is Verdict.WRONG for found in judgements for ruling in found.rulings):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
