"""What a source's path tells of the model."""

from pathlib import Path

import pytest

from dus_cli.errors import CheckpointError, RequestError
from dus_cli.sources.local import Source, find_local

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mistral-7b", "mistral-7b"),
        ("mistral-7b/", "mistral-7b"),
        ("./mistral-7b", "mistral-7b"),
        ("mistral-7b/.", "mistral-7b"),
        ("mistral-7b/../mistral-7b", "mistral-7b"),
        ("mistral-7b/sub/..", "mistral-7b"),
        ("mistral-7b/model.safetensors", "model.safetensors"),
        ("latest", "latest"),
        ("/", "checkpoint"),
    ],
)
def test_a_model_is_called_what_its_user_calls_it(given: str, name: str) -> None:
    Path("mistral-7b/sub").mkdir(parents=True)
    Path("mistral-7b/model.safetensors").touch()
    Path("latest").symlink_to("mistral-7b")
    assert find_local(given) == Source(path=Path(given), name=name)


def test_the_current_folder_has_the_name_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mistral-7b").mkdir()
    monkeypatch.chdir("mistral-7b")
    source = find_local(".")
    assert source is not None
    assert source.name == "mistral-7b"


@pytest.mark.parametrize(
    ("folder", "name", "base_model"),
    [
        ("models--mistralai--Mistral-7B-v0.1", "Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1"),
        ("models--a--b", "b", "a/b"),
        ("models--gpt2", "gpt2", "gpt2"),
    ],
)
def test_the_hubs_cache_tells_id_and_commit(folder: str, name: str, base_model: str) -> None:
    snapshot = Path(folder) / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in (snapshot, snapshot.absolute()):
        assert find_local(str(path)) == Source(
            path=path, name=name, base_model=base_model, revision=COMMIT
        )


def test_the_hubs_cache_is_known_from_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Path("models--a--b/snapshots") / COMMIT
    snapshot.mkdir(parents=True)
    monkeypatch.chdir(snapshot)
    source = find_local(".")
    assert source is not None
    assert source.base_model == "a/b"


@pytest.mark.parametrize(
    "path",
    [
        f"datasets--a--b/snapshots/{COMMIT}",
        f"models--a--b/blobs/{COMMIT}",
        "models--a--b/snapshots/main",
        f"models--a--b/snapshots/{COMMIT}/sub",
        f"models--/snapshots/{COMMIT}",
    ],
)
def test_other_folders_tell_no_id(path: str) -> None:
    Path(path).mkdir(parents=True)
    source = find_local(path)
    assert source is not None
    assert (source.name, source.base_model, source.revision) == (Path(path).name, None, None)


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "nothing",
        "./absent",
        "/a/b",
        "a/b/c",
        "./file/inside",
        "nul\0",
        "./dangling",
        "-x",
        "é",
    ],
)
def test_where_there_is_nothing_there_is_no_source(name: str) -> None:
    Path("file").touch()
    Path("dangling").symlink_to("absent")
    assert find_local(name) is None


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(RequestError, match="the path is empty"):
        find_local("")


@pytest.mark.parametrize("name", ["circle", "circle/x", "n" * 300, "n/" * 5000])
def test_a_path_that_cannot_be_looked_at_is_an_error_of_the_checkpoint(name: str) -> None:
    Path("circle").symlink_to("circle")
    with pytest.raises(CheckpointError, match="cannot be read: "):
        find_local(name)
