"""The reports for CI systems: valid under the published schemas, and proof against any name."""

import dataclasses
import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from dus_cli.findings import CHECKS, Finding, Group, Severity
from dus_cli.verify.reports import FORMATS, RunContext, github_summary
from dus_cli.verify.reports.github import SUMMARY_ROWS, workflow_commands
from dus_cli.verify.reports.junit import junit_xml
from dus_cli.verify.reports.sarif import sarif_log
from dus_cli.verify.reports.wording import MAX_CHARACTERS
from dus_cli.verify.verification import Verification

SCHEMAS: Final = Path(__file__).parent / "schemas"
SARIF_SCHEMA: Final = Draft4Validator(
    json.loads((SCHEMAS / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
)
JUNIT_SCHEMAS: Final = {
    name: xmlschema.XMLSchema(SCHEMAS / name) for name in ("junit-10.xsd", "JUnit.xsd")
}

CONTEXT: Final = RunContext(folder=".", ended=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))

NOTE: Final = Finding(
    code="head-tied", file="config.json", field="tie_word_embeddings", message="x"
)
WARNING: Final = Finding(
    code="index-total-size", file="model.safetensors.index.json", message="total_size is 5, not 6"
)
ERROR: Final = Finding(
    code="tensor-size",
    file="model.safetensors",
    tensor="lm_head.weight",
    message="tensor 'lm_head.weight' has shape [2, 3], but 5 bytes",
    hint="Download it again.",
)
WHOLE: Final = Finding(code="config-missing", message="there is no config.json")
ALL: Final = (NOTE, WARNING, ERROR, WHOLE)


def outcome(
    *findings: Finding, more: Mapping[str, int] | None = None, name: str = "tiny"
) -> Verification:
    """A verification that found these, and `more` of a code than it kept."""
    return Verification(
        name=name,
        groups=(Group.FILES, Group.HEADERS, Group.INDEX, Group.CONFIG),
        findings=findings,
        counts=Counter(finding.code for finding in findings) + Counter(more or {}),
        shards=2,
        tensors=21,
        files=5,
        bytes_read=12_345,
        seconds=1234.5678,
    )


def strict(verification: Verification) -> Verification:
    return dataclasses.replace(verification, strict=True)


OUTCOMES: Final = {
    "nothing found": outcome(),
    "all kinds": outcome(*ALL),
    "all kinds, strict": strict(outcome(*ALL)),
    "more than were kept": outcome(ERROR, more={"tensor-size": 4_000}),
    "a code of a group that is not named": outcome(Finding(code="weights-nan", message="NaN")),
}


def command(line: str) -> tuple[str, dict[str, str], str] | None:
    """What GitHub's runner takes a line of a job's output for: a command's name, properties, data.

    None for a line that is no command. The runner knows the names; here every name is one.
    """
    old = re.search(r"##\[(?P<name>[^] ]*)(?P<rest>[^]]*)\]", line)
    match = re.fullmatch(
        r"\s*::(?P<name>[^ ]*?)(?: (?P<properties>.*?))?::(?P<data>.*)", line, re.DOTALL
    )
    if match is None:
        return None if old is None else (old["name"], {}, old["rest"])
    pairs = [pair.split("=", 1) for pair in (match["properties"] or "").split(",") if pair]
    return (
        match["name"],
        {key: decoded(value, (":", ",")) for key, value in pairs},
        decoded(match["data"], ()),
    )


def decoded(text: str, more: Sequence[str]) -> str:
    for sign in ("\r", "\n", *more, "%"):
        text = text.replace(f"%{ord(sign):02X}", sign)
    return text


def runs(text: str) -> dict[str, Any]:
    """The one run of a SARIF log, which is valid."""
    log = json.loads(text)
    SARIF_SCHEMA.validate(log)
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def suite(text: str) -> ElementTree.Element:
    """The one suite of a JUnit report, which is valid under both schemas."""
    for schema in JUNIT_SCHEMAS.values():
        schema.validate(text)
    (found,) = ElementTree.fromstring(text)  # noqa: S314
    return found


@pytest.mark.parametrize(
    ("folder", "file", "path"),
    [
        (".", "config.json", "config.json"),
        ("", "config.json", "config.json"),
        ("./", "config.json", "config.json"),
        ("models/tiny", "config.json", "models/tiny/config.json"),
        ("./models/tiny/", "sub/a.json", "models/tiny/sub/a.json"),
        ("models", "/etc/passwd", "models//etc/passwd"),
        ("/models/tiny", "config.json", "/models/tiny/config.json"),
        ("/", "config.json", "/config.json"),
    ],
)
def test_a_file_is_named_as_it_lies_in_the_repository(folder: str, file: str, path: str) -> None:
    assert RunContext(folder=folder, ended=CONTEXT.ended).path(file) == path


@pytest.mark.parametrize("verification", OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize("name", JUNIT_SCHEMAS)
def test_junit_is_valid_under_both_published_schemas(verification: Verification, name: str) -> None:
    JUNIT_SCHEMAS[name].validate(junit_xml(verification, CONTEXT))


@pytest.mark.parametrize("verification", OUTCOMES.values(), ids=OUTCOMES)
def test_sarif_is_valid_under_the_published_schema(verification: Verification) -> None:
    SARIF_SCHEMA.validate(json.loads(sarif_log(verification, CONTEXT)))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("junit-10.xsd", "testsuite name=", "testsuite nom="),
        ("junit-10.xsd", 'time="1234.568"', 'time="1234,56"'),
        ("JUnit.xsd", 'timestamp="', 'timestamp="at '),
        ("JUnit.xsd", "system-err", "system-other"),
    ],
)
def test_the_schemas_of_junit_find_a_fault(name: str, before: str, after: str) -> None:
    text = junit_xml(outcome(), CONTEXT)
    assert before in text
    assert not JUNIT_SCHEMAS[name].is_valid(text.replace(before, after))


