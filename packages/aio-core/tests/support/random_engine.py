"""An engine that completes operations in a random order, in random batches, and lets some of them fail.

All its choices come from one `random.Random`, or from Hypothesis's, so a run can be repeated from its seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any

from durabletask.internal import helpers as ph
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import CONTINUED, Instance, execute

from durabletask_aio.core.cancellation import CANCEL_EVENT

_ANSWERED = ("scheduleTask", "createSubOrchestration", "createTimer")


class RandomEngine:
    """Runs an instance to its end, and its next executions after `continue_as_new`."""

    def __init__(
        self,
        random: Random,
        *,
        events: Sequence[str] = (),
        failures: float = 0.2,
        max_batch: int = 4,
        interruptions: bool = True,
        terminations: bool = True,
        max_turns: int = 80,
    ) -> None:
        self.random = random
        self.events = list(events)
        self.failures = failures
        self.max_batch = max_batch
        self.interruptions = interruptions
        self.terminations = terminations
        self.max_turns = max_turns
        self._suspended = False

    def run(self, instance: Instance, *, turns: int | None = None) -> Instance:
        """Take turns until `instance` has ended, nothing is outstanding, or it has taken `turns` of them."""
        if not instance.turns:
            instance.start()
        limit = self.max_turns if turns is None else turns
        while instance.outcome is None and len(instance.turns) < limit:
            batch = self._batch(instance)
            if not batch:
                break
            instance.turn(*batch, advance=timedelta(milliseconds=self.random.randint(1, 3000)))
        return instance

    def next_execution(self, instance: Instance) -> Instance | None:
        """The execution that follows upon `continue_as_new`, with the events carried over; or `None`."""
        outcome = instance.outcome
        if outcome is None or outcome.orchestrationStatus != CONTINUED:
            return None
        following = Instance(
            instance.orchestrator,
            json.loads(outcome.result.value),
            instance_id=instance.instance_id,
            name=instance.name,
            start=instance.now + timedelta(seconds=1),
            scoped=instance.scoped,
        )
        following.start()
        if outcome.carryoverEvents:
            following.turn(*outcome.carryoverEvents)
        return following

    def run_all(self, instance: Instance) -> list[Instance]:
        """All executions of `instance`, each run to its end."""
        executions = []
        following: Instance | None = instance
        while following is not None:
            executions.append(self.run(following))
            following = self.next_execution(following)
        return executions

    # -- one batch ------------------------------------------------------------------------------------------------

    def _batch(self, instance: Instance) -> list[pb.HistoryEvent]:
        batch = []
        for _ in range(self.random.randint(1, self.max_batch)):
            event = self._event(instance)
            if event is None:
                break
            batch.append(event)
        if self._suspended:
            # Within the batch: otherwise upstream would buffer the confirmations of what was scheduled too, and so
            # schedule it again.
            self._suspended = False
            batch.append(pb.HistoryEvent(eventId=-1, executionResumed=pb.ExecutionResumedEvent()))
        return batch

    def _event(self, instance: Instance) -> pb.HistoryEvent | None:
        random = self.random
        if self._suspended:
            if random.random() < 0.4:
                self._suspended = False
                return pb.HistoryEvent(eventId=-1, executionResumed=pb.ExecutionResumedEvent())
        elif self.interruptions and random.random() < 0.02:
            self._suspended = True
            return pb.HistoryEvent(eventId=-1, executionSuspended=pb.ExecutionSuspendedEvent())
        if self.terminations and random.random() < 0.004:
            return pb.HistoryEvent(
                eventId=-1, executionTerminated=pb.ExecutionTerminatedEvent(input=ph.get_string_value('"enough"'))
            )
        steps = [step for step, action in instance.outstanding.items() if _is_answered(action)]
        if self.events and (not steps or random.random() < 0.25):
            name, number = self.events.pop(0), random.randint(0, 99)
            return instance.raised(name, {"reason": f"request {number}"} if name == CANCEL_EVENT else number)
        if steps:
            return self._answer(instance, random.choice(steps))
        return None

    def _answer(self, instance: Instance, step: int) -> pb.HistoryEvent:
        action = instance.outstanding[step]
        if action.HasField("createTimer"):
            return instance.fired(step)
        fails = self.random.random() < self.failures
        if not action.HasField("sendEntityMessage"):
            if fails:
                return instance.failed(step, self._error())
            return instance.completed(step, self.random.choice([None, 0, 1, 2, "text", [1, 2], {"k": 1}]))
        message = instance.outstanding.pop(step).sendEntityMessage
        if message.HasField("entityLockRequested"):
            granted = pb.EntityLockGrantedEvent(criticalSectionId=message.entityLockRequested.criticalSectionId)
            return pb.HistoryEvent(eventId=-1, entityLockGranted=granted)
        request = message.entityOperationCalled.requestId
        if fails:
            details = ph.new_failure_details(self._error())
            failed = pb.EntityOperationFailedEvent(requestId=request, failureDetails=details)
            return pb.HistoryEvent(eventId=-1, entityOperationFailed=failed)
        output = ph.get_string_value(json.dumps(self.random.randint(0, 9)))
        completed = pb.EntityOperationCompletedEvent(requestId=request, output=output)
        return pb.HistoryEvent(eventId=-1, entityOperationCompleted=completed)

    def _error(self) -> Exception:
        return self.random.choice([ValueError, RuntimeError, KeyError])(f"broken {self.random.randint(0, 9)}")


def _is_answered(action: pb.OrchestratorAction) -> bool:
    if any(action.HasField(kind) for kind in _ANSWERED):
        return True
    if not action.HasField("sendEntityMessage"):
        return False
    message = action.sendEntityMessage
    return message.HasField("entityOperationCalled") or message.HasField("entityLockRequested")


def shortest_completing(instance: Instance, orchestrator: Any, past: Any, new: Sequence[pb.HistoryEvent]) -> int:
    """How many of the `new` events it takes to complete `orchestrator`; all of them if it never does."""
    for size in range(1, len(new)):
        actions = execute(instance, past, new[:size], orchestrator=orchestrator).actions
        if any(action.HasField("completeOrchestration") for action in actions):
            return size
    return len(new)
