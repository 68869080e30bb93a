"""What the reports have in common: foreign text made fit, the order of findings, the totals."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from dus_cli.findings import Finding, Severity
from dus_cli.printable import printable
from dus_cli.verify.verification import Verification

MAX_CHARACTERS: Final = 1000
"""Characters of one text that a report shows: a tensor's name may be megabytes."""

_GRAVEST_FIRST: Final = tuple(Severity)


def clipped(text: str) -> str:
    """`text`, its middle left out where it is long."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}…{text[-half:]}"


def shown(text: str) -> str:
    """`text` on one line, of bounded length, with nothing in it that is invisible or a command."""
    # Cut before, as escaping megabytes takes many times their size, and after, as escapes are long.
    return clipped(printable(clipped(text)))


def with_hint(finding: Finding, text: str) -> str:
    """`text`, which says the fault, and the finding's hint where it has one; fit to be shown."""
    said = shown(text)
    return f"{said.removesuffix('.')}. {shown(finding.hint)}" if finding.hint else said


def gravest_first(verification: Verification) -> list[Finding]:
    """The findings, errors first and otherwise as they were found: CI systems show only some."""
    return sorted(
        verification.findings,
        key=lambda finding: _GRAVEST_FIRST.index(verification.severity_of(finding.code)),
    )


def left_out(verification: Verification, findings: Iterable[Finding]) -> Mapping[str, int]:
    """How many findings of each code were counted but are not in `findings`; no code with 0."""
    return Counter(verification.counts) - Counter(finding.code for finding in findings)


def verdict(verification: Verification) -> str:
    """The outcome in a word or two."""
    return "valid" if verification.valid else "not valid"


def totals(verification: Verification) -> Mapping[str, str]:
    """What was found and how much was checked, by label, in the order in which to show it."""
    counts = {
        "errors": verification.count(Severity.ERROR),
        "warnings": verification.count(Severity.WARNING),
        "notes": verification.count(Severity.NOTE),
        "checks": sum(1 for _ in verification.checks_made()),
        "shards": verification.shards,
        "tensors": verification.tensors,
        "files": verification.files,
        "bytes read": verification.bytes_read,
        "bytes shared": verification.shared_bytes,
    }
    return {
        **{label: f"{count:,}" for label, count in counts.items()},
        "seconds": f"{verification.seconds:.3f}",
    }
