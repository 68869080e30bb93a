"""Which layers stand where others are due: faults of tensors, explained layer by layer."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

from dus_cli.errors import CheckpointError
from dus_cli.findings import Finding
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.format.files import open_regular, read_exactly
from dus_cli.format.header import TensorInfo
from dus_cli.model.stack import LayerStack
from dus_cli.printable import quoted
from dus_cli.verify.same_bytes import Claim, Place, compare

_SAMPLED_TENSORS: Final = 16
"""The largest tensors of a layer are sampled: norms and biases are often alike."""

_SAMPLE_BYTES: Final = 4096

_MAX_CANDIDATES: Final = 4
"""Source layers that are compared in full with one that is not what it should be. Of real layers
one at most has the same samples; a hostile file could make all of them fit."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor's form, and where its bytes begin."""

    info: TensorInfo
    place: Place


Layer: TypeAlias = Mapping[str, Stored]
"""The tensors of a layer, by the names that they would have in layer 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Findings about whole layers; of the tensors in the layers `explained` no more need be said.

    `bytes_read` is what it took to know.
    """

    findings: tuple[Finding, ...]
    explained: frozenset[int]
    bytes_read: int


def diagnose(
    stack: LayerStack,
    planned: Mapping[int, int],
    faulty: Set[int],
    checkpoint: Checkpoint,
    base: Checkpoint,
    *,
    named: bool,
) -> Diagnosis:
    """What is wrong with the layers `faulty`, as far as each is missing as a whole, too many, or
    byte for byte another source layer than the one in `planned`.

    `planned` is the source layer of every layer that is due. `named` puts the stack's name into
    messages.

    Raises CheckpointError when the source cannot be read.
    """
    of = f" of {quoted(stack.prefix)}" if named else ""
    there, sources = layers_of(stack, checkpoint), layers_of(stack, base)
    missing, extra = faulty - there.keys(), faulty - planned.keys()
    wrong = {layer: there[layer] for layer in sorted(faulty - missing - extra)}
    held, bytes_read = _recognise(wrong, sources, planned)
    return Diagnosis(
        findings=(
            *_misplaced(held, planned, of),
            *(
                Finding(
                    code="base-tensor-missing",
                    message=f"there {_is(run)} no {_named('layer', run)}{of}, which the plan makes",
                )
                for run in _runs(missing)
            ),
            *(
                Finding(
                    code="base-tensor-extra",
                    message=f"there {_is(run)} {_named('layer', run)}{of}, which the plan does not "
                    "make",
                )
                for run in _runs(extra)
            ),
        ),
        explained=frozenset((*missing, *extra, *held)),
        bytes_read=bytes_read,
    )


def layers_of(stack: LayerStack, checkpoint: Checkpoint) -> dict[int, dict[str, Stored]]:
    """The tensors of every layer that a checkpoint has under the stack's prefix."""
    layers: dict[int, dict[str, Stored]] = {}
    for shard, name, info in checkpoint.tensors():
        layer = stack.layer_of(name)
        if layer is not None:
            place = Place(checkpoint.folder / shard.name, shard.header.data_start + info.begin)
            layers.setdefault(layer, {})[stack.rename(name, layer=0)] = Stored(info, place)
    return layers


def _recognise(
    wrong: Mapping[int, Layer], sources: Mapping[int, Layer], planned: Mapping[int, int]
) -> tuple[dict[int, int], int]:
    """The source layer that each wrong layer holds, as far as it holds one, and bytes read."""
    forms = {_form(layer) for layer in wrong.values()}
    alike: dict[tuple[object, bytes], list[int]] = {}
    for number, layer in sources.items():
        if _form(layer) in forms:
            alike.setdefault((_form(layer), _sample(layer)), []).append(number)
    held: dict[int, int] = {}
    bytes_read = 0
    for number, layer in wrong.items():
        try:
            key = (_form(layer), _sample(layer))
        except CheckpointError:
            continue  # cut short; its tensors are reported for that
        candidates = [source for source in alike.get(key, ()) if source != planned[number]]
        for source in candidates[:_MAX_CANDIDATES]:
            result = compare(_claims(layer, sources[source]))
            bytes_read += result.bytes_read
            if not result.differences and not result.unreadable:
                held[number] = source
                break
    return held, bytes_read


