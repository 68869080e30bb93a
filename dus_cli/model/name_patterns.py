"""Regular expressions and globs as sets of names.

Of Python's regular expressions all is read that depends on the name alone: no groups that refer to
each other, no flags, no looking behind. Source: docs.python.org/3/library/re.html.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from dus_cli.model.name_sets import Names, NameSets, PatternError

_MAX_LENGTH: Final = 20_000
_MAX_NESTING: Final = 40
_MAX_REPEAT: Final = 100

_DIGITS: Final = frozenset("0123456789")
_WORD: Final = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE: Final = frozenset(" \t\n\r\f\v")
_CLASSES: Final = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_NEGATED_CLASSES: Final = {name.upper(): members for name, members in _CLASSES.items()}
_COUNTED: Final = re.compile(r"\{([0-9]{0,4})(,?)([0-9]{0,4})\}")
_GROUP: Final = re.compile(r"\?(?P<kind>:|=|!|P<\w+>)")


@dataclass(frozen=True, slots=True)
class _Characters:
    members: frozenset[str]
    negated: bool


@dataclass(frozen=True, slots=True)
class _Anchor:
    at_start: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    items: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Choice:
    branches: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Repeat:
    node: "_Node"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class _LookAhead:
    node: "_Node"
    negated: bool


_Node: TypeAlias = _Characters | _Anchor | _Sequence | _Choice | _Repeat | _LookAhead


def matches_from_start(sets: NameSets, pattern: str) -> Names:
    """What `re.match` finds: names of which a beginning fits. Raises PatternError."""
    return _Builder(sets).names(_Parser(pattern).parse(), sets.all, at_start=True)


def matches_whole(sets: NameSets, pattern: str) -> Names:
    """What `re.fullmatch` finds. Raises PatternError."""
    return _Builder(sets).names(_Parser(pattern).parse(), sets.empty, at_start=True)


def matches_anywhere(sets: NameSets, pattern: str) -> Names:
    """What `re.search` finds. Raises PatternError."""
    node, builder = _Parser(pattern).parse(), _Builder(sets)
    later = builder.names(node, sets.all, at_start=False)
    return sets.either(
        [
            builder.names(node, sets.all, at_start=True),
            sets.then(sets.any_character, sets.then(sets.all, later)),
        ]
    )


def matches_glob(sets: NameSets, pattern: str) -> Names:
    """What `fnmatch` finds: `*`, `?` and `[...]`. Raises PatternError."""
    return matches_whole(sets, _python_glob(pattern))


def _python_glob(pattern: str) -> str:
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        sign = pattern[position]
        end = pattern.find("]", position + 2 + pattern.startswith("!", position + 1))
        if sign == "[" and end > 0:
            inside = pattern[position + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]")
            position = end + 1
            continue
        parts.append({"*": r"[\s\S]*", "?": r"[\s\S]"}.get(sign, re.escape(sign)))
        position += 1
    return "".join(parts)


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _MAX_LENGTH:
            raise PatternError("is too long")
        self._rest = pattern
        self._position = 0

    def parse(self) -> _Node:
        node = self._choice(0)
        if self._position < len(self._rest):
            raise PatternError("has a parenthesis too many")
        return node

    def _peek(self) -> str:
        return self._rest[self._position : self._position + 1]

    def _take(self) -> str:
        sign = self._peek()
        if not sign:
            raise PatternError("ends too early")
        self._position += 1
        return sign

    def _taken(self, sign: str) -> bool:
        if self._peek() != sign:
            return False
        self._position += 1
        return True

    def _choice(self, depth: int) -> _Node:
        if depth > _MAX_NESTING:
            raise PatternError("is nested too deeply")
        branches = [self._sequence(depth)]
        while self._taken("|"):
            branches.append(self._sequence(depth))
        return _Choice(tuple(branches)) if branches[1:] else branches[0]

    def _sequence(self, depth: int) -> _Node:
        items: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._repeat(self._item(depth)))
        return _Sequence(tuple(items))

    def _item(self, depth: int) -> _Node:
        sign = self._take()
        match sign:
            case "(":
                return self._group(depth)
            case "[":
                return self._class()
            case ".":
                return _Characters(frozenset("\n"), negated=True)
            case "^" | "$":
                return _Anchor(at_start=sign == "^")
            case "\\":
                return self._escape(self._take())
            case "*" | "+" | "?":
                raise PatternError("repeats nothing")
        return _Characters(frozenset(sign), negated=False)

    def _group(self, depth: int) -> _Node:
        kind = ":"
        if self._peek() == "?":
            opening = _GROUP.match(self._rest, self._position)
            if opening is None:
                raise PatternError("has a kind of group that dus does not read")
            self._position = opening.end()
            kind = opening["kind"]
        node = self._choice(depth + 1)
        if not self._taken(")"):
            raise PatternError("lacks a parenthesis")
        return _LookAhead(node, negated=kind == "!") if kind in ("=", "!") else node

    def _escape(self, sign: str) -> _Node:
        if sign in _CLASSES:
            return _Characters(_CLASSES[sign], negated=False)
        if sign in _NEGATED_CLASSES:
            return _Characters(_NEGATED_CLASSES[sign], negated=True)
        if sign in ("A", "Z"):
            return _Anchor(at_start=sign == "A")
        if sign.isalnum():
            raise PatternError(f"has \\{sign}, which dus does not read")
        return _Characters(frozenset(sign), negated=False)

    def _class(self) -> _Node:
        negated = self._taken("^")
        members: set[str] = set()
        others: list[frozenset[str]] = []
        is_first = True
        while is_first or self._peek() != "]":
            is_first = False
            low = self._class_member(members, others)
            if low is None or not self._rest.startswith("-", self._position):
                continue
            if self._rest.startswith("-]", self._position):
                continue
            self._position += 1
            high = self._class_member(members, others)
            if high is None or high < low or ord(high) > 0x7F:
                raise PatternError("has a range that dus does not read")
            members |= {chr(code) for code in range(ord(low), ord(high) + 1)}
        self._position += 1
        if not others:
            return _Characters(frozenset(members), negated)
        # All but `outside` are in the class: what every negated class in it leaves out, less
        # what is named otherwise.
        outside = frozenset.intersection(*others) - members
        return _Characters(outside, not negated)

    def _class_member(self, members: set[str], others: list[frozenset[str]]) -> str | None:
        """One member of a class, added to it; None for what is no single character."""
        sign = self._take()
        if sign != "\\":
            members.add(sign)
            return sign
        node = self._escape(self._take())
        if not isinstance(node, _Characters):
            raise PatternError("has an anchor in a class")
        if node.negated:
            others.append(node.members)
            return None
        members |= node.members
        return next(iter(node.members)) if len(node.members) == 1 else None

    def _repeat(self, node: _Node) -> _Node:
        counted = _COUNTED.match(self._rest, self._position)
        least, most = 0, None
        if counted is not None and (counted[1] or counted[3]):
            self._position = counted.end()
            least = int(counted[1] or 0)
            most = int(counted[3]) if counted[3] else None if counted[2] else least
            if max(least, most or 0) > _MAX_REPEAT or (most is not None and most < least):
                raise PatternError("repeats too often")
        elif self._taken("+"):
            least = 1
        elif self._taken("?"):
            most = 1
        elif not self._taken("*"):
            return node
        if self._taken("?"):
            pass  # How much is taken first makes no difference to what fits.
        elif self._peek() in ("*", "+", "{"):
            raise PatternError("repeats a repetition")
        return _Repeat(node, least, most)


@dataclass(frozen=True, slots=True)
class _Builder:
    sets: NameSets

    def names(self, node: _Node, rest: Names, *, at_start: bool) -> Names:
        """Names that begin with what `node` fits and end in `rest`.

        `at_start`: whether the name begins where the node does. Built from the end, because what
        looks ahead speaks of everything behind it.
        """
        sets = self.sets
        match node:
            case _Characters(members, negated):
                return sets.then(sets.character(members, negated=negated), rest)
            case _Anchor(at_start=True):
                return rest if at_start else sets.nothing
            case _Anchor():
                return sets.both([sets.empty, rest])
            case _LookAhead(inner, negated):
                ahead = self.names(inner, sets.all, at_start=at_start)
                return sets.both([sets.others(ahead) if negated else ahead, rest])
            case _Choice(branches):
                return sets.either(
                    [self.names(branch, rest, at_start=at_start) for branch in branches]
                )
            case _Sequence(items):
                count = next(
                    (index for index, item in enumerate(items) if not _is_empty(item)), len(items)
                )
                if any(_asks_for_start(item) for item in items[count + 1 :]):
                    # What is before it may fit nothing, and whether it does is not known here.
                    raise PatternError("has a ^ behind something else")
                for index, item in reversed([*enumerate(items)]):
                    rest = self.names(item, rest, at_start=at_start and index <= count)
                return rest
            case _Repeat(inner, least, most):
                return self._repeat(inner, least, most, rest)

    def _repeat(self, inner: _Node, least: int, most: int | None, rest: Names) -> Names:
        if _looks_around(inner):
            raise PatternError("repeats what looks around")
        sets = self.sets
        once = self.names(inner, sets.empty, at_start=False)
        if most is None:
            rest = sets.then(sets.repeated(once), rest)
        else:
            behind = rest
            for _ in range(most - least):
                rest = sets.either([behind, sets.then(once, rest)])
        for _ in range(least):
            rest = sets.then(once, rest)
        return rest


def _is_empty(node: _Node) -> bool:
    """Whether the node fits no character, so that the next one is at the start as well."""
    return isinstance(node, _Anchor | _LookAhead)


def _looks_around(node: _Node) -> bool:
    match node:
        case _Anchor() | _LookAhead():
            return True
        case _Sequence(parts) | _Choice(parts):
            return any(map(_looks_around, parts))
        case _Repeat(inner, _, _):
            return _looks_around(inner)
    return False


def _asks_for_start(node: _Node) -> bool:
    match node:
        case _Anchor(at_start):
            return at_start
        case _Sequence(parts) | _Choice(parts):
            return any(map(_asks_for_start, parts))
        case _Repeat(inner, _, _) | _LookAhead(inner, _):
            return _asks_for_start(inner)
    return False


PatternReader: TypeAlias = Callable[[NameSets, str], Names]
