"""What is wrong, or worth knowing, about a checkpoint: one value a fault, one table of codes.

Whatever examines a file takes a `Report` and calls it for every fault. To open a checkpoint for
work, `refuse` is the report, and the first fault stops the run; to verify one, a `Collector` is,
and all faults come together.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

from dus_cli.errors import CheckpointError, FormatError


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """The checkpoint is broken: a loader fails, or loads something wrong."""

    WARNING = "warning"
    """Suspicious, or a trap for some loaders."""

    NOTE = "note"
    """Worth knowing; nothing to repair."""


class Group(StrEnum):
    """What a finding is about; also the heading under which it is shown."""

    FILES = "files"
    HEADERS = "headers"
    INDEX = "index"
    CONFIG = "config"
    LAYERS = "layers"
    RECORD = "record"
    WEIGHTS = "weights"
    BASE = "base"
    CHECKSUMS = "checksums"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is checked: how bad a fault is, and what is wrong then, for any checkpoint."""

    group: Group
    severity: Severity
    meaning: str


def _checks(group: Group, **checks: tuple[Severity, str]) -> dict[str, Check]:
    return {
        code.replace("_", "-"): Check(group, severity, meaning)
        for code, (severity, meaning) in checks.items()
    }


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

CHECKS: Final = MappingProxyType(
    {
        **_checks(
            Group.FILES,
            file_unreadable=(_E, "A file cannot be read, or is a pipe, a device or a dead link."),
            file_link=(_W, "A link leads out of the checkpoint, and not into a Hub cache's blobs."),
            file_json=(_E, "A JSON file beside the weights cannot be parsed."),
            tokenizer_missing=(_W, "A language model has no tokenizer file that is known."),
            tokenizer_vocabulary=(_W, "The tokenizer gives numbers that have no embedding."),
            generation_config_missing=(_N, "A model that generates has no generation_config.json."),
            code_missing=(_E, "auto_map names a Python file that is not there."),
        ),
        **_checks(
            Group.HEADERS,
            header_broken=(_E, "A header's length is impossible, or its JSON broken or ambiguous."),
            header_metadata=(_E, "A header's __metadata__ is no object of strings."),
            header_unusual=(_W, "A header holds what the format does not provide for."),
            header_format=(_W, "__metadata__ lacks the format that some loaders ask for."),
            tensor_entry=(_E, "A tensor is not described as dtype, shape and data_offsets."),
            tensor_dtype=(_E, "A tensor has a dtype that the format does not know."),
            tensor_size=(_E, "A tensor's dtype and shape do not fill its bytes."),
            data_overlap=(_E, "Two tensors claim the same bytes."),
            data_gap=(_E, "Bytes between two tensors belong to none."),
            data_length=(_E, "A file is cut short, or goes on behind its last tensor."),
        ),
        **_checks(
            Group.INDEX,
            index_json=(_E, "The index cannot be parsed, or is not a weight map."),
            index_shard_name=(_E, "The index names something else than a file of the folder."),
            index_shard_missing=(_E, "A shard that the index names is not there."),
            index_tensor_missing=(_E, "A shard holds a tensor that the index does not name."),
            index_tensor_unknown=(_E, "The index names a tensor that no shard holds."),
            index_wrong_shard=(_E, "The index says another shard than the one that holds it."),
            index_bypassed=(_E, "A whole file lies beside an index that does not name it."),
            index_missing=(_E, "There are numbered shards, but no index."),
            index_total_size=(_W, "The index's total_size is not the bytes of all tensors."),
            tensor_twice=(_E, "Two shards hold a tensor of the same name."),
            shard_stray=(_W, "The index does not name a safetensors file that is there."),
            shard_numbering=(_W, "The shards' names do not count from 1 to their number."),
        ),
        **_checks(
            Group.CONFIG,
            config_missing=(_E, "There is no config.json."),
            config_json=(_E, "config.json cannot be parsed."),
            config_layer_count=(_E, "config.json and the tensors disagree on the layers."),
            config_layer_list=(_E, "A list with one entry a layer has another length."),
            config_layer_number=(_W, "A field names layers that there are not."),
            config_shape=(_E, "A tensor's shape is not what config.json says."),
            config_dtype=(_W, "config.json states another dtype than the weights have."),
            head_missing=(_E, "The config does not tie the head, but there is none."),
            head_tied=(_N, "The config ties the head, yet one is stored."),
        ),
        **_checks(
            Group.LAYERS,
            layer_missing=(_E, "A layer between others has no tensors."),
            layer_incomplete=(_E, "A layer lacks a tensor that its peers have."),
            layer_extra=(_W, "A layer has a tensor that its peers lack."),
            layer_shape=(_E, "A tensor's shape differs from its peers' in other layers."),
            layer_dtype=(_W, "A tensor's dtype differs from its peers' in other layers."),
            layer_unlike=(_W, "A layer differs from its peers, and dus has no rules for its type."),
        ),
        **_checks(
            Group.RECORD,
            record_json=(_E, "dus.json cannot be parsed, or is no plan."),
            record_shard=(_E, "A shard is not as dus.json says."),
            record_config=(_E, "config.json is not as dus.json says."),
            record_file=(_E, "A file that dus.json lists is missing or has another size."),
        ),
        **_checks(
            Group.WEIGHTS,
            weights_nan=(_E, "A tensor holds NaN."),
            weights_infinite=(_E, "A tensor holds infinity."),
            weights_zero=(_W, "A weight matrix is all zeros."),
            weights_constant=(_W, "A weight matrix has one value everywhere."),
            layers_identical=(_W, "Layers are the same, byte for byte, and no plan says so."),
        ),
        **_checks(
            Group.BASE,
            base_other=(_E, "dus.json was made from another source than the one given."),
            base_record=(_E, "dus.json says other layers or sizes than the plan gives."),
            base_tensor_missing=(_E, "A tensor that the plan makes is not there."),
            base_tensor_extra=(_E, "A tensor is there that the plan does not make."),
            base_tensor_form=(_E, "A tensor has another dtype or shape than its source."),
            base_bytes=(_E, "A tensor's bytes are not those of its source."),
            base_layer=(_E, "A layer holds another source layer than the plan says."),
            base_config=(_E, "config.json is not what the rules make of the source's."),
            base_file=(_E, "A file that goes along is missing, or not as in the source."),
        ),
        **_checks(
            Group.CHECKSUMS,
            checksum_missing=(_E, "A file or tensor that the checksums list is not there."),
            checksum_file=(_E, "A file's SHA-256 is not the one listed."),
            checksum_tensor=(_E, "A tensor's SHA-256 is not the one listed."),
            checksum_unlisted=(_W, "A file or tensor is there that the checksums do not list."),
        ),
    }
)
"""Every code that a finding can have. The codes are stable: CI scripts name them."""

