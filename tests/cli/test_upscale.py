"""`dus upscale` at the command line: streams, exit codes, plans, defaults."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dus_cli.execute.staging import Staging
from tests.checkpoints import mistral_checkpoint, mistral_config, mistral_tensors, write_checkpoint
from tests.cli.conftest import Dus
from tests.execute.helpers import contents


def test_stdout_is_the_output_path_alone(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    result = dus("upscale", "model", "--drop", 1)
    assert (result.exit_code, result.stdout) == (0, "model-dus6\n")
    assert "layer 2 is followed by a copy of layer 1" in result.stderr
    assert (tmp_path / "model-dus6/config.json").exists()


def test_quiet_prints_nothing_else(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    result = dus("upscale", "model", "--drop", 1, "-o", "out", "-q")
    assert (result.stdout, result.stderr) == ("out\n", "")


@pytest.mark.parametrize(("drop", "layers"), [(0, 8), (1, 6), (2, 4), (3, 2)])
def test_target_layers_say_the_same_as_drop(
    dus: Dus, tmp_path: Path, drop: int, layers: int
) -> None:
    mistral_checkpoint(tmp_path / "model")
    assert dus("upscale", "model", "--drop", drop, "-o", "a").exit_code == 0
    assert dus("upscale", "model", "--target-layers", layers, "-o", "b").exit_code == 0
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    one.pop("dus.json"), other.pop("dus.json")
    assert one == other
    assert json.loads(one["config.json"])["num_hidden_layers"] == layers


REFUSED = [
    pytest.param(["model", "--drop", "4"], "must be from 0 to 3", id="m = n"),
    pytest.param(["model", "--drop", "-1"], "must be from 0 to 3", id="m < 0"),
    pytest.param(["model", "--target-layers", "5"], "an even number from 2 to 8", id="odd s"),
    pytest.param(["model", "--target-layers", "10"], "an even number from 2 to 8", id="s > 2n"),
    pytest.param(["model"], "--drop 1", id="nothing said"),
    pytest.param(["--drop", "1"], "SRC is missing", id="no source"),
    pytest.param(["model", "--drop", "1", "--target-layers", "6"], "Give one", id="both said"),
    pytest.param(["absent", "--drop", "1"], "no such file or folder", id="no such folder"),
    pytest.param(["hf://a b", "--drop", "1"], "hf://ORG/NAME", id="no Hub id"),
    pytest.param(["mistal-7b", "--drop", "1"], "mistral-7b", id="nearly a short name"),
    pytest.param(["model", "--drop", "1", "--revision", "v1"], "is a path here", id="revision"),
    pytest.param(["model", "--drop", "1", "--stream"], "Leave out --stream", id="stream"),
    pytest.param(["model", "--drop", "1", "--private"], "--push-to", id="private"),
    pytest.param(["model", "--drop", "1", "--pull-request"], "--push-to", id="pull request"),
    pytest.param(["model", "--drop", "1", "--push-revision", "x"], "--push-to", id="branch"),
    pytest.param(["model", "--drop", "1", "--push-to", "x"], "ORG/NAME", id="no repository"),
    pytest.param(
        ["model", "--drop", "1", "--dry-run", "--push-to", "a/b"], "--dry-run", id="push nothing"
    ),
    pytest.param(["model", "--drop", "1", "--stack", "h"], "model.layers (4 layers)", id="stack"),
    pytest.param(["model", "--drop", "1", "--config-rule", "x"], "FIELD=RULE", id="bad rule"),
    pytest.param(["model", "--drop", "1", "--config-rule", "x=y"], "gather", id="unknown rule"),
    pytest.param(["model", "--drop", "1", "--config-rule", "x=keep"], "no field", id="no field"),
    pytest.param(["model", "--drop", "1", "--max-shard-size", "big"], "not a size", id="no size"),
    pytest.param(["model", "--drop", "1", "--plan", "p"], "Add --dry-run", id="plan, no dry run"),
    pytest.param(
        ["model", "-m", "1", "--dry-run", "--verify"], "a dry run makes no result", id="dry proof"
    ),
    pytest.param(
        ["model", "-m", "1", "--dry-run", "--checksums"], "there will be none", id="dry sums"
    ),
    pytest.param(["model/model.safetensors", "--drop", "1"], "is one file", id="one file"),
    pytest.param(["--from-plan", "p", "--drop", "1"], "plan again", id="plan and drop"),
    pytest.param(["--from-plan", "p", "--max-shard-size", "1GB"], "plan again", id="plan and size"),
]


@pytest.mark.parametrize(("words", "text"), REFUSED)
def test_impossible_requests_exit_2_and_say_why(
    dus: Dus, tmp_path: Path, words: list[str], text: str
) -> None:
    mistral_checkpoint(tmp_path / "model")
    before = contents(tmp_path)
    result = dus("upscale", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert text in result.stderr
    assert result.stdout == ""
    assert contents(tmp_path) == before


REMARKS = [
    (0, "the paper advises against"),
    (2, "as deep as it was"),
    (3, "makes the model shallower"),
]


@pytest.mark.parametrize(("drop", "text"), REMARKS)
def test_unusual_drops_are_allowed_with_a_remark(
    dus: Dus, tmp_path: Path, drop: int, text: str
) -> None:
    mistral_checkpoint(tmp_path / "model")
    result = dus("upscale", "model", "--drop", drop)
    assert result.exit_code == 0
    assert text in " ".join(result.stderr.split())


def test_dry_run_prints_the_plan_and_writes_nothing(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model", shards=2)
    (tmp_path / "model/model.gguf").write_bytes(b"GGUF")
    before = contents(tmp_path)
    result = dus("upscale", "model", "--drop", 1, "--dry-run")
    assert result.exit_code == 0
    for text in (
        "num_hidden_layers: 4 → 6",
        "model-00001-of-",
        "tokenizer.json (2 B)",
        "model.gguf (the source's weights in another format)",
        "Nothing was written.",
    ):
        assert text in result.stdout
    assert contents(tmp_path) == before


def test_json_holds_the_plan_that_is_run(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    dry = json.loads(dus("upscale", "model", "--drop", 1, "--dry-run", "--json").stdout)
    real = json.loads(dus("upscale", "model", "--drop", 1, "--json").stdout)
    assert (dry["dry_run"], real["dry_run"]) == (True, False)
    assert dry["plan"] == real["plan"]
    assert real["plan"] == json.loads((tmp_path / "model-dus6/dus.json").read_bytes())
    assert real["plan"]["stacks"][0]["layer_map"] == [0, 1, 2, 1, 2, 3]


def test_json_on_failure_is_json_too(dus: Dus) -> None:
    result = dus("upscale", "absent", "--drop", 1, "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["exit_code"], error["kind"]) == (2, 2, "request")


def test_saved_plan_gives_the_same_checkpoint(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model", shards=2)
    saved = dus(
        "upscale", "model", "--drop", 1, "-o", "a", "--dry-run", "--plan", "plan.json", "-q"
    )
    assert (saved.exit_code, saved.stdout, saved.stderr) == (0, "a\n", "")
    run = dus("upscale", "--from-plan", "plan.json")
    assert run.exit_code == 0
    assert Path(run.stdout.strip()) == tmp_path / "a"
    dus("upscale", "model", "--drop", 1, "-o", "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def flip_a_weight(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)


def another_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({**config, "rope_theta": 1e6}), encoding="utf-8")


def another_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"a": 1}', encoding="utf-8")


def another_model(model: Path) -> None:
    write_checkpoint(model, mistral_tensors(5), mistral_config(5))


@pytest.mark.parametrize(
    "change", [flip_a_weight, another_config, another_tokenizer, another_model]
)
def test_saved_plan_refuses_a_source_that_has_changed(
    dus: Dus, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    model = mistral_checkpoint(tmp_path / "model")
    os.utime(model / "model.safetensors", ns=(1, 1))
    dus("upscale", "model", "--drop", 1, "--dry-run", "--plan", "plan.json")
    change(model)
    result = dus("upscale", "--from-plan", "plan.json")
    assert result.exit_code == 3
    assert "has changed since the plan was made" in result.stderr
    assert not (tmp_path / "model-dus6").exists()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"schema": "dus-plan-file/1"}', '{"schema": "dus-plan-file/1", "plan": 3}'],
)
def test_damaged_plan_file_is_an_error(dus: Dus, tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    result = dus("upscale", "--from-plan", "plan.json")
    assert result.exit_code == 3
    assert "plan.json: " in result.stderr


PROTECTED = ["model/config.json", "model/new.json", "notes.txt"]


@pytest.mark.parametrize("name", PROTECTED)
def test_saving_a_plan_never_harms_the_source_or_another_file(
    dus: Dus, tmp_path: Path, name: str
) -> None:
    mistral_checkpoint(tmp_path / "model")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    result = dus("upscale", "model", "--drop", 1, "--dry-run", "--plan", name)
    assert result.exit_code == 4
    assert contents(tmp_path) == before


def test_saved_plan_may_be_replaced(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    for drop in (1, 2):
        assert (
            dus("upscale", "model", "--drop", drop, "--dry-run", "--plan", "p.json").exit_code == 0
        )
    assert '"drop": 2' in (tmp_path / "p.json").read_text(encoding="utf-8")


def test_edited_plan_is_refused(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    dus("upscale", "model", "--drop", 1, "--dry-run", "--plan", "plan.json")
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    edited = text.replace('"target": ', '"target": 1')
    assert edited != text
    (tmp_path / "plan.json").write_text(edited, encoding="utf-8")
    assert dus("upscale", "--from-plan", "plan.json").exit_code == 3


SIZES = [("2kB", None), ("1GB", 1)]


@pytest.mark.parametrize(("size", "count"), SIZES)
def test_max_shard_size_is_kept(dus: Dus, tmp_path: Path, size: str, count: int | None) -> None:
    mistral_checkpoint(tmp_path / "model", shards=3)
    result = dus("upscale", "model", "--drop", 1, "-o", "out", "--max-shard-size", size)
    assert result.exit_code == 0, result.stderr
    shards = list((tmp_path / "out").glob("*.safetensors"))
    if count is not None:
        assert [path.name for path in shards] == ["model.safetensors"]
        assert not (tmp_path / "out/model.safetensors.index.json").exists()
    else:
        assert len(shards) > 3
        assert max(path.stat().st_size for path in shards) <= 2000


def test_no_output_shard_is_larger_than_the_largest_source_shard(dus: Dus, tmp_path: Path) -> None:
    model = mistral_checkpoint(tmp_path / "model", layers=12, shards=3)
    limit = max(path.stat().st_size for path in model.glob("*.safetensors"))
    for drop in range(12):
        assert dus("upscale", "model", "--drop", drop, "-o", f"out{drop}").exit_code == 0
        for path in (tmp_path / f"out{drop}").glob("*.safetensors"):
            assert path.stat().st_size <= limit


def test_model_card_names_the_base_and_no_path(dus: Dus, tmp_path: Path) -> None:
    model = mistral_checkpoint(tmp_path / "model")
    (model / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage: [en, fr]\n---\nOld text.\n", encoding="utf-8"
    )
    assert (
        dus("upscale", model, "--drop", 1, "--base-model", "org/base", "-o", "out").exit_code == 0
    )
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for text in ("base_model: org/base", "license: apache-2.0", "- fr", "0 to 2, 1 to 3"):
        assert text in card
    assert "Old text" not in card
    for name in ("README.md", "dus.json", "config.json"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text(encoding="utf-8")


def test_hub_cache_gives_the_name_and_the_commit(dus: Dus, tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = tmp_path / f"hub/models--org--name/snapshots/{commit}"
    mistral_checkpoint(snapshot)
    result = dus("upscale", snapshot, "--drop", 1)
    assert result.stdout == "name-dus6\n"
    source = json.loads((tmp_path / "name-dus6/dus.json").read_bytes())["source"]
    assert (source["base_model"], source["revision"]) == ("org/name", commit)


def test_unwritable_place_exits_4(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = dus("upscale", "model", "--drop", 1, "-o", "file/out")
    assert result.exit_code == 4
    assert "cannot be written to" in result.stderr


def test_ctrl_c_says_one_line_and_exits_130(tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    # In the background of a script SIGINT is ignored, and a child inherits that.
    # A second of waiting inside the writer, so that the signal meets it at work.
    program = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dus_cli.execute.copy import PieceCopier as C; real = C.copy\n"
        "def slow(self, *work): os.write(1, b'busy\\n'); time.sleep(1); real(self, *work)\n"
        "C.copy = slow\n"
        "from dus_cli.cli.app import main; main()"
    )
    words = [sys.executable, "-c", program, "upscale", "model", "--drop", "1", "-q"]
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        process.wait(timeout=30)
        assert process.returncode == 130
        assert time.monotonic() - started < 20
        assert process.stderr.read() == (
            "Interrupted. The same command goes on from where it stopped.\n"
        )
    assert not (tmp_path / "model-dus6").exists()


def test_path_of_the_result_can_be_opened_whatever_its_bytes(tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    words = [sys.executable, "-m", "dus_cli", "upscale", "model", "--drop", "1", "-q", "-o"]
    printed = subprocess.run(
        [*words, b"out-\xff-\xc3\xa4"],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert printed == b"out-\xff-\xc3\xa4\n"
    assert (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + printed[:-1])) / "dus.json").exists()


def test_result_with_checksums_is_proved_by_them(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model", shards=2)
    made = dus("upscale", "model", "--drop", "1", "-o", "deep", "--verify", "--checksums")
    assert made.exit_code == 0
    assert "equal to its source byte for byte" in made.stderr
    manifest = "deep/dus-checksums.json"
    assert dus("verify", "deep", "--checksums", manifest, "--strict").exit_code == 0
    again = dus("upscale", "deep", "--drop", "1", "-o", "deeper")
    assert again.exit_code == 0
    assert not (tmp_path / "deeper" / "dus-checksums.json").exists()


@pytest.mark.parametrize(
    ("options", "first", "code"),
    [
        (("--verify",), b"\xff", "base-bytes"),
        ((), b"", "data-length"),
    ],
)
def test_result_that_fails_its_check_is_not_put_into_place(
    dus: Dus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    first: bytes,
    code: str,
) -> None:
    mistral_checkpoint(tmp_path / "model")
    finish = Staging.finish

    def spoil(self: Staging, path: str) -> None:
        finish(self, path)
        if path.startswith("model-00002"):
            content = (self.payload / path).read_bytes()
            (self.payload / path).write_bytes(content[:-1] + first)

    monkeypatch.setattr(Staging, "finish", spoil)
    result = dus("upscale", "model", "--drop", "1", "-o", "deep", *options)
    assert result.exit_code == 4
    assert f"the result fails its own check ({code})" in result.stderr
    assert not (tmp_path / "deep").exists()


def test_faults_of_the_source_are_told_and_inherited(dus: Dus, tmp_path: Path) -> None:
    mistral_checkpoint(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{", encoding="utf-8")
    result = dus("upscale", "model", "--drop", "1", "-o", "deep")
    assert result.exit_code == 0
    assert "the source has faults that the result has too: file-json (1)" in result.stderr
