"""`WorkflowEnvironment`: workflows in a test, in process, on a virtual clock, with stubbed activities."""

# ruff: noqa: A002 - `input` is what upstream calls it

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask.entities import EntityInstanceId
from durabletask.serialization import DataConverter, JsonDataConverter

from durabletask_aio.core import SandboxMode
from durabletask_aio.core.client import AsyncWorkflowClient
from durabletask_aio.core.hosting import describe_unregistered
from durabletask_aio.testing._upstream import helpers, pb
from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.environment_client import EnvironmentClient
from durabletask_aio.testing.functions import AnyFunction, FunctionsByName, new_registry, registered_name
from durabletask_aio.testing.handle import MAX_HISTORIES, WorkflowHandle, attach_histories
from durabletask_aio.testing.history import History
from durabletask_aio.testing.registry import Registry
from durabletask_aio.testing.replayer import replay_own_history
from durabletask_aio.testing.runner import InProcessRunner
from durabletask_aio.testing.stubs import NOTHING, ActivityCall, Stub, make_stub

DEFAULT_START = datetime(2024, 1, 1, tzinfo=timezone.utc)
"""The start of the virtual clock by default: a constant, so that every run of a test is the same."""


class WorkflowEnvironment:
    """Runs workflows, activities and entities in process, without a server, on a virtual clock.

    Example:
        ```python
        async with WorkflowEnvironment(orchestrators=[order], activities=[charge]) as env:
            env.stub(charge, sequence=[TimeoutError("busy"), "receipt 7"])
            assert await env.execute(order, input={"amount": 5}) == "receipt 7"
            assert [call.name for call in env.calls] == ["charge", "charge"]
        ```

    Time stands still while anything runs.  It moves only while the test waits: for a result, straight to the next timer
    that is due (with `auto_skip`, the default), or in `advance`.  Turns and results come in the order in which real
    time would bring them.

    It runs on the state machine of the durable engine, so histories, payloads and failures are those of that engine.

    The environment belongs to the event loop in which it is entered, and its methods are not thread-safe.
    """

    auto_skip: bool
    """Whether time moves to the next due timer while the test waits for a result."""

    stuck_timeout: float
    """Seconds of real time to wait for another task of the test before `WorkflowStuckError`."""

    turn_limit: int | None
    """The number of turns that one instance may take while the test waits for one result; `None` for no limit."""

    def __init__(
        self,
        *,
        orchestrators: FunctionsByName = (),
        activities: FunctionsByName = (),
        entities: FunctionsByName = (),
        sandbox_mode: SandboxMode | str | None = None,
        start_time: datetime = DEFAULT_START,
        auto_skip: bool = True,
        verify: bool = True,
        stuck_timeout: float = 5.0,
        turn_limit: int | None = 50_000,
        data_converter: DataConverter | None = None,
        maximum_timer_interval: timedelta | None = timedelta(days=3),
    ) -> None:
        """Register the functions and set the clock.

        Args:
            orchestrators: async workflows and generator orchestrators, in a list or, under other names than their own,
                in a mapping of names to functions.
            activities: sync and async activities, likewise; an activity that is stubbed need not be given.
            entities: entity functions and classes, likewise.
            sandbox_mode: the sandbox mode of workflows that have none of their own.
            start_time: when the virtual clock starts; aware.
            auto_skip: whether time moves to the next due timer while the test waits for a result.
            verify: whether to replay every execution when the environment closes.  Workflow code then runs a second
                time, as it does in production; its effects outside of the workflow, such as appending to a list of the
                test, happen twice.
            stuck_timeout: seconds of real time to wait for another task of the test before `WorkflowStuckError`.
            turn_limit: the number of turns one instance may take while the test waits for one result, `None` for no
                limit.  Without a limit a workflow that never ends, such as a poller, would let virtual years pass for
                as long as the test runs.
            data_converter: encodes and decodes payloads; upstream's JSON converter by default.
            maximum_timer_interval: a longer timer is recorded as several; the default is that of a worker.

        Raises:
            ValueError: for a `start_time` without a time zone, a name that is registered twice, or an unknown sandbox
                mode.
            TypeError: for a function that cannot be registered.
        """
        if start_time.tzinfo is None:
            raise ValueError(f"start_time={start_time!r} has no time zone; write datetime(..., tzinfo=timezone.utc)")
        self.auto_skip = auto_skip
        self.stuck_timeout = stuck_timeout
        self.turn_limit = turn_limit
        self._verify = verify
        self._maximum_timer_interval = maximum_timer_interval
        self._numbers = itertools.count(1)
        self._runner = InProcessRunner(
            new_registry(orchestrators, activities, entities, sandbox_mode=sandbox_mode),
            data_converter if data_converter is not None else JsonDataConverter(),
            start_time,
            maximum_timer_interval,
            self,
        )
        self._client: AsyncWorkflowClient | None = None

    # -- lifecycle ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> WorkflowEnvironment:  # noqa: PYI034 - typing has Self from 3.11 on
        try:
            self._runner.bind_to_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a workflow environment runs on asyncio, and this is another event loop, trio's perhaps; for anyio's "
                "pytest plugin, a fixture sets it: def anyio_backend(): return 'asyncio'"
            ) from None
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        await self.close()
        if error is not None:
            attach_histories(error, self.histories[-MAX_HISTORIES:])
        elif self._verify:
            for history in self.histories:
                self._replay(history)

    @property
    def registry(self) -> Registry:
        """The registered functions, in upstream's registry."""
        return self._runner.registry

    @property
    def histories(self) -> list[History]:
        """The histories of all executions so far.

        First those of executions that continued as new, then the latest execution of each instance.
        """
        return self._runner.histories

    def _replay(self, history: History) -> None:
        __tracebackhide__ = True
        try:
            replay_own_history(
                history,
                self.registry.get_orchestrator(history.workflow_name or ""),
                data_converter=self._runner.converter,
                maximum_timer_interval=self._maximum_timer_interval,
            )
        except ReplayError as error:
            attach_histories(error, [history])
            raise

    async def close(self) -> None:
        """Cancel the running activities and close the waiting workflows, without replaying anything.

        Status and history of the instances stay available.  Leaving the `async with` block calls this; a second call
        does nothing.
        """
        await self._runner.close()

    # -- workflows ------------------------------------------------------------------------------------------------

    async def execute(self, orchestrator: AnyFunction | str, *, input: Any = None, **options: Any) -> Any:
        """Run a workflow to its end and return its result.

        Args:
            orchestrator: the function, or the name it is registered under.
            input: the input of the workflow, encoded by the data converter.
            **options: those of `start`.

        Returns:
            The result, as plain data; for another type, use `start` and `WorkflowHandle.result`.

        Raises:
            LookupError: for a name that is not registered.
            ValueError: for an instance id that is taken.
            durabletask.client.OrchestrationFailedError: if the workflow failed; its exception is the cause.
            WorkflowTerminatedError: if it was terminated.
            WorkflowStuckError: if it waits for something that cannot happen without the test.
        """
        __tracebackhide__ = True
        handle = await self.start(orchestrator, input=input, **options)
        return await handle.result()

    async def start(
        self,
        orchestrator: AnyFunction | str,
        *,
        input: Any = None,
        instance_id: str | None = None,
        start_at: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
    ) -> WorkflowHandle:
        """Start a workflow and run it as far as it can without time passing.

        Args:
            orchestrator: the function, or the name it is registered under.
            input: the input of the workflow, encoded by the data converter.
            instance_id: the id of the instance; by default the name and a number.
            start_at: when it starts on the environment's clock; by default now.
            tags: the tags of the instance.
            version: the version of the instance.

        Returns:
            A handle of the instance.

        Raises:
            LookupError: for a name that is not registered; the message lists the registered names.
            ValueError: for an instance id that is taken.
        """
        __tracebackhide__ = True
        name = registered_name(orchestrator)
        names = self.registry.names("orchestrator")
        if name not in names:
            raise LookupError(describe_unregistered("orchestrator", name, names))
        request = pb.CreateInstanceRequest(
            instanceId=instance_id or self._new_instance_id(name),
            name=name,
            input=self._encode(input),
            version=helpers.get_string_value(version),
            tags=dict(tags or {}),
        )
        if start_at is not None:
            request.scheduledStartTimestamp.FromDatetime(start_at)
        await self._runner.call(self._runner.service.StartInstance, request)
        return WorkflowHandle(self._runner, request.instanceId)

    def _new_instance_id(self, name: str) -> str:
        return f"{name}-{next(self._numbers)}"

    @property
    def client(self) -> AsyncWorkflowClient:
        """A client of the workflows of this environment, for code under test that takes an `AsyncWorkflowClient`.

        Its handles have the methods, the types and the errors of
        [`AsyncWorkflowClient`][durabletask.aio.client.AsyncWorkflowClient].  They act as those of the environment do:
        time passes while a result is waited for, and timeouts are seconds of the environment's clock.  `client.client`
        is upstream's client, for queries, purging, entities and everything else.
        """
        if self._client is None:
            self._client = EnvironmentClient(self._runner, self._new_instance_id)
        return self._client

    def handle(self, instance_id: str) -> WorkflowHandle:
        """Return the handle of an instance that the test did not start itself, such as a sub-orchestration.

        Args:
            instance_id: the id of the instance.

        Returns:
            A handle of the instance.

        Raises:
            KeyError: if there is no such instance; the message lists the instances.
        """
        if self._runner.status(instance_id) is None:
            known = ", ".join(self._runner.instance_ids()) or "none"
            raise KeyError(f"no instance {instance_id!r} in this environment; there are: {known}")
        return WorkflowHandle(self._runner, instance_id)

    def get_handle(self, instance_id: str) -> WorkflowHandle:
        """Return the handle of an instance, as `handle` does; the name that clients of workflows have for it.

        Args:
            instance_id: the id of the instance.

        Returns:
            A handle of the instance.

        Raises:
            KeyError: if there is no such instance; the message lists the instances.
        """
        return self.handle(instance_id)

    # -- activities and entities ----------------------------------------------------------------------------------

    def stub(
        self,
        activity: AnyFunction | str,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        calls: Callable[..., Any] | None = None,
        sequence: Iterable[Any] | None = None,
        never: bool = False,
        delay: timedelta | float = 0,
    ) -> Stub:
        """Replace an activity, or a step of `ctx.run`, from its next call on; it need not be registered.

        Give one of `returns`, `raises`, `calls`, `sequence` and `never`; `delay` goes with any of them, or alone.

        Args:
            activity: the function, or the name it is called by.  For a step, `calls` gets the step's arguments, and
                `delay` has no effect.
            returns: the result of every call.
            raises: the exception of every call.
            calls: a function, sync or async, of the activity context and the input, of the input, or of nothing.  The
                input has the type that the function is annotated with.
            sequence: one outcome for each call: a value is returned, an exception is raised, and
                [`NEVER`][durabletask.aio.testing.NEVER] does not complete.
            never: whether no call completes.
            delay: how long each call takes on the environment's clock, in seconds or as a `timedelta`.

        Returns:
            The stub, whose `calls` are its calls so far.

        Raises:
            TypeError: for no outcome, for more than one, and for an outcome of the wrong type.
            ValueError: for a negative delay.
        """
        __tracebackhide__ = True
        stub = make_stub(
            registered_name(activity),
            returns=returns,
            raises=raises,
            calls=calls,
            sequence=sequence,
            never=never,
            delay=delay,
        )
        self._runner.activities.stubs[stub.name] = stub
        return stub

    @property
    def calls(self) -> list[ActivityCall]:
        """A copy of the list of all activity calls so far, stubbed or not, in the order in which they started."""
        return list(self._runner.activities.calls)

    async def signal_entity(
        self, entity: EntityInstanceId, operation: str, *, input: Any = None, at: datetime | None = None
    ) -> None:
        """Signal an entity and run everything that follows without time passing.

        Args:
            entity: the entity.
            operation: the name of the operation.
            input: the input of the operation, encoded by the data converter.
            at: when the signal is delivered on the environment's clock; by default now.

        Raises:
            LookupError: for an entity that is not registered; the message lists the registered names.  A signal has no
                response, so a misspelled name would go unnoticed otherwise.
        """
        __tracebackhide__ = True
        names = self.registry.names("entity")
        if entity.entity not in names:
            raise LookupError(describe_unregistered("entity", entity.entity, names))
        request = pb.SignalEntityRequest(
            instanceId=str(entity),
            name=operation,
            input=self._encode(input),
            requestId=f"signal-{next(self._numbers)}",
        )
        if at is not None:
            request.scheduledTime.FromDatetime(at)
        await self._runner.call(self._runner.service.SignalEntity, request)

    def entity_state(self, entity: EntityInstanceId, return_type: type | None = None) -> Any:
        """Return the state of an entity.

        Args:
            entity: the entity.
            return_type: the type that the data converter makes of the state; by default plain data.

        Returns:
            The state, `None` if it has none.
        """
        return self._runner.converter.deserialize(self._runner.entity_state(str(entity)), return_type)

    def _encode(self, value: Any) -> Any:
        return helpers.get_string_value(self._runner.converter.serialize(value))

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of the environment's clock; aware, UTC."""
        return self._runner.time.now()

    async def advance(self, by: timedelta | float) -> None:
        """Let time pass, and run everything that is due meanwhile.

        Running activities are waited for first, up to `stuck_timeout` seconds of real time: they take no time on this
        clock.

        Args:
            by: how much, in seconds or as a `timedelta`.

        Raises:
            WorkflowStuckError: if activities still run after `stuck_timeout` seconds.
            ValueError: for a negative amount, and for a time beyond the calendar.
        """
        __tracebackhide__ = True
        self._runner.check_usable()
        await self._runner.advance_to(self._time_after(by))

    def _time_after(self, by: timedelta | float) -> datetime:
        __tracebackhide__ = True
        try:
            when = self.now + (by if isinstance(by, timedelta) else timedelta(seconds=by))
        except TypeError:
            raise TypeError(f"advance() takes seconds or a timedelta, not {by!r}") from None
        except OverflowError:
            raise ValueError(f"advance({by!r}) goes beyond the calendar: it is {self.now:%Y-%m-%d} here") from None
        if when < self.now:
            raise ValueError(f"time does not go backwards: advance({by!r})")
        return when

    async def settle(self) -> None:
        """Run everything that can run without time passing.

        Activities that wait for something outside of the environment keep running.
        """
        await self._runner.settle()
