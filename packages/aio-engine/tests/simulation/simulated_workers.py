"""Workers without a process: they take what is in the outbox of their stream and answer it, sooner or later."""

from __future__ import annotations

import json
import queue
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from simulated_programs import Programs
from simulated_workflows import run_turn

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.streams import Names, WorkerStream, WorkKind
from durabletask_aio.engine.tokens import Token, parse

Response = pb.OrchestratorResponse | pb.ActivityResponse | pb.EntityBatchResult


@dataclass
class Answer:
    """What a worker sends: the completion token and the response."""

    token: Token
    response: Response
    request: pb.WorkItem


@dataclass
class SimulatedWorker:
    """A worker.

    Attributes:
        name: with which it comes back after its stream has ended, empty for none.
        limits: how many items of each kind it takes.
        names: what it serves.
        is_remote: whether it lives in a process of its own: its leases expire, and it survives the end of the engine.
        is_pulled: whether it asks for each item.
        stream: its stream, `None` while it has none.
        work: what it has been given and has not run.
        answers: what it has run and not sent.
    """

    name: str
    limits: dict[WorkKind, int]
    names: dict[WorkKind, Names]
    is_remote: bool = True
    is_pulled: bool = False
    stream: WorkerStream | None = None
    work: list[pb.WorkItem] = field(default_factory=list[pb.WorkItem])
    answers: list[Answer] = field(default_factory=list[Answer])
    connections: int = 0

    def connect(self) -> WorkerStream:
        self.connections += 1
        self.stream = WorkerStream(
            self.limits, self.names, self.name, self.connections, expires=self.is_remote, is_pulled=self.is_pulled
        )
        return self.stream

    def receive(self, kernel: Kernel) -> bool:
        """Take one item that is on its way; returns whether there was one."""
        if self.stream is None:
            return False
        try:
            item = kernel.take(self.stream) if self.is_pulled else self.stream.outbox.get_nowait()
        except queue.Empty:
            return False
        if item is None:
            if not self.is_pulled:
                self.stream = None
            return False
        self.work.append(to_message(item))
        return True

    def die(self) -> None:
        """End with all that it has."""
        self.stream = None
        self.work.clear()
        self.answers.clear()

    def drop(self, leases: frozenset[str]) -> None:
        """Give up work that is not its own any more."""
        self.work = [each for each in self.work if parse(each.completionToken).lease not in leases]
        self.answers = [each for each in self.answers if each.token.lease not in leases]

    def holding(self) -> frozenset[str]:
        """Return the leases that it still has."""
        tokens = [parse(each.completionToken) for each in self.work] + [each.token for each in self.answers]
        return frozenset(each.lease for each in tokens)

    def run(self, item: pb.WorkItem, rng: random.Random, *, fails: bool) -> Answer:
        """Do the work of an item."""
        token = parse(item.completionToken)
        response: Response
        if item.HasField("orchestratorRequest"):
            response = run_turn(item.orchestratorRequest, item.completionToken)
        elif item.HasField("activityRequest"):
            response = run_activity(item.activityRequest, rng, fails=fails)
        else:
            response = run_batch(item.entityRequestV2, rng, fails=fails)
        response.completionToken = item.completionToken
        return Answer(token, response, item)


def run_activity(request: pb.ActivityRequest, rng: random.Random, *, fails: bool) -> pb.ActivityResponse:
    response = pb.ActivityResponse(instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId)
    if request.name == "flaky" and fails and rng.random() < 0.5:
        response.failureDetails.CopyFrom(events.failure("ActivityFailed", request.input.value))
    else:
        response.result.value = json.dumps({"key": request.input.value})
    return response


def run_batch(request: pb.EntityRequest, rng: random.Random, *, fails: bool) -> pb.EntityBatchResult:
    """Execute operations; sometimes only the first of them, and sometimes in vain."""
    result = pb.EntityBatchResult()
    if fails and rng.random() < 0.05:
        result.failureDetails.CopyFrom(events.failure("BatchFailed", "as planned"))
        return result
    state: int | None = int(request.entityState.value) if request.HasField("entityState") else None
    operations = list(request.operationRequests)
    if fails and rng.random() < 0.2:
        operations = operations[: rng.randint(1, len(operations))]
    for event in operations:
        body = getattr(event, event.WhichOneof("eventType") or "")
        outcome = result.results.add()
        if body.operation == "fail":
            outcome.failure.failureDetails.CopyFrom(events.failure("OperationFailed", "as planned"))
            continue
        outcome.success.result.value = body.input.value
        state = None if body.operation == "delete" else (state or 0) + 1
        if body.operation in _ACTIONS:
            _ACTIONS[body.operation](result.actions.add(), body.input.value, rng)
    if state is not None:
        result.entityState.value = str(state)
    return result


def _forward(action: pb.OperationAction, key: str, rng: random.Random) -> None:
    action.sendSignal.instanceId = f"@counter@{rng.choice('abc')}"
    action.sendSignal.name = "add"
    action.sendSignal.input.value = f"{key}+"


def _start(action: pb.OperationAction, key: str, rng: random.Random) -> None:
    action.startNewOrchestration.name = "program"
    action.startNewOrchestration.instanceId = rng.choice(["", "e0", "e1"])
    action.startNewOrchestration.input.value = json.dumps(Programs(rng).program(1))


_ACTIONS: dict[str, Callable[[pb.OperationAction, str, random.Random], None]] = {"forward": _forward, "start": _start}
