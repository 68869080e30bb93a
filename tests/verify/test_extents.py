"""Blocks that two files share: what counts as the same place, and what the kernel says of it."""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dus_cli.verify.extents import Extent, common_ranges, parse_extents, shared_ranges
from dus_cli.verify.same_bytes import Claim, Place, compare

BLOCK = 4096
FICLONERANGE = 0x4020940D

PLACES = [
    pytest.param([(0, 100, 50)], 0, [(0, 100, 50)], 0, 50, [(0, 50)], id="one extent"),
    pytest.param([(0, 100, 50)], 0, [(0, 101, 50)], 0, 50, [], id="another place"),
    pytest.param([(0, 100, 50)], 0, [(0, 110, 40)], 0, 50, [], id="the same blocks, but shifted"),
    pytest.param([(0, 100, 50)], 0, [(70, 100, 50)], 70, 50, [(0, 50)], id="other offsets"),
    pytest.param([(0, 100, 50)], 3, [(0, 100, 50)], 3, 9, [(0, 9)], id="the middle of an extent"),
    pytest.param([(0, 100, 50)], 3, [(0, 100, 50)], 4, 9, [], id="begins a byte apart"),
    pytest.param([(0, 100, 50)], 0, [(20, 120, 20)], 0, 50, [(20, 40)], id="a part"),
    pytest.param(
        [(0, 100, 20), (20, 500, 20)], 0, [(0, 100, 40)], 0, 40, [(0, 20)], id="rewritten half"
    ),
    pytest.param(
        [(0, 100, 20), (20, 120, 20)], 0, [(0, 100, 40)], 0, 40, [(0, 20), (20, 40)], id="split"
    ),
    pytest.param([], 0, [(0, 100, 40)], 0, 40, [], id="nothing shared"),
]


@pytest.mark.parametrize(("ones", "one_begin", "others", "other_begin", "size", "shared"), PLACES)
def test_bytes_are_shared_where_both_files_have_them_in_one_place(
    ones: list[tuple[int, int, int]],
    one_begin: int,
    others: list[tuple[int, int, int]],
    other_begin: int,
    size: int,
    shared: list[tuple[int, int]],
) -> None:
    found = common_ranges(
        [Extent(*one) for one in ones],
        one_begin,
        [Extent(*other) for other in others],
        other_begin,
        size,
    )
    assert [(part.start, part.stop) for part in found] == shared


FLAGS = [
    pytest.param(0x2000, True, id="SHARED"),
    pytest.param(0x2001, True, id="SHARED LAST"),
    pytest.param(0x3000, True, id="SHARED MERGED"),
    pytest.param(0x0000, False, id="none"),
    pytest.param(0x2002, False, id="SHARED UNKNOWN"),
    pytest.param(0x2004, False, id="SHARED DELALLOC"),
    pytest.param(0x2008, False, id="SHARED ENCODED"),
    pytest.param(0x2080, False, id="SHARED ENCRYPTED"),
    pytest.param(0x2100, False, id="SHARED NOT_ALIGNED"),
    pytest.param(0x2200, False, id="SHARED INLINE"),
    pytest.param(0x2400, False, id="SHARED TAIL"),
    pytest.param(0x2800, False, id="SHARED UNWRITTEN"),
    pytest.param(0x12000, False, id="SHARED and a flag of the future"),
]


@pytest.mark.parametrize(("flags", "counts"), FLAGS)
def test_an_extent_counts_only_if_it_is_shared_and_nothing_else(flags: int, counts: bool) -> None:
    extent = struct.pack("=QQQQQIIII", 1, 2, 3, 0, 0, flags, 0, 0, 0)
    answer = struct.pack("=QQIIII", 0, 9, 1, 1, 17, 0) + extent
    assert parse_extents(answer) == ((Extent(1, 2, 3),) if counts else ())


