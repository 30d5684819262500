"""Workflows in a test: in process, on a virtual clock, with activities that the test may answer itself."""

# ruff: noqa: A002 - `input` is what upstream calls it

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from durabletask.entities import EntityInstanceId
from durabletask.serialization import DataConverter, JsonDataConverter

from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.testing._upstream import entity_batch, helpers, not_registered, pb
from durabletask_aio.testing.activities import Activities
from durabletask_aio.testing.clock import VirtualClock
from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.engine import Engine
from durabletask_aio.testing.functions import AnyFunction, FunctionsByName, name_of, registry_of
from durabletask_aio.testing.handle import MOST_HISTORIES, WorkflowHandle, tell_histories
from durabletask_aio.testing.handouts import Handout, Taker
from durabletask_aio.testing.history import History
from durabletask_aio.testing.replayer import repeat
from durabletask_aio.testing.stubs import NOTHING, ActivityCall, Stub, make_stub
from durabletask_aio.testing.turns import Turns
from durabletask_aio.testing.waiting import WorkflowStuckError

DEFAULT_START = datetime(2024, 1, 1, tzinfo=timezone.utc)
"""When the clock starts if nobody says otherwise: always the same, so that a test is."""

_STEPS_WITHOUT_PROGRESS = 25
"""Rounds of the test's loop that an async activity gets to finish before the environment calls it busy."""

_TURNS_WITHOUT_A_BREATH = 500
"""After so many turns the test's loop gets to run its other tasks and time limits: a workflow may have no end."""

_logger = logging.getLogger("durabletask.aio.testing")


class _InProcess:
    """Stands in for the context of a gRPC call."""

    def abort(self, code: Any, details: str) -> NoReturn:
        raise ValueError(details)


_IN_PROCESS = _InProcess()


