"""What a tool says of a faulty checkpoint, judged by what it says of the sound one."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

TIMEOUT_SECONDS: Final = 60


class Verdict(StrEnum):
    """How a tool takes a fault; what a cell of the table says."""

    FOUND = "found"
    """It fails, or reports an error."""

    WARNS = "warns"
    """It says something that it does not say of the sound checkpoint, and succeeds."""

    CRASHES = "crashes"
    """A command ends in a traceback, or any process by a signal."""

    HANGS = "hangs"
    """It has not ended after `TIMEOUT_SECONDS`."""

    MISSED = "–"
    """It says what it says of the sound checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process that ended by itself."""

    code: int
    stdout: str
    stderr: str

    @property
    def crashed(self) -> bool:
        return self.code < 0 or "Traceback (most recent call last)" in self.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaints:
    """What a tool has against a checkpoint, in words that are the same in every run."""

    errors: frozenset[str] = frozenset()
    warnings: frozenset[str] = frozenset()

    def beginning_with(self, prefix: str) -> "Complaints":
        """Those that begin with `prefix`."""
        return Complaints(
            errors=frozenset(text for text in self.errors if text.startswith(prefix)),
            warnings=frozenset(text for text in self.warnings if text.startswith(prefix)),
        )


def run(command: Sequence[str], folder: Path) -> Ended | None:
    """Runs a command in `folder`; None if it hangs."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return Ended(code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def judge(said: Complaints, of_the_sound: Complaints) -> Verdict:
    """The verdict on a tool that came to an end; only what is new counts."""
    if said.errors - of_the_sound.errors:
        return Verdict.FOUND
    if said.warnings - of_the_sound.warnings - of_the_sound.errors:
        return Verdict.WARNS
    return Verdict.MISSED
