"""The proof of provenance: a result holds what its plan takes from the source, byte for byte.

Tensors are found by name. So a result that another tool made, or that was saved again in other
shards, is held to the same plan as one that `dus` wrote.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from dus_cli.errors import CheckpointError, FormatError, RequestError
from dus_cli.findings import Finding, Report, reported
from dus_cli.format.checkpoint import Checkpoint, Shard
from dus_cli.format.files import read_small
from dus_cli.format.header import TensorInfo
from dus_cli.format.json_difference import ABSENT, differences
from dus_cli.format.strict_json import Json
from dus_cli.model.stack import LayerStack
from dus_cli.plan import Move, Plan, moves, plan_upscale
from dus_cli.plan_file import parse_request
from dus_cli.printable import quoted
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.diagnosis import diagnose
from dus_cli.verify.record import RECORD, read_record
from dus_cli.verify.same_bytes import Claim, Comparison, Difference, Place, Progress, compare

_MAX_REWRITTEN_BYTES: Final = 100_000_000
_SAY_DROP: Final = "Say what it should be with --drop M or --target-layers S."
_RECORDED: Final = ("stacks", "before", "after")
"""What dus.json says of layers and sizes; its files are compared with those that are there."""

_MAX_QUOTED: Final = 300
"""Characters of an error that repeats what dus.json requests, which may be megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseProof:
    """What a comparison took: bytes read of both sides, and bytes of the result that needed no
    reading, because the file system keeps them and those of the source in the same blocks."""

    bytes_read: int
    shared_bytes: int


def plan_of(
    checkpoint: Checkpoint, base: Checkpoint, asked: UpscaleRequest | None, report: Report
) -> Plan:
    """The plan by which `checkpoint` should have come from `base`: as asked, else as its dus.json
    requests. Reports where dus.json says something else than that plan and that base.

    Raises RequestError when neither says what was done or the base does not fit it,
    CheckpointError when dus.json is needed and cannot be used.
    """
    record = _usable_record(checkpoint, report, needed=asked is None)
    if asked is None and record is None:
        raise RequestError(f"{checkpoint.name}: has no {RECORD}", hint=_SAY_DROP)
    if record is not None:
        _check_source(record, base, report)
    request = asked or parse_request(record)
    try:
        plan = plan_upscale(base, request)
    except RequestError as error:
        if asked is not None:
            raise
        raise RequestError(
            f"{RECORD}: what it requests cannot be done with {base.name}: "
            f"{error.message:.{_MAX_QUOTED}}",
            hint="It was made from another source: give that one.",
        ) from None
    if record is not None:
        _check_record(record, plan, report)
    return plan


def compare_with_base(
    checkpoint: Checkpoint,
    base: Checkpoint,
    plan: Plan,
    report: Report,
    *,
    progress: Progress = lambda count: None,
) -> BaseProof:
    """Reports every difference between `checkpoint` and what `plan` makes of `base`: tensors,
    config.json and the files that go along.

    `progress` counts the result's bytes that have been compared, up to
    `plan.scaling.after.tensor_bytes` and the sizes of `plan.carried_files`.

    Raises CheckpointError when the base cannot be read, or does not hold still.
    """
    comparisons = [_compare_tensors(checkpoint, base, plan, report, progress)]
    if not checkpoint.stands_alone:
        compare_documents(checkpoint, plan, report)
        comparisons.append(_compare_files(checkpoint, base, plan, report, progress))
    return BaseProof(
        bytes_read=sum(comparison.bytes_read for comparison in comparisons),
        shared_bytes=sum(comparison.shared_bytes for comparison in comparisons),
    )


def _usable_record(
    checkpoint: Checkpoint, report: Report, *, needed: bool
) -> Mapping[str, Json] | None:
    """The plan in dus.json, if there is one whose request can be read; raises if it is needed."""
    try:
        record = read_record(checkpoint)
    except CheckpointError:
        if needed:
            raise
        # The structural checks report a broken file; without need of it the proof goes on.
        return None
    try:
        if record is not None:
            parse_request(record)
    except (KeyError, TypeError, ValueError, AttributeError):
        if needed:
            raise FormatError(f"{RECORD}: holds no request", hint=_SAY_DROP) from None
        report(Finding(code="record-json", file=RECORD, message="holds no request"))
        return None
    return record


