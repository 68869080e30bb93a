"""Repositories on the Hub: what they hold at one commit, their bytes, and the Hub's cache."""

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import (
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
    logging,
)

import dus_cli
from dus_cli.errors import CheckpointError, SourceLostError
from dus_cli.format.folder import patterns_left_out
from dus_cli.printable import quoted
from dus_cli.sources.hub_errors import (
    WHO_ELSE,
    Remark,
    hub_errors,
    is_passing,
    patiently,
    pause,
    transport_error,
)
from dus_cli.sources.names import HubName, is_id

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MAX_FILES: Final = 100_000
_MAX_PATH: Final = 1024
_MAX_SKIP: Final = 1 << 20
"""Bytes that are rather read and thrown away than asked for anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the Hub is asked: by whom, from which cache, and who is told what takes long.

    None means what users of `hf` have set: HF_TOKEN or the stored login, HF_HUB_CACHE.
    """

    token: str | None = None
    cache_dir: Path | None = None
    remark: Remark = lambda text: None


@dataclass(slots=True)
class Traffic:
    """What has been fetched so far: requests made, redirects counted too, and bytes of answers."""

    requests: int = 0
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *, requests: int = 0, received: int = 0) -> None:
        """Adds to the figures, from whichever thread."""
        with self._lock:
            self.requests += requests
            self.received += received


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a repository: size in bytes, and the digest that the Hub knows it by.

    That is the SHA-256 of its content (`sha256`) where it is stored with LFS, else git's SHA-1.
    """

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    def hasher(self) -> tuple[Any, str] | None:
        """A hash over the content to come and what it has to be in the end."""
        if self.sha256 is not None:
            return hashlib.sha256(), self.sha256
        if self.git_sha1 is not None:
            start = f"blob {self.size}\0".encode("ascii")
            return hashlib.sha1(start, usedforsecurity=False), self.git_sha1
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A model repository at one commit, which is what `revision` (a branch, say) means now."""

    name: str
    revision: str
    commit: str
    files: Mapping[str, RemoteFile]
    access: Access
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def snapshot(self) -> Path:
        """Where the Hub's cache keeps, or would keep, the files of this commit."""
        return _snapshot(self.access, self.name, self.commit)

    def cached(self, path: str) -> Path | None:
        """The file in the Hub's cache, where it lies there whole."""
        found = try_to_load_from_cache(
            self.name, path, cache_dir=self.access.cache_dir, revision=self.commit
        )
        if not isinstance(found, str):
            return None
        file = Path(found)
        return file if file.stat().st_size == self.files[path].size else None

    def read(self, path: str, begin: int, end: int) -> bytes:
        """Bytes `begin` to `end` (half-open) of a file; raises CheckpointError."""
        content = bytearray(end - begin)
        with ByteStream(self, path) as stream:
            stream.end = end
            stream.read_into(begin, memoryview(content))
        return bytes(content)


def open_repository(name: HubName, access: Access) -> Repository:
    """What the Hub has under `name`, under the name it bears now if it was renamed.

    Raises RequestError where there is no such repository or revision, CheckpointError where the
    Hub refuses, cannot be reached, or answers nonsense.
    """
    quiet()
    traffic = Traffic()
    api = HfApi(token=access.token, library_name="dus", library_version=dus_cli.__version__)
    with hub_errors(name.repository):
        info = patiently(
            lambda: api.model_info(
                name.repository,
                revision=name.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            ),
            access.remark,
        )
    traffic.count(requests=1)
    siblings = info.siblings or ()
    called = info.id if isinstance(info.id, str) and is_id(info.id) else name.repository
    if info.sha is None or not _COMMIT.fullmatch(info.sha) or len(siblings) > _MAX_FILES:
        raise CheckpointError(
            f"{name.repository}: the Hub's answer about it makes no sense", hint=WHO_ELSE
        )
    return Repository(
        name=called,
        revision=name.revision or constants.DEFAULT_REVISION,
        commit=info.sha,
        files={file.path: file for file in map(_remote_file, siblings)},
        access=access,
        traffic=traffic,
    )


