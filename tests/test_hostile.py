"""Bad input at the command line: one clear error or a finding, the documented exit code, nothing
written.

What the format's own tests state of single files and values is stated here of whole runs: no
traceback, nothing that a terminal or a CI system would obey, the source as it was.
"""

import ast
import dataclasses
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dus_cli.cli.app import app
from dus_cli.documents import write_documents
from dus_cli.errors import CheckpointError, DusError
from dus_cli.findings import Severity
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.inspection import inspect_checkpoint
from dus_cli.plan import PLAN_SCHEMA, plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.run import VerifyRequest, verify
from tests.checkpoints import (
    load_all,
    mistral_checkpoint,
    mistral_config,
    mistral_tensors,
    write_checkpoint,
)
from tests.format.raw_files import entry, framed, header

INSPECTIONS = (("inspect",), ("inspect", "--json"), ("inspect", "--tensors"))
UPSCALES = (("upscale", "--drop", "1"), ("upscale", "--drop", "1", "--json"))
DRY_RUNS = (("upscale", "--drop", "1", "--dry-run"),)
COMMANDS = INSPECTIONS + UPSCALES

NASTY = "\x1b[2J\x07\u202e\r\n::error::boo\n##[group]x[bold]y\x9b\u2028\x85\0"
"""Clears a screen, turns text round, begins a line with a workflow command, and so on."""

ONE = "model-00001-of-00002.safetensors"
TWO = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"

FORMATS = ("human", "json", "github", "junit", "sarif", "quiet")
COMMAND = re.compile(r"::(error|warning|notice) (file=[^:,]+,)?title=[a-z-]+::[^ ].*")
"""A line that GitHub takes for an annotation, as `dus` writes them."""

Make = Callable[[Path], object]


class Ran(NamedTuple):
    """What a run of `dus` left: exit code and the two streams."""

    code: int
    out: str
    err: str


