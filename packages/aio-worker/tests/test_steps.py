"""Steps and patches on a worker: with and without sessions, on two engines, with the threads that they use."""

import asyncio
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from durabletask.aio.client import WorkflowClient
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing import create_test_backend
from durabletask.worker import ConcurrencyOptions
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker
from worker_support import QUIET, finished, recorded, run, started, wait_until

from durabletask_aio.worker import diverged_turns
from durabletask_aio.worker.worker import TaskHubGrpcWorker

ran = []
release = threading.Event()


def double(value):
    ran.append(threading.current_thread().name)
    return 2 * value


async def triple(value):
    await asyncio.sleep(0)
    ran.append(threading.current_thread().name)
    return 3 * value


def add_one(ctx, value):
    return value + 1


async def steps(ctx, value):
    both = await asyncio.gather(ctx.run(double, value), ctx.run(triple, value))
    total = await ctx.run(sum, both)
    lazily = [await ctx.run(double, number, recorded="lazily") for number in range(3)]
    now = await ctx.run(double, total, recorded="now")
    return [total, lazily, now, await ctx.call_activity("add_one", input=now), ctx.patched("new")]


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


EXPECTED = "[10, [0, 2, 4], 20, 21, true]"


@pytest.fixture(autouse=True)
def _nothing_ran():
    ran.clear()
    release.clear()
    yield
    release.set()


@pytest.mark.parametrize("sessions", [0, 100])
def test_steps_run_once_and_apart_from_the_threads_of_turns(own_engine, no_leaks, sessions):
    worker = started(own_engine, add_one, orchestrators=[steps], max_extended_sessions=sessions)
    try:
        with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
            state = run(client, "steps", 2)
    finally:
        worker.stop()
    assert state.serialized_output == EXPECTED
    assert len(ran) == 6
    assert all(name.startswith(("durabletask-aio-steps", "durabletask-aio-activities")) for name in ran)
    names = [e.eventSent.name for e in recorded(own_engine, state.instance_id) if e.HasField("eventSent")]
    assert [name for name in names if not name.startswith("$wake-up.")] == [
        "$step.double",
        "$step.triple",
        "$step.sum",
        *["$step.double"] * 4,
        "$patch.new",
    ]


@pytest.mark.parametrize("worker_class", [TaskHubGrpcWorker, UpstreamWorker])
def test_steps_on_upstreams_in_memory_engine(no_leaks, worker_class):
    port = free_port()
    backend = create_test_backend(port=port)
    engine: Any = SimpleNamespace(address=f"localhost:{port}")
    try:
        worker = started(engine, add_one, orchestrators=[steps], worker_class=worker_class)
        try:
            with TaskHubGrpcClient(host_address=engine.address, logger=QUIET) as client:
                assert run(client, "steps", 2).serialized_output == EXPECTED
        finally:
            worker.stop()
    finally:
        backend.stop()
    assert len(ran) == 6


def wait_for_release(timeout=30):
    ran.append("waits")
    assert release.wait(timeout)
    return "released"


async def waiting(ctx):
    return await ctx.run(wait_for_release)


async def quick(ctx):
    return await ctx.run(double, 1, recorded="lazily")


@pytest.mark.parametrize("sessions", [0, 100])
def test_a_waiting_step_gives_up_its_thread(own_engine, no_leaks, sessions):
    """Each of two threads has ten instances whose steps wait, and other instances still get their turns."""
    worker = started(
        own_engine,
        orchestrators=[waiting, quick],
        max_extended_sessions=sessions,
        concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=2),
    )
    try:
        with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
            ids = [client.schedule_new_orchestration("waiting") for _ in range(20)]
            assert wait_until(lambda: ran.count("waits") == 20), ran
            assert run(client, "quick").serialized_output == "2"
            release.set()
            assert {finished(client, each).serialized_output for each in ids} == {'"released"'}
    finally:
        worker.stop()


async def asked(ctx):
    async for request in ctx.requests("add"):
        total = await ctx.run(double, request.data)
        request.answer(total)
        if total == 6:
            break
    return "answered"


