"""Checkpoints on this machine, the Hub's cache folders among them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dus_cli.errors import CheckpointError, RequestError

if TYPE_CHECKING:
    from dus_cli.sources.hub import Repository

_CACHED: Final = re.compile(r"models--(?:(?P<owner>[^/]+?)--)?(?P<name>[^/]+)")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model's folder or file and what to call it; Hub id and commit where they are known.

    With a `repository` the folder is a mirror of it: of files neither in `whole` nor shards the
    size alone is known, and of shards the header.
    """

    path: Path
    name: str
    base_model: str | None = None
    revision: str | None = None
    repository: "Repository | None" = None
    whole: frozenset[str] = frozenset()

    @property
    def unfetched(self) -> frozenset[str]:
        """Files of which only the size is known."""
        return frozenset(self.repository.files) - self.whole if self.repository else frozenset()

    def __str__(self) -> str:
        """What leads to this source again, and to nothing else."""
        if self.repository is None:
            return str(self.path.absolute())
        return f"hf://{self.repository.name}@{self.repository.commit}"


def find_local(name: str) -> Source | None:
    """The source at path `name`, which may lie in the Hub's cache; None where there is nothing.

    Raises RequestError when the name is empty, CheckpointError when it cannot be looked at.
    """
    if not name:
        # It would mean the current folder, which nobody means by an unset variable of a script.
        raise RequestError("the path is empty", hint="The current folder is written as '.'.")
    path = Path(name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # ValueError: a name that no file can have, such as one with a NUL.
        return None
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read: {error.strerror}") from None
    return local_source(path)


def local_source(path: Path) -> Source:
    """The source at a path that exists."""
    # `.` and `..` have no name of their own; a link is called what its user calls it.
    named = path if path.name not in ("", "..") else path.resolve()
    return _cached_source(path) or Source(path=path, name=named.name or "checkpoint")


def _cached_source(path: Path) -> Source | None:
    """The source in `models--org--name/snapshots/<commit>`, the layout of the Hub's cache."""
    snapshot = path.absolute()
    match = _CACHED.fullmatch(snapshot.parent.parent.name)
    if match is None or snapshot.parent.name != "snapshots" or not _COMMIT.fullmatch(snapshot.name):
        return None
    return Source(
        path=path,
        name=match["name"],
        base_model=f"{match['owner']}/{match['name']}" if match["owner"] else match["name"],
        revision=snapshot.name,
    )
