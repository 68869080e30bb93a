"""config.json against the tensors: counts, lists with an entry a layer, shapes, dtype, head."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.findings import Finding, Report
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.header import TensorInfo
from dus_cli.format.strict_json import Json
from dus_cli.model.architecture import (
    CountedStack,
    MissingLayersError,
    Section,
    broken_counts,
    choose_stacks,
    find_sections,
    may_be_layers,
    section_at,
    words_of,
)
from dus_cli.model.config_rewrite import model_type_of
from dus_cli.model.config_rules import FIELDS, FieldKind, PerLayerField
from dus_cli.model.shapes import LAYER_SHAPES, OUTSIDE_SHAPES, Shape, sizes
from dus_cli.model.stack import LayerStack, find_stacks
from dus_cli.printable import quoted
from dus_cli.verify.layers import check_layers

_FLOATS: Final[Mapping[str, str]] = {
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
_PLAIN_DTYPES: Final = frozenset({*_FLOATS.values(), "F8_E4M3", "F8_E5M2"})
"""Dtypes in which a weight has the shape of its module; packed formats have others."""

_HEADS: Final = ("lm_head", "embed_out", "head", "output", "output_layer")
_GENERATING: Final = ("ForCausalLM", "ForConditionalGeneration")
"""Endings of classes that always hold a language model; others (CLIP's for images) may leave one
that config.json describes out.
"""
_COUNTING_RUNS: Final = frozenset({"hrm_text"})
"""Model types that run their layers several times, and count every run."""

_QUANTISATION: Final = ("quantization_config", "compression_config")


def check_model(checkpoint: Checkpoint, report: Report) -> None:
    """Reports where config.json and the tensors contradict each other, or layers each other."""
    config = checkpoint.config
    if config is None:
        # A config that is there and broken has been reported when it was opened.
        present = os.path.lexists(checkpoint.folder / checkpoint.config_name)
        if not checkpoint.stands_alone and not present:
            report(
                Finding(
                    code="config-missing",
                    message="there is no config.json",
                    hint="Without it nobody can load the model; fetch it from where it came.",
                )
            )
        return

    def of_config(finding: Finding) -> None:
        report(replace(finding, file=checkpoint.config_name))

    infos = {name: info for _, name, info in checkpoint.tensors()}
    stacks = [stack for stack in find_stacks(infos) if may_be_layers(stack)]
    counted = list(_counted(config, stacks))
    if not checkpoint.is_partial:
        _check_count(config, stacks, counted, of_config, report)
    for entry in counted:
        for path in (entry.section, *entry.mirrors):
            _check_lists(config, path, entry, of_config)
        check_layers(config, entry, infos, report, partial=checkpoint.is_partial)
        _check_layer_shapes(config, entry, infos, of_config)
    if counted:
        inside = {name for entry in counted for name in entry.stack.tensor_names()}
        outside = {name: info for name, info in infos.items() if name not in inside}
        section = section_at(config, counted[0].section)
        _check_outside_shapes(config, section, outside, of_config)
        if not checkpoint.is_partial:
            _check_head(config, section, outside, of_config)
    _check_dtype(config, infos, of_config)


def _check_count(
    config: Section,
    stacks: Sequence[LayerStack],
    counted: Sequence[CountedStack],
    of_config: Report,
    report: Report,
) -> None:
    """The config's layer count and the tensors' layers agree; a model without layers has none."""
    if model_type_of(config, config) in _COUNTING_RUNS:
        return
    if not find_sections(config):
        if any(stack.layer_count > 1 for stack in stacks):
            for field, value in broken_counts(config):
                of_config(
                    Finding(
                        code="config-layer-count",
                        field=field,
                        message=f"{quoted(field)} is {quoted(value)}, which is no number of layers",
                        hint="A loader fails on it, or makes a model of another depth.",
                    )
                )
        return
    if not stacks:
        of_config(
            Finding(
                code="config-layer-count",
                message="counts layers, but no tensor's name holds a layer number",
                hint="Another model's weights, or renamed ones: no loader finds the layers.",
            )
        )
        return
    try:
        chosen = choose_stacks(config, stacks)
        text = any("text" in words_of(".".join(path)) for path in find_sections(config))
        if text and _is_for(config, _GENERATING) and all(_is_of_senses(e.stack) for e in chosen):
            of_config(
                Finding(
                    code="config-layer-count",
                    message="counts the layers of a language model, but only those of "
                    f"{quoted(chosen[0].stack.prefix)} are there",
                    hint="The checkpoint is incomplete, or its config belongs to another model.",
                )
            )
    except RequestError:
        return  # Which of several stacks is meant, is for an up-scaling to know.
    except MissingLayersError as error:
        report(Finding(code="layer-missing", message=error.message, hint=error.hint))
    except CheckpointError as error:
        if _disagrees(config, stacks, {entry.stack.prefix for entry in counted}):
            message = error.message.removeprefix("config.json ")
            of_config(Finding(code="config-layer-count", message=message, hint=error.hint))


def _disagrees(config: Section, stacks: Sequence[LayerStack], claimed: Set[str]) -> bool:
    """Whether layers are there, or not there, that a count must be meant for; `claimed` are the
    prefixes of the stacks that are counted.
    """
    loose = [s for s in stacks if s.prefix not in claimed and not _is_of_senses(s)]
    counts = {
        value
        for path in find_sections(config)
        for field, value in section_at(config, path).items()
        if type(value) is int and ("layer" in field or "block" in field)
    }
    if any(stack.layer_count in counts for stack in loose):
        return False  # Counted, but under a name that says nothing of the stack's.
    return bool(loose) or not claimed or _is_for(config, _GENERATING)


def _is_of_senses(stack: LayerStack) -> bool:
    """Whether a stack reads images or sound: no count of a language model is meant for it."""
    return bool(words_of(stack.prefix) & {"vision", "audio"})


def _is_for(config: Section, endings: tuple[str, ...]) -> bool:
    """Whether one of the config's architectures has a name that ends so."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith(endings) for name in architectures
    )


