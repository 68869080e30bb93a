"""How a command ends: every foreseen failure becomes one message and one exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from dus_cli.cli.output import Output
from dus_cli.errors import INTERRUPTED_EXIT_CODE, CheckpointError, DusError, OutputError

_NO_THREAD: Final = "can't start new thread"
"""What the interpreter says, by an exception that can mean anything."""


@contextmanager
def exit_codes(output: Output, *, interrupted: str = "Interrupted.") -> Iterator[None]:
    """Runs a command's body; errors are printed and turned into the documented exit code."""
    try:
        yield
    except DusError as error:
        _fail(output, error)
    except MemoryError:
        _fail(
            output,
            CheckpointError(
                "not enough memory for the headers of this checkpoint",
                hint="No real model comes near that: the file is likely hostile or damaged.",
            ),
        )
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        _fail(
            output,
            CheckpointError(
                "the system starts no more threads",
                hint="Memory or processes are limited (ulimit -v, ulimit -u): raise the limit.",
            ),
        )
    except KeyboardInterrupt:
        # The terminal has just echoed ^C; start on a line of our own.
        typer.echo(f"\n{interrupted}" if sys.stderr.isatty() else interrupted, err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            _fail(output, OutputError(f"the result cannot be printed: {error.strerror}"))
        _fail(output, CheckpointError(f"{error.filename}: {error.strerror or error}"))


def _fail(output: Output, error: DusError) -> NoReturn:
    output.error(error)
    raise typer.Exit(error.exit_code) from None
