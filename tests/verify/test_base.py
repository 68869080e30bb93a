"""Results held to their source: every fault is found, and called by its name."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.findings import Collector
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.base import BaseProof, compare_with_base, plan_of
from dus_cli.verify.same_bytes import Claim, Place, compare
from tests.checkpoints import (
    Array,
    load_all,
    mistral_checkpoint,
    mistral_config,
    mistral_tensors,
    write_checkpoint,
)
from tests.execute.helpers import run

Tensors = dict[str, Array]
Change = Callable[[Path], object]

LAYERS, DROP = 6, 2
"""Six layers become eight: 0 1 2 3, then 2 3 4 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a proof found, and what it took."""

    found: list[tuple[str, str]]
    """Code and text of each finding."""
    hints: list[str | None]
    proof: BaseProof
    progress: int


def prove(target: Path, source: Path, asked: UpscaleRequest | None = None) -> Outcome:
    """Runs the proof as the command does."""
    checkpoint, base = open_checkpoint(target), open_checkpoint(source)
    collector, progress = Collector(), [0]

    def count(compared: int) -> None:
        progress[0] += compared

    plan = plan_of(checkpoint, base, asked, collector)
    proof = compare_with_base(checkpoint, base, plan, collector, progress=count)
    return Outcome(
        found=[(finding.code, finding.text) for finding in collector.findings],
        hints=[finding.hint for finding in collector.findings],
        proof=proof,
        progress=progress[0],
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and what becomes of it; tests work on copies."""
    folder = tmp_path_factory.mktemp("made")
    run(
        mistral_checkpoint(folder / "source", layers=LAYERS, shards=2),
        folder / "target",
        drop=DROP,
    )
    return folder


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "source", tmp_path / "source")


@pytest.fixture
def target(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "target", tmp_path / "target")


def save_again(folder: Path, tensors: Mapping[str, Array], *, shards: int = 3) -> None:
    """Replaces a folder's shards and index by others that hold `tensors`, sorted by name."""
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
        path.unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in names[number - 1 :: shards]}
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def flipped(name: str, *, bit: int) -> Change:
    """Flips one bit of a tensor where it lies."""

    def change(folder: Path) -> None:
        for shard in open_checkpoint(folder).shards:
            if name in shard.header.tensors:
                at = shard.header.data_start + shard.header.tensors[name].begin + bit // 8
                content = bytearray((folder / shard.name).read_bytes())
                content[at] ^= 1 << bit % 8
                (folder / shard.name).write_bytes(content)

    return change


def edited(edit: Callable[[Tensors], object]) -> Change:
    """Saves a folder again with its tensors changed by `edit`."""

    def change(folder: Path) -> None:
        tensors = load_all(folder)
        edit(tensors)
        save_again(folder, tensors)

    return change


def with_layers(sources: Mapping[int, int]) -> Change:
    """Puts source layer `sources[j]` where layer j of the result is."""

    def edit(tensors: Tensors) -> None:
        original = mistral_tensors(LAYERS)
        for layer, source in sources.items():
            prefix = f"model.layers.{source}."
            for name in [name for name in original if name.startswith(prefix)]:
                parameter = name.removeprefix(prefix)
                tensors[f"model.layers.{layer}.{parameter}"] = original[name]

    return edited(edit)


def without_layer(layer: int) -> Change:
    def edit(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(f"model.layers.{layer}.")]:
            del tensors[name]

    return edited(edit)


