"""`dus upscale`: make the deeper checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dus_cli.cli import hub
from dus_cli.cli.making import Checks, Making, make, show
from dus_cli.cli.output import Output
from dus_cli.cli.running import exit_codes
from dus_cli.cli.wording import parse_config_rules, parse_size
from dus_cli.errors import RequestError
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.plan import Plan, plan_upscale
from dus_cli.scaling import UpscaleRequest
from dus_cli.sources.find import HubOptions, open_source
from dus_cli.sources.local import Source

if TYPE_CHECKING:
    from dus_cli.plan_file import PlanFile
    from dus_cli.sources.hub import Access
    from dus_cli.sources.publish import Place

_INTERRUPTED = "Interrupted. The same command goes on from where it stopped."


def upscale(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SRC",
            help="Checkpoint folder, or a model on the Hub: ORG/NAME, ORG/NAME@REV, a short name.",
        ),
    ] = None,
    drop: Annotated[
        int | None,
        typer.Option(
            "--drop", "-m", metavar="M", help="Layers that each of the two copies loses (m)."
        ),
    ] = None,
    target_layers: Annotated[
        int | None,
        typer.Option(metavar="S", help="Layers of the result (s = 2(n-m)), instead of --drop."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Target folder (default: ./<name>-dus<S>)."
        ),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Layer stack to scale, as dus inspect names it."),
    ] = None,
    config_rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=RULE",
            help="What to do with a config field: gather, keep, reindex or rekey. Repeatable.",
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Largest output shard, as 5GB or 5GiB (default: the source's largest).",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Hub id of the source, for the model card."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace a target that exists, here or on the Hub, once the new is complete.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare the result with the source, byte for byte, too."),
    ] = False,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Add dus-checksums.json, SHA-256 of everything.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole plan and write nothing.")
    ] = False,
    plan_to: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="With --dry-run: save the plan.")
    ] = None,
    from_plan: Annotated[
        str | None, typer.Option(metavar="FILE", help="Run a saved plan; its source is checked.")
    ] = None,
    revision: hub.Revision = None,
    token: hub.Token = None,
    cache_dir: hub.CacheDir = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Fetch the weights of SRC without keeping them.")
    ] = False,
    push_to: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Publish the result on the Hub.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push-to: a new repository is private.")
    ] = False,
    push_revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="With --push-to: the branch to commit to.")
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="With --push-to: open a pull request instead.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan and the result as JSON.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the output path and errors only.")
    ] = False,
) -> None:
    """Make the depth up-scaled checkpoint: layers 0..n-m-1, then m..n-1.

    Prints the new checkpoint's path on stdout, or its name on the Hub if it is published.

    The same command finishes a run that was interrupted.

    Examples:

      dus upscale mistral-7b --drop 8

      dus upscale mistral-7b --target-layers 48 -o solar --max-shard-size 5GB

      dus upscale mistral-7b --drop 8 --dry-run --plan plan.json

      dus upscale --from-plan plan.json

      dus upscale mistralai/Mistral-7B-v0.1 --drop 8 --stream --push-to me/solar
    """
    output = Output(as_json=as_json, quiet=quiet)
    with exit_codes(output, interrupted=_INTERRUPTED):
        _refuse_contradictions(
            {
                "--plan": plan_to is not None and not dry_run,
                "--verify": verify and (dry_run or stream),
                "--checksums": checksums and (dry_run or (stream and push_to is not None)),
                "--drop": drop is not None and target_layers is not None,
                "--push-to": push_to is not None and dry_run,
                "--private": private and push_to is None,
                "--push-revision": push_revision is not None and push_to is None,
                "--pull-request": pull_request and push_to is None,
            }
        )
        planned = (drop, target_layers, stack, config_rule, max_shard_size, base_model, revision)
        if from_plan is not None and any(value is not None and value != [] for value in planned):
            raise RequestError(
                "--from-plan takes no options about what is made: the saved plan says that",
                hint="To change it, plan again.",
            )
        saved = _load(from_plan)
        name = source or (saved.source if saved is not None else None)
        if name is None:
            raise RequestError(
                "SRC is missing", hint="Usage: dus upscale SRC --drop M; --help says more."
            )
        place = _place(push_to, private, push_revision, pull_request, force)
        options = HubOptions(revision=revision, token=token, cache_dir=cache_dir)
        with open_source(name, options, hub.remarks(output), documents=not dry_run) as found:
            checkpoint = _open_folder(found)
            hub.tell_traffic(found, output)
            if stream and found.repository is None:
                raise RequestError(
                    f"--stream is for a model on the Hub, and {name} lies here already",
                    hint="Leave out --stream.",
                )
            request = UpscaleRequest(
                drop=drop,
                target_layers=target_layers,
                stack=stack,
                config_rules=parse_config_rules(config_rule or []),
                max_shard_size=parse_size(max_shard_size) if max_shard_size else None,
                base_model=base_model or found.base_model,
                revision=found.revision,
            )
            plan = _plan(checkpoint, request, saved)
            making = Making(
                source=found,
                checkpoint=checkpoint,
                plan=plan,
                target=_target(out, saved, checkpoint, plan),
                force=force,
                checks=Checks(bytes_too=verify, checksums=checksums),
                stream=stream,
                place=place,
                access=_access(options, output) if place is not None else None,
            )
            if dry_run:
                show(making, output, plan_to)
            else:
                make(making, output)


_CONTRADICTIONS = {
    "--plan": ("saves the plan of a dry run", "Add --dry-run."),
    "--verify": (
        "reads the result and the source again; a dry run makes no result, and --stream keeps no "
        "source (its bytes are compared with the Hub's SHA-256 as they pass)",
        "Leave it out.",
    ),
    "--checksums": ("is about a result on this disk, and there will be none", "Leave it out."),
    "--drop": ("and --target-layers say the same", "Give one."),
    "--push-to": ("publishes a result, and a dry run makes none", "Leave out --dry-run."),
    "--private": ("says how to publish", "Add --push-to ORG/NAME."),
    "--push-revision": ("says where to publish", "Add --push-to ORG/NAME."),
    "--pull-request": ("says how to publish", "Add --push-to ORG/NAME."),
}


def _refuse_contradictions(present: dict[str, bool]) -> None:
    for option, contradicts in present.items():
        if contradicts:
            fact, way_out = _CONTRADICTIONS[option]
            raise RequestError(f"{option} {fact}", hint=way_out)


def _open_folder(source: Source) -> Checkpoint:
    if not source.path.is_dir():
        raise RequestError(
            f"{source.path}: is one file", hint="Give the folder that holds it and its config.json."
        )
    return open_checkpoint(source.path, name=source.name, unfetched=source.unfetched)


def _load(path: str | None) -> "PlanFile | None":
    if path is None:
        return None
    from dus_cli.plan_file import load_plan

    return load_plan(Path(path))


def _plan(checkpoint: Checkpoint, request: UpscaleRequest, saved: "PlanFile | None") -> Plan:
    if saved is None:
        return plan_upscale(checkpoint, request)
    from dus_cli.plan_file import check_same

    plan = plan_upscale(checkpoint, saved.request)
    check_same(saved, plan, checkpoint)
    return plan


def _target(out: str | None, saved: "PlanFile | None", checkpoint: Checkpoint, plan: Plan) -> Path:
    if out is None and saved is not None:
        return saved.output
    return Path(out or f"{checkpoint.name}-dus{plan.scaling.after.layers}")


def _place(
    push_to: str | None,
    private: bool,
    push_revision: str | None,
    pull_request: bool,
    force: bool,
) -> "Place | None":
    if push_to is None:
        return None
    from dus_cli.sources.names import SCHEME, is_id
    from dus_cli.sources.publish import Place

    repository = push_to.removeprefix(SCHEME)
    if not is_id(repository) or "/" not in repository:
        raise RequestError(f"--push-to {push_to}: no name of a repository", hint="Write ORG/NAME.")
    return Place(
        repository=repository,
        private=private,
        revision=push_revision,
        pull_request=pull_request,
        replace=force,
    )


def _access(options: HubOptions, output: Output) -> "Access":
    from dus_cli.sources.hub import Access

    return Access(token=options.token, remark=hub.remarks(output))
