"""What fuzzing starts from: sound input of each kind, unusual input, and what once failed.

Input that made a target fail is kept in `regressions/`, one file a case, named by its target and
by what went wrong: `header-two-keys`.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.checkpoints import mistral_checkpoint
from tests.execute.helpers import run
from tests.format.raw_files import entry, framed, header
from tests.fuzz.targets import FILES, SEPARATOR

REGRESSIONS: Final = Path(__file__).with_name("regressions")

_GOLDEN: Final = Path(__file__).parents[1] / "model" / "golden"
"""Configs of real models, before and after."""

_PAIR: Final = header(a=entry("F16", [2, 3], [0, 12]), b=entry("BF16", [0], [12, 12]))


def seeds(target: str) -> Iterator[bytes]:
    """Input for `target` from which a fuzzer finds its way."""
    yield from {"header": _headers, "index": _indexes, "config": _configs, "folder": _folders}[
        target
    ]()
    for path in sorted(REGRESSIONS.glob(f"{target}-*")):
        yield path.read_bytes()


def _headers() -> Iterator[bytes]:
    yield framed(_PAIR, bytes(12))
    yield framed(_PAIR + b"   ", bytes(12))
    yield framed(header(a=entry("F4", [2, 3], [0, 3]), __metadata__={"format": "pt"}), bytes(3))
    yield framed(header(a=entry("F8_E4M3", [], [0, 1], more=[1e9]), __metadata__=None), b"\0")
    yield framed(header(a=["F32", [2, 2], [0, 16]]), bytes(16))
    yield framed(header(a=entry({"F32": None}, [2, 2], [0, 16])), bytes(16))
    yield framed(rb'{"a":1,"\u0061":{"dtype":"U8","shape":[-0],"data_offsets":[0,0.0]}}')


def _indexes() -> Iterator[bytes]:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    yield json.dumps({"metadata": {"total_size": 7}, "weight_map": shards}).encode()
    yield json.dumps({"weight_map": {"a": "../b", "\u202e": "x/y"}, "metadata": []}).encode()
    yield rb'{"weight_map":{"a":"\u0000","\u0061":["b"]},"metadata":null}'


def _configs() -> Iterator[bytes]:
    for path in sorted(_GOLDEN.glob("*.json")):
        # Short seeds are mutated with more success; one field of each kind is enough.
        for side in json.loads(path.read_bytes()).values():
            if isinstance(side, dict):
                yield json.dumps(side, separators=(",", ":")).encode()
    yield b'{"layer_types":["full_attention"],"mlp_only_layers":[-1,99],"head_dim":1e9}'
    yield b'{"quantization_config":{"ignore":["re:.*layers.1","model.layers.1.mlp"]}}'


def _folders() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory(prefix="dus-fuzz") as place:
        for shards in (1, 2):
            folder = mistral_checkpoint(Path(place) / str(shards), layers=2, shards=shards)
            yield _joined(folder)
            # Two shards again, and a dus.json.
            run(folder, folder.with_name(f"{shards}-scaled"), drop=0)
            yield _joined(folder.with_name(f"{shards}-scaled"))
    tiny = framed(header(**{"model.layers.0.a": entry("F16", [2, 3], [0, 12])}), bytes(12))
    record = json.dumps({"schema": "dus-plan/1", "shards": [], "config_changes": []}).encode()
    yield SEPARATOR.join([b'{"num_hidden_layers":1}', b"", b"", b"", tiny, record, b"{}"])


def _joined(folder: Path) -> bytes:
    paths = (folder / name for name in FILES)
    return SEPARATOR.join(path.read_bytes() if path.exists() else b"" for path in paths)
