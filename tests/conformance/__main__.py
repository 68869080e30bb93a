"""`make conformance`: models of every type, up-scaled and compared with what torch composes.

    python -m tests.conformance [--write] [TYPE …]
    python -m tests.conformance --explain TYPE …

Ends with exit code 1 if a single result is wrong. `--write` updates docs/architectures.md.
`--explain` tells of every forward pass that was tried, and why it proved nothing.
"""

# ruff: noqa: T201

import argparse
from functools import partial

from tests.bench.page import write_part
from tests.conformance.build import model_types, quiet
from tests.conformance.judge import judge
from tests.conformance.pool import run
from tests.conformance.verdicts import (
    PAGE,
    Judgement,
    Results,
    Verdict,
    causes,
    named,
    refusals,
    summary,
    types,
)


def said(model_type: str, result: Judgement | str) -> str:
    """A line for each m, and for each stack that was named, about one type."""
    if isinstance(result, str):
        return f"{model_type}: {Verdict.NOT_BUILT}: {result}"
    return "\n".join(
        f"{model_type} {stack + ' ' if stack else ''}m={drop}: {ruling.verdict}: {ruling.reason}"
        for stack, drop, ruling in result.cases()
    )


def write(results: Results) -> None:
    """Brings docs/architectures.md up to date."""
    for table in (summary, causes, types, named, refusals):
        write_part(PAGE, table.__name__, table(results))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="all, if none is given")
    parser.add_argument("--write", action="store_true", help="update docs/architectures.md")
    parser.add_argument("--explain", action="store_true", help="tell of every forward pass")
    options = parser.parse_args()
    if options.types and options.write:
        parser.error("--write needs all types")
    if options.explain and not options.types:
        parser.error("--explain needs types")
    quiet()
    work = partial(judge, trace=print) if options.explain else judge
    results: dict[str, Judgement | str] = {}
    for outcome in run(work, options.types or model_types()):
        results[outcome.item] = outcome.result if outcome.error is None else outcome.error
        print(said(outcome.item, results[outcome.item]), flush=True)
    print(summary(results), causes(results), sep="\n\n")
    if options.write:
        write(results)
    judgements = [result for result in results.values() if isinstance(result, Judgement)]
    cases = (case for found in judgements for case in found.cases())
    if any(ruling.verdict is Verdict.WRONG for _, _, ruling in cases):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
