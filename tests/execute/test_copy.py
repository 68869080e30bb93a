"""Byte ranges arrive where they are due, whatever their alignment and by whatever way."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dus_cli.errors import CheckpointError
from dus_cli.execute import copy
from dus_cli.execute.copy import Piece, PieceCopier, Place, cut, merge, share

SIZE = 40_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


def blank(path: Path, size: int) -> Path:
    path.write_bytes(bytes(size))
    return path


ALIGNMENTS = [
    pytest.param(0, SIZE, 0, id="whole file in place"),
    pytest.param(0, 4096, 8192, id="one block"),
    pytest.param(100, 30_000, 100, id="unaligned ends, congruent"),
    pytest.param(100, 30_000, 4196, id="congruent, other block"),
    pytest.param(100, 30_000, 101, id="not congruent"),
    pytest.param(5, 6, 4095, id="one byte"),
    pytest.param(4000, 4200, 4000, id="across a block's edge, no whole block"),
]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(("begin", "end", "offset"), ALIGNMENTS)
def test_copy_writes_exactly_the_range(
    tmp_path: Path, source: Path, begin: int, end: int, offset: int, direct: bool
) -> None:
    target = blank(tmp_path / "target", offset + end - begin + 10)
    PieceCopier(direct=direct).copy(Piece(source, begin, end, (Place(target, offset),)))
    expected = bytearray(offset + end - begin + 10)
    expected[offset : offset + end - begin] = source.read_bytes()[begin:end]
    assert target.read_bytes() == bytes(expected)


def test_copy_fills_every_place_from_one_piece(tmp_path: Path, source: Path) -> None:
    offsets = (0, 4096, 17)
    targets = [blank(tmp_path / str(offset), SIZE) for offset in offsets]
    places = tuple(Place(path, offset) for path, offset in zip(targets, offsets, strict=True))
    PieceCopier().copy(Piece(source, 50, 20_000, places))
    for path, offset in zip(targets, offsets, strict=True):
        assert path.read_bytes()[offset : offset + 19_950] == source.read_bytes()[50:20_000]


def test_copy_falls_back_where_the_file_system_refuses_direct_writes(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refusing(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O here")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    target = blank(tmp_path / "target", SIZE)
    PieceCopier().copy(Piece(source, 0, SIZE, (Place(target, 0),)))
    assert target.read_bytes() == source.read_bytes()


def test_copy_does_not_swallow_a_full_disk(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copy, "_write_at", full)
    with pytest.raises(OSError, match="No space left"):
        PieceCopier().copy(Piece(source, 0, SIZE, (Place(tmp_path / "target", 0),)))


def test_copy_names_a_source_that_ends_too_early(tmp_path: Path, source: Path) -> None:
    target = blank(tmp_path / "target", SIZE + 1)
    with pytest.raises(CheckpointError, match=r"source: ends at byte 40000"):
        PieceCopier().copy(Piece(source, 0, SIZE + 1, (Place(target, 0),)))


@pytest.mark.parametrize(("begin", "end", "offset"), ALIGNMENTS)
def test_what_is_not_shared_is_left_to_be_copied(
    tmp_path: Path, source: Path, begin: int, end: int, offset: int
) -> None:
    target = blank(tmp_path / "target", offset + end - begin)
    copier = PieceCopier()
    for rest in share(Piece(source, begin, end, (Place(target, offset),))):
        copier.copy(rest)
    assert target.read_bytes()[offset:] == source.read_bytes()[begin:end]


def test_cut_covers_the_piece_in_bounded_parts(source: Path) -> None:
    step = copy.PIECE_BYTES
    piece = Piece(source, step - 5, 3 * step + 7, (Place(source, 11),))
    parts = list(cut(piece))
    assert [(part.begin, part.end) for part in parts] == [
        (step - 5, step),
        (step, 2 * step),
        (2 * step, 3 * step),
        (3 * step, 3 * step + 7),
    ]
    assert [part.places[0].offset for part in parts] == [11, 16, 16 + step, 16 + 2 * step]


intervals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(0, 100)), max_size=6
)


@settings(deadline=None)
@given(intervals)
def test_merge_reads_every_byte_once_and_serves_every_place(
    spans: list[tuple[int, int, int]],
) -> None:
    source = Path("source")
    pieces = [
        Piece(source, begin, begin + count, (Place(Path(str(number)), offset),))
        for number, (begin, count, offset) in enumerate(spans)
    ]
    merged = list(merge(pieces))
    covered = [position for piece in merged for position in range(piece.begin, piece.end)]
    assert len(covered) == len(set(covered))
    wanted = {
        (place.path, place.offset + byte - piece.begin, byte)
        for piece in pieces
        for place in piece.places
        for byte in range(piece.begin, piece.end)
    }
    served = [
        (place.path, place.offset + byte - piece.begin, byte)
        for piece in merged
        for place in piece.places
        for byte in range(piece.begin, piece.end)
    ]
    assert len(served) == len(set(served))
    assert set(served) == wanted
