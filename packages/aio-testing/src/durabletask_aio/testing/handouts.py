"""Work items on their way: who holds which, and how one comes back.

Upstream's in-memory backend forgets whom it gave a work item, so what a killed worker held is lost.  Here every item
carries a fresh token and its taker.  When the taker goes away, its items return to their queues, and what an old
token still delivers is ignored once another worker has taken the item.

There are no leases: a worker that hangs with its stream open keeps what it holds.
"""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Literal, TypeAlias

from durabletask_aio.testing._upstream import (
    ActivityWorkItem,
    EntityState,
    InMemoryOrchestrationBackend,
    OrchestrationInstance,
    helpers,
    pb,
)
from durabletask_aio.testing.clock import Clock
from durabletask_aio.testing.wire import forget_history_bytes, turn_bytes

_logger = logging.getLogger("durabletask.aio.testing")

_WAKES_THE_SUSPENDED = ("executionResumed", "executionTerminated")

_PAUSE_AFTER_ABANDON = timedelta(milliseconds=100)
"""A worker that rejects an item (a version it does not serve) would be offered it again at once, forever."""

Filters: TypeAlias = (
    "tuple[dict[str, frozenset[str]] | None, dict[str, frozenset[str]] | None, dict[str, frozenset[str]] | None]"
)
"""Names and versions a worker serves: orchestrators, activities, entities.  `None` means all."""

EVERYTHING: Filters = (None, None, None)


class WorkSignal(threading.Event):
    """Says that there may be work.  Unlike an event that is cleared, it cannot be stolen by another waiter."""

    def __init__(self) -> None:
        super().__init__()
        self._raised = 0
        self._changed = threading.Condition()

    def set(self) -> None:
        with self._changed:
            self._raised += 1
            self._changed.notify_all()

    def ticket(self) -> int:
        """Take one before looking for work, and give it to `wait_since` if there was none."""
        return self._raised

    def wait_since(self, ticket: int, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._raised != ticket, timeout)


class Taker:
    """A consumer of work items: one stream of one worker."""

    def __init__(self) -> None:
        self.gone = False


@dataclass(eq=False)
class Handout:
    """A work item on its way: what was given, to whom, and what is needed to requeue it."""

    token: str
    kind: Literal["orchestration", "activity", "entity"]
    key: str
    make_message: Callable[[], pb.WorkItem]
    taker: Taker
    activity: Activity | None = None
    taken_back: bool = False
    make_bytes: Callable[[], bytes] | None = None

    @property
    def message(self) -> pb.WorkItem:
        """The work item as it goes over the wire; made when asked for, since it copies the whole history."""
        return self.make_message()

    @property
    def wire_format(self) -> pb.WorkItem | bytes:
        """The same for a stream: bytes if there is a way to them that is shorter than through the message."""
        return self.message if self.make_bytes is None else self.make_bytes()


@dataclass
class Activity(ActivityWorkItem):
    """Upstream's queue entry with what upstream drops, and the execution that it belongs to."""

    execution: int = 0
    action: pb.ScheduleTaskAction = field(default_factory=pb.ScheduleTaskAction)


