"""Looking at models on the Hub: headers and small files are fetched, and tell what folders tell."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from dus_cli.cli.wording import in_bytes
from dus_cli.sources import mirror
from tests.bench.generate import SHAPES, generate
from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint
from tests.hub.command import Dus, contents, offer
from tests.hub.server import Hub, Request

FIRST_BYTES = 1 << 16
OF_THE_RUN = {"bytes_free", "bytes_read", "bytes_to_cache", "seconds"}
"""What a report says of the run and not of the model."""

INSPECT = ("inspect", "--json")
PLAN = ("upscale", "--drop", "1", "--dry-run", "--json")
VERIFY = ("verify", "--json")


def shards(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.path.endswith(".safetensors")]


def fetched(hub: Hub) -> list[Request]:
    """What was asked but for what the client asks once in a process, on its own behalf."""
    return [request for request in hub.requests if "agent-harnesses" not in request.path]


def report(text: str) -> object:
    """A JSON report without what is about the run, and what the command called the model."""

    def cleaned(value: object) -> object:
        if isinstance(value, dict):
            return {key: cleaned(each) for key, each in value.items() if key not in OF_THE_RUN}
        return [cleaned(each) for each in value] if isinstance(value, list) else value

    parsed = json.loads(text)
    parsed.pop("name", None)
    return cleaned(parsed)


def downloaded(hub: Hub, folder: Path, above: Path) -> Path:
    """`folder` as a download of org/base would put it into the cache."""
    place = above / "models--org--base" / "snapshots"
    place.mkdir(parents=True)
    snapshot = place / hub.repositories["org/base"].sha
    snapshot.symlink_to(folder)
    return snapshot


# --- A model that nobody would like to download ---


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """100 GB in 20 shards, headers over holes."""
    folder = tmp_path_factory.mktemp("huge") / "base"
    generate(folder, SHAPES["mistral-7b"], layers=228, shard_elements=2_550_000_000, sparse=True)
    weights = sorted(folder.glob("*.safetensors"))
    assert len(weights) == 20
    assert 95e9 < sum(path.stat().st_size for path in weights) < 105e9
    yield folder


def offer_unhashed(hub: Hub, folder: Path) -> None:
    """Puts a folder of holes on the Hub, stating hashes that nobody comes to check."""
    files: dict[str, bytes | Path] = {path.name: path for path in folder.iterdir()}
    weights = [name for name in files if name.endswith(".safetensors")]
    hub.add("org/base", files, sha256=dict.fromkeys(weights, "0" * 64))


@pytest.mark.parametrize("words", [INSPECT, PLAN, VERIFY], ids=lambda words: words[0])
def test_of_a_huge_model_kilobytes_are_fetched_and_say_the_same(
    words: tuple[str, ...], huge: Path, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    offer_unhashed(hub, huge)
    ended = dus(*words, "org/base")
    assert ended.exit_code == 0, ended.stderr
    requests = fetched(hub)
    assert sum(request.bytes_sent for request in requests) < 600_000
    # The answer about the model, config, index, and each shard from Hub and storage; three
    # documents beside them.
    assert len(requests) <= 1 + 2 + 2 * 20 + 3
    for request in shards(requests):
        assert request.range is not None
        begin, end = map(int, request.range.removeprefix("bytes=").split("-"))
        assert 0 <= begin <= end < FIRST_BYTES
    assert report(ended.stdout) == report(
        dus(*words, downloaded(hub, huge, tmp_path)).stdout,
    )


def test_what_was_fetched_is_told(huge: Path, hub: Hub, dus: Dus) -> None:
    offer_unhashed(hub, huge)
    told = dus("inspect", "org/base").stderr
    requests = fetched(hub)
    # Of the answer about the model only the request is counted.
    received = sum(request.bytes_sent for request in requests if request.status == 206)
    assert told == f"org/base: fetched {in_bytes(received)} in {len(requests)} requests.\n"


def test_the_mirror_is_removed(
    huge: Path, hub: Hub, tmp_path: Path, dus: Dus, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_unhashed(hub, huge)
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    assert dus("inspect", "org/base").exit_code == 0
    assert dus("upscale", "org/base", "--drop", "300").exit_code == 2
    assert list(place.iterdir()) == []


# --- The same as the folder says ---


def plain(folder: Path) -> None:
    mistral_checkpoint(folder)


def sharded(folder: Path) -> None:
    mistral_checkpoint(folder, layers=6, shards=5)


def with_everything(folder: Path) -> None:
    """A card, other formats, sub-folders, and files of a kind that is never fetched."""
    sharded(folder)
    texts = {
        "README.md": "---\nlicense: apache-2.0\nlanguage: en\n---\n# Base\n",
        "pytorch_model.bin": "x" * 3000,
        "onnx/model.onnx": "x" * 3000,
        "original/params.json": "{}",
        "1_Pooling/config.json": '{"dimension": 8}',
        "vocab.txt": "a\nb\n",
        "quantize_config.json": '{"bits": 4}',
        "sp ace/ü.txt": "a name to be quoted",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def in_mistrals_format(folder: Path) -> None:
    write_checkpoint(folder, {}, {})
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    tensors = {name.removeprefix("model."): array for name, array in mistral_tensors(4).items()}
    save_file(tensors, folder / "consolidated.safetensors")
    params = {"dim": 8, "n_layers": 4, "n_heads": 2, "hidden_dim": 16, "vocab_size": 32}
    (folder / "params.json").write_text(json.dumps(params), encoding="utf-8")


def with_a_long_header(folder: Path) -> None:
    """Longer than what is asked for at first, in one file and so without index."""
    tensors = mistral_tensors(4)
    config = mistral_config(4)
    write_checkpoint(folder, tensors, config)
    padding = {f"note {number}": "x" * 100 for number in range(2000)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", **padding})


def without_a_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00005.safetensors").unlink()


def cut_short(folder: Path) -> None:
    sharded(folder)
    path = folder / "model-00003-of-00005.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(folder: Path) -> None:
    sharded(folder)
    path = folder / "model-00003-of-00005.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def empty_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00003-of-00005.safetensors").write_bytes(b"")


def without_config(folder: Path) -> None:
    sharded(folder)
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    sharded(folder)
    (folder / "config.json").write_bytes(b'{"a": 1, "a": 2}')


def broken_index(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_bytes(b"[]")


def only_pickles(folder: Path) -> None:
    plain(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / "README.md").write_bytes(b"# Soon\n")


FOLDERS: Mapping[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        plain,
        sharded,
        with_everything,
        in_mistrals_format,
        with_a_long_header,
        without_a_shard,
        cut_short,
        cut_in_the_header,
        empty_shard,
        without_config,
        broken_config,
        broken_index,
        only_pickles,
        nothing,
    )
}


@pytest.mark.parametrize("words", [INSPECT, PLAN, VERIFY], ids=lambda words: words[0])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_repository_is_judged_as_the_folder_is(
    folder: str, words: tuple[str, ...], hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    FOLDERS[folder](tmp_path / "made")
    offer(hub, tmp_path / "made")
    snapshot = downloaded(hub, tmp_path / "made", tmp_path)
    there, here = dus(*words, "org/base"), dus(*words, snapshot)
    assert there.exit_code == here.exit_code, there.stderr
    # A message may begin with the path of the folder, or with the name of the repository.
    assert report(there.stdout) == report(here.stdout.replace(str(snapshot), "org/base"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_once_downloaded_it_has_the_faults_of_the_folder(
    folder: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    FOLDERS[folder](tmp_path / "made")
    offer(hub, tmp_path / "made")
    there, here = (dus("verify", "--deep", "--json", name) for name in ("org/base", "made"))
    assert there.exit_code == here.exit_code, there.stderr
    keys = ("valid", "findings") if here.exit_code < 2 else ("error",)
    for key in keys:
        expected = json.loads(here.stdout.replace('"made', '"org/base'))[key]
        assert json.loads(there.stdout)[key] == expected


@pytest.mark.parametrize("folder", ["sharded", "with_everything", "in_mistrals_format"])
@pytest.mark.parametrize("options", [(), ("--max-shard-size", "2kB")])
def test_plan_and_result_are_those_of_the_downloaded_folder(
    folder: str, options: tuple[str, ...], hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    FOLDERS[folder](tmp_path / "made")
    offer(hub, tmp_path / "made")
    snapshot = downloaded(hub, tmp_path / "made", tmp_path)
    words = ("upscale", "--drop", "1", *options)
    for source, out in (("org/base", "there"), (snapshot, "here")):
        ended = dus(*words, source, "-o", out)
        assert ended.exit_code == 0, ended.stderr
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_the_cache_is_read_and_not_the_hub(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    with_everything(tmp_path / "made")
    offer(hub, tmp_path / "made")
    first = dus("upscale", "org/base", "--drop", "1", "-o", "first")
    assert first.exit_code == 0, first.stderr
    hub.forget()
    for words in (INSPECT, PLAN, VERIFY, ("upscale", "--drop", "1", "-o", "second")):
        assert dus(*words, "org/base").exit_code == 0
    assert {request.path for request in hub.requests} == {"/api/models/org/base"}
    assert contents(tmp_path / "second") == contents(tmp_path / "first")


def test_a_file_that_was_cut_short_in_the_cache_is_fetched_anew(
    hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    with_everything(tmp_path / "made")
    offer(hub, tmp_path / "made")
    words = ("upscale", "org/base", "--drop", "1", "-o")
    assert dus(*words, "first").exit_code == 0
    snapshot = hub.home / "hub" / "models--org--base" / "snapshots"
    damaged = ["model-00003-of-00005.safetensors", "tokenizer.json", "1_Pooling/config.json"]
    for name in damaged:
        (path,) = snapshot.glob(f"*/{name}")
        path.write_bytes(path.read_bytes()[:-1])
    ended = dus(*words, "second")
    assert ended.exit_code == 0, ended.stderr
    assert contents(tmp_path / "second") == contents(tmp_path / "first")


def test_verify_with_base_on_the_hub_downloads_both(hub: Hub, tmp_path: Path, dus: Dus) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "made", shards=2))
    assert dus("upscale", "org/base", "--drop", "1", "-o", "deep").exit_code == 0
    offer(hub, tmp_path / "deep", "org/deep")
    assert dus("verify", "org/deep", "--base", "org/base", "--deep", "--strict").exit_code == 0
    other = mistral_checkpoint(tmp_path / "other", shards=2, seed=1)
    offer(hub, other, "org/other")
    assert dus("verify", "org/deep", "--base", "org/other").exit_code == 1
    assert dus("verify", "org/deep", "--base", str(other)).exit_code == 1
    assert dus("verify", tmp_path / "deep", "--base", "org/base").exit_code == 0


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../b", "a\\b", "a\nb", "/etc/passwd", "a//b", "./a", "x" * 1100]
)
def test_names_of_files_that_lead_elsewhere_are_refused(
    name: str, hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "made"))
    hub.add("org/evil", {"config.json": b"{}", name: b"{}"})
    ended = dus("inspect", "org/evil")
    assert ended.exit_code == 3
    assert "which is no path to use here" in ended.stderr


@pytest.mark.parametrize("pair", [("a", "a/b"), ("n" * 300, "b"), ("a/" + "n" * 300, "b")])
def test_files_that_no_folder_can_hold_are_named(
    pair: tuple[str, str], hub: Hub, tmp_path: Path, dus: Dus
) -> None:
    offer(hub, mistral_checkpoint(tmp_path / "made"))
    files: dict[str, bytes | Path] = {path.name: path for path in (tmp_path / "made").iterdir()}
    hub.add("org/odd", files | dict.fromkeys(pair, b"{}"))
    ended = dus("inspect", "org/odd")
    assert ended.exit_code == 3
    assert "cannot be laid out" in ended.stderr


def test_however_much_an_index_promises_no_more_is_asked_than_a_header_may_have(
    hub: Hub, tmp_path: Path, dus: Dus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "MAX_HEADER_BYTES", 10_000)
    folder = mistral_checkpoint(tmp_path / "made", shards=2)
    shard = "model-00001-of-00002.safetensors"
    with (folder / shard).open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little"))
        file.truncate(1 << 20)
    weight_map = {f"{number}{'n' * 100}": shard for number in range(1000)}
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index, encoding="ascii")
    offer(hub, folder)
    assert dus("inspect", "org/base").exit_code == 3
    received = [request.bytes_sent for request in shards(fetched(hub))]
    assert max(received) == 10_000 + 8
