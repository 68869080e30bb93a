"""GitHub Actions: annotations as workflow commands, and a summary of the job in Markdown.

A workflow command is a line `::error file=…,title=…::message`. The runner takes for one any line
of a job's output that begins with `::`, and any that holds `##[`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from dus_cli.findings import Finding, Severity
from dus_cli.printable import markdown_code
from dus_cli.verify.reports.context import RunContext
from dus_cli.verify.reports.wording import (
    gravest_first,
    left_out,
    shown,
    totals,
    verdict,
    with_hint,
)
from dus_cli.verify.verification import Verification

_COMMANDS: Final[Mapping[Severity, str]] = MappingProxyType(
    {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
)

_IN_DATA: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTY: Final = _IN_DATA | str.maketrans({":": "%3A", ",": "%2C"})

SUMMARY_ROWS: Final = 100
"""Findings in a job's summary, which GitHub refuses where it is larger than 1 MiB."""


def workflow_commands(verification: Verification, context: RunContext) -> str:
    """The findings as annotations, and a last line, which is no command, with the totals.

    Errors come first: GitHub shows ten annotations of each kind for a step.
    """
    findings = gravest_first(verification)
    rest = left_out(verification, findings)
    lines = [
        _command(verification.severity_of(finding.code), finding, context) for finding in findings
    ]
    lines += [f"{count:,} more of {code}" for code, count in rest.items()]
    numbers = ", ".join(f"{label}: {text}" for label, text in totals(verification).items())
    lines.append(f"dus verify {shown(verification.name)}: {verdict(verification)} ({numbers})")
    return "\n".join(lines) + "\n"


def _command(severity: Severity, finding: Finding, context: RunContext) -> str:
    properties = {"title": finding.code}
    if finding.file is not None:
        properties = {"file": shown(context.path(finding.file)), **properties}
    listed = ",".join(f"{key}={text.translate(_IN_PROPERTY)}" for key, text in properties.items())
    message = with_hint(finding, finding.message).translate(_IN_DATA)
    return f"::{_COMMANDS[severity]} {listed}::{message}"


def github_summary(verification: Verification) -> str:
    """The outcome as Markdown, for the file that `$GITHUB_STEP_SUMMARY` names."""
    return "\n".join(_summary_lines(verification)) + "\n"


def _summary_lines(verification: Verification) -> Iterator[str]:
    numbers = totals(verification)
    yield f"### dus verify {_code(verification.name)}: {verdict(verification)}"
    yield ""
    yield f"| {' | '.join(numbers)} |"
    yield "|" + " ---: |" * len(numbers)
    yield f"| {' | '.join(numbers.values())} |"
    # A step before may have left its text, and one behind will add its own.
    yield ""
    if not verification.findings:
        return
    rows = gravest_first(verification)[:SUMMARY_ROWS]
    yield "| severity | code | file | finding |"
    yield "| --- | --- | --- | --- |"
    for finding in rows:
        severity = verification.severity_of(finding.code)
        file = "" if finding.file is None else _code(finding.file)
        yield f"| {severity} | {finding.code} | {file} | {_code(finding.message)} |"
    yield ""
    rest = sum(left_out(verification, rows).values())
    if rest:
        yield f"{rest:,} more findings are not in this table."
        yield ""


def _code(text: str) -> str:
    return markdown_code(shown(text))
