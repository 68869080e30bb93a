"""What is asked of a model, and what becomes of its layers, config and size: no file yet."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.strict_json import Json, same_json
from dus_cli.model.architecture import CountedStack, choose_stacks
from dus_cli.model.config_rewrite import ConfigChange, ScaledStack, rewrite_config
from dus_cli.model.config_rules import FieldKind
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.layer_names import rename_layers
from dus_cli.model.stack import find_stacks


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """What the user asks for; exactly one of `drop` (m) and `target_layers` (s) is given.

    `max_shard_size` is in bytes; None keeps to the source's shards. `base_model` is the Hub id
    for the model card, `revision` the commit, where they are known.
    """

    drop: int | None = None
    target_layers: int | None = None
    stack: str | None = None
    config_rules: Mapping[str, FieldKind] = field(default_factory=dict)
    max_shard_size: int | None = None
    base_model: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Layers of the scaled stacks, stored elements, and bytes of tensors."""

    layers: int
    parameters: int
    tensor_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrittenFile:
    """A file beside config.json that names layers: its new value, and the SHA-256 of the old."""

    path: str
    value: Json
    source_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What an up-scaling makes of a model, before any file is laid out."""

    scaled: tuple[ScaledStack, ...]
    config: dict[str, Json]
    config_changes: tuple[ConfigChange, ...]
    rewritten_files: tuple[RewrittenFile, ...]
    before: Totals
    after: Totals
    remarks: tuple[str, ...]


def scale(checkpoint: Checkpoint, request: UpscaleRequest) -> Scaling:
    """Chooses the stacks, maps their layers and rewrites the config, as `request` says.

    Raises RequestError when that is impossible or the config cannot express it, CheckpointError
    when the checkpoint contradicts itself.
    """
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.folder}: has no config.json",
            hint="Without it nobody can load the model; give the folder that holds it.",
        )
    tensor_names = [name for _, name, _ in checkpoint.tensors()]
    stacks = find_stacks(tensor_names)
    scaled = tuple(
        ScaledStack(counted=counted, layer_map=_layer_map(counted, request))
        for counted in choose_stacks(checkpoint.config, stacks, request.stack)
    )
    _refuse_named_metadata(checkpoint, scaled)
    before, after = _totals(checkpoint, scaled)
    rewritten = rewrite_config(checkpoint.config, scaled, request.config_rules, tensor_names)
    return Scaling(
        scaled=scaled,
        config=rewritten.config,
        config_changes=rewritten.changes,
        rewritten_files=tuple(_rewritten_files(checkpoint, scaled, tensor_names)),
        before=before,
        after=after,
        remarks=(*rewritten.remarks, *_remarks(scaled)),
    )


def _rewritten_files(
    checkpoint: Checkpoint, scaled: Sequence[ScaledStack], tensor_names: Sequence[str]
) -> Iterator[RewrittenFile]:
    for file in checkpoint.quantisation_files:
        if file.value is None:
            raise CheckpointError(
                f"{file.path}: cannot be read as a JSON object, and may name layers",
                hint="Correct the file, or remove it if config.json says the same.",
            )
        value = rename_layers(
            file.value,
            subject=file.path,
            path="the file",
            tensor_names=tensor_names,
            scaled=[(stack.counted, stack.layer_map) for stack in scaled],
        )
        if not same_json(value, file.value):
            yield RewrittenFile(path=file.path, value=value, source_sha256=file.sha256)


def _layer_map(counted: CountedStack, request: UpscaleRequest) -> LayerMap:
    n, prefix = counted.layer_count, counted.stack.prefix
    if request.target_layers is not None:
        s = request.target_layers
        if s % 2 or not 2 <= s <= 2 * n:
            raise RequestError(
                f"--target-layers {s}: not reachable from the {n} layers of {prefix}",
                hint=f"Two copies that lose m layers each give 2 x ({n} - m): an even number "
                f"from 2 to {2 * n}.",
            )
        m = n - s // 2
    elif request.drop is not None:
        m = request.drop
    else:
        raise RequestError(
            "--drop M or --target-layers S is missing",
            hint=f"The paper drops a quarter of the {n} layers: --drop {n // 4}.",
        )
    if not 0 <= m < n:
        raise RequestError(
            f"--drop {m}: {prefix} has {n} layers, so it must be from 0 to {n - 1}",
            hint=f"The paper drops a quarter: --drop {n // 4}.",
        )
    return LayerMap.depth_upscale(n, m)


def _remarks(scaled: Sequence[ScaledStack]) -> Iterator[str]:
    """What is allowed but unusual."""
    for stack in scaled:
        n, s = stack.counted.layer_count, stack.layer_map.layer_count
        if s == 2 * n:
            yield (
                "m = 0 joins the last layer to the first, which the paper advises against: the "
                "layers at the seam are the least alike"
            )
        elif s == n:
            yield f"m = n/2 leaves the model as deep as it was, {n} layers"
        elif s < n:
            yield f"m > n/2 makes the model shallower: {s} layers from {n}"


def _refuse_named_metadata(checkpoint: Checkpoint, scaled: Sequence[ScaledStack]) -> None:
    for shard in checkpoint.shards:
        for key in shard.header.metadata:
            if any(stack.counted.stack.layer_of(key) is not None for stack in scaled):
                raise RequestError(
                    f"{shard.name}: the header's metadata describes single tensors ({key!r}), "
                    "which dus cannot renumber",
                    hint="Such files are written for torchao tensors; up-scale the unquantised "
                    "model instead.",
                )


def _totals(checkpoint: Checkpoint, scaled: Sequence[ScaledStack]) -> tuple[Totals, Totals]:
    copies = [Counter(stack.layer_map.sources) for stack in scaled]
    parameters = tensor_bytes = extra_parameters = extra_bytes = 0
    for _, name, info in checkpoint.tensors():
        elements = info.element_count
        parameters += elements
        tensor_bytes += info.byte_count
        for stack, copies_of in zip(scaled, copies, strict=True):
            layer = stack.counted.stack.layer_of(name)
            if layer is not None and layer < stack.counted.layer_count:
                extra_parameters += elements * (copies_of[layer] - 1)
                extra_bytes += info.byte_count * (copies_of[layer] - 1)
    return (
        Totals(
            layers=sum(stack.counted.layer_count for stack in scaled),
            parameters=parameters,
            tensor_bytes=tensor_bytes,
        ),
        Totals(
            layers=sum(stack.layer_map.layer_count for stack in scaled),
            parameters=parameters + extra_parameters,
            tensor_bytes=tensor_bytes + extra_bytes,
        ),
    )
