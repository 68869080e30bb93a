"""The real client against the local server: each rule of the protocol that `dus` relies on."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from tests.hub.client import environment, run_dus
from tests.hub.faults import (
    Compress,
    Cut,
    CutUpload,
    Drop,
    Fault,
    Flip,
    IgnoreRange,
    Kind,
    RedirectLoop,
    Refuse,
    Short,
    Stall,
    rate_limited,
)
from tests.hub.repositories import GIB, Settings
from tests.hub.server import EXPIRED, MEMBER, READER, STRANGER, Hub

HTTP: Any = importlib.import_module(type(get_session()).__module__.partition(".")[0])
"""The client's HTTP library, which is not the same for all its versions."""
CONFIG = b'{"model_type": "mistral"}'
WEIGHTS = os.urandom(300_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
WRONG = "hf_wrong"
BEARER = {"Authorization": f"Bearer {MEMBER}"}
FILES: dict[str, bytes | Path] = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "onnx/deep/model.onnx": b"onnx",
}

# The client must be set up even where only its HTTP library is used.
pytestmark = pytest.mark.usefixtures("client")
# The way of the client to upload without Xet is one that its HTTP library is to give up.
UPLOADS = pytest.mark.filterwarnings("ignore:Use 'content=<...>'")


def get(hub: Hub, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of what the client's HTTP library gets, redirects followed."""
    answer = get_session().get(f"{hub.url}/{path}", headers=headers)
    return answer.status_code, answer.content


def served(hub: Hub) -> list[tuple[str, str, str | None, int, int]]:
    return [(r.origin, r.method, r.range, r.status, r.bytes_sent) for r in hub.requests]


# --- What there is ---


def test_model_info_names_commit_and_files(hub: Hub, client: HfApi) -> None:
    repo = hub.add("org/name", FILES, gated=True)
    info = client.model_info("org/name", token=False)
    assert (info.id, info.sha, info.private, info.gated) == ("org/name", repo.sha, False, "auto")
    assert info.siblings is not None
    assert {sibling.rfilename: sibling.size for sibling in info.siblings} == dict.fromkeys(FILES)


def test_model_info_with_blobs_tells_sizes_and_hashes(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    info = client.model_info("org/name", files_metadata=True)
    assert info.siblings is not None
    assert {s.rfilename: (s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings} == {
        "config.json": (len(CONFIG), None),
        "model.safetensors": (len(WEIGHTS), SHA256),
        "onnx/deep/model.onnx": (4, hashlib.sha256(b"onnx").hexdigest()),
    }


def test_large_files_go_to_the_storage_whatever_they_are_called() -> None:
    with Hub(settings=Settings(lfs_above=100)) as hub:
        files = hub.add("org/name", {"a.json": b"1" * 100, "b.json": b"1" * 101}).files
        assert {name: blob.lfs for name, blob in files.items()} == {"a.json": False, "b.json": True}


def test_expanded_model_info_has_what_was_asked_for(hub: Hub, client: HfApi) -> None:
    repo = hub.add("org/name", FILES)
    info = client.model_info("org/name", expand=["sha", "gated"])
    assert (info.sha, info.gated, info.siblings) == (repo.sha, False, None)


@pytest.mark.parametrize("page_size", [1000, 2, 1])
def test_the_tree_has_files_and_folders_on_any_number_of_pages(
    page_size: int,
) -> None:
    with Hub(settings=Settings(page_size=page_size)) as hub:
        hub.add("org/name", FILES)
        entries = list(HfApi(endpoint=hub.url).list_repo_tree("org/name", recursive=True))
        assert [entry.path for entry in entries] == [
            "config.json",
            "model.safetensors",
            "onnx",
            "onnx/deep",
            "onnx/deep/model.onnx",
        ]
        assert len(hub.requests) == -(-5 // page_size)
        files = {file.path: file for file in entries if isinstance(file, RepoFile)}
        lfs = files["model.safetensors"].lfs
        assert lfs is not None
        assert (lfs.sha256, lfs.size) == (SHA256, len(WEIGHTS))
        assert files["config.json"].lfs is None


def test_the_tree_of_a_folder(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    assert [e.path for e in client.list_repo_tree("org/name", "onnx")] == ["onnx/deep"]
    (entry,) = client.list_repo_tree("org/name", "onnx/deep", expand=True)
    assert isinstance(entry, RepoFile)
    assert entry.last_commit is not None
    with pytest.raises(RemoteEntryNotFoundError):
        list(client.list_repo_tree("org/name", "absent"))


def test_paths_info_leaves_out_what_does_not_exist(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    infos = client.get_paths_info("org/name", ["onnx", "config.json", "absent"])
    assert [info.path for info in infos] == ["onnx", "config.json"]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, client: HfApi) -> None:
    first = hub.add("org/name", {"config.json": b"1"}).sha
    hub.tag("org/name", "v1")
    second = hub.add("org/name", {"config.json": b"2"}).sha
    hub.add("org/name", {"config.json": b"3"}, revision="de/v")
    contents = {
        revision: Path(
            client.hf_hub_download("org/name", "config.json", revision=revision)
        ).read_bytes()
        for revision in (first, "v1", second, "main", "de/v")
    }
    assert contents == {first: b"1", "v1": b"1", second: b"2", "main": b"2", "de/v": b"3"}
    assert [commit.commit_id for commit in client.list_repo_commits("org/name")] == [second, first]
    refs = client.list_repo_refs("org/name")
    assert {branch.name for branch in refs.branches} == {"main", "de/v"}
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first}


# --- The content of files ---


def test_metadata_of_a_large_file_come_with_its_redirect(hub: Hub) -> None:
    repo = hub.add("org/name", FILES)
    url = hf_hub_url("org/name", "model.safetensors", endpoint=hub.url)
    metadata = get_hf_file_metadata(url, token=MEMBER)
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (repo.sha, SHA256, len(WEIGHTS))
    assert not metadata.location.startswith(hub.url)
    headers = get_session().head(url, follow_redirects=False).headers
    assert headers["X-Linked-ETag"] == f'"{SHA256}"'
    assert headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert metadata.xet_file_data is None


@pytest.mark.parametrize("resolve_cache", [False, True])
def test_metadata_of_a_small_file(resolve_cache: bool) -> None:
    with Hub(settings=Settings(resolve_cache=resolve_cache)) as hub:
        repo = hub.add("org/name", FILES)
        metadata = get_hf_file_metadata(
            hf_hub_url("org/name", "config.json", endpoint=hub.url), token=False
        )
        oid = repo.files["config.json"].oid
        assert (metadata.commit_hash, metadata.etag, metadata.size) == (repo.sha, oid, len(CONFIG))
        assert oid == hashlib.sha1(b"blob 25\0" + CONFIG, usedforsecurity=False).hexdigest()
        assert ("resolve-cache" in metadata.location) == resolve_cache
        assert len(hub.requests) == 1 + resolve_cache


def test_the_token_is_not_sent_to_the_storage(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES, private=True)
    assert Path(client.hf_hub_download("org/name", "model.safetensors")).read_bytes() == WEIGHTS
    tokens = {request.origin: request.token for request in hub.requests}
    assert tokens == {"hub": MEMBER, "cdn": None}


@pytest.mark.parametrize(
    ("asked", "status", "begin", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=5-9", 206, 5, 10),
        ("bytes=299990-", 206, 299_990, 300_000),
        ("bytes=299990-999999", 206, 299_990, 300_000),
        ("bytes=-7", 206, 299_993, 300_000),
        ("bytes=-999999", 206, 0, 300_000),
        ("bytes=0-1,5-9", 200, 0, 300_000),
        ("bytes=300000-", 416, 0, 0),
    ],
)
def test_ranges_of_large_files(asked: str, status: int, begin: int, end: int, hub: Hub) -> None:
    hub.add("org/name", FILES)
    told, body = get(hub, "org/name/resolve/main/model.safetensors", Range=asked)
    assert (told, body) == (status, WEIGHTS[begin:end])
    assert served(hub)[1] == ("cdn", "GET", asked, status, end - begin)


def test_ranges_of_small_files(hub: Hub) -> None:
    hub.add("org/name", FILES)
    assert get(hub, "org/name/resolve/main/config.json", Range="bytes=1-3") == (206, CONFIG[1:4])


def test_files_of_gigabytes_are_served_from_disk(hub: Hub, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.seek(40 * GIB)
        file.write(b"end")
    hub.add("org/name", {"model.safetensors": big}, sha256={"model.safetensors": "0" * 64})
    path = "org/name/resolve/main/model.safetensors"
    assert get(hub, path, Range=f"bytes={40 * GIB - 1}-") == (206, b"\0end")
    metadata = get_hf_file_metadata(f"{hub.url}/{path}", token=False)
    assert (metadata.size, metadata.etag) == (40 * GIB + 3, "0" * 64)


def test_an_address_at_the_storage_is_valid_for_a_time_and_for_nothing_else(hub: Hub) -> None:
    hub.add("org/name", FILES)
    url = hf_hub_url("org/name", "model.safetensors", endpoint=hub.url)
    address = get_hf_file_metadata(url, token=False).location
    session = get_session()
    assert session.get(address).content == WEIGHTS
    assert session.get(address.replace("Expires=1", "Expires=2")).status_code == 403
    assert session.get(address.partition("?")[0]).status_code == 403
    assert session.get(address, headers={"Authorization": f"Bearer {MEMBER}"}).status_code == 400
    hub.expire_links()
    assert session.get(address).status_code == 403
    assert session.get(url).content == WEIGHTS


def test_an_address_at_the_storage_expires() -> None:
    with Hub(settings=Settings(link_seconds=-1)) as hub:
        hub.add("org/name", FILES)
        assert get(hub, "org/name/resolve/main/model.safetensors")[0] == 403


def test_a_snapshot_is_what_was_added(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    folder = Path(client.snapshot_download("org/name"))
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
    assert {name: path.read_bytes() for name, path in found.items()} == FILES


def test_a_snapshot_goes_on_where_a_run_before_was_cut(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    refused = hub.inject(Fault(Refuse(status=503), path="/repos/*.safetensors", times=None))
    with pytest.raises(HfHubHTTPError):
        client.snapshot_download("org/name", max_workers=1)
    assert refused.fired
    hub.forget()
    folder = Path(client.snapshot_download("org/name"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    fetched = [r.path.rpartition("/")[2] for r in hub.requests if "/repos/" in r.path]
    assert fetched.count("model.safetensors") == 1
    assert not any(r.path.endswith("config.json") for r in hub.requests)


def test_a_renamed_repository_redirects(hub: Hub, client: HfApi) -> None:
    hub.add("old", FILES)
    hub.rename("old", "org/older")
    hub.rename("org/older", "org/name")
    for name in ("old", "org/older"):
        assert client.model_info(name).id == "org/name"
        assert Path(client.hf_hub_download(name, "config.json")).read_bytes() == CONFIG
    assert get_session().get(f"{hub.url}/api/models/old", follow_redirects=False).status_code == 307


# --- Who may ---

ACCESS = [
    # visibility, token, status of model info, status of a file
    ("public", None, 200, 200),
    ("public", STRANGER, 200, 200),
    ("public", WRONG, 401, 401),
    ("public", EXPIRED, 401, 401),
    ("private", None, 401, 401),
    ("private", STRANGER, 404, 404),
    ("private", READER, 200, 200),
    ("gated", None, 200, 401),
    ("gated", STRANGER, 200, 403),
    ("gated", MEMBER, 200, 200),
    ("absent", None, 401, 401),
    ("absent", MEMBER, 404, 404),
]


@pytest.mark.parametrize(("kind", "token", "info", "file"), ACCESS)
def test_who_may_see_what(kind: str, token: str | None, info: int, file: int, hub: Hub) -> None:
    if kind != "absent":
        hub.add("org/name", FILES, private=kind == "private", gated=kind == "gated")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    assert get(hub, "api/models/org/name", **headers)[0] == info
    for name in ("config.json", "model.safetensors"):
        assert get(hub, f"org/name/resolve/main/{name}", **headers)[0] == file


def test_a_grant_opens_a_gated_repository(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES, gated=True).granted.add("stranger")
    path = client.hf_hub_download("org/name", "config.json", token=STRANGER)
    assert Path(path).read_bytes() == CONFIG


ERRORS: dict[str, tuple[Callable[[HfApi], object], type[Exception], int, str]] = {
    "missing": (lambda api: api.model_info("org/no"), RepositoryNotFoundError, 404, "Not Found"),
    "anonymous": (
        lambda api: api.model_info("org/no", token=False),
        RepositoryNotFoundError,
        401,
        "Invalid username or password.",
    ),
    "private": (
        lambda api: api.hf_hub_download("org/private", "config.json", token=STRANGER),
        RepositoryNotFoundError,
        404,
        "Repository Not Found",
    ),
    "gated": (
        lambda api: api.hf_hub_download("org/gated", "config.json", token=STRANGER),
        GatedRepoError,
        403,
        "you are not in the authorized list",
    ),
    "gated, anonymous": (
        lambda api: api.hf_hub_download("org/gated", "config.json", token=False),
        GatedRepoError,
        401,
        "Please log in",
    ),
    "revision": (
        lambda api: api.model_info("org/name", revision="no"),
        RevisionNotFoundError,
        404,
        "Invalid rev id: no",
    ),
    "entry": (
        lambda api: api.hf_hub_download("org/name", "no"),
        RemoteEntryNotFoundError,
        404,
        "Entry Not Found",
    ),
    "wrong token": (
        lambda api: api.model_info("org/name", token=WRONG),
        HfHubHTTPError,
        401,
        "Invalid credentials in Authorization header",
    ),
    "expired token": (
        lambda api: api.model_info("org/name", token=EXPIRED),
        HfHubHTTPError,
        401,
        "is expired",
    ),
    "who": (
        lambda api: api.whoami(token=WRONG),
        HfHubHTTPError,
        401,
        "Invalid user token",
    ),
    "foreign org": (
        lambda api: api.create_repo("org/new", token=STRANGER),
        HfHubHTTPError,
        403,
        "You don't have the rights",
    ),
    "token to read": (
        lambda api: api.create_branch("org/name", branch="x", token=READER),
        HfHubHTTPError,
        403,
        "write token",
    ),
    "taken": (lambda api: api.create_repo("org/name"), HfHubHTTPError, 409, "already created"),
    "branch": (
        lambda api: api.create_branch("org/name", branch="main"),
        HfHubHTTPError,
        409,
        "Reference already exists",
    ),
    "commit to a missing branch": (
        lambda api: upload(api, "org/name", {"a": b"1"}, revision="no"),
        RevisionNotFoundError,
        404,
        "Invalid rev id: no",
    ),
    "foreign commit": (
        lambda api: upload(api, "org/name", {"a": b"1"}, token=STRANGER),
        HfHubHTTPError,
        403,
        "create_pr",
    ),
    "stale commit": (
        lambda api: upload(api, "org/name", {"a": b"1"}, parent_commit="0" * 40),
        HfHubHTTPError,
        412,
        "A commit has happened since",
    ),
    "deleted twice": (
        lambda api: api.delete_file("no", "org/name"),
        RemoteEntryNotFoundError,
        404,
        "A file with this name doesn't exist",
    ),
    "metadata": (
        lambda api: upload(api, "org/name", {"README.md": b"---\na: [\n---\n"}),
        ValueError,
        400,
        "Invalid metadata",
    ),
}


def upload(
    api: HfApi, name: str, files: dict[str, bytes], token: str = MEMBER, **options: str
) -> object:
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete]
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(
        name,
        operations,
        commit_message="Add",
        token=token,
        revision=options.get("revision"),
        parent_commit=options.get("parent_commit"),
    )


@pytest.mark.parametrize("name", ERRORS)
def test_the_client_knows_the_error(name: str, hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    hub.add("org/private", FILES, private=True)
    hub.add("org/gated", FILES, gated=True)
    call, kind, status, message = ERRORS[name]
    with pytest.raises(kind, match=message) as caught:
        call(client)
    # A subclass would be another error.
    assert type(caught.value) is kind
    assert hub.requests[-1].status == status


# --- Writing ---


@pytest.fixture(params=["one piece", "parts"])
def writing(request: pytest.FixtureRequest) -> Iterator[tuple[Hub, HfApi]]:
    """A server that wants large files in one piece or in parts, and a client for it."""
    sizes = {"one piece": Settings(), "parts": Settings(multipart_above=1000, part_size=70_000)}
    with Hub(settings=sizes[request.param]) as hub:
        yield hub, HfApi(endpoint=hub.url, token=MEMBER)


@UPLOADS
def test_a_pushed_folder_comes_back(writing: tuple[Hub, HfApi], tmp_path: Path) -> None:
    hub, api = writing
    files = {"README.md": b"---\nlicense: mit\n---\n# A", "a/config.json": CONFIG, "empty": b""}
    files |= {"model.safetensors": WEIGHTS, "a/same.safetensors": WEIGHTS}
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    url = api.create_repo("org/new", private=True)
    assert url.repo_id == "org/new"
    assert api.create_repo("org/new", exist_ok=True) == url
    commit = api.upload_folder(repo_id="org/new", folder_path=tmp_path / "in")
    assert hub.repositories["org/new"].sha == commit.oid
    assert api.model_info("org/new").private
    folder = api.snapshot_download("org/new", local_dir=tmp_path / "out", revision=commit.oid)
    assert {name: (Path(folder) / name).read_bytes() for name in files} == files
    info = {entry.path: entry for entry in api.list_repo_tree("org/new") if entry.path in files}
    model = info["model.safetensors"]
    assert isinstance(model, RepoFile)
    assert model.lfs is not None
    assert model.lfs.sha256 == SHA256


@UPLOADS
def test_what_is_uploaded_is_not_uploaded_again(writing: tuple[Hub, HfApi]) -> None:
    hub, api = writing
    api.create_repo("org/new")
    first = CommitOperationAdd("model.safetensors", WEIGHTS)
    api.preupload_lfs_files("org/new", [first])
    sent = sum(request.bytes_received for request in hub.requests if request.origin == "cdn")
    assert sent == len(WEIGHTS)
    hub.forget()
    # As in a run that starts again: what was uploaded before was not committed.
    again = CommitOperationAdd("model.safetensors", WEIGHTS)
    api.preupload_lfs_files("org/new", [again])
    commit = api.create_commit("org/new", [again], commit_message="Add", create_pr=False)
    assert not any(request.origin == "cdn" for request in hub.requests)
    assert hub.repositories["org/new"].sha == commit.oid
    path = api.hf_hub_download("org/new", "model.safetensors")
    assert Path(path).read_bytes() == WEIGHTS


@UPLOADS
def test_a_wrong_byte_in_an_upload_is_found(writing: tuple[Hub, HfApi]) -> None:
    hub, api = writing
    api.create_repo("org/new")
    operation = CommitOperationAdd("model.safetensors", WEIGHTS)
    operation.upload_info.sha256 = hashlib.sha256(b"other").digest()
    with pytest.raises(RuntimeError) as caught:
        api.preupload_lfs_files("org/new", [operation])
    assert isinstance(caught.value.__cause__, BadRequestError)
    assert not hub.repositories["org/new"].objects


OPERATIONS: dict[str, tuple[int, list[tuple[str, object]]]] = {
    "not uploaded": (400, [("lfsFile", {"path": "a.bin", "oid": "0" * 64, "size": 1})]),
    "not its size": (400, [("lfsFile", {"path": "a.bin", "oid": SHA256, "size": 1})]),
    "to a folder above": (400, [("file", {"path": "../a", "content": ""})]),
    "to an absolute path": (400, [("file", {"path": "/a", "content": ""})]),
    "too large for git": (400, [("file", {"path": "a", "content": "A" * 2**24})]),
    "not base64": (400, [("file", {"path": "a", "content": "?"})]),
    "unknown": (400, [("copyFile", {"path": "a"})]),
    "not an operation": (400, [("file", "a")]),
    "deletes what is not there": (
        404,
        [("file", {"path": "a", "content": ""}), ("deletedFile", {"path": "b"})],
    ),
    "good": (200, [("file", {"path": "a", "content": "Yg=="}), ("deletedFile", {"path": "a"})]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_commit_is_made_as_a_whole_or_not_at_all(name: str, hub: Hub) -> None:
    repo = hub.add("org/name", {"a": b"a", "model.safetensors": WEIGHTS})
    before = repo.sha
    status, operations = OPERATIONS[name]
    lines = [("header", {"summary": "x"}), *operations]
    body = "\n".join(json.dumps({"key": key, "value": value}) for key, value in lines)
    answer = get_session().post(
        f"{hub.url}/api/models/org/name/commit/main", content=body, headers=BEARER
    )
    assert answer.status_code == status
    assert (repo.sha == before) == (status != 200)
    assert ("a" in repo.files) == (status != 200)


def test_only_branches_and_pull_requests_take_commits(hub: Hub, client: HfApi) -> None:
    before = hub.add("org/name", FILES).sha
    hub.tag("org/name", "v1")
    for revision in (before, "v1"):
        with pytest.raises(BadRequestError, match="is not a branch"):
            upload(client, "org/name", {"config.json": b"{}"}, revision=revision)


def test_a_file_that_is_there_already_makes_no_commit(hub: Hub, client: HfApi) -> None:
    before = hub.add("org/name", FILES).sha
    files = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
    upload(client, "org/name", files)
    assert hub.repositories["org/name"].sha == before
    assert not any(request.path.endswith("/commit/main") for request in hub.requests)


def test_bodies_in_chunks_are_for_the_hub_and_not_for_the_storage(hub: Hub) -> None:
    session = get_session()
    chunks = iter([b'{"name": "new", ', b'"organization": "org"}'])
    answer = session.post(f"{hub.url}/api/repos/create", content=chunks, headers=BEARER)
    assert answer.json()["name"] == "org/new"
    upload = batch(hub, "org/new", SHA256, len(WEIGHTS))["upload"]
    assert session.put(upload["href"], content=iter([WEIGHTS])).status_code == 501
    assert session.put(upload["href"], content=WEIGHTS).status_code == 200


def batch(hub: Hub, name: str, oid: str, size: int) -> Any:
    """What the server wants to be done to get a large file."""
    answer = get_session().post(
        f"{hub.url}/{name}.git/info/lfs/objects/batch",
        json={"objects": [{"oid": oid, "size": size}]},
        headers=BEARER,
    )
    return answer.json()["objects"][0].get("actions")


def test_an_upload_is_complete_with_all_its_parts() -> None:
    with Hub(settings=Settings(multipart_above=1, part_size=200_000)) as hub:
        hub.add("org/name", {})
        session = get_session()
        actions = batch(hub, "org/name", SHA256, len(WEIGHTS))
        places = actions["upload"]["header"]
        assert places.pop("chunk_size") == "200000"
        assert places.keys() == {"1", "2"}
        etags = {}
        for number, begin in (("2", 200_000), ("1", 0)):
            part = session.put(places[number], content=WEIGHTS[begin : begin + 200_000])
            etags[number] = part.headers["ETag"]
        verify = actions["verify"]["href"]
        content = {"oid": SHA256, "size": len(WEIGHTS)}
        for wanted, status in ((["1"], 400), (["1", "2"], 200)):
            assert session.post(verify, json=content, headers=BEARER).status_code == 404
            parts = [{"partNumber": int(number), "etag": etags[number]} for number in wanted]
            done = session.post(actions["upload"]["href"], json={"parts": parts})
            assert done.status_code == status
        # Two files of the same content are verified twice.
        for _ in range(2):
            assert session.post(verify, json=content, headers=BEARER).status_code == 200
        assert batch(hub, "org/name", SHA256, len(WEIGHTS)) is None


@pytest.mark.parametrize(("size", "sent"), [(300_000, WEIGHTS[:-1]), (299_999, WEIGHTS)])
def test_an_upload_must_have_its_size(size: int, sent: bytes, hub: Hub) -> None:
    hub.add("org/name", {})
    session = get_session()
    actions = batch(hub, "org/name", SHA256, size)
    session.put(actions["upload"]["href"], content=sent)
    answer = session.post(
        actions["verify"]["href"], json={"oid": SHA256, "size": size}, headers=BEARER
    )
    assert answer.status_code == 400
    assert batch(hub, "org/name", SHA256, size) is not None


@UPLOADS
def test_a_pull_request_leaves_the_branch_alone(hub: Hub, client: HfApi) -> None:
    repo = hub.add("org/name", FILES)
    before = repo.sha
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        CommitOperationAdd("new.safetensors", WEIGHTS + b"1"),
        CommitOperationDelete("config.json"),
        CommitOperationDelete("onnx/"),
    ]
    commit = client.create_commit(
        "org/name", operations, commit_message="Change", create_pr=True, token=STRANGER
    )
    assert (commit.pr_revision, repo.sha) == ("refs/pr/1", before)
    names = client.list_repo_files("org/name", revision="refs/pr/1")
    assert names == ["model.safetensors", "new.safetensors"]
    path = client.hf_hub_download("org/name", "new.safetensors", revision="refs/pr/1")
    assert Path(path).read_bytes() == WEIGHTS + b"1"
    opened = client.create_pull_request("org/name", title="Another")
    assert (opened.num, opened.title, opened.git_reference) == (2, "Another", "refs/pr/2")
    refs = client.list_repo_refs("org/name", include_pull_requests=True)
    assert refs.pull_requests is not None
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1", "refs/pr/2"]


def test_branches_tags_and_repositories_come_and_go(hub: Hub, client: HfApi) -> None:
    repo = hub.add("org/name", FILES)
    before = repo.sha
    client.create_branch("org/name", branch="a/b")
    client.create_branch("org/name", branch="a/b", exist_ok=True)
    client.create_tag("org/name", tag="v1")
    upload(client, "org/name", {"config.json": b"{}"}, revision="a/b")
    assert (repo.sha, client.model_info("org/name", revision="v1").sha) == (before, before)
    assert client.model_info("org/name", revision="a/b").sha != before
    client.delete_branch("org/name", branch="a/b")
    assert not client.revision_exists("org/name", "a/b")
    client.move_repo("org/name", "org/other")
    assert client.model_info("org/name").id == "org/other"
    client.delete_repo("org/other")
    assert not client.repo_exists("org/other")


def test_a_commit_is_made_when_its_parent_is_the_latest(hub: Hub, client: HfApi) -> None:
    before = hub.add("org/name", FILES).sha
    upload(client, "org/name", {"config.json": b"{}"}, parent_commit=before)
    assert hub.repositories["org/name"].files["config.json"].size == 2


def test_who_am_i(client: HfApi) -> None:
    answer = client.whoami()
    assert (answer["name"], [org["name"] for org in answer["orgs"]]) == ("member", ["org"])


# --- Faults ---

MODEL = "org/name/resolve/main/model.safetensors"


FAULTS: list[tuple[Kind, str | None, tuple[int, bytes] | type[Exception]]] = [
    (Flip(at=3), None, (200, WEIGHTS[:3] + bytes([WEIGHTS[3] ^ 1]) + WEIGHTS[4:])),
    (Flip(at=3), "bytes=10-12", (206, WEIGHTS[10:13])),
    (Flip(at=3), "bytes=10-13", (206, WEIGHTS[10:13] + bytes([WEIGHTS[13] ^ 1]))),
    (IgnoreRange(), "bytes=10-13", (200, WEIGHTS)),
    (Compress(), "bytes=10-13", (200, WEIGHTS)),
    (Short(by=2), None, (200, WEIGHTS[:-2])),
    (Short(by=2), "bytes=10-13", (206, WEIGHTS[10:12])),
    (Stall(seconds=0.01, after=100), None, (200, WEIGHTS)),
    (Refuse(status=507, message="Full"), None, (507, b'{"error": "Full"}')),
    (Cut(after=100), None, HTTP.RemoteProtocolError),
    (Cut(after=100, reset=True), None, HTTP.ReadError),
    (Cut(after=0), "bytes=0-", HTTP.RemoteProtocolError),
    (Drop(), None, HTTP.RemoteProtocolError),
    (RedirectLoop(), None, HTTP.TooManyRedirects),
]


@pytest.mark.parametrize(
    ("kind", "asked", "outcome"), FAULTS, ids=[f"{kind} {asked}" for kind, asked, _ in FAULTS]
)
def test_faults_of_an_answer(
    kind: Kind, asked: str | None, outcome: tuple[int, bytes] | type[Exception], hub: Hub
) -> None:
    hub.add("org/name", FILES)
    loop = isinstance(kind, RedirectLoop)
    hub.inject(Fault(kind, method="GET", path="/repos/*", times=None if loop else 1))
    headers = {"Range": asked} if asked else {}
    if isinstance(outcome, tuple):
        assert get(hub, MODEL, **headers) == outcome
    else:
        with pytest.raises(outcome):
            get(hub, MODEL, **headers)
    hub.forget()
    assert get(hub, MODEL) == (200, WEIGHTS)


def test_a_stall_is_a_timeout_for_who_waits_less(hub: Hub) -> None:
    hub.add("org/name", FILES)
    for after in (0, 100):
        hub.inject(Fault(Stall(seconds=30, after=after), path="/repos/*"))
        begin = time.monotonic()
        with pytest.raises(Exception, match="timed out"):
            get_session().get(f"{hub.url}/{MODEL}", timeout=0.1)
        # Who looks at the requests does not wait longer than the client did.
        assert hub.requests[-1].bytes_sent == after
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("skip", "every", "times", "statuses"),
    [
        (0, 1, 1, [500, 200, 200, 200, 200, 200]),
        (0, 1, None, [500, 500, 500, 500, 500, 500]),
        (2, 1, 2, [200, 200, 500, 500, 200, 200]),
        (1, 2, 2, [200, 500, 200, 500, 200, 200]),
        (0, 3, None, [500, 200, 200, 500, 200, 200]),
    ],
)
def test_when_a_fault_happens(
    skip: int, every: int, times: int | None, statuses: list[int], hub: Hub
) -> None:
    hub.add("org/name", FILES)
    kind = Refuse(status=500)
    injection = hub.inject(Fault(kind, "GET", "*.json", times=times, skip=skip, every=every))
    path = "org/name/resolve/main/config.json"
    for status in statuses:
        # Neither another method nor another path is concerned.
        assert get_session().head(f"{hub.url}/{path}").status_code == 200
        assert get(hub, "api/models/org/name")[0] == 200
        assert get(hub, path)[0] == status
    assert injection.fired == statuses.count(500)


@pytest.mark.parametrize(("accepted", "coding"), [("gzip", "gzip"), ("identity", None)])
def test_compression_is_for_who_accepts_it(accepted: str, coding: str | None, hub: Hub) -> None:
    hub.add("org/name", FILES)
    hub.inject(Fault(Compress()))
    headers = {"Accept-Encoding": accepted, "Range": "bytes=1-3"}
    answer = get_session().get(f"{hub.url}/org/name/resolve/main/config.json", headers=headers)
    assert answer.headers.get("Content-Encoding") == coding
    assert answer.content == (CONFIG if coding else CONFIG[1:4])


def test_a_request_meets_one_fault_at_a_time(hub: Hub) -> None:
    hub.add("org/name", FILES)
    for status in (500, 502):
        hub.inject(Fault(Refuse(status=status)))
    assert [get(hub, "api/models/org/name")[0] for _ in range(3)] == [500, 502, 200]


def test_the_client_waits_as_long_as_a_rate_limit_says(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    hub.inject(Fault(rate_limited(0), path="*/tree/*"))
    begin = time.monotonic()
    assert len(list(client.list_repo_tree("org/name"))) == 3
    assert [request.status for request in hub.requests] == [429, 200]
    assert time.monotonic() - begin >= 1
    hub.inject(Fault(rate_limited(7)))
    with pytest.raises(HfHubHTTPError, match="Retry after 7 seconds"):
        client.model_info("org/name")


def test_a_hub_that_is_down_is_no_missing_repository(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    hub.inject(Fault(Refuse(status=503), times=None))
    with pytest.raises(HfHubHTTPError) as caught:
        client.model_info("org/name")
    assert type(caught.value) is HfHubHTTPError
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("org/name", endpoint=hub.url, cache_dir=hub.home, token=False)


def test_the_client_goes_on_after_a_cut(hub: Hub, client: HfApi) -> None:
    hub.add("org/name", FILES)
    hub.inject(Fault(Cut(after=100_000), method="GET", path="/repos/*"))
    assert Path(client.hf_hub_download("org/name", "model.safetensors")).read_bytes() == WEIGHTS
    assert [r.bytes_sent for r in hub.requests if r.origin == "cdn"] == [100_000, len(WEIGHTS)]


@UPLOADS
def test_the_client_sends_again_what_was_cut(writing: tuple[Hub, HfApi]) -> None:
    hub, api = writing
    api.create_repo("org/new")
    cut = hub.inject(Fault(CutUpload(after=5_000), method="PUT"))
    upload(api, "org/new", {"model.safetensors": WEIGHTS})
    received = [r.bytes_received for r in hub.requests if r.method == "PUT"]
    assert (cut.fired, received[0], sum(received)) == (1, 5_000, 5_000 + len(WEIGHTS))
    path = api.hf_hub_download("org/new", "model.safetensors")
    assert Path(path).read_bytes() == WEIGHTS


@UPLOADS
def test_a_storage_that_refuses_ends_an_upload(writing: tuple[Hub, HfApi]) -> None:
    hub, api = writing
    api.create_repo("org/new")
    hub.inject(Fault(Refuse(status=403, message="Quota exceeded"), "PUT", "/upload/*", times=None))
    with pytest.raises(RuntimeError) as caught:
        upload(api, "org/new", {"model.safetensors": WEIGHTS})
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert "Quota exceeded" in str(caught.value.__cause__)
    repo = hub.repositories["org/new"]
    assert not repo.objects
    assert set(repo.files) == {".gitattributes"}


@pytest.mark.parametrize(
    ("kind", "made"),
    [(Drop(), False), (Refuse(status=500), False), (Cut(after=0), True)],
    ids=["dropped", "refused", "answer lost"],
)
def test_a_commit_without_answer_is_made_or_not(
    kind: Kind, made: bool, hub: Hub, client: HfApi
) -> None:
    before = hub.add("org/name", FILES).sha
    hub.inject(Fault(kind, path="*/commit/*"))
    with pytest.raises((HTTP.RemoteProtocolError, HfHubHTTPError)):
        upload(client, "org/name", {"config.json": b"{}"})
    assert (hub.repositories["org/name"].sha != before) == made


# --- The server itself ---


def test_a_failure_in_the_server_is_raised_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(CONFIG)
    with pytest.raises(FileNotFoundError), Hub() as hub:
        hub.add("org/name", {"config.json": path})
        path.unlink()
        assert get(hub, "org/name/resolve/main/config.json")[0] == 500


def test_the_environment_leads_a_process_to_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/name", FILES, private=True)
    code = "import huggingface_hub as h; print(h.snapshot_download('org/name'))"
    words = [sys.executable, "-W", "error", "-c", code]
    env = environment(hub, token=MEMBER)
    answer = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    folder = Path(answer.stdout.strip())
    assert folder.is_relative_to(hub.home)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    # Nothing else was asked, such as what telemetry wants to know.
    assert {request.path.count("org/name") for request in hub.requests} == {1}
    assert run_dus(hub, "--version", cwd=tmp_path).returncode == 0
