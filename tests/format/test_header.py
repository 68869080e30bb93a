"""One file's header, with the safetensors library as the independent judge."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from dus_cli.errors import FormatError
from dus_cli.findings import Collector
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.format.header import (
    MAX_HEADER_BYTES,
    Header,
    TensorInfo,
    frame_header,
    header_length,
    header_text,
    parse_header,
)
from tests.format.raw_files import as_library_reads, entry, framed, header

F32 = entry("F32", [2], [0, 8])
BASE = header(a=F32)


def parse(text: bytes, data_bytes: int) -> Header:
    return parse_header(text, 8 + len(text) + data_bytes, "x.safetensors")


# --- the length field --------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 2, MAX_HEADER_BYTES])
def test_a_header_of_at_most_100_million_bytes_is_read(length: int) -> None:
    assert header_length(length.to_bytes(8, "little"), 8 + length, "x") == length


@pytest.mark.parametrize(
    ("prefix", "file_size", "fact"),
    [
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), 2**40, "states a header of 100000001 bytes"),
        (b"\xff" * 8, 2**40, "states a header of 18446744073709551615 bytes"),
        ((3).to_bytes(8, "little"), 10, "states a header of 3 bytes, but the file holds 10"),
        (b"", 0, "holds 0 bytes, too few"),
        (b"\x02\0\0\0\0\0\0", 7, "holds 7 bytes, too few"),
        (b"<!DOCTYP", 5000, "states a header of"),
        (b"\x80\x02}q\x00(X\x0b", 5000, "states a header of"),
    ],
    ids=["one over", "all ones", "longer than file", "empty", "seven bytes", "HTML", "pickle"],
)
def test_an_impossible_header_length_is_refused(prefix: bytes, file_size: int, fact: str) -> None:
    with pytest.raises(FormatError, match=f"^x: {re.escape(fact)}"):
        header_length(prefix, file_size, "x")


@pytest.mark.parametrize("prefix", [b"version ", b"version"])
def test_a_git_lfs_pointer_is_called_by_its_name(prefix: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        header_length(prefix, 130, "x")
    assert caught.value.hint == "It is a Git LFS pointer, not the weights: run 'git lfs pull'."


# --- what is accepted --------------------------------------------------------------------------

ACCEPTED: Mapping[str, tuple[bytes, int]] = {
    "one tensor": (BASE, 8),
    "no tensor at all": (b"{}", 0),
    "padded with blanks": (BASE + b" " * 13, 8),
    "padded with tab, CR and LF": (BASE + b"\t\r\n", 8),
    "blanks before the brace": (b" \n" + BASE, 8),
    "data at an odd offset": (header(abc=F32), 8),
    "a scalar": (header(a=entry("I64", [], [0, 8])), 8),
    "JSON order against data order": (
        header(b=entry("U8", [3], [5, 8]), a=entry("U8", [5], [0, 5])),
        8,
    ),
    "zero-size tensors that share an offset": (
        header(z=entry("F32", [0, 7], [8, 8]), y=entry("BOOL", [0], [8, 8]), a=F32),
        8,
    ),
    "a zero-size tensor at the start": (header(z=entry("F32", [0], [0, 0]), a=F32), 8),
    "a zero-size tensor listed after the one that begins there": (
        header(a=F32, z=entry("F32", [0], [0, 0])),
        8,
    ),
    "a zero before huge dimensions": (header(z=entry("U8", [0, 2**40, 2**40], [0, 0])), 0),
    "half-byte elements that fill their bytes": (header(a=entry("F4", [2, 3], [0, 3])), 3),
    "six-bit elements that fill their bytes": (header(a=entry("F6_E2M3", [4], [0, 3])), 3),
    "metadata": (header(__metadata__={"format": "pt", "": ""}, a=F32), 8),
    "metadata null": (header(__metadata__=None, a=F32), 8),
    "an unknown field in an entry": (header(a=entry("F32", [2], [0, 8], checksum="1")), 8),
    "an empty name": (header(**{"": F32}), 8),
    "a name that climbs": (header(**{"../../etc/passwd": F32}), 8),
    "NUL, ESC and a line feed in a name": (header(**{"a\0\x1b[2J\n": F32}), 8),
    "a right-to-left override in a name": (header(**{"a\u202eb": F32}), 8),
    "a name beyond the BMP, escaped": (header(**{"\U0001f600": F32}), 8),
    "a name with a minus zero in it": (header(**{"x-0,-0": F32}), 8),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_but_legal_headers_are_read_as_the_library_reads_them(case: str) -> None:
    text, data_bytes = ACCEPTED[case]
    parsed = parse(text, data_bytes)
    expected = as_library_reads(framed(text, bytes(data_bytes)))
    assert {name: (info.dtype, info.shape) for name, info in parsed.tensors.items()} == expected
    assert parsed.data_start == 8 + len(text)


def test_tensors_come_in_the_order_of_their_data() -> None:
    parsed = parse(header(b=entry("U8", [3], [5, 8]), a=entry("U8", [5], [0, 5])), 8)
    assert list(parsed.tensors) == ["a", "b"]


@pytest.mark.parametrize(("stated", "read"), [({"format": "pt"}, {"format": "pt"}), (None, {})])
def test_metadata_is_read_and_null_is_none(stated: Any, read: dict[str, str]) -> None:
    assert parse(header(__metadata__=stated, a=F32), 8).metadata == read


@pytest.mark.parametrize("dtype", BITS_PER_ELEMENT)
def test_every_dtype_is_as_wide_as_the_library_says(dtype: str) -> None:
    size = BITS_PER_ELEMENT[dtype]
    text = header(a=entry(dtype, [8], [0, size]))
    assert parse(text, size).tensors["a"].byte_count == size
    assert as_library_reads(framed(text, bytes(size))) == {"a": (dtype, (8,))}


def test_every_dtype_of_the_library_is_known() -> None:
    with pytest.raises(safetensors.SafetensorError) as caught:
        load(framed(header(a=entry("?", [1], [0, 1])), b"\0"))
    names = set(re.findall("`([A-Z0-9_]+)`", str(caught.value)))
    if tuple(map(int, safetensors.__version__.split(".")[:2])) > (0, 8):
        pytest.skip("a newer library may have gained dtypes")
    assert names == set(BITS_PER_ELEMENT)


# --- what is refused ---------------------------------------------------------------------------

MAX_U64 = 2**64 - 1

REFUSED: Mapping[str, tuple[bytes, int, str]] = {
    "no JSON at all": (b"", 0, "does not begin with '{'"),
    "binary": (b"\x80\x02}q\0", 0, "does not begin with '{'"),
    "an array": (b"[]", 0, "does not begin with '{'"),
    "a byte order mark": (b"\xef\xbb\xbf{}", 0, "does not begin with '{'"),
    "cut off": (BASE[:-1], 8, "broken JSON at line 1"),
    "two documents": (b"{}{}", 0, "broken JSON at line 1"),
    "NUL padding": (BASE + b"\0", 8, "broken JSON at line 1"),
    "a raw line feed in a name": (b'{"a\nb":1}', 0, "broken JSON at line 1"),
    "single quotes": (b"{'a':1}", 0, "broken JSON at line 1"),
    "a leading zero": (
        b'{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}',
        1,
        "broken JSON",
    ),
    "bytes that are not UTF-8": (b'{"\xff":1}', 0, r"not UTF-8 text \(byte 2\)"),
    "an encoded surrogate": (b'{"\xed\xa0\x80":1}', 0, "not UTF-8 text"),
    "an escaped lone surrogate as name": (rb'{"\ud800":1}', 0, "half a surrogate pair"),
    "an escaped lone surrogate, upper case": (rb'{"\uDFFF":1}', 0, "half a surrogate pair"),
    "a lone surrogate in metadata": (
        rb'{"__metadata__":{"a":"\udc00"}}',
        0,
        "half a surrogate pair",
    ),
    "5,000 digits": (
        header(a=F32).replace(b"[2]", b"[" + b"9" * 5000 + b"]"),
        8,
        "a number has too many digits",
    ),
    "4,000 digits": (header(a=entry("F32", [10**4000], [0, 8])), 8, "impossible shape"),
    "nesting of 100,000": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "nested too deep"),
    "nesting of 300 in a shape": (
        b'{"a":{"dtype":"U8","shape":' + b"[" * 300 + b"]" * 300 + b',"data_offsets":[0,1]}}',
        1,
        "nested too deep",
    ),
    "NaN in a shape": (
        b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}',
        1,
        "is not JSON",
    ),
    "Infinity in a field": (header(a=entry("F32", [2], [0, 8], x=float("inf"))), 8, "is not JSON"),
    "a float too large in a field": (BASE[:-2] + b', "x": 1e999}}', 8, "not a finite number"),
    "minus zero": (
        b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}',
        0,
        "-0 is not an integer",
    ),
    "metadata twice": (
        b'{"__metadata__":{},"__metadata__":{}}',
        0,
        "'__metadata__' is there twice",
    ),
    "dtype twice": (
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
        "'dtype' is there twice",
    ),
    "metadata that is an array": (header(__metadata__=[]), 0, "__metadata__ is not an object"),
    "metadata that holds a number": (
        header(__metadata__={"a": 1}),
        0,
        "__metadata__ 'a' is not a string",
    ),
    "metadata that holds null": (header(__metadata__={"a": None}), 0, "is not a string"),
    "an entry that is null": (header(a=None), 0, "'a' is not described by an object"),
    "an entry that is a number": (header(a=7), 0, "'a' is not described by an object"),
    "no dtype": (header(a={"shape": [2], "data_offsets": [0, 8]}), 8, "'a' has no dtype"),
    "no shape": (header(a={"dtype": "F32", "data_offsets": [0, 8]}), 8, "'a' has no shape"),
    "no offsets": (header(a={"dtype": "F32", "shape": [2]}), 8, "'a' has no data_offsets"),
    "an unknown dtype": (header(a=entry("F31", [2], [0, 8])), 8, "unknown dtype 'F31'"),
    "a dtype in lower case": (header(a=entry("f32", [2], [0, 8])), 8, "unknown dtype 'f32'"),
    "a dtype that is null": (header(a=entry(None, [2], [0, 8])), 8, "unknown dtype None"),
    "a dtype that is a list": (header(a=entry(["F32"], [2], [0, 8])), 8, "unknown dtype"),
    "a shape that is null": (header(a=entry("F32", None, [0, 8])), 8, "impossible shape None"),
    "a shape that is a number": (header(a=entry("F32", 2, [0, 8])), 8, "impossible shape 2"),
    "true as a dimension": (header(a=entry("U8", [True], [0, 1])), 1, "impossible shape .True."),
    "a float as a dimension": (header(a=entry("F32", [2.0], [0, 8])), 8, "impossible shape"),
    "text as a dimension": (header(a=entry("F32", ["2"], [0, 8])), 8, "impossible shape"),
    "negative dimensions whose product is right": (
        header(a=entry("F32", [-1, -2], [0, 8])),
        8,
        "impossible shape",
    ),
    "a dimension over 64 bits": (header(a=entry("U8", [2**64], [0, 0])), 0, "impossible shape"),
    "dimensions whose product wraps to 0": (
        header(a=entry("F32", [2**32, 2**32], [0, 0])),
        0,
        "does not fill its bytes",
    ),
    "a zero behind a product over 64 bits": (
        header(a=entry("U8", [2**40, 2**40, 0], [0, 0])),
        0,
        "does not fill its bytes",
    ),
    "a bit count over 64 bits": (
        header(a=entry("F64", [2**60], [0, 2**63])),
        8,
        "does not fill its bytes",
    ),
    "three offsets": (header(a=entry("F32", [2], [0, 4, 8])), 8, "impossible data_offsets"),
    "one offset": (header(a=entry("F32", [2], [0])), 8, "impossible data_offsets"),
    "offsets that are null": (header(a=entry("F32", [2], None)), 8, "impossible data_offsets"),
    "offsets that are floats": (header(a=entry("F32", [2], [0.0, 8.0])), 8, "impossible data_of"),
    "offsets that are booleans": (
        header(a=entry("U8", [1], [False, True])),
        1,
        "impossible data_of",
    ),
    "a negative offset": (header(a=entry("U8", [1], [-1, 0])), 0, "impossible data_offsets"),
    "an offset over 64 bits": (header(a=entry("U8", [0], [2**64, 2**64])), 0, "impossible data_of"),
    "offsets the wrong way round": (header(a=entry("U8", [8], [8, 0])), 8, "does not fill"),
    "more bytes than elements": (header(a=entry("F32", [2], [0, 16])), 16, "does not fill"),
    "fewer bytes than elements": (header(a=entry("F32", [3], [0, 8])), 8, "does not fill"),
    "half a byte at the end": (header(a=entry("F4", [3], [0, 2])), 2, "does not fill"),
    "a hole at the start": (header(a=entry("U8", [1], [1, 2])), 2, "'a' begins .* leaves a hole"),
    "a hole between": (
        header(a=entry("U8", [1], [0, 1]), b=entry("U8", [1], [2, 3])),
        3,
        "'b' begins at byte 2 of the data, where 1 is due: it leaves a hole",
    ),
    "an overlap": (
        header(a=entry("U8", [2], [0, 2]), b=entry("U8", [2], [1, 3])),
        3,
        "'b' begins at byte 1 of the data, where 2 is due: it overlaps the tensor before it",
    ),
    "two tensors on the same bytes": (
        header(a=entry("U8", [2], [0, 2]), b=entry("U8", [2], [0, 2])),
        2,
        "overlaps the tensor before it",
    ),
    "a zero-size tensor past the end": (
        header(a=F32, z=entry("U8", [0], [9, 9])),
        8,
        "leaves a hole",
    ),
    "a zero-size tensor inside another": (
        header(a=F32, z=entry("U8", [0], [4, 4])),
        8,
        "overlaps the tensor before it",
    ),
    "data cut short": (BASE, 7, "its tensors take 8 bytes, but 7 follow the header"),
    "no data": (BASE, 0, "its tensors take 8 bytes, but 0 follow the header"),
    "bytes after the data": (BASE, 9, "its tensors take 8 bytes, but 9 follow the header"),
    "data without tensors": (b"{}", 1, "its tensors take 0 bytes, but 1 follow the header"),
}

# Where parsers differ on what such a header means, or the README forbids what the library takes.
STRICTER: Mapping[str, tuple[bytes, int, str]] = {
    "a tensor twice": (b'{"a":%b,"a":%b}' % ((json.dumps(F32).encode(),) * 2), 8, "there twice"),
    "a tensor twice, once behind an escape": (
        rb'{"a":%b,"\u0061":%b}' % ((json.dumps(F32).encode(),) * 2),
        8,
        "'a' is there twice",
    ),
    "a metadata key twice": (b'{"__metadata__":{"a":"b","a":"b"}}', 0, "'a' is there twice"),
    "an unknown field twice": (BASE[:-2] + b',"x":1,"x":1}}', 8, "'x' is there twice"),
    "an entry as an array": (
        header(a=["F32", [2], [0, 8]]),
        8,
        "'a' is not described by an object",
    ),
    "a dtype as an object": (header(a=entry({"F32": None}, [2], [0, 8])), 8, "unknown dtype"),
    "nesting of 110 in an unknown field": (
        BASE[:-2] + b',"x":' + b"[" * 110 + b"]" * 110 + b"}}",
        8,
        "nested too deep",
    ),
}

# The library's JSON parser turns such a number into a float, and overflows; nobody reads it here.
LAXER: Mapping[str, tuple[bytes, int]] = {
    "an integer over 10^308 in an unknown field": (
        BASE[:-2] + b',"x":' + b"9" * 400 + b"}}",
        8,
    ),
}


@pytest.mark.parametrize("case", [*REFUSED, *STRICTER])
def test_illegal_and_ambiguous_headers_are_refused_with_the_fact(case: str) -> None:
    text, data_bytes, fact = {**REFUSED, **STRICTER}[case]
    with pytest.raises(FormatError, match=fact) as caught:
        parse(text, data_bytes)
    assert caught.value.message.startswith("x.safetensors: ")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("case", REFUSED)
def test_the_library_refuses_these_headers_as_well(case: str) -> None:
    text, data_bytes, _ = REFUSED[case]
    assert as_library_reads(framed(text, bytes(data_bytes))) is None


@pytest.mark.parametrize("case", STRICTER)
def test_the_library_is_known_to_be_laxer_here(case: str) -> None:
    text, data_bytes, _ = STRICTER[case]
    assert as_library_reads(framed(text, bytes(data_bytes))) is not None


@pytest.mark.parametrize("case", LAXER)
def test_the_library_is_known_to_be_stricter_here(case: str) -> None:
    text, data_bytes = LAXER[case]
    assert as_library_reads(framed(text, bytes(data_bytes))) is None
    assert parse(text, data_bytes)


@pytest.mark.parametrize(
    "text",
    [
        header(**{"n" * 10**6: None}),
        header(__metadata__={"n" * 10**6: 1}),
        header(a=entry("D" * 10**6, [1], [0, 1])),
        header(a=entry({"D" * 10**6: 1}, [1], [0, 1])),
        header(a=entry("U8", ["n" * 10**6], [0, 1])),
        header(**{"n" * 10**6: entry("U8", [1], [1, 2])}),
        header(**{"n" * 10**6: entry("U8", [3], [0, 1])}),
        b'{"%b":1,"%b":1}' % (b"n" * 10**6, b"n" * 10**6),
    ],
    ids=["entry", "metadata", "dtype", "dtype object", "shape", "hole", "bytes", "twice"],
)
def test_a_message_stays_short_however_long_the_names(text: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse(text, 1)
    assert len(caught.value.message) < 400


# --- properties --------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
NUMPY_DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u8", "?"])


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(NAMES, st.tuples(NUMPY_DTYPES, SHAPES), max_size=6),
    st.dictionaries(NAMES, NAMES, max_size=2),
)
def test_whatever_the_library_saves_is_read_name_for_name_and_byte_for_byte(
    described: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]
) -> None:
    arrays = {
        name: np.full(shape, number + 1, dtype=dtype)
        for number, (name, (dtype, shape)) in enumerate(described.items())
    }
    # safetensors 0.8.0 writes broken JSON for no tensors with metadata that is empty, not None.
    file = save(arrays, metadata or None)
    length = header_length(file[:8], len(file), "x")
    parsed = parse_header(file[8 : 8 + length], len(file), "x")
    assert parsed.tensors.keys() == arrays.keys()
    assert parsed.metadata == metadata
    for name, info in parsed.tensors.items():
        assert info.shape == arrays[name].shape
        assert info.element_count == arrays[name].size
        data = file[parsed.data_start + info.begin : parsed.data_start + info.end]
        assert data == arrays[name].tobytes()
    library = as_library_reads(file)
    assert library == {name: (info.dtype, info.shape) for name, info in parsed.tensors.items()}


@st.composite
def tensor_tables(draw: st.DrawFn) -> list[tuple[str, TensorInfo]]:
    """Tensors side by side, of any dtype, each filling whole bytes."""
    placed = []
    position = 0
    for name in draw(st.lists(NAMES, unique=True, max_size=6)):
        dtype = draw(st.sampled_from(sorted(BITS_PER_ELEMENT)))
        shape = draw(SHAPES)
        bits = int(np.prod(shape, dtype=np.int64)) * BITS_PER_ELEMENT[dtype]
        if bits % 8:
            shape, bits = (*shape, 4), bits * 4
        end = position + bits // 8
        placed.append((name, TensorInfo(dtype=dtype, shape=shape, begin=position, end=end)))
        position = end
    return placed


@settings(deadline=None, max_examples=100)
@given(
    tensor_tables(),
    st.dictionaries(NAMES, NAMES, max_size=2),
    st.integers(0, 4095),
    st.sampled_from([1, 8, 512, 4096]),
)
def test_whatever_header_is_written_the_library_opens_and_it_reads_back_the_same(
    placed: list[tuple[str, TensorInfo]], metadata: dict[str, str], start: int, modulus: int
) -> None:
    head = frame_header(header_text(placed, metadata), data_start=start, modulus=modulus)
    data = bytes(placed[-1][1].end if placed else 0)
    assert len(head) % modulus == start % modulus
    assert as_library_reads(head + data) == {
        name: (info.dtype, info.shape) for name, info in placed
    }
    length = header_length(head[:8], len(head) + len(data), "x")
    parsed = parse_header(head[8:], len(head) + len(data), "x")
    assert length == len(head) - 8
    assert parsed.tensors == dict(placed)
    assert parsed.metadata == {"format": "pt", **metadata}


def test_a_written_header_is_the_same_bytes_every_time() -> None:
    info = TensorInfo(dtype="BF16", shape=(2, 3), begin=0, end=12)
    assert (
        header_text([("é", info)], {"a": "b"})
        == (
            '{"__metadata__":{"format":"pt","a":"b"},'
            '"é":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'
        ).encode()
    )


SOUND = (
    header(
        __metadata__={"format": "pt"},
        a=entry("F32", [2, 3], [0, 24]),
        b=entry("BF16", [4], [24, 32]),
        z=entry("U8", [0], [32, 32]),
    ).replace(b" ", b""),
    b'{"w":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}   ',
    header(**{"n-0": entry("U8", [1], [0, 1]), "m": entry("I64", [1], [1, 9], note=["x", 1.5])}),
)
DATA_BYTES = (32, 3, 9)

TOKENS = st.sampled_from(
    [
        *(bytes([sign]) for sign in b'019-.[]{},:" \t\n\0\\\xff'),
        *(b"-0", b"e9", b"e999", b"1.5", b"9" * 4301, b"18446744073709551616"),
        *(b"\\u0061", b"\\ud800", b"\\ud83d\\ude00", b"\xc3\xa9", b"\xef\xbb\xbf"),
        *(b"true", b"null", b"NaN", b"-Infinity", b"F64", b"U8", b"a", b"b"),
    ]
)


@st.composite
def damaged_headers(draw: st.DrawFn) -> tuple[bytes, int]:
    """A sound header with a few pieces cut out, overwritten or put in, and bytes of data."""
    which = draw(st.integers(0, len(SOUND) - 1))
    text = SOUND[which]
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20])))
        text = text[:begin] + draw(TOKENS | st.just(b"")) + text[end:]
    return text, max(0, DATA_BYTES[which] + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 8])))


SIZES = st.integers(0, 33) | st.sampled_from([-1, 2**31, 2**61, 2**63, 2**64, 10**30])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | SIZES | st.floats() | st.sampled_from(["", "F32", "U8", "F4"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "F4", "BOOL"]) | VALUES,
        "shape": st.lists(SIZES, max_size=3) | VALUES,
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2) | VALUES,
    },
    optional={"more": VALUES},
)


@st.composite
def invented_headers(draw: st.DrawFn) -> tuple[bytes, int]:
    """Headers of the right form whose sizes, offsets and types rarely fit together."""
    entries = draw(st.dictionaries(NAMES, ENTRIES | VALUES, max_size=3))
    if draw(st.booleans()):
        entries["__metadata__"] = draw(VALUES)
    return json.dumps(entries).encode(), draw(st.integers(0, 40))


@settings(deadline=None, max_examples=700)
@given(damaged_headers() | invented_headers())
def test_what_the_library_refuses_is_refused_and_what_is_read_is_read_alike(
    case: tuple[bytes, int],
) -> None:
    text, data_bytes = case
    library = as_library_reads(framed(text, bytes(data_bytes)))
    try:
        parsed = parse(text, data_bytes)
    except FormatError as error:
        assert len(error.message) < 400
    else:
        assert {name: (info.dtype, info.shape) for name, info in parsed.tensors.items()} == library


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40))
def test_any_first_bytes_are_a_length_or_a_format_error(file: bytes) -> None:
    try:
        length = header_length(file[:8], len(file), "x")
        parse_header(file[8 : 8 + length], len(file), "x")
    except FormatError:
        pass
    else:
        assert as_library_reads(file) is not None


def test_a_tensor_inside_another_is_one_fault() -> None:
    entries = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, begin, end in (("a", 0, 100), ("b", 20, 30), ("c", 100, 120))
    }
    raw = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    collector = Collector()
    header = parse_header(raw, 8 + len(raw) + 120, "x", collector)
    assert [finding.code for finding in collector.findings] == ["data-overlap"]
    assert list(header.tensors) == ["a", "b", "c"]
