"""Faults while `dus upscale` writes: `python -m tests.faults RUNS [FOLDER]` prints outcomes.

RUNS up-scalings are killed at random moments, then the disk is filled at every step of its size,
then the source is changed underneath. Disks of a given size need root, who can mount them. FOLDER
is where the rest happens; by default where temporary files go.
"""

import contextlib
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from tests.execute.helpers import contents
from tests.faults.runs import (
    KILLED,
    Case,
    change_after,
    exit_code,
    finish,
    fresh,
    kill_after,
    make_source,
    moment,
    upscale,
    with_old,
)

EXTRAS: Final = ((), ("--verify",), ("--checksums",), ("--verify", "--checksums"))
MODES: Final = tuple(itertools.product((False, True), EXTRAS))
"""Whether an old checkpoint is to be replaced, and the further options."""

CHANGES: Final = ("touched", "overwritten", "cut short", "made longer", "replaced", "removed")
CHANGED_RUNS: Final = 120
PAGE: Final = 4096
STEPS: Final = 60
"""Sizes of disk up to that of the result; behind it, every page."""

OUTPUT_CODE, SOURCE_CODE = 4, 3


def main() -> None:
    runs = int(sys.argv[1])
    seed = random.randrange(10**6)
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    place = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="dus-faults", dir=place) as folder:
        source = make_source(Path(folder) / "source")
        kill(runs, source, Path(folder) / "kill")
        change(CHANGED_RUNS, source, Path(folder) / "change")
        for make_disk in DISKS:
            fill(make_disk, source, Path(folder) / "disk")


def case_of(
    source: Path, place: Path, *, force: bool, extra: tuple[str, ...]
) -> Callable[[], Case]:
    """Makes the same case again and again, each time in a fresh folder."""
    options = (*extra, *(("--force",) if force else ()))
    target = fresh(place)
    finish(source, target, *extra)
    complete = contents(target)

    def again() -> Case:
        target = fresh(place)
        old = with_old(target) if force else None
        return Case(source=source, target=target, options=options, old=old, complete=complete)

    return again


