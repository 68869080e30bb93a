"""Make a checkpoint with the names, shapes and sharding of a real one, of any size, from a seed.

    python tests/bench/generate.py OUT --shape mistral-7b [--layers N] [--hidden H] [--sparse]

It imports nothing of `dus_cli` and writes the safetensors headers by hand: whatever the tool
believes about the format, this file must not share the belief. The weights are random, because a
filesystem or a disk may store constant data without writing it.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Config: TypeAlias = Mapping[str, Json]

BLOCK_BYTES = 8 << 20
"""Bytes of random data made and written at a time; bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtype:
    """How one safetensors dtype is stored and how random bits become sane, finite values of it.

    A random 64-bit word is AND-ed with `keep`, then OR-ed with `force`.
    """

    bytes_per_element: int
    keep: int
    force: int


DTYPES: Mapping[str, Dtype] = {
    # In the order in which the safetensors library lays dtypes out in a file: widest first.
    # F32: 2^-13 <= x < 2^-12, as block scales are. BF16: 2^-15 <= |x| < 2.
    # F8: the exponent's top bit is off, so no NaN.
    "F32": Dtype(bytes_per_element=4, keep=0x007FFFFF_007FFFFF, force=0x39000000_39000000),
    "BF16": Dtype(bytes_per_element=2, keep=0x87FF87FF_87FF87FF, force=0x38003800_38003800),
    "F8_E4M3": Dtype(bytes_per_element=1, keep=0xBFBFBFBF_BFBFBFBF, force=0),
}
LAYOUT_RANK: Mapping[str, int] = {dtype: rank for rank, dtype in enumerate(DTYPES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor of a checkpoint, without its data; `shape` counts elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Length of the data in bytes."""
        return self.elements * DTYPES[self.dtype].bytes_per_element


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model that can be generated.

    `tensors` yields them in module order, the order in which shards are filled;
    `grows_with_hidden` names the config fields that `--hidden` scales in proportion;
    `shard_elements` is the most elements that a shard holds (an element, not a byte: that is how
    the FP8 DeepSeek files were cut; for BF16, twice as many bytes); `shard_name` takes the shard's
    number, counted from 1, and the number of shards.
    """

    config: Config
    generation_config: Config
    tensors: Callable[[Config], Iterator[Tensor]]
    grows_with_hidden: tuple[str, ...]
    shard_elements: int
    shard_name: str


def _int(config: Config, field: str) -> int:
    value = config[field]
    if not isinstance(value, int):
        raise TypeError(f"{field} is {value!r}, not an integer")
    return value


def mistral_tensors(config: Config) -> Iterator[Tensor]:
    """Tensors of MistralForCausalLM with an untied head, in module order, all BF16."""
    hidden = _int(config, "hidden_size")
    intermediate = _int(config, "intermediate_size")
    vocabulary = _int(config, "vocab_size")
    kv = hidden // _int(config, "num_attention_heads") * _int(config, "num_key_value_heads")
    layer: Mapping[str, tuple[int, ...]] = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    yield Tensor(name="model.embed_tokens.weight", dtype="BF16", shape=(vocabulary, hidden))
    for number in range(_int(config, "num_hidden_layers")):
        for module, shape in layer.items():
            yield Tensor(name=f"model.layers.{number}.{module}.weight", dtype="BF16", shape=shape)
    yield Tensor(name="model.norm.weight", dtype="BF16", shape=(hidden,))
    yield Tensor(name="lm_head.weight", dtype="BF16", shape=(vocabulary, hidden))


FP8_BLOCK = 128
"""Side, in elements, of the square of weights that shares one scale in DeepSeek's FP8 files."""


def _fp8_linear(name: str, rows: int, columns: int) -> Iterator[Tensor]:
    """An FP8 matrix and the F32 scales of its blocks."""
    scales = (-(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK))
    yield Tensor(name=f"{name}.weight", dtype="F8_E4M3", shape=(rows, columns))
    yield Tensor(name=f"{name}.weight_scale_inv", dtype="F32", shape=scales)


def _gated_mlp(name: str, hidden: int, intermediate: int) -> Iterator[Tensor]:
    yield from _fp8_linear(f"{name}.gate_proj", intermediate, hidden)
    yield from _fp8_linear(f"{name}.up_proj", intermediate, hidden)
    yield from _fp8_linear(f"{name}.down_proj", hidden, intermediate)


def deepseek_v3_tensors(config: Config) -> Iterator[Tensor]:
    """Tensors of DeepseekV3ForCausalLM in module order, FP8 with F32 block scales.

    The layers past `num_hidden_layers` are its multi-token-prediction modules; they repeat the
    embedding and the head, as the files on the Hub do.
    """
    hidden = _int(config, "hidden_size")
    vocabulary = _int(config, "vocab_size")
    heads = _int(config, "num_attention_heads")
    nope, rope = _int(config, "qk_nope_head_dim"), _int(config, "qk_rope_head_dim")
    value = _int(config, "v_head_dim")
    q_rank, kv_rank = _int(config, "q_lora_rank"), _int(config, "kv_lora_rank")
    experts, expert = _int(config, "n_routed_experts"), _int(config, "moe_intermediate_size")
    layers = _int(config, "num_hidden_layers")

    def plain(name: str, *shape: int) -> Tensor:
        return Tensor(name=f"{name}.weight", dtype="BF16", shape=shape)

    yield plain("model.embed_tokens", vocabulary, hidden)
    for number in range(layers + _int(config, "num_nextn_predict_layers")):
        layer = f"model.layers.{number}"
        if number >= layers:
            yield plain(f"{layer}.embed_tokens", vocabulary, hidden)
            yield plain(f"{layer}.enorm", hidden)
            yield plain(f"{layer}.hnorm", hidden)
            yield plain(f"{layer}.eh_proj", hidden, 2 * hidden)
        attention = f"{layer}.self_attn"
        yield from _fp8_linear(f"{attention}.q_a_proj", q_rank, hidden)
        yield plain(f"{attention}.q_a_layernorm", q_rank)
        yield from _fp8_linear(f"{attention}.q_b_proj", heads * (nope + rope), q_rank)
        yield from _fp8_linear(f"{attention}.kv_a_proj_with_mqa", kv_rank + rope, hidden)
        yield plain(f"{attention}.kv_a_layernorm", kv_rank)
        yield from _fp8_linear(f"{attention}.kv_b_proj", heads * (nope + value), kv_rank)
        yield from _fp8_linear(f"{attention}.o_proj", hidden, heads * value)
        mlp = f"{layer}.mlp"
        if number < _int(config, "first_k_dense_replace"):
            yield from _gated_mlp(mlp, hidden, _int(config, "intermediate_size"))
        else:
            yield plain(f"{mlp}.gate", experts, hidden)
            yield Tensor(name=f"{mlp}.gate.e_score_correction_bias", dtype="F32", shape=(experts,))
            shared = expert * _int(config, "n_shared_experts")
            yield from _gated_mlp(f"{mlp}.shared_experts", hidden, shared)
            for index in range(experts):
                yield from _gated_mlp(f"{mlp}.experts.{index}", hidden, expert)
        yield plain(f"{layer}.input_layernorm", hidden)
        yield plain(f"{layer}.post_attention_layernorm", hidden)
        if number >= layers:
            yield plain(f"{layer}.shared_head.norm", hidden)
            yield plain(f"{layer}.shared_head.head", vocabulary, hidden)
    yield plain("model.norm", hidden)
    yield plain("lm_head", vocabulary, hidden)


# The configs are those of mistralai/Mistral-7B-v0.1 and deepseek-ai/DeepSeek-V3 without
# `transformers_version` (transformers did not write these files) and `auto_map` (no code lies
# beside them).
SHAPES: Mapping[str, Shape] = {
    "mistral-7b": Shape(
        config={
            "architectures": ["MistralForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": 32000,
        },
        generation_config={"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2},
        tensors=mistral_tensors,
        grows_with_hidden=("intermediate_size", "num_attention_heads", "num_key_value_heads"),
        shard_elements=5_000_000_000,
        shard_name="model-{number:05d}-of-{count:05d}.safetensors",
    ),
    "deepseek-v3": Shape(
        config={
            "architectures": ["DeepseekV3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "aux_loss_alpha": 0.001,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "ep_size": 1,
            "first_k_dense_replace": 3,
            "hidden_act": "silu",
            "hidden_size": 7168,
            "initializer_range": 0.02,
            "intermediate_size": 18432,
            "kv_lora_rank": 512,
            "max_position_embeddings": 163840,
            "model_type": "deepseek_v3",
            "moe_intermediate_size": 2048,
            "moe_layer_freq": 1,
            "n_group": 8,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_attention_heads": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 61,
            "num_key_value_heads": 128,
            "num_nextn_predict_layers": 1,
            "pretraining_tp": 1,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "quantization_config": {
                "activation_scheme": "dynamic",
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": [FP8_BLOCK, FP8_BLOCK],
            },
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 40,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
            "rope_theta": 10000,
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "seq_aux": True,
            "tie_word_embeddings": False,
            "topk_group": 4,
            "topk_method": "noaux_tc",
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "v_head_dim": 128,
            "vocab_size": 129280,
        },
        generation_config={
            "_from_model_config": True,
            "bos_token_id": 0,
            "do_sample": True,
            "eos_token_id": 1,
            "temperature": 0.6,
            "top_p": 0.95,
        },
        tensors=deepseek_v3_tensors,
        grows_with_hidden=("intermediate_size", "moe_intermediate_size"),
        # The Hub's shards hold 4.3e9 elements and some far fewer, cut at places no rule explains;
        # this limit gives as many shards, of like size.
        shard_elements=4_220_000_000,
        shard_name="model-{number:05d}-of-{count:06d}.safetensors",
    ),
}

TOKENIZER: Config = {
    "version": "1.0",
    "added_tokens": [],
    "model": {
        "type": "WordLevel",
        "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2},
        "unk_token": "<unk>",
    },
}
TOKENIZER_CONFIG: Config = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
}


def resized(shape: Shape, layers: int | None, hidden: int | None) -> dict[str, Json]:
    """The shape's config with another number of layers, or another width in the same proportions.

    Raises ValueError if there would be no layer, or if a field that grows with the width would not
    be a whole number.
    """
    config = dict(shape.config)
    if layers is not None:
        if layers < 1:
            raise ValueError(f"{layers} layers: at least 1 is needed")
        config["num_hidden_layers"] = layers
    if hidden is not None:
        full = _int(config, "hidden_size")
        for field in shape.grows_with_hidden:
            value, rest = divmod(_int(config, field) * hidden, full)
            if rest or not value:
                raise ValueError(
                    f"hidden size {hidden}: {field} would be {_int(config, field) * hidden / full}"
                )
            config[field] = value
        config["hidden_size"] = hidden
    return config


def sharded(tensors: Iterator[Tensor], limit: int) -> list[list[Tensor]]:
    """Fill shards greedily, in the given order, with at most `limit` elements each."""
    shards: list[list[Tensor]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + tensor.elements > limit:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += tensor.elements
    return shards


def in_file_order(shard: Sequence[Tensor]) -> list[Tensor]:
    """The order in which the safetensors library writes: widest dtype first, then by name."""
    return sorted(shard, key=lambda tensor: (LAYOUT_RANK[tensor.dtype], tensor.name))


def header_bytes(tensors: Sequence[Tensor]) -> bytes:
    """Length prefix and header of a file with these tensors in this order, padded to 8 bytes."""
    entries: dict[str, Json] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.size
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_random(file: BinaryIO, tensor: Tensor, seed: int) -> None:
    """Append one tensor's data: it depends on the seed and the name, not on the sharding."""
    source = np.random.SFC64([seed, zlib.crc32(tensor.name.encode())])
    dtype = DTYPES[tensor.dtype]
    keep, force = np.uint64(dtype.keep), np.uint64(dtype.force)
    for begin in range(0, tensor.size, BLOCK_BYTES):
        length = min(BLOCK_BYTES, tensor.size - begin)
        words: npt.NDArray[np.uint64] = source.random_raw(-(-length // 8))
        words &= keep
        words |= force
        file.write(words.data.cast("B")[:length])


def write_shard(path: Path, tensors: Sequence[Tensor], *, seed: int, sparse: bool) -> None:
    """Write one safetensors file; a sparse one has a true header and a hole for data."""
    with path.open("wb", buffering=0) as file:
        header = header_bytes(tensors)
        file.write(header)
        if sparse:
            file.truncate(len(header) + sum(tensor.size for tensor in tensors))
        else:
            for tensor in tensors:
                write_random(file, tensor, seed)


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def generate(
    folder: Path,
    shape: Shape,
    *,
    layers: int | None = None,
    hidden: int | None = None,
    shard_elements: int | None = None,
    seed: int = 0,
    sparse: bool = False,
) -> int:
    """Write a checkpoint into `folder` and return its tensors' bytes (the index's `total_size`).

    One shard only becomes `model.safetensors` without an index, as in the ecosystem.
    """
    config = resized(shape, layers, hidden)
    shards = sharded(shape.tensors(config), shard_elements or shape.shard_elements)
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, Json] = {}
    total_size = 0
    for number, shard in enumerate(shards, start=1):
        name = (
            shape.shard_name.format(number=number, count=len(shards))
            if len(shards) > 1
            else "model.safetensors"
        )
        write_shard(folder / name, in_file_order(shard), seed=seed, sparse=sparse)
        weight_map.update((tensor.name, name) for tensor in shard)
        total_size += sum(tensor.size for tensor in shard)
    if len(shards) > 1:
        index: Json = {
            "metadata": {"total_size": total_size},
            "weight_map": dict(sorted(weight_map.items())),
        }
        write_json(folder / "model.safetensors.index.json", index)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", shape.generation_config)
    write_json(folder / "tokenizer.json", TOKENIZER)
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    return total_size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    parser.add_argument("--shape", choices=SHAPES, default="mistral-7b", help="model to imitate")
    parser.add_argument("--layers", type=int, help="number of layers instead of the model's own")
    parser.add_argument(
        "--hidden", type=int, help="hidden size; the fields that go with it are scaled"
    )
    parser.add_argument(
        "--shard-elements", type=int, help="most elements in a shard instead of the model's own"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    parser.add_argument(
        "--sparse", action="store_true", help="true headers, but holes instead of data"
    )
    arguments = parser.parse_args()
    try:
        size = generate(
            arguments.out,
            SHAPES[arguments.shape],
            layers=arguments.layers,
            hidden=arguments.hidden,
            shard_elements=arguments.shard_elements,
            seed=arguments.seed,
            sparse=arguments.sparse,
        )
    except ValueError as error:
        parser.error(str(error))
    print(f"{arguments.out}: {size:,} bytes of tensors")


if __name__ == "__main__":
    main()
