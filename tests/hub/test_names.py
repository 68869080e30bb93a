"""What models are called on the command line, who may see them, and what is said if not."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.checkpoints import mistral_checkpoint
from tests.hub.client import run_dus
from tests.hub.command import Dus, contents, offer
from tests.hub.faults import Drop, Fault, Kind, Refuse, rate_limited
from tests.hub.server import EXPIRED, MEMBER, STRANGER, Hub

MISTRAL = "mistralai/Mistral-7B-v0.1"


def layers_of(dus: Dus, *words: str) -> int:
    """How many layers the model has that these words name."""
    ended = dus("inspect", "--json", *words)
    assert ended.exit_code == 0, ended.stderr
    (stack,) = json.loads(ended.stdout)["stacks"]
    layers = stack["layers"]
    assert isinstance(layers, int)
    return layers


@pytest.fixture
def models(hub: Hub, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models that are told apart by their layers: 2 in the folder org/name, 3 and more on the Hub.

    Returns commits of org/name by the tag or branch that names them.
    """
    made = tmp_path_factory.mktemp("models")
    mistral_checkpoint(tmp_path / "org" / "name", layers=2)
    mistral_checkpoint(tmp_path / "mistral-7b", layers=2)
    mistral_checkpoint(tmp_path / "hf:" / "org" / "name", layers=2)
    offer(hub, mistral_checkpoint(made / "3", layers=3), "org/name")
    hub.tag("org/name", "v1")
    first = hub.repositories["org/name"].sha
    offer(hub, mistral_checkpoint(made / "4", layers=4), "org/name")
    offer(hub, mistral_checkpoint(made / "5", layers=5), "org/name", revision="de/v")
    offer(hub, mistral_checkpoint(made / "6", layers=6), MISTRAL)
    return {"v1": first, "main": hub.repositories["org/name"].sha}


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (("org/name",), 2),
        (("./org/name",), 2),
        (("mistral-7b",), 2),
        (("hf://org/name",), 4),
        (("hf://org/name@v1",), 3),
        (("org/name@v1",), 3),
        (("org/name@main",), 4),
        (("org/name@de/v",), 5),
        (("hf://org/name", "--revision", "v1"), 3),
        (("hf://org/name", "--revision", "de/v"), 5),
        (("hf://org/name@v1", "--revision", "v1"), 3),
        (("hf://mistral-7b",), 6),
        (("Mistral-7B",), 6),
        (("mistral-7b@main",), 6),
        ((MISTRAL,), 6),
    ],
)
def test_a_path_comes_before_the_hub(
    words: tuple[str, ...], layers: int, models: dict[str, str], dus: Dus
) -> None:
    assert models
    assert layers_of(dus, *words) == layers