def kill(runs: int, source: Path, place: Path) -> None:
    before = contents(source)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    for force, extra in MODES:
        again = case_of(source, place, force=force, extra=extra)
        duration = median(
            finish(source, case.target, *case.options) for case in (again() for _ in range(3))
        )
        for _ in range(runs // len(MODES)):
            case = again()
            child = upscale(source, case.target, *case.options)
            code = kill_after(child, moment(duration))
            assert code in (0, KILLED), f"ended with {code}"
            outcome = case.outcome()
            assert code == KILLED or outcome == "complete"
            outcomes["ended before" if code == 0 else f"killed, {outcome}"] += 1
            case.finish()
            assert contents(source) == before, "the source was changed"
    say("kill", outcomes, started)


def change(runs: int, source: Path, place: Path) -> None:
    """The source changes at a random moment of a run, and is put back before the second one."""
    before = contents(source)
    times = {name: (source / name).stat() for name in before}
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    cases = [
        case_of(source, place / str(number), force=force, extra=extra)
        for number, (force, extra) in enumerate(MODES)
    ]
    duration = median(
        finish(source, case.target, *case.options) for case in (again() for again in cases)
    )
    for number in range(runs):
        case, kind = cases[number % len(cases)](), random.choice(CHANGES)
        path = source / random.choice([name for name in before if name.endswith("safetensors")])
        child = upscale(source, case.target, *case.options)
        code = change_after(child, moment(duration), partial(change_file, path, kind))
        assert code in (0, SOURCE_CODE, OUTPUT_CODE), f"ended with {code}"
        if code == 0:
            check_changed_result(case, source, kind)
            outcomes["complete"] += 1
        else:
            outcomes[f"refused, {case.outcome()}"] += 1
        # With its old time of change: what looks like the source of before must give its result.
        for name, content in before.items():
            (source / name).write_bytes(content)
            os.utime(source / name, ns=(times[name].st_atime_ns, times[name].st_mtime_ns))
        finish(source, case.target, *case.options, *(() if case.old else ("--force",)))
        assert contents(case.target) == case.complete, f"not the source's: {kind}"
    say("source changed", outcomes, started)


def change_file(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "touched":
        os.utime(path)
    elif kind == "overwritten":
        with open(path, "r+b") as file:
            file.seek(len(content) // 2)
            file.write(bytes(byte ^ 0xFF for byte in content[len(content) // 2 :]))
    elif kind == "cut short":
        os.truncate(path, len(content) // 2)
    elif kind == "made longer":
        with open(path, "ab") as file:
            file.write(bytes(1000))
    elif kind == "replaced":
        other = path.with_name("other")
        other.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))
        os.replace(other, path)
    else:
        path.unlink()


def check_changed_result(case: Case, source: Path, kind: str) -> None:
    """A run that went well made what the source was before it, or what it has been since."""
    held = contents(case.target)
    if held == case.complete:
        return
    assert kind not in ("cut short", "made longer", "removed"), f"made of a broken source: {kind}"
    target = case.target.with_name("again")
    finish(source, target, *(option for option in case.options if option != "--force"))
    assert held == contents(target), f"a mixture of two states of the source: {kind}"


@contextlib.contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A disk in memory with `size` bytes free; what it yields changes how many there are."""
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))

    def leave(size: int) -> None:
        status = os.statvfs(place)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        mount("-o", f"remount,size={used + size}", str(place))

    try:
        yield leave
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def ext4(place: Path, size: int) -> Iterator[Callable[[int], None]]:
    """An ext4 disk in a file, with a file on it that leaves `size` bytes."""
    image = place.with_name("image")
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    mount("-o", "loop", str(image), str(place))
    filler = place / "filler"

    def leave(size: int) -> None:
        filler.unlink(missing_ok=True)
        status = os.statvfs(place)
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - size)

    try:
        leave(size)
        yield leave
    finally:
        subprocess.run(["umount", str(place)], check=True)
        image.unlink()


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


Disk = Callable[[Path, int], contextlib.AbstractContextManager[Callable[[int], None]]]
DISKS: tuple[Disk, ...] = (tmpfs, ext4)


def fill(make_disk: Disk, source: Path, place: Path) -> None:
    """The disk is full at every step of its size, from nothing to what is enough."""
    if os.name != "posix" or os.geteuid() != 0:
        print(f"disk full ({make_disk.__name__}): left out, only root can mount disks")
        return
    place.mkdir(exist_ok=True)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    extra = ("--checksums",)
    complete = case_of(source, place / "model", force=False, extra=extra)().complete
    fresh(place / "model").parent.rmdir()
    needed = sum(len(content) for content in complete.values())
    for force in (False, True):
        size, enough = PAGE, 0
        # A few sizes past the first that is enough, where only names and folders lack room.
        while enough < 5:
            with make_disk(place, 2 * needed if force else size) as resize:
                target = fresh(place / "model")
                old = with_old(target) if force else None
                options = (*extra, *(("--force",) if force else ()))
                case = Case(
                    source=source, target=target, options=options, old=old, complete=complete
                )
                if force:
                    resize(size)
                code = exit_code(upscale(source, target, *options, ends_with_disk=True))
                assert code in (0, OUTPUT_CODE), f"ended with {code}, {size} bytes being free"
                outcome = case.outcome()
                assert (outcome == "complete") == (code == 0)
                outcomes["enough" if code == 0 else f"full, {outcome}"] += 1
                enough += code == 0
                resize(4 * needed)
                case.finish()
            size += PAGE * (1 if size > needed else max(1, needed // PAGE // STEPS))
    say(f"disk full ({make_disk.__name__})", outcomes, started)


def say(what: str, outcomes: Counter[str], started: float) -> None:
    counts = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items()))
    seconds = time.monotonic() - started
    print(f"{what}: {outcomes.total()} runs in {seconds:.0f} s: {counts}", flush=True)


if __name__ == "__main__":
    main()
