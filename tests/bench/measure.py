"""Whole commands timed from outside, in pairs, with the operating system's own accounting."""

import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished command: wall and processor seconds, peak resident memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs of two commands in turn, A B A B …"""

    ours: tuple[Run, ...]
    theirs: tuple[Run, ...]

    @property
    def ratio(self) -> float:
        """The median over the pairs of our wall time divided by theirs."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)


def run(command: Sequence[str | Path], *, cwd: Path | None = None) -> Run:
    """Runs a command to its end; raises CalledProcessError with its output when it fails."""
    words = [str(word) for word in command]
    started = time.perf_counter()
    with subprocess.Popen(
        words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print(printed.decode(errors="replace"))
        raise subprocess.CalledProcessError(process.returncode, shlex.join(words))
    return Run(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A command to be timed, and what has to be done before it, untimed."""

    command: Callable[[], Run]
    prepare: Callable[[], None] = lambda: None


def compare(ours: Candidate, theirs: Candidate, *, pairs: int) -> Comparison:
    """Runs both in turn, `pairs` times each."""
    results: tuple[list[Run], list[Run]] = ([], [])
    for _ in range(pairs):
        for candidate, kept in zip((ours, theirs), results, strict=True):
            candidate.prepare()
            kept.append(candidate.command())
    return Comparison(ours=tuple(results[0]), theirs=tuple(results[1]))


def median(runs: Sequence[Run]) -> Run:
    """Each figure's median over the runs; of the memory the largest."""
    return Run(
        seconds=statistics.median(run.seconds for run in runs),
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        peak_bytes=max(run.peak_bytes for run in runs),
    )


def can_drop_caches() -> bool:
    """Whether the page cache can be emptied here (Linux, as root)."""
    return os.access(DROP_CACHES, os.W_OK)


def cool() -> None:
    """Empties the page cache."""
    os.sync()
    DROP_CACHES.write_text("3", encoding="ascii")


def warm(folders: Sequence[Path]) -> None:
    """Reads every file of the folders once, so that as much as fits is in the page cache."""
    os.sync()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while file.read(8 << 20):
                        pass
