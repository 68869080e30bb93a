"""The target is absent or complete, the source untouched, and a second run finishes the first."""

import json
import os
from pathlib import Path

import pytest

from dus_cli.errors import CheckpointError, OutputError
from dus_cli.execute import write
from dus_cli.execute.copy import Piece, PieceCopier, Read
from dus_cli.execute.staging import Staging
from tests.checkpoints import load_all, mistral_checkpoint
from tests.execute.helpers import contents, run


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("drop", [0, 1, 2, 3])
def test_every_output_tensor_is_its_source_tensor(
    tmp_path: Path, shards: int, drop: int, direct: bool
) -> None:
    source = mistral_checkpoint(tmp_path / "source", layers=4, shards=shards)
    before = contents(source)
    plan = run(source, tmp_path / "out", drop=drop, direct=direct)
    theirs, ours = load_all(source), load_all(tmp_path / "out")
    layers = (*range(4 - drop), *range(drop, 4))
    expected = {name: array for name, array in theirs.items() if ".layers." not in name}
    for output, layer in enumerate(layers):
        prefix = f"model.layers.{layer}."
        expected |= {
            f"model.layers.{output}.{name.removeprefix(prefix)}": array
            for name, array in theirs.items()
            if name.startswith(prefix)
        }
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    assert contents(source) == before
    assert plan.scaling.after.tensor_bytes == sum(array.nbytes for array in ours.values())
    assert plan.scaling.after.parameters == sum(array.size for array in ours.values())


def test_index_names_every_tensor_and_the_true_total(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source", shards=2)
    run(source, tmp_path / "out")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_bytes())
    ours = load_all(tmp_path / "out")
    assert set(index["weight_map"]) == set(ours)
    assert index["metadata"] == {"total_size": sum(array.nbytes for array in ours.values())}


def test_carried_files_arrive_and_others_do_not(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "empty.txt").write_bytes(b"")
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling/config.json").write_text("{}", encoding="utf-8")
    run(source, tmp_path / "out")
    names = set(contents(tmp_path / "out"))
    assert {
        "tokenizer.json",
        "generation_config.json",
        "1_Pooling/config.json",
        "empty.txt",
    } <= names
    assert "pytorch_model.bin" not in names


def test_same_input_gives_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        source = mistral_checkpoint(tmp_path / name / "source", shards=2)
        run(source, tmp_path / name / "out")
    assert contents(tmp_path / "one/out") == contents(tmp_path / "two/out")


def test_hub_cache_links_are_read_through(tmp_path: Path) -> None:
    real = mistral_checkpoint(tmp_path / "blobs")
    source = tmp_path / "snapshot"
    source.mkdir()
    for path in real.iterdir():
        (source / path.name).symlink_to(path)
    run(source, tmp_path / "out")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert len(load_all(tmp_path / "out")) == 3 + 6 * 4


OVERLAPS = [
    pytest.param("model", "model", id="target is the source"),
    pytest.param("model", "model/out", id="target inside the source"),
    pytest.param("outer/model", "outer", id="source inside the target"),
    pytest.param("model", "link/out", id="through a link to the source"),
]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("source_name", "target_name"), OVERLAPS)
def test_overlapping_source_and_target_are_refused(
    tmp_path: Path, source_name: str, target_name: str, force: bool
) -> None:
    source = mistral_checkpoint(tmp_path / source_name)
    (tmp_path / "link").symlink_to(source)
    before = contents(tmp_path)
    with pytest.raises(OutputError):
        run(source, tmp_path / target_name, force=force)
    assert contents(tmp_path) == before


def test_target_that_the_source_links_into_is_refused(tmp_path: Path) -> None:
    old = mistral_checkpoint(tmp_path / "old")
    source = mistral_checkpoint(tmp_path / "source")
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").symlink_to(old / "model.safetensors")
    with pytest.raises(OutputError, match="links to it"):
        run(source, old, force=True)


def test_existing_target_is_refused_without_force(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    old = mistral_checkpoint(tmp_path / "out", seed=1)
    before = contents(old)
    with pytest.raises(OutputError, match="exists already"):
        run(source, old)
    assert contents(old) == before


def test_force_replaces_a_checkpoint(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    mistral_checkpoint(tmp_path / "out", seed=1)
    run(source, tmp_path / "out", force=True)
    run(source, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out", "source"]


@pytest.mark.parametrize("made_by", ["mkdir", "file", "link"])
def test_force_never_removes_what_is_no_checkpoint(tmp_path: Path, made_by: str) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    target = tmp_path / "out"
    if made_by == "mkdir":
        target.mkdir()
        (target / "thesis.tex").write_text("years of work", encoding="utf-8")
    elif made_by == "file":
        target.write_text("years of work", encoding="utf-8")
    else:
        target.symlink_to(mistral_checkpoint(tmp_path / "elsewhere"))
    with pytest.raises(OutputError):
        run(source, target, force=True)
    assert os.path.lexists(target)


def test_empty_folder_is_a_fine_target(tmp_path: Path) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    (tmp_path / "out").mkdir()
    run(source, tmp_path / "out")
    assert (tmp_path / "out/config.json").exists()


def test_lack_of_space_is_found_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    monkeypatch.setattr(write, "free_bytes", lambda target: 10)
    monkeypatch.setattr(write, "_shares_blocks", lambda *args: False)
    with pytest.raises(OutputError, match="bytes are needed, 10 are free"):
        run(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_write_error_leaves_no_target_and_the_next_run_keeps_whole_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mistral_checkpoint(tmp_path / "source", shards=3)
    real = PieceCopier.copy

    def failing(self: PieceCopier, piece: Piece, read: Read) -> None:
        if piece.source.name.startswith("model-00003"):
            raise OSError(28, "No space left on device")
        real(self, piece, read)

    monkeypatch.setattr(PieceCopier, "copy", failing)
    with pytest.raises(OutputError, match="the disk is full"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    staged = tmp_path / ".out.dus-staging/checkpoint"
    whole = {path.name: path.stat().st_ino for path in staged.glob("*.safetensors")}
    assert whole, "no shard was finished before the error"
    monkeypatch.undo()
    run(source, tmp_path / "out")
    after = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.safetensors")}
    assert whole.items() <= after.items()
    run(source, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_leftovers_of_another_plan_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mistral_checkpoint(tmp_path / "source", shards=3)
    monkeypatch.setattr(Staging, "commit", lambda self, *, replace: None)
    run(source, tmp_path / "out", drop=1)
    monkeypatch.undo()
    run(source, tmp_path / "out", drop=2)
    run(source, tmp_path / "fresh", drop=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_source_that_changes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = mistral_checkpoint(tmp_path / "source")
    real = PieceCopier.copy

    def meddling(self: PieceCopier, piece: Piece, read: Read) -> None:
        real(self, piece, read)
        os.utime(source / "model.safetensors", ns=(1, 1))

    monkeypatch.setattr(PieceCopier, "copy", meddling)
    with pytest.raises(CheckpointError, match="changed while it was copied"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_runs_into_one_target_do_not_mix(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    source = mistral_checkpoint(tmp_path / "source")
    staging = tmp_path / ".out.dus-staging"
    staging.mkdir()
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another dus"):
            run(source, tmp_path / "out")
    finally:
        os.close(descriptor)
