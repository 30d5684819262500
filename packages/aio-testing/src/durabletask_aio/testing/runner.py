"""`InProcessRunner`: drives the engine of a workflow environment on the event loop of the test.

It takes work items from the engine until there are none, runs them, and moves the virtual clock when everything waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol

import grpc
from durabletask.serialization import DataConverter

from durabletask_aio.engine import events
from durabletask_aio.engine.clock import VirtualClock
from durabletask_aio.engine.descriptions import instance_state
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.memory import MemoryStore
from durabletask_aio.engine.service import TaskHubService
from durabletask_aio.engine.state import Instance
from durabletask_aio.engine.store import all_instances
from durabletask_aio.engine.streams import WorkerStream
from durabletask_aio.engine.work import BatchWork, TaskWork, TurnWork
from durabletask_aio.testing._upstream import entity_batch, pb
from durabletask_aio.testing.activities import Activities
from durabletask_aio.testing.executor import silent_logger
from durabletask_aio.testing.history import History
from durabletask_aio.testing.registry import Registry
from durabletask_aio.testing.step_functions import StepFunctions
from durabletask_aio.testing.turns import Turns
from durabletask_aio.testing.virtual_time import VirtualTime, to_microseconds
from durabletask_aio.testing.waiting import WorkflowStuckError

_MAX_IDLE_STEPS = 25
"""Iterations of the test's event loop in which an async activity may finish before it counts as still running."""

_MAX_TURNS_BETWEEN_YIELDS = 500
"""Turns after which the test's event loop gets to run other tasks and timeouts: a workflow may never end."""

_SEED = 1
"""Of the ids that the engine makes, so that every run of a test is the same."""

_logger = logging.getLogger("durabletask.aio.testing")


class CallContext(Protocol):
    """What the engine uses of the gRPC context of a call in process."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Raise the error of a call that the engine refuses."""
        ...


