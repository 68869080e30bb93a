"""Moving a byte range from one file to another, by the best way that the platform has."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dus_cli.errors import CheckpointError
from dus_cli.plan import BLOCK_BYTES

_BUFFER_BYTES: Final = 1 << 20

_NOT_IN_KERNEL: Final = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}
)
"""What `copy_file_range` answers where kernel or file systems cannot do it for this pair."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes `begin` to `end` (half-open) of file `source`, for offset `offset` of file `target`."""

    source: Path
    begin: int
    end: int
    target: Path
    offset: int


class RangeCopier:
    """Copies ranges; several threads may use one.

    In the kernel where possible: the bytes never pass through this process, and file systems
    that can share blocks do so there. `in_kernel=False` forces the portable way.
    """

    def __init__(self, *, in_kernel: bool = True) -> None:
        self._in_kernel = in_kernel and hasattr(os, "copy_file_range")

    def copy(self, piece: FileRange) -> None:
        """Copies one range into a file that exists.

        Raises CheckpointError when the source ends too early, OSError when reading or writing
        fails.
        """
        flags = getattr(os, "O_BINARY", 0)
        source = os.open(piece.source, os.O_RDONLY | flags)
        try:
            target = os.open(piece.target, os.O_WRONLY | flags)
            try:
                for begin, end in _cut_at_blocks(piece):
                    offset = piece.offset + begin - piece.begin
                    done = self._copy_in_kernel(source, begin, end, target, offset)
                    if done < end - begin:
                        _copy_buffered(source, begin + done, end, target, offset + done)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copy_in_kernel(self, source: int, begin: int, end: int, target: int, offset: int) -> int:
        """How many bytes the kernel copied: all, or fewer where it cannot or the source ends."""
        done = 0
        while self._in_kernel and begin + done < end:
            try:
                count = os.copy_file_range(
                    source, target, end - begin - done, begin + done, offset + done
                )
            except OSError as error:
                if error.errno not in _NOT_IN_KERNEL:
                    raise
                self._in_kernel = False
                break
            if count == 0:
                break
            done += count
        return done


def _cut_at_blocks(piece: FileRange) -> Iterator[tuple[int, int]]:
    """The range in up to three parts, so that a file system can share the whole blocks between.

    Only where source and target are congruent; elsewhere nothing can be shared.
    """
    first = -(-piece.begin // BLOCK_BYTES) * BLOCK_BYTES
    last = piece.end // BLOCK_BYTES * BLOCK_BYTES
    if (piece.begin - piece.offset) % BLOCK_BYTES or first >= last:
        yield piece.begin, piece.end
        return
    bounds = (piece.begin, first, last, piece.end)
    yield from ((begin, end) for begin, end in zip(bounds, bounds[1:], strict=False) if begin < end)


def _copy_buffered(source: int, begin: int, end: int, target: int, offset: int) -> None:
    # Own descriptors a range, so that seeking disturbs no other thread; Windows has no pread.
    os.lseek(source, begin, os.SEEK_SET)
    os.lseek(target, offset, os.SEEK_SET)
    position = begin
    while position < end:
        data = os.read(source, min(_BUFFER_BYTES, end - position))
        if not data:
            raise CheckpointError(f"the source ends at byte {position}, but {end} is due")
        position += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
