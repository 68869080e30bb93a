"""SARIF 2.1.0, the exchange format of checkers, with what GitHub's code scanning asks for.

Code scanning refuses a whole log for one result that names no file, shows rules by their
`fullDescription` and `help`, and tells results apart by `primaryLocationLineHash`.

No result has a region: it is about a file, and the standard wants none then. A `startLine` would
also have GitHub's upload action read every file with a finding from end to end, to hash line 1 of
gigabytes of weights.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from dus_cli import __version__
from dus_cli.findings import CHECKS, Finding
from dus_cli.format.strict_json import Json
from dus_cli.verify.reports.context import RunContext
from dus_cli.verify.reports.wording import clipped, gravest_first, left_out, shown, with_hint
from dus_cli.verify.verification import Verification

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

_WHOLE_CHECKPOINT: Final = "config.json"
"""Where a finding about no file in particular is shown."""

MAX_RESULTS: Final = 25_000
"""Code scanning refuses a log with more; it keeps the gravest 5,000."""

_RULE_NUMBERS: Final = {code: number for number, code in enumerate(CHECKS)}


def sarif_log(verification: Verification, context: RunContext) -> str:
    """A log of one run, as ASCII JSON; its rules are all codes, whichever were checked."""
    findings = gravest_first(verification)[:MAX_RESULTS]
    outcome = verification.to_json()
    log: Json = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "dus", "version": __version__, "rules": _rules()}},
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "exitCode": 0 if verification.valid else 1,
                        "endTimeUtc": f"{context.ended:%Y-%m-%dT%H:%M:%SZ}",
                        "toolExecutionNotifications": _notifications(verification, findings),
                    }
                ],
                "results": _results(verification, findings, context),
                "properties": {
                    "checkpoint": shown(verification.name),
                    **{key: outcome[key] for key in ("valid", "strict", "checked", "counts")},
                },
            }
        ],
    }
    return json.dumps(log) + "\n"


def _rules() -> list[Json]:
    return [
        {
            "id": code,
            "shortDescription": _message(check.meaning),
            "fullDescription": _message(check.meaning),
            "help": _message(check.meaning),
            "defaultConfiguration": {"level": check.severity.value},
            "properties": {"tags": [check.group.value]},
        }
        for code, check in CHECKS.items()
    ]


def _notifications(verification: Verification, findings: Sequence[Finding]) -> list[Json]:
    """What the results, made of `findings`, lack."""
    return [
        {
            "level": "note",
            "message": _message(f"{count:,} more results of {code} are not in this log."),
            "associatedRule": {"id": code, "index": _RULE_NUMBERS[code]},
        }
        for code, count in left_out(verification, findings).items()
    ]


def _results(
    verification: Verification, findings: Sequence[Finding], context: RunContext
) -> list[Json]:
    return [
        {
            "ruleId": finding.code,
            "ruleIndex": _RULE_NUMBERS[finding.code],
            "level": verification.severity_of(finding.code).value,
            "message": _message(with_hint(finding, finding.message)),
            "locations": [_location(finding, context)],
            "partialFingerprints": {"primaryLocationLineHash": fingerprint},
        }
        for finding, fingerprint in zip(findings, _fingerprints(findings), strict=True)
    ]


def _location(finding: Finding, context: RunContext) -> Json:
    uri = _uri(context.path(finding.file or _WHOLE_CHECKPOINT))
    logical: list[Json] = [
        {"fullyQualifiedName": shown(name), "kind": kind}
        for kind, name in (("tensor", finding.tensor), ("property", finding.field))
        if name is not None
    ]
    return {
        "physicalLocation": {"artifactLocation": {"uri": uri}},
        **({"logicalLocations": logical} if logical else {}),
    }


def _uri(path: str) -> str:
    """A path as a URI, relative unless the path is absolute; a lone surrogate is spelled out."""
    encoded = quote(clipped(path), safe="/", errors="backslashreplace")
    return f"file://{encoded}" if path.startswith("/") else encoded


def _fingerprints(findings: Iterable[Finding]) -> Iterator[str]:
    """A name for each finding that stays the same while the fault does.

    It is made of the subject, not of the message, whose numbers change with the files, and of a
    count where a subject has several faults of a code.
    """
    seen: Counter[str] = Counter()
    for finding in findings:
        subject = (finding.code, finding.file, finding.tensor, finding.field)
        parts = [None if part is None else clipped(part) for part in subject]
        digest = sha256(json.dumps(parts).encode("ascii")).hexdigest()[:16]
        seen[digest] += 1
        yield f"{digest}:{seen[digest]}"


def _message(text: str) -> Json:
    """A message that a viewer shows as it is: no placeholders, and no link that a name brings."""
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "]\\x28")}
