"""A plan as people read it: the picture of the copies, sizes, and every change."""

import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from dus_cli.cli.output import Line, Styled
from dus_cli.cli.wording import clipped, in_bytes, plural, staying_behind, with_words, wrapped
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.json_difference import ABSENT
from dus_cli.format.strict_json import Json, dump_compact
from dus_cli.model.config_rewrite import ConfigChange, ScaledStack
from dus_cli.plan import Plan

_MAX_BAR_COLUMNS: Final = 48
_AROUND_BAR_COLUMNS: Final = 30
_MAX_VALUE_COLUMNS: Final = 60


def summary(plan: Plan, checkpoint: Checkpoint, target: str, width: int) -> Iterator[Line]:
    """The picture, sizes before and after, and what the user should know.

    `target` is where the result goes.
    """
    yield [Styled(checkpoint.name, "title"), " → ", Styled(target, "title")]
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
        yield from note_lines(remark, width)


def note_lines(text: str, width: int) -> Iterator[Line]:
    """A remark, indented and marked as one."""
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


def details(plan: Plan, documents: Mapping[str, bytes], width: int) -> Iterator[Line]:
    """Every change, every shard, and what becomes of every other file."""
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
