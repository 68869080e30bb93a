"""`dus upscale`: make the deeper checkpoint."""

import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import typer

from dus_cli.cli.output import Line, Output, Styled
from dus_cli.cli.progress import Bars, progress_bars
from dus_cli.cli.running import exit_codes
from dus_cli.cli.wording import (
    clipped,
    in_bytes,
    parse_config_rules,
    parse_size,
    plural,
    staying_behind,
    with_words,
    wrapped,
)
from dus_cli.documents import write_documents
from dus_cli.errors import RequestError
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.folder import CHECKSUMS
from dus_cli.format.json_difference import ABSENT
from dus_cli.format.strict_json import Json, dump_compact
from dus_cli.model.config_rewrite import ConfigChange, ScaledStack
from dus_cli.plan import Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.sources.local import find_source

UPSCALE_SCHEMA: Final = "dus-upscale/1"

_MAX_BAR_COLUMNS = 48
_AROUND_BAR_COLUMNS = 30
_MAX_VALUE_COLUMNS = 60
_INTERRUPTED = "Interrupted. The same command goes on from where it stopped."


def upscale(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SRC", help="Checkpoint folder; needed unless --from-plan names it."
        ),
    ] = None,
    drop: Annotated[
        int | None,
        typer.Option(
            "--drop", "-m", metavar="M", help="Layers that each of the two copies loses (m)."
        ),
    ] = None,
    target_layers: Annotated[
        int | None,
        typer.Option(metavar="S", help="Layers of the result (s = 2(n-m)), instead of --drop."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Target folder (default: ./<name>-dus<S>)."
        ),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Layer stack to scale, as dus inspect names it."),
    ] = None,
    config_rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=RULE",
            help="What to do with a config field: gather, keep, reindex or rekey. Repeatable.",
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Largest output shard, as 5GB or 5GiB (default: the source's largest).",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Hub id of the source, for the model card."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing target once the new is complete.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare the result with the source, byte for byte, too."),
    ] = False,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Add dus-checksums.json, SHA-256 of everything.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole plan and write nothing.")
    ] = False,
    plan_to: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="With --dry-run: save the plan.")
    ] = None,
    from_plan: Annotated[
        str | None, typer.Option(metavar="FILE", help="Run a saved plan; its source is checked.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan and the result as JSON.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the output path and errors only.")
    ] = False,
) -> None:
    """Make the depth up-scaled checkpoint: layers 0..n-m-1, then m..n-1.

    The path of the new checkpoint is printed on stdout, everything else on stderr.

    The same command finishes a run that was interrupted.

    Examples:

      dus upscale mistral-7b --drop 8

      dus upscale mistral-7b --target-layers 48 -o solar --max-shard-size 5GB

      dus upscale mistral-7b --drop 8 --dry-run --plan plan.json

      dus upscale --from-plan plan.json
    """
    output = Output(as_json=as_json, quiet=quiet)
    with exit_codes(output, interrupted=_INTERRUPTED):
        if plan_to is not None and not dry_run:
            raise RequestError("--plan saves the plan of a dry run", hint="Add --dry-run.")
        if dry_run and (verify or checksums):
            raise RequestError(
                "--verify and --checksums are about the result, and a dry run makes none",
                hint="Leave out --dry-run.",
            )
        if from_plan is not None:
            planned = (drop, target_layers, stack, config_rule, max_shard_size, base_model)
            if any(value is not None and value != [] for value in planned):
                raise RequestError(
                    "--from-plan goes with SRC, --output and --force alone: the saved plan says "
                    "the rest",
                    hint="To change it, plan again.",
                )
            plan, checkpoint, target = _load(Path(from_plan), source, out)
        else:
            if source is None:
                raise RequestError(
                    "SRC is missing", hint="Usage: dus upscale SRC --drop M; --help says more."
                )
            if drop is not None and target_layers is not None:
                raise RequestError("--drop and --target-layers say the same", hint="Give one.")
            found = find_source(source)
            checkpoint = _open_folder(found.path, found.name)
            request = UpscaleRequest(
                drop=drop,
                target_layers=target_layers,
                stack=stack,
                config_rules=parse_config_rules(config_rule or []),
                max_shard_size=parse_size(max_shard_size) if max_shard_size else None,
                base_model=base_model or found.base_model,
                revision=found.revision,
            )
            plan = plan_upscale(checkpoint, request)
            target = Path(out or f"{checkpoint.name}-dus{plan.scaling.after.layers}")
        if dry_run:
            _dry_run(plan, checkpoint, target, output, plan_to, force=force)
        else:
            checks = _Checks(bytes_too=verify, checksums=checksums)
            _run(plan, checkpoint, target, output, checks, force=force)


