"""The Hub's API for writing: repositories, branches and tags, pull requests, commits."""

import base64
import binascii
import json
import re
from dataclasses import replace
from typing import Final

import yaml

from tests.hub.access import (
    REPO,
    REVISION,
    Route,
    commit_of,
    creator,
    is_proposal,
    repository,
    writable,
)
from tests.hub.answers import Answer, Call, RefusedError, as_json, text
from tests.hub.repositories import CREATED, Account, Blob, Repository, State

GIT_ATTRIBUTES: Final = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"

_FRONT_MATTER: Final = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


# --- Repositories, branches, tags ---


def create(state: State, call: Call) -> Answer:
    account = creator(state, call)
    fields = call.json()
    namespace = text(fields, "organization", account.name)
    name = f"{namespace}/{text(fields, 'name')}"
    if account.role != "write" or not account.owns(name):
        raise RefusedError(
            403,
            f'You don\'t have the rights to create a model under the namespace "{namespace}"',
        )
    url = f"{state.hub_url}/{name}"
    with state.lock:
        if state.repository(name) is not None:
            message = "You already created this model repo"
            return as_json(
                {"error": message, "url": url},
                status=409,
                headers=(("X-Error-Message", message),),
            )
        private = fields.get("visibility") == "private" or fields.get("private") is True
        repo = Repository(id=name, private=private)
        attributes = state.blob(".gitattributes", GIT_ATTRIBUTES)
        repo.append(
            "main", {".gitattributes": attributes}, title="initial commit", author=account.name
        )
        state.repositories[name] = repo
    return as_json({"url": url, "name": name, "id": name})


def _named(state: State, call: Call, name: str) -> tuple[Repository, Account]:
    return writable(state, replace(call, names={"repo": name}))


def delete(state: State, call: Call) -> Answer:
    fields = call.json()
    account = creator(state, call)
    name = f"{text(fields, 'organization', account.name)}/{text(fields, 'name')}"
    repo, _ = _named(state, call, name)
    with state.lock:
        del state.repositories[repo.id]
    return as_json({"success": True})


def move(state: State, call: Call) -> Answer:
    fields = call.json()
    repo, account = _named(state, call, text(fields, "fromRepo"))
    target = text(fields, "toRepo")
    if not account.owns(target) or state.repository(target) is not None:
        raise RefusedError(409, f"{target} is taken or not yours")
    state.rename(repo.id, target)
    return as_json({"success": True})


def create_branch(state: State, call: Call) -> Answer:
    repo, _ = writable(state, call)
    begin = commit_of(repo, text(call.json(), "startingPoint", "main"))
    with state.lock:
        branch = call.names["branch"]
        if branch in repo.branches:
            raise RefusedError(409, f"Reference already exists: refs/heads/{branch}")
        repo.branches[branch] = begin.oid
    return as_json({"success": True})


def delete_branch(state: State, call: Call) -> Answer:
    repo, _ = writable(state, call)
    with state.lock:
        if repo.branches.pop(call.names["branch"], None) is None:
            commit_of(repo, call.names["branch"])
    return as_json({"success": True})


def create_tag(state: State, call: Call) -> Answer:
    repo, _ = writable(state, call)
    commit = commit_of(repo, call.names["revision"])
    with state.lock:
        tag = text(call.json(), "tag")
        if tag in repo.tags:
            raise RefusedError(409, f"Reference already exists: refs/tags/{tag}")
        repo.tags[tag] = commit.oid
    return as_json({"success": True})


def open_pull_request(state: State, call: Call) -> Answer:
    repo, _ = writable(state, call, proposal=True)
    with state.lock:
        number = len(repo.pulls) + 1
        repo.pulls[f"refs/pr/{number}"] = repo.sha
        repo.titles[f"refs/pr/{number}"] = text(call.json(), "title")
    return as_json({"num": number})


def pull_request(state: State, call: Call) -> Answer:
    repo = repository(state, call)
    ref = f"refs/pr/{call.names['number']}"
    commit = commit_of(repo, ref)
    return as_json(
        {
            "num": int(call.names["number"]),
            "title": repo.titles[ref],
            "author": {"name": commit.author},
            "createdAt": CREATED,
            "status": "draft",
            "repo": {"name": repo.id, "type": "model"},
            "isPullRequest": True,
            "changes": {"base": "refs/heads/main"},
            "filesWithConflicts": [],
            "events": [],
        }
    )


# --- Commits ---


def validate_yaml(state: State, call: Call) -> Answer:  # noqa: ARG001
    """Whether the metadata of a README.md can be read."""
    match = _FRONT_MATTER.search(text(call.json(), "content"))
    errors = []
    if match is not None:
        try:
            yaml.safe_load(match[1])
        except yaml.YAMLError as error:
            errors.append({"message": str(error).partition("\n")[0]})
    return as_json({"errors": errors, "warnings": []}, status=400 if errors else 200)