@pytest.mark.parametrize("key", ["version", "runs"])
def test_the_schema_of_sarif_finds_a_fault(key: str) -> None:
    log = json.loads(sarif_log(outcome(), CONTEXT))
    del log[key]
    assert not SARIF_SCHEMA.is_valid(log)


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (NOTE, "::notice file=m/config.json,title=head-tied::x"),
        (
            WARNING,
            "::warning file=m/model.safetensors.index.json,title=index-total-size"
            "::total_size is 5, not 6",
        ),
        (
            ERROR,
            "::error file=m/model.safetensors,title=tensor-size"
            "::tensor 'lm_head.weight' has shape [2, 3], but 5 bytes. Download it again.",
        ),
        (WHOLE, "::error title=config-missing::there is no config.json"),
        (
            Finding(code="config-json", message="It ends.", hint="Mend it."),
            "::error title=config-json::It ends. Mend it.",
        ),
        (
            Finding(code="file-json", file="a,b:c%2C\n.json", message="100% a\r\n::error::b"),
            r"::error file=m/a%2Cb%3Ac%252C\n.json,title=file-json::100%25 a\r\n:\x3aerror:\x3ab",
        ),
    ],
)
def test_a_finding_is_an_annotation_at_its_file(finding: Finding, line: str) -> None:
    context = RunContext(folder="m", ended=CONTEXT.ended)
    assert workflow_commands(outcome(finding), context).splitlines()[0] == line


def test_the_last_line_for_github_is_no_command_and_sums_up() -> None:
    *_, last = workflow_commands(outcome(*ALL, more={"tensor-size": 1_000}), CONTEXT).splitlines()
    assert command(last) is None
    assert last == (
        "dus verify tiny: not valid (errors: 1,002, warnings: 1, notes: 1, checks: "
        f"{sum(1 for _ in outcome().checks_made())}, shards: 2, tensors: 21, files: 5, "
        "bytes read: 12,345, bytes shared: 0, seconds: 1234.568)"
    )


def levels_of_github(verification: Verification) -> list[str]:
    commands = map(command, workflow_commands(verification, CONTEXT).splitlines())
    return [found[0] for found in commands if found]


def levels_of_sarif(verification: Verification) -> list[str]:
    return [result["level"] for result in runs(sarif_log(verification, CONTEXT))["results"]]


def levels_of_summary(verification: Verification) -> list[str]:
    return re.findall(r"^\| (error|warning|note) \|", github_summary(verification), re.MULTILINE)


@pytest.mark.parametrize(
    ("levels", "note"),
    [(levels_of_github, "notice"), (levels_of_sarif, "note"), (levels_of_summary, "note")],
)
def test_the_gravest_come_first_and_strict_knows_no_warnings(levels: Any, note: str) -> None:
    assert levels(outcome(*ALL)) == ["error", "error", "warning", note]
    assert levels(strict(outcome(*ALL))) == ["error", "error", "error", note]


def test_a_warning_under_strict_keeps_its_place_among_the_errors() -> None:
    results = runs(sarif_log(strict(outcome(*ALL)), CONTEXT))["results"]
    assert [result["ruleId"] for result in results] == [
        "index-total-size",
        "tensor-size",
        "config-missing",
        "head-tied",
    ]