class WorkflowEnvironment:
    """Runs workflows, activities and entities in process, without a server, on a clock that jumps.

    ::

        async with WorkflowEnvironment(orchestrators=[order], activities=[charge]) as env:
            env.stub(charge, sequence=[TimeoutError("busy"), "receipt 7"])
            assert await env.execute(order, input={"amount": 5}) == "receipt 7"
            assert [call.name for call in env.calls] == ["charge", "charge"]

    Takes async workflows and generator orchestrators, sync and async activities, and entities, in lists or, under
    other names than their own, in mappings.  ``sandbox_mode`` is that of workflows that name none themselves.

    Time stands still while anything runs and moves only while the test waits: for a result (``auto_skip``, the
    default) or in :meth:`advance`.  Turns and results come in the order in which real time would bring them.

    Histories, payloads and failures are those of upstream's in-memory engine, which is what runs underneath.
    """

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
        patience: float = 5.0,
        turn_limit: int | None = 50_000,
        data_converter: DataConverter | None = None,
        maximum_timer_interval: timedelta | None = timedelta(days=3),
    ) -> None:
        """``verify``: replay every execution when the environment closes, and raise :class:`ReplayError` if the code
        then does something else.  Workflow code runs once more for that, as it does in production; what it does to
        the world outside, to a list of the test, say, it does again.

        ``patience``: real seconds to wait for another task of the test before :class:`WorkflowStuckError`.

        ``turn_limit``: turns one instance may take while the test waits for one thing.  A workflow that has no end, a
        poller, say, would otherwise let the virtual years pass for as long as the test runs.

        ``maximum_timer_interval``: longer timers are made of several, as by a worker with its default settings.
        """
        if start_time.tzinfo is None:
            raise ValueError(f"start_time={start_time!r} has no time zone; write datetime(..., tzinfo=timezone.utc)")
        self.auto_skip = auto_skip
        self.patience = patience
        self.turn_limit = turn_limit
        self.converter = data_converter if data_converter is not None else JsonDataConverter()
        self.registry = registry_of(orchestrators, activities, entities, sandbox_mode=sandbox_mode)
        self.clock = VirtualClock(start_time)
        self.engine = Engine(self.clock)
        self._verify = verify
        self._maximum_timer_interval = maximum_timer_interval
        self._past_executions: list[History] = []
        self.turns = Turns(self.registry, self.converter, maximum_timer_interval)
        self._activities = Activities(self.registry, self.converter, self.clock, self._pause)
        self._taker = Taker()
        self._numbers = itertools.count(1)
        self._busy: set[asyncio.Task[None]] = set()
        self._paused: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._turns_in_a_row: Counter[str] = Counter()
        self._turns_without_a_breath = 0
        self._resting: dict[str, str] = {}
        """By instance: the turn that was one too many, until the test has to do with the instance again."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    # Starting and ending

    async def __aenter__(self) -> WorkflowEnvironment:  # noqa: PYI034 - typing has Self from 3.11 on
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a workflow environment runs on asyncio, and this is another event loop, trio's perhaps; for anyio's "
                "pytest plugin, a fixture says so: def anyio_backend(): return 'asyncio'"
            ) from None
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        await self.close()
        if error is not None:
            tell_histories(error, self.histories[-MOST_HISTORIES:])
        elif self._verify:
            for history in self.histories:
                self._replay(history)

    @property
    def histories(self) -> list[History]:
        """Every execution so far: those that have continued as new, then the latest of each instance."""
        latest = [History(self.engine.history_of(each.instance_id)) for each in self.engine.all_instances()]
        return [*self._past_executions, *(history for history in latest if len(history))]

    def _replay(self, history: History) -> None:
        __tracebackhide__ = True
        try:
            repeat(
                history,
                self.registry.get_orchestrator(history.workflow_name or ""),
                data_converter=self.converter,
                maximum_timer_interval=self._maximum_timer_interval,
            )
        except ReplayError as error:
            tell_histories(error, [history])
            raise

    async def close(self) -> None:
        """Cancel the activities that still run and close the workflows that still wait.

        Handles can still be asked for status and history.
        """
        if self._closed:
            return
        self._closed = True
        self._activities.is_stopping = True
        left = [*self._busy, *self._paused]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._activities.close()
        self.turns.close()
        self._changed.set()  # for tasks of the test that still wait for a result

    def _check_usable(self) -> None:
        __tracebackhide__ = True
        if self._closed:
            raise RuntimeError("this workflow environment has been closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "this workflow environment belongs to another event loop, where it was entered; in pytest-asyncio, "
                "an async fixture of a wider scope has a loop of its own unless the test asks for that one: "
                "@pytest.mark.asyncio(loop_scope=...)"
            )

    # Workflows

    async def execute(self, orchestrator: AnyFunction | str, *, input: Any = None, **options: Any) -> Any:
        """Run a workflow to its end and return its result; takes the options of :meth:`start`.

        Raises what :meth:`WorkflowHandle.result` raises.
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
        """Start a workflow and let it run as far as it gets without time passing.

        The default ``instance_id`` is its name and a number.  Raises ``LookupError`` for a name that is not
        registered, with the names there are, and ``ValueError`` for an instance id that is taken.
        """
        __tracebackhide__ = True
        name = name_of(orchestrator)
        names = self.registry.names("orchestrator")
        if name not in names:
            raise LookupError(not_registered("orchestrator", name, names))
        request = pb.CreateInstanceRequest(
            instanceId=instance_id or f"{name}-{next(self._numbers)}",
            name=name,
            input=helpers.get_string_value(self.converter.serialize(input)),
            version=helpers.get_string_value(version),
            tags=dict(tags or {}),
        )
        if start_at is not None:
            request.scheduledStartTimestamp.FromDatetime(start_at)
        await self.call(self.engine.StartInstance, request)
        return WorkflowHandle(self, request.instanceId)

    def handle(self, instance_id: str) -> WorkflowHandle:
        """The handle of an instance that the test did not start itself, such as a sub-orchestration.

        ``KeyError`` if there is none, naming those there are.
        """
        if self.engine.instance(instance_id) is None:
            known = ", ".join(each.instance_id for each in self.engine.all_instances()) or "none"
            raise KeyError(f"no instance {instance_id!r} in this environment; there are: {known}")
        return WorkflowHandle(self, instance_id)

    # Activities and entities

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
        """Answer an activity from the test, from its next call on; it need not be registered.

        One of ``returns=value``, ``raises=error``, ``calls=function`` (of the context and the input, of the input, or
        of nothing; async or not; it gets the input as the type it is annotated with), ``sequence=[...]`` (one outcome
        a call: values, errors, or ``NEVER``) and ``never=True``; and with any of them ``delay=seconds or timedelta``
        on the environment's clock.

        The stub's ``calls`` are its calls so far.
        """
        __tracebackhide__ = True
        stub = make_stub(
            name_of(activity),
            returns=returns,
            raises=raises,
            calls=calls,
            sequence=sequence,
            never=never,
            delay=delay,
        )
        self._activities.stubs[stub.name] = stub
        return stub

    @property
    def calls(self) -> list[ActivityCall]:
        """Every call of an activity so far, stubbed or not, in the order in which they started."""
        return list(self._activities.calls)

    async def signal_entity(
        self, entity: EntityInstanceId, operation: str, *, input: Any = None, at: datetime | None = None
    ) -> None:
        """Signal an entity, now or ``at`` a later time, and let it and whatever it sets in motion run.

        Raises ``LookupError`` for an entity that is not registered, with the names there are: nobody hears of what
        becomes of a signal, so that a typing error would show nowhere.
        """
        __tracebackhide__ = True
        names = self.registry.names("entity")
        if entity.entity not in names:
            raise LookupError(not_registered("entity", entity.entity, names))
        request = pb.SignalEntityRequest(
            instanceId=str(entity),
            name=operation,
            input=helpers.get_string_value(self.converter.serialize(input)),
            requestId=f"signal-{next(self._numbers)}",
        )
        if at is not None:
            request.scheduledTime.FromDatetime(at)
        await self.call(self.engine.SignalEntity, request)

    def entity_state(self, entity: EntityInstanceId, return_type: type | None = None) -> Any:
        """The state of an entity, ``None`` if it has none."""
        return self.converter.deserialize(self.engine.entity_state_of(str(entity)), return_type)

    # Time

    @property
    def now(self) -> datetime:
        """The environment's time: aware, UTC."""
        return self.clock.now()

    async def advance(self, by: timedelta | float) -> None:
        """Let time pass, seconds or a timedelta, and everything happen that falls into it.

        Activities that run are waited for first, up to ``patience`` seconds: they take no time on this clock.  Raises
        :class:`WorkflowStuckError` after that.
        """
        __tracebackhide__ = True
        self._check_usable()
        self._turns_in_a_row.clear()
        goal = self._later(by)
        for instance_id in [*self._resting]:
            self._rouse(instance_id)
        await self._finish_activities()
        while self.clock.advance_to(goal):
            await self._finish_activities()

    def _later(self, by: timedelta | float) -> datetime:
        __tracebackhide__ = True
        try:
            goal = self.now + (by if isinstance(by, timedelta) else timedelta(seconds=by))
        except TypeError:
            raise TypeError(f"advance() takes seconds or a timedelta, not {by!r}") from None
        except OverflowError:
            raise ValueError(f"advance({by!r}) goes beyond the calendar: it is {self.now:%Y-%m-%d} here") from None
        if goal < self.now:
            raise ValueError(f"time does not go backwards: advance({by!r})")
        return goal

    async def _finish_activities(self) -> None:
        await self.settle()
        while self._busy:
            if not await self._wait_for_change(self.patience):
                raise WorkflowStuckError(self._describe_running())
            await self.settle()

    def _describe_running(self) -> str:
        names = sorted({task.get_name() for task in self._busy})
        return (
            f"activities or entities still run after {self.patience:g} seconds of real time, and time stands still for "
            f"them: {', '.join(names)}; stub one that should take time with delay= or never=True"
        )

    # Running

    async def call(self, method: Callable[[Any, Any], Any], request: Any) -> None:
        """Ask the engine for something, as a client would, and let what it sets in motion run."""
        __tracebackhide__ = True
        self._check_usable()
        self._turns_in_a_row.clear()
        self._rouse(getattr(request, "instanceId", ""))
        method(request, _IN_PROCESS)
        self._changed.set()
        await self.settle()

    async def settle(self) -> None:
        """Run everything that can run without time passing.

        Async activities that wait for something outside of the environment are left running.
        """
        patience = _STEPS_WITHOUT_PROGRESS
        while True:
            if self._drain():
                patience = _STEPS_WITHOUT_PROGRESS
            if self._turns_without_a_breath >= _TURNS_WITHOUT_A_BREATH:
                # Counted, and not timed, so that what the test's other tasks do comes at the same turn each time.
                self._turns_without_a_breath = 0
                await asyncio.sleep(0)
                continue
            if not self._busy or patience == 0:
                return
            patience -= 1
            await asyncio.sleep(0)
            if self._activities.is_threaded and not await self._wait_for_change(self.patience):
                return

    def _drain(self) -> bool:
        """Take every work item there is, or many; returns whether there was one."""
        found = False
        while self._turns_without_a_breath < _TURNS_WITHOUT_A_BREATH:
            # What is due at one instant is one step, as it is for an engine whose thread wakes up for it.
            while (due := self.clock.next_due()) is not None and due <= self.now:
                self.clock.advance_to(self.now)
            handout = self.engine.take(self._taker)
            if handout is None:
                return found
            found = True
            if handout.kind == "orchestration":
                self._run_turn(handout)
            elif handout.kind == "activity":
                self._run_in_background(self._run_activity(handout), handout.key)
            else:
                self._run_in_background(self._run_entity(handout), handout.key)
        return found

    def _run_turn(self, handout: Handout) -> None:
        instance = self.engine.instance(handout.key)
        assert instance is not None
        self._turns_without_a_breath += 1
        self._turns_in_a_row[handout.key] += 1
        if self.turn_limit is not None and self._turns_in_a_row[handout.key] > self.turn_limit:
            # Its turn stays handed out, so that it rests, and the test may look at it or go on with others.
            self._resting[handout.key] = handout.token
            raise WorkflowStuckError(
                f"workflow {instance.name!r}, instance {handout.key!r}, has had {self.turn_limit} turns while the test "
                f"waited, it is {self.now:%Y-%m-%d %H:%M} by now, and it goes on: if it has no end of its own, "
                "await env.advance(...) instead of a result, and terminate it; if it has one, turn_limit= allows more"
            )
        execution = self.engine.execution_of(handout.key)
        response = self.turns.run(instance, execution, handout.token)
        before = [*instance.history, *instance.dispatched_events] if _continues(response) else []
        self.engine.CompleteOrchestratorTask(response, _IN_PROCESS)
        if before:
            self._past_executions.append(History(before))  # which the engine has cleared
        self._changed.set()

    def _rouse(self, instance_id: str) -> None:
        token = self._resting.pop(instance_id, None)
        if token is not None:
            self.engine.take_back(token)

    async def _run_activity(self, handout: Handout) -> None:
        response = await self._activities.perform(handout.message.activityRequest, handout.token)
        self.engine.CompleteActivityTask(response, _IN_PROCESS)

    async def _run_entity(self, handout: Handout) -> None:
        request = handout.message.entityRequestV2
        result = await self._activities.in_thread(entity_batch, self.registry, self.converter, request, handout.token)
        self.engine.CompleteEntityTask(result, _IN_PROCESS)

    def _run_in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._busy.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._busy.discard(task)
            self._paused.discard(task)
            self._changed.set()
            if not task.cancelled() and task.exception() is not None and not self._closed:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "the workflow environment failed", "exception": task.exception(), "task": task}
                )

        task.add_done_callback(done)

    async def _pause(self, delay: timedelta) -> None:
        """Called by an activity: wait on the environment's clock, without holding it up."""
        task = asyncio.current_task()
        assert task is not None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def resume() -> None:
            if not future.done():
                self._paused.discard(task)
                self._busy.add(task)
                future.set_result(None)

        self._busy.discard(task)
        self._paused.add(task)
        self._changed.set()
        if delay != timedelta.max:
            self.clock.call_at(self.now + delay, resume)
        await future

    async def wait_until(self, done: Callable[[], bool], what: Callable[[], str]) -> None:
        """Run, and let time pass if it may, until ``done()``.

        Raises :class:`WorkflowStuckError` with ``what()`` when nothing is left that could make it true.
        """
        __tracebackhide__ = True
        self._turns_in_a_row.clear()
        has_warned = False
        while not done():
            self._check_usable()
            await self.settle()
            if done():
                return
            if self._busy:
                # They may take their time, a real database, say; but a test that hangs should say why.
                if not await self._wait_for_change(None if has_warned else self.patience):
                    _logger.warning("%s", self._describe_running())
                    has_warned = True
            elif self.auto_skip and self.clock.next_due() is not None:
                self.clock.advance_to(self.clock.next_due() or self.now)
            elif not await self._wait_for_change(self.patience):
                raise WorkflowStuckError(what())

    async def _wait_for_change(self, timeout: float | None) -> bool:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True


def _continues(response: pb.OrchestratorResponse) -> bool:
    status = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
    return any(each.completeOrchestration.orchestrationStatus == status for each in response.actions)
