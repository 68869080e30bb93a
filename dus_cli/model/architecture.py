"""Which layer stacks config.json counts, and in which of its fields."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeAlias, TypeGuard

from dus_cli.errors import CheckpointError, DusError, RequestError
from dus_cli.format.strict_json import Json
from dus_cli.model.config_rules import REFUSED_MODEL_TYPES
from dus_cli.model.stack import LayerStack

Section: TypeAlias = Mapping[str, Json]
"""config.json, or an object inside it that describes one sub-model (`text_config`)."""

SectionPath: TypeAlias = tuple[str, ...]

_OwnSections: TypeAlias = Mapping[str, frozenset[SectionPath]]
"""Prefix of a stack -> the sections called after it."""

_COUNT_FIELDS: Final = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "layers",
    "num_blocks",
    "num_transformer_layers",
)
_DEPTH_FIELD: Final = "depth"
"""Counts layers where nothing else does, as in vision models of Qwen; elsewhere it may be a depth
of any kind."""

_NOT_LAYERS: Final = {
    "eomt": frozenset({"num_blocks"}),
    "eomt_dinov3": frozenset({"num_blocks"}),
    "videomt": frozenset({"num_blocks"}),
}
"""Fields that count something else in some model types: here the last layers, which see queries."""

_LISTS_OF_LAYERS: Final = {
    "nemotron_h": ("layers_block_type", "layer_types", "hybrid_override_pattern"),
}
"""Model types in which the length of a list, or of a string, is the count; the first that is there
is meant."""

_SIDED_COUNT_FIELDS: Final = {
    "encoder": ("encoder_layers", "num_encoder_layers", "encoder_num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers", "decoder_num_hidden_layers"),
}
_OWN_COUNT_FIELDS: Final = {
    "single_transformer_blocks": ("num_single_layers", "num_single_dit_layers"),
    "joint_transformer_blocks": ("num_mmdit_layers",),
    "speech_encoder.encoder": ("speech_encoder_layers",),
    "t2u_model.model.encoder": ("t2u_encoder_layers",),
    "t2u_model.model.decoder": ("t2u_decoder_layers",),
}
"""Stacks of diffusers and SeamlessM4T, by parts of their prefix, that have a field of their own."""

_ALL_COUNT_FIELDS: Final = (
    *_COUNT_FIELDS,
    _DEPTH_FIELD,
    *(
        name
        for table in (_SIDED_COUNT_FIELDS, _OWN_COUNT_FIELDS)
        for names in table.values()
        for name in names
    ),
)
_TRAILING_FIELD: Final = "num_nextn_predict_layers"

_SECTION_WORDS: Final = {
    "text": ("text", "llm", "language", "lm"),
    "vision": ("vision", "visual", "vit", "image", "video"),
    "audio": ("audio", "speech", "sound"),
    "bridge": ("qformer", "projector"),
    "mask": ("mask",),
}
"""Words in a section's name or a stack's prefix that tell what the sub-model reads or makes."""

_SENSES: Final = frozenset({"vision", "audio", "bridge", "mask"})
"""Sub-models that are no language model: scaled when their stack is named, or vision and audio
when the checkpoint holds nothing else."""

_MAX_SECTION_DEPTH: Final = 3
_MAX_WORDS: Final = 8
"""No section is called by more words with underscores between them; a hostile name may be."""


class MissingLayersError(CheckpointError):
    """Layers between others have no tensors."""


@dataclass(frozen=True, kw_only=True)
class CountedStack:
    """A stack together with the config fields that hold its layer count.

    `layer_count` is what the config says; the stack's layers beyond it are trailing ones
    (multi-token prediction), which are kept behind the last layer but not counted. `mirrors` are
    further sections that repeat what `section` says of this stack; `siblings` are the prefixes of
    all other stacks of the checkpoint.
    """

    stack: LayerStack
    layer_count: int
    section: SectionPath
    count_fields: tuple[str, ...]
    mirrors: tuple[SectionPath, ...] = ()
    siblings: tuple[str, ...] = ()

    @property
    def trailing_count(self) -> int:
        """How many layers stand behind those that the config counts."""
        return self.stack.layer_count - self.layer_count


def section_at(config: Section, path: SectionPath) -> Section:
    """The object at `path` inside the config; the config itself for the empty path."""
    for key in path:
        config = config[key]
    return config


def find_sections(config: Section) -> tuple[SectionPath, ...]:
    """Paths of all objects in the config that count layers, outermost first."""
    return tuple(path for path in _objects(config) if _counts(section_at(config, path)))


def broken_counts(config: Section) -> tuple[tuple[str, Json], ...]:
    """Dotted fields that are called as a count of layers is and hold none, with what they hold:
    text, a fraction, a number below 1."""
    return tuple(
        (".".join((*path, field)), value)
        for path in _objects(config)
        for field in _ALL_COUNT_FIELDS
        if isinstance(value := section_at(config, path).get(field), str | int | float)
        and not _is_count(value)
    )


def choose_stacks(
    config: Section, stacks: Sequence[LayerStack], prefix: str | None = None
) -> tuple[CountedStack, ...]:
    """The stacks to scale: the one called `prefix`, else the language model's.

    An encoder-decoder model has two, and both are scaled unless one is named.

    Raises RequestError when `prefix` names no stack, when several are equally likely, or when the
    one that is named has no count of its own; CheckpointError when config and tensors contradict
    each other, or layers are missing.
    """
    if not stacks:
        raise CheckpointError(
            "no tensor name holds a layer number, so there is nothing to up-scale",
            hint="Fused or renamed checkpoints have to be brought into their usual form first.",
        )
    likely = [stack for stack in stacks if may_be_layers(stack)] or stacks
    own = _sections_by_name(config, stacks)
    if prefix is None:
        chosen = _choose(config, likely, own)
    else:
        chosen = (_named(config, stacks, prefix, own),)
    return tuple(
        replace(
            counted,
            mirrors=_mirrors(config, counted, likely, own),
            siblings=tuple(other.prefix for other in stacks if other is not counted.stack),
        )
        for counted in chosen
    )


def stack_side(prefix: str) -> str | None:
    """Whether a stack is the encoder or the decoder of a model, as far as its name tells.

    A part that says it alone goes before one that says what it reads too: `text_encoder`.
    """
    parts = prefix.split(".")
    said = [part.partition("_")[2] for part in parts if words_of(part.partition("_")[0])]
    return next((part for part in (*parts, *said) if part in _SIDED_COUNT_FIELDS), None)


def may_be_layers(stack: LayerStack) -> bool:
    """Whether a stack has no gap, or consists of modules.

    Convolutions in a row do neither: their gaps are for what lies between and has no weights.
    """
    modules = any("." in parameter for layer in stack.parameters for parameter in layer)
    return modules or not stack.missing_numbers


def _choose(
    config: Section, stacks: Sequence[LayerStack], own: _OwnSections
) -> tuple[CountedStack, ...]:
    *tiers, rest = _tiers(config)
    # A text section that leaves its count to a default is what is meant, not what others count.
    for paths in (*tiers, *([] if _uncounted_texts(config) else [rest])):
        candidates: dict[str, CountedStack] = {}
        for path in paths:
            for stack in _fitting(path, stacks, own):
                counted = _count(config, path, stack)
                if counted is not None:
                    candidates.setdefault(stack.prefix, counted)
        if candidates:
            return _pick(list(candidates.values()), stacks)
    # A model for images or sound alone: nothing else can be meant by a count at the top.
    alone = [counted for stack in stacks if (counted := _count(config, (), stack)) is not None]
    if alone:
        return _pick(alone, stacks)
    # CLIP's vision model saved alone still has the text model's section.
    if all(words_of(stack.prefix) & _SENSES for stack in stacks):
        senses = [
            counted
            for stack in stacks
            for path in find_sections(config)
            if words_of(".".join(path)) & {"vision", "audio"} and _fits(path, stack)
            if (counted := _count(config, path, stack)) is not None
        ]
        if senses:
            return _pick(senses, stacks)
    implicit = _choose_uncounted(config, stacks)
    if implicit is not None:
        return (implicit,)
    raise _contradiction(config, stacks)


def _tiers(config: Section) -> tuple[list[SectionPath], ...]:
    """Sections that may count the language model, likeliest first; of one tier all are asked."""
    paths = [path for path in find_sections(config) if not words_of(".".join(path)) & _SENSES]
    text = [path for path in paths if path and _is_text(path)]
    sides = [path for path in paths if path and path[-1] in _SIDED_COUNT_FIELDS]
    rest = [path for path in paths if path and path not in (*text, *sides)]
    return text, sides, [()], rest


def _uncounted_texts(config: Section) -> list[SectionPath]:
    """Sections of language models that have a type and no count."""
    return [
        path
        for path in _objects(config)
        if path
        and _is_text(path)
        and not _counts(section_at(config, path))
        and "model_type" in section_at(config, path)
    ]


def _choose_uncounted(config: Section, stacks: Sequence[LayerStack]) -> CountedStack | None:
    """The only stack that a text section can describe which leaves its count to a default.

    LLaVA 1.5 is published so: the count is that of its `model_type`, and the tensors say it too.
    Where several stacks may be meant, nothing tells which.
    """
    for path in _uncounted_texts(config):
        fitting = [
            stack
            for stack in stacks
            if _fits(path, stack) and not stack.missing_numbers and stack.layer_count > 1
        ]
        if len(fitting) == 1:
            return CountedStack(
                stack=fitting[0],
                layer_count=fitting[0].layer_count,
                section=path,
                count_fields=(_COUNT_FIELDS[0],),
            )
    return None


def _named(
    config: Section, stacks: Sequence[LayerStack], prefix: str, own: _OwnSections
) -> CountedStack:
    stack = next((stack for stack in stacks if stack.prefix == prefix), None)
    if stack is None:
        raise RequestError(
            f"--stack {prefix!r}: no such stack", hint=f"There are: {_listing(stacks)}."
        )
    paths = [path for tier in _tiers(config) for path in tier]
    paths += [path for path in find_sections(config) if path not in paths]
    fitting = [path for path in paths if stack in _fitting(path, stacks, own)] or [()]
    counting = [counted for path in fitting if (counted := _count(config, path, stack)) is not None]
    if counting:
        _refuse_many_sections(counting)
        _refuse_shared_count(config, counting[0], stacks, own)
        return counting[0]
    uncounted = _choose_uncounted(config, stacks)
    if uncounted is not None and uncounted.stack is stack:
        return uncounted
    raise CheckpointError(
        f"config.json has no field that says {stack.layer_count} layers for {stack.prefix}",
        hint="Its count would stay wrong in the result.",
    )


def _refuse_many_sections(counting: Sequence[CountedStack]) -> None:
    """Refuses a stack when sections beside each other count it and none bears its name.

    Those of language models repeat each other (`_mirrors`).
    """
    paths = [counted.section for counted in counting]
    sections = [path for path in paths if path and not _is_text(path)]
    beside = [path for path in sections if path[: len(sections[0])] != sections[0]]
    if beside:
        stack = counting[0].stack
        said = ", ".join(".".join(path) for path in (sections[0], *beside))
        raise RequestError(
            f"several sections of config.json say {counting[0].layer_count} layers, and none is "
            f"called after {stack.prefix}: {said}",
            hint="dus cannot tell which of them is about it, and the others must stay as they are.",
        )


def _refuse_shared_count(
    config: Section, chosen: CountedStack, stacks: Sequence[LayerStack], own: _OwnSections
) -> None:
    """Refuses a stack when the fields that count it count another one as well."""
    fitting = _fitting(chosen.section, stacks, own)
    # Where the section fits no name, its fields may be about any stack.
    for stack in fitting if chosen.stack in fitting else stacks:
        if (
            stack is chosen.stack
            or stack.missing_numbers
            or min(len(names) for names in stack.parameters) < 2
        ):
            continue
        other = _count(config, chosen.section, stack)
        shared = set(other.count_fields) & set(chosen.count_fields) if other else set()
        if shared:
            raise RequestError(
                f"config.json counts {chosen.stack.prefix} and {stack.prefix} by one field, "
                f"{min(shared)}, so one cannot be scaled without the other",
                hint="Leave out --stack, or give each a count of its own in config.json.",
            )


def _mirrors(
    config: Section, counted: CountedStack, stacks: Sequence[LayerStack], own: _OwnSections
) -> tuple[SectionPath, ...]:
    """Other sections that count the same stack: older files repeat `text_config` at the top."""
    found: list[SectionPath] = []
    for path in find_sections(config):
        if path == counted.section or len(path) > 1 or not _fits(path, counted.stack):
            continue
        if words_of(".".join(path)) & _SENSES or (path and not _is_text(path)):
            continue
        again = _count(config, path, counted.stack)
        if again is None or again.layer_count != counted.layer_count:
            continue
        about = [
            stack
            for stack in _fitting(path, stacks, own)
            if not stack.missing_numbers and _count(config, path, stack)
        ]
        # A stack with a section of its own is counted at the top too if nothing else is.
        if counted.stack in about or not (path or about):
            found.append(path)
    return tuple(found)


def count_fields_in(config: Section, path: SectionPath, counted: CountedStack) -> tuple[str, ...]:
    """The fields of the section at `path` that count the stack."""
    if path == counted.section:
        return counted.count_fields
    again = _count(config, path, counted.stack)
    return again.count_fields if again else ()


def _count(config: Section, path: SectionPath, stack: LayerStack) -> CountedStack | None:
    """The stack with the fields of the section at `path` that count it; None when none does."""
    section = section_at(config, path)
    sided, unsided = _fields_for(section, stack)
    trailing = section.get(_TRAILING_FIELD)
    extra: int = trailing if _is_count(trailing) else 0
    for layer_count in dict.fromkeys((stack.layer_count - extra, stack.layer_count)):
        fields = _that_say(section, sided or unsided, layer_count)
        if fields and layer_count > 0:
            if sided and stack_side(stack.prefix) == "encoder":
                # BART and its kin repeat the encoder's count under the general name.
                fields += _that_say(section, unsided, layer_count)
            if stack.missing_numbers:
                raise _missing_layers(stack, f"{fields[0]} = {layer_count}")
            return CountedStack(
                stack=stack, layer_count=layer_count, section=path, count_fields=fields
            )
    stated = _said(section, (sided or unsided)[0]) if sided or unsided else None
    if len(stack.missing_numbers) < stack.layer_count and stated == stack.numbers[-1] + 1 - extra:
        raise _missing_layers(stack, f"{(sided or unsided)[0]} = {stated}")
    return None


def _pick(candidates: list[CountedStack], stacks: Sequence[LayerStack]) -> tuple[CountedStack, ...]:
    sides = {stack_side(counted.stack.prefix) for counted in candidates}
    if len(candidates) == 1:
        return tuple(candidates)
    if len(candidates) == 2 and sides == {"encoder", "decoder"}:
        return tuple(
            sorted(candidates, key=lambda counted: stack_side(counted.stack.prefix) == "decoder")
        )
    raise RequestError(
        "several stacks have as many layers as the config says: "
        + ", ".join(counted.stack.prefix for counted in candidates),
        hint=f"Choose one with --stack; there are: {_listing(stacks)}.",
    )


def refused(model_type: str, reason: str) -> RequestError:
    """The error for a model type of which `dus` knows no config.json for the deeper model."""
    return RequestError(
        f"{model_type} cannot be up-scaled: {reason}, and dus knows no config.json that is right "
        "for the deeper model"
    )


def _contradiction(config: Section, stacks: Sequence[LayerStack]) -> DusError:
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in REFUSED_MODEL_TYPES:
        return refused(model_type, REFUSED_MODEL_TYPES[model_type])
    counts = [
        f"{'.'.join((*path, field))} = {_said(section_at(config, path), field)}"
        for path in find_sections(config)
        for field in _counts(section_at(config, path))
    ]
    if not counts:
        return CheckpointError(
            "config.json has no field that counts layers",
            hint=f"The tensors form: {_listing(stacks)}.",
        )
    *likely, _ = _tiers(config)
    if not any(_counts(section_at(config, path)) for paths in likely for path in paths) and any(
        _fits(path, stack) and _count(config, path, stack)
        for path in find_sections(config)
        for stack in stacks
    ):
        return RequestError(
            "config.json counts no language model, only other parts of this one",
            hint=f"Choose one with --stack; there are: {_listing(stacks)}.",
        )
    if stacks[0].missing_numbers:
        return _missing_layers(stacks[0], counts[0])
    return CheckpointError(
        f"config.json says {counts[0]}, but no stack of tensors has as many layers: "
        f"{_listing(stacks)}",
        hint="The checkpoint is incomplete, or its config belongs to another model.",
    )


def _listing(stacks: Sequence[LayerStack]) -> str:
    return ", ".join(f"{stack.prefix} ({stack.layer_count} layers)" for stack in stacks[:8])


def _objects(config: Section) -> tuple[SectionPath, ...]:
    """Paths of the config and of all objects in it, outermost first."""

    def walk(section: Section, path: SectionPath) -> Iterator[SectionPath]:
        yield path
        if len(path) < _MAX_SECTION_DEPTH:
            for key, value in section.items():
                if isinstance(value, dict):
                    yield from walk(value, (*path, key))

    return tuple(sorted(walk(config, ()), key=len))


def _counts(section: Section) -> list[str]:
    stated = [field for field in _ALL_COUNT_FIELDS if _is_count(section.get(field))]
    return stated or _lists_of_layers(section)


def _lists_of_layers(section: Section) -> list[str]:
    names = _LISTS_OF_LAYERS.get(_type_of(section), ())
    return [name for name in names if isinstance(section.get(name), list | str)][:1]


def _type_of(section: Section) -> str:
    model_type = section.get("model_type")
    return model_type if isinstance(model_type, str) else ""


def _said(section: Section, field: str) -> int:
    """How many layers a field counts: its value, or how long it is."""
    value = section[field]
    count: int = len(value) if isinstance(value, list | str) else value
    return count


def _that_say(section: Section, fields: Iterable[str], count: int) -> tuple[str, ...]:
    return tuple(field for field in fields if _said(section, field) == count)


def _fields_for(section: Section, stack: LayerStack) -> tuple[list[str], list[str]]:
    """Count fields of one side (encoder or decoder) that fit the stack, and the general ones."""
    other = _NOT_LAYERS.get(_type_of(section), frozenset())

    def stated(names: Iterable[str]) -> list[str]:
        return [field for field in names if field not in other and _is_count(section.get(field))]

    for part, names in _OWN_COUNT_FIELDS.items():
        if f".{part}." in f".{stack.prefix}.":
            return stated(names), []
    # What lies in a part of both names is of the inner one: `decoder.encoder.layers`.
    inner = [part for part in stack.prefix.split(".") if part in _SIDED_COUNT_FIELDS]
    side = inner[-1] if inner else stack_side(stack.prefix)
    general = stated(_COUNT_FIELDS) or stated([_DEPTH_FIELD]) or _lists_of_layers(section)
    if side is not None:
        return stated(_SIDED_COUNT_FIELDS[side]), general
    sides = [fields for names in _SIDED_COUNT_FIELDS.values() if (fields := stated(names))]
    # An encoder saved alone has `layers`, and says how many as if it had a decoder beside it.
    return [], general or (sides[0] if len(sides) == 1 else [])


def _fits(path: SectionPath, stack: LayerStack) -> bool:
    """Whether section and stack may be of the same sub-model, going by the words in their names."""
    in_section, in_prefix = words_of(".".join(path)), words_of(stack.prefix)
    if in_section & _SENSES:
        return bool(in_section & in_prefix)
    if path and path[-1] in _SIDED_COUNT_FIELDS and stack_side(stack.prefix) != path[-1]:
        return False
    return not in_prefix & _SENSES


def _sections_by_name(config: Section, stacks: Sequence[LayerStack]) -> _OwnSections:
    """For each stack the section that counts it and whose names the parts of its prefix bear.

    Of several the one that fits best: `talker_config.code_predictor_config` is about
    `talker.code_predictor.layers`, and `talker_config.text_config` is not.
    """
    named = {
        path: [part.removesuffix("_config").removesuffix("_model") for part in path]
        for path in find_sections(config)
    }
    own: dict[str, frozenset[SectionPath]] = {}
    for stack in stacks:
        borne = _names_borne(stack.prefix)
        ranks: dict[SectionPath, int] = {}
        for path, names in named.items():
            known = sum(name in borne for name in names)
            others = sum(name not in borne and not words_of(name) for name in names)
            if known > others and not stack.missing_numbers and _fits(path, stack):
                ranks[path] = known - others
        counting = [path for path in ranks if _count(config, path, stack) is not None]
        best = max((ranks[path] for path in counting), default=0)
        own[stack.prefix] = frozenset(path for path in counting if ranks[path] == best)
    return own


def _names_borne(prefix: str) -> frozenset[str]:
    """All beginnings of a prefix's parts, at whole words: `text_model` bears `text` too."""
    return frozenset(
        part[:end]
        for part in prefix.split(".")
        for end in (*islice(_underscores(part), _MAX_WORDS), len(part))
    )


