"""A folder of safetensors shards, its index and its config.json as one value."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dus_cli.errors import CheckpointError, FormatError
from dus_cli.findings import Finding, Report, accept, reported
from dus_cli.format.files import open_regular, read_exactly, read_small
from dus_cli.format.folder import (
    CONFIG,
    QUANTISATION_FILES,
    CarriedFile,
    LeftOutFile,
    classify_files,
    config_name_for,
)
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
SHARD_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5,})-of-(?P<count>[0-9]{5,})")
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
class QuantisationFile:
    """A file beside config.json that says how modules are quantised; `value` is None where it
    cannot be read as the JSON object that it should be."""

    path: str
    value: Mapping[str, Json] | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a folder says of a model, weights unread.

    `stem` is what shard names begin with ("model"). `config_name` is the file that holds the
    config: config.json, or params.json in Mistral's own format; `config` is None where it is not
    there. `index` is None where one file holds everything. `card` is the text of the model card,
    README.md. `unread_shards` are missing or broken; only a verification goes on without them.
    """

    folder: Path
    name: str
    stem: str
    shards: tuple[Shard, ...]
    index: ShardIndex | None
    config_name: str
    config: Mapping[str, Json] | None
    config_sha256: str | None
    card: str | None
    carried_files: tuple[CarriedFile, ...]
    left_out_files: tuple[LeftOutFile, ...]
    quantisation_files: tuple[QuantisationFile, ...] = ()
    unread_shards: tuple[str, ...] = ()
    stands_alone: bool = False
    """Whether one file was opened instead of a folder."""
    unfetched: frozenset[str] = frozenset()
    """Files of which the size alone is known, for they have not been fetched."""

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

    @property
    def is_partial(self) -> bool:
        """Whether tensors are missing because their shard or their entry could not be read."""
        return bool(self.unread_shards) or any(shard.header.broken for shard in self.shards)


def open_checkpoint(
    path: Path,
    *,
    name: str | None = None,
    report: Report = accept,
    unfetched: frozenset[str] = frozenset(),
) -> Checkpoint:
    """The checkpoint in folder `path`, or in the single file `path` (without its config).

    `name` is what to call it where that is not the name of the folder. `unfetched` are carried
    files of which only the size is right. `report` gets every fault:
    a file that cannot be read or breaks its format, index and shards that contradict each other.
    If it returns, the checkpoint holds what is sound.

    Raises CheckpointError when there is no checkpoint, and what `report` raises.
    """
    try:
        file_names = sorted(entry.name for entry in path.iterdir())
    except NotADirectoryError:
        return _open_single_file(path, name or path.name, report)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file or folder", hint="Give the folder that holds config.json."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be listed: {error.strerror}") from None
    stem, shard_names, index = find_shards(path, file_names, report)
    present = frozenset(file_names)
    shards = _read_shards(path, [shard for shard in shard_names if shard in present], report)
    read = {shard.name for shard in shards}
    unread = tuple(shard for shard in shard_names if shard not in read)
    _check_tensors_agree(shards, frozenset(unread), index, stem, report)
    config_name = config_name_for(stem, present)
    config, config_sha256 = _read_config(path, config_name, report)
    try:
        carried, left_out = classify_files(path, frozenset(shard_names), config_name)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return Checkpoint(
        folder=path,
        name=name or path.resolve().name or "checkpoint",
        stem=stem,
        shards=shards,
        index=index,
        config_name=config_name,
        config=config,
        config_sha256=config_sha256,
        card=_read_card(path),
        carried_files=carried,
        left_out_files=left_out,
        quantisation_files=_read_quantisation_files(path, carried),
        unread_shards=unread,
        unfetched=unfetched,
    )


def _read_shards(folder: Path, names: Iterable[str], report: Report) -> tuple[Shard, ...]:
    shards: list[Shard] = []
    for name in names:
        with reported(report, name, broken="header-broken"):
            shards.append(read_shard(folder / name, name, report))
    return tuple(shards)


def read_shard(path: Path, subject: str, report: Report = accept) -> Shard:
    """One file's header, checked in full; its data is not read."""
    with open_regular(path, subject) as descriptor:
        size = os.fstat(descriptor).st_size
        prefix = read_exactly(descriptor, min(LENGTH_BYTES, size), subject)
        raw = read_exactly(descriptor, header_length(prefix, size, subject), subject)
    return Shard(
        name=subject,
        size=size,
        header=parse_header(raw, size, subject, report),
        header_sha256=hashlib.sha256(prefix + raw).hexdigest(),
    )


def _open_single_file(path: Path, name: str, report: Report) -> Checkpoint:
    if path.suffix in (*_PICKLES, ".gguf"):
        raise _no_safetensors(path.parent, [path.name])
    shards = _read_shards(path.parent, [path.name], report)
    return Checkpoint(
        folder=path.parent,
        name=name,
        stem=path.stem,
        shards=shards,
        index=None,
        config_name=CONFIG,
        config=None,
        config_sha256=None,
        card=None,
        carried_files=(),
        left_out_files=(),
        unread_shards=() if shards else (path.name,),
        stands_alone=True,
    )


def find_shards(
    folder: Path, file_names: list[str], report: Report
) -> tuple[str, tuple[str, ...], ShardIndex | None]:
    """Stem, shard names in order, and the index, as the loaders of the ecosystem find them."""
    indexes = [name for name in file_names if name.endswith(INDEX_SUFFIX)]
    if not indexes:
        stem, names = _unindexed_shards(folder, file_names, report)
        return stem, names, None
    index_name = _prefer(indexes, f"model{INDEX_SUFFIX}", folder, "shard indexes")
    stem = index_name.removesuffix(INDEX_SUFFIX)
    with reported(report, index_name, broken="index-json"):
        raw = read_small(folder / index_name, index_name, limit=_MAX_JSON_BYTES)
        index = parse_index(raw, index_name, report)
        if not index.weight_map:
            raise FormatError(f"{index_name}: names no tensor")
        return stem, _indexed_shards(index_name, index, file_names, report), index
    return stem, tuple(name for name in file_names if name.endswith(_SUFFIX)), None


