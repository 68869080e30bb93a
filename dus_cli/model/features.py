"""Fields that name hidden states of a stack: what a head or a projector reads of it.

Hidden state k is what layer k - 1 gives, and 0 what goes into the first layer. In the deeper model
a state before the seam is the same to the last bit, and so keeps its number. A later one is
counted from the last layer, for there its layer stands.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from dus_cli.errors import RequestError
from dus_cli.format.strict_json import Json
from dus_cli.model.layer_map import LayerMap


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureField:
    """A field that holds a number of a hidden state, or a list of such numbers.

    `first` is the number that stands for state 0. `around` says that the field lies in a section
    around that of a tower, and not in its own. `defaults` is what a model type takes for an absent
    field.
    """

    name: str
    first: int = 0
    around: bool = False
    defaults: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)


FEATURE_FIELDS: Final = (
    FeatureField(name="out_indices"),
    FeatureField(name="cat_hidden_layers"),
    FeatureField(
        name="intermediate_layers_indices",
        defaults=MappingProxyType({"mllama_vision_model": (3, 7, 15, 23, 30)}),
    ),
    FeatureField(
        name="backbone_out_indices",
        first=-1,
        defaults=MappingProxyType({"dpt": (2, 5, 8, 11)}),
    ),
    # The whole model's word goes before its tower's.
    *(
        FeatureField(
            name="insert_layer_id",
            first=-1,
            around=around,
            defaults=dict.fromkeys(
                ("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision"), 6
            ),
        )
        for around in (False, True)
    ),
    FeatureField(name="vision_feature_layer", around=True),
    FeatureField(name="select_layer", around=True),
)

_STAGE: Final = re.compile(r"stage(0|[1-9][0-9]{0,5})")


def moved_feature(value: Json, named: FeatureField, n: int, layer_map: LayerMap) -> Json:
    """The field's value for the deeper model; as it was where it holds something else.

    Raises RequestError where the layer behind a state is in neither copy.
    """
    if isinstance(value, list):
        return [moved_feature(entry, named, n, layer_map) for entry in value]
    if type(value) is not int or (value < 0 and named.first):
        return value
    state = n + 1 + value if value < 0 else value - named.first
    if state < 0:
        return value
    if state > n:
        # What no layer gives must be given by none of the new ones.
        return value + layer_map.layer_count - n
    moved = _moved_state(state, layer_map, named.name)
    return moved - (layer_map.layer_count + 1) if value < 0 else moved + named.first


def moved_stages(section: Mapping[str, Json], n: int, layer_map: LayerMap) -> dict[str, Json]:
    """`out_features` and `stage_names` of a backbone whose stages are its layers.

    Nothing where its stages are called otherwise, or are not as many as its layers and one more.

    Raises RequestError where a stage's layer is in neither copy.
    """
    names, features = section.get("stage_names"), section.get("out_features")
    if names is not None and names != _stage_names(n):
        return {}
    moved: dict[str, Json] = {}
    if names is not None:
        moved["stage_names"] = _stage_names(layer_map.layer_count)
    if isinstance(features, list):
        moved["out_features"] = [_moved_stage(name, n, layer_map) for name in features]
    return moved


def _stage_names(n: int) -> list[Json]:
    return ["stem", *(f"stage{number}" for number in range(1, n + 1))]


def _moved_stage(name: Json, n: int, layer_map: LayerMap) -> Json:
    match = _STAGE.fullmatch(name) if isinstance(name, str) else None
    if match is None or not 0 < int(match[1]) <= n:
        return name
    return f"stage{_moved_state(int(match[1]), layer_map, 'out_features')}"


def _moved_state(state: int, layer_map: LayerMap, field: str) -> int:
    if layer_map.sources[:state] == tuple(range(state)):
        return state
    outputs = layer_map.outputs_of(state - 1)
    if not outputs:
        raise RequestError(
            f"config.json: {field} asks for what layer {state - 1} gives, which neither copy holds",
            hint="Drop fewer layers.",
        )
    return outputs[-1] + 1
