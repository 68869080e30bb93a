"""Faults that a checkpoint can have: each is a change to a sound one, and the code of the finding.

One table for three uses: the tests of `dus verify`, the examples of docs/findings.md, and the
comparison with other checkers (`make compare`).
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from dus_cli.documents import write_documents
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.checksums import compute_checksums
from dus_cli.verify.run import VerifyRequest
from tests.checkpoints import Array, write_checkpoint

Change: TypeAlias = Callable[[Path], object]
"""Spoils the checkpoint in a folder."""

FIRST, SECOND = "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"
LAST = "model-00004-of-00004.safetensors"
INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDINGS = "model.embed_tokens.weight"

_LAYER: Final = {
    "self_attn.q_proj.weight": (16, 16),
    "self_attn.k_proj.weight": (8, 16),
    "self_attn.v_proj.weight": (8, 16),
    "self_attn.o_proj.weight": (16, 16),
    "mlp.gate_proj.weight": (32, 16),
    "mlp.up_proj.weight": (32, 16),
    "mlp.down_proj.weight": (16, 32),
    "input_layernorm.weight": (16,),
    "post_attention_layernorm.weight": (16,),
}
_VOCABULARY: Final = 40


def write_base(folder: Path) -> Path:
    """A whole Mistral of four tiny layers in two shards, as transformers would save it."""
    random = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (_VOCABULARY, 16)}
    for layer in range(4):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _LAYER.items()}
    shapes |= {"model.norm.weight": (16,), "lm_head.weight": (_VOCABULARY, 16)}
    tensors: dict[str, Array] = {
        name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()
    }
    config = {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 4,
        "hidden_size": 16,
        "intermediate_size": 32,
        "model_type": "mistral",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": _VOCABULARY,
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {
            "type": "WordLevel",
            "vocab": {f"word{number}": number for number in range(_VOCABULARY)},
            "unk_token": "word0",
        },
    }
    files = {
        "tokenizer.json": json.dumps(tokenizer),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}),
        "generation_config.json": json.dumps({"bos_token_id": 1, "eos_token_id": 2}),
    }
    return write_checkpoint(folder, tensors, config, shards=2, files=files)


def write_result(base: Path, folder: Path) -> Path:
    """`base` up-scaled from four layers to six (m = 1), in four shards, with its dus.json."""
    checkpoint = open_checkpoint(base)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=1))
    execute(plan, base, folder, write_documents(plan, checkpoint.card))
    return folder


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_shard(path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header, data = read_header(path)
    change(header)
    write_shard(path, header, data)


def shard_of(folder: Path, tensor: str) -> Path:
    """The shard that really holds a tensor."""
    return next(p for p in sorted(folder.glob("*.safetensors")) if tensor in read_header(p)[0])


def edit_tensor(folder: Path, tensor: str, change: Callable[[Array], None]) -> None:
    """Changes a float16 tensor's values in place; no other byte of the file changes."""
    path = shard_of(folder, tensor)
    header, data = read_header(path)
    begin, end = header[tensor]["data_offsets"]
    values = np.frombuffer(data[begin:end], np.float16).copy()
    change(values)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - len(data) + begin)
        file.write(values.tobytes())


def drop_tensors(folder: Path, *tensors: str, from_index: bool = True) -> None:
    """Takes tensors out of their shards, and the index, cleanly."""
    for tensor in tensors:
        path = shard_of(folder, tensor)
        header, data = read_header(path)
        begin, end = header.pop(tensor)["data_offsets"]
        for name, entry in header.items():
            if name != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [offset - end + begin for offset in entry["data_offsets"]]
        write_shard(path, header, data[:begin] + data[end:])
        if from_index:
            edit_json(folder / INDEX, partial(_forget, tensor))
    _fix_total(folder)


