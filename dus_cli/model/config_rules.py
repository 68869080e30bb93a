"""What in a config depends on a layer's position, as tables.

A `PerLayerField` holds one entry a layer, or layer numbers, and is moved by name. A
`PositionRule` is arithmetic that a model does on the layer's number (every fourth layer attends
to everything): it is expanded to one value a layer before and after, and what the copied layers
would become is compared with what their sources were.

Facts: configuration and modelling code of transformers 5.23, and configs as they lie on the Hub.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from dus_cli.format.strict_json import Json

Section: TypeAlias = Mapping[str, Json]
Values: TypeAlias = list[Json]
"""One value a layer."""


class FieldKind(StrEnum):
    """What a field holds, and so what happens to it. The values are what users type."""

    GATHER = "gather"
    """One entry a layer, in a list or a string of characters: taken by the layer map. Entries
    behind the last layer's (for MTP layers) stay at the end."""

    REKEY = "rekey"
    """An object whose keys are layer numbers: every entry goes to all copies of its layer."""

    REINDEX = "reindex"
    """A list of layer numbers: becomes the numbers of all copies."""

    KEEP = "keep"
    """Nothing to do with layers, whatever its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerField:
    """A field known by its name; `first` is the number of the first layer in REINDEX lists."""

    kind: FieldKind
    first: int = 0


def _gather(*names: str) -> dict[str, PerLayerField]:
    return {name: PerLayerField(kind=FieldKind.GATHER) for name in names}


def _reindex(*names: str, first: int = 0) -> dict[str, PerLayerField]:
    return {name: PerLayerField(kind=FieldKind.REINDEX, first=first) for name in names}


def _keep(*names: str) -> dict[str, PerLayerField]:
    return {name: PerLayerField(kind=FieldKind.KEEP) for name in names}


FIELDS: Final = MappingProxyType(
    {
        **_gather(
            "layer_types",
            "mlp_layer_types",
            "layers_block_type",
            "indexer_types",
            "no_rope_layers",
            "attention_layers",
            "activation_sparsity_pattern",
            "intermediate_size",
            "compress_ratios",
            "moe_layer_freq",
            "sparse_attention_freq",
            "hybrid_override_pattern",
            "index_topk_pattern",
        ),
        "per_layer_config": PerLayerField(kind=FieldKind.REKEY),
        **_reindex(
            "attn_layer_indices",
            "moe_layers",
            "cross_attention_layers",
            "mlp_only_layers",
            "full_attn_idxs",
            "bskcn_1",
            "bskcn_2",
            "bskcn_3",
            "bskcn_4",
        ),
        **_reindex("linear_attn_config.full_attn_layers", "linear_attn_config.kda_layers", first=1),
        **_keep(
            "architectures",
            "attention_types",
            "axial_pos_shape",
            "bad_words_ids",
            "block_types",
            "bos_token_id",
            "conv_kernel",
            "conv_kernel_size",
            "conv_stride",
            "conv_dim",
            "depths",
            "eos_token_id",
            "exit_layers",
            "image_grid_pinpoints",
            "image_mean",
            "image_size",
            "image_std",
            "mrope_section",
            "mtp_layer_types",
            "mtp_layers_block_type",
            "pad_token_id",
            "quantiles",
            "rope_parameters.long_factor",
            "rope_parameters.mrope_section",
            "rope_parameters.short_factor",
            "rope_scaling.long_factor",
            "rope_scaling.mrope_section",
            "rope_scaling.short_factor",
            "time_step_limit",
            "time_step_range",
            "weight_block_size",
        ),
    }
)
"""Known fields by dotted path inside their section. `intermediate_size` and the like are mostly
plain numbers; only a list or a string is ever gathered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRule:
    """A property that a model derives from a layer's number.

    `expand` gives the property of each of `n` layers under a section, or None where the section
    does not make use of the rule (the explicit field that supersedes it is there, say).
    `encode` gives fields that state the wanted values outright, or None where there is no way;
    what it gives is believed only when `expand` or its own explicit field confirms it.
    `model_types` empty means: every type whose config has `field`.
    """

    field: str
    what: str
    expand: Callable[[Section, int], Values | None]
    encode: Callable[[Values, Section], dict[str, Json] | None] | None = None
    model_types: frozenset[str] = frozenset()

    def applies_to(self, model_type: str, section: Section) -> bool:
        return model_type in self.model_types if self.model_types else self.field in section


