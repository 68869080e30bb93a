"""What `dus upscale` does with a plan: show it, or make the checkpoint and put it where it goes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dus_cli.cli.output import Output, Styled
from dus_cli.cli.plan_report import details, note_lines, summary
from dus_cli.cli.progress import Bars, progress_bars
from dus_cli.cli.wording import in_bytes
from dus_cli.documents import write_documents
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.format.folder import CHECKSUMS
from dus_cli.format.strict_json import Json
from dus_cli.plan import Plan
from dus_cli.sources.find import bytes_to_fetch, download, streams
from dus_cli.sources.local import Source
from dus_cli.sources.names import SCHEME
from dus_cli.verify.record import RECORD

if TYPE_CHECKING:
    from dus_cli.sources.hub import Access
    from dus_cli.sources.publish import Place, Publication

UPSCALE_SCHEMA: Final = "dus-upscale/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What is done with the finished result, beyond the structural check."""

    bytes_too: bool = False
    checksums: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A plan with all that it takes to carry it out.

    `checkpoint` is the source as it was opened: of a model on the Hub its mirror. With `stream`
    its weights come straight from there. `place` is where on the Hub the result goes, if it does.
    """

    source: Source
    checkpoint: Checkpoint
    plan: Plan
    target: Path
    force: bool
    checks: Checks
    stream: bool
    place: "Place | None"
    access: "Access | None"

    @property
    def goes_to(self) -> str:
        """Where the result goes, in words."""
        if self.place is None:
            return str(self.target)
        return f"{SCHEME}{self.place.repository}" + ("" if self.stream else f" and {self.target}")

    @property
    def leaves_nothing(self) -> bool:
        """Whether the result goes to the Hub alone."""
        return self.stream and self.place is not None


def show(making: Making, output: Output, plan_to: str | None) -> None:
    """Prints the whole plan, and saves it where `plan_to` says."""
    from dus_cli.execute.write import check_places, free_bytes, output_files
    from dus_cli.plan_file import save_plan

    plan, checkpoint, target = making.plan, making.checkpoint, making.target
    check_places(checkpoint.folder, target, force=making.force)
    documents = write_documents(plan, checkpoint.card)
    files = output_files(plan, documents)
    needed, free = sum(file.size for file in files), free_bytes(target)
    to_fetch = 0 if making.stream else bytes_to_fetch(making.source, checkpoint)
    if plan_to is not None:
        save_plan(Path(plan_to), plan, checkpoint, target, source=str(making.source))
    if output.as_json:
        output.result_json(
            {
                "schema": UPSCALE_SCHEMA,
                "dry_run": True,
                "output": str(target),
                "bytes_needed": needed,
                "bytes_free": free,
                "bytes_to_cache": to_fetch,
                "plan": plan.to_json(),
            }
        )
    elif output.quiet:
        output.result_path(target)
    else:
        output.result(summary(plan, checkpoint, making.goes_to, output.width))
        output.result(details(plan, documents, output.width))
        short = "" if needed <= free else ": not enough, unless the file system shares blocks"
        output.result(["", f"{in_bytes(needed)} to write, {in_bytes(free)} free{short}."])
        if to_fetch:
            output.result(
                [f"{in_bytes(to_fetch)} to fetch into the cache; --stream keeps nothing of it."]
            )
        output.result(["Nothing was written."])


def make(making: Making, output: Output) -> None:
    """Makes the checkpoint, checks it, and puts it into place; prints where that is."""
    from dus_cli.execute.write import check_places
    from dus_cli.verify.result import faults_of

    plan, checkpoint, target = making.plan, making.checkpoint, making.target
    documents = write_documents(plan, checkpoint.card)
    made = making.place is not None and not making.stream and _is_made(target, documents)
    if not made:
        check_places(checkpoint.folder, target, force=making.force)
    faults = faults_of(checkpoint)
    output.note(summary(plan, checkpoint, making.goes_to, output.width))
    if faults:
        codes = ", ".join(f"{code} ({count})" for code, count in faults.items())
        text = f"the source has faults that the result has too: {codes}"
        output.note(note_lines(text, output.width))
    started = time.monotonic()
    written, published = 0, None
    with progress_bars(output) as progress:
        publication = _publication(making, progress, documents[RECORD])
        if made:
            output.note([f"{target} is made already; it is published as it is."])
        else:
            written = _write(making, documents, frozenset(faults), publication, progress, output)
        if publication is not None and not making.leaves_nothing:
            publication.complete(target)
        published = publication.published if publication is not None else None
    seconds = time.monotonic() - started
    rate = f" ({in_bytes(int(written / max(seconds, 1e-9)))}/s)" if written else ""
    proved = ", equal to its source byte for byte" if making.checks.bytes_too else ""
    output.note([Styled(f"done in {seconds:.1f} s{rate}{proved}", "good")])
    if published is not None:
        output.note([f"published: {published.url}"])
    if output.as_json:
        result: dict[str, Json] = {
            "schema": UPSCALE_SCHEMA,
            "dry_run": False,
            "output": None if making.leaves_nothing else str(target),
            "seconds": round(seconds, 3),
            "verified": "bytes" if making.checks.bytes_too else "structure",
            "plan": plan.to_json(),
        }
        if published is not None:
            result["published"] = {
                "repository": published.repository,
                "revision": published.revision,
                "commit": published.commit,
                "url": published.url,
            }
        output.result_json(result)
    elif published is not None:
        output.result([str(published)])
    else:
        output.result_path(target)


def _write(
    making: Making,
    documents: Mapping[str, bytes],
    inherited: frozenset[str],
    publication: "Publication | None",
    progress: Bars,
    output: Output,
) -> int:
    """Carries the plan out; returns how many bytes were written."""
    from dus_cli.execute.write import WORKERS, check_places, execute, output_files

    plan, target = making.plan, making.target
    if making.stream:
        folder, source = making.source.path, making.checkpoint
    else:
        folder = download(making.source, making.checkpoint, progress=output.shows_progress)
        source = making.checkpoint
        if folder != making.source.path:
            source = open_checkpoint(folder, name=source.name)
            check_places(folder, target, force=making.force)

    def check(result_folder: Path) -> Mapping[str, bytes]:
        from dus_cli.verify.result import check_result

        result = check_result(
            result_folder,
            plan,
            source,
            inherited=inherited,
            bytes_too=making.checks.bytes_too,
            progress=progress,
        )
        return {CHECKSUMS: _checksums(result, progress)} if making.checks.checksums else {}

    total = sum(file.size for file in output_files(plan, documents))
    with progress("streaming" if making.stream else "writing", total) as advance:
        return execute(
            plan,
            folder,
            target,
            documents,
            force=making.force,
            progress=advance,
            check=check,
            streams=streams(making.source, making.checkpoint)
            if making.stream
            else lambda name: None,
            delivery=publication if making.leaves_nothing else None,
            # One source shard at a time, so that not more than its output lies on the disk.
            workers=1 if making.leaves_nothing else WORKERS,
        )


def _is_made(target: Path, documents: Mapping[str, bytes]) -> bool:
    """Whether an earlier run finished the same checkpoint at `target`, from the same source."""
    try:
        return all((target / name).read_bytes() == text for name, text in documents.items())
    except OSError:
        return False


def _publication(making: Making, progress: Bars, record: bytes) -> "Publication | None":
    if making.place is None or making.access is None:
        return None
    from dus_cli.sources.publish import Publication

    return Publication(making.place, making.access, progress, record)


def _checksums(result: Checkpoint, progress: Bars) -> bytes:
    from dus_cli.verify.checksums import compute_checksums

    with progress("hashing", result.tensor_bytes) as count:
        return compute_checksums(result, progress=count).to_bytes()
