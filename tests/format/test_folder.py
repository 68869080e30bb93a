"""Which files belong to any checkpoint made from this one."""

import inspect
import os
import sys
from pathlib import Path

import pytest

from dus_cli.format.folder import CarriedFile, classify_files

SHARDS = frozenset({"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"})


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, encoding="utf-8")


def classified(folder: Path) -> tuple[list[str], dict[str, str]]:
    carried, left_out = classify_files(folder, SHARDS)
    return [file.path for file in carried], {file.path: file.reason for file in left_out}


@pytest.mark.parametrize(
    "path",
    [
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "generation_config.json",
        "modeling_own.py",
        "LICENSE",
        "USE_POLICY.md",
        ".gitattributes",
        "no extension",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "2_Dense/pytorch_model.bin",
        "additional_chat_templates/tool.jinja",
        "sub/README.md",
        "sub/config.json",
        "a/b/c/d.txt",
    ],
)
def test_what_describes_the_model_goes_along(tmp_path: Path, path: str) -> None:
    write(tmp_path, path)
    assert classify_files(tmp_path, SHARDS) == ((CarriedFile(path=path, size=len(path)),), ())


@pytest.mark.parametrize(
    ("path", "listed_as", "reason"),
    [
        ("config.json", "config.json", "written anew"),
        ("README.md", "README.md", "written anew"),
        ("dus.json", "dus.json", "written anew"),
        ("model.safetensors.index.json", "model.safetensors.index.json", "written anew"),
        ("other.safetensors", "other.safetensors", "does not name"),
        ("pytorch_model.bin", "pytorch_model.bin", "another format"),
        ("pytorch_model-00001-of-00002.bin", "pytorch_model-00001-of-00002.bin", "another format"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin.index.json", "another format"),
        ("model-q4.gguf", "model-q4.gguf", "another format"),
        ("consolidated.00.pth", "consolidated.00.pth", "another format"),
        ("tf_model.h5", "tf_model.h5", "another format"),
        ("flax_model.msgpack", "flax_model.msgpack", "another format"),
        ("rust_model.ot", "rust_model.ot", "another format"),
        ("model.onnx", "model.onnx", "another format"),
        ("original/consolidated.00.pth", "original/", "another format"),
        ("onnx/model.onnx", "onnx/", "another format"),
        ("training_args.bin", "training_args.bin", "training state"),
        ("optimizer.pt", "optimizer.pt", "training state"),
        ("rng_state_0.pth", "rng_state_0.pth", "training state"),
        ("trainer_state.json", "trainer_state.json", "training state"),
        ("checkpoint-500/model.safetensors", "checkpoint-500/", "training state"),
        ("runs/events.out", "runs/", "training state"),
        (".git/HEAD", ".git/", "not part of the model"),
        (".cache/huggingface/x.lock", ".cache/", "not part of the model"),
        ("sub/__pycache__/x.pyc", "sub/__pycache__/", "not part of the model"),
        (".DS_Store", ".DS_Store", "not part of the model"),
    ],
)
def test_other_weights_training_state_and_litter_stay_behind_with_a_reason(
    tmp_path: Path, path: str, listed_as: str, reason: str
) -> None:
    write(tmp_path, path)
    carried, left_out = classified(tmp_path)
    assert carried == []
    assert list(left_out) == [listed_as]
    assert reason in left_out[listed_as]


def test_shards_are_on_neither_list(tmp_path: Path) -> None:
    write(tmp_path, *SHARDS)
    assert classify_files(tmp_path, SHARDS) == ((), ())


def test_a_file_in_a_sub_folder_is_no_shard_though_it_is_called_like_one(tmp_path: Path) -> None:
    write(tmp_path, *(f"sub/{name}" for name in SHARDS))
    assert classified(tmp_path)[0] == [f"sub/{name}" for name in sorted(SHARDS)]


def test_both_lists_are_sorted_by_path(tmp_path: Path) -> None:
    write(tmp_path, "b", "a/z", "a/b/c", "a.txt", "é", "c.bin", "a.bin", "original/x")
    carried, left_out = classified(tmp_path)
    assert carried == sorted(["b", "a/z", "a/b/c", "a.txt", "é"])
    assert list(left_out) == ["a.bin", "c.bin", "original/"]


def test_a_link_to_a_file_counts_as_the_file(tmp_path: Path) -> None:
    write(tmp_path, "blobs/0123", "model/a.txt")
    (tmp_path / "model/tokenizer.json").symlink_to("../blobs/0123")
    carried, _ = classify_files(tmp_path / "model", SHARDS)
    assert CarriedFile(path="tokenizer.json", size=len("blobs/0123")) in carried


def test_links_that_lead_nowhere_or_to_a_folder_stay_behind(tmp_path: Path) -> None:
    (tmp_path / "absent").symlink_to("not-there")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/here").symlink_to(".")
    nowhere = "a link that leads nowhere"
    assert classified(tmp_path) == (
        [],
        {
            "absent": nowhere,
            "circle": nowhere,
            "one": nowhere,
            "sub/here/": "a link to a folder",
            "two": nowhere,
            "up/": "a link to a folder",
        },
    )


def test_pipes_and_devices_stay_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    kind = "not a regular file"
    assert classified(tmp_path) == ([], {"pipe": kind, "zero": kind})


def test_a_deep_tree_is_no_matter_of_recursion(tmp_path: Path) -> None:
    write(tmp_path, "d/" * 100 + "f")
    limit = sys.getrecursionlimit()
    # A tree deeper than the usual limit takes seconds to make on a busy disk.
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)
    try:
        found = classified(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == (["d/" * 100 + "f"], {})


def test_a_name_that_is_not_utf8_is_kept_as_the_system_gives_it(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    assert classified(tmp_path) == (["caf\udce9"], {})


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        classify_files(tmp_path / "absent", SHARDS)
