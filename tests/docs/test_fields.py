"""The tables of JSON fields list what the program writes, no less and no more."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dus_cli.cli.app import app
from tests.checkpoints import mistral_config, mistral_tensors, write_checkpoint
from tests.docs.pages import ROOT
from tests.docs.sandbox import make_sandbox
from tests.hub.client import run_dus
from tests.hub.server import MEMBER, Hub

FREE_KEYS = {
    "dtypes": "<dtype>",
    "shards[].metadata": "<key>",
    "request.config_rules": "<field>",
    "files": "<file>",
    "counts": "<code>",
    "names": "<name>",
    "sizes": "<file>",
    "tensors": "<file>",
    "tensors.<file>": "<tensor>",
}
"""Objects whose keys are data, with what the pages call these."""


ANY_VALUE = {"config_changes[].before", "config_changes[].after", "per_layer_fields[].value"}
"""Fields that hold a value of config.json, whatever it is."""


def documented(page: str, schema: str) -> set[str]:
    """First column of the table below the heading that names `schema`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(schema)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", re.sub(r"```.*?```", "", section, flags=re.DOTALL), flags=re.M)[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE))


def paths(value: Any, path: str = "", *, opaque: str = "") -> Iterator[str]:
    """Paths of all leaves in a JSON value; `opaque` is not looked into."""
    if path in {opaque, *ANY_VALUE}:
        yield path
    elif isinstance(value, dict):
        for key, entry in value.items():
            name = FREE_KEYS.get(path, str(key))
            yield from paths(entry, f"{path}.{name}" if path else name, opaque=opaque)
    elif isinstance(value, list):
        for entry in value:
            yield from paths(entry, f"{path}[]", opaque=opaque)
    else:
        yield path


def prefixes(written: set[str]) -> set[str]:
    """Paths that lead to some of `written`."""
    return {path[:end] for path in written for end, sign in enumerate(path) if sign in ".["}


def check(page: str, schema: str, values: Sequence[Any], *, opaque: str = "-") -> None:
    written = {path for value in values for path in paths(value, opaque=opaque)}
    assert all(value["schema"] == schema for value in values)
    listed = documented(page, schema)
    assert written - listed - prefixes(listed) == set(), "written, but not in the table"
    assert listed - written - prefixes(written) == set(), "in the table, but not written"


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_sandbox(tmp_path)
    uneven = mistral_tensors(8) | {"model.layers.0.extra.weight": np.ones(4, np.float16)}
    del uneven["model.layers.7.mlp.up_proj.weight"]
    write_checkpoint(tmp_path / "uneven", uneven, mistral_config(8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output_of(command: str) -> Any:
    """The JSON document on a command's stdout."""
    return json.loads(CliRunner().invoke(app, command.split()).stdout)


@pytest.mark.usefixtures("sandbox")
def test_inspection_fields_are_documented() -> None:
    names = ("tiny-mistral", "tiny-unknown", "uneven")
    values = [output_of(f"inspect {name} --json --tensors") for name in names]
    check("commands.md", "dus-inspect/1", values)


def test_upscale_fields_are_documented(sandbox: Path) -> None:
    with Hub() as hub:
        words = "upscale tiny-mistral --drop 2 -o sent --push-to org/sent --json".split()
        published = run_dus(hub, *words, token=MEMBER, cwd=sandbox)
    values = [
        output_of("upscale tiny-mistral --drop 2 --json --dry-run"),
        output_of("upscale tiny-mistral --drop 2 --json"),
        json.loads(published.stdout),
    ]
    check("commands.md", "dus-upscale/1", values, opaque="plan")


def test_fields_of_short_names_are_documented() -> None:
    check("commands.md", "dus-names/1", [output_of("inspect --names --json")])


@pytest.mark.usefixtures("sandbox")
def test_verify_fields_are_documented() -> None:
    values = [
        output_of("verify damaged --json"),
        output_of("verify tiny-unknown --json --ignore file-link"),
    ]
    check("commands.md", "dus-verify/1", values)


def test_checksum_fields_are_documented(sandbox: Path) -> None:
    CliRunner().invoke(app, "verify tiny-mistral -q --write-checksums sums.json".split())
    written = json.loads((sandbox / "sums.json").read_bytes())
    check("commands.md", "dus-checksums/1", [written])


@pytest.mark.usefixtures("sandbox")
def test_error_fields_are_documented() -> None:
    check("commands.md", "dus-error/1", [output_of("upscale tiny-mistral --drop 8 --json")])


def test_plan_fields_are_documented(sandbox: Path) -> None:
    saved = []
    quantised = '{"modules_to_not_convert": ["model.layers.7.mlp"]}'
    (sandbox / "tiny-mistral/quant_config.json").write_text(quantised, encoding="utf-8")
    for options in ("tiny-unknown --drop 0 --config-rule layer_scales=gather", "tiny-mistral -m 2"):
        output_of(f"upscale {options} --dry-run --json --plan plan.json")
        saved.append(json.loads((sandbox / "plan.json").read_bytes()))
        (sandbox / "plan.json").unlink()
    check("plan-format.md", "dus-plan-file/1", saved, opaque="plan")
    check("plan-format.md", "dus-plan/1", [value["plan"] for value in saved])
