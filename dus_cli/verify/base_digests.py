"""The proof of provenance for a result of which no weights are at hand, but their digests.

The Hub states the SHA-256 of every large file. So the base is read once, and every file of the
result is hashed as the plan makes it of the base; the result itself is not fetched.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, TypeAlias

from dus_cli.execute.copy import PIECE_BYTES, Piece, Place, cut, merge, read_file
from dus_cli.execute.write import OutputFile, Streams, output_files
from dus_cli.findings import Finding, Report
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.plan import Plan
from dus_cli.verify.base import BaseProof, compare_documents

Stated: TypeAlias = Callable[[str], tuple[Any, str] | None]
"""Given a file's path, a hash that has seen nothing yet and the hexadecimal digest that the file's
content has to give; None where no digest is stated."""

_SHOWN: Final = 12


def can_be_hashed(checkpoint: Checkpoint, plan: Plan, stated: Stated) -> bool:
    """Whether the result is laid out as the plan lays it out, its digests are stated, and one
    reading of the base gives the bytes of each file in their order."""
    held = {shard.name: shard.size for shard in checkpoint.shards}
    held |= {file.path: file.size for file in checkpoint.carried_files}
    if {shard.name for shard in plan.shards} != {shard.name for shard in checkpoint.shards}:
        return False
    files = output_files(plan, {})
    return all(
        held.get(file.path) == file.size
        and stated(file.path) is not None
        and _is_in_order(file, plan)
        for file in files
    )


def compare_digests(
    checkpoint: Checkpoint,
    base: Checkpoint,
    plan: Plan,
    stated: Stated,
    streams: Streams,
    report: Report,
    *,
    progress: Callable[[int], None] = lambda count: None,
) -> BaseProof:
    """Reports every file of `checkpoint` whose stated digest is not that of what `plan` makes of
    `base`, and every difference in config.json. `can_be_hashed` has to hold.

    `streams` gives those files of the base that do not lie in its folder. `progress` counts the
    result's bytes.

    Raises CheckpointError when the base cannot be read.
    """
    hashes: dict[str, tuple[Any, str]] = {}
    wanted: dict[str, list[Piece]] = {}
    for file in output_files(plan, {}):
        digest = stated(file.path)
        if digest is None:
            raise ValueError(f"{file.path}: no digest is stated")
        hashes[file.path] = digest
        digest[0].update(file.head)
        for span in file.spans:
            place = Place(Path(file.path), span.target)
            piece = Piece(base.folder / span.source, span.begin, span.end, (place,))
            wanted.setdefault(span.source, []).append(piece)
    bytes_read = 0
    buffer = memoryview(bytearray(PIECE_BYTES))
    for name in (*(s.name for s in plan.source_shards), *(f.path for f in plan.carried_files)):
        with streams(name) or nullcontext() as stream:
            for piece in (part for merged in merge(wanted.pop(name, ())) for part in cut(merged)):
                data = buffer[: piece.end - piece.begin]
                if stream is None:
                    read_file(piece, data)
                else:
                    stream.read_into(piece.begin, data)
                bytes_read += len(data)
                for place in piece.places:
                    hashes[place.path.as_posix()][0].update(data)
                    progress(len(data))
    _report_differences(hashes, {shard.name for shard in plan.shards}, report)
    compare_documents(checkpoint, plan, report)
    return BaseProof(bytes_read=bytes_read, shared_bytes=0)


def _report_differences(
    hashes: dict[str, tuple[Any, str]], shards: set[str], report: Report
) -> None:
    for path, (digest, due) in hashes.items():
        found = digest.hexdigest()
        if found != due:
            report(
                Finding(
                    code="base-bytes" if path in shards else "base-file",
                    file=path,
                    message=f"its digest is {due[:_SHOWN]}…, but the base's bytes give "
                    f"{found[:_SHOWN]}…",
                    hint="Download it, and verify the folder to see which tensors differ.",
                )
            )


def _is_in_order(file: OutputFile, plan: Plan) -> bool:
    """Whether a file's spans follow the order in which the base is read."""
    order = {shard.name: number for number, shard in enumerate(plan.source_shards)}
    keys = [(order.get(span.source, 0), span.begin) for span in file.spans]
    return keys == sorted(keys)
