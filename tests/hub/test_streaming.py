"""`--stream`: the same bytes without the source on the disk, each fetched once and checked."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint
from tests.hub.answers import Call
from tests.hub.client import environment
from tests.hub.command import Dus, contents, offer
from tests.hub.faults import Cut, Drop, Fault, Flip, IgnoreRange, Kind, RedirectLoop, Refuse, Short
from tests.hub.server import Hub

UPSCALE = ("upscale", "org/base", "--drop", "2", "-o", "deep")


def plain(folder: Path) -> None:
    mistral_checkpoint(folder, layers=8)


def sharded(folder: Path) -> None:
    mistral_checkpoint(folder, layers=8, shards=5)


def with_documents(folder: Path) -> None:
    """Files of all kinds that go along; one of them is empty, one too large for the mirror."""
    sharded(folder)
    large = "[" + "1," * 600_000 + "1]"
    texts = {
        "README.md": "---\nlicense: mit\n---\n# Base\n",
        "empty.py": "",
        "vocab.json": large,
        "deep/er/notes.txt": "text",
        "1_Pooling/model.safetensors": "not looked into",
        "pytorch_model.bin": "x" * 5000,
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def with_mtp_layer(folder: Path) -> None:
    """A layer behind those that config.json counts, as of DeepSeek."""
    config = mistral_config(8) | {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_nextn_predict_layers": 1,
        "first_k_dense_replace": 0,
    }
    tensors = mistral_tensors(9)
    tensors["model.layers.8.eh_proj.weight"] = np.ones((8, 16), np.float16)
    write_checkpoint(folder, tensors, config, shards=4)


def with_two_stacks(folder: Path) -> None:
    config = mistral_config(8) | {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "num_layers": 8,
        "num_decoder_layers": 8,
    }
    del config["num_hidden_layers"]
    tensors = {}
    for name, array in mistral_tensors(8).items():
        if ".layers." in name:
            for side in ("encoder", "decoder"):
                tensors[name.replace("model.layers", f"{side}.block")] = array
        else:
            tensors[name] = array
    write_checkpoint(folder, tensors, config, shards=3)


SOURCES: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "one file": (plain, ()),
    "shards": (sharded, ()),
    "no layer dropped": (sharded, ("--drop", "0")),
    "layers that are in neither copy": (sharded, ("--drop", "6")),
    "smaller shards": (sharded, ("--max-shard-size", "2kB")),
    "one large shard": (sharded, ("--max-shard-size", "1MB")),
    "documents": (with_documents, ()),
    "a trailing layer": (with_mtp_layer, ()),
    "one stack of two": (with_two_stacks, ("--stack", "decoder.block")),
    "checksums": (sharded, ("--checksums",)),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.mark.parametrize("source", SOURCES)
def test_the_result_is_that_of_the_downloaded_folder(
    source: str, hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    make, options = SOURCES[source]
    make(base)
    offer(hub, base)
    snapshot = tmp_path / "models--org--base" / "snapshots" / hub.repositories["org/base"].sha
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(base)
    words = UPSCALE if "--drop" not in options else ("upscale", "org/base", "-o", "deep")
    ended = dus(*words, *options, "--stream")
    assert ended.exit_code == 0, ended.stderr
    assert dus("upscale", snapshot, *words[2:-1], "local", *options).exit_code == 0
    assert contents(tmp_path / "deep") == contents(tmp_path / "local")
    assert not (hub.home / "hub").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "elsewhere",
        "models--org--base",
        "deep",
        "local",
    }


def fetched(hub: Hub) -> dict[str, list[tuple[int, int]]]:
    """The ranges (half-open) that were answered of each file's bytes, in their order."""
    ranges = defaultdict(list)
    for request in hub.requests:
        if request.status in (200, 206) and request.range is not None:
            begin = int(request.range.removeprefix("bytes=").partition("-")[0])
            # /repos/ORG/NAME/COMMIT/… or /ORG/NAME/resolve/COMMIT/…
            name = request.path.split("/", 5)[5]
            ranges[name].append((begin, begin + request.bytes_sent))
    return {name: sorted(each) for name, each in ranges.items()}


