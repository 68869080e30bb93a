"""The shard index, `model.safetensors.index.json`: which shard holds which tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dus_cli.errors import FormatError
from dus_cli.format.strict_json import Json, dump_pretty, parse_object
from dus_cli.printable import quoted

INDEX_SUFFIX: Final = ".safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """Tensor name -> shard file name, and whatever the writer noted (`total_size` in bytes)."""

    weight_map: Mapping[str, str]
    metadata: Mapping[str, Json]


def parse_index(raw: bytes, subject: str) -> ShardIndex:
    """The index in `raw`; shard names are checked to be plain file names of this folder.

    Raises FormatError for anything else than the documented form.
    """
    value = parse_object(raw, subject)
    weight_map = value.get("weight_map")
    if not isinstance(weight_map, dict):
        raise FormatError(f"{subject}: has no weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise FormatError(f"{subject}: the shard of tensor {quoted(name)} is not a file name")
        if not is_plain_file_name(shard):
            raise FormatError(
                f"{subject}: tensor {quoted(name)} is said to lie in {quoted(shard)}, which is not "
                "a file name inside the checkpoint folder"
            )
    metadata = value.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise FormatError(f"{subject}: metadata is not an object")
    return ShardIndex(weight_map=weight_map, metadata=metadata)


def serialize_index(index: ShardIndex) -> bytes:
    """The index file's bytes, in the form that transformers writes."""
    return dump_pretty({"metadata": dict(index.metadata), "weight_map": dict(index.weight_map)})


def is_plain_file_name(name: str) -> bool:
    """Whether `name` can only mean a file directly inside the folder it is looked up in."""
    return name not in ("", ".", "..") and not any(sign in name for sign in "/\\\0")