def _underscores(part: str) -> Iterator[int]:
    return (position for position, sign in enumerate(part) if sign == "_")


def _fitting(
    path: SectionPath, stacks: Sequence[LayerStack], own: _OwnSections
) -> list[LayerStack]:
    """The stacks that a section may describe: those that bear its name, where there are some, else
    those that bear no other section's.

    FLAVA's `text_config` is about `text_model`, though its `multimodal_model` reads text as well.
    """
    return [stack for stack in stacks if path in own[stack.prefix]] or [
        stack for stack in stacks if not own[stack.prefix] and _fits(path, stack)
    ]


def _is_text(path: SectionPath) -> bool:
    """Whether a section describes a language model; a `text_encoder` serves another one."""
    return "text" in words_of(path[-1]) and "encoder" not in path[-1]


def words_of(name: str) -> frozenset[str]:
    """What a section or stack reads (text, vision, audio), as far as its name tells."""
    parts = set(name.lower().replace("_", ".").split("."))
    return frozenset(kind for kind, words in _SECTION_WORDS.items() if parts & set(words))


def _missing_layers(stack: LayerStack, stated: str) -> MissingLayersError:
    missing = stack.missing_numbers
    shown = ", ".join(map(str, missing[:5])) + (", …" if missing[5:] else "")
    return MissingLayersError(
        f"{stack.prefix}: layer{'s' if missing[1:] else ''} {shown} of 0..{stack.numbers[-1]} "
        f"{'have' if missing[1:] else 'has'} no tensors (config.json: {stated})",
        hint="A shard is missing, or the checkpoint was pruned without renumbering its layers.",
    )


def _is_count(value: Json) -> TypeGuard[int]:
    return type(value) is int and value > 0
