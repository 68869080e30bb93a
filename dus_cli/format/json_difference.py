"""Where two JSON values differ."""

from collections.abc import Iterator, Mapping
from typing import Final

from dus_cli.format.strict_json import Json, same_json
from dus_cli.printable import quoted

ABSENT: Final = object()
"""Stands for the value of a field that is not there."""

_MAX_KEY: Final = 100


def differences(expected: Json, found: Json, path: str = "") -> Iterator[tuple[str, Json, Json]]:
    """Dotted path and both values wherever two JSON values differ.

    Of a list only the first place is given, as all its entries are one field. A key that only one
    side has gives `ABSENT` for the other.
    """
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys((*expected, *found)):
            one, other = expected.get(key, ABSENT), found.get(key, ABSENT)
            yield from differences(one, other, _joined(path, key))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, (one, other) in enumerate(zip(expected, found, strict=True)):
            first = next(differences(one, other, f"{path}[{position}]"), None)
            if first is not None:
                yield first
                return
    elif expected is ABSENT or found is ABSENT or not same_json(expected, found):
        yield path, expected, found


def _joined(path: str, key: str) -> str:
    # A key may be megabytes long, and stand above a million others.
    part = key if len(key) <= _MAX_KEY else quoted(key)
    return f"{path}.{part}" if path else part
