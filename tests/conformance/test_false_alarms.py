"""What looks like a fault and is none, and the fault beside it that is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dus_cli.verify.run import VerifyRequest, verify
from tests.checkpoints import write_checkpoint

Shapes = dict[str, Sequence[int]]


def layers(prefix: str, count: int, shapes: Shapes) -> dict[str, Sequence[int]]:
    return {f"{prefix}.{i}.{name}": shape for i in range(count) for name, shape in shapes.items()}


PLAIN: Shapes = {"attn.q.weight": (4, 4), "mlp.up.weight": (8, 4)}
EIGHT = layers("model.layers", 8, PLAIN)
BOTH = {**layers("vision_model.layers", 7, PLAIN), **layers("text_model.layers", 5, PLAIN)}
VISION = layers("vision_model.layers", 7, PLAIN)
COUNTS = {"text_config": {"num_hidden_layers": 5}, "vision_config": {"num_hidden_layers": 7}}
ROW = {f"encoder.conv.{i}.{name}": (4,) for i in (0, 2, 3, 5, 7) for name in ("weight", "bias")}


def extra(*numbers: int) -> Shapes:
    return {f"model.layers.{i}.attn.table": (3,) for i in numbers}


def wide(*numbers: int) -> Shapes:
    return {f"model.layers.{i}.attn.q.weight": (6, 4) for i in numbers}


@pytest.mark.parametrize(
    ("config", "shapes", "codes"),
    [
        pytest.param({}, EIGHT | extra(0), set(), id="the first layer has more"),
        pytest.param({}, EIGHT | extra(7), set(), id="the last layer has more"),
        pytest.param({}, EIGHT | extra(3), {"layer-unlike"}, id="one in the middle has more"),
        pytest.param({}, EIGHT | extra(1, 3, 5), set(), id="every other layer has more"),
        pytest.param(
            {}, EIGHT | extra(1, 2, 3, 4, 5, 7), set(), id="the ends of two kinds have less"
        ),
        pytest.param(
            {}, EIGHT | extra(0, 1, 2, 4, 5, 6, 7), {"layer-unlike"}, id="one has less than all"
        ),
        pytest.param({}, EIGHT | wide(2, 5), set(), id="two layers are wider"),
        pytest.param({}, EIGHT | wide(0), set(), id="the first layer is wider"),
        pytest.param({}, EIGHT | wide(2), {"layer-unlike"}, id="one layer is wider"),
        pytest.param(
            {"num_hidden_layers": 4},
            {f"stages.{i}.{name}": (2 << i, 4) for i in range(4) for name in PLAIN},
            set(),
            id="stages of growing width",
        ),
        pytest.param(
            {},
            {
                name: shape
                for name, shape in EIGHT.items()
                if name != "model.layers.0.attn.q.weight"
            },
            set(),
            id="the first layer has less",
        ),
        pytest.param(
            {"num_hidden_layers": 4},
            {f"stages.{i}.blocks.{j}.w": (4,) for i in range(4) for j in range(i + 1)},
            set(),
            id="stages of growing depth",
        ),
        pytest.param(
            {"num_hidden_layers": 3},
            layers("model.layers", 3, PLAIN) | extra(1),
            set(),
            id="two kinds of three layers",
        ),
        pytest.param(
            {},
            EIGHT
            | extra(2, 4)
            | wide(2, 4, 5, 6, 7)
            | {"model.layers.3.mlp.b": (4,)}
            | {"model.layers.5.mlp.c": (4,), "model.layers.6.mlp.d": (4,)},
            set(),
            id="kinds of which none is usual",
        ),
        pytest.param(
            {"model_type": "mistral"}, EIGHT | extra(0), set(), id="known: the first has more"
        ),
        pytest.param(
            {"model_type": "mistral"},
            EIGHT | extra(3),
            {"layer-extra"},
            id="known: another has more",
        ),
        pytest.param({}, EIGHT | ROW, set(), id="a row of convolutions with as many numbers"),
        pytest.param(
            {},
            {name: shape for name, shape in EIGHT.items() if ".3." not in name},
            {"layer-missing"},
            id="a layer is gone",
        ),
        pytest.param(COUNTS, BOTH, set(), id="two sub-models"),
        pytest.param(
            {**COUNTS, "architectures": ["SomeForImageClassification"]},
            VISION,
            set(),
            id="one of two sub-models, in a class that needs no other",
        ),
        pytest.param(
            {**COUNTS, "architectures": ["SomeForConditionalGeneration"]},
            VISION,
            {"config-layer-count"},
            id="one of two sub-models, in a class that needs both",
        ),
        pytest.param(
            COUNTS,
            {**VISION, **layers("text_model.layers", 6, PLAIN)},
            {"config-layer-count"},
            id="a sub-model of another depth",
        ),
        pytest.param(
            {"encoder_layers": 8, "decoder_layers": 8},
            {**layers("text_encoder.l", 8, PLAIN), **layers("text_decoder.l", 8, PLAIN)},
            set(),
            id="counts of sides that the stacks' names do not tell",
        ),
        pytest.param(
            {"model_type": "hrm_text", "num_hidden_layers": 40},
            layers("model.H.layers", 5, PLAIN),
            set(),
            id="a count of runs",
        ),
        pytest.param(
            {"text_config": {"model_type": "x", "layer_types": ["a"] * 4}},
            layers("language_model.layers", 7, PLAIN),
            set(),
            id="a list whose section counts nothing",
        ),
        pytest.param(
            {"text_config": {"num_hidden_layers": 7, "layer_types": ["a"] * 4}},
            layers("language_model.layers", 7, PLAIN),
            {"config-layer-list"},
            id="a list that is too short",
        ),
        pytest.param(
            {"tie_word_embeddings": False, "architectures": ["SomeForCausalLM"]},
            {**EIGHT, "head.weight": (9, 4)},
            set(),
            id="a head that is called head",
        ),
        pytest.param(
            {"tie_word_embeddings": False, "architectures": ["SomeForCausalLM"]},
            EIGHT,
            {"head-missing"},
            id="no head",
        ),
        pytest.param(
            {
                "tie_word_embeddings": False,
                "text_config": {"num_hidden_layers": 8, "tie_word_embeddings": True},
            },
            {**EIGHT, "lm_head.weight": (9, 4)},
            set(),
            id="sections that differ on the tie",
        ),
        pytest.param(
            {"tie_word_embeddings": True},
            {**EIGHT, "lm_head.weight": (9, 4)},
            {"head-tied"},
            id="a stored head that is tied",
        ),
    ],
)
def test_only_faults_are_found(
    config: dict[str, Any], shapes: Shapes, codes: set[str], tmp_path: Path
) -> None:
    counted = (
        {} if "_layers" in str(config) or "text_config" in config else {"num_hidden_layers": 8}
    )
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    write_checkpoint(tmp_path / "model", tensors, {"model_type": "some", **counted, **config})
    done = verify(
        tmp_path / "model", VerifyRequest(ignored=frozenset({"generation-config-missing"}))
    )
    assert set(done.counts) == codes, done.findings
