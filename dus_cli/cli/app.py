"""The `dus` command: its sub-commands and what holds for all of them."""

import gc
from typing import Annotated

import typer

import dus_cli
from dus_cli.cli.inspect import inspect
from dus_cli.cli.upscale import upscale
from dus_cli.cli.verify import verify_command

app = typer.Typer(
    name="dus",
    help="Depth up-scaling of language models: checkpoint surgery without torch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(inspect)
app.command()(upscale)
app.command("verify")(verify_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dus {dus_cli.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Depth up-scaling of language models: checkpoint surgery without torch."""


def main() -> None:
    """Runs the command line; the entry point of the `dus` script."""
    # A run makes hundreds of thousands of values and hardly a cycle among them, and looking for
    # cycles takes a tenth of the time with 92,000 tensors.
    gc.disable()
    app(prog_name="dus")
