"""Manifests of SHA-256 checksums: of all files of a checkpoint, and of all its tensors.

The part about files is what OpenSSF model signing puts into a signature (its `resources`: the same
files, the same order, the same words), so that the two can be compared.
"""

import os
import re
import stat
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dus_cli.errors import CheckpointError, FormatError
from dus_cli.findings import Finding, Report, reported
from dus_cli.format.checkpoint import Checkpoint, Shard
from dus_cli.format.files import read_small
from dus_cli.format.folder import CHECKSUMS
from dus_cli.format.index import is_plain_file_name
from dus_cli.format.strict_json import Json, dump_pretty, parse_object
from dus_cli.printable import quoted
from dus_cli.verify.digests import FileDigests, Progress, hash_files

CHECKSUMS_SCHEMA: Final = "dus-checksums/1"
NOT_COVERED: Final = frozenset(
    {
        # What model signing leaves out.
        ".git",
        ".gitattributes",
        ".github",
        ".gitignore",
        # What the Hub's client notes of a download.
        ".cache",
        # A file cannot hold its own digest, and a signature covers the manifest.
        CHECKSUMS,
        "model.sig",
    }
)
"""Files and folders, directly in the checkpoint, that checksums do not cover unless they list them.
"""

_MAX_MANIFEST_BYTES: Final = 32_000_000
"""The manifest of a checkpoint with 92,000 tensors, the most in the wild, holds 12 MB."""

_MAX_SIZE: Final = 2**63 - 1
_ALGORITHM: Final = "sha256"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FIELDS: Final = ("schema", "sizes", "resources", "tensors")
_RESOURCE_FIELDS: Final = frozenset({"name", "digest", "algorithm"})
_NO_MANIFEST: Final = "Give a file that 'dus verify --write-checksums' or 'dus upscale' has made."


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """A file's size in bytes, and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDigest:
    """The file that holds a tensor, and the SHA-256 of the tensor's bytes in hex."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksums:
    """What is known of a checkpoint: its files by POSIX path from the folder, its tensors by name.

    Every tensor's file is among the files.
    """

    files: Mapping[str, FileDigest]
    tensors: Mapping[str, TensorDigest]

    def to_json(self) -> dict[str, Json]:
        """The manifest as JSON values (docs/verify.md), the same for the same checkpoint."""
        paths = sorted(self.files, key=_path_order)
        tensors: dict[str, dict[str, str]] = {}
        for name, tensor in sorted(self.tensors.items()):
            tensors.setdefault(tensor.file, {})[name] = tensor.sha256
        return {
            "schema": CHECKSUMS_SCHEMA,
            "sizes": {path: self.files[path].size for path in paths},
            "resources": [
                {"name": path, "digest": self.files[path].sha256, "algorithm": _ALGORITHM}
                for path in paths
            ],
            "tensors": {path: tensors[path] for path in paths if path in tensors},
        }

    def to_bytes(self) -> bytes:
        """The manifest file's bytes."""
        return dump_pretty(self.to_json())


def compute_checksums(
    checkpoint: Checkpoint,
    *,
    progress: Progress = lambda count: None,
    exclude: Collection[str] = (),
) -> Checksums:
    """Reads all files of the checkpoint, but for those `NOT_COVERED` and `exclude`.

    `exclude` are POSIX paths from the checkpoint's folder. Links to files count as the files, links
    to folders are not followed.

    Raises CheckpointError when a file cannot be read, changes meanwhile, is not a regular one, or
    has a name that a manifest cannot hold, and when the checkpoint is not sound.
    """
    if checkpoint.unread_shards:
        raise _unsound(checkpoint.unread_shards[0])
    shards = {shard.name: shard for shard in checkpoint.shards}
    paths = _files(checkpoint, NOT_COVERED.union(exclude))
    for path in paths:
        if not _is_portable(path):
            raise CheckpointError(
                f"{path}: no manifest can hold this name",
                hint="Rename the file: to UTF-8 text without backslashes.",
            )
    files: dict[str, FileDigest] = {}
    tensors: dict[str, TensorDigest] = {}
    jobs = {path: shards.get(path) for path in paths}
    with closing(hash_files(checkpoint.folder, jobs, progress)) as results:
        for path, found in results:
            if isinstance(found, CheckpointError):
                raise found
            files[path] = FileDigest(size=found.size, sha256=found.sha256)
            shard = shards.get(path)
            if shard is None:
                continue
            header = shard.header
            if len(found.tensors) < len(header.tensors) + len(header.broken) or not (
                tensors.keys().isdisjoint(found.tensors)
            ):
                raise _unsound(path)
            for name, sha256 in found.tensors.items():
                tensors[name] = TensorDigest(file=path, sha256=sha256)
    return Checksums(files=files, tensors=tensors)


