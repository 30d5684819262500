"""Durable operations: the futures that workflow code awaits.

An operation is scheduled by upstream at the moment of the call, and the caller gets an `asyncio.Future`.  It is not an
upstream task; `docs/adr` says what that would cost.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import functools
import inspect
import traceback
from collections.abc import Callable, Generator
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from durabletask_aio.core import _interpreter, _upstream, _upstream_retries
from durabletask_aio.core._interpreter import calling_frame
from durabletask_aio.core._upstream import (
    CompletableTask,
    TaskCancelledError,
    TaskFailedError,
    listeners_by_key,
    task,
)
from durabletask_aio.core.call_sites import first_foreign_frame, line_of
from durabletask_aio.core.declared_failures import Types, new_failure
from durabletask_aio.core.errors import ActivityFailedError, SubOrchestrationFailedError, WorkflowValidationError
from durabletask_aio.core.unregistered import is_unregistered
from durabletask_aio.core.usage_refusals import refuse_unless_recorded

if TYPE_CHECKING:
    from typing_extensions import Self

    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop

T = TypeVar("T")

_future: Any = asyncio.Future
_await_future: Callable[[Any], Generator[Any, None, Any]] = _future.__await__
is_done: Callable[[Any], bool] = _future.done
"""Whether an operation is done, without being a use of it, as its own method is."""
exception_of: Callable[[Any], BaseException | None] = _future.exception

ACTIVITY = "activity"
SUB_ORCHESTRATION = "sub-orchestration"
TIMER = "timer"
EVENT = "external event"
ENTITY = "entity operation"
LOCK = "entity lock"
REQUEST = "request"
TASK = "task"
STEP = "step"

METHODS = {
    ACTIVITY: "call_activity",
    SUB_ORCHESTRATION: "call_sub_orchestrator",
    TIMER: "create_timer",
    EVENT: "wait_for_external_event",
    ENTITY: "call_entity",
    LOCK: "lock_entities",
    REQUEST: "requests",
    TASK: "wait_for_task",
    STEP: "run",
}
"""The method of the context that makes an operation of that kind; a combination's kind is the name of its method."""

_init_future: Any = vars(asyncio.Future)["__init__"]
"""Instead of `super().__init__`, which makes an object for each call; see `benchmarks/hot_path.py`, `init_future`."""

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ITERABLE_COROUTINE

_PLAIN_VALUES = (str, bytes, int, float, list, tuple, dict, set, frozenset, Enum, date, timedelta, Decimal, UUID)
"""Values that a result may equal and an operation never does.  Without `None`, which libraries compare with."""


_DATA_CLASS_MARKS = ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__")
"""Attributes of the classes of `dataclasses`, `attrs` and pydantic, of which results are instances."""


class OperationListener(Protocol):
    """A combination of operations: told of each of its parts at once, and not by a callback through the loop."""

    def operation_done(self, operation: ScheduledOperation[Any]) -> None:
        """Called once, when `operation` is done."""
        ...


class Operation(asyncio.Future[T]):
    """A durable operation that has been scheduled; `await` it for its result.

    It is an `asyncio.Future` of the workflow's loop: it can be awaited more than once and from several tasks, gathered,
    raced, shielded and cancelled.  Cancelling also cancels what the engine need not do: a timer, or the wait for an
    external event, which then does not consume the next event.  An activity or a sub-orchestration continues, its
    retries stop, and its result is dropped.

    Awaiting it raises [`ActivityFailedError`][durabletask.aio.ActivityFailedError] or
    [`SubOrchestrationFailedError`][durabletask.aio.SubOrchestrationFailedError] if it failed.

    Attributes:
        kind: `"activity"`, `"sub-orchestration"`, `"timer"`, `"external event"`, `"entity operation"`,
            `"entity lock"`, `"request"`, `"task"`, `"step"`, or the name of the method that made a combination.
        name: the name of the activity, orchestrator, event, request, entity or step; of a timer, when it fires; of a
            task, its class.
        step: the sequence number under which the history records it; `None` for waits that are not recorded, and for a
            step before it begins.
    """

    __slots__ = ("_code", "_instruction", "kind", "name", "step")

    if TYPE_CHECKING:
        _code: CodeType
        _instruction: int
        kind: str
        name: str
        step: int | None

        # Without it, type checkers would accept `Operation()`, from asyncio.Future.
        def __init__(self, *, loop: WorkflowLoop) -> None: ...

    @property
    def site(self) -> str:
        """`file:line` of the call that scheduled it."""
        return f"{self._code.co_filename}:{line_of(self._code, self._instruction)}"

    def __repr__(self) -> str:
        if self.cancelled():
            state = "cancelled"
        elif not is_done(self):
            state = "pending"
        else:
            state = "failed" if exception_of(self) is not None else "finished"
        step = "" if self.step is None else f" step={self.step}"
        return f"<Operation {self.kind} {self.name!r}{step} {state}>"


