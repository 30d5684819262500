"""Runs orchestrators turn by turn on a virtual clock, without gRPC and without threads.

A test of determinism has to control which event arrives when and in which batch, and to see every action that is
emitted.  `Instance` keeps the history of one instance and delivers batches of events to it; executor, events and
actions are those of a real worker.  The test kit (`durabletask.aio.testing`) is not used, because the core is tested
without its companions.
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

from durabletask_aio.core.hosting import StepRunner, TurnExecutor, turn_scope

START = datetime(2026, 1, 1, 12, 0, 0)
LOGGER = logging.getLogger("turns")
"""Where executors log; silent, because tests provoke failures."""
LOGGER.setLevel(logging.CRITICAL)

COMPLETED = pb.ORCHESTRATION_STATUS_COMPLETED
FAILED = pb.ORCHESTRATION_STATUS_FAILED
CONTINUED = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW


def canonical(actions: Iterable[pb.OrchestratorAction]) -> list[bytes]:
    """Serialise actions, without their stack traces: the lines of the executor in them differ between two runs."""
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
    """One instance: its history, the turns it took, and the actions that have no answer yet."""

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
        steps: StepRunner | None = None,
    ) -> None:
        self.name = name or task.get_name(orchestrator)
        self.orchestrator = orchestrator
        self.instance_id = instance_id
        self.converter = converter or JsonDataConverter()
        self.now = start
        self.scoped = scoped
        self.step_runner = steps
        """Runs the steps of the workflow, which then runs on `TurnExecutor` and not on upstream's executor."""
        self.sent_to_itself: list[pb.HistoryEvent] = []
        """Events that it has sent to itself, which have not been delivered."""
        self.history: list[pb.HistoryEvent] = []
        self.turns: list[list[pb.OrchestratorAction]] = []
        """The actions of each turn."""
        self.cuts: list[int] = []
        """The length of the history at the end of each turn."""
        self.outcome: pb.CompleteOrchestrationAction | None = None
        self.custom_status: str | None = None
        self.custom_statuses: list[str | None] = []
        """The custom status after each turn."""
        self.asserted: int | None = None
        """The length of the history up to which it has been asserted that this instance equals its replay."""
        self.outstanding: dict[int, pb.OrchestratorAction] = {}
        started = pb.ExecutionStartedEvent(
            name=self.name,
            input=ph.get_string_value(None if input is None else self.converter.serialize(input)),
            orchestrationInstance=pb.OrchestrationInstance(instanceId=instance_id),
        )
        self.started = pb.HistoryEvent(eventId=-1, executionStarted=started)
        """The event that starts the execution."""

    # -- turns ----------------------------------------------------------------------------------------------------

    def start(self) -> Instance:
        """Take the first turn."""
        self.turn(self.started)
        return self

    def turn(
        self, *events: pb.HistoryEvent, advance: timedelta = timedelta(milliseconds=1)
    ) -> list[pb.OrchestratorAction]:
        """Deliver a batch of events, and record the actions and the custom status that the orchestrator answers."""
        self.now += advance
        batch = self.batch(*events)
        result = execute(self, self.history, batch)
        self.history += batch
        self.cuts.append(len(self.history))
        self.turns.append(list(result.actions))
        self.custom_status = result.encoded_custom_status
        self.custom_statuses.append(self.custom_status)
        for action in result.actions:
            self._apply(action)
        return self.turns[-1]

    def batch(self, *events: pb.HistoryEvent) -> list[pb.HistoryEvent]:
        """Return the events as an engine delivers them: after the start of a turn, and with the time of now."""
        turn_started = pb.HistoryEvent(eventId=-1, orchestratorStarted=pb.OrchestratorStartedEvent())
        return [self._stamped(event) for event in (turn_started, *events)]

    def _stamped(self, event: pb.HistoryEvent) -> pb.HistoryEvent:
        stamped = pb.HistoryEvent()
        stamped.CopyFrom(event)  # an event that was carried over is still referred to by the actions of the last turn
        stamped.timestamp.CopyFrom(timestamp(self.now))
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
            sent = action.sendEvent
            event.eventSent.CopyFrom(
                pb.EventSentEvent(instanceId=sent.instance.instanceId, name=sent.name, input=sent.data)
            )
            if sent.instance.instanceId == self.instance_id:
                raised = pb.EventRaisedEvent(name=sent.name, input=sent.data)
                self.sent_to_itself.append(pb.HistoryEvent(eventId=-1, eventRaised=raised))
        elif kind == "sendEntityMessage":
            message = action.sendEntityMessage
            field = message.WhichOneof("EntityMessageType")
            getattr(event, field).CopyFrom(getattr(message, field))
        else:
            raise AssertionError(f"unknown action: {kind}")
        self.history.append(self._stamped(event))
        self.outstanding[action.id] = action

    def batch_begin(self, end: int) -> int:
        """Return where the batch begins whose turn had a history of `end` events."""
        return max(i for i in range(end) if self.history[i].HasField("orchestratorStarted"))

    # -- events ---------------------------------------------------------------------------------------------------

    def _take(self, step: int) -> pb.OrchestratorAction:
        assert step in self.outstanding, f"no action {step} is outstanding: {list(self.outstanding)}"
        return self.outstanding.pop(step)

    def completed(self, step: int, result: Any = None) -> pb.HistoryEvent:
        """Return the event that completes the activity or sub-orchestration of that step."""
        action = self._take(step)
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
        """Return the event that fails the activity or sub-orchestration of that step."""
        action = self._take(step)
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
        """Return the event that fires the timer of that step, and move the clock to its time."""
        action = self._take(step)
        fire_at = action.createTimer.fireAt
        self.now = max(self.now, fire_at.ToDatetime())
        return pb.HistoryEvent(eventId=-1, timerFired=pb.TimerFiredEvent(timerId=step, fireAt=fire_at))

    @staticmethod
    def raised(name: str, data: Any = None) -> pb.HistoryEvent:
        """Return an external event."""
        value = ph.get_string_value(None if data is None else json.dumps(data))
        return pb.HistoryEvent(eventId=-1, eventRaised=pb.EventRaisedEvent(name=name, input=value))

    # -- whole runs -----------------------------------------------------------------------------------------------

    def steps(self, kind: str) -> list[int]:
        """Return the outstanding steps of that kind of action, oldest first."""
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
        """Take turns until the instance has ended or nothing is outstanding.

        Args:
            activities: functions of the input, by name; an activity that is not listed returns its input.
            seed: if given, activities complete in a random order, and the sizes of the batches are random.
            events: external events, as `(seconds after the start, name, payload)`.
            limit: maximum number of turns.
            latency: how many virtual seconds each activity takes; with a `seed`, 0.1 to 100 times that.
            batch: maximum number of events in a batch; without a `seed`, the number.

        Returns:
            This instance.
        """
        chance = random.Random(seed) if seed is not None else None
        due: dict[int, datetime] = {}
        waiting = sorted((self.now + timedelta(seconds=after), name, data) for after, name, data in events)
        if not self.turns:
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
        if self.sent_to_itself and (chance is None or chance.random() < 0.5):
            return self.sent_to_itself.pop(0)
        candidates = [(due[step], step) for step in self.outstanding if step in due]
        if waiting and (not candidates or waiting[0][0] <= min(candidates)[0]):
            when, name, data = waiting.pop(0)
            self.now = max(self.now, when)
            return self.raised(name, data)
        if not candidates:
            return self.sent_to_itself.pop(0) if self.sent_to_itself else None
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
        """The result of a completed instance; if it did not complete, an `AssertionError` that says why."""
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


