"""Which source layer each output layer is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMap:
    """`sources[j]` is the source layer that output layer `j` is a copy of; both count from 0."""

    sources: tuple[int, ...]

    @classmethod
    def depth_upscale(cls, n: int, m: int) -> "LayerMap":
        """The paper's map: layers 0..n-m-1, then m..n-1, s = 2(n-m) in all.

        `n` is the source's layer count, `m` how many layers each of the two copies loses
        (0 <= m < n). Source: Kim et al. 2023, arXiv 2312.15166, section 2.
        """
        return cls(sources=(*range(n - m), *range(m, n)))

    @property
    def layer_count(self) -> int:
        """How many layers the output has."""
        return len(self.sources)

    def gather(self, per_layer: Sequence[T]) -> list[T]:
        """One entry per output layer, taken from `per_layer`, which has one per source layer."""
        return [per_layer[source] for source in self.sources]

    def outputs_of(self, source: int) -> tuple[int, ...]:
        """The output layers that are copies of source layer `source`, in order."""
        return tuple(output for output, layer in enumerate(self.sources) if layer == source)

    def segments(self) -> tuple[range, ...]:
        """The output layers cut where the source stops being consecutive: the seams."""
        seams = [
            output
            for output in range(1, len(self.sources))
            if self.sources[output] != self.sources[output - 1] + 1
        ]
        bounds = [0, *seams, len(self.sources)]
        return tuple(range(begin, end) for begin, end in pairwise(bounds))
