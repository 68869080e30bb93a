"""Comparing byte ranges of files: every original byte read once, in memory that does not grow."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dus_cli.errors import CheckpointError
from dus_cli.format.files import open_regular
from dus_cli.verify.extents import shared_ranges

WORKERS: Final = 4
"""Readers at a time: more than cores, as most of them wait for the disk."""

_WINDOW_BYTES: Final = 8 << 20
"""What the system is told to fetch at once; a disk likes long requests, and several of them."""

_BLOCK_BYTES: Final = 1 << 20
"""What is compared at once: two blocks fit into a processor's cache, which doubles the speed."""

_WORD_BYTES: Final = 8

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes of copies that have been compared since the last call."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes begin: at offset `begin` of the file `path`."""

    path: Path
    begin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That the `size` bytes at `original` are also at each of `copies`, which have names."""

    original: Place
    size: int
    copies: Mapping[str, Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a copy differs: in `count` bytes, of which the first is byte `first` of the copy.

    There is `found` in it where the original has `expected`.
    """

    count: int
    first: int
    expected: int
    found: int


@dataclass(slots=True, kw_only=True)
class Comparison:
    """What differs, by the name of the copy, and what it took to know.

    `unreadable` has the error of copies that could not be read to their end. `shared_bytes` are
    bytes of copies that are stored in the same place as their original and were not read.
    """

    differences: dict[str, Difference] = field(default_factory=dict)
    unreadable: dict[str, CheckpointError] = field(default_factory=dict)
    bytes_read: int = 0
    shared_bytes: int = 0


def compare(claims: Iterable[Claim], progress: Progress = lambda count: None) -> Comparison:
    """Which claims are false. They are worked off in their order, so that should be the disk's.

    Raises CheckpointError when an original cannot be read.
    """
    comparer = _Comparer(_windows(claims), progress)
    with ThreadPoolExecutor(WORKERS) as pool:
        workers = [pool.submit(comparer.work) for _ in range(WORKERS)]
        try:
            for worker in workers:
                worker.result()
        finally:
            comparer.stop.set()
    return comparer.comparison


@dataclass(frozen=True, slots=True)
class _Window:
    """`size` bytes of a claim, from byte `begin` of it."""

    claim: Claim
    begin: int
    size: int


def _windows(claims: Iterable[Claim]) -> Iterator[_Window]:
    for claim in claims:
        for begin in range(0, claim.size, _WINDOW_BYTES):
            yield _Window(claim, begin, min(_WINDOW_BYTES, claim.size - begin))


class _Comparer:
    """Shares windows out to workers, and gathers what they find."""

    def __init__(self, windows: Iterator[_Window], progress: Progress) -> None:
        self.stop = threading.Event()
        self.comparison = Comparison()
        self._windows = windows
        self._progress = progress
        self._lock = threading.Lock()

    def work(self) -> None:
        """Compares windows until there are no more, or until any worker fails."""
        blocks = _Blocks()
        try:
            while not self.stop.is_set():
                with self._lock:
                    window = next(self._windows, None)
                if window is None:
                    return
                self._compare(window, blocks)
        except BaseException:
            self.stop.set()
            raise

    def _compare(self, window: _Window, blocks: "_Blocks") -> None:
        claim = window.claim
        with ExitStack() as stack:
            source = _File(stack, claim.original, window.begin, str(claim.original.path))
            wanted: dict[range, list[tuple[str, _File]]] = {}
            for name, place in claim.copies.items():
                try:
                    copy = _File(stack, place, window.begin, place.path.name)
                except CheckpointError as error:
                    self._give_up(name, error)
                    continue
                ranges = shared_ranges(
                    source.descriptor, source.begin, copy.descriptor, copy.begin, window.size
                )
                self._count(shared=sum(map(len, ranges)))
                for gap in _gaps(ranges, window.size):
                    wanted.setdefault(gap, []).append((name, copy))
            for gap, copies in wanted.items():
                source.announce(gap)
                for _, copy in copies:
                    copy.announce(gap)
            for gap, copies in wanted.items():
                for begin in range(gap.start, gap.stop, _BLOCK_BYTES):
                    self._compare_block(
                        source, copies, begin, min(_BLOCK_BYTES, gap.stop - begin), window, blocks
                    )
        self._count(compared=window.size * len(claim.copies))

    def _compare_block(
        self,
        source: "_File",
        copies: list[tuple[str, "_File"]],
        begin: int,
        size: int,
        window: _Window,
        blocks: "_Blocks",
    ) -> None:
        source.read(blocks.expected, begin, size)
        self._count(read=size)
        for name, copy in copies:
            try:
                copy.read(blocks.found, begin, size)
            except CheckpointError as error:
                self._give_up(name, error)
                continue
            difference = blocks.difference(size, window.begin + begin)
            self._count(read=size)
            if difference is not None:
                self._add(name, difference)

    def _count(self, *, read: int = 0, shared: int = 0, compared: int = 0) -> None:
        with self._lock:
            self.comparison.bytes_read += read
            self.comparison.shared_bytes += shared
            if compared:
                self._progress(compared)

    def _add(self, name: str, new: Difference) -> None:
        with self._lock:
            old = self.comparison.differences.get(name, new)
            first = min(old, new, key=lambda difference: difference.first)
            self.comparison.differences[name] = Difference(
                count=new.count if old is new else old.count + new.count,
                first=first.first,
                expected=first.expected,
                found=first.found,
            )

    def _give_up(self, name: str, error: CheckpointError) -> None:
        with self._lock:
            self.comparison.unreadable.setdefault(name, error)


