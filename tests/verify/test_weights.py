"""What is found by reading the weights; files are written byte by byte, the oracle is numpy."""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from dus_cli.errors import CheckpointError
from dus_cli.findings import Collector, Finding, Group, refuse
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.verify import weights
from dus_cli.verify.encodings import ENCODINGS
from dus_cli.verify.weights import scan_weights

BLOCK = 1 << 20
"""Bytes; data of that much is examined at once."""


class Raw(NamedTuple):
    """One tensor as it lies in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def vector(name: str, dtype: str, data: bytes) -> Raw:
    return Raw(name, dtype, (len(data) * 8 // BITS_PER_ELEMENT[dtype],), data)


def codes_of(dtype: str, values: Iterable[int]) -> bytes:
    """The bytes of elements with these bits."""
    width = max(BITS_PER_ELEMENT[dtype] // 8, 1)
    return b"".join(value.to_bytes(width, "little") for value in values)


def write_file(path: Path, tensors: Sequence[Raw], *, blanks: int = 0) -> None:
    """A file with these tensors in this order; `blanks` in the header move the data."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape, data in tensors:
        begin, end = end, end + len(data)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries).encode() + b" " * blanks
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(raw.data for raw in tensors))


def write_folder(folder: Path, shards: Mapping[str, Sequence[Raw]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, tensors in shards.items():
        write_file(folder / name, tensors)
    weight_map = {raw.name: name for name, tensors in shards.items() for raw in tensors}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    return folder


def scanned(path: Path, sources: Mapping[str, Sequence[int]] | None = None) -> list[Finding]:
    """All that is found in the weights of a sound checkpoint."""
    collector = Collector()
    scan_weights(open_checkpoint(path), collector, plan_sources=sources or {})
    return collector.findings


def found_in(path: Path) -> dict[str, set[str]]:
    """Names of tensors by the code of what is found in them."""
    found: dict[str, set[str]] = {}
    for finding in scanned(path):
        assert finding.tensor is not None
        found.setdefault(finding.code, set()).add(finding.tensor)
    return found


def random_bytes(count: int, seed: int = 0) -> bytes:
    """Any bytes that are no NaN and no infinity in any dtype, and no two words alike."""
    return (np.random.default_rng(seed).integers(0, 0x38, count, np.uint8)).tobytes()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_every_dtype_holds_weights_or_is_known_not_to() -> None:
    assert set(ENCODINGS) == set(BITS_PER_ELEMENT) - {"BOOL", "I64", "U64"}


EIGHT_BITS: Mapping[str, tuple[set[int], set[int]]] = {
    # OCP OFP8 1.0, table 1: E5M2 has S.11111.00 for infinity and the rest of that exponent for
    # NaN; E4M3 has S.1111.111 for NaN and no infinity. OCP MX 1.0: E8M0 has NaN at 0xFF alone;
    # FP6 and FP4 have neither. The types without a negative zero have NaN in its place.
    "F8_E5M2": ({0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}, {0x7C, 0xFC}),
    "F8_E4M3": ({0x7F, 0xFF}, set()),
    "F8_E4M3FNUZ": ({0x80}, set()),
    "F8_E5M2FNUZ": ({0x80}, set()),
    "F8_E8M0": ({0xFF}, set()),
    "F4": (set(), set()),
    "U8": (set(), set()),
    "I8": (set(), set()),
    "BOOL": (set(), set()),
}
"""Codes of NaN and of infinity."""


def apart(dtype: str, codes: Iterable[int]) -> list[Raw]:
    """A tensor for each code, with another dtype between them, so that each is examined alone."""
    other = "BOOL" if dtype == "U8" else "U8"
    return [
        raw
        for code in codes
        for raw in (
            vector(f"{code:#x}", dtype, codes_of(dtype, [0, code, 1])),
            vector(f"after {code:#x}", other, bytes(8)),
        )
    ]


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_every_code_of_eight_bits_is_told_by_its_definition(model: Path, dtype: str) -> None:
    write_file(model, apart(dtype, range(256)))
    nan, infinite = EIGHT_BITS[dtype]
    expected = {"weights-nan": nan, "weights-infinite": infinite}
    assert found_in(model) == {
        code: {f"{value:#x}" for value in values} for code, values in expected.items() if values
    }


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_special_codes_of_eight_bits_are_counted_among_all_others(model: Path, dtype: str) -> None:
    write_file(model, [vector("all", dtype, bytes(range(256)))])
    assert [finding.message for finding in scanned(model)] == [
        f"tensor 'all' holds {what}: {len(codes)} of 256 elements, the first is number {min(codes)}"
        for what, codes in zip(("NaN", "infinity"), EIGHT_BITS[dtype], strict=True)
        if codes
    ]


def as_numpy(dtype: str, codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What numpy takes elements with these bits for; BF16 is the upper half of F32."""
    if dtype == "BF16":
        return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return codes.view({"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype])


def boundary_codes(dtype: str, exponent: int) -> list[int]:
    """Codes about the special ones: `exponent` is the code of positive infinity."""
    sign = 1 << (BITS_PER_ELEMENT[dtype] - 1)
    near = [0, 1, exponent - 1, exponent, exponent + 1, sign // 2 | exponent, sign - 1]
    return [code | bit for bit in (0, sign) for code in near]


@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [("F16", 0x7C00), ("BF16", 0x7F80), ("F32", 0x7F80_0000), ("F64", 0x7FF0_0000_0000_0000)],
)
def test_each_special_code_is_found_alone(model: Path, dtype: str, exponent: int) -> None:
    codes = sorted(set(boundary_codes(dtype, exponent)))
    write_file(model, apart(dtype, codes))
    with np.errstate(all="ignore"):
        values = as_numpy(dtype, np.array(codes, f"<u{BITS_PER_ELEMENT[dtype] // 8}"))
    expected = {
        code: {f"{codes[at]:#x}" for at in np.flatnonzero(mask)}
        for code, mask in (
            ("weights-nan", np.isnan(values)),
            ("weights-infinite", np.isinf(values)),
        )
    }
    assert found_in(model) == expected


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_all_codes_of_sixteen_bits_are_counted_as_numpy_does(model: Path, dtype: str) -> None:
    codes = np.random.default_rng(0).permutation(1 << 16).astype("<u2")
    write_file(model, [vector("all", dtype, codes.tobytes())])
    values = as_numpy(dtype, codes)
    expected = [
        f"tensor 'all' holds {what}: {mask.sum()} of 65536 elements, the first is number "
        f"{mask.argmax()}"
        for what, mask in (("NaN", np.isnan(values)), ("infinity", np.isinf(values)))
    ]
    assert [finding.message for finding in scanned(model)] == expected


def test_a_complex_element_is_special_once_and_through_either_part(model: Path) -> None:
    values = np.array([1, complex(0, np.inf), complex(np.nan, np.nan), complex(np.nan, 1), 2])
    write_file(model, [vector("spectrum", "C64", values.astype("<c8").tobytes())])
    assert [finding.message for finding in scanned(model)] == [
        "tensor 'spectrum' holds NaN: 2 of 5 elements, the first is number 2",
        "tensor 'spectrum' holds infinity: 1 of 5 elements, the first is number 1",
    ]


def test_elements_are_counted_from_the_start_of_a_tensor_that_is_read_in_parts(
    model: Path,
) -> None:
    before = vector("before", "BF16", random_bytes(10))
    values = np.full(40 * BLOCK // 2, 0x3F80, "<u2")
    values[[700_000, 1_200_000, len(values) - 1]] = 0x7FC0
    write_file(model, [before, vector("long", "BF16", values.tobytes())])
    (finding,) = scanned(model)
    assert finding == Finding(
        code="weights-nan",
        file="model.safetensors",
        tensor="long",
        message=f"tensor 'long' holds NaN: 3 of {len(values)} elements, the first is number 700000",
        hint=finding.hint,
    )


@pytest.mark.parametrize("blanks", range(9))
def test_data_may_begin_at_any_byte(model: Path, blanks: int) -> None:
    values = np.array([1, 2, np.nan, 4], "<f8")
    write_file(model, [vector("odd", "F64", values.tobytes())], blanks=blanks)
    assert found_in(model) == {"weights-nan": {"odd"}}


def test_one_of_many_small_tensors_is_named(model: Path) -> None:
    tensors = [vector(f"t{number}", "F16", random_bytes(6, number)) for number in range(10_000)]
    tensors[7777] = vector("t7777", "F16", codes_of("F16", [0, 0, 0xFC00]))
    write_file(model, tensors)
    collector, steps = Collector(), list[int]()
    scan_weights(open_checkpoint(model), collector, progress=steps.append)
    # However short they are, not all of them are in work at once.
    assert max(steps) <= 4096 * 6
    assert [(finding.code, finding.message) for finding in collector.findings] == [
        (
            "weights-infinite",
            "tensor 't7777' holds infinity: 1 of 3 elements, the first is number 2",
        )
    ]


def test_findings_come_in_the_order_of_the_file(model: Path) -> None:
    bad = codes_of("BF16", [0x7F80])
    tensors = [vector(f"t{number}", "BF16", random_bytes(BLOCK) + bad) for number in range(80)]
    write_file(model, tensors)
    events: list[str | int | None] = []
    scan_weights(
        open_checkpoint(model),
        lambda finding: events.append(finding.tensor),
        progress=events.append,
    )
    assert [name for name in events if isinstance(name, str)] == [raw.name for raw in tensors]
    # They come as soon as they are known, so that they need not be kept.
    assert any(isinstance(event, int) for event in events[:-2])


ONE = {"F16": 0x3C00, "BF16": 0x3F80, "F32": 0x3F80_0000, "I32": 0x7777_7777, "U8": 7, "F4": 0x22}


def uniform(dtype: str, value: int, *shape: int, name: str = "layers.0.up_proj.weight") -> Raw:
    bits = BITS_PER_ELEMENT[dtype]
    count = math.prod(shape) * bits // 8 // max(bits // 8, 1)
    return Raw(name, dtype, shape, codes_of(dtype, [value]) * count)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        # A matrix of zeros is suspicious in every dtype that has a zero.
        *(
            (uniform(dtype, 0, 8, 8), "weights-zero")
            for dtype in sorted(set(ENCODINGS) - {"F8_E8M0"})
        ),
        *((uniform(dtype, one, 8, 8), "weights-constant") for dtype, one in ONE.items()),
        # Counters, masks and bare scales are not weights.
        *((uniform(dtype, 0, 8, 8), None) for dtype in ("BOOL", "I64", "U64", "F8_E8M0")),
        # Vectors are zero or one in sound models; so are matrices that are vectors in truth.
        (uniform("BF16", 0, 64), None),
        (uniform("BF16", 0, 1, 1, 64), None),
        (uniform("BF16", 0, 4, 1, 8), "weights-zero"),
        # Packed weights are stored in any shape with two dimensions.
        (uniform("U8", 0, 64, 1), "weights-zero"),
        (uniform("U8", 0, 64), None),
        # A handful of elements can be equal by chance.
        (uniform("BF16", 0, 5, 6), None),
        (uniform("BF16", 0, 4, 8), "weights-zero"),
        # A zero of either sign is zero, in any mixture.
        (uniform("BF16", 0x8000, 8, 8), "weights-zero"),
        (uniform("F4", 0x88, 8, 8), "weights-zero"),
        (Raw("w", "BF16", (8, 8), codes_of("BF16", [0, 0x8000] * 32)), "weights-zero"),
        (Raw("w", "C64", (8, 8), codes_of("F32", [1 << 31, 0] * 64)), "weights-zero"),
        (Raw("w", "I32", (8, 8), codes_of("I32", [0, 1 << 31] * 32)), None),
        (Raw("w", "F8_E4M3", (8, 8), codes_of("F8_E4M3", [0, 0x80] * 32)), "weights-zero"),
        # A single other element, in any place, makes it a matrix like others.
        *(
            (
                Raw("w", "BF16", (8, 8), codes_of("BF16", [base] * at + [2] + [base] * (63 - at))),
                None,
            )
            for base in (0, 0x3F80)
            for at in (0, 31, 63)
        ),
        # Real and imaginary part differ, elements do not.
        (Raw("w", "C64", (8, 8), codes_of("F32", [1, 2] * 64)), "weights-constant"),
        # What is not finite is said once.
        (uniform("BF16", 0x7FC0, 8, 8), "weights-nan"),
        (uniform("BF16", 0xFF80, 8, 8), "weights-infinite"),
    ],
    ids=lambda value: value if isinstance(value, str | None) else f"{value.dtype}-{value.shape}",
)
def test_one_value_everywhere_is_suspicious_in_a_weight_matrix(
    model: Path, tensor: Raw, expected: str | None
) -> None:
    write_file(model, [tensor])
    assert found_in(model) == ({expected: {tensor.name}} if expected else {})


@pytest.mark.parametrize(
    ("name", "is_suspicious"),
    [
        ("model.layers.0.self_attn.q_proj.weight", True),
        ("model.layers.0.mlp.up_proj.qweight", True),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", True),
        ("model.embed_tokens.weight", True),
        ("transformer.normal.upscale_conv.weight", True),
        ("base.layers.0.q_proj.lora_A.weight", True),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", False),
        ("model.layers.0.self_attn.q_norm.weight", False),
        ("encoder.layer.0.LayerNorm.weight", False),
        ("transformer.h.0.ln_1.weight", False),
        ("decoder.linear_qkv.layer_norm_weight", False),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", False),
        ("model.layers.0.mlp.up_proj.scales", False),
        ("model.layers.0.mlp.up_proj.qzeros", False),
        ("model.layers.0.mlp.up_proj.weight_zero_point", False),
        ("model.layers.0.mlp.up_proj.g_idx", False),
        ("layers.0.attn.relative_position_index", False),
        ("base.layers.0.q_proj.lora_B.weight", False),
        ("base.layers.0.q_proj.lora_B.default.weight", False),
    ],
)
def test_names_say_which_matrices_may_be_uniform(
    model: Path, name: str, is_suspicious: bool
) -> None:
    write_file(model, [uniform("I32", 0, 8, 8, name=name)])
    assert bool(scanned(model)) is is_suspicious


@pytest.mark.parametrize(
    ("value", "changed", "expected"),
    [
        (0, None, "weights-zero"),
        (0x3F80, None, "weights-constant"),
        (0, 0, None),
        (0, BLOCK // 2, None),
        (0x3F80, BLOCK // 2 - 1, None),
        (0x3F80, 20 * BLOCK, None),
        (0x3F80, -1, None),
    ],
)
def test_a_long_matrix_is_uniform_only_as_a_whole(
    model: Path, value: int, changed: int | None, expected: str | None
) -> None:
    values = np.full((41, BLOCK // 2), value, "<u2")
    if changed is not None:
        values.reshape(-1)[changed] = 1
    write_file(model, [Raw("long", "BF16", values.shape, values.tobytes())])
    assert found_in(model) == ({expected: {"long"}} if expected else {})


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "weights-zero"), (1, None), (0x7F80, "weights-infinite")]
)
def test_holes_of_a_file_are_zeros(model: Path, value: int, expected: str | None) -> None:
    blocks = 200
    entry = {"dtype": "BF16", "shape": [blocks, BLOCK // 2], "data_offsets": [0, blocks * BLOCK]}
    text = json.dumps({"w": entry}).encode()
    with model.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if value:
            file.seek(130 * BLOCK, os.SEEK_CUR)
            file.write(value.to_bytes(2, "little"))
        file.truncate(8 + len(text) + blocks * BLOCK)
    assert found_in(model) == ({expected: {"w"}} if expected else {})


def test_a_file_that_ends_in_a_hole_can_become_shorter(model: Path) -> None:
    entry = {"dtype": "U8", "shape": [100 * BLOCK], "data_offsets": [0, 100 * BLOCK]}
    text = json.dumps({"w": entry}).encode()
    with model.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 100 * BLOCK)
    checkpoint = open_checkpoint(model)
    cut(model)
    collector = Collector()
    scan_weights(checkpoint, collector)
    assert [finding.code for finding in collector.findings] == ["file-unreadable"]


def test_halves_of_two_values_are_not_one_value(model: Path) -> None:
    halves = codes_of("BF16", [0x3F80]) * (BLOCK // 2) + codes_of("BF16", [0]) * (BLOCK // 2)
    write_file(model, [Raw("long", "BF16", (2, BLOCK // 2), halves)])
    assert found_in(model) == {}


def layer(number: int, seed: int, *, prefix: str = "model.layers", size: int = 64) -> list[Raw]:
    """A layer of a vector that all share, and a matrix from a seed."""
    start = f"{prefix}.{number}."
    return [
        vector(start + "norm.weight", "BF16", b"\x80\x3f" * 8),
        Raw(start + "up_proj.weight", "BF16", (2, size // 4), random_bytes(size, seed)),
    ]


def stack(seeds: Sequence[int], **more: Any) -> list[Raw]:
    return [raw for number, seed in enumerate(seeds) for raw in layer(number, seed, **more)]


def identical(path: Path, sources: Mapping[str, Sequence[int]] | None = None) -> list[str]:
    findings = scanned(path, sources)
    assert {finding.code for finding in findings} <= {"layers-identical"}
    return [finding.message for finding in findings]


NO_PLAN: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("seeds", "sources", "expected"),
    [
        ((0, 1, 2, 3), NO_PLAN, []),
        ((0, 1, 2, 1, 2, 3), NO_PLAN, ["layers 3..4 of {} are byte for byte layers 1..2"]),
        ((0, 1, 2, 3, 2, 4), NO_PLAN, ["layer 4 of {} is byte for byte layer 2"]),
        ((0, 0, 0, 0), NO_PLAN, ["layers 1..3 of {} are byte for byte layers 0..2"]),
        (
            (0, 1, 0, 2, 1),
            NO_PLAN,
            ["layer 2 of {} is byte for byte layer 0", "layer 4 of {} is byte for byte layer 1"],
        ),
        # Only neighbours at one distance are told together.
        (
            (0, 1, 0, 0),
            NO_PLAN,
            ["layer 2 of {} is byte for byte layer 0", "layer 3 of {} is byte for byte layer 2"],
        ),
        (
            (0, 1, 0, 2, 0),
            NO_PLAN,
            ["layer 2 of {} is byte for byte layer 0", "layer 4 of {} is byte for byte layer 2"],
        ),
        # What the plan says is no finding, and what it does not say is one.
        ((0, 1, 2, 1, 2, 3), (0, 1, 2, 1, 2, 3), []),
        ((0, 1, 2, 1, 2, 3), (0, 1, 2, 1, 3, 4), ["layer 4 of {} is byte for byte layer 2"]),
        (
            (0, 1, 2, 2, 2, 3),
            (0, 1, 2, 1, 2, 3),
            ["layers 3..4 of {} are byte for byte layers 2..3"],
        ),
        # The last layer before it that is of another source is named.
        ((0, 7, 7, 7), (0, 1, 1, 2), ["layer 3 of {} is byte for byte layer 2"]),
        ((7, 7, 7, 7), (1, 2, 1, 3), ["layers 1..3 of {} are byte for byte layers 0..2"]),
        # Copies that differ are the business of another check.
        ((0, 1, 2, 3, 4, 5), (0, 1, 2, 1, 2, 3), []),
        # Layers behind those of the plan are nobody's copies.
        ((0, 1, 0), (0, 1), ["layer 2 of {} is byte for byte layer 0"]),
        ((0, 1, 1), (0, 2), ["layer 2 of {} is byte for byte layer 1"]),
        ((0, 1, 2, 2), (0, 1), ["layer 3 of {} is byte for byte layer 2"]),
    ],
)
def test_layers_are_the_same_only_where_the_plan_says_so(
    model: Path, seeds: Sequence[int], sources: Sequence[int], expected: Sequence[str]
) -> None:
    write_file(model, stack(seeds))
    plan = {"model.layers": sources} if sources else {}
    assert identical(model, plan) == [text.format("'model.layers'") for text in expected]


def test_a_plan_speaks_of_its_own_stack_alone(model: Path) -> None:
    towers = [
        *stack((0, 1, 1), prefix="text.layers"),
        *stack((0, 1, 1), prefix="vision.blocks"),
    ]
    write_file(model, towers)
    assert identical(model, {"text.layers": (0, 1, 1)}) == [
        "layer 2 of 'vision.blocks' is byte for byte layer 1"
    ]


def test_layers_are_the_same_wherever_their_tensors_lie(tmp_path: Path) -> None:
    # The matrices are longer than a block, and lie at other offsets in other files.
    first, second = (layer(number, 7, size=3 * BLOCK + 20) for number in (0, 1))
    shards = {
        "model-00001-of-00002.safetensors": [vector("odd", "U8", b"\1\2\3"), *first, second[1]],
        "model-00002-of-00002.safetensors": [vector("odder", "U8", b"\1\2\3\4"), second[0]],
    }
    assert identical(write_folder(tmp_path, shards)) == [
        "layer 1 of 'model.layers' is byte for byte layer 0"
    ]


@pytest.mark.parametrize("changed", [0, 63, 64, 5000, BLOCK - 1, BLOCK, BLOCK + 70, -65, -1])
def test_a_single_bit_anywhere_makes_another_layer(model: Path, changed: int) -> None:
    tensors = stack((7, 7), size=2 * BLOCK + 200)
    name, dtype, shape, data = tensors[-1]
    flipped = bytearray(data)
    flipped[changed] ^= 1
    write_file(model, [*tensors[:-1], Raw(name, dtype, shape, bytes(flipped))])
    assert identical(model) == []


def test_layers_that_are_told_apart_by_no_sample_are_still_told_apart(model: Path) -> None:
    tensors = stack((7, 7, 7, 7), size=4000)
    for number in (0, 2):
        name, dtype, shape, data = tensors[2 * number + 1]
        middle = data[:2000] + b"\x11" + data[2001:]
        tensors[2 * number + 1] = Raw(name, dtype, shape, middle)
    write_file(model, tensors)
    assert identical(model) == ["layers 2..3 of 'model.layers' are byte for byte layers 0..1"]


def blocks_of(*middles: bytes) -> bytes:
    """Blocks that differ only where no sample is taken."""
    return b"".join(bytes(1000) + middle + bytes(BLOCK - 1000 - len(middle)) for middle in middles)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The same bytes in all, but in another tensor or in another place.
        ((blocks_of(b"a"), blocks_of(b"b")), (blocks_of(b"b"), blocks_of(b"a"))),
        ((blocks_of(b"a", b"b"), blocks_of()), (blocks_of(b"b", b"a"), blocks_of())),
    ],
    ids=["tensors", "blocks"],
)
def test_layers_that_hold_the_same_in_another_order_are_not_the_same(
    model: Path, first: Sequence[bytes], second: Sequence[bytes]
) -> None:
    tensors = [
        Raw(f"model.layers.{number}.{name}", "BF16", (2, len(data) // 4), data)
        for number, layer_data in enumerate((first, second, first))
        for name, data in zip(("q", "k"), layer_data, strict=True)
    ]
    write_file(model, tensors)
    assert identical(model) == ["layer 2 of 'model.layers' is byte for byte layer 0"]


def replaced(tensors: Sequence[Raw], at: int, **fields: Any) -> list[Raw]:
    return [raw._replace(**fields) if number == at else raw for number, raw in enumerate(tensors)]


@pytest.mark.parametrize(
    "tensors",
    [
        replaced(stack((7, 7)), -1 % 4, dtype="F16"),
        replaced(stack((7, 7)), -1 % 4, shape=(4, 8)),
        replaced(stack((7, 7)), -1 % 4, name="model.layers.1.down_proj.weight"),
        [*stack((7, 7)), vector("model.layers.1.extra", "U8", b"\1")],
        [raw for raw in stack((7, 7)) if "norm" in raw.name],
        layer(0, 7),
    ],
    ids=["dtype", "shape", "name", "more", "norms alone", "one layer"],
)
def test_layers_of_another_form_are_not_the_same(model: Path, tensors: Sequence[Raw]) -> None:
    write_file(model, tensors)
    assert identical(model) == []


def test_bytes_are_counted_and_those_read_twice_too(model: Path) -> None:
    for seeds, sources, times in (
        ((0, 1, 2), NO_PLAN, 1),
        ((0, 0, 0), NO_PLAN, 2),
        ((0, 0, 0), (5, 5, 5), 1),
    ):
        write_file(model, stack(seeds, size=BLOCK + 4))
        checkpoint, steps = open_checkpoint(model), list[int]()
        plan = {"model.layers": sources}
        read = scan_weights(checkpoint, Collector(), plan_sources=plan, progress=steps.append)
        assert sum(steps) == checkpoint.tensor_bytes
        assert read == times * checkpoint.tensor_bytes


def test_what_is_reported_comes_in_the_callers_thread(model: Path) -> None:
    write_file(model, apart("BF16", [0x7F80]))
    threads: set[int] = set()
    scan_weights(
        open_checkpoint(model),
        lambda finding: threads.add(threading.get_ident()),
        progress=lambda count: threads.add(threading.get_ident()),
    )
    assert threads == {threading.get_ident()}


def test_a_report_that_raises_ends_the_scan(model: Path) -> None:
    write_file(model, apart("BF16", [0x7F80]))
    with pytest.raises(CheckpointError, match="holds infinity"):
        scan_weights(open_checkpoint(model), refuse)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (cut, "became shorter while it was read"),
        (empty, "became shorter while it was read"),
        (Path.unlink, "no such file"),
        (make_pipe, "not a regular file"),
        (make_folder, "not a regular file"),
    ],
)
def test_a_file_that_is_lost_meanwhile_is_reported_once_and_others_are_read(
    tmp_path: Path, happens: Any, message: str
) -> None:
    large = [vector(f"v{number}", "U8", bytes(33 * BLOCK)) for number in range(3)]
    shards = {
        "model-00001-of-00002.safetensors": [*stack((7, 7)), *large],
        "model-00002-of-00002.safetensors": apart("BF16", [0x7F80]),
    }
    checkpoint = open_checkpoint(write_folder(tmp_path, shards))
    happens(tmp_path / "model-00001-of-00002.safetensors")
    collector = Collector()
    scan_weights(checkpoint, collector)
    # Of layers nothing is said, as not all has been seen.
    assert [(finding.code, finding.file) for finding in collector.findings] == [
        ("file-unreadable", "model-00001-of-00002.safetensors"),
        ("weights-infinite", "model-00002-of-00002.safetensors"),
    ]
    assert collector.findings[0].message == message


def test_what_was_seen_of_a_tensor_before_its_file_was_lost_is_reported(tmp_path: Path) -> None:
    data = codes_of("BF16", [0x7F80]) + random_bytes(70 * BLOCK)
    folder = write_folder(tmp_path, {"model.safetensors": [vector("v", "BF16", data)]})
    checkpoint = open_checkpoint(folder)
    cut(folder / "model.safetensors")
    collector = Collector()
    scan_weights(checkpoint, collector)
    assert [finding.code for finding in collector.findings] == [
        "file-unreadable",
        "weights-infinite",
    ]


def opened_in_spite_of_all(path: Path) -> Checkpoint:
    return open_checkpoint(path, report=Collector())


def test_bytes_that_many_tensors_claim_are_read_once(model: Path) -> None:
    entry = {"dtype": "U8", "shape": [BLOCK], "data_offsets": [0, BLOCK]}
    entries = {f"model.layers.{number}.weight": entry for number in range(2000)}
    text = json.dumps(entries).encode()
    model.write_bytes(len(text).to_bytes(8, "little") + text + random_bytes(BLOCK))
    collector = Collector()
    assert scan_weights(opened_in_spite_of_all(model), collector) == BLOCK
    # Nor are these layers called the same.
    assert collector.findings == []


def test_elements_are_found_behind_a_hole(model: Path) -> None:
    entry = {"dtype": "F16", "shape": [2]}
    entries = {"a": {**entry, "data_offsets": [0, 4]}, "b": {**entry, "data_offsets": [5, 9]}}
    text = json.dumps(entries).encode()
    data = codes_of("F16", [1, 2]) + b"\xff" + codes_of("F16", [0x7C00, 3])
    model.write_bytes(len(text).to_bytes(8, "little") + text + data)
    collector = Collector()
    scan_weights(opened_in_spite_of_all(model), collector)
    assert [finding.message for finding in collector.findings] == [
        "tensor 'b' holds infinity: 1 of 2 elements, the first is number 0"
    ]


def test_tensors_behind_the_end_of_the_file_are_left_to_the_check_of_headers(model: Path) -> None:
    write_file(model, [*stack((7, 7)), *apart("BF16", [0x7F80]), vector("v", "U8", bytes(100))])
    cut(model)
    collector = Collector()
    scan_weights(opened_in_spite_of_all(model), collector)
    assert [finding.code for finding in collector.findings] == ["weights-infinite"]


def test_of_layers_of_which_a_part_is_missing_nothing_is_said(tmp_path: Path) -> None:
    shards = {
        "model-00001-of-00002.safetensors": stack((7, 7)),
        "model-00002-of-00002.safetensors": [vector("model.layers.0.more", "U8", b"\1")],
    }
    folder = write_folder(tmp_path, shards)
    (folder / "model-00002-of-00002.safetensors").unlink()
    collector = Collector()
    scan_weights(opened_in_spite_of_all(folder), collector)
    assert collector.findings == []


def test_empty_tensors_and_scalars_hold_no_surprise(model: Path) -> None:
    nothing = [Raw(f"none {dtype}", dtype, (0, 4), b"") for dtype in BITS_PER_ELEMENT]
    scalar = Raw("scalar", "F32", (), codes_of("F32", [0x7FC0_0000]))
    write_file(model, [*nothing, scalar])
    assert found_in(model) == {"weights-nan": {"scalar"}}


def test_names_are_escaped(model: Path) -> None:
    name = "\x1b[31m\n::error::" + "x" * 100_000
    write_file(model, [vector(name, "F32", codes_of("F32", [0x7FC0_0000]))])
    (finding,) = scanned(model)
    assert finding.tensor == name
    assert finding.message.isprintable()
    assert len(finding.message) < 300


def test_every_finding_is_of_the_weights_and_says_what_to_do(model: Path) -> None:
    tensors = [
        *stack((7, 7)),
        *apart("BF16", [0x7F80, 0x7FC0]),
        uniform("BF16", 0, 8, 8, name="zero"),
        uniform("BF16", 1, 8, 8, name="one"),
    ]
    write_file(model, tensors)
    findings = scanned(model)
    assert {finding.check.group for finding in findings} == {Group.WEIGHTS}
    assert all(finding.hint for finding in findings)
    assert len({finding.code for finding in findings}) == len(findings) == 5


LIMITED = """
import sys, resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from dus_cli.findings import Collector
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.verify import weights
weights._usable_cores = lambda: 64
collector = Collector()
read = weights.scan_weights(open_checkpoint(Path(sys.argv[1])), collector)
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(read, peak, *(finding.code for finding in collector.findings))
"""


@pytest.mark.parametrize(
    ("tensors", "size"), [(1, 1 << 30), (1 << 10, 1 << 20)], ids=["one long", "many short"]
)
def test_memory_does_not_grow_with_the_model(model: Path, tensors: int, size: int) -> None:
    # A hole as long as the limit on addresses, many cores, and the slowest of all ways to go.
    entries = {
        f"w{number}": {
            "dtype": "F8_E4M3",
            "shape": [size // 1024, 1024],
            "data_offsets": [number * size, (number + 1) * size],
        }
        for number in range(tensors)
    }
    text = json.dumps(entries).encode()
    with model.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (1 << 30))
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, model], capture_output=True, text=True, check=True
    )
    read, peak_kilobytes, *codes = ran.stdout.split()
    assert (int(read), codes) == (1 << 30, ["weights-zero"] * min(tensors, 1000))
    assert int(peak_kilobytes) < 150_000


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= weights._usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert weights._usable_cores() == (os.cpu_count() or 1)
