"""Durable operations: the futures that workflow code awaits, and so the one place where it hands control back.

An operation is scheduled by upstream at the moment it is called, and what the caller gets is an ``asyncio.Future``.
It is no upstream task, on purpose: making it both was tried, costs 3 to 7 % of a step, and lets ``task.when_any`` take
it with another meaning of ``result``.
"""

from __future__ import annotations

import asyncio
import inspect
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar
from uuid import UUID

from durabletask import task
from durabletask.task import CompletableTask, TaskFailedError

from durabletask_aio.core import _interpreter, _upstream
from durabletask_aio.core._interpreter import calling_frame
from durabletask_aio.core._upstream import subscribers
from durabletask_aio.core.errors import ActivityFailedError, SubOrchestrationFailedError, WorkflowValidationError
from durabletask_aio.core.sites import caller, line_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from durabletask_aio.core.host import Host
    from durabletask_aio.core.loop import WorkflowLoop

T = TypeVar("T")

ACTIVITY = "activity"
SUB_ORCHESTRATION = "sub-orchestration"
TIMER = "timer"
EVENT = "external event"
ENTITY = "entity operation"
LOCK = "entity lock"


_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ITERABLE_COROUTINE
_PLAIN_VALUES = (str, bytes, int, float, list, tuple, dict, set, frozenset, Enum, date, timedelta, Decimal, UUID)
"""What an operation is never equal to, and its result may well be.  (Not ``None``: libraries do ask for that.)"""

CALLS = {
    ACTIVITY: "call_activity",
    SUB_ORCHESTRATION: "call_sub_orchestrator",
    TIMER: "create_timer",
    EVENT: "wait_for_external_event",
    ENTITY: "call_entity",
    LOCK: "lock_entities",
}
"""The method of the context that makes an operation of that kind; combinations are of the kind of their method."""


class Watcher(Protocol):
    """A combination of operations, told about each of its parts in the same step, not by a trip through the loop."""

    def operation_done(self, operation: Operation[Any]) -> None: ...


