"""Repositories, accounts and the storage below them: what the server knows, without HTTP."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

GIB: Final = 2**30
CREATED: Final = "2026-01-01T00:00:00.000Z"

LFS_SUFFIXES: Final = frozenset(
    ".7z .arrow .bin .bz2 .ckpt .gguf .gz .h5 .joblib .model .msgpack .npy .npz .onnx .parquet"
    " .pb .pickle .pkl .pt .pth .rar .safetensors .tar .tflite .tgz .xz .zip .zst".split()
)
"""What the .gitattributes of a new repository puts into large file storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """To whom a token belongs. It owns what lies below its name or below an org of its own."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"
    """`read` or `write`: what the token may do."""
    expired: bool = False

    def owns(self, repo: str) -> bool:
        return repo.partition("/")[0] in (self.name, *self.orgs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """The content of a file in a repository: a file on disk that is served as it is.

    `stated_sha256` is what the server says instead of the true SHA-256: for files too large to
    be hashed in a test, and for content that is not what its hash says.
    """

    path: Path
    size: int
    lfs: bool
    stated_sha256: str | None = None

    @property
    def sha256(self) -> str:
        return self.stated_sha256 or digest_of("sha256", self.path)

    @property
    def pointer(self) -> bytes:
        """What git holds of a file in large file storage."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size}\n"
        ).encode()

    @property
    def oid(self) -> str:
        """The SHA-1 that git gives the file, or its pointer."""
        content = self.pointer if self.lfs else self.path.read_bytes()
        return git_oid(content)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


def git_oid(content: bytes) -> str:
    sha1 = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    sha1.update(content)
    return sha1.hexdigest()


def digest_of(algorithm: str, path: Path) -> str:
    """The digest of a file, computed once for each state of it."""
    status = path.stat()
    return _digest_of(algorithm, path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4096)
def _digest_of(algorithm: str, path: Path, _state: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A state of a repository's files."""

    oid: str
    title: str
    message: str
    author: str
    parent: str | None
    files: Mapping[str, Blob]


@dataclass(slots=True, kw_only=True)
class Repository:
    """A model repository: commits, and the branches, tags and pull requests that name them."""

    id: str
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    """Names of accounts that may read a gated repository although they do not own it."""
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    """`refs/pr/1` and so on, to commits."""
    titles: dict[str, str] = field(default_factory=dict)
    """Of the pull requests."""
    objects: dict[str, Path] = field(default_factory=dict)
    """Large files that were uploaded and verified, by SHA-256, whether committed or not."""

    @property
    def sha(self) -> str:
        """The commit of the branch `main`."""
        return self.branches["main"]

    @property
    def files(self) -> Mapping[str, Blob]:
        """The files of the branch `main`."""
        return self.commits[self.sha].files

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, pull request or full commit id names."""
        oid = (
            self.branches.get(revision)
            or self.branches.get(revision.removeprefix("refs/heads/"))
            or self.tags.get(revision)
            or self.pulls.get(revision)
            or revision
        )
        return self.commits.get(oid)

    def find_object(self, sha256: str, size: int | None) -> Blob | None:
        """A large file that is here, committed or uploaded and verified."""
        if sha256 in self.objects:
            path = self.objects[sha256]
            return Blob(path=path, size=path.stat().st_size, lfs=True, stated_sha256=sha256)
        committed = (blob for commit in self.commits.values() for blob in commit.files.values())
        return next(
            (
                blob
                for blob in committed
                # By size first: to know a hash may mean to read gigabytes.
                if blob.lfs and size in (None, blob.size) and blob.sha256 == sha256
            ),
            None,
        )

    def history(self, commit: Commit) -> list[Commit]:
        commits = [commit]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def append(
        self, ref: str, files: Mapping[str, Blob], *, title: str, message: str = "", author: str
    ) -> Commit:
        """A new commit with these files on the branch or pull request `ref`."""
        refs = self.pulls if ref.startswith("refs/pr/") else self.branches
        parent = refs.get(ref)
        # Hashing what the files hold would mean reading gigabytes; the number of the commit is
        # enough to make its id unique.
        listing = [self.id, ref, parent, len(self.commits), title, sorted(files)]
        oid = hashlib.sha1(repr(listing).encode(), usedforsecurity=False).hexdigest()
        commit = Commit(
            oid=oid, title=title, message=message, author=author, parent=parent, files=dict(files)
        )
        self.commits[oid] = commit
        refs[ref] = oid
        return commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the server behaves, and from which sizes on; sizes are the real Hub's by default."""

    lfs_above: int = 10 * 2**20
    """Files of more bytes go to large file storage whatever they are called."""
    multipart_above: int = 5_000_000_000
    """Uploads of more bytes are sent in parts ..."""
    part_size: int = 16_000_000
    """... of so many bytes, but in no more than 10,000 of them."""
    page_size: int = 1000
    """Entries of a tree on one page; a twentieth of that with details."""
    resolve_cache: bool = False
    """Whether small files too are at another address, of the same origin, as since 2025."""
    link_seconds: int = 3600
    """How long the address of a large file is valid."""


@dataclass(slots=True, kw_only=True)
class PartedUpload:
    """A large file on its way in, in parts that are written to their places in one file."""

    path: Path
    part_size: int
    etags: dict[int, str] = field(default_factory=dict)
    """By part number, of those that came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A large file that came as a whole and was not verified yet."""

    path: Path
    sha256: str


class State:
    """All that the server knows. What changes it holds `lock`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, str] = {}
        self.tokens: dict[str, Account] = {}
        self.uploads: dict[str, PartedUpload] = {}
        """By id."""
        self.arrived: dict[tuple[str, str], Arrived] = {}
        """By repository and the SHA-256 that was announced."""
        self.hub_url = ""
        self.cdn_url = ""
        self._secret = secrets.token_bytes(16)

    def repository(self, name: str) -> Repository | None:
        """The repository that has or had this name."""
        return self.repositories.get(self.moved.get(name, name))

    def rename(self, old: str, new: str) -> None:
        with self.lock:
            repo = self.repositories.pop(old)
            repo.id = new
            self.repositories[new] = repo
            self.moved = {name: new if now == old else now for name, now in self.moved.items()}
            self.moved |= {old: new}
            self.moved.pop(new, None)

    def is_lfs(self, name: str, size: int) -> bool:
        return Path(name).suffix in LFS_SUFFIXES or size > self.settings.lfs_above

    def blob(self, name: str, content: bytes | Path, stated_sha256: str | None = None) -> Blob:
        """A blob of these bytes, which are put on disk, or of this file, which stays in place."""
        path = self.keep(content) if isinstance(content, bytes) else content.absolute()
        size = path.stat().st_size
        return Blob(path=path, size=size, lfs=self.is_lfs(name, size), stated_sha256=stated_sha256)

    def keep(self, content: bytes) -> Path:
        """A file with these bytes."""
        path = self.fresh_path()
        path.write_bytes(content)
        return path

    def fresh_path(self) -> Path:
        return self.folder / secrets.token_hex(16)

    def sign(self, path: str) -> str:
        """The query that makes `path` valid at the storage for some time."""
        expires = str(int(time.time()) + self.settings.link_seconds)
        return f"Expires={expires}&Signature={self._signature(path, expires)}"

    def is_signed(self, path: str, expires: str, signature: str) -> bool:
        good = hmac.compare_digest(signature, self._signature(path, expires))
        return good and int(expires) >= time.time()

    def expire_links(self) -> None:
        """From now on no address that was given before is valid."""
        self._secret = secrets.token_bytes(16)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path} {expires}".encode(), "sha256").hexdigest()
