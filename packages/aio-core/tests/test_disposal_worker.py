"""Ending well on upstream's own worker, untouched, with the garbage collector at work in another thread."""

import asyncio
import contextlib
import gc
import logging
import socket
import sys
import threading

import pytest
from disposals import held_instances
from durabletask import task
from durabletask.aio import as_orchestrator
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing import create_test_backend
from durabletask.worker import TaskHubGrpcWorker

from durabletask_aio.core import disposal, registration

WAIT = 60
QUIET = logging.getLogger("quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def collector():
    """Collect garbage every two milliseconds, on a thread of its own."""
    stop = threading.Event()

    def collect():
        while not stop.wait(0.002):
            gc.collect()

    gc.collect()
    gc.freeze()
    thread = threading.Thread(target=collect, name="collector")
    thread.start()
    yield thread
    stop.set()
    thread.join()
    gc.unfreeze()


@pytest.fixture
def engine(monkeypatch):
    """Upstream's worker and client on upstream's engine, with not even the two methods wrapped."""
    before = registration.originals, registration._registrar
    registration.uninstall()
    port = free_port()
    backend = create_test_backend(port=port)
    address = f"127.0.0.1:{port}"
    worker = TaskHubGrpcWorker(host_address=address, logger=QUIET)
    client = TaskHubGrpcClient(host_address=address, logger=QUIET)
    yield worker, client
    worker.stop()
    client.close()
    backend.stop()
    if before[0] is not None:
        registration.install(before[1])


@pytest.fixture
def reports(monkeypatch, capfd, recwarn):
    """Collect what Python reports in the background, and assert that there was nothing."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: found.append(repr(args)))
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(repr(args)))
    yield found
    gc.collect()
    disposal.dispose_pending()
    gc.collect()
    found += [str(warning.message) for warning in recwarn]
    assert found == []
    assert capfd.readouterr().err == ""


class Witness:
    def __init__(self):
        self.notes = []
        self.threads = set()

    def __call__(self, ctx, name):
        self.threads.add(threading.current_thread().name)
        try:
            replaying = ctx.is_replaying
            ctx.call_activity("must not be called")
        except BaseException as error:
            self.notes.append((name, type(error).__name__, replaying))
        else:
            self.notes.append((name, "scheduled", replaying))


def double(ctx: task.ActivityContext, n: int) -> int:
    return n * 2


def refuse(ctx: task.ActivityContext, n: int) -> int:
    raise ValueError("refused")


def test_everything_ends_well_on_upstreams_untouched_worker(engine, collector, reports):
    worker, client = engine
    witness = Witness()

    async def child(ctx, number):
        try:
            return await ctx.call_activity(double, input=number)
        finally:
            if ctx.is_replaying:
                pass

    async def lingering(ctx):
        try:
            await ctx.sleep(3600)
        finally:
            witness(ctx, "lingering")

    @contextlib.asynccontextmanager
    async def resource(ctx):
        try:
            yield
        finally:
            if disposal_has_begun(ctx):
                witness(ctx, "resource")

    def disposal_has_begun(ctx):
        return asyncio.get_running_loop().is_closed()

    @as_orchestrator
    async def returns(ctx, count):
        background = asyncio.create_task(lingering(ctx))
        async with resource(ctx):
            total = sum(await asyncio.gather(*(child(ctx, n) for n in range(count))))
            for n in range(5):
                total += await ctx.call_activity(double, input=n)
        assert not background.done()
        return total

    @as_orchestrator
    async def fails(ctx, count):
        _background = asyncio.create_task(lingering(ctx))
        async with resource(ctx):
            await ctx.call_activity(double, input=count)
            await ctx.call_activity(refuse, input=count)

    @as_orchestrator
    async def continues(ctx, count):
        _background = asyncio.create_task(lingering(ctx))
        async with resource(ctx):
            await ctx.call_activity(double, input=count)
        if count:
            ctx.continue_as_new(count - 1)
            return None
        return "the end"

    @as_orchestrator
    async def exits(ctx, count):
        await ctx.call_activity(double, input=count)
        sys.exit(count)

    for orchestrator in (returns, fails, continues, exits):
        worker.add_orchestrator(orchestrator)
    for activity in (double, refuse):
        worker.add_activity(activity)
    worker.start()

    started = {
        orchestrator: [client.schedule_new_orchestration(orchestrator, input=3) for _ in range(5)]
        for orchestrator in (returns, exits, fails, continues)
    }
    ends = {
        orchestrator: [client.wait_for_orchestration_completion(each, timeout=WAIT) for each in ids]
        for orchestrator, ids in started.items()
    }

    assert {end.serialized_output for end in ends[returns]} == {"26"}
    assert {end.serialized_output for end in ends[continues]} == {'"the end"'}
    assert {end.failure_details.error_type for end in ends[fails]} == {"durabletask.task.TaskFailedError"}
    assert {end.runtime_status for end in ends[exits]} == {OrchestrationStatus.FAILED}

    disposal.dispose_pending()
    assert {note[1:] for note in witness.notes} == {("InstanceEvicted", True)}
    assert collector.name not in witness.threads
    assert len(witness.notes) >= 20


def test_terminated_and_suspended_instances_end_well_too(engine, collector, reports):
    worker, client = engine
    witness = Witness()

    @as_orchestrator
    async def waits(ctx, _):
        try:
            await ctx.wait_for_external_event("go")
            return "went on"
        finally:
            if asyncio.get_running_loop().is_closed():
                witness(ctx, "main")

    worker.add_orchestrator(waits)
    worker.start()
    terminated, resumed = (client.schedule_new_orchestration(waits) for _ in range(2))
    for each in (terminated, resumed):
        client.wait_for_orchestration_start(each, timeout=WAIT)
    client.suspend_orchestration(resumed)
    client.terminate_orchestration(terminated, output="stopped")
    client.raise_orchestration_event(resumed, "go")
    client.resume_orchestration(resumed)

    assert client.wait_for_orchestration_completion(terminated, timeout=WAIT).runtime_status == (
        OrchestrationStatus.TERMINATED
    )
    assert client.wait_for_orchestration_completion(resumed, timeout=WAIT).serialized_output == '"went on"'

    worker.stop()
    gc.collect()
    disposal.dispose_pending()
    assert {note[1:] for note in witness.notes} == {("InstanceEvicted", True)}
    assert collector.name not in witness.threads
    assert not {terminated, resumed} & held_instances()
