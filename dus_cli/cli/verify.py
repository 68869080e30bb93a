"""`dus verify`: prove a checkpoint right."""

import os
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dus_cli.cli import hub
from dus_cli.cli.output import Line, Output, Styled
from dus_cli.cli.progress import progress_bars
from dus_cli.cli.running import exit_codes
from dus_cli.cli.wording import in_bytes, parse_config_rules, plural
from dus_cli.errors import CheckpointError, OutputError, RequestError
from dus_cli.findings import CHECKS, Finding, Group, Severity
from dus_cli.format.checkpoint import Checkpoint, open_checkpoint
from dus_cli.scaling import UpscaleRequest
from dus_cli.sources.find import HubOptions, download, open_source, streams
from dus_cli.sources.local import Source
from dus_cli.verify.verification import Verification

if TYPE_CHECKING:
    from dus_cli.verify.run import Digests

FINDINGS_EXIT_CODE = 1
"""What a verification that found an error ends with; see docs/exit-codes.md."""

_MAX_LISTED = 20
_STYLES = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "dim"}
_LABELS = {
    Group.FILES: "files",
    Group.HEADERS: "headers",
    Group.INDEX: "index",
    Group.CONFIG: "config.json",
    Group.LAYERS: "layers",
    Group.RECORD: "dus.json",
    Group.WEIGHTS: "weights",
    Group.BASE: "base",
    Group.CHECKSUMS: "checksums",
}


class Format(StrEnum):
    """How the outcome is printed."""

    HUMAN = "human"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"
    SARIF = "sarif"
    QUIET = "quiet"


_FOR_CI = (Format.GITHUB, Format.JUNIT, Format.SARIF)


def verify_command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Checkpoint folder, one .safetensors file, or a model on the Hub.",
        ),
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read the weights too: NaN, Inf, zeros, equal layers.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="SRC", help="Prove that PATH was made from SRC, byte for byte."),
    ] = None,
    drop: Annotated[
        int | None,
        typer.Option("--drop", "-m", metavar="M", help="With --base, where there is no dus.json."),
    ] = None,
    target_layers: Annotated[
        int | None, typer.Option(metavar="S", help="With --base, instead of --drop.")
    ] = None,
    stack: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="With --base: the stack that was scaled.")
    ] = None,
    config_rule: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=RULE", help="With --base: as given to dus upscale."),
    ] = None,
    checksums: Annotated[
        str | None, typer.Option(metavar="FILE", help="Compare with a manifest of SHA-256 sums.")
    ] = None,
    write_checksums: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write such a manifest if PATH is valid.")
    ] = None,
    revision: hub.Revision = None,
    token: hub.Token = None,
    cache_dir: hub.CacheDir = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Leave out a finding. Repeatable.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings as errors.")] = False,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="How to print it: human, json, github, junit, sarif or quiet.",
        ),
    ] = Format.HUMAN,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code says it.")
    ] = False,
) -> None:
    """Prove a checkpoint right: headers, index, config and layers; weights and source if asked.

    Finds all faults, not the first. Exit code 0: valid; 1: something is wrong.

    Of a model on the Hub only what is checked is fetched.

    Examples:

      dus verify solar --strict

      dus verify solar --deep --format github

      dus verify solar --base mistral-7b

      dus verify solar --base mistral-7b --drop 8

      dus verify me/solar
    """
    from dus_cli.verify.run import VerifyRequest, unreadable, verify

    form = Format.JSON if as_json else Format.QUIET if quiet else format_
    output = Output(as_json=form is Format.JSON, quiet=form is Format.QUIET)
    with exit_codes(output):
        if (form is not format_ and format_ is not Format.HUMAN) or (as_json and quiet):
            raise RequestError("--format, --json and --quiet say the same", hint="Give one.")
        ignored = frozenset(ignore or ())
        unknown = sorted(ignored - CHECKS.keys())
        if unknown:
            raise RequestError(
                f"--ignore {unknown[0]!r}: no such code", hint="docs/findings.md lists all codes."
            )
        options = HubOptions(revision=revision, token=token, cache_dir=cache_dir)
        with ExitStack() as opened:
            source = opened.enter_context(
                open_source(path, options, hub.remarks(output), documents=True)
            )
            hub.tell_traffic(source, output)
            title = source.repository.name if source.repository is not None else source.name
            upscaled = _upscale_request(base, drop, target_layers, stack, config_rule)
            wanted = _open_base(base, replace(options, revision=None), opened, output)
            bytes_too = deep or checksums is not None or write_checksums is not None
            digests = None
            if wanted is not None and not bytes_too:
                digests = _digests(source, *wanted, upscaled)
            if digests is None:
                if bytes_too or wanted is not None:
                    source = _with_weights(source, output)
                if wanted is not None:
                    found = _with_weights(wanted[0], output)
                    wanted = (found, open_checkpoint(found.path, name=found.name))
            request = VerifyRequest(
                deep=deep,
                base=wanted[1] if wanted is not None else None,
                upscale=upscaled,
                checksums=Path(checksums) if checksums is not None else None,
                ignored=ignored,
                strict=strict,
                unfetched=source.unfetched,
                digests=digests,
            )
            try:
                with progress_bars(output) as progress:
                    outcome = verify(source.path, request, name=title, progress=progress)
            except CheckpointError as error:
                if form in _FOR_CI:
                    # Whoever uploads the report finds one, and it does not say that all is well.
                    _print(unreadable(title, error), form, source, output)
                raise
            _print(outcome, form, source, output)
            if write_checksums is not None and outcome.valid:
                _write_checksums(source.path, Path(write_checksums), output)
            elif write_checksums is not None:
                output.note([f"{write_checksums}: not written, for the checkpoint has errors"])
    if not outcome.valid:
        raise typer.Exit(FINDINGS_EXIT_CODE)


