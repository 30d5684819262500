"""``AsyncWorkflowContext``: what workflow code sees.  Thin: each method is a line or two over the rooms beside it."""

# ruff: noqa: A002 - `input` is upstream's name for it

from __future__ import annotations

import asyncio
import logging
import math
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar, cast, overload
from weakref import proxy

from durabletask import task
from durabletask.entities import EntityInstanceId

from durabletask_aio.core import _upstream, arguments, combinators, debug, metadata, sites
from durabletask_aio.core._upstream import call_activity, sequence_number
from durabletask_aio.core.errors import InstanceEvicted, WorkflowValidationError, shown
from durabletask_aio.core.events import EventStream
from durabletask_aio.core.host import Continuation, ReplaySafeLogger
from durabletask_aio.core.operations import (
    ACTIVITY,
    ENTITY,
    EVENT,
    LOCK,
    SUB_ORCHESTRATION,
    TIMER,
    LockOperation,
    Operation,
    RetriedOperation,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from durabletask_aio.core.state import WorkflowState

T = TypeVar("T")
TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")

AsyncActivity: TypeAlias = Callable[[task.ActivityContext, TInput], Awaitable[TOutput]]
RetryPolicy = task.RetryPolicy


class WrongContextError(WorkflowValidationError, AttributeError):
    """An attribute of the activity context was looked for on the workflow's; ``hasattr`` asks too."""


class AsyncWorkflowContext:
    """The durable side of an async workflow, passed to it as its first argument.

    Everything that takes part in the workflow's history is scheduled at the call, not at the ``await``, and returns an
    :class:`Operation`, which is an ``asyncio.Future``.  The context works inside its own workflow function only.
    """

    __slots__ = ("_host", "_loop", "_state")

    def __init__(self, state: WorkflowState) -> None:
        self._state = state
        self._host = state.host
        self._loop = state.loop

    # -- identity -------------------------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        """The id of this instance."""
        return self._host.upstream.instance_id

    @property
    def workflow_name(self) -> str:
        """The name this workflow is registered under."""
        self._check_live()
        return self._host.workflow_name

    @property
    def parent_instance_id(self) -> str | None:
        """The id of the instance that started this one as a sub-orchestration, or ``None``."""
        return self._host.upstream.parent_instance_id

    @property
    def version(self) -> str | None:
        """The version this instance was scheduled with, or ``None``."""
        return self._host.upstream.version

    @property
    def is_replaying(self) -> bool:
        """Whether this code has run before, and is only rebuilding its state; also ``True`` while it is closed."""
        return self._host.is_replaying

    @property
    def upstream_context(self) -> task.OrchestrationContext:
        """Upstream's context, for what this one lacks.

        A weak proxy, valid as long as the instance is.  Tasks it returns cannot be awaited, cancelled or seen by the
        deadlock check, and metadata is not added to what it schedules.
        """
        return cast("task.OrchestrationContext", proxy(self._host.upstream))

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
    ) -> Operation[TOutput]: ...

    def call_activity(
        self,
        activity: Any,
        *,
        input: Any = None,
        retry_policy: RetryPolicy | None = None,
        tags: dict[str, str] | None = None,
        return_type: type | None = None,
    ) -> Operation[Any]:
        """Schedule an activity, by its function or its name.

        ``input`` is what the worker's data converter can serialise.  ``return_type`` reconstructs the result; by
        default the annotation of the function does, if it is of a kind that the converter reconstructs: dataclasses,
        for the default one, and not ``datetime``, enumerations or tuples, which stay what JSON has for them.

        Awaiting raises :class:`ActivityFailedError` if the activity failed, and, with a ``retry_policy``, did so to the
        end of it; ``retry_timeout`` is measured on the workflow's clock.  Raises :class:`WorkflowValidationError` if
        the input cannot be serialised.
        """
        name = activity if type(activity) is str else arguments.name_of(self._host, activity, "call_activity")
        host = self._host
        if host.thread != get_ident():
            host.refuse("call_activity")
        if retry_policy is not None:
            arguments.check_retry_policy(host, retry_policy, "call_activity")
        if tags is not None:
            arguments.check_tags(host, tags)
        if self._state.metadata is not None:
            tags = self._state.tags(tags)
        upstream = host.upstream
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
                self._host, error, input, f"activity {name!r}", f"ctx.call_activity({name!r}, input="
            ) from error
        # What track() does, in fewer calls: most steps of most workflows are activities.
        loop = self._loop
        if retry_policy is None:
            operation: Operation[Any] = Operation(loop=loop)
        else:
            operation = RetriedOperation(loop=loop)
            _upstream.retry_on_workflow_time(upstream, scheduled)
        operation.begin(loop, ACTIVITY, name, sequence_number(upstream), scheduled)
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
        return_type: type[T],
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
        return_type: None = ...,
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
        return_type: None = ...,
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
        return_type: None = ...,
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
        return_type: None = ...,
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
        return_type: None = ...,
    ) -> Operation[TOutput]: ...

    def call_sub_orchestrator(
        self,
        orchestrator: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        retry_policy: RetryPolicy | None = None,
        version: str | None = None,
        return_type: type | None = None,
    ) -> Operation[Any]:
        """Start another workflow, async or generator, by its function or its name, as a child of this one.

        Awaiting raises :class:`SubOrchestrationFailedError` if it failed.  Without an ``instance_id`` the child's id
        is derived from this instance's.  The result is what JSON has for it, a dict for a dataclass, as in a generator
        orchestrator; ``return_type`` reconstructs it.
        """
        name = arguments.name_of(self._host, orchestrator, "call_sub_orchestrator")
        if retry_policy is not None:
            arguments.check_retry_policy(self._host, retry_policy, "call_sub_orchestrator")
        for keyword, value in (("instance_id", instance_id), ("version", version)):
            if value is not None:
                arguments.check_text(self._host, value, keyword, f"ctx.call_sub_orchestrator({name!r}, {keyword}=")
        try:
            scheduled = self._host.scheduler("call_sub_orchestrator").call_sub_orchestrator(
                name,
                input=input,
                instance_id=instance_id,
                retry_policy=retry_policy,
                version=version,
                return_type=cast("type[Any]", return_type),
            )
        except (TypeError, ValueError) as error:
            raise arguments.unserializable(
                self._host, error, input, f"sub-orchestration {name!r}", f"ctx.call_sub_orchestrator({name!r}, input="
            ) from error
        operation = self._state.track(scheduled, SUB_ORCHESTRATION, name, retried=retry_policy is not None)
        self._state.carry_metadata(operation.step)
        return operation

    def create_timer(self, fire_at: float | timedelta | datetime) -> Operation[None]:
        """A timer: after a number of seconds or a ``timedelta``, or at a ``datetime`` (naive means UTC)."""
        return self._timer(fire_at, "create_timer", "ctx.create_timer(")

    def sleep(self, delay: float | timedelta | datetime) -> Operation[None]:
        """The same as :meth:`create_timer`, under the name that reads well after ``await``."""
        return self._timer(delay, "sleep", "ctx.sleep(")

    def _timer(self, given: Any, method: str, call: str) -> Operation[None]:
        scheduler = self._host.scheduler(method)
        try:
            if isinstance(given, timedelta | datetime):
                return self._state.track(scheduler.create_timer(given), TIMER, str(given))
            if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
                return self._state.track(scheduler.create_timer(timedelta(seconds=given)), TIMER, str(given))
        except OverflowError:
            raise self._host.beyond_the_calendar(given, f"await {call}{{}})") from None
        raise self._host.slip(
            f"a timer takes seconds, a timedelta or a datetime, and not {shown(given)}",
            f"await {call}{shown(given)})",
            f"await {call}1.5) or await {call}timedelta(days=1))",
        )

    @overload
    def wait_for_external_event(self, name: str, *, data_type: type[T]) -> Operation[T]: ...

    @overload
    def wait_for_external_event(self, name: str, *, data_type: None = ...) -> Operation[Any]: ...

    def wait_for_external_event(self, name: str, *, data_type: type | None = None) -> Operation[Any]:
        """Wait for the next event of that name (in any case), or take the oldest one that arrived before.

        Cancelling the wait leaves the next event to others.
        """
        scheduler = self._host.scheduler("wait_for_external_event")
        arguments.check_text(self._host, name, "the name of an event", "ctx.wait_for_external_event(")
        waiting = scheduler.wait_for_external_event(name, data_type=cast("type[Any]", data_type))
        return self._state.track(waiting, EVENT, name, traced=False)

    @overload
    def events(self, name: str, *, data_type: type[T]) -> EventStream[T]: ...

    @overload
    def events(self, name: str, *, data_type: None = ...) -> EventStream[Any]: ...

    def events(self, name: str, *, data_type: type | None = None) -> EventStream[Any]:
        """The events of that name as an async iterator: ``async for payload in ctx.events("order"): ...``."""
        arguments.check_text(self._host, name, "the name of an event", "ctx.events(")
        stream: EventStream[Any] = EventStream(name, lambda: self.wait_for_external_event(name, data_type=data_type))
        self._state.event_streams.append(stream)
        return stream

    def send_event(self, instance_id: str, event_name: str, *, data: Any = None) -> None:
        """Send an event to another instance; if there is none of that id, it is dropped."""
        scheduler = self._host.scheduler("send_event")
        arguments.check_text(self._host, instance_id, "the id of an instance", "ctx.send_event(")
        arguments.check_text(self._host, event_name, "the name of an event", "ctx.send_event(instance_id, ")
        call = f"ctx.send_event(instance_id, {event_name!r}, data="
        scheduler.send_event(instance_id, event_name, data=arguments.serializable(self._host, data, call, "data"))

    # -- entities -------------------------------------------------------------------------------------------------

    @overload
    def call_entity(
        self, entity: EntityInstanceId, operation: str, input: Any = ..., *, return_type: type[T]
    ) -> Operation[T]: ...

    @overload
    def call_entity(
        self, entity: EntityInstanceId, operation: str, input: Any = ..., *, return_type: None = ...
    ) -> Operation[Any]: ...

    def call_entity(
        self, entity: EntityInstanceId, operation: str, input: Any = None, *, return_type: type | None = None
    ) -> Operation[Any]:
        """Call an operation of an entity; awaiting raises :class:`ActivityFailedError` if it failed."""
        arguments.check_entity(self._host, entity, operation, "call_entity")
        try:
            scheduled = self._host.scheduler("call_entity").call_entity(
                entity, operation, input, return_type=cast("type[Any]", return_type)
            )
        except (TypeError, ValueError) as error:
            raise arguments.unserializable(
                self._host, error, input, f"entity operation {operation!r}", f"ctx.call_entity(entity, {operation!r}, "
            ) from error
        return self._state.track(scheduled, ENTITY, f"{entity}.{operation}")

    def signal_entity(
        self, entity_id: EntityInstanceId, operation_name: str, input: Any = None, signal_time: datetime | None = None
    ) -> None:
        """Call an operation of an entity without waiting for it; at ``signal_time`` if one is given."""
        scheduler = self._host.scheduler("signal_entity")
        arguments.check_entity(self._host, entity_id, operation_name, "signal_entity")
        call = f"ctx.signal_entity(entity, {operation_name!r}, "
        scheduler.signal_entity(entity_id, operation_name, arguments.serializable(self._host, input, call), signal_time)

    def lock_entities(self, entities: Iterable[EntityInstanceId]) -> LockOperation:
        """Lock entities for a block: ``async with ctx.lock_entities([a, b]): ...``, or await it for the lock."""
        locked = arguments.entities_to_lock(self._host, entities)
        upstream_task = self._host.scheduler("lock_entities").lock_entities(locked)
        operation = self._state.track(upstream_task, LOCK, ", ".join(map(str, locked)), make=LockOperation)
        return cast(LockOperation, operation)

    # -- combining ------------------------------------------------------------------------------------------------

    @overload
    def when_all(self, awaitables: Iterable[Awaitable[T]]) -> Operation[list[T]]: ...

    @overload
    def when_all(self, awaitables: Iterable[Awaitable[Any]]) -> Operation[list[Any]]: ...

    def when_all(self, awaitables: Iterable[Awaitable[Any]], *separate: NoReturn) -> Operation[list[Any]]:
        """The results of all, in the order given, when all of them are done.

        If any failed, the first failure is raised, after all are done: unlike :meth:`gather`, which raises at once.
        """
        parts = combinators.parts_of(self._loop, awaitables, "when_all", separate)
        return combinators.All(self._loop, "when_all", parts, fail_fast=False)

    @overload
    def when_any(self, awaitables: Iterable[Awaitable[T]]) -> Operation[T]: ...

    @overload
    def when_any(self, awaitables: Iterable[Awaitable[Any]]) -> Operation[Any]: ...

    def when_any(self, awaitables: Iterable[Awaitable[Any]], *separate: NoReturn) -> Operation[Any]:
        """The value of the one that is done first; the others go on.

        Among those that are done already the one that was done first wins.  A winner that failed raises, with its
        place in ``.winner_index``.  Raises ``ValueError`` if there are none.
        """
        return combinators.First(
            self._loop, "when_any", self._racers(awaitables, "when_any", separate), with_index=False
        )

    @overload
    def when_any_with_result(self, awaitables: Iterable[Awaitable[T]]) -> Operation[tuple[int, T]]: ...

    @overload
    def when_any_with_result(self, awaitables: Iterable[Awaitable[Any]]) -> Operation[tuple[int, Any]]: ...

    def when_any_with_result(
        self, awaitables: Iterable[Awaitable[Any]], *separate: NoReturn
    ) -> Operation[tuple[int, Any]]:
        """Like :meth:`when_any`, but the winner's index and its value."""
        parts = self._racers(awaitables, "when_any_with_result", separate)
        return combinators.First(self._loop, "when_any_with_result", parts, with_index=True)

    @overload
    def gather(
        self, first: Operation[T], /, *others: Operation[T], return_exceptions: Literal[False] = ...
    ) -> Operation[list[T]]: ...

    @overload
    def gather(self, *awaitables: Awaitable[Any], return_exceptions: bool = ...) -> Operation[list[Any]]: ...

    def gather(self, *awaitables: Awaitable[Any], return_exceptions: bool = False) -> Operation[list[Any]]:
        """The results of all, in the order given; like ``asyncio.gather``, but it can be awaited again and again.

        The first failure is raised at once, and the others go on; with ``return_exceptions`` failures are results.
        """
        parts = combinators.futures_of(self._loop, awaitables, "gather")
        return combinators.All(
            self._loop, "gather", parts, fail_fast=not return_exceptions, return_exceptions=return_exceptions
        )

    def with_timeout(self, awaitable: Awaitable[T], timeout: float | timedelta | None) -> Operation[T]:
        """The outcome of ``awaitable``, or :class:`WorkflowTimeoutError` if it is not done in ``timeout``.

        ``timeout`` is in seconds, or a ``timedelta``; ``None`` waits for ever.  The timer starts at the call.  What
        loses is cancelled: the timer; or the awaitable, as far as it can be.
        """
        seconds = combinators.seconds_of(self._loop, awaitable, timeout)
        part = combinators.as_future(self._loop, awaitable, "with_timeout")
        timer: Operation[None] | None = None
        if seconds is not None and seconds > 0:
            timer = self._timer(seconds, "with_timeout", "ctx.with_timeout(operation, ")
        return combinators.Deadline(self._loop, part, seconds, timer)

    def _racers(self, awaitables: Any, function: str, separate: tuple[Any, ...]) -> list[asyncio.Future[Any]]:
        parts = combinators.parts_of(self._loop, awaitables, function, separate)
        if not parts:
            raise self._host.slip(
                f"ctx.{function} was given nothing to wait for",
                f"await ctx.{function}([])",
                f"if operations: await ctx.{function}(operations)",
            )
        return parts

    # -- determinism ----------------------------------------------------------------------------------------------

    @property
    def current_utc_datetime(self) -> datetime:
        """The workflow's clock as upstream has it, naive UTC; :meth:`now` is the aware one."""
        return self._host.upstream.current_utc_datetime

    def now(self, tz: tzinfo = timezone.utc) -> datetime:
        """The workflow's time, aware, in ``tz``; the same on replay, and standing still within a turn."""
        if not isinstance(cast(object, tz), tzinfo):
            raise self._host.slip(
                f"ctx.now() takes a time zone, and not {shown(tz)}",
                f"ctx.now({shown(tz)})",
                "ctx.now() or ctx.now(ZoneInfo('Asia/Tokyo'))",
            )
        now = self._host.upstream.current_utc_datetime.replace(tzinfo=timezone.utc)
        return now if tz is timezone.utc else now.astimezone(tz)

    def random(self) -> random.Random:
        """The random number generator of this execution, seeded from the instance; the same object each time."""
        self._check_live()
        return self._state.streams.stream("random")

    def uuid4(self) -> uuid.UUID:
        """A uuid that is the same on replay, and another one at each call."""
        self._check_live()
        return self._state.streams.uuid4()

    def new_uuid(self) -> str:
        """Upstream's deterministic uuid, as a string: for workflows migrated from generators."""
        return self._host.upstream.new_uuid()

    # -- the execution itself -------------------------------------------------------------------------------------

    def set_custom_status(self, custom_status: Any) -> None:
        """Set what clients see as the custom status of this instance."""
        self._check_live()
        self._host.upstream.set_custom_status(
            arguments.serializable(self._host, custom_status, "ctx.set_custom_status(", "status")
        )

    def continue_as_new(self, new_input: Any, *, save_events: bool = False, new_version: str | None = None) -> None:
        """Start over with ``new_input`` and an empty history when this function returns, which it should do at once.

        With ``save_events`` the events that nobody consumed are there for the next execution.  Scheduling or awaiting
        anything durable after this call fails the instance; so does an exception.
        """
        self._host.scheduler("continue_as_new")  # raises if this was called before
        self._host.continue_as_new(
            Continuation(
                arguments.serializable(self._host, new_input, "ctx.continue_as_new(", "new_input"),
                save_events=save_events,
                new_version=new_version,
                site=sites.here(),
            )
        )

    # -- metadata -------------------------------------------------------------------------------------------------

    def get_metadata(self) -> dict[str, str] | None:
        """A copy of the workflow's metadata; ``None`` if none was set, here or by whoever started the instance."""
        self._check_live()
        current = self._state.metadata
        return None if current is None else dict(current)

    def set_metadata(self, metadata_: Mapping[str, str], /) -> None:
        """Replace the metadata, all of it; activities and sub-orchestrations scheduled from now on carry it.

        Raises :class:`WorkflowValidationError` unless keys and values are strings that take at most 8 KiB together.
        """
        self._check_live()
        try:
            self._state.metadata = metadata.validated(metadata_)
        except WorkflowValidationError as error:
            raise self._host.slip(error.message) from None

    def get_headers(self) -> dict[str, str] | None:
        """The same as :meth:`get_metadata`, under the name other SDKs use."""
        return self.get_metadata()

    def set_headers(self, headers: Mapping[str, str], /) -> None:
        """The same as :meth:`set_metadata`, under the name other SDKs use."""
        self.set_metadata(headers)

    # -- resources and debugging ----------------------------------------------------------------------------------

    def add_cleanup(self, cleanup: Callable[[], Any]) -> None:
        """Call ``cleanup``, and await what it returns if that can be awaited, when the innermost block ends.

        The block is ``async with ctx:``, or the workflow function if there is none open.  The latest cleanup runs
        first.  Cleanups are workflow code: they run again on replay.  They do not run when the instance is terminated
        or evicted.
        """
        self._check_live()
        if not callable(cast(object, cleanup)):
            debug.discard(cleanup)
            raise self._host.slip(
                f"ctx.add_cleanup was given something that cannot be called, of type {type(cleanup).__name__!r}",
                "ctx.add_cleanup(release(resource))",
                "ctx.add_cleanup(lambda: release(resource))",
            )
        self._state.cleanups.add(cleanup)

    async def __aenter__(self) -> Self:
        self._state.cleanups.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, GeneratorExit | InstanceEvicted):
            await self._state.cleanups.close(error)

    @property
    def logger(self) -> ReplaySafeLogger:
        """Logs to ``durabletask.aio`` with instance and workflow, and is silent while replaying."""
        return self._host.logger

    def create_replay_safe_logger(self, logger: logging.Logger) -> ReplaySafeLogger:
        """An adapter of ``logger`` that is silent while replaying, and carries instance and workflow."""
        return ReplaySafeLogger(self._host, logger)

    def get_debug_info(self) -> dict[str, Any]:
        """What is known about this execution, as JSON-serialisable facts that are the same on replay.

        Keys: ``instance_id``, ``workflow_name``, ``parent_instance_id``, ``version``, ``current_utc_datetime`` (ISO
        8601), ``step`` (the latest sequence number), ``sandbox_mode``, ``cleanups`` (how many are waiting),
        ``operations``: in debug mode a list of mappings with ``sequence``, ``step``, ``kind``, ``name``, ``state``
        (``pending``, ``completed``, ``failed`` or ``cancelled``) and ``outcome`` (the message of a failure); otherwise
        ``None``.
        """
        upstream = self._host.upstream
        history = self._state.history
        return {
            "instance_id": upstream.instance_id,
            "workflow_name": self._host.workflow_name,
            "parent_instance_id": upstream.parent_instance_id,
            "version": upstream.version,
            "current_utc_datetime": self.now().isoformat(),
            "step": sequence_number(upstream),
            "sandbox_mode": self._state.sandbox_mode.value,
            "cleanups": self._state.cleanups.as_data(),
            "operations": None if history is None else history.as_data(),
        }

    # -- slips ----------------------------------------------------------------------------------------------------

    def _check_live(self) -> None:
        host = self._host
        host.upstream.instance_id  # noqa: B018 - raises if the code is not running, or is being closed
        if host.thread != get_ident() and host.continuation is None:
            raise host.wrong_thread()

    def _of_an_activity(self, name: str) -> WrongContextError:
        slip = self._host.slip(
            f"{name!r} belongs to the context of an activity, and this is the workflow's: it looks as if an "
            f"activity was called directly",
            "await charge(ctx, order)",
            "await ctx.call_activity(charge, input=order)",
        )
        return WrongContextError(slip.message, instance_id=slip.instance_id, workflow_name=slip.workflow_name)

    if not TYPE_CHECKING:  # or type checkers would offer them
        # Properties, as a __getattr__ would slow down every use of every other attribute.

        @property
        def orchestration_id(self) -> NoReturn:
            """Of the context of an activity; here there is ``instance_id``."""
            raise self._of_an_activity("orchestration_id")

        @property
        def task_id(self) -> NoReturn:
            """Of the context of an activity."""
            raise self._of_an_activity("task_id")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} workflow={self._host.workflow_name!r} instance={self._host.instance_id!r}>"
