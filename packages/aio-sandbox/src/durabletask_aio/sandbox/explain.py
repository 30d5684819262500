"""A rule in full, for the terminal and for the documentation; both come from the catalogue alone."""

from __future__ import annotations

from durabletask_aio.sandbox.catalogue import REPLACED_CATEGORIES, Catalogue, Rule, Severity
from durabletask_aio.sandbox.conditions import CONDITIONS
from durabletask_aio.sandbox.findings import shown
from durabletask_aio.sandbox.substitutes import SUBSTITUTES


def explain(rule: Rule, catalogue: Catalogue) -> str:
    """Everything there is to say about a rule, in Markdown that reads well in a terminal too."""
    calls = [call for call in catalogue.calls.values() if call.rule.code == rule.code]
    strict = "refused, or fails the instance" if rule.severity is Severity.ERROR else "a warning"
    parts = [
        f"{rule.title}. Category `{rule.category.value}`; in strict mode: {strict}.",
        rule.why,
        f"In an async workflow, use {rule.alternative}." + _generator(rule),
        f"```python\n# not this\n{rule.bad}\n\n# but this\n{rule.good}\n```",
    ]
    if calls:
        parts.append("Calls: " + ", ".join(_described(call.name, call.condition) for call in calls) + ".")
    if rule.category in REPLACED_CATEGORIES and any(call.name in SUBSTITUTES for call in calls):
        parts.append("In best_effort mode these calls give deterministic values.")
    return "\n\n".join(parts)


def _generator(rule: Rule) -> str:
    same = rule.generator_alternative == rule.alternative
    return "" if same else f" In a generator orchestrator, use {rule.generator_alternative}."


def _described(name: str, condition: str | None) -> str:
    words = f" ({CONDITIONS[condition][1]})" if condition is not None else ""
    return f"`{shown(name)}`{words}"


def rules_page(catalogue: Catalogue) -> str:
    """The page of the documentation that lists every rule."""
    rules = list(catalogue.rules.values())
    table = ["| code | name | in strict mode | what |", "| --- | --- | --- | --- |"]
    for rule in rules:
        kind = "error" if rule.severity is Severity.ERROR else "warning"
        table.append(f"| [{rule.code}](#{rule.code.lower()}) | `{rule.slug}` | {kind} | {rule.title} |")
    head = (
        "<!-- Generated from the catalogue by packages/aio-sandbox/tools/rules_page.py; do not edit. -->\n\n"
        "# Rules of the sandbox\n\n"
        "Codes are stable. `durabletask-aio check --explain CODE` prints the same text.\n"
        "To allow a rule for a line, write `# determinism: allow[CODE] reason` on it;\n"
        "for a block or function use `durabletask.aio.sandbox.allow`."
    )
    sections = [
        f'<a id="{rule.code.lower()}"></a>\n\n## {rule.code}: {rule.slug}\n\n{explain(rule, catalogue)}'
        for rule in rules
    ]
    return "\n\n".join([head, "\n".join(table), *sections]) + "\n"
