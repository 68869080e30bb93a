"""Over generated checkpoints: what `dus` writes verifies, and what the format forbids is found."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from dus_cli.errors import CheckpointError
from dus_cli.findings import Finding, Severity
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.format.index import INDEX_SUFFIX
from dus_cli.verify.checksums import compute_checksums
from dus_cli.verify.run import VerifyRequest, verify
from tests.execute.helpers import run
from tests.format.raw_files import framed
from tests.verify.faults import edit_json, read_header, write_shard

INDEX: Final = f"model{INDEX_SUFFIX}"

# The same cases every time: a chance find should not stop somebody who works elsewhere.
EXAMPLES = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PARTS = st.sampled_from(["mlp.up_proj.weight", "self_attn.q.bias", "norm.weight"]) | NAMES.map(
    lambda name: f"{name}.weight"
)
DTYPES = st.sampled_from(sorted(BITS_PER_ELEMENT))
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 8]), max_size=3).map(lambda shape: [*shape, 4])
"""Four times anything is a whole number of bytes, whatever the dtype; some are of size zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Tensors in the order of their bytes (name -> dtype, shape), how to shard them, the config."""

    tensors: Mapping[str, tuple[str, list[int]]]
    shards: int
    config: Mapping[str, Any]
    layers: int
    seed: int

    def write(self, folder: Path) -> Path:
        """The checkpoint in `folder`: finite random weights, each tensor unlike every other."""
        random = np.random.default_rng(self.seed)
        folder.mkdir(parents=True)
        names = list(self.tensors)
        weight_map: dict[str, str] = {}
        total = 0
        for number in range(self.shards):
            held = names[
                number * len(names) // self.shards : (number + 1) * len(names) // self.shards
            ]
            entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
            data = b""
            for name in held:
                dtype, shape = self.tensors[name]
                size = int(np.prod(shape)) * BITS_PER_ELEMENT[dtype] // 8
                entries[name] = {
                    "dtype": dtype,
                    "shape": shape,
                    "data_offsets": [len(data), len(data) + size],
                }
                # Bytes up to 0x37 make no NaN and no infinity in any dtype.
                data += random.integers(1, 0x38, size, np.uint8).tobytes()
            shard = (
                "model.safetensors"
                if self.shards == 1
                else f"model-{number + 1:05d}-of-{self.shards:05d}.safetensors"
            )
            (folder / shard).write_bytes(framed(json.dumps(entries).encode(), data))
            weight_map |= dict.fromkeys(held, shard)
            total += len(data)
        if self.shards > 1:
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        return folder


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Stacks of 2 to 6 like layers, dense or of experts, with a prefix, tied or not, with trailing
    layers (MTP) or not, among other tensors of any name, in any order and any number of shards."""
    layers = draw(st.integers(2, 6))
    prefix = draw(st.sampled_from(["model.layers", "transformer.h", "layers", "0.layers"]))
    parameters = draw(st.dictionaries(PARTS, st.tuples(DTYPES, SHAPES), min_size=2, max_size=4))
    if draw(st.booleans()):
        experts = draw(st.integers(2, 3))
        form = draw(st.tuples(DTYPES, SHAPES))
        parameters |= {f"mlp.experts.{number}.w": form for number in range(experts)}
    trailing = draw(st.integers(0, 1))
    tensors = {
        f"{prefix}.{layer}.{parameter}": form
        for layer in range(layers + trailing)
        for parameter, form in parameters.items()
    }
    tied = draw(st.booleans())
    outside = draw(st.dictionaries(NAMES, st.tuples(DTYPES, SHAPES), max_size=3))
    tensors |= {name: form for name, form in outside.items() if name != "__metadata__"}
    tensors["model.embed_tokens.weight"] = ("BF16", [4, 8])
    if not tied:
        tensors["lm_head.weight"] = ("BF16", [4, 8])
    config: dict[str, Any] = {
        "architectures": ["OwnForCausalLM"],
        "model_type": draw(st.sampled_from(["own", "mistral", "qwen3"])),
        "num_hidden_layers": layers,
        "tie_word_embeddings": tied,
    }
    if trailing:
        config["num_nextn_predict_layers"] = trailing
    order = draw(st.permutations(list(tensors)))
    return Model(
        tensors={name: tensors[name] for name in order},
        shards=draw(st.integers(1, 4)),
        config=config,
        layers=layers,
        seed=draw(st.integers(0, 2**32)),
    )


