"""A verification from end to end: which checks are made, and what comes of them."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dus_cli.errors import CheckpointError
from dus_cli.findings import Collector, Finding, Group, Report
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.plan import Plan
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.record import recorded_sources
from dus_cli.verify.structure import verify_structure
from dus_cli.verify.verification import Verification

if TYPE_CHECKING:
    from dus_cli.execute.write import Streams
    from dus_cli.verify.base import BaseProof
    from dus_cli.verify.base_digests import Stated

Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Given what is being done and how many bytes there are, a function that counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """The digests that are stated of a checkpoint's files, and how to read the files of its base
    that do not lie on this disk."""

    stated: "Stated"
    base_streams: "Streams"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What is asked of a verification beyond the structural checks.

    `deep` reads the weights. `base` is the checkpoint that this one was made from; `upscale` says
    how, where no dus.json does. `checksums` is a manifest to compare with. `ignored` are codes of
    findings that do not count; `strict` makes warnings errors. `unfetched` are files of the
    checkpoint of which only the size is right. `digests` stands for the weights that are not at
    hand when the base is proved.
    """

    deep: bool = False
    base: Checkpoint | None = None
    upscale: UpscaleRequest | None = None
    checksums: Path | None = None
    ignored: frozenset[str] = frozenset()
    strict: bool = False
    unfetched: frozenset[str] = frozenset()
    digests: "Digests | None" = None


def verify(
    path: Path,
    request: VerifyRequest,
    *,
    name: str | None = None,
    progress: Progress = lambda label, total: nullcontext(lambda count: None),
) -> Verification:
    """Verifies the checkpoint at `path`; what is wrong with it is in the result.

    Raises CheckpointError where there is no checkpoint at all, or the base or the checksums
    cannot be read; RequestError where the base does not fit what is asked.
    """
    started = time.monotonic()
    collector = Collector()

    def report(finding: Finding) -> None:
        if finding.code not in request.ignored:
            collector(finding)

    checkpoint, structure = verify_structure(path, report, name=name, unfetched=request.unfetched)
    groups = list(structure.groups)
    bytes_read, shared_bytes = structure.bytes_read, 0
    if request.deep:
        groups.append(Group.WEIGHTS)
        bytes_read += _scan(checkpoint, report, progress)
    if request.base is not None:
        groups.append(Group.BASE)
        from dus_cli.verify.base import plan_of

        plan = plan_of(checkpoint, request.base, request.upscale, report)
        if request.digests is not None:
            proof = _prove_by_digests(
                checkpoint, request.base, plan, request.digests, report, progress
            )
        else:
            proof = prove(checkpoint, request.base, plan, report, progress)
        bytes_read += proof.bytes_read
        shared_bytes = proof.shared_bytes
    if request.checksums is not None:
        groups.append(Group.CHECKSUMS)
        bytes_read += _compare_checksums(checkpoint, request.checksums, report, progress)
    return Verification(
        name=checkpoint.name,
        groups=tuple(groups),
        findings=tuple(collector.findings),
        counts=dict(collector.counts),
        shards=len(checkpoint.shards),
        tensors=sum(len(shard.header.tensors) for shard in checkpoint.shards),
        files=structure.files,
        bytes_read=bytes_read,
        shared_bytes=shared_bytes,
        seconds=time.monotonic() - started,
        ignored=request.ignored,
        strict=request.strict,
    )


def unreadable(name: str, error: CheckpointError) -> Verification:
    """The outcome for a checkpoint that could not be read at all."""
    finding = Finding(code="file-unreadable", message=error.message, hint=error.hint)
    return Verification(
        name=name,
        groups=(Group.FILES,),
        findings=(finding,),
        counts={finding.code: 1},
        shards=0,
        tensors=0,
        files=0,
        bytes_read=0,
        seconds=0.0,
    )


# What reads weights is imported when it is asked for: numpy alone takes longer to start than the
# structural checks of a usual model.


def _scan(checkpoint: Checkpoint, report: Report, progress: Progress) -> int:
    from dus_cli.verify.weights import scan_weights

    with progress("reading", checkpoint.tensor_bytes) as count:
        return scan_weights(
            checkpoint, report, plan_sources=recorded_sources(checkpoint), progress=count
        )


def prove(
    checkpoint: Checkpoint, base: Checkpoint, plan: Plan, report: Report, progress: Progress
) -> "BaseProof":
    """Compares a checkpoint with the one it was made from, byte for byte."""
    from dus_cli.verify.base import compare_with_base

    total = plan.scaling.after.tensor_bytes + sum(file.size for file in plan.carried_files)
    with progress("comparing", total) as count:
        return compare_with_base(checkpoint, base, plan, report, progress=count)


def _prove_by_digests(
    checkpoint: Checkpoint,
    base: Checkpoint,
    plan: Plan,
    digests: Digests,
    report: Report,
    progress: Progress,
) -> "BaseProof":
    from dus_cli.verify.base_digests import compare_digests

    total = plan.scaling.after.tensor_bytes + sum(file.size for file in plan.carried_files)
    with progress("hashing", total) as count:
        return compare_digests(
            checkpoint,
            base,
            plan,
            digests.stated,
            digests.base_streams,
            report,
            progress=count,
        )


def _compare_checksums(
    checkpoint: Checkpoint, manifest: Path, report: Report, progress: Progress
) -> int:
    from dus_cli.verify.checksums import compare_checksums, load_checksums, own_path

    checksums, itself = load_checksums(manifest), own_path(checkpoint, manifest)
    with progress("hashing", sum(shard.size for shard in checkpoint.shards)) as count:
        return compare_checksums(checkpoint, checksums, report, progress=count, exclude=itself)