@pytest.mark.parametrize(
    ("worker_class", "options"),
    [
        pytest.param(TaskHubGrpcWorker, {"max_extended_sessions": 0}, id="replayed"),
        pytest.param(TaskHubGrpcWorker, {"max_extended_sessions": 100}, id="sessions"),
        pytest.param(UpstreamWorker, {}, id="upstream"),
    ],
)
def test_waiting_steps_and_requests_on_upstreams_in_memory_engine(worker_class, options):
    """Fifty instances run their steps at the same time on a worker of six threads, and requests are answered.

    Threads are not looked at: that engine has one for each timer, and a request has a timer for its limit.
    """
    port = free_port()
    backend = create_test_backend(port=port)
    engine: Any = SimpleNamespace(address=f"localhost:{port}")
    concurrency = ConcurrencyOptions(maximum_concurrent_orchestration_work_items=100, maximum_thread_pool_workers=6)
    try:
        worker = started(
            engine,
            orchestrators=[waiting_async, asked],
            worker_class=worker_class,
            concurrency_options=concurrency,
            **options,
        )
        try:
            with TaskHubGrpcClient(host_address=engine.address, logger=QUIET) as client:
                ids = [client.schedule_new_orchestration("waiting_async") for _ in range(50)]
                assert wait_until(lambda: ran.count("waits") == 50), len(ran)
                release.set()
                assert {finished(client, each).serialized_output for each in ids} == {'"released"'}
                handle = WorkflowClient(client).get_handle(client.schedule_new_orchestration("asked"))
                assert [handle.ask("add", number, timeout=30) for number in (1, 3)] == [2, 6]
                assert handle.result(timeout=30) == "answered"
        finally:
            worker.stop()
    finally:
        backend.stop()


async def wait_async():
    ran.append("waits")
    while not release.is_set():
        await asyncio.sleep(0.01)
    return "released"


async def waiting_async(ctx):
    return await ctx.run(wait_async)


def hang():
    release.wait()


async def too_long(ctx):
    await ctx.run(hang, timeout=0.05)


def test_the_time_of_a_step_is_over_while_its_turn_is_paused(own_engine, no_leaks):
    worker = started(own_engine, orchestrators=[too_long])
    try:
        with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
            state = run(client, "too_long")
    finally:
        release.set()
        worker.stop()
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "the step did not end within 0.05 seconds" in state.failure_details.message


async def never_ends():
    ran.append("begun")
    await asyncio.Event().wait()


async def stopped(ctx):
    return await ctx.run(never_ends if not release.is_set() else double_two)


def double_two():
    return 4


def test_a_worker_that_stops_gives_the_turn_of_a_step_back(own_engine, no_leaks):
    worker = started(own_engine, orchestrators=[stopped], stop_grace_period=0)
    with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
        instance_id = client.schedule_new_orchestration("stopped")
        try:
            assert wait_until(lambda: "begun" in ran)
        finally:
            worker.stop()
        state = client.get_orchestration_state(instance_id)
        assert state.runtime_status is not OrchestrationStatus.FAILED
        release.set()
        worker = started(own_engine, orchestrators=[stopped])
        try:
            assert finished(client, instance_id).serialized_output == "4"
        finally:
            worker.stop()


async def old(ctx):
    await ctx.wait_for_external_event("go")
    return await ctx.call_activity("add_one", input=1)


async def new(ctx):
    await ctx.wait_for_external_event("go")
    if ctx.patched("step"):
        value = await ctx.run(double, 5)
    else:
        value = 1
    await ctx.wait_for_external_event("on") if ctx.patched("step") else None
    return await ctx.call_activity("add_one", input=value)


def test_an_old_worker_gives_back_what_a_new_one_has_patched(own_engine, no_leaks):
    """An instance goes from the old worker to the new one, then to the old one, and ends on the new one."""

    def worker_with(function):
        worker = TaskHubGrpcWorker(host_address=own_engine.address, logger=QUIET)
        worker.add_activity(add_one)
        worker.add_orchestrator(function, name="deployed")
        worker.start()
        return worker

    with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
        worker = worker_with(old)
        before = client.schedule_new_orchestration("deployed")
        client.wait_for_orchestration_start(before, timeout=30)
        worker.stop()
        worker = worker_with(new)
        client.raise_orchestration_event(before, "go")
        assert wait_until(lambda: len(ran) == 1)
        worker.stop()
        worker = worker_with(old)
        try:
            client.raise_orchestration_event(before, "on")
            assert wait_until(lambda: worker.extended_session_stats.diverged_turns > 0)
        finally:
            worker.stop()
        worker = worker_with(new)
        try:
            assert finished(client, before).serialized_output == "11"
        finally:
            worker.stop()
    assert len(ran) == 1


