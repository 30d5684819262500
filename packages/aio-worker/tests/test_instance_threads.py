"""Each live instance runs on one thread: what libraries keep in thread-locals is there after an await."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.worker import ConcurrencyOptions
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from worker_support import call_one, finished, leaked, run, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import turns
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.instance_threads import InstanceThreads

STEPS = 12


@pytest.fixture(autouse=True)
def sessions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the whole suite runs with few of them or none."""
    monkeypatch.delenv("DT_MAX_EXTENDED_SESSIONS", raising=False)


def echo(ctx: Any, value: Any) -> Any:
    return value


class Attempts:
    """Counts in a thread-local, as libraries for retries do."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._local.count = 0

    def another(self) -> int:
        self._local.count += 1
        count: int = self._local.count
        return count


async def counting(ctx: Any, _: Any) -> list[Any]:
    attempts, threads = Attempts(), set()
    for _step in range(STEPS):
        await ctx.call_activity("echo", input=1)
        attempts.another()
        threads.add(threading.current_thread().name)
    return [attempts.another(), sorted(threads)]


async def naming(ctx: Any, _: Any) -> str:
    await ctx.call_activity("echo", input=1)
    return threading.current_thread().name


def naming_generator(ctx: Any, _: Any) -> Any:
    yield ctx.call_activity("echo", input=1)
    return threading.current_thread().name


def many(client: TaskHubGrpcClient, orchestrator: str, number: int) -> list[Any]:
    ids = [client.schedule_new_orchestration(orchestrator) for _ in range(number)]
    return [finished(client, instance_id).get_output() for instance_id in ids]


@pytest.mark.parametrize("kind", [UpstreamWorker, None], ids=["upstream's class", "our class"])
def test_what_a_workflow_keeps_in_a_thread_local_lasts_across_its_awaits(
    engine: LocalBackend, client: TaskHubGrpcClient, kind: Any
) -> None:
    options = {} if kind is None else {"worker_class": kind}
    worker = started(engine, echo, orchestrators=[counting], **options)
    try:
        outputs = many(client, "counting", 20)
        assert worker.extended_session_stats.hits > 0
    finally:
        worker.stop()

    assert [count for count, _ in outputs] == [STEPS + 1] * 20
    assert all(len(threads) == 1 for _, threads in outputs)
    assert len({threads[0] for _, threads in outputs}) > 1


def test_the_next_turn_finds_the_session_whose_delivery_has_not_returned_yet(
    engine: LocalBackend, client: TaskHubGrpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has the response and continues, while the thread that sent it has not heard of that yet."""
    complete = turns.Delivery.CompleteOrchestratorTask

    def slowly(self: Any, response: Any) -> Any:
        answer = complete(self, response)
        time.sleep(0.1)
        return answer

    monkeypatch.setattr(turns.Delivery, "CompleteOrchestratorTask", slowly)
    worker = started(engine, echo, orchestrators=[naming])
    try:
        run(client, "naming")
    finally:
        worker.stop()

    stats = worker.extended_session_stats
    assert (stats.hits, stats.misses) == (1, {})


def test_what_cannot_live_on_stays_in_upstreams_pool(engine: LocalBackend, client: TaskHubGrpcClient) -> None:
    worker = started(engine, echo, orchestrators=[naming_generator, naming], worker_class=UpstreamWorker)
    try:
        generator = run(client, "naming_generator").get_output()
        workflow = run(client, "naming").get_output()
    finally:
        worker.stop()
    without = started(engine, echo, orchestrators=[naming], max_extended_sessions=0)
    try:
        no_session = run(client, "naming").get_output()
    finally:
        without.stop()

    assert generator.startswith("durabletask-aio-replays-")
    assert workflow.startswith("durabletask-aio-turns-")
    assert no_session.startswith("durabletask-aio-replays-")


