"""One safetensors file's header: bytes <-> `Header`, with the rules of the format checked.

The format: 8 bytes of little-endian header length N, N bytes of JSON, then the tensors' data.
https://github.com/huggingface/safetensors#format
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final, TypeAlias

from dus_cli.errors import FormatError
from dus_cli.findings import Finding, Report, accept
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.format.strict_json import Json, check_depth, dump_compact, parse_object
from dus_cli.printable import quoted

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000
"""The reader's limit on N; 100,000,001 is refused by the safetensors library."""

_MAX_USIZE: Final = 2**64 - 1
_METADATA_KEY: Final = "__metadata__"
_KNOWN_FRAMEWORKS: Final = frozenset({"pt", "tf", "flax", "mlx"})
"""What transformers takes as `format`; some of its versions crash on anything else."""

_ENTRY_FIELDS: Final = 3
_USUAL_DIMENSIONS: Final = 8
"""Shapes with more are multiplied with care, for a hostile one may have millions."""

_DOWNLOAD_AGAIN: Final = "The file is damaged or cut short; download it again."

_Range: TypeAlias = tuple[int, int, str]
"""Begin and end of a tensor's bytes in the data section, and its name."""


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

    `data_start` is in bytes from the start of the file. `broken` are the names of tensors whose
    entries are not sound; only a verification goes on without them.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    broken: frozenset[str] = frozenset()


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


def parse_header(raw: bytes, file_size: int, subject: str, report: Report = accept) -> Header:
    """The header whose JSON is `raw`, of a file of `file_size` bytes, checked in full.

    `report` gets every fault: broken or ambiguous JSON, an entry that is not
    `{dtype, shape, data_offsets}`, an unknown dtype, sizes and offsets that disagree, and tensors
    that do not tile the data section exactly (a hole, an overlap, bytes missing or left over).
    If it returns, the header holds the tensors that are sound by themselves.

    Raises FormatError where the JSON cannot be read at all, and what `report` raises.
    """
    # The format wants the brace first; the library takes blanks before it as well.
    if not raw.lstrip().startswith(b"{"):
        raise FormatError(f"{subject}: the header does not begin with '{{'", hint=_DOWNLOAD_AGAIN)
    entries = parse_object(raw, f"{subject}: header", flat=True)
    if not raw.startswith(b"{") or not raw.rstrip(b" ").endswith(b"}"):
        _unusual(report, subject, "the header is padded with something else than blanks at its end")
    metadata = _parse_metadata(entries.pop(_METADATA_KEY, {}), subject, report)
    tensors: dict[str, TensorInfo] = {}
    ranges: list[_Range] = []
    for name, entry in entries.items():
        info = _sound_entry(entry)
        if info is not None:
            tensors[name] = info
            ranges.append((info.begin, info.end, name))
            continue
        check_depth(entry, f"{subject}: header")
        claimed, info = _examine_entry(name, entry, subject, report)
        if claimed is not None:
            ranges.append(claimed)
        if info is not None:
            tensors[name] = info
    data_start = LENGTH_BYTES + len(raw)
    if len(ranges) == len(entries):
        # Without the bytes of one tensor nobody can say what is a hole.
        _check_tiling(sorted(ranges), file_size - data_start, subject, report)
    in_data_order = sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end))
    return Header(
        tensors=dict(in_data_order),
        metadata=metadata,
        data_start=data_start,
        broken=frozenset(entries.keys() - tensors.keys()),
    )


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


def _unusual(report: Report, subject: str, fact: str) -> None:
    report(
        Finding(
            code="header-unusual",
            file=subject,
            message=fact,
            hint="The safetensors library reads it, others may not; save the file anew.",
        )
    )