def test_every_check_made_is_a_test_case() -> None:
    cases = suite(junit_xml(outcome(*ALL), CONTEXT)).findall("testcase")
    assert [case.get("name") for case in cases] == list(outcome().checks_made())
    assert {case.get("classname") for case in cases} == {
        f"dus.verify.{group}" for group in outcome().groups
    }


def test_a_code_that_was_found_is_a_test_case_whatever_the_groups_say() -> None:
    verification = OUTCOMES["a code of a group that is not named"]
    found = suite(junit_xml(verification, CONTEXT))
    assert found.find("testcase[@name='weights-nan']/failure") is not None
    assert found.get("tests") == str(len(found.findall("testcase")))


@pytest.mark.parametrize(
    ("verification", "failed", "told"),
    [
        (outcome(), [], []),
        (outcome(NOTE), [], ["head-tied"]),
        (outcome(*ALL), ["tensor-size", "config-missing"], ["index-total-size", "head-tied"]),
        (
            strict(outcome(*ALL)),
            ["tensor-size", "index-total-size", "config-missing"],
            ["head-tied"],
        ),
        (outcome(more={"tensor-size": 1}), ["tensor-size"], []),
    ],
)
def test_errors_fail_their_case_and_the_rest_is_told(
    verification: Verification, failed: Sequence[str], told: Sequence[str]
) -> None:
    found = suite(junit_xml(verification, CONTEXT))
    failures = [case.get("name") for case in found.findall("testcase[failure]")]
    output = found.findtext("system-out") or ""
    assert failures == failed
    assert found.get("failures") == str(len(failed))
    assert [line.split()[1].removesuffix(":") for line in output.splitlines()] == told


def test_a_failure_lists_the_findings_of_its_code_and_how_many_there_are() -> None:
    second = dataclasses.replace(ERROR, file="b", message="too long.", hint=None)
    verification = outcome(ERROR, second, more={"tensor-size": 4_000})
    failure = suite(junit_xml(verification, CONTEXT)).find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == f"{CHECKS['tensor-size'].meaning} Found: 4,002."
    assert (failure.text or "").splitlines() == [
        "error tensor-size: model.safetensors: tensor 'lm_head.weight' has shape [2, 3], "
        "but 5 bytes. Download it again.",
        "error tensor-size: b: too long.",
        "4,000 more of tensor-size",
    ]


def test_junit_states_what_was_checked() -> None:
    found = suite(junit_xml(outcome(*ALL), CONTEXT))
    stated = {entry.get("name"): entry.get("value") for entry in found.iter("property")}
    assert stated["checkpoint"] == "tiny"
    assert stated["verdict"] == "not valid"
    assert stated["bytes read"] == "12,345"
    assert found.get("timestamp") == "2026-05-04T03:02:01"
    assert found.get("time") == "1234.568"


def test_the_rules_of_sarif_are_the_table_of_codes() -> None:
    rules = runs(sarif_log(outcome(), CONTEXT))["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(CHECKS)
    for rule in rules:
        check = CHECKS[rule["id"]]
        assert rule["defaultConfiguration"] == {"level": check.severity.value}
        assert rule["properties"] == {"tags": [check.group.value]}
        # Code scanning asks for all three.
        for key in ("shortDescription", "fullDescription", "help"):
            assert rule[key] == {"text": check.meaning}


def test_a_result_points_to_its_rule_file_and_tensor() -> None:
    context = RunContext(folder="models/tiny", ended=CONTEXT.ended)
    run = runs(sarif_log(outcome(ERROR), context))
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["ruleId"] == "tensor-size"
    assert result["message"]["text"].startswith("tensor 'lm_head.weight' has shape [2, 3]")
    (location,) = result["locations"]
    assert location == {
        "physicalLocation": {"artifactLocation": {"uri": "models/tiny/model.safetensors"}},
        "logicalLocations": [{"fullyQualifiedName": "lm_head.weight", "kind": "tensor"}],
    }


def test_a_result_about_a_field_names_it() -> None:
    (result,) = runs(sarif_log(outcome(NOTE), CONTEXT))["results"]
    (location,) = result["locations"]
    assert location["logicalLocations"] == [
        {"fullyQualifiedName": "tie_word_embeddings", "kind": "property"}
    ]


@pytest.mark.parametrize(
    ("folder", "file", "uri"),
    [
        ("m", None, "m/config.json"),
        (".", "a b.json", "a%20b.json"),
        (".", "http://x", "http%3A//x"),
        (".", "a?b#c%d", "a%3Fb%23c%25d"),
        (".", "\u202e\n", "%E2%80%AE%0A"),
        (".", "caf\udce9", "caf%5Cudce9"),
        ("/m n", "a.json", "file:///m%20n/a.json"),
    ],
)
def test_every_result_has_a_file_by_its_uri(folder: str, file: str | None, uri: str) -> None:
    verification = outcome(Finding(code="file-json", file=file, message="x"))
    run = runs(sarif_log(verification, RunContext(folder=folder, ended=CONTEXT.ended)))
    (location,) = run["results"][0]["locations"]
    assert location["physicalLocation"] == {"artifactLocation": {"uri": uri}}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("{0} and {a}", "{{0}} and {{a}}"),
        ("[here](https://example.org)", r"[here]\x28https://example.org)"),
        ("shape [2, 3] (of 4)", "shape [2, 3] (of 4)"),
    ],
)
def test_a_message_of_sarif_holds_no_placeholder_and_no_link(message: str, text: str) -> None:
    (result,) = runs(sarif_log(outcome(Finding(code="file-json", message=message)), CONTEXT))[
        "results"
    ]
    assert result["message"] == {"text": text}


