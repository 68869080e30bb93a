"""Markdown pages and the examples in them.

A fenced block marked `console` holds commands (`$ `, continued by `> `), each followed by what it
prints on stdout and stderr together. In the expected output `...` stands for any text in a line,
and for any number of lines where it is alone in one; nothing else is a wildcard. A block marked
`pycon` is a Python session in the form of doctest.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_FENCE: Final = re.compile(r"```(?P<language>[a-z]*)\s*")


def pages() -> tuple[Path, ...]:
    """Every page of the documentation."""
    return (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))


def page_id(page: Path) -> str:
    """What a test calls a page."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: its language, its lines, and the page's line (from 0) of the first."""

    language: str
    start: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A command and the lines that it is said to print."""

    command: str
    expected: tuple[str, ...]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    opened: tuple[int, str] | None = None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _FENCE.fullmatch(line)
        if match is None:
            continue
        if opened is None:
            opened = (number + 1, match["language"])
        else:
            start, language = opened
            yield Block(language=language, start=start, lines=tuple(lines[start:number]))
            opened = None


def examples(block: Block) -> tuple[Example, ...]:
    """The commands of a `console` block with what is expected of them."""
    found: list[tuple[str, list[str]]] = []
    for line in block.lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise ValueError(f"line {block.start + 1}: output without a command")
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return tuple(Example(command=command, expected=tuple(lines)) for command, lines in found)


def matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether `actual` is what `expected` says, wildcards considered."""
    pattern = "".join(
        "(?:[^\n]*\n)*"
        if line == "..."
        else "[^\n]*".join(re.escape(part) for part in line.split("...")) + "\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None
