"""Names of layers in quantisations: every copy is read as its source was, by the library it is for.

The libraries' ways to read are written down here a second time, with Python's own matchers.
"""

import contextlib
import fnmatch
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dus_cli.errors import RequestError
from dus_cli.model.architecture import choose_stacks
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.layer_names import rename_layers
from dus_cli.model.stack import find_stacks

MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate", "mlp.experts.1.w1")
VISUAL = ("attn.qkv", "mlp.fc1")
LAYERS, DROP = 12, 3
LAYER_MAP = LayerMap.depth_upscale(LAYERS, DROP)


def modules(layers: int, prefix: str = "model.layers") -> list[str]:
    """A text stack, a stack for images that stays as it is, and modules outside of both."""
    return [
        *(f"{prefix}.{layer}.{module}" for layer in range(layers) for module in MODULES),
        *(f"visual.layers.{layer}.{module}" for layer in range(11) for module in VISUAL),
        "model.embed_tokens",
        "lm_head",
    ]


def renamed(value: Any, *, layers: int = LAYERS, drop: int = DROP) -> Any:
    """`value` as the quantisation of the model above after `--drop`."""
    names = [f"{module}.weight" for module in modules(layers)]
    config = {"num_hidden_layers": layers}
    (counted,) = choose_stacks(config, find_stacks(names))
    pairs = [(counted, LayerMap.depth_upscale(layers, drop))]
    return rename_layers(
        value,
        subject="config.json",
        path="quantization_config",
        tensor_names=names,
        scaled=pairs,
    )


def source_of(module: str, layer_map: LayerMap = LAYER_MAP) -> str:
    """The module of the source that a module of the result is a copy of."""
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", module)
    return f"model.layers.{layer_map.sources[int(found[1])]}.{found[2]}" if found else module


def in_list(fits: Callable[[str, str], object]) -> Callable[[Any, str], object]:
    return lambda entries, module: any(fits(entry, module) for entry in entries)


def transformers_skips(entry: str, module: str) -> bool:
    return bool(re.match(f"{entry}\\.", module) or re.match(entry, module)) or module.endswith(
        entry
    )


def compressed_tensors(entry: str, module: str) -> bool:
    return bool(re.match(entry[3:], module)) if entry.startswith("re:") else entry == module


def gptq_dynamic(entries: Mapping[str, Any], module: str) -> object:
    for pattern, settings_ in entries.items():
        if re.match(re.sub("^[+-]:", "", pattern), module):
            return "not quantised" if pattern.startswith("-:") else settings_
    return None


def auto_round(entries: Mapping[str, Any], module: str) -> object:
    if module in entries:
        return entries[module]
    for pattern, settings_ in entries.items():
        if set(r"*+?^$()[]{}|\\") & set(pattern) and re.search(pattern, module):
            return settings_
    return None


def torchao(entries: Mapping[str, Any], module: str) -> object:
    if module in entries:
        return entries[module]
    for pattern, settings_ in entries.items():
        if pattern.startswith("re:") and re.fullmatch(pattern[3:], module):
            return settings_
    return entries.get("_default")


def quark(entries: Mapping[str, Any], module: str) -> object:
    return next((entries[key] for key in entries if fnmatch.fnmatchcase(module, key)), None)


def of_name(entries: Mapping[str, Any], module: str) -> object:
    return entries.get(module)


READERS: dict[str, Callable[[Any, str], object]] = {
    "modules_to_not_convert": in_list(transformers_skips),
    "llm_int8_skip_modules": in_list(transformers_skips),
    "ignored_layers": in_list(lambda entry, module: entry == module),
    "ignore": in_list(compressed_tensors),
    "targets": in_list(compressed_tensors),
    "exclude_modules": in_list(lambda entry, module: fnmatch.fnmatchcase(module, entry)),
    "dynamic": gptq_dynamic,
    "extra_config": auto_round,
    "module_fqn_to_config": torchao,
    "layer_quant_config": quark,
    "quantized_layers": of_name,
}
"""Field -> what its library does with a module."""

