"""Layers that `quantization_config` and the like name: `model.layers.7.mlp` for all its copies."""

import re
from collections.abc import Sequence
from typing import Final

from dus_cli.errors import RequestError
from dus_cli.format.strict_json import Json
from dus_cli.model.architecture import CountedStack, stack_side, words_of
from dus_cli.model.layer_map import LayerMap

NAMING_FIELDS: Final = ("quantization_config", "compression_config")
"""Objects in a config, at the top or in a section, whose strings are names of modules."""

_NUMBER: Final = re.compile(r"(?<![A-Za-z0-9_])[0-9]+(?![A-Za-z0-9_])")
_LAYER_NUMBER: Final = re.compile(r"[0-9]{1,6}")
_DOTTED_NAME: Final = re.compile(r"[\w-]+(?:\.[\w-]+)*")


def rename_layers(value: Json, path: str, scaled: Sequence[tuple[CountedStack, LayerMap]]) -> Json:
    """`value` with every layer's name in it replaced by those of its copies, in lists; `path` is
    for the error.

    Raises RequestError for a name that stands where several cannot, for one that does not tell
    which stack it means, and for a pattern that holds a number.
    """
    if isinstance(value, dict):
        for key in value:
            if _names_layer(key, path, scaled):
                raise _unmovable(path, key)
        return {key: rename_layers(entry, f"{path}.{key}", scaled) for key, entry in value.items()}
    if isinstance(value, list):
        return [
            renamed
            for entry in value
            for renamed in (
                _copies(entry, path, scaled)
                if isinstance(entry, str)
                else [rename_layers(entry, path, scaled)]
            )
        ]
    if isinstance(value, str) and _names_layer(value, path, scaled):
        raise _unmovable(path, value)
    return value


def _copies(name: str, path: str, scaled: Sequence[tuple[CountedStack, LayerMap]]) -> list[str]:
    """The names of all copies of the module called `name`; `name` itself outside the layers."""
    if not _names_layer(name, path, scaled):
        return [name]
    parts = name.split(".")
    for position, part in enumerate(parts):
        for counted, layer_map in scaled:
            if _LAYER_NUMBER.fullmatch(part) and _is_of(parts[:position], counted):
                outputs = _outputs(int(part), counted, layer_map)
                return [
                    ".".join((*parts[:position], str(output), *parts[position + 1 :]))
                    for output in outputs
                ]
    return [name]


def _outputs(source: int, counted: CountedStack, layer_map: LayerMap) -> tuple[int, ...]:
    if source >= counted.layer_count:
        # A trailing layer keeps its distance from the last one.
        return (source - counted.layer_count + layer_map.layer_count,)
    return layer_map.outputs_of(source)


def _names_layer(text: str, path: str, scaled: Sequence[tuple[CountedStack, LayerMap]]) -> bool:
    """Whether `text` names one layer of a scaled stack."""
    if _NUMBER.search(text) is None:
        return False
    is_pattern = not _DOTTED_NAME.fullmatch(text)
    words = {counted.stack.prefix.split(".")[-1] for counted, _ in scaled}
    if is_pattern:
        if any(re.search(rf"(?<![A-Za-z0-9_]){re.escape(word)}\W", text) for word in words):
            raise _unmovable(path, text)
        return False
    parts = text.split(".")
    return any(
        _LAYER_NUMBER.fullmatch(part)
        and any(_is_of(parts[:position], counted) for counted, _ in scaled)
        for position, part in enumerate(parts)
    )


def _is_of(parts: Sequence[str], counted: CountedStack) -> bool:
    """Whether `parts` before a number are the stack's prefix, or another way to write it.

    Frameworks add and leave out outer parts (`language_model.model.layers`, `model.layers`); the
    last one stays. A name that is nearer to another stack belongs there.
    """
    prefix = counted.stack.prefix
    if not parts or not prefix or parts[-1] != prefix.split(".")[-1]:
        return False
    mine = _likeness(parts, prefix)
    if mine < max((_likeness(parts, other) for other in counted.siblings), default=mine):
        return False
    named = ".".join(parts)
    side, own_side = stack_side(named), stack_side(prefix)
    return (
        words_of(named) - {"text"} == words_of(prefix) - {"text"}
        and (side is None or own_side is None or side == own_side)
        and "mtp" not in set(parts) - set(prefix.split("."))
    )


def _likeness(parts: Sequence[str], prefix: str) -> tuple[int, int]:
    """How many parts agree from the end, and how many anywhere."""
    other = prefix.split(".")
    same = 0
    while same < min(len(parts), len(other)) and parts[-1 - same] == other[-1 - same]:
        same += 1
    return same, len(set(parts) & set(other))


def _unmovable(path: str, text: str) -> RequestError:
    return RequestError(
        f"config.json: {path} names a layer in a way that dus cannot renumber: {text!r:.80}",
        hint="Write the module names out, one an entry, and run again.",
    )
