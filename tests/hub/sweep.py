"""Every kind of fault at every request of whole runs: whatever fails, nothing is half done.

    python -m tests.hub.sweep [SCENE ...]

tries all of them, some thousand, and prints what breaks the rule; the tests take a sample. The
requests are those of a run without faults. A fault meets one of them, once or from then on for
ever. Afterwards

- the run has ended with a documented exit code, and without a traceback (tests.hub.command);
- the target, folder or repository, is as it was before, or is complete and right;
- if the run said that it was done, the target is complete and right;
- the same command without faults completes it.
"""

import argparse
import random
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.checkpoints import mistral_checkpoint
from tests.hub.answers import Answer, Call
from tests.hub.command import Dus, contents, dus_against, offer
from tests.hub.faults import (
    Cut,
    CutUpload,
    Drop,
    Fault,
    Flip,
    IgnoreRange,
    Kind,
    RedirectLoop,
    Refuse,
    Short,
    Stall,
    rate_limited,
)
from tests.hub.server import MEMBER, Hub

OLD: Final = {"config.json": b"{}", "model.safetensors": b"old", "figure.png": b"stays"}
"""What a repository holds that is to be replaced."""

State = Mapping[str, Mapping[str, bytes]]
"""What can be told of a target: files by name, for each place where it has some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A command, and whether it replaces a checkpoint on the Hub."""

    options: tuple[str, ...]
    replaces: bool = False

    @property
    def downloads(self) -> bool:
        """Whether the client fetches whole files, which it compares with no hash."""
        return "--stream" not in self.options


