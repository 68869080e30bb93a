"""What models on the Hub cost: requests, bytes, time, memory and disk, with a Hub on this machine.

The server is the one of `tests/hub`; the network is this machine's own, so times say what `dus`
does and not what a line takes. Requests and bytes are the same with any Hub.
"""

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.generate import SHAPES, generate
from tests.bench.measure import Candidate, Run, compare, median, run
from tests.hub.client import environment
from tests.hub.server import MEMBER, Hub

DUS: Final = (sys.executable, "-m", "dus_cli")
_SAMPLE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A run, and what it asked of the Hub; bytes of answers' bodies, and on the disk at most."""

    run: Run
    requests: int
    received: int
    disk: int


class HubBench:
    """A Hub and a folder in which each command starts with an empty cache."""

    def __init__(self, hub: Hub, work: Path) -> None:
        self._hub = hub
        self._work = work

    def measure(self, *words: str) -> Cost:
        """`dus` with these words."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        before = len(self._hub.requests)
        home = {"HF_HOME": str(self._work / "hf"), "TMPDIR": str(self._work)}
        with _environment(environment(self._hub, token=MEMBER) | home), _peak(self._work) as peak:
            done = run((*DUS, *words), cwd=self._work)
        made = self._hub.requests[before:]
        return Cost(
            run=done,
            requests=len(made),
            received=sum(request.bytes_sent for request in made),
            disk=peak(),
        )


def header_only(work: Path) -> Iterator[str]:
    """Looking at models on the Hub, of which only headers, index and config are fetched."""
    yield "| model | shards | size | command | requests | fetched | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for shape, drop in (("mistral-7b", 8), ("deepseek-v3", 15)):
        folder = work / f"sparse-{shape}"
        if not folder.exists():
            generate(folder, SHAPES[shape], sparse=True)
        files, weights = _files(folder), sorted(folder.glob("*.safetensors"))
        size = sum(path.stat().st_size for path in weights)
        with Hub() as hub:
            # Holes are not hashed: nobody reads them.
            hub.add("org/model", files, sha256={path.name: "0" * 64 for path in weights})
            bench = HubBench(hub, work / "hub")
            for words in (
                ("inspect", "org/model"),
                ("upscale", "org/model", "--drop", str(drop), "--dry-run", "--quiet"),
                ("verify", "org/model", "--quiet"),
            ):
                cost = bench.measure(*words)
                name = "upscale --dry-run" if words[0] == "upscale" else words[0]
                yield (
                    f"| {shape} | {len(weights)} | {size / 1e9:,.0f} GB | `dus {name}` | "
                    f"{cost.requests} | {cost.received / 1e3:,.0f} kB | {cost.run.seconds:.2f} |"
                )
    shutil.rmtree(work / "hub", ignore_errors=True)


def streamed(source: Path, drop: int, work: Path, pairs: int) -> Iterator[str]:
    """Up-scaling from the Hub: streamed, downloaded first, and streamed on to the Hub."""
    files = _files(source)
    sizes = [path.stat().st_size for path in source.glob("*.safetensors")]
    with Hub() as hub:
        hub.add("org/model", files)
        bench = HubBench(hub, work / "hub")
        costs: dict[str, list[Cost]] = {}

        def upscale(name: str, *options: str) -> Run:
            cost = bench.measure("upscale", "org/model", "--drop", str(drop), "--quiet", *options)
            costs.setdefault(name, []).append(cost)
            return cost.run

        result = compare(
            Candidate(command=partial(upscale, "stream", "--stream")),
            Candidate(command=partial(upscale, "download")),
            pairs=pairs,
        )
        options = ("--stream", "--push-to", "org/deep", "--force")
        pushes = [upscale("push", *options) for _ in range(pairs)]
    shutil.rmtree(work / "hub", ignore_errors=True)
    yield (
        f"{sum(sizes) / 1e9:.1f} GB in {len(sizes)} shards, "
        f"the largest {max(sizes) / 1e9:.1f} GB; m = {drop}, {pairs} runs each; "
        f"streaming takes **{result.ratio:.2f}** of the time of downloading first (median)."
    )
    yield ""
    yield "| `dus upscale` | seconds | peak memory | disk at most | fetched | requests |"
    yield "|---|---|---|---|---|---|"
    for name, label, runs in (
        ("stream", "--stream", result.ours),
        ("download", "(download, then copy)", result.theirs),
        ("push", "--stream --push-to", pushes),
    ):
        middle, cost = median(runs), costs[name][-1]
        yield (
            f"| {label} | {middle.seconds:.1f} | {middle.peak_bytes / 1e6:,.0f} MB | "
            f"{max(one.disk for one in costs[name]) / 1e9:.1f} GB | {cost.received / 1e9:.2f} GB | "
            f"{cost.requests} |"
        )


def _files(folder: Path) -> dict[str, bytes | Path]:
    return {path.name: path for path in sorted(folder.iterdir())}


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _peak(folder: Path) -> "Iterator[partial[int]]":
    """How many bytes of blocks the folder's files had at most, sampled meanwhile."""
    highest = [0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            highest[0] = max(highest[0], _allocated(folder))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield partial(highest.__getitem__, 0)
    finally:
        ended.set()
        thread.join()


def _allocated(folder: Path) -> int:
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_blocks * 512
            except OSError:
                continue  # renamed or removed since it was listed
    return total
