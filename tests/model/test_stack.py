import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dus_cli.model.stack import LayerStack, find_stacks

PREFIXES = """
model.layers model.language_model.layers language_model.model.layers model.decoder.layers
model.encoder.layers encoder.layer bert.encoder.layer distilbert.transformer.layer transformer.h h
decoder.block transformer.blocks backbone.layers gpt_neox.layers rwkv.blocks xlstm.blocks
transformer.encoder.layers visual.blocks vision_tower.vision_model.encoder.layers layers
0.auto_model.encoder.layer base_model.model.model.layers
""".split()

PARAMETERS = ("attn.q.weight", "mlp.experts.1.up.weight", "norm.weight", "0.weight")


def stack_names(prefix: str, layers: int, parameters: tuple[str, ...] = PARAMETERS) -> list[str]:
    return [f"{prefix}.{layer}.{name}" for layer in range(layers) for name in parameters]


def prefixes_and_counts(stacks: tuple[LayerStack, ...]) -> list[tuple[str, int]]:
    return [(stack.prefix, stack.layer_count) for stack in stacks]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_layers_are_found_under_any_prefix(prefix: str) -> None:
    names = ["embed.weight", *stack_names(prefix, 12), "norm.weight", "lm_head.weight"]
    (stack,) = find_stacks(names)
    assert (stack.prefix, stack.layer_count, stack.missing_numbers) == (prefix, 12, ())
    assert stack.parameters == (tuple(sorted(PARAMETERS)),) * 12


def test_names_may_begin_with_the_number() -> None:
    (stack,) = find_stacks(["0.weight", "0.bias", "1.weight", "1.bias"])
    assert stack.prefix == ""
    assert stack.layer_of("1.weight") == 1
    assert stack.rename("1.weight", layer=7) == "7.weight"


def test_numbers_behind_the_layer_belong_to_it() -> None:
    names = [f"model.layers.{i}.mlp.experts.{j}.w1.weight" for i in range(3) for j in range(8)]
    (stack,) = find_stacks(names)
    assert (stack.prefix, stack.layer_count) == ("model.layers", 3)
    name = "model.layers.1.mlp.experts.1.w1.weight"
    assert stack.layer_of(name) == 1
    # What a substring replacement of "layers.1." or "s.1." would get wrong.
    assert stack.rename(name, layer=5) == "model.layers.5.mlp.experts.1.w1.weight"


def test_several_stacks_are_told_apart_and_the_largest_comes_first() -> None:
    names = [
        *stack_names("model.language_model.layers", 6),
        *stack_names("model.visual.blocks", 3),
        *stack_names("mtp.layers", 2, ("norm.weight",)),
    ]
    assert prefixes_and_counts(find_stacks(names)) == [
        ("model.language_model.layers", 6),
        ("model.visual.blocks", 3),
        ("mtp.layers", 2),
    ]


def test_stack_knows_its_own_tensors_alone() -> None:
    names = [*stack_names("model.layers", 2), *stack_names("model.layers_norm", 2)]
    stack = next(stack for stack in find_stacks(names) if stack.prefix == "model.layers")
    assert stack.layer_of("model.layers_norm.1.norm.weight") is None
    assert stack.layer_of("model.layers.1") is None
    assert stack.layer_of("other.model.layers.1.norm.weight") is None
    assert stack.layer_of("model.layers.weight") is None


@pytest.mark.parametrize(
    "number",
    ["01", "00", "+1", "-1", "1_0", "²", "٣", "１", "1" * 60, "1e1", " 1", ""],
)
def test_only_plain_decimal_numbers_count_layers(number: str) -> None:
    names = [*stack_names("model.layers", 2), f"model.layers.{number}.norm.weight"]
    (stack,) = find_stacks(names)
    assert stack.layer_count == 2
    assert stack.layer_of(names[-1]) is None


def test_missing_layers_are_told() -> None:
    names = [name for name in stack_names("model.layers", 6) if ".layers.3." not in name]
    (stack,) = find_stacks(names)
    assert stack.numbers == (0, 1, 2, 4, 5)
    assert stack.missing_numbers == (3,)


def test_a_lone_number_is_part_of_the_prefix_when_layers_lie_behind_it() -> None:
    names = ["0.auto_model.embeddings.weight", *stack_names("0.auto_model.encoder.layer", 4)]
    (stack,) = find_stacks(names)
    assert (stack.prefix, stack.layer_count) == ("0.auto_model.encoder.layer", 4)


def test_a_lone_layer_with_numbered_parts_is_a_stack_of_one() -> None:
    (stack,) = find_stacks(["model.layers.0.norm.weight", "model.layers.0.mlp.0.weight"])
    assert (stack.prefix, stack.layer_count) == ("model.layers", 1)


def test_kinds_group_layers_by_their_parameters() -> None:
    names = [
        "h.0.attn.weight",
        "h.0.relative_bias.weight",
        "h.1.attn.weight",
        "h.2.attn.weight",
    ]
    (stack,) = find_stacks(names)
    assert stack.kinds() == (
        (("attn.weight", "relative_bias.weight"), (0,)),
        (("attn.weight",), (1, 2)),
    )


@pytest.mark.parametrize("names", [[], ["embed.weight", "norm.weight"], ["model.layers.0"]])
def test_names_without_layers_have_no_stack(names: list[str]) -> None:
    assert find_stacks(names) == ()


words = st.sampled_from(["model", "layers", "h", "experts", "q_proj", "weight", "é"])
numbers = st.integers(0, 5).map(str)


@st.composite
def tensor_names(draw: st.DrawFn) -> list[str]:
    parts = st.lists(st.one_of(words, numbers), min_size=1, max_size=6)
    return draw(st.lists(parts.map(".".join), unique=True, max_size=25))


@given(tensor_names())
def test_stacks_do_not_depend_on_the_order_of_names(names: list[str]) -> None:
    found = find_stacks(names)
    for shuffled in (sorted(names), sorted(names, reverse=True)):
        assert find_stacks(shuffled) == found


@given(tensor_names(), st.integers(0, 999_999))
def test_a_renamed_tensor_is_in_the_layer_that_it_was_renamed_to(
    names: list[str], layer: int
) -> None:
    for stack, name in itertools.product(find_stacks(names), names):
        source = stack.layer_of(name)
        if source is not None:
            renamed = stack.rename(name, layer=layer)
            assert stack.layer_of(renamed) == layer
            assert stack.rename(renamed, layer=source) == name


@given(tensor_names())
def test_a_stack_names_exactly_the_tensors_that_are_in_it(names: list[str]) -> None:
    for stack in find_stacks(names):
        described = {
            stack.tensor_name(number, parameter)
            for number, parameters in zip(stack.numbers, stack.parameters, strict=True)
            for parameter in parameters
        }
        assert described == {name for name in names if stack.layer_of(name) is not None}


def test_a_stack_that_lacks_a_million_layers_costs_no_time() -> None:
    names = [f"s{i}.layers.{n}.w.weight" for i in range(200) for n in (0, 999_999)]
    stacks = find_stacks(names)
    assert all(stack.missing_numbers[:2] == (1, 2) for stack in stacks)
