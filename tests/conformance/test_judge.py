"""The judge notices what is wrong: results that are tampered with, each in one way; runs where
torch and transformers are."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra `conformance`")
pytest.importorskip("transformers", reason="needs the extra `conformance`")

import torch
from safetensors.torch import load_file, save_file

from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.model.layer_map import LayerMap
from dus_cli.scaling import Scaling, UpscaleRequest
from tests.conformance import judge
from tests.conformance.build import build, quiet, save
from tests.conformance.inputs import Feed
from tests.conformance.judge import Original, load, rule, upscale
from tests.conformance.verdicts import Verdict

pytestmark = pytest.mark.filterwarnings("default")

COUNTS = {
    "llama": "num_hidden_layers",
    "cohere2": "num_hidden_layers",
    "qwen3_moe": "num_hidden_layers",
    "bart": "decoder_layers",
}
"""Types whose layers are alike, or of kinds by a list, or by a list of layer numbers; and one that
has an encoder and a decoder. With the field that counts the last stack's layers."""

Original_of = Callable[[str], Original]
Tamper = Callable[[Path, str], None]
"""Spoils a result in a folder, given the type."""


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    quiet()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original_of:
    """Builds and saves a model of a type, once."""

    @functools.cache
    def made(model_type: str) -> Original:
        folder = tmp_path_factory.mktemp(model_type) / "source"
        built = build(model_type)
        save(built, folder)
        model, complaints = load(type(built.model), folder)
        return Original(folder=folder, model=model, complaints=complaints)

    return made


def read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def write_config(folder: Path, **fields: Any) -> None:
    text = json.dumps(read_config(folder) | fields)
    (folder / "config.json").write_text(text, encoding="utf-8")


def one_layer_less(folder: Path, model_type: str) -> None:
    field = COUNTS[model_type]
    write_config(folder, **{field: read_config(folder)[field] - 1})


def one_layer_more(folder: Path, model_type: str) -> None:
    field = COUNTS[model_type]
    write_config(folder, **{field: read_config(folder)[field] + 1})


def one_bit(folder: Path, model_type: str) -> None:
    """Flips the lowest bit of the first number of the first norm in the last layer."""
    del model_type
    checkpoint = open_checkpoint(folder)
    shard, _, info = max(
        (entry for entry in checkpoint.tensors() if "norm.weight" in entry[1]),
        key=lambda entry: entry[1].split("."),
    )
    path = folder / shard.name
    content = bytearray(path.read_bytes())
    content[shard.header.data_start + info.begin] ^= 1
    path.write_bytes(content)


