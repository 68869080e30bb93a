"""Carrying out a plan: every byte range moved once, the target there whole or not at all."""

import errno
import functools
import hashlib
import os
import queue
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dus_cli.errors import CheckpointError, DusError, OutputError, SourceLostError
from dus_cli.execute.copy import Piece, PieceCopier, Place, Read, cut, merge, read_file, share
from dus_cli.execute.staging import Staging, check_replaceable, open_staging, write_durably
from dus_cli.plan import CopySpan, Plan

WORKERS: Final = 4
"""Writers at a time: what keeps one local disk busy; see docs/benchmarks.md."""

Progress = Callable[[int], None]
"""Called with the number of bytes that have been written since the last call."""


class SequentialSource(Protocol):
    """A source file whose bytes come in ascending order, from somewhere else than the disk."""

    def read_into(self, begin: int, view: memoryview) -> None:
        """Fills `view` with the bytes from offset `begin` on; raises CheckpointError.

        If that is no SourceLostError, no byte that the file gave before is good.
        """


Streams = Callable[[str], AbstractContextManager[SequentialSource] | None]
"""How to get the bytes of a source file that does not lie on the disk; None for one that does."""


class Delivery(Protocol):
    """Takes the result somewhere else than the disk, file by file."""

    def take(self, path: Path, name: str) -> None:
        """Takes a finished file; afterwards only its size and header need stay."""

    def complete(self, folder: Path) -> None:
        """Takes what is left and makes the whole appear where it belongs, at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file to be made: its first bytes, and spans of source files that fill the rest."""

    path: str
    size: int
    head: bytes
    spans: tuple[CopySpan, ...]


def output_files(plan: Plan, documents: Mapping[str, bytes]) -> tuple[OutputFile, ...]:
    """All files of the new checkpoint: shards, carried files, and those written anew."""
    return (
        *(
            OutputFile(path=shard.name, size=shard.size, head=shard.header, spans=shard.spans)
            for shard in plan.shards
        ),
        *(
            OutputFile(
                path=file.path,
                size=file.size,
                head=b"",
                spans=(CopySpan(source=file.path, begin=0, end=file.size, target=0),),
            )
            for file in plan.carried_files
        ),
        *(
            OutputFile(path=name, size=len(content), head=content, spans=())
            for name, content in documents.items()
        ),
    )


def check_places(source: Path, target: Path, *, force: bool) -> None:
    """Raises OutputError when source and target overlap, or the target must not be replaced."""
    check_replaceable(target, force=force)
    # Not Path.resolve, which raises where a link leads to itself.
    real_source, real_target = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if _is_inside(real_target, source) or _is_inside(real_source, target):
        raise OutputError(
            f"{target}: source and target overlap (source: {source})",
            hint="Choose a target outside the source with -o.",
        )
    if os.path.lexists(target):
        for path in source.rglob("*"):
            if path.is_symlink() and _is_inside(Path(os.path.realpath(path)), target):
                raise OutputError(
                    f"{target}: the source links to it ({path.name}), so it cannot be replaced"
                )


def free_bytes(target: Path) -> int:
    """Bytes free where `target` is to be."""
    return shutil.disk_usage(_existing(target)).free


def execute(
    plan: Plan,
    source: Path,
    target: Path,
    documents: Mapping[str, bytes],
    *,
    force: bool = False,
    progress: Progress = lambda count: None,
    check: Callable[[Path], Mapping[str, bytes]] = lambda folder: {},
    streams: Streams = lambda name: None,
    delivery: Delivery | None = None,
    workers: int = WORKERS,
    direct: bool = True,
) -> int:
    """Makes the checkpoint that `plan` describes at `target`; takes up an interrupted run.

    Returns how many bytes it wrote; files that an earlier run had finished are not counted.
    `check` is called with the folder that holds the complete result before it takes the target's
    place; it raises what speaks against that, and returns files to be added (name -> content).
    `streams` gives source files whose bytes are elsewhere; `source` then holds their headers. With
    a `delivery` the result goes there, and nothing is left at `target`.

    Raises OutputError when the target may not or cannot be written, CheckpointError when the
    source is not, or ceases to be, the one that was planned for. The target then does not exist,
    or is still the old one. `direct=False` forces the portable way of copying.
    """
    check_places(source, target, force=force)
    files = output_files(plan, documents)
    with open_staging(target) as staging:
        try:
            before = _source_state(plan, source)
            if delivery is not None:
                staging.discard()  # Of a run that was killed: holes, not finished files.
            staging.resume_or_clear({"files": _digest(files), "source": before})
            staging.keep_only({file.path for file in files})
            unfinished = [file for file in files if not staging.has(file.path, file.size)]
            to_write = sum(file.size for file in unfinished)
            progress(sum(file.size for file in files) - to_write)
            _check_space(target, unfinished, source, staging, delivered=delivery is not None)
            writer = _Writer(source, staging, progress, delivery, direct=direct)
            writer.run(unfinished, streams, workers)
            if _source_state(plan, source) != before:
                raise CheckpointError(f"{source}: changed while it was copied; nothing was made")
            for name, content in _checked(staging, check).items():
                write_durably(staging.payload / name, content)
            if delivery is not None:
                delivery.complete(staging.payload)
            else:
                staging.commit(replace=force)
            return to_write
        except SourceLostError:
            raise
        except CheckpointError:
            # What was copied may be of either state of the source, and a source that is put back
            # with its old time of change would look like the one that was begun with.
            staging.discard()
            raise
        except OSError as error:
            kept = None if delivery is not None else staging.folder.name
            raise _output_error(error, target, kept) from error
        finally:
            if delivery is not None:
                staging.discard()  # What was delivered is a hole here, not a finished file.


