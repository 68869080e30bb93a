"""`--push-to`: what is on the Hub afterwards, and what is on the disk meanwhile."""

import json
from pathlib import Path

import numpy as np
import pytest

from dus_cli.sources.hub_errors import TRIES
from dus_cli.sources.publish import Publication
from tests.checkpoints import mistral_checkpoint, mistral_config, write_checkpoint
from tests.hub.client import run_dus
from tests.hub.command import Dus, contents, dus_against, offer, published
from tests.hub.faults import Cut, Fault
from tests.hub.server import MEMBER, READER, STRANGER, Hub

# The way of the client to upload without Xet is one that its HTTP library is to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'")

CARD = "---\nlicense: apache-2.0\n---\n# Base\n"


@pytest.fixture(autouse=True)
def base(tmp_path: Path, hub: Hub) -> Path:
    """A checkpoint in three shards, here and on the Hub as org/base."""
    folder = mistral_checkpoint(tmp_path / "base", layers=8, shards=3)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "assets").mkdir()
    (folder / "assets" / "picture.png").write_bytes(bytes(range(256)) * 20)
    offer(hub, folder)
    return folder


WAYS = {
    "from here": ("base", ()),
    "from the Hub": ("hf://org/base", ()),
    "streamed": ("hf://org/base", ("--stream",)),
    "streamed in smaller shards": ("hf://org/base", ("--stream", "--max-shard-size", "2kB")),
    "with checksums": ("hf://org/base", ("--checksums",)),
    "compared": ("hf://org/base", ("--verify",)),
}


def upscale(source: str, *options: str) -> tuple[str, ...]:
    return ("upscale", source, "--drop", "2", *options)


def pushed(source: str, *options: str) -> tuple[str, ...]:
    return upscale(source, "--push-to", "org/deep", *options)


def local_result(dus: Dus, tmp_path: Path, source: str, *options: str) -> dict[str, bytes]:
    """What the same command makes here."""
    kept = tuple(option for option in options if option != "--stream")
    ended = dus(*upscale(source, "-o", "expected", *kept), token=MEMBER)
    assert ended.exit_code == 0, ended.stderr
    return contents(tmp_path / "expected")


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("large", [1, 3000, 10**9], ids=["large", "mixed", "small"])
@pytest.mark.parametrize("way", WAYS)
def test_the_repository_holds_what_a_run_here_writes(
    way: str, large: int, hub: Hub, tmp_path: Path
) -> None:
    source, options = WAYS[way]
    with dus_against(hub, tmp_path, large=large) as dus:
        expected = local_result(dus, tmp_path, source, *options)
        ended = dus(*pushed(source, *options), token=MEMBER)
        assert ended.exit_code == 0, ended.stderr
        assert ended.stdout.strip() == "org/deep"
        assert published(hub, "org/deep") == expected
        if "--stream" in options:
            assert entries(tmp_path) == {"base", "expected"}
        else:
            (made,) = entries(tmp_path) - {"base", "expected"}
            assert contents(tmp_path / made) == expected
        assert dus("verify", "org/deep", "--base", "org/base", "--strict").exit_code == 0


def test_a_result_is_told_as_json(hub: Hub, dus: Dus) -> None:
    ended = dus(*pushed("hf://org/base", "--stream", "--json"), token=MEMBER)
    told = json.loads(ended.stdout)
    commit = hub.repositories["org/deep"].sha
    assert told["output"] is None
    assert told["published"]["repository"] == "org/deep"
    assert told["published"]["commit"] == commit
    assert commit in told["published"]["url"]


# --- Where it goes ---


@pytest.mark.parametrize("way", ["from here", "streamed"])
def test_a_private_repository_is_made(way: str, hub: Hub, dus: Dus) -> None:
    source, options = WAYS[way]
    assert dus(*pushed(source, *options, "--private"), token=MEMBER).exit_code == 0
    assert hub.repositories["org/deep"].private
    assert dus("inspect", "org/deep").exit_code == 2
    assert dus("inspect", "org/deep", token=MEMBER).exit_code == 0


@pytest.mark.parametrize("way", ["from here", "streamed"])
def test_a_branch_is_made_and_main_stays(way: str, hub: Hub, tmp_path: Path, dus: Dus) -> None:
    source, options = WAYS[way]
    expected = local_result(dus, tmp_path, source)
    hub.add("org/deep", {"README.md": b"# Soon\n"})
    words = pushed(source, *options, "--push-revision", "deeper")
    assert dus(*words, token=MEMBER).exit_code == 0
    assert published(hub, "org/deep") == {"README.md": b"# Soon\n"}
    assert published(hub, "org/deep", "deeper") == expected
    assert dus("verify", "org/deep@deeper", "--base", "org/base").exit_code == 0


