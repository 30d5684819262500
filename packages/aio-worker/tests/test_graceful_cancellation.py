"""Cancelling instances through clients: on two engines, with and without sessions, and in random histories."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from durabletask.aio import request_cancellation
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationState, OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from session_hub import Hub, each_proof, run_randomly
from worker_support import QUIET, finished, wait_until

from durabletask_aio.core.cancellation import CANCEL_EVENT, CANCELLED_TYPE
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.worker.worker import TaskHubGrpcWorker

OWN, UPSTREAMS = "this project's engine", "upstream's engine"


@contextmanager
def running(kind: str) -> Iterator[str]:
    """Run an engine; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if kind == OWN:
        with Engine() as engine:
            engine.listen(port)
            yield f"127.0.0.1:{port}"
        return
    backend = InMemoryOrchestrationBackend(port=port)
    backend.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        backend.stop()


@pytest.fixture(params=[OWN, UPSTREAMS], scope="module")
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(request.param) as address:
        yield address


@pytest.fixture(scope="module", params=[0, 100], ids=["without sessions", "with sessions"])
def worker(address: str, request: pytest.FixtureRequest) -> Iterator[TaskHubGrpcWorker]:
    with TaskHubGrpcWorker(host_address=address, logger=QUIET, max_extended_sessions=request.param) as worker:
        for workflow in (trip, stubborn, eternal, parent, abandoning, sheltering):
            worker.add_orchestrator(workflow)
        worker.add_activity(note)
        worker.start()
        yield worker


@pytest.fixture
def client(address: str, worker: TaskHubGrpcWorker) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
        yield client


NOTES: list[str] = []
"""What the activity `note` was called with, in the order of its calls."""


def note(ctx: Any, text: str) -> str:
    NOTES.append(f"{ctx.orchestration_id}: {text}")
    return text


def notes_of(instance_id: str) -> list[str]:
    return [text.removeprefix(f"{instance_id}: ") for text in NOTES if text.startswith(f"{instance_id}: ")]