def test_one_file_is_equal_to_itself_without_maps(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"some bytes")
    os.link(tmp_path / "one", tmp_path / "two")
    with open(tmp_path / "one", "rb") as one, open(tmp_path / "two", "rb") as two:
        assert shared_ranges(one.fileno(), 2, two.fileno(), 2, 8) == (range(8),)
        assert shared_ranges(one.fileno(), 2, two.fileno(), 3, 7) == ()


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on XFS with reflink, on a loop device."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    work = tmp_path_factory.mktemp("xfs")
    image, mount = work / "image", work / "mount"
    mount.mkdir()
    with image.open("wb") as sparse:
        sparse.truncate(512 << 20)
    try:
        subprocess.run(
            ["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, capture_output=True
        )
        subprocess.run(["mount", "-o", "loop", image, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no XFS can be made and mounted here: {error}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def clone(source: Path, target: Path, *, begin: int, size: int, at: int) -> None:
    """Lets `target` share blocks of `source`."""
    with open(source, "rb") as one, open(target, "r+b") as other:
        fcntl.ioctl(other, FICLONERANGE, struct.pack("qQQQ", one.fileno(), begin, size, at))


@pytest.fixture
def pair(sharing: Path) -> tuple[Path, Path]:
    """A file of 16 blocks, and one that has the inner 12 from its fifth block on."""
    one, two = sharing / "one", sharing / "two"
    for path in (one, two):
        path.unlink(missing_ok=True)
    one.write_bytes(os.urandom(16 * BLOCK))
    two.write_bytes(os.urandom(20 * BLOCK))
    os.sync()
    clone(one, two, begin=2 * BLOCK, size=12 * BLOCK, at=5 * BLOCK)
    return one, two


def shared(one: Path, other: Path, one_begin: int, other_begin: int, size: int) -> set[int]:
    """Offsets of all bytes that are shared."""
    with open(one, "rb") as first, open(other, "rb") as second:
        found = shared_ranges(first.fileno(), one_begin, second.fileno(), other_begin, size)
    return {offset for part in found for offset in part}


def test_cloned_blocks_are_shared_to_the_byte(pair: tuple[Path, Path]) -> None:
    assert shared(*pair, 0, 3 * BLOCK, 16 * BLOCK) == set(range(2 * BLOCK, 14 * BLOCK))
    assert shared(*pair, 2 * BLOCK + 7, 5 * BLOCK + 7, 100) == set(range(100))
    assert shared(*pair, 2 * BLOCK + 7, 5 * BLOCK + 8, 100) == set()
    assert shared(*pair, 0, 0, 16 * BLOCK) == set()


def _write_at(path: Path, offset: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        file.write(b"x")


def _map_and_write_at(path: Path, offset: int) -> None:
    import mmap

    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[offset] ^= 1


WRITES = [pytest.param(_write_at, id="write"), pytest.param(_map_and_write_at, id="mmap")]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("write", WRITES)
def test_what_was_written_and_is_not_yet_on_disk_is_not_shared(
    pair: tuple[Path, Path], write: Callable[[Path, int], None], side: int
) -> None:
    written = (6, 9)[side] * BLOCK + 5
    write(pair[side], written)
    left = set(range(2 * BLOCK, 14 * BLOCK)) - set(range(6 * BLOCK, 7 * BLOCK))
    # The file system may move blocks around the written one too.
    assert shared(*pair, 0, 3 * BLOCK, 16 * BLOCK) <= left


def test_a_copy_is_not_shared(sharing: Path, pair: tuple[Path, Path]) -> None:
    copy = sharing / "copy"
    copy.write_bytes(pair[0].read_bytes())
    assert shared(pair[0], copy, 0, 0, 16 * BLOCK) == set()


def test_a_clone_on_another_file_system_is_none(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "copy").write_bytes(pair[0].read_bytes())
    assert shared(pair[0], tmp_path / "copy", 0, 0, 16 * BLOCK) == set()


def test_the_same_place_of_another_device_is_none(
    sharing: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """The twin of a whole file system has everything in the same places."""
    one, two = pair
    os.sync()
    subprocess.run(["cp", "--sparse=always", sharing.parent / "image", tmp_path], check=True)
    (tmp_path / "mount").mkdir()
    twin = tmp_path / "mount"
    options = ["-o", "loop,nouuid"]
    subprocess.run(["mount", *options, tmp_path / "image", twin], check=True)
    try:
        assert shared(twin / "one", twin / "two", 0, 3 * BLOCK, 16 * BLOCK)
        assert shared(one, twin / "two", 0, 3 * BLOCK, 16 * BLOCK) == set()
        assert shared(twin / "one", two, 0, 3 * BLOCK, 16 * BLOCK) == set()
    finally:
        subprocess.run(["umount", twin], check=True)


def test_only_what_is_not_shared_is_read(pair: tuple[Path, Path]) -> None:
    one, two = pair
    claim = Claim(
        original=Place(one, 2 * BLOCK - 10), size=8 * BLOCK, copies={"two": Place(two, 5 * BLOCK)}
    )
    assert compare([claim]).shared_bytes == 0
    claim = Claim(
        original=Place(one, 2 * BLOCK - 10),
        size=12 * BLOCK + 10,
        copies={"two": Place(two, 5 * BLOCK - 10)},
    )
    result = compare([claim])
    assert (result.shared_bytes, result.bytes_read) == (12 * BLOCK, 20)
    assert result.differences["two"].first < 10


def test_files_of_more_pieces_than_one_answer_holds_are_read_or_shared(sharing: Path) -> None:
    one, two = sharing / "many", sharing / "shuffled"
    count = 100
    one.write_bytes(os.urandom(count * BLOCK))
    two.write_bytes(one.read_bytes())
    os.sync()
    for block in range(0, count, 2):
        clone(one, two, begin=block * BLOCK, size=BLOCK, at=block * BLOCK)
    _write_at(two, 99 * BLOCK)
    claim = Claim(original=Place(one, 0), size=count * BLOCK, copies={"two": Place(two, 0)})
    result = compare([claim])
    assert 0 < result.shared_bytes <= count // 2 * BLOCK
    assert result.bytes_read == 2 * (count * BLOCK - result.shared_bytes)
    assert result.differences["two"].first == 99 * BLOCK
