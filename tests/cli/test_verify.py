"""`dus verify` finds every fault of the table, calls it by its code, and finds nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from dus_cli.findings import CHECKS, Severity
from tests.cli.conftest import Dus
from tests.verify.faults import (
    FAULTS,
    FIRST,
    INDEX,
    Fault,
    arguments,
    edit_json,
    write_faulty,
    write_pair,
)

IDS = [fault.name for fault in FAULTS]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder)
    return folder


def test_every_code_has_a_fault() -> None:
    assert {fault.code for fault in FAULTS} == set(CHECKS)


@pytest.mark.parametrize("options", [(), ("--deep",), ("--base", "base"), ("--checksums", "sums")])
def test_a_sound_checkpoint_has_no_findings(
    dus: Dus, sound: Path, options: tuple[str, ...]
) -> None:
    places = {"base": str(sound / "base"), "sums": str(sound / "sums.json")}
    given = [places.get(option, option) for option in options]
    done = dus("verify", str(sound / "model"), *given, "--json", "--strict")
    outcome = json.loads(done.stdout)
    assert (done.exit_code, outcome["valid"], outcome["findings"]) == (0, True, [])


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_a_fault_is_found_and_called_by_its_code(
    dus: Dus, sound: Path, tmp_path: Path, fault: Fault
) -> None:
    model = write_faulty(sound, tmp_path / "case", fault)
    done = dus("verify", str(model), *arguments(fault, tmp_path / "case"), "--json")
    outcome = json.loads(done.stdout)
    assert done.stderr == ""
    found = {finding["code"] for finding in outcome["findings"]}
    # A changed shard or config is another one than dus.json says, whatever was changed in it.
    accompanying = {*fault.also, "record-shard", "record-config"}
    if fault.code.startswith(("weights", "layers-identical")):
        accompanying = set()  # Only weights have changed.
    assert fault.code in found, outcome["findings"]
    assert found - {fault.code} <= accompanying, outcome["findings"]
    errors = any(CHECKS[code].severity is Severity.ERROR for code in found)
    assert done.exit_code == (1 if errors else 0)
    assert outcome["valid"] is not errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ignore", "no-such-code"), "--ignore 'no-such-code': no such code"),
        (("--json", "--quiet"), "--format, --json and --quiet say the same"),
        (("--json", "--format", "sarif"), "--format, --json and --quiet say the same"),
        (("--drop", "1"), "Name the source with --base SRC."),
        (("--base", "base", "--drop", "1", "--target-layers", "6"), "say the same"),
        (("--base", "base", "--stack", "x"), "need --drop or --target-layers"),
        (("--base", "base", "--drop", "1", "--config-rule", "x"), "not FIELD=RULE"),
        (("--base", "nowhere"), "nowhere: no such file or folder"),
        (("--format", "xml"), "xml"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(
    dus: Dus, sound: Path, options: tuple[str, ...], message: str
) -> None:
    given = [str(sound / "base") if option == "base" else option for option in options]
    done = dus("verify", sound / "model", *given)
    assert done.exit_code == 2
    assert message in done.stderr


def test_an_ignored_code_does_not_count(dus: Dus, sound: Path, tmp_path: Path) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "a head that is gone")
    model = write_faulty(sound, tmp_path / "case", fault)
    ignoring = ("--ignore", "head-missing", "--ignore", "record-shard")
    assert dus("verify", model).exit_code == 1
    done = dus("verify", model, "--json", *ignoring)
    outcome = json.loads(done.stdout)
    assert (done.exit_code, outcome["counts"]) == (0, {})
    assert outcome["ignored"] == ["head-missing", "record-shard"]


def test_strict_makes_a_warning_an_error(dus: Dus, sound: Path, tmp_path: Path) -> None:
    (fault,) = (fault for fault in FAULTS if fault.code == "index-total-size")
    model = write_faulty(sound, tmp_path / "case", fault)
    assert dus("verify", model).exit_code == 0
    done = dus("verify", model, "--strict")
    assert done.exit_code == 1
    assert "  error  index-total-size" in done.stdout


def test_what_cannot_be_read_at_all_exits_3_and_gives_ci_a_report(dus: Dus, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for form in ("human", "github", "junit", "sarif"):
        done = dus("verify", "empty", "--format", form)
        assert done.exit_code == 3
        assert "Error: empty: no safetensors here" in done.stderr
        assert ("no safetensors here" in done.stdout) is (form != "human")


def test_findings_are_grouped_counted_and_cut(dus: Dus, sound: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(sound / "model", model)
    edit_json(model / INDEX, lambda index: index["weight_map"].clear())
    edit_json(
        model / INDEX,
        lambda index: index["weight_map"].update({f"t{n}": FIRST for n in range(1500)}),
    )
    done = dus("verify", model, "--ignore", "index-tensor-missing")
    assert "    and 1,480 more\n" in done.stdout
    outcome = json.loads(dus("verify", model, "--json").stdout)
    assert outcome["counts"]["index-tensor-unknown"] == 1500
    listed = [found["code"] for found in outcome["findings"]]
    assert listed.count("index-tensor-unknown") == 1000


def test_github_gets_annotations_below_its_workspace_and_a_summary(
    dus: Dus, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "a shard cut short")
    model = write_faulty(sound, tmp_path / "models" / "case", fault)
    monkeypatch.chdir(model)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    done = dus("verify", model, "--format", "github")
    assert done.stdout.startswith(
        "::error file=models/case/model/model-00002-of-00004.safetensors,"
    )
    assert "data-length" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_checksums_are_not_written_for_a_checkpoint_with_errors(
    dus: Dus, sound: Path, tmp_path: Path
) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "a shard cut short")
    model = write_faulty(sound, tmp_path / "case", fault)
    done = dus("verify", model, "--write-checksums", tmp_path / "new.json")
    assert done.exit_code == 1
    assert "new.json: not written, for the checkpoint has errors" in done.stderr
    assert not (tmp_path / "new.json").exists()


def test_checksums_written_into_the_checkpoint_hold_for_it(
    dus: Dus, sound: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(sound / "model", model)
    manifest = model / "own-name.json"
    assert dus("verify", model, "--write-checksums", manifest, "--quiet").exit_code == 0
    done = dus("verify", model, "--checksums", manifest, "--strict")
    assert done.exit_code == 0, done.stdout