def run(*arguments: str) -> Ran:
    """Runs `dus` in this process; an exception that is not an exit fails the test."""
    result = CliRunner().invoke(app, list(arguments), prog_name="dus")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def snapshot(folder: Path) -> dict[str, object]:
    """Everything about a folder's content that a run could change."""
    state: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = None
        if stat.S_ISREG(status.st_mode) and status.st_size < 10**6:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        state[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return state


def strict_json(text: str) -> Any:
    """What every JSON parser reads, not only Python's."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def assert_harmless(ran: Ran, *, as_json: bool = False) -> None:
    for stream in (ran.out, ran.err):
        for line in stream.split("\n"):
            assert line.isprintable(), repr(line)
            assert not line.lstrip().startswith("::")
            assert "##[" not in line or (as_json and stream is ran.out)
            assert len(line) < 5000
        assert "Traceback" not in stream


def assert_harmless_report(ran: Ran, form: str) -> None:
    """What `dus verify` printed is what its format says, and nothing else comes with it."""
    for stream in (ran.out, ran.err):
        assert all(line.isprintable() for line in stream.split("\n")), stream
        assert "Traceback" not in stream
        assert "##[" not in stream
    assert_harmless(Ran(ran.code, "", ran.err))
    if form == "human":
        assert_harmless(ran)
    elif form == "json":
        outcome = strict_json(ran.out)
        assert outcome["schema"] == ("dus-verify/1" if ran.code < 2 else "dus-error/1")
    elif form == "github":
        commands = [line for line in ran.out.split("\n") if line.lstrip().startswith("::")]
        assert all(COMMAND.fullmatch(line) for line in commands), commands
    elif form == "junit":
        ElementTree.fromstring(ran.out)  # noqa: S314 - what dus wrote
    elif form == "sarif":
        assert strict_json(ran.out)["version"] == "2.1.0"
    else:
        assert ran.out == ""


def assert_refused(ran: Ran, code: int, *, as_json: bool) -> None:
    """One line that says what is wrong, at most one that says what to do."""
    assert ran.code == code, ran
    assert_harmless(ran, as_json=as_json)
    error, *hint = ran.err.removesuffix("\n").split("\n")
    assert error.startswith("Error: ")
    assert len(hint) <= 1
    assert all(line.startswith("  ") for line in hint)
    if as_json:
        failure = strict_json(ran.out)
        assert failure["schema"] == "dus-error/1"
        assert failure["error"]["exit_code"] == code
    else:
        assert ran.out == ""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test puts its checkpoint; the working folder is another, and empty."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "sources" / "model"


# --- how to make a bad checkpoint --------------------------------------------------------------


def with_file(name: str, content: bytes, **options: int) -> Make:
    """A sound checkpoint in which one file has this content."""

    def make(folder: Path) -> None:
        mistral_checkpoint(folder, **options)
        (folder / name).write_bytes(content)

    return make


def with_header(text: bytes, data: bytes = b"") -> Make:
    return with_file(WHOLE, framed(text, data))


def with_cut(kept: int) -> Make:
    def make(folder: Path) -> None:
        path = mistral_checkpoint(folder) / WHOLE
        path.write_bytes(path.read_bytes()[:kept])

    return make


def with_more(content: bytes) -> Make:
    def make(folder: Path) -> None:
        with (mistral_checkpoint(folder) / WHOLE).open("ab") as file:
            file.write(content)

    return make


def with_config(**fields: Any) -> Make:
    def make(folder: Path) -> None:
        write_checkpoint(folder, mistral_tensors(4), {**mistral_config(4), **fields})

    return make


def with_raw_config(content: bytes) -> Make:
    return with_file("config.json", content)


def with_index(change: Callable[[dict[str, Any]], object]) -> Make:
    """Two shards, and an index to which something was done."""

    def make(folder: Path) -> None:
        mistral_checkpoint(folder, shards=2)
        index = json.loads((folder / INDEX).read_bytes())
        change(index)
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return make


def without(*names: str, **options: int) -> Make:
    def make(folder: Path) -> None:
        mistral_checkpoint(folder, **options)
        for name in names:
            (folder / name).unlink()

    return make


def instead_of(name: str, put: Make, **options: int) -> Make:
    """A sound checkpoint in which one file is replaced by something that is no file."""

    def make(folder: Path) -> None:
        mistral_checkpoint(folder, **options)
        (folder / name).unlink()
        put(folder / name)

    return make


def with_tensors(
    add: Mapping[str, tuple[int, ...]] | None = None, drop: tuple[str, ...] = (), layers: int = 4
) -> Make:
    def make(folder: Path) -> None:
        tensors = mistral_tensors(layers)
        tensors |= {name: np.zeros(shape, np.float16) for name, shape in (add or {}).items()}
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(drop)}
        write_checkpoint(folder, kept, mistral_config(4))

    return make


def only(**files: bytes) -> Make:
    """A folder with these files alone; `__` in a name stands for a dot."""

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)

    return make


def all_in(shard: str) -> Callable[[dict[str, Any]], object]:
    return lambda index: index.update(weight_map=dict.fromkeys(index["weight_map"], shard))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def make_sparse(path: Path) -> int:
    """Makes a file a terabyte long that takes no block more on the disk; returns its length."""
    with path.open("ab") as file:
        return file.truncate(10**12)


U8 = entry("U8", [1], [0, 1])

CHECKPOINTS: Mapping[str, Make] = {
    # Folders
    "an empty folder": only(),
    "only a config": only(config__json=b"{}"),
    "pickled weights": only(pytorch_model__bin=b"\x80\x02", config__json=b"{}"),
    "GGUF weights": only(model__gguf=b"GGUF"),
    "pickled weights with a nasty name": lambda folder: only(
        **{f"{NASTY.replace('/', '').rstrip(chr(0))}.bin": b"x"}
    )(folder),
    "shards without their index": without(INDEX, shards=2),
    "a shard missing": without(TWO, shards=2),
    "a pipe as weights": instead_of(WHOLE, lambda path: os.mkfifo(path)),
    "a folder as weights": instead_of(WHOLE, Path.mkdir),
    "an endless device as weights": instead_of(WHOLE, lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing as weights": instead_of(WHOLE, lambda path: path.symlink_to("absent")),
    "a link to itself as weights": instead_of(WHOLE, circle),
    "a pipe as index": instead_of(INDEX, lambda path: os.mkfifo(path), shards=2),
    "a pipe as shard": instead_of(TWO, lambda path: os.mkfifo(path), shards=2),
    "a pipe as config": instead_of("config.json", lambda path: os.mkfifo(path)),
    "a folder as config": instead_of("config.json", Path.mkdir),
    "a link to itself as config": instead_of("config.json", circle),
    # Headers
    "an empty file": with_file(WHOLE, b""),
    "seven bytes": with_file(WHOLE, b"\x02\0\0\0\0\0\0"),
    "a header over the limit": with_file(WHOLE, (100_000_001).to_bytes(8, "little") + b"{}"),
    "a header longer than the file": with_file(WHOLE, b"\xff\xff\0\0\0\0\0\0{}"),
    "a pointer of Git LFS": with_file(
        WHOLE, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 14\n"
    ),
    "an error page": with_file(WHOLE, b"<!DOCTYPE html><title>404</title>" * 9),
    "cut inside the header": with_cut(300),
    "cut inside the data": with_cut(-1),
    "bytes after the data": with_more(b"\0"),
    "a header that is no JSON": with_header(b"{" + NASTY.encode()),
    "a header that is a list": with_header(b"[]"),
    "a header that is not UTF-8": with_header(b'{"\xff":1}'),
    "nested 100,000 deep": with_header(b'{"a":' + nested(100_000) + b"}"),
    "nested 900 deep": with_header(b'{"a":' + nested(900) + b"}"),
    "5,000 digits": with_header(header(a=U8).replace(b"[1]", b"[" + b"9" * 5000 + b"]"), b"\0"),
    "4,000 digits": with_header(header(a=entry("U8", [10**4000], [0, 1])), b"\0"),
    "true as a dimension": with_header(header(a=entry("U8", [True], [0, 1])), b"\0"),
    "negative dimensions": with_header(header(a=entry("U8", [-1, -1], [0, 1])), b"\0"),
    "NaN as a dimension": with_header(header(a=entry("U8", [float("nan")], [0, 1])), b"\0"),
    "a product over 64 bits": with_header(header(a=entry("U8", [2**40, 2**40], [0, 0]))),
    "a lone surrogate as a name": with_header(rb'{"\ud800":1}'),
    "a tensor twice": with_header(rb'{"a":1,"\u0061":1}'),
    "a hole": with_header(header(a=entry("U8", [1], [1, 2])), b"\0\0"),
    "an overlap": with_header(header(a=U8, b=entry("U8", [2], [0, 2])), b"\0\0"),
    "an unknown dtype": with_header(header(a=entry(NASTY, [1], [0, 1])), b"\0"),
    "an entry as a list": with_header(header(a=["U8", [1], [0, 1]]), b"\0"),
    "a dtype as an object": with_header(header(a=entry({"U8": None}, [1], [0, 1])), b"\0"),
    "a shape as an object": with_header(header(a=entry("U8", {NASTY: NASTY}, [0, 1])), b"\0"),
    "a wrong entry with a nasty name": with_header(header(**{NASTY: 1})),
    "a wrong entry with a long name": with_header(header(**{"n" * 10**6: 1})),
    "metadata that is no text": with_header(header(__metadata__={NASTY: [NASTY]})),
    # The index
    "an index that is no JSON": with_file(INDEX, b"{", shards=2),
    "an index without a map": with_index(lambda index: index.pop("weight_map")),
    "an empty index": with_index(lambda index: index.update(weight_map={})),
    "a map to lists": with_index(lambda index: index.update(weight_map={"a": [ONE]})),
    "a map to objects": with_index(lambda index: index.update(weight_map={"a": {ONE: ONE}})),
    "an index that climbs": with_index(all_in("../secret.safetensors")),
    "an index with an absolute name": with_index(all_in("/etc/passwd")),
    "an index with NUL": with_index(all_in("a\0.safetensors")),
    "an index with a nasty name": with_index(all_in(NASTY.replace("\0", ""))),
    "an index with an unencodable name": with_index(all_in("modèle.safetensors")),
    "an index with a name of 5,000 letters": with_index(all_in("n" * 5000)),
    "an index with a name of blanks": with_index(all_in(" ")),
    "an index that names the folder": with_index(all_in(".")),
    "an index that names another file": with_index(all_in("config.json")),
    "an index that swaps shards": with_index(
        lambda index: index["weight_map"].update({"lm_head.weight": ONE})
    ),
    "an index that names a nasty tensor": with_index(
        lambda index: index["weight_map"].update({NASTY: ONE})
    ),
    "an index that lacks a tensor": with_index(
        lambda index: index["weight_map"].pop("lm_head.weight")
    ),
    "metadata that is a list": with_index(lambda index: index.update(metadata=[])),
    "a whole file beside the shards": lambda folder: (
        mistral_checkpoint(folder, shards=2),
        (folder / WHOLE).write_bytes(framed(b"{}")),
    ),
    # The config
    "a config that is no JSON": with_raw_config(b'{"a": '),
    "a config that is empty": with_raw_config(b""),
    "a config that is a list": with_raw_config(b"[1]"),
    "a config that is not UTF-8": with_raw_config(b"\xff\xfe{\0}\0"),
    "a config nested 900 deep": with_raw_config(b'{"a":' + nested(900) + b"}"),
    "a config nested 100,000 deep": with_raw_config(b'{"a":' + nested(100_000) + b"}"),
    "a config of 5,000 digits": with_raw_config(b'{"a":' + b"9" * 5000 + b"}"),
    "a config with a nasty key twice": with_raw_config(
        b'{"\\u001b::\\u202e":1,"\\u001b::\\u202e":2}'
    ),
    "a config with a lone surrogate": with_raw_config(rb'{"a":"\ud800"}'),
}
"""Folders that are no checkpoint, or contradict themselves: exit code 3 from every command."""


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_bad_checkpoint_is_one_error_and_code_3_from_every_command(
    source: Path, case: str
) -> None:
    CHECKPOINTS[case](source)
    before = snapshot(source.parent)
    for command, *options in COMMANDS:
        ran = run(command, str(source), *options)
        assert_refused(ran, 3, as_json="--json" in options)
    assert snapshot(source.parent) == before
    assert list(Path().iterdir()) == []


CONFIGS: Mapping[str, tuple[Make, int]] = {
    "no config": (without("config.json"), 3),
    "an empty config": (with_raw_config(b"{}"), 3),
    "more layers than tensors": (with_config(num_hidden_layers=5), 3),
    "fewer layers than tensors": (with_config(num_hidden_layers=3), 3),
    "a layer count of 4,000 digits": (with_config(num_hidden_layers=10**4000), 3),
    "a layer count that is text": (with_config(num_hidden_layers="4"), 3),
    "a layer count that is true": (with_config(num_hidden_layers=True), 3),
    "a layer count that is a float": (with_config(num_hidden_layers=4.0), 3),
    "a negative layer count": (with_config(num_hidden_layers=-4), 3),
    "a layer lost": (with_tensors(drop=("model.layers.2.",)), 3),
    "no layer at all": (with_tensors(drop=("model.layers.",)), 3),
    "layers from 1 on": (with_tensors(drop=("model.layers.0.",), layers=5), 3),
    "layers far apart": (with_tensors({"model.layers.999999.x": (1,)}), 3),
    "too few layer types": (with_config(layer_types=["full_attention"] * 3), 3),
    "an unknown list as long as the layers": (with_config(**{NASTY: [1, 2, 3, 4]}), 2),
    "a model type that cannot be scaled": (with_config(model_type="albert"), 2),
    "a nasty module name that cannot be renumbered": (
        with_config(quantization_config={"ignore": [rf"re:layers.1.(.)\1{NASTY}"]}),
        2,
    ),
}
"""Checkpoints whose files are sound, but which `upscale` refuses: the reason's exit code."""


@pytest.mark.parametrize("case", CONFIGS)
def test_inspect_shows_what_upscale_refuses(source: Path, case: str) -> None:
    make, code = CONFIGS[case]
    make(source)
    before = snapshot(source.parent)
    for command, *options in (*UPSCALES, *DRY_RUNS):
        ran = run(command, str(source), *options)
        assert_refused(ran, code, as_json="--json" in options)
    for command, *options in INSPECTIONS:
        ran = run(command, str(source), *options)
        assert ran.code == 0
        assert ran.err == ""
        assert_harmless(ran, as_json="--json" in options)
    assert snapshot(source.parent) == before
    assert list(Path().iterdir()) == []


# --- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--drop", "4"),
        ("--drop", "-1"),
        ("--drop", "1", "--target-layers", "6"),
        ("--target-layers", "5"),
        ("--target-layers", "0"),
        ("--target-layers", "10"),
        ("--target-layers", "9" * 5000),
        ("--drop", "1", "--stack", NASTY),
        ("--drop", "1", "--stack", "model"),
        ("--drop", "1", "--max-shard-size", NASTY),
        ("--drop", "1", "--max-shard-size", "9" * 400),
        ("--drop", "1", "--max-shard-size", "1e999"),
        ("--drop", "1", "--max-shard-size", "-5GB"),
        ("--drop", "1", "--max-shard-size", "5"),
        ("--drop", "1", "--config-rule", NASTY),
        ("--drop", "1", "--config-rule", "=keep"),
        ("--drop", "1", "--config-rule", f"{NASTY}=keep"),
        ("--drop", "1", "--config-rule", "hidden_size=gather"),
        ("--drop", "1", "--plan", "plan.json"),
    ],
    ids=lambda options: repr(options)[:60],
)
def test_an_impossible_request_is_code_2(source: Path, options: tuple[str, ...]) -> None:
    mistral_checkpoint(source)
    ran = run("upscale", str(source), *options)
    assert ran.code == 2
    assert ran.out == ""
    assert_harmless(ran)
    assert "Error" in ran.err
    assert list(Path().iterdir()) == []


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", 2),
        ("absent", 2),
        ("org/model", 3),
        ("hf://or g", 2),
        ("/absent/\x1b[2J::error::\u202e", 2),
        ("a/" * 2100, 3),
        ("n" * 300, 3),
    ],
    ids=["empty", "absent", "Hub id", "no Hub id", "nasty", "too deep", "too long"],
)
def test_a_path_that_leads_nowhere_is_one_error(
    command: tuple[str, ...], path: str, code: int
) -> None:
    name, *options = command
    assert_refused(run(name, path, *options), code, as_json="--json" in options)
    assert list(Path().iterdir()) == []


