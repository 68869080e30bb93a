"""A plan saved for later: the plan, where its source lies, and what the source looked like.

A saved plan is never trusted. It is made again from its request and its source, and run only if
the two are equal; so a source that has changed, an edited file, and a plan of another version of
`dus` are all refused for what they are.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from dus_cli.errors import CheckpointError, OutputError
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.files import read_small
from dus_cli.format.json_difference import differences
from dus_cli.format.strict_json import Json, dump_pretty, parse_object
from dus_cli.model.config_rules import FieldKind
from dus_cli.plan import Plan
from dus_cli.scaling import UpscaleRequest

PLAN_FILE_SCHEMA: Final = "dus-plan-file/1"
_MAX_BYTES: Final = 1_000_000_000

_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What a plan file holds; `source` is an absolute path or a name on the Hub with its commit,
    `output` an absolute path."""

    source: str
    output: Path
    request: UpscaleRequest
    plan: Mapping[str, Json]
    files: Mapping[str, Json]


def save_plan(path: Path, plan: Plan, checkpoint: Checkpoint, output: Path, *, source: str) -> None:
    """Writes the plan file, whole or not at all; an existing plan file at `path` is replaced.

    `source` is what leads to the checkpoint again.

    Raises OutputError when it cannot be written, lies in the source, or would replace something
    else than a plan file.
    """
    if Path(os.path.realpath(checkpoint.folder)) in Path(os.path.realpath(path)).parents:
        raise OutputError(f"{path}: lies inside the source", hint="Save the plan elsewhere.")
    if os.path.lexists(path) and not _is_plan_file(path):
        raise OutputError(f"{path}: exists and is no plan file", hint="Choose another name.")
    content = dump_pretty(
        {
            "schema": PLAN_FILE_SCHEMA,
            "source": source,
            "output": str(output.absolute()),
            "files": _seen(plan, checkpoint),
            "plan": plan.to_json(with_headers=True),
        }
    )
    partial = path.with_name(f".{path.name}.dus-partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def load_plan(path: Path) -> PlanFile:
    """The plan file at `path`.

    Raises CheckpointError when it cannot be read or is no plan file of this version.
    """
    value = parse_object(read_small(path, str(path), limit=_MAX_BYTES), str(path), non_finite=True)
    if value.get("schema") != PLAN_FILE_SCHEMA:
        raise CheckpointError(
            f"{path}: is not a plan file ({PLAN_FILE_SCHEMA})",
            hint="Write one with dus upscale SRC --drop M --dry-run --plan FILE.",
        )
    try:
        return PlanFile(
            source=str(value["source"]),
            output=Path(value["output"]),
            request=parse_request(value["plan"]),
            plan=value["plan"],
            files=value["files"],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{path}: is a damaged plan file", hint="Write it again.") from None


def parse_request(plan: Json) -> UpscaleRequest:
    """The request that `plan`, made by `Plan.to_json` or by somebody else, says it came from.

    Raises KeyError, TypeError, ValueError or AttributeError where it says none.
    """
    request, source = plan["request"], plan["source"]
    return UpscaleRequest(
        drop=_optional(request["drop"], int),
        target_layers=_optional(request["target_layers"], int),
        stack=_optional(request["stack"], str),
        config_rules={name: FieldKind(kind) for name, kind in request["config_rules"].items()},
        max_shard_size=_optional(request["max_shard_size"], int),
        base_model=_optional(source["base_model"], str),
        revision=_optional(source["revision"], str),
    )


def _optional(value: Json, kind: type[_T]) -> _T | None:
    # `type(...) is`, because True is an int to isinstance and no number of layers to anybody.
    if value is not None and type(value) is not kind:
        raise TypeError(f"{value!r:.60} is no {kind.__name__}")
    return value


def check_same(saved: PlanFile, plan: Plan, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError when `plan`, made just now, is not the saved one."""
    now = plan.to_json(with_headers=True)
    if now["dus_version"] != saved.plan.get("dus_version"):
        raise CheckpointError(
            f"the plan was made by dus {saved.plan.get('dus_version')}, this is "
            f"{now['dus_version']}",
            hint="Plan again; it takes a second.",
        )
    difference = next((path for path, _, _ in differences(saved.plan, now)), None)
    seen = _seen(plan, checkpoint)
    if difference is None and saved.files != seen:
        changed = [name for name in seen if saved.files.get(name) != seen[name]]
        difference = f"time of change of {', '.join(changed[:3])}"
    if difference is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: the source has changed since the plan was made (first "
            f"difference: {difference})",
            hint="Look at what changed, then plan again; a moved or copied source needs a new plan "
            "too.",
        )


def _seen(plan: Plan, checkpoint: Checkpoint) -> dict[str, Json]:
    """Size in bytes and time of last change (ns) of every file that is copied; of a commit on the
    Hub, which does not change, the size alone."""
    names = [shard.name for shard in checkpoint.shards]
    names += [file.path for file in checkpoint.carried_files]
    seen: dict[str, Json] = {}
    for name in names:
        status = os.stat(checkpoint.folder / name)
        seen[name] = {"size": status.st_size}
        if plan.request.revision is None:
            seen[name]["mtime_ns"] = status.st_mtime_ns
    return seen


def _is_plan_file(path: Path) -> bool:
    try:
        load_plan(path)
    except CheckpointError:
        return False
    return True
