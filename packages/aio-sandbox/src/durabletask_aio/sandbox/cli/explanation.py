"""The full description of a rule, for the terminal and the documentation, generated from the catalogue."""

from __future__ import annotations

from typing import Any, Final

from durabletask_aio.sandbox.rules.catalogue import REPLACED_CATEGORIES, Call, Catalogue, Rule, Severity
from durabletask_aio.sandbox.rules.conditions import description_of
from durabletask_aio.sandbox.rules.findings import display_name
from durabletask_aio.sandbox.runtime.substitutes import SUBSTITUTES


def explain(rule: Rule, catalogue: Catalogue) -> str:
    """The description of a rule in Markdown that is also readable in a terminal."""
    calls = calls_of(rule, catalogue)
    strict = _IN_STRICT[rule.severity]
    parts = [
        f"{rule.title}. Category `{rule.category.value}`; in strict mode: {strict}.",
        rule.why,
        f"In an async workflow, use {rule.alternative}." + _generator(rule),
        f"```python\n# not this\n{rule.bad}\n\n# but this\n{rule.good}\n```",
    ]
    if calls:
        parts.append(f"Calls: {described(calls)}.")
    if rule.category in REPLACED_CATEGORIES and any(call.name in SUBSTITUTES for call in calls):
        parts.append("In best_effort mode these calls give deterministic values.")
    return "\n\n".join(parts)


def rule_to_dict(rule: Rule, catalogue: Catalogue) -> dict[str, Any]:
    """The description of a rule for programs; the keys are stable."""
    return {
        "code": rule.code,
        "slug": rule.slug,
        "category": rule.category.value,
        "severity": rule.severity.value,
        "title": rule.title,
        "why": rule.why,
        "alternative": rule.alternative,
        "generator_alternative": rule.generator_alternative,
        "bad": rule.bad,
        "good": rule.good,
        "calls": [call.name for call in calls_of(rule, catalogue)],
    }


def calls_of(rule: Rule, catalogue: Catalogue) -> list[Call]:
    """The calls that break a rule, in the order of the catalogue."""
    return [call for call in catalogue.calls.values() if call.rule.code == rule.code]


def described(calls: list[Call]) -> str:
    """The names of calls, each with the condition under which it breaks its rule, in Markdown."""
    return ", ".join(_described(call.name, call.condition) for call in calls)


_IN_STRICT: Final = {
    Severity.ERROR: "refused, or fails the instance",
    Severity.WARNING: "a warning",
    Severity.NOTE: "nothing, only `check --notes` tells of it",
}


def _generator(rule: Rule) -> str:
    same = rule.generator_alternative == rule.alternative
    return "" if same else f" In a generator orchestrator, use {rule.generator_alternative}."


def _described(name: str, condition: str | None) -> str:
    words = f" ({description_of(condition)})" if condition is not None else ""
    return f"`{display_name(name)}`{words}"
