"""`dus verify --strict` on what transformers saves, and on what `dus upscale` makes of it.

    python -m tests.conformance.sweep [--jsonl FILE] [TYPE …]

Every finding is a false alarm, or a true oddity of the type; every error that is no DusError is a
fault of dus.
"""

# ruff: noqa: T201

import argparse
import json
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, Final

from dus_cli.documents import write_documents
from dus_cli.errors import DusError
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.model.architecture import choose_stacks
from dus_cli.model.stack import find_stacks
from dus_cli.plan import plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.verify.result import check_result
from dus_cli.verify.run import VerifyRequest, verify
from tests.conformance.build import build, model_types, quiet, save
from tests.conformance.pool import run

DROPS: Final = (1, 2)
NOT_SAVED: Final = frozenset({"tokenizer-missing", "generation-config-missing"})
"""What a model alone does not save."""


def findings(path: Path, **request: Any) -> list[str]:
    """`code: text` of all that a strict verification finds."""
    done = verify(path, VerifyRequest(strict=True, ignored=NOT_SAVED, **request))
    return [f"{finding.code}: {finding.text}" for finding in done.findings]


def examine(model_type: str) -> dict[str, Any]:
    """What verification says of a type's model and its up-scaled forms."""
    built = build(model_type)
    with tempfile.TemporaryDirectory(prefix="dus-sweep-") as place:
        source = Path(place) / "source"
        save(built, source)
        result: dict[str, Any] = {
            "class": type(built.model).__name__,
            "recipe": built.recipe,
            "parameters": built.parameters,
            "source": _guarded(lambda: findings(source, deep=True)),
        }
        for drop in DROPS:
            for stack in (None, *(_named(source) if drop == DROPS[0] else ())):
                target = Path(place) / f"deep-{drop}-{stack}"
                result[f"m={drop}" + (f" {stack}" if stack else "")] = _guarded(
                    lambda target=target, drop=drop, stack=stack: _upscaled(
                        source, target, UpscaleRequest(drop=drop, stack=stack)
                    )
                )
        return result


def _named(source: Path) -> list[str]:
    """Stacks beyond those that are scaled when none is named."""
    checkpoint = open_checkpoint(source)
    stacks = find_stacks(name for _, name, _ in checkpoint.tensors())
    config = checkpoint.config or {}
    try:
        default = {counted.stack.prefix for counted in choose_stacks(config, stacks)}
    except DusError:
        default = set()
    return [s.prefix for s in stacks if s.layer_count > 2 and s.prefix not in default]


def _upscaled(source: Path, target: Path, request: UpscaleRequest) -> list[str]:
    from contextlib import nullcontext

    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, request)

    def check(folder: Path) -> dict[str, bytes]:
        check_result(
            folder,
            plan,
            checkpoint,
            inherited=frozenset(),
            bytes_too=False,
            progress=lambda label, total: nullcontext(lambda count: None),
        )
        return {}

    execute(plan, source, target, write_documents(plan, checkpoint.card), check=check)
    return findings(target, deep=True, base=checkpoint)


def _guarded(work: Any) -> list[str] | str:
    try:
        found: list[str] = work()
    except DusError as error:
        return f"{type(error).__name__}: {error.message}"
    except Exception:
        return "UNFORESEEN: " + traceback.format_exc()[-1500:]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Verifies models of many types.")
    parser.add_argument("types", nargs="*", metavar="TYPE", help="all, if none is given")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write every result there")
    options = parser.parse_args()
    quiet()
    totals: Counter[str] = Counter()
    lines = []
    for outcome in run(examine, options.types or model_types()):
        if outcome.error is not None:
            lines.append({"type": outcome.item, "error": outcome.error})
            totals["not built"] += 1
            print(f"{outcome.item}: not built: {outcome.error}", flush=True)
        else:
            lines.append({"type": outcome.item, **outcome.result})
            totals["built"] += 1
            for what, said in outcome.result.items():
                for fault in said if isinstance(said, list) else ():
                    totals["findings"] += 1
                    print(f"{outcome.item} {what}: {fault}", flush=True)
                if isinstance(said, str) and said.startswith(("OutputError", "UNFORESEEN")):
                    totals["faults of dus"] += 1
                    print(f"{outcome.item} {what}: {said}", flush=True)
        if options.jsonl is not None:
            with options.jsonl.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    print(dict(totals))


if __name__ == "__main__":
    main()
