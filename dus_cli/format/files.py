"""Opening files that may be anything: a pipe, a device, a file that shrinks meanwhile."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dus_cli.errors import CheckpointError


@contextmanager
def open_regular(path: Path, subject: str) -> Iterator[int]:
    """A read-only descriptor of a regular file, closed at the end.

    Raises CheckpointError when it is missing, unreadable or not a regular file. A pipe never
    blocks here and a device is never read.
    """
    # Windows knows neither flag, and has no pipes in its folders that they would guard against.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        what = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise CheckpointError(f"{subject}: {what}") from None
    except OSError as error:
        raise CheckpointError(f"{subject}: cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointError(f"{subject}: not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def read_small(path: Path, subject: str, *, limit: int) -> bytes:
    """The whole file at `path`, which must hold at most `limit` bytes.

    Raises CheckpointError as `open_regular` does, and for a larger file.
    """
    with open_regular(path, subject) as descriptor:
        if os.fstat(descriptor).st_size > limit:
            raise CheckpointError(f"{subject}: larger than {limit} bytes, which is not plausible")
        return read_exactly(descriptor, os.fstat(descriptor).st_size, subject)


def read_exactly(descriptor: int, count: int, subject: str) -> bytes:
    """The next `count` bytes; raises CheckpointError when the file ends before."""
    parts: list[bytes] = []
    while count:
        try:
            part = os.read(descriptor, count)
        except OSError as error:
            raise CheckpointError(f"{subject}: cannot be read: {error.strerror}") from None
        if not part:
            raise CheckpointError(f"{subject}: became shorter while it was read")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
