"""Running the command in this process, in an empty folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dus_cli.cli.app import app

Dus = Callable[..., Result]


@pytest.fixture
def dus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dus:
    """`dus(*words)` runs the command with a temporary folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="dus")

    return invoke
