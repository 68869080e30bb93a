"""config.json for the up-scaled model: the rule tables applied, every change accounted for."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.format.strict_json import Json
from dus_cli.model.architecture import CountedStack, Section, find_sections, section_at
from dus_cli.model.config_rules import (
    FIELDS,
    PLAIN_MODEL_TYPES,
    POSITION_RULES,
    REFUSED_MODEL_TYPES,
    REFUSING_FIELDS,
    FieldKind,
    PerLayerField,
    PositionRule,
)
from dus_cli.model.layer_map import LayerMap

FieldRules: TypeAlias = Mapping[str, FieldKind]
"""What the user said of fields that the tables do not know: dotted path from the top -> kind."""

ABSENT: Final = object()
"""Stands for the value of a field that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledStack:
    """A stack and the map by which its layers are taken."""

    counted: CountedStack
    layer_map: LayerMap


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """One field's value `before` (ABSENT if it was not there) and `after`, and the rule's name.

    `field` is the dotted path from the top of config.json.
    """

    field: str
    before: Json
    after: Json
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrittenConfig:
    """The new config, what differs from the old one, and what the user should know."""

    config: dict[str, Json]
    changes: tuple[ConfigChange, ...]
    remarks: tuple[str, ...]


def model_type_of(config: Section, section: Section) -> str:
    """The model type of a section, the whole config's where it names none, else ""."""
    value = section.get("model_type", config.get("model_type"))
    return value if isinstance(value, str) else ""


def rewrite_config(
    config: Section, scaled: Sequence[ScaledStack], field_rules: FieldRules
) -> RewrittenConfig:
    """config.json of the model whose stacks are scaled by their maps; order of keys is kept.

    Raises RequestError when the architecture cannot be expressed in a config after scaling, or
    when a field looks per-layer and no rule knows it; CheckpointError when a per-layer field
    does not fit the layer count.
    """
    new: dict[str, Json] = copy.deepcopy(dict(config))
    known: set[str] = set()
    for stack in scaled:
        _refuse_architecture(config, stack)
        _rewrite_section(new, stack, known, field_rules)
    _apply_user_rules(new, scaled, field_rules)
    _rewrite_layer_names(new, scaled)
    for stack in scaled:
        _settle_positions(config, new, stack)
        _refuse_unknown_lists(config, stack, known | set(field_rules))
    rules = _rule_names(scaled, field_rules)
    changes = tuple(
        ConfigChange(field=field, before=before, after=after, rule=rules.get(field, "position"))
        for field, before, after in _differences(config, new)
    )
    return RewrittenConfig(config=new, changes=changes, remarks=_remarks(config, scaled))


def _refuse_architecture(config: Section, scaled: ScaledStack) -> None:
    section = section_at(config, scaled.counted.section)
    model_type = model_type_of(config, section)
    reason = REFUSED_MODEL_TYPES.get(model_type)
    if reason is not None:
        raise RequestError(
            f"{model_type} cannot be up-scaled: {reason}, which no config.json can say for the "
            "deeper model"
        )
    for field, reason in REFUSING_FIELDS.items():
        if section.get(field):
            raise RequestError(f"{field} is on: {reason}, so a copied layer would change")


def _rewrite_section(
    new: dict[str, Json], scaled: ScaledStack, known: set[str], field_rules: FieldRules
) -> None:
    """Counts and known per-layer fields of one stack; adds the paths of those fields to `known`."""
    counted = scaled.counted
    section = _mutable_section(new, counted.section)
    for name in counted.count_fields:
        section[name] = scaled.layer_map.layer_count
    for name, rule in FIELDS.items():
        owner, key = _owner(section, name)
        path = ".".join((*counted.section, name))
        # A section shared by encoder and decoder is moved once; the user's word goes first.
        if owner is None or key not in owner or path in known or path in field_rules:
            continue
        known.add(path)
        owner[key] = _moved(path, owner[key], rule, scaled)


def _apply_user_rules(
    new: dict[str, Json], scaled: Sequence[ScaledStack], field_rules: FieldRules
) -> None:
    for path, kind in field_rules.items():
        owner, key = _owner(new, path)
        if owner is None or key not in owner:
            raise RequestError(f"--config-rule: config.json has no field {path!r}")
        # The innermost section around the field tells whose layers it speaks of.
        around = [
            stack
            for stack in scaled
            if path.split(".")[: len(stack.counted.section)] == list(stack.counted.section)
        ]
        if kind is not FieldKind.KEEP:
            value = _moved(path, owner[key], PerLayerField(kind=kind), (around or scaled)[0])
            if value is owner[key] or not isinstance(owner[key], list | str | dict):
                raise RequestError(
                    f"--config-rule: {path!r} is {owner[key]!r:.60}, which cannot be "
                    f"{'gathered' if kind is FieldKind.GATHER else kind.value + 'ed'}"
                )
            owner[key] = value


