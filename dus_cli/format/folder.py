"""The files around the weights: which ones belong to any checkpoint made from this one."""

import errno
import os
import stat
from collections.abc import Collection
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
REWRITTEN: Final = "written anew"
"""The reason of files that do not go along because the result has its own."""
_OTHER_CONFIG: Final = "the source's config in another format"
_NOT_THE_MODEL: Final = "not part of the model"
UNNAMED_WEIGHTS: Final = "weights that the checkpoint's index does not name"

CHECKSUMS: Final = "dus-checksums.json"
"""The manifest of SHA-256 sums that `dus upscale --checksums` adds to a result."""

CONFIG: Final = "config.json"
MISTRAL_CONFIG: Final = "params.json"
MISTRAL_STEM: Final = "consolidated"
"""Mistral's own format: its config, and what the names of its shards begin with."""

QUANTISATION_FILES: Final = (
    "quantize_config.json",
    "quantization_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "quant_model_description.json",
)
"""JSON files beside config.json that say how single modules are quantised, by their names: those of
AutoGPTQ and GPTQModel, auto-round, AutoAWQ, ModelOpt, and Ascend's tools, in this order."""

_LEFT_OUT_FILES: Final = (
    ("*.safetensors", UNNAMED_WEIGHTS),
    ("*.safetensors.index.json", REWRITTEN),
    (CONFIG, REWRITTEN),
    (MISTRAL_CONFIG, _OTHER_CONFIG),
    ("README.md", REWRITTEN),
    ("dus.json", REWRITTEN),
    (CHECKSUMS, REWRITTEN),
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


def patterns_left_out() -> list[str]:
    """Patterns of paths that no checkpoint made from this one has unchanged, and of weights.

    In them `*` also stands for slashes. README.md is not among them: the new one is made from it.
    """
    files = [pattern for pattern, _ in _LEFT_OUT_FILES if pattern != "README.md"]
    return [*files, *(f"{pattern}/*" for pattern, _ in _LEFT_OUT_FOLDERS)]


def config_name_for(stem: str, file_names: Collection[str]) -> str:
    """The name of the config that goes with shards whose names begin with `stem`."""
    if MISTRAL_CONFIG in file_names and (stem == MISTRAL_STEM or CONFIG not in file_names):
        return MISTRAL_CONFIG
    return CONFIG


def classify_files(
    folder: Path, shard_names: frozenset[str], config_name: str = CONFIG
) -> tuple[tuple[CarriedFile, ...], tuple[LeftOutFile, ...]]:
    """What goes along and what does not, apart from the shards, each sorted by path.

    Links to files count as the files; links to folders are not followed, for they may lead in
    circles or out of the checkpoint.

    Raises OSError where a folder cannot be listed or a file not examined.
    """
    carried: list[CarriedFile] = []
    left_out: list[LeftOutFile] = []
    # A list of folders still to visit instead of a recursion, which a deep tree could exhaust.
    folders = [""]
    while folders:
        above = folders.pop()
        for entry in os.scandir(folder / above):
            path = above + entry.name
            if path in shard_names:
                continue
            status = _status(entry)
            is_folder = status is not None and stat.S_ISDIR(status.st_mode)
            reason = _reason_to_leave_out(entry, status, at_top=not above)
            if config_name == MISTRAL_CONFIG and path in (CONFIG, MISTRAL_CONFIG):
                reason = REWRITTEN if path == config_name else _OTHER_CONFIG
            if reason is not None:
                left_out.append(LeftOutFile(path=f"{path}/" if is_folder else path, reason=reason))
            elif is_folder:
                folders.append(f"{path}/")
            elif status is not None:
                carried.append(CarriedFile(path=path, size=status.st_size))
    carried.sort(key=lambda file: file.path)
    left_out.sort(key=lambda file: file.path)
    return tuple(carried), tuple(left_out)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What the entry leads to; None for a link to nothing, or to itself."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise


def _reason_to_leave_out(
    entry: os.DirEntry[str], status: os.stat_result | None, *, at_top: bool
) -> str | None:
    if status is not None and stat.S_ISDIR(status.st_mode):
        if entry.is_symlink():
            return "a link to a folder"
        return _first_match(entry.name, _LEFT_OUT_FOLDERS)
    reason = _first_match(entry.name, _LEFT_OUT_FILES) if at_top else None
    if reason is None and (status is None or not stat.S_ISREG(status.st_mode)):
        reason = "a link that leads nowhere" if status is None else "not a regular file"
    return reason


def _first_match(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    return next((reason for pattern, reason in rules if fnmatchcase(name, pattern)), None)