A, B = {"bits": 8}, {"bits": 4}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modules_to_not_convert", ["lm_head", "model.layers.1.mlp.gate"]),
        pytest.param("modules_to_not_convert", ["model.layers.1"], id="1 fits 10 and 11 too"),
        ("modules_to_not_convert", ["model.layers.2", "visual"]),
        ("modules_to_not_convert", [r"model\.layers\.(0|3)\.mlp"]),
        ("modules_to_not_convert", ["model.layers.*.mlp.gate", "gate"]),
        ("modules_to_not_convert", ["model.layers.4.mlp.*"]),
        pytest.param("modules_to_not_convert", ["3.mlp.gate"], id="an end that holds a number"),
        ("llm_int8_skip_modules", ["model.layers.11.mlp.experts.1.w1", "layers.3.mlp.gate"]),
        ("ignored_layers", [f"model.layers.{layer}.mlp.gate" for layer in range(LAYERS)]),
        ("ignore", ["lm_head", "re:.*mlp.gate$", "model.layers.5.self_attn.q_proj"]),
        ("ignore", ["re:.*layers\\.0\\..*"]),
        ("ignore", ["re:.*layers.1.*"]),
        ("ignore", ["re:.*layers\\.[0-3]\\.mlp.*", "re:visual.*"]),
        ("ignore", ["re:model\\.layers\\.(?:0|1|11)\\.mlp\\.gate"]),
        ("ignore", ["re:^model\\.layers\\.(?!0\\.|1\\.)\\d+\\.self_attn.*"]),
        ("ignore", ["re:.*layers\\.\\d\\..*"]),
        ("ignore", ["re:model\\.layers\\.([0-9]|1[0])\\.mlp.*"]),
        ("targets", ["Linear", "re:model.layers.7.*q_proj"]),
        ("exclude_modules", ["lm_head", "model.layers.0.self_attn*", "model.layers.1*"]),
        ("exclude_modules", ["model.layers.[0-2].mlp.gate", "*.layers.?.mlp.gate"]),
        ("dynamic", {"+:.*\\.8\\..*gate.*": A, "-:.*\\.4\\..*gate.*": {}, ".*gate.*": B}),
        ("dynamic", {"-:model\\.layers\\.(0|1|2)\\..*": {}, "+:.*\\.o_proj": A}),
        ("dynamic", {"model.layers.0.mlp": A, "-:^model\\.layers\\.1": {}}),
        ("dynamic", {"+:.*layers\\.1[01]?\\..*": A, "+:.*layers\\.\\d\\..*": B}),
        ("dynamic", {r"-:^(?!.*layers\.(?:0|1)\.).*gate": {}}),
        ("extra_config", {"model.layers.1.mlp.gate": A, ".*layers\\.1\\..*": B, "lm_head": A}),
        ("extra_config", {f"model.layers.{layer}.mlp.gate": A for layer in (0, 4, 11)}),
        ("extra_config", {"layers\\.(?:[4-6])\\.mlp": A, ".*q_proj": B, "4\\.self_attn.*": A}),
        pytest.param(
            "dynamic",
            {"+:m.*s\\.(4)\\.mlp.*": A, "+:m.*s\\.4\\.mlp.*": B},
            id="two keys become one",
        ),
        ("extra_config", {"layers\\.[1-2]\\d?\\.mlp": A, "layers\\.1\\d\\.": B}),
        ("module_fqn_to_config", {"_default": A, "model.layers.3.mlp.gate": None}),
        ("module_fqn_to_config", {"re:model\\.layers\\.3\\..+": A, "re:.*gate": B}),
        ("layer_quant_config", {"*layers.0.mlp*": A, "model.layers.4.self_attn.q_proj": B}),
        ("layer_quant_config", {"model.layers.1*": A, "*": B}),
        ("quantized_layers", {f"model.layers.{layer}.mlp.gate": A for layer in range(LAYERS)}),
    ],
)
def test_every_copy_is_read_as_its_source(field: str, value: Any) -> None:
    new, read = renamed({field: value})[field], READERS[field]
    results = modules(LAYER_MAP.layer_count)
    assert {module: read(new, module) for module in results} == {
        module: read(value, source_of(module)) for module in results
    }
    assert any(read(new, module) for module in results)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"ignore": ["re:.*layers\\.0\\..*"]}, {"ignore": ["re:.*layers\\.0\\..*"]}),
        ({"ignore": ["re:m.*s\\.4\\.m.*"]}, {"ignore": ["re:m.*s\\.(?:4|10)\\.m.*"]}),
        ({"ignore": ["re:m.*s\\.(3|4)\\.m.*"]}, {"ignore": ["re:m.*s\\.(?:3|4|9|10)\\.m.*"]}),
        (
            {"ignore": [r"re:m.*s\.([0-2]|1\d?)\.m.*"]},
            {"ignore": [r"re:m.*s\.(?:0|1|2|16|17)\.m.*"]},
        ),
        (
            {"exclude": ["model.layers.[2-3].m*"]},
            {"exclude": [f"model.layers.{layer}.m*" for layer in (2, 3, 9)]},
        ),
        pytest.param(
            {"ignore": ["re:model\\.layers\\.3\\.self_attn\\.qkv_proj"]},
            {"ignore": ["re:model\\.layers\\.(?:3|9)\\.self_attn\\.qkv_proj"]},
            id="a name that engines give to what they join",
        ),
        pytest.param(
            {"exclude_modules": ["model.layers.1"]},
            {
                "exclude_modules": [
                    f"model.layers.{layer}.{module}"
                    for layer in (1, 16, 17)
                    for module in (
                        "mlp.experts",
                        "mlp.experts.1.w1",
                        "mlp.experts.1.w13",
                        "mlp.gate",
                        "self_attn.o_proj",
                        "self_attn.q_proj",
                        "self_attn.qkv_proj",
                    )
                ]
            },
            id="a part of a name, as vLLM reads it",
        ),
        ({"ignore": ["re:.*gate$"]}, {"ignore": ["re:.*gate$"]}),
        (
            {"exclude": ["model.layers.4.m*"]},
            {"exclude": ["model.layers.4.m*", "model.layers.10.m*"]},
        ),
        ({"dynamic": {"-:.*\\.11\\..*": {}}}, {"dynamic": {"-:.*\\.17\\..*": {}}}),
        (
            {"extra_config": {"model.layers.3.mlp.gate": A}},
            {"extra_config": {"model.layers.3.mlp.gate": A, "model.layers.9.mlp.gate": A}},
        ),
        (
            {"bits": 4, "group_size": 64, "model.layers.3.mlp.gate": False, "lm_head": A},
            {
                "bits": 4,
                "group_size": 64,
                "model.layers.3.mlp.gate": False,
                "model.layers.9.mlp.gate": False,
                "lm_head": A,
            },
        ),
        (
            {"model.layers.11.mlp.gate.weight": "W8A8", "version": "1.0.0"},
            {"model.layers.17.mlp.gate.weight": "W8A8", "version": "1.0.0"},
        ),
        (
            {"config_groups": {"group_0": {"targets": ["model.layers.11.mlp.gate"]}}},
            {"config_groups": {"group_0": {"targets": ["model.layers.17.mlp.gate"]}}},
        ),
        (
            {"quant_method": "modelopt", "ignore": ["model.layers.11.m*"]},
            {"quant_method": "modelopt", "ignore": ["model.layers.17.m*"]},
        ),
        ({"ignore": ["re:visual\\.layers\\.3\\..*"]}, {"ignore": ["re:visual\\.layers\\.3\\..*"]}),
        ({"block_name_to_quantize": "model.layers"}, {"block_name_to_quantize": "model.layers"}),
    ],
)
def test_an_entry_keeps_its_form_where_it_can(value: Any, expected: Any) -> None:
    assert renamed(value) == expected


