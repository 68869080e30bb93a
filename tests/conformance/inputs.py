"""Something to feed to any model: candidates by the names of what its forward takes.

None is right for every class, so the judge tries one after the other, on the whole model first and
then on ever smaller parts that still hold the layers in question.
"""

import inspect
import itertools
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch

BATCH: Final = 2
TOKENS: Final = 24
"""Longer than every sliding window of the models here, shorter than every table of positions."""

_IMAGE_SIZES: Final = ("image_size", "img_size", "input_size", "vision_image_size")
_WIDTHS: Final = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "emb_dim", "width")
_CHANNELS: Final = ("num_channels", "in_channels", "in_chans")
_MEL_BINS: Final = ("num_mel_bins", "n_mels", "feature_size", "input_feat_per_channel", "input_dim")
_FRAMES: Final = (60, 256, 8 * TOKENS, 3000)
"""In sound; where it is added to the tokens, eight make one of them."""

_SAMPLES: Final = 4000

Main: TypeAlias = Mapping[str, Any]
"""A main input, the first, and what describes it: a class takes of that what it knows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feed:
    """Arguments for the forward pass of the module at `path` ("" for the whole model)."""

    path: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        shapes = (
            f"{name} {'x'.join(map(str, value.shape))}" if hasattr(value, "shape") else name
            for name, value in self.arguments.items()
        )
        return f"{self.path or 'model'}({', '.join(shapes)})"


def feeds(model: Any, paths: tuple[str, ...]) -> Iterator[Feed]:
    """Candidates for `model`, then for each part of it that contains all of `paths`."""
    for path in _ancestors(paths):
        module = model.get_submodule(path)
        config = getattr(module, "config", model.config)
        for arguments in _arguments(inspect.signature(module.forward).parameters, config):
            yield Feed(path=path, arguments=arguments)
        try:
            dummy = module.dummy_inputs
        except Exception:  # noqa: S112 a property of foreign classes, with reasons of their own
            continue
        yield Feed(path=path, arguments=dummy)


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


def _arguments(
    parameters: Mapping[str, inspect.Parameter], config: Any
) -> Iterator[dict[str, Any]]:
    """Every main input that is taken, with all that may go along, then with what has to."""
    beside = {name: list(make(config)) for name, make in _BESIDE.items() if name in parameters}
    needed = {name for name, taken in parameters.items() if taken.default is taken.empty}
    for main in _mains(parameters, config):
        given = {name: value for name, value in main.items() if name in parameters}
        for values in itertools.product(*beside.values()):
            whole = dict(zip(beside, values, strict=True)) | given
            yield whole
            least = {n: v for n, v in whole.items() if n in needed or n == next(iter(main))}
            if len(least) < len(whole):
                yield least


def _mains(names: Container[str], config: Any) -> Iterator[dict[str, Any]]:
    for source in _SOURCES:
        for main in source(config):
            if next(iter(main)) not in names:
                continue
            yield dict(main)
            if source is _ids and len(main) == 1:
                for sense in _SENSES:
                    for more in sense(config):
                        if (name := next(iter(more))) in names:
                            yield {**main, **more}
                            yield {**main, name: more[name]}


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


def _generator() -> Any:
    return torch.Generator().manual_seed(1)


def _random(*shape: int) -> Any:
    return torch.randn(shape, generator=_generator())


def _numbers(*shape: int) -> Any:
    return torch.randint(3, 60, shape, generator=_generator())


def _ids(config: Any) -> Iterator[Main]:
    del config
    yield {"input_ids": _numbers(BATCH, TOKENS)}
    yield {"input_ids": _numbers(BATCH, TOKENS, 8), "codebook_idx": 2}


def _images(config: Any) -> Iterator[Main]:
    channels = next(_first(config, _CHANNELS), 3)
    sizes = dict.fromkeys((*_first(config, _IMAGE_SIZES), 64, 224))
    frames = next(_first(config, ("num_frames", "frames_per_clip")), 2)
    for size in sizes:
        for shape in ((channels, size, size), (frames, channels, size, size)):
            for name in ("pixel_values", "pixel_values_videos"):
                yield {name: _random(BATCH, *shape)}


def _patches(config: Any) -> Iterator[Main]:
    """Patches of two images of 12 x 12, however a class wants to have them and their grid."""
    height = width = 12
    patches = BATCH * height * width
    channels = next(_first(config, _CHANNELS), 3)
    patch = next(_first(config, ("patch_size", "spatial_patch_size")), 16)
    merge = next(_first(config, ("spatial_merge_size", "merge_size")), 2)
    deep = next(_first(config, ("temporal_patch_size",)), 1)
    grid = torch.tensor([[1, height, width]] * BATCH)
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    said = {
        "grid_thw": grid,
        "image_grid_thw": grid,
        "merge_sizes": torch.full((BATCH,), merge),
        "target_sizes": grid[:, 1:],
        "tgt_sizes": grid[:, 1:],
        "spatial_shapes": grid[:, 1:],
        "image_grid_hws": grid[:, 1:],
        "pixel_attention_mask": torch.ones(BATCH, height * width, dtype=torch.long),
        "pixel_position_ids": places.expand(BATCH, -1, -1),
    }
    shapes = (
        (patches, channels * deep * patch**2),
        (patches, channels * patch**2),
        (patches, channels, patch, patch),
        (1, patches, channels, patch, patch),
        (BATCH, height * width, channels * patch**2),
        (1, channels, patch, patches * patch),
    )
    for name in ("pixel_values", "hidden_states"):
        for shape in shapes:
            yield {name: _random(*shape), **said}
    # Merged, and counted as such.
    yield {
        "pixel_values": _random(patches, patch * merge, patch * merge, channels),
        "image_grid_thw": grid,
    }


def _features(config: Any) -> Iterator[Main]:
    own = list(_first(config, _MEL_BINS))
    stacked = [bins * next(_first(config, ("num_stacked_frames",)), 4) for bins in own]
    for bins in dict.fromkeys((*own, 80, 128, *stacked, *_first(config, _WIDTHS))):
        positions = [2 * value for value in _first(config, ("max_source_positions",))]
        for frames in (*positions, *_FRAMES):
            mask = torch.ones(BATCH, frames, dtype=torch.long)
            for shape in ((bins, frames), (frames, bins)):
                yield {
                    "input_features": _random(BATCH, *shape),
                    "input_features_mask": mask,
                    "attention_mask": mask,
                }


def _samples(config: Any) -> Iterator[Main]:
    del config
    for shape in ((_SAMPLES,), (1, _SAMPLES), (1024, 128)):
        yield {"input_values": _random(BATCH, *shape)}


def _series(config: Any) -> Iterator[Main]:
    lags = max(getattr(config, "lags_sequence", None) or [0])
    length = next(_first(config, ("context_length",)), 64) + lags
    ahead = next(_first(config, ("prediction_length",)), 1)
    channels = next(_first(config, ("num_input_channels",)), 1)
    features = getattr(config, "num_time_features", 0)
    for shape in ((length, channels), (length,)):
        yield {
            "past_values": _random(BATCH, *shape),
            "past_values_padding": torch.zeros(BATCH, *shape),
            "freq": torch.zeros(BATCH, 1, dtype=torch.long),
            "past_time_features": _random(BATCH, length, features),
            "past_observed_mask": torch.ones(BATCH, *shape),
            "future_values": _random(BATCH, ahead, *shape[1:]),
            "future_time_features": _random(BATCH, ahead, features),
        }


def _embeddings(config: Any) -> Iterator[Main]:
    for width in _first(config, _WIDTHS):
        for name in ("inputs_embeds", "hidden_states"):
            yield {name: _random(BATCH, TOKENS, width)}
        yield {
            "noise_embeds": _random(BATCH, TOKENS, width),
            "context_hidden_states": _random(BATCH, 5, 2 * width),  # of two layers, side by side
            "attention_mask": torch.ones(BATCH, TOKENS + 5, dtype=torch.long),
        }


_SENSES: Final = (_images, _patches, _features, _samples)
_SOURCES: Final = (_ids, *_SENSES, _series, _embeddings)


def _boxes(config: Any) -> Iterator[Any]:
    """Left, top, right, bottom: of pages 1000 wide, then of 1."""
    del config
    boxes = _numbers(BATCH, TOKENS, 4).sort().values
    yield boxes
    yield boxes / 100


def _masked_patches(config: Any) -> Iterator[Any]:
    size, patch = next(_first(config, _IMAGE_SIZES), 224), next(_first(config, ("patch_size",)), 16)
    frames, deep = (next(_first(config, (n,)), 1) for n in ("num_frames", "tubelet_size"))
    count = (size // patch) ** 2 * frames // deep
    yield (torch.arange(count) % 2 == 0).expand(BATCH, -1)


def _states(config: Any) -> Iterator[Any]:
    for width in _first(config, _WIDTHS):
        yield _random(BATCH, 5, width)


_BESIDE: Final[Mapping[str, Callable[[Any], Iterator[Any]]]] = {
    "decoder_input_ids": lambda _: iter([_numbers(BATCH, TOKENS)]),
    "bbox": _boxes,
    "bool_masked_pos": _masked_patches,
    "cross_attention_states": _states,
}
"""What goes along with any main input, where it is taken: values to choose from."""


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
