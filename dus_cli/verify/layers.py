"""Layers against each other: every layer is complete and like its peers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from heapq import nsmallest
from typing import Any, Final

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.findings import Finding, Report
from dus_cli.format.header import TensorInfo
from dus_cli.format.strict_json import dump_compact
from dus_cli.model.architecture import CountedStack, Section, section_at
from dus_cli.model.config_rewrite import KNOWN_MODEL_TYPES, model_type_of, said_of_layers
from dus_cli.model.layer_names import NAMING_FIELDS
from dus_cli.model.unknowns import module_of
from dus_cli.printable import quoted

_FIRST_LAYER_LACKS: Final[Mapping[str, frozenset[str]]] = {
    "modernbert": frozenset({"attn_norm.weight"}),
    "modernbert-decoder": frozenset({"attn_norm.weight"}),
}
"""Model type -> what its first layer has no need of."""

_MAX_NAMED: Final = 3

_MAX_ODD: Final = 100
"""Layers of which is said what they lack. To find that out takes as long as the usual layer has
tensors, and a hostile header has a million of either; models do not come near."""


def check_layers(
    config: Section,
    counted: CountedStack,
    infos: Mapping[str, TensorInfo],
    report: Report,
    *,
    partial: bool,
) -> None:
    """Reports layers that lack or add a tensor, or have one of another shape or dtype.

    Peers are the layers of which the config says the same. `partial`: some tensors could not be
    read, so that nothing is said of missing ones.
    """
    model_type = model_type_of(config, section_at(config, counted.section))
    try:
        groups = _peers(config, counted)
    except (RequestError, CheckpointError):
        return  # A rule meets a value it does not know, so nobody can say who the peers are.
    is_known = model_type in KNOWN_MODEL_TYPES
    quantised = any(field in config for field in NAMING_FIELDS)
    for layers in groups:
        if not partial:
            _check_names(counted, layers, model_type, report, known=is_known, quantised=quantised)
        _check_forms(counted, layers, infos, report, known=is_known)


def _peers(config: Section, counted: CountedStack) -> list[list[int]]:
    """Indexes into `counted.stack.numbers`, grouped by what the config says of each layer."""
    groups: dict[bytes, list[int]] = {}
    said = said_of_layers(config, counted, {})
    for index in range(min(counted.layer_count, counted.stack.layer_count)):
        groups.setdefault(dump_compact(said[index]), []).append(index)
    return list(groups.values())


def _check_names(
    counted: CountedStack,
    layers: Sequence[int],
    model_type: str,
    report: Report,
    *,
    known: bool,
    quantised: bool,
) -> None:
    stack = counted.stack
    if all(stack.parameters[layer] == stack.parameters[layers[0]] for layer in layers):
        return
    # Formats store one quantised weight as several tensors, and may leave a layer as it was.
    names = {
        layer: frozenset(map(module_of, stack.parameters[layer]))
        if quantised
        else frozenset(stack.parameters[layer])
        for layer in layers
    }
    kinds = Counter(names.values())
    usual = max(kinds, key=lambda kind: (kinds[kind], len(kind)))
    odd = [layer for layer in layers if names[layer] != usual]
    ends = (0, counted.layer_count - 1)
    if not known:  # Types have kinds of layers, and special ends; one layer alone is odd.
        agreed = _mostly_alike(kinds)
        odd = [layer for layer in odd if agreed and kinds[names[layer]] == 1 and layer not in ends]
    if len(odd) > _MAX_ODD:
        report(
            Finding(
                code="layer-unlike",
                message=f"{len(odd)} layers of {quoted(stack.prefix)} are unlike the others; the "
                f"first {_MAX_ODD} are listed",
            )
        )
    for layer in odd[:_MAX_ODD]:
        missing, extra = usual - names[layer], names[layer] - usual
        if layer == 0:
            missing -= _FIRST_LAYER_LACKS.get(model_type, frozenset())
        subject = f"layer {stack.numbers[layer]} of {quoted(stack.prefix)}"
        if not missing and (not extra or layer in ends):
            continue  # T5 and its kin keep what all layers share in the first one.
        fact = " and ".join(
            f"{verb} {_listed(tensors)}"
            for verb, tensors in (("lacks", missing), ("has", extra))
            if tensors
        )
        if not known:
            report(
                Finding(
                    code="layer-unlike",
                    message=f"{subject} {fact}, unlike most of its peers",
                    hint="If the model is made so, leave it; dus knows no rule for its type.",
                )
            )
        elif missing:
            report(
                Finding(
                    code="layer-incomplete",
                    tensor=stack.tensor_name(stack.numbers[layer], min(missing)),
                    message=f"{subject} {fact}, unlike its peers",
                    hint="A loader fills it with random values; make the checkpoint anew.",
                )
            )
        else:
            report(
                Finding(
                    code="layer-extra",
                    tensor=stack.tensor_name(stack.numbers[layer], min(extra)),
                    message=f"{subject} {fact}, unlike its peers",
                    hint="A loader ignores it, or the layer is of another kind than config says.",
                )
            )


def _check_forms(
    counted: CountedStack,
    layers: Sequence[int],
    infos: Mapping[str, TensorInfo],
    report: Report,
    *,
    known: bool,
) -> None:
    """Tensors of one name have one shape and one dtype in all peers."""
    stack = counted.stack
    alike = {
        tuple((parameter, info.dtype, info.shape) for _, parameter, info in tensors)
        for layer in layers
        for tensors in (_tensors(counted, [layer], infos),)
    }
    if len(alike) == 1:
        return
    forms: dict[str, Counter[tuple[str, tuple[int, ...]]]] = {}
    for _, parameter, info in _tensors(counted, layers, infos):
        forms.setdefault(parameter, Counter())[info.dtype, info.shape] += 1
    usual = {name: kinds.most_common(1)[0][0] for name, kinds in forms.items()}
    agreed = {name for name, kinds in forms.items() if _mostly_alike(kinds)}
    ends = (0, counted.layer_count - 1)
    # Written once a parameter: a hostile shape is long, and the layers unlike it are many.
    due = {name: quoted(list(shape)) for name, (_, shape) in usual.items()}
    for layer, parameter, info in _tensors(counted, layers, infos):
        name = stack.tensor_name(stack.numbers[layer], parameter)
        usual_dtype, usual_shape = usual[parameter]
        if info.dtype != usual_dtype:
            # Quantised formats leave single layers as they were, and their shapes with them.
            report(
                Finding(
                    code="layer-dtype",
                    tensor=name,
                    message=f"tensor {quoted(name)} is {info.dtype}, in other layers {usual_dtype}",
                    hint="Mixed dtypes are legal; if they are not meant, convert the tensor.",
                )
            )
        elif info.shape != usual_shape and (
            known
            or (
                parameter in agreed
                and forms[parameter][info.dtype, info.shape] == 1
                and layer not in ends
            )
        ):
            report(
                Finding(
                    code="layer-shape" if known else "layer-unlike",
                    tensor=name,
                    message=f"tensor {quoted(name)} has shape {quoted(list(info.shape))}, in other "
                    f"layers {due[parameter]}",
                    hint="A loader refuses it, unless the config gives every layer its own sizes.",
                )
            )


def _mostly_alike(kinds: Counter[Any]) -> bool:
    """Whether more than half, and more than two, are of one kind: one other is odd then.

    Swin and its kin are stages, each of another width, and no two are alike.
    """
    most = max(kinds.values())
    return most > 2 and 2 * most > kinds.total()


def _tensors(
    counted: CountedStack, layers: Sequence[int], infos: Mapping[str, TensorInfo]
) -> Iterator[tuple[int, str, TensorInfo]]:
    stack = counted.stack
    for layer in layers:
        number = stack.numbers[layer]
        for parameter in stack.parameters[layer]:
            yield layer, parameter, infos[stack.tensor_name(number, parameter)]


def _listed(names: Set[str]) -> str:
    shown = ", ".join(map(quoted, nsmallest(_MAX_NAMED, names)))
    more = len(names) - _MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
