"""The methods that a workflow's event loop refuses, and what their errors say to do instead.

The list is derived from the abstract class of the running Python, so that a method that asyncio adds is refused with a
sentence too, and not with an empty `NotImplementedError` from inside a library.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from durabletask_aio.core.call_sites import own_call_site
from durabletask_aio.core.errors import UnsupportedInWorkflowError

_ACTIVITY = "do it in an activity: 'await ctx.call_activity(...)'"
_THREAD = "threads finish in an order of their own; " + _ACTIVITY
_NETWORK = "sockets and pipes are not replayed; " + _ACTIVITY
_PROCESS = "processes are not replayed; " + _ACTIVITY
_SIGNAL = (
    "signals are not replayed; send the workflow an external event and await it with 'ctx.wait_for_external_event'"
)
_RUN = "the loop of a workflow is run by its worker; 'await' the coroutine"
_END = "the loop of a workflow ends with the workflow; 'return' from it"

ADVICE: dict[str, str] = {
    "run_in_executor": _THREAD,
    "set_default_executor": _THREAD,
    "shutdown_default_executor": _THREAD,
    "call_soon_threadsafe": "other threads must not touch a workflow; send it an external event from a client",
    "run_forever": _RUN,
    "run_until_complete": _RUN,
    "stop": _END,
    "close": _END,
    "shutdown_asyncgens": "close async generators where they are used: 'async with contextlib.aclosing(...)'",
    "set_task_factory": "tasks of a workflow are made by its loop, so that their order is the same on replay; wrap the "
    "coroutines instead",
    "subprocess_exec": _PROCESS,
    "subprocess_shell": _PROCESS,
    "add_signal_handler": _SIGNAL,
    "remove_signal_handler": _SIGNAL,
}
"""Advice by method; every method that is not listed is network or pipe I/O."""

_ATTRIBUTES = frozenset({"slow_callback_duration"})
"""Names in the abstract class that are no methods."""


def refused_methods(loop_type: type[asyncio.AbstractEventLoop]) -> list[str]:
    """Return the public methods of `AbstractEventLoop` that `loop_type` does not define itself."""
    return [
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("_") and name not in vars(loop_type) and name not in _ATTRIBUTES
    ]


def refuse_unsupported(loop_type: type[Any]) -> None:
    """Define every method that `loop_type` inherits from the abstract class as one that raises at the call."""
    for name in refused_methods(loop_type):
        setattr(loop_type, name, _refusal(name, ADVICE.get(name, _NETWORK)))


def _refusal(name: str, advice: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        for argument in args:
            if asyncio.iscoroutine(argument):
                argument.close()  # Unclosed, it warns that it was never awaited.
        refused = f"loop.{name}() cannot be used in a workflow ({own_call_site(self.main)}): {advice}"
        raise self.execution.error(UnsupportedInWorkflowError, refused)

    refuse.__name__ = name
    refuse.__qualname__ = f"WorkflowLoop.{name}"
    refuse.__doc__ = f"Refused: {advice}."
    return refuse
