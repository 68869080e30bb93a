"""`dus inspect` at the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint
from tests.cli.conftest import Dus


def test_report_says_what_the_checkpoint_is(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model", shards=2)
    result = dus("inspect", "model")
    assert result.exit_code == 0
    assert result.stderr == ""
    for text in (
        "MistralForCausalLM (model type mistral)",
        "19 in 2 shards",
        "model.layers  4 layers",
        "all alike: 4 tensors, 264 parameters each",
        "untied (lm_head.weight)",
        "num_hidden_layers = 4",
        "generation_config.json, tokenizer.json",
        "dus upscale model --drop 1",
        "6 layers, 2,104 parameters",
    ):
        assert text in result.stdout


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_report_keeps_to_the_width(
    dus: Dus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    tensors = mistral_tensors(4)
    for number in range(20):
        name = f"model.layers.1.mlp.experts.{number}.with_a_rather_long_name.weight"
        tensors[name] = np.zeros((3, number + 1), np.float32)
    write_checkpoint(
        tmp_path / "model",
        tensors,
        mistral_config(4),
        files={f"a_file_with_a_long_name_{number}.json": "{}" for number in range(20)},
    )
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = dus("inspect", "model").stdout.splitlines()
    assert max(map(len, lines)) <= columns


def test_differing_layers_are_named(dus: Dus, tmp_path: Path) -> None:
    tensors = mistral_tensors(4)
    tensors["model.layers.2.extra.weight"] = np.zeros(3, np.float32)
    write_checkpoint(tmp_path / "model", tensors, mistral_config(4))
    output = dus("inspect", "model").stdout
    assert "layers 0..1, 3: 4 tensors" in output
    assert "layer 2: 5 tensors" in output
    assert "+ extra.weight F32 [3]" in output


def test_tensors_lists_every_tensor_on_a_line(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model", shards=2)
    lines = dus("inspect", "model", "--tensors").stdout.splitlines()
    assert len(lines) == 19
    assert all(line.split()[0] == "F16" for line in lines)


def test_json_is_complete(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model", shards=2)
    value = json.loads(dus("inspect", "model", "--json", "--tensors").stdout)
    assert value["schema"] == "dus-inspect/1"
    assert value["stacks"][0]["prefix"] == "model.layers"
    assert value["upscale_preview"] == {
        "drop": 1,
        "layers": 6,
        "parameters": 2104,
        "tensor_bytes": 4208,
    }
    assert len(value["tensor_list"]) == value["tensors"] == 19


def test_single_file_is_inspected_without_a_config(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    output = dus("inspect", "model/model.safetensors").stdout
    assert "model.layers  4 layers" in output
    assert "architecture" not in output


def test_config_that_contradicts_the_tensors_is_shown_as_a_problem(
    dus: Dus, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "model", mistral_tensors(4), mistral_config(5))
    result = dus("inspect", "model")
    assert result.exit_code == 0
    assert "problem" in result.stdout
    assert "num_hidden_layers = 5" in result.stdout


@pytest.mark.parametrize("words", [["--help"], ["inspect", "--help"], ["upscale", "--help"]])
def test_help_is_given(dus: Dus, words: list[str]) -> None:
    result = dus(*words)
    assert result.exit_code == 0
    assert "Usage: dus" in result.stdout


def test_version_is_printed(dus: Dus) -> None:
    assert dus("--version").stdout == "dus 0.1.0\n"