class ScheduledOperation(Operation[T]):
    """What the context's methods return: an operation with the methods that upstream and combinations call.

    Apart from `Operation`, so that the class that users see has none of them.
    """

    __slots__ = ("_hash", "_listeners", "is_used", "order", "raises")

    if TYPE_CHECKING:
        _loop: WorkflowLoop  # pyright: ignore[reportIncompatibleMethodOverride]
        raises: Types
        """The exception types that the call declares; only of activities, sub-orchestrations and entity operations."""

    def __init__(
        self, loop: WorkflowLoop, kind: str, name: str, step: int | None, scheduled: task.Task[Any] | None = None
    ) -> None:
        """Create an operation.

        Args:
            loop: the workflow's loop.
            kind: see `Operation`.
            name: see `Operation`.
            step: see `Operation`.
            scheduled: upstream's task, or `None` for a combination, which completes itself.
        """
        _init_future(self, loop=loop)
        self._hash = next(loop.hashes)
        self.kind = kind
        self.name = name
        self.step = step
        self.order = 0
        """The place among all that has completed in this execution; 0 while it is pending."""
        self.is_used = False
        """Whether the workflow has asked for its state, combined it or handed it to a task; false if it was awaited."""
        self._listeners: Any = None
        """`None`, one listener, or a list of them."""
        # Only code and instruction are kept, of which `site` computes the line when a message needs it.  Two calls up
        # is the caller of the context's method: most often the workflow function itself.
        frame = calling_frame(2)
        if frame.f_globals is not loop.user_globals:
            frame = first_foreign_frame(frame)
        self._code = frame.f_code
        self._instruction = frame.f_lasti
        if scheduled is None:
            return
        loop.operation_started()
        if step is not None or not scheduled.is_complete:
            listeners_by_key(scheduled)[id(self)] = self
        else:  # An event that was waiting in the buffer.
            self.on_child_completed(scheduled)
        if loop.operation_log is not None:
            loop.operation_log.add(self)

    def __hash__(self) -> int:
        return self._hash

    # -- use, for the warning about an operation that is never awaited (see `unawaited`) --------------------------

    def done(self) -> bool:
        """Whether there is a result, or an exception, or it was cancelled."""
        self.mark_used()
        return is_done(self)

    def exception(self) -> BaseException | None:
        """Return the exception, or `None` if it succeeded."""
        self.mark_used()
        return super().exception()

    def mark_used(self) -> None:
        """Note that the workflow knows of this operation, even if it never awaits it."""
        self.is_used = True
        self._loop.unawaited.pop(id(self), None)

    # -- completion -----------------------------------------------------------------------------------------------

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Take over the result or the failure of upstream's task; called by upstream when the task completes.

        Only sets the outcome: user code must not run inside upstream's event, whose processing is not finished (an
        event wait that is registered from here would be dropped).
        """
        loop = self._loop
        if is_done(self) or loop.execution.evicted:
            return
        self.order = loop.operation_finished()
        # Most often nothing is ready now, and below there is what waits for this; otherwise the callbacks tell it.
        is_awaited = _interpreter.has_callbacks(self) if loop._ready else None  # noqa: SLF001
        try:
            result = task.get_result()
        except TaskFailedError as error:
            self.set_exception(self._failure(error.with_traceback(None)))
            # A failure that is never retrieved is not reported, as with a generator's tasks; the history has it.
            _interpreter.mute_exception(self)
        else:
            self.set_result(result)
        if self._listeners is not None:
            self.notify_listeners()
        elif not (loop._ready if is_awaited is None else is_awaited) and not self.is_used:  # noqa: SLF001
            loop.unawaited[id(self)] = self
            self.__class__ = _noting_awaits(type(self))  # pyright: ignore[reportAttributeAccessIssue]

    def _failure(self, error: TaskFailedError) -> BaseException:
        execution = self._loop.execution
        type_ = SubOrchestrationFailedError if self.kind == SUB_ORCHESTRATION else ActivityFailedError
        return new_failure(
            type_,
            getattr(self, "raises", ()),
            error,
            what=f"{self.kind} {self.name!r}{self._place_of_call(error.details)}",
            instance_id=execution.instance_id,
            workflow_name=execution.workflow_name,
            step=self.step,
        )

    def _place_of_call(self, details: task.FailureDetails) -> str:
        """Return the line of the call, in parentheses, if it called a name that is not registered."""
        return f" ({self.site})" if is_unregistered(details.error_type, details.message) else ""

    def add_listener(self, listener: OperationListener) -> None:
        """Call `listener` when this operation, which is pending, is done."""
        listeners: Any = self._listeners
        if listeners is None:
            self._listeners = listener
        elif type(listeners) is list:
            several: list[OperationListener] = listeners  # pyright: ignore[reportUnknownVariableType]
            several.append(listener)
        else:
            self._listeners = [listeners, listener]

    def remove_listener(self, listener: OperationListener) -> None:
        """Do not call `listener` any more."""
        listeners = self._listeners
        if listeners is listener:
            self._listeners = None
        elif type(listeners) is list and listener in listeners:
            several: list[OperationListener] = listeners  # pyright: ignore[reportUnknownVariableType]
            several.remove(listener)

    def notify_listeners(self) -> None:
        """Call the listeners: the operation is done."""
        listeners, self._listeners = self._listeners, None
        if type(listeners) is list:
            several: list[OperationListener] = listeners  # pyright: ignore[reportUnknownVariableType]
            for listener in several:
                listener.operation_done(self)
        elif listeners is not None:
            listeners.operation_done(self)

    # -- cancellation ---------------------------------------------------------------------------------------------

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the operation, and the timer or the wait behind it.

        Args:
            msg: the message of the `CancelledError` that awaiting it raises.

        Returns:
            `False` if it was done already.
        """
        # The future first: upstream's cancel notifies the listeners, which must find it done.
        if not super().cancel(msg):
            return False
        self.order = self._loop.operation_finished()
        self._take_back()
        self.notify_listeners()
        return True

    def _take_back(self) -> None:
        upstream = self._loop.execution.upstream
        if self.kind == TIMER and self.step is not None:
            timer = _upstream.pending_task(upstream, self.step, id(self))
            if isinstance(timer, task.TimerTask):
                _upstream.cancel_timer(upstream, timer, self.step)
        elif self.kind == EVENT:
            waiting = _upstream.pending_event(upstream, self.name, id(self))
            if waiting is not None:
                waiting.cancel()

    @property
    def has_listeners(self) -> bool:
        """Whether a combination waits for this operation."""
        return self._listeners is not None

    # -- descriptions ---------------------------------------------------------------------------------------------

    @property
    def call_text(self) -> str:
        """The call that made it, as its author may have written it."""
        if self.kind == STEP:
            return f"ctx.run({self.name}, ...)"
        named = self.kind in (ACTIVITY, SUB_ORCHESTRATION, EVENT, REQUEST)
        return f"ctx.{METHODS.get(self.kind, self.kind)}({repr(self.name) if named else '...'})"

    @property
    def is_named(self) -> bool:
        """Whether it is a single operation, which has a name, and not a combination."""
        return self.kind in METHODS

    @property
    def frame_summary(self) -> traceback.FrameSummary:
        """The line of the call that scheduled it."""
        code = self._code
        return traceback.FrameSummary(code.co_filename, line_of(code, self._instruction), code.co_name)

    @property
    def code(self) -> CodeType:
        """The code of the function that made it."""
        return self._code

    @property
    def description(self) -> str:
        """Kind, name and `file:line` of the call, as messages show them."""
        return f"{self.kind} {self.name!r} ({self.site})"

    # -- use without await ----------------------------------------------------------------------------------------

    def _explain_attribute_error(self, name: str, place: str | None) -> WorkflowValidationError:
        """Return the error for an attribute that an operation does not have: most likely one of its result.

        Made when the `AttributeError` fails the workflow, and not by a `__getattr__`: libraries probe attributes of
        futures, and see Python's own `AttributeError`.
        """
        if name == "is_complete":  # The first attribute that upstream's combinators look at.
            return self._loop.execution.usage_error(
                f"{self.description} was given to durabletask.task.when_all or when_any, "
                f"which combine upstream's tasks",
                f"await task.when_all([{self.call_text}, ...])",
                f"await ctx.when_all([{self.call_text}, ...])",
                step=self.step,
                place=place,
            )
        error = self._unawaited(f"for its attribute {name!r}", place)
        return UnawaitedAttributeError(
            error.message, instance_id=error.instance_id, workflow_name=error.workflow_name, step=error.step
        )

    def _unawaited(self, how: str, place: str | None = None) -> WorkflowValidationError:
        return self._loop.execution.usage_error(
            f"{self.description} was used {how} without being awaited",
            f"result = {self.call_text}",
            f"result = await {self.call_text}",
            step=self.step,
            place=place,
        )

    if not TYPE_CHECKING:
        # Hidden from type checkers, which find these uses themselves.

        def _used_without_await(self, *args: Any) -> Any:
            raise self._unawaited("as a value")

        __bool__ = __len__ = __contains__ = __getitem__ = __setitem__ = __delitem__ = _used_without_await
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _used_without_await
        __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _used_without_await
        __pow__ = __rpow__ = __neg__ = __abs__ = __round__ = __or__ = __and__ = _used_without_await
        __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _used_without_await

        # `repr()` stays: debuggers and asyncio's own messages use it.

        def __str__(self) -> str:
            refuse_unless_recorded(self._loop.execution, self._unawaited("as text"))
            return repr(self)

        def __format__(self, spec: str) -> str:
            refuse_unless_recorded(self._loop.execution, self._unawaited("as text"))
            return super().__format__(spec)

        def __iter__(self) -> Any:
            """Refuse iteration and unpacking; `yield from` in a generator is an `await`."""
            if _interpreter.calling_frame(1).f_code.co_flags & _GENERATORS:
                return self.__await__()
            raise self._unawaited("as something to iterate over")

        def __eq__(self, other: object) -> bool:
            # `if ctx.call_activity("check") == "ok"` would always take the wrong branch, and silently.
            if isinstance(other, _PLAIN_VALUES):
                raise self._unawaited(f"in a comparison with {other!r}")
            if any(hasattr(type(other), mark) for mark in _DATA_CLASS_MARKS):
                refuse_unless_recorded(self._loop.execution, self._unawaited(f"in a comparison with {other!r}"))
            return True if self is other else NotImplemented


