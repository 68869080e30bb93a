"""The floors of docs/design.md: a module imports only from its own floor and those above it."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dus_cli"

FLOORS = (
    ("errors", "printable"),
    ("findings",),
    ("format",),
    ("model",),
    ("scaling",),
    ("plan",),
    ("documents", "inspection", "plan_file"),
    ("execute",),
    ("verify",),
    ("sources",),
    ("cli",),
    ("__main__",),
)
"""First name below the package, top floor first; names on one floor do not import each other."""

RUNTIME = {"safetensors", "numpy", "typer", "rich", "huggingface_hub", "yaml"}
"""All that the package may import from elsewhere; yaml comes with huggingface_hub."""

EVERYWHERE = {"__version__"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def imported_names(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor_of(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_higher_floors_only(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        pytest.skip("the package itself holds the version alone")
    for name in imported_names(path):
        root, *rest = name.split(".")
        if root != "dus_cli" or not rest or rest[0] in EVERYWHERE:
            continue
        assert rest[0] == own or floor_of(rest[0]) < floor_of(own), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_but_the_standard_library_and_runtime_packages_is_imported(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported_names(path)} - {"dus_cli"}
    assert roots <= RUNTIME | set(sys.stdlib_module_names)
