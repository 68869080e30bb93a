"""Options about the Hub that several commands have, and what is said of its use."""

from collections.abc import Callable
from typing import Annotated, TypeAlias

import typer

from dus_cli.cli.output import Output
from dus_cli.cli.wording import in_bytes, plural
from dus_cli.sources.local import Source

Revision: TypeAlias = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a model on the Hub."),
]
Token: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Access token of the Hub (default: HF_TOKEN or the login of hf).",
    ),
]
CacheDir: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cache-dir", metavar="DIR", help="Folder of the Hub's cache (default: HF_HUB_CACHE)."
    ),
]


def remarks(output: Output) -> Callable[[str], None]:
    """Tells the user what takes long, on stderr."""
    return lambda text: output.note([f"{text}."])


def tell_traffic(source: Source, output: Output) -> None:
    """Says what was fetched to know a model on the Hub."""
    if source.repository is not None:
        traffic = source.repository.traffic
        what = in_bytes(traffic.received) if traffic.received else "the list of files alone"
        requests = plural(traffic.requests, "request")
        output.note([f"{source.repository.name}: fetched {what} in {requests}."])
