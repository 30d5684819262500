"""`AsyncWorkflowContext`: what workflow code sees.  Each method is a few lines over the other modules."""

# ruff: noqa: A002 - `input` is upstream's name for it
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar, cast, overload
from weakref import proxy

from durabletask_aio.core import arguments, calls, combinators, retries
from durabletask_aio.core._upstream import (
    ActivityContext,
    EntityInstanceId,
    RetryPolicy,
    sequence_number,
    task,
)
from durabletask_aio.core._upstream_activities import call_activity
from durabletask_aio.core.call_sites import call_site
from durabletask_aio.core.continuation import Continuation
from durabletask_aio.core.declared_failures import Types
from durabletask_aio.core.descriptions import close_if_coroutine
from durabletask_aio.core.errors import InstanceEvicted, WorkflowValidationError, shown
from durabletask_aio.core.events import EventStream
from durabletask_aio.core.operations import (
    ACTIVITY,
    EVENT,
    LOCK,
    TASK,
    TIMER,
    LockOperation,
    Operation,
    RetriedOperation,
    ScheduledOperation,
    TaskOperation,
)
from durabletask_aio.core.requests import RequestStream
from durabletask_aio.core.step_methods import StepMethods
from durabletask_aio.core.timers import fire_time, timeout_seconds, timer_too_long
from durabletask_aio.core.workflow_logger import ReplaySafeLogger
from durabletask_aio.core.wrong_calls import explained_attribute

if TYPE_CHECKING:
    from typing_extensions import Self

    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop

    _Portable = object
else:
    # A class of its own at run time, and this very one for type checkers.
    from durabletask_aio.portable import WorkflowContext as _Portable

T = TypeVar("T")
TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")

Raises: TypeAlias = type[Exception] | tuple[type[Exception], ...]
AsyncActivity: TypeAlias = Callable[[ActivityContext, TInput], Awaitable[TOutput]]


