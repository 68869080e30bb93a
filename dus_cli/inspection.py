"""What a checkpoint is, in one value: the content of `dus inspect`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dus_cli.errors import DusError
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.header import TensorInfo
from dus_cli.format.strict_json import Json
from dus_cli.model.architecture import CountedStack, Section, choose_stacks, section_at
from dus_cli.model.config_rewrite import model_type_of
from dus_cli.model.config_rules import FIELDS, FieldKind
from dus_cli.model.position_rules import POSITION_RULES
from dus_cli.model.stack import LayerStack, find_stacks
from dus_cli.scaling import UpscaleRequest, scale

INSPECT_SCHEMA: Final = "dus-inspect/1"

_HEAD_SUFFIXES: Final = ("lm_head.weight", "embed_out.weight", "output.weight")


_Described = tuple[str, str, tuple[int, ...]]
"""A parameter's name in its layer, its dtype and its shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """Layers of a stack that hold tensors of the same names, dtypes and shapes.

    `added` and `missing` compare with the stack's commonest kind.
    """

    layers: tuple[int, ...]
    tensor_count: int
    parameter_count: int
    added: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackReport:
    """One stack: what the names say, and, where the config counts it, by which fields."""

    stack: LayerStack
    kinds: tuple[LayerKind, ...]
    counted: CountedStack | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalePreview:
    """What `--drop` n/4 would give, or the reason why it is not possible."""

    drop: int
    layers: int = 0
    parameters: int = 0
    tensor_bytes: int = 0
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything that headers, index and config tell; counts are of stored elements and bytes."""

    checkpoint: Checkpoint
    architecture: str | None
    model_type: str | None
    parameter_count: int
    tensor_count: int
    tensor_bytes: int
    dtypes: Mapping[str, tuple[int, int]]
    stacks: tuple[StackReport, ...]
    other_groups: tuple[LayerStack, ...]
    outside: tuple[tuple[str, TensorInfo], ...]
    head: str | None
    position_fields: tuple[tuple[str, str, Json], ...]
    preview: UpscalePreview | None
    problem: str | None

    def to_json(self, *, with_tensors: bool) -> dict[str, Json]:
        """The report as JSON values (docs/commands.md)."""
        checkpoint = self.checkpoint
        value: dict[str, Json] = {
            "schema": INSPECT_SCHEMA,
            "name": checkpoint.name,
            "architecture": self.architecture,
            "model_type": self.model_type,
            "parameters": self.parameter_count,
            "tensors": self.tensor_count,
            "tensor_bytes": self.tensor_bytes,
            "dtypes": {
                dtype: {"tensors": tensors, "bytes": size}
                for dtype, (tensors, size) in self.dtypes.items()
            },
            "shards": [
                {
                    "name": shard.name,
                    "size": shard.size,
                    "tensors": len(shard.header.tensors),
                    "metadata": dict(shard.header.metadata),
                }
                for shard in checkpoint.shards
            ],
            "stacks": [_stack_json(report) for report in self.stacks],
            "outside_layers": [
                {"name": name, "dtype": info.dtype, "shape": list(info.shape)}
                for name, info in self.outside
            ],
            "head": self.head,
            "per_layer_fields": [
                {"field": name, "kind": kind, "value": value}
                for name, kind, value in self.position_fields
            ],
            "carried_files": [
                {"path": file.path, "size": file.size} for file in checkpoint.carried_files
            ],
            "left_out_files": [
                {"path": file.path, "reason": file.reason} for file in checkpoint.left_out_files
            ],
            "upscale_preview": _preview_json(self.preview),
            "problem": self.problem,
        }
        if with_tensors:
            value["tensor_list"] = [
                {
                    "name": name,
                    "dtype": info.dtype,
                    "shape": list(info.shape),
                    "shard": shard.name,
                    "data_offsets": [info.begin, info.end],
                }
                for shard, name, info in checkpoint.tensors()
            ]
        return value


def inspect_checkpoint(checkpoint: Checkpoint) -> Inspection:
    """Looks at everything but the weights.

    A config that contradicts the tensors does not stop it: `problem` says what is wrong.
    """
    config: Section = checkpoint.config or {}
    infos = {name: info for _, name, info in checkpoint.tensors()}
    stacks = find_stacks(infos)
    counted: tuple[CountedStack, ...] = ()
    problem: str | None = None
    if checkpoint.config is not None:
        try:
            counted = choose_stacks(config, stacks)
        except DusError as error:
            problem = error.message
    by_prefix = {entry.stack.prefix: entry for entry in counted}
    shown = [stack for stack in stacks if stack.prefix in by_prefix or _looks_like_layers(stack)]
    outside = tuple(
        (name, info)
        for name, info in infos.items()
        if all(stack.layer_of(name) is None for stack in shown)
    )
    architectures = config.get("architectures")
    dtypes: Counter[str] = Counter()
    dtype_bytes: Counter[str] = Counter()
    for info in infos.values():
        dtypes[info.dtype] += 1
        dtype_bytes[info.dtype] += info.byte_count
    section = section_at(config, counted[0].section) if counted else config
    return Inspection(
        checkpoint=checkpoint,
        architecture=next((name for name in architectures or () if isinstance(name, str)), None)
        if isinstance(architectures, list)
        else None,
        model_type=model_type_of(config, config) or None,
        parameter_count=checkpoint.parameter_count,
        tensor_count=len(infos),
        tensor_bytes=checkpoint.tensor_bytes,
        dtypes={name: (count, dtype_bytes[name]) for name, count in dtypes.most_common()},
        stacks=tuple(
            StackReport(
                stack=stack, kinds=_kinds(stack, infos), counted=by_prefix.get(stack.prefix)
            )
            for stack in shown
        ),
        other_groups=tuple(stack for stack in stacks if stack not in shown),
        outside=outside,
        head=_head(config, section, [name for name, _ in outside]),
        position_fields=tuple(_position_fields(config, counted)),
        preview=_preview(checkpoint, counted),
        problem=problem,
    )


