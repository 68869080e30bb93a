"""What config.json says of tensors' shapes, as tables: parameter name -> sizes it must have.

Only model types are listed in which the modules of these names have these shapes without
exception (modelling code of transformers 5.23); `tests/oracle` opens models of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeGuard

from dus_cli.format.strict_json import Json

_LLAMA_TYPES: Final = """
    apertus arcee cohere cohere2 ernie4_5 exaone4 gemma gemma2 gemma3_text granite helium llama
    ministral ministral3 mistral mixtral olmo olmo2 olmo3 olmoe phi3 qwen2 qwen2_moe qwen3
    qwen3_moe seed_oss smollm3 stablelm starcoder2
"""
_BERT_TYPES: Final = "bert camembert electra ernie roberta xlm-roberta"
_GPT2_TYPES: Final = "gpt2"

Shape = tuple[str, ...]
"""Names of sizes, outermost first."""

_LLAMA_SHAPES: Final[Mapping[str, Shape]] = {
    "self_attn.q_proj.weight": ("heads", "hidden"),
    "self_attn.k_proj.weight": ("key_value_heads", "hidden"),
    "self_attn.v_proj.weight": ("key_value_heads", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "heads"),
    "mlp.gate_proj.weight": ("intermediate", "hidden"),
    "mlp.up_proj.weight": ("intermediate", "hidden"),
    "mlp.down_proj.weight": ("hidden", "intermediate"),
    "input_layernorm.weight": ("hidden",),
    "post_attention_layernorm.weight": ("hidden",),
}
_BERT_SHAPES: Final[Mapping[str, Shape]] = {
    "attention.self.query.weight": ("hidden", "hidden"),
    "attention.self.key.weight": ("hidden", "hidden"),
    "attention.self.value.weight": ("hidden", "hidden"),
    "attention.output.dense.weight": ("hidden", "hidden"),
    "intermediate.dense.weight": ("intermediate", "hidden"),
    "output.dense.weight": ("hidden", "intermediate"),
}
_GPT2_SHAPES: Final[Mapping[str, Shape]] = {
    "attn.c_proj.weight": ("hidden", "hidden"),
    "mlp.c_fc.weight": ("hidden", "intermediate"),
    "mlp.c_proj.weight": ("intermediate", "hidden"),
    "ln_1.weight": ("hidden",),
    "ln_2.weight": ("hidden",),
}

LAYER_SHAPES: Final = MappingProxyType(
    {
        model_type: shapes
        for types, shapes in (
            (_LLAMA_TYPES, _LLAMA_SHAPES),
            (_BERT_TYPES, _BERT_SHAPES),
            (_GPT2_TYPES, _GPT2_SHAPES),
        )
        for model_type in types.split()
    }
)
"""Model type -> parameter of a layer -> shape."""

OUTSIDE_SHAPES: Final = MappingProxyType(
    {
        "embed_tokens.weight": ("vocabulary", "embedding"),
        "word_embeddings.weight": ("vocabulary", "embedding"),
        "wte.weight": ("vocabulary", "embedding"),
        "lm_head.weight": ("vocabulary", "embedding"),
    }
)
"""How names of tensors outside the layers end -> shape, for the same model types."""

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden": ("hidden_size", "n_embd"),
    "embedding": ("embedding_size", "hidden_size", "n_embd"),
    "vocabulary": ("vocab_size",),
    "intermediate": ("intermediate_size", "n_inner"),
}
"""Fields that state a size; the first one that is there counts."""


def sizes(section: Mapping[str, Json]) -> dict[str, tuple[int, str]]:
    """Sizes that a section states, by their names in the tables, and the field that says so.

    A size that the section does not state is not there.
    """
    found: dict[str, tuple[int, str]] = {}
    for name, fields in _FIELDS.items():
        for field in reversed(fields):
            if _is_size(size := section.get(field)):
                found[name] = (size, field)
    hidden, hidden_field = found.get("hidden", (0, ""))
    heads, head_dim = section.get("num_attention_heads"), section.get("head_dim")
    if _is_size(heads) and head_dim is None and hidden % heads == 0:
        head_dim = hidden // heads
    if _is_size(heads) and _is_size(head_dim):
        found["heads"] = (heads * head_dim, "num_attention_heads")
        shared = section.get("num_key_value_heads", heads)
        if _is_size(shared):
            found["key_value_heads"] = (shared * head_dim, "num_key_value_heads")
    if hidden_field == "n_embd" and "intermediate" not in found:
        found["intermediate"] = (4 * hidden, hidden_field)
    return found


def _is_size(value: Json) -> TypeGuard[int]:
    return type(value) is int and value > 0
