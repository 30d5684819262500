"""Disposal: closes the coroutines of instances that ended, were dropped by their host, or evicted.

A coroutine that is left to the garbage collector runs its `finally` blocks at any time, on the thread on which the
collector happens to run, with a context that no longer belongs to a turn.  So every run is closed explicitly: on its
own loop, in the thread that executes turns, children before the main task, and without effect outside (see
`execution`).  Python offers no way to drop a suspended coroutine without running its `finally` blocks; disposal makes
them run at a known time and keeps them from changing the workflow.

A host that knows us wraps each turn in a `turn_scope`.  Any other host drops our generator, and the collector finds it
sooner or later; the finalizer then only enqueues the run, and the next turn, on any thread, closes it.  For that, live
runs are held here by a strong reference, and nothing that is reachable from them refers to upstream's context.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import logging
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from durabletask_aio.core import _interpreter
from durabletask_aio.core.call_sites import suspended_line

if TYPE_CHECKING:
    from typing_extensions import Self

    from durabletask_aio.core.async_generators import StartedGenerator
    from durabletask_aio.core.driver import WorkflowRun
    from durabletask_aio.core.loop import WorkflowLoop

_MAX_CLOSE_ATTEMPTS = 100
"""Maximum number of close() attempts on a coroutine that awaits again; after that it is leaked on purpose."""

_leaked: list[Any] = []
"""Coroutines that could not be closed.  Freed, they would be closed once more by the collector, with an error."""

_live: dict[int, WorkflowRun] = {}
_pending_disposal: deque[WorkflowRun] = deque()
_scopes = threading.local()


def register(run: WorkflowRun) -> bool:
    """Hold `run` until it finishes or is disposed, and add it to the scope of this thread.

    Returns:
        Whether there is a scope.
    """
    _live[id(run)] = run
    scope: TurnScope | None = getattr(_scopes, "current", None)
    if scope is None:
        return False
    scope.runs.append(run)
    return True


def unregister(run: WorkflowRun) -> None:
    """Do not hold `run` any more: it has been closed."""
    _live.pop(id(run), None)


def enqueue_disposal(run: WorkflowRun) -> None:
    """Dispose of `run`, which its host has dropped, at the next turn.

    May be called by the garbage collector on any thread, so it does nothing else.
    """
    _pending_disposal.append(run)


def dispose_pending() -> None:
    """Dispose, in this thread, of the runs that have been enqueued."""
    while _pending_disposal:
        try:
            run = _pending_disposal.popleft()
        except IndexError:  # Another thread took the last one.
            return
        run.dispose()


class TurnScope:
    """Collects the runs that start on this thread while it is entered; see `turn_scope`."""

    def __init__(self, metadata: Mapping[str, str] | None) -> None:
        self.runs: list[WorkflowRun] = []
        self.metadata = metadata
        self._kept = False
        self._outer: TurnScope | None = None
        self._hooks: Any = None

    def keep(self) -> None:
        """Do not dispose of the runs at the end: the host continues them later, and disposes of them itself.

        Each of their later turns has to be in a scope too.
        """
        self._kept = True

    def __enter__(self) -> Self:
        dispose_pending()
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
    """Return a context manager for the host of a turn, to be entered on the thread that executes it.

    Args:
        metadata: the initial metadata of the runs that start inside.

    Returns:
        The scope.  Runs that start inside are listed in `.runs`; at its end those that are still suspended are disposed
        of in this thread, unless `.keep()` was called.
    """
    return TurnScope(metadata)


def current_metadata() -> Mapping[str, str] | None:
    """Return the metadata of this thread's scope."""
    scope: TurnScope | None = getattr(_scopes, "current", None)
    return None if scope is None else scope.metadata


