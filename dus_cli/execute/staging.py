"""The folder beside the target in which a checkpoint grows until it is renamed.

    .NAME.dus-staging/state.json     what is being made, from which source
    .NAME.dus-staging/checkpoint/    becomes NAME in one rename

A file there bears its own name only when it is complete and on the disk; before that it ends in
`.dus-partial`. So whatever stops a run, the next one knows what it may keep.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Final

from dus_cli.errors import OutputError
from dus_cli.format.strict_json import Json

_STATE: Final = "state.json"
_PARTIAL: Final = ".dus-partial"
_CHECKPOINT_MARKS: Final = ("config.json", "dus.json")

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


class Staging:
    """One run's staging folder; made by `open_staging`, which holds its lock."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.dus-staging")
        self.payload = self.folder / "checkpoint"

    def resume_or_clear(self, state: dict[str, Json]) -> None:
        """Keeps what an earlier run with the same `state` finished; throws away anything else.

        The state holds the payload folder's inode number too: a run killed right after it has
        exchanged the payload with an old checkpoint leaves that old one in the payload's place.
        """
        kept = self.payload.is_dir() and self._read_state() == self._with_inode(state)
        if not kept:
            shutil.rmtree(self.payload, ignore_errors=True)
            self.payload.mkdir()
            content = json.dumps(self._with_inode(state)).encode("ascii")
            write_durably(self.folder / _STATE, content)

    def keep_only(self, paths: Set[str]) -> None:
        """Removes every file but the finished ones at `paths`, relative to the payload."""
        for file in self.payload.rglob("*"):
            if file.is_file() and file.relative_to(self.payload).as_posix() not in paths:
                file.unlink()

    def has(self, path: str, size: int) -> bool:
        """Whether an earlier run finished the file `path` of `size` bytes."""
        finished = self.payload / path
        return finished.is_file() and finished.stat().st_size == size

    def discard(self) -> None:
        """Throws away all files, finished or not, so that the next run starts anew."""
        shutil.rmtree(self.payload, ignore_errors=True)

    def has_anything(self) -> bool:
        """Whether there is a file, finished or not, that a later run could make use of."""
        return any(path.is_file() for path in self.payload.rglob("*"))

    def begin(self, path: str, size: int) -> Path:
        """An unfinished file of `size` bytes, all of them still to be written."""
        partial = self.payload / (path + _PARTIAL)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.truncate(size)
        return partial

    def finish(self, path: str) -> None:
        """Makes an unfinished file a finished one, once its bytes are on the disk."""
        partial = self.payload / (path + _PARTIAL)
        _sync(partial)
        os.replace(partial, self.payload / path)

    def commit(self, *, replace: bool) -> None:
        """Puts the finished checkpoint in the target's place: one rename, or with `replace` one
        exchange with the old checkpoint, which is removed afterwards."""
        for folder, _, _ in os.walk(self.payload):
            _sync(Path(folder))
        if replace and os.path.lexists(self.target):
            _exchange(self.payload, self.target)
        else:
            os.rename(self.payload, self.target)
        _sync(self.target.parent)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _with_inode(self, state: dict[str, Json]) -> dict[str, Json]:
        return {**state, "inode": self.payload.stat().st_ino}

    def _read_state(self) -> Json:
        try:
            return json.loads((self.folder / _STATE).read_bytes())
        except (OSError, ValueError):
            return None


@contextlib.contextmanager
def open_staging(target: Path) -> Iterator[Staging]:
    """The staging folder for `target`, made if need be and locked against other runs.

    It stays behind when the run fails, for the next one to go on from, unless it is empty.
    Raises OutputError when it cannot be made or another run holds it.
    """
    staging = Staging(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target.parent}: cannot be written to: {error.strerror}",
            hint="Choose another place with -o.",
        ) from None
    lock = _lock(staging.folder)
    try:
        yield staging
    finally:
        if not staging.has_anything():
            shutil.rmtree(staging.folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def check_replaceable(target: Path, *, force: bool) -> None:
    """Raises OutputError unless `target` is free, or may be replaced."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise OutputError(f"{target}: exists and is not a folder", hint="Choose another -o.")
    names = os.listdir(target)
    if not names:
        return
    if not force:
        raise OutputError(
            f"{target}: exists already", hint="Choose another -o, or replace it with --force."
        )
    if not any(name in _CHECKPOINT_MARKS or name.endswith(".safetensors") for name in names):
        raise OutputError(
            f"{target}: is not a checkpoint, so --force does not remove it",
            hint="Choose another -o, or remove the folder yourself.",
        )


def write_durably(path: Path, content: bytes) -> None:
    """Writes a small file so that it is there whole or not at all."""
    partial = path.with_name(path.name + _PARTIAL)
    partial.write_bytes(content)
    _sync(partial)
    os.replace(partial, path)


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot sync a folder; NTFS journals names by itself.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None  # Windows: two runs into one target at a time are not caught there.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(
            f"{folder}: another dus is writing there", hint="Wait for it, or choose another -o."
        ) from None
    return descriptor


def _exchange(new: Path, old: Path) -> None:
    """Swaps two folders, in one step where the system can (Linux), so that `old` never lacks."""
    renameat2 = (
        getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if (os.name == "posix")
        else None
    )
    if renameat2 is not None:
        done = renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
        if done == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(old))
    # Without an exchange there is a moment with the old one aside and the new one not yet there.
    aside = new.with_name("replaced")
    os.rename(old, aside)
    os.rename(new, old)