def add_tensor(folder: Path, name: str, values: Array, *, dtype: str = "F16") -> None:
    """Adds a tensor to the last shard and the index, cleanly."""
    path = folder / LAST
    header, data = read_header(path)
    end = len(data) + values.nbytes
    header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [len(data), end]}
    write_shard(path, header, data + values.tobytes())
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({name: LAST}))
    _fix_total(folder)


def replace_tensor(folder: Path, name: str, values: Array, *, dtype: str = "F16") -> None:
    """Puts a tensor of another shape or dtype in a tensor's place."""
    drop_tensors(folder, name)
    add_tensor(folder, name, values, dtype=dtype)


def _fix_total(folder: Path) -> None:
    total = sum(
        entry["data_offsets"][1] - entry["data_offsets"][0]
        for path in folder.glob("*.safetensors")
        for name, entry in read_header(path)[0].items()
        if name != "__metadata__"
    )
    edit_json(folder / INDEX, lambda index: index["metadata"].update(total_size=total))


def swap_layers(folder: Path, one: int, other: int) -> None:
    """Exchanges the bytes of two layers."""
    for parameter in _LAYER:
        names = [f"model.layers.{layer}.{parameter}" for layer in (one, other)]
        held = [_values(folder, name) for name in names]
        for name, values in zip(names, reversed(held), strict=True):
            edit_tensor(folder, name, partial(_assign, values))


def fill_layer(folder: Path, layer: int, base_layer: int) -> None:
    """Puts a layer of the base where the plan has another one."""
    for parameter in _LAYER:
        values = _values(folder.parent / "base", f"model.layers.{base_layer}.{parameter}")
        name = f"model.layers.{layer}.{parameter}"
        edit_tensor(folder, name, partial(_assign, values))


def _values(folder: Path, tensor: str) -> Array:
    header, data = read_header(shard_of(folder, tensor))
    begin, end = header[tensor]["data_offsets"]
    return np.frombuffer(data[begin:end], np.float16).copy()


def _assign(new: Array, old: Array) -> None:
    old[:] = new


def _forget(tensor: str, index: dict[str, Any]) -> None:
    del index["weight_map"][tensor]


def _set(values: Array, index: int, value: float) -> None:
    values[index] = value


def on_json(name: str, change: Callable[[Any], object]) -> Change:
    return lambda folder: edit_json(folder / name, change)