def _moved(path: str, value: Json, rule: PerLayerField, scaled: ScaledStack) -> Json:
    """`value` after its rule; the same object where the rule has nothing to do with it."""
    n, layer_map = scaled.counted.layer_count, scaled.layer_map
    if rule.kind is FieldKind.GATHER and isinstance(value, list | str) and len(value):
        if len(value) < n:
            raise CheckpointError(
                f"config.json: {path} has {len(value)} entries for {n} layers",
                hint="The checkpoint's config is wrong; correct it first.",
            )
        gathered = layer_map.gather(value[:n])
        return "".join(gathered) + value[n:] if isinstance(value, str) else gathered + value[n:]
    if rule.kind is FieldKind.REKEY and isinstance(value, dict):
        return {
            str(output): copy.deepcopy(value[str(source)])
            for output, source in enumerate(layer_map.sources)
            if str(source) in value
        }
    if rule.kind is FieldKind.REINDEX and isinstance(value, list):
        if not all(type(number) is int for number in value):
            raise CheckpointError(f"config.json: {path} holds something else than layer numbers")
        numbers = set(value)
        return [
            output + rule.first
            for output, source in enumerate(layer_map.sources)
            if source + rule.first in numbers
        ]
    return value


def _settle_positions(config: Section, new: dict[str, Json], scaled: ScaledStack) -> None:
    """Makes every copied layer what its source was, where that follows from its number."""
    counted, layer_map = scaled.counted, scaled.layer_map
    before = section_at(config, counted.section)
    after = _mutable_section(new, counted.section)
    model_type = model_type_of(config, before)
    settled: set[str] = set()
    for rule in POSITION_RULES:
        # The first rule for a field counts, so that a row without types is everybody else's.
        if rule.field in settled and not rule.model_types:
            continue
        if not rule.applies_to(model_type, before):
            continue
        settled.add(rule.field)
        values = rule.expand(before, counted.layer_count)
        if values is None or len(values) < counted.layer_count:
            continue
        _settle(rule, layer_map.gather(values), after, model_type)


def _settle(
    rule: PositionRule, wanted: list[Json], after: dict[str, Json], model_type: str
) -> None:
    if rule.expand(after, len(wanted)) == wanted:
        return
    fields = rule.encode(wanted, after) if rule.encode else None
    if fields is not None:
        trial = {**after, **fields}
        if rule.expand(trial, len(wanted)) == wanted:
            after.update(fields)
            return
    raise RequestError(
        f"config.json of {model_type or 'this model'} says {rule.what} by {rule.field} "
        f"= {after.get(rule.field)!r:.40}, and no value of it gives every copied layer the kind "
        "that its source has",
        hint="Another --drop may fit: compare which layers the two copies lose.",
    )


_LAYER_REFERENCE: Final = r"(?<![A-Za-z0-9_]){stack}\.([0-9]+)(?![0-9])"


def _rewrite_layer_names(new: dict[str, Json], scaled: Sequence[ScaledStack]) -> None:
    """Lists of module names in `quantization_config`: a layer's name becomes all its copies'."""
    quantization = new.get("quantization_config")
    if not isinstance(quantization, dict):
        return
    for stack in scaled:
        # Module names may lack the outer parts of the prefix, so its last part identifies it.
        reference = re.compile(
            _LAYER_REFERENCE.format(stack=re.escape(stack.counted.stack.prefix.split(".")[-1]))
        )
        _rename_in(quantization, "quantization_config", reference, stack)


def _rename_in(
    owner: dict[str, Json], path: str, reference: re.Pattern[str], scaled: ScaledStack
) -> None:
    for key, value in owner.items():
        here = f"{path}.{key}"
        if reference.search(key):
            raise _unmovable_name(here, key)
        if isinstance(value, dict):
            _rename_in(value, here, reference, scaled)
        elif isinstance(value, str) and reference.search(value):
            raise _unmovable_name(here, value)
        elif isinstance(value, list):
            owner[key] = [
                renamed for entry in value for renamed in _renamed(entry, here, reference, scaled)
            ]


