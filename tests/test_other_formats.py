"""Checkpoints of others than transformers: Mistral's own format, MLX, models of diffusers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dus_cli.documents import write_documents
from dus_cli.errors import CheckpointError, RequestError
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.run import VerifyRequest, verify
from tests.checkpoints import Array, load_all, mistral_checkpoint

PARAMS: Mapping[str, Any] = {
    "dim": 8,
    "n_layers": 4,
    "head_dim": 4,
    "hidden_dim": 16,
    "n_heads": 2,
    "n_kv_heads": 2,
    "norm_eps": 1e-05,
    "vocab_size": 32,
    "rope_theta": 1000000.0,
}


def tensors_of(names: list[str], *, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(8, 8)).astype(np.float16) for name in names}


def layers(prefix: str, count: int, parameters: list[str]) -> list[str]:
    return [f"{prefix}.{layer}.{name}" for layer in range(count) for name in parameters]


ATTENTION = ["attention.wq.weight", "attention.wo.weight", "attention_norm.weight"]
DENSE = [*ATTENTION, "feed_forward.w1.weight", "feed_forward.w2.weight"]
EXPERTS = [*ATTENTION, "gate.weight", *(f"experts.{e}.w1.weight" for e in range(2))]
ENDS = ["tok_embeddings.weight", "norm.weight", "output.weight"]


def write(
    folder: Path,
    config_name: str,
    config: Mapping[str, Any],
    names: list[str],
    stem: str,
    *,
    shards: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A checkpoint with shards called after `stem`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).write_text(json.dumps(config, indent=2), encoding="utf-8")
    tensors = tensors_of(names)
    if shards == 1:
        save_file(tensors, folder / f"{stem}.safetensors", metadata=metadata)
        return folder
    weight_map: dict[str, str] = {}
    for number in range(shards):
        shard = f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        save_file(part, folder / shard, metadata=metadata)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def upscaled(folder: Path, **request: Any) -> tuple[Plan, Path]:
    """The plan, and the result beside the source."""
    plan = plan_upscale(open_checkpoint(folder), UpscaleRequest(**request))
    target = folder.with_name("deeper")
    execute(plan, folder, target, write_documents(plan, None))
    return plan, target


def check_tensors(source: Path, target: Path, plan: Plan) -> None:
    """Every tensor of the result is the one that the layer map takes, as safetensors reads both."""
    before, after = load_all(source), load_all(target)
    expected = dict(before)
    for scaled in plan.scaling.scaled:
        stack = scaled.counted.stack
        inside = {name: stack.layer_of(name) for name in before}
        expected = {name: value for name, value in expected.items() if inside.get(name) is None}
        for output, layer in enumerate(scaled.layer_map.sources):
            expected |= {
                stack.rename(name, layer=output): before[name]
                for name, number in inside.items()
                if number == layer
            }
    assert set(after) == set(expected)
    assert all(np.array_equal(after[name], expected[name]) for name in after)


VISION = {
    "hidden_size": 8,
    "image_size": 64,
    "patch_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
VISION_NAMES = layers(
    "vision_encoder.transformer.layers", 4, ["attention.wq.weight", "attention_norm.weight"]
)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    ("fields", "names", "changed"),
    [
        pytest.param({}, layers("layers", 4, DENSE), {}, id="dense"),
        pytest.param(
            {"moe": {"num_experts_per_tok": 1, "num_experts": 2}},
            layers("layers", 4, EXPERTS),
            {},
            id="experts",
        ),
        pytest.param(
            {"vision_encoder": VISION},
            [*layers("layers", 4, DENSE), *VISION_NAMES],
            {},
            id="images, with as many layers",
        ),
        pytest.param(
            {"sliding_window": [None, 64, 64, 64]},
            layers("layers", 4, DENSE),
            {"sliding_window": [None, 64, 64, 64, 64, 64]},
            id="windows in turn",
        ),
        pytest.param(
            {"sliding_window": [None, 64]},
            layers("layers", 4, DENSE),
            {},
            id="windows in turn that stay right",
        ),
        pytest.param(
            {"moe": {"num_experts": 2, "first_k_dense_replace": 1, "route_every_n": 1}},
            [*layers("layers", 1, DENSE), *layers("layers", 4, EXPERTS)[len(EXPERTS) :]],
            {},
            id="experts behind a dense layer",
        ),
        pytest.param(
            {"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}},
            layers("layers", 4, [*DENSE, "attention.wq.qscale_weight"]),
            {},
            id="FP8",
        ),
    ],
)
def test_a_checkpoint_in_mistrals_own_format_is_upscaled(
    tmp_path: Path,
    shards: int,
    fields: dict[str, Any],
    names: list[str],
    changed: dict[str, Any],
) -> None:
    params = {**PARAMS, **fields}
    folder = write(
        tmp_path / "own", "params.json", params, [*ENDS, *names], "consolidated", shards=shards
    )
    (folder / "tekken.json").write_text("{}", encoding="utf-8")
    plan, target = upscaled(folder, drop=1)
    new = json.loads((target / "params.json").read_text(encoding="utf-8"))
    assert new == {**params, "n_layers": 6, **changed}
    assert plan.config_name == "params.json"
    assert not (target / "config.json").exists()
    assert all(path.name.startswith("consolidated-0000") for path in target.glob("*.safetensors"))
    assert (target / "consolidated.safetensors.index.json").exists()
    assert (target / "tekken.json").exists()
    check_tensors(folder, target, plan)
    assert open_checkpoint(target).config == new


@pytest.mark.parametrize(
    ("count", "moe"),
    [
        (4, {"num_experts": 2, "first_k_dense_replace": 2}),
        (5, {"num_experts": 2, "first_k_dense_replace": 0, "route_every_n": 2}),
    ],
)
def test_experts_whose_place_no_field_can_say_are_refused(
    tmp_path: Path, count: int, moe: dict[str, int]
) -> None:
    names = layers("layers", count, EXPERTS)
    params = {**PARAMS, "n_layers": count, "moe": moe}
    folder = write(tmp_path / "own", "params.json", params, [*ENDS, *names], "consolidated")
    with pytest.raises(RequestError, match="which layers are mixtures of experts by moe"):
        plan_upscale(open_checkpoint(folder), UpscaleRequest(drop=1))


def test_the_encoder_of_images_is_scaled_where_it_is_named(tmp_path: Path) -> None:
    names = [*ENDS, *layers("layers", 4, DENSE), *VISION_NAMES]
    params = {**PARAMS, "vision_encoder": VISION}
    folder = write(tmp_path / "own", "params.json", params, names, "consolidated")
    plan, target = upscaled(folder, drop=1, stack="vision_encoder.transformer.layers")
    assert plan.scaling.config == {**params, "vision_encoder": {**VISION, "num_hidden_layers": 6}}
    check_tensors(folder, target, plan)


def test_of_two_formats_transformers_counts(tmp_path: Path) -> None:
    """What is left of the other would say of the result what is true of the source."""
    folder = mistral_checkpoint(tmp_path / "both", layers=4)
    write(folder, "params.json", PARAMS, [*ENDS, *layers("layers", 4, DENSE)], "consolidated")
    plan, target = upscaled(folder, drop=1)
    assert plan.config_name == "config.json"
    left_out = {file.path: file.reason for file in plan.left_out_files}
    assert left_out["params.json"] == "the source's config in another format"
    assert not list(target.glob("consolidated*"))
    assert not (target / "params.json").exists()


def test_the_config_is_that_of_the_weights_format(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "own", "params.json", PARAMS, layers("layers", 4, DENSE), "consolidated"
    )
    (folder / "config.json").write_text('{"num_hidden_layers": 4}', encoding="utf-8")
    plan, target = upscaled(folder, drop=1)
    assert plan.config_name == "params.json"
    assert not (target / "config.json").exists()
    assert {file.path: file.reason for file in plan.left_out_files} == {
        "params.json": "written anew",
        "config.json": "the source's config in another format",
    }


def test_transformers_weights_do_without_their_config_no_better_than_before(
    tmp_path: Path,
) -> None:
    folder = mistral_checkpoint(tmp_path / "model", layers=4)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        plan_upscale(open_checkpoint(folder), UpscaleRequest(drop=1))


MLX_NAMES = [
    "model.embed_tokens.weight",
    *layers(
        "model.layers",
        4,
        [
            "self_attn.q_proj.weight",
            "self_attn.q_proj.scales",
            "self_attn.q_proj.biases",
            "mlp.down_proj.weight",
        ],
    ),
]


def test_the_modules_that_mlx_names_are_renamed(tmp_path: Path) -> None:
    """mlx-lm looks a module up by its path; what is not there gets the settings for all."""
    own = {"group_size": 32, "bits": 8}
    quantization = {
        "group_size": 64,
        "bits": 4,
        "model.layers.0.mlp.down_proj": False,
        "model.layers.2.mlp.down_proj": own,
        "model.layers.3.self_attn.q_proj": own,
        "model.embed_tokens": own,
    }
    config = {
        "model_type": "llama",
        "num_hidden_layers": 4,
        "quantization": quantization,
        "quantization_config": quantization,
    }
    folder = write(
        tmp_path / "mlx", "config.json", config, MLX_NAMES, "model", metadata={"format": "mlx"}
    )
    plan, target = upscaled(folder, drop=1)
    expected = {
        "group_size": 64,
        "bits": 4,
        "model.layers.0.mlp.down_proj": False,
        "model.layers.2.mlp.down_proj": own,
        "model.layers.4.mlp.down_proj": own,
        "model.layers.5.self_attn.q_proj": own,
        "model.embed_tokens": own,
    }
    new = json.loads((target / "config.json").read_text(encoding="utf-8"))
    assert new == {
        **config,
        "num_hidden_layers": 6,
        "quantization": expected,
        "quantization_config": expected,
    }
    check_tensors(folder, target, plan)
    shards = [shard.header.metadata for shard in open_checkpoint(target).shards]
    assert shards == [{"format": "mlx"}] * len(shards)


DOUBLE, SINGLE = (
    ["attn.to_q.weight", "ff.net.0.proj.weight", "ff.net.2.weight"],
    ["proj_mlp.weight"],
)
FLUX_NAMES = [
    "x_embedder.weight",
    *layers("transformer_blocks", 4, DOUBLE),
    *layers("single_transformer_blocks", 6, SINGLE),
]
FLUX = {"_class_name": "FluxTransformer2DModel", "num_layers": 4, "num_single_layers": 6}
DIFFUSION = "diffusion_pytorch_model"


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    ("stack", "changed"),
    [
        ("transformer_blocks", {"num_layers": 6}),
        ("single_transformer_blocks", {"num_single_layers": 10}),
    ],
)
def test_a_transformer_of_diffusers_is_scaled_in_the_stack_that_is_named(
    tmp_path: Path, stack: str, changed: dict[str, int], shards: int
) -> None:
    folder = write(tmp_path / "flux", "config.json", FLUX, FLUX_NAMES, DIFFUSION, shards=shards)
    plan, target = upscaled(folder, drop=1, stack=stack)
    assert plan.scaling.config == {**FLUX, **changed}
    assert plan.scaling.remarks == ()
    assert all(path.name.startswith(DIFFUSION) for path in target.glob("*.safetensors*"))
    check_tensors(folder, target, plan)


def test_stacks_of_as_many_blocks_are_told_apart_by_their_fields(tmp_path: Path) -> None:
    names = [
        *layers("transformer_blocks", 4, DOUBLE),
        *layers("single_transformer_blocks", 4, SINGLE),
    ]
    config = {**FLUX, "num_single_layers": 4}
    folder = write(tmp_path / "flux", "config.json", config, names, DIFFUSION)
    plan, _ = upscaled(folder, drop=1, stack="single_transformer_blocks")
    assert plan.scaling.config == {**config, "num_single_layers": 6}


def test_of_two_stacks_of_blocks_one_must_be_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "flux", "config.json", FLUX, FLUX_NAMES, DIFFUSION)
    with pytest.raises(RequestError, match="several stacks") as caught:
        plan_upscale(open_checkpoint(folder), UpscaleRequest(drop=1))
    assert "--stack" in str(caught.value.hint)


def test_blocks_that_a_list_names_by_number_are_renumbered(tmp_path: Path) -> None:
    """Stable Diffusion 3.5: the first blocks have a second attention, the last has no output."""
    names = [
        "pos_embed.proj.weight",
        *layers("transformer_blocks", 4, ["attn.to_q.weight"]),
        *layers("transformer_blocks", 2, ["attn2.to_q.weight"]),
        *layers("transformer_blocks", 3, ["ff_context.net.2.weight"]),
    ]
    config = {
        "_class_name": "SD3Transformer2DModel",
        "num_layers": 4,
        "dual_attention_layers": [0, 1],
    }
    folder = write(tmp_path / "sd3", "config.json", config, names, DIFFUSION)
    plan, target = upscaled(folder, drop=1)
    assert plan.scaling.config == {**config, "num_layers": 6, "dual_attention_layers": [0, 1, 3]}
    check_tensors(folder, target, plan)


@pytest.mark.parametrize(
    "name", ["ChromaTransformer2DModel", "HiDreamImageTransformer2DModel", "HunyuanDiT2DModel"]
)
def test_blocks_that_do_what_their_number_says_are_refused(tmp_path: Path, name: str) -> None:
    folder = write(
        tmp_path / "model",
        "config.json",
        {"_class_name": name, "num_layers": 4},
        layers("transformer_blocks", 4, DOUBLE),
        DIFFUSION,
    )
    with pytest.raises(RequestError, match=f"{name} cannot be up-scaled"):
        plan_upscale(open_checkpoint(folder), UpscaleRequest(drop=1))


def test_a_checkpoint_of_mistrals_own_format_and_what_is_made_of_it_verify(
    tmp_path: Path,
) -> None:
    names = [*layers("layers", 4, DENSE), *ENDS]
    folder = write(tmp_path / "source", "params.json", PARAMS, names, "consolidated")
    (folder / "tekken.json").write_text("{}", encoding="utf-8")
    _, target = upscaled(folder, drop=1)
    for path in (folder, target):
        outcome = verify(path, VerifyRequest(deep=True))
        assert [f.text for f in outcome.findings if f.code != "header-format"] == []
    outcome = verify(target, VerifyRequest(base=open_checkpoint(folder)))
    assert outcome.valid, outcome.findings
    edited = json.loads((target / "params.json").read_bytes()) | {"n_layers": 5}
    (target / "params.json").write_text(json.dumps(edited), encoding="utf-8")
    (wrong,) = (f for f in verify(target, VerifyRequest()).findings if f.code.startswith("config"))
    assert wrong.text.startswith("params.json: says n_layers = 5")
