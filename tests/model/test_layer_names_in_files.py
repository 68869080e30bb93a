"""Files beside config.json that name layers are rewritten as config.json is."""

import json
from pathlib import Path
from typing import Any

import pytest

from dus_cli.documents import write_documents
from dus_cli.errors import CheckpointError, RequestError
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest
from tests.checkpoints import mistral_checkpoint


def planned(folder: Path, name: str, text: str) -> Plan:
    """The plan of four layers to six, with a file `name` beside them."""
    mistral_checkpoint(folder, layers=4)
    (folder / name).write_text(text, encoding="utf-8")
    return plan_upscale(open_checkpoint(folder), UpscaleRequest(drop=1))


CASES: dict[str, tuple[Any, Any]] = {
    "quantize_config.json": (
        {"bits": 4, "dynamic": {"-:.*\\.3\\..*": {}}},
        {"bits": 4, "dynamic": {"-:.*\\.5\\..*": {}}},
    ),
    "quantization_config.json": (
        {"extra_config": {"model.layers.3.mlp.up_proj": {"bits": 8}}},
        {"extra_config": {"model.layers.5.mlp.up_proj": {"bits": 8}}},
    ),
    "quant_config.json": (
        {"w_bit": 4, "modules_to_not_convert": ["model.layers.3.mlp"]},
        {"w_bit": 4, "modules_to_not_convert": ["model.layers.5.mlp"]},
    ),
    "hf_quant_config.json": (
        {"quantization": {"exclude_modules": ["lm_head", "model.layers.3.self_attn*"]}},
        {"quantization": {"exclude_modules": ["lm_head", "model.layers.5.self_attn*"]}},
    ),
    "quant_model_description.json": (
        {"model.layers.3.mlp.up_proj.weight": "W8A8", "lm_head.weight": "FLOAT"},
        {"model.layers.5.mlp.up_proj.weight": "W8A8", "lm_head.weight": "FLOAT"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_names_layers_is_rewritten(tmp_path: Path, name: str) -> None:
    before, after = CASES[name]
    plan = planned(tmp_path / "model", name, json.dumps(before))
    assert name not in [file.path for file in plan.carried_files]
    execute(plan, tmp_path / "model", tmp_path / "deeper", write_documents(plan, None))
    assert json.loads((tmp_path / "deeper" / name).read_text(encoding="utf-8")) == after
    record = json.loads((tmp_path / "deeper/dus.json").read_text(encoding="utf-8"))
    assert [file["path"] for file in record["rewritten_files"]] == [name]


def test_a_file_that_names_no_layer_goes_along_byte_for_byte(tmp_path: Path) -> None:
    text = '{"bits":4,   "modules_to_not_convert": ["lm_head"]}'
    plan = planned(tmp_path / "model", "quant_config.json", text)
    assert "quant_config.json" in [file.path for file in plan.carried_files]
    assert plan.rewritten_files == {}


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1, "a": 2}', ""])
def test_a_file_that_cannot_be_read_stops_the_run(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^quant_config.json: cannot be read"):
        planned(tmp_path / "model", "quant_config.json", text)


def test_a_file_whose_names_cannot_be_moved_stops_the_run(tmp_path: Path) -> None:
    text = '{"dynamic": {"-:(?i).*layers.1.*": {}}}'
    with pytest.raises(RequestError, match=r"^quantize_config.json: the file.dynamic names"):
        planned(tmp_path / "model", "quantize_config.json", text)
