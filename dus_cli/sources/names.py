"""How models on the Hub are called: ids with a revision, and short names of well-known bases."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from dus_cli.errors import RequestError
from dus_cli.printable import quoted

SCHEME: Final = "hf://"

_ID: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?/)?[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII
)
_MAX_ID: Final = 96
"""The longest name that the Hub takes."""

_BASES: Final = """
    mistral-7b       mistralai/Mistral-7B-v0.1
    mistral-7b-v0.3  mistralai/Mistral-7B-v0.3
    mistral-nemo     mistralai/Mistral-Nemo-Base-2407
    mixtral-8x7b     mistralai/Mixtral-8x7B-v0.1
    llama-2-7b       meta-llama/Llama-2-7b-hf
    llama-2-13b      meta-llama/Llama-2-13b-hf
    llama-3-8b       meta-llama/Meta-Llama-3-8B
    llama-3.1-8b     meta-llama/Llama-3.1-8B
    llama-3.1-70b    meta-llama/Llama-3.1-70B
    llama-3.2-1b     meta-llama/Llama-3.2-1B
    llama-3.2-3b     meta-llama/Llama-3.2-3B
    qwen2.5-0.5b     Qwen/Qwen2.5-0.5B
    qwen2.5-1.5b     Qwen/Qwen2.5-1.5B
    qwen2.5-7b       Qwen/Qwen2.5-7B
    qwen2.5-14b      Qwen/Qwen2.5-14B
    qwen3-0.6b       Qwen/Qwen3-0.6B-Base
    qwen3-1.7b       Qwen/Qwen3-1.7B-Base
    qwen3-4b         Qwen/Qwen3-4B-Base
    qwen3-8b         Qwen/Qwen3-8B-Base
    gemma-2-2b       google/gemma-2-2b
    gemma-2-9b       google/gemma-2-9b
    gemma-3-1b       google/gemma-3-1b-pt
    gemma-3-4b       google/gemma-3-4b-pt
    phi-2            microsoft/phi-2
    phi-4            microsoft/phi-4
    olmo-2-7b        allenai/OLMo-2-1124-7B
    tinyllama-1.1b   TinyLlama/TinyLlama_v1.1
    smollm2-135m     HuggingFaceTB/SmolLM2-135M
    smollm2-360m     HuggingFaceTB/SmolLM2-360M
    smollm2-1.7b     HuggingFaceTB/SmolLM2-1.7B
    smollm3-3b       HuggingFaceTB/SmolLM3-3B-Base
    yi-6b            01-ai/Yi-6B
    yi-9b            01-ai/Yi-9B
    falcon-7b        tiiuae/falcon-7b
    gpt2             openai-community/gpt2
    gpt2-xl          openai-community/gpt2-xl
    pythia-1b        EleutherAI/pythia-1b
    pythia-6.9b      EleutherAI/pythia-6.9b
    bert-base        google-bert/bert-base-uncased
    minilm-l6        sentence-transformers/all-MiniLM-L6-v2
"""

SHORT_NAMES: Final = MappingProxyType(
    dict(line.split() for line in _BASES.strip().splitlines()),
)
"""Short name -> Hub id of the pretrained base (never the chat model) that it stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """A repository on the Hub and a branch, tag or commit of it; None is the main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{at}"


def parse_name(name: str) -> HubName | None:
    """The repository that `name` means: `org/name`, `org/name@revision`, `hf://…`, or one of
    SHORT_NAMES. None where it looks like none of these.

    Raises RequestError where it says `hf://` and then something that cannot be an id.
    """
    explicit = name.startswith(SCHEME)
    identifier, _, revision = name.removeprefix(SCHEME).partition("@")
    identifier = identifier.removesuffix("/")  # as shells complete it
    identifier = SHORT_NAMES.get(identifier.lower(), identifier)
    if explicit and not is_id(identifier):
        raise RequestError(
            f"{quoted(name)} is no name of a model on the Hub",
            hint="Write hf://ORG/NAME or hf://ORG/NAME@REVISION.",
        )
    if not is_id(identifier) or ("/" not in identifier and not explicit):
        return None
    return HubName(repository=identifier, revision=revision or None)


def is_id(text: str) -> bool:
    """Whether the Hub could have a repository of this name."""
    return (
        len(text) <= _MAX_ID
        and _ID.fullmatch(text) is not None
        and ".." not in text
        and "--" not in text
        and not text.endswith(".git")
    )


def nearest_names(name: str, others: Iterable[str] = ()) -> list[str]:
    """Names of the table and `others` that are written like `name`, nearest first."""
    known: dict[str, str] = {}
    for candidate in (*others, *SHORT_NAMES, *SHORT_NAMES.values()):
        known.setdefault(candidate.lower(), candidate)
        known.setdefault(candidate.rpartition("/")[2].lower(), candidate)
    found = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
    return list(dict.fromkeys(known[match] for match in found))[:3]