def config(**fields: Any) -> Change:
    """Sets fields of config.json; ... removes one."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        value = {**json.loads(path.read_bytes()), **fields}
        value = {key: field for key, field in value.items() if field is not ...}
        path.write_text(json.dumps(value), encoding="utf-8")

    return change


def record(edit: Callable[[dict[str, Any]], object]) -> Change:
    """Changes dus.json."""

    def change(folder: Path) -> None:
        path = folder / "dus.json"
        value = json.loads(path.read_bytes())
        edit(value)
        path.write_text(json.dumps(value), encoding="utf-8")

    return change


def file(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def pipe(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


UP = "model.layers.3.mlp.up_proj.weight"
NORM = "model.layers.5.input_layernorm.weight"


def layer(text: str) -> tuple[str, str]:
    return "base-layer", text


VALID: list[Any] = [
    pytest.param(lambda folder: None, id="as it was made"),
    pytest.param(edited(lambda tensors: None), id="in other shards and another order"),
    pytest.param(
        lambda folder: save_again(folder, load_all(folder), shards=1), id="in one numbered shard"
    ),
    pytest.param(file("README.md", "mine"), id="another model card"),
    pytest.param(file("training.log", "mine"), id="a file more"),
    pytest.param(
        lambda folder: (folder / "config.json").write_text(
            json.dumps(dict(reversed(json.loads((folder / "config.json").read_bytes()).items())))
        ),
        id="another order in config.json",
    ),
]


@pytest.mark.parametrize("change", VALID)
def test_equal_results_are_proved_however_they_are_stored(
    source: Path, target: Path, change: Change
) -> None:
    change(target)
    outcome = prove(target, source)
    assert outcome.found == []
    checkpoint, base = open_checkpoint(target), open_checkpoint(source)
    files = sum(file.size for file in base.carried_files)
    assert outcome.progress == checkpoint.tensor_bytes + files
    # What two layers are copies of is read once.
    assert outcome.proof.bytes_read + outcome.proof.shared_bytes == (
        checkpoint.tensor_bytes + base.tensor_bytes + 2 * files
    )


FAULTS: list[Any] = [
    pytest.param(
        flipped(UP, bit=1001),
        [
            (
                "base-bytes",
                f"model-00002-of-00004.safetensors: '{UP}' differs from the source's '{UP}' in "
                "1 byte, first at byte 125 (0x",
            )
        ],
        id="a flipped bit",
    ),
    pytest.param(
        lambda folder: (flipped(NORM, bit=0)(folder), flipped("lm_head.weight", bit=8)(folder)),
        [
            ("base-bytes", "'lm_head.weight' differs from the source's 'lm_head.weight' in 1 byte"),
            (
                "base-bytes",
                f"'{NORM}' differs from the source's 'model.layers.3.input_layernorm.weight' in 1 "
                "byte, first at byte 0 (",
            ),
        ],
        id="two tensors that differ",
    ),
    pytest.param(
        with_layers({1: 3, 3: 1}),
        [
            layer("layer 1 holds source layer 3, the plan says 1"),
            layer("layer 3 holds source layer 1, the plan says 3"),
        ],
        id="two layers swapped",
    ),
    pytest.param(
        with_layers({0: 1, 2: 3}),
        [
            layer("layer 0 holds source layer 1, the plan says 0"),
            layer("layer 2 holds source layer 3, the plan says 2"),
        ],
        id="two layers off alike, with a right one between",
    ),
    pytest.param(
        with_layers({5: 1}),
        [layer("layer 5 holds source layer 1, the plan says 3")],
        id="a layer of the wrong half",
    ),
    pytest.param(
        with_layers({4: 1, 5: 2, 6: 3, 7: 4}),
        [layer("layers 4..7 hold source layers 1..4, the plan says 2..5: off by 1")],
        id="a seam off by one",
    ),
    pytest.param(
        lambda folder: (with_layers({0: 1})(folder), flipped(NORM, bit=3)(folder)),
        [
            layer("layer 0 holds source layer 1, the plan says 0"),
            ("base-bytes", f"'{NORM}' differs"),
        ],
        id="a wrong layer and a flipped bit elsewhere",
    ),
    pytest.param(
        lambda folder: (
            with_layers({1: 0})(folder),
            flipped("model.layers.1.input_layernorm.weight", bit=3)(folder),
        ),
        [("base-bytes", f"'model.layers.1.{name}") for name in ("in", "mlp", "self", "self")],
        id="a layer that is like no other one",
    ),
    pytest.param(
        without_layer(7),
        [("base-tensor-missing", "there is no layer 7, which the plan makes")],
        id="a layer that is missing",
    ),
    pytest.param(
        with_layers({8: 0, 9: 1}),
        [("base-tensor-extra", "there are layers 8..9, which the plan does not make")],
        id="layers that are too many",
    ),
    pytest.param(
        edited(lambda tensors: tensors.pop(UP)),
        [
            (
                "base-tensor-missing",
                f"'{UP}' is missing; the plan makes it from the source's '{UP}'",
            )
        ],
        id="a tensor that is missing",
    ),
    pytest.param(
        edited(lambda tensors: tensors.update({"extra\x1b[2J": np.zeros(2, np.float16)})),
        [("base-tensor-extra", r"'extra\x1b[2J' is there, but the plan does not make it")],
        id="a tensor too many",
    ),
    pytest.param(
        edited(lambda tensors: tensors.update({UP: tensors[UP].view(np.int16)})),
        [("base-tensor-form", f"'{UP}' is I16 (16, 8), the source's '{UP}' F16 (16, 8)")],
        id="another dtype",
    ),
    pytest.param(
        edited(lambda tensors: tensors.update({UP: tensors[UP].reshape(8, 16)})),
        [("base-tensor-form", f"'{UP}' is F16 (8, 16), the source's '{UP}' F16 (16, 8)")],
        id="another shape",
    ),
    pytest.param(
        config(num_hidden_layers=7),
        [("base-config", "config.json: 'num_hidden_layers' is 7; the rules give 8")],
        id="a changed config field",
    ),
    pytest.param(
        config(rms_norm_eps=..., hidden_size=8.0, dropout=float("nan")),
        [
            ("base-config", "config.json: 'hidden_size' is 8.0; the rules give 8"),
            ("base-config", "config.json: 'rms_norm_eps' is missing; the rules give 1e-05"),
            ("base-config", "config.json: 'dropout' is nan; the rules give none"),
        ],
        id="a config field missing, one of another type, one too many",
    ),
    pytest.param(
        config(architectures=["Llama"]),
        [("base-config", "'architectures[0]' is 'Llama'; the rules give 'MistralForCausalLM'")],
        id="an entry of a list in the config",
    ),
    pytest.param(
        lambda folder: (folder / "config.json").unlink(),
        [("base-config", "config.json: is missing")],
        id="no config",
    ),
    pytest.param(
        file("tokenizer.json", "[]"),
        [
            (
                "base-file",
                "tokenizer.json: differs from the source's in 2 bytes, first at byte 0 (0x5b "
                "instead of 0x7b)",
            )
        ],
        id="a changed tokenizer",
    ),
    pytest.param(
        file("tokenizer.json", "{ }"),
        [("base-file", "tokenizer.json: holds 3 bytes, the source's 2")],
        id="a longer tokenizer",
    ),
    pytest.param(
        lambda folder: (folder / "tokenizer.json").unlink(),
        [("base-file", "tokenizer.json: is missing; the source has it")],
        id="no tokenizer",
    ),
    pytest.param(
        pipe("tokenizer.json"),
        [("base-file", "tokenizer.json: is not a regular file, but the source's is")],
        id="a pipe for a tokenizer",
    ),
    pytest.param(
        record(lambda value: value["source"].update(config_sha256="0" * 64)),
        [("base-other", "dus.json: was made from a source whose config_sha256 is '000")],
        id="another source's config",
    ),
    pytest.param(
        record(lambda value: value["source"]["shards"][1].update(header_sha256="0")),
        [("base-other", "whose shards[1].header_sha256 is '0'; of 'source' it is '")],
        id="another source's shards",
    ),
    pytest.param(
        record(lambda value: value["source"].pop("shards")),
        [("base-other", "whose shards is missing")],
        id="a record without source",
    ),
    pytest.param(
        record(lambda value: value["stacks"][0]["layer_map"].reverse()),
        [("base-record", "'stacks[0].layer_map[0]' is 5; in the plan it is 0")],
        id="a record of another layer map",
    ),
    pytest.param(
        record(lambda value: value.pop("after")),
        [("base-record", "'after' is missing; in the plan it is {")],
        id="a record without sizes",
    ),
]


@pytest.mark.parametrize(("change", "expected"), FAULTS)
def test_every_fault_is_found_and_named_and_nothing_else(
    source: Path, target: Path, change: Change, expected: list[tuple[str, str]]
) -> None:
    change(target)
    found = prove(target, source).found
    assert [code for code, _ in found] == [code for code, _ in expected], found
    for (_, text), (_, part) in zip(found, expected, strict=True):
        assert part in text


HINTS: list[Any] = [
    pytest.param({1: 3, 3: 1}, ["Layers 1 and 3 are swapped.", "Layers 3 and 1 are swapped."]),
    pytest.param({6: 7 - 4, 5: 4}, ["Layers 5 and 6 are swapped.", "Layers 6 and 5 are swapped."]),
    pytest.param({0: 2}, ["Source layer 2 is due at layer 2 and 4."]),
    pytest.param(
        {4: 1, 5: 2, 6: 3, 7: 4},
        ["A seam in another place does that: was it made with another --drop?"],
    ),
    pytest.param(
        {0: 2, 1: 3, 4: 0, 5: 1},
        ["Layers 0..1 and 4..5 are swapped.", "Layers 4..5 and 0..1 are swapped."],
    ),
]


@pytest.mark.parametrize(("sources", "hints"), HINTS)
def test_hints_say_how_layers_came_to_be_where_they_are(
    source: Path, target: Path, sources: Mapping[int, int], hints: list[str]
) -> None:
    with_layers(sources)(target)
    assert prove(target, source).hints == hints


def test_a_source_layer_that_the_plan_leaves_out_is_told_for_that(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source", layers=LAYERS)
    run(source, tmp_path / "target", drop=4)  # layers 0 1 4 5
    with_layers({1: 3})(tmp_path / "target")
    assert prove(tmp_path / "target", source).hints == ["The plan leaves source layer 3 out."]


def test_another_source_with_the_same_form_is_told_by_its_bytes(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source", layers=LAYERS)
    other = mistral_checkpoint(tmp_path / "other", layers=LAYERS, seed=1)
    run(source, tmp_path / "target", drop=DROP)
    found = prove(tmp_path / "target", other).found
    assert {code for code, _ in found} == {"base-bytes"}
    assert len(found) == 8 * 4 + 3


def test_a_source_that_the_record_does_not_fit_is_an_error(target: Path) -> None:
    other = mistral_checkpoint(target.parent / "other", layers=2)
    with pytest.raises(RequestError, match=r"dus\.json: what it requests cannot be done"):
        prove(target, other)


REQUESTS: list[Any] = [
    pytest.param(UpscaleRequest(drop=DROP), [], id="drop"),
    pytest.param(UpscaleRequest(target_layers=8), [], id="target layers"),
    pytest.param(
        UpscaleRequest(drop=1),
        [
            layer("layer 4 holds source layer 2, the plan says 4"),
            layer("layers 5..7 hold source layers 3..5, the plan says 1..3: off by 2"),
            ("base-tensor-missing", "there are no layers 8..9, which the plan makes"),
            ("base-config", "config.json: 'num_hidden_layers' is 8; the rules give 10"),
        ],
        id="another drop",
    ),
]


@pytest.mark.parametrize(("asked", "expected"), REQUESTS)
def test_what_is_asked_is_the_plan_where_no_record_is(
    source: Path, target: Path, asked: UpscaleRequest, expected: list[tuple[str, str]]
) -> None:
    (target / "dus.json").unlink()
    assert prove(target, source, asked).found == expected


def test_what_is_asked_counts_more_than_the_record_and_they_must_agree(
    source: Path, target: Path
) -> None:
    codes = {code for code, _ in prove(target, source, UpscaleRequest(drop=1)).found}
    assert codes == {"base-record", "base-layer", "base-tensor-missing", "base-config"}
    assert prove(target, source, UpscaleRequest(drop=DROP, max_shard_size=4096)).found == []


def test_without_record_and_request_nothing_can_be_proved(source: Path, target: Path) -> None:
    (target / "dus.json").unlink()
    with pytest.raises(RequestError, match=r"has no dus\.json") as caught:
        prove(target, source)
    assert "--drop" in str(caught.value.hint)


HOSTILE_REQUESTS: list[Any] = [
    pytest.param(lambda value: value.pop("request"), id="none"),
    pytest.param(lambda value: value.update(request=[]), id="a list"),
    pytest.param(lambda value: value.update(source="x"), id="no source"),
    pytest.param(lambda value: value["request"].update(drop="2"), id="drop as text"),
    pytest.param(lambda value: value["request"].update(drop=True), id="drop as truth"),
    pytest.param(lambda value: value["request"].update(drop=2.0), id="drop as float"),
    pytest.param(lambda value: value["request"].update(stack=7), id="stack as number"),
    pytest.param(lambda value: value["request"].update(config_rules=["x"]), id="rules as list"),
    pytest.param(lambda value: value["request"].update(config_rules={"x": "y"}), id="no rule"),
    pytest.param(lambda value: value["request"].update(max_shard_size="x"), id="size as text"),
]


@pytest.mark.parametrize("edit", HOSTILE_REQUESTS)
def test_a_request_that_is_none_stops_unless_another_is_given(
    source: Path, target: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    record(edit)(target)
    with pytest.raises(CheckpointError, match=r"dus\.json: holds no request"):
        prove(target, source)
    found = prove(target, source, UpscaleRequest(drop=DROP)).found
    assert found == [("record-json", "dus.json: holds no request")]


IMPOSSIBLE_REQUESTS: list[Any] = [
    pytest.param({"drop": 10**4000}, id="a huge drop"),
    pytest.param({"drop": -1}, id="a negative drop"),
    pytest.param({"drop": None}, id="no drop"),
    pytest.param({"target_layers": 10**4000}, id="a huge target"),
    pytest.param({"stack": "x" * 1_000_000}, id="a long stack"),
    pytest.param({"stack": "\x1b[2J"}, id="a stack that clears the screen"),
    pytest.param({"config_rules": {"x" * 1_000_000: "gather"}}, id="a long rule"),
    pytest.param({"config_rules": {"hidden_size.x": "rekey"}}, id="a rule inside a number"),
    pytest.param({"config_rules": {"hidden_size": "reindex"}}, id="a rule for a number"),
]


@pytest.mark.parametrize("fields", IMPOSSIBLE_REQUESTS)
def test_a_request_that_the_source_cannot_meet_is_a_short_error(
    source: Path, target: Path, fields: dict[str, Any]
) -> None:
    record(lambda value: value["request"].update(fields))(target)
    with pytest.raises(RequestError, match=r"dus\.json: what it requests") as caught:
        prove(target, source)
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("size", [-1, 0, 1, 10**4000])
def test_the_recorded_size_of_shards_does_not_matter(source: Path, target: Path, size: int) -> None:
    record(lambda value: value["request"].update(max_shard_size=size))(target)
    assert prove(target, source).found == []


def test_a_broken_record_stops_unless_a_request_is_given(source: Path, target: Path) -> None:
    (target / "dus.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"dus\.json: broken JSON"):
        prove(target, source)
    assert prove(target, source, UpscaleRequest(drop=DROP)).found == []


def test_trailing_layers_follow_the_last_one(tmp_path: Path) -> None:
    # The last of the source's layers predicts further tokens: the config does not count it.
    model = {**mistral_config(LAYERS - 1), "num_nextn_predict_layers": 1}
    source = write_checkpoint(tmp_path / "source", mistral_tensors(LAYERS), model)
    target = tmp_path / "target"
    run(source, target, drop=1)  # 0 1 2 3, 1 2 3 4, and 5 as layer 8
    assert prove(target, source).found == []
    with_layers({8: 4})(target)
    assert prove(target, source).found == [layer("layer 8 holds source layer 4, the plan says 5")]


def test_a_tied_head_stays_absent(tmp_path: Path) -> None:
    tensors = mistral_tensors(LAYERS)
    head = tensors.pop("lm_head.weight")
    model = {**mistral_config(LAYERS), "tie_word_embeddings": True}
    source = write_checkpoint(tmp_path / "source", tensors, model)
    target = tmp_path / "target"
    run(source, target, drop=DROP)
    assert prove(target, source).found == []
    edited(lambda held: held.update({"lm_head.weight": head}))(target)
    assert [code for code, _ in prove(target, source).found] == ["base-tensor-extra"]


@pytest.fixture
def two_stacks(tmp_path: Path) -> Path:
    """An encoder-decoder model of four layers a side."""
    random = np.random.default_rng(0)
    tensors = {"shared.weight": random.normal(size=(32, 8)).astype(np.float16)}
    for side in ("encoder", "decoder"):
        for number in range(4):
            for name in ("self_attn.q_proj.weight", "fc1.weight"):
                values = random.normal(size=(8, 8)).astype(np.float16)
                tensors[f"model.{side}.layers.{number}.{name}"] = values
    model = {"model_type": "bart", "encoder_layers": 4, "decoder_layers": 4, "d_model": 8}
    return write_checkpoint(tmp_path / "source", tensors, model)


def test_of_two_stacks_each_is_named(two_stacks: Path) -> None:
    target = two_stacks.parent / "target"
    run(two_stacks, target, drop=1)
    assert prove(two_stacks.parent / "target", two_stacks).found == []

    def swap(tensors: Tensors) -> None:
        for name in ("self_attn.q_proj.weight", "fc1.weight"):
            one, other = (f"model.decoder.layers.{layer}.{name}" for layer in (0, 5))
            tensors[one], tensors[other] = tensors[other], tensors[one]

    edited(swap)(target)
    assert prove(target, two_stacks).found == [
        layer("layer 0 of 'model.decoder.layers' holds source layer 3, the plan says 0"),
        layer("layer 5 of 'model.decoder.layers' holds source layer 0, the plan says 3"),
    ]


def with_like_layers(folder: Path, layers: int) -> tuple[Path, Tensors]:
    """A checkpoint whose layers differ in the last element of their largest tensor alone."""
    tensors = mistral_tensors(layers)
    for number in range(layers):
        for name in ("self_attn.q_proj.weight", "self_attn.o_proj.weight", "mlp.up_proj.weight"):
            tensors[f"model.layers.{number}.{name}"] = np.zeros((100, 100), np.float16)
        tensors[f"model.layers.{number}.input_layernorm.weight"] = np.ones(8, np.float16)
        np.put(tensors[f"model.layers.{number}.mlp.up_proj.weight"], -1, number)
    return write_checkpoint(folder, tensors, mistral_config(layers)), tensors


def test_layers_with_equal_samples_are_told_apart_by_all_their_bytes(tmp_path: Path) -> None:
    source, tensors = with_like_layers(tmp_path / "source", LAYERS)
    target = tmp_path / "target"
    run(source, target, drop=DROP)
    up = "model.layers.{}.mlp.up_proj.weight".format
    edited(lambda held: held.update({up(1): tensors[up(3)]}))(target)
    assert prove(target, source).found == [layer("layer 1 holds source layer 3, the plan says 1")]


@pytest.mark.parametrize(("held", "code"), [(4, "base-layer"), (5, "base-bytes")])
def test_a_layer_is_compared_in_full_with_four_others_at_most(
    tmp_path: Path, held: int, code: str
) -> None:
    """A hostile source could make each layer fit each, and so the time quadratic."""
    source, tensors = with_like_layers(tmp_path / "source", LAYERS)
    target = tmp_path / "target"
    run(source, target, drop=DROP)
    up = "model.layers.{}.mlp.up_proj.weight".format
    edited(lambda result: result.update({up(0): tensors[up(held)]}))(target)
    assert [found for found, _ in prove(target, source).found] == [code]


def test_a_layer_that_cannot_be_read_to_its_end_is_not_recognised(tmp_path: Path) -> None:
    source, tensors = with_like_layers(tmp_path / "source", LAYERS)
    target = tmp_path / "target"
    run(source, target, drop=DROP)
    up = "model.layers.{}.mlp.up_proj.weight".format
    held = load_all(target)
    held[up(7)] = tensors[up(1)]
    save_again(target, held, shards=1)
    checkpoint, base = open_checkpoint(target), open_checkpoint(source)
    collector = Collector()
    plan = plan_of(checkpoint, base, None, collector)
    [shard] = checkpoint.shards
    last = "model.layers.7.self_attn.q_proj.weight"
    os.truncate(target / shard.name, shard.header.data_start + shard.header.tensors[last].end - 1)
    compare_with_base(checkpoint, base, plan, collector)
    assert {(finding.code, finding.tensor) for finding in collector.findings} == {
        ("base-bytes", up(7)),
        ("file-unreadable", last),
        ("file-unreadable", "model.norm.weight"),
    }


def test_what_a_diagnosis_reads_is_counted(source: Path, target: Path) -> None:
    before = prove(target, source).proof.bytes_read
    with_layers({1: 3})(target)
    base = open_checkpoint(source)
    layer_bytes = sum(info.byte_count for _, name, info in base.tensors() if ".layers.1." in name)
    assert prove(target, source).proof.bytes_read == before + 2 * layer_bytes


def test_a_list_in_the_config_is_one_field_and_not_a_number_equals_itself(tmp_path: Path) -> None:
    model = {**mistral_config(2), "suppress": [1, 2, 3], "limit": float("nan")}
    source = write_checkpoint(tmp_path / "source", mistral_tensors(2), model)
    target = tmp_path / "target"
    run(source, target, drop=0)
    assert prove(target, source).found == []
    config(suppress=[1, 5, 6])(target)
    assert prove(target, source).found == [
        ("base-config", "config.json: 'suppress[1]' is 5; the rules give 2")
    ]


def test_what_a_buffer_held_before_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"abc-abc-")
    (tmp_path / "two").write_bytes(b"abc-xyz-")
    one, two = Place(tmp_path / "one", 0), Place(tmp_path / "two", 0)
    claims = [
        Claim(original=one, size=size, copies={f"{size} bytes, {number}": two})
        for number in range(200)
        for size in (8, 3)
    ]
    assert set(compare(claims).differences) == {f"8 bytes, {number}" for number in range(200)}


def test_differences_are_counted_over_all_blocks_of_a_tensor(tmp_path: Path) -> None:
    """The tensor is larger than a window of the comparison, and no multiple of a word."""
    size = (17 << 20) + 5
    tensors = {**mistral_tensors(2), "big": np.zeros(size, np.uint8)}
    source = write_checkpoint(tmp_path / "source", tensors, mistral_config(2))
    target = tmp_path / "target"
    run(source, target, drop=0)
    assert prove(target, source).found == []

    def edit(held: Tensors) -> None:
        held["big"] = held["big"].copy()
        for at in (3 << 20, (3 << 20) - 1, 9 << 20, size - 1):
            held["big"][at] = 7

    edited(edit)(target)
    [(code, text)] = prove(target, source).found
    assert code == "base-bytes"
    assert f"in 4 bytes, first at byte {(3 << 20) - 1} (0x07 instead of 0x00)" in text


def test_zero_size_tensors_and_scalars_are_compared(tmp_path: Path) -> None:
    extra: Tensors = {"none": np.zeros((0, 4), np.float32), "one": np.array(1.5, np.float64)}
    source = write_checkpoint(
        tmp_path / "source", {**mistral_tensors(2), **extra}, mistral_config(2)
    )
    target = tmp_path / "target"
    run(source, target, drop=0)
    assert prove(target, source).found == []
    edited(lambda held: held.update({"none": np.zeros((4, 0), np.float32)}))(target)
    assert [code for code, _ in prove(target, source).found] == ["base-tensor-form"]


def test_a_hard_link_to_the_source_needs_no_reading(source: Path, target: Path) -> None:
    (target / "tokenizer.json").unlink()
    os.link(source / "tokenizer.json", target / "tokenizer.json")
    outcome = prove(target, source)
    assert outcome.found == []
    assert outcome.proof.shared_bytes == (source / "tokenizer.json").stat().st_size


def test_a_result_that_becomes_shorter_is_a_finding(source: Path, target: Path) -> None:
    checkpoint, base = open_checkpoint(target), open_checkpoint(source)
    collector = Collector()
    plan = plan_of(checkpoint, base, None, collector)
    last = checkpoint.shards[-1]
    os.truncate(target / last.name, last.header.data_start)
    compare_with_base(checkpoint, base, plan, collector)
    assert {finding.code for finding in collector.findings} == {"file-unreadable"}
    assert {finding.tensor for finding in collector.findings} == set(last.header.tensors)
    assert all(finding.file == last.name for finding in collector.findings)


def test_a_source_that_becomes_shorter_is_an_error(source: Path, target: Path) -> None:
    checkpoint, base = open_checkpoint(target), open_checkpoint(source)
    plan = plan_of(checkpoint, base, None, Collector())
    os.truncate(source / base.shards[0].name, 100)
    with pytest.raises(CheckpointError, match="ends at byte"):
        compare_with_base(checkpoint, base, plan, Collector())


def test_a_single_file_is_held_to_the_tensors_alone(source: Path, target: Path) -> None:
    save_file(load_all(target), target.parent / "whole.safetensors")
    request = UpscaleRequest(drop=DROP)
    assert prove(target.parent / "whole.safetensors", source, request).found == []


def test_no_key_however_long_makes_a_long_path(source: Path, target: Path) -> None:
    config(**{"k" * 1_000_000: {"a": 1, "b": 2}})(target)
    collector = Collector()
    checkpoint, base = open_checkpoint(target), open_checkpoint(source)
    plan = plan_of(checkpoint, base, None, collector)
    compare_with_base(checkpoint, base, plan, collector)
    assert all(len(f"{finding.field}{finding.message}") < 1000 for finding in collector.findings)
    assert collector.findings


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space hold on Linux")
def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    """1.1 GiB of a sparse file are compared with themselves, 8 bytes on, in 1 GiB of addresses."""
    size = 1100 << 20
    with open(tmp_path / "one", "wb") as sparse:
        sparse.truncate(size + 8)
    code = (
        "import sys; from pathlib import Path\n"
        "from dus_cli.verify.same_bytes import Claim, Place, compare\n"
        "path, size = Path(sys.argv[1]), int(sys.argv[2])\n"
        "copies = {'copy': Place(path, 8)}\n"
        "result = compare([Claim(original=Place(path, 0), size=size, copies=copies)])\n"
        "assert (result.differences, result.bytes_read) == ({}, 2 * size), result\n"
    )
    limit = (1 << 30, 1 << 30)
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "one"), str(size)],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )


def test_files_that_name_layers_are_held_to_what_the_rules_make_of_them(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source", layers=4)
    (source / "quantize_config.json").write_text(
        json.dumps({"dynamic": {r"-:model\.layers\.3\.mlp\..*": {}}}), encoding="utf-8"
    )
    target = tmp_path / "target"
    run(source, target, drop=1)
    assert prove(target, source).found == []
    shutil.copy(source / "quantize_config.json", target)
    ((code, text),) = prove(target, source).found
    assert code == "base-file"
    assert text == "quantize_config.json: is not what the rules make of the source's"
