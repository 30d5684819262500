"""A task hub in this thread: the engine's state machine, workers that are called and not started, and adversity.

Every turn is executed twice: by the worker under test, and by a reference worker that has no sessions and never
delivers anything.  Both must answer alike, byte for byte, except for what no two replays have in common.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from google.protobuf import wrappers_pb2
from worker_support import QUIET

from durabletask_aio.core.functions import is_orchestrator
from durabletask_aio.engine import events, tokens
from durabletask_aio.engine.clock import VirtualClock
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.memory import MemoryStore
from durabletask_aio.engine.service import TaskHubService
from durabletask_aio.engine.streams import WorkerStream
from durabletask_aio.worker import sessions
from durabletask_aio.worker._upstream import find_orchestrator
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.worker import TaskHubGrpcWorker

START = datetime(2024, 5, 1, 12, 0, tzinfo=timezone.utc)
MICROSECONDS = 1_000_000


PROOFS = ("parsed", "turn", "raw")
"""What a worker proves a history by: the bytes of what it has parsed, the engine's name of the last turn, or the bytes
as they came."""


@pytest.fixture(params=PROOFS)
def each_proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with each proof; what a defect does to one of them is looked at with the first."""
    callspec = getattr(request.node, "callspec", None)
    if request.param != PROOFS[0] and callspec is not None and callspec.params.get("defect") is not None:
        pytest.skip("the defect is one of the first proof")
    monkeypatch.setattr(Hub, "proof", request.param)


class Difference(AssertionError):
    """A turn was not what a full replay would have made of it."""


class Recorder:
    """A stub that keeps the response to itself."""

    def __init__(self) -> None:
        self.response: pb.OrchestratorResponse | None = None
        self.is_abandoned = False

    def CompleteOrchestratorTask(self, response: pb.OrchestratorResponse) -> None:
        self.response = response

    def AbandonTaskOrchestratorWorkItem(self, request: Any) -> None:
        self.is_abandoned = True


class LostResponse(Exception):
    pass


class Losing(Recorder):
    """A stub whose connection breaks when the response is on its way."""

    def CompleteOrchestratorTask(self, response: pb.OrchestratorResponse) -> None:
        super().CompleteOrchestratorTask(response)
        raise LostResponse


class Context:
    """gRPC's context, as far as the engine needs it."""

    def abort(self, code: Any, details: str) -> None:
        raise AssertionError(f"{code}: {details}")


CONTEXT: Any = Context()


