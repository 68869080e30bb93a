"""Layers that a quantisation names, in lists, keys and patterns, renamed to their copies.

An entry is rewritten so that it fits the copies of exactly those modules that it fitted before, as
the library that reads it sees them. That is tried out on the names of the modules, not assumed.
"""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from itertools import chain, islice
from typing import Final

from dus_cli.errors import RequestError
from dus_cli.format.strict_json import Json
from dus_cli.model.architecture import CountedStack
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.module_names import ModuleNames, NameTree, outputs_of
from dus_cli.model.name_patterns import matches_whole
from dus_cli.model.name_sets import NameSets, PatternError
from dus_cli.model.naming_rules import NAMING_FIELDS as NAMING_FIELDS
from dus_cli.model.naming_rules import NamingRule, Reader, rule_for
from dus_cli.printable import quoted

_DOTTED_NAME: Final = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_DIGIT: Final = re.compile(r"[0-9]")
_MAY_COUNT: Final = re.compile(r"[0-9\[{]|\\d")
"""What a pattern needs to tell one layer from another."""

_DIGITS: Final = r"(?:(?:\d|\\d|\[[\d-]++\])(?:[+*?]|\{\d++(?:,\d*+)?\})?+)++"
_NUMBERS: Final = re.compile(
    rf"(?<![\w)\]\\])(?:{_DIGITS}|\((?:\?:)?{_DIGITS}(?:\|{_DIGITS})*+\))(?![\w*+?{{(\[])"
)
"""Layer numbers as patterns hold them: `7`, `(0|1)`, `[0-3]`, `1\\d?`."""

_MAX_NUMBERS: Final = 8
_MAX_LAYERS: Final = 10_000
_MAX_WRITTEN: Final = 100_000
"""Names that may take one entry's place."""


def rename_layers(
    value: Json,
    *,
    subject: str,
    path: str,
    tensor_names: Iterable[str],
    scaled: Sequence[tuple[CountedStack, LayerMap]],
) -> Json:
    """`value` with every layer that is named in it replaced by its copies.

    `subject` is the file and `path` the field that the value comes from, both for errors.

    Raises RequestError for an entry that cannot be written for the copies, or not be read.
    """
    mentioned = (text for text in _texts(value) if _DIGIT.search(text))
    modules = ModuleNames(tensor_names, scaled, filter(_DOTTED_NAME.fullmatch, mentioned))
    method = value.get("quant_method") if isinstance(value, dict) else None
    renaming = _Renaming(subject, modules, method if isinstance(method, str) else "")
    return renaming.of(value, path, field="")