def _open_base(
    name: str | None, options: HubOptions, opened: ExitStack, output: Output
) -> tuple[Source, Checkpoint] | None:
    if name is None:
        return None
    found = opened.enter_context(open_source(name, options, hub.remarks(output)))
    hub.tell_traffic(found, output)
    return found, open_checkpoint(found.path, name=found.name, unfetched=found.unfetched)


def _digests(
    source: Source, of_base: Source, base: Checkpoint, upscaled: UpscaleRequest | None
) -> "Digests | None":
    """What stands for the weights of a model on the Hub; None where they have to be read."""
    from dus_cli.verify.base import plan_of
    from dus_cli.verify.base_digests import can_be_hashed
    from dus_cli.verify.run import Digests

    repository = source.repository
    if repository is None:
        return None

    def stated(path: str) -> tuple[Any, str] | None:
        file = repository.files.get(path)
        return file.hasher() if file is not None else None

    checkpoint = open_checkpoint(
        source.path, name=source.name, unfetched=source.unfetched, report=lambda finding: None
    )
    plan = plan_of(checkpoint, base, upscaled, lambda finding: None)
    if not can_be_hashed(checkpoint, plan, stated):
        return None
    return Digests(stated=stated, base_streams=streams(of_base, base))


def _with_weights(source: Source, output: Output) -> Source:
    """The same source with all its bytes on this disk."""
    if source.repository is None:
        return source
    checkpoint = open_checkpoint(source.path, name=source.name, report=lambda finding: None)
    folder = download(source, checkpoint, progress=output.shows_progress)
    return replace(source, path=folder, repository=None)


def _upscale_request(
    base: str | None,
    drop: int | None,
    target_layers: int | None,
    stack: str | None,
    config_rule: list[str] | None,
) -> UpscaleRequest | None:
    """What the options say of how the checkpoint was made; None where they say nothing."""
    given = drop is not None or target_layers is not None
    if base is None and (given or stack is not None or config_rule):
        raise RequestError(
            "--drop, --target-layers, --stack and --config-rule say how PATH was made",
            hint="Name the source with --base SRC.",
        )
    if drop is not None and target_layers is not None:
        raise RequestError("--drop and --target-layers say the same", hint="Give one.")
    if not given and (stack is not None or config_rule):
        raise RequestError("--stack and --config-rule need --drop or --target-layers")
    if not given:
        return None
    return UpscaleRequest(
        drop=drop,
        target_layers=target_layers,
        stack=stack,
        config_rules=parse_config_rules(config_rule or []),
    )


