"""JUnit XML, as Jenkins, GitLab and most other CI systems read it: each check is a test case.

There is no one JUnit schema. What is written here is valid under the two that are published and
used most, the xunit plugin's of Jenkins and the one of Apache Ant. The latter allows one failure a
case and no output of a case, so a failure lists all findings of its code, and warnings and notes
are output of the suite.
"""

from collections import defaultdict
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from dus_cli import __version__
from dus_cli.findings import CHECKS, Finding, Severity
from dus_cli.verify.reports.context import RunContext
from dus_cli.verify.reports.wording import left_out, shown, totals, verdict, with_hint
from dus_cli.verify.verification import Verification

_SUITE: Final = "dus.verify"


def junit_xml(verification: Verification, context: RunContext) -> str:
    """A test suite with a case for each check that was made; it fails where errors were found.

    The text is ASCII, so it is the same file in every locale.
    """
    codes = _codes(verification)
    is_error = {code: verification.severity_of(code) is Severity.ERROR for code in codes}
    failed = {code for code in codes if is_error[code] and verification.counts.get(code)}
    described = _described(verification, context)
    suites = Element("testsuites")
    suite = SubElement(
        suites,
        "testsuite",
        name=_SUITE,
        package=_SUITE,
        id="0",
        # The name of a machine is nobody's business; the schema asks for this one then.
        hostname="localhost",
        timestamp=f"{context.ended:%Y-%m-%dT%H:%M:%S}",
        tests=str(len(codes)),
        failures=str(len(failed)),
        errors="0",
        skipped="0",
        time=f"{verification.seconds:.3f}",
    )
    properties = SubElement(suite, "properties")
    facts = {
        "dus version": __version__,
        "checkpoint": shown(verification.name),
        "verdict": verdict(verification),
        "strict": str(verification.strict).lower(),
        **totals(verification),
    }
    for name, value in facts.items():
        SubElement(properties, "property", name=name, value=value)
    for code in codes:
        # The checks are made together; no time is that of one of them.
        case = SubElement(
            suite, "testcase", name=code, classname=f"{_SUITE}.{CHECKS[code].group}", time="0"
        )
        if code in failed:
            count = verification.counts[code]
            message = f"{CHECKS[code].meaning} Found: {count:,}."
            SubElement(case, "failure", type=code, message=message).text = described[code]
    SubElement(suite, "system-out").text = "".join(
        described[code] for code in codes if not is_error[code]
    )
    SubElement(suite, "system-err")
    indent(suites)
    text: str = tostring(suites, encoding="us-ascii", xml_declaration=True).decode("ascii")
    return text + "\n"


def _codes(verification: Verification) -> tuple[str, ...]:
    """All checks that were made. What was found is among them, whatever the groups say."""
    return tuple(dict.fromkeys([*verification.checks_made(), *verification.counts]))


def _described(verification: Verification, context: RunContext) -> defaultdict[str, str]:
    """The findings of each code, one in a line."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for finding in verification.findings:
        severity = verification.severity_of(finding.code)
        lines[finding.code].append(f"{severity} {finding.code}: {_sentence(finding, context)}")
    for code, count in left_out(verification, verification.findings).items():
        lines[code].append(f"{count:,} more of {code}")
    texts = {code: "".join(f"{line}\n" for line in of_code) for code, of_code in lines.items()}
    return defaultdict(str, texts)


def _sentence(finding: Finding, context: RunContext) -> str:
    if finding.file is None:
        return with_hint(finding, finding.message)
    return f"{shown(context.path(finding.file))}: {with_hint(finding, finding.message)}"
