import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.format.json_difference import ABSENT
from dus_cli.model.config_rewrite import ConfigChange
from dus_cli.model.config_rules import FieldKind, PerLayerField
from dus_cli.model.unknowns import moved_by_layer
from tests.model.rewriting import PARAMETERS, layer_names, rewritten

SLIDING, FULL = "sliding_attention", "full_attention"


def config_of(layers: int, model_type: str = "llama", **fields: Any) -> dict[str, Any]:
    return {"model_type": model_type, "num_hidden_layers": layers, **fields}


def after(layers: int, drop: int, model_type: str = "llama", **fields: Any) -> dict[str, Any]:
    """Config after up-scaling a model of one plain stack."""
    names = layer_names("model.layers", layers)
    return rewritten(config_of(layers, model_type, **fields), names, drop).config


def test_order_of_keys_and_unknown_fields_are_kept() -> None:
    config = {"zeta": {"b": [1], "a": None}, **config_of(4), "alpha": 1.5, "über": "ü"}
    original = copy.deepcopy(config)
    new = rewritten(config, layer_names("model.layers", 4), 1)
    assert list(new.config) == list(config)
    assert new.config == {**original, "num_hidden_layers": 6}
    assert config == original
    assert new.changes == (
        ConfigChange(field="num_hidden_layers", before=4, after=6, rule="count"),
    )


