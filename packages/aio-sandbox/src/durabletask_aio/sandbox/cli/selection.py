"""Which rules are reported: `select`, `ignore` and `per-file-ignores`, with the selectors that ruff users know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.rules.catalogue import Rule
from durabletask_aio.sandbox.rules.default import default_catalogue

ALL: Final = "ALL"
_CATEGORY_WEIGHT: Final = 4
"""A category is more specific than a prefix such as `DET1`, and less specific than a rule."""
_RULE_WEIGHT: Final = 6


def selectors(values: Iterable[str], option: str) -> tuple[str, ...]:
    """The selectors in `values`, each of which may be a list with commas.

    A selector is a rule code or the beginning of one (`DET1`), the slug or category of a rule, or `ALL`.

    Raises `WorkflowValidationError`, naming `option`, for one that selects no rule.
    """
    found = tuple(part.strip() for value in values for part in value.split(",") if part.strip())
    rules = default_catalogue().rules.values()
    for selector in found:
        if not any(_weight(selector, rule) is not None for rule in rules):
            msg = (
                f"{option} {selector!r} selects no rule. Give a code, the beginning of one (such as DET1), a slug, a"
                " category or ALL; `durabletask-aio check --rules` lists them."
            )
            raise WorkflowValidationError(msg)
    return found


def is_selected(rule: Rule, select: Iterable[str], ignore: Iterable[str]) -> bool:
    """Whether a rule is reported: the most specific selector decides, and `ignore` wins between equals."""
    chosen = _weights(rule, select)
    return bool(chosen) and max(chosen) > max(_weights(rule, ignore), default=-1)


def is_selected_by_name(rule: Rule, select: Iterable[str]) -> bool:
    """Whether a selector other than `ALL` selects a rule, which reports notes too."""
    return max(_weights(rule, select), default=0) > 0


def _weights(rule: Rule, given: Iterable[str]) -> list[int]:
    weights = (_weight(selector, rule) for selector in given)
    return [weight for weight in weights if weight is not None]


def _weight(selector: str, rule: Rule) -> int | None:
    """How specific a selector is; `None` if it does not select the rule."""
    if selector.upper() == ALL:
        return 0
    if selector.lower() == rule.slug:
        return _RULE_WEIGHT
    if selector.lower() == rule.category.value:
        return _CATEGORY_WEIGHT
    return min(len(selector), _RULE_WEIGHT) if rule.code.startswith(selector.upper()) else None
