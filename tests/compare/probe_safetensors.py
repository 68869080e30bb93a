"""Opens every file with the safetensors library and reads all tensors."""

from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

from tests.compare.probes import each_file


def check(path: Path) -> Iterator[str]:
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)
    yield from ()


if __name__ == "__main__":
    each_file(check)
