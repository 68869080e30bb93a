"""From what a user calls a model to a folder that can be opened: a path, or a name on the Hub."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dus_cli.errors import CheckpointError, DusError, RequestError
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.index import INDEX_SUFFIX
from dus_cli.printable import quoted
from dus_cli.sources.local import Source, find_local, local_source
from dus_cli.sources.names import SCHEME, HubName, nearest_names, parse_name
from dus_cli.verify.record import RECORD

if TYPE_CHECKING:
    from dus_cli.sources.hub import ByteStream, CachedStream


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """What a user says of the Hub; None leaves it to what users of `hf` have set."""

    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None


@contextmanager
def open_source(
    name: str,
    options: HubOptions,
    remark: Callable[[str], None] = lambda text: None,
    *,
    documents: bool = False,
) -> Iterator[Source]:
    """The source that `name` means: a path if there is one, else a model on the Hub.

    A model on the Hub is mirrored without its weights, in a folder that is removed in the end.
    With `documents` the mirror has the small JSON files beside the weights, too. `remark` is told
    what takes long.

    Raises RequestError when the name means nothing, CheckpointError when the Hub does not give
    what it stands for.
    """
    found = None if name.startswith(SCHEME) else find_local(name)
    if found is not None:
        if options.revision is not None:
            raise RequestError(
                f"--revision is for a model on the Hub, and {quoted(name)} is a path here",
                hint=f"Write {SCHEME}ORG/NAME to mean the Hub.",
            )
        yield found
        return
    wanted = _hub_name(name, options.revision)
    # Late: a local folder is opened before the client of the Hub would have been imported.
    from dus_cli.sources.hub import Access, cached_snapshot, open_repository
    from dus_cli.sources.hub_errors import UnreachableError
    from dus_cli.sources.mirror import Mirror

    access = Access(
        token=options.token,
        cache_dir=Path(options.cache_dir).expanduser() if options.cache_dir else None,
        remark=remark,
    )
    try:
        repository = open_repository(wanted, access)
    except UnreachableError as error:
        snapshot = cached_snapshot(wanted, access)
        if snapshot is None:
            raise
        commit = snapshot.name[:12]
        remark(f"{wanted.repository}: {error.reason}; taken from the cache, commit {commit}")
        yield local_source(snapshot)
        return
    with tempfile.TemporaryDirectory(prefix="dus-") as place:
        folder = Path(place) / "mirror"
        folder.mkdir()
        try:
            mirror = Mirror(repository, folder)
            checkpoint = mirror.open(documents=documents)
            yield Source(
                path=folder,
                name=checkpoint.name,
                base_model=repository.name,
                revision=repository.commit,
                repository=repository,
                whole=frozenset(mirror.whole),
            )
        except DusError as error:
            # The user knows the model by its name, and the folder will be gone.
            error.message = error.message.replace(str(folder), repository.name)
            raise


def needed_files(checkpoint: Checkpoint) -> list[str]:
    """The files that make a mirrored checkpoint, of all that the Hub has beside them."""
    maybe_missing = (
        *checkpoint.unread_shards,
        f"{checkpoint.stem}{INDEX_SUFFIX}",
        checkpoint.config_name,
        "README.md",
        RECORD,
    )
    return [
        *(shard.name for shard in checkpoint.shards),
        *(file.path for file in checkpoint.carried_files),
        *(path for path in maybe_missing if (checkpoint.folder / path).is_file()),
    ]


def bytes_to_fetch(source: Source, checkpoint: Checkpoint) -> int:
    """How many bytes of a source on the Hub are not yet in the Hub's cache."""
    repository = source.repository
    if repository is None:
        return 0
    missing = (path for path in needed_files(checkpoint) if repository.cached(path) is None)
    return sum(repository.files[path].size for path in missing)


def download(source: Source, checkpoint: Checkpoint, *, progress: bool) -> Path:
    """The folder with all bytes of a source: of one on the Hub, in the Hub's cache.

    Raises CheckpointError."""
    if source.repository is None:
        return source.path
    from dus_cli.sources.hub import download as fetch

    cache = source.repository.snapshot
    needed = bytes_to_fetch(source, checkpoint)
    free = shutil.disk_usage(next(path for path in cache.parents if path.exists())).free
    if needed > free:
        raise CheckpointError(
            f"{source.repository.name}: {needed:,} bytes are to be fetched into the Hub's cache, "
            f"{free:,} are free there",
            hint="Choose another with --cache-dir, or keep nothing of the source with --stream.",
        )
    return fetch(source.repository, needed_files(checkpoint), progress=progress)


def streams(
    source: Source, checkpoint: Checkpoint
) -> "Callable[[str], ByteStream | CachedStream | None]":
    """How to get the bytes of a mirrored source's files without keeping them; None for those that
    the mirror holds."""
    from dus_cli.sources.hub import ByteStream, CachedStream

    lengths = {shard.name: shard.header.data_start for shard in checkpoint.shards}
    repository = source.repository

    def stream(path: str) -> ByteStream | CachedStream | None:
        if repository is None or path in source.whole:
            return None
        cached = repository.cached(path)
        if cached is not None:
            return CachedStream(cached)
        with open(source.path / path, "rb") as mirrored:
            return ByteStream(repository, path, head=mirrored.read(lengths.get(path, 0)))

    return stream


def _hub_name(name: str, revision: str | None) -> HubName:
    parsed = parse_name(name)
    if parsed is None:
        near = nearest_names(name, (path.name for path in Path().iterdir()))
        raise RequestError(
            f"{name}: no such file or folder, and no name of a model on the Hub",
            hint=(f"Names like it: {', '.join(near)}. " if near else "")
            + "Give a folder, ORG/NAME, or a short name (dus inspect --names lists them).",
        )
    if revision is not None and parsed.revision not in (None, revision):
        raise RequestError(
            f"{name} and --revision {revision} name two revisions", hint="Give one of them."
        )
    return HubName(repository=parsed.repository, revision=revision or parsed.revision)
