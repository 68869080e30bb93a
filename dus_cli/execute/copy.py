"""Moving a byte range from one file to others, by the best way that the platform has.

Shared blocks where the file system can (XFS, Btrfs, bcachefs, ZFS), which moves no byte at all.
Elsewhere one read into a small buffer and one write for every target, past the page cache where
that is possible: for data that nobody reads again soon, filling the cache costs several times the
processor time of the write itself, and `copy_file_range` and `cp` both pay it.
"""

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias

from dus_cli.errors import CheckpointError
from dus_cli.plan import BLOCK_BYTES

PIECE_BYTES: Final = 4 << 20
"""The most that is read at once; with four workers, larger pieces were not faster."""

_FICLONERANGE: Final = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range)
_MAX_SHARED_BYTES: Final = 1 << 30
"""The most to share in one call, so that Ctrl-C is never far away."""

_REFUSALS: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
)
"""What a file system answers when it cannot share these blocks or write past the cache."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes go: offset `offset` of file `path`, which exists."""

    path: Path
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `begin` to `end` (half-open) of file `source`, and every place that gets them."""

    source: Path
    begin: int
    end: int
    places: tuple[Place, ...]


def share(piece: Piece) -> tuple[Piece, ...]:
    """Lets each place share blocks with the source as far as possible.

    Returns what is left to be copied: the ends that are no whole blocks, and everything where
    the file system does not share or the offsets are not congruent modulo the block size.
    """
    try:
        import fcntl
    except ImportError:
        return (piece,)
    first = -(-piece.begin // BLOCK_BYTES) * BLOCK_BYTES
    last = piece.end // BLOCK_BYTES * BLOCK_BYTES
    rest: list[Piece] = []
    for place in piece.places:
        alone = Piece(piece.source, piece.begin, piece.end, (place,))
        if first >= last or (piece.begin - place.offset) % BLOCK_BYTES:
            rest.append(alone)
            continue
        with open(piece.source, "rb") as source, open(place.path, "r+b") as target:
            shared = first
            while shared < last:
                count = min(last - shared, _MAX_SHARED_BYTES)
                offset = place.offset + shared - piece.begin
                request = struct.pack("qQQQ", source.fileno(), shared, count, offset)
                try:
                    fcntl.ioctl(target.fileno(), _FICLONERANGE, request)
                except OSError as error:
                    if error.errno not in _REFUSALS:
                        raise
                    break
                shared += count
        rest += (
            Piece(
                piece.source, begin, end, (Place(place.path, place.offset + begin - piece.begin),)
            )
            for begin, end in ((piece.begin, first), (shared, piece.end))
            if begin < end and shared > first
        )
        if shared == first:
            rest.append(alone)
    return tuple(rest)


def read_file(piece: Piece, into: memoryview) -> None:
    """Reads a piece from its file; raises CheckpointError when it cannot, or the file ends."""
    try:
        with open(piece.source, "rb", buffering=0) as source:
            source.seek(piece.begin)
            done = 0
            while done < len(into):
                count = source.readinto(into[done:])
                if not count:
                    raise CheckpointError(
                        f"{piece.source.name}: ends at byte {piece.begin + done}, but bytes up to "
                        f"{piece.end} are due",
                        hint="It became shorter while it was copied.",
                    )
                done += count
    except OSError as error:
        raise CheckpointError(f"{piece.source.name}: cannot be read: {error.strerror}") from None


Read: TypeAlias = Callable[[Piece, memoryview], None]
"""Fills the memory with a piece's bytes."""


class PieceCopier:
    """Copies pieces of at most `PIECE_BYTES` through one buffer; every worker has its own.

    `direct=False` keeps to ordinary writes, as platforms without O_DIRECT do.
    """

    def __init__(self, *, direct: bool = True) -> None:
        # A mapping begins at a page, as writing past the cache demands of the memory too.
        self._buffer = memoryview(mmap.mmap(-1, PIECE_BYTES + BLOCK_BYTES))
        self._direct = direct and hasattr(os, "O_DIRECT")

    def copy(self, piece: Piece, read: Read = read_file) -> None:
        """Copies one piece, which `read` gets, to all its places.

        Raises what `read` does, and OSError when writing fails.
        """
        count = piece.end - piece.begin
        loaded: memoryview | None = None
        for place in piece.places:
            # The bytes lie in memory as they will in the file, so that whole blocks of one are
            # whole blocks of the other.
            residue = place.offset % BLOCK_BYTES
            data = self._buffer[residue : residue + count]
            if loaded is None:
                read(piece, data)
            else:
                data[:] = loaded
            loaded = data
            self._write(place, data)

    def _write(self, place: Place, data: memoryview) -> None:
        """Whole blocks past the cache, the ends (or, where refused, everything) through it."""
        first = -place.offset % BLOCK_BYTES
        last = len(data) - (place.offset + len(data)) % BLOCK_BYTES
        if self._direct and first < last:
            try:
                _write_at(place.path, place.offset + first, data[first:last], direct=True)
            except OSError as error:
                if error.errno not in _REFUSALS:
                    raise
                self._direct = False
                first = last = len(data)
        else:
            first = last = len(data)
        for begin, end in ((0, first), (last, len(data))):
            if begin < end:
                _write_at(place.path, place.offset + begin, data[begin:end])


def cut(piece: Piece) -> Iterator[Piece]:
    """`piece` in parts of at most `PIECE_BYTES`, cut at multiples of it in the source."""
    begin = piece.begin
    while begin < piece.end:
        end = min(piece.end, (begin // PIECE_BYTES + 1) * PIECE_BYTES)
        shift = begin - piece.begin
        yield Piece(
            piece.source,
            begin,
            end,
            tuple(Place(place.path, place.offset + shift) for place in piece.places),
        )
        begin = end


def merge(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Pieces of one source, cut so that every source byte is in exactly one, in their order.

    What several pieces want from the same range becomes one piece with several places.
    """
    edges = sorted({edge for piece in pieces for edge in (piece.begin, piece.end)})
    waiting = sorted(pieces, key=lambda piece: piece.begin)
    active: list[Piece] = []
    position = 0
    for begin, end in pairwise(edges):
        while position < len(waiting) and waiting[position].begin <= begin:
            active.append(waiting[position])
            position += 1
        active = [piece for piece in active if piece.end > begin]
        places = tuple(
            Place(place.path, place.offset + begin - piece.begin)
            for piece in active
            for place in piece.places
        )
        if places:
            yield Piece(active[0].source, begin, end, places)


def _write_at(path: Path, offset: int, data: memoryview, *, direct: bool = False) -> None:
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | (os.O_DIRECT if direct else 0))

    with open(path, "r+b", buffering=0, opener=opener) as target:
        target.seek(offset)
        while data:
            data = data[target.write(data) :]