def fingerprints(*findings: Finding) -> list[str]:
    results = runs(sarif_log(outcome(*findings), CONTEXT))["results"]
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]


def fingerprint(finding: Finding) -> str:
    (found,) = fingerprints(finding)
    return found


def test_a_fingerprint_tells_findings_apart_and_outlives_other_numbers_in_the_message() -> None:
    others = [
        dataclasses.replace(ERROR, code="tensor-dtype"),
        dataclasses.replace(ERROR, file="other"),
        dataclasses.replace(ERROR, file=None),
        dataclasses.replace(ERROR, tensor="other"),
        dataclasses.replace(ERROR, field="other"),
        ERROR,
    ]
    assert len({*map(fingerprint, others)}) == len(others)
    assert fingerprint(ERROR) == fingerprint(dataclasses.replace(ERROR, message="6 bytes"))


def test_findings_of_the_same_subject_have_fingerprints_of_their_own() -> None:
    assert len(set(fingerprints(ERROR, ERROR, ERROR))) == 3


@pytest.mark.parametrize(
    ("verification", "successful", "code"),
    [(outcome(), True, 0), (outcome(WARNING), True, 0), (strict(outcome(WARNING)), True, 1)],
)
def test_sarif_states_how_the_run_ended(
    verification: Verification, successful: bool, code: int
) -> None:
    run = runs(sarif_log(verification, CONTEXT))
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is successful
    assert invocation["exitCode"] == code
    assert invocation["endTimeUtc"] == "2026-05-04T03:02:01Z"
    assert run["properties"]["valid"] is verification.valid
    assert run["properties"]["checked"]["bytes_read"] == 12_345


def test_sarif_says_what_its_results_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dus_cli.verify.reports.sarif.MAX_RESULTS", 2)
    run = runs(sarif_log(outcome(*ALL, more={"tensor-size": 7}), CONTEXT))
    assert [result["ruleId"] for result in run["results"]] == ["tensor-size", "config-missing"]
    notes = run["invocations"][0]["toolExecutionNotifications"]
    lacking = {note["associatedRule"]["id"]: note["message"]["text"].split()[0] for note in notes}
    assert lacking == {"head-tied": "1", "index-total-size": "1", "tensor-size": "7"}
    for note in notes:
        rule = note["associatedRule"]
        assert run["tool"]["driver"]["rules"][rule["index"]]["id"] == rule["id"]
    assert run["properties"]["counts"] == {
        "config-missing": 1,
        "head-tied": 1,
        "index-total-size": 1,
        "tensor-size": 8,
    }


def test_github_says_what_its_annotations_lack() -> None:
    verification = outcome(ERROR, more={"tensor-size": 4_000})
    assert "4,000 more of tensor-size" in workflow_commands(verification, CONTEXT).splitlines()


def test_the_summary_is_a_table_of_the_findings() -> None:
    lines = github_summary(outcome(NOTE, ERROR, name="a`b|c")).splitlines()
    assert lines[0] == r"### dus verify `a\x60b\x7cc`: not valid"
    assert "| errors | warnings | notes | checks |" in lines[2]
    assert lines[4].startswith("| 1 | 0 | 1 |")
    assert lines[8:10] == [
        "| error | tensor-size | `model.safetensors` "
        "| `tensor 'lm_head.weight' has shape [2, 3], but 5 bytes` |",
        "| note | head-tied | `config.json` | `x` |",
    ]


