"""The engine: upstream's in-memory backend with its seams made explicit.

State machine, histories and work items are upstream's own; this subclass replaces what makes that backend unfit
for daily work.  Each point is a test in `tests/test_executions.py`, `tests/test_redelivery.py` or
`tests/test_clock.py`:

* **Hand-outs.**  Upstream forgets whom it gave a work item.  Here every item carries a fresh token and its taker;
  when the taker goes away the item goes back to the queue, and what the old token still delivers is ignored once
  another worker has taken the item.
* **One clock.**  Timers, delayed signals and watchers of sub-orchestrations ask a `Clock`; upstream starts an
  OS thread for each (and stops watching a sub-orchestration after thirty seconds).
* **Tags, versions and trace contexts** travel from the action into the events and work items.
* **Executions.**  A late result or timer of an execution that has continued as new, ended or been replaced is
  dropped.  Upstream delivers it by its number, so it can complete an unrelated task of the next execution, and it
  wakes instances that have ended, whose history then gets a second ending.
* **Failures** without a message are failures; upstream takes `raise ValueError` in an activity for a success.
* **Timestamps.**  Every event says when it happened; upstream stamps `orchestratorStarted` only.
* **Starts.**  No two executions of an instance start at one moment, from which come their random numbers and uuids,
  although a virtual clock stands still between them: see `Engine.now_of`.
* A sub-orchestration knows its parent, after `continue_as_new` too, recursive termination reaches the children, a
  start scheduled for later starts later, and there is no limit on the size of a history.
"""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import copy
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask_aio.testing._upstream import OrchestrationInstance, helpers, pb
from durabletask_aio.testing.clock import Clock
from durabletask_aio.testing.handouts import Activity, HandoutBackend, stamp, stamp_the_newest

_TICK = timedelta(microseconds=1)
_NOT_AT_ALL = timedelta(0)


@dataclass(frozen=True)
class _Watcher:
    parent_id: str
    parent_execution: int
    task_id: int