@pytest.mark.parametrize(
    ("field", "before", "expected"),
    [
        ("layer_types", list("abcd"), list("abcbcd")),
        ("layer_types", [*"abcd", "mtp"], [*"abcbcd", "mtp"]),
        ("hybrid_override_pattern", "M-M*", "M-M-M*"),
        ("intermediate_size", [1, 2, 3, 4], [1, 2, 3, 2, 3, 4]),
        ("intermediate_size", 11008, 11008),
        ("no_rope_layers", [], []),
        ("mlp_only_layers", [0, 2], [0, 2, 4]),
        ("mlp_only_layers", [], []),
        ("moe_layers_enum", "1,3", "1,3,5"),
        ("moe_layers_enum", " 0, 2", "0,2,4"),
        ("window_block_indices", [1, 3], [1, 3, 5]),
        ("global_attn_idx", [0, 1, 3], [0, 1, 3, 5]),
        ("attn", {"layers": [1], "num_heads": 4}, {"layers": [1, 3], "num_heads": 4}),
        ("sliding_window_layout", [0, 1, 1, 0], [0, 1, 1, 1, 1, 0]),
        ("swiglu_limits", [None, 7, 8, 9], [None, 7, 8, 7, 8, 9]),
        # A number past the last layer would come into range in the deeper model.
        ("cross_attention_layers", [1, 3, 5], [1, 3, 5]),
        ("cross_attention_layers", [3, 5], [5]),
        ("linear_attn_config", {"kda_layers": [1, 2, 3]}, {"kda_layers": [1, 2, 3, 4, 5]}),
        ("per_layer_config", {"0": {"a": 1}, "3": {}}, {"0": {"a": 1}, "5": {}}),
        ("attn_layers", list("abcd"), list("abcbcd")),
        ("global_attn_indexes", [1, 3], [1, 3, 5]),
        ("fullatt_block_indexes", [1, 3], [1, 3, 5]),
        ("mtp_layer_types", list("abcd"), list("abcd")),
        ("tdnn_dilation", [1, 2, 3, 1], [1, 2, 3, 1]),
        ("tdnn_dim", [5, 5, 5, 6], [5, 5, 5, 6]),
        ("tdnn_kernel", [5, 3, 3, 1], [5, 3, 3, 1]),
        ("upsample_rates", [5, 4, 4, 2], [5, 4, 4, 2]),
        ("upsample_kernel_sizes", [11, 8, 8, 4], [11, 8, 8, 4]),
        ("target_bandwidths", [1, 2, 4, 8], [1, 2, 4, 8]),
        ("visual_indicator_token_ids", [1, 2, 3, 4], [1, 2, 3, 4]),
        ("vision_feature_layer", [-2, -5, -8, 6], [-2, -5, -8, 6]),
        ("projector_patch_to_query_dict", {"4": 2}, {"4": 2}),
        ("backbone_config", {"stage_names": list("abcd")}, {"stage_names": list("abcd")}),
        ("eos_token_id", [1, 2, 3, 4], [1, 2, 3, 4]),
        ("rope_scaling", {"short_factor": [1, 1, 1, 1]}, {"short_factor": [1, 1, 1, 1]}),
        ("layer_types", None, None),
        ("attn_config", {"id2label": {"0": "A", "1": "B"}}, {"id2label": {"0": "A", "1": "B"}}),
    ],
)
def test_known_fields_follow_their_layers(field: str, before: Any, expected: Any) -> None:
    assert after(4, 1, **{field: before})[field] == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layer_types", list("abc"), "layer_types has 3 entries for 4 layers"),
        ("mlp_only_layers", ["0"], "mlp_only_layers holds something else than layer numbers"),
        ("mlp_only_layers", [True], "mlp_only_layers holds something else than layer numbers"),
        ("moe_layers_enum", "1,x", "moe_layers_enum holds something else than layer numbers"),
        ("moe_layers_enum", "1,²", "moe_layers_enum holds something else than layer numbers"),
    ],
)
def test_field_that_does_not_fit_the_layers_is_an_error_of_the_checkpoint(
    field: str, value: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        after(4, 1, **{field: value})


@pytest.mark.parametrize(
    ("model_type", "fields", "expected"),
    [
        ("longformer", {"attention_window": [2, 4, 6, 8]}, [2, 4, 6, 4, 6, 8]),
        ("longformer", {"attention_window": 8}, 8),
        ("step3p5", {"rope_theta": [1.0, 2.0, 3.0, 4.0]}, [1.0, 2.0, 3.0, 2.0, 3.0, 4.0]),
        ("step3p5", {"rope_theta": 1e6}, 1e6),
        ("hunyuan_v1_moe", {"moe_topk": [1, 2, 3, 4]}, [1, 2, 3, 2, 3, 4]),
    ],
)
def test_fields_that_are_by_layer_in_some_types_follow_their_layers(
    model_type: str, fields: dict[str, Any], expected: Any
) -> None:
    (field,) = fields
    assert after(4, 1, model_type, **fields)[field] == expected


def test_a_list_that_is_by_layer_in_another_type_is_not_known() -> None:
    with pytest.raises(RequestError, match="attention_window has 4 entries"):
        after(4, 1, attention_window=[2, 4, 6, 8])


@pytest.mark.parametrize(
    ("stack", "expected"),
    [(None, [2, 4, 6, 4, 6, 8]), ("encoder.layers", [2, 4, 6, 4, 6, 8]), ("decoder.layers", None)],
)
def test_a_field_of_the_encoder_does_not_follow_the_decoder(
    stack: str | None, expected: list[int] | None
) -> None:
    window = [2, 4, 6, 8]
    config = {"model_type": "led", "encoder_layers": 4, "decoder_layers": 4}
    names = [*layer_names("encoder.layers", 4), *layer_names("decoder.layers", 4)]
    new = rewritten({**config, "attention_window": window}, names, 1, stack=stack).config
    assert new["attention_window"] == (expected or window)


def test_numbers_of_trailing_layers_move_with_them() -> None:
    config = config_of(4, num_nextn_predict_layers=1, moe_layers_enum="1,4", moe_layers=[3, 4, 5])
    new = rewritten(config, layer_names("model.layers", 5), 1).config
    assert (new["moe_layers_enum"], new["moe_layers"]) == ("1,3,6", [5, 6])


@pytest.mark.parametrize("field", ["layers_block_type", "hybrid_override_pattern"])
def test_a_list_whose_length_is_the_count_is_moved(field: str) -> None:
    kinds: Any = list("M*ME") if field == "layers_block_type" else "M*ME"
    config = {"model_type": "nemotron_h", field: kinds}
    new = rewritten(config, layer_names("backbone.layers", 4), 1).config
    assert new == {**config, field: list("M*M*ME") if isinstance(kinds, list) else "M*M*ME"}


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ([1, 2, 3, 4], "has 4 entries, as many as there are layers"),
        ({"0": 1, "2": 1}, "keys are numbers"),
        ("1,2,3", "numbers in a string"),
    ],
)
def test_what_looks_per_layer_and_is_not_known_stops_with_the_choice(value: Any, fact: str) -> None:
    with pytest.raises(RequestError, match=rf"novel\.field .*{fact}") as caught:
        after(4, 1, novel={"field": value})
    for choice in ("gather", "reindex", "rekey", "keep"):
        assert f"--config-rule novel.field={choice}" in caught.value.message or (
            f"novel.field={choice}" in (caught.value.hint or "")
        )


