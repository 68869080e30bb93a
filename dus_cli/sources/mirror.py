"""A repository as a folder that holds its headers, index and config, and of the rest the sizes.

Whatever works on a checkpoint without its weights works on such a folder: the weights are holes in
sparse files, which take no space. So a model of any size is looked at for kilobytes.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from dus_cli.errors import CheckpointError
from dus_cli.findings import Finding
from dus_cli.format.checkpoint import Checkpoint, find_shards, open_checkpoint
from dus_cli.format.folder import CONFIG, MISTRAL_CONFIG, QUANTISATION_FILES
from dus_cli.format.header import LENGTH_BYTES, MAX_HEADER_BYTES
from dus_cli.format.index import INDEX_SUFFIX
from dus_cli.sources.hub import RemoteFile, Repository

_READ_ALWAYS: Final = frozenset(
    {CONFIG, MISTRAL_CONFIG, "README.md", "dus.json", *QUANTISATION_FILES}
)
"""Beside the index: what opening and verifying a checkpoint read."""

_MAX_DOCUMENT: Final = 1_000_000
"""A larger file, such as a tokenizer's vocabulary, is not fetched to look at a model."""

_MAX_READ: Final = 100_000_000
_FIRST_BYTES: Final = 1 << 16
"""What is asked for of a shard at first where no index says how many tensors it has."""

_ENTRY_BYTES: Final = 128
"""About what a header spends on a tensor, beside its name."""

_CONNECTIONS: Final = 16


class Mirror:
    """The folder, and which files lie in it with their content (headers of shards not counted).

    What the Hub's cache holds is not fetched. The same commit gives the same sizes and times of
    change, so that an interrupted run can be taken up.

    Methods raise CheckpointError when something cannot be fetched, or cannot be a folder.
    """

    def __init__(self, repository: Repository, folder: Path) -> None:
        """Lays the files out in the empty `folder`."""
        self._repository = repository
        self.folder = folder
        self.whole: set[str] = set()
        for file in repository.files.values():
            try:
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / file.path).touch(exist_ok=False)
            except OSError as error:
                raise CheckpointError(
                    f"{repository.name}: {file.path} cannot be laid out: {error.strerror}",
                    hint="Set TMPDIR to a place on a usual file system.",
                ) from None
            self._write(file, b"")

    def open(self, *, documents: bool) -> Checkpoint:
        """Fetches what is needed to know the model, and opens it; its faults are ignored here.

        With `documents` it fetches the small JSON files beside it as well.
        """
        names = sorted(os.listdir(self.folder))
        self._fetch(name for name in names if name in _READ_ALWAYS or name.endswith(INDEX_SUFFIX))
        _, shards, index = find_shards(self.folder, names, _ignore)
        expected: dict[str, int] = {}
        for tensor, shard in (index.weight_map if index else {}).items():
            expected[shard] = expected.get(shard, _ENTRY_BYTES) + len(tensor) + _ENTRY_BYTES
        self._in_parallel(
            lambda file: self._fetch_header(file, expected.get(file.path, _FIRST_BYTES)),
            (name for name in shards if name in names),
        )
        checkpoint = open_checkpoint(
            self.folder, name=self._repository.name.rpartition("/")[2], report=_ignore
        )
        if documents:
            self._fetch(
                file.path
                for file in checkpoint.carried_files
                if file.path.endswith(".json") and file.size <= _MAX_DOCUMENT
            )
        return checkpoint

    def _fetch(self, paths: Iterable[str]) -> None:
        """Gets whole files, but none that is too large to be read anyway."""
        files = self._repository.files
        wanted = [p for p in paths if p in files and files[p].size <= _MAX_READ]
        self._in_parallel(self._fetch_whole, (path for path in wanted if path not in self.whole))
        self.whole.update(wanted)

    def _in_parallel(self, work: Callable[[RemoteFile], None], paths: Iterable[str]) -> None:
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            jobs = [pool.submit(work, self._repository.files[path]) for path in paths]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _fetch_whole(self, file: RemoteFile) -> None:
        self._write(file, self._read(file, 0, file.size))

    def _fetch_header(self, file: RemoteFile, expected: int) -> None:
        """Gets a header in one request, or in two if it is longer than `expected`."""
        longest = min(file.size, LENGTH_BYTES + MAX_HEADER_BYTES)
        head = self._read(file, 0, min(expected, longest))
        end = LENGTH_BYTES + int.from_bytes(head[:LENGTH_BYTES], "little")
        if len(head) < end <= longest:
            head += self._read(file, len(head), end)
        self._write(file, head)

    def _read(self, file: RemoteFile, begin: int, end: int) -> bytes:
        cached = self._repository.cached(file.path)
        if cached is None:
            return self._repository.read(file.path, begin, end)
        with open(cached, "rb") as content:
            content.seek(begin)
            return content.read(end - begin)

    def _write(self, file: RemoteFile, head: bytes) -> None:
        path = self.folder / file.path
        moment = int(self._repository.commit[:12], 16)
        try:
            with open(path, "r+b") as sparse:
                sparse.write(head)
                sparse.truncate(file.size)
            os.utime(path, ns=(moment, moment))
        except OSError as error:
            raise CheckpointError(
                f"{self._repository.name}: {file.path} of {file.size:,} bytes cannot be laid out: "
                f"{error.strerror}",
                hint="Set TMPDIR to a place on a file system that knows sparse files.",
            ) from None


def _ignore(_: Finding) -> None:
    """The report of somebody who only wants to know which files there are."""
