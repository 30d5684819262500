"""The checker's findings as text, JSON, GitHub annotations and SARIF."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from durabletask_aio.sandbox.cli.explanation import explain
from durabletask_aio.sandbox.rules.catalogue import Rule, Severity
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.checker import Report

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_text(report: Report) -> str:
    """Text: each finding with its line and the corrected line, and a summary."""
    blocks = [f"{_place(each)}: {each.rule.code} {_body(each)}" for each in report.findings]
    count = len(report.findings)
    found = "no findings" if count == 0 else f"{count} finding{'s' if count > 1 else ''}"
    summary = f"{found} in {_number(len(report.orchestrators), 'orchestrator')} ({_number(report.files, 'file')})"
    return "\n\n".join([*blocks, summary]) if blocks else summary


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _place(finding: Finding) -> str:
    return f"{_relative(finding.file)}:{finding.line}:{finding.column or 1}"


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


def as_json(report: Report) -> str:
    """JSON; the keys are stable."""
    return json.dumps(
        {
            "findings": [{**each.as_dict(), "file": _relative(each.file)} for each in report.findings],
            "files": report.files,
            "orchestrators": [
                {"name": each.name, "module": each.module.name, "found_by": each.found_by}
                for each in report.orchestrators
            ],
        },
        indent=2,
    )


def as_github(report: Report) -> str:
    """Workflow commands of GitHub Actions, which show findings next to the lines of a pull request."""
    return "\n".join(_annotation(each) for each in report.findings)


def _annotation(finding: Finding) -> str:
    kind = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}[finding.severity]
    place = f"file={_property(_relative(finding.file))},line={finding.line},col={finding.column or 1}"
    title = _property(f"{finding.rule.code} {finding.rule.slug}")
    return f"::{kind} {place},title={title}::{_escaped(finding.message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0, as read by code scanning services."""
    rules = list(default_catalogue().rules.values())
    driver: dict[str, Any] = {
        "name": "durabletask-aio check",
        "rules": [_sarif_rule(rule) for rule in rules],
    }
    # A checkout on the search path has no metadata; the format does not require the version.
    with contextlib.suppress(PackageNotFoundError):
        driver["version"] = version("durabletask-aio-sandbox")
    codes = [rule.code for rule in rules]
    results = [_sarif_result(each, codes) for each in report.findings]
    return json.dumps(
        {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]},
        indent=2,
    )


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
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


def _sarif_result(finding: Finding, codes: list[str]) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": finding.line, "endLine": finding.end_line or finding.line}
    if finding.column is not None:
        region["startColumn"] = finding.column
    location = {
        "physicalLocation": {
            "artifactLocation": {"uri": _relative(finding.file).replace(os.sep, "/")},
            "region": region,
        }
    }
    return {
        "ruleId": finding.rule.code,
        "ruleIndex": codes.index(finding.rule.code),
        "level": finding.severity.value,
        "message": {"text": finding.message},
        "locations": [location],
    }


def _relative(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except ValueError:
        # The file is on another drive (Windows).
        return path
    return path if relative.startswith("..") else relative


FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}
