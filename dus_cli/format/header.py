"""One safetensors file's header: bytes <-> `Header`, with the rules of the format checked.

The format: 8 bytes of little-endian header length N, N bytes of JSON, then the tensors' data.
https://github.com/huggingface/safetensors#format
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dus_cli.errors import FormatError
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.format.strict_json import Json, dump_compact, parse_object
from dus_cli.printable import quoted

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000
"""The reader's limit on N; 100,000,001 is refused by the safetensors library."""

_MAX_USIZE: Final = 2**64 - 1
_METADATA_KEY: Final = "__metadata__"
_DOWNLOAD_AGAIN: Final = "The file is damaged or cut short; download it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """What a header says of one tensor.

    `shape` counts elements. `begin` and `end` are bytes from the start of the data section,
    half-open (`data_offsets` in the format).
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def byte_count(self) -> int:
        """Bytes that the tensor takes in the data section."""
        return self.end - self.begin

    @property
    def element_count(self) -> int:
        """Elements as stored; 1 for a scalar."""
        return _product(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One file's tensors in the order of their data, its metadata, and where its data begins.

    `data_start` is in bytes from the start of the file.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int


def header_length(prefix: bytes, file_size: int, subject: str) -> int:
    """N, the length of the JSON in bytes, from a file's first 8 bytes.

    Raises FormatError for a file that is too short for its header, or a header over the limit.
    """
    if len(prefix) < LENGTH_BYTES:
        raise FormatError(
            f"{subject}: holds {file_size} bytes, too few for a safetensors header",
            hint=_pointer_hint(prefix) or _DOWNLOAD_AGAIN,
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise FormatError(
            f"{subject}: states a header of {length} bytes; the format allows {MAX_HEADER_BYTES}",
            hint=_pointer_hint(prefix) or "It is not a safetensors file, or it is damaged.",
        )
    if LENGTH_BYTES + length > file_size:
        raise FormatError(
            f"{subject}: states a header of {length} bytes, but the file holds {file_size}",
            hint=_DOWNLOAD_AGAIN,
        )
    return length


def parse_header(raw: bytes, file_size: int, subject: str) -> Header:
    """The header whose JSON is `raw`, of a file of `file_size` bytes, checked in full.

    Raises FormatError when the JSON is broken or ambiguous, an entry is not
    `{dtype, shape, data_offsets}`, a dtype is unknown, sizes and offsets disagree, or the tensors
    do not tile the data section exactly (a hole, an overlap, bytes missing or left over).
    """
    # The format wants the brace first; the library takes blanks before it as well.
    if not raw.lstrip().startswith(b"{"):
        raise FormatError(f"{subject}: the header does not begin with '{{'", hint=_DOWNLOAD_AGAIN)
    entries = parse_object(raw, f"{subject}: header")
    metadata = _parse_metadata(entries.pop(_METADATA_KEY, None), subject)
    tensors = {name: _parse_entry(name, entry, subject) for name, entry in entries.items()}
    in_data_order = sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end))
    data_start = LENGTH_BYTES + len(raw)
    _check_tiling(in_data_order, file_size - data_start, subject)
    return Header(tensors=dict(in_data_order), metadata=metadata, data_start=data_start)


def header_text(tensors: Iterable[tuple[str, TensorInfo]], metadata: Mapping[str, str]) -> bytes:
    """The JSON of a header that describes `tensors`, not yet framed.

    A `format` is always among the metadata: some versions of transformers crash without it.
    """
    entries: dict[str, Json] = {_METADATA_KEY: {"format": "pt", **metadata}}
    for name, info in tensors:
        entries[name] = {
            "dtype": info.dtype,
            "shape": info.shape,
            "data_offsets": (info.begin, info.end),
        }
    return dump_compact(entries)


def frame_header(text: bytes, *, data_start: int, modulus: int) -> bytes:
    """The first bytes of a file: length field, `text`, and blanks.

    There are as many blanks as make the data begin at `data_start` modulo `modulus` (bytes).
    """
    blanks = (data_start - LENGTH_BYTES - len(text)) % modulus
    return (len(text) + blanks).to_bytes(LENGTH_BYTES, "little") + text + b" " * blanks


def _parse_metadata(value: Json, subject: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: __metadata__ is not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise FormatError(f"{subject}: __metadata__ {quoted(key)} is not a string")
    return value


def _parse_entry(name: str, entry: Json, subject: str) -> TensorInfo:
    if not isinstance(entry, dict):
        raise FormatError(f"{subject}: tensor {quoted(name)} is not described by an object")
    try:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    except KeyError as error:
        raise FormatError(f"{subject}: tensor {quoted(name)} has no {error.args[0]}") from None
    bits = BITS_PER_ELEMENT.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise FormatError(
            f"{subject}: tensor {quoted(name)} has the unknown dtype {quoted(dtype)}",
            hint="If the format has gained it since, a newer dus knows it.",
        )
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
        raise FormatError(
            f"{subject}: tensor {quoted(name)} has the impossible shape {quoted(shape)}"
        )
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(_is_size(offset) for offset in offsets)
    ):
        raise FormatError(
            f"{subject}: tensor {quoted(name)} has the impossible data_offsets {quoted(offsets)}"
        )
    begin, end = offsets
    bit_count = _product(shape) * bits
    if bit_count > _MAX_USIZE or bit_count != 8 * (end - begin):
        raise FormatError(
            f"{subject}: tensor {quoted(name)} is {dtype} {quoted(shape)}, which does not fill "
            f"its bytes {begin} to {end}",
            hint=_DOWNLOAD_AGAIN,
        )
    return TensorInfo(dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _check_tiling(
    in_data_order: list[tuple[str, TensorInfo]], data_bytes: int, subject: str
) -> None:
    position = 0
    for name, info in in_data_order:
        if info.begin != position:
            what = "overlaps the tensor before it" if info.begin < position else "leaves a hole"
            raise FormatError(
                f"{subject}: tensor {quoted(name)} begins at byte {info.begin} of the data, where "
                f"{position} is due: it {what}"
            )
        position = info.end
    if position != data_bytes:
        raise FormatError(
            f"{subject}: its tensors take {position} bytes, but {data_bytes} follow the header",
            hint=_DOWNLOAD_AGAIN if position > data_bytes else "Bytes were added after the data.",
        )


def _is_size(value: Json) -> bool:
    # `type(...) is int`, because True is an int to isinstance and no size to anybody.
    return type(value) is int and 0 <= value <= _MAX_USIZE


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= size
        if product > _MAX_USIZE:
            # Too large already; stopping here keeps a hostile shape from costing time.
            break
    return product


def _pointer_hint(prefix: bytes) -> str | None:
    """What to do when the file is a Git LFS pointer, the usual stand-in for missing weights."""
    if prefix.startswith(b"version"[: len(prefix)]) and prefix:
        return "It is a Git LFS pointer, not the weights: run 'git lfs pull'."
    return None