def on_header(shard: str, change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: edit_header(folder / shard, change)


def on_bytes(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: _replace(folder / name, change)


def _replace(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def config(**fields: object) -> Change:
    return on_json("config.json", lambda value: value.update(fields))


def _first_tensor(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for name, entry in header.items() if name != "__metadata__")
    return entry


def _tensor_in_two_shards(folder: Path) -> None:
    values = _values(folder, EMBEDDINGS)
    header, data = read_header(folder / LAST)
    header[EMBEDDINGS] = {
        "dtype": "F16",
        "shape": [_VOCABULARY, 16],
        "data_offsets": [len(data), len(data) + values.nbytes],
    }
    write_shard(folder / LAST, header, data + values.tobytes())
    _fix_total(folder)


def _hole(folder: Path) -> None:
    header, data = read_header(folder / LAST)
    last = max(
        (e for n, e in header.items() if n != "__metadata__"), key=lambda e: e["data_offsets"]
    )
    last["data_offsets"] = [offset + 8 for offset in last["data_offsets"]]
    write_shard(folder / LAST, header, data + bytes(8))


def _overlap(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        entries.sort(key=lambda entry: entry["data_offsets"])
        length = entries[0]["data_offsets"][1]
        same = next(e for e in entries[1:] if e["data_offsets"][1] - e["data_offsets"][0] <= length)
        begin, end = same["data_offsets"]
        same["data_offsets"] = [0, end - begin]

    edit_header(folder / LAST, change)


def _escaping_link(folder: Path) -> None:
    outside = folder.parent / "secret.json"
    outside.write_text("{}", encoding="utf-8")
    (folder / "special_tokens_map.json").symlink_to(outside)


def _renumbered_shards(folder: Path) -> None:
    os.rename(folder / LAST, folder / "model-00007-of-00004.safetensors")
    edit_json(
        folder / INDEX,
        lambda index: index.update(
            weight_map={
                name: shard.replace("00004-of", "00007-of")
                for name, shard in index["weight_map"].items()
            }
        ),
    )


def _fifo(folder: Path) -> None:
    (folder / SECOND).unlink()
    os.mkfifo(folder / SECOND)


def _unknown_and_incomplete(folder: Path) -> None:
    drop_tensors(folder, "model.layers.2.mlp.down_proj.weight")
    edit_json(folder / "config.json", lambda value: value.update(model_type="own"))


def _duplicate_key(raw: bytes) -> bytes:
    return raw.replace(b'"model.norm.weight"', b'"model.norm.weight": "x", "model.norm.weight"', 1)


def _duplicate_header_key(folder: Path) -> None:
    header, data = read_header(folder / LAST)
    name = next(name for name in header if name.endswith("weight"))
    text = json.dumps(header)[:-1]
    text += f', "{name.removesuffix("weight")}w\\u0065ight": {json.dumps(header[name])}}}'
    write_shard(folder / LAST, text.encode("utf-8"), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One change, what it is called, and the code of the finding that must name it.

    `options` are what `dus verify` needs to see it; `also` are further codes that the same change
    rightly causes.
    """

    name: str
    code: str
    change: Change
    options: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


DEEP: Final = ("--deep",)
BASE: Final = ("--base", "base")
SUMS: Final = ("--checksums", "sums.json")

FAULTS: Final = (
    Fault(name="a shard is a pipe", code="file-unreadable", change=_fifo),
    Fault(name="a link to a file elsewhere", code="file-link", change=_escaping_link),
    Fault(
        name="a tokenizer cut short",
        code="file-json",
        change=on_bytes("tokenizer.json", lambda raw: raw[:1]),
        also=("record-file",),
    ),
    Fault(
        name="no tokenizer",
        code="tokenizer-missing",
        change=lambda folder: (folder / "tokenizer.json").unlink(),
        also=("record-file",),
    ),
    Fault(
        name="a token beyond the embeddings",
        code="tokenizer-vocabulary",
        change=on_json("tokenizer.json", lambda value: value["model"]["vocab"].update(word40=40)),
        also=("record-file",),
    ),
    Fault(
        name="no generation_config.json",
        code="generation-config-missing",
        change=lambda folder: (folder / "generation_config.json").unlink(),
        also=("record-file",),
    ),
    Fault(
        name="custom code that is not there",
        code="code-missing",
        change=config(auto_map={"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}),
    ),
    Fault(
        name="a header length of petabytes",
        code="header-broken",
        change=on_bytes(FIRST, lambda raw: b"\xff" * 7 + b"\x0f" + raw[8:]),
    ),
    Fault(
        name="a Git LFS pointer instead of a shard",
        code="header-broken",
        change=on_bytes(
            FIRST,
            lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        ),
    ),
    Fault(
        name="a header that is not JSON",
        code="header-broken",
        change=lambda folder: write_shard(folder / FIRST, b'{"a": ', b""),
    ),
    Fault(
        name="a tensor twice in a header, behind an escape",
        code="header-broken",
        change=_duplicate_header_key,
    ),
    Fault(
        name="metadata that is not text",
        code="header-metadata",
        change=on_header(FIRST, lambda header: header["__metadata__"].update(step=7)),
    ),
    Fault(
        name="an unknown field in a tensor's entry",
        code="header-unusual",
        change=on_header(FIRST, lambda header: _first_tensor(header).update(stride=[1, 1])),
    ),
    Fault(
        name="metadata without a format",
        code="header-format",
        change=on_header(FIRST, lambda header: header.pop("__metadata__")),
    ),
    Fault(
        name="a tensor without a shape",
        code="tensor-entry",
        change=on_header(FIRST, lambda header: _first_tensor(header).pop("shape")),
    ),
    Fault(
        name="a negative dimension",
        code="tensor-entry",
        change=on_header(FIRST, lambda header: _first_tensor(header).update(shape=[-40, -16])),
    ),
    Fault(
        name="a dtype that does not exist",
        code="tensor-dtype",
        change=on_header(FIRST, lambda header: _first_tensor(header).update(dtype="F17")),
    ),
    Fault(
        name="a shape that does not fill its bytes",
        code="tensor-size",
        change=on_header(FIRST, lambda header: _first_tensor(header)["shape"].append(2)),
    ),
    Fault(
        name="two tensors over each other", code="data-overlap", change=_overlap, also=("data-gap",)
    ),
    Fault(name="a hole before the last tensor", code="data-gap", change=_hole),
    Fault(
        name="a shard cut short",
        code="data-length",
        change=on_bytes(SECOND, lambda raw: raw[:-100]),
    ),
    Fault(
        name="bytes behind the last tensor",
        code="data-length",
        change=on_bytes(SECOND, lambda raw: raw + b"more"),
    ),
    Fault(
        name="an index that is not JSON",
        code="index-json",
        change=on_bytes(INDEX, lambda raw: raw[:-10]),
    ),
    Fault(
        name="a tensor twice in the index",
        code="index-json",
        change=on_bytes(INDEX, _duplicate_key),
    ),
    Fault(
        name="an index that leads out of the folder",
        code="index-shard-name",
        change=on_json(
            INDEX, lambda index: index["weight_map"].update({EMBEDDINGS: "../../secret"})
        ),
        also=("index-tensor-missing",),
    ),
    Fault(
        name="a shard missing",
        code="index-shard-missing",
        change=lambda folder: (folder / SECOND).unlink(),
    ),
    Fault(
        name="a tensor that the index forgets",
        code="index-tensor-missing",
        change=on_json(INDEX, lambda index: index["weight_map"].pop("model.norm.weight")),
    ),
    Fault(
        name="a tensor that only the index knows",
        code="index-tensor-unknown",
        change=on_json(INDEX, lambda index: index["weight_map"].update({"model.extra": FIRST})),
    ),
    Fault(
        name="a tensor in another shard than the index says",
        code="index-wrong-shard",
        change=on_json(INDEX, lambda index: index["weight_map"].update({EMBEDDINGS: LAST})),
    ),
    Fault(
        name="an old whole file beside the shards",
        code="index-bypassed",
        change=lambda folder: shutil.copy(folder / FIRST, folder / "model.safetensors"),
        also=("shard-stray",),
    ),
    Fault(
        name="shards without their index",
        code="index-missing",
        change=lambda folder: (folder / INDEX).unlink(),
    ),
    Fault(
        name="a total size that is wrong",
        code="index-total-size",
        change=on_json(INDEX, lambda index: index["metadata"].update(total_size=1)),
    ),
    Fault(name="a tensor in two shards", code="tensor-twice", change=_tensor_in_two_shards),
    Fault(
        name="a shard of another model left behind",
        code="shard-stray",
        change=lambda folder: shutil.copy(
            folder / FIRST, folder / "model-00001-of-00002.safetensors"
        ),
    ),
    Fault(name="a shard with the wrong number", code="shard-numbering", change=_renumbered_shards),
    Fault(
        name="no config",
        code="config-missing",
        change=lambda folder: (folder / "config.json").unlink(),
    ),
    Fault(
        name="a config that is not JSON",
        code="config-json",
        change=on_bytes("config.json", lambda raw: raw[:-5]),
    ),
    Fault(
        name="the layer count not raised",
        code="config-layer-count",
        change=config(num_hidden_layers=4),
        also=("record-config",),
    ),
    Fault(
        name="a list of layer types not lengthened",
        code="config-layer-list",
        change=config(layer_types=["full_attention"] * 4),
    ),
    Fault(
        name="a layer number beyond the last",
        code="config-layer-number",
        change=config(mlp_only_layers=[9]),
    ),
    Fault(
        name="a vocabulary of another size",
        code="config-shape",
        change=config(vocab_size=48),
    ),
    Fault(
        name="heads of another number",
        code="config-shape",
        change=config(num_key_value_heads=4),
    ),
    Fault(name="another dtype stated", code="config-dtype", change=config(torch_dtype="bfloat16")),
    Fault(
        name="a head that is gone",
        code="head-missing",
        change=lambda folder: drop_tensors(folder, "lm_head.weight"),
    ),
    Fault(
        name="a head stored although tied",
        code="head-tied",
        change=config(tie_word_embeddings=True),
    ),
    Fault(
        name="a layer gone from the middle",
        code="layer-missing",
        change=lambda folder: drop_tensors(
            folder, *(f"model.layers.4.{parameter}" for parameter in _LAYER)
        ),
    ),
    Fault(
        name="a tensor gone from one layer",
        code="layer-incomplete",
        change=lambda folder: drop_tensors(folder, "model.layers.2.mlp.down_proj.weight"),
    ),
    Fault(
        name="a tensor too many in one layer",
        code="layer-extra",
        change=lambda folder: add_tensor(
            folder, "model.layers.2.mlp.down_proj.bias", np.ones(16, np.float16)
        ),
    ),
    Fault(
        name="a matrix of another shape in one layer",
        code="layer-shape",
        change=lambda folder: replace_tensor(
            folder, "model.layers.2.mlp.up_proj.weight", np.ones((16, 16), np.float16)
        ),
        also=("config-shape",),
    ),
    Fault(
        name="a tensor of another dtype in one layer",
        code="layer-dtype",
        change=lambda folder: replace_tensor(
            folder, UP, np.ones((32, 16), np.float32), dtype="F32"
        ),
    ),
    Fault(
        name="an unknown model with a tensor gone",
        code="layer-unlike",
        change=_unknown_and_incomplete,
    ),
    Fault(
        name="a dus.json that is not JSON",
        code="record-json",
        change=on_bytes("dus.json", lambda raw: raw[:100]),
    ),
    Fault(
        name="a shard that was made anew",
        code="record-shard",
        change=on_header(FIRST, lambda header: header["__metadata__"].update(step="7")),
    ),
    Fault(
        name="a config field turned back",
        code="record-config",
        change=config(num_hidden_layers=5),
        also=("config-layer-count",),
    ),
    Fault(
        name="a file that went along is gone",
        code="record-file",
        change=lambda folder: (folder / "tokenizer_config.json").unlink(),
    ),
    Fault(
        name="a weight that is not a number",
        code="weights-nan",
        change=lambda folder: edit_tensor(folder, UP, lambda old: _set(old, 7, np.nan)),
        options=DEEP,
    ),
    Fault(
        name="an infinite weight",
        code="weights-infinite",
        change=lambda folder: edit_tensor(folder, UP, lambda old: _set(old, 7, -np.inf)),
        options=DEEP,
    ),
    Fault(
        name="a matrix of zeros",
        code="weights-zero",
        change=lambda folder: edit_tensor(folder, UP, lambda old: old.fill(0)),
        options=DEEP,
    ),
    Fault(
        name="a matrix of one value",
        code="weights-constant",
        change=lambda folder: edit_tensor(folder, UP, lambda old: old.fill(0.5)),
        options=DEEP,
    ),
    Fault(
        name="a layer copied over another",
        code="layers-identical",
        change=lambda folder: fill_layer(folder, 5, 0),
        options=DEEP,
    ),
    Fault(
        name="another base than the one it was made from",
        code="base-other",
        change=on_json("../base/config.json", lambda value: value.update(rope_theta=1e6)),
        options=BASE,
        also=("base-config",),
    ),
    Fault(
        name="a record of another layer map",
        code="base-record",
        change=on_json("dus.json", lambda plan: plan["stacks"][0]["layer_map"].reverse()),
        options=BASE,
    ),
    Fault(
        name="a tensor of the plan that is gone",
        code="base-tensor-missing",
        change=lambda folder: drop_tensors(folder, "model.layers.2.mlp.down_proj.weight"),
        options=BASE,
        also=("layer-incomplete",),
    ),
    Fault(
        name="a tensor that the plan does not make",
        code="base-tensor-extra",
        change=lambda folder: add_tensor(folder, "model.extra.weight", np.ones(16, np.float16)),
        options=BASE,
    ),
    Fault(
        name="a tensor converted to another dtype",
        code="base-tensor-form",
        change=lambda folder: replace_tensor(
            folder, UP, np.ones((32, 16), np.float32), dtype="F32"
        ),
        options=BASE,
        also=("layer-dtype",),
    ),
    Fault(
        name="one flipped bit",
        code="base-bytes",
        change=lambda folder: edit_tensor(folder, UP, lambda old: _flip(old)),
        options=BASE,
    ),
    Fault(
        name="two layers swapped",
        code="base-layer",
        change=lambda folder: swap_layers(folder, 1, 2),
        options=BASE,
    ),
    Fault(
        name="a seam off by one",
        code="base-layer",
        change=lambda folder: fill_layer(folder, 3, 2),
        options=BASE,
    ),
    Fault(
        name="a config field that the rules do not give",
        code="base-config",
        change=config(rope_theta=5e5),
        options=BASE,
    ),
    Fault(
        name="a tokenizer that is not the base's",
        code="base-file",
        change=on_bytes("tokenizer_config.json", lambda raw: raw.replace(b"Fast", b"Slow")),
        options=BASE,
    ),
    Fault(
        name="a file that the checksums list is gone",
        code="checksum-missing",
        change=lambda folder: (folder / "generation_config.json").unlink(),
        options=SUMS,
        also=("record-file", "generation-config-missing"),
    ),
    Fault(
        name="a README that was edited",
        code="checksum-file",
        change=on_bytes("README.md", lambda raw: raw + b"more"),
        options=SUMS,
    ),
    Fault(
        name="one flipped bit, known by its checksum",
        code="checksum-tensor",
        change=lambda folder: edit_tensor(folder, UP, lambda old: _flip(old)),
        options=SUMS,
        also=("checksum-file",),
    ),
    Fault(
        name="a file that the checksums do not list",
        code="checksum-unlisted",
        change=lambda folder: (folder / "notes.txt").write_text("x", encoding="utf-8"),
        options=SUMS,
    ),
)


def _flip(values: Array) -> None:
    values.view(np.uint16)[7] ^= 1


def write_pair(folder: Path) -> Path:
    """The sound result in `folder`/model, its base and its checksums beside it."""
    checkpoint = open_checkpoint(write_result(write_base(folder / "base"), folder / "model"))
    (folder / "sums.json").write_bytes(compute_checksums(checkpoint).to_bytes())
    return folder / "model"


def write_faulty(sound: Path, folder: Path, fault: Fault) -> Path:
    """A copy of a sound pair with one fault; the checkpoint in it."""
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    fault.change(folder / "model")
    return folder / "model"


def arguments(fault: Fault, folder: Path) -> list[str]:
    """What to call `dus verify` with, after the checkpoint's path."""
    return [option if option.startswith("--") else str(folder / option) for option in fault.options]


def verify_request(fault: Fault, folder: Path) -> VerifyRequest:
    """The same as a value."""
    return VerifyRequest(
        deep=fault.options == DEEP,
        base=open_checkpoint(folder / "base") if fault.options == BASE else None,
        checksums=folder / "sums.json" if fault.options == SUMS else None,
    )
