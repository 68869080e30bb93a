"""A folder of shards, index and config: what is one checkpoint, and what contradicts itself."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from dus_cli.errors import CheckpointError, FormatError
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint, read_shard
from tests.checkpoints import mistral_checkpoint
from tests.format.raw_files import entry, framed, header

ONE = "model-00001-of-00002.safetensors"
TWO = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def weights(*names: str) -> bytes:
    """A file with a one-byte tensor for every name."""
    entries = {name: entry("U8", [1], [at, at + 1]) for at, name in enumerate(names)}
    return framed(header(**entries), bytes(len(names)))


def index(weight_map: Mapping[str, str]) -> bytes:
    return json.dumps({"metadata": {"total_size": 2}, "weight_map": weight_map}).encode()


SOUND_INDEX = index({"a": ONE, "b": TWO})


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def held(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    return [(shard.name, name) for shard, name, _ in checkpoint.tensors()]


# --- what makes a checkpoint -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "stem", "tensors"),
    [
        ({"model.safetensors": weights("a")}, "model", [("model.safetensors", "a")]),
        ({"own.safetensors": weights("a")}, "own", [("own.safetensors", "a")]),
        ({"model.safetensors": weights()}, "model", []),
        (
            {"model.safetensors": weights("a"), "adapter.safetensors": b"?"},
            "model",
            [("model.safetensors", "a")],
        ),
        (
            {"model.safetensors": weights("a"), ONE: b"?", TWO: b"?"},
            "model",
            [("model.safetensors", "a")],
        ),
        (
            {"model-00001-of-00001.safetensors": weights("a")},
            "model",
            [("model-00001-of-00001.safetensors", "a")],
        ),
        (
            {ONE: weights("a"), TWO: weights("b"), INDEX: SOUND_INDEX},
            "model",
            [(ONE, "a"), (TWO, "b")],
        ),
        (
            {ONE: weights("a"), TWO: weights("b"), INDEX: SOUND_INDEX, "stray.safetensors": b"?"},
            "model",
            [(ONE, "a"), (TWO, "b")],
        ),
        (
            {
                "x.safetensors": weights("b"),
                "o.safetensors.index.json": index({"b": "x.safetensors"}),
            },
            "o",
            [("x.safetensors", "b")],
        ),
        (
            {"model.safetensors": weights("b"), INDEX: index({"b": "model.safetensors"})},
            "model",
            [("model.safetensors", "b")],
        ),
        (
            {
                ONE: weights("a"),
                TWO: weights("b"),
                INDEX: SOUND_INDEX,
                "model.fp16.safetensors.index.json": b"?",
            },
            "model",
            [(ONE, "a"), (TWO, "b")],
        ),
    ],
    ids=[
        "one file",
        "one file of any name",
        "no tensor",
        "the usual name before others",
        "the usual name before shards without index",
        "one shard of one",
        "shards and index",
        "a stray file that the index does not name",
        "an index of any name",
        "an index that names the whole file",
        "the usual index before a variant",
    ],
)
def test_shards_are_found_as_loaders_find_them(
    tmp_path: Path, files: Mapping[str, bytes], stem: str, tensors: Sequence[tuple[str, str]]
) -> None:
    checkpoint = open_checkpoint(write(tmp_path, files))
    assert checkpoint.stem == stem
    assert held(checkpoint) == tensors
    assert (checkpoint.index is not None) == any(name.endswith("index.json") for name in files)


def test_sizes_and_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(mistral_checkpoint(tmp_path, layers=2, shards=3))
    for shard in checkpoint.shards:
        raw = (tmp_path / shard.name).read_bytes()
        assert shard.size == len(raw)
        head = raw[: shard.header.data_start]
        assert shard.header_sha256 == hashlib.sha256(head).hexdigest()
    config = (tmp_path / "config.json").read_bytes()
    assert checkpoint.config == json.loads(config)
    assert checkpoint.config_sha256 == hashlib.sha256(config).hexdigest()
    assert checkpoint.parameter_count == 32 * 8 * 2 + 8 + 2 * (64 + 64 + 128 + 8)
    assert checkpoint.tensor_bytes == 2 * checkpoint.parameter_count


def test_a_single_file_is_a_checkpoint_without_config(tmp_path: Path) -> None:
    path = write(tmp_path, {"x.safetensors": weights("a"), "config.json": b"?"}) / "x.safetensors"
    checkpoint = open_checkpoint(path)
    assert (checkpoint.name, checkpoint.stem) == ("x.safetensors", "x")
    assert (checkpoint.folder, checkpoint.config, checkpoint.carried_files) == (tmp_path, None, ())
    assert held(checkpoint) == [("x.safetensors", "a")]


def test_links_as_in_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    blobs = mistral_checkpoint(tmp_path / "blobs", shards=2)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    linked, plain = open_checkpoint(snapshot), open_checkpoint(blobs)
    assert linked.shards == plain.shards
    assert linked.carried_files == plain.carried_files


def test_a_checkpoint_is_called_as_asked_or_like_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "seven", {"model.safetensors": weights("a")})
    assert open_checkpoint(folder).name == "seven"
    assert open_checkpoint(folder, name="eight").name == "eight"


# --- config.json and the card ------------------------------------------------------------------


def with_config(folder: Path, config: bytes) -> Path:
    return write(folder, {"model.safetensors": weights("a"), "config.json": config})


def test_config_may_hold_what_only_python_writes(tmp_path: Path) -> None:
    config = b'{"time_step_limit": [0.0, Infinity], "x": NaN, "y": -Infinity}'
    read = open_checkpoint(with_config(tmp_path, config)).config
    assert read is not None
    assert read["time_step_limit"] == [0.0, float("inf")]


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        (b"", "broken JSON"),
        (b"[]", "holds a list"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a":1,"a":2}', "'a' is there twice"),
        (b'{"a":"\\udfff"}', "half a surrogate"),
        (b'{"a":' + b"9" * 9999 + b"}", "too many digits"),
        (b'{"a":' + b"[" * 700 + b"]" * 700 + b"}", "nested too deeply"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(
    tmp_path: Path, config: bytes, fact: str
) -> None:
    with pytest.raises(FormatError, match=rf"^config.json: .*{fact}"):
        open_checkpoint(with_config(tmp_path, config))


@pytest.mark.parametrize(
    ("card", "text"),
    [
        (b"# x", "# x"),
        (b"caf\xe9", "caf\ufffd"),
        (b" " * 4_000_001, None),
    ],
)
def test_the_card_is_read_whatever_its_bytes_unless_it_is_huge(
    tmp_path: Path, card: bytes, text: str | None
) -> None:
    folder = write(tmp_path, {"model.safetensors": weights("a"), "README.md": card})
    assert open_checkpoint(folder).card == text


# --- what contradicts itself -------------------------------------------------------------------

SHARDS = {ONE: weights("a"), TWO: weights("b")}

CONTRADICTIONS: Mapping[str, tuple[Mapping[str, bytes], str]] = {
    "nothing there": ({}, "no safetensors here"),
    "shards without an index": (SHARDS, f"holds shards such as {ONE}, but no index"),
    "the second of one": (
        {"model-00002-of-00001.safetensors": weights("a")},
        "holds shards such as .*, but no index",
    ),
    "shards without an index beside another file": (
        {**SHARDS, "x.safetensors": weights("x")},
        "but no index",
    ),
    "a shard of one beside another file": (
        {"adapter.safetensors": b"?", "model-00001-of-00001.safetensors": weights("a")},
        "holds several safetensors files, and none is called model.safetensors",
    ),
    "several files, none with the usual name": (
        {"x.safetensors": weights("a"), "y.safetensors": weights("b")},
        "holds several safetensors files, and none is called model.safetensors: x.*, y.*",
    ),
    "several indexes, none with the usual name": (
        {"x.safetensors.index.json": b"", "y.safetensors.index.json": b""},
        f"holds several shard indexes, and none is called {INDEX}",
    ),
    "a whole file beside an index": (
        {**SHARDS, INDEX: SOUND_INDEX, "model.safetensors": weights("a")},
        f"^{INDEX}: does not name model.safetensors, which lies beside it",
    ),
    "an index that names nothing": ({INDEX: index({})}, f"^{INDEX}: names no tensor"),
    "a shard missing": (
        {ONE: weights("a"), INDEX: SOUND_INDEX},
        f"^{INDEX}: names '{TWO}', which is not there$",
    ),
    "all shards missing": (
        {INDEX: SOUND_INDEX},
        rf"^{INDEX}: names '{ONE}', which is not there \(2 of 2 shards are missing\)",
    ),
    "a shard missing whose name is an escape sequence": (
        {INDEX: index({"a": "\x1b[2J.safetensors"})},
        r"names '\\x1b\[2J.safetensors', which is not there",
    ),
    "an index that leaves the folder": (
        {INDEX: index({"a": "../x.safetensors"})},
        "not a file name inside",
    ),
    "a tensor in two shards": (
        {ONE: weights("a"), TWO: weights("a", "b"), INDEX: SOUND_INDEX},
        f"^{TWO}: tensor 'a' lies in {ONE} too",
    ),
    "a tensor that no shard holds": (
        {**SHARDS, INDEX: index({"a": ONE, "b": TWO, "c": ONE})},
        f"^{INDEX}: puts tensor 'c' into {ONE}, but no shard holds it",
    ),
    "a tensor in another shard": (
        {**SHARDS, INDEX: index({"a": TWO, "b": ONE})},
        f"^{INDEX}: puts tensor 'a' into {TWO}, but it lies in {ONE}",
    ),
    "a tensor that the index does not name": (
        {ONE: weights("a", "c"), TWO: weights("b"), INDEX: SOUND_INDEX},
        f"^{INDEX}: does not name tensor 'c', which lies in {ONE}",
    ),
    "an index that names something else than a shard": (
        {INDEX: index({"a": "config.json"}), "config.json": b"{}"},
        "^config.json: holds 2 bytes, too few",
    ),
    "a pointer of Git LFS": (
        {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "^model.safetensors: states a header of",
    ),
    "pickled weights": ({"pytorch_model.bin": b"x"}, r"only pickled weights \(pytorch_model.bin\)"),
    "GGUF weights": ({"m.gguf": b"x"}, r"only GGUF weights \(m.gguf\)"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused_with_the_fact_and_a_way_out(
    tmp_path: Path, case: str
) -> None:
    files, fact = CONTRADICTIONS[case]
    with pytest.raises(CheckpointError, match=fact):
        open_checkpoint(write(tmp_path, files))


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ({"a.bin": b""}, "save_pretrained"),
        ({"a.pth": b""}, "save_pretrained"),
        ({"a.gguf": b""}, "GGUF cannot be up-scaled"),
        ({"sub/model.safetensors": b""}, r"sub-folders hold some \(sub\)"),
        ({"config.json": b"{}"}, "Give the folder that holds config.json"),
        ({"model.safetensors": b"version https://git-lfs"}, "git lfs pull"),
        ({INDEX: SOUND_INDEX}, "incomplete"),
    ],
)
def test_the_hint_fits_what_is_there_instead(
    tmp_path: Path, files: Mapping[str, bytes], hint: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(write(tmp_path, files))
    assert caught.value.hint is not None
    assert hint.replace("\\", "") in caught.value.hint


@pytest.mark.parametrize("name", ["m.bin", "m.pt", "m.ckpt", "m.gguf"])
def test_one_file_of_another_format_is_called_by_its_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"no safetensors here, only .* weights .{name}"):
        open_checkpoint(write(tmp_path, {name: b"x"}) / name)


def test_a_message_stays_short_however_long_the_names(tmp_path: Path) -> None:
    name = "n" * 10**6
    write(tmp_path, {**SHARDS, INDEX: index({"a": ONE, "b": TWO, name: ONE})})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert len(caught.value.message) < 400


# --- files that are something else -------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("absent")


Maker = Callable[[Path], None]
ODD_FILES: Sequence[tuple[Maker, str]] = (
    (pipe, "not a regular file"),
    (folder, "not a regular file"),
    (device, "not a regular file"),
    (terminal, "not a regular file|cannot be read: "),
    (circle, "cannot be read: Too many levels"),
    (dangling, "a link that leads nowhere"),
)


@pytest.mark.parametrize("name", ["model.safetensors", INDEX, "config.json"])
@pytest.mark.parametrize(("make", "fact"), ODD_FILES)
def test_something_else_than_a_file_is_neither_read_nor_waited_for(
    tmp_path: Path, make: Maker, fact: str, name: str
) -> None:
    make(tmp_path / name)
    if name == "config.json":
        write(tmp_path, {"model.safetensors": weights("a")})
    with pytest.raises(CheckpointError, match=rf"^{name}: ({fact})"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("make", "fact"), ODD_FILES)
def test_something_else_than_a_shard_is_neither_read_nor_waited_for(
    tmp_path: Path, make: Maker, fact: str
) -> None:
    make(tmp_path / TWO)
    with pytest.raises(CheckpointError, match=rf"^{TWO}: ({fact})"):
        open_checkpoint(write(tmp_path, {ONE: weights("a"), INDEX: SOUND_INDEX}))


@pytest.mark.parametrize(("make", "_"), ODD_FILES)
def test_a_card_that_is_something_else_is_no_card(tmp_path: Path, make: Maker, _: str) -> None:
    make(tmp_path / "README.md")
    assert open_checkpoint(write(tmp_path, {"model.safetensors": weights("a")})).card is None


@pytest.mark.parametrize(
    ("name", "fact"),
    [("absent", "no such file"), ("circle", "cannot be"), ("pipe", "not a regular file")],
)
def test_a_path_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str, fact: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(CheckpointError, match=fact):
        open_checkpoint(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "."])
def test_what_may_not_be_read_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"model.safetensors": weights("a"), "config.json": b"{}"})
    mode = (tmp_path / name).stat().st_mode
    (tmp_path / name).chmod(0)
    try:
        with pytest.raises(CheckpointError, match=r"cannot be (read|listed): Permission denied"):
            open_checkpoint(tmp_path)
    finally:
        (tmp_path / name).chmod(mode)


def test_an_index_of_implausible_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / INDEX).touch()
    os.truncate(tmp_path / INDEX, 100_000_001)
    with pytest.raises(CheckpointError, match=rf"^{INDEX}: larger than 100000000 bytes"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 8, 20, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path, {"x": weights("a")}) / "x"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"^x: "):
        read_shard(path, "x")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {"x": weights("a")}) / "x"
    read = os.read

    def shrinking(descriptor: int, count: int) -> bytes:
        part = read(descriptor, count)
        os.truncate(path, 8)
        return part

    monkeypatch.setattr(os, "read", shrinking)
    with pytest.raises(CheckpointError, match=r"^x: became shorter while it was read"):
        read_shard(path, "x")


def test_a_disk_that_fails_is_an_error_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {"x": weights("a")}) / "x"

    def failing(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises(CheckpointError, match=r"^x: cannot be read: Input/output error"):
        read_shard(path, "x")


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no list of open files")
@pytest.mark.parametrize("content", [weights("a"), b"?"], ids=["sound", "broken"])
def test_no_file_stays_open(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {"model.safetensors": content, "config.json": b"{}"})
    before = len(list(Path("/dev/fd").iterdir()))
    with contextlib.suppress(FormatError):
        open_checkpoint(tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_only_headers_are_read(tmp_path: Path) -> None:
    text = header(a=entry("U8", [2**33], [0, 2**33]))
    path = write(tmp_path, {"x": framed(text)}) / "x"
    os.truncate(path, 8 + len(text) + 2**33)
    assert read_shard(path, "x").header.tensors["a"].byte_count == 2**33