@pytest.mark.parametrize(
    ("kind", "before", "expected"),
    [
        (FieldKind.GATHER, [5, 6, 7, 8], [5, 6, 7, 6, 7, 8]),
        (FieldKind.GATHER, "abcd", "abcbcd"),
        (FieldKind.REINDEX, [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
        (FieldKind.REINDEX, [3], [5]),
        (FieldKind.REKEY, {"3": "x"}, {"5": "x"}),
        (FieldKind.KEEP, [5, 6, 7, 8], [5, 6, 7, 8]),
    ],
)
def test_user_says_what_an_unknown_field_is(kind: FieldKind, before: Any, expected: Any) -> None:
    config = config_of(4, novel={"field": before})
    names = layer_names("model.layers", 4)
    new = rewritten(config, names, 1, rules={"novel.field": kind})
    assert new.config["novel"]["field"] == expected


def test_word_of_the_user_goes_before_the_tables() -> None:
    names = layer_names("model.layers", 4)
    config = config_of(4, "qwen3_moe", mlp_only_layers=[0], sliding_window_pattern=3)
    rules = {"mlp_only_layers": FieldKind.KEEP, "sliding_window_pattern": FieldKind.KEEP}
    assert rewritten(config, names, 1, rules=rules).config["sliding_window_pattern"] == 3


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"no.such": FieldKind.KEEP}, "has no field 'no.such'"),
        ({"hidden_size": FieldKind.GATHER}, "hidden_size=gather: 8 does not hold"),
        ({"hidden_act": FieldKind.REINDEX}, "hidden_act=reindex: 'silu' does not hold"),
        ({"lists": FieldKind.REKEY}, "lists=rekey"),
    ],
)
def test_rule_that_cannot_be_followed_is_refused(rules: dict[str, FieldKind], message: str) -> None:
    config = config_of(4, hidden_size=8, hidden_act="silu", lists=[1, 2, 3, 4])
    with pytest.raises(RequestError, match=message):
        rewritten(config, layer_names("model.layers", 4), 1, rules=rules)