def load_checksums(path: Path) -> Checksums:
    """The manifest in the file `path`, checked in full.

    Raises CheckpointError when it cannot be read or is no manifest. Paths that lead out of the
    checkpoint's folder are refused, and none is ever opened: they are looked up among the files
    that are found there.
    """
    subject = str(path)
    try:
        raw = read_small(path, subject, limit=_MAX_MANIFEST_BYTES)
        return _parse(parse_object(raw, subject), subject)
    except CheckpointError as error:
        raise CheckpointError(error.message, hint=error.hint or _NO_MANIFEST) from None
    except MemoryError:
        raise CheckpointError(
            f"{subject}: takes more memory than there is", hint=_NO_MANIFEST
        ) from None


def compare_checksums(
    checkpoint: Checkpoint,
    checksums: Checksums,
    report: Report,
    *,
    progress: Progress = lambda count: None,
    exclude: Collection[str] = (),
) -> int:
    """Reports where files and tensors are not those of `checksums`; returns how much was read.

    Tensors are looked up by name, wherever they lie: where the checkpoint was sharded anew, the
    findings about files say whether its tensors are the same. `exclude` are files that are not
    listed on purpose, such as the manifest itself. A file given alone is compared alone.
    """
    if checkpoint.stands_alone:
        checksums = _of_file(checksums, _files(checkpoint, frozenset())[0])
    return _Comparison(checkpoint, checksums, report).run(exclude, progress)


def own_path(checkpoint: Checkpoint, manifest: Path) -> frozenset[str]:
    """The path of the file `manifest` in the checkpoint's folder, for `exclude`; none elsewhere."""
    folder = Path(os.path.realpath(checkpoint.folder))
    place = Path(os.path.realpath(manifest.parent)) / manifest.name
    return frozenset({place.relative_to(folder).as_posix()} if folder in place.parents else ())