_BREAKS_FORMAT: Final = frozenset(
    {code for code, check in CHECKS.items() if check.group is Group.HEADERS}
    | {"config-json", "file-json", "index-json", "index-shard-name", "record-json"}
)
"""Findings about one file alone, as against those about how files fit together."""

MAX_PER_CODE: Final = 1000
"""Findings of one code that are kept; the rest is counted. A hostile file makes millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault: `message` is a sentence that is complete but for the file's name.

    `file` is relative to the checkpoint folder, `field` a dotted path in that file.
    """

    code: str
    message: str
    file: str | None = None
    tensor: str | None = None
    field: str | None = None
    hint: str | None = None

    @property
    def check(self) -> Check:
        return CHECKS[self.code]

    @property
    def text(self) -> str:
        """The message with the file's name in front."""
        return f"{self.file}: {self.message}" if self.file else self.message


Report: TypeAlias = Callable[[Finding], None]
"""Takes note of a finding, or raises it."""


def refuse(finding: Finding) -> NoReturn:
    """The report of a run that stops at the first finding; raises the error that says it."""
    kind = FormatError if finding.code in _BREAKS_FORMAT else CheckpointError
    raise kind(finding.text, hint=finding.hint)


def accept(finding: Finding) -> None:
    """The report of a run that has no use for warnings, and stops at errors."""
    if finding.check.severity is Severity.ERROR:
        refuse(finding)


@contextmanager
def reported(report: Report, file: str, *, broken: str) -> Iterator[None]:
    """Reports a CheckpointError (or MemoryError) of the body as a finding about `file`.

    `broken` is the code for a file that breaks its format.
    """
    try:
        yield
        return
    except CheckpointError as error:
        code = broken if isinstance(error, FormatError) else "file-unreadable"
        message = error.message.removeprefix(f"{file}: ")
        finding = Finding(code=code, file=file, message=message, hint=error.hint)
    except MemoryError:
        finding = Finding(
            code=broken,
            file=file,
            message="takes more memory than there is",
            hint="No real file comes near that: it is likely hostile or damaged.",
        )
    report(finding)


class Collector:
    """A report that keeps findings, at most `MAX_PER_CODE` of each code, and counts all."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()

    def __call__(self, finding: Finding) -> None:
        self.counts[finding.code] += 1
        if self.counts[finding.code] <= MAX_PER_CODE:
            self.findings.append(finding)