class Operation(asyncio.Future[T]):
    """A durable operation that has been scheduled; ``await`` it for its result.

    It is an ``asyncio.Future`` of the workflow's loop: it can be awaited more than once and from several tasks,
    gathered, raced, shielded and cancelled.  Cancelling takes back what can be taken back: a timer, or the wait for
    an external event, which then does not swallow the next event.  An activity or a sub-orchestration goes on, its
    retries stop, and its result is dropped.

    Awaiting it raises :class:`ActivityFailedError` or :class:`SubOrchestrationFailedError` if it failed.
    """

    __slots__ = ("_code", "_hash", "_instruction", "_watchers", "kind", "name", "order", "step")

    if TYPE_CHECKING:
        _loop: WorkflowLoop  # pyright: ignore[reportIncompatibleMethodOverride]

    if TYPE_CHECKING:  # none at run time: see begin()

        def __init__(self, *, loop: WorkflowLoop) -> None: ...

    def begin(
        self, loop: WorkflowLoop, kind: str, name: str, step: int | None, scheduled: task.Task[Any] | None = None
    ) -> None:
        """Complete a new operation, which waits for ``scheduled``, or for what its own class knows.

        No ``__init__``, for a future with one in Python takes twice as long to make.
        """
        loop.last_hash = self._hash = loop.last_hash + 1
        self.kind = kind
        """What it is: ``"activity"``, ``"timer"``, ..."""
        self.name = name
        """The name of the activity, orchestrator, event or entity; of a timer, when it fires."""
        self.step = step
        """The sequence number by which the history knows it; ``None`` for waits that leave no trace there."""
        self.order = 0
        self._watchers: Any = None
        # Whoever makes an operation was called by a method of the context, and that most often by the workflow itself;
        # each frame not looked at is time saved.
        frame = calling_frame(2)
        if frame.f_globals is not loop.home:
            frame = caller(frame)
        self._code = frame.f_code
        self._instruction = frame.f_lasti
        if scheduled is None:
            return
        loop.outstanding += 1
        if step is not None or not scheduled.is_complete:
            subscribers(scheduled)[id(self)] = self
        else:  # an event that was waiting in the buffer
            self.on_child_completed(scheduled)
        if loop.history is not None:
            loop.history.add(self)

    def __hash__(self) -> int:
        return self._hash

    # -- completion -----------------------------------------------------------------------------------------------

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Called by upstream when the operation completes.

        Only marks: user code must not run inside upstream's event, where half of the event's bookkeeping is still to
        come (an event wait registered from here would be thrown away).
        """
        loop = self._loop
        if self.done() or loop.host.evicted:
            return
        loop.outstanding -= 1
        if not loop.outstanding:
            # Otherwise it is whoever awaits this that wakes the loop; if nobody does, this may be a deadlock.
            loop.wake.is_complete = True
        try:
            result = task.get_result()
        except TaskFailedError as error:
            self.set_exception(self._failure(error.with_traceback(None)))
            # A generator need not look at a failed task either; the engine's history has it.
            _interpreter.mute_exception(self)
        else:
            self.set_result(result)
        # As in completed(), a call less.
        loop.completions = self.order = loop.completions + 1
        if self._watchers is not None:
            self._tell_watchers()

    def _failure(self, error: task.TaskFailedError) -> BaseException:
        host = self._loop.host
        type_ = SubOrchestrationFailedError if self.kind == SUB_ORCHESTRATION else ActivityFailedError
        return type_(
            error,
            what=f"{self.kind} {self.name!r}",
            instance_id=host.instance_id,
            workflow_name=host.workflow_name,
            step=self.step,
        )

    def completed(self) -> None:
        """Done, one way or another: note the order, and tell whoever combines this operation with others."""
        loop = self._loop
        loop.completions = self.order = loop.completions + 1
        if self._watchers is not None:
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, None
        if type(watchers) is list:
            several: list[Watcher] = watchers  # pyright: ignore[reportUnknownVariableType]
            for watcher in several:
                watcher.operation_done(self)
        else:
            watchers.operation_done(self)

    def unwatch(self, watcher: Watcher) -> None:
        """``watcher`` has lost interest."""
        watchers = self._watchers
        if watchers is watcher:
            self._watchers = None
        elif type(watchers) is list and watcher in watchers:
            several: list[Watcher] = watchers  # pyright: ignore[reportUnknownVariableType]
            several.remove(watcher)

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher`` told when this operation, which is not done yet, is."""
        watchers: Any = self._watchers
        if watchers is None:
            self._watchers = watcher
        elif type(watchers) is list:
            several: list[Watcher] = watchers  # pyright: ignore[reportUnknownVariableType]
            several.append(watcher)
        else:
            self._watchers = [watchers, watcher]

    # -- cancellation ---------------------------------------------------------------------------------------------

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the operation and take back what can be taken back; ``False`` if it is done already."""
        # First the future, then upstream: its cancel notifies whoever is subscribed, which must find us done.
        if not super().cancel(msg):
            return False
        self._loop.outstanding -= 1
        self._take_back()
        self.completed()
        return True

    def _take_back(self) -> None:
        host = self._loop.host
        if self.kind == TIMER and self.step is not None:
            host.cancel_timer(self.step, self)
        elif self.kind == EVENT:
            waiting = _upstream.pending_event(host.upstream, self.name, self)
            if waiting is not None:
                waiting.cancel()

    # -- for the reader -------------------------------------------------------------------------------------------

    @property
    def site(self) -> str:
        """``file:line`` of the call that scheduled it."""
        return f"{self._code.co_filename}:{line_of(self._code, self._instruction)}"

    @property
    def call(self) -> str:
        """The call that made it, as its author may have written it: for messages."""
        named = self.kind in (ACTIVITY, SUB_ORCHESTRATION, EVENT)
        return f"ctx.{CALLS.get(self.kind, self.kind)}({repr(self.name) if named else '...'})"

    def describe(self) -> str:
        """What it is and where it was scheduled: for messages."""
        return f"{self.kind} {self.name!r} ({self.site})"

    def __repr__(self) -> str:
        if self.cancelled():
            state = "cancelled"
        elif not self.done():
            state = "pending"
        else:
            state = "failed" if self.exception() is not None else "finished"
        step = "" if self.step is None else f" step={self.step}"
        return f"<Operation {self.kind} {self.name!r}{step} {state}>"

    # -- the slips ------------------------------------------------------------------------------------------------

    @property
    def is_complete(self) -> NoReturn:
        """Not for use: what upstream's combinators look at first, and so the place to say what to use instead."""
        raise self._loop.host.slip(
            f"{self.describe()} was given to durabletask.task.when_all or when_any, which combine upstream's tasks",
            f"await task.when_all([{self.call}, ...])",
            f"await ctx.when_all([{self.call}, ...])",
            step=self.step,
        )

    def attribute_missed(self, name: str, place: str | None) -> UnawaitedAttributeError:
        """The error for an ``AttributeError`` about this operation: most likely it was an attribute of the result.

        Made of it when it fails the workflow, and not by a ``__getattr__``: with one, every look at any attribute of
        an operation, asyncio's own ones included, takes Python's slow path, which is a tenth of a replayed step.
        """
        slip = self._unawaited(f"for its attribute {name!r}", place)
        return UnawaitedAttributeError(
            slip.message, instance_id=slip.instance_id, workflow_name=slip.workflow_name, step=slip.step
        )

    def _unawaited(self, how: str, place: str | None = None) -> WorkflowValidationError:
        return self._loop.host.slip(
            f"{self.describe()} was used {how} without being awaited",
            f"result = {self.call}",
            f"result = await {self.call}",
            step=self.step,
            place=place,
        )

    if not TYPE_CHECKING:
        # Hidden from type checkers, which are to find these uses themselves.

        def _used_without_await(self, *args: Any) -> Any:
            raise self._unawaited("as a value")

        __bool__ = __len__ = __contains__ = __getitem__ = __setitem__ = __delitem__ = _used_without_await
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _used_without_await
        __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _used_without_await
        __pow__ = __rpow__ = __neg__ = __abs__ = __round__ = __or__ = __and__ = _used_without_await
        __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _used_without_await

        def __iter__(self) -> Any:
            """Refused, as ``for`` and unpacking would be; for ``yield from`` in a generator it is the ``await``."""
            if _interpreter.calling_frame(1).f_code.co_flags & _GENERATORS:
                return self.__await__()
            raise self._unawaited("as something to iterate over")

        def __eq__(self, other: object) -> bool:
            # `if ctx.call_activity("check") == "ok"` would take the wrong branch for ever, and silently.
            if isinstance(other, _PLAIN_VALUES):
                raise self._unawaited(f"in a comparison with {other!r}")
            return True if self is other else NotImplemented


