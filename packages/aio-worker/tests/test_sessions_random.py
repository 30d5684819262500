"""Random workflows under random adversity: every single turn equals its full replay."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from durabletask.entities import EntityInstanceId
from durabletask.task import RetryPolicy
from scale import seeds
from session_hub import Difference, Hub, each_proof, run_randomly

from durabletask_aio.worker.worker import TaskHubGrpcWorker

pytestmark = pytest.mark.usefixtures(each_proof.__name__)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

EVENTS = ("red", "green", "blue")

names = st.sampled_from(EVENTS)
small = st.integers(0, 3)

leaf = st.one_of(
    st.tuples(st.just("activity"), small),
    st.tuples(st.just("failing"), small),
    st.tuples(st.just("retried"), small),
    st.tuples(st.just("sleep"), st.sampled_from([0, 1, 30])),
    st.tuples(st.just("event"), names),
    st.tuples(st.just("entity"), small),
    st.tuples(st.just("signal"), small),
    st.tuples(st.just("uuid"), small),
    st.tuples(st.just("status"), small),
)


def composed(children: SearchStrategy[Any]) -> SearchStrategy[Any]:
    several = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("sequence"), several),
        st.tuples(st.just("gather"), several),
        st.tuples(st.just("any"), several),
        st.tuples(st.just("timeout"), children, st.sampled_from([1, 10])),
        st.tuples(st.just("background"), children),
        st.tuples(st.just("locked"), several),
    )


programs = st.recursive(leaf, composed, max_leaves=8)


async def interpret(ctx: Any, program: Any, background: list[Any]) -> Any:
    kind, *arguments = program
    if kind == "activity":
        return await ctx.call_activity("value", input=arguments[0])
    if kind == "failing":
        try:
            return await ctx.call_activity("broken", input=arguments[0])
        except Exception as error:
            return type(error).__name__
    if kind == "retried":
        policy = RetryPolicy(first_retry_interval=_seconds(1), max_number_of_attempts=2)
        try:
            return await ctx.call_activity("broken", input=arguments[0], retry_policy=policy)
        except Exception as error:
            return type(error).__name__
    if kind == "sleep":
        await asyncio.sleep(arguments[0])
        return str(ctx.current_utc_datetime)
    if kind == "event":
        return await ctx.wait_for_external_event(arguments[0])
    if kind == "entity":
        return await ctx.call_entity(EntityInstanceId("counter", "one"), "add", arguments[0])
    if kind == "signal":
        ctx.signal_entity(EntityInstanceId("counter", "two"), "add", arguments[0])
        return None
    if kind == "uuid":
        return [ctx.new_uuid(), str(ctx.uuid4()), ctx.random().random()]
    if kind == "status":
        ctx.set_custom_status(arguments[0])
        return None
    if kind == "sequence":
        return [await interpret(ctx, each, background) for each in arguments[0]]
    if kind == "gather":
        return await asyncio.gather(*(interpret(ctx, each, background) for each in arguments[0]))
    if kind == "any":
        tasks = [asyncio.create_task(interpret(ctx, each, background)) for each in arguments[0]]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.result() for task in tasks if task in done]
    if kind == "timeout":
        try:
            return await ctx.with_timeout(interpret(ctx, arguments[0], background), arguments[1])
        except TimeoutError:
            return "timeout"
    if kind == "background":
        background.append(asyncio.create_task(interpret(ctx, arguments[0], background)))
        return None
    assert kind == "locked"
    async with ctx.lock_entities([EntityInstanceId("counter", "three")]):
        results = []
        for each in arguments[0]:
            results.append(await ctx.call_activity("value", input=len(each)))
        return results


def _seconds(count: int) -> Any:
    from datetime import timedelta

    return timedelta(seconds=count)


async def program(ctx: Any, arguments: Any) -> Any:
    source, rounds = arguments
    background: list[Any] = []
    result = await interpret(ctx, source, background)
    for task in background:
        await task
    if rounds:
        ctx.continue_as_new([source, rounds - 1], save_events=True)
        return None
    return result


def value(ctx: Any, number: int) -> int:
    return number


def broken(ctx: Any, number: int) -> int:
    raise ValueError(f"broken {number}")


def counter(ctx: Any, number: Any) -> Any:
    state = ctx.get_state(int, 0) + number
    ctx.set_state(state)
    return state


def register(worker: TaskHubGrpcWorker) -> None:
    worker.add_orchestrator(program)
    worker.add_activity(value)
    worker.add_activity(broken)
    worker.add_entity(counter)


def check(source: Any, rounds: int, seed: int) -> Hub:
    hub = Hub(register, workers=2, sessions=3)
    hub.start("program", json.dumps([source, rounds]))
    run_randomly(hub, seed, steps=60, events=EVENTS)
    hub.close()
    return hub


unhurried = hypothesis.settings(
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    print_blob=True,
)


@hypothesis.settings(unhurried, max_examples=60)
@hypothesis.given(programs, st.integers(0, 1), st.integers(0, 2**32))
def test_every_turn_equals_its_full_replay(source: Any, rounds: int, seed: int) -> None:
    check(source, rounds, seed)


@pytest.mark.slow
@pytest.mark.seeds
@pytest.mark.timeout(seeds(1500))
@hypothesis.settings(unhurried, max_examples=seeds(3000))
@hypothesis.given(programs, st.integers(0, 2), st.integers(0, 2**32))
def test_every_turn_of_thousands_of_programs_equals_its_full_replay(source: Any, rounds: int, seed: int) -> None:
    check(source, rounds, seed)


def test_the_adversity_does_use_sessions_and_does_miss_them() -> None:
    """Or the tests above would prove nothing."""
    hits, misses = 0, 0
    for seed in range(12):
        source = ["sequence", [["activity", 1], ["event", "red"], ["activity", 2], ["sleep", 30], ["activity", 3]]]
        hub = check(source, 2, seed)
        for worker in hub.workers:
            hits += worker.extended_session_stats.hits
            misses += sum(worker.extended_session_stats.misses.values())

    assert hits > 30
    assert misses > 30


def test_a_missing_proof_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from durabletask_aio.worker import sessions

    monkeypatch.setattr(sessions.History, "continues", lambda self, fingerprint: True)
    source = ["sequence", [["event", "red"], ["uuid", 1], ["event", "blue"], ["sleep", 1], ["activity", 1]]]

    def try_all() -> None:
        for seed in range(300):
            check(source, 2, seed)

    with pytest.raises(Difference, match=r"^full replay:\n"):
        try_all()
