"""Putting a checkpoint on the Hub: large files one by one, then one commit for all of them.

Until that commit the repository is as it was. A file whose content the Hub has already is not sent
again, so that a second run of the same command goes on where the first one stopped.
"""

import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

import dus_cli
from dus_cli.errors import OutputError
from dus_cli.format.folder import CHECKSUMS, CONFIG
from dus_cli.format.header import LENGTH_BYTES
from dus_cli.sources.hub import Access, quiet
from dus_cli.sources.hub_errors import hub_errors, is_passing, is_refused_for_now, patiently
from dus_cli.verify.record import RECORD
from dus_cli.verify.run import Progress

_WEIGHTS: Final = (".safetensors", ".safetensors.index.json", CHECKSUMS)
"""How the names of files end that do not go together with those of another checkpoint."""

_LARGE: Final = 5_000_000
"""Files from this size on are sent on their own; the Hub keeps no larger ones in git anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on the Hub a checkpoint is to go.

    `revision` is a branch, made if need be; None is the main one. `pull_request` proposes the
    commit instead of making it. `replace` allows to remove a checkpoint that is there.
    """

    repository: str
    private: bool = False
    revision: str | None = None
    pull_request: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What has become of it: the commit and its page, or the pull request's page.

    `revision` is the branch or the pull request that holds it; None is the main branch.
    """

    repository: str
    revision: str | None
    commit: str
    url: str

    def __str__(self) -> str:
        """A name that means this model to `dus`, and without a revision to every loader."""
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


class Publication:
    """One checkpoint on its way to the Hub.

    All methods raise OutputError for what the Hub refuses or cannot do.
    """

    def __init__(self, place: Place, access: Access, progress: Progress, record: bytes) -> None:
        """Makes the repository if need be, and checks that it may be written to.

        `record` is the dus.json that the checkpoint will have.
        """
        quiet()
        self._place, self._access, self._progress = place, access, progress
        self._record = record
        self._api = HfApi(
            token=access.token, library_name="dus", library_version=dus_cli.__version__
        )
        self._sent: dict[str, CommitOperationAdd] = {}
        self.published: Published | None = None
        with self._errors():
            if not place.pull_request:
                self._make_repository()
            self._stale = self._weights_to_replace()
            # The Hub says of an existing repository only here whether it may be written to: it
            # is asked how it would like a small file, of which it then wants nothing.
            self._offer(CommitOperationAdd(path_in_repo=CONFIG, path_or_fileobj=b"{}"))

    def take(self, path: Path, name: str) -> None:
        """Sends a large file as `name`; on the disk only its header stays, and a hole."""
        if path.stat().st_size >= _LARGE and name.endswith(".safetensors"):
            self.send(path, name)
            _hollow(path)

    def send(self, path: Path, name: str) -> None:
        """Sends a file, which becomes visible with the commit."""
        size = path.stat().st_size
        with self._errors(), self._progress("uploading", size) as advance:
            operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
            self._offer(operation)
            advance(size)
        self._sent[name] = operation

    def complete(self, folder: Path) -> None:
        """Sends what is left in `folder`, and commits all of it at once."""
        names = sorted(
            file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
        )
        for name in names:
            if name not in self._sent and (folder / name).stat().st_size >= _LARGE:
                self.send(folder / name, name)
        with self._errors():
            operations = [
                self._sent.get(name)
                or CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name)
                for name in names
            ]
            removed = [
                CommitOperationDelete(path_in_repo=name)
                for name in sorted(self._stale - set(names))
            ]
            done = patiently(
                lambda: self._api.create_commit(
                    self._place.repository,
                    operations=[*operations, *removed],
                    commit_message=f"Depth up-scaled checkpoint, made by dus {dus_cli.__version__}",
                    revision=self._place.revision,
                    create_pr=self._place.pull_request,
                ),
                self._access.remark,
                # Where the answer got lost, another try would open another pull request.
                passing=is_refused_for_now if self._place.pull_request else is_passing,
            )
        self.published = Published(
            repository=self._place.repository,
            revision=done.pr_revision or self._place.revision,
            commit=done.oid,
            url=done.pr_url or done.commit_url,
        )

    def _offer(self, operation: CommitOperationAdd) -> None:
        """Sends the file if it is one that the Hub takes on its own, and does not have yet."""
        patiently(
            lambda: self._api.preupload_lfs_files(
                self._place.repository,
                additions=[operation],
                revision=self._place.revision,
                create_pr=self._place.pull_request,
            ),
            self._access.remark,
        )

    def _make_repository(self) -> None:
        place = self._place
        patiently(
            lambda: self._api.create_repo(
                place.repository, private=place.private or None, exist_ok=True
            ),
            self._access.remark,
        )

    def _weights_to_replace(self) -> frozenset[str]:
        """The weights that are where the new ones go; makes the branch if there is none.

        Raises OutputError if they must not be replaced. In a new branch and a pull request they
        may, as elsewhere they stay; and where they are those of this very checkpoint, from a run
        that was not told that its commit was made.
        """
        place = self._place
        is_new = False
        try:
            present = self._files(place.revision)
        except RevisionNotFoundError:
            is_new = True
            present = self._files(None)
        except RepositoryNotFoundError:
            raise OutputError(
                f"{place.repository}: a pull request needs a repository that exists, and the Hub "
                "has no such model, or it is private",
                hint="Leave out --pull-request to make it.",
            ) from None
        stale = frozenset(name for name in present if name.endswith(_WEIGHTS))
        free = place.replace or place.pull_request or is_new
        if stale and not free and not self._is_there(present):
            raise OutputError(
                f"{place.repository}: holds a checkpoint already ({min(stale)})",
                hint="Choose another name or a new --push-revision, or replace it with --force.",
            )
        if is_new and not place.pull_request and place.revision is not None:
            branch = place.revision
            patiently(
                lambda: self._api.create_branch(place.repository, branch=branch, exist_ok=True),
                self._access.remark,
            )
        return stale

    def _is_there(self, present: list[str]) -> bool:
        if RECORD not in present:
            return False
        with tempfile.TemporaryDirectory(prefix="dus-") as place:
            path = patiently(
                lambda: self._api.hf_hub_download(
                    self._place.repository,
                    RECORD,
                    revision=self._place.revision,
                    cache_dir=place,
                ),
                self._access.remark,
            )
            return Path(path).read_bytes() == self._record

    def _files(self, revision: str | None) -> list[str]:
        return patiently(
            lambda: self._api.list_repo_files(self._place.repository, revision=revision),
            self._access.remark,
        )

    def _errors(self) -> AbstractContextManager[None]:
        return hub_errors(self._place.repository, raised=OutputError)


def _hollow(path: Path) -> None:
    """Makes a hole of a safetensors file's data."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little"))
        file.truncate(size)
