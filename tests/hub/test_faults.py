"""A sample of all faults at all requests; `python -m tests.hub.sweep` tries every one."""

from pathlib import Path

import pytest

from tests.hub import sweep
from tests.hub.answers import Answer, Call
from tests.hub.command import Dus
from tests.hub.faults import Fault, Kind, Refuse
from tests.hub.server import MEMBER, Hub
from tests.hub.sweep import SCENES, Trial

SAMPLE = 8

pytestmark = [
    # The way of the client to upload without Xet is one that its HTTP library is to give up.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>'"),
    pytest.mark.usefixtures("_session"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep.make_base(tmp_path_factory.mktemp("sweep") / "base")


@pytest.mark.parametrize("scene", SCENES)
def test_whatever_fails_nothing_is_half_done_and_the_next_run_completes(
    scene: str, base: Path
) -> None:
    rule = sweep.rule_of(scene, base)
    for trial in rule.sample(SAMPLE, seed=0):
        try:
            sweep.check(trial, rule, base)
        except AssertionError as error:
            raise AssertionError(str(trial)) from error


COMMIT = "/api/models/org/deep/commit/main"
LOST: dict[str, tuple[str, str, str, str]] = {
    # What happens after the last byte was sent: the commit is made, and nobody hears of it.
    "a commit": ("streamed and pushed", "cut", "POST", COMMIT),
    "a commit that replaces": ("replaced", "reset", "POST", COMMIT.replace("main", "new")),
    "a pull request": ("proposed", "cut", "POST", COMMIT),
}


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("lost", LOST)
def test_a_lost_answer_does_no_harm(lost: str, for_ever: bool, base: Path) -> None:
    scene, kind, method, path = LOST[lost]
    rule = sweep.rule_of(scene, base)
    trial = Trial(scene=scene, kind=kind, method=method, path=path, skip=0, for_ever=for_ever)
    assert trial in rule.trials
    sweep.check(trial, rule, base)


def test_a_pull_request_is_opened_once_however_often_it_is_tried(base: Path) -> None:
    trial = Trial(scene="proposed", kind="cut", method="POST", path=COMMIT, skip=0, for_ever=True)
    with sweep.stage("proposed", base) as stage:
        stage.hub.inject(trial.fault(stage.hub))
        assert stage.run() == 4
        assert list(stage.hub.repositories["org/deep"].pulls) == ["refs/pr/1"]


def test_the_judge_sees_what_is_half_done(base: Path) -> None:
    """A file less here or there is told from all that may be."""
    rule = sweep.rule_of("pushed", base)
    for place, files in rule.after.items():
        for name in files:
            fewer = {each: text for each, text in files.items() if each != name}
            with pytest.raises(AssertionError, match="half done"):
                sweep.check_state({**rule.after, place: fewer}, rule)
            with pytest.raises(AssertionError, match="half done"):
                sweep.check_state({**rule.after, place: {**files, name: b"other"}}, rule)
        sweep.check_state({key: each for key, each in rule.after.items() if key != place}, rule)
    replaced = sweep.rule_of("replaced", base)
    with pytest.raises(AssertionError, match="main is gone"):
        sweep.check_state({}, replaced)


def test_an_upload_that_fails_is_told_as_what_it_is(hub: Hub, base: Path, dus: Dus) -> None:
    hub.inject(Fault(Refuse(status=403, message="Full"), method="PUT", times=None))
    ended = dus("upscale", base, "--drop", "1", "--push-to", "org/deep", token=MEMBER)
    assert ended.exit_code == 4
    assert "org/deep: the Hub answers 403: 'Full'" in ended.stderr


@pytest.mark.parametrize("text", ["<html>Log in</html>", "[]", "null", '{"id": 1}', ""])
def test_a_page_instead_of_an_answer_is_named(text: str, hub: Hub, dus: Dus) -> None:
    class Page(Kind):
        def instead(self, call: Call) -> Answer:  # noqa: ARG002
            return Answer(status=200, body=text.encode())

    hub.inject(Fault(Page(), times=None))
    ended = dus("inspect", "org/base")
    assert ended.exit_code == 3
    assert "makes no sense" in ended.stderr
    assert "the login page of a network" in ended.stderr
