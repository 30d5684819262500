"""Forks: a new instance with the history of another one up to an event or a step, run with the code of today."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import DurableEntity, EntityInstanceId

from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.cli import fork as fork_command
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.management.client import EngineClient

pytest.importorskip("durabletask_aio.worker", reason="the workflows need durabletask-aio-worker")

TIMEOUT = 30.0
ROUTE = ["to the wrong address"]
"""What the code of today does; a test repairs it."""


class Shop:
    """An engine with a worker, and what its activities were called with."""

    def __init__(self, engine: Engine, client: TaskHubGrpcClient) -> None:
        self.engine = engine
        self.client = client
        self.management: EngineClient = engine.management()
        self.calls: list[str] = []

    def charge(self, ctx: Any, item: str) -> str:
        self.calls.append(f"charge {item}")
        return f"paid {item}"

    def ship(self, ctx: Any, where: str) -> str:
        self.calls.append(f"ship {where}")
        return where

    def run(self, workflow: Callable[..., Any], value: Any = None) -> str:
        """Start an instance, and wait for its end."""
        instance_id = self.client.schedule_new_orchestration(workflow.__name__, input=value)
        self.result(instance_id)
        return instance_id

    def result(self, instance_id: str) -> Any:
        """Wait for the end of an instance, and return its output."""
        state = self.client.wait_for_orchestration_completion(instance_id, timeout=TIMEOUT)
        assert state is not None
        assert state.runtime_status is OrchestrationStatus.COMPLETED, state.failure_details
        return state.get_output()

    def started(self, workflow: Callable[..., Any], *events: str) -> str:
        """Start an instance, and wait until it has received events, each in a turn of its own."""
        instance_id = self.client.schedule_new_orchestration(workflow.__name__)
        self.client.wait_for_orchestration_start(instance_id, timeout=TIMEOUT)
        for name in events:
            self.client.raise_orchestration_event(instance_id, name)
            while f"eventRaised {name}" not in self.kinds(instance_id):
                pass
        return instance_id

    def history(self, instance_id: str) -> list[pb.HistoryEvent]:
        from durabletask_aio.engine import events

        with self.engine.kernel.queries() as reader:
            instance = reader.instance(instance_id)
            assert instance is not None
            return list(events.past_events(reader.history(instance)))

    def kinds(self, instance_id: str) -> list[str]:
        found: list[str] = []
        for event in self.history(instance_id):
            kind = event.WhichOneof("eventType") or ""
            name = getattr(getattr(event, kind), "name", "")
            found.append(f"{kind} {name}".strip())
        return found

    def refusal(self, instance_id: str, **place: Any) -> str:
        """Fork, and return why the engine refuses."""
        with pytest.raises(grpc.RpcError) as raised:
            self.management.fork(instance_id, **place)
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        return str(error.details())


async def order(ctx: Any, item: str) -> str:
    paid = await ctx.call_activity("charge", input=item)
    return f"{paid}, {await ctx.call_activity('ship', input=ROUTE[0])}"


async def two_orders(ctx: Any, _: Any) -> list[str]:
    return [await order(ctx, item) for item in ("tea", "milk")]


async def both(ctx: Any, _: Any) -> list[str]:
    charged = [ctx.call_activity("charge", input=item) for item in ("tea", "milk")]
    return list(await asyncio.gather(*charged))


async def listening(ctx: Any, _: Any) -> str:
    timer = ctx.sleep(86_400)
    await ctx.wait_for_external_event("first")
    await ctx.wait_for_external_event("second")
    timer.cancel()
    return "heard both"


async def child(ctx: Any, _: Any) -> str:
    await ctx.wait_for_external_event("go")
    return "the child's"


async def parent(ctx: Any, _: Any) -> str:
    result = ctx.call_sub_orchestrator(child)
    await ctx.wait_for_external_event("first")
    return str(await result)


async def locking(ctx: Any, _: Any) -> str:
    async with ctx.lock_entities([EntityInstanceId("counter", "forks")]):
        await ctx.wait_for_external_event("first")
    return "unlocked"


def generator(ctx: task.OrchestrationContext, item: str) -> Any:
    paid = yield ctx.call_activity("charge", input=item)
    shipped = yield ctx.call_activity("ship", input=ROUTE[0])
    return f"{paid}, {shipped}"


class Counter(DurableEntity):
    def add(self, amount: int) -> int:
        return amount


@pytest.fixture(scope="module", params=["sessions", "no sessions"])
def running(request: pytest.FixtureRequest) -> Iterator[Shop]:
    sessions = 100 if request.param == "sessions" else 0
    with Engine() as engine, engine.worker(max_extended_sessions=sessions) as worker, engine.client() as client:
        shop = Shop(engine, client)
        for each in (order, two_orders, both, listening, child, parent, locking, generator):
            worker.add_orchestrator(each)
        worker.add_activity(shop.charge)
        worker.add_activity(shop.ship)
        worker.add_entity(Counter, "counter")
        worker.start()
        yield shop


@pytest.fixture
def shop(running: Shop) -> Shop:
    ROUTE[0] = "to the wrong address"
    running.calls.clear()
    return running


def repair(shop: Shop) -> None:
    """The bug is found: the code of today ships elsewhere."""
    ROUTE[0] = "to the customer"
    shop.calls.clear()


@pytest.mark.parametrize("workflow", [order, generator])
@pytest.mark.parametrize("place", ["charge", "#1", "event"])
def test_a_fork_after_a_step_keeps_its_result_and_runs_the_code_of_today(shop: Shop, workflow: Any, place: str) -> None:
    source = shop.run(workflow, "tea")
    assert shop.calls == ["charge tea", "ship to the wrong address"]
    before = shop.kinds(source)
    repair(shop)

    after = before.index("taskCompleted") if place == "event" else place
    forked = shop.management.fork(source, after=after)
    assert shop.result(forked) == "paid tea, to the customer"
    assert shop.calls == ["ship to the customer"]
    assert shop.kinds(source) == before, "the other instance stays as it is"


def test_an_event_that_the_code_caused_is_kept_with_its_turn(shop: Shop) -> None:
    source = shop.run(order, "tea")
    scheduled = shop.kinds(source).index("taskScheduled ship")
    repair(shop)

    forked = shop.management.fork(source, after=scheduled)
    assert shop.result(forked) == "paid tea, to the wrong address"
    assert shop.calls == ["ship to the wrong address"], "it was under way, and runs again as it was asked for"


def test_a_fork_can_be_forked(shop: Shop) -> None:
    source = shop.run(order, "tea")
    once = shop.management.fork(source, "once", after="charge")
    shop.result(once)
    repair(shop)

    assert shop.result(shop.management.fork(once, after="charge")) == "paid tea, to the customer"
    assert shop.calls == ["ship to the customer"]


def test_a_step_that_ended_more_than_once_needs_a_number(shop: Shop) -> None:
    source = shop.run(two_orders)
    ends = [number for number, event in enumerate(shop.history(source)) if event.HasField("taskCompleted")]
    assert shop.refusal(source, after="charge") == (
        f"'charge' has ended 2 times in '{source}'; fork after one of the events {ends[0]}, {ends[2]}"
    )
    repair(shop)

    forked = shop.management.fork(source, after=ends[2])
    assert shop.result(forked) == ["paid tea, to the wrong address", "paid milk, to the customer"]
    assert shop.calls == ["ship to the customer"]


def test_activities_under_way_at_the_cut_run_again(shop: Shop) -> None:
    source = shop.run(both)
    first = shop.kinds(source).index("taskCompleted")
    done = shop.history(source)[first].taskCompleted.taskScheduledId
    shop.calls.clear()

    forked = shop.management.fork(source, after=first)
    assert shop.result(forked) == ["paid tea", "paid milk"]
    assert shop.calls == ["charge milk" if done == 1 else "charge tea"]


def test_timers_stay_due_when_they_were_and_events_after_the_cut_are_left_out(shop: Shop) -> None:
    source = shop.started(listening, "first", "second")
    assert shop.result(source) == "heard both"

    forked = shop.management.fork(source, after="first")
    while "eventRaised first" not in shop.kinds(forked):
        pass
    due = next(event.timerCreated.fireAt for event in shop.history(source) if event.HasField("timerCreated"))
    assert [(each.kind, each.due) for each in shop.management.details(forked).pending] == [
        (messages.Pending.TIMER, due)
    ]
    shop.client.raise_orchestration_event(forked, "second")
    assert shop.result(forked) == "heard both"


def test_a_terminated_instance_continues_as_a_fork(shop: Shop) -> None:
    source = shop.started(listening, "first")
    shop.client.terminate_orchestration(source)
    shop.client.wait_for_orchestration_completion(source, timeout=TIMEOUT)

    forked = shop.management.fork(source, after="first")
    shop.client.raise_orchestration_event(forked, "second")
    assert shop.result(forked) == "heard both"


def test_a_child_belongs_to_its_parent(shop: Shop) -> None:
    source = shop.started(parent, "first")
    history = shop.history(source)
    child_id = next(
        each.subOrchestrationInstanceCreated.instanceId
        for each in history
        if each.HasField("subOrchestrationInstanceCreated")
    )
    assert shop.refusal(source, after="first") == (
        f"cannot fork there: the sub-orchestration '{child_id}' is under way; fork elsewhere"
    )
    shop.client.raise_orchestration_event(child_id, "go")
    assert shop.result(source) == "the child's"

    assert shop.result(shop.management.fork(source, after="child")) == "the child's"
    forked_child = shop.management.fork(child_id, after="go")
    assert shop.result(forked_child) == "the child's"
    assert not shop.management.details(forked_child).instance.HasField("parent_id")
    assert len(shop.management.details(source).children) == 1


def test_a_lock_belongs_to_its_holder(shop: Shop) -> None:
    source = shop.started(locking, "first")
    assert shop.result(source) == "unlocked"

    assert shop.refusal(source, after="first") == "cannot fork there: it is inside a critical section; fork elsewhere"
    assert shop.management.entity("@counter@forks").locked_by == ""


def test_places_that_do_not_exist_are_refused(shop: Shop) -> None:
    source = shop.run(order, "tea")
    count = len(shop.history(source))

    assert shop.refusal(source, after="pack") == f"no step 'pack' has ended in '{source}'; there are: charge, ship"
    for number in (count, -1):
        assert shop.refusal(source, after=number) == (
            f"Orchestration instance '{source}' has {count} events, with the numbers from 0 to {count - 1}, and none "
            f"with the number {number}"
        )
    for number in (0, 1):
        assert shop.refusal(source, after=number) == (
            f"cannot fork there: the code of '{source}' has not run before this event; restart it instead"
        )
    with pytest.raises(grpc.RpcError, match="fork after turns, after an event, or after a step"):
        shop.management.fork(source, turns=1, after="charge")
    with pytest.raises(grpc.RpcError, match="not found"):
        shop.management.fork("nothing", after="charge")


def test_the_command_forks(shop: Shop) -> None:
    source = shop.run(order, "tea")
    number = str(shop.kinds(source).index("taskCompleted"))
    server = shop.engine.listen()
    try:
        for arguments in (["--after", "charge"], ["--after", number], ["--turns", "2"], []):
            done = CliRunner().invoke(fork_command, [source, *arguments, "--address", server.address, "--json"])
            assert done.exit_code == 0, done.output
            assert shop.result(json.loads(done.stdout)["instance_id"]).startswith("paid tea, ")
        named = CliRunner().invoke(fork_command, [source, "--id", f"{source}-again", "--address", server.address])
        assert named.stdout == f"Started {source}-again from {source}.\n"
        both_given = CliRunner().invoke(fork_command, [source, "--after", "charge", "--turns", "1"])
        assert "give --after or --turns, not both" in str(both_given.exception) + both_given.output
    finally:
        server.stop()