def _form(layer: Layer) -> tuple[object, ...]:
    """What layers have in common that could take each other's place."""
    return tuple(
        sorted((name, stored.info.dtype, stored.info.shape) for name, stored in layer.items())
    )


def _sample(layer: Layer) -> bytes:
    """A digest of a few bytes from the middle of the layer's largest tensors."""
    largest = sorted(layer.items(), key=lambda item: (-item[1].info.byte_count, item[0]))
    digest = hashlib.sha256()
    for _, stored in largest[:_SAMPLED_TENSORS]:
        path, size = stored.place.path, stored.info.byte_count
        begin = stored.place.begin + max(size - _SAMPLE_BYTES, 0) // 2
        with open_regular(path, path.name) as descriptor:
            os.lseek(descriptor, begin, os.SEEK_SET)
            digest.update(read_exactly(descriptor, min(size, _SAMPLE_BYTES), path.name))
    return digest.digest()


def _claims(layer: Layer, source: Layer) -> Iterator[Claim]:
    for name, stored in layer.items():
        original = source[name]
        yield Claim(
            original=original.place, size=original.info.byte_count, copies={name: stored.place}
        )


def _misplaced(held: Mapping[int, int], planned: Mapping[int, int], of: str) -> Iterator[Finding]:
    """One finding for each run of layers that are off alike."""
    due_at: dict[int, list[int]] = {}
    for layer, source in planned.items():
        due_at.setdefault(source, []).append(layer)
    runs = list(_runs(held, lambda layer: (layer - held[layer], layer - planned[layer])))
    for run in runs:
        first, last = run[0], run[-1]
        off = abs(held[first] - planned[first])
        yield Finding(
            code="base-layer",
            message=(
                f"{_named('layer', run)}{of} {'hold' if run[1:] else 'holds'} "
                f"{_named('source layer', range(held[first], held[last] + 1))}, the plan says "
                f"{_span(range(planned[first], planned[last] + 1))}"
                + (f": off by {off}" if run[1:] else "")
            ),
            hint=_hint(run, runs, held, planned, due_at),
        )


def _hint(
    run: range,
    runs: Sequence[range],
    held: Mapping[int, int],
    planned: Mapping[int, int],
    due_at: Mapping[int, list[int]],
) -> str:
    source = held[run[0]]
    for other in due_at.get(source, ()):
        others = range(other, other + len(run))
        # Part of a longer run is what a seam in another place looks like.
        if others in runs and held[other] == planned[run[0]]:
            return f"Layers {_span(run)} and {_span(others)} are swapped."
    if run[1:]:
        return "A seam in another place does that: was it made with another --drop?"
    if source not in due_at:
        return f"The plan leaves source layer {source} out."
    places = " and ".join(map(str, due_at[source]))
    return f"Source layer {source} is due at layer {places}."


def _runs(
    layers: Iterable[int], kind: Callable[[int], object] = lambda layer: None
) -> Iterator[range]:
    """Consecutive layers of one kind."""
    run = range(0)
    for layer in sorted(layers):
        if run and (layer != run.stop or kind(layer) != kind(run[0])):
            yield run
            run = range(0)
        run = range(run.start if run else layer, layer + 1)
    if run:
        yield run


def _named(noun: str, numbers: range) -> str:
    return f"{noun}{'s' if numbers[1:] else ''} {_span(numbers)}"


def _span(numbers: range) -> str:
    return f"{numbers[0]}..{numbers[-1]}" if numbers[1:] else f"{numbers[0]}"


def _is(run: range) -> str:
    return "are" if run[1:] else "is"
