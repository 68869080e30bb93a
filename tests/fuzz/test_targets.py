"""The seeds of every target, and what once made it fail, go through it without a fuzzer."""

import json

import pytest

from tests.format.raw_files import as_library_reads, entry, framed, header
from tests.fuzz.seeds import REGRESSIONS, seeds
from tests.fuzz.targets import TARGETS, fuzz_config, fuzz_folder, fuzz_header, is_stricter


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_takes_its_seeds(target: str) -> None:
    inputs = list(seeds(target))
    assert inputs
    for data in inputs:
        TARGETS[target](data)


def test_every_regression_belongs_to_a_target() -> None:
    names = [path.name for path in REGRESSIONS.glob("*")]
    assert all(any(name.startswith(f"{target}-") for target in TARGETS) for name in names)


U8 = entry("U8", [1], [0, 1])


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":%(u8)s,"\\u0061":%(u8)s}',
        b'{"a":["U8",[1],[0,1]]}',
        b'{"a":{"dtype":{"U8":null},"shape":[1],"data_offsets":[0,1]}}',
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":-0}}',
    ],
    ids=["a key twice", "a list", "an object as dtype", "a field of any content"],
)
def test_the_differences_on_record_are_differences(raw: bytes) -> None:
    raw %= {b"u8": json.dumps(U8).encode()} if b"%" in raw else {}
    assert as_library_reads(framed(raw, b"\0")) is not None
    assert is_stricter(raw)
    fuzz_header(framed(raw, b"\0"))


def test_a_plain_header_is_no_difference() -> None:
    assert not is_stricter(header(a=U8, __metadata__={"format": "pt"}))


def test_a_target_notices_a_reader_that_is_laxer_or_stricter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = framed(header(a=U8), b"\0")
    fuzz_header(sound)
    monkeypatch.setattr("tests.fuzz.targets.as_library_reads", lambda data: None)
    with pytest.raises(AssertionError, match="read otherwise"):
        fuzz_header(sound)
    monkeypatch.setattr("tests.fuzz.targets.as_library_reads", lambda data: {"a": ("U8", (1,))})
    with pytest.raises(AssertionError, match="refused here"):
        fuzz_header(framed(header(a=U8)))


def test_a_target_notices_what_is_not_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr("tests.fuzz.targets.check_model", fails)
    with pytest.raises(KeyError):
        fuzz_config(b"{}")
    monkeypatch.setattr("tests.fuzz.targets.open_checkpoint", fails)
    with pytest.raises(KeyError):
        fuzz_folder(b"{}")
