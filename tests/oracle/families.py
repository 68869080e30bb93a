"""Tiny models of common families, as rows; layer counts are odd, so that no period fits by luck."""

from typing import Any

from tests.oracle.judge import TOKENS, Family

BASE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
GROUPED = {**BASE, "num_key_value_heads": 2, "head_dim": 8}
WINDOW = {"sliding_window": 5}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_head": 4, "n_positions": 64}
BART = {
    "vocab_size": 96,
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "pad_token_id": 0}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
}
LISTS = ("layer_types", "mlp_layer_types", "indexer_types")
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "image_size": 16,
    "patch_size": 8,
}


def pair(torch: Any, generator: Any) -> dict[str, Any]:
    """Tokens for an encoder and a decoder."""
    return {
        "input_ids": torch.randint(3, 90, (2, TOKENS), generator=generator),
        "decoder_input_ids": torch.randint(3, 90, (2, TOKENS // 2), generator=generator),
    }


def sound(torch: Any, generator: Any) -> dict[str, Any]:
    """Whisper's mel spectrogram, and tokens for its decoder."""
    return {
        "input_features": torch.randn(1, 16, 32, generator=generator),
        "decoder_input_ids": torch.randint(3, 90, (1, 12), generator=generator),
    }


def speech(torch: Any, generator: Any) -> dict[str, Any]:
    """A mel spectrogram alone."""
    return {"input_features": torch.randn(1, 64, 16, generator=generator)}


def spoken_pair(torch: Any, generator: Any) -> dict[str, Any]:
    """A mel spectrogram, and tokens for a decoder."""
    tokens = torch.randint(3, 90, (1, 12), generator=generator)
    return {**speech(torch, generator), "decoder_input_ids": tokens}


def image(torch: Any, generator: Any) -> dict[str, Any]:
    """Two small pictures."""
    return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}


def causal(name: str, stem: str, config: dict[str, Any], **options: Any) -> Family:
    """A family whose classes are called `{stem}Config` and `{stem}ForCausalLM`."""
    classes = {"config_class": f"{stem}Config", "model_class": f"{stem}ForCausalLM"}
    return Family(name=name, config=config, **{**classes, **options})


RIGHT = (
    causal("mistral", "Mistral", {**GROUPED, **WINDOW}, shard_size="20KB"),
    Family(
        name="bert-masked-lm",
        config_class="BertConfig",
        model_class="BertForMaskedLM",
        config=BASE,
        stacks=("bert.encoder.layer",),
    ),
    causal("llama", "Llama", {**GROUPED, "tie_word_embeddings": True}, layers=7, drop=3),
    causal("llama-all-but-one", "Llama", GROUPED, layers=3),
    causal("llama-stacked", "Llama", GROUPED, layers=3, drop=0),
    causal(
        "qwen2-windows",
        "Qwen2",
        {
            **BASE,
            "num_key_value_heads": 2,
            **WINDOW,
            "use_sliding_window": True,
            "max_window_layers": 3,
        },
        layers=7,
    ),
    causal(
        "qwen2-windows-by-rule",
        "Qwen2",
        {
            **BASE,
            "num_key_value_heads": 2,
            **WINDOW,
            "use_sliding_window": True,
            "max_window_layers": 3,
        },
        layers=7,
        file_edits={"layer_types": None},
    ),
    causal(
        "qwen2-without-windows",
        "Qwen2",
        {**BASE, "num_key_value_heads": 2, "use_sliding_window": False, "max_window_layers": 3},
        file_edits={"layer_types": None},
    ),
    causal("qwen3", "Qwen3", GROUPED),
    causal("gemma2", "Gemma2", {**GROUPED, **WINDOW, "query_pre_attn_scalar": 8}),
    causal(
        "gemma2-by-rule",
        "Gemma2",
        {**GROUPED, **WINDOW, "query_pre_attn_scalar": 8},
        file_edits={"layer_types": None},
    ),
    Family(
        name="gemma3-by-rule",
        config_class="Gemma3TextConfig",
        model_class="Gemma3ForCausalLM",
        config={**GROUPED, **WINDOW, "query_pre_attn_scalar": 8, "sliding_window_pattern": 3},
        layers=7,
        file_edits={"layer_types": None, "sliding_window_pattern": 3},
    ),
    Family(
        name="gpt2",
        config_class="GPT2Config",
        model_class="GPT2LMHeadModel",
        config=GPT2,
        count_field="n_layer",
        stacks=("transformer.h",),
    ),
    causal(
        "gpt-neo",
        "GPTNeo",
        {
            "vocab_size": 96,
            "hidden_size": 32,
            "num_heads": 4,
            "window_size": 5,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 2], [["local"], 1]],
        },
        count_field="num_layers",
        stacks=("transformer.h",),
    ),
    causal("gpt-neox", "GPTNeoX", BASE, stacks=("gpt_neox.layers",)),
    causal(
        "bloom",
        "Bloom",
        {"vocab_size": 96, "hidden_size": 32, "n_head": 4},
        count_field="n_layer",
        stacks=("transformer.h",),
    ),
    causal(
        "opt",
        "OPT",
        {**BASE, "ffn_dim": 48, "word_embed_proj_dim": 32},
        stacks=("model.decoder.layers",),
    ),
    causal("phi3", "Phi3", {**BASE, **WINDOW, "num_key_value_heads": 2}),
    causal(
        "mixtral",
        "Mixtral",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        shard_size="40KB",
    ),
    causal("qwen3-moe-every-other", "Qwen3Moe", {**GROUPED, **MOE, "decoder_sparse_step": 2}),
    causal(
        "qwen2-moe",
        "Qwen2Moe",
        {
            **BASE,
            "num_key_value_heads": 2,
            **MOE,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [1],
            "shared_expert_intermediate_size": 16,
        },
    ),
    causal("gpt-oss", "GptOss", {**GROUPED, **WINDOW, "num_local_experts": 4}),
    causal(
        "gpt-oss-by-rule",
        "GptOss",
        {**GROUPED, **WINDOW, "num_local_experts": 4},
        file_edits={"layer_types": None},
    ),
    causal("cohere2", "Cohere2", {**GROUPED, **WINDOW}, layers=7),
    causal(
        "cohere2-by-rule",
        "Cohere2",
        {**GROUPED, **WINDOW, "sliding_window_pattern": 3},
        layers=7,
        file_edits={"layer_types": None, "sliding_window_pattern": 3},
    ),
    causal(
        "olmo3-by-rule", "Olmo3", {**BASE, **WINDOW}, layers=7, file_edits={"layer_types": None}
    ),
    Family(
        name="modernbert",
        config_class="ModernBertConfig",
        model_class="ModernBertForMaskedLM",
        config={**BASE, "local_attention": 6, "cls_token_id": 1, "sep_token_id": 2},
        layers=7,
    ),
    Family(
        name="modernbert-by-rule",
        config_class="ModernBertConfig",
        model_class="ModernBertForMaskedLM",
        config={
            **BASE,
            "local_attention": 6,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "global_attn_every_n_layers": 2,
        },
        layers=7,
        file_edits={"layer_types": None, "global_attn_every_n_layers": 2},
    ),
    causal(
        "deepseek-v3",
        "DeepseekV3",
        {**BASE, **LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 1},
    ),
    causal(
        "deepseek-v3-no-field",
        "DeepseekV3",
        {**BASE, **LATENT, "num_key_value_heads": 4},
        layers=7,
        drop=3,
        file_edits={"first_k_dense_replace": None},
    ),
    causal("glm4-moe", "Glm4Moe", {**GROUPED, **LATENT, "first_k_dense_replace": 2}),
    causal(
        "smollm3",
        "SmolLM3",
        {**BASE, "num_key_value_heads": 2, "no_rope_layer_interval": 2},
        file_edits={"no_rope_layers": None},
    ),
    causal(
        "smollm3-windows-by-rule",
        "SmolLM3",
        {
            **BASE,
            **WINDOW,
            "num_key_value_heads": 2,
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
        },
        file_edits={"no_rope_layers": None, "layer_types": None},
    ),
    Family(
        name="llama4-text",
        config_class="Llama4TextConfig",
        model_class="Llama4ForCausalLM",
        config={
            **GROUPED,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 3,
            "attention_chunk_size": 5,
        },
        file_edits={"no_rope_layers": [], "moe_layers": None, "layer_types": None},
    ),
    causal(
        "lfm2",
        "Lfm2",
        {**BASE, "num_key_value_heads": 2, "full_attn_idxs": [1, 4]},
        file_edits={"layer_types": None},
    ),
    causal(
        "minimax",
        "MiniMax",
        {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1, "block_size": 8},
        file_edits={"layer_types": None},
    ),
    causal(
        "jamba-whole-periods",
        "Jamba",
        {
            **BASE,
            "num_key_value_heads": 2,
            "num_experts": 2,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "expert_layer_period": 3,
            "expert_layer_offset": 2,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
        },
        layers=7,
    ),
    Family(
        name="t5",
        config_class="T5Config",
        model_class="T5ForConditionalGeneration",
        config=T5,
        count_field="num_layers",
        also_counts=("num_decoder_layers",),
        stacks=("encoder.block", "decoder.block"),
        inputs=pair,
    ),
    Family(
        name="t5-one-count",
        config_class="T5Config",
        model_class="T5ForConditionalGeneration",
        config=T5,
        count_field="num_layers",
        also_counts=("num_decoder_layers",),
        stacks=("encoder.block", "decoder.block"),
        inputs=pair,
        file_edits={"num_decoder_layers": None},
    ),
    Family(
        name="t5-decoder-alone",
        config_class="T5Config",
        model_class="T5ForConditionalGeneration",
        config={**T5, "num_layers": 3},
        count_field="num_decoder_layers",
        stacks=("decoder.block",),
        request={"stack": "decoder.block"},
        inputs=pair,
    ),
    Family(
        name="bart",
        config_class="BartConfig",
        model_class="BartForConditionalGeneration",
        config=BART,
        count_field="encoder_layers",
        also_counts=("decoder_layers",),
        stacks=("model.encoder.layers", "model.decoder.layers"),
        inputs=pair,
        shard_size="50KB",
    ),
    Family(
        name="bart-encoder-alone",
        config_class="BartConfig",
        model_class="BartForConditionalGeneration",
        config={**BART, "decoder_layers": 3},
        count_field="encoder_layers",
        stacks=("model.encoder.layers",),
        request={"stack": "model.encoder.layers"},
        inputs=pair,
    ),
    Family(
        name="whisper",
        config_class="WhisperConfig",
        model_class="WhisperForConditionalGeneration",
        config={
            **BART,
            "num_mel_bins": 16,
            "max_source_positions": 16,
            "max_target_positions": 32,
        },
        count_field="encoder_layers",
        also_counts=("decoder_layers",),
        stacks=("model.encoder.layers", "model.decoder.layers"),
        inputs=sound,
    ),
    Family(
        name="llava-text",
        config_class="LlavaConfig",
        model_class="LlavaForConditionalGeneration",
        config={
            "text_config": {**GROUPED, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model"},
            "image_token_id": 95,
        },
        text_section=True,
        stacks=("model.language_model.layers",),
    ),
    Family(
        name="llava-text-uncounted",
        config_class="LlavaConfig",
        model_class="LlavaForConditionalGeneration",
        config={
            "text_config": {**GROUPED, "model_type": "llama"},
            "vision_config": {**VISION, "num_hidden_layers": 5, "model_type": "clip_vision_model"},
            "image_token_id": 95,
        },
        text_section=True,
        stacks=("model.language_model.layers",),
        file_edits={"text_config.num_hidden_layers": None},
    ),
    causal(
        "qwen3-next",
        "Qwen3Next",
        {
            **GROUPED,
            **MOE,
            "shared_expert_intermediate_size": 16,
            "decoder_sparse_step": 2,
            "full_attention_interval": 3,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        file_edits={"layer_types": None, "full_attention_interval": 3},
    ),
    Family(
        name="recurrent-gemma",
        config_class="RecurrentGemmaConfig",
        model_class="RecurrentGemmaForCausalLM",
        config={**GROUPED, "lru_width": 32, "attention_window_size": 5},
        drop=1,
    ),
    causal(
        "ernie4-5-moe",
        "Ernie4_5_Moe",
        {
            **BASE,
            "num_key_value_heads": 2,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 16,
            "moe_layer_start_index": 2,
        },
    ),
    # Rows that write a list, or a pattern with no field of its own.
    *(
        causal(
            name, stem, {**GROUPED, **WINDOW, **fields}, layers=7, file_edits=dict.fromkeys(LISTS)
        )
        for name, stem, fields in (
            ("vaultgemma-by-rule", "VaultGemma", {"query_pre_attn_scalar": 8}),
            ("exaone4-by-rule", "Exaone4", {"sliding_window_pattern": 3}),
            ("ministral-by-rule", "Ministral", {}),
            (
                "afmoe-by-rule",
                "Afmoe",
                {
                    **MOE,
                    "num_dense_layers": 1,
                    "global_attn_every_n_layers": 3,
                    "n_group": 1,
                    "topk_group": 1,
                },
            ),
            (
                "mimo-v2-flash-by-rule",
                "MiMoV2Flash",
                {
                    "n_routed_experts": 4,
                    "num_experts_per_tok": 2,
                    "moe_intermediate_size": 16,
                    "v_head_dim": 8,
                    "n_group": 1,
                    "topk_group": 1,
                },
            ),
            (
                "dots1-by-rule",
                "Dots1",
                {**LATENT, "first_k_dense_replace": 1, "max_window_layers": 3},
            ),
            (
                "modernbert-decoder-by-rule",
                "ModernBertDecoder",
                {"local_attention": 8, "num_key_value_heads": None},
            ),
            (
                "glm-moe-dsa-by-rule",
                "GlmMoeDsa",
                {
                    **LATENT,
                    "num_key_value_heads": 4,
                    "first_k_dense_replace": 2,
                    "index_topk": 64,
                    "index_n_heads": 2,
                    "index_head_dim": 16,
                },
            ),
            (
                "kimi-linear-by-rule",
                "KimiLinear",
                {
                    **LATENT,
                    "num_key_value_heads": 4,
                    "num_experts": 4,
                    "first_k_dense_replace": 1,
                    "linear_num_heads": 4,
                    "linear_head_dim": 8,
                },
            ),
        )
    ),
    Family(
        name="qwen3-5-by-rule",
        config_class="Qwen3_5TextConfig",
        model_class="Qwen3_5ForCausalLM",
        config={
            **GROUPED,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        layers=7,
        file_edits={"layer_types": None},
    ),
    Family(
        name="qwen2-vl-by-rule",
        config_class="Qwen2VLConfig",
        model_class="Qwen2VLForConditionalGeneration",
        config={
            "text_config": {
                **BASE,
                **WINDOW,
                "num_key_value_heads": 2,
                "use_sliding_window": True,
                "max_window_layers": 3,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [1, 1, 2],
                },
            },
            "vision_config": {"depth": 5, "embed_dim": 32, "num_heads": 4, "hidden_size": 32},
        },
        text_section=True,
        layers=7,
        stacks=("model.language_model.layers",),
        file_edits={"text_config.layer_types": None},
    ),
    Family(
        name="gemma3-with-vision-by-rule",
        config_class="Gemma3Config",
        model_class="Gemma3ForConditionalGeneration",
        config={
            "text_config": {
                **GROUPED,
                **WINDOW,
                "query_pre_attn_scalar": 8,
                "sliding_window_pattern": 3,
            },
            "vision_config": VISION,
        },
        text_section=True,
        layers=7,
        stacks=("model.language_model.layers",),
        file_edits={"text_config.layer_types": None, "text_config.sliding_window_pattern": 3},
    ),
    # Plain ones.
    *(
        causal(name, stem, fields)
        for name, stem, fields in (
            ("phi", "Phi", BASE),
            ("granite", "Granite", {**BASE, "num_key_value_heads": 2}),
            ("olmo2", "Olmo2", BASE),
            ("glm4", "Glm4", GROUPED),
            ("starcoder2", "Starcoder2", {**BASE, **WINDOW, "num_key_value_heads": 2}),
            ("olmoe", "Olmoe", {**BASE, **MOE}),
            (
                "minimax-m2",
                "MiniMaxM2",
                {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
            ),
        )
    ),
    causal(
        "falcon",
        "Falcon",
        {"vocab_size": 96, "hidden_size": 32, "num_attention_heads": 4},
        stacks=("transformer.h",),
    ),
    causal(
        "mpt",
        "Mpt",
        {"vocab_size": 96, "d_model": 32, "n_heads": 4, "max_seq_len": 64},
        count_field="n_layers",
        stacks=("transformer.blocks",),
    ),
    causal(
        "mamba",
        "Mamba",
        {"vocab_size": 96, "hidden_size": 32, "state_size": 4},
        stacks=("backbone.layers",),
    ),
    causal(
        "granite-moe-hybrid",
        "GraniteMoeHybrid",
        {
            **BASE,
            "num_key_value_heads": 2,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "shared_intermediate_size": 16,
            "layer_types": ["mamba", "attention", "mamba", "mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 4,
            "mamba_n_groups": 1,
        },
    ),
    Family(
        name="deberta-v2",
        config_class="DebertaV2Config",
        model_class="DebertaV2ForMaskedLM",
        config={
            **BASE,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "conv_kernel_size": 3,
        },
        stacks=("deberta.encoder.layer",),
    ),
    Family(
        name="marian",
        config_class="MarianConfig",
        model_class="MarianMTModel",
        config=BART,
        count_field="encoder_layers",
        also_counts=("decoder_layers",),
        stacks=("model.encoder.layers", "model.decoder.layers"),
        inputs=pair,
    ),
    Family(
        name="umt5",
        config_class="UMT5Config",
        model_class="UMT5ForConditionalGeneration",
        config=T5,
        count_field="num_layers",
        also_counts=("num_decoder_layers",),
        stacks=("encoder.block", "decoder.block"),
        inputs=pair,
    ),
    # What follows from the number of layers, or from a layer's place.
    causal(
        "minicpm3-residual-scale",
        "MiniCPM3",
        {
            **BASE,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        },
        layers=7,
    ),
    causal(
        "muse-glimmer-by-rule",
        "MuseGlimmer",
        {**GROUPED, **WINDOW},
        layers=7,
        drop=3,
        config_class="MuseGlimmerTextConfig",
        model_class="MuseGlimmerTextModel",
        stacks=("layers",),
        file_edits={"layer_types": None, "layer_rope_theta": None},
    ),
    causal(
        "nemotron-h-without-a-count",
        "NemotronH",
        {
            **GROUPED,
            "layers_block_type": [
                "linear_attention",
                "mlp",
                "full_attention",
                "linear_attention",
                "mlp",
            ],
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 4,
            "n_groups": 1,
            "chunk_size": 8,
        },
        file_edits={"num_hidden_layers": None},
    ),
    *(
        Family(
            name=f"switch-transformers-{name}",
            config_class="SwitchTransformersConfig",
            model_class="SwitchTransformersForConditionalGeneration",
            config={
                **T5,
                "num_experts": 2,
                "num_sparse_encoder_layers": 3,
                "num_sparse_decoder_layers": 3,
            },
            layers=6,
            count_field="num_layers",
            also_counts=("num_decoder_layers",),
            stacks=("encoder.block", "decoder.block"),
            inputs=pair,
            file_edits=edits,
        )
        for name, edits in (
            ("even", {}),
            ("without-steps", {"encoder_sparse_step": None, "decoder_sparse_step": None}),
        )
    ),
    Family(
        name="pegasus-x-even",
        config_class="PegasusXConfig",
        model_class="PegasusXForConditionalGeneration",
        config={**BART, "block_size": 4, "num_global_tokens": 2},
        layers=6,
        count_field="encoder_layers",
        also_counts=("decoder_layers",),
        stacks=("model.encoder.layers", "model.decoder.layers"),
        inputs=pair,
    ),
    Family(
        name="longformer-windows",
        config_class="LongformerConfig",
        model_class="LongformerForMaskedLM",
        config={**BASE, "attention_window": [4, 8, 12, 24, 8]},
        stacks=("longformer.encoder.layer",),
    ),
    # Stacks that are chosen where there is no language model.
    Family(
        name="clip-vision-alone",
        config_class="CLIPVisionConfig",
        model_class="CLIPVisionModel",
        config={**VISION},
        stacks=("encoder.layers",),
        inputs=image,
    ),
    Family(
        name="siglip-vision-alone",
        config_class="SiglipVisionConfig",
        model_class="SiglipVisionModel",
        config={**VISION},
        stacks=("encoder.layers",),
        inputs=image,
    ),
    Family(
        name="dpt",
        config_class="DPTConfig",
        model_class="DPTForDepthEstimation",
        config={
            **VISION,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 8, 8],
            "fusion_hidden_size": 8,
            "reassemble_factors": [4, 2, 1, 0.5],
        },
        drop=1,
        stacks=("dpt.encoder.layer",),
        inputs=image,
    ),
    Family(
        name="parakeet-ctc",
        config_class="ParakeetCTCConfig",
        model_class="ParakeetForCTC",
        config={
            "vocab_size": 32,
            "encoder_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_attention_heads": 4,
                "num_hidden_layers": 5,
                "num_mel_bins": 16,
                "subsampling_conv_channels": 8,
            },
        },
        stacks=("encoder.layers",),
        inputs=speech,
    ),
)
"""Families that dus must get right, to the last bit."""

REFUSED = (
    (
        Family(
            name="albert",
            config_class="AlbertConfig",
            model_class="AlbertForMaskedLM",
            config={**BASE, "embedding_size": 16},
        ),
        "no tensor name|albert cannot",
    ),
    (
        causal("diffllama", "DiffLlama", {**GROUPED}),
        "lambda is computed",
    ),
    (
        Family(
            name="gpt2-scaled-by-number",
            config_class="GPT2Config",
            model_class="GPT2LMHeadModel",
            config={**GPT2, "scale_attn_by_inverse_layer_idx": True},
            count_field="n_layer",
            stacks=("transformer.h",),
        ),
        "scaled by the layer's number",
    ),
    (
        causal(
            "deepseek-v3-dense-layers-copied",
            "DeepseekV3",
            {**BASE, **LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 3},
        ),
        "first_k_dense_replace",
    ),
    (
        causal(
            "deepseek-v3-dense-layers-copied-no-field",
            "DeepseekV3",
            {**BASE, **LATENT, "num_key_value_heads": 4},
            file_edits={"first_k_dense_replace": None},
        ),
        "first_k_dense_replace",
    ),
    (
        Family(
            name="modernbert-stacked",
            config_class="ModernBertConfig",
            model_class="ModernBertForMaskedLM",
            config={**BASE, "cls_token_id": 1, "sep_token_id": 2},
            layers=7,
            drop=0,
        ),
        "layer 0 holds other tensors",
    ),
    (
        Family(
            name="t5-stacked",
            config_class="T5Config",
            model_class="T5ForConditionalGeneration",
            config=T5,
            count_field="num_layers",
            also_counts=("num_decoder_layers",),
            drop=0,
        ),
        "layer 0 holds other tensors",
    ),
    (
        Family(
            name="t5-one-count-one-side",
            config_class="T5Config",
            model_class="T5ForConditionalGeneration",
            config=T5,
            count_field="num_layers",
            also_counts=("num_decoder_layers",),
            request={"stack": "encoder.block"},
            file_edits={"num_decoder_layers": None},
        ),
        "by one field",
    ),
    (
        Family(
            name="switch-transformers",
            config_class="SwitchTransformersConfig",
            model_class="SwitchTransformersForConditionalGeneration",
            config={**T5, "num_experts": 2, "num_sparse_encoder_layers": 2},
            drop=1,
            count_field="num_layers",
            also_counts=("num_decoder_layers",),
        ),
        "sparse_step",
    ),
    (
        Family(
            name="pegasus-x-odd",
            config_class="PegasusXConfig",
            model_class="PegasusXForConditionalGeneration",
            config={**BART, "block_size": 4, "num_global_tokens": 2},
            count_field="encoder_layers",
            also_counts=("decoder_layers",),
        ),
        "stagger_local_blocks",
    ),
    (
        causal(
            "jamba-broken-period",
            "Jamba",
            {
                **BASE,
                "num_key_value_heads": 2,
                "num_experts": 2,
                "attn_layer_period": 2,
                "attn_layer_offset": 1,
                "use_mamba_kernels": False,
                "mamba_d_state": 4,
            },
        ),
        "expert_layer_period|attn_layer_period",
    ),
)
"""Families that no config.json can describe after up-scaling, and a word of the reason."""
