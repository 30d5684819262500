"""What several test modules of the worker package need; imported by name, so the name must be unique."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask.client import OrchestrationState, TaskHubGrpcClient

from durabletask_aio.engine import events
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name


def started(
    engine: LocalBackend,
    *activities: Any,
    orchestrators: Any = (),
    worker_class: Any = TaskHubGrpcWorker,
    **options: Any,
) -> Any:
    """A running worker that logs nothing."""
    worker = worker_class(**{"host_address": engine.address, "logger": QUIET, **options})
    for activity in activities:
        worker.add_activity(activity)
    for orchestrator in orchestrators:
        worker.add_orchestrator(orchestrator)
    worker.start()
    return worker


def recorded(engine: LocalBackend, instance_id: str) -> Sequence[pb.HistoryEvent]:
    """The committed history of an instance."""
    with engine.kernel.reading() as reader:
        instance = reader.instance(instance_id)
        return [] if instance is None else events.past_events(reader.history(instance))


def arrived(engine: LocalBackend, instance_id: str) -> Sequence[pb.HistoryEvent]:
    """What has arrived for an instance and is in no committed turn."""
    with engine.kernel.locked() as store:
        instance = store.instance(instance_id)
        inbox = [] if instance is None else store.inbox(instance)
        return [pb.HistoryEvent.FromString(each.event) for each in inbox]


def run(client: TaskHubGrpcClient, orchestrator: Any, input: Any = None, **options: Any) -> OrchestrationState:
    """Start an instance and wait for its end."""
    instance_id = client.schedule_new_orchestration(orchestrator, input=input, **options)
    return finished(client, instance_id)


def finished(client: TaskHubGrpcClient, instance_id: str) -> OrchestrationState:
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)
    assert state is not None
    return state


def call_one(ctx: Any, arguments: list[Any]) -> Any:
    """A generator orchestrator that calls one activity: `[name, input]`."""
    result = yield ctx.call_activity(arguments[0], input=arguments[1])
    return result


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> bool:
    """Whether the condition came true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def leaked(before: set[threading.Thread]) -> list[str]:
    """Names of the threads of workers that are there now and were not before."""
    ours = ("durabletask-aio-", "DurableTask", "asyncio_", "Thread-")
    return [
        thread.name
        for thread in threading.enumerate()
        if thread not in before
        and thread.name.startswith(ours)
        and not thread.name.startswith("durabletask-aio-engine")
    ]