def test_a_turn_that_takes_long_holds_up_those_alone_that_share_its_thread(
    engine: LocalBackend, client: TaskHubGrpcClient
) -> None:
    began, may_end = threading.Event(), threading.Event()

    async def slow(ctx: Any, _: Any) -> str:
        began.set()
        may_end.wait(30)
        return "slow"

    two = ConcurrencyOptions(maximum_thread_pool_workers=2)
    worker = started(engine, echo, orchestrators=[slow, naming], concurrency_options=two)
    binding = binding_of(worker)
    assert binding is not None
    held = binding.threads.thread_of("slow")
    elsewhere = next(name for name in map(str, range(100)) if binding.threads.thread_of(name) is not held)
    try:
        client.schedule_new_orchestration("slow", instance_id="slow")
        assert began.wait(30)
        output = run(client, "naming", instance_id=elsewhere).get_output()
    finally:
        may_end.set()
        worker.stop()

    assert output.startswith("durabletask-aio-turns-")


@pytest.mark.parametrize(
    ("why", "options"),
    [
        ("limit", {"max_extended_sessions": 1}),
        ("idle", {"extended_session_idle_timeout": 0.05}),
        ("stop", {}),
    ],
)
def test_what_is_evicted_is_closed_on_its_thread(
    engine: LocalBackend, client: TaskHubGrpcClient, why: str, options: dict[str, Any]
) -> None:
    """Where a `finally` finds what the code before it has kept in a thread-local."""
    local, closed = threading.local(), []

    async def keeping(ctx: Any, _: Any) -> None:
        local.mine = ctx.instance_id
        try:
            await ctx.wait_for_external_event("never")
        finally:
            closed.append(getattr(local, "mine", None))

    ids = [f"keeping-{why}-{number}" for number in range(6)]
    worker = started(engine, orchestrators=[keeping], **options)
    binding = binding_of(worker)
    assert binding is not None
    # Each on a thread of its own, or they would find what another has left.
    by_thread = {id(binding.threads.thread_of(each)): each for each in ids}
    live = {"limit": 1, "idle": 0, "stop": len(by_thread)}[why]
    try:
        for each in by_thread.values():
            client.schedule_new_orchestration("keeping", instance_id=each)
        assert wait_until(lambda: (worker.extended_session_stats.live, len(closed)) == (live, len(by_thread) - live))
    finally:
        worker.stop()

    assert worker.extended_session_stats.evictions[why] > 0
    assert sorted(closed) == sorted(by_thread.values())


def test_a_session_that_has_no_thread_is_closed_where_it_is() -> None:
    class Session:
        instance_id = "order-7"

        def dispose(self) -> None:
            closed.append(threading.current_thread())

    closed: list[threading.Thread] = []
    threads = InstanceThreads(4)
    threads.dispose(Session())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the worker is not running"):
        threads.thread_of("order-7")
    threads.open()
    threads.dispose(Session())  # type: ignore[arg-type]
    threads.close(wait=True)

    assert closed[0] is threading.current_thread()
    assert closed[1].name.startswith("durabletask-aio-turns-")


def test_the_threads_end_with_the_worker_and_come_again_with_it(
    engine: LocalBackend, client: TaskHubGrpcClient
) -> None:
    before = set(threading.enumerate())
    worker = started(engine, echo, orchestrators=[naming, call_one])
    first = run(client, "naming").get_output()
    worker.stop()
    assert wait_until(lambda: not leaked(before)), leaked(before)
    worker.start()
    second = run(client, "naming").get_output()
    worker.stop()

    assert first.startswith("durabletask-aio-turns-")
    assert second.startswith("durabletask-aio-turns-")


def test_an_instance_has_the_same_thread_for_as_long_as_the_worker_runs() -> None:
    threads = InstanceThreads(4)
    threads.open()
    try:
        assert [threads.thread_of("order-7") for _ in range(3)] == [threads.thread_of("order-7")] * 3
        assert len({id(threads.thread_of(str(number))) for number in range(100)}) == 4
    finally:
        threads.close(wait=True)