def _check_source(record: Mapping[str, Json], base: Checkpoint, report: Report) -> None:
    given = {
        "config_sha256": base.config_sha256,
        "shards": [
            {"name": shard.name, "size": shard.size, "header_sha256": shard.header_sha256}
            for shard in base.shards
        ],
    }
    for key, value in given.items():
        for field, expected, found in differences(value, record["source"].get(key, ABSENT), key):
            report(
                Finding(
                    code="base-other",
                    file=RECORD,
                    field=f"source.{field}",
                    message=f"was made from a source whose {field} {_is(found)}; of "
                    f"{quoted(base.name)} it {_is(expected)}",
                    hint="Give the source that it was made from, in the same revision.",
                )
            )


def _check_record(record: Mapping[str, Json], plan: Plan, report: Report) -> None:
    planned = plan.to_json()
    for key in _RECORDED:
        for field, expected, found in differences(planned[key], record.get(key, ABSENT), key):
            report(
                Finding(
                    code="base-record",
                    file=RECORD,
                    field=field,
                    message=f"{quoted(field)} {_is(found)}; in the plan it {_is(expected)}",
                )
            )


def compare_documents(checkpoint: Checkpoint, plan: Plan, report: Report) -> None:
    """Reports where config.json and the other files that name layers are not what the rules make
    of the source's."""
    for path, content in plan.rewritten_files.items():
        with reported(report, path, broken="base-file"):
            held = read_small(checkpoint.folder / path, path, limit=_MAX_REWRITTEN_BYTES)
            if held != content:
                message = "is not what the rules make of the source's"
                report(Finding(code="base-file", file=path, message=message))
    if checkpoint.config is None:
        report(Finding(code="base-config", file=plan.config_name, message="is missing"))
        return
    for field, expected, found in differences(plan.scaling.config, checkpoint.config, ""):
        given = "none" if expected is ABSENT else quoted(expected)
        report(
            Finding(
                code="base-config",
                file=plan.config_name,
                field=field,
                message=f"{quoted(field)} {_is(found)}; the rules give {given}",
            )
        )


def _compare_files(
    checkpoint: Checkpoint, base: Checkpoint, plan: Plan, report: Report, progress: Progress
) -> Comparison:
    claims: list[Claim] = []
    for file in plan.carried_files:
        fault = _form_fault(checkpoint.folder / file.path, file.size)
        if fault is not None:
            report(Finding(code="base-file", file=file.path, message=fault))
            continue
        claims.append(
            Claim(
                original=Place(base.folder / file.path, 0),
                size=file.size,
                copies={file.path: Place(checkpoint.folder / file.path, 0)},
            )
        )
    comparison = compare(claims, progress)
    for path, difference in sorted(comparison.differences.items()):
        message = f"differs from the source's in {_extent(difference)}"
        report(Finding(code="base-file", file=path, message=message))
    for path, error in sorted(comparison.unreadable.items()):
        report(Finding(code="file-unreadable", file=path, message=error.message))
    return comparison