def test_an_entry_of_dropped_layers_goes() -> None:
    value = {"ignore": ["re:model\\.layers\\.1\\..*", "model.layers.1.mlp.gate", "lm_head"]}
    assert renamed(value, layers=4, drop=3) == {"ignore": ["lm_head"]}


def test_a_number_that_is_no_layer_yet_does_not_become_one() -> None:
    """A pattern for a layer behind the last one, whose tensors were left out of the checkpoint."""
    value = {"ignore": ["re:model\\.layers\\.12\\..*"]}
    assert renamed(value) == {"ignore": ["re:model\\.layers\\.18\\..*"]}


def test_a_pattern_is_for_names_in_memory_too() -> None:
    """Disk and memory spell the prefix of a stack beside one for images in several ways."""
    names = [f"language_model.model.layers.{layer}.mlp.gate.weight" for layer in range(12)]
    (counted,) = choose_stacks({"num_hidden_layers": 12}, find_stacks(names))
    value = {"ignore": ["re:^model\\.language_model\\.layers\\.(3|4)\\..*"]}
    assert rename_layers(
        value,
        subject="config.json",
        path="quantization_config",
        tensor_names=names,
        scaled=[(counted, LAYER_MAP)],
    ) == {"ignore": ["re:^model\\.language_model\\.layers\\.(?:3|4|9|10)\\..*"]}