def into_circle(_: Path) -> None:
    circle(Path("circle"))


TARGETS: Mapping[str, tuple[Make, str]] = {
    "a file": (lambda source: Path("target").touch(), "target"),
    "a folder with files": (lambda source: only(x=b"")(Path("target")), "target"),
    "a link to nothing": (lambda source: Path("target").symlink_to("absent"), "target"),
    "a link to the source": (lambda source: Path("target").symlink_to(source), "target"),
    "inside a file": (lambda source: Path("file").touch(), "file/target"),
    "inside a link to itself": (into_circle, "circle/target"),
    "inside the source": (lambda source: None, "{source}/target"),
    "inside the source through a link": (
        lambda source: Path("link").symlink_to(source),
        "link/sub/target",
    ),
    "the source": (lambda source: None, "{source}"),
    "around the source": (lambda source: None, "{source}/.."),
    "the root": (lambda source: None, "/"),
    "the working folder's parent": (lambda source: None, ".."),
    "a name of 300 letters": (lambda source: None, "n" * 300),
    "in the kernel's own file system": (lambda source: None, "/proc/target"),
}


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "with --force"])
@pytest.mark.parametrize("case", TARGETS)
def test_a_target_that_cannot_be_is_one_error_and_code_4(
    source: Path, case: str, force: tuple[str, ...]
) -> None:
    make, target = TARGETS[case]
    mistral_checkpoint(source)
    make(source)
    before = snapshot(source.parents[1])
    out = target.format(source=source)
    ran = run("upscale", str(source), "--drop", "1", "--quiet", "-o", out, *force)
    assert_refused(ran, 4, as_json=False)
    assert snapshot(source.parents[1]) == before


