"""What is fuzzed: functions of bytes that fail by raising, whatever the bytes are.

Only the errors of `dus_cli.errors` are foreseen. Anything else that leaves a parser is a fault, and
so is an answer that breaks the rule the target states. Nothing here needs a fuzzer: the tests run
the seeds through the same functions.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from xml.etree import ElementTree

from dus_cli.documents import write_documents
from dus_cli.errors import CheckpointError, DusError, FormatError
from dus_cli.findings import Collector, Finding, Severity
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.header import LENGTH_BYTES, header_length, parse_header
from dus_cli.format.index import is_plain_file_name, parse_index
from dus_cli.format.strict_json import parse_object
from dus_cli.inspection import inspect_checkpoint
from dus_cli.plan import plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.model import check_model
from dus_cli.verify.reports import FORMATS, RunContext, github_summary
from dus_cli.verify.run import VerifyRequest, verify
from dus_cli.verify.verification import Verification
from tests.checkpoints import mistral_checkpoint, mistral_config
from tests.format.raw_files import as_library_reads

Target: TypeAlias = Callable[[bytes], None]

SEPARATOR: Final = b"\n--\n"
"""Stands between the files of a folder that is made from one string of bytes."""

FILES: Final = (
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors",
    "dus.json",
    "tokenizer.json",
)
"""The files that a folder may have, in the order of their bytes; an empty one is not there."""

_MAX_MESSAGE: Final = 5000


def fuzz_header(data: bytes) -> None:
    """`data` is a whole file: what is accepted is what the safetensors library accepts and reads
    as the same, up to the differences that `is_stricter` knows."""
    collector = Collector()
    try:
        length = header_length(data[:LENGTH_BYTES], len(data), "file")
        raw = data[LENGTH_BYTES : LENGTH_BYTES + length]
        header = parse_header(raw, len(data), "file", collector)
    except FormatError as error:
        _check_text(error.message)
        ours = None
    else:
        _check_findings(collector.findings)
        found = {name: (info.dtype, info.shape) for name, info in header.tensors.items()}
        ours = None if _has_errors(collector) else found
    theirs = as_library_reads(data)
    if theirs is not None and ours is None:
        assert is_stricter(raw), "the library accepts what is refused here"
    else:
        assert ours == theirs, "accepted here, and read otherwise by the library"


def is_stricter(raw: bytes) -> bool:
    """Whether a header that the library accepts may be refused, by the differences on record: a
    key twice, an entry that is no object of three plain fields, JSON past the limits of Python."""
    twice = False

    def pairs(entries: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len(dict(entries)) < len(entries)
        return dict(entries)

    try:
        value = json.loads(raw, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return True  # Python reads less JSON than the library: digits, depth.
    usual = {"dtype", "shape", "data_offsets"}
    return twice or any(
        not isinstance(entry, dict) or set(entry) != usual or not isinstance(entry["dtype"], str)
        for name, entry in value.items()
        if name != "__metadata__"
    )


def fuzz_index(data: bytes) -> None:
    """`data` is an index: shard names are plain, and what stops one run is a finding in another."""
    collector = Collector()
    try:
        index = parse_index(data, "index", collector)
    except FormatError as error:
        _check_text(error.message)
        return
    _check_findings(collector.findings)
    assert all(map(is_plain_file_name, index.weight_map.values()))
    if not _has_errors(collector):
        assert index == parse_index(data, "index")
        assert index.weight_map == json.loads(data)["weight_map"]
        return
    try:
        parse_index(data, "index")
    except DusError as error:
        assert error.message == collector.findings[0].text
    else:
        raise AssertionError("a finding that does not stop a run")


def fuzz_config(data: bytes) -> None:
    """`data` is what a config says beside, or instead of, what a Mistral's does: it is inspected,
    verified and planned for, or refused."""
    try:
        fields = parse_object(data, "config.json", non_finite=True)
    except FormatError as error:
        _check_text(error.message)
        return
    checkpoint = replace(_sound(), config={**mistral_config(4), **fields})
    json.dumps(inspect_checkpoint(checkpoint).to_json(with_tensors=False))
    collector = Collector()
    check_model(checkpoint, collector)
    _check_findings(collector.findings)
    try:
        plan = plan_upscale(checkpoint, UpscaleRequest(drop=1))
    except DusError as error:
        _check_text(error.message)
        return
    documents = write_documents(plan, None)
    parse_object(documents["config.json"], "config.json", non_finite=True)


def fuzz_folder(data: bytes) -> None:
    """`data` is a folder's files: every check finds faults, or finds none, and says so in every
    format; what has no faults can be opened, and what cannot be opened has some."""
    with tempfile.TemporaryDirectory(prefix="dus-fuzz") as place:
        folder = Path(place) / "model"
        folder.mkdir()
        for name, content in zip_longest(FILES, data.split(SEPARATOR)[: len(FILES)]):
            if content:
                (folder / name).write_bytes(content)
        try:
            outcome = verify(folder, VerifyRequest(deep=True))
        except CheckpointError as error:
            _check_text(error.message)
            outcome = None
        try:
            open_checkpoint(folder)
        except CheckpointError as error:
            _check_text(error.message)
            assert outcome is None or not outcome.valid, "valid, and yet it cannot be opened"
    if outcome is not None:
        _check_findings(outcome.findings)
        _check_reports(outcome)


def _check_reports(outcome: Verification) -> None:
    context = RunContext(folder="model", ended=datetime(2026, 1, 1, tzinfo=UTC))
    texts = {form: report(outcome, context) for form, report in FORMATS.items()}
    texts["summary"] = github_summary(outcome)
    texts["json"] = json.dumps(outcome.to_json(), indent=2)
    for form, text in texts.items():
        assert all(line.isprintable() for line in text.split("\n")), form
    json.loads(texts["sarif"])
    ElementTree.fromstring(texts["junit"])  # noqa: S314 - what was written here a line above


def _check_findings(findings: list[Finding] | tuple[Finding, ...]) -> None:
    for finding in findings:
        _check_text(finding.message)
        assert finding.check


def _check_text(message: str) -> None:
    assert len(message) < _MAX_MESSAGE, "a message of unbounded length"


def _has_errors(collector: Collector) -> bool:
    return any(finding.check.severity is Severity.ERROR for finding in collector.findings)


@cache
def _sound() -> Checkpoint:
    with tempfile.TemporaryDirectory(prefix="dus-fuzz") as place:
        return open_checkpoint(mistral_checkpoint(Path(place) / "model"))


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "header": fuzz_header,
        "index": fuzz_index,
        "config": fuzz_config,
        "folder": fuzz_folder,
    }
)