def _counted(config: Section, stacks: Sequence[LayerStack]) -> Iterator[CountedStack]:
    """Every stack that the config counts, the language model's first."""
    try:
        chosen = choose_stacks(config, stacks)
    except (CheckpointError, RequestError):
        chosen = ()
    yield from chosen
    for stack in stacks:
        if stack.layer_count < 2 or any(entry.stack is stack for entry in chosen):
            continue
        try:
            yield from choose_stacks(config, stacks, stack.prefix)
        except (CheckpointError, RequestError):
            continue


def _check_lists(
    config: Section, path: tuple[str, ...], counted: CountedStack, report: Report
) -> None:
    """Fields with one entry a layer have as many, and layer numbers are below the count."""
    section = section_at(config, path)
    if not any(field in section for field in counted.count_fields):
        return  # The tensors' own count, which says nothing of the section's lists.
    n = counted.layer_count
    extra = section.get("num_nextn_predict_layers")
    most = max(counted.stack.layer_count, n + (extra if type(extra) is int else 0))
    for name, rule in FIELDS.items():
        value: Json = section
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        field = ".".join((*path, name))
        if rule.kind is FieldKind.GATHER and isinstance(value, list | str):
            if value and not n <= len(value) <= most:
                report(
                    Finding(
                        code="config-layer-list",
                        field=field,
                        message=f"{field} has {len(value)} entries for {n} layers",
                        hint="transformers refuses the model, or gives layers the wrong kind.",
                    )
                )
            continue
        beyond = [number for number in _layers_named(value, rule) if not 0 <= number < most]
        if beyond:
            report(
                Finding(
                    code="config-layer-number",
                    field=field,
                    message=f"{field} names layer {quoted(beyond[0])}, but layers are 0 to {n - 1}",
                    hint="The list may be of another model, or was not renewed with the layers.",
                )
            )


