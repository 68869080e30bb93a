"""Which bytes of two files are the same because the file system keeps them only once.

Why the same blocks mean the same bytes:

- Pages that were written but have no block yet could say something else than the block. So the
  map is asked for with FIEMAP_FLAG_SYNC, which writes them first; as blocks are shared, they go to
  new ones, and the map shows those. Who writes after that changes a file that is being verified,
  as somebody might who writes behind a reader's back.
- A map gives places without the device. So only file systems count where one place is one block:
  Btrfs numbers blocks over all its devices; XFS has one device for data and perhaps another one
  for real-time files, which are told apart here. Both files must lie on the same file system.
- An extent counts only when it is marked as shared and as nothing else: not compressed, inlined,
  preallocated or not placed yet, where a block is not, or not yet, what a reader sees.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_FIEMAP: Final = 0xC020660B  # linux/fs.h: FS_IOC_FIEMAP
_FSGETXATTR: Final = 0x801C581F  # linux/fs.h: FS_IOC_FSGETXATTR
_XATTR_BYTES: Final = 28
_REALTIME: Final = 0x1

_SYNC: Final = 0x1
_REQUEST: Final = struct.Struct("=QQIIII")  # linux/fiemap.h: struct fiemap
_EXTENT: Final = struct.Struct("=QQQ16xI12x")  # and struct fiemap_extent
_MAX_EXTENTS: Final = 17
"""As many as fit into the 1,024 bytes up to which Python lets other threads run meanwhile."""

_LAST, _MERGED, _SHARED = 0x1, 0x1000, 0x2000

_XFS, _BTRFS = 0x58465342, 0x9123683E  # linux/magic.h


@dataclass(frozen=True, slots=True)
class Extent:
    """`size` bytes from offset `logical` of a file, which lie at `physical` on its disk."""

    logical: int
    physical: int
    size: int


def shared_ranges(
    one: int, one_begin: int, other: int, other_begin: int, size: int
) -> tuple[range, ...]:
    """What two open files hold in common, of `size` bytes from `one_begin` and `other_begin`.

    The ranges ascend, do not touch the same byte twice, and count from the two begins. What is
    not in them may be equal or not, and has to be read.
    """
    status, other_status = os.fstat(one), os.fstat(other)
    if os.path.samestat(status, other_status) and one_begin == other_begin:
        return (range(size),)
    if status.st_dev != other_status.st_dev:
        return ()
    volume = _volume(one)
    if volume is None or volume != _volume(other):
        return ()
    ones, others = _extents(one, one_begin, size), _extents(other, other_begin, size)
    return common_ranges(ones, one_begin, others, other_begin, size)


def common_ranges(
    ones: Sequence[Extent], one_begin: int, others: Sequence[Extent], other_begin: int, size: int
) -> tuple[range, ...]:
    """The offsets from 0 to `size` at which both files' bytes lie in the same place.

    The extents of each file ascend and do not overlap.
    """
    found: list[range] = []
    for one in ones:
        for other in others:
            one_at, other_at = one.logical - one_begin, other.logical - other_begin
            begin = max(one_at, other_at, 0)
            end = min(one_at + one.size, other_at + other.size, size)
            if begin < end and one.physical - one_at == other.physical - other_at:
                found.append(range(begin, end))
    return tuple(found)


def parse_extents(answer: bytes | bytearray) -> tuple[Extent, ...]:
    """The extents in an answer to FIEMAP that are shared blocks and nothing else."""
    count = _REQUEST.unpack_from(answer)[3]
    found = (
        _EXTENT.unpack_from(answer, _REQUEST.size + number * _EXTENT.size)
        for number in range(min(count, _MAX_EXTENTS))
    )
    return tuple(
        Extent(logical, physical, size)
        for logical, physical, size, flags in found
        if flags & ~(_LAST | _MERGED) == _SHARED
    )


def _extents(descriptor: int, begin: int, size: int) -> tuple[Extent, ...]:
    if sys.platform != "linux":
        return ()
    import fcntl

    answer = bytearray(_REQUEST.size + _MAX_EXTENTS * _EXTENT.size)
    _REQUEST.pack_into(answer, 0, begin, size, _SYNC, 0, _MAX_EXTENTS, 0)
    try:
        fcntl.ioctl(descriptor, _FIEMAP, answer)
    except OSError:
        return ()  # a file system without maps; its files are read
    return parse_extents(answer)


def _volume(descriptor: int) -> tuple[int, int] | None:
    """The kind of file system, and which of its devices hold the file; None for kinds whose
    places on disk are not known to be unique."""
    if sys.platform != "linux":
        return None
    import fcntl

    status = (ctypes.c_long * 32)()  # larger than any struct statfs; its first word is the kind
    if ctypes.CDLL(None).fstatfs(descriptor, status) or status[0] not in (_XFS, _BTRFS):
        return None
    attributes = bytearray(_XATTR_BYTES)
    try:
        fcntl.ioctl(descriptor, _FSGETXATTR, attributes)
    except OSError:
        return None
    return status[0], int.from_bytes(attributes[:4], sys.byteorder) & _REALTIME