def test_an_end_of_a_name_is_not_taken_for_a_layer_of_one_stack_alone() -> None:
    """`layers.1.fc1` fits the encoder's layer too, which stays."""
    names = [
        f"model.{side}.layers.{layer}.fc1.weight"
        for side in ("encoder", "decoder")
        for layer in range(4)
    ]
    config = {"encoder_layers": 4, "decoder_layers": 4}
    (counted,) = choose_stacks(config, find_stacks(names), "model.decoder.layers")
    assert rename_layers(
        {"modules_to_not_convert": ["layers.1.fc1"]},
        subject="config.json",
        path="quantization_config",
        tensor_names=names,
        scaled=[(counted, LayerMap.depth_upscale(4, 1))],
    ) == {
        "modules_to_not_convert": [
            "model.decoder.layers.1.fc1",
            "model.decoder.layers.3.fc1",
            "model.encoder.layers.1.fc1",
        ]
    }


def test_a_key_that_would_not_fit_its_own_module_is_refused() -> None:
    """A name with signs of a glob in it is none that means itself."""
    names = [f"model.layers.{layer}.a[b].weight" for layer in range(12)]
    (counted,) = choose_stacks({"num_hidden_layers": 12}, find_stacks(names))
    with pytest.raises(RequestError, match="another entry would decide"):
        rename_layers(
            {"layer_quant_config": {"model.layers.?.a*": A}},
            subject="config.json",
            path="quantization_config",
            tensor_names=names,
            scaled=[(counted, LAYER_MAP)],
        )


def test_a_name_that_would_fit_another_module_too_is_not_written() -> None:
    """`gate` is how `gate_proj` begins, and transformers asks for no more than the beginning."""
    names = [
        f"model.layers.{layer}.{name}" for layer in range(12) for name in ("gate", "gate_proj")
    ]
    (counted,) = choose_stacks(
        {"num_hidden_layers": 12}, find_stacks(f"{name}.x" for name in names)
    )
    with pytest.raises(RequestError, match="cannot renumber"):
        rename_layers(
            {"modules_to_not_convert": [r"model\.layers\.(?!1)\d+\.gate$"]},
            subject="config.json",
            path="quantization_config",
            tensor_names=[f"{name}.weight" for name in names],
            scaled=[(counted, LAYER_MAP)],
        )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"ignore": [r"re:(model)\.layers\.3\.\1"]}, id="not read"),
        pytest.param({"skip": "model.layers.0.mlp"}, id="one where several must be"),
        pytest.param({"novel": ["model.layers.[0-3].mlp"]}, id="a pattern, or not"),
        pytest.param({"dynamic": {"+:(?i).*layers\\.1\\..*": {}}}, id="flags"),
    ],
)
def test_what_cannot_be_renamed_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="names a layer in a way that dus cannot renumber"):
        renamed(value)


