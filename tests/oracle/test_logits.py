"""What dus writes is what torch composes by hand: the same output, to the last bit.

Runs where torch and transformers are: `pip install .[oracle]`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dus_cli.errors import RequestError
from tests.oracle.families import REFUSED, RIGHT
from tests.oracle.judge import Family, build, composed, logits, upscale

torch: Any = pytest.importorskip("torch", reason="needs the extra `oracle`")
transformers: Any = pytest.importorskip("transformers", reason="needs the extra `oracle`")

pytestmark = pytest.mark.filterwarnings("default")
BY_NAME = {family.name: family for family in RIGHT}


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def saved(family: Family, folder: Path) -> Any:
    """The family's model, and its checkpoint in `folder`."""
    model = build(family, torch, transformers)
    model.save_pretrained(folder, max_shard_size=family.shard_size)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name, value in family.file_edits.items():
        *outer, key = name.split(".")
        section = config
        for part in outer:
            section = section[part]
        section.pop(key, None)
        if value is not None:
            section[key] = value
    path.write_text(json.dumps(config), encoding="utf-8")
    return model


def loaded(family: Family, folder: Path) -> Any:
    """The checkpoint in `folder` as transformers loads it, which must be without a complaint."""
    model, info = getattr(transformers, family.model_class).from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert {key: value for key, value in info.items() if value} == {}
    return model.eval()


def layer_counts(family: Family, model: Any) -> list[int]:
    return [len(model.get_submodule(path)) for path in family.stacks]


@pytest.mark.parametrize("family", RIGHT, ids=str)
def test_result_is_the_model_that_torch_composes_from_the_same_layers(
    family: Family, tmp_path: Path
) -> None:
    model = saved(family, tmp_path / "source")
    maps = upscale(tmp_path / "source", tmp_path / "deep", family)
    deep = loaded(family, tmp_path / "deep")

    assert len(maps) == len(family.stacks)
    assert layer_counts(family, deep) == [2 * (family.layers - family.drop)] * len(maps)
    reference = composed(model, family, maps[0], torch)
    assert torch.equal(logits(deep, family, torch), logits(reference, family, torch))
    assert deep.config.to_dict() != model.config.to_dict()


@pytest.mark.parametrize(("family", "reason"), REFUSED, ids=str)
def test_what_no_config_can_say_is_refused(family: Family, reason: str, tmp_path: Path) -> None:
    saved(family, tmp_path / "source")
    with pytest.raises(RequestError, match=reason):
        upscale(tmp_path / "source", tmp_path / "deep", family)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param((0, 1, 2, 3, 4, 5, 6, 1, 2, 3), id="wrong seam"),
        pytest.param((0, 1, 3, 2, 4, 2, 3, 4, 5, 6), id="two layers swapped"),
        pytest.param((0, 1, 2, 3, 4, 2, 3, 4, 5, 5), id="one layer for another"),
    ],
)
def test_judge_notices_wrong_layers(wrong: Sequence[int], tmp_path: Path) -> None:
    family = BY_NAME["cohere2"]
    model = saved(family, tmp_path / "source")
    upscale(tmp_path / "source", tmp_path / "deep", family)
    output = logits(loaded(family, tmp_path / "deep"), family, torch)
    assert not torch.equal(output, logits(composed(model, family, wrong, torch), family, torch))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("cohere2", "layer_types"),
        ("gemma2", "layer_types"),
        ("qwen2-windows", "layer_types"),
        ("modernbert", "layer_types"),
        ("smollm3", "no_rope_layers"),
    ],
)
def test_judge_notices_a_list_that_was_not_gathered(name: str, field: str, tmp_path: Path) -> None:
    family = BY_NAME[name]
    model = saved(family, tmp_path / "source")
    maps = upscale(tmp_path / "source", tmp_path / "deep", family)
    path = tmp_path / "deep" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # As a script would do that cares for the length alone.
    before = getattr(model.config, field)
    config[field] = [before[i % len(before)] for i in range(len(config[field]))]
    path.write_text(json.dumps(config), encoding="utf-8")
    output = logits(loaded(family, tmp_path / "deep"), family, torch)
    assert not torch.equal(output, logits(composed(model, family, maps[0], torch), family, torch))
