"""What single model types need beyond the recipes of `shrink`: arguments of their configuration.

They hold wherever a type occurs, also for sections of others. Most make fields fit each other, or
give a model layers of both kinds where its defaults give one: only then can it be seen that dus
gathers what it should.
"""

from typing import Final

from tests.conformance.shrink import Cycle, Overrides

_WINDOWS: Final = Cycle(("full_attention", "sliding_attention", "sliding_attention"))
_EXPERTS: Final = Cycle(("dense", "sparse", "sparse"))
_FROM_LAYER_2: Final = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}

OVERRIDES: Final[Overrides] = {
    "bailing_hybrid": {"layer_group_size": 3},
    "bamba": {"attn_layer_indices": [1, 3]},
    "big_bird": {"block_size": 2, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 2, "num_random_blocks": 1},
    "cohere2_moe": {"first_k_dense_replace": 2, "prefix_dense_sliding_window_pattern": 2},
    "cohere_compass_text": {
        "layer_types": _WINDOWS,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0}},
    "deepseek_ocr2_encoder": _FROM_LAYER_2,
    "deepseek_ocr2_text": {"mlp_layer_types": _EXPERTS},
    "deepseek_v2": {"first_k_dense_replace": 2},
    "dots1": {
        "first_k_dense_replace": 2,
        "max_window_layers": 2,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
    },
    "ernie4_5_moe": {
        "moe_layer_interval": 2,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": 3,
    },
    "esm": {"vocab_size": 99, "pad_token_id": 1},
    "evolla": {"aligner_num_add_layers": 2},
    "flint": {"decoder_sparse_step": 2, "mlp_only_layers": [1]},
    "glm_moe_dsa": {"indexer_types": Cycle(("full", "shared", "shared"))},
    "gpt_neo": {"attention_types": [[["global", "local"], 2], [["global"], 1]], "window_size": 8},
    "granite_swa": {"layer_rope_theta": Cycle((10000.0, 500.0, 1000000.0))},
    "granitemoe_swa": {"layer_rope_theta": Cycle((10000.0, 500.0, 1000000.0))},
    "granitemoehybrid": {
        "layer_types": Cycle(("linear_attention", "full_attention", "linear_attention"))
    },
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": Cycle((1, 2, 3))},
    "hunyuan_vl_text": {"head_dim": 8},
    "inkling_text": {"mlp_layer_types": _EXPERTS},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1},
    "laguna": {"layer_types": _WINDOWS, "num_attention_heads_per_layer": Cycle((4, 8, 8))},
    "led": {"attention_window": Cycle((4, 8, 12))},
    "lfm2_moe": {"layer_types": Cycle(("conv", "full_attention", "conv"))},
    "longformer": {"attention_window": Cycle((4, 8, 12))},
    "mellum": {"layer_types": _WINDOWS, "mlp_layer_types": _EXPERTS},
    "ministral": {"head_dim": 8, "layer_types": _WINDOWS},
    "mistral4": {"first_k_dense_replace": 2},
    "nemotron": {"num_key_value_heads": 2},
    "nllb-moe": {"encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "pegasus_x": {"block_size": 8},
    "qwen2": _FROM_LAYER_2,
    "qwen2_5_omni_text": _FROM_LAYER_2,
    "qwen2_5_vl_text": _FROM_LAYER_2,
    "qwen2_moe": {**_FROM_LAYER_2, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
    "qwen2_vl_text": _FROM_LAYER_2,
    "qwen3": _FROM_LAYER_2,
    "qwen3_moe": {"mlp_only_layers": [2]},
    "qwen3_next": {"decoder_sparse_step": 2},
    "qwen3_vl_moe_text": {"mlp_only_layers": [2]},
    "smollm3": {"use_sliding_window": True, "sliding_window": 8, "no_rope_layer_interval": 3},
    "switch_transformers": {"num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
    "unlimited_ocr_text": {
        "layer_types": Cycle(("full_attention", "reference_sliding_attention")),
        "mlp_layer_types": _EXPERTS,
    },
    "zaya": {
        "layer_types": Cycle(("hybrid", "hybrid_sliding", "hybrid_sliding")),
        "sliding_window": 8,
    },
}
