"""A few runs of each fault, and the rules that chance alone would rarely put to the test."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from dus_cli.documents import write_documents
from dus_cli.errors import CheckpointError, OutputError
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import plan_upscale
from dus_cli.scaling import UpscaleRequest
from tests.checkpoints import mistral_checkpoint
from tests.execute.helpers import contents, run
from tests.faults.__main__ import CHANGES, change_file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return mistral_checkpoint(tmp_path / "source", shards=2)


@pytest.mark.parametrize("kind", CHANGES)
def test_nothing_of_a_source_that_changed_is_kept_for_the_next_run(
    source: Path, tmp_path: Path, kind: str
) -> None:
    run(source, tmp_path / "fresh")
    shard = sorted(source.glob("*.safetensors"))[0]
    before, status = shard.read_bytes(), shard.stat()
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=1))
    documents = write_documents(plan, checkpoint.card)
    changes = iter([partial(change_file, shard, kind)])

    def progress(_: int) -> None:
        for change in changes:
            change()

    target = tmp_path / "target"
    with pytest.raises((CheckpointError, OutputError)):
        execute(plan, source, target, documents, progress=progress)
    assert not target.exists()
    # The source is put back as it was, with its time of change.
    shard.write_bytes(before)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    run(source, target)
    assert contents(target) == contents(tmp_path / "fresh")


def test_a_result_that_was_refused_is_made_anew(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "fresh")
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=1))
    documents = write_documents(plan, checkpoint.card)
    target = tmp_path / "target"

    def spoil(folder: Path) -> Mapping[str, bytes]:
        """What a failing disk does: a finished file is not what was written."""
        shard = folder / plan.shards[0].name
        shard.write_bytes(bytes(len(shard.read_bytes())))
        raise OutputError("refused")

    with pytest.raises(OutputError, match="refused"):
        execute(plan, source, target, documents, check=spoil)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "source"]
    run(source, target)
    assert contents(target) == contents(tmp_path / "fresh")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_faults_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.faults import __main__ as faults

    monkeypatch.setattr(sys, "argv", ["faults", "4", str(tmp_path)])
    monkeypatch.setattr(faults, "MODES", ((False, ()), (True, ("--checksums",))))
    monkeypatch.setattr(faults, "CHANGED_RUNS", 4)
    monkeypatch.setattr(faults, "DISKS", ())
    faults.main()
    printed = capsys.readouterr().out
    assert "kill: 4 runs" in printed
    assert "source changed: 4 runs" in printed
    assert list(tmp_path.iterdir()) == []
