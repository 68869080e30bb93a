"""Running `dus` in this process against a local Hub: fast, and with what it waits for cut short."""

import contextlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from typer.testing import CliRunner

from dus_cli.cli.app import app
from dus_cli.sources import hub_errors, publish
from tests.hub.server import EXPIRED, MEMBER, READER, STRANGER, Hub

SECRETS = (EXPIRED, MEMBER, READER, STRANGER, "Signature=")
"""What no output may show: tokens, and addresses that anybody could use."""

EXIT_CODES = (0, 1, 2, 3, 4)
"""Those of docs/exit-codes.md that a run which nobody interrupts may end with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended and what it said."""

    exit_code: int
    stdout: str
    stderr: str


Dus = Callable[..., Ended]
"""`dus(*words, token=None)` runs the command; what holds for every run is asserted."""


@contextlib.contextmanager
def dus_against(hub: Hub, folder: Path, *, large: int = 1000) -> Iterator[Dus]:
    """The command with `folder` as the working directory and its cache in `hub.home`.

    Waits between tries take no time. Files from `large` bytes on are published on their own.
    """

    def invoke(*words: str | Path, token: str | None = None) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            if token is not None:
                patch.setenv("HF_TOKEN", token)
            result = CliRunner().invoke(app, [str(word) for word in words], prog_name="dus")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception  # A traceback to a user.
        for secret in SECRETS:
            assert secret not in result.output, result.output
        assert result.exit_code in EXIT_CODES
        if result.exit_code > 1:
            errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
            assert len(errors) == 1, result.stderr
        return Ended(exit_code=result.exit_code, stdout=result.stdout, stderr=result.stderr)

    with pytest.MonkeyPatch.context() as patch:
        # The client reads these from the environment when it is imported.
        patch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(hub.home / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(hub.home / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        for module in (hub_errors, _http, file_download):
            patch.setattr(module, "time", types.SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr(publish, "_LARGE", large)
        patch.setenv("COLUMNS", "80")
        patch.chdir(folder)
        yield invoke


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def published(hub: Hub, name: str, revision: str = "main") -> dict[str, bytes]:
    """Every file of a repository at a revision but .gitattributes, which the Hub puts there."""
    commit = hub.repositories[name].find(revision)
    assert commit is not None
    files = {path: blob.path.read_bytes() for path, blob in commit.files.items()}
    files.pop(".gitattributes", None)
    return files


def offer(hub: Hub, folder: Path, name: str = "org/base", revision: str = "main") -> None:
    """Puts a folder's files on the Hub; they stay where they are."""
    files: dict[str, bytes | Path] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    hub.add(name, files, revision=revision)
