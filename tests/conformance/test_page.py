"""docs/architectures.md is well-formed, and gives a reason for all that is not right."""

from collections import Counter

from dus_cli.model.config_rules import REFUSED_MODEL_TYPES
from tests.conformance.verdicts import (
    DROPS,
    PAGE,
    Judgement,
    Results,
    Ruling,
    Verdict,
    causes,
    named,
    read_table,
    refusals,
    summary,
)

TEXT = PAGE.read_text(encoding="utf-8")
TYPES = list(read_table("types", TEXT))
NAMED = list(read_table("named", TEXT))
CAUSES = list(read_table("causes", TEXT))
REFUSALS = list(read_table("refusals", TEXT))
VERDICTS = {row[0]: tuple(map(Verdict, row[3:-1])) for row in TYPES}
NOT_BUILT = [row[0] for row in CAUSES if row[3] == Verdict.NOT_BUILT]


def test_each_type_has_one_row_with_a_verdict_for_each_m() -> None:
    assert len(TYPES) > 300
    assert [row[0] for row in TYPES] == sorted(VERDICTS)
    assert {len(row) for row in TYPES} == {4 + len(DROPS)}
    assert {len(verdicts) for verdicts in VERDICTS.values()} == {len(DROPS)}
    assert not VERDICTS.keys() & set(NOT_BUILT)


def test_stacks_that_are_named_belong_to_types_that_were_built() -> None:
    assert len(NAMED) > 50
    assert len({(name, stack) for name, stack, _ in NAMED}) == len(NAMED)
    assert {name for name, _, _ in NAMED} <= VERDICTS.keys()
    assert Verdict.REFUSED not in {Verdict(verdict) for _, _, verdict in NAMED}


def test_whatever_is_not_right_has_its_reason() -> None:
    given = {
        (name, stack, int(drop)): (verdict, bool(reason))
        for name, stack, drops, verdict, reason in (*CAUSES, *REFUSALS)
        if verdict != Verdict.NOT_BUILT
        for drop in drops.split(", ")
    }
    by_itself = {
        (name, "", drop): verdict
        for name, verdicts in VERDICTS.items()
        for drop, verdict in zip(DROPS, verdicts, strict=True)
    }
    by_name = {(name, stack, DROPS[0]): Verdict(verdict) for name, stack, verdict in NAMED}
    assert given == {
        case: (verdict, True)
        for case, verdict in (by_itself | by_name).items()
        if verdict is not Verdict.RIGHT
    }
    assert all(row[-1] for row in (*CAUSES, *REFUSALS))


def test_refusals_and_what_is_open_are_told_apart() -> None:
    assert {row[3] for row in REFUSALS} == {Verdict.REFUSED}
    assert not {row[3] for row in CAUSES} & {Verdict.RIGHT, Verdict.REFUSED}


def test_totals_are_those_of_the_rows() -> None:
    *by_drop, by_name = read_table("summary", TEXT)
    for place, row in enumerate(by_drop):
        counts = Counter(verdicts[place] for verdicts in VERDICTS.values())
        counts[Verdict.NOT_BUILT] = len(NOT_BUILT)
        assert [int(cell) for cell in row] == [DROPS[place], *(counts[v] for v in Verdict)]
    shown = dict(zip(Verdict, by_name[1:], strict=True)) | {Verdict.REFUSED: "0"}
    counts = Counter(Verdict(verdict) for _, _, verdict in NAMED)
    assert shown == {verdict: str(counts[verdict]) for verdict in Verdict}


def test_types_that_the_tables_refuse_are_refused_here() -> None:
    for name in VERDICTS.keys() & REFUSED_MODEL_TYPES.keys():
        assert set(VERDICTS[name]) == {Verdict.REFUSED}, name


def test_whatever_is_open_is_listed_with_its_cause() -> None:
    right, refused = Ruling(verdict=Verdict.RIGHT), Ruling(verdict=Verdict.REFUSED, reason="no")
    unseen = Ruling(verdict=Verdict.WEIGHTS_ONLY, reason="no input")
    wrong = Ruling(verdict=Verdict.WRONG, reason="other values")
    results: Results = {
        "b": Judgement(
            model_class="B",
            stacks=("layers",),
            rules=("count",),
            rulings=(right, unseen, unseen),
            named={"tower": wrong, "convs": refused, "blocks": right},
        ),
        "a": Judgement(model_class="A", stacks=(), rules=(), rulings=(refused,) * 3, named={}),
        "c": "too large",
    }

    def rows(table: str) -> list[list[str]]:
        return list(read_table("it", f"<!-- it -->\n{table}\n<!-- end of it -->"))

    assert rows(causes(results)) == [
        ["b", "", "2, 3", "weights only", "no input"],
        ["b", "tower", "1", "WRONG", "other values"],
        ["c", "", "", "not built", "too large"],
    ]
    assert rows(refusals(results)) == [["a", "", "1, 2, 3", "refused", "no"]]
    assert rows(named(results)) == [["b", "tower", "WRONG"], ["b", "blocks", "right"]]
    assert rows(summary(results)) == [
        ["1", "1", "0", "1", "0", "1"],
        ["2", "0", "1", "1", "0", "1"],
        ["3", "0", "1", "1", "0", "1"],
        ["1, stack named", "1", "0", "1", "1", "0"],
    ]