async def trip(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    try:
        return await ctx.wait_for_external_event("confirmed")
    except asyncio.CancelledError as error:
        await ctx.call_activity("note", input=f"released: {error}")
        raise
    finally:
        await ctx.sleep(0.01)
        await ctx.call_activity("note", input="finally")


async def stubborn(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    try:
        await ctx.wait_for_external_event("never")
    except asyncio.CancelledError:
        return await ctx.call_activity("note", input="not today")


async def eternal(ctx: Any, rounds: int) -> Any:
    ctx.set_custom_status("waiting")
    if rounds:
        await ctx.sleep(0.02)
        ctx.continue_as_new(rounds - 1)
        return
    await ctx.wait_for_external_event("never")


async def parent(ctx: Any, linked: bool) -> Any:
    child = ctx.call_sub_orchestrator("trip", instance_id=f"{ctx.instance_id}-child", cancel_children=linked)
    ctx.set_custom_status("waiting")
    try:
        return await child
    finally:
        await ctx.call_activity("note", input="parent")


async def abandoning(ctx: Any, _: Any) -> Any:
    ctx.call_sub_orchestrator("trip", instance_id=f"{ctx.instance_id}-child", cancel_children=True)
    ctx.set_custom_status("waiting")
    await ctx.wait_for_external_event("never")


async def sheltering(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    work = asyncio.ensure_future(ctx.wait_for_external_event("done"))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError as error:
        ctx.set_custom_status("sheltered")
        return [str(error), await work]


def generator(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status("waiting")
    result = yield ctx.wait_for_external_event("go")
    return result


def has_status(client: TaskHubGrpcClient, instance_id: str, status: str) -> bool:
    state = client.get_orchestration_state(instance_id)
    return state is not None and state.serialized_custom_status == json.dumps(status)


def waiting(client: TaskHubGrpcClient, workflow: str, input: Any = None) -> str:
    instance_id = client.schedule_new_orchestration(workflow, input=input)
    assert wait_until(lambda: has_status(client, instance_id, "waiting"))
    return instance_id


def assert_cancelled(state: OrchestrationState, reason: str) -> None:
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert state.failure_details is not None
    assert (state.failure_details.error_type, state.failure_details.message) == (CANCELLED_TYPE, reason)


def test_an_instance_cleans_up_and_ends_as_cancelled(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "trip")
    request_cancellation(client, instance_id, "ill")
    assert_cancelled(finished(client, instance_id), "ill")
    assert notes_of(instance_id) == ["released: ill", "finally"]


async def test_an_asynchronous_client_can_ask(client: TaskHubGrpcClient, address: str) -> None:
    instance_id = waiting(client, "trip")
    async with AsyncTaskHubGrpcClient(host_address=address, logger=QUIET) as asynchronous:
        await request_cancellation(asynchronous, instance_id)
        state = await asynchronous.wait_for_orchestration_completion(instance_id, timeout=60)
    assert state is not None
    assert_cancelled(state, "the workflow was cancelled")


def test_a_request_that_comes_with_the_start_is_delivered(client: TaskHubGrpcClient) -> None:
    instance_id = client.schedule_new_orchestration("trip")
    request_cancellation(client, instance_id, "at once")
    assert_cancelled(finished(client, instance_id), "at once")


def test_repeated_requests_do_not_interrupt_the_cleanup(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "trip")
    for number in range(5):
        request_cancellation(client, instance_id, f"request {number}")
    assert_cancelled(finished(client, instance_id), "request 0")
    assert notes_of(instance_id) == ["released: request 0", "finally"]


def test_a_workflow_may_complete_all_the_same(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "stubborn")
    request_cancellation(client, instance_id, "ill")
    assert finished(client, instance_id).get_output() == "not today"


def test_shielded_work_continues(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "sheltering")
    request_cancellation(client, instance_id, "ill")
    assert wait_until(lambda: has_status(client, instance_id, "sheltered"))
    client.raise_orchestration_event(instance_id, "done", data=1)
    assert finished(client, instance_id).get_output() == ["ill", 1]


def test_an_instance_that_continues_as_new_again_and_again_is_cancelled(client: TaskHubGrpcClient) -> None:
    instance_id = client.schedule_new_orchestration("eternal", input=1_000_000)
    assert wait_until(lambda: has_status(client, instance_id, "waiting"))
    request_cancellation(client, instance_id, "enough")
    assert_cancelled(finished(client, instance_id), "enough")


def test_a_suspended_instance_is_cancelled_when_it_is_resumed(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "trip")
    client.suspend_orchestration(instance_id)
    assert wait_until(lambda: status_of(client, instance_id) is OrchestrationStatus.SUSPENDED)
    request_cancellation(client, instance_id, "ill")
    client.resume_orchestration(instance_id)
    assert_cancelled(finished(client, instance_id), "ill")


def status_of(client: TaskHubGrpcClient, instance_id: str) -> OrchestrationStatus | None:
    state = client.get_orchestration_state(instance_id)
    return None if state is None else state.runtime_status


def test_a_cancelled_instance_that_is_rewound_is_cancelled_again(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "trip")
    request_cancellation(client, instance_id, "ill")
    assert_cancelled(finished(client, instance_id), "ill")
    before = len(notes_of(instance_id))
    client.rewind_orchestration(instance_id)
    assert wait_until(lambda: has_been_rewound(client, instance_id))
    assert_cancelled(finished(client, instance_id), "ill")
    assert len(notes_of(instance_id)) == before, "what succeeded is kept"


def has_been_rewound(client: TaskHubGrpcClient, instance_id: str) -> bool:
    events = client.get_orchestration_history(instance_id)
    return any(type(event).__name__ == "ExecutionRewoundEvent" for event in events)


def test_a_parent_cancels_its_child_and_ends_after_it(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "parent", True)
    request_cancellation(client, instance_id, "ill")
    assert_cancelled(finished(client, instance_id), "ill")
    assert_cancelled(finished(client, f"{instance_id}-child"), "ill")
    ours = [text for text in NOTES if text.startswith(instance_id)]
    assert ours == [f"{instance_id}-child: released: ill", f"{instance_id}-child: finally", f"{instance_id}: parent"]


def test_a_child_that_nothing_waits_for_is_asked_when_its_parent_ends(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "abandoning")
    request_cancellation(client, instance_id, "ill")
    assert_cancelled(finished(client, instance_id), "ill")
    assert_cancelled(finished(client, f"{instance_id}-child"), "ill")


def test_a_child_of_a_call_without_the_option_continues(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "parent", False)
    request_cancellation(client, instance_id, "ill")
    assert_cancelled(finished(client, instance_id), "ill")
    client.raise_orchestration_event(f"{instance_id}-child", "confirmed", data="yes")
    assert finished(client, f"{instance_id}-child").get_output() == "yes"


def test_a_child_that_is_cancelled_from_outside_has_failed_for_its_parent(client: TaskHubGrpcClient) -> None:
    instance_id = waiting(client, "parent", True)
    child = f"{instance_id}-child"
    assert wait_until(lambda: has_status(client, child, "waiting"))
    request_cancellation(client, child, "ill")
    state = finished(client, instance_id)
    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.task.TaskFailedError"
    assert "ill" in state.failure_details.message


@pytest.mark.parametrize("kind", [OWN, UPSTREAMS])
def test_a_generator_ignores_it_and_the_worker_says_so(kind: str) -> None:
    messages: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger = logging.Logger("generators", level=logging.WARNING)  # noqa: LOG001 - not to be found by name
    logger.addHandler(Keeping())
    with (
        running(kind) as address,
        TaskHubGrpcClient(host_address=address, logger=QUIET) as client,
        TaskHubGrpcWorker(host_address=address, logger=logger) as worker,
    ):
        worker.add_orchestrator(generator)
        worker.add_orchestrator(trip)  # Only a worker that has async code runs turns in its own way.
        worker.start()
        instance_id = waiting(client, "generator")
        request_cancellation(client, instance_id, "ill")
        assert wait_until(lambda: any("is ignored" in message for message in messages))
        client.raise_orchestration_event(instance_id, "go", data=1)
        assert finished(client, instance_id).get_output() == 1
    assert any(f"{instance_id}: the request to cancel this instance is ignored" in message for message in messages)


# -- random histories ---------------------------------------------------------------------------------------------


async def cancellable(ctx: Any, rounds: int) -> Any:
    """Works, with a child, and cleans up; every turn of it is compared with its full replay."""
    log: list[Any] = []
    try:
        for number in range(3):
            log.append(await ctx.call_activity("value", input=number))
            await ctx.gather(ctx.sleep(1), ctx.with_timeout(asyncio.shield(ctx.sleep(3)), 2), return_exceptions=True)
            log.append(await ctx.call_sub_orchestrator("leaf", input=number, cancel_children=number == 1))
            log.append(await ctx.wait_for_external_event("go"))
    except asyncio.CancelledError as error:
        log.append(await ctx.call_activity("value", input=str(error)))
        task = asyncio.current_task()
        if rounds and hasattr(task, "uncancel"):
            task.uncancel()
        else:
            raise
    finally:
        await ctx.sleep(1)
        await ctx.call_activity("value", input="finally")
    if rounds:
        ctx.continue_as_new(rounds - 1)
    return log


async def leaf(ctx: Any, number: int) -> Any:
    try:
        return await ctx.with_timeout(ctx.wait_for_external_event("go"), 30)
    except TimeoutError:
        return number


def value(ctx: Any, given: Any) -> Any:
    return given


def register(worker: TaskHubGrpcWorker) -> None:
    worker.add_orchestrator(cancellable)
    worker.add_orchestrator(leaf)
    worker.add_activity(value)


@pytest.mark.usefixtures(each_proof.__name__)
def test_every_turn_of_cancelled_instances_equals_its_full_replay() -> None:
    cancelled = 0
    for seed in range(40):
        hub = Hub(register, workers=2, sessions=3)
        hub.start("cancellable", "1")
        run_randomly(hub, seed, steps=60, events=("go", "go", CANCEL_EVENT))
        with hub.kernel.reading() as reader:
            instance = reader.instance("instance")
            cancelled += instance is not None and b"WorkflowCancelledError" in b"".join(reader.history(instance))
        hub.close()
    assert cancelled >= 3
