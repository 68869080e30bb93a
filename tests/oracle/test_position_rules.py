"""Position rules against the configuration classes of transformers: what a type derives for the
fields that its config leaves out is what `dus` thinks that it derives."""

from typing import Any

import pytest

from dus_cli.model.config_rules import REFUSED_MODEL_TYPES
from dus_cli.model.position_rules import POSITION_RULES, PositionRule

transformers = pytest.importorskip("transformers", reason="needs the extra `oracle`")

LISTS = (
    "layer_types",
    "mlp_layer_types",
    "no_rope_layers",
    "indexer_types",
    "layer_rope_theta",
    "num_key_value_heads_per_layer",
)
FROM_FIELDS = LISTS[:4]
"""Lists that follow from a field with a number."""

COUNTS = (11, 14, 17)
DERIVED_FROM_ANOTHER = {
    (name, "layer_types") for name in ("jamba", "llama4_text", "recurrent_gemma", "smollm3")
}
"""Lists that a type derives from other fields, which have a row."""


def config_classes() -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return {name: CONFIG_MAPPING[name] for name in CONFIG_MAPPING}


def derived(config_class: Any, layers: int, **fields: Any) -> dict[str, Any]:
    """What a configuration makes of nothing but its layer count, `{}` where that is not enough."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = config_class(num_hidden_layers=layers, **fields)
        stated = {name: getattr(config, name, None) for name in LISTS}
    except (
        AttributeError,
        TypeError,
        ValueError,
        KeyError,
        NotImplementedError,
        StrictDataclassError,
    ):
        return {}
    return stated if getattr(config, "num_hidden_layers", None) == layers else {}


def listing_rules(list_field: str) -> list[PositionRule]:
    return [
        rule
        for rule in POSITION_RULES
        if rule.encode and set(rule.encode(["sparse"]) or ()) == {list_field}
    ]


@pytest.mark.parametrize("list_field", LISTS)
def test_every_default_that_depends_on_the_number_of_a_layer_has_a_rule(list_field: str) -> None:
    wrong = []
    for name, config_class in config_classes().items():
        for layers in COUNTS:
            values = derived(config_class, layers).get(list_field)
            uniform = not isinstance(values, list) or len(values) != layers or len(set(values)) < 2
            if uniform or name in REFUSED_MODEL_TYPES or (name, list_field) in DERIVED_FROM_ANOTHER:
                continue
            rules = [rule for rule in listing_rules(list_field) if name in rule.model_types]
            if [rule.expand({}, layers) for rule in rules] != [values]:
                wrong.append((name, layers, values))
    assert not wrong, wrong


@pytest.mark.parametrize("list_field", FROM_FIELDS)
def test_rules_read_their_field_as_the_model_type_does(list_field: str) -> None:
    classes, checked, wrong = config_classes(), 0, []
    for rule in listing_rules(list_field):
        for name in sorted(rule.model_types & set(classes)):
            if rule.field == list_field:
                continue
            for value in (2, 3, 5):
                fields = {rule.field: value, "use_sliding_window": True, "sliding_window": 4}
                values = derived(classes[name], 14, **fields).get(list_field)
                if values is not None:
                    checked += 1
                    if rule.expand(fields, 14) != values:
                        wrong.append((name, rule.field, value, values))
    assert not wrong, wrong
    assert checked > 0


@pytest.mark.parametrize("list_field", LISTS)
def test_the_list_that_a_rule_writes_is_what_the_model_type_reads(list_field: str) -> None:
    classes, wrong = config_classes(), []
    for rule in listing_rules(list_field):
        for name in sorted(rule.model_types & set(classes)):
            values = derived(classes[name], 11).get(list_field)
            if values is None:
                continue
            # A pattern that no default has: the type's own, turned round.
            wanted = values[::-1]
            stated = derived(classes[name], 11, **{list_field: list(wanted)}).get(list_field)
            if stated != wanted:
                wrong.append((name, list_field, wanted, stated))
    assert not wrong, wrong