def _parse_metadata(value: Json, subject: str, report: Report) -> dict[str, str]:
    metadata: dict[str, str] = {}
    if value is None:
        _unusual(report, subject, "__metadata__ is null")
    elif not isinstance(value, dict):
        report(
            Finding(code="header-metadata", file=subject, message="__metadata__ is not an object")
        )
    else:
        for key, text in value.items():
            if isinstance(text, str):
                metadata[key] = text
            else:
                report(
                    Finding(
                        code="header-metadata",
                        file=subject,
                        message=f"__metadata__ {quoted(key)} is not a string",
                    )
                )
    if metadata.get("format") not in _KNOWN_FRAMEWORKS:
        stated = f"the format {quoted(metadata['format'])}" if "format" in metadata else "no format"
        report(
            Finding(
                code="header-format",
                file=subject,
                message=f"__metadata__ states {stated}",
                hint='Some versions of transformers fail without {"format": "pt"}.',
            )
        )
    return metadata


def _sound_entry(entry: Json) -> TensorInfo | None:
    """What an entry that keeps all rules says; None for any other.

    Most entries do, so this asks as little as it can; `_examine_entry` takes the unusual ones,
    empty tensors among them, and says what is wrong.
    """
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = BITS_PER_ELEMENT[dtype]
    except (TypeError, KeyError, ValueError):
        return None
    if (
        len(entry) != _ENTRY_FIELDS
        or type(shape) is not list
        or type(entry["data_offsets"]) is not list
        or len(shape) > _USUAL_DIMENSIONS
        or not type(begin) is type(end) is int
        or not 0 <= begin <= end <= _MAX_USIZE
    ):
        return None
    for size in shape:
        if type(size) is not int or size <= 0:
            return None
    if not prod(shape) * bits == 8 * (end - begin) <= _MAX_USIZE:
        return None
    return TensorInfo(dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _examine_entry(
    name: str, entry: Json, subject: str, report: Report
) -> tuple[_Range | None, TensorInfo | None]:
    """The bytes that a tensor claims, and what it is; None for what its entry does not tell."""

    def fault(code: str, fact: str, hint: str | None = None) -> None:
        message = f"tensor {quoted(name)} {fact}"
        report(Finding(code=code, file=subject, tensor=name, message=message, hint=hint))

    if not isinstance(entry, dict):
        fault("tensor-entry", "is not described by an object")
        return None, None
    try:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    except KeyError as error:
        fault("tensor-entry", f"has no {error.args[0]}")
        return None, None
    if len(entry) > _ENTRY_FIELDS:
        _unusual(report, subject, f"tensor {quoted(name)} has fields that the format does not know")
    claimed: _Range | None = None
    if isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_size, offsets)):
        claimed = (offsets[0], offsets[1], name)
    bits = BITS_PER_ELEMENT.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        fault(
            "tensor-dtype",
            f"has the unknown dtype {quoted(dtype)}",
            "If the format has gained it since, a newer dus knows it.",
        )
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        fault("tensor-entry", f"has the impossible shape {quoted(shape)}")
        return claimed, None
    if claimed is None:
        fault("tensor-entry", f"has the impossible data_offsets {quoted(offsets)}")
        return None, None
    if bits is None:
        return claimed, None
    begin, end, _ = claimed
    bit_count = _product(shape) * bits
    if bit_count > _MAX_USIZE or bit_count != 8 * (end - begin):
        fault(
            "tensor-size",
            f"is {dtype} {quoted(shape)}, which does not fill its bytes {begin} to {end}",
            _DOWNLOAD_AGAIN,
        )
        return (claimed if begin <= end else None), None
    return claimed, TensorInfo(dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _check_tiling(in_order: list[_Range], data_bytes: int, subject: str, report: Report) -> None:
    position = 0
    for begin, end, name in in_order:
        if begin != position:
            overlaps = begin < position
            what = "overlaps the tensor before it" if overlaps else "leaves a hole"
            report(
                Finding(
                    code="data-overlap" if overlaps else "data-gap",
                    file=subject,
                    tensor=name,
                    message=f"tensor {quoted(name)} begins at byte {begin} of the data, where "
                    f"{position} is due: it {what}",
                )
            )
        position = max(position, end)
    if position != data_bytes:
        report(
            Finding(
                code="data-length",
                file=subject,
                message=f"its tensors take {position} bytes, but {data_bytes} follow the header",
                hint=_DOWNLOAD_AGAIN
                if position > data_bytes
                else "Bytes were added after the data.",
            )
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
