"""The judge notices what is wrong; runs where torch and transformers are."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `conformance`")
pytest.importorskip("transformers", reason="needs the extra `conformance`")

from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.scaling import UpscaleRequest
from tests.conformance.build import build, quiet, save
from tests.conformance.compose import LayerList
from tests.conformance.judge import WrongError, compare, lists_of, load, upscale
from tests.conformance.verdicts import Verdict

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> None:
    quiet()


@pytest.mark.parametrize(
    ("sources", "verdict"),
    [
        pytest.param((0, 1, 2, 3, 1, 2, 3, 4), Verdict.RIGHT, id="the paper's map"),
        pytest.param((0, 1, 2, 3, 2, 2, 3, 4), Verdict.WRONG, id="wrong seam"),
        pytest.param((0, 1, 3, 2, 1, 2, 3, 4), Verdict.WRONG, id="two layers swapped"),
    ],
)
def test_only_the_right_layers_are_right(
    sources: Sequence[int], verdict: Verdict, tmp_path: Path
) -> None:
    built = build("cohere2")
    save(built, tmp_path / "source")
    upscale(tmp_path / "source", tmp_path / "deep", UpscaleRequest(drop=1))
    original, _ = load(type(built.model), tmp_path / "source")
    deep, _ = load(type(built.model), tmp_path / "deep")
    lists = [LayerList(path="model.layers", sources=tuple(sources))]
    if verdict is Verdict.RIGHT:
        assert compare(original, deep, lists).verdict is verdict
    else:
        with pytest.raises(WrongError, match="has other values"):
            compare(original, deep, lists)


def test_a_list_that_was_not_gathered_gives_another_output(tmp_path: Path) -> None:
    built = build("cohere2")
    save(built, tmp_path / "source")
    scaling = upscale(tmp_path / "source", tmp_path / "deep", UpscaleRequest(drop=1))
    path = tmp_path / "deep" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    before = config["layer_types"]
    config["layer_types"] = before[::-1]
    assert config["layer_types"] != before
    path.write_text(json.dumps(config), encoding="utf-8")
    original, _ = load(type(built.model), tmp_path / "source")
    deep, _ = load(type(built.model), tmp_path / "deep")
    lists = lists_of(original, open_checkpoint(tmp_path / "source"), scaling)
    with pytest.raises(WrongError, match="gives another output"):
        compare(original, deep, lists)
