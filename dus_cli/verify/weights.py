"""What only reading the weights tells: NaN and infinity, matrices of one value, layers twice there.

Every byte is read once, in blocks that fit into a processor's cache. Special values are found by
the largest code of a block, which costs no memory and next to no time; a block is looked at
closely only when there is something in it. Layers are compared by samples, and hashed in full
only when their samples agree.
"""

import errno
import hashlib
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from dus_cli.errors import CheckpointError
from dus_cli.findings import Finding, Report, reported
from dus_cli.format.checkpoint import Checkpoint, Shard
from dus_cli.format.files import open_regular
from dus_cli.format.header import TensorInfo
from dus_cli.model.stack import LayerStack, find_stacks
from dus_cli.printable import quoted
from dus_cli.verify.encodings import ENCODINGS, Encoding

_BLOCK_BYTES: Final = 1 << 20
"""What is read and examined at once; smaller blocks cost more calls, larger ones miss the cache."""

_BATCH_BYTES: Final = 32 << 20
"""What a worker takes at once: long enough for the disk, and to make handing it over cheap."""

_BATCH_TENSORS: Final = 4096
"""The most tensors in a batch; bounds the memory where they are tiny."""

_MAX_WORKERS: Final = 8
"""More would read no faster than memory can, and each one's stack takes addresses."""

_SAMPLE_BYTES: Final = 64
"""What is taken of either end of a tensor's part to tell layers apart."""

_MIN_ELEMENTS: Final = 32
"""Smaller matrices can be of one value by chance or by design."""

_Bytes: TypeAlias = npt.NDArray[np.uint8]
_Layer: TypeAlias = tuple[str, int]
"""Prefix of a stack, and a layer's number in it."""
_Outcome = TypeVar("_Outcome")

_SCALES_ONLY: Final = "F8_E8M0"
"""Powers of two; it has no zero, and equal scales are nothing unusual."""

_PACKED: Final = frozenset({"U8", "I8", "U16", "I16", "U32", "I32"})
"""Integers that hold quantised weights, in shapes that are not the matrix's own."""

_USUALLY_UNIFORM: Final[Mapping[str, str]] = MappingProxyType(
    {
        r"bias(es)?$": "biases start at zero and may stay there; experts' are stacked in a matrix",
        r"(norm|(^|[._])ln(_\w+)?)\d*[._]\w+$": "gains start at one; some are kept for every head",
        r"scales?(_\w+)?$": "block scales are often the same",
        r"zeros$|zero_?points?$|zp$": "symmetric quantisation has one zero point",
        r"(idx|index|indices|ids|perm|mask)$": "not a weight",
        r"lora_B[.\w]*$|lora_embedding_A[.\w]*$": "starts at zero, so that an adapter is neutral",
    }
)
"""End of a tensor's name -> why a matrix of that name may be of one value."""

_USUALLY_UNIFORM_NAME: Final = re.compile("|".join(_USUALLY_UNIFORM), re.IGNORECASE)
_NAME_END: Final = 80
"""Signs of a name's end that are looked at; a hostile name is megabytes long."""

_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "weights-nan": "Training diverged, or the file is damaged; get the weights anew.",
        "weights-infinite": "A conversion to a narrower dtype may have overflowed; convert anew.",
        "weights-zero": "Right only for a layer that was made to change nothing.",
        "weights-constant": "No training gives that: were the weights ever loaded before saving?",
        "layers-identical": "If they were copied on purpose, ignore this finding.",
    }
)