# --- what is unusual and yet sound -------------------------------------------------------------


def rewritten(text: Callable[[dict[str, Any]], bytes]) -> Make:
    """A sound checkpoint whose header is written in another way."""

    def make(folder: Path) -> None:
        path = mistral_checkpoint(folder) / WHOLE
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        path.write_bytes(framed(text(json.loads(raw[8:start])), raw[start:]))

    return make


def linked(folder: Path) -> None:
    """The layout of the Hub's cache: a folder of links to blobs."""
    blobs = mistral_checkpoint(folder.parent / "blobs", shards=2)
    folder.mkdir()
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(os.path.relpath(path, folder))


def with_litter(folder: Path) -> None:
    """A sound checkpoint among links in circles, pipes and files with odd names."""
    mistral_checkpoint(folder)
    circle(folder / "circle")
    (folder / "absent").symlink_to("not-there")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    (folder / NASTY.replace("\0", "")).write_bytes(b"x")
    (folder / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    (folder / "README.md").write_text("---\n- :\n  &a [*a\n---\n", encoding="utf-8")


SOUND: Mapping[str, Make] = {
    "padded to an odd length": rewritten(lambda entries: json.dumps(entries).encode() + b"   "),
    "padded with line feeds": rewritten(lambda entries: json.dumps(entries).encode() + b"\r\n\t"),
    "in reverse order": rewritten(
        lambda entries: json.dumps(dict(reversed(entries.items()))).encode()
    ),
    "without metadata": rewritten(
        lambda entries: json.dumps(entries | {"__metadata__": None}).encode()
    ),
    "with unknown fields": rewritten(
        lambda entries: json.dumps(
            {
                name: value if name == "__metadata__" else value | {NASTY: [NASTY]}
                for name, value in entries.items()
            }
        ).encode()
    ),
    "with nasty metadata": rewritten(
        lambda entries: json.dumps(entries | {"__metadata__": {NASTY: NASTY}}).encode()
    ),
    "in a folder of links": linked,
    "among litter": with_litter,
    "without index metadata": with_index(lambda index: index.pop("metadata")),
    "with a total size that is wrong": with_index(lambda index: index.update(metadata={"x": -1})),
    "with one shard of one": lambda folder: (mistral_checkpoint(folder) / WHOLE).rename(
        folder / "model-00001-of-00001.safetensors"
    ),
    "with NaN and Infinity in the config": with_raw_config(
        json.dumps({**mistral_config(4), "a": float("nan"), "b": [float("inf")]}).encode()
    ),
    "with a config nested 90 deep": with_config(a=json.loads(nested(90))),
    "with nasty texts in the config": with_config(
        architectures=[NASTY], model_type=NASTY, **{NASTY: {NASTY: NASTY}}
    ),
    "with architectures of another kind": with_config(architectures=7, model_type=[7]),
    "with nasty and odd tensor names": with_tensors(
        {
            NASTY: (1,),
            "": (2,),
            "../../x": (3,),
            "model.layers.": (4,),
            "model.layers.01.x": (5,),
            "model.layers.²": (6,),
            "model.layers.٣.x": (7,),
            "model.layers." + "9" * 60 + ".x": (8,),
            "model.layers.1_0.x": (9,),
            "model..layers.-1.x": (10,),
            "n" * 4_000: (11,),
        }
    ),
    "with numbers inside numbers": with_tensors({"0." * 1200 + "x": (1,)}),
    "with zero-size tensors": with_tensors({"a": (0,), "b": (3, 0, 2), "model.layers.0.z": (0,)}),
}


@pytest.mark.parametrize("case", SOUND)
def test_an_unusual_but_sound_checkpoint_is_inspected_and_scaled(source: Path, case: str) -> None:
    SOUND[case](source)
    before = snapshot(source.parent)
    for command, *options in (*INSPECTIONS, *DRY_RUNS):
        ran = run(command, str(source), *options)
        assert ran.code == 0, ran
        assert ran.out
        if "--json" in options:
            strict_json(ran.out)
        assert_harmless(ran, as_json="--json" in options)
    ran = run("upscale", str(source), "--drop", "1")
    assert_harmless(ran)
    assert (ran.code, ran.out) == (0, "model-dus6\n")
    assert snapshot(source.parent) == before
    assert [path.name for path in Path().iterdir()] == ["model-dus6"]
    old, new = load_all(source), load_all(Path("model-dus6"))
    for layer, origin in enumerate((0, 1, 2, 1, 2, 3)):
        name = "mlp.up_proj.weight"
        assert (
            new[f"model.layers.{layer}.{name}"].tobytes()
            == old[f"model.layers.{origin}.{name}"].tobytes()
        )
    inside = {name for name in old if name.startswith("model.layers.")}
    assert {name: new[name].tobytes() for name in old.keys() - inside} == {
        name: old[name].tobytes() for name in old.keys() - inside
    }
    assert json.loads(Path("model-dus6/config.json").read_bytes())["num_hidden_layers"] == 6


def test_a_folder_that_is_not_utf8_is_scaled(source: Path) -> None:
    odd = source.with_name(os.fsdecode(b"caf\xe9"))
    mistral_checkpoint(odd)
    ran = run("upscale", str(odd), "--drop", "1", "--quiet")
    assert ran.code == 0, ran
    assert [os.fsencode(path.name) for path in Path().iterdir()] == [b"caf\xe9-dus6"]


# --- locales that cannot encode what files hold ------------------------------------------------

POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("an index with an unencodable name", 3),
        ("an index with a nasty name", 3),
        ("an unknown dtype", 3),
        ("with nasty texts in the config", 0),
        ("among litter", 0),
    ],
)
@pytest.mark.parametrize(
    "command",
    [("inspect",), ("upscale", "--drop", "1"), ("verify",), ("verify", "--format", "github")],
    ids=" ".join,
)
def test_a_posix_locale_is_enough(
    source: Path, command: tuple[str, ...], case: str, code: int
) -> None:
    {**CHECKPOINTS, **SOUND}[case](source)
    name, *options = command
    done = subprocess.run(
        [sys.executable, "-m", "dus_cli", name, str(source), *options],
        env={**os.environ, **POSIX},
        capture_output=True,
        timeout=60,
        check=False,
    )
    # ASCII alone comes out of such a locale, escaped or not.
    ran = Ran(done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii"))
    if name == "verify":
        assert ran.code == (1 if code else 0), done
        assert_harmless_report(ran, command[-1] if options else "human")
        return
    assert ran.code == code, done
    if code:
        assert_refused(ran, code, as_json=False)
    assert_harmless(ran)


# --- configs of any kind -----------------------------------------------------------------------

FIELD_NAMES = """
architectures attention_types attn_layer_indices attn_layer_offset attn_layer_period auto_map
block_types compression_config decoder_layers decoder_sparse_step encoder_layers
expert_layer_period first_k_dense_replace full_attention_interval global_attn_every_n_layers
hybrid_override_pattern intermediate_size interleave_moe_layer_step layer_group_size layer_types
layers layers_block_type linear_attn_config llm_config max_window_layers mlp_layer_types
mlp_only_layers model_type moe_layer_end_index moe_layer_start_index moe_layers n_layer
no_rope_layer_interval no_rope_layers num_dense_layers num_hidden_layers num_kv_shared_layers
num_layers num_nextn_predict_layers per_layer_config quantization_config sliding_window
sliding_window_pattern text_config tie_word_embeddings use_sliding_window vision_config
""".split()
MODEL_TYPES = """
afmoe albert bamba bert cohere2 cohere2_moe deepseek_v3 ernie4_5_moe exaone4 gemma2 gemma3 gemma3n
glm4_moe gpt2 gpt_neo gpt_oss jamba kimi_linear llama llama4 minimax mistral mllama modernbert
nemotron_h qwen2 qwen2_moe qwen3_next recurrent_gemma smollm3 t5
""".split()
SMALL = st.integers(-2, 6)
SCALARS = (
    st.none()
    | st.booleans()
    | SMALL
    | st.sampled_from([10**30, -(10**30), 10**12, 2.5, 1e308, float("inf"), float("nan")])
    | st.sampled_from(["", "x", "MMMM", "full_attention", "dense", "model.layers.1.x", NASTY])
    | st.sampled_from(["re:.*layers.1", "layers.1.layers.2", f"layers.{'9' * 4500}.x"])
)
CONFIG_VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.builds(lambda value: [value] * 4, inner)
        | st.dictionaries(st.sampled_from([*"0123", "x", *FIELD_NAMES[:6]]), inner, max_size=2)
        | st.builds(lambda value: {"num_hidden_layers": 4, "layer_types": value}, inner)
        | st.builds(lambda value: {"modules_to_not_convert": value}, inner)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(mistral_checkpoint(tmp_path_factory.mktemp("sound") / "model"))


def survives(checkpoint: Checkpoint) -> None:
    """Inspects and plans; whatever is raised but a DusError of the plan fails the test."""
    json.dumps(inspect_checkpoint(checkpoint).to_json(with_tensors=False))
    try:
        plan = plan_upscale(checkpoint, UpscaleRequest(drop=1))
    except DusError as error:
        assert len(error.message) < 5000
    else:
        assert write_documents(plan, None).keys() >= {"config.json", "README.md", "dus.json"}


# The same cases every time: this property spans the whole program, and a chance find in one
# corner of it should not stop somebody who works in another. `--hypothesis-seed` explores.
@settings(
    deadline=None,
    derandomize=True,
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.sampled_from(MODEL_TYPES),
    st.dictionaries(st.sampled_from(FIELD_NAMES), CONFIG_VALUES, min_size=1, max_size=3),
)
def test_no_config_ends_in_anything_but_a_report_a_plan_or_an_error(
    sound: Checkpoint, model_type: str, fields: dict[str, Any]
) -> None:
    config = {**mistral_config(4), "model_type": model_type, **fields}
    survives(dataclasses.replace(sound, config=config))


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "gpt_neo", "attention_types": 5},
        {"model_type": "gpt_neo", "attention_types": [[["global"], 10**12]]},
        {"model_type": "gpt_neo", "attention_types": [[["global"], -(10**12)]]},
        {"quantization_config": {"modules_to_not_convert": [f"layers.{'9' * 4500}.x"]}},
        {"quantization_config": {"ignore": ["model.layers.\u0663.x", "model.layers.²"]}},
        {"layer_types": {"0": "full_attention"}},
        {"layer_types": "full"},
        {"num_nextn_predict_layers": 10**4000},
        {"text_config": {"num_hidden_layers": 4}},
        {"text_config": [4]},
        {"sliding_window_pattern": 10**4000, "model_type": "gemma3"},
        {"first_k_dense_replace": 10**30, "model_type": "deepseek_v3"},
    ],
    ids=lambda fields: repr(fields)[:50],
)
def test_known_traps_of_configs_are_avoided(sound: Checkpoint, fields: dict[str, Any]) -> None:
    survives(dataclasses.replace(sound, config={**mistral_config(4), **fields}))