@pytest.mark.parametrize(
    ("model_type", "fields", "layers", "drop", "expected"),
    [
        ("gemma2", {}, 5, 1, {"layer_types": [*[SLIDING, FULL] * 2, *[FULL, SLIDING] * 2]}),
        (
            "cohere2",
            {"sliding_window_pattern": 2},
            3,
            1,
            {"layer_types": [SLIDING, FULL, FULL, SLIDING]},
        ),
        (
            "qwen3_next",
            {"full_attention_interval": 2},
            3,
            1,
            {"layer_types": ["linear_attention", FULL, FULL, "linear_attention"]},
        ),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 2},
            3,
            1,
            {"layer_types": [FULL, FULL, FULL, SLIDING]},
        ),
        ("smollm3", {"no_rope_layer_interval": 2}, 3, 1, {"no_rope_layers": [1, 0, 0, 1]}),
        ("llama4_text", {"interleave_moe_layer_step": 2}, 3, 1, {"moe_layers": [1, 2]}),
        (
            "qwen3_moe",
            {"decoder_sparse_step": 2},
            3,
            1,
            {"decoder_sparse_step": 1, "mlp_only_layers": [0, 3]},
        ),
        ("glm_moe_dsa", {}, 5, 2, {"mlp_layer_types": [*["dense"] * 4, *["sparse"] * 2]}),
        ("ernie4_5_moe", {"moe_layer_end_index": 3}, 4, 1, {"moe_layer_end_index": 5}),
        (
            "gpt_neo",
            {"attention_types": [[["global", "local"], 2]]},
            4,
            1,
            {"attention_types": [[["global", "local"] * 3, 1]]},
        ),
        (
            "muse_glimmer_text",
            {"rope_parameters": {"rope_theta": 5.0}},
            5,
            1,
            {
                "layer_types": [FULL, *[SLIDING] * 6, FULL],
                "layer_rope_theta": [0, *[5.0] * 6, 0],
            },
        ),
        ("muse_spark_text", {}, 2, 0, {"layer_rope_theta": [500000.0, 0, 500000.0, 0]}),
        ("muse_spark_vision", {}, 2, 0, {"layer_types": ["window_attention", FULL] * 2}),
        ("lfm3_vl_vision", {}, 3, 1, {"layer_types": ["conv", "conv", "conv", FULL]}),
        (
            "inkling_text",
            {},
            7,
            3,
            {"layer_types": [*["hybrid_sliding"] * 6, "hybrid", "hybrid_sliding"]},
        ),
        (
            "inkling_text",
            {"dense_mlp_idx": 2},
            3,
            1,
            {"mlp_layer_types": ["dense", "dense", "dense", "sparse"]},
        ),
        (
            "dots3_note_text",
            {"use_dsa": False},
            3,
            1,
            {"layer_types": [FULL, FULL, FULL, SLIDING]},
        ),
        (
            "dots3_note_text",
            {"first_k_dense_replace": 2},
            3,
            1,
            {
                "layer_types": [*["indexed_attention"] * 3, SLIDING],
                "mlp_layer_types": [*["dense"] * 3, "sparse"],
            },
        ),
        (
            "mistral_large4_text",
            {"kv_source_layers": [0, 1, 2, 3]},
            4,
            2,
            {"kv_source_layers": [0, 1, 2, 3], "num_hidden_layers": 4},
        ),
        (
            "mistral_large4_text",
            {"kv_source_layers": [0, 1, 2, 3]},
            4,
            1,
            {"kv_source_layers": [0, 1, 2, 3, 4, 5], "no_rope_layers": [1, 1, 1, 1, 1, 0]},
        ),
        ("step3p5", {}, 5, 2, {"mlp_layer_types": [*["dense"] * 4, *["sparse"] * 2]}),
        ("evolla", {"aligner_num_add_layers": 4}, 8, 2, {"aligner_num_add_layers": 6}),
        (
            "fun_asr_nano_encoder",
            {"num_timestamp_prediction_layers": 4},
            6,
            2,
            {"num_timestamp_prediction_layers": 6},
        ),
        (
            "sapiens2",
            {
                "num_attention_heads": 4,
                "num_key_value_attention_heads": 2,
                "num_first_full_attention_layers": 1,
                "num_last_full_attention_layers": 1,
            },
            4,
            0,
            {"num_key_value_heads_per_layer": [4, 2, 2, 4] * 2},
        ),
        ("qwen4_exp_text", {"ple_layer_ids": [2, 6]}, 6, 2, {"ple_layer_ids": [2, 8]}),
        (
            "anything",
            {"deepstack_visual_indexes": [1, 5]},
            6,
            2,
            {"deepstack_visual_indexes": [1, 7]},
        ),
        (
            "anything",
            {"deepstack_visual_indexes": [5, 1]},
            6,
            2,
            {"deepstack_visual_indexes": [7, 1]},
        ),
        (
            "glm5_next_text",
            {"indexer_types": ["full", "shared"] * 2},
            4,
            0,
            {"indexer_types": ["full", "shared"] * 4},
        ),
        ("sam_vision_model", {}, 4, 1, {"global_attn_indexes": [2, 4]}),
        (
            "recurrent_gemma",
            {"block_types": ["r", "r", "a"]},
            4,
            1,
            {"block_types": ["r", "r", "a", "r", "a", "r"]},
        ),
    ],
)
def test_patterns_by_number_are_written_out(
    model_type: str, fields: dict[str, Any], layers: int, drop: int, expected: dict[str, Any]
) -> None:
    new = after(layers, drop, model_type, **fields)
    assert {key: new[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("model_type", "fields", "layers", "drop"),
    [
        ("gemma2", {}, 4, 1),
        ("gemma3_text", {"sliding_window_pattern": 6}, 3, 1),
        ("qwen2", {"use_sliding_window": False, "max_window_layers": 2}, 3, 1),
        ("qwen2", {"use_sliding_window": True, "sliding_window": None}, 30, 1),
        ("deepseek_v3", {"first_k_dense_replace": 1}, 4, 1),
        ("jamba", {"attn_layer_period": 2, "expert_layer_period": 1}, 4, 1),
        ("ernie4_5_moe", {"moe_layer_end_index": -1}, 4, 1),
        ("anything", {"full_attention_interval": 2}, 4, 1),
        ("anything", {"deepstack_visual_indexes": [0]}, 4, 1),
        ("anything", {"scale_depth": None}, 4, 1),
        ("anything", {"moe_layer_frequency": 2}, 4, 1),
        ("anything", {"use_cla": True, "cla_share_factor": 2}, 4, 1),
        ("anything", {"use_cla": False, "cla_share_factor": 2}, 5, 1),
        ("eomt", {"num_blocks": 1}, 4, 1),
        ("evolla", {"aligner_num_add_layers": 9}, 4, 1),
        # An older file, which has the language model at the top.
        ("qwen2_5_vl", {"layer_types": None}, 9, 1),
        ("qwen3_vl", {}, 9, 0),
        ("blip_2_qformer", {"cross_attention_frequency": 2}, 4, 1),
        ("anything", {"decoder_sparse_step": 1, "moe_layer_freq": 1}, 4, 1),
    ],
)
def test_patterns_by_number_are_kept_where_they_come_out_right(
    model_type: str, fields: dict[str, Any], layers: int, drop: int
) -> None:
    new = after(layers, drop, model_type, **fields)
    assert new == config_of(2 * (layers - drop), model_type, **fields)


@pytest.mark.parametrize(
    ("model_type", "fields", "layers", "drop", "field"),
    [
        ("deepseek_v3", {"first_k_dense_replace": 2}, 4, 1, "first_k_dense_replace = 2"),
        # Absent, the type's own default counts.
        ("deepseek_v3", {}, 6, 2, "first_k_dense_replace,"),
        ("lfm2_moe", {"num_dense_layers": 2}, 4, 1, "num_dense_layers"),
        ("jamba", {"attn_layer_period": 3, "attn_layer_offset": 1}, 4, 1, "attn_layer_period"),
        ("ernie4_5_moe", {"moe_layer_start_index": 2}, 4, 1, "moe_layer_start_index"),
        ("anything", {"num_kv_shared_layers": 2}, 4, 1, "num_kv_shared_layers"),
        ("anything", {"deepstack_visual_indexes": [1]}, 4, 1, "deepstack_visual_indexes"),
        # Two mergers for one layer.
        ("anything", {"deepstack_visual_indexes": [5, 5]}, 6, 2, "deepstack_visual_indexes"),
        ("mistral_large4_text", {"kv_source_layers": [0, 0, 2]}, 3, 1, "kv_source_layers"),
        ("qwen4_exp_text", {"ple_layer_ids": [2]}, 4, 1, "ple_layer_ids"),
        ("eomt", {"num_blocks": 2}, 4, 1, "num_blocks"),
        ("anything", {"use_cla": True, "cla_share_factor": 2}, 5, 1, "cla_share_factor"),
        ("anything", {"dense_attention_every_n_layers": 2}, 5, 1, "dense_attention_every_n_layers"),
        ("anything", {"mamba_step": 2}, 5, 1, "mamba_step"),
        ("evolla", {"aligner_num_add_layers": 2}, 5, 1, "aligner_num_add_layers"),
        ("granite_speech_encoder", {}, 4, 1, "num_layers"),
        ("blip_2_qformer", {}, 3, 1, "cross_attention_frequency"),
        ("glm5_next_text", {"indexer_types": ["full", "full", "shared"]}, 3, 1, "indexer_types"),
        # The copy of a layer without an indexer would stand behind another one.
        (
            "glm5_next_text",
            {"indexer_types": ["full", "full", "shared", "full", "full"]},
            5,
            2,
            "indexer_types",
        ),
        ("anything", {"full_attention_interval": 3}, 4, 1, "full_attention_interval"),
        ("anything", {"use_sliding_window": True, "max_window_layers": 2}, 4, 1, "max_window"),
    ],
)
def test_patterns_that_no_field_can_state_are_refused(
    model_type: str, fields: dict[str, Any], layers: int, drop: int, field: str
) -> None:
    with pytest.raises(RequestError, match=f"says .* by {field}"):
        after(layers, drop, model_type, **fields)


def test_pattern_in_a_form_that_is_not_known_is_refused() -> None:
    with pytest.raises(RequestError, match="sliding_window_pattern is 'LLLG'"):
        after(4, 1, "exaone4", sliding_window_pattern="LLLG")


def test_explicit_list_goes_before_the_rule() -> None:
    new = after(4, 1, "gemma2", layer_types=[FULL, FULL, FULL, SLIDING])
    assert new["layer_types"] == [FULL, FULL, FULL, FULL, FULL, SLIDING]


@pytest.mark.parametrize("model_type", ["albert", "gemma3n_text", "diffllama", "zamba2", "openelm"])
def test_types_without_a_right_config_are_refused(model_type: str) -> None:
    with pytest.raises(RequestError, match=f"{model_type} cannot be up-scaled"):
        after(4, 1, model_type)


def test_layers_in_groups_are_refused() -> None:
    with pytest.raises(RequestError, match="kv_reuse_group is on"):
        after(4, 1, "hymba", kv_reuse_group=[[1, 2]])


def test_scale_by_the_number_of_a_layer_is_refused() -> None:
    with pytest.raises(RequestError, match="scale_attn_by_inverse_layer_idx is on"):
        after(4, 1, "gpt2", scale_attn_by_inverse_layer_idx=True)
    assert after(4, 1, "gpt2", scale_attn_by_inverse_layer_idx=False)["num_hidden_layers"] == 6


DENSE, SPARSE = ("mlp.up.weight",), ("mlp.gate.weight", "mlp.experts.0.up.weight")


@pytest.mark.parametrize(
    ("special", "drop", "right"),
    [
        pytest.param({0: DENSE}, 1, True, id="first layer stays the first"),
        pytest.param({0: DENSE}, 0, False, id="first layer has a second copy"),
        pytest.param({0: DENSE, 1: DENSE}, 2, True, id="first two stay"),
        pytest.param({0: DENSE, 1: DENSE}, 1, False, id="second of two has another copy"),
        pytest.param({5: DENSE}, 1, True, id="last layer stays the last"),
        pytest.param({5: DENSE}, 0, False, id="last layer has a second copy"),
        pytest.param({0: DENSE, 5: DENSE}, 1, True, id="both ends stay"),
        pytest.param({2: DENSE}, 1, False, id="a layer in the middle"),
        pytest.param({1: DENSE, 3: DENSE, 5: DENSE}, 1, False, id="every other layer"),
        pytest.param({1: DENSE, 3: DENSE, 5: DENSE}, 4, False, id="every other, none twice"),
    ],
)
def test_layers_unlike_the_others_must_stay_where_the_model_expects_them(
    special: dict[int, tuple[str, ...]], drop: int, right: bool
) -> None:
    names = layer_names("model.layers", 6, special)
    if right:
        assert rewritten(config_of(6), names, drop).config["num_hidden_layers"] == 2 * (6 - drop)
    else:
        with pytest.raises(RequestError, match="other tensors than the rest"):
            rewritten(config_of(6), names, drop)


def test_a_field_that_is_not_a_number_is_no_change() -> None:
    config = config_of(4, time_step_max=float("nan"))
    new = rewritten(config, layer_names("model.layers", 4), 1)
    assert [change.field for change in new.changes] == ["num_hidden_layers"]


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"mlp_layer_types": ["dense", "sparse", "dense", "sparse"]}, {}),
        ({"mlp_only_layers": [0, 2]}, {}),
        ({"per_layer_config": {"1": {"moe": True}, "3": {"moe": True}}}, {}),
        ({"novel": ["a", "b", "a", "b"]}, {"novel": FieldKind.GATHER}),
        ({"novel": [1, 3]}, {"novel": FieldKind.REINDEX}),
    ],
)
def test_layers_may_differ_where_the_config_says_so(
    fields: dict[str, Any], rules: dict[str, FieldKind]
) -> None:
    names = layer_names("model.layers", 4, {1: SPARSE, 3: SPARSE})
    assert rewritten(config_of(4, **fields), names, 1, rules=rules).config["num_hidden_layers"] == 6


