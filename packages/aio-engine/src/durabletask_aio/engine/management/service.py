"""The service on a kernel."""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import grpc

from durabletask_aio.engine import events, forking, turns
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.answering import answering
from durabletask_aio.engine.commands import InstanceNotFoundError
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.management import management_pb2 as messages
from durabletask_aio.engine.reading import Queries
from durabletask_aio.engine.retention import PURGED_AT_ONCE
from durabletask_aio.engine.state import Instance, TimerKind
from durabletask_aio.engine.store import InstanceFilter
from durabletask_aio.engine.streams import ACTIVITY, TURN, UNLIMITED, WORK_KINDS, WorkerStream
from durabletask_aio.engine.transitions import COMPLETED, FAILED, TERMINAL

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_MAX_PAGE = 1000
_LARGEST = 5
_MAX_NAMES = 500
_MAX_FAILURE = 300
"""Characters of a failure's message in the summary of an instance."""
_MAX_RESULT = 300
"""Characters of a result in the summary of an instance."""
_MAX_PENDING = 1000
"""Pending activities, timers and children that one answer lists of each."""


class ManagementService:
    """Answers what upstream's protocol has no call for.  Thread-safe."""

    def __init__(self, kernel: Kernel) -> None:
        """Serve a kernel."""
        self.kernel = kernel

    # -- instances -------------------------------------------------------------------------------------------------

    @answering
    def SearchInstances(self, request: messages.SearchInstancesRequest, context: grpc.ServicerContext) -> Any:
        """Return a page of instances, by when they were created."""
        wanted = InstanceFilter(
            statuses=frozenset(request.statuses),
            names=frozenset(request.names),
            id_prefix=request.id_prefix,
            id_contains=request.id_contains,
            text=request.text,
            created_from=_time(request, "created_from"),
            created_to=_time(request, "created_to"),
            updated_from=_time(request, "updated_from"),
            updated_to=_time(request, "updated_to"),
            completed_from=_time(request, "completed_from"),
            completed_to=_time(request, "completed_to"),
            tags=dict(request.tags),
            parent_id=request.parent_id or None,
            only_roots=request.only_roots,
        )
        limit = min(request.page_size or 100, _MAX_PAGE)
        after = None
        if request.page_token:
            created, _, key = request.page_token.partition("|")
            if not created.isdigit() or not key.isdigit():
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.page_token!r} is not a page token")
            after = int(created), int(key)
        with self.kernel.queries() as reader:
            page = reader.query(wanted, limit, after, newest_first=request.newest_first)
            if request.with_outcome:
                instances = _with_outcome(reader, page.instances)
            else:
                instances = [summary(each) for each in page.instances]
        return messages.SearchInstancesResponse(
            instances=instances,
            next_page_token="" if page.after is None else f"{page.after[0]}|{page.after[1]}",
            previous_page_token=f"{page.instances[0].created_at}|{page.instances[0].key}" if page.instances else "",
        )

    @answering
    def GetOverview(self, request: messages.GetOverviewRequest, context: grpc.ServicerContext) -> Any:
        """Return what a list of instances shows in addition to them."""
        with self.kernel.queries() as reader:
            return messages.Overview(
                instances=reader.counts_by_status(),
                names=reader.names(_MAX_NAMES),
                workers=len(self.kernel.dispatcher.streams),
                path="" if self.kernel.store.path is None else os.fspath(self.kernel.store.path.absolute()),
            )

    @answering
    def GetInstanceDetails(self, request: messages.GetInstanceDetailsRequest, context: grpc.ServicerContext) -> Any:
        """Return an instance with what it waits for."""
        with self.kernel.queries() as reader:
            instance = reader.instance(request.instance_id)
            if instance is None:
                raise InstanceNotFoundError(request.instance_id)
            chunks = reader.history(instance)
            details = messages.InstanceDetails(
                instance=summary(instance),
                history_bytes=sum(map(len, chunks)),
                inbox_count=reader.inbox_count(instance),
                children=_with_outcome(reader, reader.children(instance.instance_id, _MAX_PENDING)),
            )
            if instance.status not in TERMINAL:
                details.pending.extend(self._pending(reader, instance, chunks))
        with self.kernel.locked():
            holder = self.kernel.dispatcher.holder(TURN, instance.instance_id)
            details.worker = "" if holder is None else holder.worker_name
            details.is_queued = self.kernel.dispatcher.is_queued(TURN, instance.instance_id)
            for each in details.pending:
                if each.kind == messages.Pending.ACTIVITY:
                    lease = self.kernel.dispatcher.holder(ACTIVITY, each.target)
                    each.target = ""
                    each.worker = "" if lease is None else lease.worker_name
        return details

    def _pending(self, reader: Queries, instance: Instance, chunks: Iterable[bytes]) -> Iterator[messages.Pending]:
        for task in reader.tasks(instance.execution_id):
            # The target is the task's nonce for the moment, by which the dispatcher knows it.
            yield messages.Pending(
                kind=messages.Pending.ACTIVITY, name=task.name, task_id=task.task_id, target=task.nonce
            )
        for timer in reader.timers(instance.execution_id, _MAX_PENDING):
            if timer.kind is TimerKind.TIMER:
                fired = events.parse(timer.event).timerFired
                yield messages.Pending(kind=messages.Pending.TIMER, task_id=fired.timerId, due=fired.fireAt)
        for event in turns.unanswered(events.past_events(chunks)):
            pending = messages.Pending(task_id=event.eventId, since=event.timestamp)
            if event.HasField("subOrchestrationInstanceCreated"):
                pending.kind = messages.Pending.CHILD
                pending.name = event.subOrchestrationInstanceCreated.name
                pending.target = event.subOrchestrationInstanceCreated.instanceId
            elif event.HasField("entityOperationCalled"):
                pending.kind = messages.Pending.ENTITY
                pending.name = event.entityOperationCalled.operation
                pending.target = event.entityOperationCalled.targetInstanceId.value
            elif event.HasField("entityLockRequested"):
                pending.kind = messages.Pending.LOCK
                pending.name = ", ".join(event.entityLockRequested.lockSet)
            else:
                continue
            yield pending

    @answering
    def ForkInstance(self, request: messages.ForkInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Start a new instance from the beginning of another one's history."""
        new_id = request.new_instance_id or self.kernel.new_id() + self.kernel.new_id()
        chosen = [bool(request.turns), request.HasField("after_event"), bool(request.after_step)]
        if sum(chosen) > 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "fork after turns, after an event, or after a step")

        def cut(source: Instance, history: Sequence[pb.HistoryEvent]) -> forking.Cut:
            if request.HasField("after_event"):
                return forking.after_event(source, history, request.after_event)
            if request.after_step:
                return forking.after_step(source, history, request.after_step)
            return forking.after_turns(source, history, request.turns)

        self.kernel.execute(lambda transaction: transaction.fork(request.instance_id, new_id, cut))
        return messages.ForkInstanceResponse(instance_id=new_id)

    # -- entities --------------------------------------------------------------------------------------------------

    @answering
    def GetEntityDetails(self, request: messages.GetEntityDetailsRequest, context: grpc.ServicerContext) -> Any:
        """Return an entity with what waits for it."""
        with self.kernel.queries() as reader:
            entity = reader.entity(request.entity_id)
            if entity is None:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Entity '{request.entity_id}' not found")
                raise AssertionError("abort() raises")
            operations = [events.parse(each.event) for each in reader.operations(request.entity_id)]
            waiting = [each for each in reader.lock_requests() if request.entity_id in each.entity_ids]
        return messages.EntityDetails(
            entity_id=entity.entity_id,
            state=entity.state,
            modified=events.timestamp(entity.modified_at),
            locked_by="" if entity.lock is None else entity.lock.instance_id,
            critical_section_id="" if entity.lock is None else entity.lock.critical_section_id,
            operations=[
                each.entityOperationCalled.operation or each.entityOperationSignaled.operation for each in operations
            ],
            waiting=[each.lock.instance_id for each in waiting],
        )

    # -- the engine ------------------------------------------------------------------------------------------------

    @answering
    def GetStatistics(self, request: messages.GetStatisticsRequest, context: grpc.ServicerContext) -> Any:
        """Return numbers about the engine."""
        kernel = self.kernel
        with kernel.queries() as reader:
            sizes = reader.sizes()
            result = messages.Statistics(
                path="" if kernel.store.path is None else os.fspath(kernel.store.path.absolute()),
                durability=kernel.store.durability,
                version=_version(),
                started=events.timestamp(kernel.started_at),
                instances=reader.counts_by_status(),
                entities=reader.count_of("entities"),
                timers=reader.count_of("timers"),
                file_bytes=sizes["bytes"],
                free_bytes=sizes["free_bytes"],
                largest=[summary(each) for each in reader.largest(_LARGEST)],
                commands=kernel.command_count,
                commits=kernel.commit_count,
            )
            result.retention.CopyFrom(_retention(reader.meta("retention")))
        with kernel.locked():
            for kind in WORK_KINDS:
                result.queued[kind] = kernel.dispatcher.queued(kind)
                result.running[kind] = kernel.dispatcher.out(kind)
            result.workers.extend(_worker(each) for each in kernel.dispatcher.streams)
        return result

    @answering
    def Backup(self, request: messages.BackupRequest, context: grpc.ServicerContext) -> Any:
        """Copy the database, on the engine's machine."""
        self.kernel.backup(request.target)
        return messages.BackupResponse(bytes=os.path.getsize(request.target))

    @answering
    def Vacuum(self, request: messages.VacuumRequest, context: grpc.ServicerContext) -> Any:
        """Give free pages back to the file system; commands wait meanwhile."""
        with self.kernel.locked() as store:
            before = store.sizes()["bytes"]
            store.vacuum()
            return messages.VacuumResponse(bytes_before=before, bytes_after=store.sizes()["bytes"])

    @answering
    def PurgeOlder(self, request: messages.PurgeOlderRequest, context: grpc.ServicerContext) -> Any:
        """Delete what ended long ago, with its children."""
        age = events.MICROSECONDS * request.age.seconds
        count = _purge_older(self.kernel, age, frozenset(request.statuses) & TERMINAL, dry_run=request.dry_run)
        return messages.PurgeOlderResponse(count=count)

    @answering
    def SetRetention(self, request: messages.SetRetentionRequest, context: grpc.ServicerContext) -> Any:
        """Say how long instances stay that have ended."""
        age = request.age.seconds if request.HasField("age") else None
        if age is not None and age <= 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a retention is longer than nothing")
        self.kernel.execute(lambda transaction: transaction.set_retention(age))
        return _retention(age)


