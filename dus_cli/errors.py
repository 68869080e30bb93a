"""The ways in which a run can stop, each with the exit code that it means.

An error names its subject and the fact in `message`, and the way out in `hint`.
`docs/exit-codes.md` is the table for users; a test holds the two together.
"""

from typing import ClassVar


class DusError(Exception):
    """A failure that was foreseen: `dus` prints it in one or two lines and exits."""

    exit_code: ClassVar[int]
    kind: ClassVar[str]

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(DusError):
    """What was asked for is impossible or makes no sense for this checkpoint."""

    exit_code = 2
    kind = "request"


class CheckpointError(DusError):
    """The source cannot be read, or contradicts itself."""

    exit_code = 3
    kind = "checkpoint"


class SourceLostError(CheckpointError):
    """The source, which cannot have changed, gives no more of its bytes; those before are good."""


class FormatError(CheckpointError):
    """One file breaks the rules of its format."""

    kind = "format"


class OutputError(DusError):
    """The result could not be written; the target is as it was before."""

    exit_code = 4
    kind = "output"


INTERRUPTED_EXIT_CODE = 130
"""What a shell reports for a program ended by Ctrl-C: 128 + SIGINT."""
