"""Arithmetic that models do on a layer's number, as a table.

A rule is expanded to one value a layer, before and after; what the copied layers would become is
compared with what their sources were. So a rule is never trusted to fit by its form, and a new
way of writing the same pattern needs no new code.

Facts: configuration and modelling code of transformers 5.23 (`tests/oracle` expands every row
against the configuration class), and configs as they lie on the Hub.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from dus_cli.errors import RequestError
from dus_cli.format.strict_json import Json

Section: TypeAlias = Mapping[str, Json]
Values: TypeAlias = list[Json]
"""One value a layer."""

Expand: TypeAlias = Callable[[Section, int], Values | None]
Encode: TypeAlias = Callable[[Values], dict[str, Json] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRule:
    """A property that a model derives from a layer's number.

    `expand` gives the property of each of `n` layers under a section, or None where the section
    makes no use of the rule. `encode` gives fields that state the wanted values outright, or None
    where there is no way; what it gives is believed only when `expand` confirms it. `field` is
    what the user knows the rule by. `model_types` empty means: every type whose config has
    `field` and for which no other row has it. `side` is encoder or decoder where the rule holds
    for one of them.
    """

    field: str
    what: str
    expand: Expand
    encode: Encode | None = None
    model_types: frozenset[str] = frozenset()
    side: str | None = None

    def applies_to(self, model_type: str, section: Section, side: str | None = None) -> bool:
        """Whether a stack of this `side` in a model of this type does the rule's arithmetic."""
        if self.side not in (None, side):
            return False
        return model_type in self.model_types if self.model_types else self.field in section


def _integer(section: Section, field: str, default: int) -> int:
    """The field's value; `default` where it is absent or null."""
    value = section.get(field)
    if value is None:
        return default
    if type(value) is not int:
        raise _not_a_number(field, value)
    return value


def _not_a_number(field: str, value: Json) -> RequestError:
    return RequestError(
        f"config.json: {field} is {value!r:.40}, where dus knows only a number",
        hint=f"Say --config-rule {field}=keep if the deeper model may keep it as it is.",
    )


def _places(value: Json, default: Iterable[int] = ()) -> dict[int, int]:
    """Where each number stands in a list of layer numbers; of `default` where there is no list."""
    numbers = value if isinstance(value, list) else default
    places: dict[int, int] = {}
    for place, number in enumerate(numbers):
        if type(number) is int:
            places.setdefault(number, place)
    return places


def _unless(explicit: str, values: Expand) -> Expand:
    """Expands as `values` does, or as the list in field `explicit` says where it is there."""

    def expand(section: Section, n: int) -> Values | None:
        stated = section.get(explicit)
        return stated[:n] if isinstance(stated, list) and stated else values(section, n)

    return expand


def _every(field: str, default: int, *, hit: Json, other: Json, phase: int = 1) -> Expand:
    """`hit` in layers i with (i + phase) a multiple of the field's value, else `other`."""

    def expand(section: Section, n: int) -> Values | None:
        period = _integer(section, field, default)
        return [hit if period > 0 and (i + phase) % period == 0 else other for i in range(n)]

    return expand


def _sliding_but(field: str, default: int, *, phase: int = 1) -> Expand:
    return _every(field, default, hit="full_attention", other="sliding_attention", phase=phase)


def _linear_but(field: str, default: int, *, full: str = "full_attention") -> Expand:
    return _every(field, default, hit=full, other="linear_attention")


def _fixed(kind_of: Callable[[int], Json]) -> Expand:
    """A pattern that no field changes, given by the kind of each layer."""
    return lambda _, n: [kind_of(i) for i in range(n)]


def _windows_mistral(section: Section, n: int) -> Values | None:
    """A list of sizes that is repeated; null is full attention. A number holds for all layers."""
    sizes = section.get("sliding_window")
    return [sizes[i % len(sizes)] for i in range(n)] if isinstance(sizes, list) and sizes else None


def _experts_mistral(section: Section, n: int) -> Values | None:
    moe = section.get("moe")
    if not isinstance(moe, dict) or "first_k_dense_replace" not in moe:
        return None
    named = {**moe, "moe_layer_freq": moe.get("route_every_n")}
    return _dense_first("first_k_dense_replace", 0)(named, n)


