"""Manifests of checksums: what they hold, what they refuse, what a comparison finds."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from dus_cli.errors import CheckpointError
from dus_cli.findings import Collector, Finding
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.folder import CHECKSUMS
from dus_cli.verify import digests
from dus_cli.verify.checksums import (
    Checksums,
    compare_checksums,
    compute_checksums,
    load_checksums,
    own_path,
)
from dus_cli.verify.digests import hash_files
from tests.checkpoints import (
    load_all,
    mistral_checkpoint,
    mistral_config,
    mistral_tensors,
    write_checkpoint,
)
from tests.format.raw_files import entry, framed, header

SHARD: Final = "model-{:05d}-of-00003.safetensors"
ONE: Final = "model.safetensors"
ZEROS: Final = "0" * 64


def opened(folder: Path) -> Checkpoint:
    """As a verification opens it: with what is sound, whatever is wrong."""
    return open_checkpoint(folder, report=lambda finding: None)


def found(folder: Path, checksums: Checksums, **more: Any) -> list[Finding]:
    collector = Collector()
    compare_checksums(opened(folder), checksums, collector, **more)
    return collector.findings


def subjects(findings: list[Finding]) -> set[tuple[str, str | None, str | None]]:
    return {(finding.code, finding.file, finding.tensor) for finding in findings}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change_byte(path: Path, offset: int, *, to: bytes | None = None) -> None:
    """Another byte at `offset`, from the end where that is negative."""
    content = bytearray(path.read_bytes())
    content[offset] = to[0] if to else content[offset] ^ 1
    path.write_bytes(content)


def raw_checkpoint(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / ONE).write_bytes(content)
    return folder


# What a manifest holds.


@pytest.mark.parametrize("shards", [1, 3])
def test_digests_are_those_of_the_files_and_of_the_tensors_as_the_library_reads_them(
    tmp_path: Path, shards: int
) -> None:
    folder = mistral_checkpoint(tmp_path / "m", shards=shards)
    checksums = compute_checksums(open_checkpoint(folder))
    assert {path: (f.size, f.sha256) for path, f in checksums.files.items()} == {
        path.name: (path.stat().st_size, sha256(path)) for path in folder.iterdir()
    }
    assert {name: tensor.sha256 for name, tensor in checksums.tensors.items()} == {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in load_all(folder).items()
    }
    for name, tensor in checksums.tensors.items():
        assert name in open_checkpoint(folder / tensor.file).shards[0].header.tensors


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no coreutils here")
def test_sha256sum_agrees(tmp_path: Path) -> None:
    folder = mistral_checkpoint(tmp_path / "m", shards=3)
    checksums = compute_checksums(open_checkpoint(folder))
    lines = "".join(f"{file.sha256}  {path}\n" for path, file in checksums.files.items())
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet"],
        input=lines,
        text=True,
        cwd=folder,
        check=True,
    )


def test_resources_are_those_that_model_signing_signs(tmp_path: Path) -> None:
    hashing = pytest.importorskip("model_signing.hashing")
    files = ["a/b.txt", "a.txt", "A", ".hidden", "z/y/x", "sub/.gitignore", "README.md"]
    ignored = [".gitattributes", ".gitignore", ".git/config", ".github/workflow.yml"]
    folder = write_checkpoint(
        tmp_path / "m",
        mistral_tensors(2),
        mistral_config(2),
        shards=2,
        files={name: name for name in [*files, *ignored]},
    )
    (folder / "link.txt").symlink_to("README.md")
    signed = hashing.Config().set_allow_symlinks(True).hash(folder)
    assert compute_checksums(open_checkpoint(folder)).to_json()["resources"] == [
        {
            "name": resource.identifier,
            "algorithm": resource.digest.algorithm,
            "digest": resource.digest.digest_hex,
        }
        for resource in signed.resource_descriptors()
    ]


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("README.md", True),
        (".hidden", True),
        ("a/b/c.txt", True),
        ("onnx/model.onnx", True),
        ("pytorch_model.bin", True),
        ("dus.json", True),
        ("sub/dus-checksums.json", True),
        ("sub/.git/config", True),
        (".gitignored", True),
        (CHECKSUMS, False),
        ("model.sig", False),
        (".git/config", False),
        (".gitattributes", False),
        (".github/workflow.yml", False),
        (".cache/huggingface/download/config.json.lock", False),
        ("elsewhere.json", False),
    ],
)
def test_everything_that_ships_is_covered(tmp_path: Path, path: str, covered: bool) -> None:
    folder = write_checkpoint(
        tmp_path / "m", mistral_tensors(2), mistral_config(2), files={path: "x"}
    )
    checksums = compute_checksums(open_checkpoint(folder), exclude={"elsewhere.json"})
    assert (path in checksums.files) == covered


def test_links_to_files_are_the_files_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    blobs = mistral_checkpoint(tmp_path / "blobs")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for blob in blobs.iterdir():
        (folder / blob.name).symlink_to(blob)
    (folder / "loop").symlink_to(folder)
    checksums = compute_checksums(open_checkpoint(folder))
    assert checksums == compute_checksums(open_checkpoint(blobs))
    assert found(folder, checksums) == []


def test_a_file_given_alone_is_the_only_one(tmp_path: Path) -> None:
    folder = mistral_checkpoint(tmp_path / "m")
    whole = compute_checksums(open_checkpoint(folder))
    alone = compute_checksums(open_checkpoint(folder / ONE))
    assert alone.files.keys() == {ONE}
    assert alone.tensors == whole.tensors
    assert found(folder / ONE, whole) == []
    change_byte(folder / ONE, -1)
    assert {finding.code for finding in found(folder / ONE, whole)} == {
        "checksum-file",
        "checksum-tensor",
    }


@pytest.mark.parametrize("block", [1, 7, 100, 4096])
def test_blocks_may_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    entries = {
        "empty first": entry("F32", [0], [0, 0]),
        "odd": entry("U8", [13], [0, 13]),
        "empty between": entry("F32", [2, 0], [13, 13]),
        "long": entry("U8", [500], [13, 513]),
        "empty last": entry("F32", [0], [513, 513]),
    }
    data = bytes(index % 251 for index in range(513))
    folder = raw_checkpoint(tmp_path / "m", framed(json.dumps(entries).encode(), data))
    monkeypatch.setattr(digests, "_BLOCK_BYTES", block)
    checksums = compute_checksums(open_checkpoint(folder))
    assert {name: tensor.sha256 for name, tensor in checksums.tensors.items()} == {
        name: hashlib.sha256(data[begin:end]).hexdigest()
        for name, begin, end in [
            ("empty first", 0, 0),
            ("odd", 0, 13),
            ("empty between", 13, 13),
            ("long", 13, 513),
            ("empty last", 513, 513),
        ]
    }
    assert checksums.files[ONE].sha256 == sha256(folder / ONE)


@pytest.mark.parametrize("processors", [1, 2, 64])
def test_digests_do_not_depend_on_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    folder = mistral_checkpoint(tmp_path / "m", shards=3)
    (folder / "many").mkdir()
    for number in range(50):
        (folder / "many" / str(number)).write_bytes(os.urandom(number))
    monkeypatch.setattr(digests, "_processors", lambda: processors)
    checksums = compute_checksums(open_checkpoint(folder))
    assert {path: file.sha256 for path, file in checksums.files.items()} == {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_manifest_has_one_text_and_can_be_loaded_again(tmp_path: Path) -> None:
    names = ['"', "\0", "\x1b[31m", "../../x", "::error::", "é", "\u202e", ""]
    entries = {name: entry("U8", [1], [i, i + 1]) for i, name in enumerate(names)}
    folder = raw_checkpoint(
        tmp_path / "m", framed(json.dumps(entries).encode(), bytes(len(entries)))
    )
    for name in ["z", "a/b", "a.b", "line\nbreak", "é"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    copy = shutil.copytree(folder, tmp_path / "copy")
    checksums = compute_checksums(open_checkpoint(folder))
    text = checksums.to_bytes()
    assert compute_checksums(open_checkpoint(copy)).to_bytes() == text
    manifest = folder / CHECKSUMS
    manifest.write_bytes(text)
    assert load_checksums(manifest) == checksums
    assert load_checksums(manifest).to_bytes() == text
    assert found(folder, load_checksums(manifest)) == []
    value = json.loads(text)
    assert list(value) == ["schema", "sizes", "resources", "tensors"]
    assert value["schema"] == "dus-checksums/1"
    assert [resource["name"] for resource in value["resources"]] == list(value["sizes"])
    assert list(value["sizes"]) == sorted(value["sizes"], key=lambda p: Path(p).parts)
    assert list(value["sizes"]).index("a/b") < list(value["sizes"]).index("a.b")
    assert value["tensors"].keys() == {ONE}


# What no manifest is made of.


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _dead_link(folder: Path) -> None:
    (folder / "dead").symlink_to("nowhere")


def _not_utf8(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff")).write_text("x")


def _backslash(folder: Path) -> None:
    (folder / "a\\b").write_text("x")


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (_pipe, "pipe: not a regular file"),
        (_dead_link, "dead: a link that leads nowhere"),
        (_not_utf8, "no manifest can hold this name"),
        (_backslash, "no manifest can hold this name"),
    ],
)
def test_what_cannot_ship_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], fact: str
) -> None:
    folder = mistral_checkpoint(tmp_path / "m")
    spoil(folder)
    with pytest.raises(CheckpointError, match=fact):
        compute_checksums(open_checkpoint(folder))


@pytest.mark.parametrize(
    "content",
    [
        b"no header",
        framed(header(a=entry("U8", [2], [0, 2]), b=entry("U8", [2], [1, 3])), bytes(3)),
        framed(header(a=entry("U8", [2], [0, 2])), bytes(1)),
        framed(header(a=entry("U8", [2], [0, 2]), b=entry("F99", [1], [2, 3])), bytes(3)),
    ],
    ids=["unreadable", "overlap", "beyond the end", "unknown dtype"],
)
def test_an_unsound_checkpoint_gets_no_manifest(tmp_path: Path, content: bytes) -> None:
    folder = raw_checkpoint(tmp_path / "m", content)
    with pytest.raises(CheckpointError, match="its header is broken"):
        compute_checksums(opened(folder))


def test_a_tensor_in_two_shards_gets_no_manifest(tmp_path: Path) -> None:
    folder = mistral_checkpoint(tmp_path / "m", shards=3)
    shutil.copy(folder / SHARD.format(1), folder / SHARD.format(2))
    with pytest.raises(CheckpointError, match="another shard holds too"):
        compute_checksums(opened(folder))


# Files that change under the reader.


def _cut(path: Path) -> None:
    os.truncate(path, 1500)


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "fact"),
    [(_cut, "became shorter while it was read"), (_touch, "changed while it was read")],
)
def test_a_file_that_changes_while_it_is_read_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], fact: str
) -> None:
    folder = mistral_checkpoint(tmp_path / "m")
    checkpoint = open_checkpoint(folder)
    checksums = compute_checksums(checkpoint)
    monkeypatch.setattr(digests, "_BLOCK_BYTES", 1000)
    original = (folder / ONE).read_bytes()

    def progress(count: int) -> None:
        if count == 1000:
            change(folder / ONE)

    with pytest.raises(CheckpointError, match=f"^{ONE}: {fact}"):
        compute_checksums(checkpoint, progress=progress)
    (folder / ONE).write_bytes(original)
    collector = Collector()
    compare_checksums(checkpoint, checksums, collector, progress=progress)
    assert subjects(collector.findings) == {("file-unreadable", ONE, None)}
    assert collector.findings[0].message.startswith(fact)


def test_a_header_that_changed_since_it_was_read_is_noticed(tmp_path: Path) -> None:
    folder = mistral_checkpoint(tmp_path / "m")
    checkpoint = open_checkpoint(folder)
    content = (folder / ONE).read_bytes()
    (folder / ONE).write_bytes(content.replace(b"model.norm", b"model.morn"))
    with pytest.raises(CheckpointError, match="changed after its header was read"):
        compute_checksums(checkpoint)


def test_whoever_stops_early_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    size = 1 << 40
    (tmp_path / "small").write_text("x")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(size)
    read: list[int] = []
    results = hash_files(tmp_path, {"small": None, "sparse": None}, read.append)
    path, small = next(results)
    assert path == "small"
    assert isinstance(small, digests.FileDigests)
    assert small.sha256 == hashlib.sha256(b"x").hexdigest()
    results.close()
    assert sum(read) < size // 100


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    folder = mistral_checkpoint(tmp_path / "m", shards=3)
    total = sum(path.stat().st_size for path in folder.iterdir())
    read: list[int] = []
    checksums = compute_checksums(open_checkpoint(folder), progress=read.append)
    assert sum(read) == total
    compared: list[int] = []
    collector = Collector()
    count = compare_checksums(
        open_checkpoint(folder), checksums, collector, progress=compared.append
    )
    assert (count, sum(compared), collector.findings) == (total, total, [])


# What a comparison finds.


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, Checksums]:
    folder = mistral_checkpoint(tmp_path / "three", shards=3)
    return folder, compute_checksums(open_checkpoint(folder))


def _last_tensor(folder: Path, shard: int) -> str:
    (only,) = open_checkpoint(folder / SHARD.format(shard)).shards
    return list(only.header.tensors)[-1]


def test_a_changed_tensor_is_named_and_so_is_its_file(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    tensor, shard = _last_tensor(folder, 2), SHARD.format(2)
    change_byte(folder / shard, -1)
    findings = found(folder, checksums)
    assert subjects(findings) == {
        ("checksum-file", shard, None),
        ("checksum-tensor", shard, tensor),
    }
    (file,) = (finding for finding in findings if finding.tensor is None)
    assert sha256(folder / shard) in file.message
    assert checksums.files[shard].sha256 in file.message
    assert "; 1 of its 6 tensors are not as listed" in file.message


def test_a_shard_given_alone_is_not_asked_for_the_others(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    assert found(folder / SHARD.format(2), checksums) == []


def test_a_changed_header_leaves_the_tensors_unchanged(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    content = (folder / SHARD.format(1)).read_bytes()
    (folder / SHARD.format(1)).write_bytes(content.replace(b'"pt"', b'"tf"'))
    (finding,) = found(folder, checksums)
    assert (finding.code, finding.file) == ("checksum-file", SHARD.format(1))
    assert "its 6 tensors are unchanged, so that only the header differs" in finding.message


def test_a_plain_file_of_another_size_is_not_even_read(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    with open(folder / "tokenizer.json", "wb") as file:
        file.truncate(1 << 40)
    (finding,) = found(folder, checksums)
    assert (finding.code, finding.file) == ("checksum-file", "tokenizer.json")
    assert finding.message == f"holds {1 << 40} bytes, but the checksums list 2"


def test_a_plain_file_of_the_same_size_is_read(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    (folder / "tokenizer.json").write_text("[]")
    (finding,) = found(folder, checksums)
    assert (finding.code, finding.file) == ("checksum-file", "tokenizer.json")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_plain_file_that_is_gone_is_missing(three: tuple[Path, Checksums], name: str) -> None:
    folder, checksums = three
    (folder / name).unlink()
    (finding,) = found(folder, checksums)
    assert (finding.code, finding.file, finding.message) == (
        "checksum-missing",
        name,
        "is not there",
    )


def test_a_shard_that_is_gone_is_one_finding(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    (folder / SHARD.format(3)).unlink()
    (finding,) = found(folder, checksums)
    assert (finding.code, finding.file) == ("checksum-missing", SHARD.format(3))
    assert finding.message == "is not there; no other file holds its 7 tensors"


def test_a_shard_whose_header_is_broken_is_one_finding(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    change_byte(folder / SHARD.format(3), 8, to=b"x")
    (finding,) = found(folder, checksums)
    assert (finding.code, finding.file) == ("checksum-file", SHARD.format(3))
    assert "no other file holds its 7 tensors" in finding.message


def test_a_shard_that_the_index_forgot_is_still_the_listed_file(
    three: tuple[Path, Checksums],
) -> None:
    folder, checksums = three
    index = json.loads((folder / f"{ONE}.index.json").read_text())
    weight_map = index["weight_map"]
    index["weight_map"] = {n: shard for n, shard in weight_map.items() if shard != SHARD.format(3)}
    (folder / f"{ONE}.index.json").write_text(json.dumps(index))
    assert subjects(found(folder, checksums)) == {("checksum-file", f"{ONE}.index.json", None)}


def test_files_that_are_not_listed_are_a_warning(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    (folder / "sub").mkdir()
    for path in ["new.txt", "sub/new.txt", "mine.json", "model.sig", CHECKSUMS]:
        (folder / path).write_text("x")
    findings = found(folder, checksums, exclude=own_path(opened(folder), folder / "mine.json"))
    assert subjects(findings) == {
        ("checksum-unlisted", "new.txt", None),
        ("checksum-unlisted", "sub/new.txt", None),
    }


def test_a_tensor_that_is_not_listed_or_has_another_name_is_found(tmp_path: Path) -> None:
    tensors = mistral_tensors(2)
    folder = write_checkpoint(tmp_path / "m", tensors, mistral_config(2))
    checksums = compute_checksums(open_checkpoint(folder))
    norm = tensors.pop("model.norm.weight")
    write_checkpoint(folder, {**tensors, "model.morn.weight": norm}, mistral_config(2))
    assert subjects(found(folder, checksums)) == {
        ("checksum-file", ONE, None),
        ("checksum-missing", ONE, "model.norm.weight"),
        ("checksum-unlisted", ONE, "model.morn.weight"),
    }
    write_checkpoint(folder, {**tensors, "model.norm.weight": norm, "new": norm}, mistral_config(2))
    findings = found(folder, checksums)
    assert subjects(findings) == {
        ("checksum-file", ONE, None),
        ("checksum-unlisted", ONE, "new"),
    }
    assert any("tensors are unchanged, but 1 more are there" in f.message for f in findings)


def test_swapped_tensors_are_both_found(tmp_path: Path) -> None:
    tensors = mistral_tensors(2)
    folder = write_checkpoint(tmp_path / "m", tensors, mistral_config(2))
    checksums = compute_checksums(open_checkpoint(folder))
    one, two = (f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1))
    tensors[one], tensors[two] = tensors[two], tensors[one]
    write_checkpoint(folder, tensors, mistral_config(2))
    assert subjects(found(folder, checksums)) == {
        ("checksum-file", ONE, None),
        ("checksum-tensor", ONE, one),
        ("checksum-tensor", ONE, two),
    }


def test_sharded_anew_the_findings_say_that_the_weights_are_the_same(
    tmp_path: Path, three: tuple[Path, Checksums]
) -> None:
    _, checksums = three
    folder = mistral_checkpoint(tmp_path / "one", shards=1)
    findings = found(folder, checksums)
    assert subjects(findings) == {
        *(("checksum-missing", SHARD.format(number), None) for number in (1, 2, 3)),
        ("checksum-missing", f"{ONE}.index.json", None),
        ("checksum-unlisted", ONE, None),
    }
    for finding in findings:
        if finding.file in [SHARD.format(number) for number in (1, 2, 3)]:
            assert "tensors are in other files, unchanged" in finding.message
            assert "sharded otherwise" in str(finding.hint)
    index = next(finding for finding in findings if finding.file == f"{ONE}.index.json")
    assert "sharded" not in str(index.hint)


def test_sharded_anew_a_changed_or_lost_tensor_is_still_found(
    tmp_path: Path, three: tuple[Path, Checksums]
) -> None:
    old, checksums = three
    tensors = mistral_tensors(4)
    lost, changed = _last_tensor(old, 1), _last_tensor(old, 2)
    del tensors[lost]
    tensors[changed] = tensors[changed] + 1
    folder = write_checkpoint(tmp_path / "one", tensors, mistral_config(4))
    shutil.copy(old / "tokenizer.json", folder)
    shutil.copy(old / "generation_config.json", folder)
    findings = found(folder, checksums)
    assert subjects(findings) == {
        *(("checksum-missing", SHARD.format(number), None) for number in (1, 2, 3)),
        ("checksum-missing", f"{ONE}.index.json", None),
        ("checksum-missing", SHARD.format(1), lost),
        ("checksum-tensor", ONE, changed),
        ("checksum-unlisted", ONE, None),
    }
    (tensor,) = (finding for finding in findings if finding.tensor == changed)
    assert tensor.hint == f"The checksums list it in {SHARD.format(2)!r}."
    files = {f.file: f for f in findings if f.tensor is None}
    for number in (1, 2):
        file = files[SHARD.format(number)]
        assert file.message == "is not there; of its 6 tensors 5 are in other files, unchanged"
        assert file.hint == "Fetch the file."


def test_a_tensor_is_taken_from_the_listed_file_where_two_hold_its_name(
    three: tuple[Path, Checksums],
) -> None:
    folder, checksums = three
    shutil.copy(folder / SHARD.format(1), folder / SHARD.format(2))
    change_byte(folder / SHARD.format(2), -1)
    codes = subjects(found(folder, checksums))
    assert not {code for code in codes if code[1] == SHARD.format(1)}
    assert ("checksum-file", SHARD.format(2), None) in codes
    assert not {code for code in codes if code[0] == "checksum-tensor"}


def test_tensors_without_bytes_of_their_own_are_found_in_linear_time(tmp_path: Path) -> None:
    entries: dict[str, Any] = {"first": entry("U8", [10**6], [0, 10**6])}
    folder = raw_checkpoint(tmp_path / "m", framed(json.dumps(entries).encode(), bytes(10**6)))
    checksums = compute_checksums(open_checkpoint(folder))
    for number in range(20_000):
        entries[f"claims too {number}"] = entry("U8", [10**6 - 1], [1, 10**6])
    entries["first"] = entry("U8", [2 * 10**6], [0, 2 * 10**6])
    (folder / ONE).write_bytes(framed(json.dumps(entries).encode(), bytes(10**6)))
    findings = found(folder, checksums)
    (tensor,) = (finding for finding in findings if finding.tensor == "first")
    assert tensor.code == "checksum-tensor"
    assert "has no bytes of its own" in tensor.message


def test_a_tensor_whose_entry_is_broken_is_not_said_to_be_missing(tmp_path: Path) -> None:
    folder = raw_checkpoint(tmp_path / "m", framed(header(a=entry("I8", [1], [0, 1])), b"x"))
    checksums = compute_checksums(open_checkpoint(folder))
    (folder / ONE).write_bytes(framed(header(a=entry("X8", [1], [0, 1])), b"x"))
    assert ("checksum-tensor", ONE, "a") in subjects(found(folder, checksums))


def test_a_shard_that_goes_after_it_was_opened_is_missing(three: tuple[Path, Checksums]) -> None:
    folder, checksums = three
    checkpoint = open_checkpoint(folder)
    (folder / SHARD.format(2)).unlink()
    collector = Collector()
    compare_checksums(checkpoint, checksums, collector)
    assert subjects(collector.findings) == {("checksum-missing", SHARD.format(2), None)}


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_dead_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [_make_pipe, _make_dead_link])
def test_a_listed_file_that_is_none_is_unreadable(
    three: tuple[Path, Checksums], make: Callable[[Path], None]
) -> None:
    folder, checksums = three
    (folder / "tokenizer.json").unlink()
    make(folder / "tokenizer.json")
    assert subjects(found(folder, checksums)) == {("file-unreadable", "tokenizer.json", None)}


def test_what_is_listed_is_compared_even_where_it_is_not_covered_by_itself(
    three: tuple[Path, Checksums],
) -> None:
    folder, checksums = three
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / ".gitignore").write_text("x")
    value = checksums.to_json()
    for path in (".git/config", ".gitignored"):
        value["sizes"][path] = 1
        value["resources"].append({"name": path, "digest": ZEROS, "algorithm": "sha256"})
    manifest = folder / CHECKSUMS
    manifest.write_text(json.dumps(value))
    assert subjects(found(folder, load_checksums(manifest))) == {
        ("checksum-file", ".git/config", None),
        ("checksum-missing", ".gitignored", None),
    }


def test_a_listed_path_is_never_followed_through_a_link_to_a_folder(
    tmp_path: Path, three: tuple[Path, Checksums]
) -> None:
    folder, checksums = three
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "outside")
    value = checksums.to_json()
    value["sizes"]["link/secret"] = 1
    value["resources"].append({"name": "link/secret", "digest": ZEROS, "algorithm": "sha256"})
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(value))
    (finding,) = found(folder, load_checksums(manifest))
    assert (finding.code, finding.file) == ("checksum-missing", "link/secret")


@pytest.mark.parametrize("name", ["\x1b[31m", "::error::", "line\nbreak", "\u202e", "\0"])
def test_messages_quote_what_files_say(tmp_path: Path, name: str) -> None:
    entries = {name: entry("U8", [1], [0, 1])}
    folder = raw_checkpoint(tmp_path / "m", framed(json.dumps(entries).encode(), b"x"))
    checksums = compute_checksums(open_checkpoint(folder))
    change_byte(folder / ONE, -1)
    findings = found(folder, checksums)
    assert ("checksum-tensor", ONE, name) in subjects(findings)
    assert all(finding.message.isprintable() for finding in findings)


def test_the_manifests_own_path_counts_only_inside_the_folder(tmp_path: Path) -> None:
    folder = mistral_checkpoint(tmp_path / "m")
    (tmp_path / "link").symlink_to(folder)
    checkpoint = open_checkpoint(tmp_path / "link")
    assert own_path(checkpoint, folder / "sums.json") == {"sums.json"}
    assert own_path(checkpoint, tmp_path / "link" / "sub" / "sums.json") == {"sub/sums.json"}
    assert own_path(checkpoint, tmp_path / "sums.json") == frozenset()
    assert own_path(checkpoint, folder / ".." / "sums.json") == frozenset()


# Hostile manifests.


def manifest_json(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "dus-checksums/1",
        "sizes": {"a": 1},
        "resources": [{"name": "a", "digest": ZEROS, "algorithm": "sha256"}],
        "tensors": {"a": {"t": ZEROS}},
        **changes,
    }


def renamed(name: Any) -> dict[str, Any]:
    resource = {"name": name, "digest": ZEROS, "algorithm": "sha256"}
    return manifest_json(sizes={str(name): 1}, resources=[resource], tensors={})


def with_resource(**changes: Any) -> dict[str, Any]:
    resource = {"name": "a", "digest": ZEROS, "algorithm": "sha256", **changes}
    return manifest_json(resources=[resource])


def test_the_hostile_cases_are_cases_of_a_manifest_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for value in (manifest_json(), renamed("b/c"), with_resource(), renamed("line\nbreak")):
        path.write_text(json.dumps(value))
        assert load_checksums(path).files


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ({}, "does not state the schema"),
        (manifest_json(schema="dus-checksums/2"), "does not state the schema"),
        (manifest_json(schema=["dus-checksums/1"]), "does not state the schema"),
        ({"schema": "dus-checksums/1", "sizes": {}, "resources": []}, "has no tensors"),
        (manifest_json(more=1), "unknown field 'more'"),
        (manifest_json(sizes=[]), "sizes is not an object"),
        (manifest_json(sizes={}), "impossible size None"),
        (manifest_json(sizes={"a": 1, "b": 1}), "'b' has a size, but no digest"),
        (manifest_json(sizes={"a": -1}), "impossible size -1"),
        (manifest_json(sizes={"a": True}), "impossible size True"),
        (manifest_json(sizes={"a": 1.0}), "impossible size 1.0"),
        (manifest_json(sizes={"a": 2**63}), "impossible size"),
        (manifest_json(resources={}), "resources is not a list"),
        (manifest_json(resources=["a"]), "is not name, digest and algorithm"),
        (manifest_json(resources=[{"name": "a"}]), "is not name, digest and algorithm"),
        (with_resource(uri="x"), "is not name, digest and algorithm"),
        (with_resource(algorithm="md5"), "digest by 'md5'"),
        (with_resource(algorithm=["sha256"]), "digest by"),
        (with_resource(digest="0" * 63), "not 64 hex digits"),
        (with_resource(digest="0" * 64 + "\n"), "not 64 hex digits"),
        (with_resource(digest="g" * 64), "not 64 hex digits"),
        (with_resource(digest="A" * 64), "not 64 hex digits"),
        (with_resource(digest="٠" * 64), "not 64 hex digits"),
        (with_resource(digest=0), "not 64 hex digits"),
        (manifest_json(resources=2 * manifest_json()["resources"]), "lists 'a' twice"),
        (manifest_json(tensors=[]), "tensors is not an object"),
        (manifest_json(tensors={"a": []}), "tensors of 'a' are not an object"),
        (manifest_json(tensors={"b": {}}), "lists tensors of 'b', but not that file"),
        (manifest_json(tensors={"a": {"t": None}}), "not 64 hex digits"),
        *(
            (renamed(name), "not a path inside the checkpoint")
            for name in (
                "",
                ".",
                "..",
                "../a",
                "a/../../b",
                "a/..",
                "./a",
                "a//b",
                "a/",
                "/etc/passwd",
                "\\a",
                "..\\a",
                "a\0b",
                1,
                None,
                ["a"],
            )
        ),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_hint(
    tmp_path: Path, value: dict[str, Any], fact: str
) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(value))
    with pytest.raises(CheckpointError) as raised:
        load_checksums(path)
    assert raised.value.message.startswith(f"{path}: ")
    assert fact in raised.value.message
    assert raised.value.hint
    assert raised.value.message.isprintable()


def test_a_tensor_that_is_listed_in_two_files_is_refused(tmp_path: Path) -> None:
    resources = [{"name": n, "digest": ZEROS, "algorithm": "sha256"} for n in "ab"]
    tensors = {"a": {"t": ZEROS}, "b": {"t": ZEROS}}
    value = manifest_json(sizes={"a": 1, "b": 1}, resources=resources, tensors=tensors)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="lists the tensor 't' in two files"):
        load_checksums(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"{" * 100_000,
        b'{"schema": "dus-checksums/1", "schema": "dus-checksums/1"}',
        json.dumps(manifest_json()).replace('"t"', '"t": "", "t"').encode(),
        json.dumps(renamed("a")).replace('"a"', '"\\ud800"').encode(),
        b'{"schema": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "list", "bytes", "deep", "twice", "tensor twice", "surrogate", "digits"],
)
def test_broken_json_is_refused_with_a_hint(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as raised:
        load_checksums(path)
    assert raised.value.hint


def test_a_manifest_of_terabytes_or_of_no_end_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe")
    for name in ("sparse", "pipe", "absent"):
        with pytest.raises(CheckpointError, match=name) as raised:
            load_checksums(tmp_path / name)
        assert raised.value.hint
