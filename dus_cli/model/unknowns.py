"""The safety net: what looks as if it depended on a layer's position, and no rule knows.

Nothing here changes a config. It stops a run that would end in a model that loads and is wrong.
"""

import re
from collections.abc import Iterator, Set
from typing import Final

from dus_cli.errors import RequestError
from dus_cli.format.strict_json import Json, dump_compact
from dus_cli.model.architecture import CountedStack, Section, SectionPath, find_sections, section_at
from dus_cli.model.config_rules import FIELDS, FieldKind, PerLayerField
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.naming_rules import NAMING_FIELDS
from dus_cli.model.stack import module_of as module_of

_NUMBERS_IN_TEXT: Final = re.compile(r"\d+( ?, ?\d+)+")
_MAX_SHOWN: Final = 6


def refuse_unknown_fields(config: Section, counted: CountedStack, known: Set[str]) -> None:
    """Raises RequestError for a field that may speak of layers and is not in `known`.

    It looks in the stack's section and at the top; `known` holds dotted paths.
    """
    others = {path for path in find_sections(config) if path and path != counted.section}
    for root in sorted({counted.section, ()}):
        for path, value in _values(section_at(config, root), root, others):
            name, in_section = ".".join(path), ".".join(path[len(root) :])
            reason = _suspicion(value, counted)
            if reason is None or name in known or in_section in FIELDS or _is_kept(path[-1]):
                continue
            raise RequestError(
                f"config.json: {name} {reason}, and dus does not know whether that is by layer",
                hint=f"Say --config-rule {name}=gather for one entry a layer, {name}=reindex for "
                f"layer numbers, {name}=rekey for an object by layer number, {name}=keep if it "
                "has nothing to do with layers.",
            )


def _is_kept(key: str) -> bool:
    """Whether fields called so have nothing to do with layers, however deep they lie."""
    return key in FIELDS and FIELDS[key].kind is FieldKind.KEEP


def _suspicion(value: Json, counted: CountedStack) -> str | None:
    if isinstance(value, list) and len(value) in (counted.layer_count, counted.stack.layer_count):
        return f"has {len(value)} entries, as many as there are layers"
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return "is an object whose keys are numbers"
    if isinstance(value, str) and _NUMBERS_IN_TEXT.fullmatch(value):
        return "is a list of numbers in a string"
    return None


def _values(
    section: Section, path: SectionPath, skip: Set[SectionPath]
) -> Iterator[tuple[SectionPath, Json]]:
    for key, value in section.items():
        here = (*path, key)
        if here in skip or key in NAMING_FIELDS:
            continue
        yield here, value
        if isinstance(value, dict):
            yield from _values(value, here, skip)


def moved_by_layer(value: Json, rule: PerLayerField, layer: int) -> Json:
    """What a per-layer field says of one layer; None where it says nothing."""
    if rule.kind is FieldKind.GATHER and isinstance(value, list | str) and layer < len(value):
        return value[layer]
    if rule.kind is FieldKind.REKEY and isinstance(value, dict):
        return value.get(str(layer))
    if rule.kind is FieldKind.REINDEX and isinstance(value, list):
        return layer + rule.first in value
    if rule.kind is FieldKind.REINDEX and isinstance(value, str):
        return str(layer + rule.first) in [number.strip() for number in value.split(",")]
    return None


def refuse_unexplained_layers(
    counted: CountedStack, layer_map: LayerMap, said: list[list[Json]], *, quantised: bool
) -> None:
    """Raises RequestError when layers differ, the config is silent, and copies are out of place.

    `said[i]` is all that the config says of layer i. What only the first or the last layers have
    (T5's relative bias) is right as long as each of them stays where it was, counted from its
    end, and has no second copy.
    """
    groups: dict[bytes, dict[frozenset[str], list[int]]] = {}
    for layer in range(counted.layer_count):
        names = counted.stack.parameters[layer]
        tensors = frozenset(module_of(name) if quantised else name for name in names)
        kinds = groups.setdefault(dump_compact(said[layer]), {})
        kinds.setdefault(tensors, []).append(layer)
    for kinds in groups.values():
        odd_sets = [
            [layer for other, layers in kinds.items() if other is not usual for layer in layers]
            for usual in kinds
        ]
        if not any(_stay_in_place(odd, counted.layer_count, layer_map) for odd in odd_sets):
            odd = min(odd_sets, key=len)
            shown = ", ".join(map(str, odd[:_MAX_SHOWN])) + (", …" if odd[_MAX_SHOWN:] else "")
            raise RequestError(
                f"{counted.stack.prefix}: layer{'s' if odd[1:] else ''} {shown} hold"
                f"{'' if odd[1:] else 's'} other tensors than the rest, no field of config.json "
                "that dus knows says so, and their copies would stand where the model does not "
                "expect them",
                hint="If a field says it, name it with --config-rule FIELD=gather or "
                "FIELD=reindex; if it is the first or the last layers, drop more.",
            )


def _stay_in_place(odd: list[int], n: int, layer_map: LayerMap) -> bool:
    """Whether `odd` layers are the first and last ones and each keeps its place from its end."""
    first = 0
    while first in odd:
        first += 1
    last = n
    while last - 1 in odd and last > first:
        last -= 1
    return len(odd) == first + n - last and all(
        layer_map.outputs_of(layer)
        == ((layer,) if layer < first else (layer_map.layer_count - n + layer,))
        for layer in odd
    )
