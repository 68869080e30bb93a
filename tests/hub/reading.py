"""The Hub's API for reading: who may, what is there, and the content of files."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, urlencode

from tests.hub.answers import (
    Answer,
    Call,
    Headers,
    MovedError,
    RefusedError,
    as_json,
    redirect,
    whole_or_range,
)
from tests.hub.repositories import CREATED, Account, Blob, Commit, Repository, State

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


# --- Who may ---


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


# --- What is there ---


def who_am_i(state: State, call: Call) -> Answer:
    account = account_of(state, call)
    if account is None:
        raise RefusedError(401, ANONYMOUS)
    return as_json(
        {
            "type": "user",
            "id": account.name,
            "name": account.name,
            "fullname": account.name.title(),
            "isPro": False,
            "orgs": [
                {"type": "org", "id": org, "name": org, "roleInOrg": "write"}
                for org in account.orgs
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {
                    "displayName": f"{account.name}-token",
                    "role": account.role,
                    "createdAt": CREATED,
                },
            },
        }
    )


def model_info(state: State, call: Call) -> Answer:
    repo = repository(state, call)
    commit = commit_of(repo, call.names.get("revision", "main"))
    info: dict[str, object] = {
        "_id": repo.id,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.partition("/")[0],
        "sha": commit.oid,
        "createdAt": CREATED,
        "lastModified": CREATED,
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers", "safetensors"],
        "library_name": "transformers",
        "config": _config_summary(commit.files),
        "usedStorage": sum(blob.size for blob in commit.files.values()),
        "siblings": [
            {"rfilename": name, **(_blob_details(blob) if call.asks("blobs") else {})}
            for name, blob in sorted(commit.files.items())
        ],
        "spaces": [],
    }
    wanted = call.query.get("expand") or call.query.get("expand[]")
    if wanted:
        info = {key: value for key, value in info.items() if key in ("_id", "id", *wanted)}
    return as_json(info)


def _config_summary(files: Mapping[str, Blob]) -> dict[str, object]:
    try:
        config = json.loads(files["config.json"].path.read_bytes())
        return {key: config[key] for key in ("architectures", "model_type") if key in config}
    except (KeyError, TypeError, ValueError):
        return {}


def _blob_details(blob: Blob) -> dict[str, object]:
    details: dict[str, object] = {"size": blob.size, "blobId": blob.oid}
    if blob.lfs:
        details["lfs"] = {
            "sha256": blob.sha256,
            "size": blob.size,
            "pointerSize": len(blob.pointer),
        }
    return details


def tree(state: State, call: Call) -> Answer:
    """Files and folders below a folder, page by page; the address of the next is in `Link`."""
    repo = repository(state, call)
    commit = commit_of(repo, call.names["revision"])
    folder = (call.names.get("path") or "").strip("/")
    detailed = call.asks("expand")
    entries = list(_entries(commit, folder, recursive=call.asks("recursive"), detailed=detailed))
    if folder and not entries:
        raise RefusedError(
            404, f'{folder} does not exist on "{call.names["revision"]}"', code="EntryNotFound"
        )
    page_size = state.settings.page_size // (20 if detailed else 1) or 1
    begin = _position(call.query.get("cursor", ("",))[0])
    headers: Headers = ()
    if begin + page_size < len(entries):
        query = {name: values[0] for name, values in call.query.items()}
        query["cursor"] = base64.urlsafe_b64encode(b"%d" % (begin + page_size)).decode()
        address = f"{state.hub_url}{call.target.partition('?')[0]}?{urlencode(query)}"
        headers = (("Link", f'<{address}>; rel="next"'),)
    return as_json(entries[begin : begin + page_size], headers=headers)


def _position(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor) or b"0")
    except ValueError:
        raise RefusedError(400, "Invalid cursor") from None


def _entries(
    commit: Commit, folder: str, *, recursive: bool, detailed: bool
) -> Iterator[dict[str, object]]:
    below = f"{folder}/" if folder else ""
    seen: set[str] = set()
    for name, blob in sorted(commit.files.items()):
        if not name.startswith(below):
            continue
        *parents, _ = name.removeprefix(below).split("/")
        for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
            parent = below + "/".join(parents[:depth])
            if parent not in seen:
                seen.add(parent)
                yield _entry(commit, parent, None, detailed=detailed)
        if recursive or not parents:
            yield _entry(commit, name, blob, detailed=detailed)


def _entry(commit: Commit, name: str, blob: Blob | None, *, detailed: bool) -> dict[str, object]:
    """A file, or a folder without blob, in the words of the API."""
    entry: dict[str, object] = {"path": name}
    if blob is None:
        entry |= {"type": "directory", "oid": commit.oid, "size": 0}
    else:
        entry |= {"type": "file", "oid": blob.oid, "size": blob.size}
        if blob.lfs:
            entry["lfs"] = {
                "oid": blob.sha256,
                "size": blob.size,
                "pointerSize": len(blob.pointer),
            }
    if detailed:
        entry["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": CREATED}
        if blob is not None:
            entry["securityFileStatus"] = {
                "status": "safe",
                "avScan": None,
                "pickleImportScan": None,
            }
    return entry


def paths_info(state: State, call: Call) -> Answer:
    """Some files and folders by name; those that do not exist are left out."""
    repo = repository(state, call)
    commit = commit_of(repo, call.names["revision"])
    form = parse_qs(call.body.readall().decode())
    detailed = form.get("expand", [""])[0].lower() == "true"
    folders = {
        parent
        for name in commit.files
        for parent in (name.rsplit("/", depth)[0] for depth in range(1, name.count("/") + 1))
    }
    return as_json(
        [
            _entry(commit, name, commit.files.get(name), detailed=detailed)
            for name in form.get("paths", [])
            if name in commit.files or name in folders
        ]
    )


def refs(state: State, call: Call) -> Answer:
    repo = repository(state, call)

    def listed(named: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in named.items()
        ]

    answer: dict[str, object] = {
        "branches": listed(repo.branches, "refs/heads/"),
        "converts": [],
        "tags": listed(repo.tags, "refs/tags/"),
    }
    if call.asks("include_prs"):
        answer["pullRequests"] = [
            {"name": name.removeprefix("refs/"), "ref": name, "targetCommit": oid}
            for name, oid in repo.pulls.items()
        ]
    return as_json(answer)


def commits(state: State, call: Call) -> Answer:
    repo = repository(state, call)
    return as_json(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message,
                "date": CREATED,
                "authors": [{"user": commit.author}],
            }
            for commit in repo.history(commit_of(repo, call.names["revision"]))
        ]
    )


# --- The content of files ---


def resolve(state: State, call: Call) -> Answer:
    """A small file; the address of a large one at the storage, with what the client must know."""
    repo = repository(state, call, content=True)
    commit = commit_of(repo, call.names["revision"])
    name = call.names["path"]
    known: Headers = (("X-Repo-Commit", commit.oid),)
    blob = commit.files.get(name)
    if blob is None:
        raise RefusedError(404, "Entry not found", code="EntryNotFound", headers=known)
    if not blob.lfs:
        kind = "application/json" if name.endswith(".json") else "text/plain; charset=utf-8"
        headers = (*known, ("Content-Type", kind), ("ETag", f'"{blob.oid}"'))
        return whole_or_range(blob.path, blob.size, call.headers.get("range"), headers)
    path = quote(f"/repos/{repo.id}/{commit.oid}/{name}")
    return redirect(
        302,
        f"{state.cdn_url}{path}?{state.sign(path)}",
        (
            *known,
            ("Accept-Ranges", "bytes"),
            ("X-Linked-Size", str(blob.size)),
            ("X-Linked-ETag", f'"{blob.sha256}"'),
        ),
    )


def check_signature(state: State, call: Call) -> None:
    """Refuses what a storage with signed addresses refuses: tokens, and other signatures."""
    if "authorization" in call.headers:
        raise RefusedError(400, "Only one auth mechanism allowed")
    expires, signature = (call.query.get(name, ("0",))[0] for name in ("Expires", "Signature"))
    if not state.is_signed(call.target.partition("?")[0], expires, signature):
        raise RefusedError(403, "AccessDenied: Request has expired")


def stored(state: State, call: Call) -> Answer:
    """A large file from the storage. Neither commit nor hash is known there."""
    check_signature(state, call)
    repo = state.repository(call.names["repo"])
    if repo is None:
        raise RefusedError(404, "NoSuchKey: The specified key does not exist.")
    blob = repo.commits[call.names["commit"]].files[call.names["path"]]
    name = call.names["path"].rpartition("/")[2]
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Content-Disposition", f'inline; filename="{name}";'),
        ("ETag", f'"{blob.size:x}-1"'),
    )
    return whole_or_range(blob.path, blob.size, call.headers.get("range"), headers)


REPO: Final = r"(?P<repo>[^/]+(?:/[^/]+)?)"
REVISION: Final = r"(?P<revision>[^/]+)"

ROUTES: Final = (
    Route("GET", "/api/whoami-v2", who_am_i),
    Route("GET", rf"/api/models/{REPO}/revision/{REVISION}", model_info),
    Route("GET", rf"/api/models/{REPO}/tree/{REVISION}(?:/(?P<path>.*))?", tree),
    Route("POST", rf"/api/models/{REPO}/paths-info/{REVISION}", paths_info),
    Route("GET", rf"/api/models/{REPO}/refs", refs),
    Route("GET", rf"/api/models/{REPO}/commits/{REVISION}", commits),
    Route("GET HEAD", rf"/{REPO}/resolve/{REVISION}/(?P<path>.+)", resolve),
    Route(
        "GET HEAD",
        r"/repos/(?P<repo>[^/]+(?:/[^/]+)?)/(?P<commit>[0-9a-f]{40})/(?P<path>.+)",
        stored,
        origin="cdn",
    ),
)
LAST_ROUTES: Final = (Route("GET", rf"/api/models/{REPO}", model_info),)
"""A repository's name may have one part or two, so this pattern fits much that the others mean."""