class UnawaitedAttributeError(WorkflowValidationError, AttributeError):
    """An attribute of the result was looked for on the operation; an ``AttributeError``, as Python's own was."""


class UnawaitedResultError(WorkflowValidationError, asyncio.InvalidStateError):
    """The result of an operation was asked for before it was there; an ``InvalidStateError``, as asyncio's own was."""


class LockOperation(Operation["HeldLock"]):
    """The request for a lock of entities: await it for the lock, or use it in ``async with``."""

    __slots__ = ()

    def on_child_completed(self, task: task.Task[Any]) -> None:
        host = self._loop.host
        if host.evicted:
            return
        if self.cancelled():
            # Requested and given up: release what has been granted now, or the entities stay locked to the end.
            with task.get_result():
                return
        _upstream.own_available_locks(task.get_result())
        granted: CompletableTask[HeldLock] = CompletableTask()
        granted.complete(HeldLock(host))
        super().on_child_completed(granted)

    async def __aenter__(self) -> HeldLock:
        return await self

    async def __aexit__(self, *args: object) -> None:
        self.result().release()


class HeldLock:
    """Entities that are locked; leaving its block, with ``with`` or ``async with``, releases them."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def release(self) -> None:
        """Release the entities; harmless to repeat, and without effect while the instance is closed."""
        if not self._host.evicted:
            _upstream.exit_critical_section(self._host.upstream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        self.release()


class RetriedOperation(Operation[T]):
    """An activity or a sub-orchestration with a retry policy: cancelling it ends the retries."""

    __slots__ = ()

    def _take_back(self) -> None:
        upstream = self._loop.host.upstream
        pending = _upstream.retryable_task(upstream, self.step, self)
        if pending is not None:
            _upstream.stop_retrying(upstream, pending, self.step, self)
