"""What upstream gets wrong, and how async workflows fare there.

Each test of upstream fails, with a sentence, when upstream mends the defect; then our way round it can go.  Two more
are where they are worked round: what is sent twice while suspended in ``test_suspension.py``, and the second suspension
in ``test_turns.py``.
"""

from __future__ import annotations

import asyncio
import gc
from datetime import datetime, timedelta
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from durabletask import task
from durabletask.entities import EntityInstanceId
from durabletask.internal import helpers
from durabletask.serialization import JsonDataConverter
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from durabletask.worker import _OrchestrationExecutor, _Registry, _RuntimeOrchestrationContext
from session_hub import START, Hub, Recorder
from worker_support import QUIET

from durabletask_aio.worker import _upstream
from durabletask_aio.worker.worker import TaskHubGrpcWorker


def begun(name: str, *events: pb.HistoryEvent) -> list[pb.HistoryEvent]:
    return [
        helpers.new_orchestrator_started_event(START),
        helpers.new_execution_started_event(name, "i", None),
        *events,
    ]


def answer(worker: Any, past: list[pb.HistoryEvent], new: list[pb.HistoryEvent]) -> list[pb.OrchestratorAction]:
    recorder = Recorder()
    request = pb.OrchestratorRequest(instanceId="i", pastEvents=past, newEvents=new)
    worker._execute_orchestrator(request, recorder, "token")
    assert recorder.response is not None
    return list(recorder.response.actions)


def worker_with(orchestrator: Any, kind: Any = TaskHubGrpcWorker) -> Any:
    worker = kind(logger=QUIET)
    worker.add_orchestrator(orchestrator)
    return worker


class TestWhatIsNoException:
    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
    def test_leaves_upstreams_turn_which_ends_the_worker_or_hangs_the_instance(
        self, error: type[BaseException]
    ) -> None:
        def raising(ctx: Any, _: Any) -> Any:
            raise error

        try:
            answer(worker_with(raising, UpstreamWorker), [], begun("raising"))
        except error:
            return
        pytest.fail(f"upstream's turn survives {error.__name__}: OrchestrationExecutor._process need not catch it")

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
    def test_fails_the_instance_here(self, error: type[BaseException]) -> None:
        async def raising(ctx: Any, _: Any) -> Any:
            raise error("as asked")

        [action] = answer(worker_with(raising), [], begun("raising"))

        assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED


class TestAnEventBehindTheEnd:
    """A completion after the end, in one batch with it, throws the last failure into the finished generator again."""

    PAST = (helpers.new_task_scheduled_event(1, "a"), helpers.new_task_scheduled_event(2, "b"))
    NEW = (
        helpers.new_orchestrator_started_event(START),
        helpers.new_task_failed_event(1, ValueError("a failed")),
        helpers.new_task_completed_event(2, "null"),
        helpers.new_event_raised_event("go", "7"),
    )

    def carried_over(self, worker: Any) -> list[str]:
        actions = answer(worker, begun("again", *self.PAST), list(self.NEW))
        assert actions[-1].completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
        return [event.eventRaised.name for event in actions[-1].completeOrchestration.carryoverEvents]

    def test_is_lost_by_upstream(self) -> None:
        def again(ctx: Any, _: Any) -> Any:
            first, _second = ctx.call_activity("a"), ctx.call_activity("b")
            try:
                yield first
            except task.TaskFailedError:
                ctx.continue_as_new(1, save_events=True)

        assert self.carried_over(worker_with(again, UpstreamWorker)) == [], (
            "upstream keeps events that arrive behind the end of an execution: the note in core's driver on why the "
            "task that it yields never fails has lost one of its reasons"
        )

    def test_is_kept_here(self) -> None:
        async def again(ctx: Any, _: Any) -> Any:
            first, _second = ctx.call_activity("a"), ctx.call_activity("b")
            try:
                await first
            except task.TaskFailedError:
                ctx.continue_as_new(1, save_events=True)

        assert self.carried_over(worker_with(again)) == ["go"]