@pytest.mark.parametrize("make", [plain, sharded, with_documents, with_mtp_layer])
def test_each_byte_of_weights_is_fetched_once(
    make: Callable[[Path], None], hub: Hub, base: Path, dus: Dus
) -> None:
    make(base)
    offer(hub, base)
    assert dus("inspect", "org/base").exit_code == 0
    hub.forget()
    ended = dus(*UPSCALE, "--stream")
    assert ended.exit_code == 0, ended.stderr
    for name, ranges in fetched(hub).items():
        size = (base / name).stat().st_size
        if "/" in name or not name.endswith(".safetensors"):
            assert ranges == [(0, size)], name
            continue
        # The first answer is for the header, and holds some of the weights where they are few.
        head, *rest = ranges
        data = 8 + int.from_bytes((base / name).read_bytes()[:8], "little")
        assert head[0] == 0
        assert head[1] >= data
        assert rest == [(data, size)], name


def test_the_commit_is_read_that_was_there_at_first(
    hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    """A push to main while the model is streamed changes nothing of it."""
    sharded(base)
    offer(hub, base)
    commit = hub.repositories["org/base"].sha
    assert dus(*UPSCALE, "--stream").exit_code == 0
    expected = contents(tmp_path / "deep")
    other = mistral_checkpoint(tmp_path / "other", layers=8, shards=5, seed=1)

    class Push(Kind):
        def request(self, call: Call) -> Call:
            offer(hub, other)
            return call

    hub.inject(Fault(Push(), path="*/model-00001-of-*"))
    assert dus(*UPSCALE[:-1], "again", "--stream").exit_code == 0
    assert hub.repositories["org/base"].sha != commit
    assert contents(tmp_path / "again") == expected


# --- Faults ---

SHARD = "/repos/*/model-00003-of-*"
"""At the storage; the first request is for the header."""

PASSING: dict[str, Fault] = {
    "cut": Fault(Cut(after=700), path=SHARD, skip=1),
    "cut three times": Fault(Cut(after=300), path=SHARD, skip=1, times=3),
    "cut by a reset": Fault(Cut(after=700, reset=True), path=SHARD, skip=1),
    "dropped": Fault(Drop(), path=SHARD, skip=1, times=4),
    "short": Fault(Short(by=100), path=SHARD, skip=1),
    "down": Fault(Refuse(status=503), path=SHARD, skip=1, times=4),
    "down for each in turn": Fault(Refuse(status=500), path="*/model-*", every=5, times=4),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_breaks_off_is_taken_up_where_it_broke(
    fault: str, hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    sharded(base)
    offer(hub, base)
    assert dus(*UPSCALE, "--stream").exit_code == 0
    expected = contents(tmp_path / "deep")
    hub.forget()
    injection = hub.inject(PASSING[fault])
    ended = dus(*UPSCALE[:-1], "again", "--stream")
    assert ended.exit_code == 0, ended.stderr
    assert injection.fired == PASSING[fault].times
    assert contents(tmp_path / "again") == expected
    # Whatever came before the fault is not fetched again.
    _, *rest = fetched(hub)["model-00003-of-00005.safetensors"]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(rest))


LAST = "/repos/*/model-00005-of-*"
"""Of five shards the last one has to wait until one of four workers has finished another."""

LASTING: dict[str, tuple[Fault, str]] = {
    "cut": (Fault(Cut(after=0), path=LAST, skip=1, times=None), ""),
    "dropped": (Fault(Drop(), path=LAST, skip=1, times=None), "Look at the network"),
    "down": (Fault(Refuse(status=503), path=LAST, skip=1, times=None), "answers 503"),
    "refused": (Fault(Refuse(status=403), path=LAST, skip=1, times=None), "answers 403"),
    "gone": (Fault(Refuse(status=404), path=LAST, skip=1, times=None), "answers 404"),
    "without ranges": (
        Fault(IgnoreRange(), path=LAST, skip=1, times=None),
        "does not answer for a part of the file",
    ),
    "in a circle": (Fault(RedirectLoop(), path=LAST, skip=1, times=None), "redirect"),
    "short": (Fault(Short(by=10**9), path=LAST, skip=1, times=None), "end before byte"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_run_that_fails_leaves_no_target_and_the_next_goes_on(
    fault: str, hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    sharded(base)
    offer(hub, base)
    assert dus(*UPSCALE, "--stream").exit_code == 0
    expected = contents(tmp_path / "deep")
    shutil.rmtree(tmp_path / "deep")
    kind, said = LASTING[fault]
    hub.inject(kind)
    ended = dus(*UPSCALE, "--stream")
    assert ended.exit_code == 3, ended.stderr
    assert said in ended.stderr
    assert not (tmp_path / "deep").exists()
    staging = tmp_path / ".deep.dus-staging" / "checkpoint"
    finished = {path.name for path in staging.glob("*.safetensors")}
    assert finished
    hub.forget()
    assert dus(*UPSCALE, "--stream").exit_code == 0
    assert contents(tmp_path / "deep") == expected
    streamed = {name for name, ranges in fetched(hub).items() if len(ranges) > 1}
    assert streamed == {
        span["source"]
        for shard in json.loads(expected["dus.json"])["shards"]
        if shard["name"] not in finished
        for span in shard["spans"]
    }
    assert "model-00005-of-00005.safetensors" in streamed


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Flip(at=0), path=SHARD, skip=1),
        Fault(Flip(at=500), path=SHARD, skip=1),
        Fault(Flip(at=30), path="*/vocab.json"),
        Fault(Flip(at=30), path="*/notes.txt"),
        Fault(Flip(at=3), path="/repos/*/1_Pooling/model.safetensors"),
        Fault(Flip(at=3), path="*/config.json"),
        Fault(Flip(at=3), path="*/model.safetensors.index.json"),
    ],
    ids=lambda fault: fault.path,
)
def test_a_wrong_bit_is_noticed_and_nothing_is_kept(
    fault: Fault, hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    with_documents(base)
    (base / "deep/er/notes.txt").write_text("long enough to be flipped" * 3, encoding="utf-8")
    offer(hub, base)
    injection = hub.inject(fault)
    ended = dus(*UPSCALE, "--stream")
    assert injection.fired == 1
    assert ended.exit_code == 3, ended.stderr
    assert "its bytes are not those that the Hub states" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere"}


def test_bytes_are_not_kept_before_their_file_was_compared(
    hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    """A bit is wrong in the first half of a shard, whose second half does not come any more."""
    plain(base)
    offer(hub, base)
    assert dus(*UPSCALE, "--stream").exit_code == 0
    expected = contents(tmp_path / "deep")
    shutil.rmtree(tmp_path / "deep")
    size = (base / "model.safetensors").stat().st_size
    hub.inject(Fault(Flip(at=8), path="/repos/*", skip=1))
    hub.inject(Fault(Cut(after=size // 2), path="/repos/*", skip=1))
    hub.inject(Fault(Drop(), path="/repos/*", skip=1, times=None))
    assert dus(*UPSCALE, "--stream").exit_code == 3
    hub.forget()
    assert dus(*UPSCALE, "--stream").exit_code == 0
    assert contents(tmp_path / "deep") == expected


# --- A process that is killed ---


def test_after_a_kill_only_the_rest_is_fetched(
    hub: Hub, tmp_path: Path, base: Path, dus: Dus
) -> None:
    sharded(base)
    offer(hub, base)
    assert dus(*UPSCALE, "--stream").exit_code == 0
    expected = contents(tmp_path / "deep")
    shutil.rmtree(tmp_path / "deep")
    hub.forget()
    stalled = "model-00005-of-00005.safetensors"
    hub.inject(Fault(Drop(), path=f"/repos/*/{stalled}", skip=1, times=None))
    due = {
        shard["name"]
        for shard in json.loads(expected["dus.json"])["shards"]
        if all(span["source"] != stalled for span in shard["spans"])
    }
    staging = tmp_path / ".deep.dus-staging" / "checkpoint"

    def finished() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in staging.glob("*.safetensors")}

    with subprocess.Popen(
        [sys.executable, "-m", "dus_cli", *UPSCALE, "--stream"],
        env=environment(hub),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        limit = time.monotonic() + 30
        # The tries to get the last shard go on for seconds after all others are there.
        while finished().keys() != due and time.monotonic() < limit:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = finished()
    assert kept.keys() == due
    hub.forget()
    assert dus(*UPSCALE, "--stream").exit_code == 0
    assert [name for name, ranges in fetched(hub).items() if len(ranges) > 1] == [stalled]
    assert contents(tmp_path / "deep") == expected
    assert {name: (tmp_path / "deep" / name).stat().st_ino for name in kept} == kept
