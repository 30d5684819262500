"""The checker's findings for people, as text, and for programs: JSON, GitHub, SARIF, GitLab and JUnit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree as ET

from durabletask_aio.sandbox.cli.explanation import explain
from durabletask_aio.sandbox.cli.places import fingerprints, page_of, relative, tool_version, uri
from durabletask_aio.sandbox.rules.catalogue import Rule, Severity
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.checker import Report

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_TOOL: Final = "durabletask-aio check"


@dataclass(frozen=True)
class Surroundings:
    """What a report says in addition to the findings."""

    docs_url: str | None = None
    """The address of the documentation, with a page of rules."""
    remarks: tuple[str, ...] = field(default=())
    """Lines below the summary of the formats for people."""


def as_full(report: Report, surroundings: Surroundings) -> str:
    """Text: each finding with its line and the corrected line, and a summary."""
    blocks: list[str] = []
    for each in report.findings:
        page = page_of(each.rule, surroundings.docs_url)
        blocks.append(f"{_place(each)}: {each.rule.code} {_body(each)}" + (f"\n  see {page}" if page else ""))
    return "\n\n".join([*blocks, _summary(report, surroundings)])


def as_concise(report: Report, surroundings: Surroundings) -> str:
    """Text: one line for each finding, and a summary."""
    lines = [f"{_place(each)}: {each.rule.code} {each.message}" for each in report.findings]
    return "\n".join([*lines, _summary(report, surroundings)])


def _summary(report: Report, surroundings: Surroundings) -> str:
    count = len(report.findings)
    found = "no findings" if count == 0 else _number(count, "finding")
    summary = f"{found} in {_number(len(report.orchestrators), 'orchestrator')} ({_number(report.files, 'file')})"
    return "\n".join([summary, *surroundings.remarks])


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _place(finding: Finding) -> str:
    return f"{relative(finding.file)}:{finding.line}:{finding.column or 1}"


def _body(finding: Finding) -> str:
    lines = [finding.message]
    if finding.inside is not None:
        lines.append(f"  which leads to {finding.inside}")
    if len(finding.reached) > 1:
        lines.append(f"  reached by {finding.way}")
    if finding.source_line:
        lines.append(f"    {finding.source_line.strip()}")
    if finding.corrected_line:
        lines.append(f"  write\n    {finding.corrected_line.strip()}")
    return "\n".join(lines)


def as_json(report: Report, surroundings: Surroundings) -> str:
    """JSON; the keys are stable."""
    return json.dumps(
        {
            "findings": [
                {**each.as_dict(), "file": relative(each.file), "url": page_of(each.rule, surroundings.docs_url)}
                for each in report.findings
            ],
            "files": report.files,
            "orchestrators": [
                {"name": each.name, "module": each.module, "found_by": each.found_by} for each in report.orchestrators
            ],
        },
        indent=2,
    )


def as_github(report: Report, _: Surroundings) -> str:
    """Workflow commands of GitHub Actions, which show findings next to the lines of a pull request."""
    return "\n".join(_annotation(each) for each in report.findings)


def _annotation(finding: Finding) -> str:
    kind = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}[finding.severity]
    place = f"file={_property(relative(finding.file))},line={finding.line},col={finding.column or 1}"
    title = _property(f"{finding.rule.code} {finding.rule.slug}")
    return f"::{kind} {place},title={title}::{_escaped(finding.message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(report: Report, surroundings: Surroundings) -> str:
    """SARIF 2.1.0, as read by code scanning services."""
    rules = list(default_catalogue().rules.values())
    driver: dict[str, Any] = {"name": _TOOL, "rules": [_sarif_rule(rule, surroundings) for rule in rules]}
    number = tool_version()
    if number is not None:
        driver["version"] = number
    if surroundings.docs_url:
        driver["informationUri"] = surroundings.docs_url
    codes = [rule.code for rule in rules]
    results = [_sarif_result(each, codes) for each in report.findings]
    for result, fingerprint in zip(results, fingerprints(report.findings), strict=True):
        result["partialFingerprints"] = {"durabletaskAio/v1": fingerprint}
    return json.dumps(
        {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]},
        indent=2,
    )


def _sarif_rule(rule: Rule, surroundings: Surroundings) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": rule.code,
        "name": rule.slug,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {
            "text": f"durabletask-aio check --explain {rule.code}",
            "markdown": explain(rule, default_catalogue()),
        },
        "defaultConfiguration": {"level": rule.severity.value},
    }
    page = page_of(rule, surroundings.docs_url)
    return described if page is None else {**described, "helpUri": page}


def _sarif_result(finding: Finding, codes: list[str]) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": finding.line, "endLine": finding.end_line or finding.line}
    if finding.column is not None:
        region["startColumn"] = finding.column
    location = {"physicalLocation": {"artifactLocation": {"uri": uri(finding.file)}, "region": region}}
    return {
        "ruleId": finding.rule.code,
        "ruleIndex": codes.index(finding.rule.code),
        "level": finding.severity.value,
        "message": {"text": finding.message},
        "locations": [location],
    }


_GITLAB_SEVERITY: Final = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.NOTE: "info"}


def as_gitlab(report: Report, surroundings: Surroundings) -> str:
    """The Code Quality report of GitLab CI."""
    issues: list[dict[str, Any]] = []
    for each, fingerprint in zip(report.findings, fingerprints(report.findings), strict=True):
        page = page_of(each.rule, surroundings.docs_url)
        positions = {
            "begin": {"line": each.line, "column": each.column or 1},
            "end": {"line": each.end_line or each.line, "column": each.column or 1},
        }
        issues.append(
            {
                "check_name": each.rule.code,
                "description": f"{each.rule.code}: {each.message}",
                "severity": _GITLAB_SEVERITY[each.severity],
                "fingerprint": fingerprint,
                "location": {"path": uri(each.file), "positions": positions},
                **({} if page is None else {"content": {"body": page}}),
            }
        )
    return json.dumps(issues, indent=2)


def as_junit(report: Report, surroundings: Surroundings) -> str:
    """JUnit XML: a test suite for each file with findings, and one that passes where there are none."""
    count = len(report.findings)
    root = ET.Element("testsuites", name=_TOOL, tests=str(max(count, 1)), failures=str(count), errors="0")
    by_file: dict[str, list[Finding]] = {}
    for each in report.findings:
        by_file.setdefault(uri(each.file), []).append(each)
    for file, findings in by_file.items():
        number = str(len(findings))
        suite = ET.SubElement(root, "testsuite", name=file, tests=number, failures=number, errors="0")
        for each in findings:
            suite.append(_test_case(each, file, surroundings))
    if not by_file:
        suite = ET.SubElement(root, "testsuite", name=_TOOL, tests="1", failures="0", errors="0")
        ET.SubElement(suite, "testcase", name="no findings", classname=_TOOL)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def _test_case(finding: Finding, file: str, surroundings: Surroundings) -> ET.Element:
    place = {"line": str(finding.line), "column": str(finding.column or 1)}
    case = ET.Element("testcase", {"name": f"{finding.rule.code} {finding.rule.slug}", "classname": file, **place})
    failure = ET.SubElement(case, "failure", message=_xml(finding.message), type=finding.severity.value)
    page = page_of(finding.rule, surroundings.docs_url)
    failure.text = _xml(
        "\n".join(filter(None, [f"line {finding.line}, column {finding.column or 1}", _body(finding), page]))
    )
    return case


def _xml(text: str) -> str:
    """The text without the characters that XML cannot hold."""
    return "".join(
        each if each in "\t\n\r" or " " <= each <= "\ud7ff" or "\ue000" <= each <= "\ufffd" or each > "\uffff" else "?"
        for each in text
    )


FORMATS: Final[Mapping[str, Callable[[Report, Surroundings], str]]] = {
    "full": as_full,
    "concise": as_concise,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
    "gitlab": as_gitlab,
    "junit": as_junit,
    "text": as_full,
}
"""The formats by their names; `text` is the former name of `full`."""
