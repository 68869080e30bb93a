"""Small values for the fields of any configuration, by the fields' names.

A recipe is a list of rows, a pattern for names and what becomes of a number. None is right for
every type, so `build` tries one after the other; what no recipe gets right is in `overrides`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

LAYERS: Final = 5
"""Layers of a language model, or of what is nothing else: odd, so that no period fits by luck."""

SENSE_LAYERS: Final = 7
"""Layers of what reads images or sound for a language model: another number, to tell them apart."""

BRIDGE_LAYERS: Final = 3
"""Layers of what stands between the two, or behind a language model."""

VOCABULARY: Final = 99

Change: TypeAlias = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Cycle:
    """A list with an entry a layer: these values, again and again."""

    values: tuple[Any, ...]


Overrides: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Model type -> field -> value; a Cycle becomes as long as the section has layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Rows of a pattern for a field's whole name and a change; the first that matches counts."""

    name: str
    rows: Sequence[tuple[re.Pattern[str], Change]]

    def shrink(self, field: str, value: int) -> int:
        """What the recipe makes of a field's default."""
        return next(
            (change(value) for pattern, change in self.rows if pattern.fullmatch(field)), value
        )


def _row(pattern: str, change: Change | int) -> tuple[re.Pattern[str], Change]:
    # A constant only ever makes a value smaller: 0 and -1 mean something else.
    apply = change if callable(change) else lambda value: min(value, change)
    return re.compile(pattern), apply


