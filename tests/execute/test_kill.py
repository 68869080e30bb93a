"""Killed before any call by which it opens, syncs, renames, makes or removes a file through `os`, a
run leaves the target absent or complete (or the old one), and the same command finishes the work.

Writes and the built-in `open` are not among these points; they change nothing but unfinished files.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import mistral_checkpoint
from tests.execute.helpers import contents, run

CALLS = ("open", "replace", "rename", "fsync", "mkdir", "unlink", "rmdir", "scandir", "close")
KILLED = 9

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killed_before(call: int, work: Callable[[], object]) -> bool:
    """Runs `work` in a child that dies just before its call number `call` of those in `CALLS`.

    Returns whether it came to that.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == call:
                    os._exit(KILLED)
                return real(*args, **kwargs)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"the child failed before call {call}"
    return code == KILLED


def test_killed_run_leaves_the_target_absent_or_complete(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source", shards=2)
    run(source, tmp_path / "fresh")
    complete = contents(tmp_path / "fresh")
    call = 0
    while True:
        call += 1
        place = tmp_path / str(call)
        place.mkdir()
        target = place / "out"
        killed = killed_before(call, partial(run, source, target))
        if target.exists():
            assert contents(target) == complete
        else:
            assert killed
            run(source, target)
            assert contents(target) == complete
        if not killed:
            break
    assert call > 40, "too few calls were seen for the test to mean anything"


def test_killed_replacement_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    run(source, tmp_path / "fresh")
    complete = contents(tmp_path / "fresh")
    call = 0
    while True:
        call += 1
        target = mistral_checkpoint(tmp_path / str(call) / "out", seed=1)
        old = contents(target)
        killed = killed_before(call, partial(run, source, target, force=True))
        assert contents(target) in (old, complete)
        run(source, target, force=True)
        assert contents(target) == complete
        assert [path.name for path in target.parent.iterdir()] == ["out"]
        if not killed:
            break
