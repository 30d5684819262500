"""The deterministic event loop: an asyncio loop whose only clock is the workflow's and whose only I/O is durable.

There is one per live instance.  It is the running loop of a thread only while workflow code is on that thread's stack,
so nothing outside a workflow can see it.  It never blocks and never polls: :meth:`WorkflowLoop.run_ready` runs
callbacks in the order they became ready until none is, and then the instance waits for the engine.

Why what happens here is the same on every replay: the ready queue is first in, first out; timers are durable timers,
fired by the history; and futures and tasks hash to numbers that depend on the instance and the order of creation
alone, because much of asyncio keeps them in sets (``wait``, ``TaskGroup``, ``all_tasks``), and a set of objects that
hash by address iterates in another order in every process.
"""

# ruff: noqa: SLF001 - a handle keeps what it runs in private slots, which every event loop reads
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import math
import sys
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from durabletask_aio.core import _interpreter
from durabletask_aio.core._interpreter import get_running_loop, restore_loop, set_running_loop, swap_loop
from durabletask_aio.core.errors import (
    InstanceEvicted,
    NonDeterministicUseError,
    StepBudgetError,
    UnsupportedInWorkflowError,
)
from durabletask_aio.core.refusals import ADVICE, refuse_unsupported

if TYPE_CHECKING:
    from durabletask_aio.core.debug import OperationHistory
    from durabletask_aio.core.host import Host

T = TypeVar("T")

_MICROSECOND = 1e-6
_new = object.__new__


class WorkflowFuture(asyncio.Future[T]):
    """A future of a workflow's loop; like any other but for its hash."""

    __slots__ = ("_hash",)

    def __init__(self, loop: WorkflowLoop) -> None:
        super().__init__(loop=loop)
        loop.last_hash = self._hash = loop.last_hash + 1

    def __hash__(self) -> int:
        return self._hash


