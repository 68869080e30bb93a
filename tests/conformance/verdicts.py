"""What the judge says, as values, and docs/architectures.md, which is made of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "architectures.md"
DROPS: Final = (1, 2, 3)


class Verdict(StrEnum):
    """What became of a model."""

    RIGHT = "right"
    WEIGHTS_ONLY = "weights only"
    REFUSED = "refused"
    WRONG = "WRONG"
    NOT_BUILT = "not built"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The verdict for one m, and why; of a refusal it is what dus says."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A type's model, what dus scaled of it by which rules, and a ruling for each m of DROPS."""

    model_class: str
    stacks: tuple[str, ...]
    rules: tuple[str, ...]
    rulings: tuple[Ruling, ...]


Results = Mapping[str, Judgement | str]
"""Model type -> judgement, or why there is none."""


def summary(results: Results) -> str:
    """How many types have each verdict, a line for each m."""
    lines = [_line("m", *Verdict), _rule(1 + len(Verdict))]
    for place, drop in enumerate(DROPS):
        counts = Counter(
            Verdict.NOT_BUILT if isinstance(result, str) else result.rulings[place].verdict
            for result in results.values()
        )
        lines.append(_line(str(drop), *(str(counts[verdict]) for verdict in Verdict)))
    return "\n".join(lines)


def types(results: Results) -> str:
    """A line for each type that was built."""
    head = ("type", "class", "stacks", *(f"m = {drop}" for drop in DROPS), "rules")
    lines = [_line(*head), _rule(len(head))]
    for name, result in sorted(results.items()):
        if not isinstance(result, str):
            stacks = ", ".join(f"`{stack}`" for stack in result.stacks)
            rules = ", ".join(result.rules)
            verdicts = (ruling.verdict for ruling in result.rulings)
            lines.append(_line(f"`{name}`", result.model_class, stacks, *verdicts, rules))
    return "\n".join(lines)


def reasons(results: Results) -> str:
    """Why a result is anything but right: a line for each type and reason, with its m."""
    lines = [_line("type", "m", "verdict", "reason"), _rule(4)]
    for name, result in sorted(results.items()):
        if isinstance(result, str):
            lines.append(_line(f"`{name}`", "", Verdict.NOT_BUILT, result))
            continue
        drops: dict[Ruling, list[str]] = {}
        for drop, ruling in zip(DROPS, result.rulings, strict=True):
            if ruling.verdict is not Verdict.RIGHT:
                drops.setdefault(ruling, []).append(str(drop))
        for ruling, of in drops.items():
            lines.append(_line(f"`{name}`", ", ".join(of), ruling.verdict, ruling.reason))
    return "\n".join(lines)


def read_table(part: str, text: str) -> Iterator[list[str]]:
    """The cells of a generated table's rows, without its head."""
    _, _, rest = text.partition(f"<!-- {part} -->\n")
    body, _, _ = rest.partition(f"\n<!-- end of {part} -->")
    for line in body.splitlines()[2:]:
        yield [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
