"""What to write in place of a call of the context that Python refused: its `TypeError` or `AttributeError` explained.

Made when the error fails the workflow, so that a correct call costs nothing.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from durabletask_aio.core.errors import WorkflowValidationError
    from durabletask_aio.core.execution import Execution

_REFUSED = re.compile(r"^AsyncWorkflowContext\.(?P<method>[a-z]\w*)\(\) (?P<why>.*)", re.DOTALL)
_KEYWORD = re.compile(r"unexpected keyword argument '(?P<keyword>\w+)'")

_ACTIVITY_ATTRIBUTES = frozenset({"orchestration_id", "task_id"})

_TAKE_INPUT = ("call_activity", "call_sub_orchestrator")

_ELSEWHERE = {
    "call_child_workflow": "call_sub_orchestrator",
    "create_task": "call_activity",
    "current_time": "now",
    "datetime": "now",
    "execute_activity": "call_activity",
    "gather_all": "gather",
    "step": "call_activity",
    "task_all": "when_all",
    "task_any": "when_any",
    "time": "now",
    "utcnow": "now",
    "wait_event": "wait_for_external_event",
    "wait_for_signal": "wait_for_external_event",
}
"""Names that similar libraries have, and those of this one."""


class Correction(NamedTuple):
    """The wrong and the right form of a call."""

    what: str
    wrong: str
    right: str


def corrected_call(message: str, context: type) -> Correction | None:
    """Return how to correct the call of a method of `context`, given the message of Python's `TypeError`."""
    found = _REFUSED.match(message)
    method = getattr(context, found["method"], None) if found else None
    if found is None or method is None:
        return None
    call, takes_input = f"ctx.{found['method']}", found["method"] in _TAKE_INPUT
    keyword = _KEYWORD.search(found["why"])
    what = f"{call}() {found['why']}"
    if keyword is not None:
        nearest = _nearest(keyword["keyword"], _keywords_of(method))
        wrong = f"{call}({'work, ' if takes_input else ''}{keyword['keyword']}=value)"
        if nearest is not None:
            return Correction(what, wrong, f"{call}({'work, ' if takes_input else ''}{nearest}=value)")
        if takes_input:
            return Correction(what, wrong, f"{call}(work, input={{{keyword['keyword']!r}: value}})")
        return Correction(what, wrong, f"{call}{_shown_signature(method)}")
    if takes_input and "positional" in found["why"] and "given" in found["why"]:
        return Correction(what, f"{call}(work, value)", f"{call}(work, input=value)")
    return Correction(what, f"{call}(...)", f"{call}{_shown_signature(method)}")


def explained_attribute(
    execution: Execution, context: type, name: str, place: str | None
) -> WorkflowValidationError | None:
    """Return the error for an attribute that `context` does not have; `None` if nothing is known of its name."""
    if name in _ACTIVITY_ATTRIBUTES:
        return execution.usage_error(
            f"{name!r} belongs to the context of an activity, and this is the workflow's: it looks as if an "
            f"activity was called directly",
            "await charge(ctx, order)",
            "await ctx.call_activity(charge, input=order)",
            place=place,
        )
    meant = _ELSEWHERE.get(name) or _nearest(name, [each for each in dir(context) if not each.startswith("_")])
    if meant is None:
        return None
    return execution.usage_error(
        f"the context of a workflow has no attribute {name!r}", f"ctx.{name}", f"ctx.{meant}", place=place
    )


def _nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` is most likely an abbreviation or a misspelling of."""
    known = sorted(names)
    longer = [each for each in known if each.startswith(f"{name}_")]
    return longer[0] if len(longer) == 1 else next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _keywords_of(method: Any) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name != "self"]


def _shown_signature(method: Any) -> str:
    """Return the parameters of a method without their types."""
    parameters = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in inspect.signature(method).parameters.values()
        if each.name not in ("self", "separate")
    ]
    return str(inspect.Signature(parameters))