class _File:
    """An open file, seen from byte `begin` behind `place`; closed with `stack`."""

    def __init__(self, stack: ExitStack, place: Place, begin: int, subject: str) -> None:
        self._subject = subject
        self.descriptor = stack.enter_context(open_regular(place.path, self._subject))
        self.begin = place.begin + begin
        self._file = stack.enter_context(FileIO(self.descriptor, closefd=False))

    def announce(self, part: range) -> None:
        """Lets the system fetch a range while others are waited for."""
        if hasattr(os, "posix_fadvise"):
            offset, advice = self.begin + part.start, os.POSIX_FADV_WILLNEED
            os.posix_fadvise(self.descriptor, offset, len(part), advice)

    def read(self, words: npt.NDArray[np.uint64], begin: int, size: int) -> None:
        """Fills `words` with `size` bytes, and the rest of the last word with zeros.

        Raises CheckpointError when the file cannot be read or has become shorter.
        """
        padded = -(-size // _WORD_BYTES) * _WORD_BYTES
        memory = words.data.cast("B")
        memory[size:padded] = bytes(padded - size)
        done = 0
        try:
            self._file.seek(self.begin + begin)
            while done < size:
                count = self._file.readinto(memory[done:size])
                if not count:
                    raise CheckpointError(
                        f"{self._subject}: ends at byte {self.begin + begin + done}, where more is "
                        "due"
                    )
                done += count
        except OSError as error:
            raise CheckpointError(f"{self._subject}: cannot be read: {error.strerror}") from None


class _Blocks:
    """A worker's memory: a block of an original, one of a copy, and room to compare them."""

    def __init__(self) -> None:
        words = _BLOCK_BYTES // _WORD_BYTES
        self.expected = np.zeros(words, np.uint64)
        self.found = np.zeros(words, np.uint64)
        self._unequal = np.zeros(words, np.bool_)

    def difference(self, size: int, offset: int) -> Difference | None:
        """How the first `size` bytes of both blocks differ; they are byte `offset` and on."""
        words = -(-size // _WORD_BYTES)
        unequal = self._unequal[:words]
        np.not_equal(self.expected[:words], self.found[:words], out=unequal)
        if not unequal.any():
            return None
        expected, found = (block.view(np.uint8)[:size] for block in (self.expected, self.found))
        differs = expected != found
        first = int(differs.argmax())
        return Difference(
            count=int(np.count_nonzero(differs)),
            first=offset + first,
            expected=int(expected[first]),
            found=int(found[first]),
        )


def _gaps(ranges: Iterable[range], size: int) -> Iterator[range]:
    """What lies between ascending `ranges`, from 0 to `size`."""
    position = 0
    for part in (*ranges, range(size, size)):
        if position < part.start:
            yield range(position, part.start)
        position = part.stop
