"""The real client against the local server: each rule of the protocol that `dus` relies on."""

import hashlib
from pathlib import Path

from huggingface_hub import HfApi

from tests.hub.server import Hub

CONFIG = b'{"model_type": "mistral"}'
WEIGHTS = bytes(range(256)) * 4096
FILES: dict[str, bytes | Path] = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "onnx/deep/model.onnx": b"onnx",
}


# --- Reading ---


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
    told = {s.rfilename: (s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings}
    assert told == {
        "config.json": (len(CONFIG), None),
        "model.safetensors": (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()),
        "onnx/deep/model.onnx": (4, hashlib.sha256(b"onnx").hexdigest()),
    }