class _Renaming:
    """One value on its way."""

    def __init__(self, subject: str, modules: ModuleNames, method: str) -> None:
        self._subject = subject
        self._modules = modules
        self._method = method
        self._sets = NameSets()

    def of(self, value: Json, path: str, *, field: str) -> Json:
        """`value` renamed; `field` is the name of what holds it, which says how it is read."""
        rule = rule_for(self._method, field)
        if isinstance(value, dict):
            return self._object(value, rule, path)
        if isinstance(value, list):
            return list(
                chain.from_iterable(
                    self._entries(entry, rule, path)
                    if isinstance(entry, str)
                    else [self.of(entry, path, field=field)]
                    for entry in value
                )
            )
        if isinstance(value, str) and self._names_layer(value):
            raise self._unmovable(path, value)
        return value

    def _object(self, value: Mapping[str, Json], rule: NamingRule, path: str) -> dict[str, Json]:
        decided = cache(lambda: self._decisions(rule.reader, value, self._modules.before))
        keys: dict[str, str] = {}
        for key in value:
            for new in self._entries(key, rule, path, decided):
                keys.setdefault(new, key)
        if list(keys) != list(value) and not all(map(_DOTTED_NAME.fullmatch, value)):
            self._check_decisions(decided(), keys, rule, path)
        inner = {key: self.of(entry, f"{path}.{key}", field=key) for key, entry in value.items()}
        return {new: copy.deepcopy(inner[key]) for new, key in keys.items()}

    def _check_decisions(
        self, before: Mapping[str, str], keys: Mapping[str, str], rule: NamingRule, path: str
    ) -> None:
        """Raises where another entry than `before` would decide about a module's copy."""
        after = self._decisions(rule.reader, keys, self._modules.after)
        for module, copies in self._modules.outputs.items():
            for name in copies:
                found = keys[after[name]] if name in after else None
                if found != before.get(module):
                    raise self._unmovable(
                        path, found or before[module], "another entry would decide"
                    )

    def _decisions(self, reader: Reader, keys: Iterable[str], tree: NameTree) -> dict[str, str]:
        """Module -> the key that decides about it."""
        decisions: dict[str, str] = {}
        for tier in reader:
            for key in keys:
                for name in self._selected((tier,), key, tree):
                    decisions.setdefault(name, key)
        return decisions

    def _selected(self, reader: Reader, entry: str, tree: NameTree) -> Set[str]:
        """The names in `tree` that an entry fits."""
        found: set[str] = set()
        for tier in reader:
            meaning = tier(self._sets, entry)
            if isinstance(meaning, str):
                found |= {meaning} & tree.names
            elif meaning is not None:
                found |= set(tree.select(self._sets, meaning))
        return found

    def _entries(
        self,
        entry: str,
        rule: NamingRule,
        path: str,
        decided: Callable[[], Mapping[str, str]] | None = None,
    ) -> list[str]:
        """What takes the place of one entry. Among keys, `decided` tells which decides of what."""
        is_name = _DOTTED_NAME.fullmatch(entry) is not None
        if is_name and not _DIGIT.search(entry):
            return [entry]
        if is_name and self._modules.is_unmistakable(entry):
            return self._modules.copies(entry)
        try:
            attempts = self._attempts(entry, is_name=is_name)
            chosen = self._fitting(attempts, entry, rule, decided)
        except PatternError as error:
            if not _MAY_COUNT.search(entry):
                return [entry]
            raise self._unmovable(path, entry, str(error)) from None
        if chosen is None or self._is_unread(entry, rule):
            raise self._unmovable(path, entry)
        return chosen

    def _fitting(
        self,
        attempts: Iterable[list[str]],
        entry: str,
        rule: NamingRule,
        decided: Callable[[], Mapping[str, str]] | None,
    ) -> list[str] | None:
        """The first attempt that fits the copies of what `entry` fits, else their names; None
        where nothing does."""
        outputs = self._modules.outputs
        found = self._selected(rule.reader, entry, self._modules.before)
        wanted = {name for module in found for name in outputs[module]}
        for tried in attempts:
            if self._fits(tried, rule, wanted):
                return tried
        if len(wanted) > _MAX_WRITTEN:
            return None
        if decided is None:
            written = rule.write(entry, sorted(wanted, key=_numerically))
            return written if self._fits(written, rule, wanted) else None
        # Where an earlier key decides this one must not; they are held against each other later.
        modules = (module for module, key in decided().items() if key == entry)
        names = {name for module in modules for name in outputs[module]}
        return rule.write(entry, sorted(names, key=_numerically))

    def _fits(self, tried: Iterable[str], rule: NamingRule, wanted: Set[str]) -> bool:
        """Whether entries fit these modules of the result and no others."""
        found = (self._selected(rule.reader, entry, self._modules.after) for entry in tried)
        return set().union(*found) == wanted

    def _attempts(self, entry: str, *, is_name: bool) -> Iterator[list[str]]:
        """Ways to write an entry for the copies that keep its form."""
        if is_name:
            yield self._modules.copies(entry)
        else:
            yield [entry]
            yield from self._renumbered(entry)

    def _is_unread(self, entry: str, rule: NamingRule) -> bool:
        """Whether an entry looks like a pattern for layers and its field takes names alone."""
        taken = (tier(self._sets, entry) for tier in rule.reader)
        return all(meaning in (entry, None) for meaning in taken) and self._names_layer(entry)

    def _renumbered(self, entry: str) -> Iterator[list[str]]:
        """The pattern with its layer numbers replaced, for each place where one may stand."""
        for found in islice(_NUMBERS.finditer(entry), _MAX_NUMBERS):
            begin, end = found.span()
            for counted, layer_map in self._modules.scaled:
                numbers = self._numbers(found[0], counted)
                outputs = {
                    output
                    for number in numbers
                    for output in outputs_of(number, counted, layer_map)
                }
                written = [str(output) for output in sorted(outputs)]
                if len(written) > 1:
                    yield [f"{entry[:begin]}(?:{'|'.join(written)}){entry[end:]}"]
                yield [f"{entry[:begin]}{number}{entry[end:]}" for number in written]

    def _numbers(self, pattern: str, counted: CountedStack) -> list[int]:
        """The layers whose number a part of a pattern fits."""
        if pattern.isdecimal():
            return [int(pattern)] if len(pattern) < 7 else []
        named = matches_whole(self._sets, pattern)
        return [
            number
            for number in range(min(counted.stack.layer_count, _MAX_LAYERS))
            if self._sets.holds_empty(self._sets.after(named, str(number)))
        ]

    def _names_layer(self, text: str) -> bool:
        """Whether `text` names layers of a scaled stack, as a name or by the look of it."""
        if _DOTTED_NAME.fullmatch(text):
            return self._modules.place_of(text) is not None
        words = {counted.stack.prefix.split(".")[-1] for counted, _ in self._modules.scaled}
        return _DIGIT.search(text) is not None and any(
            re.search(rf"(?<![A-Za-z0-9_]){re.escape(word)}\W", text) for word in words
        )

    def _unmovable(self, path: str, text: str, reason: str = "") -> RequestError:
        return RequestError(
            f"{self._subject}: {path} names a layer in a way that dus cannot renumber: "
            f"{quoted(text)}{f' ({reason})' if reason else ''}",
            hint="Write the module names out, one an entry, and run again.",
        )


def _numerically(name: str) -> list[tuple[int, str]]:
    """Layer 9 before layer 10."""
    return [
        (int(part), "") if len(part) < 7 and part.isascii() and part.isdecimal() else (-1, part)
        for part in name.split(".")
    ]


def _texts(value: Json) -> Iterator[str]:
    """All keys and strings in a value."""
    if isinstance(value, dict):
        yield from value
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, str):
        yield value
