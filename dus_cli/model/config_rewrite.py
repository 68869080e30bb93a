"""config.json for the up-scaled model: the rule tables applied, every change accounted for."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, cast

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.format.json_difference import ABSENT
from dus_cli.format.strict_json import Json, same_json
from dus_cli.model.architecture import (
    CountedStack,
    Section,
    SectionPath,
    count_fields_in,
    refused,
    section_at,
    stack_side,
    words_of,
)
from dus_cli.model.config_rules import (
    COUPLED_MODEL_TYPES,
    PLAIN_MODEL_TYPES,
    REFUSED_MODEL_TYPES,
    REFUSING_FIELDS,
    TENSOR_REFUSALS,
    TYPED_FIELDS,
    FieldKind,
    PerLayerField,
    fields_of,
)
from dus_cli.model.features import FEATURE_FIELDS, moved_feature, moved_stages
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.layer_names import NAMING_FIELDS, rename_layers
from dus_cli.model.position_rules import POSITION_RULES, PositionRule
from dus_cli.model.unknowns import (
    moved_by_layer,
    refuse_unexplained_layers,
    refuse_unknown_fields,
)

KNOWN_MODEL_TYPES: Final = PLAIN_MODEL_TYPES.union(
    TYPED_FIELDS, *(rule.model_types for rule in POSITION_RULES)
)
"""Model types of which the tables say everything that depends on a layer's number."""

FieldRules: TypeAlias = Mapping[str, FieldKind]
"""What the user said of fields that the tables do not know: dotted path from the top -> kind."""


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
    """The model type of a section, the whole config's where it names none, else ""; diffusers
    calls it `_class_name`."""
    value = section.get("model_type", config.get("model_type", config.get("_class_name")))
    return value if isinstance(value, str) else ""


def rewrite_config(
    config: Section,
    scaled: Sequence[ScaledStack],
    field_rules: FieldRules,
    tensor_names: Iterable[str],
) -> RewrittenConfig:
    """config.json of the model whose stacks are scaled by their maps; order of keys is kept.

    `tensor_names` are all of the source: a quantisation may name modules by patterns.

    Raises RequestError when the architecture cannot be expressed in a config after scaling, or
    when something looks per-layer and no rule knows it; CheckpointError when a per-layer field
    does not fit the layer count.
    """
    new: dict[str, Json] = copy.deepcopy(dict(config))
    tensor_names = list(tensor_names)
    views = [view for stack in scaled for view in _views(config, stack)]
    moved: set[str] = set()
    parts = {part for name in tensor_names for part in name.split(".")}
    for view in views:
        _refuse_architecture(config, view, parts)
        _move_fields(new, view, moved, field_rules)
        _move_features(new, view, moved, field_rules)
    _apply_user_rules(new, views, field_rules)
    for view in views:
        moved |= _settle_positions(config, new, view, field_rules)
    known = moved | set(field_rules)
    for view in views:
        refuse_unknown_fields(config, view.counted, known)
        refuse_unexplained_layers(
            view.counted,
            view.layer_map,
            said_of_layers(config, view.counted, field_rules),
            quantised=any(field in config for field in NAMING_FIELDS),
        )
    _rename_layers(new, scaled, tensor_names)
    rules = _rule_names(config, views, field_rules)
    changes = tuple(
        ConfigChange(field=field, before=before, after=after, rule=_rule_name(field, rules))
        for field, before, after in _differences(config, new)
    )
    return RewrittenConfig(config=new, changes=changes, remarks=_remarks(config, scaled))


def _rule_name(field: str, rules: Mapping[str, str]) -> str:
    if any(part in NAMING_FIELDS for part in field.split(".")):
        return "layer names"
    return rules.get(field, "position")


def _views(config: Section, scaled: ScaledStack) -> Iterator[ScaledStack]:
    """The stack under each section that describes it."""
    for path in (scaled.counted.section, *scaled.counted.mirrors):
        fields = count_fields_in(config, path, scaled.counted)
        counted = replace(scaled.counted, section=path, count_fields=fields)
        yield ScaledStack(counted=counted, layer_map=scaled.layer_map)


def _refuse_architecture(config: Section, scaled: ScaledStack, name_parts: Set[str]) -> None:
    section = section_at(config, scaled.counted.section)
    model_type = model_type_of(config, section)
    if model_type in REFUSED_MODEL_TYPES:
        raise refused(model_type, REFUSED_MODEL_TYPES[model_type])
    whole = model_type_of(config, config)
    if whole in COUPLED_MODEL_TYPES:
        raise refused(whole, COUPLED_MODEL_TYPES[whole])
    for refusal in TENSOR_REFUSALS:
        found = refusal.part in name_parts
        concerned = not refusal.model_types or model_type in refusal.model_types
        if concerned and found is refusal.present:
            raise refused(model_type or "this model", refusal.reason)
    for field, reason in REFUSING_FIELDS.items():
        if section.get(field):
            raise RequestError(f"{field} is on: {reason}, so a copied layer would change")