class Hub:
    """One engine, any number of workers with the same functions, and a reference.

    Attributes:
        proof: one of `PROOFS`.
    """

    proof = PROOFS[0]

    def __init__(
        self, register: Callable[[TaskHubGrpcWorker], object], *, workers: int = 1, sessions: int = 100, **options: Any
    ) -> None:
        self.clock = VirtualClock(int(START.timestamp()) * MICROSECONDS)
        self.kernel = Kernel(MemoryStore(), self.clock)
        self.engine = TaskHubService(self.kernel, in_process=True)
        self.stream = WorkerStream(expires=False, is_pulled=True)
        self.past: dict[str, list[pb.HistoryEvent]] = {}
        """The histories of turns that come with less, by completion token."""
        self.kernel.open_stream(self.stream)
        self.workers = [self._worker(register, max_extended_sessions=sessions, **options) for _ in range(workers)]
        self.reference = self._worker(register, max_extended_sessions=0)
        if self.proof == "turn":
            # To the engine, all workers are one: it also offers a worker what follows the turn of another.
            turns = [binding.turns for each in self.workers if (binding := binding_of(each)) is not None]
            self.stream.keeps_sessions = all(each.needs_new_events_only for each in turns)
        self.turns = 0
        self.asked = 0
        """How often a worker has asked for a history."""

    def _worker(self, register: Callable[[TaskHubGrpcWorker], object], **options: Any) -> TaskHubGrpcWorker:
        # Turns are executed without a connection, to which they could be given back.
        worker = TaskHubGrpcWorker(**{"logger": QUIET, "on_divergence": "fail", **options})
        register(worker)
        return worker

    # What clients do ----------------------------------------------------------------------------------------

    def start(self, name: str, input: str | None = None, instance_id: str = "instance", **more: Any) -> str:
        request = pb.CreateInstanceRequest(instanceId=instance_id, name=name, **more)
        if input is not None:
            request.input.CopyFrom(wrappers_pb2.StringValue(value=input))
        self.engine.StartInstance(request, CONTEXT)
        return instance_id

    def raise_event(self, name: str, data: str = "null", instance_id: str = "instance") -> None:
        value = wrappers_pb2.StringValue(value=data)
        self.engine.RaiseEvent(pb.RaiseEventRequest(instanceId=instance_id, name=name, input=value), CONTEXT)

    def suspend(self, instance_id: str = "instance") -> None:
        self.engine.SuspendInstance(pb.SuspendRequest(instanceId=instance_id), CONTEXT)

    def resume(self, instance_id: str = "instance") -> None:
        self.engine.ResumeInstance(pb.ResumeRequest(instanceId=instance_id), CONTEXT)

    def terminate(self, instance_id: str = "instance") -> None:
        self.engine.TerminateInstance(pb.TerminateRequest(instanceId=instance_id), CONTEXT)

    def rewind(self, instance_id: str = "instance") -> None:
        self.engine.RewindInstance(pb.RewindInstanceRequest(instanceId=instance_id), CONTEXT)

    def purge(self, instance_id: str = "instance") -> None:
        self.engine.PurgeInstances(pb.PurgeInstancesRequest(instanceId=instance_id), CONTEXT)

    def state(self, instance_id: str = "instance") -> pb.OrchestrationState:
        request = pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
        state: pb.OrchestrationState = self.engine.GetInstance(request, CONTEXT).orchestrationState
        return state

    def status(self, instance_id: str = "instance") -> str:
        status = self.state(instance_id).orchestrationStatus
        return pb.OrchestrationStatus.Name(status).removeprefix("ORCHESTRATION_STATUS_")

    def output(self, instance_id: str = "instance") -> str | None:
        state = self.state(instance_id)
        return state.output.value if state.HasField("output") else None

    # What workers do ----------------------------------------------------------------------------------------

    def take(self) -> pb.WorkItem | None:
        work = self.kernel.take(self.stream)
        if work is None:
            return None
        item = to_message(work)
        request = item.orchestratorRequest
        if sessions.ContinuedHistory.is_in(request):
            self.past[item.completionToken] = self._history(request.instanceId)
        return item

    def whole(self, item: pb.WorkItem) -> pb.OrchestratorRequest:
        """Return the request of a turn with its whole history."""
        request = pb.OrchestratorRequest()
        request.CopyFrom(item.orchestratorRequest)
        if sessions.ContinuedHistory.is_in(request):
            request.ClearField("properties")
            request.ClearField("pastEvents")
            request.pastEvents.extend(self.past[item.completionToken])
        return request

    def _history(self, instance_id: str) -> list[pb.HistoryEvent]:
        with self.kernel.locked() as store:
            instance = store.instance(instance_id)
            assert instance is not None
            return events.past_events(store.history(instance))

    def execute(self, item: pb.WorkItem, worker: int = 0, stub: Recorder | None = None) -> Recorder:
        """Execute a turn with both workers and compare; nothing is delivered."""
        expected, actual = Recorder(), Recorder() if stub is None else stub
        self.turns += 1
        whole = self.whole(item)
        self._execute(self.reference, whole, expected, item.completionToken)
        self.run(item, self.workers[worker], actual)
        if comparable(expected) != comparable(actual):
            raise Difference(f"full replay:\n{expected.response}\nthis worker:\n{actual.response}")
        if expected.response is not None and self._stays_suspended(whole):
            kinds = {action.WhichOneof("orchestratorActionType") for action in expected.response.actions}
            assert kinds <= {"completeOrchestration"}, "a suspended instance sends something, again perhaps"
        return actual

    def run(self, item: pb.WorkItem, worker: TaskHubGrpcWorker, stub: Recorder) -> None:
        """Execute a turn with one worker, and again with the whole history if it asks for that."""
        self._execute(worker, item.orchestratorRequest, stub, item.completionToken)
        if stub.response is not None and stub.response.requiresHistory:
            self.asked += 1
            self._execute(worker, self.whole(item), stub, item.completionToken)

    def _execute(self, worker: TaskHubGrpcWorker, original: pb.OrchestratorRequest, stub: Recorder, token: str) -> None:
        binding = binding_of(worker)
        read_item = binding.work_items.item_reader(None) if binding is not None and self.proof == "raw" else None
        if read_item is not None:
            item = read_item(self.write(pb.WorkItem(orchestratorRequest=original, completionToken=token)))
            worker._execute_orchestrator(item.orchestratorRequest, stub, item.completionToken)
            return
        request = pb.OrchestratorRequest()
        request.CopyFrom(original)
        worker._execute_orchestrator(request, stub, token)

    def write(self, item: pb.WorkItem) -> bytes:
        """Return the bytes of a work item."""
        data: bytes = item.SerializeToString()
        return data

    def _stays_suspended(self, request: pb.OrchestratorRequest) -> bool:
        """Whether an async workflow is suspended before, through and after this turn."""
        suspended, name = False, ""
        for event in request.pastEvents:
            if event.HasField("executionStarted"):
                name = event.executionStarted.name
            suspended = suspended or event.HasField("executionSuspended")
            suspended = suspended and not event.HasField("executionResumed")
        ends = ("executionResumed", "executionTerminated", "executionRewound")
        return (
            suspended
            and not any(event.WhichOneof("eventType") in ends for event in request.newEvents)
            and is_orchestrator(find_orchestrator(self.reference, name))
        )

    def deliver(self, recorder: Recorder) -> None:
        assert recorder.response is not None
        self.engine.CompleteOrchestratorTask(recorder.response, CONTEXT)

    def turn(self, worker: int = 0) -> bool:
        """Take and do one work item of any kind; `False` if there was none."""
        item = self.take()
        if item is None:
            return False
        self.do(item, worker)
        return True

    def do(self, item: pb.WorkItem, worker: int = 0) -> None:
        if item.HasField("orchestratorRequest"):
            recorder = self.execute(item, worker)
            if recorder.is_abandoned:
                self.engine.AbandonTaskOrchestratorWorkItem(
                    pb.AbandonOrchestrationTaskRequest(completionToken=item.completionToken), CONTEXT
                )
            else:
                self.deliver(recorder)
        elif item.HasField("activityRequest"):
            self.workers[worker]._execute_activity(item.activityRequest, _ToEngine(self.engine), item.completionToken)
        else:
            self.workers[worker]._execute_entity_batch(
                item.entityRequestV2, _ToEngine(self.engine), item.completionToken
            )

    def lose(self, item: pb.WorkItem, worker: int = 0) -> None:
        """Execute a turn whose response never arrives; the item goes back to the queue."""
        self.execute(item, worker, Losing())
        # Some engines keep the time of the first attempt; this one, which is worse for us, gives each attempt its own.
        self.kernel.requeue(tokens.parse(item.completionToken).lease)

    def drain(self, worker: int = 0) -> None:
        """Work until there is nothing left to do at this moment."""
        while self.turn(worker):
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass; what falls due is queued."""
        end = self.clock.now() + int(seconds * MICROSECONDS)
        while (due := self.kernel.next_due()) is not None and due <= end:
            self.clock.advance_to(due)
            self.kernel.fire_due()
        self.clock.advance_to(end)

    def evict(self, worker: int = 0) -> None:
        binding = binding_of(self.workers[worker])
        assert binding is not None
        sessions = binding.turns.sessions
        for session in sessions.close():
            session.dispose()
        sessions.open()

    def live(self, worker: int = 0) -> int:
        return self.workers[worker].extended_session_stats.live

    def close(self) -> None:
        for worker in range(len(self.workers)):
            self.evict(worker)


class _ToEngine:
    """The engine's own methods as a stub."""

    def __init__(self, engine: TaskHubService) -> None:
        self._engine = engine

    def CompleteActivityTask(self, response: Any) -> None:
        self._engine.CompleteActivityTask(response, CONTEXT)

    def CompleteEntityTask(self, response: Any) -> None:
        self._engine.CompleteEntityTask(response, CONTEXT)


