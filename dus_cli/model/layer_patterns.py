"""What a layer's number means to models: one value for each of n layers, by a section.

A function here is named after what it computes or the type that computes it. Some have a partner
that states wanted values in fields.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from dus_cli.errors import RequestError
from dus_cli.format.strict_json import Json

Section: TypeAlias = Mapping[str, Json]
Values: TypeAlias = list[Json]
"""One value a layer."""

Expand: TypeAlias = Callable[[Section, int], Values | None]
Encode: TypeAlias = Callable[[Values], dict[str, Json] | None]


def integer(section: Section, field: str, default: int) -> int:
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
    return {number: place for place, number in enumerate(numbers) if type(number) is int}


def unless(explicit: str, values: Expand) -> Expand:
    """Expands as `values` does, or as the list in field `explicit` says where it is there."""

    def expand(section: Section, n: int) -> Values | None:
        stated = section.get(explicit)
        return stated[:n] if isinstance(stated, list) and stated else values(section, n)

    return expand


def every(field: str, default: int, *, hit: Json, other: Json, phase: int = 1) -> Expand:
    """`hit` in layers i with (i + phase) a multiple of the field's value, else `other`."""

    def expand(section: Section, n: int) -> Values | None:
        period = integer(section, field, default)
        return [hit if period > 0 and (i + phase) % period == 0 else other for i in range(n)]

    return expand


def sliding_but(field: str, default: int, *, phase: int = 1) -> Expand:
    """Sliding windows in all layers but those that `every` hits."""
    return every(field, default, hit="full_attention", other="sliding_attention", phase=phase)


def linear_but(field: str, default: int, *, full: str = "full_attention") -> Expand:
    """Linear attention in all layers but those that `every` hits, which are `full`."""
    return every(field, default, hit=full, other="linear_attention")


def fixed(kind_of: Callable[[int], Json]) -> Expand:
    """A pattern that no field changes, given by the kind of each layer."""
    return lambda _, n: [kind_of(i) for i in range(n)]


def windows_mistral(section: Section, n: int) -> Values | None:
    """A list of sizes that is repeated; null is full attention. A number holds for all layers."""
    sizes = section.get("sliding_window")
    return [sizes[i % len(sizes)] for i in range(n)] if isinstance(sizes, list) and sizes else None


def experts_mistral(section: Section, n: int) -> Values | None:
    """Mistral's own `moe`: the first layers are dense, and then all but every n-th one."""
    moe = section.get("moe")
    if not isinstance(moe, dict) or "first_k_dense_replace" not in moe:
        return None
    named = {**moe, "moe_layer_freq": moe.get("route_every_n")}
    return dense_first("first_k_dense_replace", 0)(named, n)


def windows_flint(_: Section, n: int) -> Values | None:
    """Full attention in the first two layers, the last one, and every fourth from layer 1."""
    full = {0, 1, n - 1, *range(1, n, 4)}
    return ["full_attention" if i in full else "sliding_attention" for i in range(n)]


def dense_first(
    field: str, default: int, *, dense: str = "dense", sparse: str = "sparse"
) -> Expand:
    """`dense` in as many first layers as the field says, then `sparse`.

    An integer `moe_layer_freq` above 1 makes only every such layer sparse.
    """

    def expand(section: Section, n: int) -> Values | None:
        count = integer(section, field, default)
        step = section.get("moe_layer_freq")
        step = step if type(step) is int and step > 0 else 1
        return [sparse if i >= count and i % step == 0 else dense for i in range(n)]

    return expand


def windows_after(default: int, *, switched: bool = True) -> Expand:
    """Sliding windows from layer `max_window_layers` on; `switched` by `use_sliding_window`."""

    def expand(section: Section, n: int) -> Values | None:
        # Absent, the window has a size by default; only null turns it off.
        off = "sliding_window" in section and section["sliding_window"] is None
        if off or (switched and not section.get("use_sliding_window")):
            return None
        start = integer(section, "max_window_layers", default)
        return ["sliding_attention" if i >= start else "full_attention" for i in range(n)]

    return expand