def _windows_flint(_: Section, n: int) -> Values | None:
    full = {0, 1, n - 1, *range(1, n, 4)}
    return ["full_attention" if i in full else "sliding_attention" for i in range(n)]


def _dense_first(
    field: str, default: int, *, dense: str = "dense", sparse: str = "sparse"
) -> Expand:
    """`dense` in as many first layers as the field says, then `sparse`.

    An integer `moe_layer_freq` above 1 makes only every such layer sparse.
    """

    def expand(section: Section, n: int) -> Values | None:
        count = _integer(section, field, default)
        step = section.get("moe_layer_freq")
        step = step if type(step) is int and step > 0 else 1
        return [sparse if i >= count and i % step == 0 else dense for i in range(n)]

    return expand


def _windows_after(default: int, *, switched: bool = True) -> Expand:
    """Sliding windows from layer `max_window_layers` on; `switched` by `use_sliding_window`."""

    def expand(section: Section, n: int) -> Values | None:
        # Absent, the window has a size by default; only null turns it off.
        off = "sliding_window" in section and section["sliding_window"] is None
        if off or (switched and not section.get("use_sliding_window")):
            return None
        start = _integer(section, "max_window_layers", default)
        return ["sliding_attention" if i >= start else "full_attention" for i in range(n)]

    return expand


def _windows_qwen2_moe(section: Section, n: int) -> Values | None:
    if not section.get("use_sliding_window"):
        return None
    end = _integer(section, "max_window_layers", 28)
    return ["sliding_attention" if i % 2 == 0 and i < end else "full_attention" for i in range(n)]


def _windows_cohere2_moe(section: Section, n: int) -> Values | None:
    dense = max(0, min(_integer(section, "first_k_dense_replace", 0), n))
    first = _sliding_but("prefix_dense_sliding_window_pattern", 1)(section, dense) or []
    return first + (_sliding_but("sliding_window_pattern", 4)(section, n - dense) or [])


def _indexers(section: Section, n: int) -> Values | None:
    pattern = section.get("index_topk_pattern")
    if isinstance(pattern, list | str):
        return ["full" if kind in ("F", "full") else "shared" for kind in pattern][:n]
    period = max(_integer(section, "index_topk_freq", 1), 1)
    offset = _integer(section, "index_skip_topk_offset", 2)
    return ["shared" if max(i - offset + 1, 0) % period else "full" for i in range(n)]


def _kimi_linear(section: Section, n: int) -> Values | None:
    listed = section.get("linear_attn_config")
    full = listed.get("full_attn_layers") if isinstance(listed, dict) else None
    if isinstance(listed, dict) and isinstance(full, list) and "kda_layers" in listed:
        places = _places(full)
        return ["full_attention" if i + 1 in places else "linear_attention" for i in range(n)]
    return ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(n)]


def _windows_dots3(section: Section, n: int) -> Values | None:
    full = "full_attention" if section.get("use_dsa") is False else "indexed_attention"
    windows = section.get("use_sliding_window", True)
    return [full if not windows or i < 2 or i % 4 == 1 else "sliding_attention" for i in range(n)]


def _windows_inkling(section: Section, n: int) -> Values | None:
    local = _places(section.get("local_layer_ids"), (i for i in range(n) if (i + 1) % 6))
    return ["hybrid_sliding" if i in local else "hybrid" for i in range(n)]


def _thetas_muse(default: float) -> Expand:
    """The base of the rotary positions, 0 for none: in every fourth layer from the last one."""

    def expand(section: Section, n: int) -> Values | None:
        rope = section.get("rope_parameters") or section.get("rope_scaling") or {}
        stated = rope.get("rope_theta") if isinstance(rope, dict) else None
        theta = section.get("rope_theta", default) if stated is None else stated
        return [0 if (n - 1 - i) % 4 == 0 else theta for i in range(n)]

    return expand


def _experts_step3(section: Section, n: int) -> Values | None:
    listed = section.get("moe_layers_enum")
    if isinstance(listed, str):
        listed = [int(number) for number in listed.split(",") if number.strip().isdecimal()]
    sparse = _places(listed, range(3, n))
    return ["sparse" if i in sparse else "dense" for i in range(n)]


