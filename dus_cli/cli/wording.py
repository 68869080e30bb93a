"""Numbers, lists and options as people read and write them."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from dus_cli.errors import RequestError
from dus_cli.format.folder import REWRITTEN, LeftOutFile
from dus_cli.model.config_rules import FieldKind
from dus_cli.printable import quoted


def in_words(count: int) -> str:
    """A parameter count as people say it: `7.24 billion`."""
    for limit, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if count >= limit:
            return f"{count / limit:.3g} {word}"
    return f"{count:,}"


def with_words(count: int, noun: str = "") -> str:
    """A parameter count exactly and, where that is long, as people say it."""
    exact = f"{count:,} {noun}".rstrip()
    return f"{exact} ({in_words(count)})" if count >= 10**6 else exact


def in_bytes(count: int) -> str:
    """A size in decimal units, as the Hub and disks count: `14.5 GB`."""
    for limit, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def plural(count: int, noun: str) -> str:
    """`1 shard`, `2 shards`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending layer numbers as ranges, ends included: `0..2, 5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    shown = [str(part[0]) if len(part) == 1 else f"{part[0]}..{part[1]}" for part in parts]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def wrapped(items: Iterable[str], width: int) -> list[str]:
    """Items joined by commas, in lines of at most `width` characters where they fit."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 3 <= width:
            lines[-1] += f", {item}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(item)
    return lines


def clipped(text: str, width: int) -> str:
    """`text`, its end replaced by an ellipsis where it is longer than `width`."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def rewritten(files: Iterable[LeftOutFile]) -> list[str]:
    """Those of the source's files that the result has in a form of its own."""
    return [file.path for file in files if file.reason == REWRITTEN]


def staying_behind(files: Iterable[LeftOutFile]) -> list[str]:
    """Those of the source's files that the result lacks, with the reason."""
    return [f"{file.path} ({file.reason})" for file in files if file.reason != REWRITTEN]


def parse_config_rules(rules: Iterable[str]) -> dict[str, FieldKind]:
    """Field -> kind of what `--config-rule FIELD=RULE` says; raises RequestError for the rest."""
    parsed = {}
    for rule in rules:
        name, _, kind = rule.rpartition("=")
        if not name or kind not in set(FieldKind):
            raise RequestError(
                f"--config-rule {rule!r}: not FIELD=RULE",
                hint=f"RULE is one of {', '.join(FieldKind)}.",
            )
        parsed[name] = FieldKind(kind)
    return parsed


_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in a size such as `5GB` (10^9), `5GiB` (2^30) or `5000000`, as transformers reads it.

    Raises RequestError for anything else, and for a size below 1 kB.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise RequestError(
            f"--max-shard-size {quoted(text)}: not a size", hint="Write it as 5GB or 5GiB."
        )
    number, unit, binary = match.groups()
    factor = (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " ")
    size = int(float(number) * factor)
    if size < 1000:
        raise RequestError(f"--max-shard-size {quoted(text)}: less than 1 kB makes no sense")
    return size
