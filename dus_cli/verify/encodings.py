"""What the bits of each dtype mean, as far as NaN, infinity and zero go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether there is a special value, in one pass: it is, if the extreme code is in `special`.

    `view` is the numpy dtype that the codes are taken for; its order puts special codes at an end.
    """

    view: str
    extreme: np.ufunc
    special: range


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What the bits of a dtype mean, as far as it matters here.

    `width` is the bytes of a number, `element` those of an element (two numbers in a complex one);
    types of less than a byte are taken by the byte. `magnitude` are the bits of an element that
    tell it from zero. `special` has the codes, as unsigned integers, that each finding is about.
    """

    width: int
    element: int
    magnitude: int
    special: Mapping[str, tuple[range, ...]] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()


def _signed(
    width: int, *, nan: int, infinity: int | None = None, element: int | None = None
) -> Encoding:
    """A type with a sign bit in front, in which `nan` is the least code of a positive NaN.

    As integers, positive numbers are in order and negative ones in reverse order. So the largest
    signed code tells of positive special values, the largest unsigned one of negative ones.
    """
    sign = 1 << (8 * width - 1)
    least = nan if infinity is None else infinity
    special = {"weights-nan": (range(nan, sign), range(sign + nan, 2 * sign))}
    if infinity is not None:
        special["weights-infinite"] = (range(infinity, nan), range(sign + infinity, sign + nan))
    element = element or width
    return Encoding(
        width=width,
        element=element,
        magnitude=sum((sign - 1) << (8 * at) for at in range(0, element, width)),
        special=special,
        probes=(
            Probe(f"<i{width}", np.maximum, range(least, sign)),
            Probe(f"<u{width}", np.maximum, range(sign + least, 2 * sign)),
        ),
    )


def _plain(width: int, magnitude: int | None = None) -> Encoding:
    """A type in which every code is a number."""
    return Encoding(width=width, element=width, magnitude=magnitude or (1 << 8 * width) - 1)


_NEGATIVE_ZERO_IS_NAN: Final = Encoding(
    width=1,
    element=1,
    magnitude=0xFF,
    special={"weights-nan": (range(0x80, 0x81),)},
    probes=(Probe("<i1", np.minimum, range(-0x80, -0x7F)),),
)

ENCODINGS: Final[Mapping[str, Encoding]] = MappingProxyType(
    {
        "F16": _signed(2, infinity=0x7C00, nan=0x7C01),
        "BF16": _signed(2, infinity=0x7F80, nan=0x7F81),
        "F32": _signed(4, infinity=0x7F80_0000, nan=0x7F80_0001),
        "F64": _signed(8, infinity=0x7FF0_0000_0000_0000, nan=0x7FF0_0000_0000_0001),
        "C64": _signed(4, infinity=0x7F80_0000, nan=0x7F80_0001, element=8),
        # OCP 8-bit floats: E5M2 is a short F16; E4M3 gives infinity's codes to numbers, all but
        # the last, which is NaN; E8M0 is a bare exponent.
        "F8_E5M2": _signed(1, infinity=0x7C, nan=0x7D),
        "F8_E4M3": _signed(1, nan=0x7F),
        "F8_E8M0": Encoding(
            width=1,
            element=1,
            magnitude=0xFF,
            special={"weights-nan": (range(0xFF, 0x100),)},
            probes=(Probe("<u1", np.maximum, range(0xFF, 0x100)),),
        ),
        "F8_E4M3FNUZ": _NEGATIVE_ZERO_IS_NAN,
        "F8_E5M2FNUZ": _NEGATIVE_ZERO_IS_NAN,
        # Two signs in a byte; those of six-bit floats lie in no fixed bits of one.
        "F4": _plain(1, magnitude=0x77),
        "F6_E2M3": _plain(1),
        "F6_E3M2": _plain(1),
        "U8": _plain(1),
        "I8": _plain(1),
        "U16": _plain(2),
        "I16": _plain(2),
        "U32": _plain(4),
        "I32": _plain(4),
    }
)
"""Dtypes that hold weights. BOOL and integers of 64 bits are masks, indices and counters."""