class _Comparison:
    """A checkpoint beside the checksums that it should have."""

    def __init__(self, checkpoint: Checkpoint, checksums: Checksums, report: Report) -> None:
        self._checkpoint = checkpoint
        self._shards = {shard.name: shard for shard in checkpoint.shards}
        self._listed_files = checksums.files
        self._listed_tensors = checksums.tensors
        self._report = report
        self._present: dict[str, FileDigests] = {}
        """What was read of each file."""
        self._resized: dict[str, int] = {}
        """Sizes of files that were not read, because they cannot be the listed ones."""
        self._unreadable: set[str] = set()
        self._places: dict[str, str] = {}
        """Tensor -> a file that holds it."""

    def run(self, exclude: Collection[str], progress: Progress) -> int:
        listed = self._listed_files
        left_out = {
            path
            for path in NOT_COVERED.union(exclude)
            if not any(file == path or file.startswith(f"{path}/") for file in listed)
        }
        paths = _files(self._checkpoint, left_out)
        self._read([path for path in paths if path in listed or path in self._shards], progress)
        tensors: dict[str, list[str]] = {path: [] for path in listed}
        for name, tensor in self._listed_tensors.items():
            tensors[tensor.file].append(name)
        for path in sorted(listed, key=_path_order):
            if path in self._unreadable:
                continue
            if path in self._present and path in self._shards:
                self._compare_shard(path, tensors[path])
            else:
                self._compare_file(path, tensors[path])
        for path in paths:
            if path not in listed:
                self._report(
                    Finding(
                        code="checksum-unlisted",
                        file=path,
                        message="the checksums do not list this file",
                        hint="Remove it, or write the checksums anew if it belongs there.",
                    )
                )
        return sum(found.size for found in self._present.values())

    def _read(self, paths: list[str], progress: Progress) -> None:
        """Hashes all that is to be compared, but no plain file that has another size."""
        jobs: dict[str, Shard | None] = {}
        for path in paths:
            shard, size = self._shards.get(path), _size(self._checkpoint.folder / path)
            if shard is None and size is not None and size != self._listed_files[path].size:
                self._resized[path] = size
            else:
                jobs[path] = shard
        with closing(hash_files(self._checkpoint.folder, jobs, progress)) as results:
            for path, found in results:
                if isinstance(found, FileDigests):
                    self._present[path] = found
                    self._places.update(dict.fromkeys(found.tensors, path))
                    continue
                self._unreadable.add(path)
                with reported(self._report, path, broken="file-unreadable"):
                    raise found

    def _compare_shard(self, path: str, tensors: list[str]) -> None:
        """A listed file that is there and whose header could be read."""
        same = sum(self._compare_tensor(name, path) for name in tensors)
        for name in tensors:
            if self._place(name, path) is None:
                self._report_missing_tensor(name, path)
        more = [name for name in self._present[path].tensors if name not in self._listed_tensors]
        for name in more:
            self._report(
                Finding(
                    code="checksum-unlisted",
                    file=path,
                    tensor=name,
                    message=f"the checksums do not list the tensor {quoted(name)}",
                )
            )
        if same < len(tensors):
            tells = f"; {len(tensors) - same} of its {len(tensors)} tensors are not as listed"
        elif more:
            tells = f"; its {same} listed tensors are unchanged, but {len(more)} more are there"
        elif tensors:
            tells = f"; its {same} tensors are unchanged, so that only the header differs"
        else:
            tells = ""
        self._compare_digest(path, tells)

    def _compare_file(self, path: str, tensors: list[str]) -> None:
        """A listed file that is not there, or is no shard of the checkpoint (any more)."""
        same = sum(self._compare_tensor(name, path) for name in tensors)
        missing = [name for name in tensors if self._place(name, path) is None]
        if not tensors:
            tells = ""
        elif same == len(tensors):
            tells = f"; its {same} tensors are in other files, unchanged"
        elif len(missing) == len(tensors):
            tells = f"; no other file holds its {len(tensors)} tensors"
        else:
            tells = f"; of its {len(tensors)} tensors {same} are in other files, unchanged"
            for name in missing:
                self._report_missing_tensor(name, path)
        if path in self._present or path in self._resized:
            self._compare_digest(path, tells)
            return
        resharded = "The weights are as listed, only sharded otherwise: write the checksums anew."
        self._report(
            Finding(
                code="checksum-missing",
                file=path,
                message=f"is not there{tells}",
                hint=resharded if 0 < same == len(tensors) else "Fetch the file.",
            )
        )

    def _compare_digest(self, path: str, tells: str) -> None:
        """Reports a file whose digest differs; `tells` is what the message says of its tensors."""
        listed = self._listed_files[path]
        found = self._present.get(path)
        size = self._resized[path] if found is None else found.size
        if size != listed.size:
            fact = f"holds {size} bytes, but the checksums list {listed.size}"
        elif found is not None and found.sha256 != listed.sha256:
            fact = f"has the SHA-256 {found.sha256}, but the checksums list {listed.sha256}"
        else:
            return
        self._report(
            Finding(
                code="checksum-file",
                file=path,
                message=f"{fact}{tells}",
                hint="It is damaged or has been changed; fetch it again.",
            )
        )

    def _compare_tensor(self, name: str, path: str) -> bool:
        """Whether the tensor is there as listed for file `path`; reports it where it differs."""
        place, listed = self._place(name, path), self._listed_tensors[name].sha256
        if place is None or self._present[place].tensors[name] == listed:
            return place is not None
        self._report(
            Finding(
                code="checksum-tensor",
                file=place,
                tensor=name,
                message=f"tensor {quoted(name)} has the SHA-256 "
                f"{self._present[place].tensors[name]}, but the checksums list {listed}",
                hint=None if place == path else f"The checksums list it in {quoted(path)}.",
            )
        )
        return False

    def _place(self, name: str, path: str) -> str | None:
        """The file to take a tensor from that is listed for file `path`: that one, if it can be."""
        found = self._present.get(path)
        return path if found and name in found.tensors else self._places.get(name)

    def _report_missing_tensor(self, name: str, path: str) -> None:
        shard = self._shards.get(path)
        if shard and (name in shard.header.tensors or name in shard.header.broken):
            code, fact = "checksum-tensor", "has no bytes of its own, for the header is wrong"
        else:
            code, fact = "checksum-missing", "is in no file that can be read"
        self._report(
            Finding(code=code, file=path, tensor=name, message=f"tensor {quoted(name)} {fact}")
        )


def _files(checkpoint: Checkpoint, left_out: Collection[str]) -> list[str]:
    """POSIX paths of all files of a checkpoint, in the order of a manifest.

    `left_out` are files and folders to pass over. Raises CheckpointError when a folder cannot be
    listed.
    """
    if checkpoint.stands_alone:
        return [*(shard.name for shard in checkpoint.shards), *checkpoint.unread_shards]
    paths: list[str] = []
    # A list of folders still to visit instead of a recursion, which a deep tree could exhaust.
    folders = [""]
    while folders:
        above = folders.pop()
        try:
            with os.scandir(checkpoint.folder / above) as entries:
                for entry in entries:
                    path = above + entry.name
                    if path in left_out:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")
                    elif not os.path.isdir(entry.path):
                        paths.append(path)
        except OSError as error:
            raise CheckpointError(
                f"{above or checkpoint.folder}: cannot be listed: {error.strerror}"
            ) from None
    return sorted(paths, key=_path_order)


