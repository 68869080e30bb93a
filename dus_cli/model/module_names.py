"""The modules of a checkpoint, by name, before and after their layers are taken by a map."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from dus_cli.model.architecture import CountedStack, stack_side, words_of
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.name_sets import Names, NameSets, PatternError
from dus_cli.model.stack import LAYER_NUMBER, module_of

_FUSED: Final = {
    "q_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "w1": "w13",
}
"""Modules that engines join with their neighbours, and what they call the whole: a pattern is
matched against that name too."""

_EXPERTS: Final = "experts"
"""Modules that engines take as one, whatever is in them."""

_WRAPPED: Final = (
    "model.language_model.layers",
    "language_model.model.layers",
    "language_model.layers",
    "model.layers",
)
"""Names of one stack: a model for images calls it otherwise on disk than in memory, and otherwise
in each release."""

_MAX_STEPS: Final = 8_000_000
"""Parts of names that are looked at for all patterns of one checkpoint."""


@dataclass(slots=True)
class _Part:
    """What lies below a beginning of names, by the next part; `name` if one ends here."""

    below: "dict[str, _Part]" = field(default_factory=dict)
    name: str | None = None


class NameTree:
    """Names in a tree, so that a set of names is compared with beginnings and not with each."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: Final = frozenset(names)
        self._top = _Part()
        self._steps = 0
        for name in self.names:
            here = self._top
            for part in name.split("."):
                here = here.below.setdefault(part, _Part())
            here.name = name

    def select(self, sets: NameSets, wanted: Names) -> Iterator[str]:
        """The names in the tree that are in `wanted`; raises PatternError for too much work."""
        to_do = [(self._top, "", wanted)]
        while to_do:
            here, separator, rest = to_do.pop()
            self._steps += len(here.below)
            if self._steps > _MAX_STEPS:
                raise PatternError("is one of too many for so many modules")
            for part, below in here.below.items():
                left = sets.after(rest, separator + part)
                if left == sets.nothing:
                    continue
                if below.name is not None and sets.holds_empty(left):
                    yield below.name
                if below.below:
                    to_do.append((below, ".", left))


class ModuleNames:
    """Every module that a pattern may mean, and which modules of the result are its copies."""

    def __init__(
        self,
        tensor_names: Iterable[str],
        scaled: Sequence[tuple[CountedStack, LayerMap]],
        mentioned: Iterable[str],
    ) -> None:
        """`mentioned` are names that a config holds, which tells how it spells a stack's prefix."""
        self.scaled: Final = scaled
        self._tensor_names = tensor_names
        self._mentioned = tuple(mentioned)
        self._stacks: dict[str, tuple[CountedStack, LayerMap] | None] = {}

    @cached_property
    def outputs(self) -> Mapping[str, tuple[str, ...]]:
        """Module -> its copies in the result; one outside the layers is its own."""
        modules = {module_of(name) for name in self._tensor_names} - {""}
        modules |= {joined for name in modules for joined in _joined(name)}
        spellings = self._spellings(self._mentioned)
        spelled = (other for name in modules for other in _spelled(name, self.scaled, spellings))
        return {name: tuple(self.copies(name)) for name in sorted(modules.union(spelled))}

    @cached_property
    def before(self) -> NameTree:
        """The modules of the source."""
        return NameTree(self.outputs)

    @cached_property
    def after(self) -> NameTree:
        """The modules of the result."""
        return NameTree(name for names in self.outputs.values() for name in names)

    def copies(self, name: str) -> list[str]:
        """The names of all copies of the module called `name`; `name` itself outside the layers."""
        place = self.place_of(name)
        if place is None:
            return [name]
        index, counted, layer_map = place
        parts = name.split(".")
        return [
            ".".join((*parts[:index], str(output), *parts[index + 1 :]))
            for output in outputs_of(int(parts[index]), counted, layer_map)
        ]

    def is_unmistakable(self, name: str) -> bool:
        """Whether `name` names something in a layer so that it fits nothing else but layers of the
        same number in the same stack, whichever way it is read: the number has a part behind it
        and no other stack's prefix ends like what is before it."""
        parts = name.split(".")
        index = next((index for index, part in enumerate(parts) if LAYER_NUMBER.fullmatch(part)), 0)
        if not 0 < index < len(parts) - 1:
            return False
        named = ".".join(parts[:index])
        alike = [prefix for prefix in self._prefixes if _ends_alike(prefix, named)]
        place = self.place_of(name)
        if place is None:
            # Of a stack that stays as it is; one prefix at least must be known for that.
            return bool(alike) and not any(
                _ends_alike(counted.stack.prefix, named) for counted, _ in self.scaled
            )
        return place[0] == index and all(prefix == place[1].stack.prefix for prefix in alike)

    @cached_property
    def _prefixes(self) -> frozenset[str]:
        """The prefixes of all stacks."""
        return frozenset(
            prefix
            for counted, _ in self.scaled
            for prefix in (counted.stack.prefix, *counted.siblings)
        )

    def place_of(self, name: str) -> tuple[int, CountedStack, LayerMap] | None:
        """Which part of `name` is the number of a scaled stack's layer, and of which stack."""
        parts = name.split(".")
        for index, part in enumerate(parts):
            stack = self._stack_at(parts[:index]) if LAYER_NUMBER.fullmatch(part) else None
            if stack is not None:
                return index, *stack
        return None

    def _stack_at(self, parts: Sequence[str]) -> tuple[CountedStack, LayerMap] | None:
        prefix = ".".join(parts)
        if prefix not in self._stacks:
            self._stacks[prefix] = next(
                (pair for pair in self.scaled if _is_of(parts, pair[0])), None
            )
        return self._stacks[prefix]

    def _spellings(self, mentioned: Iterable[str]) -> dict[str, list[str]]:
        """Prefix of a scaled stack -> other names for it that are in use."""
        found: dict[str, dict[str, None]] = {}
        for counted, _ in self.scaled:
            prefix = counted.stack.prefix
            found[prefix] = dict.fromkeys(_WRAPPED if prefix in _WRAPPED[:3] else ())
        for name in mentioned:
            place = self.place_of(name)
            if place is not None and self.is_unmistakable(name):
                spelled = ".".join(name.split(".")[: place[0]])
                found[place[1].stack.prefix][spelled] = None
        return {
            prefix: [other for other in others if other != prefix]
            for prefix, others in found.items()
        }