def _checked(staging: Staging, check: Callable[[Path], Mapping[str, bytes]]) -> Mapping[str, bytes]:
    """What `check` returns; a result that it refuses is not kept, or no run would ever make
    another one."""
    try:
        return check(staging.payload)
    except OutputError:
        staging.discard()
        raise


def _digest(files: Sequence[OutputFile]) -> str:
    """SHA-256 over all that is to be written, source bytes represented by their spans."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(repr((file.path, file.size, file.head, file.spans)).encode())
    return digest.hexdigest()


def _source_state(plan: Plan, source: Path) -> dict[str, list[int]]:
    """Size and time of change (ns) of every source file; checks that the shards' headers are
    still those of the plan."""
    state: dict[str, list[int]] = {}
    for name in (*(s.name for s in plan.source_shards), *(f.path for f in plan.carried_files)):
        try:
            status = os.stat(source / name)
        except OSError as error:
            raise CheckpointError(f"{name}: cannot be read: {error.strerror}") from None
        state[name] = [status.st_size, status.st_mtime_ns]
    for shard in plan.source_shards:
        with open(source / shard.name, "rb") as file:
            head = file.read(shard.header.data_start)
        if (
            state[shard.name][0] != shard.size
            or hashlib.sha256(head).hexdigest() != shard.header_sha256
        ):
            raise CheckpointError(f"{shard.name}: is not the file that was planned for")
    return state


Job = Callable[[PieceCopier], None]
"""Some copying that one worker does."""


class _Writer:
    """Fills unfinished files, in the order of the source's bytes.

    A source range that goes to several places is read once. A file is finished by whichever
    worker writes its last byte.
    """

    def __init__(
        self,
        source: Path,
        staging: Staging,
        progress: Progress,
        delivery: Delivery | None,
        *,
        direct: bool,
    ) -> None:
        self._source = source
        self._staging = staging
        self._progress = progress
        self._delivery = delivery
        self._direct = direct
        self._lock = threading.Lock()
        self._jobs_lock = threading.Lock()
        self._stop = threading.Event()
        self._files: dict[Path, OutputFile] = {}
        self._missing: dict[Path, int] = {}
        """What each unfinished file still lacks: bytes, and streams that are not at their end.

        A stream may tell at its end that its bytes were wrong.
        """

    def run(self, files: Sequence[OutputFile], streams: Streams, workers: int) -> None:
        """Writes all files; raises the first error of any worker, after all have stopped."""
        wanted: dict[str, list[Piece]] = {}
        for file in files:
            partial = self._begin(file)
            for span in file.spans:
                place = Place(partial, span.target)
                piece = Piece(self._source / span.source, span.begin, span.end, (place,))
                wanted.setdefault(span.source, []).append(piece)
        self._work_in_parallel(self._jobs(wanted, streams), workers)

    def _jobs(self, wanted: Mapping[str, list[Piece]], streams: Streams) -> Iterator[Job]:
        """A stream is one worker's from its beginning to its end; of a file everybody takes."""
        for name, pieces in wanted.items():
            stream = streams(name)
            if stream is None:
                left = [part for piece in pieces for part in self._shared(piece)]
                yield from (
                    functools.partial(self._copy, part)
                    for piece in merge(left)
                    for part in cut(piece)
                )
            else:
                with self._lock:
                    self._missing.update({path: self._missing[path] + 1 for path in _paths(pieces)})
                yield functools.partial(self._copy_stream, stream, pieces)

    def _shared(self, piece: Piece) -> tuple[Piece, ...]:
        """What is left of a piece once the file system has shared what it can."""
        left = share(piece)
        shared = piece.end - piece.begin - sum(part.end - part.begin for part in left)
        self._written(piece.places[0].path, shared)
        return left

    def _copy(self, piece: Piece, copier: PieceCopier) -> None:
        self._copy_by(read_file, piece, copier)

    def _copy_stream(
        self,
        stream: AbstractContextManager[SequentialSource],
        pieces: Sequence[Piece],
        copier: PieceCopier,
    ) -> None:
        with stream as source:
            for piece in (part for merged in merge(pieces) for part in cut(merged)):
                if self._stop.is_set():
                    return
                self._copy_by(
                    lambda piece, into: source.read_into(piece.begin, into), piece, copier
                )
        for path in _paths(pieces):
            self._settle(path, 1)

    def _copy_by(self, read: Read, piece: Piece, copier: PieceCopier) -> None:
        copier.copy(piece, read)
        for place in piece.places:
            self._written(place.path, piece.end - piece.begin)

    def _begin(self, file: OutputFile) -> Path:
        partial = self._staging.begin(file.path, file.size)
        self._files[partial], self._missing[partial] = file, file.size
        with open(partial, "r+b") as handle:
            handle.write(file.head)
        self._written(partial, len(file.head))
        return partial

    def _written(self, partial: Path, count: int) -> None:
        """Takes note that `count` more bytes of a file are there."""
        self._progress(count)
        self._settle(partial, count)

    def _settle(self, partial: Path, count: int) -> None:
        """Takes `count` from what a file lacks, and finishes it if that was all."""
        with self._lock:
            self._missing[partial] -= count
            complete = self._files.pop(partial, None) if not self._missing[partial] else None
        if complete is None:
            return
        if self._delivery is not None:
            self._delivery.take(partial, complete.path)
        self._staging.finish(complete.path)

    def _work_in_parallel(self, jobs: Iterator[Job], workers: int) -> None:
        results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._work, args=(jobs, results)) for _ in range(workers)
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                error = results.get()
                if error is not None:
                    raise error
        finally:
            self._stop.set()
            for thread in threads:
                if thread.ident is not None:  # It was started.
                    thread.join()

    def _work(
        self,
        jobs: Iterator[Job],
        results: "queue.SimpleQueue[BaseException | None]",
    ) -> None:
        try:
            copier = PieceCopier(direct=self._direct)
            while not self._stop.is_set():
                with self._jobs_lock:
                    job = next(jobs, None)
                if job is None:
                    break
                job(copier)
            results.put(None)
        except BaseException as error:  # handed to the thread that waits, which raises it
            results.put(error)