def close_coroutines(loop: WorkflowLoop, tasks: Iterable[Any]) -> None:
    """Close the coroutines of `tasks` in that order, with `loop` as the running loop."""
    saved_loop = _interpreter.swap_loop(loop)
    saved_hooks = _interpreter.abandon_async_generators()
    try:
        for task in tasks:
            _interpreter.forget_pending(task)
            _interpreter.enter_task(loop, task)  # asyncio.timeout needs a current task
            try:
                _close(task.get_coro(), loop, _interpreter.context_of(task))
            finally:
                _interpreter.leave_task(loop, task)
    finally:
        if saved_hooks is not None:
            sys.set_asyncgen_hooks(*saved_hooks)
        _interpreter.restore_loop(saved_loop)


def _close(coroutine: Any, loop: WorkflowLoop, context: contextvars.Context | None) -> None:
    """Close `coroutine` from the inside out, in the context it ran in, so that its `finally` can reset variables.

    Closing the outermost coroutine is not enough: if one inside awaits something else instead, it stays suspended
    without its caller, and the collector closes it again later, with an error.
    """
    refusals = 0
    while refusals < _MAX_CLOSE_ATTEMPTS:
        innermost = _interpreter.innermost_unfinished(coroutine)
        if innermost is None or _interpreter.is_executing(innermost):
            return  # The second is code that never returns, on a thread that its worker has left behind.
        _interpreter.close_unstarted_of(innermost)
        try:
            if context is None:
                innermost.close()
            else:
                context.run(innermost.close)
        except RuntimeError as error:
            refusals += "ignored GeneratorExit" in str(error)
        except BaseException:
            pass  # Discard: errors during disposal are not reported.
    _leak(coroutine, loop, _MAX_CLOSE_ATTEMPTS)


def close_generators(loop: WorkflowLoop, started: Iterable[StartedGenerator]) -> None:
    """Close asynchronous generators in that order, each in the task that has iterated over it first."""
    for each in started:
        saved_loop = _interpreter.swap_loop(loop)
        saved_hooks = _interpreter.abandon_async_generators()
        if each.task is not None:
            _interpreter.enter_task(loop, each.task)
        try:
            context = None if each.task is None else _interpreter.context_of(each.task)
            _close_generator(each.generator, loop, context or contextvars.copy_context())
        finally:
            if each.task is not None:
                _interpreter.leave_task(loop, each.task)
            if saved_hooks is not None:
                sys.set_asyncgen_hooks(*saved_hooks)
            _interpreter.restore_loop(saved_loop)


def _close_generator(generator: AsyncGenerator[Any, Any], loop: WorkflowLoop, context: contextvars.Context) -> None:
    closing: Any = generator.aclose()
    step = functools.partial(closing.send, None)
    for attempt in range(1, _MAX_CLOSE_ATTEMPTS + 1):
        ended = _has_ended(context, step)
        if ended:
            return
        if ended is None:
            _leak(generator, loop, attempt)  # Python closes a generator only once.
            return
        step = functools.partial(closing.throw, GeneratorExit())
    _leak(generator, loop, _MAX_CLOSE_ATTEMPTS)


def _has_ended(context: contextvars.Context, step: Callable[[], object]) -> bool | None:
    """Whether a generator has ended with a step of its closing; `None` if it has yielded another value."""
    try:
        context.run(step)
    except RuntimeError as error:
        return None if "ignored GeneratorExit" in str(error) else True
    except BaseException:
        return True  # Discard: errors during disposal are not reported.
    return False  # It awaits something.


def _leak(suspended: Any, loop: WorkflowLoop, attempts: int) -> None:
    """Keep code forever that cannot be closed, and say where it is."""
    _leaked.append(suspended)
    _interpreter.leak_reference(suspended)
    logging.getLogger("durabletask.aio").warning(
        "workflow %r, instance %r: the code at %s still awaits after %d attempts to close it, and is left as it "
        "is. Does it have an 'except:' or 'except BaseException:' that does not raise again? 'except Exception:' would "
        "let the end through",
        loop.execution.workflow_name,
        loop.execution.instance_id,
        suspended_line(suspended),
        attempts,
    )


def _close_all() -> None:
    """Dispose of everything at the end of the process, before the interpreter runs the same `finally` blocks."""
    dispose_pending()
    for run in list(_live.values()):
        if not run.is_executing:  # on a thread that a worker has left behind
            run.dispose()


atexit.register(_close_all)