def ship(ctx, order):
    return f"{order} by sea"


def ship_by_air(ctx, order):
    return f"{order} by air"


async def without_patch(ctx, order):
    for number in range(3):
        await ctx.wait_for_external_event(f"go {number}")
    return await ctx.call_activity("ship", input=order)


async def with_patch(ctx, order):
    for number in range(3):
        await ctx.wait_for_external_event(f"go {number}")
        if number == 1 and ctx.patched("ship-by-air"):
            order = await ctx.run(str.upper, order)
    return await ctx.call_activity("ship_by_air" if ctx.patched("ship-by-air") else "ship", input=order)


@pytest.mark.parametrize("sessions", [0, 100])
def test_a_rolling_deployment_of_a_patch_fails_no_instance(own_engine, no_leaks, monkeypatch, sessions):
    """Old and new code side by side: instances have come to the patch, have not, or are started meanwhile."""
    monkeypatch.setattr(diverged_turns, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(diverged_turns, "MAX_PAUSE", 0.1)

    # The engine prefers the worker that had an instance last; one that is busy with another instance is passed over.
    one = ConcurrencyOptions(maximum_concurrent_orchestration_work_items=1)

    def worker_with(function):
        worker = TaskHubGrpcWorker(
            host_address=own_engine.address, logger=QUIET, max_extended_sessions=sessions, concurrency_options=one
        )
        worker.add_orchestrator(function, name="deliver")
        worker.add_activity(ship)
        worker.add_activity(ship_by_air)
        worker.start()
        return worker

    ids = []

    def go(instances, number):
        for instance_id in instances:
            client.raise_orchestration_event(instance_id, f"go {number}")

    def one_is_given_back():
        """Have instances under way that go from worker to worker, until the old one meets the patch."""
        ids.extend(client.schedule_new_orchestration("deliver", input="tea") for _ in range(5))
        for number in range(3):
            go(ids[-5:], number)
        return old_worker.extended_session_stats.diverged_turns > 0

    def taken(instance_id, number):
        events = recorded(own_engine, instance_id)
        return any(event.eventRaised.name == f"go {number}" for event in events)

    with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
        old_worker = worker_with(without_patch)
        try:
            before = [client.schedule_new_orchestration("deliver", input="tea") for _ in range(10)]
            go(before[:5], 0)
            go(before[:5], 1)
            assert wait_until(lambda: all(taken(each, 1) for each in before[:5]))
            new_worker = worker_with(with_patch)
            try:
                go(before[5:], 0)
                assert wait_until(one_is_given_back)
                old_worker.stop()
                go(before[5:], 1)
                go(before, 2)
                outputs = [finished(client, each).serialized_output for each in [*before, *ids]]
            finally:
                new_worker.stop()
        finally:
            old_worker.stop()
    assert outputs[:10] == [*['"tea by sea"'] * 5, *['"TEA by air"'] * 5]
    assert set(outputs[10:]) <= {'"tea by sea"', '"TEA by air"'}


def fails_until_released():
    ran.append("tried")
    if not release.is_set():
        raise ValueError("not yet")
    return "done"


async def rewound(ctx):
    first = await ctx.run(double, 4)
    return [first, await ctx.run(fails_until_released), await ctx.call_activity("add_one", input=first)]


@pytest.mark.parametrize("sessions", [0, 100])
def test_a_rewind_runs_the_step_again_that_failed_the_instance(own_engine, no_leaks, sessions):
    worker = started(own_engine, add_one, orchestrators=[rewound], max_extended_sessions=sessions)
    try:
        with TaskHubGrpcClient(host_address=own_engine.address, logger=QUIET) as client:
            state = run(client, "rewound")
            assert state.runtime_status is OrchestrationStatus.FAILED
            assert ran.count("tried") == 1
            release.set()
            client.rewind_orchestration(state.instance_id, reason="repaired")
            assert wait_until(lambda: finished(client, state.instance_id).serialized_output == '[8, "done", 9]')
    finally:
        worker.stop()
    assert ran.count("tried") == 2
    assert len(ran) == 3, "the step before it ran once"