def _sources_of_keys(section: Section, n: int) -> Values | None:
    """Where each layer has its keys and values from: how many layers back."""
    listed = section.get("kv_source_layers")
    if not isinstance(listed, list):
        return None
    return [i - source if type(source) is int else None for i, source in enumerate(listed[:n])]


def _encode_own_keys(values: Values) -> dict[str, Json] | None:
    return None if any(values) else {"kv_source_layers": list(range(len(values)))}


def _listed_numbers(field: str, default: tuple[int, ...], *, only_with: str = "") -> Expand:
    """Whether each layer is in a list of layer numbers; nothing for a section without a field
    `only_with`, which belongs to another part of the model."""

    def expand(section: Section, n: int) -> Values | None:
        if only_with and only_with not in section:
            return None
        numbers = _places(section.get(field), default)
        return [i in numbers for i in range(n)]

    return expand


def _encode_numbers(field: str) -> Encode:
    return lambda values: {field: [i for i, value in enumerate(values) if value]}


def _each_its_own(
    field: str, default: tuple[int, ...] = (), *, first: int = 0, only_with: str = ""
) -> tuple[Expand, Encode]:
    """The place of each layer in a list of layer numbers: what lies there belongs to it alone."""

    def expand(section: Section, n: int) -> Values | None:
        if only_with and only_with not in section:
            return None
        places = _places(section.get(field), default)
        return [places.get(i + first) for i in range(n)]

    def encode(values: Values) -> dict[str, Json]:
        placed = [(place, i + first) for i, place in enumerate(values) if type(place) is int]
        return {field: [number for _, number in sorted(placed)]}

    return expand, encode


