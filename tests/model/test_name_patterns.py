"""Patterns fit what Python's own matcher fits, and hostile ones end soon."""

import fnmatch
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dus_cli.model.name_patterns import (
    PatternReader,
    matches_anywhere,
    matches_from_start,
    matches_glob,
    matches_whole,
)
from dus_cli.model.name_sets import NameSets, PatternError

NAMES = [
    "",
    "lm_head",
    "model.layers.1.mlp.gate",
    "model.layers.1.mlp.gate_proj",
    "model.layers.10.mlp.gate",
    "model.layers.11.self_attn.q_proj",
    "model.layers.2.mlp.experts.17.w1",
    "visual.blocks.1.attn-x",
    "a\nb",
]

READERS: list[tuple[PatternReader, Callable[[str, str], object]]] = [
    (matches_from_start, re.match),
    (matches_whole, re.fullmatch),
    (matches_anywhere, re.search),
]


def fits(reader: PatternReader, pattern: str, name: str) -> bool:
    sets = NameSets()
    return sets.holds_empty(sets.after(reader(sets, pattern), name))


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "model.layers.1",
        r"model\.layers\.1\.",
        r".*\.1\..*gate",
        r"^model\.layers\.(?:0|1)\.mlp.*$",
        r".*layers\.[0-1]\..*",
        r".*layers\.[^2-9]\.",
        r".*\.1\d\..*",
        r"(?!.*mlp).*",
        r"^(?!.*(?:lm_head|gate)).*$",
        r".*(?=gate).*proj$",
        r"(^model|visual).*q",
        r"x|lm_head$",
        r"model(\.\w+)+",
        r"(?P<top>model)\.(layers){1}\.1{2}",
        r"(a?b?c?)*l",
        r"[\w.]+",
        r"[^\W_]+",
        r"[\W\d]",
        r"[\]a-]",
        r"[]m]",
        r".+?gate",
        r"\Amodel.*gate\Z",
        r"a.b",
        r"m{,2}o{1,}d{1,2}",
        r"mo{x",
        r"-x|\-x",
    ],
)
@pytest.mark.parametrize(("ours", "theirs"), READERS, ids=["match", "fullmatch", "search"])
def test_a_pattern_fits_what_python_fits(
    pattern: str, ours: PatternReader, theirs: Callable[[str, str], object]
) -> None:
    found = {name for name in NAMES if fits(ours, pattern, name)}
    assert found == {name for name in NAMES if theirs(pattern, name)}


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "model.layers.1*",
        "*.mlp.gate",
        "model.layers.?.*",
        "*[0-1].mlp*",
        "*[!a]w1",
        "l[m_",
        "a*",
    ],
)
def test_a_glob_fits_what_fnmatch_fits(pattern: str) -> None:
    found = {name for name in NAMES if fits(matches_glob, pattern, name)}
    assert found == {name for name in NAMES if fnmatch.fnmatchcase(name, pattern)}


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\.", r"\d", "^", "$"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(ATOMS, st.sampled_from(["*", "+", "?", "{2}", "*?"])).map(
            lambda pair: pair[0] + pair[1] if pair[0] not in "^$" else pair[0]
        ),
        inner.map(lambda text: f"(?!{text})"),
        inner.map(lambda text: f"(?={text})"),
    ),
    max_leaves=6,
)


@settings(max_examples=400)
@given(pattern=PATTERNS, name=st.text("ab.1", max_size=5))
def test_any_pattern_fits_what_python_fits(pattern: str, name: str) -> None:
    for ours, theirs in READERS:
        try:
            fitting = fits(ours, pattern, name)
        except PatternError:
            assume(False)
        assert fitting == bool(theirs(pattern, name))


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:a|^)^",
        "(?!a*^)b",
        "(",
        ")",
        "a)",
        "[a",
        "*a",
        "a**",
        "a++",
        r"(a)\1",
        r"\ba",
        "(?i)a",
        "(?<=a)b",
        "(^a)*",
        "a{3,2}",
        "a{101}",
        "a" * 20_001,
        "(" * 50 + ")" * 50,
        "[z-a]",
        "\\",
    ],
)
def test_a_pattern_that_is_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        matches_anywhere(NameSets(), pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*b",
        "(.*a){9}b",
        "(((a{99}){99}){99}){99}",
        ".*a.{90}b",
        "(?:a?){90}a{90}" * 5,
        "a?" * 9_000,
    ],
)
def test_a_hostile_pattern_costs_little_time(pattern: str) -> None:
    sets = NameSets()
    begin = time.monotonic()
    try:
        sets.after(matches_anywhere(sets, pattern), "ab" * 500)
        sets.after(matches_anywhere(sets, pattern), "a" * 2_000)
    except PatternError:
        pass
    assert time.monotonic() - begin < 20