def _form_fault(path: Path, size: int) -> str | None:
    """Why the file at `path` cannot be a copy of one of `size` bytes, as far as can be seen."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "is missing; the source has it"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file, but the source's is"
    if status.st_size != size:
        return f"holds {status.st_size} bytes, the source's {size}"
    return None


_Held: TypeAlias = tuple[Shard, TensorInfo]


def _compare_tensors(
    checkpoint: Checkpoint, base: Checkpoint, plan: Plan, report: Report, progress: Progress
) -> Comparison:
    due = {move.name: move for move in moves(base, plan.scaling.scaled)}
    held = {name: (shard, info) for shard, name, info in checkpoint.tensors()}
    comparison = compare(_claims(due, held, checkpoint, base), progress)

    def fault(name: str) -> Finding | None:
        return _tensor_fault(name, due.get(name), held.get(name), comparison)

    extra = (name for name in held if name not in due)
    faulty = [name for name in (*due, *extra) if fault(name) is not None]
    stacks = [scaled.counted.stack for scaled in plan.scaling.scaled]
    for stack in stacks:
        layers = {name: stack.layer_of(name) for name in faulty}
        wrong = {layer for layer in layers.values() if layer is not None}
        if not wrong:
            continue
        planned = dict(_planned_layers(stack, due.values()))
        diagnosis = diagnose(stack, planned, wrong, checkpoint, base, named=len(stacks) > 1)
        for finding in diagnosis.findings:
            report(finding)
        faulty = [name for name in faulty if layers[name] not in diagnosis.explained]
        comparison.bytes_read += diagnosis.bytes_read
    for rest in filter(None, map(fault, faulty)):
        report(rest)
    return comparison


def _claims(
    due: Mapping[str, Move], held: Mapping[str, _Held], checkpoint: Checkpoint, base: Checkpoint
) -> Iterator[Claim]:
    """Tensors that can be compared, in the order of the source's bytes, each with its copies."""
    copies: dict[str, dict[str, Place]] = {}
    for name, move in due.items():
        if name in held and _form(held[name][1]) == _form(move.info):
            shard, info = held[name]
            place = Place(checkpoint.folder / shard.name, shard.header.data_start + info.begin)
            copies.setdefault(move.source, {})[name] = place
    for shard, name, info in base.tensors():
        if name in copies:
            yield Claim(
                original=Place(base.folder / shard.name, shard.header.data_start + info.begin),
                size=info.byte_count,
                copies=copies[name],
            )


def _tensor_fault(
    name: str, move: Move | None, held: _Held | None, comparison: Comparison
) -> Finding | None:
    """What is wrong with the tensor `name`, given where it comes from and where it lies."""
    if held is None and move is not None:
        return Finding(
            code="base-tensor-missing",
            tensor=name,
            message=f"{quoted(name)} is missing; the plan makes it from the source's "
            f"{quoted(move.source)}",
        )
    if held is None:
        return None
    shard, info = held
    code, fact = "base-tensor-extra", "is there, but the plan does not make it"
    if move is not None:
        if _form(info) != _form(move.info):
            code = "base-tensor-form"
            fact = f"is {_shown(info)}, the source's {quoted(move.source)} {_shown(move.info)}"
        elif name in comparison.unreadable:
            code = "file-unreadable"
            fact = f"cannot be compared: {comparison.unreadable[name].message}"
        elif name in comparison.differences:
            code = "base-bytes"
            difference = comparison.differences[name]
            fact = f"differs from the source's {quoted(move.source)} in {_extent(difference)}"
        else:
            return None
    return Finding(code=code, file=shard.name, tensor=name, message=f"{quoted(name)} {fact}")


def _planned_layers(stack: LayerStack, due: Iterable[Move]) -> Iterator[tuple[int, int]]:
    """Layer and source layer of whatever the plan makes in a stack."""
    for move in due:
        layer, source = stack.layer_of(move.name), stack.layer_of(move.source)
        if layer is not None and source is not None:
            yield layer, source


def _form(info: TensorInfo) -> tuple[str, tuple[int, ...]]:
    return info.dtype, info.shape


def _shown(info: TensorInfo) -> str:
    return f"{info.dtype} {quoted(info.shape)}"


def _extent(difference: Difference) -> str:
    count, first = difference.count, difference.first
    return (
        f"{count} {'bytes' if count > 1 else 'byte'}, first at byte {first} "
        f"(0x{difference.found:02x} instead of 0x{difference.expected:02x})"
    )


def _is(value: Json) -> str:
    return "is missing" if value is ABSENT else f"is {quoted(value)}"
