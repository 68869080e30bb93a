"""The Hub's API for uploading large files, in the ways of git LFS: in one piece or in parts."""

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Final

from tests.hub.access import (
    REPO,
    REVISION,
    Route,
    check_signature,
    commit_of,
    is_proposal,
    writable,
)
from tests.hub.answers import Answer, Call, RefusedError, as_json, text
from tests.hub.repositories import Arrived, PartedUpload, Repository, State, digest_of

PIECE: Final = 2**20
MAX_PARTS: Final = 10_000

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def preupload(state: State, call: Call) -> Answer:
    """Which files are to be uploaded as large ones, and which the repository has already."""
    repo, _ = writable(state, call, proposal=is_proposal(call))
    present = commit_of(repo, call.names["revision"]).files
    answers = []
    for file in call.objects("files", limit=256):
        path, size = text(file, "path"), file.get("size")
        if not isinstance(size, int):
            raise RefusedError(400, "size should be a number")
        mode = "lfs" if state.is_lfs(path, size) else "regular"
        answer: dict[str, object] = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if path in present:
            answer["oid"] = present[path].etag
        answers.append(answer)
    return as_json({"files": answers, "commitOid": repo.sha})


def lfs_batch(state: State, call: Call) -> Answer:
    """Where large files are to be sent: in one piece or in parts. What is there needs no upload."""
    repo, _ = writable(state, call, proposal=True)
    answers: list[dict[str, object]] = []
    transfer = "basic"
    for wanted in call.objects("objects", limit=1000):
        oid, size = wanted.get("oid"), wanted.get("size")
        answer: dict[str, object] = {"oid": oid, "size": size}
        answers.append(answer)
        if not isinstance(oid, str) or not _SHA256.fullmatch(oid) or not isinstance(size, int):
            answer["error"] = {"code": 422, "message": "Invalid oid or size"}
        elif repo.find_object(oid, size) is None:
            answer["authenticated"] = True
            parts = size > state.settings.multipart_above
            transfer = "multipart" if parts else transfer
            upload = _in_parts(state, repo, oid, size) if parts else _in_one(state, repo, oid)
            verify = f"{state.hub_url}/{repo.id}.git/info/lfs/objects/verify"
            answer["actions"] = {"upload": upload, "verify": {"href": verify, "header": {}}}
    return as_json({"transfer": transfer, "objects": answers})


def _in_one(state: State, repo: Repository, oid: str) -> dict[str, object]:
    path = f"/upload/{repo.id}/{oid}"
    return {"href": f"{state.cdn_url}{path}?{state.sign(path)}"}


def _in_parts(state: State, repo: Repository, oid: str, size: int) -> dict[str, object]:
    length = max(state.settings.part_size, -(-size // MAX_PARTS))
    file = state.keep(b"")
    with state.lock:
        state.uploads[file.name] = PartedUpload(path=file, part_size=length)
    place = f"{repo.id}/{oid}/{file.name}"
    parts = {
        str(number): f"{state.cdn_url}{path}?{state.sign(path)}"
        for number in range(1, -(-size // length) + 1)
        for path in [f"/upload/{place}/{number}"]
    }
    complete = f"/api/complete_multipart/{place}"
    return {
        "href": f"{state.hub_url}{complete}?{state.sign(complete)}",
        "header": {"chunk_size": str(length), **parts},
    }


def _pieces(call: Call) -> Iterator[bytes]:
    if call.body.chunked:
        raise RefusedError(501, "NotImplemented: Transfer-Encoding")
    while piece := call.body.read(PIECE):
        yield piece


def put_whole(state: State, call: Call) -> Answer:
    check_signature(state, call)
    path = state.fresh_path()
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for piece in _pieces(call):
            file.write(piece)
            sha256.update(piece)
    return _arrive(state, call, Arrived(path=path, sha256=sha256.hexdigest()))


def _arrive(state: State, call: Call, arrived: Arrived) -> Answer:
    with state.lock:
        state.arrived[call.names["repo"], call.names["oid"]] = arrived
    return as_json({"success": True}, headers=(("ETag", f'"{arrived.sha256}"'),))


def _parted_upload(state: State, call: Call) -> PartedUpload:
    check_signature(state, call)
    try:
        return state.uploads[call.names["upload"]]
    except KeyError:
        raise RefusedError(404, "NoSuchUpload: The specified upload does not exist.") from None


def put_part(state: State, call: Call) -> Answer:
    upload = _parted_upload(state, call)
    number = int(call.names["part"])
    md5 = hashlib.md5(usedforsecurity=False)
    offset = (number - 1) * upload.part_size
    with upload.path.open("r+b") as file:
        for piece in _pieces(call):
            os.pwrite(file.fileno(), piece, offset)
            offset += len(piece)
            md5.update(piece)
    etag = f'"{md5.hexdigest()}"'
    with state.lock:
        upload.etags[number] = etag
    return Answer(status=200, headers=(("ETag", etag),))


def complete_multipart(state: State, call: Call) -> Answer:
    upload = _parted_upload(state, call)
    parts = call.objects("parts", limit=MAX_PARTS)
    if [(part.get("partNumber"), part.get("etag")) for part in parts] != sorted(
        upload.etags.items()
    ):
        raise RefusedError(400, "InvalidPart: One or more of the parts could not be found")
    sha256 = digest_of("sha256", upload.path)
    return _arrive(state, call, Arrived(path=upload.path, sha256=sha256))


def verify(state: State, call: Call) -> Answer:
    """Takes what arrived into the repository, if it has the announced size and hash.

    Otherwise it is thrown away, and the next batch asks for it again.
    """
    repo, _ = writable(state, call, proposal=True)
    wanted = call.json()
    oid = text(wanted, "oid")
    with state.lock:
        arrived = state.arrived.pop((repo.id, oid), None)
        if arrived is not None:
            size = arrived.path.stat().st_size
            if (oid, wanted.get("size")) != (arrived.sha256, size):
                arrived.path.unlink()
                raise RefusedError(
                    400, f"{oid}: {size} bytes with SHA-256 {arrived.sha256} were sent"
                )
            repo.objects[oid] = arrived.path
        elif oid not in repo.objects:
            raise RefusedError(404, f"{oid} was not uploaded")
    return as_json({"success": True})


OID: Final = r"(?P<oid>[0-9a-f]{64})"
UPLOAD: Final = r"(?P<upload>[0-9a-f]+)"

ROUTES: Final = (
    Route("POST", rf"/api/models/{REPO}/preupload/{REVISION}", preupload),
    Route("POST", rf"/{REPO}\.git/info/lfs/objects/batch", lfs_batch),
    Route("POST", rf"/{REPO}\.git/info/lfs/objects/verify", verify),
    Route("POST", rf"/api/complete_multipart/{REPO}/{OID}/{UPLOAD}", complete_multipart),
    Route("PUT", rf"/upload/{REPO}/{OID}", put_whole, origin="cdn"),
    Route("PUT", rf"/upload/{REPO}/{OID}/{UPLOAD}/(?P<part>\d+)", put_part, origin="cdn"),
)
