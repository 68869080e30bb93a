"""Sets of names, read character by character: what patterns over module names stand for.

Quantised checkpoints name modules by regular expressions and globs from files that nobody vouches
for, and a backtracking matcher could be kept busy for years. A set of names instead gives, for a
character, the set of what may follow it (Brzozowski, "Derivatives of Regular Expressions", 1964).
Sets are numbered and kept, so a name costs one look-up a character.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

Names: TypeAlias = int
"""A set of names, as the algebra numbers it."""

_MAX_WORK: Final = 1_000_000
"""Parts of sets that are looked at for all patterns of one checkpoint; real ones need thousands."""


class PatternError(ValueError):
    """A pattern that cannot be told from names alone, or that takes too much work."""


@dataclass(frozen=True, slots=True)
class _Nothing:
    pass


@dataclass(frozen=True, slots=True)
class _Empty:
    pass


@dataclass(frozen=True, slots=True)
class _Character:
    characters: frozenset[str]
    negated: bool


@dataclass(frozen=True, slots=True)
class _Then:
    first: Names
    second: Names


@dataclass(frozen=True, slots=True)
class _Either:
    parts: frozenset[Names]


@dataclass(frozen=True, slots=True)
class _Both:
    parts: frozenset[Names]


@dataclass(frozen=True, slots=True)
class _Others:
    names: Names


@dataclass(frozen=True, slots=True)
class _Repeated:
    names: Names


_Shape: TypeAlias = _Nothing | _Empty | _Character | _Then | _Either | _Both | _Others | _Repeated


class NameSets:
    """The sets made so far. Equal expressions are one number.

    Every method that makes a set raises PatternError when all of them together take too much work.
    """

    def __init__(self) -> None:
        self._shapes: list[_Shape] = []
        self._numbers: dict[_Shape, Names] = {}
        self._holds_empty: list[bool] = []
        self._following: dict[tuple[Names, str], Names] = {}
        self._work = 0
        self.nothing: Final = self._number(_Nothing(), holds_empty=False)
        self.empty: Final = self._number(_Empty(), holds_empty=True)
        self.any_character: Final = self.character(frozenset(), negated=True)
        self.all: Final = self._number(_Repeated(self.any_character), holds_empty=True)

    def _number(self, shape: _Shape, *, holds_empty: bool) -> Names:
        known = self._numbers.get(shape)
        if known is not None:
            return known
        self._spend(1)
        self._numbers[shape] = len(self._shapes)
        self._shapes.append(shape)
        self._holds_empty.append(holds_empty)
        return len(self._shapes) - 1

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise PatternError("takes too long to expand")

    def holds_empty(self, names: Names) -> bool:
        """Whether the name without characters is in the set."""
        return self._holds_empty[names]

    def character(self, characters: frozenset[str], *, negated: bool = False) -> Names:
        """One of these characters, or any other one."""
        if not characters and not negated:
            return self.nothing
        return self._number(_Character(characters, negated), holds_empty=False)

    def literal(self, text: str) -> Names:
        """One name."""
        names = self.empty
        for character in reversed(text):
            names = self.then(self.character(frozenset(character)), names)
        return names

    def then(self, first: Names, second: Names) -> Names:
        """A name of `first` with one of `second` behind it."""
        parts: list[Names] = []
        while isinstance(shape := self._shapes[first], _Then):
            parts.append(shape.first)
            first = shape.second
        parts.append(first)
        self._spend(len(parts))
        for part in reversed(parts):
            if self.nothing in (part, second):
                return self.nothing
            if part == self.empty or part == second == self.all:
                continue
            if second == self.empty:
                second = part
                continue
            holds_empty = self._holds_empty[part] and self._holds_empty[second]
            second = self._number(_Then(part, second), holds_empty=holds_empty)
        return second

    def either(self, sets: Iterable[Names]) -> Names:
        """Names in any of the sets."""
        parts: set[Names] = set()
        for names in sets:
            shape = self._shapes[names]
            parts |= shape.parts if isinstance(shape, _Either) else {names}
        parts.discard(self.nothing)
        self._spend(len(parts))
        if self.all in parts:
            return self.all
        if len(parts) < 2:
            return next(iter(parts), self.nothing)
        holds_empty = any(self._holds_empty[part] for part in parts)
        return self._number(_Either(frozenset(parts)), holds_empty=holds_empty)

    def both(self, sets: Iterable[Names]) -> Names:
        """Names in all of the sets."""
        parts: set[Names] = set()
        for names in sets:
            shape = self._shapes[names]
            parts |= shape.parts if isinstance(shape, _Both) else {names}
        parts.discard(self.all)
        self._spend(len(parts))
        if self.nothing in parts:
            return self.nothing
        if len(parts) < 2:
            return next(iter(parts), self.all)
        holds_empty = all(self._holds_empty[part] for part in parts)
        return self._number(_Both(frozenset(parts)), holds_empty=holds_empty)

    def others(self, names: Names) -> Names:
        """Names that are not in the set."""
        if names in (self.nothing, self.all):
            return self.all if names == self.nothing else self.nothing
        return self._number(_Others(names), holds_empty=not self._holds_empty[names])

    def repeated(self, names: Names) -> Names:
        """Any number of names of the set, one behind the other."""
        if names in (self.nothing, self.empty):
            return self.empty
        if isinstance(self._shapes[names], _Repeated):
            return names
        return self._number(_Repeated(names), holds_empty=True)

    def after(self, names: Names, text: str) -> Names:
        """What follows `text` in names of the set."""
        for character in text:
            if names in (self.nothing, self.all):
                break
            following = self._following.get((names, character))
            if following is None:
                following = self._after(names, character)
                self._following[names, character] = following
            names = following
        return names

    def _after(self, names: Names, character: str) -> Names:
        found: list[Names] = []
        # A loop over what may be empty, because a chain of it can be longer than the stack.
        while isinstance(shape := self._shapes[names], _Then):
            found.append(self.then(self.after(shape.first, character), shape.second))
            if not self._holds_empty[shape.first]:
                return self.either(found)
            names = shape.second
        match shape:
            case _Character(characters, negated) if (character in characters) != negated:
                found.append(self.empty)
            case _Repeated(inner):
                found.append(self.then(self.after(inner, character), names))
            case _Others(inner):
                found.append(self.others(self.after(inner, character)))
            case _Either(parts):
                found += [self.after(part, character) for part in parts]
            case _Both(parts):
                found.append(self.both([self.after(part, character) for part in parts]))
            case _:
                pass
        return self.either(found)
