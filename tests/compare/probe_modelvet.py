"""Verifies every file with modelvet."""

from collections.abc import Iterator
from pathlib import Path

import modelvet

from tests.compare.probes import each_file


def check(path: Path) -> Iterator[str]:
    report = modelvet.verify_path(path)
    if not report.accepted:
        yield f"{path.name}: {report.violation_name}"


if __name__ == "__main__":
    each_file(check)