def _layers_named(value: Json, rule: PerLayerField) -> list[int]:
    """The layers that a field lists or has as keys, counted from 0."""
    if rule.kind is FieldKind.REINDEX and isinstance(value, list):
        return [number - rule.first for number in value if type(number) is int]
    if rule.kind is FieldKind.REKEY and isinstance(value, dict):
        return [int(key) for key in value if key.isascii() and key.isdigit() and len(key) < 10]
    return []


def _check_layer_shapes(
    config: Section, counted: CountedStack, infos: Mapping[str, TensorInfo], report: Report
) -> None:
    section = section_at(config, counted.section)
    rules = LAYER_SHAPES.get(model_type_of(config, section), {})
    stated = sizes(section)
    for layer in range(min(counted.layer_count, counted.stack.layer_count)):
        for parameter, shape in rules.items():
            name = counted.stack.tensor_name(counted.stack.numbers[layer], parameter)
            if name in infos:
                _check_shape(name, infos[name], shape, stated, report)


def _check_outside_shapes(
    config: Section, section: Section, outside: Mapping[str, TensorInfo], report: Report
) -> None:
    if model_type_of(config, section) not in LAYER_SHAPES:
        return
    stated = sizes(section)
    for name, info in outside.items():
        for suffix, shape in OUTSIDE_SHAPES.items():
            if name == suffix or name.endswith("." + suffix):
                _check_shape(name, info, shape, stated, report)


def _check_shape(
    name: str,
    info: TensorInfo,
    shape: Shape,
    stated: Mapping[str, tuple[int, str]],
    report: Report,
) -> None:
    if info.dtype not in _PLAIN_DTYPES or not all(size in stated for size in shape):
        return
    due = tuple(stated[size][0] for size in shape)
    if info.shape != due:
        wrong = next(
            (
                size
                for size, is_, should in zip(shape, info.shape, due, strict=False)
                if is_ != should
            ),
            shape[0],
        )
        field = stated[wrong][1]
        report(
            Finding(
                code="config-shape",
                tensor=name,
                field=field,
                message=f"tensor {quoted(name)} has shape {quoted(list(info.shape))}, but by "
                f"{field} it is {quoted(list(due))}",
                hint="A loader refuses the tensor, or the config is of another model.",
            )
        )


def _check_head(
    config: Section, section: Section, outside: Mapping[str, TensorInfo], report: Report
) -> None:
    tied = section.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if config.get("tie_word_embeddings", tied) is not tied:
        return  # Types differ in which of the two counts.
    heads = [name for name in outside if any(part in _HEADS for part in name.split("."))]
    if tied is False and not heads and _is_for(config, ("ForCausalLM",)):
        report(
            Finding(
                code="head-missing",
                field="tie_word_embeddings",
                message="tie_word_embeddings is false, but no tensor is the head (lm_head.weight)",
                hint="A loader makes up a random head: fetch the tensor, or set the field to true.",
            )
        )
    elif tied is True and any(name.endswith("lm_head.weight") for name in heads):
        report(
            Finding(
                code="head-tied",
                field="tie_word_embeddings",
                message="tie_word_embeddings is true, yet a head is stored (lm_head.weight)",
            )
        )


def _check_dtype(config: Section, infos: Mapping[str, TensorInfo], report: Report) -> None:
    if any(field in config for field in _QUANTISATION):
        return
    field = "dtype" if "dtype" in config else "torch_dtype"
    stated = config.get(field)
    due = _FLOATS.get(stated.removeprefix("torch.")) if isinstance(stated, str) else None
    stored: Counter[str] = Counter()
    for info in infos.values():
        if info.dtype in _FLOATS.values():
            stored[info.dtype] += info.byte_count
    if due is None or not stored:
        return
    (commonest, _), *_ = stored.most_common(1)
    if due not in stored:
        report(
            Finding(
                code="config-dtype",
                field=field,
                message=f"{field} is {stated}, but the weights are {commonest}",
                hint="A loader that follows the config converts every weight; correct the field.",
            )
        )