def outputs_of(source: int, counted: CountedStack, layer_map: LayerMap) -> tuple[int, ...]:
    """The layers of the result that are copies of layer `source`."""
    if source >= counted.layer_count:
        # A trailing layer keeps its distance from the last one.
        return (source - counted.layer_count + layer_map.layer_count,)
    return layer_map.outputs_of(source)


def _spelled(
    name: str,
    scaled: Sequence[tuple[CountedStack, LayerMap]],
    spellings: Mapping[str, list[str]],
) -> Iterator[str]:
    for counted, _ in scaled:
        if counted.stack.layer_of(name) is not None:
            for other in spellings[counted.stack.prefix]:
                yield other + name[len(counted.stack.prefix) :]


def _ends_alike(prefix: str, named: str) -> bool:
    """Whether a text that holds one of them, and what is behind it, may hold the other."""
    return prefix.endswith(named) or named.endswith(prefix)


def _joined(name: str) -> Iterator[str]:
    head, _, last = name.rpartition(".")
    if last in _FUSED:
        yield f"{head}.{_FUSED[last]}"
    parts = name.split(".")
    if _EXPERTS in parts[:-1]:
        yield ".".join(parts[: parts.index(_EXPERTS) + 1])


def _is_of(parts: Sequence[str], counted: CountedStack) -> bool:
    """Whether `parts` before a number are the stack's prefix, or another way to write it.

    Frameworks add and leave out outer parts (`language_model.model.layers`, `model.layers`); the
    last one stays. A name that is nearer to another stack belongs there.
    """
    prefix = counted.stack.prefix
    if not parts or not prefix or parts[-1] != prefix.split(".")[-1]:
        return False
    mine = _likeness(parts, prefix)
    if mine < max((_likeness(parts, other) for other in counted.siblings), default=mine):
        return False
    named = ".".join(parts)
    side, own_side = stack_side(named), stack_side(prefix)
    return (
        words_of(named) - {"text"} == words_of(prefix) - {"text"}
        and (side is None or own_side is None or side == own_side)
        and "mtp" not in set(parts) - set(prefix.split("."))
    )


def _likeness(parts: Sequence[str], prefix: str) -> tuple[int, int]:
    """How many parts agree from the end, and how many anywhere."""
    other = prefix.split(".")
    same = 0
    while same < min(len(parts), len(other)) and parts[-1 - same] == other[-1 - same]:
        same += 1
    return same, len(set(parts) & set(other))
