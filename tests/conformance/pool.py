"""Work on many items in processes of their own, each bounded in time and memory."""

import contextlib
import ctypes
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

JOBS: Final = 2
SECONDS: Final = 180
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Of malloc.h."""

BYTES: Final = 4 << 30
"""Address space of one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one item: the work's result, or why there is none."""

    item: str
    result: Any = None
    error: str | None = None


def run(work: Callable[[str], Any], items: Sequence[str]) -> Iterator[Outcome]:
    """Outcomes as they come. Modules that are loaded already are not loaded again (fork)."""
    _keep_freed_memory()
    context = multiprocessing.get_context("fork")
    waiting = list(reversed(items))
    running: list[tuple[str, BaseProcess, Connection, float]] = []
    while waiting or running:
        while waiting and len(running) < JOBS:
            item = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=_work, args=(work, item, theirs))
            process.start()
            theirs.close()
            running.append((item, process, ours, time.monotonic() + SECONDS))
        multiprocessing.connection.wait([pipe for _, _, pipe, _ in running], timeout=1)
        for entry in list(running):
            item, process, pipe, until = entry
            if pipe.poll():
                running.remove(entry)
                yield _received(item, process, pipe)
            elif time.monotonic() > until:
                running.remove(entry)
                process.kill()
                process.join()
                yield Outcome(item=item, error=f"takes more than {SECONDS} s")


def _keep_freed_memory() -> None:
    """Lets glibc keep what is freed: giving every tensor back to the kernel, to be zeroed once
    more for the next one, took half of the time."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _received(item: str, process: BaseProcess, pipe: Connection) -> Outcome:
    try:
        outcome: Outcome = pipe.recv()
    except EOFError:
        process.join()
        return Outcome(item=item, error=f"its process died ({process.exitcode})")
    process.join()
    return outcome


def _work(work: Callable[[str], Any], item: str, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    try:
        outcome = Outcome(item=item, result=work(item))
    except Exception as error:  # whatever a foreign class raises is its outcome
        first = (str(error).strip() or "without a message").splitlines()[-1]
        outcome = Outcome(item=item, error=f"{type(error).__name__}: {first.strip()[:200]}")
    pipe.send(outcome)
    pipe.close()
