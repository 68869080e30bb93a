"""Models that were made by depth up-scaling: dus gives them their layers and parameters.

The bases have their true headers, over holes instead of weights. Which layers were taken is what
the papers, model cards and merge configs say; for Bielik and Granite it is inferred from the
number of layers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.model.layer_map import LayerMap
from dus_cli.plan import moves, plan_upscale
from dus_cli.scaling import UpscaleRequest
from tests.bench.generate import SHAPES, Config, Shape, Tensor, generate

MISTRAL = SHAPES["mistral-7b"]


def mistral(**fields: str | float | None) -> Shape:
    """Mistral-7B in another version."""
    return replace(MISTRAL, config={**MISTRAL.config, **fields})


def gpt_bigcode_tensors(config: Config) -> Iterator[Tensor]:
    """Tensors of GPTBigCodeForCausalLM: one head of keys and values, biases, a tied head."""
    width, inner = int(str(config["n_embd"])), int(str(config["n_inner"]))
    joined = width + 2 * (width // int(str(config["n_head"])))
    layer: Mapping[str, tuple[int, ...]] = {
        "ln_1": (width,),
        "attn.c_attn": (joined, width),
        "attn.c_proj": (width, width),
        "ln_2": (width,),
        "mlp.c_fc": (inner, width),
        "mlp.c_proj": (width, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (int(str(config["vocab_size"])), width),
        "transformer.wpe.weight": (int(str(config["n_positions"])), width),
    }
    for number in range(int(str(config["n_layer"]))):
        for module, shape in layer.items():
            shapes[f"transformer.h.{number}.{module}.weight"] = shape
            shapes[f"transformer.h.{number}.{module}.bias"] = shape[:1]
    shapes |= {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    for name, shape in shapes.items():
        yield Tensor(name=name, dtype="BF16", shape=shape)


GRANITE_20B_CODE = Shape(
    config={
        "activation_function": "gelu_pytorch_tanh",
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "multi_query": True,
        "n_embd": 6144,
        "n_head": 48,
        "n_inner": 24576,
        "n_layer": 52,
        "n_positions": 8192,
        "scale_attn_weights": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 49152,
    },
    generation_config={"bos_token_id": 0, "eos_token_id": 0},
    tensors=gpt_bigcode_tensors,
    grows_with_hidden=(),
    shard_elements=2_500_000_000,
    shard_name="model-{number:05d}-of-{count:05d}.safetensors",
)

V02 = {"max_position_embeddings": 32768, "rope_theta": 1e6, "sliding_window": None}

RECIPES = [
    pytest.param(MISTRAL, 8, 48, 10_731_524_096, id="SOLAR-10.7B-v1.0, of Mistral-7B-v0.1"),
    pytest.param(
        mistral(**V02, vocab_size=32768),
        8,
        48,
        10_737_815_552,
        id="Mistral-10.7B, of Mistral-7B-Instruct-v0.3",
    ),
    pytest.param(
        mistral(**V02), 4, 56, 12_476_420_096, id="Mistral-12.25B, of Mistral-7B-Instruct-v0.2"
    ),
    # Bielik's vocabulary has 128 tokens more than that of its base.
    pytest.param(
        mistral(**V02, vocab_size=32128),
        7,
        50,
        11_168_796_672,
        id="Bielik-11B-v2, of Mistral-7B-v0.2",
    ),
    pytest.param(
        GRANITE_20B_CODE, 8, 88, 33_715_603_456, id="Granite-34B-Code, of Granite-20B-Code"
    ),
]


@pytest.mark.parametrize(("base", "drop", "layers", "parameters"), RECIPES)
def test_a_known_model_comes_out_with_its_layers_and_parameters(
    tmp_path: Path, base: Shape, drop: int, layers: int, parameters: int
) -> None:
    generate(tmp_path / "base", base, sparse=True)
    checkpoint = open_checkpoint(tmp_path / "base")
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=drop))
    (scaled,) = plan.scaling.scaled
    n = scaled.counted.layer_count
    assert scaled.layer_map.sources == (*range(n - drop), *range(drop, n))
    assert (plan.scaling.after.layers, plan.scaling.after.parameters) == (layers, parameters)
    (count_field,) = scaled.counted.count_fields
    assert {**base.config, count_field: layers} == plan.scaling.config
    # The figure above is the plan's own; this one is counted from what it moves.
    moved = list(moves(checkpoint, plan.scaling.scaled))
    assert sum(move.info.element_count for move in moved) == parameters
    assert {move.name for move in moved} == {
        tensor.name for tensor in base.tensors({**base.config, count_field: layers})
    }


OTHER_MAPS = [
    pytest.param(32, [(0, 28), (12, 32)], id="Yi-9B, of Yi-6B: drops 4 and 12"),
    pytest.param(
        32,
        [(0, 8), (4, 12), (8, 16), (12, 20), (16, 24), (20, 28), (24, 32)],
        id="bigstral-12b-32k: seven ranges",
    ),
    pytest.param(
        80,
        [(0, 20), (10, 30), (20, 40), (30, 50), (40, 60), (50, 70), (60, 80)],
        id="Meta-Llama-3-120B-Instruct: seven ranges",
    ),
    pytest.param(
        32,
        [(0, 10), (5, 15), (10, 20), (15, 25), (20, 25), (22, 32)],
        id="Llama-3-13B-Instruct: six ranges",
    ),
]


@pytest.mark.parametrize(("n", "ranges"), OTHER_MAPS)
def test_models_of_another_map_are_out_of_reach(n: int, ranges: list[tuple[int, int]]) -> None:
    """Two copies that lose as many layers each are all that --drop and --target-layers make."""
    sources = tuple(layer for begin, end in ranges for layer in range(begin, end))
    assert sources not in [LayerMap.depth_upscale(n, drop).sources for drop in range(n)]