class WorkflowTask(asyncio.Task[T]):
    """A task of a workflow's loop; like any other but for its hash."""

    __slots__ = ("_hash", "order")

    def __init__(self, coro: Coroutine[Any, Any, T], *, loop: WorkflowLoop, **kwargs: Any) -> None:
        # Before Task.__init__, which puts the task into a weak set and so wants its hash.
        loop.last_hash = self._hash = loop.last_hash + 1
        self.order = 0
        super().__init__(coro, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._hash

    def get_loop(self) -> asyncio.AbstractEventLoop:
        frame = _interpreter.calling_frame(1)
        if frame.f_code is _interpreter.GET_LOOP and _interpreter.skipped_by_all_tasks(self, frame.f_back):
            return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        return super().get_loop()

    def cancel(self, msg: Any | None = None) -> bool:
        if not _interpreter.goes_through_addresses(_interpreter.calling_frame(1)):
            return super().cancel(msg)
        loop = cast("WorkflowLoop", self.get_loop())
        return loop.in_order(self._hash, super().cancel, msg)


_CANCELLED = (bool,)
"""What a cancelled handle calls: nothing to speak of, so that nobody has to look whether it was cancelled."""


class WorkflowHandle(asyncio.Handle):
    """A callback in the ready queue.

    There is one for each step of each task, so it is made without ``__init__``, whose call costs more than all it does:
    :meth:`WorkflowLoop.call_soon` fills the slots.
    """

    __slots__ = ("call",)

    call: tuple[Any, ...]
    """The callback and its arguments, as ``Context.run`` takes them."""

    _repr = None
    _source_traceback = None

    _context: contextvars.Context
    _loop: WorkflowLoop

    def cancel(self) -> None:
        self.call = _CANCELLED

    if not TYPE_CHECKING:  # plain attributes there: what asyncio.Handle's other methods, and debuggers, look at

        @property
        def _cancelled(self) -> bool:
            return self.call is _CANCELLED

        @property
        def _callback(self) -> Any:
            return None if self._cancelled else self.call[0]

        @property
        def _args(self) -> Any:
            return None if self._cancelled else self.call[1:]


class _InOrder(WorkflowHandle):
    """Callbacks that became ready in a row, in an order that must not count: they are run in that of their places."""

    __slots__ = ("parts",)

    parts: list[tuple[int, deque[WorkflowHandle | WorkflowTimerHandle]]]

    @classmethod
    def make(cls, loop: WorkflowLoop) -> _InOrder:
        handle = cls.__new__(cls)
        handle.call, handle._context, handle._loop = (handle.unfold, loop), contextvars.copy_context(), loop
        handle.parts = []
        return handle

    def unfold(self, loop: WorkflowLoop) -> None:
        for _, handles in sorted(self.parts, key=lambda part: part[0], reverse=True):
            loop.ready.extendleft(reversed(handles))


class WorkflowTimerHandle(asyncio.TimerHandle):
    """A callback behind a durable timer; the timer tells it directly when it fires."""

    __slots__ = ("call", "due", "sequence")

    call: tuple[Any, ...]
    due: timedelta
    """When it fires, since the start: exact, which ``when()`` in floating point is not."""
    sequence: int

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: WorkflowLoop,
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.call = (callback, *args)

    def cancel(self) -> None:
        self.call = _CANCELLED
        super().cancel()

    def on_child_completed(self, task: Any) -> None:
        """Called by upstream when the timer fires: only marks, as user code must not run inside upstream's event."""
        loop: WorkflowLoop = self._loop  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        # Upstream also calls this from within the cancellation of the timer, when we are no longer among the timers.
        if not loop.host.evicted and self in loop.timers.get(self.due, ()):
            loop.timers_due(self.due)

    def __hash__(self) -> int:  # TimerHandle hashes by its time, and compares by it too
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class WorkflowLoop(asyncio.AbstractEventLoop):
    """The event loop of one instance."""

    def __init__(self, host: Host, *, step_budget: int) -> None:
        self.host = host
        self.wake = host.wake
        self.ready: deque[WorkflowHandle | WorkflowTimerHandle] = deque()
        self.outstanding = 0
        """Operations and timers whose completion would wake this instance; none and nothing ready is a deadlock."""
        self.timers: dict[timedelta, dict[WorkflowTimerHandle, None]] = {}
        """The timers that have not fired, by when they do, in the order of their creation."""
        self.completions = 0
        """Counts what has finished, so that races can tell who was first.  Whoever finishes counts it up himself."""
        self._step_budget = step_budget
        # Without the salt the hashes of all instances would be 1, 2, 3, ..., and the one weak set in which asyncio
        # keeps every task of the process (up to 3.13) would degrade to a list.  Below 2**31, so that the order is the
        # same on 32-bit builds.
        self.last_hash = zlib.crc32(host.instance_id.encode()) & 0x3FFFFFFF
        self._task_number = 0
        # asyncio holds tasks weakly; a workflow's task that nobody else refers to must not vanish mid-way.  By id,
        # which is cheaper to look up than our hash; the order is that of creation.
        self._tasks: dict[int, WorkflowTask[Any]] = {}
        self._exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self.history: OperationHistory | None = None
        """What keeps a record of the operations, in debug mode."""
        self.hooked = False
        """Whether the host sees to what becomes of asynchronous generators, for each turn as a whole."""
        self.home: dict[str, Any] | None = None
        """The namespace of the workflow function's module: what is called from there is called by the user."""

    # -- stepping -------------------------------------------------------------------------------------------------

    def run_ready(self) -> None:
        """Run callbacks in the order they became ready, until none is left.

        Raises :class:`StepBudgetError` if there seems to be no end to it.
        """
        ready = self.ready
        # Only nested in another loop's code is there anything to set aside; else it is a call less for each step.
        outer = get_running_loop()
        saved_loop: Any = set_running_loop(self) if outer is None else swap_loop(self)
        saved_hooks = None if self.hooked else _interpreter.abandon_async_generators()
        left = self._step_budget
        try:
            while ready and left:
                left -= 1
                handle = ready.popleft()
                try:
                    handle._context.run(*handle.call)  # type: ignore[union-attr]
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
            if outer is None:
                set_running_loop(None)
            else:
                restore_loop(saved_loop)

    def _raise_budget_exceeded(self, handle: WorkflowHandle | WorkflowTimerHandle) -> NoReturn:
        owner: Any = getattr(handle.call[0], "__self__", None)
        if isinstance(owner, WorkflowTask):
            from durabletask_aio.core.debug import where

            task: WorkflowTask[Any] = owner  # pyright: ignore[reportUnknownVariableType]
            spinning = f"task {task.get_name()!r}, at {where(task)}"
        else:
            spinning = repr(handle)
        msg = (
            f"the workflow ran {self._step_budget:,} callbacks without waiting for anything durable; spinning: "
            f"{spinning}. Wait for an operation, or with 'await ctx.sleep(seconds)', in the loop that does this; "
            f"raise DURABLETASK_AIO_STEP_BUDGET if it is meant to"
        )
        raise self.host.error(StepBudgetError, msg)

    @property
    def tasks(self) -> list[WorkflowTask[Any]]:
        """The tasks that are not done, in the order of their creation."""
        return [task for task in self._tasks.values() if not task.done()]

    # -- callbacks and time ---------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]  # not generic in the arguments
        # The callback too: as one tuple they go through to Context.run, and are not packed again.
        self,
        *callback_and_args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = _new(WorkflowHandle)
        handle.call = callback_and_args
        handle._context = contextvars.copy_context() if context is None else context
        handle._loop = self
        self.ready.append(handle)
        self.wake.is_complete = True
        return handle

    def time(self) -> float:
        """Seconds of workflow time since this execution started; it stands still within a turn."""
        if _interpreter.starts_a_thread(_interpreter.calling_frame(1)):
            msg = f"anyio.to_thread cannot be used in a workflow: {ADVICE['run_in_executor']}"
            raise self.host.error(UnsupportedInWorkflowError, msg)
        return self.host.elapsed().total_seconds()

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = WorkflowTimerHandle(self.time() + delay, callback, args, self, context)
        if delay < _MICROSECOND:
            self.ready.append(handle)
        elif delay != math.inf:
            try:
                self._start_timer(handle, timedelta(seconds=delay))
            except OverflowError:
                raise self.host.beyond_the_calendar(delay, "await asyncio.sleep({})") from None
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = WorkflowTimerHandle(when, callback, args, self, context)
        delay = when - self.time()
        if delay < _MICROSECOND:
            self.ready.append(handle)
        elif delay != math.inf:
            # Through microseconds since the start, where both are exact, and not through the difference of floats.
            try:
                self._start_timer(handle, timedelta(seconds=when) - self.host.elapsed())
            except OverflowError:
                raise self.host.beyond_the_calendar(delay, "async with asyncio.timeout({})") from None
        return handle

    def _start_timer(self, handle: WorkflowTimerHandle, delay: timedelta) -> None:
        handle.sequence = self.host.start_timer(delay, handle)
        handle.due = self.host.elapsed() + delay
        self.outstanding += 1
        self.timers.setdefault(handle.due, {})[handle] = None

    def timers_due(self, due: timedelta) -> None:
        """One of the timers for that moment has fired, and so all of them do.

        As on any asyncio loop: of nested timeouts with one deadline all have expired, and not only the one whose event
        the engine happened to deliver first.  The events of the others find nobody.
        """
        handles = self.timers.pop(due)
        self.outstanding -= len(handles)
        self.ready.extend(handles)
        self.wake.is_complete = True

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        due: Any = getattr(handle, "due", None)  # none if it was to fire at once, or never
        together = self.timers.get(due, {})
        if not isinstance(handle, WorkflowTimerHandle) or handle not in together:
            return
        del together[handle]
        if not together:
            del self.timers[due]
        self.outstanding -= 1
        self.host.cancel_timer(handle.sequence, handle)

    # -- futures and tasks ----------------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        frame = _interpreter.calling_frame(1)
        names = frame.f_globals
        if names is _interpreter.TASKS_GLOBALS:
            if id(frame.f_code) in _interpreter.WAIT_INNER:
                self._refuse_foreign_futures("wait", frame.f_locals.get("fs", ()))
        elif names is _interpreter.QUEUES_GLOBALS:
            if _interpreter.starts_a_race(frame):
                # What was done when it was given comes in the order of a set; the rest in the order of completion.
                done = [each for each in map(_interpreter.finished_the_race, self.ready) if each is not None]
                if len(done) > 1:
                    self._refuse_foreign_futures("as_completed", done)
        elif frame.f_code is _interpreter.WRAP_FUTURE:
            msg = f"asyncio.wrap_future() cannot be used in a workflow: {ADVICE['run_in_executor']}"
            raise self.host.error(UnsupportedInWorkflowError, msg)
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

        ``tg.create_task(ctx.call_activity(...))`` is too natural a line to be a ``TypeError``.
        """
        frame = _interpreter.calling_frame(1)
        if frame.f_globals is _interpreter.TASKS_GLOBALS and id(frame.f_code) in _interpreter.ENSURE_FUTURE:
            self._refuse_unordered_start(frame, coro)
        if isinstance(coro, asyncio.Future):
            coro = _result_of(coro)
        self._task_number += 1
        if context is not None:
            kwargs["context"] = context
        kwargs["name"] = f"Task-{self._task_number}" if name is None else str(name)
        task: WorkflowTask[T] = WorkflowTask(coro, loop=self, **kwargs)  # type: ignore[arg-type]
        self._tasks[id(task)] = task
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        if isinstance(task, WorkflowTask):
            self.completions = task.order = self.completions + 1
            self._tasks.pop(id(task), None)

    def in_order(self, place: int, function: Callable[..., T], *args: Any) -> T:
        """Call ``function``; what it makes ready comes at its ``place`` among what such calls in a row make ready."""
        ready, self.ready = self.ready, deque()
        try:
            return function(*args)
        finally:
            made_ready, self.ready = self.ready, ready
            if made_ready:
                if not ready or not isinstance(ready[-1], _InOrder):
                    ready.append(_InOrder.make(self))
                cast(_InOrder, ready[-1]).parts.append((place, made_ready))

    def _refuse_unordered_start(self, frame: Any, coro: Any) -> None:
        function, given = _interpreter.called_from(frame, _interpreter.UNORDERED)
        if function is None:
            return
        shown = f"{coro.__name__}(...)" if inspect.iscoroutine(coro) else "work()"
        for each in (coro, *given):
            if inspect.iscoroutine(each):
                each.close()  # or each of them complains, on top, that it was never awaited
        msg = (
            f"asyncio.{function} starts bare coroutines in the order of their memory addresses, which is another one "
            f"on replay\n"
            f"  wrong: asyncio.{function}([{shown}, ...])\n"
            f"  right: asyncio.{function}([asyncio.create_task({shown}), ...])"
        )
        raise self.host.error(NonDeterministicUseError, msg)

    def _refuse_foreign_futures(self, function: str, futures: Any) -> None:
        for future in futures:
            if _hash_of(type(future)) is _hash_of(asyncio.Future):
                if type(future) is asyncio.Future:
                    given, right = "asyncio.Future()", "asyncio.get_running_loop().create_future()"
                elif isinstance(future, asyncio.Task):
                    given, right = "asyncio.Task(work())", "asyncio.create_task(work())"
                else:
                    given, right = "asyncio.gather(a, b)", "ctx.gather(a, b)"
                msg = (
                    f"asyncio.{function} was given an {given}, which hashes by memory address, so that its sets "
                    f"iterate in another order on replay\n"
                    f"  wrong: asyncio.{function}([{given}, ...])\n"
                    f"  right: asyncio.{function}([{right}, ...])"
                )
                raise self.host.error(NonDeterministicUseError, msg)

    # -- exceptions nobody handles --------------------------------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.host.attached:
            return
        handler = self._exception_handler
        # A handler is workflow code: what it sees live it has to see on replay.  What finalizers report it never sees,
        # for they run when, and on the thread that, the garbage collector likes.
        if handler is None or _interpreter.told_by_finalizer(context):
            self.default_exception_handler(context)
            return
        try:
            handler(self, context)
        except (SystemExit, KeyboardInterrupt, InstanceEvicted):
            raise
        except BaseException as error:
            self.default_exception_handler({"message": "Unhandled error in exception handler", "exception": error})

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log it, once: the logger is silent on replay."""
        self.host.logger.error(context.get("message", "Unhandled exception"), exc_info=context.get("exception"))

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            msg = f"a callable or None is expected as exception handler, not {handler!r}"
            raise TypeError(msg)
        self._exception_handler = handler

    # -- state ----------------------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        return _interpreter.get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    # ``bool()`` is false.  The debug flag is asked for by each future that is made, from C, where a function in C costs
    # a fifth of one in Python.
    get_debug: Callable[[], bool] = bool  # pyright: ignore[reportIncompatibleMethodOverride]

    def set_debug(self, enabled: bool) -> None:
        self.get_debug = functools.partial(bool, enabled)

    def get_task_factory(self) -> None:
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} instance_id={self.host.instance_id!r} outstanding={self.outstanding}>"

    # -- the end --------------------------------------------------------------------------------------------------

    def evict(self) -> None:
        """From now on every call but the harmless questions raises :class:`InstanceEvicted`."""
        self.ready.clear()
        self._exception_handler = None
        self.__class__ = EvictedLoop  # type: ignore[type-abstract]  # pyright: ignore[reportAttributeAccessIssue]


