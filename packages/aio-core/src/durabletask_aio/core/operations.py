"""Durable operations: the futures that workflow code awaits, and so the one place where it hands control back.

An operation is scheduled by upstream at the moment it is called, and what the caller gets is an ``asyncio.Future``.
It is no upstream task, on purpose: making it both was tried, costs 3 to 7 % of a step, and lets ``task.when_any`` take
it with another meaning of ``result``.
"""

from __future__ import annotations

import asyncio
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from durabletask import task

from durabletask_aio.core import _interpreter, _upstream
from durabletask_aio.core.errors import ActivityFailedError, SubOrchestrationFailedError, WorkflowValidationError

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

_PACKAGE = "durabletask_aio."


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

    def __init__(self, loop: WorkflowLoop, kind: str, name: str, step: int | None) -> None:
        super().__init__(loop=loop)
        self._hash = loop.next_hash()
        self.kind = kind
        """What it is: ``"activity"``, ``"timer"``, ..."""
        self.name = name
        """The name of the activity, orchestrator, event or entity; of a timer, when it fires."""
        self.step = step
        """The sequence number by which the history knows it; ``None`` for waits that leave no trace there."""
        self.order = 0
        self._watchers: Any = None
        frame = caller(_interpreter.calling_frame(2))
        self._code = frame.f_code
        self._instruction = frame.f_lasti

    def __hash__(self) -> int:
        return self._hash

    # -- completion -----------------------------------------------------------------------------------------------

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Called by upstream when the operation completes.

        Only marks: user code must not run inside upstream's event, where half of the event's bookkeeping is still to
        come (an event wait registered from here would be thrown away).
        """
        loop = self._loop
        host = loop.host
        if host.evicted or self.done():
            return
        loop.outstanding -= 1
        host.wake.is_complete = True
        self.settle(task)

    def settle(self, task: task.Task[Any]) -> None:
        """Take over the outcome of the upstream task."""
        if task.is_failed:
            self.set_exception(self._failure(task.get_exception()))
            # A generator need not look at a failed task either; the engine's history has it.
            _interpreter.mute_exception(self)
        else:
            self.set_result(task.get_result())
        self.completed()

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
        self.order = loop.next_completion()
        watchers = self._watchers
        if watchers is not None:
            self._watchers = None
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
        msg = (
            f"{self.describe()} was given to durabletask.task.when_all or when_any, which combine upstream's tasks\n"
            f"  wrong: await task.when_all([ctx.call_activity(...), ...])\n"
            f"  right: await ctx.when_all([ctx.call_activity(...), ...])"
        )
        raise self._loop.host.error(WorkflowValidationError, msg, step=self.step)

    def _used_without_await(self, *args: Any) -> Any:
        call = {ACTIVITY: "call_activity", SUB_ORCHESTRATION: "call_sub_orchestrator", ENTITY: "call_entity"}
        shown = f"ctx.{call.get(self.kind, 'wait_for_external_event')}({self.name!r})"
        here = caller(_interpreter.calling_frame(1))
        msg = (
            f"{self.describe()} was used as a value at {here.f_code.co_filename}:{here.f_lineno} without being "
            f"awaited\n"
            f"  wrong: result = {shown}\n"
            f"  right: result = await {shown}"
        )
        raise self._loop.host.error(WorkflowValidationError, msg, step=self.step)

    __bool__ = __len__ = __contains__ = __getitem__ = _used_without_await
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _used_without_await
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _used_without_await


class LockOperation(Operation["HeldLock"]):
    """The request for a lock of entities: await it for the lock, or use it in ``async with``."""

    __slots__ = ()

    def on_child_completed(self, task: task.Task[Any]) -> None:
        if self.cancelled() and not self._loop.host.evicted:
            # Requested and given up: release what has been granted now, or the entities stay locked to the end.
            with task.get_result():
                return
        super().on_child_completed(task)

    def settle(self, task: task.Task[Any]) -> None:
        _upstream.own_available_locks(task.get_result())
        self.set_result(HeldLock(self._loop.host))
        self.completed()

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
            _upstream.stop_retrying(upstream, pending)


def caller(frame: FrameType | None) -> FrameType:
    """The innermost frame from ``frame`` outwards that is not ours: the user's line."""
    last = frame
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            return frame
        last, frame = frame, frame.f_back
    assert last is not None
    return last


def line_of(code: CodeType, instruction: int) -> int:
    """The line of the instruction at an offset into ``code``."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
