"""Checkpoints on this machine, the Hub's cache folders among them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dus_cli.errors import CheckpointError, RequestError

_CACHED: Final = re.compile(r"models--(?:(?P<owner>[^/]+?)--)?(?P<name>[^/]+)")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model's folder or file and what to call it; Hub id and commit where the path tells them."""

    path: Path
    name: str
    base_model: str | None = None
    revision: str | None = None


def find_source(name: str) -> Source:
    """The source that `name` means: a path, which may lie in the Hub's cache.

    Raises RequestError when the name is empty or there is no such path, CheckpointError when it
    cannot be looked at.
    """
    if not name:
        # It would mean the current folder, which nobody means by an unset variable of a script.
        raise RequestError("the path is empty", hint="The current folder is written as '.'.")
    path = Path(name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # ValueError: a name that no file can have, such as one with a NUL.
        raise _not_found(name) from None
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read: {error.strerror}") from None
    # `.` and `..` have no name of their own; a link is called what its user calls it.
    named = path if path.name not in ("", "..") else path.resolve()
    return _cached_source(path) or Source(path=path, name=named.name or "checkpoint")


def _not_found(name: str) -> RequestError:
    hint = "Give the folder that holds config.json and the *.safetensors files."
    if _HUB_ID.fullmatch(name):
        hint = (
            f"If it is a model on the Hub, download it first: hf download {name} "
            f"--local-dir {name.rpartition('/')[2]}"
        )
    return RequestError(f"{name}: no such file or folder", hint=hint)


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
