"""A suspended instance sends nothing twice: what the engine confirms while it is suspended counts at once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.internal import helpers
from durabletask.serialization import JsonDataConverter
from durabletask.task import RetryPolicy
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from durabletask.worker import _OrchestrationExecutor, _Registry
from session_hub import CONTEXT, START, Hub, Recorder, each_proof
from worker_support import QUIET, arrived, finished, recorded, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

pytestmark = pytest.mark.usefixtures(each_proof.__name__)

MANY_TURNS = 60


def generator(ctx: Any, _: Any) -> Any:
    yield ctx.create_timer(timedelta(seconds=1))
    result = yield ctx.call_activity("count", input="once")
    return result


async def asynchronous(ctx: Any, _: Any) -> Any:
    await ctx.sleep(1)
    return await ctx.call_activity("count", input="once")


async def everything(ctx: Any, _: Any) -> Any:
    """Asks for one of each kind in the turn that also brings the suspension."""
    await ctx.sleep(1)
    counter = EntityInstanceId("counter", "one")
    retried = RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2)
    ctx.send_event("other", "hello")
    ctx.signal_entity(counter, "add", 1)
    operations = [
        ctx.call_activity("count", input="plain"),
        ctx.call_activity("count", input="retried", retry_policy=retried),
        ctx.call_sub_orchestrator(child),
        ctx.create_timer(timedelta(seconds=5)),
        ctx.call_entity(counter, "add", 2),
    ]
    async with ctx.lock_entities([EntityInstanceId("counter", "two")]):
        pass
    return len(await ctx.when_all(operations))


async def child(ctx: Any, _: Any) -> Any:
    return await ctx.call_activity("count", input="child")


async def other(ctx: Any, _: Any) -> Any:
    return await ctx.wait_for_external_event("hello")


def counter(ctx: Any, value: int) -> int:
    total: int = ctx.get_state(int, 0) + value
    ctx.set_state(total)
    return total


class Sent:
    """A hub whose activities are counted."""

    def __init__(self, *workflows: Any, **options: Any) -> None:
        self.calls: Counter[str] = Counter()

        def count(_: Any, what: str) -> str:
            self.calls[what] += 1
            return what

        def register(worker: TaskHubGrpcWorker) -> None:
            for workflow in (*workflows, child, other):
                worker.add_orchestrator(workflow)
            worker.add_activity(count)
            worker.add_entity(counter)

        self.hub = Hub(register, **options)

    def suspended_with_its_timer(self, name: str) -> Hub:
        """The turn that fires the timer is the one that brings the suspension, and it is done."""
        hub = self.hub
        hub.start("other", instance_id="other")
        hub.start(name)
        hub.drain()
        hub.advance(1)
        hub.suspend()
        assert hub.turn()
        return hub

    def go_on(self, workers: int = 1) -> None:
        """Work, by turns, on what there is to do; without an end if each turn makes the next one."""
        for number in range(MANY_TURNS):
            if not self.hub.turn(number % workers):
                break

    def turn_while_suspended(self) -> pb.WorkItem:
        """The turn in which the result of the activity arrives, as other engines send it to a suspended instance.

        The engine of this project keeps the result until the resume, which is taken out here.
        """
        self.go_on()
        self.hub.resume()
        item = self.hub.take()
        assert item is not None
        events = item.orchestratorRequest.newEvents
        assert [event.WhichOneof("eventType") for event in events][1:] == ["taskCompleted", "executionResumed"]
        del events[-1]
        return item


SESSIONS = pytest.mark.parametrize("sessions", [0, 10], ids=["full replays", "sessions"])


@SESSIONS
def test_an_activity_asked_for_in_the_turn_of_the_suspension_runs_once(sessions: int) -> None:
    sent = Sent(asynchronous, sessions=sessions)
    hub = sent.suspended_with_its_timer("asynchronous")
    sent.go_on()

    assert (hub.status(), sent.calls) == ("SUSPENDED", {"once": 1})
    hub.resume()
    hub.drain()
    assert (hub.output(), sent.calls) == ('"once"', {"once": 1})


@SESSIONS
def test_whatever_is_asked_for_in_the_turn_of_the_suspension_is_asked_for_once(sessions: int) -> None:
    sent = Sent(everything, sessions=sessions)
    hub = sent.suspended_with_its_timer("everything")

    for _ in range(3):  # each completion is a turn while suspended
        sent.go_on()
        hub.advance(10)
    assert hub.status() == "SUSPENDED"
    hub.resume()
    for _ in range(3):
        hub.drain()
        hub.advance(10)

    assert (hub.status(), hub.output()) == ("COMPLETED", "5")
    assert sent.calls == {"plain": 1, "retried": 1, "child": 1}
    entity = hub.engine.GetEntity(pb.GetEntityRequest(instanceId="@counter@one", includeState=True), CONTEXT).entity
    assert entity.serializedState.value == "3"


@SESSIONS
def test_another_worker_finds_nothing_to_send_again(sessions: int) -> None:
    sent = Sent(everything, sessions=sessions, workers=2)
    hub = sent.suspended_with_its_timer("everything")
    sent.go_on(workers=2)
    hub.resume()
    for _ in range(3):
        sent.go_on(workers=2)
        hub.advance(10)

    assert hub.output() == "5"
    assert sent.calls == {"plain": 1, "retried": 1, "child": 1}


@SESSIONS
def test_what_was_asked_for_can_be_taken_back_after_the_resume(sessions: int) -> None:
    """With upstream the event arrives before the confirmation of the timer it cancels: a false non-determinism."""

    async def racing(ctx: Any, _: Any) -> Any:
        await ctx.sleep(1)
        try:
            return await ctx.with_timeout(ctx.wait_for_external_event("go"), 60)
        except TimeoutError:
            return "late"

    sent = Sent(racing, sessions=sessions)
    hub = sent.hub
    hub.start("racing")
    hub.drain()
    hub.advance(1)
    hub.suspend()
    hub.raise_event("go", '"in time"')
    hub.drain()
    hub.resume()
    hub.drain()

    assert (hub.status(), hub.output()) == ("COMPLETED", '"in time"')


def test_a_confirmation_that_fits_nothing_is_still_non_determinism() -> None:
    sent = Sent(asynchronous)
    hub = sent.suspended_with_its_timer("asynchronous")
    item = sent.turn_while_suspended()
    for past in (item.orchestratorRequest.pastEvents, hub.past.get(item.completionToken, [])):
        past.append(helpers.new_task_scheduled_event(7, "count"))
    response = hub.execute(item).response

    assert response is not None
    [action] = response.actions
    assert action.completeOrchestration.failureDetails.errorType == "durabletask.aio.HistoryDivergenceError"


def test_a_history_in_which_a_generator_sent_things_twice_goes_on_as_an_async_workflow() -> None:
    """The same workflow name, moved from `yield` to `await` while the instance was suspended."""
    before = Sent(generator)
    hub = before.suspended_with_its_timer("generator")
    before.go_on()

    after = Sent()
    for worker in (*after.hub.workers, after.hub.reference):
        worker.add_orchestrator(asynchronous, name="generator")
    hub.workers, hub.reference = after.hub.workers, after.hub.reference
    hub.resume()
    item = hub.take()
    assert item is not None
    # As on an engine that gives a suspended instance turns, in each of which upstream sends the activity again.
    past, new = item.orchestratorRequest.pastEvents, item.orchestratorRequest.newEvents
    [scheduled] = [event for event in past if event.HasField("taskScheduled")]
    [completed] = [event for event in new if event.HasField("taskCompleted")]
    past.extend([completed, scheduled, scheduled])
    hub.do(item)

    assert (hub.status(), hub.output()) == ("COMPLETED", '"once"')


@pytest.mark.parametrize("kind", [UpstreamWorker, TaskHubGrpcWorker], ids=["upstream's class", "our class"])
def test_on_a_real_worker_an_activity_runs_once_while_its_instance_is_suspended(
    engine: LocalBackend, client: TaskHubGrpcClient, kind: Any
) -> None:
    calls: Counter[str] = Counter()

    def count(ctx: Any, _: Any) -> str:
        calls[ctx.orchestration_id] += 1
        return "counted"

    def a_worker() -> Any:
        return started(engine, count, orchestrators=[asynchronous], worker_class=kind)

    worker = a_worker()
    instance_id = client.schedule_new_orchestration("asynchronous")
    client.wait_for_orchestration_start(instance_id, timeout=30)
    assert wait_until(lambda: _is_in_history(engine, instance_id, "timerCreated"))
    worker.stop()  # so that the timer fires, and the suspension arrives, while no worker can see the one alone
    assert wait_until(lambda: _is_queued(engine, instance_id, "timerFired"))
    client.suspend_orchestration(instance_id)
    worker = a_worker()
    try:
        assert wait_until(lambda: calls[instance_id] == 1)
        assert wait_until(lambda: _is_queued(engine, instance_id, "taskCompleted"))
        assert not wait_until(lambda: calls[instance_id] > 1, timeout=0.3)
        client.resume_orchestration(instance_id)
        state = finished(client, instance_id)
    finally:
        worker.stop()

    assert (state.runtime_status, state.serialized_output) == (OrchestrationStatus.COMPLETED, '"counted"')
    assert calls[instance_id] == 1


def _is_in_history(engine: LocalBackend, instance_id: str, kind: Any) -> bool:
    return any(event.HasField(kind) for event in recorded(engine, instance_id))


def _is_queued(engine: LocalBackend, instance_id: str, kind: Any) -> bool:
    return any(event.HasField(kind) for event in arrived(engine, instance_id))


class TestUpstreamsDefect:
    """Each fails when upstream fixes it; then `TurnExecutor._confirm` can go."""

    def test_upstream_sends_again_what_is_confirmed_while_it_is_suspended(self) -> None:
        past = [
            helpers.new_orchestrator_started_event(START),
            helpers.new_execution_started_event("generator", "i", None),
            helpers.new_timer_created_event(1, START),
        ]
        new = [
            helpers.new_orchestrator_started_event(START),
            helpers.new_timer_fired_event(1, START),
            pb.HistoryEvent(executionSuspended=pb.ExecutionSuspendedEvent()),
        ]
        confirmed = [*past, *new, helpers.new_task_scheduled_event(2, "count")]
        anything = [pb.HistoryEvent(eventRaised=pb.EventRaisedEvent(name="any"))]

        first, second = _actions(past, new), _actions(confirmed, anything)

        assert [action.id for action in first] == [2]
        assert [action.id for action in second] == [2], (
            "upstream no longer sends again, turn after turn, what the engine confirmed while the instance was "
            "suspended: TurnExecutor._confirm in durabletask_aio.core.turn_executor can go"
        )

    def test_a_generator_on_our_worker_behaves_as_it_does_on_upstreams(self) -> None:
        """Upstream's behaviour for generators does not change, not even for the better."""
        sent = Sent(generator)
        hub = sent.suspended_with_its_timer("generator")
        item = sent.turn_while_suspended()
        upstream = UpstreamWorker(logger=QUIET)
        upstream.add_orchestrator(generator)
        theirs, ours = Recorder(), Recorder()
        for worker, recorder in ((upstream, theirs), (hub.workers[0], ours)):
            worker._execute_orchestrator(hub.whole(item), recorder, item.completionToken)

        assert theirs.response is not None
        assert ours.response is not None
        assert [action.id for action in theirs.response.actions] == [2]
        assert list(ours.response.actions) == list(theirs.response.actions)