def _as_list(field: str) -> Callable[[Values, Section], dict[str, Json]]:
    return lambda values, section: {field: list(values)}


def _unless(
    field: str, values: Callable[[Section, int], Values | None]
) -> Callable[[Section, int], Values | None]:
    """Expands as `values` does, or as the explicit list `field` says where it is there."""

    def expand(section: Section, n: int) -> Values | None:
        explicit = section.get(field)
        if isinstance(explicit, list) and explicit:
            return explicit[:n]
        return values(section, n)

    return expand


def _integer(section: Section, field: str, default: int) -> int:
    value = section.get(field)
    return value if type(value) is int else default


def _every(
    field: str, default: int, *, hit: Json, other: Json, phase: int = 1
) -> Callable[[Section, int], Values | None]:
    """`hit` in layers i with (i + phase) a multiple of the field's value, else `other`."""

    def expand(section: Section, n: int) -> Values | None:
        period = _integer(section, field, default)
        if period < 1:
            return [other] * n
        return [other if (i + phase) % period else hit for i in range(n)]

    return expand


def _sliding_but(
    field: str, default: int, *, phase: int = 1
) -> Callable[[Section, int], Values | None]:
    return _every(field, default, hit="full_attention", other="sliding_attention", phase=phase)


def _linear_but(field: str, default: int) -> Callable[[Section, int], Values | None]:
    return _every(field, default, hit="full_attention", other="linear_attention")


def _first(
    field: str, default: int, *, first: str, rest: str
) -> Callable[[Section, int], Values | None]:
    """`first` in the first layers, as many as the field says, then `rest`."""
    return lambda section, n: [
        first if i < _integer(section, field, default) else rest for i in range(n)
    ]


def _windows_after_max(section: Section, n: int) -> Values | None:
    if not section.get("use_sliding_window") or section.get("sliding_window") is None:
        return None
    start = _integer(section, "max_window_layers", 28)
    return ["sliding_attention" if i >= start else "full_attention" for i in range(n)]


def _windows_qwen2_moe(section: Section, n: int) -> Values | None:
    if not section.get("use_sliding_window"):
        return None
    end = _integer(section, "max_window_layers", 28)
    return ["sliding_attention" if i % 2 == 0 and i < end else "full_attention" for i in range(n)]


def _sparse_by_step(section: Section, n: int) -> Values | None:
    step = _integer(section, "decoder_sparse_step", 1)
    dense = section.get("mlp_only_layers") or []
    if step < 1 or not isinstance(dense, list):
        return None
    return ["sparse" if i not in dense and (i + 1) % step == 0 else "dense" for i in range(n)]


def _encode_sparse_by_step(values: Values, section: Section) -> dict[str, Json]:
    dense = [i for i, value in enumerate(values) if value == "dense"]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


def _moe_layers_llama4(section: Section, n: int) -> Values | None:
    listed = section.get("moe_layers")
    if not isinstance(listed, list):
        step = _integer(section, "interleave_moe_layer_step", 1)
        listed = list(range(step - 1, n, step)) if step > 0 else []
    return ["sparse" if i in listed else "dense" for i in range(n)]


def _encode_moe_layers(values: Values, section: Section) -> dict[str, Json]:
    return {"moe_layers": [i for i, value in enumerate(values) if value == "sparse"]}


def _moe_between(section: Section, n: int) -> Values | None:
    start = _integer(section, "moe_layer_start_index", 1)
    end = _integer(section, "moe_layer_end_index", -1)
    end = n - 1 if end == -1 else end
    interval = max(_integer(section, "moe_layer_interval", 1), 1)
    return [
        "sparse" if start <= i <= end and (i + 1) % interval == 0 else "dense" for i in range(n)
    ]


def _encode_moe_between(values: Values, section: Section) -> dict[str, Json] | None:
    sparse = [i for i, value in enumerate(values) if value == "sparse"]
    return {"moe_layer_end_index": sparse[-1]} if sparse else None


