"""The deterministic event loop: an asyncio loop whose only clock is the workflow's and whose only I/O is durable.

There is one per live instance.  It is the running loop of a thread only while workflow code is on that thread's stack,
so nothing outside a workflow can see it.  It never blocks and never polls: `WorkflowLoop.run_ready` runs callbacks in
the order they became ready until none is left, and then the instance waits for the engine.

It behaves the same on every replay because the ready queue is first in, first out; timers are durable timers, fired by
the history; and futures and tasks hash to numbers that depend on the instance and the order of creation alone.  Much of
asyncio keeps them in sets (`wait`, `TaskGroup`, `all_tasks`), and a set of objects that hash by address iterates in
another order in every process.
"""

# ruff: noqa: SLF001 - a handle keeps what it runs in private slots, which every event loop reads
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from enum import Enum
from itertools import count
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from durabletask_aio.core import _compat_anyio, _interpreter, _upstream
from durabletask_aio.core._interpreter import calling_frame, restore_loop, swap_loop
from durabletask_aio.core._upstream import WakeTask, task
from durabletask_aio.core.async_generators import AsyncGenerators
from durabletask_aio.core.asyncio_order import check_new_future, check_new_task
from durabletask_aio.core.call_sites import waiting_line
from durabletask_aio.core.cancel_deliveries import CancelDeliveries
from durabletask_aio.core.errors import InstanceEvicted, StepBudgetError, UnsupportedInWorkflowError
from durabletask_aio.core.refusals import ADVICE, refuse_unsupported
from durabletask_aio.core.timers import timer_too_long

if TYPE_CHECKING:
    from durabletask_aio.core.children import ChildOperation
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.journal import Journal
    from durabletask_aio.core.operation_log import OperationLog
    from durabletask_aio.core.operations import ScheduledOperation

T = TypeVar("T")

_MICROSECOND = 1e-6
"""Delays below this, in seconds, fire at once: a durable timer has no finer resolution."""


class WorkflowFuture(asyncio.Future[T]):
    """A future of a workflow's loop, with a deterministic hash."""

    __slots__ = ("_hash",)

    def __init__(self, loop: WorkflowLoop) -> None:
        super().__init__(loop=loop)
        self._hash = next(loop.hashes)

    def __hash__(self) -> int:
        return self._hash