def cached_snapshot(name: HubName, access: Access) -> Path | None:
    """The folder in the Hub's cache that `name` meant when it was last downloaded, for want of
    anything newer; None where there is none, or files are known to lack that would go along.

    Whether the weights are all there is for whoever opens it to see.
    """
    try:
        found = snapshot_download(
            name.repository,
            revision=name.revision,
            # `download` does not fetch them, and the client would miss them.
            ignore_patterns=patterns_left_out(),
            cache_dir=access.cache_dir,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def download(repository: Repository, paths: list[str], *, progress: bool) -> Path:
    """The folder in the Hub's cache with the files at `paths`; fetches those that are not there.

    What an earlier run has begun is taken up. Raises CheckpointError.
    """
    from glob import escape

    from huggingface_hub.utils import enable_progress_bars

    if progress:
        enable_progress_bars()
    with hub_errors(repository.name), contextlib.ExitStack() as ended:
        ended.callback(disable_progress_bars)

        def fetch(wanted: list[str], *, anew: bool) -> Path:
            folder = patiently(
                lambda: snapshot_download(
                    repository.name,
                    revision=repository.commit,
                    allow_patterns=[escape(path) for path in wanted],
                    force_download=anew,
                    cache_dir=repository.access.cache_dir,
                    token=repository.access.token,
                    library_name="dus",
                    library_version=dus_cli.__version__,
                ),
                repository.access.remark,
            )
            return Path(folder)

        folder = fetch(paths, anew=False)
        # The client keeps a file that was cut short for ever, and no run would get beyond it.
        damaged = [path for path in paths if repository.cached(path) is None]
        if damaged:
            fetch(damaged, anew=True)
        _remember(repository)
    return folder


def _remember(repository: Repository) -> None:
    """Notes in the cache which commit the revision means, for runs without the Hub; the client
    does so only where it was not told the commit."""
    # git has no such names, so they are nothing that the Hub should have known.
    sound = ".." not in repository.revision and not repository.revision.startswith("/")
    if sound and repository.revision != repository.commit:
        note = repository.snapshot.parent.parent / "refs" / repository.revision
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(repository.commit, encoding="ascii")


class ByteStream:
    """The bytes of one remote file, in ascending order, over as few connections as can be.

    A connection that breaks is taken up where it broke. When all bytes have passed by, they are
    compared with the digest that the Hub states. `end` may be lowered to what is wanted.
    """

    def __init__(self, repository: Repository, path: str, *, head: bytes = b"") -> None:
        """`head` is what is known of the file's first bytes; it is not fetched again."""
        self._repository = repository
        self._file = repository.files[path]
        self.end = self._file.size
        self._position = len(head)
        self._connection = ExitStack()
        self._chunks: Iterator[bytes] | None = None
        self._rest = memoryview(b"")
        self._digest = self._file.hasher()
        if self._digest is not None:
            self._digest[0].update(head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._chunks is not None and self._position == self.end:
            # Read to its end an answer leaves its connection open for the next request.
            with contextlib.suppress(transport_error()):
                next(self._chunks, None)
        self._connection.close()

    def read_into(self, begin: int, view: memoryview) -> None:
        """Fills `view` with the bytes from offset `begin` on, which may not lie behind.

        Raises SourceLostError when they cannot be had, CheckpointError when the whole is not what
        the Hub states.
        """
        self._go_to(begin)
        failures, done = 0, 0
        while done < len(view):
            try:
                count = self._next(view[done:])
            except Exception as error:
                with hub_errors(self._repository.name, raised=SourceLostError):
                    if not is_passing(error):
                        raise
                    failures += 1
                    self._disconnect()
                    pause(error, failures, self._repository.access.remark)
                continue
            if not count:
                failures += 1
                self._disconnect()
                if failures > 1:
                    raise SourceLostError(
                        f"{self._repository.name}/{self._file.path}: the Hub's answers end before "
                        f"byte {self.end}",
                        hint="Try again later; the same command goes on where it stopped.",
                    )
                continue
            failures, done = 0, done + count
        if self._position == self._file.size:
            self._check_digest()

    def _next(self, view: memoryview) -> int:
        """Puts the next bytes that there are into `view`; returns how many, 0 at the end."""
        if not self._rest:
            if self._chunks is None:
                self._chunks = self._connect()
            self._rest = memoryview(next(self._chunks, b""))
            self._repository.traffic.count(received=len(self._rest))
        count = min(len(self._rest), len(view))
        view[:count] = self._rest[:count]
        if self._digest is not None:
            self._digest[0].update(self._rest[:count])
        self._rest = self._rest[count:]
        self._position += count
        return count

    def _connect(self) -> Iterator[bytes]:
        repository, begin = self._repository, self._position
        url = hf_hub_url(repository.name, self._file.path, revision=repository.commit)
        headers = build_hf_headers(
            token=repository.access.token,
            library_name="dus",
            library_version=dus_cli.__version__,
        )
        headers |= {"Range": f"bytes={begin}-{self.end - 1}", "Accept-Encoding": "identity"}
        response = self._connection.enter_context(
            get_session().stream(
                "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
            )
        )
        repository.traffic.count(requests=1 + len(response.history))
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        whole = begin == 0 and response.status_code == 200
        span = response.headers.get("Content-Range", "")
        if not whole and (response.status_code != 206 or not span.startswith(f"bytes {begin}-")):
            raise SourceLostError(
                f"{repository.name}/{self._file.path}: the server does not answer for a part of "
                f"the file (status {response.status_code})",
                hint="A proxy may be in between; without --stream whole files are downloaded.",
            )
        chunks: Iterator[bytes] = response.iter_raw()
        return chunks

    def _disconnect(self) -> None:
        self._connection.close()
        self._chunks, self._rest = None, memoryview(b"")

    def _go_to(self, begin: int) -> None:
        if begin == self._position:
            return
        if 0 < begin - self._position <= _MAX_SKIP:
            self.read_into(self._position, memoryview(bytearray(begin - self._position)))
            return
        self._disconnect()
        self._position, self._digest = begin, None

    def _check_digest(self) -> None:
        if self._digest is None:
            return
        digest, due = self._digest
        if digest.hexdigest() != due:
            raise CheckpointError(
                f"{self._repository.name}/{self._file.path}: its bytes are not those that the Hub "
                f"states (digest {digest.hexdigest()[:12]}…, due {due[:12]}…)",
                hint="They were damaged on the way; try again.",
            )


class CachedStream:
    """The bytes of a file that lies in the Hub's cache."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_into(self, begin: int, view: memoryview) -> None:
        """Fills `view` with the bytes from offset `begin` on; raises CheckpointError."""
        try:
            self._file.seek(begin)
            while view:
                count = self._file.readinto(view)
                if not count:
                    raise CheckpointError(f"{self._file.name}: became shorter while it was read")
                view = view[count:]
        except OSError as error:
            raise CheckpointError(f"{self._file.name}: cannot be read: {error.strerror}") from None


def _remote_file(sibling: Any) -> RemoteFile:
    """A file as the Hub describes it, if it is one that can safely be made here."""
    path, size = sibling.rfilename, sibling.size
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    sound = parts and len(path) <= _MAX_PATH and "\\" not in path and "/".join(parts) == path
    if not sound or {"..", "."} & {*parts} or path.startswith("/") or not path.isprintable():
        raise CheckpointError(f"the Hub names a file {quoted(path)}, which is no path to use here")
    if type(size) is not int or not 0 <= size < 1 << 62:
        raise CheckpointError(f"the Hub states no size of {quoted(path)} that makes sense")
    return RemoteFile(
        path=path,
        size=size,
        sha256=sibling.lfs.sha256 if sibling.lfs is not None else None,
        git_sha1=sibling.blob_id if sibling.lfs is None else None,
    )


def _snapshot(access: Access, name: str, commit: str) -> Path:
    cache = access.cache_dir or Path(constants.HF_HUB_CACHE)
    return cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit


def quiet() -> None:
    """What the client would print and log itself is said by `dus`."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    disable_progress_bars()