def _purge_older(kernel: Kernel, age: int, statuses: frozenset[int], *, dry_run: bool) -> int:
    if dry_run:
        wanted = InstanceFilter(statuses=statuses, completed_to=kernel.clock.now() - age, only_roots=True)
        with kernel.queries() as reader:
            return reader.count(wanted)
    count = 0
    # Some at a time, so that commands of others come in between.
    while gone := kernel.execute(lambda transaction: transaction.purge_ended(age, statuses, PURGED_AT_ONCE)):
        count += gone
    return count


def summary(instance: Instance) -> messages.InstanceSummary:
    """Describe an instance without its payloads."""
    return messages.InstanceSummary(
        instance_id=instance.instance_id,
        name=instance.name,
        version=instance.version,
        status=instance.status,
        created=events.timestamp(instance.created_at),
        updated=events.timestamp(instance.updated_at),
        completed=_optional(instance.completed_at),
        scheduled=_optional(instance.scheduled_at),
        custom_status=instance.custom_status,
        tags=instance.tags,
        parent_id=None if instance.parent is None else instance.parent.instance_id,
        event_count=instance.event_count,
        execution_id=instance.execution_id,
    )


def _with_outcome(reader: Queries, instances: Sequence[Instance]) -> list[messages.InstanceSummary]:
    """Describe instances, with the number of their children and how they have ended."""
    counts = reader.child_counts([each.instance_id for each in instances])
    result: list[messages.InstanceSummary] = []
    for instance in instances:
        described = summary(instance)
        described.child_count = counts.get(instance.instance_id, 0)
        if instance.status == FAILED:
            failure = reader.payloads(instance).get("failure")
            if isinstance(failure, bytes):
                details = pb.TaskFailureDetails.FromString(failure)
                while details.HasField("innerFailure"):
                    details = details.innerFailure
                described.failure = f"{details.errorType}: {details.errorMessage}"[:_MAX_FAILURE]
        elif instance.status == COMPLETED:
            output = reader.beginning(instance, "output", _MAX_RESULT)
            if output is not None:
                described.result = output
        result.append(described)
    return result


def _worker(stream: WorkerStream) -> messages.WorkerInfo:
    return messages.WorkerInfo(
        name=stream.name,
        peer=stream.peer,
        connected=events.timestamp(stream.connected_at),
        held={str(kind): count for kind, count in stream.held.items()},
        limits={kind: 0 if limit == UNLIMITED else limit for kind, limit in stream.limits.items()},
    )


def _retention(age: int | None) -> messages.Retention:
    result = messages.Retention()
    if age is not None:
        result.age.seconds = age
    return result


def _optional(time: int | None) -> Timestamp | None:
    return None if time is None else events.timestamp(time)


def _time(request: Any, field: str) -> int | None:
    return events.microseconds(getattr(request, field)) if request.HasField(field) else None


def _version() -> str:
    try:
        return version("durabletask-aio-engine")
    except PackageNotFoundError:
        return "unknown"