# --- dus verify --------------------------------------------------------------------------------

NO_CHECKPOINT: Final = frozenset(
    {
        "an empty folder",
        "only a config",
        "pickled weights",
        "GGUF weights",
        "pickled weights with a nasty name",
    }
)
"""Folders of which nothing can be verified; every other one has findings."""

VALID_CONFIGS: Final = frozenset(
    {
        "an empty config",
        "an unknown list as long as the layers",
        "a model type that cannot be scaled",
        "a nasty module name that cannot be renumbered",
    }
)
"""What `dus upscale` cannot scale, and yet nothing is wrong with."""

VERIFIED: Final[Mapping[str, tuple[Make, int]]] = {
    **{case: (make, 3 if case in NO_CHECKPOINT else 1) for case, make in CHECKPOINTS.items()},
    **{case: (make, 0 if case in VALID_CONFIGS else 1) for case, (make, _) in CONFIGS.items()},
}


@pytest.fixture(scope="module")
def sound_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound checkpoint `base`, a `model` made from it, and its `sums.json`."""
    place = tmp_path_factory.mktemp("pair")
    base, model, sums = (place / name for name in ("base", "model", "sums.json"))
    mistral_checkpoint(base)
    assert run("upscale", str(base), "--drop", "1", "-q", "-o", str(model)).code == 0
    assert run("verify", str(model), "-q", "--write-checksums", str(sums)).code == 0
    return place


def names_its_subject(finding: Mapping[str, Any], folder: Path) -> bool:
    subjects = (str(folder), "config.json", "model.layers")
    return bool(finding["file"] or finding["tensor"]) or any(
        subject in finding["message"] for subject in subjects
    )


@pytest.mark.parametrize("case", VERIFIED)
def test_a_bad_checkpoint_is_verified_in_every_format(source: Path, case: str) -> None:
    make, code = VERIFIED[case]
    make(source)
    before = snapshot(source.parent)
    for form in FORMATS:
        ran = run("verify", str(source), "--format", form)
        assert ran.code == code, ran
        assert_harmless_report(ran, form)
        if form == "json" and code == 1:
            errors = [f for f in strict_json(ran.out)["findings"] if f["severity"] == "error"]
            assert any(names_its_subject(finding, source) for finding in errors), errors
        if code == 3:
            assert str(source).split("/")[-1] in ran.err
        else:
            assert ran.err == ""
    assert snapshot(source.parent) == before
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("case", VERIFIED)
def test_a_bad_checkpoint_is_verified_against_weights_base_and_checksums(
    source: Path, sound_pair: Path, case: str
) -> None:
    make, code = VERIFIED[case]
    make(source)
    sound, sums = str(sound_pair / "base"), str(sound_pair / "sums.json")
    for path, options, codes in (
        (source, ("--deep",), {code}),
        # It was not made from that base, and is not what the manifest lists.
        (source, ("--base", sound, "--drop", "1"), {code or 1}),
        (source, ("--checksums", sums), {code or 1}),
        # What cannot be up-scaled is no base (3), or not of this kind (2).
        (sound, ("--base", str(source), "--drop", "1"), {3} if code else {1, 2, 3}),
    ):
        ran = run("verify", str(path), *options, "--json")
        assert ran.code in codes, ran
        assert_harmless_report(ran, "json")


@pytest.mark.parametrize("case", SOUND)
@pytest.mark.parametrize("form", FORMATS)
def test_an_unusual_but_sound_checkpoint_is_valid(source: Path, case: str, form: str) -> None:
    SOUND[case](source)
    for options in ((), ("--deep",)):
        ran = run("verify", str(source), *options, "--format", form)
        assert (ran.code, ran.err) == (0, ""), ran
        assert_harmless_report(ran, form)


def with_layers(
    parameters: Mapping[str, str],
    config: Mapping[str, Any],
    only_in: Mapping[str, range],
    **extra: str,
) -> Make:
    """Four layers of zeros: parameter -> dtype, in all layers or those of `only_in`; each is a
    matrix of 2 rows and 8 columns. `extra` tensors stand outside; `__` is a dot in their names."""

    def make(folder: Path) -> None:
        mistral_checkpoint(folder)
        dtypes = {
            f"model.layers.{layer}.{parameter}": dtype
            for parameter, dtype in parameters.items()
            for layer in only_in.get(parameter, range(4))
        } | {name.replace("__", "."): dtype for name, dtype in extra.items()}
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, dtype in dtypes.items():
            begin, end = end, end + 2 * BITS_PER_ELEMENT[dtype]
            entries[name] = entry(dtype, [2, 8], [begin, end])
        (folder / WHOLE).write_bytes(framed(json.dumps(entries).encode(), bytes(end)))
        (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 4, **config}))

    return make


def in_hub_cache(folder: Path) -> None:
    """`folder` is a link into the Hub's cache, where a snapshot is made of links to blobs."""
    repository = folder.parent / "models--org--model"
    snapshot_folder = repository / "snapshots" / ("0" * 40)
    snapshot_folder.mkdir(parents=True)
    blobs = mistral_checkpoint(repository / "blobs", shards=2)
    for number, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{number:064x}")
        (snapshot_folder / path.name).symlink_to(os.path.relpath(blob, snapshot_folder))
    folder.symlink_to(snapshot_folder)