def _move_fields(
    new: dict[str, Json], scaled: ScaledStack, moved: set[str], field_rules: FieldRules
) -> None:
    """Counts and known per-layer fields of one stack; adds the paths of those fields to `moved`."""
    counted = scaled.counted
    section = _mutable_section(new, counted.section)
    for name in counted.count_fields:
        # Where the length of a list is the count, the list is moved like any other.
        if not isinstance(section.get(name), list | str):
            section[name] = scaled.layer_map.layer_count
    for name, rule in fields_of(model_type_of(new, section)).items():
        owner, key = _owner(section, name)
        path = ".".join((*counted.section, name))
        # A section shared by encoder and decoder is moved once; the user's word goes first.
        if owner is None or key not in owner or path in moved or path in field_rules:
            continue
        moved.add(path)
        if rule.side in (None, stack_side(counted.stack.prefix)):
            owner[key] = _moved(path, owner[key], rule, scaled)


def _move_features(
    new: dict[str, Json], scaled: ScaledStack, moved: set[str], field_rules: FieldRules
) -> None:
    """Fields that name hidden states of one stack; adds their paths to `moved`."""
    n, path = scaled.counted.layer_count, scaled.counted.section
    own = _mutable_section(new, path)
    model_type = model_type_of(new, own)
    for field in FEATURE_FIELDS:
        tower = words_of(".".join(path)) & {"vision", "audio"}
        for length in range(len(path)) if field.around and tower else [len(path)]:
            section = _mutable_section(new, path[:length])
            name = ".".join((*path[:length], field.name))
            default = field.defaults.get(model_type)
            listed: Json = list(default) if isinstance(default, tuple) else default
            stated = section.get(field.name, listed)
            if stated is None or name in moved or name in field_rules:
                continue
            if field.around and not tower:
                continue
            moved.add(name)
            after = moved_feature(stated, field, n, scaled.layer_map)
            if field.name in section or after != stated:
                section[field.name] = after
    for name, value in moved_stages(own, n, scaled.layer_map).items():
        dotted = ".".join((*path, name))
        if dotted not in field_rules:
            moved.add(dotted)
            own[name] = value


def _apply_user_rules(
    new: dict[str, Json], scaled: Sequence[ScaledStack], field_rules: FieldRules
) -> None:
    for path, kind in field_rules.items():
        owner, key = _owner(new, path)
        if owner is None or key not in owner:
            raise RequestError(f"--config-rule: config.json has no field {path!r}")
        if kind is FieldKind.KEEP:
            continue
        value = owner[key]
        if not isinstance(value, dict if kind is FieldKind.REKEY else list) and not (
            kind is FieldKind.GATHER and isinstance(value, str)
        ):
            raise RequestError(
                f"--config-rule {path}={kind.value}: {value!r:.60} does not hold what that takes",
                hint="gather takes a list or string with one entry a layer, reindex a list of "
                "layer numbers, rekey an object by layer number.",
            )
        # The innermost section around the field tells whose layers it speaks of.
        around = [stack for stack in scaled if _is_around(stack.counted.section, path)]
        stack = max(around or scaled, key=lambda stack: len(stack.counted.section))
        owner[key] = _moved(path, value, PerLayerField(kind=kind), stack)


def _is_around(section: SectionPath, path: str) -> bool:
    return path.split(".")[: len(section)] == list(section)


def _moved(path: str, value: Json, rule: PerLayerField, scaled: ScaledStack) -> Json:
    """`value` after its rule; as it was where it is no list, string or object by layer."""
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
        return _reindexed(set(value), rule.first, scaled)
    if rule.kind is FieldKind.REINDEX and isinstance(value, str):
        numbers = [number.strip() for number in value.split(",")]
        if not all(number.isdecimal() and number.isascii() for number in numbers):
            raise CheckpointError(f"config.json: {path} holds something else than layer numbers")
        return ",".join(map(str, _reindexed(set(map(int, numbers)), rule.first, scaled)))
    return value


def _reindexed(numbers: Set[int], first: int, scaled: ScaledStack) -> list[int]:
    counted, layer_map = scaled.counted, scaled.layer_map
    trailing = range(counted.layer_count, counted.stack.layer_count)
    sources = (*layer_map.sources, *trailing)
    return [j + first for j, source in enumerate(sources) if source + first in numbers]


def _rules_for(
    config: Section, counted: CountedStack, field_rules: FieldRules
) -> list[PositionRule]:
    """Position rules that hold for a stack, but for those that the user has overruled."""
    section = section_at(config, counted.section)
    model_type = model_type_of(config, section)
    chosen: list[PositionRule] = []
    own = {rule.field for rule in POSITION_RULES if model_type in rule.model_types}
    for rule in POSITION_RULES:
        path = ".".join((*counted.section, rule.field))
        # A row without types is for those that have none of their own.
        general = not rule.model_types and rule.field in own
        applies = rule.applies_to(model_type, section, stack_side(counted.stack.prefix))
        if applies and path not in field_rules and not general:
            chosen.append(rule)
    return chosen


