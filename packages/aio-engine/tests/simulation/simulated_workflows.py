"""A worker's half of a turn, as small as it can be: programs in JSON, interpreted over the events of a history.

A program is the input of an instance: a list of steps, each a list of the step's name and its arguments.  What a turn
answers is a function of the events alone, so a turn whose answer was lost can be run again.  It follows upstream's
worker in what an engine notices of it: the numbers of actions, the buffering of events while an instance is suspended,
and the rewriting of a history for a rewind.

Every activity, child, event and operation has a key of its own, which its result repeats: a result that was recorded
for another task is found here, and so is everything in a history that must not be there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.transitions import COMPLETED, CONTINUED_AS_NEW, FAILED, TERMINATED

Step = list[Any]


class Problem(AssertionError):
    """Something is in a history that the engine must not have put there."""


class ProgramFailed(Exception):
    """A program ends as failed."""


class Outcome:
    """The outcome of an action, to come."""

    __slots__ = ("failed", "is_done", "value")

    def __init__(self) -> None:
        self.is_done = False
        self.failed = False
        self.value: Any = None


Wait = tuple[list[Outcome], int]
"""What a program waits for: so many of these outcomes."""

Running = Generator[Wait, None, None]


class Execution:
    """One execution, rebuilt from its events."""

    def __init__(self, instance_id: str, execution_id: str) -> None:
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.time = 0
        self.status = ""
        self.seen: list[str] = []
        self.completion: pb.CompleteOrchestrationAction | None = None
        self._next = 0
        self._actions: dict[int, pb.OrchestratorAction] = {}
        self._outcomes: dict[int | str, tuple[Outcome, str]] = {}
        """By the number of an action or the id of a request, with the result that is expected."""
        self._answered: set[int | str] = set()
        self._fire_at: dict[int, int] = {}
        self._buffer: list[tuple[str, str]] = []
        """Events that no step has waited for yet, with their names."""
        self._waiters: list[tuple[str, Outcome]] = []
        self._wait: Wait = [], 0
        self._program: Running | None = None
        self._suspended: list[pb.HistoryEvent] | None = None

    # -- events ----------------------------------------------------------------------------------------------------

    def process(self, event: pb.HistoryEvent) -> None:
        field = event.WhichOneof("eventType") or ""
        if self._suspended is not None and field not in ("executionResumed", "executionTerminated"):
            self._suspended.append(event)
            return
        body = getattr(event, field)
        if field in _CONFIRMATIONS:
            self._confirm(event.eventId, field, body)
        elif field in _OUTCOMES:
            self._complete(field, body)
        elif field in _HANDLERS:
            _HANDLERS[field](self, event, body)
        elif field not in ("orchestratorCompleted", "executionCompleted", "executionRewound"):
            raise Problem(f"{self.instance_id}: unexpected event {field}")

    def on_turn(self, event: pb.HistoryEvent, body: pb.OrchestratorStartedEvent) -> None:
        time = events.microseconds(event.timestamp)
        if time < self.time:
            raise Problem(f"{self.instance_id}: its time has gone back from {self.time} to {time}")
        self.time = time

    def on_start(self, event: pb.HistoryEvent, body: pb.ExecutionStartedEvent) -> None:
        if self._program is not None:
            raise Problem(f"{self.instance_id}: started twice")
        started = events.microseconds(event.timestamp)
        if started != self.time:
            raise Problem(f"{self.instance_id}: started at {started} in a turn of {self.time}")
        given = json.loads(body.input.value)
        self.seen = list(given["seen"])
        self._program = self._run(given)
        self._advance(None)

    def on_event(self, event: pb.HistoryEvent, body: pb.EventRaisedEvent) -> None:
        self.seen.append(body.input.value)
        for place, (name, outcome) in enumerate(self._waiters):
            if name == body.name and self.completion is None:
                del self._waiters[place]
                self._resolve(outcome, body.input.value, failed=False)
                return
        self._buffer.append((body.name, body.input.value))

    def on_suspended(self, event: pb.HistoryEvent, body: Any) -> None:
        self._suspended = []

    def on_resumed(self, event: pb.HistoryEvent, body: Any) -> None:
        waiting, self._suspended = self._suspended, None
        for each in waiting or ():
            self.process(each)

    def on_terminated(self, event: pb.HistoryEvent, body: pb.ExecutionTerminatedEvent) -> None:
        if self.completion is None:
            self._end(TERMINATED, body.input.value)

    def _confirm(self, number: int, field: str, body: Any) -> None:
        action = self._actions.pop(number, None)
        if action is None:
            raise Problem(f"{self.instance_id}: {field} {number} is in its history, and no action asks for it")
        kind = action.WhichOneof("orchestratorActionType") or ""
        asked = getattr(action, kind)
        if kind == "sendEntityMessage":
            kind = asked.WhichOneof("EntityMessageType") or ""
        if _CONFIRMATIONS[field] != kind:
            raise Problem(f"{self.instance_id}: {field} {number} is in its history, where {kind} has been asked for")
        if field in ("taskScheduled", "subOrchestrationInstanceCreated") and asked.input != body.input:
            raise Problem(f"{self.instance_id}: {field} {number} has the input of another one")

    def _complete(self, field: str, body: Any) -> None:
        key = getattr(body, _OUTCOMES[field])
        if key in self._answered:
            raise Problem(f"{self.instance_id}: {field} {key} is recorded twice")
        self._answered.add(key)
        if key not in self._outcomes:
            if self.completion is None:
                raise Problem(f"{self.instance_id}: {field} {key} answers nothing")
            return
        outcome, expected = self._outcomes.pop(key)
        failed = field.endswith("Failed")
        value = ""
        if field in ("taskCompleted", "subOrchestrationInstanceCompleted"):
            value = json.loads(body.result.value)["key"]
        elif field == "entityOperationCompleted":
            value = body.output.value
        elif field == "timerFired":
            if key in self._fire_at and self.time < self._fire_at[key]:
                raise Problem(f"{self.instance_id}: timer {key} has fired at {self.time}, {self._fire_at[key]} was due")
        elif field == "taskFailed":
            value = body.failureDetails.errorMessage
        if value and value != expected:
            raise Problem(f"{self.instance_id}: {field} {key} has the result of {value}, not of {expected}")
        self._resolve(outcome, value, failed=failed)

    def _resolve(self, outcome: Outcome, value: str, *, failed: bool) -> None:
        outcome.is_done, outcome.value, outcome.failed = True, value, failed
        if self.completion is None:
            self._advance(outcome)

    def _advance(self, changed: Outcome | None) -> None:
        """Continue the program if it has all that it waits for."""
        assert self._program is not None
        if changed is not None and changed not in self._wait[0]:
            return
        try:
            if changed is not None and changed.failed:
                raise ProgramFailed("an action has failed")
            while sum(each.is_done for each in self._wait[0]) >= self._wait[1]:
                self._wait = next(self._program)
        except StopIteration:
            if self.completion is None:
                self._end(COMPLETED, json.dumps({"key": self._reply}))
        except ProgramFailed as error:
            self._end(FAILED, None, str(error))

    def _end(self, status: int, result: str | None, failure: str = "") -> None:
        self.completion = pb.CompleteOrchestrationAction(orchestrationStatus=status)  # type: ignore[arg-type]
        if result is not None:
            self.completion.result.value = result
        if failure:
            self.completion.failureDetails.CopyFrom(events.failure("ProgramFailed", failure))

    def actions(self) -> list[pb.OrchestratorAction]:
        """Return what the turn asks for."""
        actions = list(self._actions.values())
        if self.completion is not None:
            if self.completion.orchestrationStatus == CONTINUED_AS_NEW:
                self._carry_over(self.completion)
            actions.append(pb.OrchestratorAction(id=self._next, completeOrchestration=self.completion))
        return actions

    def _carry_over(self, completion: pb.CompleteOrchestrationAction) -> None:
        """Give the next execution the events that no step has waited for, and what has been seen of the others."""
        suspended = [each.eventRaised for each in self._suspended or () if each.HasField("eventRaised")]
        unused = self._buffer + [(each.name, each.input.value) for each in suspended]
        buffered = {data for _, data in self._buffer}
        seen = [each for each in self.seen if each not in buffered]
        completion.result.value = json.dumps({**json.loads(completion.result.value), "seen": seen})
        for name, data in unused:
            carried = pb.EventRaisedEvent(name=name, input=events.string_value(data))
            completion.carryoverEvents.append(pb.HistoryEvent(eventId=-1, eventRaised=carried))

    # -- programs --------------------------------------------------------------------------------------------------

    def _run(self, given: dict[str, Any]) -> Running:
        self._reply = given.get("reply", "")
        yield from self._steps(given["steps"])

    def _steps(self, steps: Sequence[Step]) -> Running:
        for name, *arguments in steps:
            yield from getattr(self, f"_step_{name}")(*arguments)
            if self.completion is not None:
                return

    def _step_activities(self, count: int, name: str) -> Running:
        for _ in range(count):
            yield [self._activity(name)], 1

    def _step_fan_out(self, activities: int, delays: list[int], children: list[dict[str, Any]]) -> Running:
        outcomes = [self._activity("work") for _ in range(activities)]
        outcomes += [self._timer(delay) for delay in delays]
        outcomes += [self._child("", program) for program in children]
        yield outcomes, len(outcomes)

    def _step_race(self, activities: int, delay: int, entity_id: str | None) -> Running:
        outcomes = [self._timer(delay), *(self._activity("work") for _ in range(activities))]
        if entity_id is not None:
            outcomes.append(self._call(entity_id, "add"))
        yield outcomes, 1

    def _step_timer(self, delay: int) -> Running:
        yield [self._timer(delay)], 1

    def _step_child(self, instance_id: str, program: dict[str, Any], is_detached: bool) -> Running:
        outcome = self._child(instance_id, program)
        if not is_detached:
            yield [outcome], 1

    def _step_send(self, target: str, name: str) -> Running:
        number, action = self._action()
        action.sendEvent.instance.instanceId = target
        action.sendEvent.name = name
        action.sendEvent.data.value = self._key(number)
        yield from ()

    def _step_wait(self, name: str, timeout: int) -> Running:
        outcome = Outcome()
        for place, (buffered, data) in enumerate(self._buffer):
            if buffered == name:
                del self._buffer[place]
                outcome.is_done, outcome.value = True, data
                break
        else:
            self._waiters.append((name, outcome))
        yield [outcome, self._timer(timeout)], 1
        self._waiters = [each for each in self._waiters if each[1] is not outcome]

    def _step_continue(self, program: dict[str, Any]) -> Running:
        self._end(CONTINUED_AS_NEW, json.dumps({**program, "reply": self._reply}))
        yield from ()

    def _step_call(self, entity_id: str, operation: str) -> Running:
        yield [self._call(entity_id, operation)], 1

    def _step_signal(self, entity_id: str, operation: str, delay: int) -> Running:
        number, action = self._action()
        signal = action.sendEntityMessage.entityOperationSignaled
        signal.requestId = signal.input.value = self._key(number)
        signal.operation, signal.targetInstanceId.value = operation, entity_id
        if delay:
            signal.scheduledTime.CopyFrom(events.timestamp(self.time + delay))
        yield from ()

    def _step_lock(self, entity_ids: list[str], steps: list[Step]) -> Running:
        number, action = self._action()
        section = self._key(number)
        request = action.sendEntityMessage.entityLockRequested
        request.criticalSectionId = section
        request.lockSet.extend(entity_ids)
        request.parentInstanceId.value = self.instance_id
        granted = Outcome()
        self._outcomes[section] = granted, ""
        yield [granted], 1
        # A program that fails in here keeps its locks: the engine has to release them.
        yield from self._steps(steps)
        if self.completion is None:
            for entity_id in entity_ids:
                _, release = self._action()
                unlock = release.sendEntityMessage.entityUnlockSent
                unlock.criticalSectionId = section
                unlock.targetInstanceId.value, unlock.parentInstanceId.value = entity_id, self.instance_id

    def _step_status(self, text: str) -> Running:
        self.status = text
        yield from ()

    def _step_fail(self) -> Running:
        raise ProgramFailed("as planned")
        yield

    # -- actions ---------------------------------------------------------------------------------------------------

    def _action(self) -> tuple[int, pb.OrchestratorAction]:
        number = self._next
        self._next += 1
        action = pb.OrchestratorAction(id=number)
        self._actions[number] = action
        return number, action

    def _key(self, number: int) -> str:
        """Return what no other action has, of whatever instance and execution."""
        return f"{self.instance_id}/{self.execution_id}/{number}"

    def _activity(self, name: str) -> Outcome:
        number, action = self._action()
        action.scheduleTask.name = name
        action.scheduleTask.input.value = self._key(number)
        return self._outcome(number, self._key(number))

    def _call(self, entity_id: str, operation: str) -> Outcome:
        number, action = self._action()
        key = self._key(number)
        call = action.sendEntityMessage.entityOperationCalled
        call.requestId, call.operation, call.input.value = key, operation, key
        call.targetInstanceId.value, call.parentInstanceId.value = entity_id, self.instance_id
        outcome = Outcome()
        self._outcomes[key] = outcome, key
        return outcome

    def _timer(self, delay: int) -> Outcome:
        number, action = self._action()
        self._fire_at[number] = self.time + delay
        action.createTimer.fireAt.CopyFrom(events.timestamp(self.time + delay))
        return self._outcome(number, "")

    def _child(self, instance_id: str, program: dict[str, Any]) -> Outcome:
        number, action = self._action()
        key = self._key(number)
        action.createSubOrchestration.name = "program"
        action.createSubOrchestration.instanceId = instance_id
        action.createSubOrchestration.input.value = json.dumps({**program, "reply": key})
        return self._outcome(number, key)

    def _outcome(self, number: int, expected: str) -> Outcome:
        outcome = Outcome()
        self._outcomes[number] = outcome, expected
        return outcome


_Handler = Callable[[Execution, pb.HistoryEvent, Any], None]

_HANDLERS: dict[str, _Handler] = {
    "orchestratorStarted": Execution.on_turn,
    "executionStarted": Execution.on_start,
    "eventRaised": Execution.on_event,
    "executionSuspended": Execution.on_suspended,
    "executionResumed": Execution.on_resumed,
    "executionTerminated": Execution.on_terminated,
}

_CONFIRMATIONS = {
    "taskScheduled": "scheduleTask",
    "timerCreated": "createTimer",
    "subOrchestrationInstanceCreated": "createSubOrchestration",
    "eventSent": "sendEvent",
    "entityOperationCalled": "entityOperationCalled",
    "entityOperationSignaled": "entityOperationSignaled",
    "entityLockRequested": "entityLockRequested",
    "entityUnlockSent": "entityUnlockSent",
}

_OUTCOMES = {
    "taskCompleted": "taskScheduledId",
    "taskFailed": "taskScheduledId",
    "timerFired": "timerId",
    "subOrchestrationInstanceCompleted": "taskScheduledId",
    "subOrchestrationInstanceFailed": "taskScheduledId",
    "entityOperationCompleted": "requestId",
    "entityOperationFailed": "requestId",
    "entityLockGranted": "criticalSectionId",
}


def run_turn(request: pb.OrchestratorRequest, token: str) -> pb.OrchestratorResponse:
    """Answer a turn."""
    response = pb.OrchestratorResponse(instanceId=request.instanceId, completionToken=token)
    if any(each.HasField("executionRewound") for each in request.newEvents) and any(
        each.HasField("executionCompleted") for each in request.pastEvents
    ):
        response.actions.append(_rewind(request))
        return response
    execution = Execution(request.instanceId, request.executionId.value)
    for event in request.pastEvents:
        execution.process(event)
    for event in request.newEvents:
        execution.process(event)
    response.actions.extend(execution.actions())
    response.customStatus.value = execution.status
    return response


_DROPPED = ("taskFailed", "subOrchestrationInstanceFailed", "executionCompleted")


def _rewind(request: pb.OrchestratorRequest) -> pb.OrchestratorAction:
    """Rewrite a history as upstream's worker does."""
    if len(request.newEvents) != 2:
        raise Problem(f"{request.instanceId}: a rewind must come alone, not with {len(request.newEvents) - 2} events")
    history = [*request.pastEvents, *request.newEvents]
    failed = {each.taskFailed.taskScheduledId for each in history if each.HasField("taskFailed")}
    action = pb.OrchestratorAction(id=-1)
    action.rewindOrchestration.SetInParent()
    for event in history:
        dropped = event.WhichOneof("eventType") in _DROPPED
        if not dropped and not (event.HasField("taskScheduled") and event.eventId in failed):
            action.rewindOrchestration.newHistory.append(event)
    return action