def _cycle(section: Section, n: int) -> Values | None:
    cycle = section.get("block_types")
    if not isinstance(cycle, list) or not cycle:
        return None
    return [cycle[i % len(cycle)] for i in range(n)]


def _attention_types(section: Section, n: int) -> Values | None:
    """gpt_neo writes `[[["global", "local"], 12]]` for 24 layers."""
    values: Values = []
    for entry in section.get("attention_types") or []:
        if not (isinstance(entry, list) and len(entry) == 2 and type(entry[1]) is int):
            return None
        values += entry[0] * entry[1] if isinstance(entry[0], list) and entry[1] <= n else []
    return values[:n] or None


def _encode_attention_types(values: Values, section: Section) -> dict[str, Json]:
    return {"attention_types": [[list(values), 1]]}


def _jamba(
    kind: str, default_period: int, default_offset: int
) -> Callable[[Section, int], Values | None]:
    def expand(section: Section, n: int) -> Values | None:
        period = _integer(section, f"{kind}_layer_period", default_period)
        offset = _integer(section, f"{kind}_layer_offset", default_offset)
        return [period > 0 and i % period == offset for i in range(n)]

    return expand


def _shared_from_end(section: Section, n: int) -> Values | None:
    shared = _integer(section, "num_kv_shared_layers", 0)
    return [i >= n - shared for i in range(n)] if shared else None


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