class _NotesAwaits:
    """What an operation becomes that was done before anything waited for it: nothing else shows that it is awaited.

    Not a method of every operation: awaiting one would call into Python; see `benchmarks/hot_path.py`, `await_future`.
    """

    __slots__ = ()

    def __await__(self: Any) -> Generator[Any, None, Any]:
        self._loop.unawaited.pop(id(self), None)
        return _await_future(self)


@functools.cache
def _noting_awaits(kind: type[ScheduledOperation[Any]]) -> type[ScheduledOperation[Any]]:
    return type(kind.__name__, (_NotesAwaits, kind), {"__slots__": (), "__module__": kind.__module__})


# Messages of Python itself name the type, and users know it by this name.
ScheduledOperation.__name__ = ScheduledOperation.__qualname__ = Operation.__name__


class UnawaitedAttributeError(WorkflowValidationError, AttributeError):
    """An attribute of the result was looked up on the operation; an `AttributeError`, as Python's own was."""


class UnawaitedResultError(WorkflowValidationError, asyncio.InvalidStateError):
    """The result of an operation was asked for before it was there; an `InvalidStateError`, as asyncio's own was."""


class RetriedOperation(ScheduledOperation[T]):
    """An activity or a sub-orchestration with a retry policy: cancelling it ends the retries."""

    __slots__ = ()

    def _take_back(self) -> None:
        upstream = self._loop.execution.upstream
        pending = _upstream_retries.retryable_task(upstream, self.step, id(self))
        if pending is not None:
            _upstream_retries.stop_retrying(upstream, pending, self.step, id(self))