def _actions(past: list[pb.HistoryEvent], new: list[pb.HistoryEvent]) -> Any:
    registry = _Registry()
    registry.add_orchestrator(generator)
    executor = _OrchestrationExecutor(registry, QUIET, JsonDataConverter())
    return executor.execute("i", past, new).actions


class TestAResumeOfWhatRuns:
    """A second click on "resume", say; or the execution that was suspended has continued as new meanwhile."""

    @SESSIONS
    def test_changes_nothing(self, sessions: int) -> None:
        async def waiting(ctx: Any, _: Any) -> Any:
            return await ctx.wait_for_external_event("go")

        sent = Sent(waiting, sessions=sessions)
        hub = sent.hub
        hub.start("waiting")
        hub.drain()
        hub.resume()
        hub.drain()
        assert hub.status() == "RUNNING"
        hub.suspend()
        hub.resume()
        hub.resume()
        hub.raise_event("go", "7")
        hub.drain()

        assert (hub.status(), hub.output()) == ("COMPLETED", "7")

    def test_fails_the_instance_on_upstreams_worker(self) -> None:
        def waiting(ctx: Any, _: Any) -> Any:
            yield ctx.wait_for_external_event("go")

        registry = _Registry()
        registry.add_orchestrator(waiting)
        executor = _OrchestrationExecutor(registry, QUIET, data_converter=JsonDataConverter())
        past = [
            helpers.new_orchestrator_started_event(START),
            helpers.new_execution_started_event("waiting", "i", None),
        ]
        [action] = executor.execute("i", past, [helpers.new_resume_event()]).actions

        assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED, (
            "upstream knows how to handle a resume of what runs: TurnExecutor._process need not look for it"
        )