def windows_qwen2_moe(section: Section, n: int) -> Values | None:
    """Windows in layers of even number before `max_window_layers`."""
    if not section.get("use_sliding_window"):
        return None
    end = integer(section, "max_window_layers", 28)
    return ["sliding_attention" if i % 2 == 0 and i < end else "full_attention" for i in range(n)]


def windows_cohere2_moe(section: Section, n: int) -> Values | None:
    """One period for the dense layers at the beginning, another for the rest."""
    dense = max(0, min(integer(section, "first_k_dense_replace", 0), n))
    first = sliding_but("prefix_dense_sliding_window_pattern", 1)(section, dense) or []
    return first + (sliding_but("sliding_window_pattern", 4)(section, n - dense) or [])


def indexers(section: Section, n: int) -> Values | None:
    """A pattern of letters, or every so many layers from an offset on."""
    pattern = section.get("index_topk_pattern")
    if isinstance(pattern, list | str):
        return ["full" if kind in ("F", "full") else "shared" for kind in pattern][:n]
    period = max(integer(section, "index_topk_freq", 1), 1)
    offset = integer(section, "index_skip_topk_offset", 2)
    return ["shared" if max(i - offset + 1, 0) % period else "full" for i in range(n)]


def kimi_linear(section: Section, n: int) -> Values | None:
    """Two lists of layer numbers that count from 1, or every fourth layer but the first."""
    listed = section.get("linear_attn_config")
    full = listed.get("full_attn_layers") if isinstance(listed, dict) else None
    if isinstance(listed, dict) and isinstance(full, list) and "kda_layers" in listed:
        places = _places(full)
        return ["full_attention" if i + 1 in places else "linear_attention" for i in range(n)]
    return ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(n)]


def windows_dots3(section: Section, n: int) -> Values | None:
    """Full attention in the first two layers and every fourth from layer 1."""
    full = "full_attention" if section.get("use_dsa") is False else "indexed_attention"
    windows = section.get("use_sliding_window", True)
    return [full if not windows or i < 2 or i % 4 == 1 else "sliding_attention" for i in range(n)]


def windows_inkling(section: Section, n: int) -> Values | None:
    """Windows in the layers listed, or in all but every sixth."""
    local = _places(section.get("local_layer_ids"), (i for i in range(n) if (i + 1) % 6))
    return ["hybrid_sliding" if i in local else "hybrid" for i in range(n)]


def thetas_muse(default: float) -> Expand:
    """The base of the rotary positions, 0 for none: in every fourth layer from the last one."""

    def expand(section: Section, n: int) -> Values | None:
        rope = section.get("rope_parameters") or section.get("rope_scaling") or {}
        stated = rope.get("rope_theta") if isinstance(rope, dict) else None
        theta = section.get("rope_theta", default) if stated is None else stated
        return [0 if (n - 1 - i) % 4 == 0 else theta for i in range(n)]

    return expand


def experts_step3(section: Section, n: int) -> Values | None:
    """Mixtures of experts in the layers listed, or in all but the first three."""
    listed = section.get("moe_layers_enum")
    if isinstance(listed, str):
        listed = [int(number) for number in listed.split(",") if number.strip().isdecimal()]
    sparse = _places(listed, range(3, n))
    return ["sparse" if i in sparse else "dense" for i in range(n)]


def sources_of_keys(section: Section, n: int) -> Values | None:
    """Where each layer has its keys and values from: how many layers back."""
    listed = section.get("kv_source_layers")
    if not isinstance(listed, list):
        return None
    return [i - source if type(source) is int else None for i, source in enumerate(listed[:n])]


def encode_own_keys(values: Values) -> dict[str, Json] | None:
    """States that every layer has keys and values of its own, where that is so."""
    return None if any(values) else {"kv_source_layers": list(range(len(values)))}


