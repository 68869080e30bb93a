"""The judge over all types: is what `dus` makes of a model the one that torch composes by hand?

The original is what transformers loads from the folder that dus reads. Both it and the result are
loaded as float32. Their weights are compared layer by layer, and then the outputs of forward passes
bit by bit. A forward pass counts only if it sees the layers: with two of them exchanged it must
give something else.
"""

import copy
import gc
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch

# Before the pool forks: each process would need two seconds for them.
import transformers.generation
import transformers.modeling_utils  # noqa: F401

from dus_cli.documents import write_documents
from dus_cli.errors import DusError
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.plan import plan_upscale
from dus_cli.scaling import Scaling, UpscaleRequest
from tests.conformance.build import NotBuiltError, build, save
from tests.conformance.compose import LayerList, NoListError, compose, find_lists
from tests.conformance.inputs import Feed, feeds, outputs
from tests.conformance.verdicts import DROPS, Judgement, Ruling, Verdict

_KEYS: Final = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
_NUMBER: Final = re.compile(r"\d+")


class WrongError(Exception):
    """The result is not the model that torch composes; the message says where they differ."""


def judge(model_type: str) -> Judgement:
    """Builds a type's model, and judges what dus makes of it for each m of DROPS.

    Raises NotBuiltError, also where transformers cannot read back what it saved.
    """
    built = build(model_type)
    model_class = type(built.model)
    with tempfile.TemporaryDirectory(prefix="dus-judge-") as place:
        source = Path(place) / "source"
        save(built, source)
        del built
        gc.collect()
        original, complaints = load(model_class, source)
        stacks: dict[str, None] = {}
        rules: dict[str, None] = {}
        rulings = []
        for drop in DROPS:
            target = Path(place) / f"deep-{drop}"
            try:
                scaling = upscale(source, target, drop)
            except DusError as error:
                rulings.append(Ruling(verdict=Verdict.REFUSED, reason=error.message))
                continue
            stacks |= dict.fromkeys(scaled.counted.stack.prefix for scaled in scaling.scaled)
            rules |= dict.fromkeys(change.rule for change in scaling.config_changes)
            deep, said = load(model_class, target)
            try:
                if new := _unnumbered(said) - _unnumbered(complaints):
                    raise WrongError(f"loading complains: {', '.join(sorted(new))}")
                lists = lists_of(original, open_checkpoint(source), scaling)
                rulings.append(compare(original, deep, lists, sound=not complaints))
            except NoListError as error:
                if complaints:
                    raise NotBuiltError(f"transformers loads it incompletely: {error}") from error
                rulings.append(Ruling(verdict=Verdict.WRONG, reason=str(error)))
            except WrongError as error:
                rulings.append(Ruling(verdict=Verdict.WRONG, reason=str(error)))
    return Judgement(
        model_class=model_class.__name__,
        stacks=tuple(stacks),
        rules=tuple(rules),
        rulings=tuple(rulings),
    )


def load(model_class: Any, folder: Path) -> tuple[Any, tuple[str, ...]]:
    """A model as float32, and what transformers has to say of its keys."""
    torch.manual_seed(3)
    try:
        model, info = model_class.from_pretrained(
            folder,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",
        )
    except ValueError as error:
        if "attn_implementation" not in str(error) and "attention" not in str(error):
            raise
        model, info = model_class.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32
        )
    complaints = tuple(f"{key}: {entry}" for key in _KEYS for entry in info.get(key) or ())
    # Copied, as where a tensor begins in a mapped file changes the last bit of some products.
    return copy.deepcopy(model.eval().float()), complaints


def upscale(source: Path, target: Path, drop: int) -> Scaling:
    """Runs dus on the stacks that it chooses by itself; raises DusError."""
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=drop))
    execute(plan, source, target, write_documents(plan, checkpoint.card))
    return plan.scaling


def lists_of(model: Any, checkpoint: Checkpoint, scaling: Scaling) -> tuple[LayerList, ...]:
    """The lists in memory of all stacks that were scaled; raises NoListError."""
    tensors = {
        name: tensor
        for shard in checkpoint.shards
        for name, tensor in safetensors.torch.load_file(checkpoint.folder / shard.name).items()
    }
    found: list[LayerList] = []
    for scaled in scaling.scaled:
        stack = scaled.counted.stack
        layers: list[dict[str, Any]] = [{} for _ in range(scaled.counted.layer_count)]
        for name, tensor in tensors.items():
            layer = stack.layer_of(name)
            if layer is not None and layer < len(layers):
                layers[layer][name] = tensor
        found += find_lists(model, layers, scaled.layer_map.sources)
    return tuple(found)