def test_layers_quantised_in_part_are_alike() -> None:
    parts = ("attn.q.qweight", "attn.q.scales", "mlp.up.weight")
    names = layer_names("model.layers", 4, {1: parts, 2: parts})
    config = config_of(4, quantization_config={"quant_method": "gptq"})
    assert rewritten(config, names, 1).config["num_hidden_layers"] == 6


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["lm_head"], ["lm_head"]),
        (["model.layers.0.mlp.gate"], ["model.layers.0.mlp.gate"]),
        (
            ["model.layers.1.mlp.gate", "lm_head"],
            ["model.layers.1.mlp.gate", "model.layers.3.mlp.gate", "lm_head"],
        ),
        (["layers.3"], ["layers.5"]),
        (["re:.*mlp.gate$", "re:.*experts.*w1.*"], ["re:.*mlp.gate$", "re:.*experts.*w1.*"]),
        (["model.layers.1.mlp.experts.1"], [f"model.layers.{i}.mlp.experts.1" for i in (1, 3)]),
        (["visual.layers.1.fc", "visual.merger.1"], ["visual.layers.1.fc", "visual.merger.1"]),
        (["mtp.layers.0.fc"], ["mtp.layers.0.fc"]),
    ],
)
def test_modules_that_a_quantisation_names_are_renamed(
    entries: list[str], expected: list[str]
) -> None:
    names = [*layer_names("model.layers", 4), *layer_names("visual.layers", 3)]
    config = config_of(4, quantization_config={"modules_to_not_convert": entries})
    new = rewritten(config, names, 1).config
    assert new["quantization_config"] == {"modules_to_not_convert": expected}