def _paths(pieces: Sequence[Piece]) -> set[Path]:
    """The files that the pieces go to."""
    return {place.path for piece in pieces for place in piece.places}


def _check_space(
    target: Path,
    files: Sequence[OutputFile],
    source: Path,
    staging: Staging,
    *,
    delivered: bool,
) -> None:
    needed = _largest_share(files) if delivered else sum(file.size for file in files)
    free = free_bytes(target)
    if needed <= free or _shares_blocks(source, files, staging):
        return
    raise OutputError(
        f"{target.parent}: {needed:,} bytes are needed, {free:,} are free",
        hint="Free some space, or choose another place with -o.",
    )


def _largest_share(files: Sequence[OutputFile]) -> int:
    """The most bytes that lie on the disk at a time when each file leaves once it is finished."""
    by_source: Counter[str] = Counter()
    for file in files:
        by_source.update(dict.fromkeys((span.source for span in file.spans), file.size))
    return max(by_source.values(), default=0)


def _shares_blocks(source: Path, files: Sequence[OutputFile], staging: Staging) -> bool:
    """Whether the file system can let source and target share blocks, tried on one file."""
    try:
        import fcntl
    except ImportError:
        return False
    clone = 0x40049409  # FICLONE of linux/fs.h
    name = next((span.source for file in files for span in file.spans), None)
    if name is None:
        return False
    probe = staging.folder / "probe"
    try:
        with open(source / name, "rb") as original, open(probe, "wb") as copy:
            fcntl.ioctl(copy.fileno(), clone, original.fileno())
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def _output_error(error: OSError, target: Path, kept: str | None) -> DusError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = f"What is finished waits in {kept}; the same command goes on there."
    return OutputError(
        f"{target}: {'the disk is full' if full else error.strerror or error}",
        hint=hint if kept else "Nothing was kept; choose another place to work in with -o.",
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `folder` is `path` or one of the folders around it, by identity, not by name."""
    try:
        wanted = os.stat(folder)
    except OSError:
        return False
    for place in (path, *path.parents):
        try:
            if os.path.samestat(os.stat(place), wanted):
                return True
        except OSError:
            continue
    return False
