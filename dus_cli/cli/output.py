"""Everything that the commands print, in one place: which stream, how escaped, how coloured.

stdout carries the result and nothing else; remarks, pictures and errors go to stderr.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import typer

from dus_cli.errors import DusError
from dus_cli.format.strict_json import Json
from dus_cli.printable import printable

ERROR_SCHEMA: Final = "dus-error/1"

_ASCII: Final = str.maketrans(
    {"─": "-", "│": "|", "█": "#", "░": ".", "→": ">", "…": "...", "×": "x", "·": "."}
)


class Styled(NamedTuple):
    """A piece of text with a style of its own."""

    text: str
    style: str


Piece = str | Styled
Line = Piece | Iterable[Piece]

_STYLES: Final[dict[str, dict[str, str | bool]]] = {
    "title": {"bold": True},
    "label": {"fg": typer.colors.CYAN},
    "dim": {"dim": True},
    "good": {"fg": typer.colors.GREEN},
    "warning": {"fg": typer.colors.YELLOW},
    "error": {"fg": typer.colors.RED, "bold": True},
}


class Output:
    """The two streams of one command, as `--json` and `--quiet` set them."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        for stream in (sys.stdout, sys.stderr):
            # A POSIX locale cannot encode every name; an escaped one is better than none.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    @property
    def shows_progress(self) -> bool:
        """Whether somebody is looking at stderr and wants to know how it goes."""
        return not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def width(self) -> int:
        """Columns to use: the terminal's, at most 100, and 80 where there is none."""
        return min(shutil.get_terminal_size((80, 24)).columns, 100)

    def result(self, lines: Iterable[Line]) -> None:
        """Prints lines on stdout."""
        _print(lines, sys.stdout)

    def result_path(self, path: Path) -> None:
        """Prints a path on stdout: escaped for a person, byte for byte for a program."""
        if sys.stdout.isatty():
            _print([str(path)], sys.stdout)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")

    def result_json(self, value: Json) -> None:
        """Prints one JSON document on stdout; it is ASCII, whatever strings it holds."""
        # Written in pieces: the plan of a large model is tens of megabytes.
        for piece in json.JSONEncoder(indent=2).iterencode(value):
            # The value stays the same, and a CI system sees no command of its own in it.
            sys.stdout.write(piece.replace("##[", "#\\u0023["))
        sys.stdout.write("\n")

    def result_text(self, text: str) -> None:
        """Prints a finished document on stdout, which has escaped what it holds itself."""
        sys.stdout.write(text)

    def note(self, lines: Iterable[Line]) -> None:
        """Prints lines on stderr, unless quiet."""
        if not self.quiet:
            _print(lines, sys.stderr)

    def error(self, error: DusError) -> None:
        """Prints an error, as JSON on stdout too where JSON was asked for."""
        _print([[Styled("Error: ", "error"), error.message]], sys.stderr)
        if error.hint:
            _print([[Styled("  " + error.hint, "dim")]], sys.stderr)
        if self.as_json:
            self.result_json(
                {
                    "schema": ERROR_SCHEMA,
                    "error": {
                        "kind": error.kind,
                        "message": error.message,
                        "hint": error.hint,
                        "exit_code": error.exit_code,
                    },
                }
            )


def _print(lines: Iterable[Line], stream: TextIO) -> None:
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    unicode = "utf" in (stream.encoding or "").lower()
    for line in lines:
        pieces = [line] if isinstance(line, str | Styled) else line
        text = "".join(_render(piece, coloured=coloured) for piece in pieces).rstrip()
        typer.echo(text if unicode else text.translate(_ASCII), file=stream, color=coloured)


def _render(piece: Piece, *, coloured: bool) -> str:
    if isinstance(piece, str):
        return printable(piece)
    text = printable(piece.text)
    return typer.style(text, **_STYLES[piece.style]) if coloured else text  # type: ignore[arg-type]