def judged_after(
    tamper: Tamper, original: Original, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> Verdict:
    def spoiled(source: Path, target: Path, request: UpscaleRequest) -> Scaling:
        scaling = upscale(source, target, request)
        tamper(target, model_type)
        return scaling

    monkeypatch.setattr(judge, "upscale", spoiled)
    return rule(original, 1)[0].verdict


@pytest.mark.parametrize("model_type", COUNTS)
def test_what_dus_makes_is_right(model_type: str, original: Original_of) -> None:
    assert rule(original(model_type), 1)[0].verdict is Verdict.RIGHT


@pytest.mark.parametrize("tamper", [one_layer_less, one_layer_more, one_bit])
@pytest.mark.parametrize("model_type", COUNTS)
def test_a_result_that_was_tampered_with_is_wrong(
    model_type: str, tamper: Tamper, original: Original_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = judged_after(tamper, original(model_type), model_type, monkeypatch)
    assert verdict is Verdict.WRONG


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param((0, 1, 2, 2, 1, 2, 3, 4), id="a layer before the seam"),
        pytest.param((0, 1, 2, 3, 2, 2, 3, 4), id="a layer behind the seam"),
        pytest.param((0, 1, 2, 2, 3, 4), id="another m"),
        pytest.param((0, 1, 2, 3, 0, 1, 2, 3, 4), id="not cut behind the seam"),
        pytest.param((0, 2, 1, 3, 1, 2, 3, 4), id="two layers swapped"),
        pytest.param((0, 1, 2, 3, 1, 2, 4, 3), id="the last two swapped"),
    ],
)
@pytest.mark.parametrize("model_type", COUNTS)
def test_other_layers_than_the_papers_are_wrong(
    model_type: str,
    sources: Sequence[int],
    original: Original_of,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = original(model_type)
    monkeypatch.setattr(LayerMap, "depth_upscale", lambda n, m: LayerMap(sources=tuple(sources)))
    assert rule(ours, 1)[0].verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("model_type", "field"),
    [
        ("cohere2", "layer_types"),
        ("granite_swa", "layer_rope_theta"),
        ("minicpm3", "scale_depth"),
        ("molmo2_text", "rope_scaling_layers"),
        ("qwen3_moe", "mlp_only_layers"),
    ],
)
def test_a_field_that_says_what_it_did_of_the_shallow_model_is_wrong(
    model_type: str, field: str, original: Original_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_config(original(model_type).folder)[field]

    def as_before(folder: Path, model_type: str) -> None:
        del model_type
        after = read_config(folder)[field]
        # Long enough to be taken for the deeper model's.
        stale = (before * 2)[: len(after)] if isinstance(before, list) else before
        assert stale != after
        write_config(folder, **{field: stale})

    assert judged_after(as_before, original(model_type), model_type, monkeypatch) is Verdict.WRONG


def test_an_input_that_does_not_reach_the_layers_proves_nothing(original: Original_of) -> None:
    ours = original("blip")
    told: list[str] = []
    rule(ours, 1, stack="vision_model.encoder.layers", trace=told.append)
    text, *_ = told
    assert text.endswith("gives the same with two layers exchanged") or "Error" in text
    assert "pixel_values" in told[-1] and told[-1].endswith("sees the layers")


def test_a_pass_through_one_side_proves_nothing_of_the_other(
    original: Original_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Feed(path="model.encoder", arguments={"input_ids": torch.arange(3, 15)[None]})
    monkeypatch.setattr(judge, "feeds", lambda model, paths: iter([encoder]))
    ours = replace(original("bart"), known=[])
    assert rule(ours, 1)[0].verdict is Verdict.WEIGHTS_ONLY
    assert rule(ours, 1, stack="model.encoder.layers")[0].verdict is Verdict.RIGHT


def test_an_input_that_only_the_original_takes_is_wrong(
    original: Original_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(model_class: Any, folder: Path) -> tuple[Any, tuple[str, ...]]:
        deep, complaints = load(model_class, folder)
        deep.model.embed_tokens = None  # As where parts of a model no longer fit each other.
        return deep, complaints

    monkeypatch.setattr(judge, "load", loaded)
    monkeypatch.setattr(judge, "compare_weights", lambda reference, deep: None)
    monkeypatch.setattr(judge, "_fault", lambda reference, exchanged, feed: "does not run")
    ruling, _ = rule(replace(original("llama"), known=[]), 1)
    assert ruling.verdict is Verdict.WRONG
    assert ruling.reason.endswith("fails, and does not with the original")


def test_a_crash_and_a_result_that_does_not_load_are_wrong(
    original: Original_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(judge, "load", crash)
        assert rule(original("llama"), 1)[0].verdict is Verdict.WRONG
    monkeypatch.setattr(judge, "upscale", crash)
    assert rule(original("llama"), 1)[0].verdict is Verdict.WRONG


def test_a_tensor_that_no_model_has_is_wrong(
    original: Original_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_more(folder: Path, model_type: str) -> None:
        del model_type
        checkpoint = open_checkpoint(folder)
        path = folder / checkpoint.shards[-1].name
        tensors = load_file(path) | {"model.extra.weight": torch.zeros(1)}
        save_file(tensors, path, metadata={"format": "pt"})
        if checkpoint.index is not None:
            index = folder / "model.safetensors.index.json"
            content = json.loads(index.read_text(encoding="utf-8"))
            content["weight_map"]["model.extra.weight"] = path.name
            index.write_text(json.dumps(content), encoding="utf-8")

    assert judged_after(one_more, original("llama"), "llama", monkeypatch) is Verdict.WRONG
