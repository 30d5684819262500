"""An engine without threads and sockets, whose time and ids the test decides, and short ways to talk to it."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.clock import VirtualClock
from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import Instance, StartInstance
from durabletask_aio.engine.streams import WorkerStream, WorkKind
from durabletask_aio.engine.tokens import BatchToken, TaskToken, TurnToken, parse

T = TypeVar("T")

SECOND = 1_000_000


class Engine:
    """A kernel with one worker.

    Attributes:
        now: the monotonic clock, in seconds; it also moves the engine's time.
    """

    def __init__(self, store: SqliteStore | None = None, *, start: int = 1_000 * SECOND, **settings: Any) -> None:
        self.clock = VirtualClock(start)
        self.now = 0.0
        numbers = itertools.count(1)
        self.store = store or SqliteStore()
        if self.store.path is None:
            weakref.finalize(self, self.store.close)
        self.kernel = Kernel(
            self.store,
            self.clock,
            new_id=lambda: f"{next(numbers):016x}",
            monotonic=lambda: self.now,
            **settings,
        )
        self.stream = self.connect()

    def connect(self, worker_id: str = "", *, limit: int = 100, holding: frozenset[str] | None = None) -> WorkerStream:
        kinds: tuple[WorkKind, ...] = ("orchestration", "activity", "entity")
        stream = WorkerStream(dict.fromkeys(kinds, limit), worker_id=worker_id)
        self.kernel.open_stream(stream, holding)
        return stream

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.clock.advance_to(self.clock.now() + int(seconds * SECOND))
        self.kernel._serve_once()

    # Clients

    def execute(self, command: Callable[[Transaction], T]) -> T:
        return self.kernel.execute(command)

    def start(self, instance_id: str = "x", **fields: Any) -> str:
        message = StartInstance(instance_id, "program", **fields)
        return self.execute(lambda transaction: transaction.start_instance(message))

    def group(self, *commands: Callable[[Transaction], Any]) -> list[Any]:
        """Run commands in one transaction; returns the result or the error of each."""
        futures = [self.kernel.submit(each) for each in commands]
        self.kernel._serve_once()
        return [each.exception() or each.result() for each in futures]

    def instance(self, instance_id: str = "x") -> Instance:
        found = self.store.instance(instance_id)
        assert found is not None, f"there is no instance {instance_id!r}"
        return found

    def status(self, instance_id: str = "x") -> str:
        return pb.OrchestrationStatus.Name(self.instance(instance_id).status).removeprefix("ORCHESTRATION_STATUS_")

    def history(self, instance_id: str = "x") -> list[str]:
        """The types of the events of a history."""
        chunks = self.store.history(self.instance(instance_id))
        return [each.WhichOneof("eventType") or "" for each in events.past_events(chunks)]

    # The worker

    def receive(self, stream: WorkerStream | None = None) -> pb.WorkItem:
        item = (stream or self.stream).outbox.get_nowait()
        assert item is not None, "the stream has ended"
        return to_message(item)

    def is_idle(self, stream: WorkerStream | None = None) -> bool:
        return (stream or self.stream).outbox.empty()

    def answer(self, item: pb.WorkItem, *actions: pb.OrchestratorAction, **fields: Any) -> bool:
        """Answer a turn with its actions, an activity or a batch with the fields of its response."""
        token = parse(item.completionToken)
        if isinstance(token, TurnToken):
            turn = pb.OrchestratorResponse(actions=actions, **fields)
            return self.kernel.complete(token.lease, lambda transaction: transaction.complete_turn(token, turn))
        if isinstance(token, TaskToken):
            outcome = pb.ActivityResponse(taskId=item.activityRequest.taskId, **fields)
            return self.kernel.complete(token.lease, lambda transaction: transaction.complete_activity(token, outcome))
        assert isinstance(token, BatchToken)
        result = pb.EntityBatchResult(**fields)
        return self.kernel.complete(token.lease, lambda transaction: transaction.complete_batch(token, result))

    def turn(self, *actions: pb.OrchestratorAction) -> pb.WorkItem:
        """Take a turn and answer it."""
        item = self.receive()
        assert item.HasField("orchestratorRequest"), item
        assert self.answer(item, *actions)
        return item


# -- actions of turns ----------------------------------------------------------------------------------------------


def action(number: int, **kind: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=number, **kind)


def activity(number: int, name: str = "work") -> pb.OrchestratorAction:
    return action(number, scheduleTask=pb.ScheduleTaskAction(name=name))


def timer(number: int, due: int) -> pb.OrchestratorAction:
    return action(number, createTimer=pb.CreateTimerAction(fireAt=events.timestamp(due)))


def child(number: int, instance_id: str) -> pb.OrchestratorAction:
    return action(
        number, createSubOrchestration=pb.CreateSubOrchestrationAction(instanceId=instance_id, name="program")
    )


def call(number: int, entity_id: str = "@counter@a") -> pb.OrchestratorAction:
    called = pb.EntityOperationCalledEvent(
        requestId=f"call {number}",
        operation="add",
        targetInstanceId=events.string_value(entity_id),
        parentInstanceId=events.string_value("x"),
    )
    return action(number, sendEntityMessage=pb.SendEntityMessageAction(entityOperationCalled=called))


def lock(number: int, *entity_ids: str) -> pb.OrchestratorAction:
    request = pb.EntityLockRequestedEvent(criticalSectionId=f"section {number}", lockSet=entity_ids)
    return action(number, sendEntityMessage=pb.SendEntityMessageAction(entityLockRequested=request))


def unlock(number: int, section: int, entity_id: str) -> pb.OrchestratorAction:
    sent = pb.EntityUnlockSentEvent(
        criticalSectionId=f"section {section}", targetInstanceId=events.string_value(entity_id)
    )
    return action(number, sendEntityMessage=pb.SendEntityMessageAction(entityUnlockSent=sent))


def end(status: str = "COMPLETED", **fields: Any) -> pb.OrchestratorAction:
    completion = pb.CompleteOrchestrationAction(orchestrationStatus=f"ORCHESTRATION_STATUS_{status}", **fields)
    return action(99, completeOrchestration=completion)


def failed(message: str = "as planned") -> pb.OrchestratorAction:
    return end("FAILED", failureDetails=events.failure("Planned", message))


def rewound(item: pb.WorkItem, *, without: Sequence[str] = ()) -> pb.OrchestratorAction:
    """Rewrite the history of a turn: without its end, and without events of some types."""
    request = item.orchestratorRequest
    dropped = {"executionCompleted", *without}
    history = [
        each for each in [*request.pastEvents, *request.newEvents] if each.WhichOneof("eventType") not in dropped
    ]
    return action(-1, rewindOrchestration=pb.RewindOrchestrationAction(newHistory=history))


def new_events(item: pb.WorkItem) -> list[str]:
    """The types of the new events of a turn."""
    return [each.WhichOneof("eventType") or "" for each in item.orchestratorRequest.newEvents]