@pytest.mark.parametrize(
    "quantization",
    [
        {"skip": "model.layers.0.mlp"},
        {"groups": {"a": {"targets": ["model.layers.[0-3].mlp"]}}},
    ],
)
def test_names_that_cannot_be_renamed_are_refused(quantization: dict[str, Any]) -> None:
    config = config_of(4, quantization_config=quantization)
    with pytest.raises(RequestError, match="names a layer in a way that dus cannot renumber"):
        rewritten(config, layer_names("model.layers", 4), 1)


def test_section_of_another_model_is_left_alone() -> None:
    vision = {"num_hidden_layers": 4, "layer_types": list("abcd"), "novel": [1, 2, 3, 4]}
    config = {"text_config": config_of(4), "vision_config": vision}
    names = [*layer_names("model.layers", 4), *layer_names("visual.blocks", 4)]
    new = rewritten(config, names, 1).config
    assert new == {"text_config": config_of(6), "vision_config": vision}


def test_section_repeated_at_the_top_is_rewritten_too() -> None:
    repeated = config_of(4, "qwen2", use_sliding_window=True, max_window_layers=2)
    config = {**repeated, "text_config": dict(repeated)}
    new = rewritten(config, layer_names("model.layers", 4), 1).config
    types = [FULL, FULL, SLIDING, FULL, SLIDING, SLIDING]
    for section in (new, new["text_config"]):
        assert (section["num_hidden_layers"], section["layer_types"]) == (6, types)