def _looks_like_layers(stack: LayerStack) -> bool:
    """More than an nn.Sequential of a few modules: consecutive, with several tensors each."""
    return (
        stack.layer_count > 1
        and not stack.missing_numbers
        and min(len(layer) for layer in stack.parameters) > 1
    )


def _kinds(stack: LayerStack, infos: Mapping[str, TensorInfo]) -> tuple[LayerKind, ...]:
    groups: dict[tuple[_Described, ...], list[int]] = {}
    for number, parameters in zip(stack.numbers, stack.parameters, strict=True):
        signature = tuple(
            (parameter, info.dtype, info.shape)
            for parameter in parameters
            for info in (infos[stack.tensor_name(number, parameter)],)
        )
        groups.setdefault(signature, []).append(number)
    commonest = set(max(groups.items(), key=lambda group: len(group[1]))[0])
    return tuple(
        LayerKind(
            layers=tuple(layers),
            tensor_count=len(signature),
            parameter_count=sum(
                infos[stack.tensor_name(layers[0], parameter)].element_count
                for parameter, _, _ in signature
            ),
            added=tuple(_described(entry) for entry in signature if entry not in commonest),
            missing=tuple(sorted(_described(entry) for entry in commonest - set(signature))),
        )
        for signature, layers in groups.items()
    )


def _described(entry: _Described) -> str:
    name, dtype, shape = entry
    return f"{name} {dtype} {list(shape)}"


def _head(config: Section, section: Section, outside: list[str]) -> str | None:
    """How the language model's head stands to the embeddings; None where there is no head."""
    stored = next((name for name in outside if name.endswith(_HEAD_SUFFIXES)), None)
    tied = section.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if stored is not None:
        return f"tied by the config, yet stored as {stored}" if tied else f"untied ({stored})"
    return "tied to the embeddings, not stored" if tied else None


def _position_fields(
    config: Section, counted: tuple[CountedStack, ...]
) -> Iterator[tuple[str, str, Json]]:
    """Fields of the counted sections that depend on a layer's position: path, kind, value."""
    seen: set[str] = set()
    for entry in counted:
        section = section_at(config, entry.section)
        fields = dict.fromkeys(entry.count_fields, "count")
        for name, rule in FIELDS.items():
            value: Json = section
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if rule.kind is not FieldKind.KEEP and isinstance(value, list | dict | str):
                fields[name] = rule.kind.value
        model_type = model_type_of(config, section)
        for position in POSITION_RULES:
            if position.field in section and position.applies_to(model_type, section):
                fields.setdefault(position.field, f"decides {position.what}")
        for name, kind in fields.items():
            path = ".".join((*entry.section, name))
            if path not in seen:
                seen.add(path)
                value = section
                for part in name.split("."):
                    value = value.get(part)
                yield path, kind, value


def _preview(checkpoint: Checkpoint, counted: tuple[CountedStack, ...]) -> UpscalePreview | None:
    if not counted:
        return None
    drop = min(entry.layer_count for entry in counted) // 4
    try:
        after = scale(checkpoint, UpscaleRequest(drop=drop)).after
    except DusError as error:
        return UpscalePreview(drop=drop, refusal=error.message)
    return UpscalePreview(
        drop=drop,
        layers=after.layers,
        parameters=after.parameters,
        tensor_bytes=after.tensor_bytes,
    )


def _stack_json(report: StackReport) -> dict[str, Json]:
    counted = report.counted
    return {
        "prefix": report.stack.prefix,
        "layers": report.stack.layer_count,
        "counted_layers": counted.layer_count if counted else None,
        "trailing_layers": counted.trailing_count if counted else 0,
        "count_fields": [".".join((*counted.section, name)) for name in counted.count_fields]
        if counted
        else [],
        "kinds": [
            {
                "layers": list(kind.layers),
                "tensors": kind.tensor_count,
                "parameters": kind.parameter_count,
                "added": list(kind.added),
                "missing": list(kind.missing),
            }
            for kind in report.kinds
        ],
    }


def _preview_json(preview: UpscalePreview | None) -> dict[str, Json] | None:
    if preview is None:
        return None
    if preview.refusal is not None:
        return {"drop": preview.drop, "refusal": preview.refusal}
    return {
        "drop": preview.drop,
        "layers": preview.layers,
        "parameters": preview.parameters,
        "tensor_bytes": preview.tensor_bytes,
    }
