"""Layer stacks, found from tensor names alone: `model.layers.7.mlp.up_proj.weight`.

A name's dot-separated numbers are candidates for a layer number. The outermost number under
which every count from 0 occurs is the layer's; numbers behind it (`experts.3`) belong to the
layer. No list of known prefixes is needed, and none is kept.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Final

LAYER_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,5}")
"""ASCII digits without leading zeros: what a framework prints for an int. `layers.01` is none."""

_NUMBERED_PART: Final = re.compile(rf"(?:^|(?<=\.))({LAYER_NUMBER.pattern})\.")
"""A part of a name that is a number, and the dot behind it."""

_MAX_MISSING: Final = 16
"""How many missing layers are worth naming; a hostile file may lack a million."""

_MAX_PREFIX_PARTS: Final = 32
"""No model nests its modules deeper; a hostile name may, without end."""


@dataclass(frozen=True, kw_only=True)
class LayerStack:
    """Tensors named `{prefix}.{layer}.{parameter}`.

    `parameters[k]` are the parameter names of the layer `numbers[k]`, sorted; `numbers` ascend.
    """

    prefix: str
    numbers: tuple[int, ...]
    parameters: tuple[tuple[str, ...], ...]

    @cached_property
    def layer_count(self) -> int:
        """How many layers are there, trailing ones (MTP) included."""
        return len(self.numbers)

    @cached_property
    def missing_numbers(self) -> tuple[int, ...]:
        """The first few layer numbers below the last one for which there is no tensor."""
        if len(self.numbers) == self.numbers[-1] + 1:
            return ()
        present = set(self.numbers)
        absent = (number for number in range(self.numbers[-1]) if number not in present)
        return tuple(islice(absent, _MAX_MISSING))

    def layer_of(self, tensor_name: str) -> int | None:
        """The layer that a tensor belongs to, or None for one outside this stack."""
        start = len(self.prefix) + 1 if self.prefix else 0
        if start and not tensor_name.startswith(self.prefix + "."):
            return None
        number, dot, _ = tensor_name[start:].partition(".")
        return int(number) if dot and LAYER_NUMBER.fullmatch(number) else None

    def rename(self, tensor_name: str, *, layer: int) -> str:
        """The name of the same parameter in another layer."""
        start = len(self.prefix) + 1 if self.prefix else 0
        _, _, parameter = tensor_name[start:].partition(".")
        return self.tensor_name(layer, parameter)

    def tensor_name(self, layer: int, parameter: str) -> str:
        """The full name of a layer's parameter."""
        return f"{self.prefix}.{layer}.{parameter}" if self.prefix else f"{layer}.{parameter}"

    def tensor_names(self) -> Iterator[str]:
        """The names of all its tensors, layer by layer."""
        for number, parameters in zip(self.numbers, self.parameters, strict=True):
            for parameter in parameters:
                yield self.tensor_name(number, parameter)

    def kinds(self) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
        """Layers grouped by the set of their parameters, in order of first occurrence."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, names in zip(self.numbers, self.parameters, strict=True):
            groups.setdefault(names, []).append(number)
        return tuple((names, tuple(numbers)) for names, numbers in groups.items())


def find_stacks(tensor_names: Iterable[str]) -> tuple[LayerStack, ...]:
    """Every numbered group of tensors in a checkpoint, largest (most tensors) first.

    Groups with missing numbers are returned too, so that a checkpoint with a lost layer can be
    told from one without layers.
    """
    stacks = _find_from(list(tensor_names), 0)
    return tuple(
        sorted(
            stacks,
            key=lambda stack: (-sum(len(layer) for layer in stack.parameters), stack.prefix),
        )
    )


def _find_from(names: Sequence[str], start: int) -> list[LayerStack]:
    """Stacks among `names`, whose first `start` characters are settled."""
    groups: dict[str, dict[int, list[tuple[str, int]]]] = {}
    for name in names:
        # What follows the number is the parameter's name; without one it is no layer's number.
        match = _NUMBERED_PART.search(name, start)
        if match is not None:
            layers = groups.setdefault(name[: max(match.start() - 1, 0)], {})
            layers.setdefault(int(match[1]), []).append((name, match.end()))
    stacks: list[LayerStack] = []
    for prefix, layers in groups.items():
        if len(layers) == 1 and prefix.count(".") < _MAX_PREFIX_PARTS:
            # A lone number (`towers.0.layers.5`) is part of a prefix if a stack lies behind it.
            (only,) = layers.values()
            inner = _find_from([name for name, _ in only], only[0][1])
            if any(stack.layer_count > 1 for stack in inner):
                stacks += inner
                continue
        numbers = tuple(sorted(layers))
        stacks.append(
            LayerStack(
                prefix=prefix,
                numbers=numbers,
                parameters=tuple(
                    tuple(sorted([name[end:] for name, end in layers[number]]))
                    for number in numbers
                ),
            )
        )
    return stacks


def module_of(parameter: str) -> str:
    """The module that a parameter belongs to: formats store one weight as several tensors."""
    parts = parameter.split(".")
    for position, part in enumerate(parts):
        if part in ("weight", "bias"):
            return ".".join(parts[:position])
    return ".".join(parts[:-1])
