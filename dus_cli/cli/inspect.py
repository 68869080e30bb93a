"""`dus inspect`: what a checkpoint is."""

import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from dus_cli.cli import hub
from dus_cli.cli.output import Line, Output, Styled
from dus_cli.cli.running import exit_codes
from dus_cli.cli.wording import (
    clipped,
    in_bytes,
    plural,
    ranges,
    rewritten,
    staying_behind,
    with_words,
    wrapped,
)
from dus_cli.errors import RequestError
from dus_cli.format.checkpoint import Shard, open_checkpoint
from dus_cli.format.header import TensorInfo
from dus_cli.format.strict_json import dump_compact
from dus_cli.inspection import Inspection, LayerKind, StackReport, inspect_checkpoint
from dus_cli.sources.find import HubOptions, open_source

_LABEL_COLUMNS = 14
_MAX_LISTED = 12


def inspect(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH",
            help="Checkpoint folder, one .safetensors file, or a model on the Hub.",
        ),
    ] = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor instead of the report.")
    ] = False,
    names: Annotated[
        bool, typer.Option("--names", help="List the short names of models, and what they mean.")
    ] = False,
    revision: hub.Revision = None,
    token: hub.Token = None,
    cache_dir: hub.CacheDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as one JSON document.")
    ] = False,
) -> None:
    """Show what a checkpoint is: architecture, layers, sizes, and what --drop n/4 would give.

    Reads headers, index and config.json only, never weights, and fetches no more from the Hub.

    Examples:

      dus inspect mistral-7b

      dus inspect mistral-7b --tensors

      dus inspect mistral-7b --json | jq .parameters

      dus inspect Qwen/Qwen3-8B-Base@main
    """
    output = Output(as_json=as_json)
    with exit_codes(output):
        if names:
            _list_names(output)
            return
        if path is None:
            raise RequestError("PATH is missing", hint="Usage: dus inspect PATH; --help says more.")
        options = HubOptions(revision=revision, token=token, cache_dir=cache_dir)
        with open_source(path, options, hub.remarks(output)) as source:
            checkpoint = open_checkpoint(source.path, name=source.name, unfetched=source.unfetched)
            hub.tell_traffic(source, output)
            if tensors and not as_json:
                output.result(_tensor_lines(checkpoint.tensors()))
                return
            inspection = inspect_checkpoint(checkpoint)
            if as_json:
                output.result_json(inspection.to_json(with_tensors=tensors))
            else:
                output.result(_report(inspection, path, output.width))


def _list_names(output: Output) -> None:
    from dus_cli.sources.names import SHORT_NAMES

    if output.as_json:
        output.result_json({"schema": "dus-names/1", "names": dict(SHORT_NAMES)})
    else:
        columns = max(map(len, SHORT_NAMES))
        output.result(f"{short:<{columns}}  {full}" for short, full in SHORT_NAMES.items())


def _tensor_lines(tensors: Iterator[tuple[Shard, str, TensorInfo]]) -> Iterator[Line]:
    for shard, name, info in tensors:
        yield (
            f"{info.dtype:<8}  {_shape(info.shape):<16}  {info.begin:>12}  {info.end:>12}  "
            f"{shard.name}  {name}"
        )


