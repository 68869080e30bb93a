from typing import Any

import pytest

from dus_cli.errors import RequestError
from dus_cli.model.config_rules import FieldKind
from dus_cli.model.features import FeatureField, moved_feature
from dus_cli.model.layer_map import LayerMap
from tests.model.rewriting import layer_names, rewritten

STATES = FeatureField(name="out_indices")
LAYERS = FeatureField(name="backbone_out_indices", first=-1)


def stages(count: int) -> list[str]:
    return ["stem", *(f"stage{number}" for number in range(1, count + 1))]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        # 8 layers become 12: 0 1 2 3 4 5 2 3 4 5 6 7.
        pytest.param(STATES, 0, 0, id="what goes in"),
        pytest.param(STATES, 6, 6, id="before the seam"),
        pytest.param(STATES, 7, 11, id="behind the seam"),
        pytest.param(STATES, 8, 12, id="the last"),
        pytest.param(STATES, -1, -1, id="the last, from the end"),
        pytest.param(STATES, -2, -2, id="behind the seam, from the end"),
        pytest.param(STATES, -3, -7, id="before the seam, from the end"),
        pytest.param(STATES, [2, 4, 6, 8], [2, 4, 6, 12], id="several"),
        pytest.param(STATES, [[1], [8]], [[1], [12]], id="lists in lists"),
        pytest.param(STATES, 9, 13, id="none such"),
        pytest.param(STATES, -10, -10, id="none such, from the end"),
        pytest.param(STATES, True, True, id="no number"),
        pytest.param(STATES, "all", "all", id="a word"),
        pytest.param(LAYERS, [2, 5, 6, 7], [2, 5, 10, 11], id="layers, not states"),
    ],
)
def test_states_before_the_seam_stay_and_later_ones_count_from_the_end(
    field: FeatureField, value: Any, expected: Any
) -> None:
    assert moved_feature(value, field, 8, LayerMap.depth_upscale(8, 2)) == expected


def test_a_state_without_a_number_of_its_own_is_not_mistaken_for_one() -> None:
    assert moved_feature(-3, LAYERS, 8, LayerMap.depth_upscale(8, 2)) == -3


@pytest.mark.parametrize(
    "fields", [{"out_indices": [3]}, {"out_indices": [-3]}, {"out_features": ["stage3"]}]
)
def test_a_state_of_a_layer_that_is_dropped_from_both_copies_is_refused(
    fields: dict[str, Any],
) -> None:
    config = {"model_type": "dinov2", "num_hidden_layers": 5, **fields}
    with pytest.raises(RequestError, match=r"asks for what layer 2 gives"):
        rewritten(config, layer_names("encoder.layer", 5), 3)
    assert rewritten(config, layer_names("encoder.layer", 5), 2).config["num_hidden_layers"] == 6


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"out_features": ["stage2", "stage4"], "out_indices": [2, 4], "stage_names": stages(4)},
            {"out_features": ["stage2", "stage6"], "out_indices": [2, 6], "stage_names": stages(6)},
        ),
        ({"out_features": ["stem", "stage4"]}, {"out_features": ["stem", "stage6"]}),
        ({"out_features": ["stage9", 1]}, {"out_features": ["stage9", 1]}),
        # Stages that are not layers.
        (
            {"out_features": ["stage4"], "stage_names": stages(5)},
            {"out_features": ["stage4"], "stage_names": stages(5)},
        ),
        ({"out_features": None}, {"out_features": None}),
        ({"cat_hidden_layers": [1, 4]}, {"cat_hidden_layers": [1, 6]}),
    ],
)
def test_a_backbone_gives_out_the_same_layers(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    config = {"model_type": "dinov2", "num_hidden_layers": 4, **fields}
    new = rewritten(config, layer_names("encoder.layer", 4), 1).config
    assert new == {**config, **expected, "num_hidden_layers": 6}


@pytest.mark.parametrize(
    ("layers", "drop", "expected"), [(12, 3, [2, 5, 8, 17]), (16, 2, [2, 5, 8, 11])]
)
def test_features_left_to_a_default_are_stated_where_they_move(
    layers: int, drop: int, expected: list[int]
) -> None:
    config = {"model_type": "dpt", "num_hidden_layers": layers}
    new = rewritten(config, layer_names("dpt.encoder.layer", layers), drop).config
    assert new.get("backbone_out_indices", [2, 5, 8, 11]) == expected
    assert ("backbone_out_indices" in new) == (expected[-1] != 11)


@pytest.mark.parametrize(
    ("stack", "layer", "expected"),
    [
        (None, [3, -1], [3, -1]),
        ("vision_tower.layers", [3, -1], [3, -1]),
        ("vision_tower.layers", 4, 6),
        ("vision_tower.layers", -3, -5),
    ],
)
def test_a_projector_reads_the_same_layer_of_a_deeper_tower(
    stack: str | None, layer: Any, expected: Any
) -> None:
    config = {
        "vision_feature_layer": layer,
        "text_config": {"model_type": "llama", "num_hidden_layers": 4},
        "vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": 4},
    }
    names = [*layer_names("language_model.layers", 4), *layer_names("vision_tower.layers", 4)]
    assert rewritten(config, names, 1, stack=stack).config["vision_feature_layer"] == expected


def test_what_a_projector_reads_is_not_about_a_language_model_beside_it() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 4, "vision_feature_layer": 4}
    new = rewritten(config, layer_names("model.layers", 4), 1).config
    assert new["vision_feature_layer"] == 4


@pytest.mark.parametrize("field", ["out_indices", "out_features", "stage_names"])
def test_the_word_of_the_user_goes_first(field: str) -> None:
    stated = {"out_indices": [4], "out_features": ["stage4"], "stage_names": stages(4)}
    config = {"model_type": "dinov2", "num_hidden_layers": 4, **stated}
    rules = {field: FieldKind.KEEP}
    new = rewritten(config, layer_names("encoder.layer", 4), 1, rules=rules).config
    assert {name for name in stated if new[name] == stated[name]} == {field}


@pytest.mark.parametrize(("layers", "expected"), [(27, None), (8, 10), (6, 10)])
def test_a_place_between_layers_that_is_left_to_a_default_moves_too(
    layers: int, expected: int | None
) -> None:
    config = {"model_type": "minicpm_ocr_vision", "num_hidden_layers": layers}
    names = layer_names("encoder.layers", layers)
    new = rewritten(config, names, 2 if layers > 6 else 1).config
    assert new.get("insert_layer_id") == expected


def test_a_place_between_layers_is_stated_for_the_whole_model_too() -> None:
    config = {
        "model_type": "minicpm_ocr",
        "text_config": {"model_type": "qwen3", "num_hidden_layers": 4},
        "vision_config": {"model_type": "minicpm_ocr_vision", "num_hidden_layers": 8},
    }
    names = [*layer_names("language_model.layers", 4), *layer_names("vision_tower.layers", 8)]
    new = rewritten(config, names, 2, stack="vision_tower.layers").config
    assert (new["insert_layer_id"], new["vision_config"]["insert_layer_id"]) == (10, 10)
    assert "insert_layer_id" not in rewritten(config, names, 1).config
