"""Runs orchestrators turn by turn through upstream's own executor, on a virtual clock, with every byte in sight.

What a test needs to prove determinism is control: which event comes when, in which batch, and what exactly was emitted
for it.  So there is no gRPC here and no thread; but the executor, the history events and the actions are upstream's.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask import task
from durabletask.internal import helpers as ph
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.serialization import JsonDataConverter
from durabletask.worker import _OrchestrationExecutor, _Registry
from google.protobuf import timestamp_pb2

from durabletask_aio.core.disposal import turn_scope

START = datetime(2026, 1, 1, 12, 0, 0)
_QUIET = logging.getLogger("turns")
_QUIET.setLevel(logging.CRITICAL)

COMPLETED = pb.ORCHESTRATION_STATUS_COMPLETED
FAILED = pb.ORCHESTRATION_STATUS_FAILED
CONTINUED = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW


def canonical(actions: Iterable[pb.OrchestratorAction]) -> list[bytes]:
    """The actions as bytes, without stack traces, which name files and so can never be equal."""
    result = []
    for action in actions:
        copy = pb.OrchestratorAction()
        copy.CopyFrom(action)
        if copy.HasField("completeOrchestration"):
            _strip(copy.completeOrchestration.failureDetails)
        result.append(copy.SerializeToString(deterministic=True))
    return result


def _strip(details: pb.TaskFailureDetails) -> None:
    details.ClearField("stackTrace")
    if details.HasField("innerFailure"):
        _strip(details.innerFailure)


class Instance:
    """One instance: its history, the turns it took, and what is outstanding."""

    def __init__(
        self,
        orchestrator: Callable[..., Any],
        input: Any = None,
        *,
        instance_id: str = "instance-1",
        name: str | None = None,
        converter: Any = None,
        start: datetime = START,
        scoped: bool = True,
    ) -> None:
        self.name = name or task.get_name(orchestrator)
        self.orchestrator = orchestrator
        self.instance_id = instance_id
        self.converter = converter or JsonDataConverter()
        self.now = start
        self.scoped = scoped
        self.history: list[pb.HistoryEvent] = []
        self.turns: list[list[pb.OrchestratorAction]] = []
        """The actions of each turn."""
        self.cuts: list[int] = []
        """How many events of the history each turn had seen when it ended."""
        self.outcome: pb.CompleteOrchestrationAction | None = None
        self.custom_status: str | None = None
        self.custom_statuses: list[str | None] = []
        """The custom status after each turn."""
        self.outstanding: dict[int, pb.OrchestratorAction] = {}
        started = pb.ExecutionStartedEvent(
            name=self.name,
            input=ph.get_string_value(None if input is None else self.converter.serialize(input)),
            orchestrationInstance=pb.OrchestrationInstance(instanceId=instance_id),
        )
        self._first = pb.HistoryEvent(eventId=-1, executionStarted=started)
        self._started = False

    # -- turns ----------------------------------------------------------------------------------------------------

    def start(self) -> Instance:
        """Take the first turn."""
        self._started = True
        self.turn(self._first)
        return self

    def turn(
        self, *events: pb.HistoryEvent, advance: timedelta = timedelta(milliseconds=1)
    ) -> list[pb.OrchestratorAction]:
        """Deliver a batch of events, and note what the orchestrator answers."""
        self.now += advance
        batch = [self._stamped(pb.HistoryEvent(eventId=-1, orchestratorStarted=pb.OrchestratorStartedEvent()))]
        batch += [self._stamped(event) for event in events]
        result = execute(self, self.history, batch)
        self.history += batch
        self.cuts.append(len(self.history))
        self.turns.append(list(result.actions))
        self.custom_status = result.encoded_custom_status
        self.custom_statuses.append(self.custom_status)
        for action in result.actions:
            self._apply(action)
        return self.turns[-1]

    def _stamped(self, event: pb.HistoryEvent) -> pb.HistoryEvent:
        stamped = pb.HistoryEvent()
        stamped.CopyFrom(event)  # an event carried over from the last execution also belongs to its actions
        stamped.timestamp.CopyFrom(_timestamp(self.now))
        return stamped

    def _apply(self, action: pb.OrchestratorAction) -> None:
        kind = action.WhichOneof("orchestratorActionType")
        event = pb.HistoryEvent(eventId=action.id)
        if kind == "completeOrchestration":
            self.outcome = action.completeOrchestration
            return
        if kind == "scheduleTask":
            scheduled = action.scheduleTask
            event.taskScheduled.CopyFrom(
                pb.TaskScheduledEvent(name=scheduled.name, input=scheduled.input, tags=scheduled.tags)
            )
        elif kind == "createTimer":
            event.timerCreated.CopyFrom(pb.TimerCreatedEvent(fireAt=action.createTimer.fireAt))
        elif kind == "createSubOrchestration":
            created = action.createSubOrchestration
            event.subOrchestrationInstanceCreated.CopyFrom(
                pb.SubOrchestrationInstanceCreatedEvent(
                    instanceId=created.instanceId, name=created.name, input=created.input
                )
            )
        elif kind == "sendEvent":
            event.eventSent.CopyFrom(
                pb.EventSentEvent(
                    instanceId=action.sendEvent.instance.instanceId,
                    name=action.sendEvent.name,
                    input=action.sendEvent.data,
                )
            )
        elif kind == "sendEntityMessage":
            message = action.sendEntityMessage
            field = message.WhichOneof("EntityMessageType")
            getattr(event, field).CopyFrom(getattr(message, field))
        else:
            raise AssertionError(f"no such action: {kind}")
        self.history.append(self._stamped(event))
        self.outstanding[action.id] = action

    # -- events ---------------------------------------------------------------------------------------------------

    def completed(self, step: int, result: Any = None) -> pb.HistoryEvent:
        """The event that completes the activity or sub-orchestration of that step."""
        action = self.outstanding.pop(step)
        value = ph.get_string_value(None if result is None else json.dumps(result))
        if action.HasField("scheduleTask"):
            return pb.HistoryEvent(eventId=-1, taskCompleted=pb.TaskCompletedEvent(taskScheduledId=step, result=value))
        return pb.HistoryEvent(
            eventId=-1,
            subOrchestrationInstanceCompleted=pb.SubOrchestrationInstanceCompletedEvent(
                taskScheduledId=step, result=value
            ),
        )

    def failed(self, step: int, error: Exception) -> pb.HistoryEvent:
        """The event that fails the activity or sub-orchestration of that step."""
        action = self.outstanding.pop(step)
        details = ph.new_failure_details(error)
        if action.HasField("scheduleTask"):
            return pb.HistoryEvent(
                eventId=-1, taskFailed=pb.TaskFailedEvent(taskScheduledId=step, failureDetails=details)
            )
        return pb.HistoryEvent(
            eventId=-1,
            subOrchestrationInstanceFailed=pb.SubOrchestrationInstanceFailedEvent(
                taskScheduledId=step, failureDetails=details
            ),
        )

    def fired(self, step: int) -> pb.HistoryEvent:
        """The event that fires the timer of that step; the clock moves to its time."""
        action = self.outstanding.pop(step)
        fire_at = action.createTimer.fireAt
        self.now = max(self.now, fire_at.ToDatetime())
        return pb.HistoryEvent(eventId=-1, timerFired=pb.TimerFiredEvent(timerId=step, fireAt=fire_at))

    @staticmethod
    def raised(name: str, data: Any = None) -> pb.HistoryEvent:
        """An external event."""
        value = ph.get_string_value(None if data is None else json.dumps(data))
        return pb.HistoryEvent(eventId=-1, eventRaised=pb.EventRaisedEvent(name=name, input=value))

    # -- whole runs -----------------------------------------------------------------------------------------------

    def steps(self, kind: str) -> list[int]:
        """The outstanding steps of that kind of action, oldest first."""
        return [step for step, action in self.outstanding.items() if action.HasField(kind)]

    def run(
        self,
        activities: dict[str, Callable[[Any], Any]] | None = None,
        *,
        seed: int | None = None,
        events: Sequence[tuple[float, str, Any]] = (),
        limit: int = 20_000,
        latency: float = 0.01,
        batch: int = 1,
    ) -> Instance:
        """Run to the end: activities first come first served, or in a random order under ``seed``; timers by time.

        Each activity takes ``latency`` virtual seconds (random ones, up to a hundred times that, under ``seed``).
        ``events`` are ``(seconds after the start, name, payload)``.  Stops when nothing is outstanding.
        """
        chance = random.Random(seed) if seed is not None else None
        due: dict[int, datetime] = {}
        waiting = sorted((self.now + timedelta(seconds=after), name, data) for after, name, data in events)
        if not self._started:
            self.start()
        for _ in range(limit):
            if self.outcome is not None:
                return self
            ready: list[pb.HistoryEvent] = []
            for _ in range(batch if chance is None else chance.randint(1, batch)):
                event = self._next_event(activities or {}, due, waiting, chance, latency)
                if event is None:
                    break
                ready.append(event)
            if not ready:
                return self
            self.turn(*ready)
        raise AssertionError(f"not done after {limit} turns")

    def _next_event(
        self,
        activities: dict[str, Callable[[Any], Any]],
        due: dict[int, datetime],
        waiting: list[tuple[datetime, str, Any]],
        chance: random.Random | None,
        latency: float,
    ) -> pb.HistoryEvent | None:
        for step, action in self.outstanding.items():
            if step in due:
                continue
            if action.HasField("createTimer"):
                due[step] = action.createTimer.fireAt.ToDatetime()
            elif action.HasField("scheduleTask") or action.HasField("createSubOrchestration"):
                factor = 1.0 if chance is None else chance.uniform(0.1, 100)
                due[step] = self.now + timedelta(seconds=latency * factor)
        candidates = [(due[step], step) for step in self.outstanding if step in due]
        if waiting and (not candidates or waiting[0][0] <= min(candidates)[0]):
            when, name, data = waiting.pop(0)
            self.now = max(self.now, when)
            return self.raised(name, data)
        if not candidates:
            return None
        when, step = min(candidates)
        self.now = max(self.now, when)
        action = self.outstanding[step]
        if action.HasField("createTimer"):
            return self.fired(step)
        scheduled = action.scheduleTask if action.HasField("scheduleTask") else action.createSubOrchestration
        value = json.loads(scheduled.input.value) if scheduled.input.value else None
        try:
            result = activities[scheduled.name](value) if scheduled.name in activities else value
        except Exception as error:
            return self.failed(step, error)
        return self.completed(step, result)

    # -- results --------------------------------------------------------------------------------------------------

    @property
    def result(self) -> Any:
        """The result of a completed instance; an ``AssertionError`` that says why if it did not complete."""
        assert self.outcome is not None, f"still running; outstanding: {list(self.outstanding)}"
        details = self.outcome.failureDetails
        assert self.outcome.orchestrationStatus == COMPLETED, f"{details.errorType}: {details.errorMessage}"
        return json.loads(self.outcome.result.value) if self.outcome.result.value else None

    @property
    def failure(self) -> pb.TaskFailureDetails:
        """The failure details of a failed instance."""
        assert self.outcome is not None, "still running"
        assert self.outcome.orchestrationStatus == FAILED, f"completed with {self.outcome.result.value}"
        return self.outcome.failureDetails


class Outcome:
    """What an executor returned."""

    def __init__(self, actions: Sequence[pb.OrchestratorAction], encoded_custom_status: str | None) -> None:
        self.actions = actions
        self.encoded_custom_status = encoded_custom_status


def execute(
    instance: Instance,
    past: Sequence[pb.HistoryEvent],
    new: Sequence[pb.HistoryEvent],
    *,
    orchestrator: Callable[..., Any] | None = None,
) -> Any:
    """One turn through upstream's executor, as its worker would run it."""
    registry = _Registry()
    registry.add_named_orchestrator(instance.name, orchestrator or instance.orchestrator)
    executor = _OrchestrationExecutor(registry, _QUIET, instance.converter)
    if not instance.scoped:
        return executor.execute(instance.instance_id, past, new)
    with turn_scope():
        return executor.execute(instance.instance_id, past, new)


def replay(instance: Instance, orchestrator: Callable[..., Any] | None = None) -> None:
    """Assert that the history, cut after every turn, makes the orchestrator emit the very same actions again."""
    begin = 0
    for number, (end, actions) in enumerate(zip(instance.cuts, instance.turns, strict=True)):
        # The events of this turn's batch begin at the last orchestratorStarted before the cut.
        begin = max(i for i in range(end) if instance.history[i].HasField("orchestratorStarted"))
        again = execute(instance, instance.history[:begin], instance.history[begin:end], orchestrator=orchestrator)
        assert canonical(again.actions) == canonical(actions), f"turn {number} of {instance.instance_id} differs"


def _timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment.replace(tzinfo=timezone.utc))
    return stamp
