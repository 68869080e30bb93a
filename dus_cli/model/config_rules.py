"""Config fields and model types that `dus` knows, as tables (`position_rules` has the arithmetic).

Facts: configuration and modelling code of transformers 5.23, and configs as they lie on the Hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class FieldKind(StrEnum):
    """What a field holds, and so what happens to it. The values are what users type."""

    GATHER = "gather"
    """One entry a layer, in a list or a string of characters: taken by the layer map. Entries
    behind the last layer's (for MTP layers) stay at the end."""

    REKEY = "rekey"
    """An object whose keys are layer numbers: every entry goes to all copies of its layer."""

    REINDEX = "reindex"
    """A list of layer numbers, or a string of them with commas between: becomes the numbers of
    all copies. Numbers of trailing layers move with these."""

    KEEP = "keep"
    """Nothing to do with layers, whatever its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerField:
    """A field known by its name; `first` is the number of the first layer in REINDEX lists.

    `side` is the stack that it speaks of where encoder and decoder share a section.
    """

    kind: FieldKind
    first: int = 0
    side: str | None = None


def _fields(kind: FieldKind, names: str, *, first: int = 0) -> dict[str, PerLayerField]:
    return {name: PerLayerField(kind=kind, first=first) for name in names.split()}


FIELDS: Final = MappingProxyType(
    {
        **_fields(
            FieldKind.GATHER,
            """
            activation_sparsity_pattern attention_layers attn_layers block_configs
            compress_ratios
            hybrid_layer_pattern hybrid_override_pattern index_topk_pattern indexer_types
            intermediate_size layer_rope_theta layer_types layers_block_type mlp_layer_types
            moe_layer_freq moe_layer_layout no_rope_layers num_attention_heads_per_layer
            num_key_value_heads_per_layer pyramid_num_routed rope_layout
            sliding_window_layout sparse_attention_freq swiglu_limits swiglu_limits_shared
            """,
        ),
        **_fields(FieldKind.REKEY, "per_layer_config"),
        **_fields(
            FieldKind.REINDEX,
            """
            attn.layers attn_layer_idx attn_layer_idxs attn_layer_indices bskcn_1 bskcn_2 bskcn_3
            bskcn_4 cross_attention_layers dual_attention_layers
            full_attention_idx full_attn_idxs fullatt_block_indexes global_attn_idx
            global_attn_indexes hcl_layer_idxs hcm_layer_idxs hcs_layer_idxs hyena_layer_idxs
            local_layer_ids
            mlp_only_layers moe_layers moe_layers_enum rope_scaling_layers window_block_indices
            """,
        ),
        **_fields(
            FieldKind.REINDEX,
            "linear_attn_config.full_attn_layers linear_attn_config.kda_layers",
            first=1,
        ),
        **_fields(
            FieldKind.KEEP,
            """
            architectures attention_types axial_pos_shape bad_words_ids begin_suppress_tokens
            block_types bos_token_id conv_dim conv_kernel conv_kernel_size conv_stride depths
            eos_token_id exit_layers forced_decoder_ids id2label image_grid_pinpoints image_mean
            image_size image_std keys_to_ignore_at_inference label2id mlp_multipliers mrope_section
            mtp_layer_types mtp_layers_block_type pad_token_id quantiles
            rope_parameters.long_factor rope_parameters.mrope_section
            rope_parameters.short_factor rope_scaling.long_factor rope_scaling.mrope_section
            rope_scaling.short_factor sliding_window ssm_multipliers
            suppress_tokens target_bandwidths task_specific_params tdnn_dilation
            tdnn_dim tdnn_kernel upsample_kernel_sizes upsample_rates
            time_step_limit time_step_range vision_feature_layer visual_indicator_token_ids
            weight_block_size projector_patch_to_query_dict stage_names
            """,
        ),
    }
)
"""Known fields by dotted path inside their section. `intermediate_size` and the like are mostly
plain numbers; only a list or a string is ever gathered."""

_GATHERED: Final = PerLayerField(kind=FieldKind.GATHER)

TYPED_FIELDS: Final[Mapping[str, Mapping[str, PerLayerField]]] = MappingProxyType(
    {
        "led": {"attention_window": PerLayerField(kind=FieldKind.GATHER, side="encoder")},
        "hunyuan_v1_moe": {"num_experts": _GATHERED, "moe_topk": _GATHERED},
        "longformer": {"attention_window": _GATHERED},
        "step3p5": {"rope_theta": _GATHERED, "partial_rotary_factors": _GATHERED},
        "step3p7": {"rope_theta": _GATHERED, "partial_rotary_factors": _GATHERED},
        "swin2sr": {"depths": _GATHERED, "num_heads": _GATHERED},
    }
)
"""Fields that are by layer in some model types only."""


def fields_of(model_type: str) -> Mapping[str, PerLayerField]:
    """All fields that are known in a model of this type."""
    return {**FIELDS, **TYPED_FIELDS.get(model_type, {})}


_REFUSALS: Final = (
    ("albert", "all its layers are one set of parameters used again and again"),
    ("beam", "the residual scale of a layer is computed from the layer's number"),
    ("diffllama", "a layer's lambda is computed from the layer's number"),
    (
        "diffusion_gemma_text embedding_gemma2_text gemma3n gemma3n_text gemma4 gemma4_text "
        "gemma4_unified gemma4_unified_text",
        "the per-layer embeddings of all layers lie side by side in one tensor, and dus moves "
        "tensors whole",
    ),
    (
        "donut-swin maskformer-swin swin swinv2",
        "its numbered layers are stages, each of another width",
    ),
    ("inkling2_text", "tensors of its layers lie outside them, numbered once more"),
    ("ChromaTransformer2DModel", "each block takes its modulation from a table, by its number"),
    (
        "BriaFiboTransformer2DModel HiDreamImageTransformer2DModel",
        "each block has its own projection of the text, by its number",
    ),
    (
        "AceStepTransformer1DModel ConsisIDTransformer3DModel HunyuanDiT2DModel "
        "LatteTransformer3DModel MotifVideoTransformer3DModel NucleusMoEImageTransformer2DModel "
        "WanAnimate2Transformer3DModel WanAnimateTransformer3DModel WanVACETransformer3DModel",
        "what a block does follows from its number",
    ),
    ("esmc", "its residual scale follows from the number of layers"),
    ("fastspeech2_conformer", "its layer counts are repeated in sections of their own"),
    ("flaubert xlm", "its layers lie in four parallel lists"),
    ("idefics", "cross-attention layers between its layers are a second list"),
    ("openelm", "how many heads a layer has follows from those of the first and the last one"),
    ("phi4flash", "the second half of its layers reads what the first half keeps"),
    (
        "bailing_moe_linear minimax_m1 minimax_text_01",
        "the decay of a layer's attention is computed from the layer's number",
    ),
    ("neomme", "its windows and its residual scale follow from numbers that no field states"),
    ("rf_detr_dinov2", "which of its layers attend in windows follows from what it gives out"),
    ("rwkv", "its weights are rescaled by the layer's number while it runs"),
    ("zamba", "its hybrid layers share one block, stored with the first of them"),
    ("zamba2", "its shared blocks hold one adapter for every use, by the layer's number"),
)

REFUSED_MODEL_TYPES: Final = MappingProxyType(
    {name: reason for names, reason in _REFUSALS for name in names.split()}
)
"""Model types for which `dus` knows no config.json that describes the up-scaled model."""

COUPLED_MODEL_TYPES: Final = MappingProxyType(
    {
        "bridgetower": "layers of its text model and of its vision model run in pairs",
        "pi0": "each layer of its expert attends to the same layer of the language model",
    }
)
"""Model types that are refused whatever part of them is to be scaled, going by the whole config."""

REFUSING_FIELDS: Final = MappingProxyType(
    {
        "kv_reuse_group": "layers share keys and values by their numbers",
        "scale_attn_by_inverse_layer_idx": "attention is scaled by the layer's number",
    }
)
"""Switches which, when on, make a layer compute something from its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRefusal:
    """Model types that are refused if some tensor's name has `part` between its dots, or, with
    `present` false, if none has. No types are all types."""

    part: str
    reason: str
    present: bool = True
    model_types: frozenset[str] = frozenset()