class Engine(HandoutBackend):
    """Upstream's state machine on a clock of our choice; `take` returns its work items.

    Thread-safe, as upstream's.  It serves nothing and starts nothing by itself: the local backend puts a gRPC server
    in front of it, the workflow environment drives it in process.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._executions: dict[str, int] = {}
        self._started_executions = 0
        self._starts: dict[str, datetime] = {}
        """When the latest execution of an instance started, by its own time."""
        self._ahead: dict[str, timedelta] = {}
        """By how much the time of an instance is ahead of the clock."""
        self._not_due: set[str] = set()
        """Instances whose start is scheduled for later."""
        self._watchers: dict[str, list[_Watcher]] = {}

    # Instances and their executions

    def _begin_execution(self, instance_id: str, scheduled: datetime | None = None) -> None:
        self._started_executions += 1
        self._executions[instance_id] = self._started_executions
        self._not_due.discard(instance_id)
        now, before = self.clock.now(), self._starts.get(instance_id)
        wanted = now if scheduled is None else scheduled
        start = wanted if before is None or before < wanted else before + _TICK
        self._starts[instance_id] = start
        self._ahead[instance_id] = max(start - max(wanted, now), _NOT_AT_ALL)

    def now_of(self, instance_id: str) -> datetime:
        """The clock's time; a microsecond later if the execution before this one has started at that very moment.

        What determines the random values of an execution is the instance and when it started, and so two of them must
        not start at once.  The clock itself is not moved for it: ten executions that sleep for a day each are over
        after ten days sharp.
        """
        return self.clock.now() + self._ahead.get(instance_id, _NOT_AT_ALL)

    def execution_of(self, instance_id: str) -> int:
        """A number that changes when the instance continues as new, is restarted or replaced."""
        return self._executions[instance_id]

    def is_live(self, instance_id: str, execution: int) -> bool:
        instance = self._instances.get(instance_id)
        return (
            instance is not None
            and not self._is_terminal_status(instance.status)
            and self._executions.get(instance_id) == execution
        )

    def StartInstance(self, request: pb.CreateInstanceRequest, context: Any) -> pb.CreateInstanceResponse:
        with self._lock:
            response = super().StartInstance(request, context)
            instance_id = response.instanceId
            self._orchestration_in_flight.discard(instance_id)  # of an instance that this one has replaced
            is_scheduled = request.HasField("scheduledStartTimestamp")
            when = request.scheduledStartTimestamp.ToDatetime(tzinfo=timezone.utc) if is_scheduled else None
            self._begin_execution(instance_id, when)
            instance = self._instances[instance_id]
            instance.created_at = instance.last_updated_at = self.clock.now()
            self._stamp_the_start(instance)
            started = instance.pending_events[1].executionStarted
            if request.HasField("parentTraceContext"):
                started.parentTraceContext.CopyFrom(request.parentTraceContext)
            if when is not None:
                started.scheduledStartTimestamp.CopyFrom(request.scheduledStartTimestamp)
                self._delay_start(instance, when)
            return response

    def _delay_start(self, instance: OrchestrationInstance, when: datetime) -> None:
        if when <= self.clock.now():
            return
        instance_id = instance.instance_id
        execution = self._executions[instance_id]
        self._orchestration_queue.remove(instance_id)
        self._orchestration_queue_set.discard(instance_id)
        self._not_due.add(instance_id)

        def start() -> None:
            with self._lock:
                if self.is_live(instance_id, execution):
                    self._not_due.discard(instance_id)
                    self._enqueue_orchestration(instance_id)

        self.clock.call_at(when, start)

    def RestartInstance(self, request: pb.RestartInstanceRequest, context: Any) -> pb.RestartInstanceResponse:
        with self._lock:
            before = self._instances.get(request.instanceId)
            response = super().RestartInstance(request, context)
            if before is not None:
                self._set_tags(self._instances[response.instanceId], before.tags)
            return response

    def _create_instance_internal(
        self, instance_id: str, name: str, encoded_input: str | None = None, version: str | None = None
    ) -> None:
        super()._create_instance_internal(instance_id, name, encoded_input, version)
        instance = self._instances[instance_id]
        self._begin_execution(instance_id)
        instance.created_at = instance.last_updated_at = self.clock.now()
        self._stamp_the_start(instance)

    def _stamp_the_start(self, instance: OrchestrationInstance) -> None:
        """Both events of it: upstream has queued the instance with the time of its own clock."""
        for event in instance.pending_events[:2]:
            event.timestamp.FromDatetime(self._starts[instance.instance_id])

    @staticmethod
    def _set_tags(instance: OrchestrationInstance, tags: Any) -> None:
        """Give tags to an execution that no worker has taken yet."""
        instance.tags = dict(tags) if tags else None
        for event in instance.pending_events:
            if event.HasField("executionStarted"):
                event.executionStarted.tags.update(instance.tags or {})

    def _terminate_instance_internal(self, instance_id: str, output: str | None, recursive: bool = False) -> None:
        super()._terminate_instance_internal(instance_id, output, recursive=False)
        if recursive:
            for child_id, watchers in list(self._watchers.items()):
                others = [watcher for watcher in watchers if watcher.parent_id != instance_id]
                if len(others) < len(watchers):
                    # The parent is about to end: that its child has ended too must not wake it before that.
                    self._watchers[child_id] = others
                    self._terminate_instance_internal(child_id, None, recursive=True)

    def _enqueue_orchestration(self, instance_id: str) -> None:
        instance = self._instances.get(instance_id)
        if instance is not None:
            stamp_the_newest(instance.pending_events, self.now_of(instance_id))
            if instance_id in self._not_due:
                if not instance.pending_events[-1].HasField("executionTerminated"):
                    return  # what comes before the start waits for it
                self._not_due.discard(instance_id)
        super()._enqueue_orchestration(instance_id)

    # What orchestrators ask for

    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        before = next((each.executionStarted for each in instance.history if each.HasField("executionStarted")), None)
        super()._process_complete_orchestration_action(instance, complete_action)
        if instance.completed_at is not None:
            instance.completed_at = self.clock.now()
        if complete_action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            self._begin_execution(instance.instance_id)
            self._stamp_the_start(instance)
            # Merged, as by other engines: the tags of the next execution are those of this one and what it asks for.
            self._set_tags(instance, {**(instance.tags or {}), **complete_action.tags})
            # Behind the new start there may be events of the execution before.
            stamp(instance.pending_events, self._starts[instance.instance_id])
            started = instance.pending_events[1].executionStarted
            for kept in ("parentInstance", "parentTraceContext"):
                if before is not None and before.HasField(kept):
                    getattr(started, kept).CopyFrom(getattr(before, kept))

    def _process_schedule_task_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        super()._process_schedule_task_action(instance, action)
        asked = action.scheduleTask
        scheduled = instance.history[-1].taskScheduled
        scheduled.tags.update(asked.tags)
        if asked.HasField("version"):
            scheduled.version.CopyFrom(asked.version)
        if asked.HasField("parentTraceContext"):
            scheduled.parentTraceContext.CopyFrom(asked.parentTraceContext)
        queued = self._activity_queue.pop()
        self._activity_queue.append(
            Activity(**vars(queued), execution=self._executions[instance.instance_id], action=asked)
        )

    def _process_create_timer_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        # Not super(): upstream starts the timer's thread in the same breath.
        timer_id = action.id
        instance_id = instance.instance_id
        execution = self._executions[instance_id]
        fire_at = action.createTimer.fireAt.ToDatetime(tzinfo=timezone.utc)
        instance.history.append(helpers.new_timer_created_event(timer_id, fire_at))

        def fire() -> None:
            with self._lock:
                if self.is_live(instance_id, execution):
                    self.deliver(instance_id, helpers.new_timer_fired_event(timer_id, fire_at))

        self.clock.call_at(fire_at - self._ahead[instance_id], fire)

    def _process_create_sub_orchestration_action(
        self, instance: OrchestrationInstance, action: pb.OrchestratorAction
    ) -> None:
        started_before = self._started_executions
        super()._process_create_sub_orchestration_action(instance, action)
        asked = action.createSubOrchestration
        created = instance.history[-1].subOrchestrationInstanceCreated
        created.tags.update(asked.tags)
        if asked.HasField("parentTraceContext"):
            created.parentTraceContext.CopyFrom(asked.parentTraceContext)
        if self._started_executions == started_before:
            return  # the name was taken: upstream has delivered the failure to the parent
        child = self._instances[asked.instanceId]
        self._set_tags(child, asked.tags)
        for event in child.pending_events:
            if event.HasField("executionStarted"):
                started = event.executionStarted
                started.parentInstance.taskScheduledId = action.id
                started.parentInstance.name.value = instance.name
                started.parentInstance.orchestrationInstance.instanceId = instance.instance_id
                if asked.HasField("parentTraceContext"):
                    started.parentTraceContext.CopyFrom(asked.parentTraceContext)

    def _watch_sub_orchestration(self, parent_instance_id: str, sub_instance_id: str, task_id: int) -> None:
        watcher = _Watcher(parent_instance_id, self._executions[parent_instance_id], task_id)
        self._watchers.setdefault(sub_instance_id, []).append(watcher)
        self._tell_parents(sub_instance_id)

    def _notify_waiters(self, instance_id: str) -> None:
        super()._notify_waiters(instance_id)
        self._tell_parents(instance_id)

    def _tell_parents(self, instance_id: str) -> None:
        child = self._instances.get(instance_id)
        if child is None or not self._is_terminal_status(child.status):
            return
        for watcher in self._watchers.pop(instance_id, []):
            if not self.is_live(watcher.parent_id, watcher.parent_execution):
                continue
            if child.status == pb.ORCHESTRATION_STATUS_COMPLETED:
                event = helpers.new_sub_orchestration_completed_event(watcher.task_id, child.output)
            else:
                message = child.failure_details.errorMessage if child.failure_details else "Sub-orchestration failed"
                event = helpers.new_sub_orchestration_failed_event(watcher.task_id, Exception(message))
            self.deliver(watcher.parent_id, event)

    # Entities

    def _queue_entity_operation(self, entity_id: str, event: pb.HistoryEvent) -> None:
        # Upstream compares scheduled times with the machine's clock; this engine's may be another one.
        signaled = event.entityOperationSignaled
        if event.HasField("entityOperationSignaled") and signaled.HasField("scheduledTime"):
            when = signaled.scheduledTime.ToDatetime(tzinfo=timezone.utc)
            if when > self.clock.now():
                self._schedule_delayed_entity_operation(entity_id, event, when)
                return
        super()._queue_entity_operation(entity_id, event)

    def _schedule_delayed_entity_operation(self, entity_id: str, event: pb.HistoryEvent, fire_at: datetime) -> None:
        queue_now = super()._queue_entity_operation

        def fire() -> None:
            with self._lock:
                queue_now(entity_id, event)

        self.clock.call_at(fire_at, fire)

    def _signal_entity_internal(
        self, entity_id: str, operation: str, input_value: str | None = None, scheduled_time: datetime | None = None
    ) -> None:
        if scheduled_time is not None and scheduled_time > self.clock.now():
            event = _signal(uuid.uuid4().hex, entity_id, operation, input_value)
            self._schedule_delayed_entity_operation(entity_id, event, scheduled_time)
        else:
            super()._signal_entity_internal(entity_id, operation, input_value)

    def SignalEntity(self, request: pb.SignalEntityRequest, context: Any) -> pb.SignalEntityResponse:
        when = request.scheduledTime.ToDatetime(tzinfo=timezone.utc) if request.HasField("scheduledTime") else None
        if when is None or when <= self.clock.now():
            at_once = pb.SignalEntityRequest()
            at_once.CopyFrom(request)
            at_once.ClearField("scheduledTime")
            return super().SignalEntity(at_once, context)
        value = request.input.value if request.HasField("input") else None
        event = _signal(request.requestId, request.instanceId, request.name, value)
        self._schedule_delayed_entity_operation(request.instanceId, event, when)
        return pb.SignalEntityResponse()

    def entity_state_of(self, entity_id: str) -> str | None:
        """The encoded state of an entity, `None` if it has none."""
        with self._lock:
            entity = self._entities.get(entity_id)
            return None if entity is None else entity.serialized_state

    # Looking and forgetting

    def instance(self, instance_id: str) -> OrchestrationInstance | None:
        with self._lock:
            return self._instances.get(instance_id)

    def all_instances(self) -> list[OrchestrationInstance]:
        """In the order of their creation."""
        with self._lock:
            return list(self._instances.values())

    def newest_instances(self, limit: int) -> tuple[list[OrchestrationInstance], int]:
        """Copies of the `limit` instances created last, newest first, and how many there are in all.

        Copies, since the fields of an instance change while a caller reads them one after the other.
        """
        with self._lock:
            oldest_first = sorted(self._instances.values(), key=lambda each: each.created_at)
            return [copy.copy(each) for each in reversed(oldest_first[-limit:])], len(oldest_first)

    def history_of(self, instance_id: str) -> list[pb.HistoryEvent]:
        """Copies of the recorded events of the latest execution; `KeyError` for an unknown instance."""
        with self._lock:
            return [self._clone_history_event(event) for event in self._instances[instance_id].history]

    def reset(self) -> None:
        """Forget every instance, entity, timer and work item."""
        with self._lock:
            super().reset()
            self.clock.clear()
            self._executions.clear()
            self._starts.clear()
            self._ahead.clear()
            self._not_due.clear()
            self._watchers.clear()


def _signal(request_id: str, entity_id: str, operation: str, value: str | None) -> pb.HistoryEvent:
    signaled = pb.EntityOperationSignaledEvent(requestId=request_id, operation=operation)
    signaled.targetInstanceId.value = entity_id
    if value:
        signaled.input.value = value
    return pb.HistoryEvent(eventId=-1, entityOperationSignaled=signaled)