def comparable(recorder: Recorder) -> tuple[Any, ...]:
    """What two executions of one turn must have in common."""
    response = recorder.response
    if response is None:
        return ("abandoned", recorder.is_abandoned)
    actions = []
    for action in response.actions:
        copy = pb.OrchestratorAction()
        copy.CopyFrom(action)
        for kind in ("scheduleTask", "createSubOrchestration"):
            if copy.HasField(kind):
                getattr(copy, kind).ClearField("parentTraceContext")
        if copy.HasField("completeOrchestration"):
            details = copy.completeOrchestration.failureDetails
            while True:
                details.ClearField("stackTrace")
                if not details.HasField("innerFailure"):
                    break
                details = details.innerFailure
        if copy.HasField("rewindOrchestration"):
            for event in copy.rewindOrchestration.newHistory:
                event.executionStarted.orchestrationInstance.ClearField("executionId")
        actions.append(copy.SerializeToString(deterministic=True))
    return ("completed", response.customStatus.value, response.completionToken, *actions)


def run_randomly(hub: Hub, seed: int, steps: int, events: Sequence[str]) -> None:
    """Work in a random order with everything that can go wrong going wrong now and then, comparing every turn."""
    chance = random.Random(seed)
    held: list[pb.WorkItem] = []
    for _ in range(steps):
        worker = chance.randrange(len(hub.workers))
        what = chance.random()
        if what < 0.08:
            hub.evict(worker)
        elif what < 0.16:
            hub.advance(chance.choice([0.5, 5, 60]))
        elif what < 0.24 and hub.status() in ("RUNNING", "SUSPENDED", "PENDING"):
            hub.raise_event(chance.choice(events), str(chance.randrange(100)))
        elif 0.24 < what < 0.27 and hub.status() == "RUNNING":
            hub.suspend()
        elif 0.27 < what < 0.34 and hub.status() == "SUSPENDED":
            hub.resume()
        elif 0.34 < what < 0.345 and hub.status() == "RUNNING":
            hub.terminate()
        elif held and what < 0.6:
            hub.do(held.pop(chance.randrange(len(held))), worker)
        else:
            item = hub.take()
            if item is None:
                if hub.status() not in ("RUNNING", "SUSPENDED", "PENDING"):
                    return
                if hub.status() == "SUSPENDED":
                    hub.resume()
                hub.advance(60)
            elif not item.HasField("orchestratorRequest"):
                # Results arrive late and in any order.
                held.append(item)
            elif chance.random() < 0.1:
                hub.lose(item, worker)
            else:
                if chance.random() < 0.1:
                    hub.execute(item, chance.randrange(len(hub.workers)))  # delivered twice, to any worker
                hub.do(item, worker)
