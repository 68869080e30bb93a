"""Who may do what: routes, accounts, and the repository or commit that a request means."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.hub.answers import Answer, Call, MovedError, RefusedError
from tests.hub.repositories import Account, Commit, Repository, State

REPO: Final = r"(?P<repo>[^/]+(?:/[^/]+)?)"
REVISION: Final = r"(?P<revision>[^/]+)"


MISSING: Final = "Repository not found"
ANONYMOUS: Final = "Invalid username or password."


@dataclass(frozen=True, slots=True)
class Route:
    """Which function answers which requests: methods, and a pattern of the path as it was sent."""

    methods: str
    pattern: str
    handle: Callable[[State, Call], Answer]
    origin: str = "hub"

    def match(self, call: Call) -> re.Match[str] | None:
        if call.origin != self.origin or call.method not in self.methods.split():
            return None
        return re.fullmatch(self.pattern, call.target.partition("?")[0])


def account_of(state: State, call: Call) -> Account | None:
    """The account whose token came with the request, None without a token.

    A bad token is refused even where none is needed, as by the Hub.
    """
    word, _, token = call.headers.get("authorization", "").partition(" ")
    if not word:
        return None
    account = state.tokens.get(token)
    if account is None or word.lower() != "bearer":
        raise RefusedError(401, "Invalid credentials in Authorization header")
    if account.expired:
        raise RefusedError(401, f'User Access Token "{account.name}-token" is expired')
    return account


def repository(state: State, call: Call, *, content: bool = False) -> Repository:
    """The repository that the path names, if the request may see it.

    With `content` the files of a gated repository are refused to those without a grant. Who may
    not see a repository learns nothing of it: it is as if it did not exist.
    """
    account = account_of(state, call)
    name = call.names["repo"]
    found = state.repository(name)
    if found is None or (found.private and not (account and account.owns(found.id))):
        # The client takes a 401 without code for a missing repository only on https, so the code
        # is there in both cases.
        if account is None:
            raise RefusedError(401, ANONYMOUS, code="RepoNotFound")
        raise RefusedError(404, MISSING, code="RepoNotFound")
    if name in state.moved:
        raise MovedError(call.target.replace(f"/{name}", f"/{found.id}", 1))
    if content and found.gated:
        restricted = f"Access to model {found.id} is restricted"
        if account is None:
            raise RefusedError(
                401,
                f"{restricted}. You must have access to it and be authenticated to access it."
                " Please log in.",
                code="GatedRepo",
            )
        if not account.owns(found.id) and account.name not in found.granted:
            raise RefusedError(
                403,
                f"{restricted} and you are not in the authorized list."
                f" Visit {state.hub_url}/{found.id} to ask for access.",
                code="GatedRepo",
            )
    return found


def commit_of(repo: Repository, revision: str) -> Commit:
    found = repo.find(revision)
    if found is None:
        raise RefusedError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    return found


def creator(state: State, call: Call) -> Account:
    account = account_of(state, call)
    if account is None:
        raise RefusedError(401, ANONYMOUS)
    return account


def writable(state: State, call: Call, *, proposal: bool = False) -> tuple[Repository, Account]:
    """The repository that the path names and who writes to it.

    With `proposal`, which is a pull request, it is enough to be allowed to read.
    """
    repo = repository(state, call)
    account = creator(state, call)
    if account.role != "write":
        raise RefusedError(403, "Forbidden: you must use a write token to upload to a repository")
    if not account.owns(repo.id) and not proposal:
        raise RefusedError(
            403,
            "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request",
        )
    return repo, account


def is_proposal(call: Call) -> bool:
    return call.asks("create_pr") or call.names.get("revision", "").startswith("refs/pr/")


def check_signature(state: State, call: Call) -> None:
    """Refuses what a storage with signed addresses refuses: tokens, and other signatures."""
    if "authorization" in call.headers:
        raise RefusedError(400, "Only one auth mechanism allowed")
    expires, signature = (call.query.get(name, ("0",))[0] for name in ("Expires", "Signature"))
    if not state.is_signed(call.target.partition("?")[0], expires, signature):
        raise RefusedError(403, "AccessDenied: Request has expired")