class HandoutBackend(InMemoryOrchestrationBackend):
    """Upstream's state machine, whose work items are taken one by one and come back if their taker goes away."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(max_history_size=sys.maxsize, port=0)
        self.clock = clock
        self.signal = WorkSignal()
        self._work_available = self.signal
        self._handouts: dict[str, Handout] = {}

    def is_live(self, instance_id: str, execution: int) -> bool:
        """Whether that execution is the instance's latest and has not ended."""
        raise NotImplementedError

    def now_of(self, instance_id: str) -> datetime:
        """What time it is for that instance."""
        raise NotImplementedError

    def deliver(self, instance_id: str, event: pb.HistoryEvent) -> None:
        """Something has happened to the instance: wake it."""
        instance = self._instances[instance_id]
        instance.pending_events.append(event)
        instance.last_updated_at = self.clock.now()
        self._enqueue_orchestration(instance_id)

    def take(self, taker: Taker, filters: Filters = EVERYTHING) -> Handout | None:
        """The next work item that matches, now held by `taker`; `None` if there is none or the taker has gone."""
        with self._lock:
            if taker.gone:
                return None
            handout = (
                self._take_orchestration(taker, filters[0])
                or self._take_activity(taker, filters[1])
                or self._take_entity(taker, filters[2])
            )
            if handout is not None:
                self._handouts[handout.token] = handout
            return handout

    def take_back(self, token: str) -> None:
        """Put a handed-out item back in its queue, in front of what waits there.  Unknown tokens are ignored."""
        with self._lock:
            handout = self._handouts.get(token)
            if handout is None or handout.taken_back:
                return
            if handout.kind == "activity" and handout.activity is not None:
                # The token stays good until another worker takes the item, so that a worker which shuts down in
                # order, finishing what it has begun after its stream has ended, is not asked to do it twice.
                handout.taken_back = True
                self._activity_queue.appendleft(handout.activity)
            else:
                del self._handouts[token]
                if handout.kind == "orchestration":
                    self._take_back_orchestration(handout)
                else:
                    self._take_back_entity(handout)
            self.signal.set()

    def release(self, taker: Taker) -> None:
        """The taker has gone: everything it still holds goes back to the queues."""
        with self._lock:
            taker.gone = True
            for handout in [each for each in self._handouts.values() if each.taker is taker]:
                _logger.info("Redelivering %s '%s': its worker's stream has ended", handout.kind, handout.key)
                self.take_back(handout.token)
            self.signal.set()

    def _fresh_token(self) -> int:
        token = self._next_completion_token
        self._next_completion_token += 1
        return token

    def _take_orchestration(self, taker: Taker, names: dict[str, frozenset[str]] | None) -> Handout | None:
        skipped: list[str] = []
        try:
            while self._orchestration_queue:
                instance_id = self._orchestration_queue.popleft()
                self._orchestration_queue_set.discard(instance_id)
                instance = self._instances.get(instance_id)
                if instance is None or not instance.pending_events:
                    continue
                if self._is_terminal_status(instance.status):
                    instance.pending_events.clear()
                    continue
                if instance_id in self._orchestration_in_flight:
                    continue  # completing or requeuing the turn enqueues it again
                if not self._matches_filter(instance.name, instance.version, names):
                    skipped.append(instance_id)
                    continue
                return self._hand_out_turn(instance, taker)
        finally:
            for instance_id in skipped:
                self._orchestration_queue.append(instance_id)
                self._orchestration_queue_set.add(instance_id)
        return None

    def _hand_out_turn(self, instance: OrchestrationInstance, taker: Taker) -> Handout:
        now = self.now_of(instance.instance_id)
        events = list(instance.pending_events)
        instance.pending_events.clear()
        if instance.history and not events[0].HasField("orchestratorStarted"):
            events.insert(0, helpers.new_orchestrator_started_event(now))
        stamp(events, now)
        instance.dispatched_events = list(events)
        instance.completion_token = self._fresh_token()
        self._orchestration_in_flight.add(instance.instance_id)
        token = str(instance.completion_token)

        def message() -> pb.WorkItem:
            request = pb.OrchestratorRequest(
                instanceId=instance.instance_id, pastEvents=instance.history, newEvents=events
            )
            return pb.WorkItem(completionToken=token, orchestratorRequest=request)

        return Handout(
            token,
            "orchestration",
            instance.instance_id,
            message,
            taker,
            make_bytes=lambda: turn_bytes(instance, events, token),
        )

    def _take_activity(self, taker: Taker, names: dict[str, frozenset[str]] | None) -> Handout | None:
        queue = self._activity_queue
        position = next(
            (n for n, each in enumerate(queue) if self._matches_filter(each.name, each.version, names)), None
        )
        if position is None:
            return None
        item = queue[position]
        del queue[position]
        assert isinstance(item, Activity)
        self._handouts.pop(str(item.completion_token), None)
        item.completion_token = self._fresh_token()
        token = str(item.completion_token)
        request = pb.ActivityRequest(
            name=item.name,
            taskId=item.task_id,
            input=helpers.get_string_value(item.input or None),
            orchestrationInstance=pb.OrchestrationInstance(instanceId=item.instance_id),
            tags=item.action.tags,
        )
        if item.action.HasField("version"):
            request.version.CopyFrom(item.action.version)
        if item.action.HasField("parentTraceContext"):
            request.parentTraceContext.CopyFrom(item.action.parentTraceContext)
        message = pb.WorkItem(completionToken=token, activityRequest=request)
        return Handout(token, "activity", item.name, lambda: message, taker, activity=item)

    def _take_entity(self, taker: Taker, names: dict[str, frozenset[str]] | None) -> Handout | None:
        skipped: list[str] = []
        try:
            while self._entity_queue:
                entity_id = self._entity_queue.popleft()
                self._entity_queue_set.discard(entity_id)
                entity = self._entities.get(entity_id)
                if entity is None or not entity.pending_operations or entity_id in self._entity_in_flight:
                    continue
                if not self._matches_filter(_entity_name(entity_id), None, names):
                    skipped.append(entity_id)
                    continue
                return self._hand_out_batch(entity, taker)
        finally:
            for entity_id in skipped:
                self._entity_queue.append(entity_id)
                self._entity_queue_set.add(entity_id)
        return None

    def _hand_out_batch(self, entity: EntityState, taker: Taker) -> Handout:
        entity_id = entity.instance_id
        self._entity_in_flight.add(entity_id)
        entity.dispatched_operations = list(entity.pending_operations)
        entity.pending_operations.clear()
        entity.completion_token = self._fresh_token()
        token = str(entity.completion_token)
        request = pb.EntityRequest(
            instanceId=entity_id,
            entityState=helpers.get_string_value(entity.serialized_state or None),
            operationRequests=entity.dispatched_operations,
        )
        message = pb.WorkItem(completionToken=token, entityRequestV2=request)
        return Handout(token, "entity", entity_id, lambda: message, taker)

    def _take_back_orchestration(self, handout: Handout) -> None:
        instance = self._instances.get(handout.key)
        if instance is None or str(instance.completion_token) != handout.token:
            return
        instance.pending_events[:0] = instance.dispatched_events
        instance.dispatched_events.clear()
        self._orchestration_in_flight.discard(handout.key)
        self._enqueue_orchestration(handout.key)

    def _take_back_entity(self, handout: Handout) -> None:
        entity = self._entities.get(handout.key)
        if entity is None or str(entity.completion_token) != handout.token:
            return
        entity.pending_operations[:0] = entity.dispatched_operations
        entity.dispatched_operations.clear()
        self._entity_in_flight.discard(handout.key)
        self._enqueue_entity(handout.key)

    # What workers answer

    def CompleteOrchestratorTask(self, request: pb.OrchestratorResponse, context: Any) -> pb.CompleteTaskResponse:
        with self._lock:
            handout = self._handouts.pop(request.completionToken, None)
            instance = self._instances.get(request.instanceId)
            if handout is None or instance is None or str(instance.completion_token) != handout.token:
                # Upstream also declares the instance idle here; it may be another worker's by now.
                _logger.info("Ignoring the stale result of a turn of '%s'", request.instanceId)
                return pb.CompleteTaskResponse()
            response = super().CompleteOrchestratorTask(request, context)
            stamp_the_newest(instance.history, self.now_of(instance.instance_id))
            if self._is_terminal_status(instance.status):
                forget_history_bytes(instance)
            elif instance.status == pb.ORCHESTRATION_STATUS_SUSPENDED and any(
                event.WhichOneof("eventType") in _WAKES_THE_SUSPENDED for event in instance.pending_events
            ):
                # It has come during the turn.  Upstream forgets it: what is suspended is not looked at again.
                self._enqueue_orchestration(request.instanceId)
            return response

    def CompleteActivityTask(self, request: pb.ActivityResponse, context: Any) -> pb.CompleteTaskResponse:
        with self._lock:
            handout = self._handouts.pop(request.completionToken, None)
            if handout is None or handout.activity is None:
                _logger.info("Ignoring the stale result of activity %s of '%s'", request.taskId, request.instanceId)
                return pb.CompleteTaskResponse()
            activity = handout.activity
            if handout.taken_back:
                # By identity: two calls of one activity may well be equal.
                self._activity_queue = deque(each for each in self._activity_queue if each is not activity)
            if self.is_live(activity.instance_id, activity.execution):
                # Not super(): upstream takes a failure without a message (`raise ValueError`) for a success.
                event = pb.HistoryEvent(eventId=-1)
                if request.HasField("failureDetails"):
                    event.taskFailed.taskScheduledId = request.taskId
                    event.taskFailed.failureDetails.CopyFrom(request.failureDetails)
                else:
                    event.taskCompleted.taskScheduledId = request.taskId
                    event.taskCompleted.result.CopyFrom(request.result)
                self.deliver(activity.instance_id, event)
            return pb.CompleteTaskResponse()

    def CompleteEntityTask(self, request: pb.EntityBatchResult, context: Any) -> pb.CompleteTaskResponse:
        with self._lock:
            if self._handouts.pop(request.completionToken, None) is None:
                _logger.info("Ignoring the stale result of an entity batch")
                return pb.CompleteTaskResponse()
            return super().CompleteEntityTask(request, context)

    def AbandonTaskOrchestratorWorkItem(
        self, request: pb.AbandonOrchestrationTaskRequest, context: Any
    ) -> pb.AbandonOrchestrationTaskResponse:
        self._take_back_later(request.completionToken)
        return pb.AbandonOrchestrationTaskResponse()

    def AbandonTaskActivityWorkItem(
        self, request: pb.AbandonActivityTaskRequest, context: Any
    ) -> pb.AbandonActivityTaskResponse:
        self._take_back_later(request.completionToken)
        return pb.AbandonActivityTaskResponse()

    def AbandonTaskEntityWorkItem(
        self, request: pb.AbandonEntityTaskRequest, context: Any
    ) -> pb.AbandonEntityTaskResponse:
        self._take_back_later(request.completionToken)
        return pb.AbandonEntityTaskResponse()

    def _take_back_later(self, token: str) -> None:
        self.clock.call_at(self.clock.now() + _PAUSE_AFTER_ABANDON, lambda: self.take_back(token))

    def reset(self) -> None:
        with self._lock:
            super().reset()  # type: ignore[no-untyped-call]
            self._handouts.clear()
            self.signal.set()


def is_stamped(event: pb.HistoryEvent) -> bool:
    """Return whether the event has a time."""
    return bool(event.timestamp.seconds or event.timestamp.nanos)


def stamp(events: Iterable[pb.HistoryEvent], now: datetime) -> None:
    """Say of each event that does not know it yet when it happened."""
    for event in events:
        if not is_stamped(event):
            event.timestamp.FromDatetime(now)


def stamp_the_newest(events: Sequence[pb.HistoryEvent], now: datetime) -> None:
    """The same for events of which only the end can be new: a pass over all of them each time would be quadratic."""
    stamp(takewhile(lambda event: not is_stamped(event), reversed(events)), now)


def _entity_name(entity_id: str) -> str:
    """`@counter@one` -> `counter`."""
    return entity_id[1:].partition("@")[0]