def _report(inspection: Inspection, path: str, width: int) -> Iterator[Line]:
    checkpoint = inspection.checkpoint
    yield Styled(checkpoint.name, "title")
    if inspection.architecture or inspection.model_type:
        kind = f" (model type {inspection.model_type})" if inspection.model_type else ""
        yield _field("architecture", f"{inspection.architecture or 'not stated'}{kind}")
    yield _field(
        "parameters",
        with_words(inspection.parameter_count),
    )
    yield _field(
        "tensors",
        f"{inspection.tensor_count:,} in {plural(len(checkpoint.shards), 'shard')}, "
        f"{inspection.tensor_bytes:,} bytes"
        + (f" ({in_bytes(inspection.tensor_bytes)})" if inspection.tensor_bytes >= 1000 else ""),
    )
    yield from _listed(
        "dtypes",
        [
            f"{dtype} ({plural(count, 'tensor')}; {in_bytes(size)})"
            for dtype, (count, size) in inspection.dtypes.items()
        ],
        width,
    )
    if inspection.head:
        yield _field("head", inspection.head)
    if inspection.problem:
        first, *more = textwrap.wrap(
            inspection.problem, width - _LABEL_COLUMNS, break_on_hyphens=False
        )
        yield [Styled(f"{'problem':<{_LABEL_COLUMNS}}", "error"), first]
        yield from (" " * _LABEL_COLUMNS + line for line in more)
    for report in inspection.stacks:
        yield ""
        yield from _stack_lines(report, width)
    if inspection.outside:
        yield ""
        yield Styled("outside the layers", "label")
        yield from _outside_lines(inspection)
    if inspection.position_fields:
        yield ""
        yield Styled("config fields that depend on layers", "label")
        for name, kind, value in inspection.position_fields:
            room = max(width - len(name) - len(kind) - 9, 8)
            shown = "absent" if value is None else clipped(dump_compact(value).decode(), room)
            yield f"  {name} = {shown}  ({kind})"
    if checkpoint.config is not None:
        yield ""
        yield from _listed("goes along", [f.path for f in checkpoint.carried_files], width)
        left_out = checkpoint.left_out_files
        yield from _listed("written anew", rewritten(left_out), width)
        yield from _listed("stays behind", staying_behind(left_out), width)
    yield from _preview_lines(inspection, path, width)


def _stack_lines(report: StackReport, width: int) -> Iterator[Line]:
    stack, counted = report.stack, report.counted
    layers = counted.layer_count if counted else stack.layer_count
    trailing = counted.trailing_count if counted else 0
    more = f" and {plural(trailing, 'trailing layer')} (MTP)" if trailing else ""
    yield [Styled(stack.prefix, "label"), f"  {plural(layers, 'layer')}{more}"]
    if len(report.kinds) == 1:
        yield f"  all alike: {_kind(report.kinds[0])}"
        return
    for kind in report.kinds[:_MAX_LISTED]:
        noun = "layer" if len(kind.layers) == 1 else "layers"
        yield f"  {noun} {ranges(kind.layers)}: {_kind(kind)}"
        for sign, names in (("+", kind.added), ("-", kind.missing)):
            if names:
                rest = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
                yield Styled(f"    {sign} {clipped(names[0], width - 6 - len(rest))}{rest}", "dim")
    if len(report.kinds) > _MAX_LISTED:
        yield f"  and {len(report.kinds) - _MAX_LISTED} more kinds (--json lists all)"


def _kind(kind: LayerKind) -> str:
    return f"{plural(kind.tensor_count, 'tensor')}, {kind.parameter_count:,} parameters each"


def _outside_lines(inspection: Inspection) -> Iterator[Line]:
    shown = inspection.outside[:_MAX_LISTED]
    columns = min(max((len(name) for name, _ in shown), default=0), 44)
    for name, info in shown:
        yield f"  {name:<{columns}}  {info.dtype:<5} {_shape(info.shape)}"
    if len(inspection.outside) > len(shown):
        yield f"  and {len(inspection.outside) - len(shown):,} more (--tensors lists all)"


def _preview_lines(inspection: Inspection, path: str, width: int) -> Iterator[Line]:
    preview = inspection.preview
    if preview is None:
        return
    yield ""
    yield [Styled(f"dus upscale {path} --drop {preview.drop}", "title"), "  (n/4, as in the paper)"]
    if preview.refusal:
        yield from textwrap.indent(
            textwrap.fill(f"is not possible: {preview.refusal}", width - 2), "  "
        ).splitlines()
        return
    yield (
        f"  {plural(preview.layers, 'layer')}, {with_words(preview.parameters, 'parameters')}, "
        f"{in_bytes(preview.tensor_bytes)}"
    )


def _listed(label: str, items: list[str], width: int) -> Iterator[Line]:
    lines = wrapped(items, width - _LABEL_COLUMNS) or ["nothing"]
    yield _field(label, lines[0])
    for line in lines[1:]:
        yield " " * _LABEL_COLUMNS + line


def _field(label: str, text: str) -> Line:
    return [Styled(f"{label:<{_LABEL_COLUMNS}}", "label"), text]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"