EXPERTS = {f"mlp.experts.{number}.up_proj.weight": "BF16" for number in range(3)}
ALL_DTYPES = {f"all__{dtype}": dtype for dtype in BITS_PER_ELEMENT}
VALID: Final[Mapping[str, Make]] = {
    "every dtype of the format": with_layers({"x": "F32"}, {}, {}, **ALL_DTYPES),
    "every dtype in the layers": with_layers({f"x.{d}": d for d in BITS_PER_ELEMENT}, {}, {}),
    "tied weights": with_layers(
        {"mlp.x": "F16"},
        {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True},
        {},
        model__embed__weight="F16",
    ),
    "experts behind a dense layer": with_layers(
        {"mlp.gate.weight": "BF16", **EXPERTS, "mlp.up_proj.weight": "BF16"},
        {"model_type": "deepseek_v3", "first_k_dense_replace": 1},
        {
            **dict.fromkeys(["mlp.gate.weight", *EXPERTS], range(1, 4)),
            "mlp.up_proj.weight": range(1),
        },
    ),
    "quantised": with_layers(
        {"q.qweight": "I32", "q.qzeros": "I32", "q.scales": "F16", "q.g_idx": "I32"},
        {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}},
        {},
    ),
    "quantised but for one layer": with_layers(
        {"q.weight": "F8_E4M3", "q.weight_scale_inv": "F32"},
        {"model_type": "llama", "quantization_config": {"quant_method": "fp8"}},
        {"q.weight_scale_inv": range(1, 4)},
    ),
    "in the Hub's cache": in_hub_cache,
}


@pytest.mark.parametrize("case", VALID)
def test_a_valid_checkpoint_of_any_kind_has_no_finding_that_is_an_error(
    source: Path, case: str
) -> None:
    source.parent.mkdir()
    VALID[case](source)
    sums = source.parent / "sums.json"
    for options in (("--deep",), ("--write-checksums", str(sums)), ("--checksums", str(sums))):
        ran = run("verify", str(source), *options, "--json")
        assert ran.code == 0, ran
        outcome = strict_json(ran.out)
        # Matrices of zeros are suspicious, and these are no whole models.
        expected = {"weights-zero", "layers-identical", "tokenizer-missing"}
        assert set(outcome["counts"]) <= expected, outcome


