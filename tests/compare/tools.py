"""The tools that are compared: what each is for, how it is called, and how its answer is read.

A command is read by what its documentation says of its output. A library is called by a probe, a
module of this package that prints the complaints as JSON; what it raises is an error.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.compare.verdicts import Complaints, Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One column of the table.

    `command` takes the checkpoint's folder and the options of `dus verify` for the fault at hand;
    `read` raises ValueError for output that is not as documented. Where `must_name` is set, only a
    complaint that begins with the fault's own code counts.
    """

    title: str
    package: str
    purpose: str
    command: Callable[[Path, Sequence[str]], Sequence[str]]
    read: Callable[[Ended], Complaints]
    must_name: bool = False


def _program(name: str) -> str:
    """A command that was installed with the interpreter that runs this."""
    return str(Path(sys.executable).with_name(name))


def _probe(name: str) -> Callable[[Path, Sequence[str]], Sequence[str]]:
    return lambda folder, _: (sys.executable, "-m", f"tests.compare.probe_{name}", str(folder))


def read_probe(ended: Ended) -> Complaints:
    """What a probe prints."""
    said = json.loads(ended.stdout.splitlines()[-1])
    return Complaints(errors=frozenset(said["errors"]), warnings=frozenset(said["warnings"]))


def read_dus(ended: Ended) -> Complaints:
    """The report of `dus verify --json`; a note counts as a warning."""
    said = json.loads(ended.stdout)
    if "findings" not in said:
        return Complaints(errors=frozenset({said["error"]["message"]}))
    texts: dict[bool, set[str]] = {True: set(), False: set()}
    for finding in said["findings"]:
        texts[finding["severity"] == "error"].add(f"{finding['code']}: {finding['message']}")
    return Complaints(errors=frozenset(texts[True]), warnings=frozenset(texts[False]))


def read_model_doctor(ended: Ended) -> Complaints:
    """The report of `mlx-model-doctor check local --format json`."""
    if ended.code == 2:
        return Complaints(errors=frozenset({ended.stderr.strip()}))
    texts: dict[str, set[str]] = {}
    for result in json.loads(ended.stdout)["results"]:
        texts.setdefault(result["status"], set()).add(f"{result['check_id']}: {result['message']}")
    return Complaints(
        errors=frozenset(texts.get("fail", ())), warnings=frozenset(texts.get("warn", ()))
    )


_LENS_COUNT: Final = re.compile(r"^Diagnostics \((\d+)\)$", re.MULTILINE)
_LENS_ROW: Final = re.compile(r"^ +(error|warn|info) +([a-z-]+) +(\S.*)$", re.MULTILINE)


def read_lens(ended: Ended) -> Complaints:
    """The report of `lens analyze`, which ends with 0 whatever the analysis finds."""
    if ended.code:
        return Complaints(errors=frozenset(ended.stdout.splitlines()[-1:]))
    rows = _LENS_ROW.findall(ended.stdout)
    count = _LENS_COUNT.search(ended.stdout)
    if count is None or int(count[1]) != len(rows):
        raise ValueError(f"not as weightlens reports: {ended.stdout}")
    texts: dict[bool, set[str]] = {True: set(), False: set()}
    for severity, rule, text in rows:
        texts[severity == "error"].add(f"{rule}: {' '.join(text.split())}")
    if "Inspection: PARTIAL" in ended.stdout:
        texts[False].add("Inspection: PARTIAL")
    return Complaints(errors=frozenset(texts[True]), warnings=frozenset(texts[False]))


_DUS: Final = (sys.executable, "-m", "dus_cli", "verify", "--json")

TOOLS: Final = (
    Tool(
        title="`dus verify`",
        package="dus-cli",
        purpose="checks a checkpoint as a whole; here without options",
        command=lambda folder, _: (*_DUS, str(folder)),
        read=read_dus,
        must_name=True,
    ),
    Tool(
        title="with option",
        package="dus-cli",
        purpose="the same with the option that the row names: it reads the weights, or is given "
        "the source or checksums, which no other tool here is given",
        command=lambda folder, options: (*_DUS, str(folder), *options),
        read=read_dus,
        must_name=True,
    ),
    Tool(
        title="safetensors",
        package="safetensors",
        purpose="reads one file safely: `safe_open` and every tensor, for each file of the folder; "
        "it knows of no index and no config",
        command=_probe("safetensors"),
        read=read_probe,
    ),
    Tool(
        title="transformers",
        package="transformers",
        purpose="loads models: `AutoModelForCausalLM.from_pretrained` with its loading info, and "
        "`AutoTokenizer`; it loads what it needs and is no checker",
        command=_probe("transformers"),
        read=read_probe,
    ),
    Tool(
        title="mlx-model-doctor",
        package="mlx-model-doctor",
        purpose="checks a model repository before MLX loads it (files, JSON, index, headers, token "
        "numbers), without reading weights: `mlx-model-doctor check local`",
        command=lambda folder, _: (
            _program("mlx-model-doctor"),
            *("check", "local", str(folder), "--format", "json"),
        ),
        read=read_model_doctor,
    ),
    Tool(
        title="weightlens",
        package="weightlens",
        purpose="analyses the weights' statistics (NaN, dead matrices, outliers), and refuses "
        "malformed files: `lens analyze`, given the index",
        command=lambda folder, _: (
            _program("lens"),
            *("analyze", str(folder / "model.safetensors.index.json")),
        ),
        read=read_lens,
    ),
)