def compare(model: Any, deep: Any, lists: Sequence[LayerList], *, sound: bool) -> Ruling:
    """Whether `deep` is what torch composes of `model`; raises WrongError if not.

    `sound` says that the original came whole from its files, with no weight made up anew.
    """
    for entry in lists:
        if (length := len(deep.get_submodule(entry.path))) != len(entry.sources):
            raise WrongError(f"{entry.path} holds {length} layers, not {len(entry.sources)}")
    reference = compose(model, lists)
    if not sound:
        return Ruling(verdict=Verdict.WEIGHTS_ONLY, reason="its own files do not hold all weights")
    compare_weights(reference, deep)
    exchanged = compose(model, [_exchanged(entry) for entry in lists])
    tried: list[Trial] = []
    for trial in trials(reference, exchanged, lists):
        tried.append(trial)
        if trial.fault is None:
            break
    else:
        return Ruling(verdict=Verdict.WEIGHTS_ONLY, reason=_unseen(tried))
    feed = tried[-1].feed
    try:
        given = outputs(deep, feed)
    except Exception as error:  # foreign code, which ran on the reference
        raise WrongError(f"{feed} fails: {type(error).__name__}: {error}") from error
    if not _equal(given, outputs(reference, feed)):
        raise WrongError(f"{feed} gives another output")
    return Ruling(verdict=Verdict.RIGHT, reason=str(feed))


def compare_weights(reference: Any, deep: Any) -> None:
    """Raises WrongError unless both hold the same tensors, bit by bit."""
    expected, given = reference.state_dict(), deep.state_dict()
    if differing := expected.keys() ^ given.keys():
        raise WrongError(f"only one model has {min(differing)}")
    for name, tensor in expected.items():
        if tensor.shape != given[name].shape:
            raise WrongError(f"{name} has another shape")
        if not _same(tensor, given[name]):
            raise WrongError(f"{name} has other values")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A feed, and why it proves nothing; None if it does."""

    feed: Feed
    fault: str | None


def trials(reference: Any, exchanged: Any, lists: Sequence[LayerList]) -> Iterator[Trial]:
    """Every candidate: it must run, twice with one result, and with another if layers change."""
    for feed in feeds(reference, tuple(entry.path for entry in lists)):
        yield Trial(feed=feed, fault=_fault(reference, exchanged, feed))


def _fault(reference: Any, exchanged: Any, feed: Feed) -> str | None:
    try:
        once, again = outputs(reference, feed), outputs(reference, feed)
    except Exception as error:  # most candidates are not for this class
        return _described(error)
    # Only numbers that are finite can tell anything.
    if not once or not all(bool(torch.isfinite(tensor).any()) for tensor in once[:1]):
        return "gives no finite number"
    if not _equal(once, again):
        return "gives two results for one input"
    try:
        other = outputs(exchanged, feed)
    except Exception:  # layers of two kinds in each other's place: noticed
        return None
    return "gives the same with two layers exchanged" if _equal(once, other) else None


def _unseen(tried: Sequence[Trial]) -> str:
    if not tried:
        return "nothing to feed it"
    return f"no forward pass sees the layers; {tried[0].feed}: {tried[0].fault}"


def _described(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["without a message"]
    return f"{type(error).__name__}: {lines[-1].strip()[:160]}"


def _exchanged(entry: LayerList) -> LayerList:
    *rest, one, other = entry.sources  # Never two copies of one layer.
    return LayerList(path=entry.path, sources=(*rest, other, one))


def _equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))


def _same(one: Any, other: Any) -> bool:
    """Equal to the last bit, but that any NaN is as good as another."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    same = one == other
    if one.is_floating_point():
        same |= one.isnan() & other.isnan()
    return bool(same.all())


def _unnumbered(complaints: Sequence[str]) -> set[str]:
    """What is said with the numbers left out: those of layers are others in the result."""
    return {_NUMBER.sub("N", complaint) for complaint in complaints}
