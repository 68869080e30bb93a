"""Arithmetic that models do on a layer's number, as a table.

A rule is expanded to one value a layer, before and after; what the copied layers would become is
compared with what their sources were. So a rule is never trusted to fit by its form, and a new
way of writing the same pattern needs no new code.

Facts: configuration and modelling code of transformers 5.23 (`tests/oracle` expands every row
against the configuration class), and configs as they lie on the Hub.
"""

from dataclasses import dataclass
from typing import Final

from dus_cli.model.layer_patterns import (
    Encode,
    Expand,
    Section,
    adapters_evolla,
    attention_types,
    cycle,
    dense_first,
    each_its_own,
    encode_adapters_evolla,
    encode_attention_types,
    encode_moe_between,
    encode_moe_layers,
    encode_norms_fun_asr,
    encode_numbers,
    encode_own_keys,
    encode_sparse_by_step,
    every,
    experts_mistral,
    experts_step3,
    fixed,
    heads_sapiens2,
    indexers,
    integer,
    jamba,
    kimi_linear,
    leads_glm5,
    linear_but,
    listed_numbers,
    moe_between,
    moe_layers_llama4,
    norms_fun_asr,
    phase,
    residual_scale,
    shared_from_end,
    sided_step,
    sliding_but,
    sources_of_keys,
    sparse_by_step,
    staggered,
    thetas_muse,
    unless,
    windows_after,
    windows_cohere2_moe,
    windows_dots3,
    windows_flint,
    windows_inkling,
    windows_mistral,
    windows_qwen2_moe,
)


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
        expand=unless(explicit, derive),
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
        expand=dense_first("first_k_dense_replace", default),
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
_EVERY_OTHER: Final = sliding_but("", 2)
_GLOBAL: Final = "global_attn_every_n_layers"

