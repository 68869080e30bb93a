"""The shard index."""

import json
from typing import Any

import pytest

from dus_cli.errors import FormatError
from dus_cli.format.index import ShardIndex, parse_index, serialize_index

SHARD = "model-00001-of-00002.safetensors"


def parse(value: Any) -> ShardIndex:
    return parse_index(json.dumps(value).encode(), "i.json")


@pytest.mark.parametrize(
    ("value", "metadata"),
    [
        ({"metadata": {"total_size": 8}, "weight_map": {"a": SHARD}}, {"total_size": 8}),
        ({"weight_map": {"a": SHARD}}, {}),
        ({"metadata": None, "weight_map": {"a": SHARD}}, {}),
        ({"metadata": {"total_size": "8"}, "weight_map": {"a": SHARD}}, {"total_size": "8"}),
        ({"weight_map": {"a": SHARD}, "more": [1]}, {}),
    ],
)
def test_metadata_is_kept_and_may_be_absent(value: Any, metadata: Any) -> None:
    index = parse(value)
    assert index.weight_map == {"a": SHARD}
    assert index.metadata == metadata


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../a.safetensors",
        "sub/a.safetensors",
        "a\\b",
        "C:\\a",
        "a.safetensors\0.txt",
        "a.safetensors/",
        "//a",
    ],
)
def test_a_shard_is_a_plain_file_name(name: str) -> None:
    with pytest.raises(FormatError, match=r"tensor 't' is said to lie in .* not a file name"):
        parse({"weight_map": {"t": name}})


@pytest.mark.parametrize(
    "name", ["a.safetensors", "..a.safetensors", "a b", "é", "a\n", "\x1b[2J", "~", "$HOME", "-rf"]
)
def test_odd_names_are_still_file_names(name: str) -> None:
    assert parse({"weight_map": {"t": name}}).weight_map == {"t": name}


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": None}, "has no weight_map"),
        ({"weight_map": []}, "has no weight_map"),
        ({"weight_map": SHARD}, "has no weight_map"),
        ({"weight_map": {"t": None}}, "the shard of tensor 't' is not a file name"),
        ({"weight_map": {"t": [SHARD]}}, "the shard of tensor 't' is not a file name"),
        ({"weight_map": {"t": {SHARD: 1}}}, "the shard of tensor 't' is not a file name"),
        ({"weight_map": {"t": 1}}, "the shard of tensor 't' is not a file name"),
        ({"weight_map": {"t": SHARD}, "metadata": []}, "metadata is not an object"),
        ({"weight_map": {"t": SHARD}, "metadata": "x"}, "metadata is not an object"),
        ([], "holds a list, not a JSON object"),
    ],
)
def test_another_form_is_refused_with_the_fact(value: Any, fact: str) -> None:
    with pytest.raises(FormatError, match=f"^i.json: {fact}"):
        parse(value)


@pytest.mark.parametrize(
    ("raw", "fact"),
    [
        (b'{"weight_map":{"a":"x","a":"y"}}', "the key 'a' is there twice"),
        (b'{"weight_map":{"a":"x","\\u0061":"x"}}', "the key 'a' is there twice"),
        (b'{"weight_map":{},"weight_map":{}}', "the key 'weight_map' is there twice"),
        (b'{"metadata":{"total_size":NaN},"weight_map":{}}', "NaN is not JSON"),
        (b'{"weight_map":{"a":"\\ud800"}}', "a string holds half a surrogate pair"),
        (
            b'{"metadata":{"x":' + b"9" * 5000 + b'},"weight_map":{}}',
            "a number has too many digits",
        ),
        (b'{"metadata":' + b"[" * 99_999 + b"]" * 99_999 + b"}", "nested too deeply"),
        (b"<html>", "broken JSON"),
    ],
)
def test_ambiguous_json_is_refused(raw: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=f"^i.json: {fact}"):
        parse_index(raw, "i.json")


def test_a_message_stays_short_however_long_the_names() -> None:
    for value in ({"n" * 10**6: 1}, {"n" * 10**6: "/" + "s" * 10**6}):
        with pytest.raises(FormatError) as caught:
            parse({"weight_map": value})
        assert len(caught.value.message) < 400


def test_an_index_is_written_as_transformers_writes_it() -> None:
    index = ShardIndex(weight_map={"b": SHARD, "a": SHARD}, metadata={"total_size": 8})
    written = serialize_index(index)
    assert written.decode() == (
        '{\n  "metadata": {\n    "total_size": 8\n  },\n  "weight_map": {\n'
        f'    "b": "{SHARD}",\n    "a": "{SHARD}"\n  }}\n}}\n'
    )
    assert parse_index(written, "i.json") == index