def _renamed(entry: Json, path: str, reference: re.Pattern[str], scaled: ScaledStack) -> list[Json]:
    match = reference.search(entry) if isinstance(entry, str) else None
    if isinstance(entry, dict | list) and reference.search(repr(entry)):
        raise _unmovable_name(path, repr(entry))
    if match is None:
        return [entry]
    if entry.startswith("re:") or reference.search(entry, match.end()):
        raise _unmovable_name(path, entry)
    source = int(match[1])
    if source >= scaled.counted.layer_count:
        # A trailing layer keeps its distance from the last one.
        outputs: tuple[int, ...] = (
            source - scaled.counted.layer_count + scaled.layer_map.layer_count,
        )
    else:
        outputs = scaled.layer_map.outputs_of(source)
    return [f"{entry[: match.start(1)]}{output}{entry[match.end(1) :]}" for output in outputs]


def _unmovable_name(path: str, text: str) -> RequestError:
    return RequestError(
        f"config.json: {path} names a layer in a way that dus cannot renumber: {text!r:.80}",
        hint="Write the module names out, one an entry, and run again.",
    )


def _refuse_unknown_lists(config: Section, scaled: ScaledStack, known: set[str]) -> None:
    counted = scaled.counted
    others = {path for path in find_sections(config) if path and path != counted.section}
    roots = {counted.section, ()}
    for root in sorted(roots):
        for path, value in _lists(section_at(config, root), root, others):
            name = ".".join(path)
            in_section = ".".join(path[len(root) :])
            if name in known or in_section in FIELDS or len(value) != counted.layer_count:
                continue
            raise RequestError(
                f"config.json: {name} has {len(value)} entries, as many as there are layers, and "
                "dus does not know whether they are one a layer",
                hint=f"Say --config-rule {name}=gather if they are, {name}=keep if not, "
                f"{name}=reindex if they are layer numbers.",
            )


def _lists(
    section: Section, path: tuple[str, ...], skip: set[tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], list[Json]]]:
    for key, value in section.items():
        here = (*path, key)
        if isinstance(value, list):
            yield here, value
        elif isinstance(value, dict) and here not in skip and key != "quantization_config":
            yield from _lists(value, here, skip)


def _remarks(config: Section, scaled: Sequence[ScaledStack]) -> tuple[str, ...]:
    remarks: list[str] = []
    by_rule = {model_type for rule in POSITION_RULES for model_type in rule.model_types}
    for stack in scaled:
        model_type = model_type_of(config, section_at(config, stack.counted.section))
        if model_type not in PLAIN_MODEL_TYPES | by_rule:
            remarks.append(
                f"model type {model_type or '(none)'} has no rules of its own: config fields were "
                "recognised by name and length, and anything else that depends on a layer's "
                "number stays as it is"
            )
        layer_map = stack.layer_map
        kinds = stack.counted.stack.kinds()
        for end, where in ((0, "first"), (stack.counted.layer_count - 1, "last")):
            alone = any(numbers == (end,) for _, numbers in kinds) and len(kinds) > 1
            moved = [
                output
                for output in layer_map.outputs_of(end)
                if output != (0 if end == 0 else layer_map.layer_count - 1)
            ]
            if alone and moved:
                remarks.append(
                    f"the {where} layer of {stack.counted.stack.prefix} has tensors unlike all "
                    f"others, and its copy becomes layer {moved[0]}; see that the model expects it"
                )
    if "auto_map" in config:
        remarks.append("the model brings its own code (auto_map), which was not examined")
    return tuple(dict.fromkeys(remarks))


def _rule_names(scaled: Sequence[ScaledStack], field_rules: FieldRules) -> dict[str, str]:
    names: dict[str, str] = {}
    for stack in scaled:
        section = stack.counted.section
        names |= {".".join((*section, name)): rule.kind.value for name, rule in FIELDS.items()}
        names |= {".".join((*section, name)): "count" for name in stack.counted.count_fields}
        for rule in POSITION_RULES:
            names.setdefault(".".join((*section, rule.field)), "position")
    return names | {path: f"{kind.value} (asked for)" for path, kind in field_rules.items()}


def _differences(
    before: Section, after: Section, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Json, Json]]:
    for key in after:
        old, value = before.get(key, ABSENT), after[key]
        if isinstance(old, dict) and isinstance(value, dict) and set(value) >= set(old):
            yield from _differences(old, value, (*path, key))
        elif old is ABSENT or old != value:
            yield ".".join((*path, key)), old, value


def _mutable_section(new: dict[str, Json], path: tuple[str, ...]) -> dict[str, Json]:
    section = section_at(new, path)
    assert isinstance(section, dict)
    return section


def _owner(section: dict[str, Json], name: str) -> tuple[dict[str, Json] | None, str]:
    """The object that holds the last key of a dotted name, and that key."""
    owner: Json = section
    *outer, key = name.split(".")
    for part in outer:
        owner = owner.get(part) if isinstance(owner, dict) else None
    return (owner if isinstance(owner, dict) else None), key