def _print(outcome: Verification, form: Format, source: Source, output: Output) -> None:
    if form is Format.HUMAN:
        output.result(_report(outcome, output.width))
    elif form is Format.JSON:
        output.result_json(outcome.to_json())
    elif form is not Format.QUIET:
        from dus_cli.verify.reports import FORMATS, RunContext, github_summary

        path = source.path
        folder = path if path.is_dir() else path.parent
        if source.repository is not None:
            folder = Path(source.repository.name)
        # A CI system shows findings at files as its repository has them.
        root = os.environ.get("GITHUB_WORKSPACE") or os.curdir
        context = RunContext(
            folder=Path(os.path.relpath(folder, root)).as_posix(), ended=datetime.now(UTC)
        )
        output.result_text(FORMATS[form.value](outcome, context))
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if form is Format.GITHUB and summary:
            with open(summary, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(github_summary(outcome))


def _write_checksums(folder: Path, manifest: Path, output: Output) -> None:
    from dus_cli.execute.staging import write_durably
    from dus_cli.verify.checksums import compute_checksums, own_path

    checkpoint = open_checkpoint(folder)
    with progress_bars(output) as progress, progress("hashing", checkpoint.tensor_bytes) as count:
        itself = own_path(checkpoint, manifest)
        content = compute_checksums(checkpoint, progress=count, exclude=itself).to_bytes()
    try:
        write_durably(manifest, content)
    except OSError as error:
        raise OutputError(f"{manifest}: cannot be written: {error.strerror}") from None


def _report(outcome: Verification, width: int) -> Iterator[Line]:
    by_group: dict[Group, dict[str, list[Finding]]] = {}
    for finding in outcome.findings:
        by_group.setdefault(finding.check.group, {}).setdefault(finding.code, []).append(finding)
    for group in Group:
        if group in by_group:
            yield Styled(_LABELS[group], "label")
            for code, findings in by_group[group].items():
                yield from _code_lines(outcome, code, findings, width)
            yield ""
    yield from _summary(outcome, width)


def _code_lines(
    outcome: Verification, code: str, findings: list[Finding], width: int
) -> Iterator[Line]:
    severity = outcome.severity_of(code)
    yield ["  ", Styled(severity.value, _STYLES[severity]), f"  {code}"]
    shown = findings[:_MAX_LISTED]
    for position, finding in enumerate(shown):
        yield from _wrapped(finding.text, width)
        following = shown[position + 1].hint if position + 1 < len(shown) else None
        if finding.hint and finding.hint != following:
            yield from ([Styled(line, "dim")] for line in _wrapped(finding.hint, width))
    more = outcome.counts[code] - len(shown)
    if more:
        yield f"    and {more:,} more"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent="    ",
        subsequent_indent="      ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _summary(outcome: Verification, width: int) -> Iterator[Line]:
    counts = [
        plural(outcome.count(severity), severity.value)
        for severity in Severity
        if outcome.count(severity)
    ]
    verdict = Styled("valid", "good") if outcome.valid else Styled("not valid", "error")
    rest = f" ({', '.join(counts)})" if counts else ""
    yield [Styled(outcome.name, "title"), ": ", verdict, rest]
    checked = ", ".join(_LABELS[group] for group in outcome.groups)
    yield from textwrap.wrap(
        f"checked {plural(outcome.shards, 'shard')}, {plural(outcome.tensors, 'tensor')}, "
        f"{plural(outcome.files, 'file')}: {checked}",
        width,
        initial_indent="  ",
        subsequent_indent="    ",
    )
    shared = f", {in_bytes(outcome.shared_bytes)} shared on disk" if outcome.shared_bytes else ""
    yield f"  read {in_bytes(outcome.bytes_read)}{shared} in {outcome.seconds:.1f} s"
