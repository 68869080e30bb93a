"""Everything that can be checked without reading weights."""

from dataclasses import dataclass
from pathlib import Path

from dus_cli.findings import Group, Report
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.index import INDEX_SUFFIX
from dus_cli.verify.folder import check_folder
from dus_cli.verify.model import check_model
from dus_cli.verify.record import check_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What the structural checks covered: groups of checks, files in the folder, bytes read."""

    groups: tuple[Group, ...]
    files: int
    bytes_read: int


def verify_structure(
    path: Path,
    report: Report,
    *,
    name: str | None = None,
    unfetched: frozenset[str] = frozenset(),
) -> tuple[Checkpoint, Structure]:
    """Opens the checkpoint at `path` and reports every fault that its headers, index, config and
    small files show, but for the content of those that are `unfetched`. What could be opened is
    returned.

    Raises CheckpointError where there is no checkpoint at all.
    """
    checkpoint = open_checkpoint(path, name=name, report=report, unfetched=unfetched)
    return checkpoint, check_structure(checkpoint, report)


def check_structure(checkpoint: Checkpoint, report: Report) -> Structure:
    """The same for a checkpoint that has been opened already."""
    groups = [Group.FILES, Group.HEADERS]
    if not checkpoint.stands_alone:
        groups += [Group.INDEX, Group.CONFIG, Group.LAYERS]
    files, document_bytes = check_folder(checkpoint, report)
    check_model(checkpoint, report)
    record_bytes = check_record(checkpoint, report)
    if record_bytes:
        groups.append(Group.RECORD)
    read = _opening_bytes(checkpoint) + document_bytes + record_bytes
    return Structure(groups=tuple(groups), files=files, bytes_read=read)


def _opening_bytes(checkpoint: Checkpoint) -> int:
    """Bytes that opening took: headers, index, config.json and the model card."""
    headers = sum(shard.header.data_start for shard in checkpoint.shards)
    if checkpoint.stands_alone:
        return headers
    names = (f"{checkpoint.stem}{INDEX_SUFFIX}", checkpoint.config_name, "README.md")
    paths = (checkpoint.folder / name for name in names)
    return headers + sum(path.stat().st_size for path in paths if path.is_file())
