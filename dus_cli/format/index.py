"""The shard index, `model.safetensors.index.json`: which shard holds which tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dus_cli.errors import FormatError
from dus_cli.findings import Finding, Report, accept
from dus_cli.format.strict_json import Json, dump_pretty, parse_object
from dus_cli.printable import quoted

INDEX_SUFFIX: Final = ".safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """Tensor name -> shard file name, and whatever the writer noted (`total_size` in bytes)."""

    weight_map: Mapping[str, str]
    metadata: Mapping[str, Json]


def parse_index(raw: bytes, subject: str, report: Report = accept) -> ShardIndex:
    """The index in `raw`; shard names are checked to be plain file names of this folder.

    `report` gets every entry that is not; if it returns, the index holds the others.

    Raises FormatError where there is no weight map at all, and what `report` raises.
    """
    value = parse_object(raw, subject, flat=True)
    stated = value.get("weight_map")
    if not isinstance(stated, dict):
        raise FormatError(f"{subject}: has no weight_map")
    weight_map: dict[str, str] = {}
    seen: set[str] = set()  # a shard's name comes thousands of times
    for name, shard in stated.items():
        if isinstance(shard, str) and (shard in seen or is_plain_file_name(shard)):
            seen.add(shard)
            weight_map[name] = shard
            continue
        what = (
            f"tensor {quoted(name)} is said to lie in {quoted(shard)}, which is not a file name "
            "inside the checkpoint folder"
            if isinstance(shard, str)
            else f"the shard of tensor {quoted(name)} is not a file name"
        )
        report(Finding(code="index-shard-name", file=subject, tensor=name, message=what))
    metadata = value.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        report(Finding(code="index-json", file=subject, message="metadata is not an object"))
        metadata = {}
    plain = {key: noted for key, noted in metadata.items() if not isinstance(noted, dict | list)}
    return ShardIndex(weight_map=weight_map, metadata=plain)


def serialize_index(index: ShardIndex) -> bytes:
    """The index file's bytes, in the form that transformers writes."""
    return dump_pretty({"metadata": dict(index.metadata), "weight_map": dict(index.weight_map)})


def is_plain_file_name(name: str) -> bool:
    """Whether `name` can only mean a file directly inside the folder it is looked up in."""
    return name not in ("", ".", "..") and not any(sign in name for sign in "/\\\0")