POSITION_RULES: Final = (
    PositionRule(
        field="sliding_window_pattern",
        what="which layers attend through a sliding window",
        model_types=_types("gemma3 gemma3_text embedding_gemma2"),
        expand=_unless("layer_types", _sliding_but("sliding_window_pattern", 6)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="sliding_window_pattern",
        what="which layers attend through a sliding window",
        model_types=_types("cohere2 cohere_compass exaone4 exaone_moe"),
        expand=_unless("layer_types", _sliding_but("sliding_window_pattern", 4)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="layer_types",
        what="which layers attend through a sliding window (every other one)",
        model_types=_types("gemma2 gpt_oss"),
        expand=_unless("layer_types", _sliding_but("", 2)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="layer_types",
        what="which layers attend through a sliding window (all but every fourth)",
        model_types=_types("cwm granite_swa granitemoe_swa"),
        expand=_unless("layer_types", _sliding_but("", 4, phase=0)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="layer_types",
        what="which layers use linear attention (every other one)",
        model_types=_types("minimax"),
        expand=_unless(
            "layer_types", _every("", 2, hit="linear_attention", other="full_attention")
        ),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="global_attn_every_n_layers",
        what="which layers attend to everything",
        model_types=_types("modernbert modernbert-decoder"),
        expand=_unless("layer_types", _sliding_but("global_attn_every_n_layers", 3, phase=0)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="global_attn_every_n_layers",
        what="which layers attend to everything",
        model_types=_types("afmoe"),
        expand=_unless("layer_types", _sliding_but("global_attn_every_n_layers", 4)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="full_attention_interval",
        what="which layers use full attention",
        model_types=_types("qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text"),
        expand=_unless("layer_types", _linear_but("full_attention_interval", 4)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="layer_group_size",
        what="which layers use full attention",
        model_types=_types("bailing_hybrid"),
        expand=_unless("layer_types", _linear_but("layer_group_size", 8)),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="max_window_layers",
        what="which layers attend through a sliding window",
        model_types=_types(
            "qwen2 qwen3 qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text qwen2_5_omni_text dots1 "
            "got_ocr2 deepseek_ocr2 pp_chart2table"
        ),
        expand=_unless("layer_types", _windows_after_max),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="max_window_layers",
        what="which layers attend through a sliding window",
        model_types=_types("qwen2_moe"),
        expand=_unless("layer_types", _windows_qwen2_moe),
        encode=_as_list("layer_types"),
    ),
    PositionRule(
        field="no_rope_layer_interval",
        what="which layers have rotary positions",
        model_types=_types("smollm3 llama4 llama4_text"),
        expand=_unless("no_rope_layers", _every("no_rope_layer_interval", 4, hit=0, other=1)),
        encode=_as_list("no_rope_layers"),
    ),
    PositionRule(
        field="interleave_moe_layer_step",
        what="which layers are mixtures of experts",
        model_types=_types("llama4 llama4_text"),
        expand=_moe_layers_llama4,
        encode=_encode_moe_layers,
    ),
    PositionRule(
        field="decoder_sparse_step",
        what="which layers are mixtures of experts",
        model_types=_types(
            "qwen2_moe qwen3_moe qwen3_next qwen3_vl_moe qwen3_vl_moe_text qwen3_omni_moe_text"
        ),
        expand=_sparse_by_step,
        encode=_encode_sparse_by_step,
    ),
    PositionRule(
        field="first_k_dense_replace",
        what="which layers are dense",
        model_types=_types(
            "glm_moe_dsa deepseek_v32 kimi_linear exaone_moe axk1 axk2 bailing_hybrid"
        ),
        expand=_unless(
            "mlp_layer_types", _first("first_k_dense_replace", 1, first="dense", rest="sparse")
        ),
        encode=_as_list("mlp_layer_types"),
    ),
    PositionRule(
        field="first_k_dense_replace",
        what="which layers are dense",
        expand=_unless(
            "mlp_layer_types", _first("first_k_dense_replace", 0, first="dense", rest="sparse")
        ),
    ),
    PositionRule(
        field="num_dense_layers",
        what="which layers are dense",
        expand=_first("num_dense_layers", 0, first="dense", rest="sparse"),
    ),
    PositionRule(
        field="moe_layer_start_index",
        what="which layers are mixtures of experts",
        expand=_moe_between,
        encode=_encode_moe_between,
    ),
    PositionRule(
        field="block_types",
        what="which layers are recurrent",
        model_types=_types("recurrent_gemma"),
        expand=_cycle,
        encode=_as_list("block_types"),
    ),
    PositionRule(
        field="attention_types",
        what="which layers attend locally",
        model_types=_types("gpt_neo"),
        expand=_attention_types,
        encode=_encode_attention_types,
    ),
    PositionRule(
        field="attn_layer_period",
        what="which layers attend",
        model_types=_types("jamba"),
        expand=_jamba("attn", 8, 4),
    ),
    PositionRule(
        field="expert_layer_period",
        what="which layers are mixtures of experts",
        model_types=_types("jamba"),
        expand=_jamba("expert", 2, 1),
    ),
    PositionRule(
        field="num_kv_shared_layers",
        what="which layers share keys and values",
        expand=_shared_from_end,
    ),
)


REFUSED_MODEL_TYPES: Final = MappingProxyType(
    {
        "albert": "all its layers are one set of parameters used again and again",
        "beam": "the residual scale of a layer is computed from the layer's number",
        "diffllama": "a layer's lambda is computed from the layer's number",
        "gemma3n": "its per-layer embeddings lie for all layers in one tensor",
        "gemma3n_text": "its per-layer embeddings lie for all layers in one tensor",
        "gemma4": "its per-layer embeddings lie for all layers in one tensor",
        "gemma4_text": "its per-layer embeddings lie for all layers in one tensor",
        "nllb-moe": "which layers hold experts follows from a period in the layer's number",
        "switch_transformers": "which layers hold experts follows from a period",
        "zamba2": "its shared blocks hold one adapter for every use, by the layer's number",
    }
)
"""Model types for which no config.json can describe the up-scaled model, with the reason."""

REFUSING_FIELDS: Final = MappingProxyType(
    {
        "scale_attn_by_inverse_layer_idx": "attention is scaled by the layer's number",
    }
)
"""Switches which, when on, make a layer compute something from its number."""

PLAIN_MODEL_TYPES: Final = frozenset(
    "apertus bart bert bigbird_pegasus biogpt bloom camembert codegen cohere command-r ctrl deberta "
    "deberta-v2 distilbert electra ernie falcon gemma glm glm4 gpt2 gpt_bigcode gpt_neox gptj "
    "granite helium llama marian mbart mistral mixtral mpt mpnet mt5 nemotron nomic_bert olmo "
    "olmo2 openai-gpt opt pegasus persimmon phi phi3 phimoe pythia roberta seed_oss solar stablelm "
    "starcoder2 t5 umt5 whisper xglm xlm-roberta".split()
)
"""Model types in which nothing depends on a layer's number but what `FIELDS` names."""