class WorkflowTask(asyncio.Task[T]):
    """A task of a workflow's loop, with a deterministic hash."""

    __slots__ = ("_hash", "order")

    def __init__(self, coro: Coroutine[Any, Any, T], *, loop: WorkflowLoop, **kwargs: Any) -> None:
        # Before Task.__init__, which adds the task to a weak set and so needs its hash.
        self._hash = next(loop.hashes)
        self.order = 0
        """The place among all that has completed in this execution; 0 while it is pending."""
        super().__init__(coro, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._hash

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task; what anyio cancels in the order of addresses is cancelled in the order of creation."""
        if not _compat_anyio.delivers_in_address_order(calling_frame(1)):
            return super().cancel(msg)
        loop = cast("WorkflowLoop", self.get_loop())
        loop.cancel_deliveries.delivered()
        return loop.call_in_order(self._hash, super().cancel, msg)

    if sys.version_info >= (3, 11):

        def uncancel(self) -> int:
            """Take a cancellation back; the main task has then handled the request to cancel the instance."""
            left = super().uncancel()
            loop = cast("WorkflowLoop", self.get_loop())
            if not left and self is loop.main:
                loop.execution.cancellation = None
            return left


class WorkflowHandle(asyncio.Handle):
    """A callback in the ready queue of a workflow's loop."""

    __slots__ = ()


class WorkflowTimerHandle(asyncio.TimerHandle):
    """A callback behind a durable timer."""

    __slots__ = ("due", "sequence")

    due: timedelta
    """When it fires, since the start of the execution: exact, unlike `when()`, which is a float."""
    sequence: int
    """The sequence number of the durable timer."""

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Mark the callback as ready; called by upstream when the timer fires, and when it is cancelled.

        Nothing is run here: user code must not run inside upstream's event.
        """
        loop: WorkflowLoop = self._loop  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        loop.timer_fired(self)

    def __hash__(self) -> int:  # TimerHandle hashes and compares by its time.
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _InOrder(WorkflowHandle):
    """Callbacks that became ready in a row in an arbitrary order; they are run in the order of their places."""

    __slots__ = ("parts",)

    def __init__(self, loop: WorkflowLoop) -> None:
        super().__init__(self._unfold, (loop,), loop)
        self.parts: list[tuple[int, deque[asyncio.Handle]]] = []

    def _unfold(self, loop: WorkflowLoop) -> None:
        for _, handles in sorted(self.parts, key=lambda part: part[0], reverse=True):
            loop._ready.extendleft(reversed(handles))


class _State(Enum):
    LIVE = "live"
    EVICTED = "evicted"
    """The instance is being closed: each call raises `InstanceEvicted`."""
    DETACHED = "detached"
    """Code that is being closed does not stop calling: calls are accepted, and nothing is ever run."""


_LIVE = _State.LIVE


class WorkflowLoop(asyncio.AbstractEventLoop):
    """The event loop of one instance."""

    def __init__(self, execution: Execution, *, step_budget: int) -> None:
        self.execution = execution
        self.wake = WakeTask()
        """Complete whenever the loop has something to do; the task that upstream waits for."""
        self.operation_log: OperationLog | None = None
        """The record of the operations, in debug mode."""
        self.asyncgen_hooks_set = False
        """Whether the host has set the hooks of asynchronous generators for the whole turn."""
        self.user_globals: dict[str, Any] | None = None
        """The namespace of the workflow function's module: a frame that has it is the user's."""
        self.linked_children: dict[ChildOperation[Any], None] = {}
        """The sub-orchestrations that are cancelled with this instance, in the order of their calls."""
        self.journal: Journal | None = None
        """The records of this execution, if its host has given it some."""
        self.main: WorkflowTask[Any] | None = None
        """The task of the workflow function."""
        self._state = _LIVE
        self._ready: deque[asyncio.Handle] = deque()
        self.cancel_deliveries = CancelDeliveries(self, self.call_soon)
        self.outstanding = 0
        """Operations and timers whose completion would wake this instance; none and nothing ready is a deadlock."""
        self.unawaited: dict[int, ScheduledOperation[Any]] = {}
        """By their ids, which are faster than their hashes: operations that are done, and nothing waited for them."""
        self._timers: dict[timedelta, dict[WorkflowTimerHandle, None]] = {}
        """The timers that have not fired, by when they do, in the order of their creation."""
        self.completions = count(1)
        """Numbers what has completed: races compare the numbers."""
        self._step_budget = step_budget
        # With the instance id in it, because the hashes of all instances would otherwise be 1, 2, 3, ..., and the one
        # weak set in which asyncio keeps every task of the process (up to 3.13) would degrade to a list.  Below 2**31,
        # so that the order is the same on 32-bit builds.
        self.hashes = count(1 + (zlib.crc32(execution.instance_id.encode()) & 0x3FFFFFFF))
        """The hashes of the futures and tasks that are created from now on."""
        self._task_number = 0
        # asyncio refers to tasks weakly; a workflow's task without any other reference must not be freed while it is
        # pending.  By id, which is cheaper to look up than our hash; the order is that of creation.
        self._tasks: dict[int, WorkflowTask[Any]] = {}
        self.generators = AsyncGenerators()
        self._exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._debug = False

    # -- running --------------------------------------------------------------------------------------------------

    def run_ready(self) -> None:
        """Run callbacks in the order they became ready, until none is left.

        Raises:
            StepBudgetError: if more callbacks have run than the step budget allows.
        """
        saved_loop: Any = swap_loop(self)
        saved_hooks = None if self.asyncgen_hooks_set else _interpreter.abandon_async_generators()
        left = self._step_budget
        ready = self._ready
        if self.cancel_deliveries.parked:
            self.cancel_deliveries.resume(ready)
        try:
            while ready and left:
                left -= 1
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
                except (SystemExit, KeyboardInterrupt, InstanceEvicted):
                    raise
                except BaseException as error:
                    self.call_exception_handler(
                        {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
                    )
            if ready:
                self._raise_budget_exceeded(ready[0])
        finally:
            if saved_hooks is not None:
                sys.set_asyncgen_hooks(*saved_hooks)
            restore_loop(saved_loop)

    def clear_ready(self) -> None:
        """Drop what is ready: the workflow function is done, and what other tasks have left to do has no effect."""
        self._ready.clear()

    def _raise_budget_exceeded(self, handle: asyncio.Handle) -> NoReturn:
        owner: Any = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
        if isinstance(owner, WorkflowTask):
            task: WorkflowTask[Any] = owner  # pyright: ignore[reportUnknownVariableType]
            spinning = f"task {task.get_name()!r}, at {waiting_line(task)}"
        else:
            spinning = repr(handle)
        msg = (
            f"the workflow ran {self._step_budget:,} callbacks without waiting for anything durable; spinning: "
            f"{spinning}. Wait for an operation, or with 'await ctx.sleep(seconds)', in the loop that does this; "
            f"raise DURABLETASK_AIO_STEP_BUDGET if it is meant to"
        )
        raise self.execution.error(StepBudgetError, msg)

    # -- what the instance waits for ------------------------------------------------------------------------------

    @property
    def ready(self) -> deque[asyncio.Handle]:
        """The callbacks that will be run, in their order."""
        return self._ready

    @property
    def tasks(self) -> list[WorkflowTask[Any]]:
        """The tasks that are not done, in the order of their creation."""
        return [task for task in self._tasks.values() if not task.done()]

    def operation_started(self) -> None:
        """Count an operation or timer whose completion will wake the instance."""
        self.outstanding += 1

    def operation_finished(self) -> int:
        """Count an operation that is done or cancelled.

        Returns:
            Its place among all that has completed.
        """
        self.outstanding -= 1
        if not self.outstanding:
            # Otherwise the loop is woken by what awaits the operation; if nothing does, this may be a deadlock.
            self.wake.is_complete = True
        return next(self.completions)

    # -- callbacks and time ---------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]  # not generic in the arguments
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run `callback` after what is ready now."""
        if self._state is not _LIVE:
            self._refuse_evicted()
            return asyncio.Handle(callback, args, self, context)
        handle = WorkflowHandle(callback, args, self, context)
        self._ready.append(handle)
        self.wake.is_complete = True
        return handle

    def time(self) -> float:
        """Return the seconds of workflow time since this execution started; unchanged within a turn."""
        if self._state is not _LIVE:
            self._refuse_evicted()
            return 0.0
        if _compat_anyio.starts_thread(calling_frame(1)):
            msg = f"anyio.to_thread cannot be used in a workflow: {ADVICE['run_in_executor']}"
            raise self.execution.error(UnsupportedInWorkflowError, msg)
        return (self.execution.read_clock("time") - self.execution.started_at).total_seconds()

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run `callback` in `delay` seconds, after a durable timer."""
        if self._state is not _LIVE:
            self._refuse_evicted()
            return asyncio.TimerHandle(delay, callback, args, self, context)
        handle = WorkflowTimerHandle(self.time() + delay, callback, args, self, context)
        if delay < _MICROSECOND:
            self._ready.append(handle)
        elif delay != math.inf:
            try:
                self._start_timer(handle, timedelta(seconds=delay))
            except OverflowError:
                raise timer_too_long(self.execution, delay, "await asyncio.sleep({})") from None
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run `callback` when `time()` reaches `when`, after a durable timer."""
        if self._state is not _LIVE:
            self._refuse_evicted()
            return asyncio.TimerHandle(when, callback, args, self, context)
        handle = WorkflowTimerHandle(when, callback, args, self, context)
        delay = when - self.time()
        if delay < _MICROSECOND:
            self._ready.append(handle)
        elif delay != math.inf:
            # By microseconds since the start, where both are exact, and not by the difference of floats.
            try:
                self._start_timer(handle, timedelta(seconds=when) - self.execution.elapsed())
            except OverflowError:
                raise timer_too_long(self.execution, delay, "async with asyncio.timeout({})") from None
        return handle

    def _start_timer(self, handle: WorkflowTimerHandle, delay: timedelta) -> None:
        upstream = self.execution.scheduler("create_timer")
        timer = upstream.create_timer(delay)
        handle.sequence = _upstream.sequence_number(upstream)
        _upstream.add_listener(timer, id(handle), handle)
        handle.due = self.execution.elapsed() + delay
        self.operation_started()
        self._timers.setdefault(handle.due, {})[handle] = None

    def timer_fired(self, handle: WorkflowTimerHandle) -> None:
        """Make the callbacks of all timers ready that are due at the same moment as `handle`.

        As on any asyncio loop: of nested timeouts with one deadline all have expired, and not only the one whose event
        the engine delivered first.  The events of the others then have no effect.
        """
        # Upstream also calls the handle while the timer is being cancelled; it is not among the timers then.
        if self.execution.evicted or handle not in self._timers.get(handle.due, ()):
            return
        handles = self._timers.pop(handle.due)
        self.outstanding -= len(handles)
        self._ready.extend(handles)
        self.wake.is_complete = True

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Take the durable timer back; called by asyncio when a timer handle is cancelled."""
        if self._state is not _LIVE or not isinstance(handle, WorkflowTimerHandle):
            return
        due: Any = getattr(handle, "due", None)  # Unset if it was to fire at once, or never.
        together = self._timers.get(due, {})
        if handle not in together:
            return
        del together[handle]
        if not together:
            del self._timers[due]
        self.outstanding -= 1
        upstream = self.execution.upstream
        timer = _upstream.pending_task(upstream, handle.sequence, id(handle))
        if isinstance(timer, task.TimerTask):
            _upstream.cancel_timer(upstream, timer, handle.sequence)

    # -- futures and tasks ----------------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """Create a future with a deterministic hash."""
        if self._state is not _LIVE:
            self._refuse_evicted()
        else:
            check_new_future(self.execution, calling_frame(1), self._ready)
        return WorkflowFuture(self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T] | asyncio.Future[T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Start a task for a coroutine, or, unlike other loops, for an operation.

        `tg.create_task(ctx.call_activity(...))` is too natural a line to be a `TypeError`.
        """
        if self._state is not _LIVE:
            self._refuse_evicted()
            return self._create_null_task()
        check_new_task(self.execution, calling_frame(1), coro)
        if isinstance(coro, asyncio.Future):
            coro.done()  # An operation counts as used: the workflow may end before the task begins.
            coro = _result_of(coro)
        self._task_number += 1
        if context is not None:
            kwargs["context"] = context
        kwargs["name"] = f"Task-{self._task_number}" if name is None else str(name)
        task: WorkflowTask[T] = WorkflowTask(coro, loop=self, **kwargs)  # type: ignore[arg-type]
        self._tasks[id(task)] = task
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, done: asyncio.Task[Any]) -> None:
        if isinstance(done, WorkflowTask):
            done.order = next(self.completions)
            self._tasks.pop(id(done), None)

    def asyncgen_started(self, generator: AsyncGeneratorType[Any, Any]) -> None:
        """Keep an asynchronous generator that is iterated over for the first time, so that it is closed in the end."""
        self.generators.started(generator, asyncio.current_task(self))

    def call_in_order(self, place: int, function: Callable[..., T], *args: Any) -> T:
        """Call `function`; what it makes ready is run at its `place` among what such calls in a row make ready."""
        ready, self._ready = self._ready, deque()
        try:
            return function(*args)
        finally:
            made_ready, self._ready = self._ready, ready
            if made_ready:
                if not ready or not isinstance(ready[-1], _InOrder):
                    ready.append(_InOrder(self))
                cast(_InOrder, ready[-1]).parts.append((place, made_ready))

    # -- unhandled exceptions -------------------------------------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an unhandled exception; errors during disposal are not reported."""
        if self._state is not _LIVE or not self.execution.attached:
            return
        handler = self._exception_handler
        # A handler is workflow code: it must see the same on replay as it saw live.  It never sees what finalizers
        # report, because they run at any time, on the thread on which the garbage collector happens to run.
        if handler is None or _interpreter.is_finalizer_report(context):
            self.default_exception_handler(context)
            return
        try:
            handler(self, context)
        except (SystemExit, KeyboardInterrupt, InstanceEvicted):
            raise
        except BaseException as error:
            self.default_exception_handler({"message": "Unhandled error in exception handler", "exception": error})

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log it as an error, once: the logger is silent on replay."""
        self.execution.logger.error(context.get("message", "Unhandled exception"), exc_info=context.get("exception"))

    def get_exception_handler(self) -> Any:
        """Return the handler that was set, or `None`."""
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        """Set what is called for unhandled exceptions; `None` for the default."""
        if handler is not None and not callable(handler):
            msg = f"a callable or None is expected as exception handler, not {handler!r}"
            raise TypeError(msg)
        self._exception_handler = handler

    # -- state ----------------------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether workflow code is on this thread's stack."""
        return _interpreter.get_running_loop() is self

    def is_closed(self) -> bool:
        """Whether the instance is being closed, or has been."""
        return self._state is not _LIVE

    def get_debug(self) -> bool:
        """Whether asyncio's debug mode is on."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        """Switch asyncio's debug mode."""
        self._debug = enabled

    def get_task_factory(self) -> None:
        """Return `None`: tasks of a workflow are always made by its loop."""
        return

    def __repr__(self) -> str:
        return f"<{type(self).__name__} instance_id={self.execution.instance_id!r} outstanding={self.outstanding}>"

    # -- eviction -------------------------------------------------------------------------------------------------

    def evict(self) -> None:
        """From now on, raise `InstanceEvicted` in every call that would start something."""
        self._ready.clear()
        self.unawaited.clear()
        self._exception_handler = None
        self._state = _State.EVICTED

    def _refuse_evicted(self) -> None:
        """Raise `InstanceEvicted`, up to `MAX_REFUSED_CALLS` times; after that, return."""
        if self._state is _State.DETACHED:
            return
        _interpreter.close_unstarted(calling_frame(1))
        error = self.execution.refused_call("this call")
        if self.execution.refusals_exhausted:
            self._state = _State.DETACHED
        raise error

    def _create_null_task(self) -> WorkflowTask[Any]:
        """Create a task that never runs and is never done, and close the coroutine that it was to run."""
        _interpreter.close_unstarted(calling_frame(1))
        never = _result_of(WorkflowFuture[Any](self))
        task = WorkflowTask(never, loop=self)
        _interpreter.forget_pending(task)
        never.close()
        return task


async def _result_of(future: asyncio.Future[T]) -> T:
    return await future


refuse_unsupported(WorkflowLoop)
