"""`dus verify` finds every fault of the table, calls it by its code, and finds nothing else."""

import json
from pathlib import Path

import pytest

from dus_cli.findings import CHECKS, Severity
from tests.cli.conftest import Dus
from tests.verify.faults import FAULTS, Fault, arguments, write_faulty, write_pair

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
