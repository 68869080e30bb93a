"""What `dus upscale` checks of its own result before it takes the target's place."""

from pathlib import Path

from dus_cli.errors import OutputError
from dus_cli.findings import Collector, Severity
from dus_cli.format.checkpoint import Checkpoint
from dus_cli.plan import Plan
from dus_cli.verify.run import Progress, prove
from dus_cli.verify.structure import check_structure, verify_structure


def faults_of(checkpoint: Checkpoint) -> dict[str, int]:
    """Code -> how often, of the errors and warnings that an opened checkpoint has."""
    collector = Collector()
    check_structure(checkpoint, collector)
    return {
        finding.code: collector.counts[finding.code]
        for finding in collector.findings
        if finding.check.severity is not Severity.NOTE
    }


def check_result(
    folder: Path,
    plan: Plan,
    source: Checkpoint,
    *,
    inherited: frozenset[str],
    bytes_too: bool,
    progress: Progress,
) -> Checkpoint:
    """Opens the result in `folder` anew and checks it; `bytes_too` compares it with its source.

    Errors whose codes are `inherited` are the source's own.

    Raises OutputError for any other error.
    """
    collector = Collector()
    result, _ = verify_structure(folder, collector)
    if bytes_too:
        prove(result, source, plan, collector, progress)
    for finding in collector.findings:
        if finding.check.severity is Severity.ERROR and finding.code not in inherited:
            raise OutputError(
                f"the result fails its own check ({finding.code}): {finding.text}",
                hint="Nothing was put into place. The disk may be failing, or dus has a fault: "
                "run the same command again, and report it if it stays.",
            )
    return result
