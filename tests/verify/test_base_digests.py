"""A result is proved by the digests of its files, without its bytes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dus_cli.documents import write_documents
from dus_cli.execute.write import execute
from dus_cli.findings import Collector
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.base_digests import Stated, can_be_hashed, compare_digests
from tests.checkpoints import mistral_checkpoint


def made(tmp_path: Path, *, shards: int = 3, max_shard_size: int | None = None) -> Plan:
    """An up-scaled checkpoint in `result`, of the one in `base`."""
    base = open_checkpoint(mistral_checkpoint(tmp_path / "base", shards=shards))
    plan = plan_upscale(base, UpscaleRequest(drop=1, max_shard_size=max_shard_size))
    execute(plan, base.folder, tmp_path / "result", write_documents(plan, base.card))
    return plan


def hollow(folder: Path) -> None:
    """Leaves of every shard the header and of every other file its size."""
    for path in folder.glob("*.safetensors"):
        size, content = path.stat().st_size, path.read_bytes()
        path.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
        with path.open("r+b") as file:
            file.truncate(size)


def codes(tmp_path: Path, plan: Plan, stated: Stated) -> dict[str, str | None]:
    """File -> code of what is reported about the hollow result."""
    hollow(tmp_path / "result")
    checkpoint, base = open_checkpoint(tmp_path / "result"), open_checkpoint(tmp_path / "base")
    collector = Collector()
    counted: list[int] = []
    assert can_be_hashed(checkpoint, plan, stated)
    proof = compare_digests(
        checkpoint, base, plan, stated, lambda name: None, collector, progress=counted.append
    )
    carried = sum(file.size for file in plan.carried_files)
    assert proof.bytes_read == base.tensor_bytes + carried
    assert sum(counted) == checkpoint.tensor_bytes + carried
    return {finding.file: finding.code for finding in collector.findings if finding.file}


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_equal_digests_prove_a_result(tmp_path: Path, shards: int) -> None:
    plan = made(tmp_path, shards=shards)
    assert codes(tmp_path, plan, stated_of_copy(tmp_path)) == {}


def stated_of_copy(tmp_path: Path) -> Stated:
    """The digests of the result as it is now, whatever becomes of it later."""
    held = {
        path.relative_to(tmp_path / "result").as_posix(): path.read_bytes()
        for path in (tmp_path / "result").rglob("*")
        if path.is_file()
    }
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in held.items()}
    return lambda path: (hashlib.sha256(), digests[path]) if path in digests else None


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


Change = Callable[[Path], None]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda folder: flip(folder / "base/model-00001-of-00003.safetensors", -1),
            {"model-00001-of-00006.safetensors": "base-bytes"},
        ),
        (
            lambda folder: flip(folder / "base/model-00002-of-00003.safetensors", -1),
            {
                "model-00002-of-00006.safetensors": "base-bytes",
                "model-00005-of-00006.safetensors": "base-bytes",
            },
        ),
        (lambda folder: flip(folder / "base/tokenizer.json", -2), {"tokenizer.json": "base-file"}),
    ],
    ids=["once kept", "twice kept", "carried file"],
)
def test_a_byte_that_differs_is_found_in_every_file_that_has_it(
    tmp_path: Path, change: Change, expected: dict[str, str]
) -> None:
    plan = made(tmp_path)
    stated = stated_of_copy(tmp_path)
    change(tmp_path)
    found = codes(tmp_path, plan, stated)
    assert found and set(found.values()) == set(expected.values())


def test_a_header_that_differs_is_found(tmp_path: Path) -> None:
    plan = made(tmp_path)
    shard = tmp_path / "result" / plan.shards[0].name
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b'"F16"', b'"I16"', 1))
    assert shard.read_bytes() != content
    assert codes(tmp_path, plan, stated_of_copy(tmp_path)) == {shard.name: "base-bytes"}


def test_what_is_laid_out_otherwise_or_has_no_digest_has_to_be_read(tmp_path: Path) -> None:
    plan = made(tmp_path)
    checkpoint = open_checkpoint(tmp_path / "result")
    stated = stated_of_copy(tmp_path)
    assert can_be_hashed(checkpoint, plan, stated)
    assert not can_be_hashed(checkpoint, plan, lambda path: None)
    other = plan_upscale(
        open_checkpoint(tmp_path / "base"), UpscaleRequest(drop=1, max_shard_size=10_000_000)
    )
    assert not can_be_hashed(checkpoint, other, stated)


def test_a_file_filled_by_two_readings_of_the_base_has_to_be_read(tmp_path: Path) -> None:
    plan = made(tmp_path, max_shard_size=10_000_000)
    assert len(plan.shards) == 1
    checkpoint = open_checkpoint(tmp_path / "result")
    assert not can_be_hashed(checkpoint, plan, stated_of_copy(tmp_path))
