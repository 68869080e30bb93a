"""What a name on the command line can mean, without asking anybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dus_cli.errors import RequestError
from dus_cli.sources.names import SHORT_NAMES, HubName, is_id, nearest_names, parse_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MISTRAL = "mistralai/Mistral-7B-v0.1"


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [
        ("org/name", "org/name", None),
        ("org/name/", "org/name", None),
        ("org/name@v1", "org/name", "v1"),
        (f"org/name@{COMMIT}", "org/name", COMMIT),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
        ("org/name@a@b", "org/name", "a@b"),
        ("org/name@", "org/name", None),
        ("hf://org/name", "org/name", None),
        ("hf://org/name@v1", "org/name", "v1"),
        ("hf://gpt2", "openai-community/gpt2", None),
        ("hf://some-old-model", "some-old-model", None),
        ("O.r-g_1/n.a-m_e", "O.r-g_1/n.a-m_e", None),
        ("mistral-7b", MISTRAL, None),
        ("Mistral-7B", MISTRAL, None),
        ("MISTRAL-7B@v1", MISTRAL, "v1"),
        ("hf://mistral-7b", MISTRAL, None),
    ],
)
def test_a_name_is_an_id_or_a_short_name_and_maybe_a_revision(
    name: str, repository: str, revision: str | None
) -> None:
    assert parse_name(name) == HubName(repository=repository, revision=revision)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@v1",
        "some-old-model",
        "a/b/c",
        "/a/b",
        "./a",
        "../a",
        "~/a",
        "a//b",
        "a b/c",
        "a/b c",
        "org/name\n",
        "org/na\u0000me",
        "örg/name",
        "-org/name",
        "org/name-",
        "org/na..me",
        "org/na--me",
        "org/name.git",
        "https://example.org/org/name",
        f"org/{'n' * 93}",
    ],
)
def test_what_the_hub_cannot_have_is_no_name(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize("rest", ["", "@v1", "a/b/c", "a b", "/a", "../a", "org/name.git"])
def test_after_the_scheme_comes_an_id_or_it_is_an_error(rest: str) -> None:
    with pytest.raises(RequestError, match="no name of a model on the Hub"):
        parse_name(f"hf://{rest}")


@given(st.text(max_size=40), st.sampled_from(["", "hf://"]))
def test_whatever_is_written_a_name_leads_to_an_id_and_back(text: str, scheme: str) -> None:
    try:
        parsed = parse_name(scheme + text)
    except RequestError:
        assert scheme or text.startswith("hf://")
        return
    if parsed is not None:
        assert is_id(parsed.repository)
        assert parse_name(str(parsed)) == parsed


def test_the_table_has_ids_below_names_in_lower_case() -> None:
    assert len(SHORT_NAMES) >= 40
    for short, full in SHORT_NAMES.items():
        assert short == short.lower()
        assert "/" not in short
        assert is_id(full)
        assert "/" in full
        assert parse_name(short) == HubName(repository=full)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mistral7b", "mistral-7b"),
        ("mistral-7B-v0.2", "mistral-7b-v0.3"),
        ("lama-3-8b", "llama-3-8b"),
        ("Qwen/Qwen3-8B-Bas", "Qwen/Qwen3-8B-Base"),
        ("mistralai/Mistral-7B-v01", "mistralai/Mistral-7B-v0.1"),
        ("TinyLlama_v1.2", "TinyLlama/TinyLlama_v1.1"),
        ("my-modle", "my-model"),
    ],
)
def test_the_nearest_name_comes_first(name: str, nearest: str) -> None:
    assert nearest_names(name, ["my-model", "README.md"])[0] == nearest


@pytest.mark.parametrize("name", ["", "qqqqqqqqqq", "/", "\u0000"])
def test_nothing_is_near_to_what_is_like_nothing(name: str) -> None:
    assert nearest_names(name, ["my-model"]) == []
