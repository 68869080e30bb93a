"""SHA-256 of files and of the tensors in them: every byte read once, memory that does not grow.

The digest of a file cannot be divided among processors, nor can that of a tensor be had from it. So
each block that is read goes to two threads, one for the file and one for its tensors; hashlib lets
go of the interpreter's lock meanwhile. A third thread reads ahead.
"""

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, TypeAlias

from dus_cli.errors import CheckpointError
from dus_cli.format.checkpoint import Shard
from dus_cli.format.files import open_regular

_BLOCK_BYTES: Final = 1 << 20
_BLOCKS: Final = 8
"""Blocks that one file may have in memory: enough for the disk to work while processors do."""

_MAX_FILES: Final = 8
"""Files read at a time, however many processors there are: disks and memory have limits too."""

_HEADER: Final = None
"""Stands for the name in the span of bytes before the data; a tensor may have any name."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes that have been read since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigests:
    """What was read of one file: its size in bytes, its SHA-256, that of each tensor, in hex.

    Tensors whose bytes the header states wrongly (outside the file, or another's) have none.
    """

    size: int
    sha256: str
    tensors: Mapping[str, str]


def hash_files(
    folder: Path, files: Mapping[str, Shard | None], progress: Progress = lambda count: None
) -> Generator[tuple[str, FileDigests | CheckpointError], None, None]:
    """The digests of each of `files` in `folder`, in their order; tensors' where it is a shard.

    A file that cannot be read, that changes while it is, or that is not the shard that was opened
    gives the error instead. To stop early, close the generator.
    """
    stop = threading.Event()
    hashers: queue.SimpleQueue[_Hasher] = queue.SimpleQueue()

    def digests(path: str, shard: Shard | None) -> FileDigests | CheckpointError:
        hasher = hashers.get()
        try:
            return hasher.digests(folder / path, path, shard)
        except CheckpointError as error:
            return error
        finally:
            hashers.put(hasher)

    at_a_time = max(1, min(_processors() // 2, _MAX_FILES, len(files)))
    with ExitStack() as stack:
        for _ in range(at_a_time):
            hashers.put(_Hasher(stack, stop, progress))
        pool = stack.enter_context(ThreadPoolExecutor(at_a_time))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        stack.callback(stop.set)
        waiting = deque((path, pool.submit(digests, path, shard)) for path, shard in files.items())
        while waiting:
            path, future = waiting.popleft()
            yield path, future.result()


def _processors() -> int:
    """How many there are for this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Hasher:
    """Hashes one file after another, with threads and memory of its own."""

    def __init__(self, stack: ExitStack, stop: threading.Event, progress: Progress) -> None:
        # One thread each, so that the blocks arrive in their order.
        self._lanes = tuple(stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        self._buffers = tuple(memoryview(bytearray(_BLOCK_BYTES)) for _ in range(_BLOCKS))
        self._stop = stop
        self._progress = progress

    def digests(self, path: Path, subject: str, shard: Shard | None) -> FileDigests:
        """Raises CheckpointError when the file cannot be read, changes, or is not `shard`."""
        whole = hashlib.sha256()
        with open_regular(path, subject) as descriptor:
            before = os.fstat(descriptor)
            parts = _Parts(_spans(shard) if shard else ())
            consumers = (whole.update, parts.update) if shard else (whole.update,)
            self._feed(descriptor, before.st_size, subject, consumers)
            after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise CheckpointError(f"{subject}: changed while it was read")
        if shard and parts.digests.pop(_HEADER, None) != shard.header_sha256:
            raise CheckpointError(f"{subject}: changed after its header was read")
        return FileDigests(
            size=before.st_size,
            sha256=whole.hexdigest(),
            tensors={name: digest for name, digest in parts.digests.items() if name is not None},
        )

    def _feed(
        self,
        descriptor: int,
        size: int,
        subject: str,
        consumers: Sequence[Callable[[memoryview], None]],
    ) -> None:
        """Gives the `size` bytes of a file to each of `consumers`, in order, all at once."""
        file = FileIO(descriptor, closefd=False)
        # What still uses each buffer, the one that is due next in front.
        busy: deque[tuple[memoryview, list[Future[None]]]] = deque(
            (buffer, []) for buffer in self._buffers
        )
        done = 0
        while done < size:
            if self._stop.is_set():
                # Nobody waits for the digests any more, so nobody sees this.
                raise CheckpointError(f"{subject}: was not read to its end")
            buffer, users = busy.popleft()
            for user in users:
                user.result()
            try:
                count = file.readinto(buffer[: size - done])
            except OSError as error:
                raise CheckpointError(f"{subject}: cannot be read: {error.strerror}") from None
            if not count:
                raise CheckpointError(f"{subject}: became shorter while it was read")
            block = buffer[:count]
            busy.append(
                (
                    buffer,
                    [
                        lane.submit(consume, block)
                        for lane, consume in zip(self._lanes, consumers, strict=False)
                    ],
                )
            )
            done += count
            self._progress(count)
        for _, users in busy:
            for user in users:
                user.result()


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes `begin` to `end` of a file, half-open, and whose they are."""

    name: str | None
    begin: int
    end: int


def _spans(shard: Shard) -> Iterator[_Span]:
    """The header, and every tensor whose bytes are not also another's."""
    position = start = shard.header.data_start
    yield _Span(_HEADER, 0, start)
    for name, info in shard.header.tensors.items():
        begin, end = start + info.begin, start + info.end
        if position <= begin:
            yield _Span(name, begin, end)
            position = end


class _Parts:
    """Digests of spans of a stream, which ascend and do not overlap."""

    def __init__(self, spans: Iterator[_Span] | tuple[()]) -> None:
        self.digests: dict[str | None, str] = {}
        self._spans = iter(spans)
        self._span = next(self._spans, None)
        self._digest = hashlib.sha256()
        self._position = 0

    def update(self, block: memoryview) -> None:
        """Takes the next bytes of the stream."""
        start = self._position
        self._position += len(block)
        while self._span is not None and self._span.begin <= self._position:
            self._digest.update(block[max(0, self._span.begin - start) : self._span.end - start])
            if self._span.end > self._position:
                return
            self.digests[self._span.name] = self._digest.hexdigest()
            self._span, self._digest = next(self._spans, None), hashlib.sha256()
