"""The reference: a model whose lists of layers hold deep copies of its own layers, in a new order.

A copied layer keeps its copy of the configuration and its number, so it computes what it did.
Outside the layers the configuration is gathered where forward passes look up a layer's place in it
(tests/oracle/judge.py); nothing else of it is read.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from tests.oracle.judge import BY_PLACE

_COUNTS: Final = (
    *("num_hidden_layers", "num_layers", "n_layers", "n_layer", "layers", "depth", "num_blocks"),
    *("encoder_layers", "num_encoder_layers", "encoder_num_hidden_layers"),
    *("decoder_layers", "num_decoder_layers", "decoder_num_hidden_layers"),
)


_BY_PLACE: Final = (*BY_PLACE, "layer_rope_theta", "rope_types")
"""Lists in a config, or in the owner of the layers, that forward passes index by their place."""

_NUMBERS: Final = ("attn_layer_indices", "fullatt_block_indexes")
"""Lists in a config of the layers' numbers that forward passes look up their place in."""

_STATES: Final = {
    "_out_indices": 0,
    "backbone_out_indices": 1,
    "cat_hidden_layers": 0,
    "insert_layer_id": 1,
    "intermediate_layers_indices": 0,
}
"""Hidden states that other parts read, one or a list, and what makes an entry the number of a
state: 0 goes into the first layer."""