def commit(state: State, call: Call) -> Answer:
    """A commit from lines of JSON: all of it or, on any failure, nothing."""
    repo, account = writable(state, call, proposal=is_proposal(call))
    changes: dict[str, Blob | None] = {}
    header: dict[str, object] = {}
    base = commit_of(repo, call.names["revision"])
    for line in call.body.lines():
        key, value = _operation(line)
        if key == "header":
            header = value
        elif key == "deletedFolder":
            below = _path(value).rstrip("/") + "/"
            changes |= {name: None for name in base.files if name.startswith(below)}
        else:
            changes[_path(value)] = _change(state, repo, key, value)
    title = text(header, "summary")
    with state.lock:
        base = commit_of(repo, call.names["revision"])
        if header.get("parentCommit") not in (None, base.oid):
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(base.files)
        for name, blob in changes.items():
            if blob is not None:
                files[name] = blob
            elif files.pop(name, None) is None:
                raise RefusedError(
                    404, f"A file with this name doesn't exist: {name}", code="EntryNotFound"
                )
        ref, number = call.names["revision"], None
        if call.asks("create_pr"):
            number = len(repo.pulls) + 1
            ref = f"refs/pr/{number}"
            repo.pulls[ref], repo.titles[ref] = base.oid, title
        elif ref not in repo.branches and ref not in repo.pulls:
            raise RefusedError(400, f"{ref} is not a branch")
        made = repo.append(
            ref,
            files,
            title=title,
            message=text(header, "description"),
            author=account.name,
        )
    url = f"{state.hub_url}/{repo.id}"
    answer: dict[str, object] = {
        "success": True,
        "commitOid": made.oid,
        "commitUrl": f"{url}/commit/{made.oid}",
        "hookOutput": "",
    }
    if number is not None:
        answer["pullRequestUrl"] = f"{url}/discussions/{number}"
    return as_json(answer)


def _operation(line: bytes) -> tuple[str, dict[str, object]]:
    try:
        operation = json.loads(line)
        key, value = operation["key"], operation["value"]
    except (ValueError, TypeError, KeyError):
        raise RefusedError(400, "Invalid operation in the commit") from None
    if not isinstance(key, str) or not isinstance(value, dict):
        raise RefusedError(400, "Invalid operation in the commit")
    return key, value


def _path(value: dict[str, object]) -> str:
    path = text(value, "path")
    if any(part in ("", ".", "..", ".git") for part in path.rstrip("/").split("/")):
        raise RefusedError(400, f"Invalid path {path!r}")
    return path


def _change(state: State, repo: Repository, key: str, value: dict[str, object]) -> Blob | None:
    """The content that an operation gives a file; None where it deletes it."""
    if key == "deletedFile":
        return None
    if key == "lfsFile":
        size = value.get("size")
        found = repo.find_object(text(value, "oid"), size if isinstance(size, int) else None)
        if found is None:
            raise RefusedError(
                400,
                "Your push was rejected because an LFS pointer pointed to a file that does not"
                f" exist. Offending file: {_path(value)}",
            )
        return found
    if key != "file":
        raise RefusedError(400, f"Unknown operation {key!r}")
    try:
        content = base64.b64decode(text(value, "content"), validate=True)
    except binascii.Error:
        raise RefusedError(400, f"{_path(value)}: invalid base64") from None
    if len(content) > state.settings.lfs_above:
        raise RefusedError(
            400,
            "Your push was rejected because it contains files larger than"
            f" {state.settings.lfs_above} bytes. Offending file: {_path(value)}",
        )
    return replace(state.blob(_path(value), content), lfs=False)


ROUTES: Final = (
    Route("POST", "/api/repos/create", create),
    Route("DELETE", "/api/repos/delete", delete),
    Route("POST", "/api/repos/move", move),
    Route("POST", "/api/validate-yaml", validate_yaml),
    Route("POST", rf"/api/models/{REPO}/branch/(?P<branch>[^/]+)", create_branch),
    Route("DELETE", rf"/api/models/{REPO}/branch/(?P<branch>[^/]+)", delete_branch),
    Route("POST", rf"/api/models/{REPO}/tag/{REVISION}", create_tag),
    Route("POST", rf"/api/models/{REPO}/discussions", open_pull_request),
    Route("GET", rf"/api/models/{REPO}/discussions/(?P<number>\d+)", pull_request),
    Route("POST", rf"/api/models/{REPO}/commit/{REVISION}", commit),
)
