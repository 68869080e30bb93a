"""dus.json, the plan that a result carries, against what is there."""

from collections.abc import Mapping
from typing import Final

from dus_cli.errors import CheckpointError, FormatError
from dus_cli.findings import Finding, Report, reported
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.files import read_small
from dus_cli.format.strict_json import Json, parse_object, same_json
from dus_cli.plan import PLAN_SCHEMA
from dus_cli.printable import quoted

RECORD: Final = "dus.json"
_MAX_BYTES: Final = 1_000_000_000
_MAX_FIELD: Final = 1000
"""A longer path into config.json is none that dus writes; to follow it takes the square of it."""

_CHANGED: Final = (
    "If the checkpoint was changed on purpose after it was made, remove dus.json; else make it "
    "anew."
)


def read_record(checkpoint: Checkpoint) -> Mapping[str, Json] | None:
    """The plan in the checkpoint's dus.json, unchecked but for its schema; None without one.

    Raises CheckpointError when it cannot be read or is no plan of this version.
    """
    path = checkpoint.folder / RECORD
    if checkpoint.stands_alone or not path.exists():
        return None
    raw = read_small(path, RECORD, limit=_MAX_BYTES)
    record = parse_object(raw, RECORD, non_finite=True, surrogates=True)
    if record.get("schema") != PLAN_SCHEMA:
        raise FormatError(
            f"{RECORD}: its schema is {quoted(record.get('schema'))}, not {PLAN_SCHEMA}",
            hint="A newer dus may know it.",
        )
    return record


def check_record(checkpoint: Checkpoint, report: Report) -> int:
    """Reports where dus.json and the checkpoint differ; returns the bytes of dus.json, or 0."""
    with reported(report, RECORD, broken="record-json"):
        record = read_record(checkpoint)
        if record is None:
            return 0
        _check_shards(checkpoint, _objects(record, "shards", "name"), report)
        _check_config(checkpoint, _objects(record, "config_changes", "field"), report)
        _check_files(checkpoint, _objects(record, "carried_files", "path"), report)
    return (checkpoint.folder / RECORD).stat().st_size


def recorded_sources(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Stack prefix -> source layer of each of its layers, by dus.json; empty where none says.

    A record that cannot be read is `check_record`'s business, and says nothing here.
    """
    sources: dict[str, tuple[int, ...]] = {}
    try:
        record = read_record(checkpoint)
        stacks = _objects(record, "stacks", "prefix") if record is not None else {}
    except CheckpointError:
        return {}
    for prefix, stack in stacks.items():
        layer_map = stack.get("layer_map")
        if isinstance(layer_map, list) and all(type(layer) is int for layer in layer_map):
            sources[prefix] = tuple(layer_map)
    return sources


def _objects(record: Mapping[str, Json], key: str, name: str) -> dict[str, Mapping[str, Json]]:
    """The objects in the list `key`, by their `name`.

    Raises FormatError where it is not a list of such objects.
    """
    value = record.get(key)
    if not isinstance(value, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get(name), str) for entry in value
    ):
        raise FormatError(f"{RECORD}: {key} is not a list of objects with a {name}")
    return {entry[name]: entry for entry in value}


def _check_shards(
    checkpoint: Checkpoint, recorded: Mapping[str, Mapping[str, Json]], report: Report
) -> None:
    present = {shard.name: shard for shard in checkpoint.shards}
    unread = frozenset(checkpoint.unread_shards)
    for name, entry in recorded.items():
        shard = present.get(name)
        if shard is None:
            if name not in unread:
                _report(
                    report, "record-shard", "shards", f"lists {quoted(name)}, which is no shard"
                )
            continue
        if shard.header.broken:
            continue
        different = [
            f"{what} {actual} (recorded: {quoted(entry.get(what))})"
            for what, actual in (
                ("size", shard.size),
                ("header_bytes", shard.header.data_start),
                ("tensors", len(shard.header.tensors)),
            )
            if entry.get(what) != actual
        ]
        if different:
            fact = f"the shard {quoted(name)} has {', '.join(different)}"
            _report(report, "record-shard", "shards", fact)
    for name in present:
        if name not in recorded:
            _report(report, "record-shard", "shards", f"does not list the shard {quoted(name)}")


def _check_config(
    checkpoint: Checkpoint, recorded: Mapping[str, Mapping[str, Json]], report: Report
) -> None:
    if checkpoint.config is None:
        return
    for field, entry in recorded.items():
        actual = _at(checkpoint.config, field) if len(field) <= _MAX_FIELD else None
        if not same_json(actual, entry.get("after")):
            _report(
                report,
                "record-config",
                field,
                f"says that {quoted(field)} of config.json became {quoted(entry.get('after'))}, "
                f"but it is {quoted(actual)}",
            )


def _check_files(
    checkpoint: Checkpoint, recorded: Mapping[str, Mapping[str, Json]], report: Report
) -> None:
    present = {file.path: file.size for file in checkpoint.carried_files}
    for path, entry in recorded.items():
        if path not in present:
            fact = f"lists {quoted(path)}, which is not there"
        elif present[path] != entry.get("size"):
            fact = f"says {quoted(entry.get('size'))} bytes of {quoted(path)}, not {present[path]}"
        else:
            continue
        _report(report, "record-file", "carried_files", fact)


def _at(config: Json, path: str) -> Json:
    """The value at a dotted path, whose keys may hold dots themselves; None where there is none."""
    head, dot, rest = path.partition(".")
    while isinstance(config, dict):
        if head in config:
            if not dot:
                return config[head]
            config = config[head]
            head, dot, rest = rest.partition(".")
        elif dot:
            part, dot, rest = rest.partition(".")
            head = f"{head}.{part}"
        else:
            return None
    return None


def _report(report: Report, code: str, field: str, fact: str) -> None:
    report(Finding(code=code, file=RECORD, field=field, message=fact, hint=_CHANGED))
