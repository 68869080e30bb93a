"""The outcome of a verification: what was found, what was checked, how much was read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dus_cli import __version__
from dus_cli.findings import CHECKS, Finding, Group, Severity
from dus_cli.format.strict_json import Json

VERIFY_SCHEMA: Final = "dus-verify/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a verification says of the checkpoint called `name`.

    `groups` are the groups of checks that were made; checks of others say nothing. `counts` holds
    how often each code was found; of a code that was found very often, `findings` has the first
    ones. `bytes_read` counts what was read of the checkpoint and of what it was compared with,
    `shared_bytes` what was proved equal without reading, because both files hold the same blocks.
    `ignored` are codes that were left out.
    """

    name: str
    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    shards: int
    tensors: int
    files: int
    bytes_read: int
    seconds: float
    shared_bytes: int = 0
    ignored: frozenset[str] = frozenset()
    strict: bool = False

    def severity_of(self, code: str) -> Severity:
        """How bad findings of `code` are here: a strict verification has no warnings."""
        severity = CHECKS[code].severity
        return Severity.ERROR if self.strict and severity is Severity.WARNING else severity

    def count(self, severity: Severity) -> int:
        """How many findings of `severity` there are, those that were not kept included."""
        return sum(
            count for code, count in self.counts.items() if self.severity_of(code) is severity
        )

    @property
    def valid(self) -> bool:
        """Whether nothing was found that is an error."""
        return not self.count(Severity.ERROR)

    def checks_made(self) -> Iterable[str]:
        """Codes of all checks that were made, in the order of the table."""
        return (
            code
            for code, check in CHECKS.items()
            if check.group in self.groups and code not in self.ignored
        )

    def to_json(self) -> dict[str, Json]:
        """The outcome as JSON values (docs/verify.md)."""
        return {
            "schema": VERIFY_SCHEMA,
            "dus_version": __version__,
            "name": self.name,
            "valid": self.valid,
            "strict": self.strict,
            "ignored": sorted(self.ignored),
            "checked": {
                "groups": [group.value for group in self.groups],
                "shards": self.shards,
                "tensors": self.tensors,
                "files": self.files,
                "bytes_read": self.bytes_read,
                "shared_bytes": self.shared_bytes,
                "seconds": round(self.seconds, 3),
            },
            "counts": dict(sorted(self.counts.items())),
            "findings": [
                {
                    "code": finding.code,
                    "severity": self.severity_of(finding.code).value,
                    "file": finding.file,
                    "tensor": finding.tensor,
                    "field": finding.field,
                    "message": finding.message,
                    "hint": finding.hint,
                }
                for finding in self.findings
            ],
        }
