"""The judge over all types: is what `dus` makes of a model the one that torch composes by hand?

The original is what transformers loads from the folder that dus reads. Both it and the result are
loaded as float32. Their weights are compared layer by layer, and then the outputs of forward passes
bit by bit. A forward pass counts only if it sees the layers: with two of them exchanged it must
give something else.
"""

import copy
import gc
import itertools
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import safetensors.torch
import torch

# Before the pool forks: each process would need two seconds for them.
import transformers.generation
import transformers.modeling_utils  # noqa: F401

from dus_cli.documents import write_documents
from dus_cli.errors import DusError
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.model.architecture import may_be_layers
from dus_cli.model.stack import find_stacks
from dus_cli.plan import plan_upscale
from dus_cli.scaling import Scaling, UpscaleRequest
from tests.conformance.build import NotBuiltError, build, save
from tests.conformance.compose import LayerList, NoListError, compose, find_lists
from tests.conformance.inputs import Feed, feeds, outputs
from tests.conformance.verdicts import DROPS, Judgement, Ruling, Verdict

Trace: TypeAlias = Callable[[str], None]

_KEYS: Final = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
_NUMBER: Final = re.compile(r"\d+")


class WrongError(Exception):
    """The result is not the model that torch composes; the message says where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A model as transformers loads it from `folder`, and what it complains of.

    `known` has the inputs that told layers for one m; they are tried first for the next.
    """

    folder: Path
    model: Any
    complaints: tuple[str, ...]
    known: list[Feed] = field(default_factory=list)


def judge(model_type: str, trace: Trace | None = None) -> Judgement:
    """Builds a type's model, and judges what dus makes of it: of the stacks that it chooses by
    itself for each m of DROPS, and of every stack that can be named for the first of them.

    Raises NotBuiltError, also where transformers cannot read back what it saved.
    """
    built = build(model_type)
    model_class = type(built.model)
    with tempfile.TemporaryDirectory(prefix="dus-judge-") as place:
        source = Path(place) / "source"
        save(built, source)
        del built
        gc.collect()
        model, complaints = load(model_class, source)
        original = Original(folder=source, model=model, complaints=complaints)
        stacks: dict[str, None] = {}
        rules: dict[str, None] = {}
        rulings = []
        for drop in DROPS:
            ruling, scaling = rule(original, drop, trace=trace)
            rulings.append(ruling)
            if scaling is not None:
                stacks |= dict.fromkeys(scaled.counted.stack.prefix for scaled in scaling.scaled)
                rules |= dict.fromkeys(change.rule for change in scaling.config_changes)
        named = {}
        for stack in find_stacks([name for _, name, _ in open_checkpoint(source).tensors()]):
            if may_be_layers(stack) and (stack.prefix,) != tuple(stacks):
                named[stack.prefix], _ = rule(original, DROPS[0], stack=stack.prefix, trace=trace)
    return Judgement(
        model_class=model_class.__name__,
        stacks=tuple(stacks),
        rules=tuple(rules),
        rulings=tuple(rulings),
        named=named,
    )


def rule(
    original: Original, drop: int, *, stack: str | None = None, trace: Trace | None = None
) -> tuple[Ruling, Scaling | None]:
    """What dus makes of the model for this m, and of the stack that is named; no scaling if it
    refuses.

    Raises NotBuiltError where what transformers loaded is too incomplete to tell.
    """
    with tempfile.TemporaryDirectory(prefix="deep-", dir=original.folder.parent) as place:
        target = Path(place) / "deep"
        try:
            scaling = upscale(original.folder, target, UpscaleRequest(drop=drop, stack=stack))
        except DusError as error:
            return Ruling(verdict=Verdict.REFUSED, reason=error.message), None
        except Exception as error:  # a bug, which must not pass for a model that cannot be built
            return Ruling(verdict=Verdict.WRONG, reason=f"dus fails: {_described(error)}"), None
        try:
            deep, said = load(type(original.model), target)
        except Exception as error:  # foreign code, which loads the original
            reason = f"does not load: {_described(error)}"
            return Ruling(verdict=Verdict.WRONG, reason=reason), scaling
    try:
        if new := _unnumbered(said) - _unnumbered(original.complaints):
            raise WrongError(f"loading complains: {', '.join(sorted(new))}")
        lists = lists_of(original, scaling, drop)
        return compare(original, deep, lists, trace), scaling
    except NoListError as error:
        if original.complaints:
            raise NotBuiltError(f"transformers loads it incompletely: {error}") from error
        return Ruling(verdict=Verdict.WRONG, reason=str(error)), scaling
    except WrongError as error:
        return Ruling(verdict=Verdict.WRONG, reason=str(error)), scaling


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