POSITION_RULES: Final = (
    # How layers attend.
    _attends("gemma2 gpt_oss t5_gemma_module vaultgemma", _EVERY_OTHER),
    _attends(
        "gemma3 gemma3_text t5gemma2_text t5gemma2_decoder",
        sliding_but(_WINDOW_PATTERN, 6),
        field=_WINDOW_PATTERN,
    ),
    _attends("cohere2 exaone4 exaone_moe", sliding_but(_WINDOW_PATTERN, 4), field=_WINDOW_PATTERN),
    _attends("cohere2_moe", windows_cohere2_moe, field=_WINDOW_PATTERN),
    _attends("olmo3", sliding_but("", 4)),
    _attends("cwm granite_swa granitemoe_swa", sliding_but("", 4, phase=0)),
    _attends("kolibri1", sliding_but("", 5)),
    _attends("ultrabert", sliding_but("", 3)),
    _attends("afmoe", sliding_but(_GLOBAL, 4), field=_GLOBAL),
    _attends("modernbert modernbert-decoder", sliding_but(_GLOBAL, 3, phase=0), field=_GLOBAL),
    _attends(
        "mimo_v2_flash",
        fixed(lambda i: "sliding_attention" if i and (i + 1) % 6 else "full_attention"),
    ),
    _attends("flint", windows_flint),
    _attends(
        "deepseek_v4",
        fixed(
            lambda i: (
                "compressed_sparse_attention" if i > 1 and i % 2 else "heavily_compressed_attention"
            )
        ),
    ),
    _attends(
        "lfm3",
        fixed(
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
        windows_after(28),
        field="max_window_layers",
    ),
    _attends(
        "qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text",
        windows_after(80),
        field="max_window_layers",
    ),
    _attends("dots1", windows_after(62, switched=False), field="max_window_layers"),
    _attends("qwen2_moe", windows_qwen2_moe, field="max_window_layers"),
    _attends("dots3_note_text", windows_dots3),
    _attends("inkling_text", windows_inkling),
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
    _attends("lfm3_vl_vision", fixed(lambda i: "conv" if i < 2 or i % 2 else "full_attention")),
    # Linear attention.
    _attends("minimax", every("", 2, hit="linear_attention", other="full_attention")),
    _attends("olmo_hybrid", linear_but("", 4)),
    _attends(
        "qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text",
        linear_but("full_attention_interval", 4),
        field="full_attention_interval",
    ),
    _attends(
        "qwen4_exp_text",
        linear_but("full_attention_interval", 4, full="indexed_attention"),
        field="full_attention_interval",
    ),
    _attends("bailing_hybrid", linear_but("layer_group_size", 6), field="layer_group_size"),
    _attends("glm5_next_text", linear_but("", 4, full="indexed_attention")),
    _attends("kimi_linear", kimi_linear),
    # Which layers have rotary positions, or an indexer.
    _listed(
        "smollm3 llama4 llama4_text mistral_large4_text",
        "no_rope_layers",
        every("no_rope_layer_interval", 4, hit=0, other=1),
        field="no_rope_layer_interval",
    ),
    *(
        _listed(types, "layer_rope_theta", thetas_muse(default))
        for types, default in (("muse_glimmer_text", 10000.0), ("muse_spark_text", 500000.0))
    ),
    _listed(
        "glm_moe_dsa glm5_next_text mistral_large4_text",
        "indexer_types",
        indexers,
        field="index_topk_freq",
    ),
    _listed(
        "hy_v4",
        "indexer_types",
        fixed(lambda i: "shared" if i and (i - 1) % 4 else "full"),
    ),
    # Which layers are mixtures of experts.
    *(
        _listed(
            types,
            "mlp_layer_types",
            dense_first("first_k_dense_replace", default),
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
        fixed(lambda i: "dense" if i < 1 else "sparse"),
    ),
    _listed(
        "glm5_next_text",
        "mlp_layer_types",
        fixed(lambda i: "dense" if i < 3 else "sparse"),
    ),
    _listed("step3p5 step3p7", "mlp_layer_types", experts_step3, field="moe_layers_enum"),
    _listed(
        "inkling_text",
        "mlp_layer_types",
        dense_first("dense_mlp_idx", 0),
        field="dense_mlp_idx",
    ),
    _listed(
        "deepseek_v4",
        "mlp_layer_types",
        dense_first("num_hash_layers", 3, dense="hash_moe", sparse="moe"),
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
            dense_first("num_dense_layers", default),
        )
        for types, default in (("afmoe", 1), ("lfm2_moe", 2))
    ),
    _one_off(
        "qwen2_moe qwen3_moe qwen3_next qwen3_vl_moe qwen3_vl_moe_text qwen3_omni_moe_text "
        "qwen3_omni_moe_talker_text flint",
        "decoder_sparse_step",
        _LISTED["mlp_layer_types"],
        sparse_by_step,
        encode_sparse_by_step,
    ),
    _one_off(
        "llama4 llama4_text",
        "interleave_moe_layer_step",
        _LISTED["mlp_layer_types"],
        moe_layers_llama4,
        encode_moe_layers,
    ),
    _one_off(
        "ernie4_5_moe",
        "moe_layer_start_index",
        _LISTED["mlp_layer_types"],
        moe_between,
        encode_moe_between,
    ),
    _one_off(
        "jamba",
        "expert_layer_period",
        _LISTED["mlp_layer_types"],
        jamba("expert", 2, 1),
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
            ("nllb-moe", sided_step(side, -1, None)),
            ("switch_transformers", sided_step(side, 1, f"num_sparse_{side}_layers")),
        )
    ),
    # One of a kind.
    _one_off("jamba", "attn_layer_period", _LISTED["layer_types"], jamba("attn", 8, 4)),
    _one_off(
        "recurrent_gemma",
        "block_types",
        "which layers are recurrent",
        cycle,
        lambda values: {"block_types": list(values)},
    ),
    _one_off(
        "gpt_neo",
        "attention_types",
        "which layers attend locally",
        attention_types,
        encode_attention_types,
    ),
    _one_off(
        "evolla",
        "aligner_num_add_layers",
        "which layers have an adapter",
        adapters_evolla,
        encode_adapters_evolla,
    ),
    _one_off(
        "pegasus_x",
        "stagger_local_blocks",
        "in which layers blocks are staggered",
        staggered,
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
        lambda section, n: [i >= n - integer(section, "num_blocks", 4) for i in range(n)],
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
        norms_fun_asr,
        encode_norms_fun_asr,
    ),
    _listed("sapiens2", "num_key_value_heads_per_layer", heads_sapiens2),
    _one_off(
        "glm5_next_text",
        "indexer_types",
        "which layers choose keys for the next",
        leads_glm5,
    ),
    _one_off(
        "blip_2_qformer instructblip_qformer instructblipvideo_qformer",
        "cross_attention_frequency",
        "which layers read the image",
        every("cross_attention_frequency", 2, hit=True, other=False, phase=0),
    ),
    _one_off("minicpm3", "scale_depth", _SCALED, *residual_scale(1.4)),
    _one_off(
        "qwen4_exp_text",
        "ple_layer_ids",
        "which embeddings each layer has",
        *each_its_own("ple_layer_ids", first=1),
    ),
    *(
        _one_off(
            types,
            "deepstack_visual_indexes",
            _MERGED,
            *each_its_own("deepstack_visual_indexes", default, only_with=count),
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
            listed_numbers(field, default, only_with=count),
            encode_numbers(field),
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
        expand=windows_mistral,
        encode=lambda values: {"sliding_window": list(values)},
    ),
    PositionRule(field="moe", what=_LISTED["mlp_layer_types"], expand=experts_mistral),
    # Types that have no row: kept where the pattern comes out right, else refused.
    PositionRule(
        field="deepstack_visual_indexes",
        what=_MERGED,
        expand=each_its_own("deepstack_visual_indexes")[0],
        encode=each_its_own("deepstack_visual_indexes")[1],
    ),
    PositionRule(
        field="scale_depth",
        what=_SCALED,
        expand=residual_scale(None)[0],
        encode=residual_scale(None)[1],
    ),
    PositionRule(
        field="cross_attention_frequency",
        what="which layers read the image",
        expand=phase("cross_attention_frequency"),
    ),
    PositionRule(
        field="first_k_dense_replace",
        what=_LISTED["mlp_layer_types"],
        expand=unless("mlp_layer_types", dense_first("first_k_dense_replace", 0)),
    ),
    PositionRule(
        field="num_dense_layers",
        what=_LISTED["mlp_layer_types"],
        expand=unless("mlp_layer_types", dense_first("num_dense_layers", 0)),
    ),
    PositionRule(
        field="num_kv_shared_layers",
        what="which layers share keys and values",
        expand=shared_from_end,
    ),
    PositionRule(
        field="cla_share_factor",
        what="which layers share keys and values",
        expand=lambda section, n: (
            phase("cla_share_factor")(section, n) if section.get("use_cla") else None
        ),
    ),
    PositionRule(
        field="kv_source_layers",
        what="which layers share keys and values",
        expand=sources_of_keys,
        encode=encode_own_keys,
    ),
    PositionRule(
        field="moe_layer_start_index", what=_LISTED["mlp_layer_types"], expand=moe_between
    ),
    PositionRule(
        field="max_window_layers",
        what=_LISTED["layer_types"],
        expand=unless("layer_types", windows_after(28)),
    ),
    PositionRule(
        field="no_rope_layer_interval",
        what=_LISTED["no_rope_layers"],
        expand=unless("no_rope_layers", phase("no_rope_layer_interval")),
    ),
    *(
        PositionRule(
            field=field,
            what=what,
            expand=unless(explicit, phase(field)),
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