SCENES: Final[Mapping[str, Scene]] = {
    "downloaded": Scene(options=("-o", "deep")),
    "streamed": Scene(options=("-o", "deep", "--stream")),
    "pushed": Scene(options=("-o", "deep", "--push-to", "org/deep")),
    "streamed and pushed": Scene(options=("--stream", "--push-to", "org/deep")),
    "replaced": Scene(
        options=("--stream", "--push-to", "org/deep", "--force", "--push-revision", "new"),
        replaces=True,
    ),
    "proposed": Scene(
        options=("--stream", "--push-to", "org/deep", "--pull-request", "--force"), replaces=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireLinks(Kind):
    """The answer is the last that knows the addresses it gives; the storage forgets them."""

    hub: Hub

    def answer(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002
        self.hub.expire_links()
        return answer


def kinds(hub: Hub) -> Mapping[str, Kind]:
    return {
        "500": Refuse(status=500),
        "403": Refuse(status=403, message="Forbidden"),
        "404": Refuse(status=404, message="Not here"),
        "429": rate_limited(0),
        "a page for 200": Refuse(status=200, message="Log in to this network"),
        "drop": Drop(),
        "cut": Cut(after=10),
        "reset": Cut(after=10, reset=True),
        "cut upload": CutUpload(after=10),
        "short": Short(by=5),
        "flip": Flip(at=5),
        "flip late": Flip(at=60),
        "stall": Stall(seconds=0.02),
        "no range": IgnoreRange(),
        "circle": RedirectLoop(),
        "expire": ExpireLinks(hub=hub),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A fault at the `skip`-th request (from 0) of its method and path, or from there on."""

    scene: str
    kind: str
    method: str
    path: str
    skip: int
    for_ever: bool

    def __str__(self) -> str:
        often = "for ever" if self.for_ever else "once"
        return f"{self.scene}: {self.kind} {often} at {self.method} {self.path} [{self.skip}]"

    def fault(self, hub: Hub) -> Fault:
        return Fault(
            kinds(hub)[self.kind],
            method=self.method,
            path=self.path,
            skip=self.skip,
            times=None if self.for_ever else 1,
        )


class Stage:
    """A Hub with org/base on it, and a folder to work in."""

    def __init__(self, scene: Scene, hub: Hub, folder: Path, dus: Dus) -> None:
        self.scene, self.hub, self.folder, self.dus = scene, hub, folder, dus

    def run(self) -> int:
        words = ("upscale", "hf://org/base", "--drop", "1", *self.scene.options)
        return self.dus(*words, token=MEMBER).exit_code

    def state(self) -> State:
        """What there is of the target: the folder, and each branch and pull request."""
        found: dict[str, Mapping[str, bytes]] = {}
        if (self.folder / "deep").is_dir():
            found["folder"] = contents(self.folder / "deep")
        repo = self.hub.repositories.get("org/deep")
        if repo is not None:
            for ref, oid in (repo.branches | repo.pulls).items():
                files = {
                    name: blob.path.read_bytes() for name, blob in repo.commits[oid].files.items()
                }
                files.pop(".gitattributes", None)
                if files:
                    found[ref] = files
        return found


@contextmanager
def stage(name: str, base: Path) -> Iterator[Stage]:
    """A scene as it is before the command."""
    scene = SCENES[name]
    with tempfile.TemporaryDirectory(prefix="sweep-") as place, Hub() as hub:
        offer(hub, base)
        if scene.replaces:
            hub.add("org/deep", dict(OLD))
        with dus_against(hub, Path(place)) as dus:
            yield Stage(scene, hub, Path(place), dus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds in a scene: the states that its target may have, and the trials there are."""

    before: State
    after: State
    trials: tuple[Trial, ...]

    def sample(self, count: int | None, seed: int) -> Sequence[Trial]:
        """So many of the trials, or all."""
        if count is None or count >= len(self.trials):
            return self.trials
        return random.Random(seed).sample(self.trials, count)


def rule_of(name: str, base: Path) -> Rule:
    """From a run without faults."""
    with stage(name, base) as scene:
        before = scene.state()
        if scene.run() != 0:
            raise AssertionError(f"{name}: fails without a fault")
        after = scene.state()
        seen: Counter[tuple[str, str]] = Counter()
        trials = []
        # Sorted, because requests that are made at a time end in any order.
        for request in sorted(scene.hub.requests, key=lambda each: (each.path, each.method)):
            if "agent-harnesses" in request.path:
                continue
            at = (request.method, request.path)
            for kind in kinds(scene.hub):
                whole = request.method == "GET" and request.range is None
                if scene.scene.downloads and whole and "flip" in kind and "/api/" not in at[1]:
                    continue
                trials += [
                    Trial(
                        scene=name,
                        kind=kind,
                        method=at[0],
                        path=at[1],
                        skip=seen[at],
                        for_ever=for_ever,
                    )
                    for for_ever in (False, True)
                ]
            seen[at] += 1
    return Rule(before=before, after=after, trials=tuple(trials))


def check(trial: Trial, rule: Rule, base: Path) -> None:
    """Raises AssertionError where a run with the fault, or the one after it, breaks the rule."""
    with stage(trial.scene, base) as scene:
        scene.hub.inject(trial.fault(scene.hub))
        code = scene.run()
        state = scene.state()
        check_state(state, rule)
        if code == 0:
            assert state == rule.after, f"said to be done, but there is {_told(state)}"
            return
        scene.hub.forget()
        code = scene.run()
        state = scene.state()
        # Where only the answer was lost that all was done, the target is found occupied.
        assert code == 0 or (code == 4 and state == rule.after), f"the next run ends with {code}"
        assert _without_repeats(state) == rule.after, f"the next run leaves {_told(state)}"
        assert not list(scene.folder.glob(".*")), "something stays behind"


def check_state(state: State, rule: Rule) -> None:
    """Raises AssertionError where a place holds neither what it held before nor the result."""
    for place, files in state.items():
        allowed = [rule.before.get(place), rule.after.get(place)]
        # A branch begins with what main has.
        allowed += [rule.before.get("main")] if place not in ("folder", "main") else []
        assert files in allowed, f"half done: {place} holds {sorted(files)}"
    for place in rule.before:
        assert place in state, f"{place} is gone"


def _without_repeats(state: State) -> State:
    """A pull request that was opened before its files came stays, and another one has them."""
    empty = [place for place, files in state.items() if place.startswith("refs/pr/")][:-1]
    kept = {place: files for place, files in state.items() if place not in empty}
    return {
        "refs/pr/1" if place.startswith("refs/pr/") else place: files
        for place, files in kept.items()
    }


def _told(state: State) -> dict[str, list[str]]:
    return {place: sorted(files) for place, files in state.items()}


def make_base(folder: Path) -> Path:
    return mistral_checkpoint(folder, shards=2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub.sweep", description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join(SCENES))
    parser.add_argument("--sample", type=int, metavar="N", help="so many trials of each scene")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # The client's way to upload without Xet is one that its HTTP library is to give up.
    warnings.simplefilter("ignore")
    broken = tried = 0
    with tempfile.TemporaryDirectory(prefix="sweep-base-") as place:
        base = make_base(Path(place) / "base")
        for name in options.scenes or SCENES:
            rule = rule_of(name, base)
            trials = rule.sample(options.sample, options.seed)
            for trial in trials:
                tried += 1
                try:
                    check(trial, rule, base)
                except Exception as error:
                    broken += 1
                    text = textwrap.indent(f"{type(error).__name__}: {error}", "    ")
                    sys.stdout.write(f"{trial}\n{text}\n")
                    sys.stdout.flush()
            sys.stdout.write(f"{name}: {len(trials)} of {len(rule.trials)} trials\n")
    sys.stdout.write(f"{tried} trials, {broken} break the rule\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