def upscale(source: Path, target: Path, request: UpscaleRequest) -> Scaling:
    """Runs dus; raises DusError."""
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, request)
    execute(plan, source, target, write_documents(plan, checkpoint.card))
    return plan.scaling


def lists_of(original: Original, scaling: Scaling, drop: int) -> tuple[LayerList, ...]:
    """The lists in memory of all stacks that were scaled, and what the paper makes of them.

    Raises NoListError.
    """
    checkpoint = open_checkpoint(original.folder)
    tensors = {
        name: tensor
        for shard in checkpoint.shards
        for name, tensor in safetensors.torch.load_file(checkpoint.folder / shard.name).items()
    }
    found: list[LayerList] = []
    for scaled in scaling.scaled:
        stack, n = scaled.counted.stack, scaled.counted.layer_count
        layers: list[dict[str, Any]] = [{} for _ in range(n)]
        for name, tensor in tensors.items():
            layer = stack.layer_of(name)
            if layer is not None and layer < n:
                layers[layer][name] = tensor
        # Not scaled.layer_map: what dus did is what is judged.
        sources = (*range(n - drop), *range(drop, n))
        found += find_lists(original.model, stack.prefix, layers, sources)
    return tuple(found)


def compare(
    original: Original, deep: Any, lists: Sequence[LayerList], trace: Trace | None = None
) -> Ruling:
    """Whether `deep` is what torch composes of the original; raises WrongError if not.

    `trace` is told of every forward pass that was tried.
    """
    for entry in lists:
        if (length := len(deep.get_submodule(entry.path))) != len(entry.sources):
            raise WrongError(f"{entry.path} holds {length} layers, not {len(entry.sources)}")
    reference = compose(original.model, lists)
    if original.complaints:
        return Ruling(verdict=Verdict.WEIGHTS_ONLY, reason="its own files do not hold all weights")
    compare_weights(reference, deep)
    exchanged = [
        compose(
            original.model,
            [_exchanged(entry) if entry.stack == stack else entry for entry in lists],
        )
        for stack in dict.fromkeys(entry.stack for entry in lists)
    ]
    paths = tuple(entry.path for entry in lists)
    faults: dict[str, str] = {}
    for feed in itertools.chain(original.known, feeds(reference, paths)):
        fault = _fault(reference, exchanged, feed)
        if trace is not None:
            trace(f"{feed}: {fault or 'sees the layers'}")
        if fault is None:
            break
        if feed.path == "" and _fails(deep, feed) and not _fails(original.model, feed):
            raise WrongError(f"{feed} fails, and does not with the original")
        if feed not in original.known:
            faults.setdefault(feed.path, f"{feed}: {fault}")
    else:
        first_and_last = dict.fromkeys((*list(faults.values())[:1], *list(faults.values())[-1:]))
        reason = "; ".join(("no forward pass was found that sees the layers", *first_and_last))
        return Ruling(verdict=Verdict.WEIGHTS_ONLY, reason=reason)
    if feed not in original.known:
        original.known.append(feed)
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


def _fault(reference: Any, exchanged: Sequence[Any], feed: Feed) -> str | None:
    """Why an input proves nothing: it must be taken, give one result twice, and another one of
    every model of `exchanged`, in which two layers of one stack have changed places."""
    try:
        once, again = outputs(reference, feed), outputs(reference, feed)
    except Exception as error:  # most candidates are not for this class
        return _described(error)
    # Only numbers that are finite can tell anything.
    if not once or not all(bool(torch.isfinite(tensor).any()) for tensor in once[:1]):
        return "gives no finite number"
    if not _equal(once, again):
        return "gives two results for one input"
    for other in exchanged:
        try:
            if _equal(once, outputs(other, feed)):
                return "gives the same with two layers exchanged"
        except Exception:  # noqa: S112 layers of two kinds in each other's place: noticed
            continue
    return None


def _fails(model: Any, feed: Feed) -> bool:
    try:
        outputs(model, feed)
    except Exception:  # most candidates are not for this class
        return True
    return False


def _described(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["without a message"]
    return f"{type(error).__name__}: {lines[-1].strip()[:160]}"


def _exchanged(entry: LayerList) -> LayerList:
    *rest, one, other = entry.sources  # Never two copies of one layer.
    return replace(entry, sources=(*rest, other, one))


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