def _indexed_shards(
    index_name: str, index: ShardIndex, file_names: list[str], report: Report
) -> tuple[str, ...]:
    """The shards that the index names, whether they are there or not."""
    named = tuple(sorted(set(index.weight_map.values())))
    whole = index_name.removesuffix(INDEX_SUFFIX) + _SUFFIX
    if whole in file_names and whole not in named:
        report(
            Finding(
                code="index-bypassed",
                file=index_name,
                message=f"does not name {whole}, which lies beside it",
                hint="Loaders differ in which one they take; remove the one that is out of date.",
            )
        )
    present = frozenset(file_names)
    absent = [name for name in named if name not in present]
    more = f" ({len(absent)} of {len(named)} shards are missing)" if absent[1:] else ""
    for name in absent:
        report(
            Finding(
                code="index-shard-missing",
                file=index_name,
                message=f"names {quoted(name)}, which is not there{more}",
                hint="The download is incomplete; fetch the missing files.",
            )
        )
    return named


def _unindexed_shards(
    folder: Path, file_names: list[str], report: Report
) -> tuple[str, tuple[str, ...]]:
    """Stem and name of the one safetensors file that holds everything, no index being there.

    Numbered shards without an index are a fault; they are the shards then.
    """
    stems: dict[str, str] = {}
    parts: dict[str, str] = {}
    for name in file_names:
        if not name.endswith(_SUFFIX):
            continue
        stem = name.removesuffix(_SUFFIX)
        part = SHARD_NAME.fullmatch(stem)
        if part is None:
            stems[name] = stem
        elif int(part["number"]) == int(part["count"]) == 1:
            stems[name] = part["stem"]
        else:
            parts[name] = part["stem"]
    if parts and _USUAL_NAME not in stems:
        first = next(iter(parts))
        report(
            Finding(
                code="index-missing",
                message=f"{folder}: holds shards such as {first}, but no index (*{INDEX_SUFFIX})",
                hint="Without the index no loader takes the shards; fetch it from where they came.",
            )
        )
        return parts[first], tuple(parts)
    if not stems:
        raise _no_safetensors(folder, file_names)
    name = _prefer(list(stems), _USUAL_NAME, folder, "safetensors files")
    return stems[name], (name,)


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


def _check_tensors_agree(
    shards: tuple[Shard, ...],
    unread: frozenset[str],
    index: ShardIndex | None,
    stem: str,
    report: Report,
) -> None:
    """One shard a tensor, and the index says which; both directions."""
    holder: dict[str, str] = {}
    for shard in shards:
        for name in shard.header.tensors:
            if name in holder:
                report(
                    Finding(
                        code="tensor-twice",
                        file=shard.name,
                        tensor=name,
                        message=f"tensor {quoted(name)} lies in {holder[name]} too",
                        hint="Loaders differ in which one they take; make the checkpoint anew.",
                    )
                )
            holder.setdefault(name, shard.name)
    if index is None:
        return
    subject = f"{stem}{INDEX_SUFFIX}"
    hint = "Index and shards are of different versions; fetch both again."
    broken = frozenset(name for shard in shards for name in shard.header.broken)
    for name, stated in index.weight_map.items():
        actual = holder.get(name)
        if actual == stated or stated in unread or name in broken:
            continue
        report(
            Finding(
                code="index-wrong-shard" if actual else "index-tensor-unknown",
                file=subject,
                tensor=name,
                message=f"puts tensor {quoted(name)} into {stated}, but "
                + (f"it lies in {actual}" if actual else "no shard holds it"),
                hint=hint,
            )
        )
    for name, actual in holder.items():
        if name not in index.weight_map:
            report(
                Finding(
                    code="index-tensor-missing",
                    file=subject,
                    tensor=name,
                    message=f"does not name tensor {quoted(name)}, which lies in {actual}",
                    hint=hint,
                )
            )


def _read_config(
    folder: Path, name: str, report: Report
) -> tuple[Mapping[str, Json] | None, str | None]:
    path = folder / name
    if os.path.lexists(path):
        with reported(report, name, broken="config-json"):
            raw = read_small(path, name, limit=_MAX_JSON_BYTES)
            config = parse_object(raw, name, non_finite=True)
            return config, hashlib.sha256(raw).hexdigest()
    return None, None


def _read_quantisation_files(
    folder: Path, carried: Iterable[CarriedFile]
) -> tuple[QuantisationFile, ...]:
    paths = [file.path for file in carried if file.path in QUANTISATION_FILES]
    found: list[QuantisationFile] = []
    for path in paths:
        raw, value = b"", None
        # One that is broken is reported by what verifies the folder, and stops what needs it.
        with contextlib.suppress(CheckpointError):
            raw = read_small(folder / path, path, limit=_MAX_JSON_BYTES)
            value = parse_object(raw, path, non_finite=True)
        digest = hashlib.sha256(raw).hexdigest()
        found.append(QuantisationFile(path=path, value=value, sha256=digest))
    return tuple(found)


def _read_card(folder: Path) -> str | None:
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > _MAX_CARD_BYTES:
        return None
    return read_small(path, "README.md", limit=_MAX_CARD_BYTES).decode("utf-8", "replace")