def test_count_left_to_a_default_is_written() -> None:
    config = {"text_config": {"model_type": "llama"}, "vision_config": {"num_hidden_layers": 2}}
    names = [*layer_names("model.layers", 4), *layer_names("visual.layers", 2)]
    new = rewritten(config, names, 1)
    (change,) = new.changes
    assert (change.field, change.after) == ("text_config.num_hidden_layers", 6)
    assert change.before is ABSENT
    assert any("left the layer count" in remark for remark in new.remarks)


@pytest.mark.parametrize(
    ("fields", "known"),
    [({}, True), ({"model_type": "unheard_of"}, False), ({"auto_map": {}}, False)],
)
def test_what_could_not_be_known_is_said(fields: dict[str, Any], known: bool) -> None:
    remarks = rewritten({**config_of(4), **fields}, layer_names("model.layers", 4), 1).remarks
    assert (not remarks) == known


def golden() -> list[Path]:
    return sorted(Path(__file__).with_name("golden").glob("*.json"))


@pytest.mark.parametrize("path", golden(), ids=lambda path: path.stem)
def test_configs_as_they_lie_on_the_hub(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    names = [
        name
        for prefix, layers in case["stacks"].items()
        for name in layer_names(
            prefix,
            layers,
            dict.fromkeys(case.get("unlike", {}).get(prefix, ()), SPARSE),
        )
    ]
    if "refused" in case:
        with pytest.raises(RequestError) as caught:
            rewritten(case["config"], names, case["drop"])
        assert case["refused"] in caught.value.message
        return
    new = rewritten(case["config"], names, case["drop"])
    assert {change.field: change.after for change in new.changes} == case["changes"]
    assert list(new.remarks) == case.get("remarks", [])


@pytest.mark.parametrize(
    ("fields", "drop", "sparse_step"),
    [
        # Layers 1 and 3 of 4 hold experts; with 2 dropped the same two are left.
        ({"num_sparse_encoder_layers": 2}, 2, None),
        ({"num_sparse_encoder_layers": 2, "encoder_sparse_step": 2}, 2, 2),
        ({"num_sparse_encoder_layers": 4}, 1, None),
        ({"num_sparse_encoder_layers": 1, "encoder_sparse_step": 2}, 2, 2),
    ],
)
def test_experts_by_step_are_kept_where_they_come_out_right(
    fields: dict[str, Any], drop: int, sparse_step: int | None
) -> None:
    config = {"model_type": "switch_transformers", "num_layers": 4, "num_decoder_layers": 4}
    names = [*layer_names("encoder.block", 4), *layer_names("decoder.block", 4)]
    new = rewritten({**config, **fields}, names, drop, stack="encoder.block").config
    assert new.get("encoder_sparse_step") == sparse_step or fields["num_sparse_encoder_layers"] == 4


@pytest.mark.parametrize(
    ("model_type", "fields", "stack", "refused"),
    [
        ("nllb-moe", {"encoder_sparse_step": 2}, "encoder.layers", False),
        ("nllb-moe", {"encoder_sparse_step": 3}, "encoder.layers", True),
        ("nllb-moe", {"encoder_sparse_step": 3, "decoder_sparse_step": 2}, "decoder.layers", False),
        ("nllb-moe", {"encoder_sparse_step": 2, "decoder_sparse_step": 3}, "decoder.layers", True),
        ("pegasus_x", {}, "encoder.layers", False),
        ("pegasus_x", {}, "decoder.layers", False),
    ],
)
def test_a_rule_of_one_side_leaves_the_other_alone(
    model_type: str, fields: dict[str, Any], stack: str, *, refused: bool
) -> None:
    config = {"model_type": model_type, "encoder_layers": 4, "decoder_layers": 4, **fields}
    names = [*layer_names("encoder.layers", 4), *layer_names("decoder.layers", 4)]
    if refused:
        with pytest.raises(RequestError, match="_sparse_step"):
            rewritten(config, names, 1, stack=stack)
    else:
        new = rewritten(config, names, 1, stack=stack).config
        assert {key: new[key] for key in fields} == fields


def test_staggered_blocks_need_an_even_number_of_layers() -> None:
    config = {"model_type": "pegasus_x", "encoder_layers": 5, "decoder_layers": 5}
    names = [*layer_names("encoder.layers", 5), *layer_names("decoder.layers", 5)]
    with pytest.raises(RequestError, match="stagger_local_blocks"):
        rewritten(config, names, 1)
    assert rewritten({**config, "stagger_local_blocks": False}, names, 1).config["encoder_layers"]


@pytest.mark.parametrize(("layers", "drop"), [(8, 2), (62, 15), (9, 3), (33, 8)])
def test_a_scale_divided_by_the_root_of_the_count_stays_what_it_was(layers: int, drop: int) -> None:
    new = after(layers, drop, "minicpm3", scale_depth=1.4)
    scale = np.float32(new["scale_depth"] / math.sqrt(2 * (layers - drop)))
    assert scale == np.float32(1.4 / math.sqrt(layers))
    assert after(layers, drop, "minicpm3")["scale_depth"] == new["scale_depth"]


@pytest.mark.parametrize("scale", ["1", [1.4], 1e300, True])
def test_a_scale_that_is_none_is_refused(scale: Any) -> None:
    with pytest.raises(RequestError, match=r"scale_depth is .*only a number"):
        after(4, 1, "minicpm3", scale_depth=scale)


@pytest.mark.parametrize(
    ("model_type", "extra", "refused"),
    [
        ("esm", "esm.contact_head.regression.weight", True),
        ("esm", "lm_head.weight", False),
        ("llama", "contact_head.regression.weight", False),
        ("wav2vec2", "layer_weights", True),
        ("yolos", "encoder.mid_position_embeddings", True),
        ("minimax", "model.layers.0.self_attn.slope_rate", False),
        ("minimax", "lm_head.weight", True),
    ],
)
def test_tensors_for_all_layers_at_once_are_refused(
    model_type: str, extra: str, *, refused: bool
) -> None:
    config = config_of(4, model_type, layer_types=[FULL] * 4)
    names = [*layer_names("model.layers", 4), extra]
    special = {0: (*PARAMETERS, "self_attn.slope_rate")}
    if "slope_rate" in extra:
        names = layer_names("model.layers", 4, dict.fromkeys(range(4), special[0]))
    if refused:
        with pytest.raises(RequestError, match=f"{model_type} cannot be up-scaled"):
            rewritten(config, names, 1)
    else:
        assert rewritten(config, names, 1).config["num_hidden_layers"] == 6


def test_vision_section_leaves_its_lists_to_a_default_that_is_written_out() -> None:
    vision = {"model_type": "qwen2_5_vl", "depth": 8}
    text = {"model_type": "qwen2_5_vl_text", "num_hidden_layers": 8}
    config = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision}
    names = [*layer_names("model.layers", 8), *layer_names("visual.blocks", 8)]
    new = rewritten(config, names, 2, stack="visual.blocks").config
    assert new["vision_config"] == {**vision, "depth": 12, "fullatt_block_indexes": [11]}
    assert rewritten(config, names, 2).config["vision_config"] == vision