class TestALockThatIsLeftWithACallOutstanding:
    COUNTER = EntityInstanceId("counter", "one")

    def test_is_not_released_by_upstream(self) -> None:
        context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
        entities = context._entity_context
        entities.emit_acquire_message("section", [self.COUNTER])
        entities.complete_acquire("section")
        entities.validate_operation_transition(self.COUNTER, one_way=False)  # the call

        assert list(entities.emit_lock_release_messages()) == [], (
            "upstream no longer takes an entity out of what it has to unlock while a call to it is outstanding: the "
            "copy that core's lock_entities makes can go"
        )

    def test_is_released_here(self) -> None:
        def counter(ctx: Any, value: int) -> int:
            return value

        async def leaving(ctx: Any, _: Any) -> str:
            async with ctx.lock_entities([self.COUNTER]):
                call = ctx.call_entity(self.COUNTER, "add", 1)
            await call
            async with ctx.lock_entities([self.COUNTER]):
                return "locked twice"

        def register(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(leaving)
            worker.add_entity(counter)

        hub = Hub(register)
        hub.start("leaving")
        hub.drain()

        assert hub.output() == '"locked twice"'


class TestReplay:
    def test_upstreams_does_not_look_at_inputs_and_so_neither_does_ours(self) -> None:
        """Not to be worked round: a replay that compared them would fail instances that upstream goes on with.

        ``durabletask.aio.testing.replay`` compares inputs when it is asked to.
        """

        def calling(ctx: Any, _: Any) -> Any:
            yield ctx.call_activity("a", input="now")

        async def async_calling(ctx: Any, _: Any) -> Any:
            await ctx.call_activity("a", input="now")

        recorded = helpers.new_task_scheduled_event(1, "a", '"before"')
        again = [helpers.new_orchestrator_started_event(START), helpers.new_event_raised_event("any", "1")]
        theirs = answer(worker_with(calling, UpstreamWorker), begun("calling", recorded), again)
        ours = answer(worker_with(async_calling), begun("async_calling", recorded), again)

        assert theirs == [], "upstream compares the inputs of activities on replay by now: so can we"
        assert ours == []

    def test_upstreams_retry_timeout_is_measured_on_the_machines_clock(self) -> None:
        """Core measures it on the workflow's; its proof is in ``proof/test_retries.py`` there."""
        context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
        context.current_utc_datetime = datetime(2024, 1, 1)
        policy = task.RetryPolicy(
            first_retry_interval=timedelta(seconds=1), max_number_of_attempts=9, retry_timeout=timedelta(hours=1)
        )
        retried: Any = context.call_activity("a", retry_policy=policy)
        retried.increment_attempt_count()

        assert retried.compute_next_delay() is None, (
            "upstream measures retry_timeout on the workflow's clock by now: core's own clock for retries can go"
        )

    def test_upstreams_generators_are_closed_by_the_garbage_collector(self) -> None:
        """Async workflows are closed in their worker thread: ``TestAnInstanceThatIsDropped`` in ``test_turns.py``."""
        closed: list[bool] = []

        def waiting(ctx: Any, _: Any) -> Any:
            try:
                yield ctx.wait_for_external_event("never")
            finally:
                closed.append(ctx.is_replaying)

        registry = _Registry()
        registry.add_orchestrator(waiting)
        gc.collect()
        gc.disable()
        try:
            executor = _OrchestrationExecutor(registry, QUIET, JsonDataConverter())
            executor.execute("i", [], begun("waiting"))
            del executor
            before = list(closed)
        finally:
            gc.enable()
        gc.collect()

        assert (before, closed) == ([], [False]), (
            "upstream closes generators that it drops, or marks them as replaying: see core's disposal"
        )


def test_our_executor_is_still_a_kind_of_upstreams() -> None:
    assert issubclass(_upstream.OrchestrationExecutor, _OrchestrationExecutor)
