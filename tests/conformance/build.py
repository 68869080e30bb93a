"""Tiny random models of every type that transformers knows, made from the configuration classes.

python -m tests.conformance.build --list [TYPE …]      which types can be built, or why not
python -m tests.conformance.build --into FOLDER TYPE … saves them, each in a folder of its name
"""

# ruff: noqa: T201

import argparse
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.conformance.overrides import OVERRIDES
from tests.conformance.pool import Outcome, run
from tests.conformance.shrink import RECIPES, Recipe, fields_for, fit_lists, fixed, merged

MAX_PARAMETERS: Final = 50_000_000

_PURPOSES: Final = """
    SEQ_TO_SEQ_CAUSAL_LM SPEECH_SEQ_2_SEQ IMAGE_TEXT_TO_TEXT MASKED_LM CAUSAL_LM MULTIMODAL_LM
    PRETRAINING CTC RNNT TEXT_TO_WAVEFORM TEXT_TO_SPECTROGRAM IMAGE_CLASSIFICATION
    AUDIO_CLASSIFICATION VIDEO_CLASSIFICATION OBJECT_DETECTION SEMANTIC_SEGMENTATION
    UNIVERSAL_SEGMENTATION DEPTH_ESTIMATION MASK_GENERATION ZERO_SHOT_IMAGE_CLASSIFICATION
    TIME_SERIES_PREDICTION SEQUENCE_CLASSIFICATION
""".split()
"""What models are for, likeliest first: the first class that a type has is built."""

_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
_SHARDED: Final = "150KB"


class NotBuiltError(Exception):
    """No recipe gives a model; the message has what the first and the last one ended in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model that was built: how, and what it is."""

    model: Any
    recipe: str
    parameters: int


def model_types() -> list[str]:
    """Every type with a model class of its own, sorted."""
    return sorted(name for name in CONFIG_MAPPING if class_names(name))


def class_names(model_type: str) -> list[str]:
    """Names of the model classes of a type, the most useful first."""
    found: dict[str, None] = {}
    for mapping in (
        *(f"MODEL_FOR_{purpose}_MAPPING_NAMES" for purpose in _PURPOSES),
        "MODEL_MAPPING_NAMES",
    ):
        names = getattr(modeling_auto, mapping).get(model_type, ())
        found |= dict.fromkeys([names] if isinstance(names, str) else names)
    return list(found)


def build(model_type: str) -> Built:
    """A small model of a type with random weights.

    Raises NotBuiltError where no class and no recipe gives one.
    """
    failures: list[str] = []
    for recipe in RECIPES:
        try:
            config = _config(model_type, recipe)
        except Exception as error:  # foreign classes raise what they like
            failures.append(_reason("config", error))
            continue
        for class_name in class_names(model_type):
            try:
                model = _instance(getattr(transformers, class_name), config)
            except ImportError as error:
                raise NotBuiltError(_reason(class_name, error)) from error
            except Exception as error:
                failures.append(_reason(class_name, error))
                continue
            count = sum(parameter.numel() for parameter in model.parameters())
            return Built(model=model, recipe=recipe.name, parameters=count)
    raise NotBuiltError(" | ".join(dict.fromkeys((failures[0], failures[-1]))))


def save(built: Built, folder: Path) -> None:
    """Saves a model as its name decides: in one of three dtypes, in one file or in shards."""
    number = zlib.crc32(built.model.config.model_type.encode())
    model = built.model.to(_DTYPES[number % 3])
    model.save_pretrained(folder, max_shard_size=_SHARDED if number // 3 % 2 else "5GB")


def _config(model_type: str, recipe: Recipe) -> Any:
    config_class = CONFIG_MAPPING[model_type]
    try:
        default = config_class()
    except Exception:
        return config_class(**fixed(OVERRIDES.get(model_type, {})))
    fields = fields_for(default, recipe, OVERRIDES)
    config = config_class(**fields)
    if lists := fit_lists(config, default, fields):
        config = config_class(**merged(fields, lists))
    return config


def _instance(model_class: Any, config: Any) -> Any:
    torch.manual_seed(0)
    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in model_class(config).parameters())
    except (NotImplementedError, RuntimeError):
        size = 0  # Some classes compute with numbers while they are made.
    if size > MAX_PARAMETERS:
        raise NotBuiltError(f"has {size:,} parameters")
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # So that no norm is all ones and no bias all zeros. Sinusoids must stay what they are.
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.tie_weights()
    return model


def _reason(subject: str, error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["without a message"]
    return f"{subject}: {type(error).__name__}: {lines[-1].strip()[:160]}"


def quiet() -> None:
    """One thread, and nothing on the screen."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _described(model_type: str) -> str:
    built = build(model_type)
    return f"built {type(built.model).__name__}, {built.parameters:,} parameters, {built.recipe}"


def outcomes(types: Sequence[str]) -> Iterator[Outcome]:
    """For each type how it was built, or why not."""
    return run(_described, types)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds tiny models of many types.")
    parser.add_argument("types", nargs="*", metavar="TYPE", help="all, if none is given")
    parser.add_argument("--list", action="store_true", help="say which can be built, or why not")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="save the models there")
    options = parser.parse_args()
    quiet()
    types = options.types or model_types()
    if options.into is not None:
        for model_type in types:
            save(build(model_type), options.into / model_type)
    if options.list:
        count = 0
        for outcome in outcomes(types):
            count += outcome.error is None
            print(f"{outcome.item}: {outcome.error or outcome.result}", flush=True)
        print(f"{count} of {len(types)} built")


if __name__ == "__main__":
    main()