@pytest.mark.parametrize("model_type", ["pi0", "bridgetower"])
def test_stacks_that_run_side_by_side_are_refused_one_by_one(model_type: str) -> None:
    config = {
        "model_type": model_type,
        "text_config": {"model_type": "gemma", "num_hidden_layers": 4},
        "vision_config": {"model_type": "siglip_vision_model", "num_hidden_layers": 3},
    }
    names = [*layer_names("model.layers", 4), *layer_names("vision_tower.layers", 3)]
    for stack in ("model.layers", "vision_tower.layers"):
        with pytest.raises(RequestError, match=f"{model_type} cannot be up-scaled"):
            rewritten(config, names, 1, stack=stack)


def test_a_sequence_halved_between_layers_stops_the_encoder_alone() -> None:
    config = {"model_type": "informer", "encoder_layers": 4, "decoder_layers": 4}
    names = [*layer_names("encoder.layers", 4), *layer_names("decoder.layers", 4)]
    with pytest.raises(RequestError, match="distil"):
        rewritten(config, names, 1)
    assert rewritten(config, names, 1, stack="decoder.layers").config["decoder_layers"] == 6
    assert rewritten({**config, "distil": False}, names, 1).config["encoder_layers"] == 6


def test_a_number_in_a_string_is_a_whole_one() -> None:
    enum = PerLayerField(kind=FieldKind.REINDEX)
    assert [moved_by_layer("11, 2", enum, layer) for layer in (1, 2, 11)] == [False, True, True]
