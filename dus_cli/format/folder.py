"""The files around the weights: which ones belong to any checkpoint made from this one."""

import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedFile:
    """A file that goes along unchanged; `path` is relative to the folder, `size` in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutFile:
    """A file or folder that does not go along, and why; a folder's `path` ends in `/`."""

    path: str
    reason: str


_OTHER_WEIGHTS: Final = "the source's weights in another format"
_TRAINING_STATE: Final = "training state of the source"
_REWRITTEN: Final = "written anew"
_NOT_THE_MODEL: Final = "not part of the model"

_LEFT_OUT_FILES: Final = (
    ("*.safetensors", "weights that the checkpoint's index does not name"),
    ("*.safetensors.index.json", _REWRITTEN),
    ("config.json", _REWRITTEN),
    ("README.md", _REWRITTEN),
    ("dus.json", _REWRITTEN),
    ("training_args.bin", _TRAINING_STATE),
    ("trainer_state.json", _TRAINING_STATE),
    ("optimizer*.pt", _TRAINING_STATE),
    ("scheduler*.pt", _TRAINING_STATE),
    ("scaler*.pt", _TRAINING_STATE),
    ("rng_state*.pth", _TRAINING_STATE),
    ("*.bin", _OTHER_WEIGHTS),
    ("*.bin.index.json", _OTHER_WEIGHTS),
    ("*.pt", _OTHER_WEIGHTS),
    ("*.pth", _OTHER_WEIGHTS),
    ("*.ckpt", _OTHER_WEIGHTS),
    ("*.ckpt.*", _OTHER_WEIGHTS),
    ("*.gguf", _OTHER_WEIGHTS),
    ("*.ggml", _OTHER_WEIGHTS),
    ("*.h5", _OTHER_WEIGHTS),
    ("*.h5.index.json", _OTHER_WEIGHTS),
    ("*.msgpack", _OTHER_WEIGHTS),
    ("*.msgpack.index.json", _OTHER_WEIGHTS),
    ("*.ot", _OTHER_WEIGHTS),
    ("*.onnx", _OTHER_WEIGHTS),
    ("*.onnx_data", _OTHER_WEIGHTS),
    ("*.tflite", _OTHER_WEIGHTS),
    ("*.npz", _OTHER_WEIGHTS),
    ("consolidated*", _OTHER_WEIGHTS),
    (".DS_Store", _NOT_THE_MODEL),
)
"""Names in the checkpoint folder itself that stay behind; the first pattern that fits counts.

Sub-folders are carried whole: modules of sentence-transformers keep weights of their own there.
"""

_LEFT_OUT_FOLDERS: Final = (
    ("original", _OTHER_WEIGHTS),
    ("metal", _OTHER_WEIGHTS),
    ("onnx", _OTHER_WEIGHTS),
    ("openvino", _OTHER_WEIGHTS),
    ("coreml", _OTHER_WEIGHTS),
    ("gguf", _OTHER_WEIGHTS),
    ("checkpoint-*", _TRAINING_STATE),
    ("global_step*", _TRAINING_STATE),
    ("runs", _TRAINING_STATE),
    (".git", _NOT_THE_MODEL),
    (".cache", _NOT_THE_MODEL),
    ("__pycache__", _NOT_THE_MODEL),
    (".ipynb_checkpoints", _NOT_THE_MODEL),
)


def classify_files(
    folder: Path, shard_names: frozenset[str]
) -> tuple[tuple[CarriedFile, ...], tuple[LeftOutFile, ...]]:
    """What goes along and what does not, apart from the shards, each sorted by path.

    Links to files count as the files; links to folders are not followed, for they may lead in
    circles or out of the checkpoint.

    Raises OSError where the folder cannot be listed.
    """
    carried: list[CarriedFile] = []
    left_out: list[LeftOutFile] = []

    def visit(directory: Path, relative: str) -> None:
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            path = relative + entry.name
            if entry.is_dir():
                reason = "a link to a folder" if entry.is_symlink() else None
                reason = reason or _first_match(entry.name, _LEFT_OUT_FOLDERS)
                if reason is None:
                    visit(directory / entry.name, path + "/")
                else:
                    left_out.append(LeftOutFile(path=path + "/", reason=reason))
                continue
            if not relative and entry.name in shard_names:
                continue
            reason = None if relative else _first_match(entry.name, _LEFT_OUT_FILES)
            reason = reason or _unreadable_kind(entry)
            if reason is None:
                carried.append(CarriedFile(path=path, size=entry.stat().st_size))
            else:
                left_out.append(LeftOutFile(path=path, reason=reason))

    visit(folder, "")
    return tuple(carried), tuple(left_out)


def _first_match(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    return next((reason for pattern, reason in rules if fnmatchcase(name, pattern)), None)


def _unreadable_kind(entry: os.DirEntry[str]) -> str | None:
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing"
    return None if stat.S_ISREG(mode) else "not a regular file"
