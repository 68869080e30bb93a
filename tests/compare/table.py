"""The tables of docs/comparison.md: from verdicts to Markdown, and back for the test."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dus_cli.findings import CHECKS, Group
from tests.compare.tools import TOOLS
from tests.compare.verdicts import Verdict
from tests.verify.faults import FAULTS, Fault

PAGE: Final = Path(__file__).parents[2] / "docs" / "comparison.md"
_REPORTED: Final = (Verdict.FOUND, Verdict.WARNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault, by its name and the option that it needs, with a verdict for each of `TOOLS`."""

    group: Group
    fault: str
    option: str
    verdicts: tuple[Verdict, ...]


def group_of(fault: Fault) -> Group:
    """The class of a fault: what the finding that names it is about."""
    return CHECKS[fault.code].group


def option_of(fault: Fault) -> str:
    return fault.options[0] if fault.options else ""


def expected_rows() -> list[tuple[str, str, str]]:
    """Class, name and option of each fault, in the table's order."""
    order = list(Group)
    faults = sorted(FAULTS, key=lambda fault: order.index(group_of(fault)))
    return [(group_of(fault).value, fault.name, option_of(fault)) for fault in faults]


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """How many faults of each class each tool reports, and the totals of each verdict."""
    yield from _head("about", "faults")
    for group in Group:
        of_group = [row for row in rows if row.group is group]
        yield _line(group.value, str(len(of_group)), *_reported(of_group))
    yield _line("**all**", str(len(rows)), *(f"**{count}**" for count in _reported(rows)))
    for verdict in Verdict:
        if any(verdict in row.verdicts for row in rows):
            name = "not noticed" if verdict is Verdict.MISSED else verdict.value
            yield _line(f"of these: {name}", "", *_counts(rows, verdict))


def detail(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each fault."""
    yield from _head("about", "fault", "option")
    order = list(Group)
    for row in sorted(rows, key=lambda row: order.index(row.group)):
        option = f"`{row.option}`" if row.option else ""
        yield _line(
            row.group.value, row.fault, option, *(verdict.value for verdict in row.verdicts)
        )


def read_detail(text: str) -> list[Row]:
    """The rows of a page's table of faults; raises ValueError for a cell that is no verdict."""
    _, _, table = text.partition("| about | fault | option |")
    rows = []
    for line in table.splitlines()[2:]:
        if not line.startswith("|"):
            break
        group, fault, option, *verdicts = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append(
            Row(
                group=Group(group),
                fault=fault,
                option=option.strip("`"),
                verdicts=tuple(map(Verdict, verdicts)),
            )
        )
    return rows


def _reported(rows: Sequence[Row]) -> list[str]:
    return _counts(rows, *_REPORTED)


def _counts(rows: Sequence[Row], *verdicts: Verdict) -> list[str]:
    counters = [Counter(row.verdicts[column] for row in rows) for column in range(len(TOOLS))]
    return [str(sum(counter[verdict] for verdict in verdicts)) for counter in counters]


def _head(*titles: str) -> Iterator[str]:
    yield _line(*titles, *(tool.title for tool in TOOLS))
    yield _line(*["---"] * (len(titles) + len(TOOLS)))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