@pytest.mark.parametrize(
    "value",
    [
        {"ignore": ["re:" + ".*a" * 500 + "layers.1"]},
        {"ignore": [f"re:(a+)+{number}$" for number in range(2_000)]},
        {"modules_to_not_convert": [f"model.layers.{number}" for number in range(9_000)]},
        {"dynamic": {f"+:.*{number}.*": {} for number in range(3_000)}},
    ],
)
def test_hostile_entries_cost_little_time(value: Any) -> None:
    begin = time.monotonic()
    with contextlib.suppress(RequestError):
        renamed(value)
    assert time.monotonic() - begin < 60


def test_names_in_a_large_model_cost_little_time() -> None:
    """They are told by their form: to look for each among all modules would take minutes."""
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{module}.weight"
        for layer in range(60)
        for expert in range(128)
        for module in ("gate_proj", "up_proj", "down_proj")
    ]
    names += [f"visual.blocks.{layer}.attn.qkv.weight" for layer in range(27)]
    (counted,) = choose_stacks({"num_hidden_layers": 60}, find_stacks(names))
    kept = [f"visual.blocks.{layer}.attn.qkv" for layer in range(27)]
    kept += [f"model.visual.blocks.{layer}.attn.qkv" for layer in range(27)]
    moved = [f"model.layers.{layer}.mlp.gate" for layer in range(60)]
    begin = time.monotonic()
    new = rename_layers(
        {"modules_to_not_convert": [*kept, *moved]},
        subject="config.json",
        path="quantization_config",
        tensor_names=names,
        scaled=[(counted, LayerMap.depth_upscale(60, 15))],
    )
    assert time.monotonic() - begin < 2
    assert set(new["modules_to_not_convert"]) == {
        *kept,
        *(f"model.layers.{layer}.mlp.gate" for layer in range(90)),
    }


NUMBER = st.sampled_from(
    ["0", "1", "4", "11", "(0|4)", "[1-3]", r"\d", r"\d+", "1[01]", "(?!1)\\d+"]
)
PATTERN = st.builds(
    lambda head, number, tail: head + number + tail,
    st.sampled_from(["", ".*", "^model", ".*layers\\.", "model.layers.", "visual.*"]),
    NUMBER,
    st.sampled_from(["", "\\.", "\\..*gate", ".*", "\\.mlp\\..*$", ".*experts.1"]),
)


@settings(max_examples=60, deadline=None)
@given(
    field=st.sampled_from(["dynamic", "extra_config", "module_fqn_to_config"]),
    patterns=st.lists(PATTERN, min_size=1, max_size=4, unique=True),
)
def test_any_patterns_are_renamed_rightly_or_refused(field: str, patterns: list[str]) -> None:
    sign = {"dynamic": "+:", "extra_config": "", "module_fqn_to_config": "re:"}[field]
    value = {sign + pattern: {"bits": number} for number, pattern in enumerate(patterns)}
    read = READERS[field]
    try:
        new = renamed({field: value})[field]
    except RequestError:
        return
    for module in modules(LAYER_MAP.layer_count):
        assert read(new, module) == read(value, source_of(module))


@settings(max_examples=60, deadline=None)
@given(patterns=st.lists(PATTERN, min_size=1, max_size=3, unique=True))
def test_any_list_of_patterns_is_renamed_rightly(patterns: list[str]) -> None:
    for field, sign in (("ignore", "re:"), ("modules_to_not_convert", "")):
        value = [sign + pattern for pattern in patterns]
        try:
            new = renamed({field: value})[field]
        except RequestError:
            continue
        for module in modules(LAYER_MAP.layer_count):
            assert READERS[field](new, module) == READERS[field](value, source_of(module))