def _open_folder(path: Path, name: str) -> Checkpoint:
    if not path.is_dir():
        raise RequestError(
            f"{path}: is one file", hint="Give the folder that holds it and its config.json."
        )
    return open_checkpoint(path, name=name)


def _load(path: Path, source: str | None, out: str | None) -> tuple[Plan, Checkpoint, Path]:
    from dus_cli.plan_file import check_same, load_plan

    saved = load_plan(path)
    found = find_source(source or str(saved.source))
    checkpoint = _open_folder(found.path, found.name)
    plan = plan_upscale(checkpoint, saved.request)
    check_same(saved, plan, checkpoint)
    return plan, checkpoint, Path(out) if out else saved.output


def _dry_run(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Path,
    output: Output,
    plan_to: str | None,
    *,
    force: bool,
) -> None:
    from dus_cli.execute.write import check_places, free_bytes, output_files
    from dus_cli.plan_file import save_plan

    check_places(checkpoint.folder, target, force=force)
    documents = write_documents(plan, checkpoint.card)
    files = output_files(plan, documents)
    needed, free = sum(file.size for file in files), free_bytes(target)
    if plan_to is not None:
        save_plan(Path(plan_to), plan, checkpoint, target)
    if output.as_json:
        output.result_json(
            {
                "schema": UPSCALE_SCHEMA,
                "dry_run": True,
                "output": str(target),
                "bytes_needed": needed,
                "bytes_free": free,
                "plan": plan.to_json(),
            }
        )
    elif output.quiet:
        output.result_path(target)
    else:
        output.result(_summary(plan, checkpoint, target, output.width))
        output.result(_details(plan, documents, output.width))
        short = "" if needed <= free else ": not enough, unless the file system shares blocks"
        output.result(["", f"{in_bytes(needed)} to write, {in_bytes(free)} free{short}."])
        output.result(["Nothing was written."])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checks:
    """What is done with the finished result, beyond the structural check."""

    bytes_too: bool
    checksums: bool


def _run(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Path,
    output: Output,
    checks: _Checks,
    *,
    force: bool,
) -> None:
    from dus_cli.execute.write import check_places, execute, output_files
    from dus_cli.verify.result import check_result, faults_of

    check_places(checkpoint.folder, target, force=force)
    faults = faults_of(checkpoint)
    output.note(_summary(plan, checkpoint, target, output.width))
    if faults:
        codes = ", ".join(f"{code} ({count})" for code, count in faults.items())
        output.note(_note(f"the source has faults that the result has too: {codes}", output.width))
    started = time.monotonic()
    documents = write_documents(plan, checkpoint.card)
    total = sum(file.size for file in output_files(plan, documents))
    with progress_bars(output) as progress, progress("writing", total) as advance:

        def check(folder: Path) -> Mapping[str, bytes]:
            result = check_result(
                folder,
                plan,
                checkpoint,
                inherited=frozenset(faults),
                bytes_too=checks.bytes_too,
                progress=progress,
            )
            return {CHECKSUMS: _checksums(result, progress)} if checks.checksums else {}

        written = execute(
            plan, checkpoint.folder, target, documents, force=force, progress=advance, check=check
        )
    seconds = time.monotonic() - started
    rate = in_bytes(int(written / max(seconds, 1e-9)))
    proved = ", equal to its source byte for byte" if checks.bytes_too else ""
    output.note([Styled(f"done in {seconds:.1f} s ({rate}/s){proved}", "good")])
    if output.as_json:
        output.result_json(
            {
                "schema": UPSCALE_SCHEMA,
                "dry_run": False,
                "output": str(target),
                "seconds": round(seconds, 3),
                "verified": "bytes" if checks.bytes_too else "structure",
                "plan": plan.to_json(),
            }
        )
    else:
        output.result_path(target)


