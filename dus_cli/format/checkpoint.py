"""A folder of safetensors shards, its index and its config.json as one value."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dus_cli.errors import CheckpointError
from dus_cli.format.files import open_regular, read_exactly, read_small
from dus_cli.format.folder import CarriedFile, LeftOutFile, classify_files
from dus_cli.format.header import LENGTH_BYTES, Header, TensorInfo, header_length, parse_header
from dus_cli.format.index import INDEX_SUFFIX, ShardIndex, parse_index
from dus_cli.format.strict_json import Json, parse_object
from dus_cli.printable import quoted

_MAX_JSON_BYTES: Final = 100_000_000
"""Limit for the index and config.json; the largest index seen in the wild holds 10 MB."""

_MAX_CARD_BYTES: Final = 4_000_000
"""A longer README.md is not read; only its first lines matter here."""

_SUFFIX: Final = ".safetensors"
_USUAL_NAME: Final = "model.safetensors"
_SHARD_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5,})-of-(?P<count>[0-9]{5,})")
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
_CONVERT_PICKLES: Final = (
    "Convert them first: load the model with transformers and call save_pretrained, or use the "
    "Hub's safetensors convert space."
)
_CONVERT_GGUF: Final = "GGUF cannot be up-scaled here; get the safetensors checkpoint it came from."


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One safetensors file: its name in the folder, its size in bytes, its header.

    `header_sha256` is the SHA-256 of the bytes before the data, in hex.
    """

    name: str
    size: int
    header: Header
    header_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a folder says of a model, weights unread.

    `stem` is what shard names begin with ("model"). `config` is None where there is no
    config.json; `index` is None where one file holds everything. `card` is the text of the
    model card, README.md.
    """

    folder: Path
    name: str
    stem: str
    shards: tuple[Shard, ...]
    index: ShardIndex | None
    config: Mapping[str, Json] | None
    config_sha256: str | None
    card: str | None
    carried_files: tuple[CarriedFile, ...]
    left_out_files: tuple[LeftOutFile, ...]

    def tensors(self) -> Iterator[tuple[Shard, str, TensorInfo]]:
        """Every tensor with the shard that holds it, in the order of the bytes on disk."""
        for shard in self.shards:
            for name, info in shard.header.tensors.items():
                yield shard, name, info

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, headers not counted (the index calls it `total_size`)."""
        return sum(info.byte_count for _, _, info in self.tensors())

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors as stored; quantised formats pack several parameters in one."""
        return sum(info.element_count for _, _, info in self.tensors())


def open_checkpoint(path: Path, *, name: str | None = None) -> Checkpoint:
    """The checkpoint in folder `path`, or in the single file `path` (without its config).

    `name` is what to call it where that is not the name of the folder.

    Raises CheckpointError when there is none, when a file cannot be read or breaks its format,
    and when index and shards contradict each other.
    """
    try:
        file_names = sorted(entry.name for entry in path.iterdir())
    except NotADirectoryError:
        return _open_single_file(path, name or path.name)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file or folder", hint="Give the folder that holds config.json."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be listed: {error.strerror}") from None
    stem, shard_names, index = _find_shards(path, file_names)
    shards = tuple(read_shard(path / name, name) for name in shard_names)
    _check_tensors_agree(shards, index, stem)
    config, config_sha256 = _read_config(path)
    try:
        carried, left_out = classify_files(path, frozenset(shard_names))
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return Checkpoint(
        folder=path,
        name=name or path.resolve().name or "checkpoint",
        stem=stem,
        shards=shards,
        index=index,
        config=config,
        config_sha256=config_sha256,
        card=_read_card(path),
        carried_files=carried,
        left_out_files=left_out,
    )


def read_shard(path: Path, subject: str) -> Shard:
    """One file's header, checked in full; its data is not read."""
    with open_regular(path, subject) as descriptor:
        size = os.fstat(descriptor).st_size
        prefix = read_exactly(descriptor, min(LENGTH_BYTES, size), subject)
        raw = read_exactly(descriptor, header_length(prefix, size, subject), subject)
    return Shard(
        name=subject,
        size=size,
        header=parse_header(raw, size, subject),
        header_sha256=hashlib.sha256(prefix + raw).hexdigest(),
    )


def _open_single_file(path: Path, name: str) -> Checkpoint:
    if path.suffix in (*_PICKLES, ".gguf"):
        raise _no_safetensors(path.parent, [path.name])
    return Checkpoint(
        folder=path.parent,
        name=name,
        stem=path.stem,
        shards=(read_shard(path, path.name),),
        index=None,
        config=None,
        config_sha256=None,
        card=None,
        carried_files=(),
        left_out_files=(),
    )


def _find_shards(
    folder: Path, file_names: list[str]
) -> tuple[str, tuple[str, ...], ShardIndex | None]:
    """Stem, shard names in order, and the index, as the loaders of the ecosystem find them."""
    indexes = [name for name in file_names if name.endswith(INDEX_SUFFIX)]
    if indexes:
        index_name = _prefer(indexes, f"model{INDEX_SUFFIX}", folder, "shard indexes")
        stem = index_name.removesuffix(INDEX_SUFFIX)
        raw = read_small(folder / index_name, index_name, limit=_MAX_JSON_BYTES)
        index = parse_index(raw, index_name)
        return stem, _indexed_shards(folder, index_name, index, file_names), index
    stem, name = _only_file(folder, file_names)
    return stem, (name,), None