def _adapters_evolla(section: Section, n: int) -> Values | None:
    wanted = _integer(section, "aligner_num_add_layers", 8)
    step = max(n // wanted, 1) if wanted > 0 else n + 1
    return [(i + 1) % step == 0 for i in range(n)]


def _encode_adapters_evolla(values: Values) -> dict[str, Json] | None:
    if True not in values:
        return None
    return {"aligner_num_add_layers": len(values) // (values.index(True) + 1)}


def _staggered(section: Section, n: int) -> Values | None:
    return [i % 2 for i in range(n)] if section.get("stagger_local_blocks", True) else None


def _norms_fun_asr(section: Section, n: int) -> Values | None:
    first_part = n - _integer(section, "num_timestamp_prediction_layers", 20)
    return [i in (first_part - 1, n - 1) for i in range(n)]


def _encode_norms_fun_asr(values: Values) -> dict[str, Json] | None:
    norms = [i for i, value in enumerate(values) if value]
    if len(norms) != 2:
        return None
    return {"num_timestamp_prediction_layers": len(values) - 1 - norms[0]}


def _heads_sapiens2(section: Section, n: int) -> Values | None:
    full, few = section.get("num_attention_heads"), section.get("num_key_value_attention_heads")
    first = _integer(section, "num_first_full_attention_layers", 8)
    last = _integer(section, "num_last_full_attention_layers", 8)
    return [full if i < first or i >= n - last else few for i in range(n)]


def _leads_glm5(section: Section, n: int) -> Values | None:
    """Which layers choose keys for the next one too, as that has no indexer."""
    kinds = _unless("indexer_types", _indexers)(section, n) or []
    following = [*kinds[1:], *kinds[-1:]]
    return [
        kind != "shared" and after == "shared" for kind, after in zip(kinds, following, strict=True)
    ]


_LARGEST_SCALE: Final = 1e100


def _residual_scale(default: float | None) -> tuple[Expand, Encode]:
    """MiniCPM divides its residual scale by the root of the number of layers."""

    def expand(section: Section, n: int) -> Values | None:
        scale = section.get("scale_depth", default)
        if scale is None:
            return None
        if type(scale) not in (int, float) or not abs(scale) < _LARGEST_SCALE:
            raise _not_a_number("scale_depth", scale)
        return [scale / math.sqrt(n)] * n

    def encode(values: Values) -> dict[str, Json] | None:
        (wanted, *_), root = values, math.sqrt(len(values))
        if not isinstance(wanted, float):
            return None
        scale = wanted * root
        near = (scale, math.nextafter(scale, 0), math.nextafter(scale, math.inf))
        return {"scale_depth": next((value for value in near if value / root == wanted), scale)}

    return expand, encode


def _sided_step(side: str, first: int, counted: str | None) -> tuple[Expand, Encode]:
    """Mixtures of experts in every so many layers of a side, by its `sparse_step`.

    Layer `first` of each step is one. Where the step is absent it is 4, or follows from the
    number of such layers in the field `counted`.
    """
    field = f"{side}_sparse_step"

    def expand(section: Section, n: int) -> Values | None:
        default = 4
        if counted is not None:
            wanted = _integer(section, counted, 3)
            default = n // wanted if wanted > 0 else n
        step = _integer(section, field, default)
        return [step > 0 and i % step == first % step for i in range(n)]

    def encode(values: Values) -> dict[str, Json]:
        sparse = [i for i, value in enumerate(values) if value]
        step = sparse[1] - sparse[0] if sparse[1:] else len(values) if sparse else 0
        return {field: step} | ({counted: len(sparse)} if counted else {})

    return expand, encode


def _sparse_by_step(section: Section, n: int) -> Values | None:
    step = _integer(section, "decoder_sparse_step", 1)
    dense = _places(section.get("mlp_only_layers"))
    return [
        "sparse" if step > 0 and i not in dense and (i + 1) % step == 0 else "dense"
        for i in range(n)
    ]


def _encode_sparse_by_step(values: Values) -> dict[str, Json]:
    dense = [i for i, value in enumerate(values) if value == "dense"]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


def _moe_layers_llama4(section: Section, n: int) -> Values | None:
    step = _integer(section, "interleave_moe_layer_step", 1)
    sparse = _places(section.get("moe_layers"), range(step - 1, n, step) if step > 0 else ())
    return ["sparse" if i in sparse else "dense" for i in range(n)]


def _encode_moe_layers(values: Values) -> dict[str, Json]:
    return {"moe_layers": [i for i, value in enumerate(values) if value == "sparse"]}


def _moe_between(section: Section, n: int) -> Values | None:
    start = _integer(section, "moe_layer_start_index", 1)
    end = _integer(section, "moe_layer_end_index", -1)
    end = n - 1 if end == -1 else end
    interval = max(_integer(section, "moe_layer_interval", 1), 1)
    return [
        "sparse" if start <= i <= end and (i + 1) % interval == 0 else "dense" for i in range(n)
    ]


def _encode_moe_between(values: Values) -> dict[str, Json] | None:
    sparse = [i for i, value in enumerate(values) if value == "sparse"]
    return {"moe_layer_end_index": sparse[-1]} if sparse else None


def _cycle(section: Section, n: int) -> Values | None:
    cycle = section.get("block_types") or ["recurrent", "recurrent", "attention"]
    return [cycle[i % len(cycle)] for i in range(n)] if isinstance(cycle, list) else None


def _attention_types(section: Section, n: int) -> Values | None:
    """gpt_neo writes `[[["global", "local"], 12]]` for 24 layers, and this is its default."""
    values: Values = []
    entries = section.get("attention_types") or [[["global", "local"], 12]]
    if not isinstance(entries, list):
        return None
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and type(entry[1]) is int):
            return None
        values += entry[0] * entry[1] if isinstance(entry[0], list) and entry[1] <= n else []
    return values[:n] or None


def _encode_attention_types(values: Values) -> dict[str, Json]:
    return {"attention_types": [[list(values), 1]]}


def _jamba(kind: str, default_period: int, default_offset: int) -> Expand:
    def expand(section: Section, n: int) -> Values | None:
        period = _integer(section, f"{kind}_layer_period", default_period)
        offset = _integer(section, f"{kind}_layer_offset", default_offset)
        return [period > 0 and i % period == offset for i in range(n)]

    return expand


def _shared_from_end(section: Section, n: int) -> Values | None:
    shared = _integer(section, "num_kv_shared_layers", 0)
    return [i >= n - shared for i in range(n)] if shared else None


def _phase(field: str) -> Expand:
    """The place of each layer in a period whose offset is unknown."""

    def expand(section: Section, n: int) -> Values | None:
        if isinstance(section[field], list):
            return None
        period = _integer(section, field, 0)
        return [i % period for i in range(n)] if period > 1 else None

    return expand


_LISTED: Final = {
    "layer_rope_theta": "which layers have rotary positions",
    "num_key_value_heads_per_layer": "how many heads of keys each layer has",
    "layer_types": "how each layer attends",
    "mlp_layer_types": "which layers are mixtures of experts",
    "no_rope_layers": "which layers have rotary positions",
    "indexer_types": "which layers choose their own keys",
}
"""Lists that state outright, for types that read them, what a rule otherwise derives."""


def _listed(types: str, explicit: str, derive: Expand, *, field: str | None = None) -> PositionRule:
    """A row for types that derive a list where the config does not hold it."""
    return PositionRule(
        field=field or explicit,
        what=_LISTED[explicit],
        model_types=frozenset(types.split()),
        expand=_unless(explicit, derive),
        encode=lambda values: {explicit: list(values)},
    )


def _attends(types: str, derive: Expand, *, field: str | None = None) -> PositionRule:
    return _listed(types, "layer_types", derive, field=field)


def _dense(types: str, default: int) -> PositionRule:
    """A row for types that know `first_k_dense_replace`, but no list."""
    return PositionRule(
        field="first_k_dense_replace",
        what=_LISTED["mlp_layer_types"],
        model_types=frozenset(types.split()),
        expand=_dense_first("first_k_dense_replace", default),
    )


def _one_off(
    types: str,
    field: str,
    what: str,
    expand: Expand,
    encode: Encode | None = None,
    *,
    side: str | None = None,
) -> PositionRule:
    return PositionRule(
        field=field,
        what=what,
        side=side,
        model_types=frozenset(types.split()),
        expand=expand,
        encode=encode,
    )


_SCALED: Final = "how far each layer counts"
_MERGED: Final = "which merger each layer feeds"
_WINDOW_PATTERN: Final = "sliding_window_pattern"
_EVERY_OTHER: Final = _sliding_but("", 2)
_GLOBAL: Final = "global_attn_every_n_layers"

POSITION_RULES: Final = (
    # How layers attend.
    _attends("gemma2 gpt_oss t5_gemma_module vaultgemma", _EVERY_OTHER),
    _attends(
        "gemma3 gemma3_text t5gemma2_text t5gemma2_decoder",
        _sliding_but(_WINDOW_PATTERN, 6),
        field=_WINDOW_PATTERN,
    ),
    _attends("cohere2 exaone4 exaone_moe", _sliding_but(_WINDOW_PATTERN, 4), field=_WINDOW_PATTERN),
    _attends("cohere2_moe", _windows_cohere2_moe, field=_WINDOW_PATTERN),
    _attends("olmo3", _sliding_but("", 4)),
    _attends("cwm granite_swa granitemoe_swa", _sliding_but("", 4, phase=0)),
    _attends("kolibri1", _sliding_but("", 5)),
    _attends("ultrabert", _sliding_but("", 3)),
    _attends("afmoe", _sliding_but(_GLOBAL, 4), field=_GLOBAL),
    _attends("modernbert modernbert-decoder", _sliding_but(_GLOBAL, 3, phase=0), field=_GLOBAL),
    _attends(
        "mimo_v2_flash",
        _fixed(lambda i: "sliding_attention" if i and (i + 1) % 6 else "full_attention"),
    ),
    _attends("flint", _windows_flint),
    _attends(
        "deepseek_v4",
        _fixed(
            lambda i: (
                "compressed_sparse_attention" if i > 1 and i % 2 else "heavily_compressed_attention"
            )
        ),
    ),
    _attends(
        "lfm3",
        _fixed(
            lambda i: (
                "full_attention"
                if i % 4 == 2
                else "sliding_attention"
                if i and i % 4 == 0
                else "conv"
            )
        ),
    ),
    _attends(
        "qwen2 qwen3 deepseek_ocr2_encoder qwen2_5_omni_text qwen2_5_omni_talker "
        "qwen3_omni_moe_talker_code_predictor",
        _windows_after(28),
        field="max_window_layers",
    ),
    _attends(
        "qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text",
        _windows_after(80),
        field="max_window_layers",
    ),
    _attends("dots1", _windows_after(62, switched=False), field="max_window_layers"),
    _attends("qwen2_moe", _windows_qwen2_moe, field="max_window_layers"),
    _attends("dots3_note_text", _windows_dots3),
    _attends("inkling_text", _windows_inkling),
    _attends(
        "muse_glimmer_text muse_spark_text",
        lambda _, n: [
            "sliding_attention" if (n - 1 - i) % 4 else "full_attention" for i in range(n)
        ],
    ),
    _attends(
        "muse_glimmer_vision muse_spark_vision",
        lambda _, n: [
            "window_attention" if (i + 1) % 4 and i != n - 1 else "full_attention" for i in range(n)
        ],
    ),
    _attends("lfm3_vl_vision", _fixed(lambda i: "conv" if i < 2 or i % 2 else "full_attention")),
    # Linear attention.
    _attends("minimax", _every("", 2, hit="linear_attention", other="full_attention")),
    _attends("olmo_hybrid", _linear_but("", 4)),
    _attends(
        "qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text",
        _linear_but("full_attention_interval", 4),
        field="full_attention_interval",
    ),
    _attends(
        "qwen4_exp_text",
        _linear_but("full_attention_interval", 4, full="indexed_attention"),
        field="full_attention_interval",
    ),
    _attends("bailing_hybrid", _linear_but("layer_group_size", 6), field="layer_group_size"),
    _attends("glm5_next_text", _linear_but("", 4, full="indexed_attention")),
    _attends("kimi_linear", _kimi_linear),
    # Which layers have rotary positions, or an indexer.
    _listed(
        "smollm3 llama4 llama4_text mistral_large4_text",
        "no_rope_layers",
        _every("no_rope_layer_interval", 4, hit=0, other=1),
        field="no_rope_layer_interval",
    ),
    *(
        _listed(types, "layer_rope_theta", _thetas_muse(default))
        for types, default in (("muse_glimmer_text", 10000.0), ("muse_spark_text", 500000.0))
    ),
    _listed(
        "glm_moe_dsa glm5_next_text mistral_large4_text",
        "indexer_types",
        _indexers,
        field="index_topk_freq",
    ),
    _listed(
        "hy_v4",
        "indexer_types",
        _fixed(lambda i: "shared" if i and (i - 1) % 4 else "full"),
    ),
    # Which layers are mixtures of experts.
    *(
        _listed(
            types,
            "mlp_layer_types",
            _dense_first("first_k_dense_replace", default),
            field="first_k_dense_replace",
        )
        for types, default in (
            ("cohere2_moe", 0),
            (
                "axk1 axk2 dots3_note_text exaone_moe kimi_linear mistral_large4_text "
                "unlimited_ocr_text",
                1,
            ),
            ("bailing_hybrid", 2),
            ("glm_moe_dsa deepseek_v32", 3),
        )
    ),
    _listed(
        "ernie4_5_vl_moe_text glm4_moe_lite hy_v3 hy_v4 laguna mimo_v2_flash",
        "mlp_layer_types",
        _fixed(lambda i: "dense" if i < 1 else "sparse"),
    ),
    _listed(
        "glm5_next_text",
        "mlp_layer_types",
        _fixed(lambda i: "dense" if i < 3 else "sparse"),
    ),
    _listed("step3p5 step3p7", "mlp_layer_types", _experts_step3, field="moe_layers_enum"),
    _listed(
        "inkling_text",
        "mlp_layer_types",
        _dense_first("dense_mlp_idx", 0),
        field="dense_mlp_idx",
    ),
    _listed(
        "deepseek_v4",
        "mlp_layer_types",
        _dense_first("num_hash_layers", 3, dense="hash_moe", sparse="moe"),
        field="num_hash_layers",
    ),
    _dense("deepseek_v2 dots1 mistral4", 0),
    _dense("glm4_moe glm4v_moe glm4v_moe_text", 1),
    _dense("deepseek_v3", 3),
    *(
        _one_off(
            types,
            "num_dense_layers",
            _LISTED["mlp_layer_types"],
            _dense_first("num_dense_layers", default),
        )
        for types, default in (("afmoe", 1), ("lfm2_moe", 2))
    ),
    _one_off(
        "qwen2_moe qwen3_moe qwen3_next qwen3_vl_moe qwen3_vl_moe_text qwen3_omni_moe_text "
        "qwen3_omni_moe_talker_text flint",
        "decoder_sparse_step",
        _LISTED["mlp_layer_types"],
        _sparse_by_step,
        _encode_sparse_by_step,
    ),
    _one_off(
        "llama4 llama4_text",
        "interleave_moe_layer_step",
        _LISTED["mlp_layer_types"],
        _moe_layers_llama4,
        _encode_moe_layers,
    ),
    _one_off(
        "ernie4_5_moe",
        "moe_layer_start_index",
        _LISTED["mlp_layer_types"],
        _moe_between,
        _encode_moe_between,
    ),
    _one_off(
        "jamba",
        "expert_layer_period",
        _LISTED["mlp_layer_types"],
        _jamba("expert", 2, 1),
    ),
    *(
        PositionRule(
            field=f"{side}_sparse_step",
            what=_LISTED["mlp_layer_types"],
            model_types=frozenset({model_type}),
            side=side,
            expand=expand,
            encode=encode,
        )
        for side in ("encoder", "decoder")
        for model_type, (expand, encode) in (
            ("nllb-moe", _sided_step(side, -1, None)),
            ("switch_transformers", _sided_step(side, 1, f"num_sparse_{side}_layers")),
        )
    ),
    # One of a kind.
    _one_off("jamba", "attn_layer_period", _LISTED["layer_types"], _jamba("attn", 8, 4)),
    _one_off(
        "recurrent_gemma",
        "block_types",
        "which layers are recurrent",
        _cycle,
        lambda values: {"block_types": list(values)},
    ),
    _one_off(
        "gpt_neo",
        "attention_types",
        "which layers attend locally",
        _attention_types,
        _encode_attention_types,
    ),
    _one_off(
        "evolla",
        "aligner_num_add_layers",
        "which layers have an adapter",
        _adapters_evolla,
        _encode_adapters_evolla,
    ),
    _one_off(
        "pegasus_x",
        "stagger_local_blocks",
        "in which layers blocks are staggered",
        _staggered,
        side="encoder",
    ),
    _one_off(
        "informer",
        "distil",
        "between which layers the sequence is halved",
        lambda section, n: list(range(n)) if section.get("distil", True) else None,
        side="encoder",
    ),
    _one_off(
        "eomt eomt_dinov3 videomt",
        "num_blocks",
        "which layers see the queries",
        lambda section, n: [i >= n - _integer(section, "num_blocks", 4) for i in range(n)],
    ),
    _one_off(
        "granite_speech_encoder granite_speech_plus_encoder",
        "num_layers",
        "after which layer it reads its own prediction",
        lambda _, n: [i == n // 2 for i in range(n)],
    ),
    _one_off(
        "granite_speech5_ctc granite_speech5_encoder",
        "num_hidden_layers",
        "after which layer it reads its own prediction",
        lambda _, n: [i + 1 == n // 2 for i in range(n)],
    ),
    _one_off(
        "fun_asr_nano_encoder",
        "num_timestamp_prediction_layers",
        "which layers have a norm behind them",
        _norms_fun_asr,
        _encode_norms_fun_asr,
    ),
    _listed("sapiens2", "num_key_value_heads_per_layer", _heads_sapiens2),
    _one_off(
        "glm5_next_text",
        "indexer_types",
        "which layers choose keys for the next",
        _leads_glm5,
    ),
    _one_off(
        "blip_2_qformer instructblip_qformer instructblipvideo_qformer",
        "cross_attention_frequency",
        "which layers read the image",
        _every("cross_attention_frequency", 2, hit=True, other=False, phase=0),
    ),
    _one_off("minicpm3", "scale_depth", _SCALED, *_residual_scale(1.4)),
    _one_off(
        "qwen4_exp_text",
        "ple_layer_ids",
        "which embeddings each layer has",
        *_each_its_own("ple_layer_ids", first=1),
    ),
    *(
        _one_off(
            types,
            "deepstack_visual_indexes",
            _MERGED,
            *_each_its_own("deepstack_visual_indexes", default, only_with=count),
        )
        for types, count, default in (
            ("cohere_compass_vision qwen3_omni_moe_vision_encoder", "depth", (8, 16, 24)),
            ("qwen3_vl qwen3_vl_vision qwen3_vl_moe qwen3_vl_moe_vision", "depth", (8, 16, 24)),
            ("granite_docling_vision", "num_hidden_layers", (3, 7, 10)),
        )
    ),
    *(
        _one_off(
            types,
            field,
            _LISTED["layer_types"],
            _listed_numbers(field, default, only_with=count),
            _encode_numbers(field),
        )
        for types, field, count, default in (
            (
                "exaone4_5_vision qwen2_5_omni_vision_encoder qwen2_5_vl qwen2_5_vl_vision",
                "fullatt_block_indexes",
                "depth",
                (7, 15, 23, 31),
            ),
            (
                "deepseek_ocr2_sam_vision_model got_ocr2_vision sam_vision_model "
                "sam_hq_vision_model unlimited_ocr_sam_vision_model",
                "global_attn_indexes",
                "",
                (2, 5, 8, 11),
            ),
            ("sam3_vit_model", "global_attn_indexes", "", (7, 15, 23, 31)),
        )
    ),
    # Mistral's own params.json, as vLLM reads it.
    PositionRule(
        field="sliding_window",
        what=_LISTED["layer_types"],
        expand=_windows_mistral,
        encode=lambda values: {"sliding_window": list(values)},
    ),
    PositionRule(field="moe", what=_LISTED["mlp_layer_types"], expand=_experts_mistral),
    # Types that have no row: kept where the pattern comes out right, else refused.
    PositionRule(
        field="deepstack_visual_indexes",
        what=_MERGED,
        expand=_each_its_own("deepstack_visual_indexes")[0],
        encode=_each_its_own("deepstack_visual_indexes")[1],
    ),
    PositionRule(
        field="scale_depth",
        what=_SCALED,
        expand=_residual_scale(None)[0],
        encode=_residual_scale(None)[1],
    ),
    PositionRule(
        field="cross_attention_frequency",
        what="which layers read the image",
        expand=_phase("cross_attention_frequency"),
    ),
    PositionRule(
        field="first_k_dense_replace",
        what=_LISTED["mlp_layer_types"],
        expand=_unless("mlp_layer_types", _dense_first("first_k_dense_replace", 0)),
    ),
    PositionRule(
        field="num_dense_layers",
        what=_LISTED["mlp_layer_types"],
        expand=_unless("mlp_layer_types", _dense_first("num_dense_layers", 0)),
    ),
    PositionRule(
        field="num_kv_shared_layers",
        what="which layers share keys and values",
        expand=_shared_from_end,
    ),
    PositionRule(
        field="cla_share_factor",
        what="which layers share keys and values",
        expand=lambda section, n: (
            _phase("cla_share_factor")(section, n) if section.get("use_cla") else None
        ),
    ),
    PositionRule(
        field="kv_source_layers",
        what="which layers share keys and values",
        expand=_sources_of_keys,
        encode=_encode_own_keys,
    ),
    PositionRule(
        field="moe_layer_start_index", what=_LISTED["mlp_layer_types"], expand=_moe_between
    ),
    PositionRule(
        field="max_window_layers",
        what=_LISTED["layer_types"],
        expand=_unless("layer_types", _windows_after(28)),
    ),
    PositionRule(
        field="no_rope_layer_interval",
        what=_LISTED["no_rope_layers"],
        expand=_unless("no_rope_layers", _phase("no_rope_layer_interval")),
    ),
    *(
        PositionRule(
            field=field,
            what=what,
            expand=_unless(explicit, _phase(field)),
        )
        for field, explicit, what in (
            *(
                (field, "layer_types", _LISTED["layer_types"])
                for field in (
                    _WINDOW_PATTERN,
                    _GLOBAL,
                    "full_attention_interval",
                    "layer_group_size",
                    "attn_layer_period",
                    "dense_attention_every_n_layers",
                    "mamba_step",
                )
            ),
            *(
                (field, "mlp_layer_types", _LISTED["mlp_layer_types"])
                for field in (
                    "decoder_sparse_step",
                    "encoder_sparse_step",
                    "expert_layer_period",
                    "interleave_moe_layer_step",
                    "moe_every_n_layers",
                    "moe_layer_freq",
                    "moe_layer_frequency",
                )
            ),
        )
    ),
)
