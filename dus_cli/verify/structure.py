"""Everything that can be checked without reading weights."""

from collections.abc import Collection
from pathlib import Path

from dus_cli.findings import Group, Report
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.verify.folder import check_folder
from dus_cli.verify.model import check_model
from dus_cli.verify.record import check_record


def verify_structure(
    path: Path, report: Report, *, name: str | None = None
) -> tuple[Checkpoint, int, Collection[Group]]:
    """Opens the checkpoint at `path` and reports every fault that its headers, index, config and
    small files show.

    Returns what could be opened, how many files there are, and the groups of checks made.

    Raises CheckpointError where there is no checkpoint at all.
    """
    checkpoint = open_checkpoint(path, name=name, report=report)
    groups = [Group.FILES, Group.HEADERS]
    if not checkpoint.stands_alone:
        groups += [Group.INDEX, Group.CONFIG, Group.LAYERS]
    files = check_folder(checkpoint, report)
    check_model(checkpoint, report)
    if check_record(checkpoint, report):
        groups.append(Group.RECORD)
    return checkpoint, files, groups