def _hash_of(kind: Any) -> Any:
    return kind.__hash__


async def _result_of(future: asyncio.Future[T]) -> T:
    return await future


refuse_unsupported(WorkflowLoop)


class EvictedLoop(WorkflowLoop):
    """What a loop becomes when its instance is closed.  A change of class keeps the check out of every live call."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        frame = _interpreter.calling_frame(0)
        _interpreter.close_unstarted(frame)
        error = self.host.refusal("this call")
        if self.host.patience_is_over:
            self.__class__ = AbandonedLoop  # type: ignore[type-abstract]  # pyright: ignore[reportAttributeAccessIssue]
        raise error

    call_soon = call_later = call_at = time = create_future = create_task = _refuse

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The timer is of no interest any more."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Mute: nothing that happens while an instance is closed is news."""

    def is_closed(self) -> bool:
        return True


class AbandonedLoop(EvictedLoop):
    """What it becomes when code that is closed does not stop calling: nothing is refused, and nothing ever happens."""

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return asyncio.Handle(callback, args, self, context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(delay, callback, args, self, context)

    call_at = call_later

    def time(self) -> float:
        return 0.0

    def create_future(self) -> asyncio.Future[Any]:
        return WorkflowFuture(self)

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        _interpreter.close_unstarted(_interpreter.calling_frame(0))
        nothing = _result_of(WorkflowFuture[Any](self))
        task = WorkflowTask(nothing, loop=self)
        _interpreter.forget_pending(task)
        nothing.close()
        return task