class AsyncWorkflowContext(StepMethods, _Portable):
    """The durable operations of an async workflow, passed to it as its first argument.

    Everything that takes part in the workflow's history is scheduled at the call, not at the `await`, and returns an
    [`Operation`][durabletask.aio.Operation], which is an `asyncio.Future`.  The context works inside its own workflow
    function only: elsewhere each use raises [`AsyncWorkflowError`][durabletask.aio.AsyncWorkflowError].  Only what
    never changes can always be read, as in the `finally` block of an instance that is closed: `instance_id`,
    `workflow_name`, `parent_instance_id` and `version`.
    """

    __slots__ = ("_execution", "_loop")

    def __init__(self, execution: Execution, loop: WorkflowLoop) -> None:
        """Create the context of an execution; workflow code gets it as its argument."""
        self._execution = execution
        self._loop = loop

    # -- identity -------------------------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        """The id of this instance."""
        return self._execution.instance_id

    @property
    def workflow_name(self) -> str:
        """The name this workflow is registered under."""
        return self._execution.workflow_name

    @property
    def parent_instance_id(self) -> str | None:
        """The id of the instance that started this one as a sub-orchestration, or `None`."""
        return self._execution.parent_instance_id

    @property
    def version(self) -> str | None:
        """The version that this instance was scheduled with, or `None`."""
        return self._execution.version

    @property
    def is_replaying(self) -> bool:
        """Whether this code has run before and only rebuilds its state; also `True` while it is closed."""
        return self._execution.is_replaying

    @property
    def upstream_context(self) -> task.OrchestrationContext:
        """Upstream's context, for what this one lacks.

        A weak proxy, valid as long as the instance is.  Tasks that it returns are awaited with `wait_for_task`; until
        then the deadlock check does not see them.  Metadata is not added to what it schedules.
        """
        return cast("task.OrchestrationContext", proxy(self._execution.upstream))

    # -- operations -----------------------------------------------------------------------------------------------

    @overload
    def call_activity(
        self,
        activity: task.Activity[Any, Any] | AsyncActivity[Any, Any] | str,
        *,
        input: Any = ...,
        retry_policy: RetryPolicy | None = ...,
        tags: dict[str, str] | None = ...,
        return_type: type[T],
        raises: Raises | None = ...,
    ) -> Operation[T]: ...

    @overload
    def call_activity(
        self,
        activity: str,
        *,
        input: Any = ...,
        retry_policy: RetryPolicy | None = ...,
        tags: dict[str, str] | None = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[Any]: ...

    @overload
    def call_activity(
        self,
        activity: AsyncActivity[TInput, TOutput],
        *,
        input: TInput | None = ...,
        retry_policy: RetryPolicy | None = ...,
        tags: dict[str, str] | None = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[TOutput]: ...

    @overload
    def call_activity(
        self,
        activity: task.Activity[TInput, TOutput],
        *,
        input: TInput | None = ...,
        retry_policy: RetryPolicy | None = ...,
        tags: dict[str, str] | None = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[TOutput]: ...

    def call_activity(
        self,
        activity: Any,
        *,
        input: Any = None,
        retry_policy: RetryPolicy | None = None,
        tags: dict[str, str] | None = None,
        return_type: type | None = None,
        raises: Raises | None = None,
    ) -> Operation[Any]:
        """Schedule an activity.

        Args:
            activity: the activity function, or the name it is registered under.
            input: what the worker's data converter can serialise.
            retry_policy: when a failed activity is tried again; `retry_timeout` is measured on the workflow's clock.
            tags: strings that travel with the call, as far as the engine carries them.
            return_type: the type to reconstruct the result as.  By default it is the annotation of the function, if it
                is of a kind that the converter reconstructs: dataclasses for the default converter, and not `datetime`,
                enumerations or tuples, which stay what JSON has for them.
            raises: exception types, as after `except`: a failure recorded under such a type, or a subtype, is also an
                instance of it.  By default those that `@raises` declares on the function.

        Returns:
            The operation.  Awaiting it raises [`ActivityFailedError`][durabletask.aio.ActivityFailedError] if the
            activity failed, with a `retry_policy` at its last attempt.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the input cannot be serialised.
        """
        execution = self._execution
        name = activity if type(activity) is str else arguments.name_of(execution, activity, "call_activity")
        types: Types = ()
        if raises is not None or activity is not name:
            types = arguments.raised_types(execution, raises, activity, "call_activity")
        upstream = execution.scheduler("call_activity")
        if retry_policy is not None:
            retry_policy = arguments.check_retry_policy(execution, retry_policy, "call_activity")
        if tags is not None:
            arguments.check_tags(execution, tags)
        if execution.metadata.tags is not None:
            tags = {**(tags or {}), **execution.metadata.tags}
        try:
            scheduled = call_activity(
                upstream,
                name if activity is name or not hasattr(activity, "__name__") else activity,
                input,
                retry_policy,
                tags,
                return_type,
            )
        except (TypeError, ValueError) as error:
            raise arguments.unserializable(
                execution, error, input, f"activity {name!r}", f"ctx.call_activity({name!r}, input="
            ) from error
        step = sequence_number(upstream)
        operation: ScheduledOperation[Any]
        if retry_policy is None:
            operation = ScheduledOperation(self._loop, ACTIVITY, name, step, scheduled)
        else:
            retries.use_workflow_clock(upstream, scheduled)
            operation = RetriedOperation(self._loop, ACTIVITY, name, step, scheduled)
        operation.raises = types
        return operation

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: task.Orchestrator[Any, Any] | Callable[..., Coroutine[Any, Any, Any]] | str,
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        version: str | None = ...,
        cancel_children: bool = ...,
        return_type: type[T],
        raises: Raises | None = ...,
    ) -> Operation[T]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: str,
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        version: str | None = ...,
        cancel_children: bool = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[Any]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        version: str | None = ...,
        cancel_children: bool = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[TOutput]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]],
        *,
        input: None = ...,
        instance_id: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        version: str | None = ...,
        cancel_children: bool = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[TOutput]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: Callable[[task.OrchestrationContext, TInput], Generator[task.Task[Any], Any, TOutput]],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        version: str | None = ...,
        cancel_children: bool = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[TOutput]: ...

    @overload
    def call_sub_orchestrator(
        self,
        orchestrator: task.Orchestrator[TInput, TOutput],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        retry_policy: RetryPolicy | None = ...,
        version: str | None = ...,
        cancel_children: bool = ...,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[TOutput]: ...

    def call_sub_orchestrator(
        self,
        orchestrator: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        retry_policy: RetryPolicy | None = None,
        version: str | None = None,
        cancel_children: bool = False,
        return_type: type | None = None,
        raises: Raises | None = None,
    ) -> Operation[Any]:
        """Start another workflow, async or generator, as a child of this one.

        Args:
            orchestrator: the workflow function, or the name it is registered under.
            input: what the worker's data converter can serialise.
            instance_id: the child's id; by default it is derived from this instance's.
            retry_policy: when a failed child is started again.
            version: the version to start.
            cancel_children: whether cancelling the operation, or this workflow, asks the child to cancel itself.  The
                cancelled operation is then done when the child has ended.
            return_type: the type to reconstruct the result as.  By default the result is what JSON has for it, a dict
                for a dataclass, as in a generator orchestrator.
            raises: exception types, as for an activity; what the child has not caught of its own activities counts too.

        Returns:
            The operation.  Awaiting it raises
            [`SubOrchestrationFailedError`][durabletask.aio.SubOrchestrationFailedError] if the child failed.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the input cannot be serialised.
        """
        return calls.sub_orchestration(
            self._execution,
            self._loop,
            orchestrator,
            input=input,
            instance_id=instance_id,
            retry_policy=retry_policy,
            version=version,
            cancel_children=cancel_children,
            return_type=return_type,
            raises=raises,
        )

    def create_timer(self, fire_at: float | timedelta | datetime) -> Operation[None]:
        """Start a durable timer.

        Args:
            fire_at: seconds or a `timedelta` from now, or a `datetime` (a naive one is UTC).

        Returns:
            The operation; cancelling it takes the timer back.

        Raises:
            WorkflowValidationError: if it is none of these, or later than the calendar ends.
        """
        return self._timer(fire_at, "create_timer", "ctx.create_timer(")

    def sleep(self, delay: float | timedelta | datetime) -> Operation[None]:
        """Start a durable timer; the same as `create_timer`, under the name that reads well after `await`.

        Args:
            delay: seconds or a `timedelta` from now, or a `datetime` (a naive one is UTC).

        Returns:
            The operation; cancelling it takes the timer back.

        Raises:
            WorkflowValidationError: if it is none of these, or later than the calendar ends.
        """
        return self._timer(delay, "sleep", "ctx.sleep(")

    def _timer(self, given: Any, method: str, call: str) -> ScheduledOperation[None]:
        upstream = self._execution.scheduler(method)
        try:
            timer = upstream.create_timer(fire_time(self._execution, given, call))
        except OverflowError:
            raise timer_too_long(self._execution, given, f"await {call}{{}})") from None
        return ScheduledOperation(self._loop, TIMER, str(given), sequence_number(upstream), timer)

    @overload
    def wait_for_external_event(self, name: str, *, data_type: type[T]) -> Operation[T]: ...

    @overload
    def wait_for_external_event(self, name: str, *, data_type: None = ...) -> Operation[Any]: ...

    def wait_for_external_event(self, name: str, *, data_type: type | None = None) -> Operation[Any]:
        """Wait for the next external event of a name, or take the oldest one that arrived before.

        Args:
            name: the name; upper and lower case are the same.
            data_type: the type to reconstruct the payload as.

        Returns:
            The operation, with the payload as its result; cancelling it leaves the next event to others.

        Raises:
            WorkflowValidationError: if the name is not a string, or empty.
        """
        upstream = self._execution.scheduler("wait_for_external_event")
        arguments.check_event_name(self._execution, name, "ctx.wait_for_external_event(")
        waiting = upstream.wait_for_external_event(name, data_type=cast("type[Any]", data_type))
        return ScheduledOperation(self._loop, EVENT, name, None, waiting)

    @overload
    def events(self, name: str, *, data_type: type[T]) -> EventStream[T]: ...

    @overload
    def events(self, name: str, *, data_type: None = ...) -> EventStream[Any]: ...

    def events(self, name: str, *, data_type: type | None = None) -> EventStream[Any]:
        """Iterate over the external events of a name: `async for payload in ctx.events("order"): ...`.

        Args:
            name: the name; upper and lower case are the same.
            data_type: the type to reconstruct the payloads as.

        Returns:
            The stream; it never ends by itself.

        Raises:
            WorkflowValidationError: if the name is not a string, or empty.
        """
        arguments.check_event_name(self._execution, name, "ctx.events(")
        stream: EventStream[Any] = EventStream(name, lambda: self.wait_for_external_event(name, data_type=data_type))
        self._execution.event_streams.append(stream._return_unconsumed)  # noqa: SLF001 - hidden from users
        return stream

    @overload
    def requests(self, name: str, data_type: type[T]) -> RequestStream[T]: ...

    @overload
    def requests(self, name: str, data_type: None = ...) -> RequestStream[Any]: ...

    def requests(self, name: str, data_type: type | None = None) -> RequestStream[Any]:
        """Iterate over the requests of a name: `async for request in ctx.requests("approve"): request.answer(...)`.

        A request comes from `ask` of a workflow handle, which waits for the answer.  What `continue_as_new` finds that
        was not taken goes to the next execution; what was taken and not answered when the execution ends is refused.

        Args:
            name: the name of the requests; upper and lower case are the same.
            data_type: the type of their data.  A request whose data is not of that type, for the worker's data
                converter, is refused, and the workflow does not see it.

        Returns:
            The stream; it never ends by itself.

        Raises:
            WorkflowValidationError: if the name is not a string, or empty.
        """
        arguments.check_text(self._execution, name, "the name of a request", "ctx.requests(")
        return RequestStream(self._execution, self._loop, name, data_type)

    def send_event(self, instance_id: str, event_name: str, *, data: Any = None) -> None:
        """Send an external event to another instance; if there is none of that id, it is dropped.

        Args:
            instance_id: the id of the receiver.
            event_name: the name of the event.
            data: the payload, which the worker's data converter can serialise.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the payload cannot be serialised.
        """
        execution = self._execution
        upstream = execution.scheduler("send_event")
        arguments.check_text(execution, instance_id, "the id of an instance", "ctx.send_event(")
        arguments.check_text(execution, event_name, "the name of an event", "ctx.send_event(instance_id, ")
        call = f"ctx.send_event(instance_id, {event_name!r}, data="
        upstream.send_event(instance_id, event_name, data=arguments.serializable(execution, data, call, "data"))

    # -- entities -------------------------------------------------------------------------------------------------

    @overload
    def call_entity(
        self,
        entity: EntityInstanceId,
        operation: str,
        input: Any = ...,
        *,
        return_type: type[T],
        raises: Raises | None = ...,
    ) -> Operation[T]: ...

    @overload
    def call_entity(
        self,
        entity: EntityInstanceId,
        operation: str,
        input: Any = ...,
        *,
        return_type: None = ...,
        raises: Raises | None = ...,
    ) -> Operation[Any]: ...

    def call_entity(
        self,
        entity: EntityInstanceId,
        operation: str,
        input: Any = None,
        *,
        return_type: type | None = None,
        raises: Raises | None = None,
    ) -> Operation[Any]:
        """Call an operation of an entity, and wait for its result.

        Args:
            entity: the id of the entity.
            operation: the name of its operation.
            input: what the worker's data converter can serialise.
            return_type: the type to reconstruct the result as.
            raises: exception types, as for an activity.

        Returns:
            The operation.  Awaiting it raises [`ActivityFailedError`][durabletask.aio.ActivityFailedError] if the
            operation of the entity failed.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the input cannot be serialised.
        """
        return calls.entity_operation(
            self._execution, self._loop, entity, operation, input, return_type=return_type, raises=raises
        )

    def signal_entity(
        self, entity_id: EntityInstanceId, operation_name: str, input: Any = None, signal_time: datetime | None = None
    ) -> None:
        """Call an operation of an entity without waiting for it.

        Args:
            entity_id: the id of the entity.
            operation_name: the name of its operation.
            input: what the worker's data converter can serialise.
            signal_time: when the operation is to run; by default as soon as possible.

        Raises:
            WorkflowValidationError: if an argument is wrong, or the input cannot be serialised.
        """
        execution = self._execution
        upstream = execution.scheduler("signal_entity")
        arguments.check_entity(execution, entity_id, operation_name, "signal_entity")
        call = f"ctx.signal_entity(entity, {operation_name!r}, "
        upstream.signal_entity(entity_id, operation_name, arguments.serializable(execution, input, call), signal_time)

    def lock_entities(self, entities: Iterable[EntityInstanceId]) -> LockOperation:
        """Lock entities for a block: `async with ctx.lock_entities([a, b]): ...`, or await it for the lock.

        Args:
            entities: the ids of one or more entities; upstream acquires the locks in a fixed order.

        Returns:
            The operation, with a [`HeldLock`][durabletask.aio.HeldLock] as its result.

        Raises:
            WorkflowValidationError: if there are none, or if something else is among them.
        """
        locked = arguments.entities_to_lock(self._execution, entities)
        upstream = self._execution.scheduler("lock_entities")
        scheduled = upstream.lock_entities(locked)
        return LockOperation(self._loop, LOCK, ", ".join(map(str, locked)), sequence_number(upstream), scheduled)

    # -- upstream's tasks -----------------------------------------------------------------------------------------

    def wait_for_task(self, upstream_task: task.Task[T]) -> Operation[T]:
        """Wait for a task that `upstream_context`, or a library that was given it, has made.

        Args:
            upstream_task: a task of any class, a combination included; it may be complete.

        Returns:
            The operation, with the result of the task: of upstream's `when_any` the task that won.  Awaiting it raises
            [`ActivityFailedError`][durabletask.aio.ActivityFailedError] for upstream's `TaskFailedError`, whatever has
            failed; an exception of a type of the library's is raised as it is.  Cancelling the operation only stops
            waiting; a task that is cancelled cancels the operation.

        Raises:
            WorkflowValidationError: for anything else than such a task.
        """
        upstream = arguments.task_to_wait_for(self._execution, upstream_task)
        self._execution.scheduler("wait_for_task")
        return TaskOperation(self._loop, TASK, type(upstream).__name__, None, upstream)

    # -- combining ------------------------------------------------------------------------------------------------

    @overload
    def when_all(self, awaitables: Iterable[Awaitable[T]]) -> Operation[list[T]]: ...

    @overload
    def when_all(self, awaitables: Iterable[Awaitable[Any]]) -> Operation[list[Any]]: ...

    def when_all(self, awaitables: Iterable[Awaitable[Any]], *separate: NoReturn) -> Operation[list[Any]]:
        """Wait for all.

        Args:
            awaitables: operations, tasks, coroutines; one list of them.
            *separate: refused; for the error of `when_all(first, second)`.

        Returns:
            An operation with the results in the order given.  If any failed, awaiting it raises the first failure,
            when all are done: unlike `gather`, which raises at once.

        Raises:
            WorkflowValidationError: for what cannot be awaited.
        """
        parts = combinators.parts_of(self._loop, awaitables, "when_all", separate)
        return combinators.WhenAll(self._loop, "when_all", parts, fail_fast=False)

    @overload
    def when_any(self, awaitables: Iterable[Awaitable[T]]) -> Operation[T]: ...

    @overload
    def when_any(self, awaitables: Iterable[Awaitable[Any]]) -> Operation[Any]: ...

    def when_any(self, awaitables: Iterable[Awaitable[Any]], *separate: NoReturn) -> Operation[Any]:
        """Wait for the first; the others continue.

        Args:
            awaitables: operations, tasks, coroutines; one list of them.
            *separate: refused; for the error of `when_any(first, second)`.

        Returns:
            An operation with the value of the one that is done first.  Among those that are done already, the one that
            was done first wins.  A winner that failed raises, with its index in `.winner_index`.

        Raises:
            WorkflowValidationError: (a `ValueError`) if there are none, and for what cannot be awaited.
        """
        parts = self._nonempty_parts(awaitables, "when_any", separate)
        return combinators.WhenAny(self._loop, "when_any", parts, with_index=False)

    @overload
    def when_any_with_result(self, awaitables: Iterable[Awaitable[T]]) -> Operation[tuple[int, T]]: ...

    @overload
    def when_any_with_result(self, awaitables: Iterable[Awaitable[Any]]) -> Operation[tuple[int, Any]]: ...

    def when_any_with_result(
        self, awaitables: Iterable[Awaitable[Any]], *separate: NoReturn
    ) -> Operation[tuple[int, Any]]:
        """Wait for the first, as `when_any` does.

        Args:
            awaitables: operations, tasks, coroutines; one list of them.
            *separate: refused; for the error of `when_any_with_result(first, second)`.

        Returns:
            An operation with the index and the value of the one that is done first.

        Raises:
            WorkflowValidationError: (a `ValueError`) if there are none, and for what cannot be awaited.
        """
        parts = self._nonempty_parts(awaitables, "when_any_with_result", separate)
        return combinators.WhenAny(self._loop, "when_any_with_result", parts, with_index=True)

    @overload
    def gather(
        self, first: Operation[T], /, *others: Operation[T], return_exceptions: Literal[False] = ...
    ) -> Operation[list[T]]: ...

    @overload
    def gather(self, *awaitables: Awaitable[Any], return_exceptions: bool = ...) -> Operation[list[Any]]: ...

    def gather(self, *awaitables: Awaitable[Any], return_exceptions: bool = False) -> Operation[list[Any]]:
        """Wait for all, like `asyncio.gather`; unlike it, the result can be awaited more than once.

        Args:
            *awaitables: operations, tasks, coroutines.
            return_exceptions: whether failures are results too.

        Returns:
            An operation with the results in the order given.  Without `return_exceptions` the first failure is raised
            at once, and the others continue.

        Raises:
            WorkflowValidationError: for what cannot be awaited.
        """
        parts = combinators.futures_of(self._loop, awaitables, "gather")
        return combinators.WhenAll(
            self._loop, "gather", parts, fail_fast=not return_exceptions, return_exceptions=return_exceptions
        )

    def with_timeout(self, awaitable: Awaitable[T], timeout: float | timedelta | None) -> Operation[T]:
        """Limit the time that an awaitable may take; the timer starts at the call.

        Args:
            awaitable: an operation, a task or a coroutine.
            timeout: in seconds, or a `timedelta`; `None` for no limit.

        Returns:
            An operation with the result of `awaitable`.  Awaiting it raises
            [`WorkflowTimeoutError`][durabletask.aio.WorkflowTimeoutError] if the time is over first; the awaitable is
            then cancelled as far as it can be.  Otherwise the timer is cancelled.

        Raises:
            WorkflowValidationError: if the timeout is not a duration, or the arguments are swapped.
        """
        seconds = timeout_seconds(self._execution, awaitable, timeout)
        part = combinators.as_future(self._loop, awaitable, "with_timeout")
        timer: ScheduledOperation[None] | None = None
        if seconds is not None and seconds > 0:
            timer = self._timer(seconds, "with_timeout", "ctx.with_timeout(operation, ")
        return combinators.Timeout(self._loop, part, seconds, timer)

    def _nonempty_parts(self, awaitables: Any, function: str, separate: tuple[Any, ...]) -> list[asyncio.Future[Any]]:
        parts = combinators.parts_of(self._loop, awaitables, function, separate)
        if not parts:
            raise self._execution.usage_error(
                f"ctx.{function} was given nothing to wait for",
                f"await ctx.{function}([])",
                f"if operations: await ctx.{function}(operations)",
            )
        return parts

    # -- determinism ----------------------------------------------------------------------------------------------

    @property
    def current_utc_datetime(self) -> datetime:
        """The workflow's clock as upstream has it: naive UTC.  `now` returns an aware one."""
        return self._execution.read_clock("current_utc_datetime")

    def now(self, tz: tzinfo = timezone.utc) -> datetime:
        """Return the workflow's time: the same on replay, and unchanged within a turn.

        Args:
            tz: the time zone of the result.

        Returns:
            An aware `datetime` in that zone.

        Raises:
            WorkflowValidationError: if `tz` is not a time zone.
        """
        if not isinstance(cast(object, tz), tzinfo):
            raise self._execution.usage_error(
                f"ctx.now() takes a time zone, and not {shown(tz)}",
                f"ctx.now({shown(tz)})",
                "ctx.now() or ctx.now(ZoneInfo('Asia/Tokyo'))",
            )
        now = self._execution.read_clock("now").replace(tzinfo=timezone.utc)
        return now if tz is timezone.utc else now.astimezone(tz)

    def random(self) -> random.Random:
        """Return the random number generator of this execution, seeded from the instance.

        Returns:
            The same object each time; its values are the same on replay.
        """
        self._execution.check_live("random")
        return self._execution.streams.stream("random")

    def uuid4(self) -> uuid.UUID:
        """Return a new uuid, which is the same on replay.

        Returns:
            A uuid in the form of version 4.
        """
        self._execution.check_live("uuid4")
        return self._execution.streams.uuid4()

    def new_uuid(self) -> str:
        """Return upstream's deterministic uuid, for workflows that were generators.

        Returns:
            The uuid as a string, the one that `OrchestrationContext.new_uuid` returns at this call.
        """
        return self._execution.upstream.new_uuid()

    # -- the execution itself -------------------------------------------------------------------------------------

    def set_custom_status(self, custom_status: Any) -> None:
        """Set what clients see as the custom status of this instance.

        Args:
            custom_status: what the worker's data converter can serialise.

        Raises:
            WorkflowValidationError: if it cannot be serialised.
        """
        self._execution.check_live("set_custom_status")
        self._execution.upstream.set_custom_status(
            arguments.serializable(self._execution, custom_status, "ctx.set_custom_status(", "status")
        )

    def continue_as_new(self, new_input: Any, *, save_events: bool = False, new_version: str | None = None) -> None:
        """Start over with a new input and an empty history when this function returns, which it should do at once.

        Scheduling or awaiting anything durable after this call fails the instance; so does an exception.

        Args:
            new_input: the input of the next execution, which the worker's data converter can serialise.
            save_events: whether the next execution gets the external events that were not consumed.
            new_version: the version of the next execution; by default that of this one.

        Raises:
            WorkflowValidationError: if the input cannot be serialised.
        """
        execution = self._execution
        execution.scheduler("continue_as_new")  # Raises if this was called before.
        execution.continue_as_new(
            Continuation(
                arguments.serializable(execution, new_input, "ctx.continue_as_new(", "new_input"),
                save_events=save_events,
                new_version=new_version,
                site=call_site(),
            )
        )

    # -- metadata -------------------------------------------------------------------------------------------------

    def get_metadata(self) -> dict[str, str] | None:
        """Return the workflow's metadata.

        Returns:
            A copy; `None` if none was set, neither here nor by the client or parent that started the instance.
        """
        self._execution.check_live("get_metadata")
        return self._execution.metadata.get()

    def set_metadata(self, metadata_: Mapping[str, str], /) -> None:
        """Replace all metadata; activities and sub-orchestrations that are scheduled from now on carry it.

        Args:
            metadata_: the new mapping.

        Raises:
            WorkflowValidationError: unless keys and values are strings that take at most 8 KiB together.
        """
        self._execution.check_live("set_metadata")
        try:
            self._execution.metadata.replace(metadata_)
        except WorkflowValidationError as error:
            raise self._execution.usage_error(error.message) from None

    def get_headers(self) -> dict[str, str] | None:
        """Return the workflow's metadata; `get_metadata` under the name that other SDKs use.

        Returns:
            A copy, or `None`.
        """
        return self.get_metadata()

    def set_headers(self, headers: Mapping[str, str], /) -> None:
        """Replace all metadata; `set_metadata` under the name that other SDKs use.

        Args:
            headers: the new mapping.

        Raises:
            WorkflowValidationError: unless keys and values are strings that take at most 8 KiB together.
        """
        self.set_metadata(headers)

    # -- resources and debugging ----------------------------------------------------------------------------------

    def add_cleanup(self, cleanup: Callable[[], Any]) -> None:
        """Call a function when the innermost `async with ctx:` block ends, or, outside of one, the workflow function.

        The latest cleanup runs first.  Cleanups are workflow code: they run again on replay.  They do not run when the
        instance is terminated or evicted.

        Args:
            cleanup: called without arguments; what it returns is awaited if that is possible.

        Raises:
            WorkflowValidationError: if it cannot be called.
        """
        self._execution.check_live("add_cleanup")
        if not callable(cast(object, cleanup)):
            close_if_coroutine(cleanup)
            raise self._execution.usage_error(
                f"ctx.add_cleanup was given something that cannot be called, of type {type(cleanup).__name__!r}",
                "ctx.add_cleanup(release(resource))",
                "ctx.add_cleanup(lambda: release(resource))",
            )
        self._execution.cleanups.add(cleanup)

    async def __aenter__(self) -> Self:
        self._execution.cleanups.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, GeneratorExit | InstanceEvicted):
            await self._execution.cleanups.close(error)

    @property
    def logger(self) -> ReplaySafeLogger:
        """Logs to `durabletask.aio` with instance and workflow, and is silent while replaying."""
        return self._execution.logger

    def create_replay_safe_logger(self, logger: logging.Logger) -> ReplaySafeLogger:
        """Wrap a logger so that it is silent while replaying, and names instance and workflow.

        Args:
            logger: any logger.

        Returns:
            An adapter of it.
        """
        return ReplaySafeLogger(self._execution, logger)

    def get_debug_info(self) -> dict[str, Any]:
        """Return facts about this execution that are the same on replay.

        Returns:
            A JSON-serialisable mapping with the keys `instance_id`, `workflow_name`, `parent_instance_id`, `version`,
            `current_utc_datetime` (ISO 8601), `step` (the latest sequence number), `sandbox_mode`, `cleanups` (how many
            have not run yet) and `operations`: in debug mode a list of mappings with `sequence`, `step`, `kind`,
            `name`, `state` (`pending`, `completed`, `failed` or `cancelled`) and `outcome` (the message of a failure);
            otherwise `None`.
        """
        upstream = self._execution.upstream
        return {
            "instance_id": upstream.instance_id,
            "workflow_name": self._execution.workflow_name,
            "parent_instance_id": upstream.parent_instance_id,
            "version": upstream.version,
            "current_utc_datetime": self.now().isoformat(),
            "step": sequence_number(upstream),
            "sandbox_mode": self._execution.sandbox_mode.value,
            "cleanups": self._execution.cleanups.pending_count(),
            "operations": None if (log := self._loop.operation_log) is None else log.to_dicts(),
        }

    # -- errors ---------------------------------------------------------------------------------------------------

    def _explain_attribute_error(self, name: str, place: str | None) -> WorkflowValidationError | None:
        """Return the error for an attribute that is the activity context's, or is misspelled; `None` for any other one.

        Made when the `AttributeError` fails the workflow, so that the class does not have these attributes.
        """
        return explained_attribute(self._execution, type(self), name, place)

    def __repr__(self) -> str:
        execution = self._execution
        return f"<{type(self).__name__} workflow={execution.workflow_name!r} instance={execution.instance_id!r}>"
