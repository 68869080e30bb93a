"""The Hub's API for reading: who may, what is there, and the content of files."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qs, quote, urlencode

from tests.hub.access import (
    ANONYMOUS,
    REPO,
    REVISION,
    Route,
    account_of,
    check_signature,
    commit_of,
    repository,
)
from tests.hub.answers import Answer, Call, Headers, RefusedError, as_json, redirect, whole_or_range
from tests.hub.repositories import CREATED, Blob, Commit, State

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
    if not blob.lfs and state.settings.resolve_cache and "cached" not in call.names:
        place = quote(f"/api/resolve-cache/models/{repo.id}/{commit.oid}/{name}")
        linked = ("X-Linked-Size", str(blob.size)), ("X-Linked-ETag", f'"{blob.oid}"')
        return redirect(307, place, (*known, *linked))
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
        # It looks like a SHA-256 and is none of the file.
        ("ETag", f'"{hashlib.sha256(blob.sha256.encode()).hexdigest()}"'),
    )
    return whole_or_range(blob.path, blob.size, call.headers.get("range"), headers)


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
        rf"/api/(?P<cached>resolve-cache)/models/{REPO}/{REVISION}/(?P<path>.+)",
        resolve,
    ),
    Route(
        "GET HEAD",
        r"/repos/(?P<repo>[^/]+(?:/[^/]+)?)/(?P<commit>[0-9a-f]{40})/(?P<path>.+)",
        stored,
        origin="cdn",
    ),
)
LAST_ROUTES: Final = (Route("GET", rf"/api/models/{REPO}", model_info),)
"""A repository's name may have one part or two, so this pattern fits much that the others mean."""
