"""An engine without a transport in this thread, and the few things that workers and clients send."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.clock import VirtualClock
from durabletask_aio.engine.descriptions import instance_state
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.memory import MemoryStore
from durabletask_aio.engine.service import TaskHubService
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.store import Store
from durabletask_aio.engine.streams import WorkerStream
from durabletask_aio.engine.tokens import parse

START = 1_704_067_200_000_000
"""2024-01-01."""


class Refused(Exception):
    """What the service has answered instead of a result."""


class Context:
    """gRPC's context, as far as the service needs it for calls that are answered at once."""

    def abort(self, code: Any, details: str) -> None:
        raise Refused(f"{code.name}: {details}")

    def is_active(self) -> bool:
        return True


class Harness:
    """An engine on a virtual clock, with a worker that asks for its items."""

    def __init__(self, store: Store | None = None) -> None:
        numbers = itertools.count(1)
        self.clock = VirtualClock(START)
        self.kernel = Kernel(store or MemoryStore(), self.clock, new_id=lambda: f"{next(numbers):016x}")
        self.service = TaskHubService(self.kernel, in_process=True)
        self.worker = self.connect()

    def connect(self) -> WorkerStream:
        """Connect a worker."""
        stream = WorkerStream(is_pulled=True, expires=False)
        self.kernel.open_stream(stream)
        return stream

    def call(self, method: str, request: Any) -> Any:
        """Call a method of the service."""
        return getattr(self.service, method)(request, Context())

    def start(self, instance_id: str, name: str = "any", **fields: Any) -> None:
        self.call("StartInstance", pb.CreateInstanceRequest(instanceId=instance_id, name=name, **fields))

    def raise_event(self, instance_id: str, name: str = "go") -> None:
        self.call("RaiseEvent", pb.RaiseEventRequest(instanceId=instance_id, name=name))

    def take(self, worker: WorkerStream | None = None) -> pb.WorkItem | None:
        """Return the next work item; `None` if there is none."""
        work = self.kernel.take(worker or self.worker)
        return None if work is None else to_message(work)

    def turn(self, *actions: pb.OrchestratorAction) -> list[pb.HistoryEvent]:
        """Take the next turn, answer with these actions, and return the events that were new in it."""
        item = self.take()
        assert item is not None
        assert item.HasField("orchestratorRequest"), item
        self.complete_turn(item, *actions)
        return list(item.orchestratorRequest.newEvents)

    def complete_turn(self, item: pb.WorkItem, *actions: pb.OrchestratorAction) -> None:
        response = pb.OrchestratorResponse(
            instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken, actions=actions
        )
        self.call("CompleteOrchestratorTask", response)

    def complete_activity(self, item: pb.WorkItem, result: str = "1") -> None:
        request = item.activityRequest
        response = pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId,
            taskId=request.taskId,
            completionToken=item.completionToken,
        )
        response.result.value = result
        self.call("CompleteActivityTask", response)

    def advance(self, by: timedelta) -> None:
        """Let time pass; what falls due is queued."""
        end = self.clock.now() + by // timedelta(microseconds=1)
        while (due := self.kernel.next_due()) is not None and due <= end:
            self.clock.advance_to(due)
            self.kernel.fire_due()
        self.clock.advance_to(end)

    def requeue(self, item: pb.WorkItem) -> None:
        self.kernel.requeue(parse(item.completionToken).lease)

    def state(self, instance_id: str) -> pb.OrchestrationState:
        with self.kernel.reading() as reader:
            instance = reader.instance(instance_id)
            assert instance is not None
            return instance_state(reader, instance, with_payloads=True)

    def history(self, instance_id: str) -> list[pb.HistoryEvent]:
        with self.kernel.reading() as reader:
            instance = reader.instance(instance_id)
            assert instance is not None
            return events.past_events(reader.history(instance))

    def timer(self, timer_id: int, seconds: float) -> pb.OrchestratorAction:
        action = pb.OrchestratorAction(id=timer_id)
        action.createTimer.fireAt.CopyFrom(events.timestamp(self.clock.now() + int(seconds * events.MICROSECONDS)))
        return action


def stores() -> list[type[MemoryStore | SqliteStore]]:
    """The stores on which the state machine has to do the same."""
    return [MemoryStore, SqliteStore]


def activity(task_id: int, name: str = "act", **fields: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=task_id, scheduleTask=pb.ScheduleTaskAction(name=name, **fields))


def child(task_id: int, instance_id: str = "child", **fields: Any) -> pb.OrchestratorAction:
    asked = pb.CreateSubOrchestrationAction(name="child", instanceId=instance_id, **fields)
    return pb.OrchestratorAction(id=task_id, createSubOrchestration=asked)


def end(status: int = pb.ORCHESTRATION_STATUS_COMPLETED) -> pb.OrchestratorAction:
    completed = pb.CompleteOrchestrationAction(orchestrationStatus=status)  # type: ignore[arg-type]
    return pb.OrchestratorAction(id=99, completeOrchestration=completed)


CONTINUE = end(pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)


def kinds(history: Any) -> list[str | None]:
    """The names of events."""
    return [event.WhichOneof("eventType") for event in history]


def started(history: Any) -> pb.ExecutionStartedEvent:
    return next(event.executionStarted for event in history if event.HasField("executionStarted"))