def errors(folder: Path, **request: Any) -> list[Finding]:
    """What `dus verify` finds wrong, warnings not counted."""
    found = verify(folder, VerifyRequest(**request)).findings
    return [finding for finding in found if finding.check.severity is Severity.ERROR]


@EXAMPLES
@given(models(), st.data())
def test_what_dus_writes_verifies_in_every_way(model: Model, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = model.write(Path(place, "source"))
        assert errors(source, deep=True) == []
        target = Path(place, "target")
        run(source, target, drop=data.draw(st.integers(0, model.layers - 1)))
        sums = Path(place, "sums.json")
        sums.write_bytes(compute_checksums(open_checkpoint(target)).to_bytes())
        base = open_checkpoint(source)
        assert errors(target, deep=True, base=base, checksums=sums) == []


# --- one mutation of a sound checkpoint --------------------------------------------------------

Mutation = Callable[[Path, st.DataObject], None]
"""Changes one thing in a checkpoint's folder, drawn at random."""


def a_shard(folder: Path, data: st.DataObject) -> Path:
    return data.draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))


def an_entry(header: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    names = [name for name in header if name != "__metadata__"]
    assume(names)
    entry: dict[str, Any] = header[data.draw(st.sampled_from(names))]
    return entry


def flip_a_byte_of_a_header(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    raw = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(raw[:8], "little")
    raw[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)


def drop_a_byte(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    path.write_bytes(raw[:at] + raw[at + 1 :])


def add_bytes(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    path.write_bytes(path.read_bytes() + data.draw(st.binary(min_size=1, max_size=20)))


def shift_an_offset(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    header, content = read_header(path)
    offsets = an_entry(header, data)["data_offsets"]
    offsets[data.draw(st.integers(0, 1))] += data.draw(st.sampled_from([-8, -1, 1, 8, 2**62]))
    write_shard(path, header, content)


def shift_a_range(folder: Path, data: st.DataObject) -> None:
    """The tensor keeps its size, and leaves a hole or lies over another one."""
    path = a_shard(folder, data)
    header, content = read_header(path)
    entry = an_entry(header, data)
    distance = data.draw(st.sampled_from([-8, -1, 1, 8]))
    entry["data_offsets"] = [offset + distance for offset in entry["data_offsets"]]
    write_shard(path, header, content)


def change_a_shape(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    header, content = read_header(path)
    shape = an_entry(header, data)["shape"]
    shape[data.draw(st.integers(0, len(shape) - 1))] += data.draw(st.sampled_from([-1, 1, 2**40]))
    write_shard(path, header, content)


def change_a_dtype(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    header, content = read_header(path)
    an_entry(header, data)["dtype"] = data.draw(DTYPES | st.sampled_from(["F17", "", None, 16]))
    write_shard(path, header, content)


FORBIDDEN_BY_THE_FORMAT: Final = (
    flip_a_byte_of_a_header,
    drop_a_byte,
    add_bytes,
    shift_an_offset,
    shift_a_range,
    change_a_shape,
    change_a_dtype,
)
"""What breaks a shard by itself, nearly always: whether it did, the safetensors library says."""


@settings(EXAMPLES, max_examples=200)
@given(models(), st.sampled_from(FORBIDDEN_BY_THE_FORMAT), st.data())
def test_a_shard_that_the_library_refuses_is_found(
    model: Model, mutate: Mutation, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = model.write(Path(place, "model"))
        mutate(folder, data)
        refused = {path.name for path in folder.glob("*.safetensors") if not opens(path)}
        found = {finding.file for finding in errors(folder)}
        assert refused <= found


def opens(path: Path) -> bool:
    try:
        with safe_open(path, framework="np"):
            return True
    except SafetensorError:
        return False


def rename_a_tensor(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    header, content = read_header(path)
    names = [name for name in header if name != "__metadata__"]
    assume(names)
    header["another name"] = header.pop(data.draw(st.sampled_from(names)))
    write_shard(path, header, content)


def repeat_a_tensor(folder: Path, data: st.DataObject) -> None:
    path = a_shard(folder, data)
    header, content = read_header(path)
    names = [name for name in header if name != "__metadata__"]
    assume(names)
    name = data.draw(st.sampled_from(names))
    twice = f"{json.dumps(header)[:-1]},{json.dumps(name)}:{json.dumps(header[name])}}}"
    write_shard(path, twice.encode(), content)


def swap_shards(folder: Path, data: st.DataObject) -> None:
    one, other = data.draw(st.permutations(sorted(folder.glob("*.safetensors"))))[:2]
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def remove_a_shard(folder: Path, data: st.DataObject) -> None:
    a_shard(folder, data).unlink()


def forget_a_tensor(folder: Path, data: st.DataObject) -> None:
    def forget(index: dict[str, Any]) -> None:
        index["weight_map"].pop(data.draw(st.sampled_from(sorted(index["weight_map"]))))

    edit_json(folder / INDEX, forget)


def invent_a_tensor(folder: Path, data: st.DataObject) -> None:
    shard = a_shard(folder, data).name
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({"another name": shard}))


def lead_out_of_the_folder(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["../x", "/x", "a/b", "..", "", "a\\b", "a\0b"]))

    def lead(index: dict[str, Any]) -> None:
        index["weight_map"][data.draw(st.sampled_from(sorted(index["weight_map"])))] = name

    edit_json(folder / INDEX, lead)


def change_the_layer_count(folder: Path, data: st.DataObject) -> None:
    change = data.draw(st.sampled_from([-1, 1, 7]))

    def count(config: dict[str, Any]) -> None:
        config["num_hidden_layers"] += change
        config.pop("num_nextn_predict_layers", None)
        assume(config["num_hidden_layers"] > 0)

    extra = "num_nextn_predict_layers" in json.loads((folder / "config.json").read_bytes())
    assume(not (extra and change == 1))  # It would count the trailing layer, which is there.
    edit_json(folder / "config.json", count)


def break_a_document(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from([INDEX, "config.json"]))
    raw = path.read_bytes()
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])


FORBIDDEN_TOGETHER: Final = (
    rename_a_tensor,
    repeat_a_tensor,
    swap_shards,
    remove_a_shard,
    forget_a_tensor,
    invent_a_tensor,
    lead_out_of_the_folder,
    change_the_layer_count,
    break_a_document,
)
"""What leaves every shard sound, or breaks it in a way that the library does not see."""


@settings(EXAMPLES, max_examples=200)
@given(models(), st.sampled_from(FORBIDDEN_TOGETHER), st.data())
def test_files_that_contradict_each_other_are_found(
    model: Model, mutate: Mutation, data: st.DataObject
) -> None:
    assume(model.shards > 1)
    with tempfile.TemporaryDirectory() as place:
        folder = model.write(Path(place, "model"))
        assert errors(folder) == []
        mutate(folder, data)
        # Where nothing is left that could be verified, that is the error.
        with suppress(CheckpointError):
            assert errors(folder)


@EXAMPLES
@given(models(), st.data())
def test_any_changed_byte_of_the_data_is_found_against_base_and_checksums(
    model: Model, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as place:
        source, target, sums = (Path(place, name) for name in ("source", "target", "sums.json"))
        run(model.write(source), target, drop=1)
        sums.write_bytes(compute_checksums(open_checkpoint(target)).to_bytes())
        path = a_shard(target, data)
        raw = bytearray(path.read_bytes())
        begin = 8 + int.from_bytes(raw[:8], "little")
        assume(begin < len(raw))
        raw[data.draw(st.integers(begin, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)
        base = open_checkpoint(source)
        found = {finding.code for finding in errors(target, base=base)}
        assert found and found <= {"base-bytes", "base-layer"}
        listed = {finding.code for finding in errors(target, checksums=sums)}
        assert listed == {"checksum-file", "checksum-tensor"}
        shutil.rmtree(target)
