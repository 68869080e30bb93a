"""What an inspection says of layers; how `dus inspect` shows it is in tests/cli."""

from pathlib import Path
from typing import Any

import numpy as np

from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.inspection import Inspection, inspect_checkpoint
from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint


def inspected(folder: Path, layers: int, **fields: Any) -> Inspection:
    config = {**mistral_config(layers), **fields}
    write_checkpoint(folder, mistral_tensors(layers), config)
    return inspect_checkpoint(open_checkpoint(folder))


def test_stack_is_counted_and_its_layers_are_alike(tmp_path: Path) -> None:
    (report,) = inspected(tmp_path, 4).stacks
    assert (report.stack.prefix, report.stack.layer_count) == ("model.layers", 4)
    assert report.counted is not None
    assert report.counted.count_fields == ("num_hidden_layers",)
    (kind,) = report.kinds
    assert (kind.layers, kind.added, kind.missing) == ((0, 1, 2, 3), (), ())


def test_layer_unlike_the_others_is_described(tmp_path: Path) -> None:
    tensors = mistral_tensors(4)
    tensors["model.layers.0.bias.weight"] = np.zeros(3, dtype=np.float16)
    write_checkpoint(tmp_path, tensors, mistral_config(4))
    (report,) = inspect_checkpoint(open_checkpoint(tmp_path)).stacks
    assert [kind.layers for kind in report.kinds] == [(0,), (1, 2, 3)]
    assert report.kinds[0].added == ("bias.weight F16 [3]",)


def test_fields_that_depend_on_a_layers_place_are_listed(tmp_path: Path) -> None:
    fields = {"model_type": "gemma3_text", "sliding_window_pattern": 2, "layer_types": list("abcd")}
    assert inspected(tmp_path, 4, **fields).position_fields == (
        ("num_hidden_layers", "count", 4),
        ("layer_types", "gather", list("abcd")),
        ("sliding_window_pattern", "decides how each layer attends", 2),
    )


def test_config_that_contradicts_the_tensors_is_a_problem_and_no_end(tmp_path: Path) -> None:
    inspection = inspected(tmp_path, 4, num_hidden_layers=5)
    assert inspection.problem is not None
    assert "num_hidden_layers = 5" in inspection.problem
    assert inspection.preview is None
    assert [report.counted for report in inspection.stacks] == [None]


def test_preview_drops_a_quarter(tmp_path: Path) -> None:
    preview = inspected(tmp_path, 8).preview
    assert preview is not None
    assert (preview.drop, preview.layers, preview.refusal) == (2, 12, None)


def test_preview_says_why_there_is_none(tmp_path: Path) -> None:
    preview = inspected(tmp_path, 4, model_type="diffllama").preview
    assert preview is not None
    assert preview.refusal is not None
    assert "diffllama cannot be up-scaled" in preview.refusal


def test_count_that_the_config_leaves_to_a_default_is_absent_from_the_fields(
    tmp_path: Path,
) -> None:
    config = {"text_config": {"model_type": "llama"}}
    write_checkpoint(tmp_path, mistral_tensors(4), config)
    inspection = inspect_checkpoint(open_checkpoint(tmp_path))
    assert inspection.problem is None
    assert inspection.position_fields == (("text_config.num_hidden_layers", "count", None),)


def test_head_is_tied_or_not(tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path)
    assert inspect_checkpoint(open_checkpoint(tmp_path)).head == "untied (lm_head.weight)"
