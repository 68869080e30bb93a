"""JSON from files that nobody vouches for."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dus_cli.errors import FormatError
from dus_cli.format.strict_json import (
    MAX_DEPTH,
    dump_compact,
    dump_pretty,
    parse_object,
    same_json,
)


def nested(depth: int) -> bytes:
    """An object with lists in it, `depth` levels in all."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def nested_objects(depth: int) -> bytes:
    """Objects inside each other."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@pytest.mark.parametrize(
    ("raw", "fact"),
    [
        (b"", "broken JSON at line 1, column 1"),
        (b"\n{,}", "broken JSON at line 2, column 2"),
        (b'{"a":1', "broken JSON"),
        (b'{"a":1}x', "broken JSON"),
        (b"\xef\xbb\xbf{}", "broken JSON"),
        (b'{"a":"\x01"}', "broken JSON"),
        (b'{"\xc0\xaf":1}', r"not UTF-8 text \(byte 2\)"),
        (b"{\0}\0", "broken JSON"),
        ("{}".encode("utf-16"), "not UTF-8 text"),
        (b"null", "holds a NoneType, not a JSON object"),
        (b"[{}]", "holds a list, not a JSON object"),
        (b'"{}"', "holds a str, not a JSON object"),
        (b'{"a":1,"a":1}', "the key 'a' is there twice"),
        (rb'{"a":1,"\u0061":1}', "the key 'a' is there twice"),
        (b'{"x":[{"b":{"a":1,"c":2,"a":3}}]}', "the key 'a' is there twice"),
        (rb'{"a":"\ud83d"}', "a string holds half a surrogate pair"),
        (rb'{"a":["\uDE00\uD83D"]}', "a string holds half a surrogate pair"),
        (rb'{"\udcff":1}', "a string holds half a surrogate pair"),
        (b'{"a":' + b"1" * 4301 + b"}", "a number has too many digits"),
        (b'{"a":-' + b"1" * 10**5 + b"}", "a number has too many digits"),
        (nested(MAX_DEPTH + 1), "nested too deeply"),
        (nested_objects(MAX_DEPTH + 1), "nested too deeply"),
        (nested(900), "nested too deeply"),
        (nested(100_000), "nested too deeply"),
        (b"[" * 1_000_000, "nested too deeply"),
        (nested_objects(100_000), "nested too deeply"),
    ],
)
@pytest.mark.parametrize("non_finite", [False, True])
def test_broken_or_ambiguous_json_is_refused_with_the_fact(
    raw: bytes, fact: str, non_finite: bool
) -> None:
    with pytest.raises(FormatError, match=f"^a.json: {fact}"):
        parse_object(raw, "a.json", non_finite=non_finite)


@pytest.mark.parametrize(
    ("number", "fact", "value"),
    [
        (b"NaN", "NaN is not JSON", math.nan),
        (b"Infinity", "Infinity is not JSON", math.inf),
        (b"-Infinity", "-Infinity is not JSON", -math.inf),
        (b"1e999", "'1e999' is not a finite number", math.inf),
        (b"-0", "-0 is not an integer", 0),
    ],
)
def test_numbers_that_only_python_takes_are_read_where_they_are_asked_for(
    number: bytes, fact: str, value: float
) -> None:
    raw = b'{"a":[' + number + b"]}"
    with pytest.raises(FormatError, match=fact):
        parse_object(raw, "a.json")
    (read,) = parse_object(raw, "config.json", non_finite=True)["a"]
    assert read == value or (math.isnan(read) and math.isnan(value))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' \t\r\n{"a" : 1 } \n', {"a": 1}),
        (rb'{"a":"\ud83d\ude00"}', {"a": "\U0001f600"}),
        (rb'{"a":"\\ud800"}', {"a": r"\ud800"}),
        (b'{"a-0":"x,-0","b":-1,"c":-0.0,"d":10}', {"a-0": "x,-0", "b": -1, "c": 0.0, "d": 10}),
        (b'{"a":{"b":1},"b":{"b":1}}', {"a": {"b": 1}, "b": {"b": 1}}),
        (b'{"a":' + b"1" * 4300 + b"}", {"a": int("1" * 4300)}),
        (b'{"a":1e308}', {"a": 1e308}),
    ],
)
@pytest.mark.parametrize("non_finite", [False, True])
def test_sound_json_is_read(raw: bytes, value: Any, non_finite: bool) -> None:
    assert parse_object(raw, "a.json", non_finite=non_finite) == value


@pytest.mark.parametrize("raw", [nested(MAX_DEPTH), nested_objects(MAX_DEPTH)])
def test_the_deepest_nesting_allowed_is_read(raw: bytes) -> None:
    assert parse_object(raw, "a.json")


def test_a_message_stays_short_however_long_the_key() -> None:
    key = b'"' + b"k" * 10**6 + b'":1'
    with pytest.raises(FormatError) as caught:
        parse_object(b"{" + key + b"," + key + b"}", "a.json")
    assert len(caught.value.message) < 200


JSON_OBJECTS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
)


@settings(deadline=None, max_examples=50)
@given(JSON_OBJECTS)
def test_what_is_dumped_is_read_back_with_its_order(value: dict[str, Any]) -> None:
    for raw in (dump_pretty(value), dump_compact(value)):
        read = parse_object(raw, "a.json", non_finite=True)
        assert read == value
        assert json.dumps(read) == json.dumps(value)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]",:\\ud8-0.e9aNtnul ', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_a_format_error(raw: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(parse_object(raw, "a.json"), dict)


def test_pretty_json_is_ascii_with_a_final_newline() -> None:
    assert dump_pretty({"é": [1]}) == b'{\n  "\\u00e9": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [None]}, {"b": [None], "a": 1}, True),
        (float("nan"), float("nan"), True),
        ([float("inf")], [float("-inf")], False),
        (1, 1.0, False),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        ([1, 2], [2, 1], False),
    ],
)
def test_values_are_the_same_when_their_json_is(one: object, other: object, same: bool) -> None:
    assert same_json(one, other) is same


def test_half_a_surrogate_pair_is_taken_where_file_names_may_hold_one() -> None:
    raw = dump_pretty({"a": "\udcff"})
    with pytest.raises(FormatError, match="half a surrogate pair"):
        parse_object(raw, "x")
    assert parse_object(raw, "x", surrogates=True) == {"a": "\udcff"}