@pytest.mark.parametrize(("revision", "layers"), [("v1", 3), ("main", 4)])
def test_a_commit_is_a_revision(
    revision: str, layers: int, models: dict[str, str], dus: Dus
) -> None:
    assert layers_of(dus, f"org/name@{models[revision]}") == layers


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("inspect nothing-like-it", "nothing-like-it: no such file or folder, and no name"),
        ("inspect mistral7b", "Names like it: mistral-7b"),
        ("inspect my-modle", "Names like it: my-model"),
        ("inspect @v1", "@v1: no such file or folder"),
        ("inspect hf://", "is no name of a model on the Hub"),
        ("inspect hf://a/b/c", "Write hf://ORG/NAME or hf://ORG/NAME@REVISION."),
        ("inspect my-model --revision v1", "--revision is for a model on the Hub"),
        ("inspect org/name@v1 --revision v2", "name two revisions"),
        ("inspect org/absent", "org/absent: the Hub has no such model, or it is private"),
        ("inspect org/name@absent", "org/name: the Hub has no such branch, tag or commit"),
        ("inspect org/name@0123456", "org/name: the Hub has no such branch, tag or commit"),
        ("inspect mistralai/Mistral-7B-v01", "Names like it: mistralai/Mistral-7B-v0.1"),
        ("upscale my-model --drop 1 --stream", "--stream is for a model on the Hub"),
        ("upscale my-model --drop 1 --push-to name", "Write ORG/NAME."),
        ("upscale my-model --drop 1 --push-to a/b/c", "Write ORG/NAME."),
        ("upscale org/name --drop 1 --dry-run --push-to org/new", "Leave out --dry-run."),
        ("upscale my-model --drop 1 --private", "Add --push-to ORG/NAME."),
        ("upscale my-model --drop 1 --push-revision a", "Add --push-to ORG/NAME."),
        ("upscale my-model --drop 1 --pull-request", "Add --push-to ORG/NAME."),
        ("upscale org/name --drop 1 --stream --verify", "Leave it out."),
    ],
)
def test_what_makes_no_sense_is_said_in_two_lines(
    words: str, said: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "my-model"), "org/name")
    ended = dus(*words.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert said in ended.stderr


def test_an_empty_name_is_no_name(dus: Dus) -> None:
    ended = dus("inspect", "")
    assert ended.exit_code == 2
    assert "the path is empty" in ended.stderr


def test_escapes_in_a_name_are_not_printed(dus: Dus) -> None:
    ended = dus("inspect", "a\x1b[31m::error::b")
    assert ended.exit_code == 2
    assert "\x1b" not in ended.stderr


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_a_renamed_model_is_recorded_under_the_name_it_bears_now(
    stream: tuple[str, ...], hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/old")
    hub.rename("org/old", "org/new")
    ended = dus("upscale", "org/old", "--drop", "1", "-o", "deep", *stream)
    assert ended.exit_code == 0, ended.stderr
    source = json.loads((tmp_path / "deep" / "dus.json").read_bytes())["source"]
    commit = hub.repositories["org/new"].sha
    assert (source["base_model"], source["revision"]) == ("org/new", commit)
    card = (tmp_path / "deep" / "README.md").read_text(encoding="utf-8")
    assert "base_model: org/new" in card
    assert "org/old" not in card
    assert all(str(tmp_path).encode() not in text for text in contents(tmp_path / "deep").values())


# --- Who may ---

ACCESS = [
    ("private", None, 2, "log in with hf auth login"),
    ("private", STRANGER, 2, "or it is private"),
    ("private", MEMBER, 0, ""),
    ("gated", None, 3, "is gated, and this account has no access to it"),
    ("gated", STRANGER, 3, "/org/name; if you have it, log in with hf auth login"),
    ("gated", MEMBER, 0, ""),
    ("open", None, 0, ""),
    ("open", STRANGER, 0, ""),
    ("open", EXPIRED, 3, "The token is wrong or has expired: log in with hf auth login"),
    ("open", "hf_nonsense", 3, "The token is wrong or has expired: log in with hf auth login"),
]


@pytest.mark.parametrize("command", ["inspect", "upscale --drop 1", "upscale --drop 1 --stream"])
@pytest.mark.parametrize(("kind", "token", "exit_code", "said"), ACCESS)
def test_who_may_not_see_a_model_is_told_what_to_do(
    kind: str,
    token: str | None,
    exit_code: int,
    said: str,
    command: str,
    hub: Hub,
    tmp_path: Path,
    dus: Dus,
) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    repository = hub.repositories["org/name"]
    repository.private, repository.gated = kind == "private", kind == "gated"
    verb, *options = command.split()
    ended = dus(verb, "org/name", *options, token=token)
    assert ended.exit_code == exit_code, ended.stderr
    assert said in ended.stderr
    assert (tmp_path / "name-dus6").exists() == (verb == "upscale" and exit_code == 0)


def test_the_option_comes_before_the_environment(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    hub.repositories["org/name"].private = True
    assert dus("inspect", "org/name", "--token", MEMBER, token=STRANGER).exit_code == 0
    assert dus("inspect", "org/name", "--token", STRANGER, token=MEMBER).exit_code == 2


# --- When the Hub does not answer ---

OUTAGES: dict[str, tuple[Kind, int | None, int, str]] = {
    "busy once": (rate_limited(0), 1, 0, ""),
    "busy for long": (rate_limited(3600), None, 3, "wait 3600 s, or log in for more."),
    "busy for ever": (rate_limited(0), None, 3, "Too many requests from here"),
    "down once": (Refuse(status=503), 1, 0, ""),
    "down four times": (Refuse(status=502), 4, 0, ""),
    "down": (Refuse(status=500), None, 3, "the Hub answers 500"),
    "in maintenance": (Refuse(status=503), None, 3, "Try again later."),
    "no longer there": (Refuse(status=410, message="Gone"), None, 3, "the Hub answers 410"),
    "dropping once": (Drop(), 1, 0, ""),
    "dropping": (Drop(), None, 3, "Look at the network and HF_ENDPOINT"),
}


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("path", ["/api/models/*", "*/config.json"])
def test_an_outage_is_waited_for_a_while_and_then_named(
    outage: str, path: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    kind, times, exit_code, said = OUTAGES[outage]
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    injection = hub.inject(Fault(kind, path=path, times=times))
    ended = dus("inspect", "org/name")
    assert (ended.exit_code, said in ended.stderr) == (exit_code, True), ended.stderr
    assert 1 <= injection.fired <= 5


def test_a_long_wait_is_not_waited_for(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    injection = hub.inject(Fault(rate_limited(3600), times=None))
    assert dus("inspect", "org/name").exit_code == 3
    assert injection.fired == 1


def test_a_short_wait_is_announced(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    hub.inject(Fault(rate_limited(2), path="/api/models/*"))
    ended = dus("inspect", "org/name")
    assert ended.exit_code == 0
    assert "the Hub answers 429; trying again in 2 s.\n" in ended.stderr
    hub.inject(Fault(Drop(), path="/api/models/*", times=3))
    ended = dus("inspect", "org/name")
    assert ended.exit_code == 0
    assert "; trying again in 2 s.\n" in ended.stderr
    assert ".;" not in ended.stderr


# --- Without the Hub ---


ABSENCES = pytest.mark.parametrize("absence", ["offline", "no network", "dropping"])


def leave(absence: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    if absence == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif absence == "no network":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        hub.inject(Fault(Drop(), times=None))


@ABSENCES
def test_without_the_hub_the_cache_is_taken(
    absence: str, hub: Hub, tmp_path: Path, dus: Dus, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mistral_checkpoint(tmp_path / "base", shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"not needed, so not downloaded")
    offer(hub, folder, "org/name")
    assert dus("upscale", "org/name", "--drop", "1", "-o", "first").exit_code == 0
    leave(absence, hub, monkeypatch)
    ended = dus("upscale", "org/name", "--drop", "1", "-o", "second")
    assert ended.exit_code == 0, ended.stderr
    assert "taken from the cache, commit" in ended.stderr
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    # The record says what stayed behind, and of what was not downloaded the cache knows nothing.
    assert b"pytorch_model.bin" in first.pop("dus.json")
    assert b"pytorch_model.bin" not in second.pop("dus.json")
    assert first == second


@ABSENCES
def test_without_hub_and_cache_the_way_out_is_named(
    absence: str, hub: Hub, tmp_path: Path, dus: Dus, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    leave(absence, hub, monkeypatch)
    ended = dus("upscale", "org/name", "--drop", "1")
    assert ended.exit_code == 3
    assert ("HF_HUB_OFFLINE" if absence == "offline" else "Look at the network") in ended.stderr
    assert not (tmp_path / "name-dus6").exists()


def test_the_cache_lies_where_it_is_said_to(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    words = ("upscale", "org/name", "--drop", "1", "--cache-dir", "cache")
    assert dus(*words, "-o", "first").exit_code == 0
    assert (tmp_path / "cache" / "models--org--name").is_dir()
    assert not (hub.home / "hub" / "models--org--name").exists()
    hub.forget()
    assert dus(*words, "-o", "second").exit_code == 0
    assert [request.path for request in hub.requests] == ["/api/models/org/name"]


# --- As users start it ---


def test_in_a_process_of_its_own(hub: Hub, tmp_path: Path) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "base"), "org/name")
    hub.repositories["org/name"].private = True
    ended = run_dus(hub, "inspect", "org/name", token=MEMBER, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert MEMBER not in ended.stdout + ended.stderr
    ended = run_dus(hub, "inspect", "org/name", cwd=tmp_path, env={"HF_HUB_OFFLINE": "1"})
    assert ended.returncode == 3
    assert "Unset HF_HUB_OFFLINE" in ended.stderr


def test_names_are_listed_without_the_hub(hub: Hub, dus: Dus) -> None:
    human = dus("inspect", "--names").stdout
    table = json.loads(dus("inspect", "--names", "--json").stdout)["names"]
    assert table["mistral-7b"] == MISTRAL
    assert [line.split() for line in human.splitlines()] == [list(row) for row in table.items()]
    assert hub.requests == []