def _divide(by: int) -> Change:
    return lambda value: value if value <= 8 else max(value // by, 1)


_LAYER_COUNTS: Final = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|layers|depth|num_blocks|num_attention_layers"
    r"|((speech|t2u)_)?(encoder|decoder)_layers|num_(encoder|decoder)_layers"
    r"|(encoder|decoder|conf|folding_trunk)_num_hidden_layers|\w+_num_layers"
)
_VOCABULARIES: Final = _row(
    r"\w*vocab_size|vocab_size_per_layer_input|num_embeddings"
    r"|num_hash_buckets|encoder_hash_byte_group_vocab",
    VOCABULARY,
)
_CODEBOOK: Final = _row(r"codebook_size", 64)
_POSITIONS: Final = (
    _row(r"max_(2d_)?position_embeddings|\w*max_position_embeddings|n_positions|n_ctx", 128),
    _row(r"max_(source|target)_positions|max_seq_len|max_sequence_length|model_max_length", 128),
)
_EXPERTS: Final = (
    _row(r"num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_zero_experts", 4),
    _row(r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts|index_topk", 2),
    _row(r"n_group|num_expert_group|topk_group|n_shared_experts|num_shared_experts", 1),
    # Two, so that the second of them lies behind the seam for m = 1.
    _row(r"first_k_dense_replace|num_dense_layers", 2),
)
_WINDOWS: Final = _row(
    r"\w*sliding_window(_size)?|(local_)?attention_chunk_size|local_attention(_window_len)?"
    r"|local_radius",
    8,
)
_IMAGES: Final = _row(r"\w*image_size", lambda size: size if size <= 512 else size // 4)
_ALWAYS: Final = (_WINDOWS, _IMAGES, _VOCABULARIES, _CODEBOOK)
_WIDTHS: Final = (
    r"\w*hidden_size\w*|\w*hidden_dim|\w*embed_dim|\w*embedding_(size|dim)|d_model|n_embd|dim|emb_dim"
    r"|\w*projection_(dim|size)|\w*proj_dim|output_dim|\w*_model_dim|lru_width|vision_output_dim"
    r"|project_dim|classifier_proj_size|\w*_in_dim|\w*_out_dim|query_pre_attn_scalar|dff|d_inner"
    r"|feat_proj_dim|fpn_hidden_size|latent_dim|codevector_dim|codebook_dim|\w*quantization_dim"
)
_INNER: Final = (
    r"\w*intermediate_size\w*|\w*ffn_dim|\w*mlp_dim|d_ff|dim_ff|n_inner|\w*feedforward_dim"
    r"|\w*intermediate_dim|ffn_hidden_size|\w*linear_units|dim_feedforward"
)
_HEAD_WIDTHS: Final = (
    r"\w*head_dim|d_kv|kv_channels|\w*dim_head|d_head|\w*qk_rope_head_dim|attention_head_size"
)

TINY: Final = Recipe(
    name="tiny",
    rows=(
        *_ALWAYS,
        *_POSITIONS,
        *_EXPERTS,
        _row(r"\w*num_key_value_heads|num_kv_heads", 2),
        _row(r"\w*(attention|num|value|key)_heads|n_heads?|\w*_n_heads|num_heads", 4),
        _row(r"(kv|q|o)_lora_rank|time_step_rank|mamba_dt_rank|laurel_rank", 16),
        _row(_HEAD_WIDTHS + r"|rotary_dim|partial_head_dim", 8),
        _row(_INNER, 48),
        _row(_WIDTHS, 32),
        _row(r"num_\w*query_tokens|num_queries|\w*num_latents", 8),
        _row(r"state_size|mamba_d_state|ssm_state_size", 4),
    ),
)
"""Every width of a kind is the same small number."""


def _divided(by: int) -> Recipe:
    widths = (
        rf"{_WIDTHS}|{_INNER}|{_HEAD_WIDTHS}|(kv|q|o)_lora_rank|rotary_dim|attention_hidden_size"
    )
    return Recipe(
        name=f"divided by {by}",
        rows=(*_ALWAYS, *_POSITIONS, *_EXPERTS, _row(widths, _divide(by))),
    )


RECIPES: Final = (
    TINY,
    _divided(16),
    _divided(8),
    Recipe(name="fewer layers", rows=(*_ALWAYS, *_POSITIONS, *_EXPERTS)),
    Recipe(name="fewer layers, all positions", rows=_ALWAYS),
    Recipe(name="only fewer layers", rows=(_WINDOWS,)),
)
"""Smallest first."""

_TOKENS: Final = re.compile(r"\w*_(token_id|token_index|token_idx|bos_id|eos_id)")
_LAYER_NUMBERS: Final = re.compile(r"\w*(indexes|indices|idxs|layer_ids|_layers|hook_ids)")
_ANY_NUMBER: Final = re.compile(r"(global_attn|fullatt_block|window_block)_(indexes|indices)")
_SENSES: Final = re.compile(r"\w*(vision|visual|image|audio|speech|encoder|backbone|vit|codec)\w*")
_BRIDGES: Final = re.compile(
    r"\w*(qformer|perceiver|resampler|adapter|connector|projector|head|depth|predictor)\w*"
)


def fields_for(
    config: Any, recipe: Recipe, overrides: Overrides, *, layers: int = LAYERS
) -> dict[str, Any]:
    """Arguments that make a small configuration of the kind that `config` is with its defaults.

    What `overrides` say of a type wins, for the whole and for every section of that type.
    """
    fields = dict(_shrunk(config, recipe, overrides, layers))
    return merged(fields, fixed(overrides.get(config.model_type, {}), layers))


def fixed(overrides: Mapping[str, Any], layers: int = LAYERS) -> dict[str, Any]:
    """The fields that a table states, with their cycles written out."""
    return {
        name: [value.values[i % len(value.values)] for i in range(layers)]
        if isinstance(value, Cycle)
        else value
        for name, value in overrides.items()
    }


def merged(fields: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with what `more` says, section by section; one of another type is replaced."""
    return fields | {
        name: merged(fields[name], value) if _same_section(fields.get(name), value) else value
        for name, value in more.items()
    }


def _same_section(one: object, other: object) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return bool(other.get("model_type", one.get("model_type")) == one.get("model_type"))


def _shrunk(
    config: Any, recipe: Recipe, overrides: Overrides, layers: int
) -> Iterator[tuple[str, Any]]:
    small_vocabulary = any(row is _VOCABULARIES for row in recipe.rows)
    next_token = VOCABULARY
    for name, value in vars(config).items():
        if name.startswith("_"):
            continue
        if hasattr(value, "to_dict"):
            fields = fields_for(value, recipe, overrides, layers=_layers_of(name, layers))
            yield name, {"model_type": value.model_type, **fields, **_outputs(value, fields)}
        elif type(value) is int and _LAYER_COUNTS.fullmatch(name):
            # With `depths`, what is counted is stages, each of as many layers as the list says.
            if not hasattr(config, "depths"):
                yield name, min(value, layers) if value < 3 else layers
        elif type(value) is int and _TOKENS.fullmatch(name):
            if small_vocabulary and value >= VOCABULARY - 30:
                next_token -= 1
                yield name, next_token
        elif type(value) is int and (small := recipe.shrink(name, value)) != value:
            yield name, small
        elif _is_numbers(value) and _LAYER_NUMBERS.fullmatch(name):
            if layers <= max(value):
                last = list(range(layers))[-len(value) :]
                yield name, [1, 3] if _ANY_NUMBER.fullmatch(name) or len(value) >= layers else last
        elif isinstance(value, dict) and "mrope_section" in value and recipe is TINY:
            yield name, {**value, "mrope_section": [2, 1, 1]}


def _outputs(config: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The stages of a backbone that the model around it reads: the last, if they became fewer."""
    indices, names = getattr(config, "out_indices", None), getattr(config, "stage_names", None)
    if not indices or not names:
        return {}
    was = len(names) - 1
    stages = fields.get("num_hidden_layers", was) if _count(config) == was else was
    last = list(range(stages + 1))[-len(indices) :]
    return {"out_indices": list(indices) if stages == was else last}


def _layers_of(section: str, layers: int) -> int:
    if _BRIDGES.fullmatch(section):
        return BRIDGE_LAYERS
    return SENSE_LAYERS if _SENSES.fullmatch(section) else layers


def _is_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(type(v) is int for v in value)


def fit_lists(config: Any, default: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Lists with an entry a layer that are too long for `config`, or lost kinds: what they become.

    A pattern that needs more layers than there are would lose kinds, so the stretch that has most
    of them is taken. Lists that are `given` stay. Nested sections are dicts of such lists.
    """
    found: dict[str, Any] = {}
    due, was = _count(config), _count(default)
    for name, value in vars(config).items():
        before = vars(default).get(name)
        if name.startswith("_"):
            continue
        if hasattr(value, "to_dict") and hasattr(before, "to_dict"):
            if inner := fit_lists(value, before, given.get(name, {})):
                found[name] = inner
        elif isinstance(value, list | tuple) and isinstance(before, list | tuple):
            if name in given or not due or not was or due >= was or len(before) != was:
                continue
            if len(value) == was or (len(value) == due and _kinds(value) < _kinds(before)):
                found[name] = _stretch(before, due)
    return found


def _kinds(values: Sequence[Any]) -> int:
    return len({str(value) for value in values})


def _stretch(values: Sequence[Any], length: int) -> list[Any]:
    """The first stretch with most kinds, inside first: layers at the ends are copied only once."""
    stretches = [list(values[i : i + length]) for i in range(len(values) - length + 1)]
    return max(stretches, key=lambda stretch: (_kinds(stretch[1:-1]), _kinds(stretch)))


def _count(config: Any) -> int | None:
    for name in (
        "num_hidden_layers",
        "num_layers",
        "n_layer",
        "n_layers",
        "encoder_layers",
        "depth",
    ):
        if type(value := vars(config).get(name)) is int:
            return value
    return None
