"""docs/architectures.md is well-formed, and gives a reason for all that is not right."""

from collections import Counter

from dus_cli.model.config_rules import REFUSED_MODEL_TYPES
from tests.conformance.verdicts import DROPS, PAGE, Verdict, read_table

TEXT = PAGE.read_text(encoding="utf-8")
TYPES = list(read_table("types", TEXT))
REASONS = list(read_table("reasons", TEXT))
VERDICTS = {row[0]: tuple(map(Verdict, row[3:-1])) for row in TYPES}
NOT_BUILT = [row[0] for row in REASONS if row[2] == Verdict.NOT_BUILT]


def test_each_type_has_one_row_with_a_verdict_for_each_m() -> None:
    assert len(TYPES) > 300
    assert [row[0] for row in TYPES] == sorted(VERDICTS)
    assert {len(row) for row in TYPES} == {4 + len(DROPS)}
    assert {len(verdicts) for verdicts in VERDICTS.values()} == {len(DROPS)}
    assert not VERDICTS.keys() & set(NOT_BUILT)


def test_whatever_is_not_right_has_its_reason() -> None:
    given = {
        (name, int(drop)): (verdict, bool(reason))
        for name, drops, verdict, reason in REASONS
        if verdict != Verdict.NOT_BUILT
        for drop in drops.split(", ")
    }
    assert given == {
        (name, drop): (verdict, True)
        for name, verdicts in VERDICTS.items()
        for drop, verdict in zip(DROPS, verdicts, strict=True)
        if verdict is not Verdict.RIGHT
    }
    assert all(row[3] for row in REASONS)


def test_totals_are_those_of_the_rows() -> None:
    for place, row in enumerate(read_table("summary", TEXT)):
        counts = Counter(verdicts[place] for verdicts in VERDICTS.values())
        counts[Verdict.NOT_BUILT] = len(NOT_BUILT)
        assert [int(cell) for cell in row] == [DROPS[place], *(counts[v] for v in Verdict)]


def test_types_that_the_tables_refuse_are_refused_here() -> None:
    for name in VERDICTS.keys() & REFUSED_MODEL_TYPES.keys():
        assert set(VERDICTS[name]) == {Verdict.REFUSED}, name
