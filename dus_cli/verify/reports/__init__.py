"""The outcome of a verification in the formats of CI systems, one module a format.

Each format is a function of a `Verification` and a `RunContext`; nothing here prints, reads a
clock or opens a file. Names in a checkpoint may hold anything, so every text that is not a
constant goes through `wording.shown` (or is percent-encoded) before it becomes part of a report.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from dus_cli.verify.reports.context import RunContext
from dus_cli.verify.reports.github import github_summary, workflow_commands
from dus_cli.verify.reports.junit import junit_xml
from dus_cli.verify.reports.sarif import sarif_log
from dus_cli.verify.verification import Verification

__all__ = ["FORMATS", "Format", "RunContext", "github_summary"]

Format: TypeAlias = Callable[[Verification, RunContext], str]
"""Gives the whole report, to the last line break, which must reach its reader as it is."""

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {"github": workflow_commands, "junit": junit_xml, "sarif": sarif_log}
)
"""The formats by the names that `--format` takes."""