NAMES = (
    NASTY.replace("\0", "").replace("/", ""),
    os.fsdecode(b"caf\xe9"),
    "::error::boo",
    "%0A::error::boo",
    "-n",
    "mod\u00e8le",
    "n" * 200,
)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_nasty_names_of_files_are_harmless_in_findings(source: Path, name: str) -> None:
    folder = source.with_name(name)
    mistral_checkpoint(folder, shards=2)
    (folder / f"{name}.safetensors").write_bytes(b"")
    (folder / f"{name}.json").write_bytes(b"{")
    (folder / f"{name}.txt").symlink_to(source.parent)
    (folder / f"link{name}").symlink_to("/etc/passwd")
    index = json.loads((folder / INDEX).read_bytes())
    index["weight_map"]["model.norm.weight"] = f"{name!a}.safetensors".replace("/", "")
    index["weight_map"][name.encode(errors="replace").decode()] = ONE
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    for form in FORMATS:
        ran = run("verify", str(folder), "--deep", "--format", form)
        assert ran.code == 1
        assert_harmless_report(ran, form)
        if form == "json":
            found = set(strict_json(ran.out)["counts"])
            assert {"shard-stray", "file-json", "file-link", "index-tensor-unknown"} <= found


def test_a_summary_for_github_is_harmless(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    CHECKPOINTS["an index that names a nasty tensor"](source)
    assert run("verify", str(source), "--format", "github").code == 1
    summary = (tmp_path / "summary").read_text(encoding="utf-8")
    assert summary.count("index-tensor-unknown") == 1
    assert_harmless(Ran(1, summary, ""))


MANIFESTS: Final[Mapping[str, Callable[[Path], object]]] = {
    "absent": lambda path: None,
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": circle,
    "empty": lambda path: path.touch(),
    "no JSON": lambda path: path.write_bytes(b"{" + NASTY.encode()),
    "a list": lambda path: path.write_bytes(b"[]"),
    "nested 100,000 deep": lambda path: path.write_bytes(b'{"a":' + nested(100_000) + b"}"),
    "5,000 digits": lambda path: path.write_bytes(b'{"a":' + b"9" * 5000 + b"}"),
    "a nasty key twice": lambda path: path.write_bytes(b'{"\\u001b":1,"\\u001b":2}'),
    "sparse and huge": lambda path: make_sparse(path),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_bad_manifest_is_one_error_and_code_3(
    sound_pair: Path, tmp_path: Path, case: str
) -> None:
    manifest = tmp_path / "sums"
    MANIFESTS[case](manifest)
    for form in FORMATS:
        ran = run(
            "verify", str(sound_pair / "model"), "--checksums", str(manifest), "--format", form
        )
        assert ran.code == 3
        assert_harmless_report(ran, form)
        assert str(manifest) in ran.err


SPOILT = (
    "config.json",
    "dus.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "../sums.json",
)
WEIRD: Final[tuple[Any, ...]] = (
    *(NASTY, "", [NASTY], {NASTY: NASTY}, "../../x", [], {}),
    *(None, True, -1, 10**4299, 1e308),
)


@settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data(), st.sampled_from(SPOILT), st.sampled_from(FORMATS))
def test_no_document_with_a_strange_value_ends_in_anything_but_findings_or_an_error(
    sound_pair: Path, data: st.DataObject, name: str, form: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(sound_pair, place, dirs_exist_ok=True)
        path = Path(place, "model", name)
        document = json.loads(path.read_bytes())
        spoil(document, data)
        path.write_text(json.dumps(document), encoding="utf-8")
        more = ("--deep", "--base", f"{place}/base", "--checksums", f"{place}/sums.json")
        ran = run("verify", f"{place}/model", *more, "--format", form)
    assert ran.code in (0, 1, 2, 3)
    assert_harmless_report(ran, form)


def spoil(document: Any, data: st.DataObject) -> None:
    """Puts something strange in a random place of a JSON document."""
    while True:
        places = list(document) if isinstance(document, dict) else list(range(len(document)))
        if not places:
            return
        place = data.draw(st.sampled_from(places))
        inner = document[place]
        if not (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            document[place] = data.draw(st.sampled_from(WEIRD))
            return
        document = inner


def test_numbers_at_the_interpreters_limit_are_shown(source: Path) -> None:
    most = 10**4300 - 1
    sizes = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    fields = dict.fromkeys((*sizes, "vocab_size", "intermediate_size"), most)
    config = {**mistral_config(4), **fields, "model_type": "afmoe", "moe_layers": [-most]}
    for model_type in ("mistral", "qwen2_moe", "kimi_linear"):
        config |= {"model_type": model_type, "mlp_only_layers": [-most]}
        config["linear_attn_config"] = {"kda_layers": [-most], "full_attn_layers": [-most]}
        write_checkpoint(source, mistral_tensors(4), config)
        ran = run("verify", str(source), "--json")
        assert_harmless_report(ran, "json")
        assert "thousands of digits" in ran.out


# --- files that change while they are read -----------------------------------------------------


def test_a_shard_that_shrinks_under_its_header_is_a_finding(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mistral_checkpoint(source) / WHOLE
    read = os.read

    def cut_and_read(descriptor: int, count: int) -> bytes:
        os.truncate(path, 100)
        return read(descriptor, count)

    monkeypatch.setattr(os, "read", cut_and_read)
    ran = run("verify", str(source), "--json")
    assert ran.code == 1
    [finding] = strict_json(ran.out)["findings"]
    assert (finding["code"], finding["file"]) == ("file-unreadable", WHOLE)
    assert "became shorter" in finding["message"]


@pytest.mark.parametrize("of", ["model", "base"])
@pytest.mark.parametrize("mode", ["deep", "base", "checksums"])
def test_a_shard_that_shrinks_while_weights_are_read_is_a_finding_or_an_error(
    sound_pair: Path, tmp_path: Path, mode: str, of: str
) -> None:
    shutil.copytree(sound_pair, tmp_path, dirs_exist_ok=True)
    shards = sorted((tmp_path / of).glob("*.safetensors"))

    @contextmanager
    def cutting(*_: object) -> Iterator[Callable[[int], None]]:
        for shard in shards:
            os.truncate(shard, shard.stat().st_size - 1)
        yield lambda count: None

    request = {
        "deep": VerifyRequest(deep=True),
        "base": VerifyRequest(base=open_checkpoint(tmp_path / "base")),
        "checksums": VerifyRequest(checksums=tmp_path / "sums.json"),
    }[mode]
    try:
        outcome = verify(tmp_path / "model", request, progress=cutting)
    except CheckpointError as error:
        assert (mode, of) == ("base", "base")
        assert any(shard.name in error.message for shard in shards)
        return
    if of == "model":
        errors = {f.file for f in outcome.findings if f.check.severity is Severity.ERROR}
        assert errors == {shard.name for shard in shards}
    else:
        assert outcome.valid == (mode != "base")


# --- bombs: what is small on disk and large in memory, or slow ---------------------------------

GIBIBYTE = 1 << 30
SECONDS = 60
"""For each bomb; most take one, on a machine that does nothing else."""


def many(count: int, member: Callable[[int], str]) -> bytes:
    return ("{" + ",".join(map(member, range(count))) + "}").encode()


def empty(name: str) -> str:
    return f'"{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'


def with_odd_layers(folder: Path) -> None:
    """Each of 8,000 layers has a tensor of its own, and the first has 40,000."""
    first = many(40_000, lambda number: empty(f"model.layers.0.p{number}.weight"))
    rest = many(8_000, lambda number: empty(f"model.layers.{number}.q{number}.weight"))
    with_config(num_hidden_layers=8_000)(folder)
    (folder / WHOLE).write_bytes(framed(first[:-1] + b"," + rest[1:]))


def with_long_shapes(folder: Path) -> None:
    """Two layers share a shape of a million dimensions, 20,000 others have others."""
    shapes = [[0, *[1] * 1_000_000]] * 2 + [[0, number] for number in range(20_000)]
    entries = {
        f"model.layers.{number}.x.weight": entry("U8", shape, [0, 0])
        for number, shape in enumerate(shapes)
    }
    with_config(num_hidden_layers=len(shapes))(folder)
    (folder / WHOLE).write_bytes(framed(json.dumps(entries).encode()))


def with_record(**fields: Any) -> Make:
    def make(folder: Path) -> None:
        record = {"schema": PLAN_SCHEMA, "shards": [], "config_changes": [], "carried_files": []}
        with_file("dus.json", json.dumps(record | fields).encode())(folder)

    return make


def sparse(folder: Path) -> None:
    """A shard of a terabyte that takes a block on the disk."""
    text = header(a=entry("U8", [10**12], [0, 10**12]))
    with_file(WHOLE, framed(text))(folder)
    os.truncate(folder / WHOLE, 8 + len(text) + 10**12)


def with_absent_shards(folder: Path) -> None:
    """An index of 100,000 shards, and a dus.json that knows them all; none is there."""
    index = b'{"weight_map":' + many(100_000, lambda number: f'"t{number}":"s{number}"') + b"}"
    with_record(shards=[{"name": f"s{number}"} for number in range(100_000)])(folder)
    (folder / INDEX).write_bytes(index)


def with_large_documents(folder: Path) -> None:
    """Four files of JSON that take 300 MB of memory each; the last breaks off."""
    mistral_checkpoint(folder)
    text = b"[[]" + b",[]" * 4_000_000
    for number in range(4):
        (folder / f"{number}.json").write_bytes(text + (b"]" if number < 3 else b""))


BOMBS: Final[Mapping[str, tuple[Make, str]]] = {
    "a header of empty lists": (
        lambda folder: with_header(b'{"a":[[]' + b",[]" * 15_000_000 + b"]}")(folder),
        WHOLE,
    ),
    "a name of 50 MB": (
        lambda folder: with_header(header(**{"n" * 50_000_000: 1}))(folder),
        WHOLE,
    ),
    "a name that is all numbers": (with_header(header(**{"a.0." * 200_000: 1})), WHOLE),
    "100,000 broken entries": (
        lambda folder: with_header(many(100_000, lambda number: f'"{number}":1'))(folder),
        WHOLE,
    ),
    "layers that all differ": (with_odd_layers, "model.layers"),
    "long shapes": (with_long_shapes, "model.layers"),
    "100,000 absent shards": (with_absent_shards, INDEX),
    "large documents": (with_large_documents, "3.json: is not JSON"),
    "an index of empty lists": (
        lambda folder: with_file(
            INDEX, b'{"weight_map":{"a":[[]' + b",[]" * 15_000_000 + b"]}}", shards=2
        )(folder),
        INDEX,
    ),
    "a path of dots": (
        with_record(config_changes=[{"field": "a." * 500_000, "after": 1}]),
        "dus.json",
    ),
    "100,000 recorded shards": (
        lambda folder: with_record(shards=[{"name": f"{n}"} for n in range(100_000)])(folder),
        "dus.json",
    ),
    "a tokenizer over the limit": (
        lambda folder: make_sparse(mistral_checkpoint(folder) / "tokenizer.json"),
        "tokenizer.json",
    ),
    "a record over the limit": (
        lambda folder: (with_record()(folder), make_sparse(folder / "dus.json")),
        "dus.json",
    ),
    "a sparse terabyte": (sparse, "config.json"),
}
"""How to make it, and what a finding must name."""


RUN_BOMBS = """
import resource, signal, sys, time
from typer.testing import CliRunner
from dus_cli.cli.app import app

def stop(*_):
    raise SystemError("out of time")

signal.signal(signal.SIGALRM, stop)
limit, seconds, *folders = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
for folder in folders:
    signal.alarm(int(seconds))
    result = CliRunner().invoke(app, ["verify", folder], prog_name="dus")
    signal.alarm(0)
    print(ascii((result.exit_code, result.stdout, result.stderr)), flush=True)
"""
"""One process for all: to start one takes longer than most bombs do."""


@pytest.fixture(scope="module")
def verified_bombs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Ran]:
    """What `dus verify` says of each bomb, in a gibibyte of memory and limited time."""
    place = tmp_path_factory.mktemp("bombs")
    for number, (make, _) in enumerate(BOMBS.values()):
        make(place / str(number))
    folders = [str(place / str(number)) for number in range(len(BOMBS))]
    done = subprocess.run(
        [sys.executable, "-c", RUN_BOMBS, str(GIBIBYTE), str(SECONDS), *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(place)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    return {case: Ran(*ast.literal_eval(line)) for case, line in zip(BOMBS, lines, strict=True)}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_a_finding_in_bounded_memory_and_time(
    verified_bombs: Mapping[str, Ran], case: str
) -> None:
    ran = verified_bombs[case]
    assert ran.code == 1, ran
    assert ran.err == ""
    assert_harmless(ran)
    assert BOMBS[case][1] in ran.out


@pytest.mark.parametrize("started", [0, 1])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("verify", ("--deep",)),
        ("verify", ("--base", "base")),
        ("verify", ("--checksums", "sums.json")),
        ("upscale", ("--drop", "1", "-q", "-o", "target")),
    ],
    ids=str,
)
def test_a_system_that_starts_no_more_threads_is_one_error(
    sound_pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: tuple[str, ...],
    started: int,
) -> None:
    shutil.copytree(sound_pair, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    start, left = threading.Thread.start, [None] * started
    # Progress bars of the Hub's client leave a thread behind, in tests that used it.
    before = threading.active_count()

    def start_or_fail(thread: threading.Thread) -> None:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    ran = run(command, "model", *options)
    if ran.code:
        assert_refused(ran, 3, as_json=False)
        assert not Path("target").exists()
    else:
        assert started, "one thread was enough"
    assert threading.active_count() == before