class NoListError(Exception):
    """No list in memory holds the layers of a stack on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerList:
    """The list at `path` in memory, which holds a stack of the disk, and the original layer that
    each of its places is to hold."""

    stack: str
    path: str
    sources: tuple[int, ...]

    @property
    def before(self) -> int:
        """How many layers the original holds: a layer map always keeps the last one."""
        return max(self.sources) + 1


def find_lists(
    model: Any, stack: str, layers: Sequence[Mapping[str, Any]], sources: tuple[int, ...]
) -> tuple[LayerList, ...]:
    """Every list of the model that holds a stack; its `layers` map names on the disk to tensors.

    Names differ between disk and memory, so a list is told by the values of its tensors: each of
    its layers shares one with the same layer on the disk that no other layer has.

    Raises NoListError where there is none.
    """
    on_disk = [_values(layer.values()) for layer in layers]
    found = tuple(
        LayerList(stack=stack, path=path, sources=sources)
        for path, module in model.named_modules(remove_duplicate=False)
        if _is_list(module, len(layers)) and _holds(module, on_disk)
    )
    if not found:
        raise NoListError(f"no list of {len(layers)} modules holds the layers")
    return found


def compose(model: Any, lists: Sequence[LayerList]) -> Any:
    """A copy of `model` with each list replaced."""
    reference = copy.deepcopy(model)
    replaced: dict[int, Any] = {}
    inner: set[int] = set()
    for entry in lists:
        owner, _, name = entry.path.rpartition(".")
        parent = reference.get_submodule(owner)
        before = getattr(parent, name)
        if id(before) not in replaced:
            copies = [copy.deepcopy(before[source]) for source in entry.sources]
            replaced[id(before)] = type(before)(*_packed(before, copies))
        setattr(parent, name, replaced[id(before)])
        for part in _around(reference, owner):
            _extend_shared(part, entry)
            _gather(vars(part), entry)
            _count_anew(vars(part), entry)
            _renumber(vars(part), entry)
    for layers in replaced.values():
        inner |= {id(module) for module in layers.modules()}
    outside = (module for module in reference.modules() if id(module) not in inner)
    for config in _configs(outside):
        for entry in lists:
            _gather(vars(config), entry)
            if _count_anew(vars(config), entry):
                _renumber(vars(config), entry)
    return reference


def _extend_shared(owner: Any, entry: LayerList) -> None:
    """Heads of DETR and its kin: one for each decoder layer, and all of the same parameters."""
    if "decoder" not in entry.path.split("."):
        return
    for module in owner.children():
        if not _is_list(module, entry.before) or isinstance(module, torch.nn.Sequential):
            continue
        parameters = [list(map(id, head.parameters())) for head in module]
        if parameters[0] and all(each == parameters[0] for each in parameters):
            shared = {id(parameter): parameter for parameter in module[0].parameters()}
            for _ in range(len(entry.sources) - entry.before):
                module.append(copy.deepcopy(module[0], dict(shared)))
            del module[len(entry.sources) :]


def _packed(before: Any, copies: list[Any]) -> list[Any]:
    return copies if isinstance(before, torch.nn.Sequential) else [copies]


def _around(model: Any, path: str) -> Iterator[Any]:
    """The module at `path` and all that it lies in."""
    while path:
        yield model.get_submodule(path)
        path = path.rpartition(".")[0]
    yield model


def _gather(fields: dict[str, Any], entry: LayerList) -> None:
    for name in _BY_PLACE:
        values = fields.get(name)
        if isinstance(values, list) and len(values) == entry.before:
            fields[name] = [values[source] for source in entry.sources]
    for name in _NUMBERS:
        if isinstance(numbers := fields.get(name), list):
            fields[name] = [
                place for place, source in enumerate(entry.sources) if source in numbers
            ]


def _count_anew(fields: dict[str, Any], entry: LayerList) -> bool:
    """Loops of the form `for layer in self.layers[: config.num_hidden_layers]`; whether there is
    a count."""
    counts = [
        name for name in _COUNTS if type(fields.get(name)) is int and fields[name] == entry.before
    ]
    fields |= dict.fromkeys(counts, len(entry.sources))
    return bool(counts)


def _renumber(fields: dict[str, Any], entry: LayerList) -> None:
    """Before the seam a hidden state keeps its number; behind it, it counts from the last layer."""
    after = len(entry.sources)
    moved = {
        state: state
        if entry.sources[:state] == tuple(range(state))
        else state + after - entry.before
        for state in range(entry.before + 1)
    }
    for name, first in _STATES.items():
        numbers = fields.get(name)
        if type(numbers) is int:
            fields[name] = moved.get(numbers + first, numbers + first) - first
        if isinstance(numbers, list | tuple):
            fields[name] = [moved.get(number + first, number + first) - first for number in numbers]
    stages = [f"stage{state}" for state in moved]
    if fields.get("stage_names", ["", *stages[1:]])[1:] == stages[1:]:
        if "stage_names" in fields:
            fields["stage_names"] = ["stem", *(f"stage{state}" for state in range(1, after + 1))]
        if features := fields.get("_out_features"):
            renamed = {stages[state]: f"stage{moved[state]}" for state in moved}
            fields["_out_features"] = [renamed.get(feature, feature) for feature in features]


def _configs(modules: Iterable[Any]) -> Iterator[Any]:
    seen: set[int] = set()
    waiting = [config for module in modules if (config := getattr(module, "config", None))]
    while waiting:
        config = waiting.pop()
        if id(config) not in seen and hasattr(config, "to_dict"):
            seen.add(id(config))
            yield config
            waiting += [value for value in vars(config).values() if hasattr(value, "to_dict")]


def _is_list(module: Any, length: int) -> bool:
    return (
        isinstance(module, torch.nn.ModuleList | torch.nn.Sequential)
        and len(module) == length
        and all(layer is not None for layer in module)
    )


def _holds(module: Any, on_disk: Sequence[set[bytes]]) -> bool:
    in_memory = [_values(layer.state_dict().values()) for layer in module]
    return all(
        any(
            value in held and not any(value in other for k, other in enumerate(in_memory) if k != i)
            for value in on_disk[i]
        )
        for i, held in enumerate(in_memory)
    )


def _values(tensors: Iterable[Any]) -> set[bytes]:
    """The bytes of tensors as float32, whatever their shape: they may be stored transposed."""
    return {
        tensor.detach().to(torch.float32).contiguous().numpy().tobytes()
        for tensor in tensors
        if tensor.is_floating_point() and tensor.numel() > 1
    }
