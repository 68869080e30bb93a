"""JSON from files that nobody vouches for, and JSON that is the same bytes every time."""

import json
import math
from typing import Any, Final, NoReturn, TypeAlias

from dus_cli.errors import FormatError
from dus_cli.printable import quoted

Json: TypeAlias = Any
"""A value that `json` can produce: dict, list, str, int, float, bool or None."""

MAX_DEPTH: Final = 100
"""Objects and lists inside each other. Rust's JSON parser stops at 128, real files at 10; and
what walks or copies a value later must not run out of stack."""


def parse_object(
    raw: bytes,
    subject: str,
    *,
    non_finite: bool = False,
    surrogates: bool = False,
    flat: bool = False,
) -> dict[str, Json]:
    """The JSON object in `raw`, with every ambiguity that parsers treat differently refused.

    `subject` names the file in errors. `non_finite` takes numbers as Python does: with `NaN` and
    `Infinity`, which it writes and JSON forbids (config files of state-space models hold them).
    `surrogates` takes halves of surrogate pairs, as which Python represents names of files that
    are not UTF-8. `flat` leaves nesting to the caller (`check_depth`), who looks at every value
    anyway, so that a large file is not walked for it.

    Raises FormatError for bytes that are not UTF-8, broken JSON, duplicate keys, lone surrogates,
    numbers of thousands of digits, nesting deeper than `MAX_DEPTH`, and a top-level value that is
    not an object; without `non_finite` also for floats that overflow and for the integer `-0`,
    which other parsers do not take for an integer.
    """

    def refuse_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise FormatError(
                        f"{subject}: the key {quoted(key)} is there twice",
                        hint="Parsers disagree on which one counts; fix or re-download the file.",
                    )
                seen.add(key)
        return entries

    def refuse_constant(name: str) -> NoReturn:
        raise FormatError(f"{subject}: {name} is not JSON")

    def parse_finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise FormatError(f"{subject}: {quoted(digits)} is not a finite number")
        return number

    def parse_nonzero(digits: str) -> int:
        if digits == "-0":
            raise FormatError(f"{subject}: -0 is not an integer")
        return int(digits)

    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{subject}: not UTF-8 text (byte {error.start})") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=refuse_duplicates,
            parse_constant=None if non_finite else refuse_constant,
            parse_float=None if non_finite else parse_finite,
            # Calling back for every integer takes time, so only where one may be -0.
            parse_int=None if non_finite or "-0" not in text else parse_nonzero,
        )
    except json.JSONDecodeError as error:
        raise FormatError(
            f"{subject}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError:
        # The interpreter's own limit on digits in an int; it is not a JSONDecodeError.
        raise FormatError(f"{subject}: a number has too many digits to be real") from None
    except RecursionError:
        raise _too_deep(subject) from None
    if not isinstance(value, dict):
        raise FormatError(f"{subject}: holds a {type(value).__name__}, not a JSON object")
    if not flat:
        check_depth(value, subject)
    # Only an escape can bring in a surrogate, so that files without one pay nothing.
    if not surrogates and ("\\ud" in text or "\\uD" in text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise FormatError(f"{subject}: a string holds half a surrogate pair") from None
    return value


def check_depth(value: Json, subject: str) -> None:
    """Raises FormatError where objects and lists lie inside each other beyond `MAX_DEPTH`."""
    if _is_deeper_than(MAX_DEPTH, value):
        raise _too_deep(subject)


def same_json(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON: NaN is itself, and 1 is neither 1.0 nor true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def dump_pretty(value: Json) -> bytes:
    """`value` as indented ASCII JSON with a final newline, key order kept: one value, one text."""
    return (json.dumps(value, indent=2) + "\n").encode("ascii")


def dump_compact(value: Json) -> bytes:
    """`value` as UTF-8 JSON without blanks, as safetensors headers are written."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _is_deeper_than(limit: int, value: Json) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _too_deep(subject: str) -> FormatError:
    return FormatError(f"{subject}: nested too deeply to be real")
