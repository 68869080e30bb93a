"""Runs of `dus upscale` to which something happens, and what must hold of the folder after each.

A run is a forked child of this process, so that hundreds of them take minutes. Whatever happens:
the target is absent or complete (or still the old one), nothing else lies beside it but a staging
folder, and the same command then finishes the work.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from typer.testing import CliRunner

import dus_cli.execute.write
from dus_cli.cli.app import app
from tests.checkpoints import mistral_checkpoint, mistral_tensors, write_checkpoint
from tests.execute.helpers import contents

DROP: Final = 2
KILLED: Final = -signal.SIGKILL
STAGING: Final = ".out.dus-staging"

State = Mapping[str, bytes]


def upscale(source: Path, target: Path, *options: str, ends_with_disk: bool = False) -> int:
    """Runs the command in a child; returns the child's process number.

    `ends_with_disk`: the child takes the disk for endless, and meets its end while it writes.
    """
    child = os.fork()
    if child:
        return child
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        if ends_with_disk:
            dus_cli.execute.write.free_bytes = lambda target: 1 << 60
        arguments = ["upscale", str(source), "--drop", str(DROP), "-o", str(target), *options]
        app(arguments, standalone_mode=True)
    except SystemExit as done:
        os._exit(done.code if isinstance(done.code, int) else 70)
    except BaseException:
        os._exit(71)
    os._exit(0)


def exit_code(child: int) -> int:
    """How a child ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def finish(source: Path, target: Path, *options: str) -> float:
    """Runs the command to its end, which must be a good one; returns the seconds it took."""
    started = time.monotonic()
    code = exit_code(upscale(source, target, *options))
    assert code == 0, f"an undisturbed run ended with {code}"
    return time.monotonic() - started


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One place where a run goes on: the source, the target in a folder of its own, the options.

    `old` is what the target holds before, `complete` what it must hold in the end.
    """

    source: Path
    target: Path
    options: tuple[str, ...]
    old: State | None
    complete: State

    def outcome(self) -> str:
        """What the run left: "absent", "old" or "complete"; fails for anything else."""
        beside = {path.name for path in self.target.parent.iterdir()} - {"out", STAGING}
        assert not beside, f"left lying about: {beside}"
        if not self.target.exists():
            assert self.old is None, "the old checkpoint is gone"
            return "absent"
        held = contents(self.target)
        if held == self.complete:
            return "complete"
        assert held == self.old, "the target is neither the old one nor complete"
        return "old"

    def finish(self) -> None:
        """The second run: it completes, and nothing is left but the target."""
        if self.outcome() != "complete" or self.old is not None:
            finish(self.source, self.target, *self.options)
        assert self.outcome() == "complete"
        # A run that is killed after its last step leaves an empty staging folder behind.
        staging = self.target.with_name(STAGING)
        assert not staging.exists() or not any(path.is_file() for path in staging.rglob("*"))


def make_source(folder: Path) -> Path:
    """A checkpoint of a megabyte in four shards; up-scales it once in this process, so that its
    children have nothing to import."""
    random_numbers = np.random.default_rng(1)
    tensors = {
        name: random_numbers.normal(size=(256, 8 * shape[0])).astype(np.float16)
        for name, shape in ((name, array.shape) for name, array in mistral_tensors(12).items())
        if name.endswith(("up_proj.weight", "embed_tokens.weight", "lm_head.weight"))
    }
    config = {"num_hidden_layers": 12, "model_type": "mistral", "tie_word_embeddings": False}
    write_checkpoint(folder, tensors, config, shards=4, files={"tokenizer.json": "{}"})
    target = folder.with_name("first")
    options = ("--verify", "--checksums", "--quiet", "-o", str(target))
    done = CliRunner().invoke(app, ["upscale", str(folder), "--drop", str(DROP), *options])
    assert done.exit_code == 0, done.output
    shutil.rmtree(target)
    return folder


def with_old(target: Path) -> State:
    """Puts another checkpoint in the target's place."""
    return contents(mistral_checkpoint(target, layers=2, seed=1))


def kill_after(child: int, seconds: float) -> int:
    """Kills a child after a time; returns how it ended."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return exit_code(child)


def change_after(child: int, seconds: float, change: Callable[[], object]) -> int:
    """Changes something while a child runs; returns how the child ended."""
    time.sleep(seconds)
    change()
    return exit_code(child)


def fresh(place: Path) -> Path:
    """A new empty folder at `place`, and the target in it."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place / "out"


def moment(duration: float) -> float:
    """A random moment of a run that takes `duration` seconds, its end a little over."""
    return random.random() * duration * 1.1
