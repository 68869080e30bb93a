"""Small checkpoints for tests, written by the safetensors library and not by `dus_cli`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[np.generic]

LAYER_SHAPES: Mapping[str, tuple[int, ...]] = {
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.o_proj.weight": (8, 8),
    "mlp.up_proj.weight": (16, 8),
    "input_layernorm.weight": (8,),
}


def mistral_tensors(layers: int, *, seed: int = 0) -> dict[str, Array]:
    """A few tensors a layer under Mistral's names; every tensor differs from every other."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32, 8)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": size for name, size in LAYER_SHAPES.items()}
    shapes |= {"model.norm.weight": (8,), "lm_head.weight": (32, 8)}
    return {name: random.normal(size=size).astype(np.float16) for name, size in shapes.items()}


def mistral_config(layers: int) -> dict[str, object]:
    """The config that goes with `mistral_tensors`."""
    return {
        "architectures": ["MistralForCausalLM"],
        "hidden_size": 8,
        "intermediate_size": 16,
        "model_type": "mistral",
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "vocab_size": 32,
    }


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Array],
    config: Mapping[str, object],
    *,
    shards: int = 1,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Writes a checkpoint folder: shards of about equal tensor counts, index, config, `files`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    parts = [
        names[i * len(names) // shards : (i + 1) * len(names) // shards] for i in range(shards)
    ]
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map: dict[str, str] = {}
        for number, part in enumerate(parts, start=1):
            name = f"model-{number:05d}-of-{shards:05d}.safetensors"
            save_file({key: tensors[key] for key in part}, folder / name, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, name)
        total = sum(array.nbytes for array in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def mistral_checkpoint(folder: Path, *, layers: int = 4, shards: int = 1, seed: int = 0) -> Path:
    """A whole small Mistral checkpoint with a tokenizer and a generation config."""
    return write_checkpoint(
        folder,
        mistral_tensors(layers, seed=seed),
        mistral_config(layers),
        shards=shards,
        files={"tokenizer.json": "{}", "generation_config.json": '{"max_length": 20}'},
    )


def load_all(folder: Path, names: Sequence[str] | None = None) -> dict[str, Array]:
    """Every tensor of a checkpoint folder as the safetensors library reads it."""
    from safetensors import safe_open

    found: dict[str, Array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                if names is None or name in names:
                    found[name] = file.get_tensor(name)
    return found
