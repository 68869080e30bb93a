"""Where quantisations name modules, and what each library takes such a name to mean.

Checked against the loaders of transformers 5.23, GPTQModel 5, compressed-tensors, auto-round,
torchao, ModelOpt, Quark, mlx-lm and vLLM.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dus_cli.model.name_patterns import (
    matches_anywhere,
    matches_from_start,
    matches_glob,
    matches_whole,
)
from dus_cli.model.name_sets import Names, NameSets

NAMING_FIELDS: Final = ("quantization_config", "compression_config", "quantization")
"""Objects in a config, at the top or in a section, that name modules; the last is MLX's."""

_SIGN: Final = re.compile(r"[+-]:")

Meaning: TypeAlias = str | Names | None
"""What an entry stands for: one name, a set of names, or nothing to this reader."""

Tier: TypeAlias = Callable[[NameSets, str], Meaning]

Reader: TypeAlias = tuple[Tier, ...]
"""How one library reads a field. An entry of an earlier tier goes before all of a later one; in
one tier the first entry that fits a module counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingRule:
    """The `reader` of a field's entries, and how to write an entry that means `names` alone, with
    whatever else the old one said."""

    reader: Reader
    write: Callable[[str, Sequence[str]], list[str]]


def _exact(_sets: NameSets, entry: str) -> Meaning:
    return entry


def _as_pattern(sets: NameSets, entry: str) -> Meaning:
    """A pattern behind `re:`, else a name."""
    return matches_from_start(sets, entry[3:]) if entry.startswith("re:") else entry


def _as_glob(sets: NameSets, entry: str) -> Meaning:
    if entry.startswith("re:"):
        return matches_from_start(sets, entry[3:])
    return matches_glob(sets, entry) if set("*?[") & set(entry) else entry


def _as_glob_or_part(sets: NameSets, entry: str) -> Meaning:
    """A glob, else a part of a name, as vLLM reads what ModelOpt writes."""
    globbed = _as_glob(sets, entry)
    if isinstance(globbed, str):
        return sets.then(sets.all, sets.then(sets.literal(entry), sets.all))
    return globbed


def _skipped(sets: NameSets, entry: str) -> Meaning:
    """A pattern for the beginning, or the very end, as `should_convert_module` has it."""
    ending = sets.then(sets.all, sets.literal(entry))
    return sets.either([matches_from_start(sets, entry), ending])


def _signed(sets: NameSets, entry: str) -> Meaning:
    return matches_from_start(sets, _SIGN.sub("", entry, count=1))


def _whole_pattern(sets: NameSets, entry: str) -> Meaning:
    return matches_whole(sets, entry[3:]) if entry.startswith("re:") else None


def _name_alone(_sets: NameSets, entry: str) -> Meaning:
    return None if entry.startswith("re:") else entry


def _special(sets: NameSets, entry: str) -> Meaning:
    return matches_anywhere(sets, entry) if set(r"*+?^$()[]{}|\\") & set(entry) else None


def _write_names(_entry: str, names: Sequence[str]) -> list[str]:
    return list(names)


def _write_signed(entry: str, names: Sequence[str]) -> list[str]:
    sign = _SIGN.match(entry)
    named = "|".join(re.escape(name) for name in names)
    return [f"{sign[0] if sign else ''}^(?:{named})$"] if names else []


_PLAIN: Final = NamingRule(reader=(_as_pattern,), write=_write_names)
_SKIPPED: Final = NamingRule(reader=(_skipped,), write=_write_names)
_GLOBS: Final = NamingRule(reader=(_as_glob_or_part,), write=_write_names)
_BY_PATH: Final = NamingRule(reader=(_name_alone, _whole_pattern), write=_write_names)

_BY_FIELD: Final[Mapping[str, NamingRule]] = {
    "modules_to_not_convert": _SKIPPED,
    "llm_int8_skip_modules": _SKIPPED,
    "skip_modules": _SKIPPED,
    "ignored_layers": NamingRule(reader=(_exact,), write=_write_names),
    "dynamic": NamingRule(reader=(_signed,), write=_write_signed),
    "extra_config": NamingRule(reader=(_exact, _special), write=_write_names),
    "exclude_modules": _GLOBS,
    "exclude": _GLOBS,
    "layer_quant_config": NamingRule(reader=(_as_glob,), write=_write_names),
    "module_fqn_to_config": _BY_PATH,
    "fqn_to_config": _BY_PATH,
}
"""What entries of a field mean, lists and keys of objects alike; anywhere else an entry is a name,
or a pattern behind `re:`, as compressed-tensors has it."""

_BY_METHOD: Final[Mapping[tuple[str, str], NamingRule]] = {("modelopt", "ignore"): _GLOBS}
"""Fields that one method reads otherwise."""


def rule_for(method: str, field: str) -> NamingRule:
    """How the entries of a field are read, given the `quant_method` it belongs to."""
    return _BY_METHOD.get((method, field)) or _BY_FIELD.get(field, _PLAIN)