class _CallContext:
    """The gRPC context of a method of the environment: aborting raises `ValueError`."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise ValueError(details)


_CALL_CONTEXT = _CallContext()


class Settings(Protocol):
    """The settings of an environment that may change while it runs."""

    auto_skip: bool
    stuck_timeout: float
    turn_limit: int | None


class InProcessRunner:
    """The engine of one environment, and what runs its work items."""

    def __init__(
        self,
        registry: Registry,
        converter: DataConverter,
        start_time: datetime,
        maximum_timer_interval: timedelta | None,
        settings: Settings,
    ) -> None:
        self.registry = registry
        self.converter = converter
        self.settings = settings
        clock, chance = VirtualClock(to_microseconds(start_time)), random.Random(_SEED)
        self._store = MemoryStore()
        self.kernel = Kernel(self._store, clock, new_id=lambda: f"{chance.getrandbits(64):016x}")
        self.service = TaskHubService(self.kernel, in_process=True)
        self.time = VirtualTime(clock, self.kernel)
        self.activities = Activities(registry, converter, self.time.now, self._sleep_on_clock)
        self.steps = StepFunctions(self.activities.stubs, self.time.now)
        self.turns = Turns(registry, converter, maximum_timer_interval, self.steps)
        self._stream = WorkerStream(expires=False, is_pulled=True)
        self.kernel.open_stream(self._stream)
        self._running: set[asyncio.Task[None]] = set()
        """Activities and entity operations that may finish without time passing."""
        self._sleeping: set[asyncio.Task[None]] = set()
        """Activities that wait for the virtual clock."""
        self._changed = asyncio.Event()
        self._turns_per_instance: Counter[str] = Counter()
        """Turns since the test last began to wait for something."""
        self._turns_since_yield = 0
        self._paused_instances: dict[str, str] = {}
        """The leases of turns beyond the turn limit, by instance id; they run when the test next uses the instance."""
        self._past_executions: list[History] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def bind_to_running_loop(self) -> None:
        """Remember the event loop; raises `RuntimeError` outside of asyncio."""
        self._loop = asyncio.get_running_loop()

    def check_usable(self) -> None:
        """Raise `RuntimeError` on another event loop than that of the environment, and once it has been closed."""
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

    async def close(self) -> None:
        """Cancel the running activities and dispose of the live workflows."""
        if self._closed:
            return
        self._closed = True
        self.activities.is_stopping = True
        tasks = [*self._running, *self._sleeping]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.activities.close()
        self.turns.close()
        self.steps.close()
        self._changed.set()  # Wakes tasks of the test that still wait for a result.

    # -- state ----------------------------------------------------------------------------------------------------

    # Read from the store itself: no other thread uses it, and it stays readable once the environment is closed.

    def instance(self, instance_id: str) -> pb.OrchestrationState:
        """Return the state of an instance; `KeyError` if there is none."""
        return instance_state(self._store, self._found(instance_id), with_payloads=True)

    def status(self, instance_id: str) -> int | None:
        """Return the status of an instance, as upstream's number; `None` if there is none."""
        found = self._store.instance(instance_id)
        return None if found is None else found.status

    def instance_ids(self) -> list[str]:
        """Return the ids of all instances, in the order of their creation."""
        return [each.instance_id for each in all_instances(self._store)]

    def history(self, instance_id: str) -> History:
        """Return the history of an instance's latest execution; `KeyError` for an unknown instance."""
        recorded = self._store.history(self._found(instance_id))
        return History(events.past_events(recorded), instance_id=instance_id)

    def _found(self, instance_id: str) -> Instance:
        found = self._store.instance(instance_id)
        if found is None:
            raise KeyError(instance_id)
        return found

    @property
    def histories(self) -> list[History]:
        """The executions that continued as new, then the latest execution of each instance."""
        latest = map(self.history, self.instance_ids())
        return [*self._past_executions, *(history for history in latest if _has_a_turn(history))]

    def entity_state(self, entity_id: str) -> str | None:
        """Return the encoded state of an entity, `None` if it has none."""
        found = self._store.entity(entity_id)
        return None if found is None else found.state

    # -- running --------------------------------------------------------------------------------------------------

    async def call(self, method: Callable[[Any, Any], Any], request: Any, context: CallContext = _CALL_CONTEXT) -> Any:
        """Call a method of the engine, as a client would, run everything that follows, and return the response."""
        __tracebackhide__ = True
        self.check_usable()
        self._turns_per_instance.clear()
        self._resume(getattr(request, "instanceId", ""))
        response = method(request, context)
        self._changed.set()
        await self.settle()
        return response

    async def settle(self) -> None:
        """Run everything that can run without time passing, except activities that wait for something outside."""
        idle_steps = 0
        while True:
            if self._run_work_items():
                idle_steps = 0
            if self._turns_since_yield >= _MAX_TURNS_BETWEEN_YIELDS:
                # Counted and not timed, so that the test's other tasks run at the same turn each time.
                self._turns_since_yield = 0
                await asyncio.sleep(0)
                continue
            if not self._running or idle_steps == _MAX_IDLE_STEPS:
                return
            idle_steps += 1
            await asyncio.sleep(0)
            if self.activities.is_threaded and not await self._wait_for_change(self.settings.stuck_timeout):
                return

    async def wait_until_time(self, condition: Callable[[], bool], describe: Callable[[], str], end: datetime) -> bool:
        """Wait as `wait_until` does, up to a time of the virtual clock; returns whether `condition()` is true.

        Raises:
            WorkflowStuckError: if time cannot pass because `auto_skip` is off.
        """
        __tracebackhide__ = True
        has_passed = self.time.now() >= end

        def pass_end() -> None:
            nonlocal has_passed
            has_passed = True
            self._changed.set()

        cancel = self.time.call_at(end, pass_end)
        try:
            await self.wait_until(lambda: has_passed or condition(), describe)
        finally:
            cancel()
        return condition()

    async def wait_until(self, condition: Callable[[], bool], describe: Callable[[], str]) -> None:
        """Run, and let time pass if `auto_skip` allows it, until `condition()` is true.

        Raises:
            WorkflowStuckError: with the text of `describe()`, when nothing is left that could make it true.
        """
        __tracebackhide__ = True
        self._turns_per_instance.clear()
        has_warned = False
        while not condition():
            self.check_usable()
            await self.settle()
            if condition():
                return
            if self._running:
                # An activity may take long, because it uses a real database for example; a hanging one is reported.
                if not await self._wait_for_change(None if has_warned else self.settings.stuck_timeout):
                    _logger.warning("%s", self._describe_running())
                    has_warned = True
            elif self.settings.auto_skip and self.time.skip():
                pass
            elif not await self._wait_for_change(self.settings.stuck_timeout):
                raise WorkflowStuckError(describe())

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until `when`, and run everything that is due by then.

        Raises:
            WorkflowStuckError: if activities run longer than `stuck_timeout`, since they take no time on this clock.
        """
        __tracebackhide__ = True
        self._turns_per_instance.clear()
        for instance_id in [*self._paused_instances]:
            self._resume(instance_id)
        await self._finish_activities()
        while self.time.advance_to(when):
            await self._finish_activities()

    async def _finish_activities(self) -> None:
        await self.settle()
        while self._running:
            if not await self._wait_for_change(self.settings.stuck_timeout):
                raise WorkflowStuckError(self._describe_running())
            await self.settle()

    def _describe_running(self) -> str:
        names = sorted({task.get_name() for task in self._running})
        return (
            f"activities or entities still run after {self.settings.stuck_timeout:g} seconds of real time, and time "
            f"stands still for them: {', '.join(names)}; stub one that should take time with delay= or never=True"
        )

    async def _wait_for_change(self, timeout: float | None) -> bool:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    # -- work items -----------------------------------------------------------------------------------------------

    def _run_work_items(self) -> bool:
        """Take and run work items until there are none or it is time to yield; return whether there were any."""
        found = False
        while self._turns_since_yield < _MAX_TURNS_BETWEEN_YIELDS:
            # What is due now comes before the next turn, as on an engine that has a thread for its timers.
            self.time.fire_due()
            work = self.kernel.take(self._stream)
            if work is None:
                return found
            found = True
            if isinstance(work, TurnWork):
                self._run_turn(work)
            elif isinstance(work, TaskWork):
                self._run_in_background(self._run_activity(work), work.task.name)
            else:
                self._run_in_background(self._run_entity(work), work.entity.entity_id)
        return found

    def _run_turn(self, work: TurnWork) -> None:
        instance_id = work.instance.instance_id
        self._turns_since_yield += 1
        self._turns_per_instance[instance_id] += 1
        limit = self.settings.turn_limit
        if limit is not None and self._turns_per_instance[instance_id] > limit:
            # The turn is not completed: the instance pauses, and the test can inspect it or continue with others.
            self._paused_instances[instance_id] = work.token.lease
            raise WorkflowStuckError(
                f"workflow {work.instance.name!r}, instance {instance_id!r}, has had {limit} turns while the test "
                f"waited, it is {self.time.now():%Y-%m-%d %H:%M} by now, and it continues: if it has no end of its "
                "own, await env.advance(...) instead of a result, and terminate it; if it has one, turn_limit= allows "
                "more"
            )
        response = self.turns.run(work)
        if _continues_as_new(response):
            # The engine keeps only the history of the next execution.
            recorded = [*events.past_events([work.past()]), *map(pb.HistoryEvent.FromString, work.new())]
            self._past_executions.append(History(recorded))
        token = work.token
        self.kernel.complete(token.lease, lambda transaction: transaction.complete_turn(token, response))
        self._changed.set()

    def _resume(self, instance_id: str) -> None:
        lease = self._paused_instances.pop(instance_id, None)
        if lease is not None:
            self.kernel.requeue(lease)

    async def _run_activity(self, work: TaskWork) -> None:
        response = await self.activities.perform(pb.ActivityRequest.FromString(work.task.request))
        token = work.token
        self.kernel.complete(token.lease, lambda transaction: transaction.complete_activity(token, response))

    async def _run_entity(self, work: BatchWork) -> None:
        item, token = to_message(work), work.token
        batch = await self.activities.in_thread(
            entity_batch, self.registry, self.converter, silent_logger, item.entityRequestV2, item.completionToken
        )
        self.kernel.complete(token.lease, lambda transaction: transaction.complete_batch(token, batch.result()))

    def _run_in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._sleeping.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception() is not None and not self._closed:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the workflow environment failed", "exception": task.exception(), "task": task}
            )

    async def _sleep_on_clock(self, delay: timedelta) -> None:
        """Sleep in an activity until the virtual clock has moved by `delay`; `timedelta.max` never ends."""
        task = asyncio.current_task()
        assert task is not None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():
                self._sleeping.discard(task)
                self._running.add(task)
                future.set_result(None)

        self._running.discard(task)
        self._sleeping.add(task)
        self._changed.set()
        if delay != timedelta.max:
            self.time.call_at(self.time.now() + delay, wake)
        await future


def _has_a_turn(history: History) -> bool:
    """Whether any code has run; an instance that is terminated before its start has a history without a turn."""
    return any(event.HasField("orchestratorStarted") for event in history.protobuf)


def _continues_as_new(response: pb.OrchestratorResponse) -> bool:
    status = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
    return any(each.completeOrchestration.orchestrationStatus == status for each in response.actions)
