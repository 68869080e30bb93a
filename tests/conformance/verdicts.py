"""What the judge says, as values, and docs/architectures.md, which is made of them."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "architectures.md"
_TEMPORARY: Final = re.compile(r"/\S*/dus-judge-\w+")
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
    """A type's model, what dus scaled of it by which rules, and a ruling for each m of DROPS.

    `named` has the rulings on the stacks that --stack may be given, for the first m.
    """

    model_class: str
    stacks: tuple[str, ...]
    rules: tuple[str, ...]
    rulings: tuple[Ruling, ...]
    named: Mapping[str, Ruling]

    def cases(self) -> Iterator[tuple[str, str, Ruling]]:
        """Every ruling with the stack that was named ("" for none) and m."""
        for drop, ruling in zip(DROPS, self.rulings, strict=True):
            yield "", str(drop), ruling
        for stack, ruling in self.named.items():
            yield stack, str(DROPS[0]), ruling


Results = Mapping[str, Judgement | str]
"""Model type -> judgement, or why there is none."""


def summary(results: Results) -> str:
    """How many types have each verdict, a line for each m; and how many stacks that were named."""
    lines = [_line("m", *Verdict), _rule(1 + len(Verdict))]
    for place, drop in enumerate(DROPS):
        verdicts = (
            Verdict.NOT_BUILT if isinstance(result, str) else result.rulings[place].verdict
            for result in results.values()
        )
        lines.append(_counted(str(drop), verdicts))
    named = (
        ruling.verdict for found in _judged(results).values() for ruling in found.named.values()
    )
    lines.append(_counted(f"{DROPS[0]}, stack named", named))
    return "\n".join(lines)


def types(results: Results) -> str:
    """A line for each type that was built."""
    head = ("type", "class", "stacks", *(f"m = {drop}" for drop in DROPS), "rules")
    lines = [_line(*head), _rule(len(head))]
    for name, result in _judged(results).items():
        stacks = ", ".join(f"`{stack}`" for stack in result.stacks)
        rules = ", ".join(result.rules)
        verdicts = (ruling.verdict for ruling in result.rulings)
        lines.append(_line(f"`{name}`", result.model_class, stacks, *verdicts, rules))
    return "\n".join(lines)


def named(results: Results) -> str:
    """A line for each stack that dus takes when it is named."""
    lines = [_line("type", "stack", "verdict"), _rule(3)]
    for name, result in _judged(results).items():
        for stack, ruling in result.named.items():
            if ruling.verdict is not Verdict.REFUSED:
                lines.append(_line(f"`{name}`", f"`{stack}`", ruling.verdict))
    return "\n".join(lines)


def causes(results: Results) -> str:
    """Why a type is neither right nor refused: a line for each cause."""
    settled = (Verdict.RIGHT, Verdict.REFUSED)
    return _reasons(results, tuple(verdict for verdict in Verdict if verdict not in settled))


def refusals(results: Results) -> str:
    """What dus says when it refuses a type: a line for each reason."""
    unnamed = {name: replace(found, named={}) for name, found in _judged(results).items()}
    return _reasons(unnamed, (Verdict.REFUSED,))


def _reasons(results: Results, verdicts: Container[Verdict]) -> str:
    lines = [_line("type", "stack", "m", "verdict", "reason"), _rule(5)]
    for name, result in sorted(results.items()):
        if isinstance(result, str):
            if Verdict.NOT_BUILT in verdicts:
                lines.append(_line(f"`{name}`", "", "", Verdict.NOT_BUILT, result))
            continue
        drops: dict[tuple[str, Ruling], list[str]] = {}
        for stack, drop, ruling in result.cases():
            if ruling.verdict in verdicts:
                drops.setdefault((stack, ruling), []).append(drop)
        for (stack, ruling), of in drops.items():
            shown = f"`{stack}`" if stack else ""
            lines.append(_line(f"`{name}`", shown, ", ".join(of), ruling.verdict, ruling.reason))
    return "\n".join(lines)


def _judged(results: Results) -> dict[str, Judgement]:
    return {name: found for name, found in sorted(results.items()) if not isinstance(found, str)}


def _counted(head: str, verdicts: Iterable[Verdict]) -> str:
    counts = Counter(verdicts)
    return _line(head, *(str(counts[verdict]) for verdict in Verdict))


def read_table(part: str, text: str) -> Iterator[list[str]]:
    """The cells of a generated table's rows, without its head."""
    _, _, rest = text.partition(f"<!-- {part} -->\n")
    body, _, _ = rest.partition(f"\n<!-- end of {part} -->")
    for line in body.splitlines()[2:]:
        yield [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]


def _line(*cells: str) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Text for a table, without the names of temporary folders, which differ from run to run."""
    return _TEMPORARY.sub("FOLDER", text.replace("|", "/").replace("\n", " "))


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