class TaskOperation(ScheduledOperation[T]):
    """The wait for a task of upstream's, which may be of a library's own class."""

    __slots__ = ()

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Take over the outcome, which a class of a library's may compute here; called by upstream."""
        loop = self._loop
        if self.done() or loop.execution.evicted:
            return
        self.order = loop.operation_finished()
        try:
            result = task.get_result()
        except (TaskCancelledError, asyncio.CancelledError) as error:
            super(ScheduledOperation, self).cancel(*error.args[:1])
        except Exception as error:
            self.set_exception(self._raised(error))
            _interpreter.mute_exception(self)
        else:
            self.set_result(result)
        if self._listeners is not None:
            self.notify_listeners()

    def _raised(self, error: Exception) -> BaseException:
        if type(error) is TaskFailedError:
            return self._failure(error.with_traceback(None))
        if isinstance(error, StopIteration):  # A future cannot hold one.
            return RuntimeError(f"{self.kind} {self.name!r} raised StopIteration")
        return error  # An error of the library's own.


class LockOperation(ScheduledOperation["HeldLock"]):
    """The request for a lock of entities: await it for the lock, or use it in `async with`."""

    __slots__ = ()

    def on_child_completed(self, task: task.Task[Any]) -> None:
        """Take over the lock, or release it if the request was cancelled; called by upstream."""
        execution = self._loop.execution
        if execution.evicted:
            return
        if self.cancelled():
            # The request was given up: release what has been granted now, or the entities stay locked.
            with task.get_result():
                return
        _upstream.separate_available_locks(task.get_result())
        granted: CompletableTask[HeldLock] = CompletableTask()
        granted.complete(HeldLock(execution))
        super().on_child_completed(granted)

    async def __aenter__(self) -> HeldLock:
        return await self

    async def __aexit__(self, *args: object) -> None:
        self.result().release()


class HeldLock:
    """Entities that are locked; leaving its block, with `with` or `async with`, releases them."""

    __slots__ = ("_execution",)

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def release(self) -> None:
        """Release the entities; repeating it does nothing, and neither does a call while the instance is closed."""
        if not self._execution.evicted:
            _upstream.exit_critical_section(self._execution.upstream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        self.release()
