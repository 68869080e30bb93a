"""`make bench`: time, memory and block sharing of `dus` against its peers, as ratios.

    python -m tests.bench [PART ...] [--work DIR] [--layers N] [--pairs N] [--write]

Parts: start, tensors, memory, copy, mergekit, share, verify, deep, base, checksums, headers, hub.
Without a name all of them run. `--write` puts the table of each part that ran into
docs/benchmarks.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.generate import SHAPES, generate
from tests.bench.hub import header_only, streamed
from tests.bench.measure import (
    Candidate,
    Comparison,
    Run,
    can_drop_caches,
    compare,
    cool,
    median,
    run,
    warm,
)
from tests.bench.page import machine, write_part

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
DUS = (sys.executable, "-m", "dus_cli")
MISTRAL_LAYERS = 32
Rows = Iterator[str]
Words = tuple[str | Path, ...]


class Bench:
    """The folder to work in, the size of the model, and how often to measure."""

    def __init__(self, work: Path, layers: int, pairs: int) -> None:
        self.work = work
        self.layers = layers
        self.drop = layers // 4
        self.pairs = pairs
        self.target = work / "target"

    def mistral(self, layers: int) -> Path:
        """A Mistral-shaped checkpoint of so many layers, generated once."""
        folder = self.work / f"mistral-{layers}"
        if not (folder / "config.json").exists():
            generate(folder, SHAPES["mistral-7b"], layers=layers)
        return folder

    def upscale(self, source: Path, target: Path, drop: int) -> Run:
        """One `dus upscale`, its target removed before."""
        shutil.rmtree(target, ignore_errors=True)
        command = (*DUS, "upscale", source, "--drop", str(drop), "-o", target, "--quiet")
        return run(command)

    def start(self) -> Rows:
        """Start-up against `import typer`."""
        source = self.mistral(4)
        yield "| command | seconds | ratio to `python -c 'import typer'` |"
        yield "|---|---|---|"
        for words in (("--version",), ("inspect", str(source))):
            result = compare(
                Candidate(command=partial(run, (*DUS, *words))),
                Candidate(command=partial(run, (sys.executable, "-c", "import typer"))),
                pairs=max(self.pairs, 15),
            )
            name = "dus inspect MODEL" if words[1:] else f"dus {words[0]}"
            yield f"| `{name}` | {median(result.ours).seconds:.3f} | {result.ratio:.2f} |"

    def tensors(self) -> Rows:
        """671B-parameter mixture of experts: 61 layers, 91,991 tensors, 163 shards, sparse."""
        folder = self.work / "deepseek-v3"
        if not folder.exists():
            generate(folder, SHAPES["deepseek-v3"], sparse=True)
        yield "| command | seconds | peak memory |"
        yield "|---|---|---|"
        plan = ("upscale", str(folder), "--drop", "15", "--dry-run", "--json")
        for name, words in (
            ("dus inspect", ("inspect", str(folder))),
            ("dus inspect --json --tensors", ("inspect", str(folder), "--json", "--tensors")),
            ("dus upscale --dry-run --json", plan),
        ):
            result = median([run((*DUS, *words)) for _ in range(max(self.pairs, 5))])
            yield f"| `{name}` | {result.seconds:.2f} | {megabytes(result)} |"

    def memory(self) -> Rows:
        """Peak memory by size of the source."""
        yield "| source | peak memory of `dus upscale` |"
        yield "|---|---|"
        for layers in (2, self.layers):
            source = self.mistral(layers)
            result = self.upscale(source, self.target, layers // 4)
            yield f"| {gigabytes(source)} | {megabytes(result)} |"
        shutil.rmtree(self.target)

    def copy(self) -> Rows:
        """Against `cp -r` of the finished result, which moves the same bytes."""
        source = self.mistral(self.layers)
        finished, copied = self.work / "finished", self.work / "copied"
        self.upscale(source, finished, self.drop)
        yield f"{gigabytes(source)} to {gigabytes(finished)}, m = {self.drop}, {self.pairs} pairs."
        yield ""
        yield "| cache | `dus upscale` | `cp -r` | ratio | pairs' ratios | CPU s, dus | CPU s, cp |"
        yield "|---|---|---|---|---|---|---|"

        def prepare(cache: str, reads: Path) -> None:
            for folder in (self.target, copied):
                shutil.rmtree(folder, ignore_errors=True)
            if cache == "cold":
                cool()
            else:
                warm([reads])

        for cache in ("warm", "cold"):
            if cache == "cold" and not can_drop_caches():
                yield "| cold | not measured: the page cache cannot be emptied here |"
                continue
            result = compare(
                Candidate(
                    prepare=partial(prepare, cache, source),
                    command=partial(self.upscale, source, self.target, self.drop),
                ),
                Candidate(
                    prepare=partial(prepare, cache, finished),
                    command=partial(run, ("cp", "-r", finished, copied)),
                ),
                pairs=self.pairs,
            )
            yield comparison_row(cache, result)
        for folder in (self.target, copied, finished):
            shutil.rmtree(folder, ignore_errors=True)

    def mergekit(self) -> Rows:
        """Against mergekit's passthrough of the same slices."""
        program = Path(sys.executable).with_name("mergekit-yaml")
        if not program.exists():
            yield "Not measured: mergekit is not installed (`pip install '.[bench]'`)."
            return
        source = self.mistral(self.layers)
        n, m = self.layers, self.drop
        recipe = {
            "merge_method": "passthrough",
            "dtype": "bfloat16",
            "slices": [
                {"sources": [{"model": str(source), "layer_range": layers}]}
                for layers in ([0, n - m], [m, n])
            ],
        }
        config = self.work / "mergekit.yml"
        config.write_text(json.dumps(recipe), encoding="utf-8")
        merged = self.work / "merged"

        def clear() -> None:
            for folder in (self.target, merged):
                shutil.rmtree(folder, ignore_errors=True)
            if can_drop_caches():
                cool()

        result = compare(
            Candidate(prepare=clear, command=partial(self.upscale, source, self.target, m)),
            Candidate(prepare=clear, command=partial(run, (program, config, merged))),
            pairs=self.pairs,
        )
        yield f"{gigabytes(source)}, m = {m}, {self.pairs} pairs, cold cache."
        yield ""
        yield "| | `dus upscale` | `mergekit-yaml` 0.1.5 | ratio |"
        yield "|---|---|---|---|"
        ours, theirs = median(result.ours), median(result.theirs)
        yield f"| wall time, s | {ours.seconds:.1f} | {theirs.seconds:.1f} | {result.ratio:.2f} |"
        yield (
            f"| peak memory | {megabytes(ours)} | {megabytes(theirs)} | "
            f"{ours.peak_bytes / theirs.peak_bytes:.4f} |"
        )
        clear()

    def share(self) -> Rows:
        """On a file system that shares blocks: XFS with reflink on a loop device."""
        with xfs_image(self.work) as mount:
            if mount is None:
                yield "Not measured: no XFS image can be made and mounted here (root, mkfs.xfs)."
                return
            layers = max(self.layers // 2, 2)
            source = mount / "source"
            generate(source, SHAPES["mistral-7b"], layers=layers)
            os.sync()
            before = shutil.disk_usage(mount).used
            results = []
            for _ in range(max(self.pairs, 3)):
                results.append(self.upscale(source, mount / "out", layers // 4))
                os.sync()
            written = shutil.disk_usage(mount).used - before
            size = sum(path.stat().st_size for path in (mount / "out").iterdir())
            yield "| output | seconds | new blocks | share of the output |"
            yield "|---|---|---|---|"
            yield (
                f"| {size / 1e9:.1f} GB | {median(results).seconds:.2f} | "
                f"{written / 1e6:.1f} MB | {written / size:.2%} |"
            )

    def verify(self) -> Rows:
        """The structural check, which reads no weights: the files are sparse."""
        yield "| model | files | tensors | seconds | ratio to `dus --version` | peak memory |"
        yield "|---|---|---|---|---|---|"
        for name, shape, size in (
            ("6 layers of width 512", "mistral-7b", {"layers": 6, "hidden": 512}),
            ("Mistral-7B", "mistral-7b", {}),
            ("DeepSeek-V3, 671B", "deepseek-v3", {}),
        ):
            folder = self.work / f"verify-{shape}-{size.get('layers', 'all')}"
            if not folder.exists():
                generate(folder, SHAPES[shape], sparse=True, **size)
            result = compare(
                Candidate(command=partial(run, (*DUS, "verify", folder))),
                Candidate(command=partial(run, (*DUS, "--version"))),
                pairs=max(self.pairs, 5),
            )
            ours = median(result.ours)
            tensors = sum(len(header) for header in headers(folder))
            yield (
                f"| {name} | {len(shards(folder))} | {tensors:,} | {ours.seconds:.2f} | "
                f"{result.ratio:.1f} | {megabytes(ours)} |"
            )

    def deep(self) -> Rows:
        """`dus verify --deep`: every weight is decoded and looked at."""
        source = self.mistral(self.layers)
        yield from self._against_readers(("verify", source, "--deep"), [source])

    def base(self) -> Rows:
        """`dus verify --base`: the result is compared with its source; both are read."""
        source, result = self.mistral(self.layers), self.work / "based"
        self.upscale(source, result, self.drop)
        yield from self._against_readers(("verify", result, "--base", source), [source, result])
        shutil.rmtree(result)

    def checksums(self) -> Rows:
        """`dus verify --checksums`: each byte is hashed twice, for its file and its tensor."""
        source, sums = self.mistral(self.layers), self.work / "sums.json"
        run((*DUS, "verify", source, "--write-checksums", sums))
        yield from self._against_readers(("verify", source, "--checksums", sums), [source])

    def headers(self) -> Rows:
        """Looking at models on the Hub."""
        return header_only(self.work)

    def hub(self) -> Rows:
        """Up-scaling models on the Hub."""
        return streamed(self.mistral(self.layers), self.drop, self.work, self.pairs)

    def _against_readers(self, words: Words, folders: Sequence[Path]) -> Rows:
        """`dus` with `words` against `cat` and `sha256sum` of the shards that it reads."""
        files = [path for folder in folders for path in shards(folder)]
        size = sum(path.stat().st_size for path in files)
        yield f"{size / 1e9:.1f} GB, {self.pairs} pairs with each peer."
        yield ""
        yield "| cache | peer | `dus` | peer | ratio | pairs' ratios | CPU s, dus | peak memory |"
        yield "|---|---|---|---|---|---|---|---|"
        for cache, prepare in (("warm", partial(warm, folders)), ("cold", cool)):
            if cache == "cold" and not can_drop_caches():
                yield "| cold | not measured: the page cache cannot be emptied here |"
                continue
            for peer in ("cat", "sha256sum"):
                to_null = ("sh", "-c", f'exec {peer} "$@" > /dev/null', peer, *files)
                result = compare(
                    Candidate(prepare=prepare, command=partial(run, (*DUS, *words))),
                    Candidate(prepare=prepare, command=partial(run, to_null)),
                    pairs=self.pairs,
                )
                ours, theirs = median(result.ours), median(result.theirs)
                yield (
                    f"| {cache} | `{peer}` | {ours.seconds:.1f} s | {theirs.seconds:.1f} s | "
                    f"**{result.ratio:.2f}** | {pair_ratios(result)} | {ours.cpu_seconds:.1f} | "
                    f"{megabytes(ours)} |"
                )


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def headers(folder: Path) -> Iterator[dict[str, object]]:
    """The entries of each shard's header, without the metadata."""
    for path in shards(folder):
        with path.open("rb") as file:
            header: dict[str, object] = json.loads(
                file.read(int.from_bytes(file.read(8), "little"))
            )
        header.pop("__metadata__", None)
        yield header


def pair_ratios(result: Comparison) -> str:
    """Our wall time divided by the peer's, for each pair."""
    pairs = zip(result.ours, result.theirs, strict=True)
    return ", ".join(f"{ours.seconds / theirs.seconds:.2f}" for ours, theirs in pairs)


def comparison_row(name: str, result: Comparison) -> str:
    ours, theirs = median(result.ours), median(result.theirs)
    return (
        f"| {name} | {ours.seconds:.1f} s | {theirs.seconds:.1f} s | **{result.ratio:.2f}** | "
        f"{pair_ratios(result)} | {ours.cpu_seconds:.1f} | {theirs.cpu_seconds:.1f} |"
    )


def megabytes(result: Run) -> str:
    return f"{result.peak_bytes / 1e6:,.0f} MB"


def gigabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in shards(folder))
    return f"{size / 1e9:.1f} GB"


@contextmanager
def xfs_image(work: Path) -> Iterator[Path | None]:
    """A mounted XFS file system with reflink in a sparse file, or None where that may not be."""
    image, mount = work / "xfs.img", work / "xfs"
    mount.mkdir(exist_ok=True)
    try:
        with image.open("wb") as file:
            file.truncate(40_000_000_000)
        subprocess.run(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    except (OSError, subprocess.CalledProcessError):
        image.unlink(missing_ok=True)
        yield None
        return
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)
        image.unlink()
        mount.rmdir()


def main() -> None:
    parts = (
        *("start", "tensors", "memory", "copy", "mergekit", "share"),
        *("verify", "deep", "base", "checksums", "headers", "hub"),
    )
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=parts, default=parts)
    parser.add_argument("--work", type=Path, help="where to put the models [a temporary folder]")
    parser.add_argument("--layers", type=int, default=MISTRAL_LAYERS, help="32 is Mistral-7B")
    parser.add_argument("--pairs", type=int, default=3, help="how often to run each pair")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=options.work or Path.cwd()) as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(work, options.layers, options.pairs)
        for part in options.part:
            measure: Callable[[], Rows] = getattr(bench, part)
            print(f"\n## {(measure.__doc__ or '').strip()}\n", flush=True)
            rows = []
            for row in measure():
                print(row, flush=True)
                rows.append(row)
            if options.write:
                write_part(PAGE, part, "\n".join(rows))
                write_part(PAGE, "machine", f"{machine()}.")


if __name__ == "__main__":
    main()
