"""No false alarms: what transformers saves is valid, and so is what dus makes of it.

Runs where torch and transformers are: `pip install .[oracle]`.
"""

from pathlib import Path
from typing import Any, Final

import pytest

from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.verify.run import VerifyRequest, verify
from tests.oracle.families import REFUSED, RIGHT
from tests.oracle.judge import Family, upscale

torch: Any = pytest.importorskip("torch", reason="needs the extra `oracle`")
transformers: Any = pytest.importorskip("transformers", reason="needs the extra `oracle`")

from tests.oracle.test_logits import saved  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

FAMILIES: Final = (*RIGHT, *(family for family, _ in REFUSED))
BY_NAME: Final = {family.name: family for family in FAMILIES}
NOT_SAVED: Final = frozenset({"tokenizer-missing"})
"""What a model alone does not save."""


@pytest.fixture(autouse=True, scope="module")
def one_quiet_thread() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def found(folder: Path, **request: Any) -> list[tuple[str, str]]:
    done = verify(folder, VerifyRequest(strict=True, ignored=NOT_SAVED, **request))
    assert done.tensors > 0
    return [
        (finding.code, finding.text)
        for finding in done.findings
        if finding.code != "generation-config-missing"
    ]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_what_transformers_saves_is_valid(family: Family, tmp_path: Path) -> None:
    saved(family, tmp_path)
    assert found(tmp_path) == []


@pytest.mark.parametrize("family", RIGHT, ids=str)
def test_what_dus_writes_is_valid(family: Family, tmp_path: Path) -> None:
    saved(family, tmp_path / "source")
    upscale(tmp_path / "source", tmp_path / "deep", family)
    assert found(tmp_path / "deep") == []


@pytest.mark.parametrize(
    "name", ["mistral", "bert-masked-lm", "bart", "mixtral", "llava-text", "t5", "qwen3-next"]
)
def test_what_dus_writes_is_proved_equal_to_its_source(name: str, tmp_path: Path) -> None:
    family = BY_NAME[name]
    saved(family, tmp_path / "source")
    upscale(tmp_path / "source", tmp_path / "deep", family)
    base = open_checkpoint(tmp_path / "source")
    assert found(tmp_path / "deep", deep=True, base=base) == []


@pytest.mark.parametrize(
    ("name", "parameter"), [("mistral", "self_attn.q_proj.weight"), ("mixtral", "mlp.gate.weight")]
)
def test_a_lost_tensor_is_noticed(name: str, parameter: str, tmp_path: Path) -> None:
    family = BY_NAME[name]
    model = saved(family, tmp_path)
    state = model.state_dict()
    del state[f"model.layers.1.{parameter}"]
    for path in tmp_path.glob("*.safetensors*"):
        path.unlink()
    model.save_pretrained(tmp_path, state_dict=state)
    assert {code for code, _ in found(tmp_path)} == {"layer-incomplete"}
