"""The plan of an up-scaling: a value that says where every output byte comes from.

Planning reads nothing and writes nothing. The same checkpoint and request give the same plan,
byte for byte, on every machine.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from dus_cli import __version__
from dus_cli.errors import RequestError
from dus_cli.format.checkpoint import Checkpoint, Shard
from dus_cli.format.folder import CarriedFile, LeftOutFile
from dus_cli.format.header import TensorInfo, frame_header, header_text
from dus_cli.format.index import INDEX_SUFFIX, ShardIndex, serialize_index
from dus_cli.format.json_difference import ABSENT
from dus_cli.format.strict_json import Json, dump_pretty
from dus_cli.model.config_rewrite import ConfigChange, ScaledStack
from dus_cli.model.layer_map import LayerMap
from dus_cli.scaling import Scaling, Totals, UpscaleRequest, scale

PLAN_SCHEMA: Final = "dus-plan/1"

BLOCK_BYTES: Final = 4096
"""File systems share whole blocks; a span can be shared when its offsets in source and target
are equal modulo the block size, which is 4096 bytes by default on XFS, Btrfs and bcachefs."""

_ALIGNMENT: Final = 8
"""Data sections begin at a multiple of 8 bytes, as the safetensors library writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySpan:
    """Bytes `begin` to `end` (half-open) of file `source`, to be put at offset `target`."""

    source: str
    begin: int
    end: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputShard:
    """One finished output file: its first bytes, and spans that fill the rest of its `size`."""

    name: str
    size: int
    header: bytes
    tensor_names: tuple[str, ...]
    spans: tuple[CopySpan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the writer, the model card and a verification need to know."""

    request: UpscaleRequest
    source_name: str
    source_shards: tuple[Shard, ...]
    config_name: str
    source_config_sha256: str
    scaling: Scaling
    stem: str
    shards: tuple[OutputShard, ...]
    carried_files: tuple[CarriedFile, ...]
    left_out_files: tuple[LeftOutFile, ...]

    @property
    def config_file(self) -> bytes:
        return dump_pretty(self.scaling.config)

    @property
    def rewritten_files(self) -> dict[str, bytes]:
        """Path -> bytes of files beside config.json that name layers."""
        return {file.path: dump_pretty(file.value) for file in self.scaling.rewritten_files}

    @property
    def index_file(self) -> tuple[str, bytes] | None:
        """Name and bytes of the shard index; None where one file holds everything."""
        if len(self.shards) == 1:
            return None
        weight_map = {name: shard.name for shard in self.shards for name in shard.tensor_names}
        index = ShardIndex(
            weight_map=dict(sorted(weight_map.items())),
            metadata={"total_size": self.scaling.after.tensor_bytes},
        )
        return f"{self.stem}{INDEX_SUFFIX}", serialize_index(index)

    def to_json(self, *, with_headers: bool = False) -> dict[str, Json]:
        """The plan as JSON values (docs/plan-format.md).

        `with_headers` adds each output shard's header, which the written shard holds anyway.
        """
        request = self.request
        return {
            "schema": PLAN_SCHEMA,
            "dus_version": __version__,
            "request": {
                "drop": request.drop,
                "target_layers": request.target_layers,
                "stack": request.stack,
                "config_rules": {key: kind.value for key, kind in request.config_rules.items()},
                "max_shard_size": request.max_shard_size,
            },
            "source": {
                "name": self.source_name,
                "base_model": request.base_model,
                "revision": request.revision,
                "config_sha256": self.source_config_sha256,
                "shards": [
                    {"name": shard.name, "size": shard.size, "header_sha256": shard.header_sha256}
                    for shard in self.source_shards
                ],
            },
            "stacks": [_stack_json(scaled) for scaled in self.scaling.scaled],
            "before": _totals_json(self.scaling.before),
            "after": _totals_json(self.scaling.after),
            "config_changes": [_change_json(change) for change in self.scaling.config_changes],
            "shards": [_shard_json(shard, with_headers) for shard in self.shards],
            "rewritten_files": [
                {"path": file.path, "source_sha256": file.source_sha256}
                for file in self.scaling.rewritten_files
            ],
            "carried_files": [
                {"path": file.path, "size": file.size} for file in self.carried_files
            ],
            "left_out_files": [
                {"path": file.path, "reason": file.reason} for file in self.left_out_files
            ],
            "remarks": list(self.scaling.remarks),
        }


def plan_upscale(checkpoint: Checkpoint, request: UpscaleRequest) -> Plan:
    """The plan that turns `checkpoint` into the deeper one that `request` describes.

    Raises RequestError when that is impossible or the config cannot express it, CheckpointError
    when the checkpoint contradicts itself.
    """
    scaling = scale(checkpoint, request)
    shards = _lay_out(checkpoint, scaling.scaled, request.max_shard_size)
    names = {shard.name for shard in shards}
    clash = next((file.path for file in checkpoint.carried_files if file.path in names), None)
    if clash is not None:
        raise RequestError(f"{clash} is carried along, but an output shard has the same name")
    rewritten = {file.path for file in scaling.rewritten_files}
    return Plan(
        request=request,
        source_name=checkpoint.name,
        source_shards=checkpoint.shards,
        config_name=checkpoint.config_name,
        source_config_sha256=checkpoint.config_sha256 or "",
        scaling=scaling,
        stem=checkpoint.stem,
        shards=shards,
        carried_files=tuple(
            file for file in checkpoint.carried_files if file.path not in rewritten
        ),
        left_out_files=checkpoint.left_out_files,
    )


@dataclass(frozen=True, slots=True)
class Move:
    """One tensor on its way: `source` of `shard` goes to an output file, as `name`."""

    shard: Shard
    source: str
    name: str
    info: TensorInfo


def moves(checkpoint: Checkpoint, scaled: Sequence[ScaledStack]) -> Iterator[Move]:
    """Every tensor that an up-scaling makes of `checkpoint`, wherever it is to lie."""
    return chain.from_iterable(_passes(checkpoint, scaled))


def _lay_out(
    checkpoint: Checkpoint, scaled: Sequence[ScaledStack], max_shard_size: int | None
) -> tuple[OutputShard, ...]:
    """Output shards that follow the source's byte order, so that spans are few and long.

    Without a size of the user's, an output shard takes from one source shard alone: its spans
    are then congruent with the source modulo the block size, none gets larger than the largest
    source shard, and each can be made when only that shard is at hand.
    """
    limit = max_shard_size or max(shard.size for shard in checkpoint.shards)
    drafts: list[OutputShard] = []
    group: list[Move] = []
    group_bytes = 0
    for one_pass in _passes(checkpoint, scaled):
        for move in one_pass:
            size = move.info.byte_count
            foreign = max_shard_size is None and group and group[-1].shard is not move.shard
            if group and (foreign or group_bytes + size > limit):
                drafts += _fitting(group, limit)
                group, group_bytes = [], 0
            group.append(move)
            group_bytes += size
        if max_shard_size is None and group:
            drafts += _fitting(group, limit)
            group, group_bytes = [], 0
    if group:
        drafts += _fitting(group, limit)
    count = len(drafts)
    return tuple(
        OutputShard(
            name=f"{checkpoint.stem}.safetensors"
            if count == 1
            else f"{checkpoint.stem}-{number:05d}-of-{count:05d}.safetensors",
            size=draft.size,
            header=draft.header,
            tensor_names=draft.tensor_names,
            spans=draft.spans,
        )
        for number, draft in enumerate(drafts, start=1)
    )


def _passes(checkpoint: Checkpoint, scaled: Sequence[ScaledStack]) -> Iterator[Iterator[Move]]:
    """The source read once for each segment of the layer map; everything outside the scaled
    layers goes with the first."""
    segments = [stack.layer_map.segments() for stack in scaled]

    def one_pass(number: int) -> Iterator[Move]:
        for shard, name, info in checkpoint.tensors():
            for stack, parts in zip(scaled, segments, strict=True):
                counted, layer_map = stack.counted, stack.layer_map
                layer = counted.stack.layer_of(name)
                if layer is None:
                    continue
                if layer >= counted.layer_count:
                    # Multi-token-prediction layers stay behind the last layer.
                    outputs = [layer - counted.layer_count + layer_map.layer_count][number:]
                else:
                    outputs = _outputs_in(layer_map, layer, parts, number)
                for output in outputs:
                    yield Move(shard, name, counted.stack.rename(name, layer=output), info)
                break
            else:
                if number == 0:
                    yield Move(shard, name, name, info)

    for number in range(max(len(parts) for parts in segments)):
        yield one_pass(number)


def _outputs_in(
    layer_map: LayerMap, layer: int, segments: Sequence[range], number: int
) -> list[int]:
    """Output layers of source `layer` in segment `number`: none or one, as sources ascend there."""
    if number >= len(segments):
        return []
    segment = segments[number]
    output = segment.start + layer - layer_map.sources[segment.start]
    return [output] if output in segment else []


def _fitting(group: Sequence[Move], limit: int) -> Iterator[OutputShard]:
    """`group` as one file, or as several where the header makes it larger than `limit`."""
    rest = list(group)
    while rest:
        draft, count = _draft(rest, limit), len(rest)
        if draft.size > limit:
            # The most tensors that fit, but one at least, however large it is.
            fitting = bisect_right(
                range(1, count), limit, key=lambda tried: _draft(rest[:tried], limit).size
            )
            count = max(fitting, 1)
            draft = _draft(rest[:count], limit)
        yield draft
        rest = rest[count:]


def _draft(group: Sequence[Move], limit: int) -> OutputShard:
    """A nameless output file of the tensors in `group`, side by side in that order."""
    placed: list[tuple[str, TensorInfo]] = []
    spans: list[CopySpan] = []
    position = 0
    for move in group:
        info = move.info
        end = position + info.byte_count
        placed.append(
            (move.name, TensorInfo(dtype=info.dtype, shape=info.shape, begin=position, end=end))
        )
        if info.byte_count:
            begin = move.shard.header.data_start + info.begin
            _append_span(spans, move.shard.name, begin, begin + info.byte_count, position)
        position = end
    metadata = {key: value for move in group for key, value in move.shard.header.metadata.items()}
    text = header_text(placed, metadata)
    header = frame_header(text, data_start=_shareable_start(spans), modulus=BLOCK_BYTES)
    if len(header) + position > limit:
        header = frame_header(text, data_start=0, modulus=_ALIGNMENT)
    data_start = len(header)
    return OutputShard(
        name="",
        size=data_start + position,
        header=header,
        tensor_names=tuple(move.name for move in group),
        spans=tuple(
            CopySpan(
                source=span.source,
                begin=span.begin,
                end=span.end,
                target=data_start + span.target,
            )
            for span in spans
        ),
    )


def _append_span(spans: list[CopySpan], source: str, begin: int, end: int, target: int) -> None:
    """Adds a span, as part of the one before it where both go on without a gap."""
    if spans and spans[-1].source == source and spans[-1].end == begin:
        last = spans.pop()
        begin, target = last.begin, last.target
    spans.append(CopySpan(source=source, begin=begin, end=end, target=target))


def _shareable_start(spans: Iterable[CopySpan]) -> int:
    """Where the data must begin, modulo the block size, for most bytes to be shareable.

    `target` counts from the start of the data here. Only starts that keep the usual alignment
    are considered.
    """
    weight: Counter[int] = Counter()
    for span in spans:
        start = (span.begin - span.target) % BLOCK_BYTES
        if start % _ALIGNMENT == 0:
            weight[start] += span.end - span.begin
    return max(weight, key=lambda start: (weight[start], -start), default=0)


def _stack_json(scaled: ScaledStack) -> dict[str, Json]:
    counted = scaled.counted
    return {
        "prefix": counted.stack.prefix,
        "source_layers": counted.layer_count,
        "output_layers": scaled.layer_map.layer_count,
        "trailing_layers": counted.trailing_count,
        "count_fields": [".".join((*counted.section, name)) for name in counted.count_fields],
        "layer_map": list(scaled.layer_map.sources),
    }


def _totals_json(totals: Totals) -> dict[str, Json]:
    return {
        "layers": totals.layers,
        "parameters": totals.parameters,
        "tensor_bytes": totals.tensor_bytes,
    }


def _change_json(change: ConfigChange) -> dict[str, Json]:
    before = {} if change.before is ABSENT else {"before": change.before}
    return {"field": change.field, **before, "after": change.after, "rule": change.rule}


def _shard_json(shard: OutputShard, with_header: bool) -> dict[str, Json]:
    spans = [
        {"source": span.source, "begin": span.begin, "end": span.end, "target": span.target}
        for span in shard.spans
    ]
    described: dict[str, Json] = {
        "name": shard.name,
        "size": shard.size,
        "tensors": len(shard.tensor_names),
        "header_bytes": len(shard.header),
        "spans": spans,
    }
    if with_header:
        described["header"] = shard.header[8:].decode("utf-8")
    return described