def _checksums(result: Checkpoint, progress: Bars) -> bytes:
    from dus_cli.verify.checksums import compute_checksums

    with progress("hashing", result.tensor_bytes) as count:
        return compute_checksums(result, progress=count).to_bytes()


def _summary(plan: Plan, checkpoint: Checkpoint, target: Path, width: int) -> Iterator[Line]:
    yield [Styled(checkpoint.name, "title"), " → ", Styled(str(target), "title")]
    before, after = plan.scaling.before, plan.scaling.after
    for scaled in plan.scaling.scaled:
        yield from _picture(scaled, min(_MAX_BAR_COLUMNS, width - _AROUND_BAR_COLUMNS))
    yield f"  parameters  {before.parameters:,} → {with_words(after.parameters)}"
    yield (
        f"  weights     {in_bytes(before.tensor_bytes)} in "
        f"{plural(len(plan.source_shards), 'shard')} → {in_bytes(after.tensor_bytes)} in "
        f"{plural(len(plan.shards), 'shard')}"
    )
    remarks = list(plan.scaling.remarks)
    if plan.request.base_model is None:
        remarks.append(
            f"the model card calls the base model {checkpoint.name!r}, after its folder; "
            "--base-model ORG/NAME gives its Hub id"
        )
    for remark in remarks:
        yield from _note(remark, width)


def _note(text: str, width: int) -> Iterator[Line]:
    first, *more = textwrap.wrap(text, width - 8, break_on_hyphens=False)
    yield [Styled("  note: ", "warning"), first]
    yield from (f"        {line}" for line in more)


def _picture(scaled: ScaledStack, columns: int) -> Iterator[Line]:
    """The two copies above each other on the axis of the output's layers, what is cut in dots."""
    n, sources = scaled.counted.layer_count, scaled.layer_map.sources
    segments = scaled.layer_map.segments()
    yield (f"  {scaled.counted.stack.prefix}: {plural(n, 'layer')} → {len(sources)}")
    for number, segment in enumerate(segments, start=1):
        first, last = sources[segment.start], sources[segment.stop - 1]
        # Where layer 0 of this copy would lie on the output's axis, and where its last one.
        start = segment.start - first
        low = min(part.start - sources[part.start] for part in segments)
        span = max(part.start - sources[part.start] + n for part in segments) - low
        bar = "".join(
            _bar_cell((column + 0.5) * span / columns + low - start, n, first, last)
            for column in range(columns)
        )
        yield f"    copy {number}  {bar}  layers {first}..{last}"
    for before, after in pairwise(segments):
        yield Styled(
            f"    seam    layer {sources[before.stop - 1]} is followed by a copy of layer "
            f"{sources[after.start]}",
            "dim",
        )


def _bar_cell(layer: float, n: int, first: int, last: int) -> str:
    if not 0 <= layer < n:
        return " "
    return "█" if first <= layer < last + 1 else "░"


def _details(plan: Plan, documents: Mapping[str, bytes], width: int) -> Iterator[Line]:
    yield ""
    yield Styled("config.json", "label")
    for change in plan.scaling.config_changes:
        yield f"  {_change(change)}"
    yield ""
    yield Styled("shards", "label")
    for shard in plan.shards:
        sources = ", ".join(dict.fromkeys(span.source for span in shard.spans))
        yield (
            f"  {shard.name}  {in_bytes(shard.size)}, {plural(len(shard.tensor_names), 'tensor')}"
            f" from {sources}"
        )
    for label, items in (
        ("goes along", [f"{file.path} ({in_bytes(file.size)})" for file in plan.carried_files]),
        ("written anew", [f"{name} ({in_bytes(len(text))})" for name, text in documents.items()]),
        ("stays behind", staying_behind(plan.left_out_files)),
    ):
        yield ""
        yield Styled(label, "label")
        for line in wrapped(items, width - 2) or ["nothing"]:
            yield f"  {line}"


def _change(change: ConfigChange) -> str:
    before = "absent" if change.before is ABSENT else _compact(change.before)
    return f"{change.field}: {before} → {_compact(change.after)}  ({change.rule})"


def _compact(value: Json) -> str:
    return clipped(dump_compact(value).decode(), _MAX_VALUE_COLUMNS)
