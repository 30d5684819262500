"""Closing what will not go on: the coroutines of instances that ended, were dropped by their host, or evicted.

A coroutine that is left to the garbage collector runs its ``finally`` blocks whenever and on whichever thread the
collector likes, with a context that may by then schedule into nowhere.  So every run is closed by us: on its own loop,
in the thread that executes turns, children before the main task, and mute (see :mod:`.host`).  Python offers no way to
drop a suspended coroutine without running its ``finally`` blocks; all that can be had is that they run at a known time
and have no effect on the workflow.

Who does it depends on the host.  A worker that knows us wraps each turn in a :func:`turn_scope`.  Any other host just
drops our generator, and the collector finds it sooner or later; it then only hands the run to a graveyard, and the
next turn, on whichever thread, closes it.  That is why live runs are held here by a strong reference, and why nothing
reachable from them may refer to upstream's context.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from durabletask_aio.core import _interpreter

if TYPE_CHECKING:
    from typing_extensions import Self

    from durabletask_aio.core.driver import WorkflowRun
    from durabletask_aio.core.loop import WorkflowLoop

_CLOSE_ATTEMPTS = 100
"""How often a coroutine may answer its closing with another ``await`` before it is left to its fate."""

_refused: list[Any] = []
"""What could not be closed, kept for good: if it were freed, the collector would try again, and print the failure."""

_live: dict[int, WorkflowRun] = {}
_graveyard: deque[WorkflowRun] = deque()
_scopes = threading.local()


def register(run: WorkflowRun) -> bool:
    """Hold ``run`` until it finishes or is disposed, and show it to the scope of this thread; whether there is one."""
    _live[id(run)] = run
    scope: TurnScope | None = getattr(_scopes, "current", None)
    if scope is None:
        return False
    scope.runs.append(run)
    return True


def unregister(run: WorkflowRun) -> None:
    """``run`` has been closed."""
    _live.pop(id(run), None)


def bury(run: WorkflowRun) -> None:
    """The host has dropped ``run``.  May be called by the garbage collector on any thread, so it only notes it."""
    _graveyard.append(run)


def close_buried() -> None:
    """Close, in this thread, what the collector has found since the last time."""
    while _graveyard:
        try:
            run = _graveyard.popleft()
        except IndexError:  # another thread took the last one
            return
        run.dispose()


class TurnScope:
    """Collects the runs that start on this thread while it is entered; see :func:`turn_scope`."""

    def __init__(self, metadata: Mapping[str, str] | None) -> None:
        self.runs: list[WorkflowRun] = []
        self.metadata = metadata
        self._kept = False
        self._outer: TurnScope | None = None
        self._hooks: Any = None

    def keep(self) -> None:
        """Do not dispose of the runs at the end: the host goes on with them later, and disposes of them itself.

        Each of their later turns has to be in a scope too.
        """
        self._kept = True

    def __enter__(self) -> Self:
        close_buried()
        self._outer = getattr(_scopes, "current", None)
        _scopes.current = self
        self._hooks = _interpreter.abandon_async_generators()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _scopes.current = self._outer
        if self._hooks is not None:
            sys.set_asyncgen_hooks(*self._hooks)
        if not self._kept:
            for run in self.runs:
                run.dispose()


def turn_scope(metadata: Mapping[str, str] | None = None) -> TurnScope:
    """A context manager for the host of a turn, entered on the thread that executes it.

    Runs that start inside are listed in ``.runs``; at the end those that are still suspended are disposed of in this
    thread, unless ``.keep()`` was called.  ``metadata`` is what ``ctx.get_metadata()`` of those runs starts with.
    """
    return TurnScope(metadata)


def current_metadata() -> Mapping[str, str] | None:
    """The metadata of the scope this thread is in."""
    scope: TurnScope | None = getattr(_scopes, "current", None)
    return None if scope is None else scope.metadata


def close_coroutines(loop: WorkflowLoop, tasks: Iterable[Any]) -> None:
    """Close the coroutines of ``tasks``, in that order, as ``loop``'s own code and with nobody listening."""
    saved_loop = _interpreter.swap_loop(loop)
    saved_hooks = _interpreter.abandon_async_generators()
    try:
        for task in tasks:
            _interpreter.forget_pending(task)
            _interpreter.enter_task(loop, task)  # asyncio.timeout asks for it
            try:
                _close(task.get_coro(), loop, _interpreter.context_of(task))
            finally:
                _interpreter.leave_task(loop, task)
    finally:
        if saved_hooks is not None:
            sys.set_asyncgen_hooks(*saved_hooks)
        _interpreter.restore_loop(saved_loop)


def _close(coroutine: Any, loop: WorkflowLoop, context: contextvars.Context | None) -> None:
    """Close ``coroutine`` from the inside out, in the context it ran in, or its ``finally`` could reset no variable.

    Closing the outermost one would do, if none of those inside answered by awaiting something else: then it is left
    suspended without its caller, and the collector closes it again, at any time and complaining.
    """
    refusals = 0
    while refusals < _CLOSE_ATTEMPTS:
        innermost = _interpreter.innermost_unfinished(coroutine)
        if innermost is None:
            return
        _interpreter.close_unstarted_of(innermost)
        try:
            if context is None:
                innermost.close()
            else:
                context.run(innermost.close)
        except RuntimeError as error:
            refusals += "ignored GeneratorExit" in str(error)
        except BaseException:
            pass  # whatever cleanup code raises now, nobody is waiting for it
    _refused.append(coroutine)
    _interpreter.keep_for_ever(coroutine)
    from durabletask_aio.core.debug import place_of

    logging.getLogger("durabletask.aio").warning(
        "workflow %r, instance %r: the code at %s went on awaiting after %d attempts to close it, and is left as it "
        "is. Does it have an 'except:' or 'except BaseException:' that does not raise again? 'except Exception:' would "
        "let the end through",
        loop.host.workflow_name,
        loop.host.instance_id,
        place_of(coroutine),
        _CLOSE_ATTEMPTS,
    )


def _close_all() -> None:
    """At the end of the process: the interpreter would run the same ``finally`` blocks, live, while it shuts down."""
    close_buried()
    for run in list(_live.values()):
        run.dispose()


atexit.register(_close_all)