def _indexed_shards(
    folder: Path, index_name: str, index: ShardIndex, file_names: list[str]
) -> tuple[str, ...]:
    """The shards that the index names; all of them have to be there."""
    named = tuple(sorted(set(index.weight_map.values())))
    if not named:
        raise CheckpointError(f"{index_name}: names no tensor")
    whole = index_name.removesuffix(INDEX_SUFFIX) + _SUFFIX
    if whole in file_names and whole not in named:
        raise CheckpointError(
            f"{folder}: holds both {whole} and {index_name}, which does not name it",
            hint="Loaders differ in which one they take; remove the one that is out of date.",
        )
    present = frozenset(file_names)
    absent = [name for name in named if name not in present]
    if absent:
        more = f" ({len(absent)} of {len(named)} shards are missing)" if absent[1:] else ""
        raise CheckpointError(
            f"{index_name}: names {quoted(absent[0])}, which is not there{more}",
            hint="The download is incomplete; fetch the missing files.",
        )
    return named


def _only_file(folder: Path, file_names: list[str]) -> tuple[str, str]:
    """Stem and name of the one safetensors file that holds everything, no index being there."""
    stems: dict[str, str] = {}
    parts: list[str] = []
    for name in file_names:
        if not name.endswith(_SUFFIX):
            continue
        stem = name.removesuffix(_SUFFIX)
        part = _SHARD_NAME.fullmatch(stem)
        if part is None:
            stems[name] = stem
        elif int(part["number"]) == int(part["count"]) == 1:
            stems[name] = part["stem"]
        else:
            parts.append(name)
    if parts and _USUAL_NAME not in stems:
        raise CheckpointError(
            f"{folder}: holds shards such as {parts[0]}, but no index (*{INDEX_SUFFIX})",
            hint="Without the index no loader takes the shards; fetch it from where they came.",
        )
    if not stems:
        raise _no_safetensors(folder, file_names)
    name = _prefer(list(stems), _USUAL_NAME, folder, "safetensors files")
    return stems[name], name


def _prefer(names: list[str], usual: str, folder: Path, what: str) -> str:
    if usual in names:
        return usual
    if len(names) == 1:
        return names[0]
    raise CheckpointError(
        f"{folder}: holds several {what}, and none is called {usual}: {', '.join(names[:5])}",
        hint="Put the one that counts into a folder of its own, with config.json.",
    )


def _no_safetensors(folder: Path, file_names: list[str]) -> CheckpointError:
    pickles = [name for name in file_names if name.endswith(_PICKLES)]
    gguf = [name for name in file_names if name.endswith(".gguf")]
    if pickles or gguf:
        found = ", ".join((pickles or gguf)[:3])
        return CheckpointError(
            f"{folder}: no safetensors here, only {'pickled' if pickles else 'GGUF'} weights "
            f"({found})",
            hint=_CONVERT_PICKLES if pickles else _CONVERT_GGUF,
        )
    below = sorted({found.parent.name for found in folder.glob("*/*.safetensors")})
    hint = "Give the folder that holds config.json and the *.safetensors files."
    if below:
        hint = f"Its sub-folders hold some ({', '.join(below[:5])}): give one of them."
    return CheckpointError(f"{folder}: no safetensors here", hint=hint)


def _check_tensors_agree(shards: tuple[Shard, ...], index: ShardIndex | None, stem: str) -> None:
    """One shard a tensor, and the index says which; both directions."""
    holder: dict[str, str] = {}
    for shard in shards:
        for name in shard.header.tensors:
            if name in holder:
                raise CheckpointError(
                    f"tensor {quoted(name)} lies in two shards, {holder[name]} and {shard.name}",
                    hint="Loaders differ in which one they take; make the checkpoint anew.",
                )
            holder[name] = shard.name
    if index is None:
        return
    subject = f"{stem}{INDEX_SUFFIX}"
    for name, shard_name in index.weight_map.items():
        if holder.get(name) != shard_name:
            where = f"it lies in {holder[name]}" if name in holder else "no shard holds it"
            raise CheckpointError(
                f"{subject}: puts tensor {quoted(name)} into {shard_name}, but {where}",
                hint="Index and shards are of different versions; fetch both again.",
            )
    for name in holder:
        if name not in index.weight_map:
            raise CheckpointError(
                f"{subject}: does not name tensor {quoted(name)}, which lies in {holder[name]}",
                hint="Index and shards are of different versions; fetch both again.",
            )


def _read_config(folder: Path) -> tuple[Mapping[str, Json] | None, str | None]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        return None, None
    raw = read_small(path, "config.json", limit=_MAX_JSON_BYTES)
    return parse_object(raw, "config.json", non_finite=True), hashlib.sha256(raw).hexdigest()


def _read_card(folder: Path) -> str | None:
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > _MAX_CARD_BYTES:
        return None
    return read_small(path, "README.md", limit=_MAX_CARD_BYTES).decode("utf-8", "replace")
