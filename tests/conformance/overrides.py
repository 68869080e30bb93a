"""What single model types need beyond the recipes of `shrink`: arguments of their configuration.

They hold wherever a type occurs, also for sections of others. Most make fields fit each other, or
give a model layers of both kinds where its defaults give one: only then can it be seen that dus
gathers what it should.
"""

from typing import Any, Final

from tests.conformance.shrink import Cycle, Overrides

_WINDOWS: Final = Cycle(("full_attention", "sliding_attention", "sliding_attention"))
_EXPERTS: Final = Cycle(("dense", "sparse", "sparse"))
_FROM_LAYER_2: Final = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}

_HEAD_EACH: Final = {"num_key_value_heads": 4}
"""Multi-head latent attention makes a key for every query head, whatever the config says."""


def _mrope(*section: int, **more: Any) -> dict[str, Any]:
    """Rotary embedding whose dimensions are shared out among time, height and width."""
    return {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": list(section),
            **more,
        }
    }


_RESNET: Final = {"model_type": "resnet", "depths": [1, 1, 1, 1], "out_indices": [1, 2, 3, 4]}
"""In place of timm's, which needs torchvision."""

OVERRIDES: Final[Overrides] = {
    "align_vision_model": {"width_coefficient": 0.25, "depth_coefficient": 1.0},
    "autoformer": {
        "prediction_length": 4,
        "context_length": 8,
        "encoder_layers": 5,
        "decoder_layers": 5,
    },
    "axk1": _HEAD_EACH,
    "axk2": _HEAD_EACH,
    "bailing_hybrid": {**_HEAD_EACH, "layer_group_size": 3},
    "bamba": {"attn_layer_indices": [1, 3]},
    "big_bird": {"block_size": 2, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 2, "num_random_blocks": 1},
    "bloom": {"n_layer": 5},
    "bros": {"hidden_size": 64},
    "chameleon": {"vocabulary_map": {"<image>": 90, "IMGIMGAZ": 91, "IMGIMGBZ": 92}},
    "chameleon_vqgan": {"base_channels": 32, "channel_multiplier": [1, 1, 2]},
    "chmv2": {
        "backbone_config": {
            "out_indices": [1, 3, 5, 7],
            "out_features": ["stage1", "stage3", "stage5", "stage7"],
            "return_class_token": True,
        }
    },
    "clvp_encoder": {"hidden_size": 128},
    "cohere2_moe": {"first_k_dense_replace": 2, "prefix_dense_sliding_window_pattern": 2},
    "cohere_compass_text": {
        "layer_types": _WINDOWS,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "conditional_detr": {"backbone_config": _RESNET},
    "dab-detr": {"backbone_config": _RESNET},
    "data2vec-audio": {"num_conv_pos_embeddings": 3},  # one for each layer would be ambiguous
    "dbrx": {"attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 10000.0}},
    "deepseek_ocr2_encoder": _FROM_LAYER_2,
    "deepseek_ocr2_text": {"mlp_layer_types": _EXPERTS},
    "deepseek_v2": {**_HEAD_EACH, "first_k_dense_replace": 2, "num_experts_per_tok": 2},
    "deepseek_v3": _HEAD_EACH,
    "deepseek_v32": _HEAD_EACH,
    "deformable_detr": {"backbone_config": _RESNET},
    "detr": {"backbone_config": _RESNET},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    "dots1": {
        "first_k_dense_replace": 2,
        "max_window_layers": 2,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "dots3_note_text": {
        "num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
        "qk_nope_head_dim": 8,
        "head_dim": 16,
        "layer_types": Cycle(("indexed_attention", "sliding_attention", "sliding_attention")),
    },
    "dots3_note_vision_encoder": {
        "adapter_in_dim": 32,
        "adapter_out_dim": 32,
        "mlp_layer_types": _EXPERTS,
        "num_local_experts": 4,
    },
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 1.0},
    "emu3": {
        "pad_token_id": 1,
        "vocabulary_map": {"<image>": 90, "<|extra_200|>": 91, "<|visual token 000000|>": 92},
    },
    "emu3_vqgan": {"base_channels": 32, "channel_multiplier": [1, 1, 2]},
    "eomt": {"num_blocks": 2},
    "eomt_dinov3": {"num_blocks": 2},
    "ernie4_5_moe": {
        "moe_layer_interval": 2,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": 3,
    },
    "ernie4_5_vl_moe_text": {
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 500000.0,
            "mrope_section": [2, 2, 4],
        },
    },
    "esm": {"vocab_size": 99, "pad_token_id": 1},
    "evolla": {"aligner_num_add_layers": 2},
    "fast_vlm": {
        "vision_config": {
            "model_type": "clip_vision_model",
            "num_hidden_layers": 7,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_attention_heads": 4,
        }
    },
    "flint": {"decoder_sparse_step": 2, "mlp_only_layers": [1]},
    "florence_vision": {
        "depths": [1, 1, 2, 1],
        "embed_dim": [8, 16, 32, 32],
        "num_heads": [2, 2, 2, 2],
        "num_groups": [2, 2, 2, 2],
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": Cycle(("sliding_attention", "full_attention")),
        "intermediate_size": 48,
        "activation_sparsity_pattern": Cycle((0.5, 0.0)),
    },
    "glm4_moe_lite": _HEAD_EACH,
    "glm4v_moe_text": _mrope(1, 1, 0, partial_rotary_factor=0.5),
    "glm4v_text": _mrope(2, 1, 1),
    "glm5_next_text": {
        "num_key_value_heads": 4,
        "index_topk": 8,
        "index_kpool": 4,
        "qk_nope_head_dim": 8,
        "layer_types": Cycle(("linear_attention", "indexed_attention", "indexed_attention")),
        "indexer_types": Cycle(("full", "full", "shared")),
    },
    "glm_image_text": _mrope(2, 1, 1),
    "glm_moe_dsa": {**_HEAD_EACH, "indexer_types": Cycle(("full", "shared", "shared"))},
    "glm_ocr_text": _mrope(2, 1, 1),
    "gpt_neo": {"attention_types": [[["global", "local"], 2], [["global"], 1]], "window_size": 8},
    "granite4_vision": {
        "deepstack_layer_map": [[-2, 1], [-1, 3]],
        "downsample_rate": "4/8",
        "spatial_target_layers": [2, 4],
        "vision_config": {"hidden_size": 64},
    },
    "granite_speech5_encoder": _HEAD_EACH,
    "granite_swa": {"layer_rope_theta": Cycle((10000.0, 500.0, 1000000.0))},
    "granitemoe_swa": {"layer_rope_theta": Cycle((10000.0, 500.0, 1000000.0))},
    "granitemoehybrid": {
        "layer_types": Cycle(("linear_attention", "full_attention", "linear_attention"))
    },
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": Cycle((1, 2, 3))},
    "hunyuan_vl_text": {
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [1, 1, 1, 1],
        },
    },
    "informer": {
        "prediction_length": 4,
        "context_length": 8,
        "encoder_layers": 5,
        "decoder_layers": 5,
    },
    "inkling_text": {"mlp_layer_types": _EXPERTS},
    "inkling_vision": {"n_layers": 4},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1},
    "janus_vqgan": {"base_channels": 32, "channel_multiplier": [1, 1, 2]},
    "kimi_linear": _HEAD_EACH,
    "laguna": {"layer_types": _WINDOWS, "num_attention_heads_per_layer": Cycle((4, 8, 8))},
    "led": {"attention_window": Cycle((4, 8, 12))},
    "lfm2_moe": {"layer_types": Cycle(("conv", "full_attention", "conv"))},
    "lilt": {"hidden_size": 48},
    "longcat_flash": {**_HEAD_EACH, "qk_head_dim": 16, "qk_nope_head_dim": 8},
    "longformer": {"attention_window": Cycle((4, 8, 12))},
    "lw_detr": {"projector_scale_factors": [1.0]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 4, "chunk_size": 8},
    "mellum": {"layer_types": _WINDOWS, "mlp_layer_types": _EXPERTS},
    "mimi": {"num_filters": 4, "upsample_groups": 32},
    "minicpm3": _HEAD_EACH,
    "minicpm_ocr_vision": {"insert_layer_id": 2},
    "minicpmv4_7_vision": {"insert_layer_id": 2},
    "ministral": {"head_dim": 8, "layer_types": _WINDOWS},
    "mistral4": {**_HEAD_EACH, "first_k_dense_replace": 2, "head_dim": 16, "qk_nope_head_dim": 8},
    "mistral_large4_text": {
        "num_key_value_heads": 4,
        "qk_nope_head_dim": 8,
        "kv_source_layers": [0, 1, 1, 3, 3],
        "indexer_types": Cycle(("full", "shared", "full")),
        "no_rope_layers": Cycle((1, 0, 1)),
    },
    "mobilebert": {"hidden_size": 64, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "molmo2_adapter": {"vision_feature_layer": [5, 3]},
    "molmo2_text": {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        "rope_scaling_layers": [1, 3],
    },
    "moonshine": {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "moonshine_streaming_encoder": {
        "num_key_value_heads": 4,
        "sliding_windows": Cycle(([4, 2], [8, 0], [8, 2])),
    },
    "muse_spark_audio": {"hidden_sizes": [8, 16, 16, 32]},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron3_5_transcribe_asr_audio": _HEAD_EACH,
    "nemotron3_5_transcribe_word_timestamp": _HEAD_EACH,
    "nemotron3_diarization_audio": _HEAD_EACH,
    "nemotron_h": {"n_groups": 2},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "neomme": {"head_dim": 16},
    "nllb-moe": {"encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "omdet-turbo": {
        "backbone_config": {"model_type": "swin", "out_indices": [2, 3, 4], "depths": [1, 1, 1, 1]}
    },
    "paddleocr_vl_text": _mrope(2, 1, 1),
    "paligemma": {"text_config": {"num_key_value_heads": 1}},
    "pegasus_x": {"block_size": 8},
    "perceiver": {"d_latents": 32, "num_self_attends_per_block": 5},
    "perception_lm": {
        "vision_config": {
            "model_type": "clip_vision_model",
            "model_args": {"embed_dim": 32},
            "num_hidden_layers": 7,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_attention_heads": 4,
        }
    },
    "pocket_tts": {"flow_head_config": {"condition_dim": 32}},
    "qwen2": _FROM_LAYER_2,
    "qwen2_5_omni_bigvgan": {"upsample_initial_channel": 64},
    "qwen2_5_omni_text": {**_mrope(2, 1, 1), **_FROM_LAYER_2},
    "qwen2_5_vl_text": {**_mrope(2, 1, 1), **_FROM_LAYER_2},
    "qwen2_moe": {**_FROM_LAYER_2, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
    "qwen2_vl_text": {**_mrope(2, 1, 1), **_FROM_LAYER_2},
    "qwen3": _FROM_LAYER_2,
    "qwen3_moe": {"mlp_only_layers": [2]},
    "qwen3_next": {"decoder_sparse_step": 2},
    "qwen3_omni_moe": {"enable_audio_output": False},
    "qwen3_omni_moe_talker": {"spatial_merge_size": 2},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 48, "mlp_only_layers": [2]},
    "qwen3_vl_moe_text": {"mlp_only_layers": [2]},
    "qwen4_exp_text": {
        "eos_token_id": 2,
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ple_layer_ids": [2, 3],
        "ngram_vocab_size_base": 50,
        "make_ngram_vocab_size_divisible_by": 8,
        "split_ngram_parts": 2,
        "heads_per_ngram": 2,
        "hc_lowrank": 8,
    },
    "sapiens2": {"num_first_full_attention_layers": 1, "num_last_full_attention_layers": 1},
    "seggpt": {"merge_index": 0},
    "smollm3": {"use_sliding_window": True, "sliding_window": 8, "no_rope_layer_interval": 3},
    "step3p5": {"sliding_window": 8},
    "switch_transformers": {"num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
    "t5gemma2_encoder": {"text_config": {"dropout_rate": 0.0}},
    "table-transformer": {"backbone_config": _RESNET},
    "time_series_transformer": {
        "prediction_length": 4,
        "context_length": 8,
        "encoder_layers": 5,
        "decoder_layers": 5,
    },
    "unlimited_ocr_text": {
        **_HEAD_EACH,
        "layer_types": Cycle(("full_attention", "reference_sliding_attention")),
        "mlp_layer_types": _EXPERTS,
    },
    "vibevoice_acoustic_tokenizer": {"num_filters": 2},
    "vibevoice_acoustic_tokenizer_decoder": {"num_filters": 2},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 2},
    "videomt": {"num_blocks": 2},
    "videoprism_vision_model": {"num_frames": 2, "image_size": 36},
    "vivit": {"num_frames": 4, "image_size": 32},
    "xmod": {"default_language": "en_XX"},
    "youtu": _HEAD_EACH,
    "zamba": {"layers_block_type": Cycle(("linear_attention", "hybrid"))},
    "zamba2": {"layers_block_type": Cycle(("linear_attention", "hybrid"))},
    "zaya": {
        "layer_types": Cycle(("hybrid", "hybrid_sliding", "hybrid_sliding")),
        "sliding_window": 8,
    },
}