@pytest.mark.parametrize("sign", ["\U000e0041", "`", "模", "😀", "a"])
def test_the_summary_stays_below_what_github_takes(sign: str) -> None:
    finding = Finding(code="file-json", file=sign * 9_000, message=sign * 9_000)
    text = github_summary(outcome(*[finding] * 2 * SUMMARY_ROWS, more={"tensor-size": 5}))
    assert len(text.encode()) < 2**20
    assert text.count("| file-json |") == SUMMARY_ROWS
    assert f"{SUMMARY_ROWS + 5} more findings are not in this table." in text


@pytest.mark.parametrize("name", FORMATS)
def test_a_name_of_megabytes_is_cut(name: str) -> None:
    long = "\x1b" * 10**7
    finding = Finding(code="file-json", file=long, tensor=long, message=long, hint=long)
    empty = FORMATS[name](outcome(), CONTEXT)
    tracemalloc.start()
    text = FORMATS[name](outcome(finding, name=long), CONTEXT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(text) < len(empty) + 12 * MAX_CHARACTERS
    assert peak < len(long) / 2


PIECES: Final = st.one_of(
    st.text(st.characters(exclude_categories=[])),
    st.sampled_from(
        "::error::x\n##[group]x\n]]>\r\n&amp;<x>{0}](http://x)`|\u202e\x1b[2J\x85\u2028%0A%3A%25"
        ",:=\udce9\ufffe\0".split("x")
    ),
)
TEXTS: Final = st.lists(PIECES, max_size=4).map("".join)

FINDINGS: Final = st.builds(
    Finding,
    code=st.sampled_from(sorted(CHECKS)),
    message=TEXTS,
    file=st.none() | TEXTS,
    tensor=st.none() | TEXTS,
    field=st.none() | TEXTS,
    hint=st.none() | TEXTS,
)


def strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield key
            yield from strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry)


HOSTILE: Final = Finding(
    code="file-json",
    file="::set-env name=x::\n",
    tensor="\n::stop-commands::x",
    field="##[add-mask]x",
    message="\n::error::x\r##[error]x",
    hint="\u202e\n::debug::x",
)


@settings(max_examples=150, deadline=None)
@given(name=TEXTS, folder=TEXTS.filter(lambda text: "\0" not in text), found=st.lists(FINDINGS))
@example(name="::x::\n##[x]", folder="##[x]", found=[HOSTILE])
@example(name="#", folder="a:", found=[dataclasses.replace(HOSTILE, file=":b::")])
@example(name="::", folder=".", found=[dataclasses.replace(HOSTILE, file="", message="", hint="")])
def test_no_name_gets_out_of_a_report(name: str, folder: str, found: list[Finding]) -> None:
    verification = outcome(*found, name=name)
    context = RunContext(folder=folder, ended=CONTEXT.ended)
    texts = {key: report(verification, context) for key, report in FORMATS.items()}
    texts["summary"] = github_summary(verification)

    for text in texts.values():
        assert text.replace("\n", "").isprintable()
        assert text.endswith("\n")
    # What a program reads is the same in every locale.
    assert texts["junit"].isascii()
    assert texts["sarif"].isascii()
    commands = {key: [*map(command, text.split("\n"))] for key, text in texts.items()}

    *annotations, rest, end = commands.pop("github")
    assert (rest, end) == (None, None)
    assert len(annotations) == len(found)
    for annotation in annotations:
        assert annotation is not None
        kind, properties, data = annotation
        assert kind in ("error", "warning", "notice")
        assert properties["title"] in CHECKS
        assert properties.keys() <= {"file", "title"}
        assert data.isprintable()
    assert not any(found for lines in commands.values() for found in lines)

    for element in suite(texts["junit"]).iter():
        for value in (*element.attrib.values(), element.text or ""):
            assert value.replace("\n", "").isprintable()

    run = runs(texts["sarif"])
    assert all(text.isprintable() for text in strings(run))
    for result in run["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"(file://)?[A-Za-z0-9._~/%-]+", uri)
        assert unquote(uri, errors="strict")

    summary = texts["summary"].split("\n")
    for line in summary[8 : 8 + len(found)]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 5
        assert line.count("`") % 2 == 0


def test_severities_are_the_levels_of_sarif() -> None:
    assert {severity.value for severity in Severity} == {"error", "warning", "note"}
