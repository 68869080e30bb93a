"""Safetensors files byte by byte, for what no library would write."""

import json
from collections.abc import Sequence
from typing import Any

from safetensors import SafetensorError, deserialize


def framed(header: bytes, data: bytes = b"") -> bytes:
    """A file with this JSON and this data, and the length field that goes with them."""
    return len(header).to_bytes(8, "little") + header + data


def entry(dtype: Any, shape: Any, offsets: Any, **more: Any) -> dict[str, Any]:
    """One tensor's description, right or wrong."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def header(**entries: Any) -> bytes:
    """The JSON of a header with these entries."""
    return json.dumps(entries).encode()


def as_library_reads(file: bytes) -> dict[str, tuple[str, Sequence[int]]] | None:
    """Name -> dtype and shape, as the safetensors library reads a file; None if it refuses."""
    try:
        # The library's type stub names no types here.
        tensors = deserialize(file)  # type: ignore[no-untyped-call]
    except SafetensorError:
        return None
    return {name: (str(found["dtype"]), tuple(found["shape"])) for name, found in tensors}
