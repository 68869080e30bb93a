"""Which layer stacks config.json counts, and in which of its fields."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeGuard

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.format.strict_json import Json
from dus_cli.model.stack import LayerStack

Section: TypeAlias = Mapping[str, Json]
"""config.json, or an object inside it that describes one sub-model (`text_config`)."""

SectionPath: TypeAlias = tuple[str, ...]

_COUNT_FIELDS: Final = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "layers",
    "num_blocks",
)
_SIDED_COUNT_FIELDS: Final = {
    "encoder": ("encoder_layers", "num_encoder_layers", "encoder_num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers", "decoder_num_hidden_layers"),
}
_TRAILING_FIELD: Final = "num_nextn_predict_layers"

_SECTION_WORDS: Final = {
    "text": ("text", "llm", "language", "lm"),
    "vision": ("vision", "visual", "vit", "image"),
    "audio": ("audio", "speech", "sound"),
}
"""Words in a section's name or a stack's prefix that tell what the sub-model reads."""

_MAX_SECTION_DEPTH: Final = 3


@dataclass(frozen=True, kw_only=True)
class CountedStack:
    """A stack together with the config fields that hold its layer count.

    `layer_count` is what the config says; the stack's layers beyond it are trailing ones
    (multi-token prediction), which are kept behind the last layer but not counted.
    """

    stack: LayerStack
    layer_count: int
    section: SectionPath
    count_fields: tuple[str, ...]

    @property
    def trailing_count(self) -> int:
        return self.stack.layer_count - self.layer_count


def section_at(config: Section, path: SectionPath) -> Section:
    """The object at `path` inside the config; the config itself for the empty path."""
    for key in path:
        config = config[key]
    return config


def find_sections(config: Section) -> tuple[SectionPath, ...]:
    """Paths of all objects in the config that count layers, outermost first."""

    def walk(section: Section, path: SectionPath) -> Iterator[SectionPath]:
        if any(_is_count(section.get(field)) for field in _all_count_fields()):
            yield path
        if len(path) < _MAX_SECTION_DEPTH:
            for key, value in section.items():
                if isinstance(value, dict):
                    yield from walk(value, (*path, key))

    return tuple(sorted(walk(config, ()), key=len))


def choose_stacks(
    config: Section, stacks: Sequence[LayerStack], prefix: str | None = None
) -> tuple[CountedStack, ...]:
    """The stacks to scale: the one called `prefix`, else the language model's.

    An encoder-decoder model has two, and both are scaled unless one is named.

    Raises RequestError when `prefix` names no stack, or when several are equally likely;
    CheckpointError when config and tensors contradict each other, or layers are missing.
    """
    found = ", ".join(f"{stack.prefix} ({stack.layer_count} layers)" for stack in stacks[:8])
    if not stacks:
        raise CheckpointError(
            "no tensor name holds a layer number, so there is nothing to up-scale",
            hint="Fused or renamed checkpoints have to be brought into their usual form first.",
        )
    if prefix is not None:
        named = [stack for stack in stacks if stack.prefix == prefix]
        if not named:
            raise RequestError(f"--stack {prefix!r}: no such stack", hint=f"There are: {found}.")
        return (_refuse_shared_count(config, _count_named(config, named[0]), stacks),)
    for path in _by_preference(find_sections(config)):
        section = section_at(config, path)
        candidates = [
            counted
            for stack in stacks
            if _reads_same(path, stack) and (counted := _count(section, path, stack)) is not None
        ]
        if candidates:
            return _pick(candidates, found)
    broken = next((stack for stack in stacks if stack.missing_numbers), None)
    counts = [
        f"{'.'.join((*path, field))} = {section_at(config, path)[field]}"
        for path in find_sections(config)
        for field in _all_count_fields()
        if _is_count(section_at(config, path).get(field))
    ]
    if not counts:
        raise CheckpointError(
            "config.json has no field that counts layers",
            hint=f"The tensors form: {found}.",
        )
    if broken is not None and stacks[0] is broken:
        raise _missing_layers(broken, counts[0])
    raise CheckpointError(
        f"config.json says {counts[0]}, but no stack of tensors has as many layers: {found}",
        hint="The checkpoint is incomplete, or its config belongs to another model.",
    )


def _count_named(config: Section, stack: LayerStack) -> CountedStack:
    paths = [
        path
        for path in find_sections(config)
        if _count(section_at(config, path), path, stack) is not None
    ]
    related = [path for path in paths if _reads_same(path, stack, strictly=True)] or paths
    if not related:
        raise CheckpointError(
            f"config.json has no field that says {stack.layer_count} layers for {stack.prefix}",
            hint="Its count would stay wrong in the result.",
        )
    if len(related) > 1 and related[0] != ():
        names = ", ".join(".".join(path) for path in related)
        raise RequestError(f"{stack.prefix}: several config sections count as many layers: {names}")
    counted = _count(section_at(config, related[0]), related[0], stack)
    assert counted is not None
    return counted


def _refuse_shared_count(
    config: Section, chosen: CountedStack, stacks: Sequence[LayerStack]
) -> CountedStack:
    """`chosen`, unless the fields that count it count the other side of the model as well."""
    section = section_at(config, chosen.section)
    for stack in stacks:
        if {_side(stack), _side(chosen.stack)} != {"encoder", "decoder"}:
            continue
        other = _count(section, chosen.section, stack)
        shared = set(other.count_fields) & set(chosen.count_fields) if other else set()
        if shared and _side(chosen.stack) == "decoder":
            raise RequestError(
                f"config.json counts {chosen.stack.prefix} and {stack.prefix} by one field, "
                f"{min(shared)}, so one cannot be scaled without the other",
                hint="Leave out --stack, or state the decoder's own count in config.json.",
            )
    return chosen


def _count(section: Section, path: SectionPath, stack: LayerStack) -> CountedStack | None:
    """The stack with the fields of `section` that count it, or None when none does."""
    sided, unsided = _fields_for(section, stack)
    trailing = section.get(_TRAILING_FIELD)
    extra: int = trailing if _is_count(trailing) else 0
    for layer_count in dict.fromkeys((stack.layer_count - extra, stack.layer_count)):
        fields = tuple(field for field in sided or unsided if section[field] == layer_count)
        if fields and layer_count > 0:
            if sided and _side(stack) == "encoder":
                # BART and its kin repeat the encoder's count under the general name.
                fields += tuple(field for field in unsided if section[field] == layer_count)
            if stack.missing_numbers:
                raise _missing_layers(stack, f"{fields[0]} = {layer_count}")
            return CountedStack(
                stack=stack, layer_count=layer_count, section=path, count_fields=fields
            )
    stated = section[(sided or unsided)[0]] if sided or unsided else None
    if stack.missing_numbers and stated == stack.numbers[-1] + 1 - extra:
        raise _missing_layers(stack, f"{(sided or unsided)[0]} = {stated}")
    return None


def _pick(candidates: list[CountedStack], found: str) -> tuple[CountedStack, ...]:
    sides = {_side(counted.stack) for counted in candidates}
    if len(candidates) == 1:
        return tuple(candidates)
    if len(candidates) == 2 and sides == {"encoder", "decoder"}:
        return tuple(sorted(candidates, key=lambda counted: _side(counted.stack) == "decoder"))
    raise RequestError(
        "several stacks have as many layers as the config says: "
        + ", ".join(counted.stack.prefix for counted in candidates),
        hint=f"Choose one with --stack; there are: {found}.",
    )


def _fields_for(section: Section, stack: LayerStack) -> tuple[list[str], list[str]]:
    """Count fields of one side (encoder or decoder) that fit the stack, and the general ones."""
    side = _side(stack)
    sided_names = _SIDED_COUNT_FIELDS[side] if side else ()
    return (
        [field for field in sided_names if _is_count(section.get(field))],
        [field for field in _COUNT_FIELDS if _is_count(section.get(field))],
    )


def _side(stack: LayerStack) -> str | None:
    parts = stack.prefix.split(".")
    return next((side for side in ("decoder", "encoder") if side in parts), None)


def _reads_same(path: SectionPath, stack: LayerStack, *, strictly: bool = False) -> bool:
    """Whether section and stack may be of the same sub-model, going by the words in their names."""
    in_section = _words(".".join(path)) or (set() if strictly else {"text"})
    in_prefix = _words(stack.prefix)
    if strictly:
        return in_section == in_prefix
    return not in_prefix or bool(in_section & in_prefix)


def _words(name: str) -> set[str]:
    parts = set(name.lower().replace("_", ".").split("."))
    return {kind for kind, words in _SECTION_WORDS.items() if parts & set(words)}


def _by_preference(paths: Sequence[SectionPath]) -> list[SectionPath]:
    """Text sections first, then the config itself, then the rest."""

    def rank(path: SectionPath) -> int:
        if not path:
            return 1
        return 0 if "text" in _words(path[-1]) else 2

    return sorted(paths, key=rank)


def _missing_layers(stack: LayerStack, stated: str) -> CheckpointError:
    missing = stack.missing_numbers
    shown = ", ".join(map(str, missing[:5])) + (", …" if missing[5:] else "")
    return CheckpointError(
        f"{stack.prefix}: layer{'s' if missing[1:] else ''} {shown} of 0..{stack.numbers[-1]} "
        f"{'have' if missing[1:] else 'has'} no tensors (config.json: {stated})",
        hint="A shard is missing, or the checkpoint was pruned without renumbering its layers.",
    )


def _all_count_fields() -> tuple[str, ...]:
    return (*_COUNT_FIELDS, *(name for names in _SIDED_COUNT_FIELDS.values() for name in names))


def _is_count(value: Json) -> TypeGuard[int]:
    return type(value) is int and value > 0
