"""The rules of the comparison, and that the page shows the faults that there are today."""

import json

import pytest

from tests.compare.table import PAGE, expected_rows, read_detail, summary
from tests.compare.tools import TOOLS, read_dus, read_lens, read_model_doctor
from tests.compare.verdicts import Complaints, Ended, Verdict, judge


def said(errors: str = "", warnings: str = "") -> Complaints:
    return Complaints(errors=frozenset(errors.split()), warnings=frozenset(warnings.split()))


@pytest.mark.parametrize(
    "now, of_the_sound, verdict",
    [
        (said(), said(), Verdict.MISSED),
        (said("broken"), said(), Verdict.FOUND),
        (said("broken", "odd"), said(), Verdict.FOUND),
        (said("broken"), said("broken"), Verdict.MISSED),
        (said("", "odd"), said(), Verdict.WARNS),
        (said("", "odd"), said("", "odd"), Verdict.MISSED),
        (said("", "odd new"), said("", "odd"), Verdict.WARNS),
        (said("odd"), said("", "odd"), Verdict.FOUND),
        (said(), said("", "odd"), Verdict.MISSED),
    ],
)
def test_only_what_is_new_counts(
    now: Complaints, of_the_sound: Complaints, verdict: Verdict
) -> None:
    assert judge(now, of_the_sound) is verdict


def test_a_complaint_about_something_else_does_not_name_the_fault() -> None:
    both = frozenset({"data-gap: x", "file-link: y"})
    complaints = Complaints(errors=both, warnings=both)
    own = frozenset({"data-gap: x"})
    assert complaints.beginning_with("data-gap: ") == Complaints(errors=own, warnings=own)


@pytest.mark.parametrize(
    "code, stderr, crashed",
    [
        (0, "", False),
        (1, "Error: no such file", False),
        (1, "Traceback (most recent call last):\n  ...", True),
        (-11, "", True),
    ],
)
def test_a_traceback_or_a_signal_is_a_crash(code: int, stderr: str, crashed: bool) -> None:
    assert Ended(code=code, stdout="", stderr=stderr).crashed is crashed


LENS = """\
Inspection: {inspection}

Diagnostics ({count})
────────────
   Severity    Rule           Layer     Message
 ─────────────
{rows}"""


@pytest.mark.parametrize(
    "code, stdout, complaints",
    [
        (0, LENS.format(inspection="COMPLETE", count=0, rows="None"), Complaints()),
        (
            0,
            LENS.format(
                inspection="PARTIAL",
                count=2,
                rows="   error    dead-layer    a.weight   all 0  \n   warn    odd   b.weight  x\n",
            ),
            Complaints(
                errors=frozenset({"dead-layer: a.weight all 0"}),
                warnings=frozenset({"odd: b.weight x", "Inspection: PARTIAL"}),
            ),
        ),
        (
            2,
            "12:00 ERROR\nCheckpoint not found: x\n",
            Complaints(errors=frozenset({"Checkpoint not found: x"})),
        ),
    ],
)
def test_diagnostics_are_read_from_the_report_of_lens(
    code: int, stdout: str, complaints: Complaints
) -> None:
    assert read_lens(Ended(code=code, stdout=stdout, stderr="")) == complaints


def test_a_report_of_lens_that_is_not_understood_is_not_taken_for_silence() -> None:
    report = LENS.format(inspection="COMPLETE", count=1, rows="error: dead-layer a.weight")
    with pytest.raises(ValueError, match="weightlens"):
        read_lens(Ended(code=0, stdout=report, stderr=""))


@pytest.mark.parametrize(
    "report, complaints",
    [
        (
            {
                "findings": [
                    {"code": "data-gap", "severity": "error", "message": "a hole"},
                    {"code": "file-link", "severity": "warning", "message": "a link"},
                    {"code": "head-tied", "severity": "note", "message": "a head"},
                ]
            },
            Complaints(
                errors=frozenset({"data-gap: a hole"}),
                warnings=frozenset({"file-link: a link", "head-tied: a head"}),
            ),
        ),
        ({"error": {"message": "cannot"}}, Complaints(errors=frozenset({"cannot"}))),
    ],
)
def test_findings_are_read_from_the_report_of_dus(report: object, complaints: Complaints) -> None:
    assert read_dus(Ended(code=1, stdout=json.dumps(report), stderr="")) == complaints


def test_failed_checks_are_read_from_the_report_of_mlx_model_doctor() -> None:
    statuses = ("pass", "warn", "fail", "skip")
    report = {"results": [{"check_id": s, "status": s, "message": "x"} for s in statuses]}
    ended = Ended(code=1, stdout=json.dumps(report), stderr="")
    assert read_model_doctor(ended) == Complaints(
        errors=frozenset({"fail: x"}), warnings=frozenset({"warn: x"})
    )
    assert read_model_doctor(Ended(code=2, stdout="", stderr="no model\n")).errors == {"no model"}


def test_the_page_shows_the_faults_that_there_are() -> None:
    rows = read_detail(PAGE.read_text(encoding="utf-8"))
    shown = [(row.group.value, row.fault, row.option) for row in rows]
    assert shown == expected_rows(), "run make compare with --write"
    assert {len(row.verdicts) for row in rows} == {len(TOOLS)}


def test_the_page_adds_up() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "\n".join(summary(read_detail(text))) in text


def test_the_page_says_that_every_fault_is_found_with_its_option() -> None:
    column = next(number for number, tool in enumerate(TOOLS) if tool.title == "with option")
    rows = read_detail(PAGE.read_text(encoding="utf-8"))
    missed = {row.fault for row in rows if row.verdicts[column] in (Verdict.MISSED, Verdict.HANGS)}
    assert not missed
