"""What the tests of the writer share."""

from pathlib import Path

from dus_cli.documents import write_documents
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest


def run(
    source: Path, target: Path, *, drop: int = 1, force: bool = False, direct: bool = True
) -> Plan:
    """Plans and executes an up-scaling, as the command does."""
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=drop))
    documents = write_documents(plan, checkpoint.card)
    execute(plan, source, target, documents, force=force, direct=direct)
    return plan


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
