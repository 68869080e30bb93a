"""`make compare`: faults that a checkpoint can have, against `dus verify` and other tools.

    python -m tests.compare [--fault TEXT] [--write]

Every fault of tests/verify/faults.py is put into a sound checkpoint, and every tool is run on it in
a process of its own. What a tool says of the sound checkpoint is subtracted. `--fault` picks the
faults whose names contain a text and shows what the tools say; `--write` updates
docs/comparison.md.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from tests.bench.page import machine, write_part
from tests.compare.table import PAGE, Row, detail, group_of, option_of, summary
from tests.compare.tools import TOOLS, Tool
from tests.compare.verdicts import Complaints, Ended, Verdict, judge, run
from tests.verify.faults import FAULTS, Fault, arguments, write_faulty, write_pair

ROOT = Path(__file__).parents[2]
Command: TypeAlias = tuple[str, ...]
Controls: TypeAlias = dict[Command, Complaints]
"""What each command says of the sound checkpoint."""


class Comparison:
    """A sound pair, and a case beside it whose paths are the same for every fault.

    So a tool's words about a fault can be compared with its words about the sound checkpoint.
    """

    def __init__(self, work: Path) -> None:
        self.sound = work / "sound"
        self.case = work / "case"
        write_pair(self.sound)
        shutil.copytree(self.sound, self.case)
        tools = {self._command(tool, fault): tool for fault in FAULTS for tool in TOOLS}
        self.controls: Controls = {
            command: _control(tools[command], ended) for command, ended in _run_all(tools).items()
        }

    def _command(self, tool: Tool, fault: Fault) -> Command:
        return tuple(tool.command(self.case / "model", arguments(fault, self.case)))

    def examine(self, fault: Fault) -> tuple[Row, list[str]]:
        """All tools on one fault: the row of the table, and what they say in full."""
        shutil.rmtree(self.case)
        write_faulty(self.sound, self.case, fault)
        commands = [self._command(tool, fault) for tool in TOOLS]
        outcomes = _run_all(commands)
        verdicts: list[Verdict] = []
        words: list[str] = []
        for tool, command in zip(TOOLS, commands, strict=True):
            ended, control = outcomes[command], self.controls[command]
            verdicts.append(_verdict(tool, fault, ended, control))
            words += [f"## {tool.title}", *_words(tool, ended, control)]
        row = Row(
            group=group_of(fault),
            fault=fault.name,
            option=option_of(fault),
            verdicts=tuple(verdicts),
        )
        return row, words


def _run_all(commands: Iterable[Command]) -> dict[Command, Ended | None]:
    """How each command ended; what is asked for twice runs once."""
    distinct = list(dict.fromkeys(commands))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(distinct, pool.map(partial(run, folder=ROOT), distinct), strict=True))


def _control(tool: Tool, ended: Ended | None) -> Complaints:
    if ended is None or ended.crashed:
        raise SystemExit(f"{tool.title} does not get through the sound checkpoint: {ended}")
    said = tool.read(ended)
    if said.errors:
        raise SystemExit(f"{tool.title} takes the sound checkpoint for broken: {said.errors}")
    return said


def _verdict(tool: Tool, fault: Fault, ended: Ended | None, control: Complaints) -> Verdict:
    if ended is None:
        return Verdict.HANGS
    if ended.crashed:
        return Verdict.CRASHES
    said = tool.read(ended)
    return judge(said.beginning_with(f"{fault.code}: ") if tool.must_name else said, control)


def _words(tool: Tool, ended: Ended | None, control: Complaints) -> Iterator[str]:
    if ended is None:
        yield "hangs"
    elif ended.crashed:
        yield ended.stderr
    else:
        said = tool.read(ended)
        yield from (f"error: {text}" for text in sorted(said.errors - control.errors))
        yield from (f"warning: {text}" for text in sorted(said.warnings - control.warnings))


def about(controls: Controls) -> str:
    """What was compared, when and where."""
    lines = ["| column | version | what it is for, and how it was called |", "|---|---|---|"]
    lines += [f"| {tool.title} | {version(tool.package)} | {tool.purpose}. |" for tool in TOOLS]
    warned = len(set().union(*(said.warnings for said in controls.values())))
    return "\n".join(
        (
            *lines,
            "",
            f"Measured on {datetime.now(UTC):%d %B %Y}: {machine()}. Of the sound checkpoint the "
            f"tools report no error, and {warned} warnings, which are subtracted.",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.compare", description=__doc__)
    parser.add_argument("--fault", default="", metavar="TEXT", help="only faults of such a name")
    parser.add_argument("--write", action="store_true", help="update docs/comparison.md")
    options = parser.parse_args()
    if options.fault and options.write:
        parser.error("--write needs all faults")
    chosen = [fault for fault in FAULTS if options.fault in fault.name]
    # The libraries are to look at the folder alone, and print plain text of any width.
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "1000", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(Path(folder))
        rows = []
        for fault in chosen:
            row, words = comparison.examine(fault)
            print(row.fault, *row.verdicts, sep=" | ", flush=True)
            if options.fault:
                print(*words, sep="\n", flush=True)
            rows.append(row)
    print(*summary(rows), sep="\n")
    if not options.write:
        return
    for column, tool in enumerate(TOOLS):
        if all(row.verdicts[column] is Verdict.MISSED for row in rows):
            raise SystemExit(f"{tool.title} finds nothing at all: it cannot have been called right")
    write_part(PAGE, "tools", about(comparison.controls))
    write_part(PAGE, "summary", "\n".join(summary(rows)))
    write_part(PAGE, "faults", "\n".join(detail(rows)))


if __name__ == "__main__":
    main()