def _registry(instance: Instance, orchestrator: Callable[..., Any] | None) -> _Registry:
    registry = _Registry()
    registry.add_named_orchestrator(instance.name, orchestrator or instance.orchestrator)
    return registry


def new_executor(instance: Instance, orchestrator: Callable[..., Any] | None = None) -> TurnExecutor:
    """Return the executor of a host that knows us, before the first turn of `instance`.

    Args:
        instance: whose name, converter and orchestrator it gets.
        orchestrator: what to run instead of the instance's own.
    """
    executor = TurnExecutor(_registry(instance, orchestrator), LOGGER, instance.converter)
    executor.step_runner = instance.step_runner
    return executor


def execute(
    instance: Instance,
    past: Sequence[pb.HistoryEvent],
    new: Sequence[pb.HistoryEvent],
    *,
    orchestrator: Callable[..., Any] | None = None,
    recorded: Sequence[pb.HistoryEvent] = (),
    runner: StepRunner | None = None,
) -> Any:
    """Run one turn on upstream's own executor: the core alone, as under a worker that does not know the core.

    The only place where tests use that executor; `replays.live` continues instances with `TurnExecutor`, and the two
    must give the same actions.  Instances with steps, which that executor does not have, run on `TurnExecutor`.

    Args:
        instance: the instance.
        past: the past events of the turn.
        new: its new events.
        orchestrator: what to run instead of the instance's own.
        recorded: the whole history, in which steps find their records, also those of this turn.
        runner: runs steps, instead of the instance's own.

    Returns:
        Upstream's results: the actions and the custom status.
    """
    executor: Any
    if instance.step_runner is None:
        executor = _OrchestrationExecutor(_registry(instance, orchestrator), LOGGER, instance.converter)
    else:
        executor = new_executor(instance, orchestrator)
        executor.step_runner = runner or instance.step_runner
        executor.recorded = recorded
    if not instance.scoped:
        return executor.execute(instance.instance_id, past, new)
    with turn_scope():
        return executor.execute(instance.instance_id, past, new)


def replay(instance: Instance, orchestrator: Callable[..., Any] | None = None) -> None:
    """Assert that a replay of each turn emits the actions that were recorded for it."""
    for number, (end, actions) in enumerate(zip(instance.cuts, instance.turns, strict=True)):
        begin = instance.batch_begin(end)
        again = execute(instance, instance.history[:begin], instance.history[begin:end], orchestrator=orchestrator)
        assert canonical(again.actions) == canonical(actions), f"turn {number} of {instance.instance_id} differs"


def timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment.replace(tzinfo=timezone.utc))
    return stamp
