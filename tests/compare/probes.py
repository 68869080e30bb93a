"""What all probes share: they collect complaints about a folder's files and print them as JSON."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def raised(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def each_file(check: Callable[[Path], Iterable[str]]) -> None:
    """Prints what `check` yields or raises for the safetensors files of the folder in argv."""
    errors: list[str] = []
    for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        try:
            errors += check(path)
        except Exception as error:  # whatever a library raises is its complaint
            errors.append(raised(error))
    answer(errors, [])


def answer(errors: Iterable[str], warnings: Iterable[str]) -> None:
    print(json.dumps({"errors": list(errors), "warnings": list(warnings)}))