def scan_weights(
    checkpoint: Checkpoint,
    report: Report,
    *,
    plan_sources: Mapping[str, Sequence[int]] = MappingProxyType({}),
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Reads all weights, reports what is wrong with them, and returns how many bytes it read.

    `plan_sources` has, for the prefix of a stack, the source layer of each of its layers: those
    of one source are expected to be the same. `progress` gets the bytes of tensors that have been
    read since its last call. Both callbacks are called in the caller's thread.

    A file that cannot be read is reported, and nothing is said of identical layers then. Tensors
    that overlap others or end behind their file are not read: their header has been found wrong.
    """
    layers = _Layers(checkpoint)
    with _Workers(checkpoint, report) as workers:
        samples: Counter[_Layer] = Counter()
        pending: dict[tuple[str, str], _Part] = {}
        for batch, seen in workers.run(_scan, _batches(checkpoint, layers)):
            samples.update(seen.samples)
            shard = batch.shard.name
            for part in seen.parts:
                key = (shard, part.tensor.name)
                pending[key] = _joined(pending[key], part) if key in pending else part
            for key in [
                key
                for key, part in pending.items()
                if key[0] != shard or part.tensor.info.end <= batch.end
            ]:
                _report_tensor(key[0], pending.pop(key), report)
            progress(batch.byte_count)
        for (shard, _), part in pending.items():
            _report_tensor(shard, part, report)
        if layers.incomplete or checkpoint.is_partial:
            return workers.bytes_read
        candidates = layers.alike(samples, plan_sources)
        digests: Counter[_Layer] = Counter()
        for _, found in workers.run(_digest, _batches(checkpoint, layers, only=candidates)):
            digests.update(found)
        if not workers.missed:
            for prefix, stack in layers.stacks.items():
                numbers = [number for number in stack.numbers if (prefix, number) in candidates]
                equal = {number: digests[prefix, number] for number in numbers}
                _report_layers(prefix, equal, plan_sources.get(prefix, ()), report)
        return workers.bytes_read


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor with its data, and the layer that it belongs to.

    `is_matrix`: it is a weight matrix, in which one value everywhere is suspicious. `role` is a
    digest of its name in the layer, its dtype and its shape, which are the same in equal layers.
    """

    name: str
    info: TensorInfo
    is_matrix: bool
    layer: _Layer | None = None
    role: bytes = b""


@dataclass(frozen=True, slots=True)
class _Block:
    """Bytes `begin` to `end` of a data section: whole tensors of one dtype, or a part of one."""

    begin: int
    end: int
    tensors: Sequence[_Tensor]

    def slices(self) -> Iterator[tuple[_Tensor, int, int]]:
        """Each tensor with the range of its bytes in this block."""
        for tensor in self.tensors:
            yield (
                tensor,
                max(tensor.info.begin, self.begin) - self.begin,
                min(tensor.info.end, self.end) - self.begin,
            )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Blocks of one shard in the order of its bytes."""

    shard: Shard
    blocks: Sequence[_Block]

    @property
    def end(self) -> int:
        return self.blocks[-1].end

    @property
    def byte_count(self) -> int:
        return sum(block.end - block.begin for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _Part:
    """What is notable in `byte_count` bytes of a tensor.

    `special` has, by code of the finding, how many elements there are and which is the first.
    `sole` is the one code that all elements have, a zero of either sign counting as 0.
    """

    tensor: _Tensor
    byte_count: int
    special: Mapping[str, tuple[int, int]]
    sole: int | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a batch holds that is notable, and the sum of the samples of each layer."""

    parts: list[_Part] = field(default_factory=list)
    samples: Counter[_Layer] = field(default_factory=Counter)


class _Layers:
    """The layers of a checkpoint that there may be copies of."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        stacks = find_stacks(name for _, name, _ in checkpoint.tensors())
        self.stacks: Mapping[str, LayerStack] = {
            stack.prefix: stack for stack in stacks if stack.layer_count > 1
        }
        self.incomplete = False
        """Whether a tensor's bytes are not its own, so that it was not read."""
        self.with_matrix: set[_Layer] = set()
        """Layers that hold a weight matrix: lists of norms and the like are often the same."""
        self._places: dict[str, tuple[_Layer, str]] = {}
        for prefix, stack in self.stacks.items():
            for number, parameters in zip(stack.numbers, stack.parameters, strict=True):
                layer = (prefix, number)
                for parameter in parameters:
                    self._places[stack.tensor_name(number, parameter)] = (layer, parameter)

    def tensor(self, name: str, info: TensorInfo) -> _Tensor:
        is_matrix = _is_weight_matrix(name, info)
        if name not in self._places:
            return _Tensor(name, info, is_matrix)
        layer, parameter = self._places[name]
        if is_matrix:
            self.with_matrix.add(layer)
        role = hashlib.sha256(repr((parameter, info.dtype, info.shape)).encode())
        return _Tensor(name, info, is_matrix, layer, role.digest())

    def alike(
        self, sums: Mapping[_Layer, int], plan_sources: Mapping[str, Sequence[int]]
    ) -> frozenset[_Layer]:
        """Layers whose sum another layer of the stack has that is of another source."""
        found: set[_Layer] = set()
        for prefix, stack in self.stacks.items():
            groups: defaultdict[int, list[int]] = defaultdict(list)
            for number in stack.numbers:
                if (prefix, number) in self.with_matrix:
                    groups[sums[prefix, number]].append(number)
            sources = plan_sources.get(prefix, ())
            for group in groups.values():
                if len({_source(sources, number) for number in group}) > 1:
                    found.update((prefix, number) for number in group)
        return frozenset(found)


class _Workers:
    """Threads that work through batches; numpy and reading let them run at the same time."""

    def __init__(self, checkpoint: Checkpoint, report: Report) -> None:
        self.bytes_read = 0
        self.missed: set[str] = set()
        """Shards that could not be read to their end."""
        self._checkpoint = checkpoint
        self._report = report
        self._count = min(_usable_cores(), _MAX_WORKERS)
        self._pool = ThreadPoolExecutor(self._count)

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(
        self, work: Callable[["_Reader"], _Outcome], batches: Iterator[_Batch]
    ) -> Iterator[tuple[_Batch, _Outcome]]:
        """Each batch with what `work` makes of it, in their order.

        A file that cannot be read is reported once, and the rest of it is left out.
        """
        waiting: deque[tuple[_Batch, Future[_Outcome]]] = deque()
        while True:
            while len(waiting) < 2 * self._count and (batch := next(batches, None)):
                if batch.shard.name not in self.missed:
                    reader = _Reader(self._checkpoint, batch)
                    waiting.append((batch, self._pool.submit(work, reader)))
            if not waiting:
                return
            batch, future = waiting.popleft()
            name = batch.shard.name
            if name in self.missed:
                continue
            outcomes: list[_Outcome] = []
            with reported(self._report, name, broken="file-unreadable"):
                outcomes.append(future.result())
            if not outcomes:
                self.missed.add(name)
            for outcome in outcomes:
                self.bytes_read += batch.byte_count
                yield batch, outcome


class _Reader:
    """The data of a batch, block by block in one piece of memory."""

    def __init__(self, checkpoint: Checkpoint, batch: _Batch) -> None:
        self._path = checkpoint.folder / batch.shard.name
        self._batch = batch

    def __iter__(self) -> Iterator[tuple[_Block, _Bytes]]:
        """Each block with its bytes, which are overwritten by those of the next one.

        Raises CheckpointError when the file cannot be read or has become shorter.
        """
        shard = self._batch.shard
        # Codes of a file with a header of odd length are aligned here all the same.
        memory = np.empty(max(block.end - block.begin for block in self._batch.blocks), np.uint8)
        with (
            open_regular(self._path, shard.name) as descriptor,
            FileIO(descriptor, closefd=False) as file,
        ):
            for block in self._batch.blocks:
                data = memory[: block.end - block.begin]
                begin = shard.header.data_start + block.begin
                try:
                    if _is_hole(descriptor, begin, begin + len(data)):
                        data.fill(0)
                    else:
                        file.seek(begin)
                        _fill(file, data.data, shard.name)
                except OSError as error:
                    raise CheckpointError(
                        f"{shard.name}: cannot be read: {error.strerror}"
                    ) from None
                yield block, data


def _is_hole(descriptor: int, begin: int, end: int) -> bool:
    """Whether nothing is stored of a range: a file of a terabyte may be all hole, and be zeros."""
    if not hasattr(os, "SEEK_DATA") or os.fstat(descriptor).st_size < end:
        return False
    try:
        return os.lseek(descriptor, begin, os.SEEK_DATA) >= end
    except OSError as error:
        # No data from there to the end; where the file system cannot tell, it is another error.
        return error.errno == errno.ENXIO


def _fill(file: FileIO, memory: memoryview, subject: str) -> None:
    done = 0
    while done < len(memory):
        count = file.readinto(memory[done:])
        if not count:
            raise CheckpointError(f"{subject}: became shorter while it was read")
        done += count


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batches(
    checkpoint: Checkpoint, layers: _Layers, *, only: frozenset[_Layer] | None = None
) -> Iterator[_Batch]:
    """All data, or that of the layers `only`, in batches in the order of the bytes on disk."""
    for shard in checkpoint.shards:
        blocks: list[_Block] = []
        size = count = 0
        for block in _blocks(_sound_tensors(shard, layers, only)):
            blocks.append(block)
            size += block.end - block.begin
            count += len(block.tensors)
            if size >= _BATCH_BYTES or count >= _BATCH_TENSORS:
                yield _Batch(shard, blocks)
                blocks, size, count = [], 0, 0
        if blocks:
            yield _Batch(shard, blocks)


def _sound_tensors(
    shard: Shard, layers: _Layers, only: frozenset[_Layer] | None
) -> Iterator[_Tensor]:
    """The shard's tensors that have data, and none that another one has too."""
    position, data_bytes = 0, shard.size - shard.header.data_start
    for name, info in shard.header.tensors.items():
        if info.begin == info.end:
            continue
        if info.begin < position or info.end > data_bytes:
            # A million tensors may claim the same gigabyte.
            layers.incomplete = True
            continue
        position = info.end
        tensor = layers.tensor(name, info)
        if only is None or tensor.layer in only:
            yield tensor


def _blocks(tensors: Iterable[_Tensor]) -> Iterator[_Block]:
    """Blocks that hold the data of `tensors`: neighbours of one dtype together, long ones cut.

    A tensor is cut at multiples of the block's size from its own beginning, so that equal tensors
    give equal parts, wherever they lie.
    """
    group: list[_Tensor] = []
    for tensor in tensors:
        info = tensor.info
        if group and not (
            info.begin == group[-1].info.end
            and info.end <= group[0].info.begin + _BLOCK_BYTES
            and info.dtype == group[0].info.dtype
            and len(group) < _BATCH_TENSORS
        ):
            yield _Block(group[0].info.begin, group[-1].info.end, group)
            group = []
        if info.byte_count <= _BLOCK_BYTES:
            group.append(tensor)
            continue
        for begin in range(info.begin, info.end, _BLOCK_BYTES):
            yield _Block(begin, min(begin + _BLOCK_BYTES, info.end), (tensor,))
    if group:
        yield _Block(group[0].info.begin, group[-1].info.end, group)


def _is_weight_matrix(name: str, info: TensorInfo) -> bool:
    """Whether one value everywhere would be suspicious in such a tensor."""
    if info.dtype not in ENCODINGS or info.dtype == _SCALES_ONLY:
        return False
    dimensions = info.shape if info.dtype in _PACKED else [size for size in info.shape if size > 1]
    return (
        len(dimensions) > 1
        and info.element_count >= _MIN_ELEMENTS
        and _USUALLY_UNIFORM_NAME.search(name[-_NAME_END:]) is None
    )


def _scan(reader: _Reader) -> _Seen:
    """What is notable in a batch; at most a few dozen bytes are kept of a tensor."""
    seen = _Seen()
    for block, data in reader:
        encoding = ENCODINGS.get(block.tensors[0].info.dtype)
        special = _special_elements(data, encoding) if encoding is not None else {}
        elements = data.view(f"<u{encoding.element}") if encoding is not None else data
        memory = data.data
        for tensor, begin, end in block.slices():
            offset = block.begin + begin - tensor.info.begin
            if tensor.layer is not None:
                head = bytes(memory[begin : min(begin + _SAMPLE_BYTES, end)])
                tail = bytes(memory[max(begin, end - _SAMPLE_BYTES) : end])
                seen.samples[tensor.layer] += hash((tensor.role, offset, head, tail))
            if encoding is None or not (special or tensor.is_matrix):
                continue
            part = slice(begin // encoding.element, end // encoding.element)
            shift = offset // encoding.element
            counts = {
                code: (int(np.count_nonzero(mask[part])), shift + int(mask[part].argmax()))
                for code, mask in special.items()
                if mask[part].any()
            }
            sole = _sole_code(elements[part], encoding.magnitude) if tensor.is_matrix else None
            if counts or sole is not None:
                seen.parts.append(_Part(tensor, end - begin, counts, sole))
    return seen


def _special_elements(data: _Bytes, encoding: Encoding) -> dict[str, npt.NDArray[np.bool_]]:
    """By code of the finding, which elements are special; empty if, as nearly always, none is."""
    if not any(
        int(probe.extreme.reduce(data.view(probe.view))) in probe.special
        for probe in encoding.probes
    ):
        return {}
    codes = data.view(f"<u{encoding.width}")
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for code, ranges in encoding.special.items():
        mask = np.zeros(len(codes), np.bool_)
        for special in ranges:
            mask |= (codes >= special.start) & (codes <= special[-1])
        parts = mask.reshape(-1, encoding.element // encoding.width)
        masks[code] = np.logical_or.reduce(parts, axis=1)
    return masks


def _sole_code(elements: npt.NDArray[Any], magnitude: int) -> int | None:
    """The code that all elements have, 0 for zeros of either sign; None where they differ."""
    first, last = int(elements[0]), int(elements[-1])
    if not (first | last) & magnitude:
        return None if int(np.bitwise_or.reduce(elements)) & magnitude else 0
    if first != last:
        return None
    return first if np.bitwise_or.reduce(elements) == np.bitwise_and.reduce(elements) else None


def _joined(first: _Part, second: _Part) -> _Part:
    """What two parts of a tensor, in this order, are together."""
    special = dict(first.special)
    for code, (count, at) in second.special.items():
        before, start = special.get(code, (0, at))
        special[code] = (before + count, start)
    return _Part(
        first.tensor,
        first.byte_count + second.byte_count,
        special,
        first.sole if first.sole == second.sole else None,
    )


def _report_tensor(shard: str, part: _Part, report: Report) -> None:
    """Reports what the notable parts of a tensor, joined, say of it as a whole."""
    tensor = part.tensor

    def say(code: str, fact: str) -> None:
        report(
            Finding(
                code=code,
                file=shard,
                tensor=tensor.name,
                message=f"tensor {quoted(tensor.name)} {fact}",
                hint=_HINTS[code],
            )
        )

    elements = tensor.info.element_count
    for code, what in (("weights-nan", "NaN"), ("weights-infinite", "infinity")):
        if code in part.special:
            count, first = part.special[code]
            say(code, f"holds {what}: {count} of {elements} elements, the first is number {first}")
    if part.special or part.byte_count != tensor.info.byte_count:
        return
    if part.sole == 0:
        say("weights-zero", f"is all zeros ({elements} elements)")
    elif part.sole is not None:
        say("weights-constant", f"has one value everywhere ({elements} elements of {part.sole:#x})")


def _digest(reader: _Reader) -> Counter[_Layer]:
    """The sum of the SHA-256 of each part of each layer in a batch.

    A sum, because the parts of a layer may lie anywhere and in any order.
    """
    sums: Counter[_Layer] = Counter()
    for block, data in reader:
        for tensor, begin, end in block.slices():
            if tensor.layer is not None:
                offset = block.begin + begin - tensor.info.begin
                digest = hashlib.sha256(b"%b%d " % (tensor.role, offset))
                # Parts of one role and offset are equally long, so that nothing may stand for
                # zeros; a hostile file holds terabytes of them.
                if np.bitwise_or.reduce(data[begin:end]):
                    digest.update(data.data[begin:end])
                sums[tensor.layer] += int.from_bytes(digest.digest(), "little")
    return sums


def _source(sources: Sequence[int], number: int) -> int:
    """The source of a layer; one that no plan knows is its own, which no source can be."""
    return sources[number] if number < len(sources) else -1 - number


def _report_layers(
    prefix: str, digests: Mapping[int, int], sources: Sequence[int], report: Report
) -> None:
    """Reports layers of equal digest and different sources, neighbours together.

    `digests` is by the number of the layer, ascending.
    """
    for begin, end, distance in _runs(_twins(digests, sources)):
        layers = f"layer {begin}" if end - begin == 1 else f"layers {begin}..{end - 1}"
        others = (
            f"layer {begin - distance}"
            if end - begin == 1
            else f"layers {begin - distance}..{end - 1 - distance}"
        )
        verb = "is" if end - begin == 1 else "are"
        report(
            Finding(
                code="layers-identical",
                message=f"{layers} of {quoted(prefix)} {verb} byte for byte {others}",
                hint=_HINTS["layers-identical"],
            )
        )


def _twins(digests: Mapping[int, int], sources: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each layer that has an equal one of another source before it, with the last such one."""
    latest: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for number, digest in digests.items():
        source, earlier = _source(sources, number), latest[digest]
        # The last layer of each source, the most recent one at the end: two steps at most.
        twin = next((earlier[key] for key in reversed(earlier) if key != source), None)
        if twin is not None:
            yield number, twin
        earlier.pop(source, None)
        earlier[source] = number


def _runs(twins: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Twins at one distance in a row as `(begin, end, distance)`, half-open."""
    run: tuple[int, int, int] | None = None
    for number, twin in twins:
        if run is not None and run[1:] == (number, number - twin):
            run = (run[0], number + 1, run[2])
            continue
        if run is not None:
            yield run
        run = (number, number + 1, number - twin)
    if run is not None:
        yield run
