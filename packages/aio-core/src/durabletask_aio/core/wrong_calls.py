"""What to write in place of a call of the context that Python refused: its `TypeError` or `AttributeError` explained.

Made when the error fails the workflow, so that a correct call costs nothing.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import re
import traceback
from collections.abc import Iterable
from types import CodeType
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


_RUNNING_LOOP = {
    "asyncio.run() cannot be called from a running event loop": "asyncio.run()",
    "Runner.run() cannot be called from a running event loop": "asyncio.Runner().run()",
    "Cannot run the event loop while another loop is running": "loop.run_until_complete()",
    "Already running asyncio in this thread": "anyio.run()",
}
"""The messages of asyncio and anyio for a second loop in a thread, and the calls that raise them."""


def runs_loop(message: str) -> str | None:
    """Return the call that has raised a `RuntimeError` with this message, if it was to run an event loop."""
    return _RUNNING_LOOP.get(message)


class MissingInput(NamedTuple):
    """The parameter of a workflow function for the input, which an instance was started without."""

    parameter: str
    code: CodeType
    """That of the function."""
    workflow_name: str


def missing_input(function: Any, arguments: tuple[Any, ...], workflow_name: str) -> MissingInput | None:
    """Return the parameter for the input; `None` if there was an input, or it may be absent by its annotation."""
    code = getattr(function, "__code__", None)
    if arguments != (None,) or code is None or code.co_argcount < 2:
        return None
    name = code.co_varnames[code.co_argcount - 1]
    try:
        parameter = inspect.signature(function, follow_wrapped=False).parameters[name]
    except (TypeError, ValueError, KeyError):
        return None
    annotation = str(parameter.annotation)
    if parameter.default is not inspect.Parameter.empty or re.search(r"\b(None|NoneType|Optional|Any)\b", annotation):
        return None
    return MissingInput(name, code, workflow_name)


def explained_missing_input(error: BaseException, missing: MissingInput) -> Exception | None:
    """Return a better error for one that using the absent input as an object has raised; `None` for others."""
    kind = type(error)
    if (kind is not AttributeError and kind is not TypeError) or "NoneType" not in str(error):
        return None
    last = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        last = (frame, line)
    if last is None or last[0].f_code is not missing.code or last[0].f_locals.get(missing.parameter) is not None:
        return None
    file, line = missing.code.co_filename, last[1]
    source = linecache.getline(file, line, last[0].f_globals)
    if source and not re.search(rf"\b{missing.parameter}\b", source):
        return None
    name = missing.workflow_name
    return kind(
        f"{error} ({file}:{line}): the workflow {name!r} was started without an input, which is its parameter "
        f"{missing.parameter!r}\n"
        f"  wrong: client.schedule_new_orchestration({name!r})\n"
        f"  right: client.schedule_new_orchestration({name!r}, input=...)"
    )


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
