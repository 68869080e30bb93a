"""JSON from files that nobody vouches for, and JSON that is the same bytes every time."""

import json
from typing import Any, NoReturn, TypeAlias

from dus_cli.errors import FormatError

Json: TypeAlias = Any
"""A value that `json` can produce: dict, list, str, int, float, bool or None."""


def parse_object(raw: bytes, subject: str, *, non_finite: bool = False) -> dict[str, Json]:
    """The JSON object in `raw`, with every ambiguity that parsers treat differently refused.

    `subject` names the file in errors. `non_finite` admits `NaN` and `Infinity`, which Python
    writes and JSON forbids; config files of state-space models hold them.

    Raises FormatError for bytes that are not UTF-8, broken JSON, duplicate keys, lone surrogates,
    numbers of thousands of digits, nesting deeper than the interpreter can follow, and a
    top-level value that is not an object.
    """

    def refuse_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise FormatError(
                        f"{subject}: the key {key!r} is there twice",
                        hint="Parsers disagree on which one counts; fix or re-download the file.",
                    )
                seen.add(key)
        return entries

    def refuse_constant(name: str) -> NoReturn:
        raise FormatError(f"{subject}: {name} is not JSON")

    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{subject}: not UTF-8 text (byte {error.start})") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=refuse_duplicates,
            parse_constant=None if non_finite else refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise FormatError(
            f"{subject}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError:
        # The interpreter's own limit on digits in an int; it is not a JSONDecodeError.
        raise FormatError(f"{subject}: a number has too many digits to be real") from None
    except RecursionError:
        raise FormatError(f"{subject}: nested too deeply to be real") from None
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: holds a {type(value).__name__}, not a JSON object")
    # Only an escape can bring in a surrogate, so that files without one pay nothing.
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise FormatError(f"{subject}: a string holds half a surrogate pair") from None
    return value


def dump_pretty(value: Json) -> bytes:
    """`value` as indented ASCII JSON with a final newline, key order kept: one value, one text."""
    return (json.dumps(value, indent=2) + "\n").encode("ascii")


def dump_compact(value: Json) -> bytes:
    """`value` as UTF-8 JSON without blanks, as safetensors headers are written."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