TENSOR_REFUSALS: Final = (
    TensorRefusal(
        part="layer_weights",
        reason="its head weighs the outputs of all layers by one tensor",
    ),
    TensorRefusal(
        part="mid_position_embeddings",
        reason="positions for all layers lie in one tensor",
    ),
    TensorRefusal(
        model_types=frozenset({"esm"}),
        part="contact_head",
        reason="its contact head holds one weight for every head of every layer",
    ),
    TensorRefusal(
        model_types=frozenset({"minimax"}),
        part="slope_rate",
        present=False,
        reason="without the tensors slope_rate the decay of a layer's attention is computed from "
        "the layer's number",
    ),
)
"""What only some checkpoints of a type have."""

_PLAIN: Final = """
    AllegroTransformer3DModel AuraFlowTransformer2DModel CogVideoXTransformer3DModel
    CogView3PlusTransformer2DModel CogView4Transformer2DModel DiTTransformer2DModel
    Flux2Transformer2DModel FluxTransformer2DModel HunyuanVideoTransformer3DModel
    LTXVideoTransformer3DModel Lumina2Transformer2DModel MochiTransformer3DModel
    PixArtTransformer2DModel QwenImageTransformer2DModel SD3Transformer2DModel
    SanaTransformer2DModel WanTransformer3DModel
    apertus arcee bamba bart bert bigbird_pegasus biogpt bloom camembert codegen cohere ctrl
    deberta deberta-v2 distilbert electra ernie ernie4_5 falcon falcon_mamba gemma glm glm4 gpt2
    gpt_bigcode gpt_neox gpt_neox_japanese gptj granite granitemoe granitemoehybrid helium
    hunyuan_v1_dense jetmoe lfm2 llama mamba mamba2 marian mbart megatron-bert minimax_m2
    ministral ministral3 mistral mixtral mpnet mpt mt5 nemotron nemotron_h olmo olmo2 olmoe
    openai-gpt opt pegasus persimmon phi phi3 phimoe qwen3_vl qwen3_vl_text roberta seed_oss
    stablelm starcoder2 t5 umt5 whisper xglm xlm-roberta xlm-roberta-xl
"""

PLAIN_MODEL_TYPES: Final = frozenset(_PLAIN.split())
"""Model types in which nothing depends on a layer's number but what `FIELDS` names, and tensors
that only the first or the last layer has."""
