"""What a report says of a run besides its outcome: where the checkpoint lies, and when it was."""

import posixpath
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Where and when a checkpoint was verified.

    `folder` is the checkpoint's folder, with `/`, as the readers of the report know it: relative
    to the root of the repository, so that a finding is shown at the right file. `ended` is in UTC.
    """

    folder: str
    ended: datetime

    def path(self, file: str) -> str:
        """The path of a file of the checkpoint for the report's readers."""
        folder = posixpath.normpath(self.folder)
        # Not join(folder, file): a name from an index may begin with a slash.
        return file if folder == "." else posixpath.join(folder, "") + file