def _path_order(path: str) -> list[str]:
    """Folder by folder, as model signing sorts: `a/b` before `a.b`."""
    return path.split("/")


def _size(path: Path) -> int | None:
    """The size of a regular file, None for anything else."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _is_portable(path: str) -> bool:
    """Whether `path` can only mean a file below the folder it is looked up in, on any platform."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return all(is_plain_file_name(part) for part in path.split("/"))


def _unsound(path: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: its header is broken, or names a tensor that another shard holds too",
        hint="'dus verify' says what is wrong; a manifest is only made of a sound checkpoint.",
    )


def _of_file(checksums: Checksums, path: str) -> Checksums:
    """What is said of one file alone."""
    return Checksums(
        files={path: checksums.files[path]} if path in checksums.files else {},
        tensors={name: found for name, found in checksums.tensors.items() if found.file == path},
    )


def _parse(value: dict[str, Json], subject: str) -> Checksums:
    """Raises FormatError for anything else than the documented form."""
    if value.get("schema") != CHECKSUMS_SCHEMA:
        raise FormatError(f"{subject}: does not state the schema {CHECKSUMS_SCHEMA}")
    for field in _FIELDS:
        if field not in value:
            raise FormatError(f"{subject}: has no {field}")
    if len(value) > len(_FIELDS):
        unknown = next(field for field in value if field not in _FIELDS)
        raise FormatError(f"{subject}: has the unknown field {quoted(unknown)}")
    files = _parse_files(value["sizes"], value["resources"], subject)
    return Checksums(files=files, tensors=_parse_tensors(value["tensors"], files, subject))


def _parse_files(sizes: Json, resources: Json, subject: str) -> dict[str, FileDigest]:
    if not isinstance(sizes, dict):
        raise FormatError(f"{subject}: sizes is not an object")
    if not isinstance(resources, list):
        raise FormatError(f"{subject}: resources is not a list")
    files: dict[str, FileDigest] = {}
    for resource in resources:
        if not isinstance(resource, dict) or resource.keys() != _RESOURCE_FIELDS:
            raise FormatError(f"{subject}: {quoted(resource)} is not name, digest and algorithm")
        path = resource["name"]
        if not isinstance(path, str) or not _is_portable(path):
            raise FormatError(f"{subject}: {quoted(path)} is not a path inside the checkpoint")
        if path in files:
            raise FormatError(f"{subject}: lists {quoted(path)} twice")
        if resource["algorithm"] != _ALGORITHM:
            raise FormatError(
                f"{subject}: {quoted(path)} has a digest by {quoted(resource['algorithm'])}, not "
                f"{_ALGORITHM}"
            )
        # `type(...) is int`, because True is an int to isinstance and no size to anybody.
        size = sizes.get(path)
        if type(size) is not int or not 0 <= size <= _MAX_SIZE:
            raise FormatError(f"{subject}: {quoted(path)} has the impossible size {quoted(size)}")
        files[path] = FileDigest(size=size, sha256=_digest(resource["digest"], path, subject))
    if len(sizes) > len(files):
        unknown = next(path for path in sizes if path not in files)
        raise FormatError(f"{subject}: {quoted(unknown)} has a size, but no digest")
    return files


def _parse_tensors(
    value: Json, files: Mapping[str, FileDigest], subject: str
) -> dict[str, TensorDigest]:
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: tensors is not an object")
    tensors: dict[str, TensorDigest] = {}
    for path, digests in value.items():
        if path not in files:
            raise FormatError(f"{subject}: lists tensors of {quoted(path)}, but not that file")
        if not isinstance(digests, dict):
            raise FormatError(f"{subject}: the tensors of {quoted(path)} are not an object")
        for name, digest in digests.items():
            if name in tensors:
                raise FormatError(f"{subject}: lists the tensor {quoted(name)} in two files")
            tensors[name] = TensorDigest(file=path, sha256=_digest(digest, name, subject))
    return tensors


def _digest(value: Json, name: str, subject: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise FormatError(
            f"{subject}: the digest of {quoted(name)} is {quoted(value)}, not 64 hex digits"
        )
    return value
