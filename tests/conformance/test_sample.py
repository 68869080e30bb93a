"""A fixed sample of types, one for each kind of rule; runs where torch and transformers are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `conformance`")
pytest.importorskip("transformers", reason="needs the extra `conformance`")

import torch

from tests.conformance.build import build, quiet, save
from tests.conformance.judge import Original, load, rule
from tests.conformance.verdicts import Verdict

pytestmark = pytest.mark.filterwarnings("default")

VISION = {"vision_config.depth": "count"}
TEXT = {"text_config.num_hidden_layers": "count"}
LAYERS = {"num_hidden_layers": "count"}
KINDS = {"layer_types": "gather"}
SIDES = {"encoder_layers": "count", "decoder_layers": "count"}


@pytest.fixture(autouse=True)
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    quiet()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("model_type", "drop", "stack", "rules"),
    [
        pytest.param("llama", 1, None, LAYERS, id="a count alone"),
        pytest.param("gpt2", 2, None, {"n_layer": "count"}, id="a count by another name"),
        pytest.param("bert", 3, None, LAYERS, id="an encoder"),
        pytest.param("cohere2", 1, None, LAYERS | KINDS, id="a list of kinds"),
        pytest.param(
            "granite_swa", 1, None, LAYERS | KINDS | {"layer_rope_theta": "gather"}, id="two lists"
        ),
        pytest.param("hunyuan_v1_moe", 1, None, LAYERS | {"moe_topk": "gather"}, id="sizes"),
        pytest.param(
            "qwen3_moe", 1, None, LAYERS | {"mlp_only_layers": "reindex"}, id="layer numbers"
        ),
        pytest.param(
            "bamba", 1, None, LAYERS | {"attn_layer_indices": "reindex"}, id="numbers of one kind"
        ),
        pytest.param(
            "lfm2", 1, None, LAYERS | KINDS | {"full_attn_idxs": "reindex"}, id="numbers and kinds"
        ),
        pytest.param("deepseek_v3", 2, None, LAYERS, id="the first layers' number stays right"),
        pytest.param(
            "minicpm3", 1, None, LAYERS | {"scale_depth": "position"}, id="a scale by the count"
        ),
        pytest.param(
            "dpt",
            1,
            None,
            LAYERS | {"backbone_out_indices": "position"},
            id="hidden states that other parts read",
        ),
        pytest.param(
            "gemma3", 1, None, TEXT | {"text_config.layer_types": "gather"}, id="sections"
        ),
        pytest.param(
            "mllama",
            1,
            None,
            TEXT | {"text_config.cross_attention_layers": "reindex"},
            id="layers that read images",
        ),
        pytest.param("qwen2_vl", 1, "visual.blocks", VISION, id="a tower by name"),
        pytest.param("bart", 1, None, SIDES, id="encoder and decoder"),
        pytest.param(
            "bart", 1, "model.encoder.layers", {"encoder_layers": "count"}, id="one side by name"
        ),
        pytest.param(
            "t5",
            1,
            None,
            {"num_layers": "count", "num_decoder_layers": "count"},
            id="positions in the first layer alone",
        ),
        pytest.param("whisper", 1, None, SIDES, id="an encoder of sound"),
        pytest.param("albert", 1, None, None, id="refused: one layer used again and again"),
        pytest.param("deepseek_v3", 1, None, None, id="refused: the first layers' copies differ"),
    ],
)
def test_each_kind_of_rule_is_right(
    model_type: str, drop: int, stack: str | None, rules: dict[str, str] | None, tmp_path: Path
) -> None:
    built = build(model_type)
    save(built, tmp_path / "source")
    model, complaints = load(type(built.model), tmp_path / "source")
    original = Original(folder=tmp_path / "source", model=model, complaints=complaints)
    ruling, scaling = rule(original, drop, stack=stack)
    if rules is None:
        assert (ruling.verdict, scaling) == (Verdict.REFUSED, None)
    else:
        assert ruling.verdict is Verdict.RIGHT, ruling.reason
        assert scaling is not None
        assert {change.field: change.rule for change in scaling.config_changes} == rules
