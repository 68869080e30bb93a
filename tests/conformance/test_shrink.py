"""Small configurations keep what the suite is for: kinds of layers, counts of their own."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conformance.shrink import TINY, Cycle, fields_for, fit_lists, fixed, merged


class Config(SimpleNamespace):
    """As much of a configuration as is read: fields, and a method that tells a section."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


def config(model_type: str = "some", **fields: Any) -> Config:
    return Config(model_type=model_type, **fields)


S, F = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    ("default", "small", "fitted"),
    [
        pytest.param([S, F] * 6, [S, F, S, F, S], None, id="all kinds are there"),
        pytest.param([S, F] * 6, [S, F] * 6, [S, F, S, F, S], id="too long"),
        pytest.param([*[S] * 5, F] * 2, [S] * 5, [S, S, S, F, S], id="a longer period"),
        pytest.param([*[S] * 11, F], [S] * 5, [S, S, S, S, F], id="a kind at the end alone"),
        pytest.param([F, *[S] * 11], [F, S, S, S, S], None, id="a kind at the beginning alone"),
        pytest.param([1, 2, 3], [1, 2, 3], None, id="a list of something else"),
    ],
)
def test_lists_by_layer_fit_and_keep_their_kinds(
    default: list[Any], small: list[Any], fitted: list[Any] | None
) -> None:
    found = fit_lists(
        config(num_hidden_layers=5, kinds=small), config(num_hidden_layers=12, kinds=default), {}
    )
    assert found == ({} if fitted is None else {"kinds": fitted})


def test_lists_that_are_given_stay() -> None:
    small, default = config(depth=5, kinds=[S] * 5), config(depth=6, kinds=[*[S] * 5, F])
    assert fit_lists(small, default, {"kinds": [S] * 5}) == {}


@pytest.mark.parametrize(
    ("field", "default", "value"),
    [
        pytest.param("num_hidden_layers", 32, 5, id="layers"),
        pytest.param("hidden_size", 4096, 32, id="width"),
        pytest.param("sliding_window", 4096, 8, id="a window is smaller than the inputs"),
        pytest.param("sliding_window", 4, 4, id="what is small stays"),
        pytest.param("first_k_dense_replace", 3, 2, id="a prefix reaches behind the seam of m = 1"),
        pytest.param("global_attn_indexes", [2, 5, 8, 11], [1, 3], id="any numbers of layers"),
        pytest.param("intermediate_layers", [3, 7, 15], [2, 3, 4], id="as many, the last"),
    ],
)
def test_fields_become_small_by_their_names(field: str, default: Any, value: Any) -> None:
    assert {field: default, **fields_for(config(**{field: default}), TINY, {})}[field] == value


def test_parts_have_layers_of_their_own_number() -> None:
    parts: dict[str, Any] = {
        name: config(num_hidden_layers=24)
        for name in ("text_config", "vision_config", "codec_config", "qformer_config", "flow_head")
    }
    fields = fields_for(config(**parts), TINY, {})
    assert {name: section["num_hidden_layers"] for name, section in fields.items()} == {
        "text_config": 5,
        "vision_config": 7,
        "codec_config": 7,
        "qformer_config": 3,
        "flow_head": 3,
    }


def test_what_is_said_of_a_type_holds_for_sections_of_it() -> None:
    whole = config("whole", vision_config=config("part", num_hidden_layers=24))
    fields = fields_for(whole, TINY, {"part": {"kinds": Cycle((S, F))}})
    assert fields["vision_config"]["kinds"] == [S, F, S, F, S, F, S]


@pytest.mark.parametrize(
    ("stages", "indices", "kept"),
    [
        pytest.param(4, [2, 3, 4], [2, 3, 4], id="stages that stay"),
        pytest.param(12, [3, 6, 9, 12], [4, 5, 6, 7], id="layers that became fewer"),
    ],
)
def test_backbones_give_what_is_read(stages: int, indices: list[int], kept: list[int]) -> None:
    names = ["stem", *(f"stage{i + 1}" for i in range(stages))]
    count = {"num_hidden_layers": stages} if stages > 4 else {"depths": [2] * stages}
    backbone = config("vit", stage_names=names, out_indices=indices, **count)
    fields = fields_for(config(backbone_config=backbone), TINY, {})
    assert fields["backbone_config"]["out_indices"] == kept


def test_cycles_have_an_entry_a_layer() -> None:
    assert fixed({"kinds": Cycle((1, 2)), "size": 3}, 3) == {"kinds": [1, 2, 1], "size": 3}


@pytest.mark.parametrize(
    ("fields", "more", "together"),
    [
        pytest.param({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}, id="sections"),
        pytest.param(
            {"a": {"model_type": "x", "b": 1}},
            {"a": {"model_type": "y"}},
            {"a": {"model_type": "y"}},
            id="a section of another type",
        ),
        pytest.param({"a": {"b": 1}}, {"a": 2}, {"a": 2}, id="a value in its place"),
    ],
)
def test_sections_are_merged(
    fields: dict[str, Any], more: dict[str, Any], together: dict[str, Any]
) -> None:
    assert merged(fields, more) == together