def listed_numbers(field: str, default: tuple[int, ...], *, only_with: str = "") -> Expand:
    """Whether each layer is in a list of layer numbers; nothing for a section without a field
    `only_with`, which belongs to another part of the model."""

    def expand(section: Section, n: int) -> Values | None:
        if only_with and only_with not in section:
            return None
        numbers = _places(section.get(field), default)
        return [i in numbers for i in range(n)]

    return expand


def encode_numbers(field: str) -> Encode:
    """States the numbers of the layers with a true value."""
    return lambda values: {field: [i for i, value in enumerate(values) if value]}


def each_its_own(
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


def adapters_evolla(section: Section, n: int) -> Values | None:
    """An adapter in every so many layers, so that as many have one as the field says."""
    wanted = integer(section, "aligner_num_add_layers", 8)
    step = max(n // wanted, 1) if wanted > 0 else n + 1
    return [(i + 1) % step == 0 for i in range(n)]


def encode_adapters_evolla(values: Values) -> dict[str, Json] | None:
    """States as many adapters as give the period of the first one."""
    if True not in values:
        return None
    return {"aligner_num_add_layers": len(values) // (values.index(True) + 1)}


def staggered(section: Section, n: int) -> Values | None:
    """PEGASUS-X staggers the blocks of layers of odd number, unless it is told not to."""
    return [i % 2 for i in range(n)] if section.get("stagger_local_blocks", True) else None


def norms_fun_asr(section: Section, n: int) -> Values | None:
    """A norm behind the last layer of each of two parts, the second of stated length."""
    first_part = n - integer(section, "num_timestamp_prediction_layers", 20)
    return [i in (first_part - 1, n - 1) for i in range(n)]


def encode_norms_fun_asr(values: Values) -> dict[str, Json] | None:
    """States how long the second part is, where there are two norms."""
    norms = [i for i, value in enumerate(values) if value]
    if len(norms) != 2:
        return None
    return {"num_timestamp_prediction_layers": len(values) - 1 - norms[0]}


def heads_sapiens2(section: Section, n: int) -> Values | None:
    """All heads have keys of their own in the first and last layers, fewer in the others."""
    full = integer(section, "num_attention_heads", 16)
    few = integer(section, "num_key_value_attention_heads", 8)
    first = integer(section, "num_first_full_attention_layers", 8)
    last = integer(section, "num_last_full_attention_layers", 8)
    return [full if i < first or i >= n - last else few for i in range(n)]


def leads_glm5(section: Section, n: int) -> Values | None:
    """Whether each layer passes the keys that it chose on to the next one, and gets some itself.

    Only a layer with an indexer does, and only if the next has none.
    """
    kinds = unless("indexer_types", indexers)(section, n) or []
    following = [*kinds[1:], *kinds[-1:]]
    leads = [
        kind != "shared" and after == "shared" for kind, after in zip(kinds, following, strict=True)
    ]
    led = [False, *leads[:-1]]
    return [
        [lead, kind == "shared" and given]
        for kind, lead, given in zip(kinds, leads, led, strict=True)
    ]


_LARGEST_SCALE: Final = 1e30


def residual_scale(default: float | None) -> tuple[Expand, Encode]:
    """MiniCPM divides its residual scale by the root of the number of layers.

    Tensors are multiplied by it as a number of 32 bits, and so it is compared.
    """

    def expand(section: Section, n: int) -> Values | None:
        scale = section.get("scale_depth", default)
        if scale is None:
            return None
        if type(scale) not in (int, float) or not abs(scale) < _LARGEST_SCALE:
            raise _not_a_number("scale_depth", scale)
        (single,) = struct.unpack("f", struct.pack("f", scale / math.sqrt(n)))
        return [single] * n

    def encode(values: Values) -> dict[str, Json] | None:
        (wanted, *_), root = values, math.sqrt(len(values))
        return {"scale_depth": wanted * root} if isinstance(wanted, float) else None

    return expand, encode


def sided_step(side: str, first: int, counted: str | None) -> tuple[Expand, Encode]:
    """Mixtures of experts in every so many layers of a side, by its `sparse_step`.

    Layer `first` of each step is one. Where the step is absent it is 4, or follows from the
    number of such layers in the field `counted`.
    """
    field = f"{side}_sparse_step"

    def expand(section: Section, n: int) -> Values | None:
        default = 4
        if counted is not None:
            wanted = integer(section, counted, 3)
            default = n // wanted if wanted > 0 else n
        step = integer(section, field, default)
        return [step > 0 and i % step == first % step for i in range(n)]

    def encode(values: Values) -> dict[str, Json]:
        sparse = [i for i, value in enumerate(values) if value]
        step = sparse[1] - sparse[0] if sparse[1:] else len(values) if sparse else 0
        return {field: step} | ({counted: len(sparse)} if counted else {})

    return expand, encode


def sparse_by_step(section: Section, n: int) -> Values | None:
    """Experts in every so many layers, but for those that `mlp_only_layers` lists."""
    step = integer(section, "decoder_sparse_step", 1)
    dense = _places(section.get("mlp_only_layers"))
    return [
        "sparse" if step > 0 and i not in dense and (i + 1) % step == 0 else "dense"
        for i in range(n)
    ]


def encode_sparse_by_step(values: Values) -> dict[str, Json]:
    """States the dense layers one by one."""
    dense = [i for i, value in enumerate(values) if value == "dense"]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


def moe_layers_llama4(section: Section, n: int) -> Values | None:
    """Experts in the layers listed, or in every so many."""
    step = integer(section, "interleave_moe_layer_step", 1)
    sparse = _places(section.get("moe_layers"), range(step - 1, n, step) if step > 0 else ())
    return ["sparse" if i in sparse else "dense" for i in range(n)]


def encode_moe_layers(values: Values) -> dict[str, Json]:
    """States the layers with experts one by one."""
    return {"moe_layers": [i for i, value in enumerate(values) if value == "sparse"]}


def moe_between(section: Section, n: int) -> Values | None:
    """Experts in every so many layers between a first and a last one."""
    start = integer(section, "moe_layer_start_index", 1)
    end = integer(section, "moe_layer_end_index", -1)
    end = n - 1 if end == -1 else end
    interval = max(integer(section, "moe_layer_interval", 1), 1)
    return [
        "sparse" if start <= i <= end and (i + 1) % interval == 0 else "dense" for i in range(n)
    ]


def encode_moe_between(values: Values) -> dict[str, Json] | None:
    """States the last layer with experts."""
    sparse = [i for i, value in enumerate(values) if value == "sparse"]
    return {"moe_layer_end_index": sparse[-1]} if sparse else None


def cycle(section: Section, n: int) -> Values | None:
    """A list of kinds that is repeated."""
    kinds = section.get("block_types") or ["recurrent", "recurrent", "attention"]
    return [kinds[i % len(kinds)] for i in range(n)] if isinstance(kinds, list) else None


def attention_types(section: Section, n: int) -> Values | None:
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


def encode_attention_types(values: Values) -> dict[str, Json]:
    """States one pattern that is as long as the model and comes once."""
    return {"attention_types": [[list(values), 1]]}


def jamba(kind: str, default_period: int, default_offset: int) -> Expand:
    """Whether each layer is the one of its period that the offset names."""

    def expand(section: Section, n: int) -> Values | None:
        period = integer(section, f"{kind}_layer_period", default_period)
        offset = integer(section, f"{kind}_layer_offset", default_offset)
        return [period > 0 and i % period == offset for i in range(n)]

    return expand


def shared_from_end(section: Section, n: int) -> Values | None:
    """Whether each layer is one of the last ones, which share keys and values."""
    shared = integer(section, "num_kv_shared_layers", 0)
    return [i >= n - shared for i in range(n)] if shared else None


def phase(field: str) -> Expand:
    """The place of each layer in a period whose offset is unknown."""

    def expand(section: Section, n: int) -> Values | None:
        if isinstance(section[field], list):
            return None
        period = integer(section, field, 0)
        return [i % period for i in range(n)] if period > 1 else None

    return expand