def _settle_positions(
    config: Section, new: dict[str, Json], scaled: ScaledStack, field_rules: FieldRules
) -> set[str]:
    """Makes every copied layer what its source was, where that follows from its number.

    Returns the paths of the fields that it understood.
    """
    understood: set[str] = set()
    n = scaled.counted.layer_count
    before = section_at(config, scaled.counted.section)
    after = _mutable_section(new, scaled.counted.section)
    model_type = model_type_of(config, before)
    for rule in _rules_for(config, scaled.counted, field_rules):
        values = rule.expand(before, n)
        if values is not None and len(values) >= n:
            _settle(rule, scaled.layer_map.gather(values), before, after, model_type)
            understood.add(".".join((*scaled.counted.section, rule.field)))
    return understood


def _settle(
    rule: PositionRule,
    wanted: list[Json],
    before: Section,
    after: dict[str, Json],
    model_type: str,
) -> None:
    if rule.expand(after, len(wanted)) == wanted:
        return
    fields = rule.encode(wanted) if rule.encode else None
    if fields is not None and rule.expand({**after, **fields}, len(wanted)) == wanted:
        after.update(fields)
        return
    stated = f" = {before[rule.field]!r:.40}" if rule.field in before else ""
    raise RequestError(
        f"config.json of {model_type or 'this model'} says {rule.what} by {rule.field}{stated}, "
        "and no value of it gives every copied layer the kind that its source has",
        hint="Another --drop may fit: compare which layers the two copies lose.",
    )


def said_of_layers(
    config: Section, counted: CountedStack, field_rules: FieldRules
) -> list[list[Json]]:
    """For each layer, what all per-layer fields and position rules say of it.

    Raises RequestError where a rule meets a value that it does not understand.
    """
    section, n = section_at(config, counted.section), counted.layer_count
    columns: list[list[Json]] = []
    for position in _rules_for(config, counted, field_rules):
        values = position.expand(section, n)
        columns.append([*(values or [])[:n], *[None] * (n - len(values or []))])
    known = fields_of(model_type_of(config, section)).items()
    fields = [(section, name, rule) for name, rule in known]
    fields += [(config, path, PerLayerField(kind=kind)) for path, kind in field_rules.items()]
    for root, name, rule in fields:
        owner, key = _owner(root, name)
        if owner is not None and key in owner:
            columns.append([moved_by_layer(owner[key], rule, layer) for layer in range(n)])
    return [[column[layer] for column in columns] for layer in range(n)]


def _rename_layers(
    new: dict[str, Json], scaled: Sequence[ScaledStack], tensor_names: Iterable[str]
) -> None:
    pairs = [(stack.counted, stack.layer_map) for stack in scaled]
    for path in dict.fromkeys([(), *(stack.counted.section for stack in scaled)]):
        section = _mutable_section(new, path)
        for field in NAMING_FIELDS:
            if isinstance(section.get(field), dict):
                section[field] = rename_layers(
                    section[field],
                    subject="config.json",
                    path=".".join((*path, field)),
                    tensor_names=tensor_names,
                    scaled=pairs,
                )


def _remarks(config: Section, scaled: Sequence[ScaledStack]) -> tuple[str, ...]:
    remarks: list[str] = []
    for stack in scaled:
        model_type = model_type_of(config, section_at(config, stack.counted.section))
        if model_type not in KNOWN_MODEL_TYPES:
            remarks.append(
                f"model type {model_type or '(none)'} has no rules of its own: config fields were "
                "recognised by name and length, and anything else that depends on a layer's "
                "number stays as it is"
            )
        count = section_at(config, stack.counted.section).get(stack.counted.count_fields[0])
        if count is None:
            remarks.append(
                f"config.json left the layer count of {stack.counted.stack.prefix} to a default; "
                f"the tensors say {stack.counted.layer_count}, and the result states its own"
            )
    if "auto_map" in config:
        remarks.append("the model brings its own code (auto_map), which was not examined")
    return tuple(dict.fromkeys(remarks))


def _rule_names(
    config: Section, scaled: Sequence[ScaledStack], field_rules: FieldRules
) -> dict[str, str]:
    names: dict[str, str] = {}
    for stack in scaled:
        section = stack.counted.section
        names |= {
            ".".join((*section, name)): rule.kind.value
            for name, rule in fields_of(model_type_of(config, section_at(config, section))).items()
        }
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
        elif old is ABSENT or not same_json(old, value):
            yield ".".join((*path, key)), old, value


def _mutable_section(new: dict[str, Json], path: tuple[str, ...]) -> dict[str, Json]:
    section: Json = section_at(new, path)
    return cast(dict[str, Json], section)


def _owner(section: Section, name: str) -> tuple[dict[str, Json] | None, str]:
    """The object that holds the last key of a dotted name, and that key."""
    owner: Json = section
    *outer, key = name.split(".")
    for part in outer:
        owner = owner.get(part) if isinstance(owner, dict) else None
    return (owner if isinstance(owner, dict) else None), key
