"""Something to feed to any model: candidates by the names of what its forward takes.

None is right for every class, so the judge tries one after the other, on the whole model first and
then on ever smaller parts that still hold the layers in question.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch

BATCH: Final = 2
TOKENS: Final = 24
"""Longer than every sliding window of the models here, shorter than every table of positions."""

_IMAGE_SIZES: Final = ("image_size", "img_size", "input_size", "vision_image_size")
_WIDTHS: Final = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "emb_dim", "width")
_MEL_BINS: Final = ("num_mel_bins", "n_mels", "feature_size", "input_feat_per_channel", "input_dim")
_FRAMES: Final = (60, 256, 3000)
_SAMPLES: Final = 4000

Maker: TypeAlias = Callable[[Any], Iterator[Any]]
"""Values that an argument may take, from a configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Arguments for the forward pass of the module at `path` ("" for the whole model)."""

    path: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.path or 'model'}({', '.join(self.arguments)})"


def feeds(model: Any, paths: tuple[str, ...]) -> Iterator[Feed]:
    """Candidates for `model`, then for each part of it that contains all of `paths`."""
    for path in _ancestors(paths):
        module = model.get_submodule(path)
        config = getattr(module, "config", model.config)
        taken = list(inspect.signature(module.forward).parameters)
        for arguments in _arguments(taken, module, config):
            yield Feed(path=path, arguments=arguments)


def outputs(model: Any, feed: Feed) -> tuple[Any, ...]:
    """All floating-point tensors that the forward pass gives, in its order."""
    module = model.get_submodule(feed.path)
    taken = inspect.signature(module.forward).parameters
    without_cache = {"use_cache": False} if "use_cache" in taken or "kwargs" in taken else {}
    torch.manual_seed(2)
    with torch.no_grad():
        try:
            output = module(**feed.arguments, **without_cache)
        except TypeError:
            output = module(**feed.arguments)
    return tuple(tensor for tensor in _tensors(output) if tensor.is_floating_point())


def _ancestors(paths: tuple[str, ...]) -> Iterator[str]:
    owners = [path.split(".")[:-1] for path in paths]
    shared = 0
    while all(len(owner) > shared for owner in owners) and len({o[shared] for o in owners}) == 1:
        shared += 1
    for length in range(shared + 1):
        yield ".".join(owners[0][:length])


def _arguments(taken: list[str], module: Any, config: Any) -> Iterator[dict[str, Any]]:
    makers = {name: list(maker(config)) for name, maker in _MAKERS.items() if name in taken}
    for first in ("input_ids", *_SENSES, "inputs_embeds", "hidden_states"):
        for value in makers.get(first, ()):
            alone = {first: value}
            decoder = {k: makers[k][0] for k in _DECODER if makers.get(k)}
            yield alone | decoder
            if decoder:
                yield alone
            if first == "input_ids":
                for sense in _SENSES:
                    for more in makers.get(sense, ()):
                        yield alone | decoder | {sense: more}
    try:
        dummy = module.dummy_inputs
    except Exception:  # a property of foreign classes, for which each has reasons of its own
        return
    yield {name: value for name, value in dummy.items() if name in taken}


def _first(config: Any, names: tuple[str, ...]) -> Iterator[int]:
    """The values of the fields that are there: at the top, then in the sections."""
    found: dict[int, None] = {}
    sections = [config, *(v for v in vars(config).values() if hasattr(v, "to_dict"))]
    for section in sections:
        for name in names:
            value = getattr(section, name, None)
            if isinstance(value, list | tuple) and value and isinstance(value[0], int):
                value = value[0]
            if isinstance(value, int) and 0 < value <= 2048:
                found[value] = None
    return iter(found)


def _ids(config: Any) -> Iterator[Any]:
    del config
    yield torch.randint(3, 60, (BATCH, TOKENS), generator=torch.Generator().manual_seed(1))


def _random(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _images(config: Any) -> Iterator[Any]:
    channels = next(_first(config, ("num_channels", "in_channels", "in_chans")), 3)
    sizes = dict.fromkeys((*_first(config, _IMAGE_SIZES), 64, 224))
    for size in sizes:
        yield _random(BATCH, channels, size, size)
    for size in sizes:
        frames = next(_first(config, ("num_frames", "frames_per_clip")), 2)
        yield _random(BATCH, frames, channels, size, size)


def _features(config: Any) -> Iterator[Any]:
    for bins in dict.fromkeys((*_first(config, _MEL_BINS), 80, 128)):
        positions = [2 * value for value in _first(config, ("max_source_positions",))]
        for frames in (*positions, *_FRAMES):
            yield _random(BATCH, bins, frames)
            yield _random(BATCH, frames, bins)


def _samples(config: Any) -> Iterator[Any]:
    del config
    yield _random(BATCH, _SAMPLES)
    yield _random(BATCH, 1, _SAMPLES)
    yield _random(BATCH, 1024, 128)


def _embeddings(config: Any) -> Iterator[Any]:
    for width in _first(config, _WIDTHS):
        yield _random(BATCH, TOKENS, width)


_MAKERS: Final[Mapping[str, Maker]] = {
    "input_ids": _ids,
    "decoder_input_ids": _ids,
    "pixel_values": _images,
    "pixel_values_videos": _images,
    "input_features": _features,
    "input_values": _samples,
    "inputs_embeds": _embeddings,
    "hidden_states": _embeddings,
}
_SENSES: Final = ("pixel_values", "pixel_values_videos", "input_features", "input_values")
_DECODER: Final = ("decoder_input_ids",)


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
