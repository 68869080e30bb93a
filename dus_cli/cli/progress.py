"""Progress bars, for somebody who looks at stderr."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

from dus_cli.cli.output import Output

Bar: TypeAlias = AbstractContextManager[Callable[[int], None]]
Bars: TypeAlias = Callable[[str, int], Bar]


@contextmanager
def progress_bars(output: Output) -> Iterator[Bars]:
    """A function that starts a bar, given its label and the bytes there are to do.

    The bar is a function in turn, to be called with the bytes done since its last call. Where
    nobody looks, nothing is shown.
    """
    if not output.shows_progress:
        yield lambda label, total: nullcontext(lambda count: None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as shown:

        @contextmanager
        def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
            task = shown.add_task(label, total=total)
            try:
                yield lambda count: shown.advance(task, count)
            finally:
                shown.remove_task(task)

        yield bar