@pytest.mark.parametrize("token", [MEMBER, STRANGER])
@pytest.mark.parametrize("way", ["from here", "streamed"])
def test_a_pull_request_proposes_it(
    way: str, token: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    source, options = WAYS[way]
    expected = local_result(dus, tmp_path, source)
    hub.add("org/deep", {"README.md": b"# Soon\n"})
    ended = dus(*pushed(source, *options, "--pull-request"), token=token)
    assert ended.exit_code == 0, ended.stderr
    assert "/discussions/1" in ended.stderr
    assert published(hub, "org/deep") == {"README.md": b"# Soon\n"}
    assert published(hub, "org/deep", "refs/pr/1") == expected
    assert list(hub.repositories["org/deep"].pulls) == ["refs/pr/1"]


@pytest.mark.parametrize("way", ["from here", "streamed"])
def test_a_pull_request_needs_a_repository(way: str, hub: Hub, dus: Dus) -> None:
    source, options = WAYS[way]
    ended = dus(*pushed(source, *options, "--pull-request"), token=MEMBER)
    assert ended.exit_code == 4
    assert "org/deep: a pull request needs a repository that exists" in ended.stderr
    assert "org/deep" not in hub.repositories


# --- What is there already ---

OLD = {
    "README.md": b"# Old\n",
    "config.json": b"{}",
    "model-00001-of-00020.safetensors": b"old",
    "model.safetensors.index.json": b"old",
    "images/figure.png": b"stays",
    "notes.txt": b"stays",
}


@pytest.mark.parametrize("way", ["from here", "streamed"])
@pytest.mark.parametrize("stale", [name for name in OLD if "model" in name])
def test_a_checkpoint_is_not_replaced_unasked(
    way: str, stale: str, hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    source, options = WAYS[way]
    hub.add("org/deep", {stale: OLD[stale]})
    commit = hub.repositories["org/deep"].sha
    hub.forget()
    ended = dus(*pushed(source, *options), token=MEMBER)
    assert ended.exit_code == 4
    assert f"org/deep: holds a checkpoint already ({stale})" in ended.stderr
    assert "--force" in ended.stderr
    assert hub.repositories["org/deep"].sha == commit
    assert weights_fetched(hub, base) == 0
    assert entries(tmp_path) == {"base"}


@pytest.mark.parametrize("way", ["from here", "streamed"])
def test_a_run_that_was_not_told_of_its_commit_is_run_again(
    way: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    source, options = WAYS[way]
    expected = local_result(dus, tmp_path, source)
    hub.inject(Fault(Cut(after=0), path="*/commit/*", times=TRIES))
    assert dus(*pushed(source, *options), token=MEMBER).exit_code == 4
    assert published(hub, "org/deep") == expected
    ended = dus(*pushed(source, *options), token=MEMBER)
    assert ended.exit_code == 0, ended.stderr
    assert published(hub, "org/deep") == expected


@pytest.mark.parametrize("way", ["from here", "streamed"])
def test_with_force_old_weights_go_and_the_rest_stays(
    way: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    source, options = WAYS[way]
    expected = local_result(dus, tmp_path, source)
    hub.add("org/deep", dict(OLD))
    commits = len(hub.repositories["org/deep"].commits)
    assert dus(*pushed(source, *options, "--force"), token=MEMBER).exit_code == 0
    stays = {name: text for name, text in OLD.items() if text == b"stays"}
    assert published(hub, "org/deep") == expected | stays
    assert len(hub.repositories["org/deep"].commits) == commits + 1


@pytest.mark.parametrize(
    ("options", "revision"),
    [(["--push-revision", "deeper"], "deeper"), (["--pull-request"], "refs/pr/1")],
    ids=["new branch", "pull request"],
)
def test_where_main_stays_as_it_is_old_weights_are_no_obstacle(
    options: list[str], revision: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    expected = local_result(dus, tmp_path, "base")
    hub.add("org/deep", dict(OLD))
    ended = dus(*pushed("base", *options), token=MEMBER)
    assert ended.exit_code == 0, ended.stderr
    stays = {name: text for name, text in OLD.items() if text == b"stays"}
    assert published(hub, "org/deep", revision) == expected | stays
    assert published(hub, "org/deep") == OLD


def test_an_existing_branch_with_weights_is_not_replaced_unasked(hub: Hub, dus: Dus) -> None:
    hub.add("org/deep", dict(OLD), revision="deeper")
    ended = dus(*pushed("base", "--push-revision", "deeper"), token=MEMBER)
    assert ended.exit_code == 4
    assert published(hub, "org/deep", "deeper") == OLD


def test_what_is_no_checkpoint_is_no_obstacle(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    expected = local_result(dus, tmp_path, "base")
    stays = {"images/figure.png": b"stays"}
    hub.add("org/deep", {"README.md": b"# Soon\n", **stays})
    assert dus(*pushed("base"), token=MEMBER).exit_code == 0
    assert published(hub, "org/deep") == expected | stays


def test_what_is_made_here_already_is_published_as_it_is(
    hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    """So a push that failed after the making is made up for by the same command."""
    expected = local_result(dus, tmp_path, "base")
    ended = dus(*pushed("base", "-o", "expected"), token=MEMBER)
    assert ended.exit_code == 0, ended.stderr
    assert "is made already" in ended.stderr
    assert published(hub, "org/deep") == expected
    ended = dus("upscale", "base", "--drop", "1", "--push-to", "org/other", "-o", "expected")
    assert ended.exit_code == 4
    assert "org/other" not in hub.repositories


def test_what_the_hub_has_is_not_sent_again(hub: Hub, dus: Dus) -> None:
    assert dus(*pushed("hf://org/base", "--stream"), token=MEMBER).exit_code == 0
    first = sum(request.bytes_received for request in hub.requests if request.method == "PUT")
    hub.forget()
    ended = dus(*pushed("hf://org/base", "--stream", "--force"), token=MEMBER)
    assert ended.exit_code == 0, ended.stderr
    assert first > 0
    assert [request for request in hub.requests if request.method == "PUT"] == []


# --- Who may ---


def weights_fetched(hub: Hub, base: Path) -> int:
    """How many bytes of weights of org/base were asked for, but for those along with headers."""
    data = min(
        8 + int.from_bytes(path.read_bytes()[:8], "little") for path in base.glob("*.safetensors")
    )
    return sum(
        request.bytes_sent
        for request in hub.requests
        if request.origin == "cdn"
        and request.method == "GET"
        and (request.range is None or int(request.range[6:].partition("-")[0]) >= data)
    )


@pytest.mark.parametrize("way", ["from here", "from the Hub", "streamed"])
@pytest.mark.parametrize("there", [False, True], ids=["to be made", "there"])
@pytest.mark.parametrize("token", [READER, STRANGER, None, "hf_nonsense"])
def test_who_may_not_write_is_refused_before_weights_are_fetched(
    token: str | None, there: bool, way: str, hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    source, options = WAYS[way]
    if there:
        hub.add("org/deep", {"README.md": b"# Soon\n"})
    repositories = {name: repo.sha for name, repo in hub.repositories.items()}
    ended = dus(*pushed(source, *options), token=token)
    # A wrong token may not read either.
    wrong = token == "hf_nonsense" and source != "base"  # noqa: S105
    assert ended.exit_code == (3 if wrong else 4), ended.stderr
    assert weights_fetched(hub, base) == 0
    assert {name: repo.sha for name, repo in hub.repositories.items()} == repositories
    assert entries(tmp_path) == {"base"}


# --- On the disk ---


def allocated(folder: Path) -> int:
    """Bytes of the blocks of all files below a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_a_streamed_push_takes_the_room_of_one_shard(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two copies of what one shard of the source holds; here of a sixth of the model."""
    taken: list[int] = []
    take = Publication.take

    def measure(self: Publication, path: Path, name: str) -> None:
        # What is written grows until a file is taken, so here it is as large as it ever gets.
        taken.append(allocated(tmp_path / "work"))
        take(self, path, name)

    monkeypatch.setattr(Publication, "take", measure)
    random = np.random.default_rng(0)
    tensors = {
        f"model.layers.{layer}.mlp.up_proj.weight": random.bytes(3 << 20) for layer in range(12)
    }
    arrays = {name: np.frombuffer(each, np.uint8) for name, each in tensors.items()}
    write_checkpoint(tmp_path / "model", arrays, mistral_config(12), shards=6)
    offer(hub, tmp_path / "model", "org/model")
    work = tmp_path / "work"
    work.mkdir()
    with dus_against(hub, work, large=1_000_000) as dus:
        words = ("upscale", "org/model", "--drop", "3", "--stream", "--push-to", "org/deep")
        ended = dus(*words, token=MEMBER)
        assert ended.exit_code == 0, ended.stderr
        assert entries(work) == set()
        largest = max(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
        weights = {
            name: text
            for name, text in published(hub, "org/deep").items()
            if name.endswith(".safetensors")
        }
        total = sum(len(text) for text in weights.values())
        assert total > 8 * largest
        assert largest <= max(taken) < 2.2 * largest
        assert dus("upscale", tmp_path / "model", "--drop", "3", "-o", "here").exit_code == 0
        assert weights.items() <= contents(work / "here").items()


def test_in_a_process_of_its_own(hub: Hub, tmp_path: Path) -> None:
    ended = run_dus(hub, *pushed("hf://org/base", "--stream"), token=MEMBER, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "org/deep\n"), ended.stderr
    assert "Warning" not in ended.stderr
    assert MEMBER not in ended.stderr
    assert entries(tmp_path) == {"base"}
