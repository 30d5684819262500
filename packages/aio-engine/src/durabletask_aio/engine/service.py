"""Upstream's service, `TaskHubSidecarService`: requests in, commands out."""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import functools
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.empty_pb2 import Empty

from durabletask_aio.engine import events, tokens, transitions
from durabletask_aio.engine._upstream import Servicer, pb
from durabletask_aio.engine.answering import answering
from durabletask_aio.engine.calls import AbortError
from durabletask_aio.engine.commands import InstanceNotFoundError, Transaction
from durabletask_aio.engine.dispatch import ACTIVITY, BATCH, TURN, UNLIMITED, WorkerStream, WorkKind, filters
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import EngineStoppedError, Kernel
from durabletask_aio.engine.state import NO_TAGS, Entity, Instance, StartInstance
from durabletask_aio.engine.store import InstanceFilter, Reader
from durabletask_aio.engine.tokens import BatchToken, TaskToken, TurnToken
from durabletask_aio.engine.transitions import TERMINAL

_logger = logging.getLogger("durabletask.aio.engine")

HEALTH_PING = 30.0
"""Seconds of silence after which a stream says that it lives; upstream's worker gives up after 120."""

ENGINE = "durabletask-aio-engine"
"""Metadata with which `Hello` is answered, from which a worker knows that this engine understands the following."""

HELD_LEASES = "durabletask-aio-holding-bin"
"""Metadata in which a worker with a name lists the leases that it still has: eight bytes each."""

LOST_LEASES = "durabletask-aio-lost-bin"
KEPT_LEASES = "durabletask-aio-kept-bin"
"""Metadata with which that is answered: the listed leases that have ended, or those that have not if they are fewer."""

_ANSWERED_LEASES = 500
"""Leases that an answer lists at most: by default gRPC clients accept 8 KiB of metadata."""

STREAM_NUMBER = "durabletask-aio-stream"
"""Metadata with the number of a stream of a worker with a name, from 1 on: with a lower one it has been held up."""

LEAVING = "durabletask-aio-leaving"
"""Metadata with which a worker that stops opens its last stream: it gets no items, and does not come back."""

SESSIONS = "durabletask-aio-sessions"
"""Metadata with which a worker says that it keeps instances alive between their turns: it is then given only what has
been committed since its last turn of an instance, and asks for the whole history (`requiresHistory`) if it needs it."""

_PAGE = 1000
_PAGE_BYTES = 2 * 1024 * 1024
"""A page ends after that much, below the 4 MiB that gRPC clients accept by default."""

_PURGED_AT_ONCE = 50
"""Roots that one transaction purges: others get their turn in between."""


class TaskHubService(Servicer):
    """The engine as workers and clients know it.  Thread-safe.

    Attributes:
        futures: waits that hold no thread, by method, for a caller in this process.
        keeps_messages: nothing of a request or a response is kept, so the channel in this process need not copy them.
    """

    keeps_messages = False

    def __init__(
        self, kernel: Kernel, *, in_process: bool = False, encode: Callable[[object], Any] = to_message
    ) -> None:
        """Serve a kernel.

        Args:
            kernel: the engine.
            in_process: whether workers live and die with the engine.
            encode: makes what goes to a worker.
        """
        self.kernel = kernel
        self._in_process = in_process
        self._encode = encode
        self._partial: dict[str, pb.OrchestratorResponse] = {}
        self.health_ping = HEALTH_PING
        self.futures: Mapping[str, Callable[[Any], Future[Any]]] = {
            "WaitForInstanceStart": functools.partial(self._future_of, _has_started),
            "WaitForInstanceCompletion": functools.partial(self._future_of, _has_ended),
        }

    # -- instances -------------------------------------------------------------------------------------------------

    def Hello(self, request: Empty, context: grpc.ServicerContext) -> Empty:
        """Answer, and say which engine this is."""
        context.set_trailing_metadata(((ENGINE, "1"),))
        return Empty()

    @answering
    def StartInstance(self, request: pb.CreateInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Start an instance."""
        if not request.name:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the name of the orchestrator is empty")
        message = StartInstance(
            request.instanceId or self.kernel.new_id() + self.kernel.new_id(),
            request.name,
            version=events.optional(request, "version"),
            input=events.optional(request, "input"),
            tags=dict(request.tags) or NO_TAGS,
            trace_context=request.parentTraceContext.SerializeToString()
            if request.HasField("parentTraceContext")
            else None,
            scheduled_at=events.microseconds(request.scheduledStartTimestamp)
            if request.HasField("scheduledStartTimestamp")
            else None,
            execution_id=events.optional(request, "executionId") or None,
            replaceable=frozenset(request.orchestrationIdReusePolicy.replaceableStatus),
        )
        return pb.CreateInstanceResponse(
            instanceId=self.kernel.execute(lambda transaction: transaction.start_instance(message))
        )

    @answering
    def GetInstance(self, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Return an instance."""
        return self._instance_response(request)

    def _instance_response(self, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        with self.kernel.reading() as reader:
            instance = reader.instance(request.instanceId)
            if instance is None:
                return pb.GetInstanceResponse(exists=False)
            state = instance_state(reader, instance, request.getInputsAndOutputs)
        return pb.GetInstanceResponse(exists=True, orchestrationState=state)

    @answering
    def WaitForInstanceStart(self, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Answer once an instance has started; at once if there is none, or when it is purged."""
        return self._wait(_has_started, request, context)

    @answering
    def WaitForInstanceCompletion(self, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Answer once an instance has ended; at once if there is none, or when it is purged."""
        return self._wait(_has_ended, request, context)

    def _wait(self, reached: _Condition, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        answer = self._future_of(reached, request)
        woken = threading.Event()
        answer.add_done_callback(lambda _: woken.set())
        if not context.add_callback(woken.set):
            woken.set()  # the client has gone already
        remaining = cast("float | None", context.time_remaining())  # for the stubs it is always a number
        # Clients of other languages state a deadline in the far future if they mean none.
        woken.wait(None if remaining is None else min(remaining, threading.TIMEOUT_MAX))
        if answer.done():
            return answer.result()
        answer.cancel()
        context.abort(
            grpc.StatusCode.DEADLINE_EXCEEDED if context.is_active() else grpc.StatusCode.CANCELLED,
            f"Orchestration instance '{request.instanceId}' has not got there in time",
        )
        raise AssertionError("abort() raises")

    def _future_of(self, reached: _Condition, request: pb.GetInstanceRequest) -> Future[pb.GetInstanceResponse]:
        answer: Future[pb.GetInstanceResponse] = Future()

        def watch(instance: Instance | None) -> bool:
            # Called under the kernel's lock, with what has just been committed.
            if instance is not None and not reached(instance):
                return answer.cancelled()
            if answer.set_running_or_notify_cancel():
                if self.kernel.is_stopped:
                    answer.set_exception(AbortError(grpc.StatusCode.UNAVAILABLE, "the engine has been stopped"))
                elif instance is None:
                    answer.set_result(pb.GetInstanceResponse(exists=False))
                else:
                    state = instance_state(self.kernel.store, instance, request.getInputsAndOutputs)
                    answer.set_result(pb.GetInstanceResponse(exists=True, orchestrationState=state))
            return True

        try:
            forget = self.kernel.watch(request.instanceId, watch)
        except EngineStoppedError as error:
            raise AbortError(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        answer.add_done_callback(lambda future: forget() if future.cancelled() else None)
        return answer

    @answering
    def RaiseEvent(self, request: pb.RaiseEventRequest, context: grpc.ServicerContext) -> Any:
        """Give an instance an external event; one that has ended does not get it."""
        data = events.optional(request, "input")
        self.kernel.execute(lambda transaction: transaction.raise_event(request.instanceId, request.name, data))
        return pb.RaiseEventResponse()

    @answering
    def TerminateInstance(self, request: pb.TerminateRequest, context: grpc.ServicerContext) -> Any:
        """Ask an instance to end, and its children if the request is recursive."""
        output = events.optional(request, "output")
        self.kernel.execute(lambda transaction: transaction.terminate(request.instanceId, output, request.recursive))
        return pb.TerminateResponse()

    @answering
    def SuspendInstance(self, request: pb.SuspendRequest, context: grpc.ServicerContext) -> Any:
        """Let an instance get no events until it is resumed."""
        reason = events.optional(request, "reason")
        self.kernel.execute(lambda transaction: transaction.suspend(request.instanceId, reason))
        return pb.SuspendResponse()

    @answering
    def ResumeInstance(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> Any:
        """Resume a suspended instance."""
        reason = events.optional(request, "reason")
        self.kernel.execute(lambda transaction: transaction.resume(request.instanceId, reason))
        return pb.ResumeResponse()

    @answering
    def RewindInstance(self, request: pb.RewindInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Resume a failed instance from before its failure."""
        reason = events.optional(request, "reason")
        self.kernel.execute(lambda transaction: transaction.rewind_instance(request.instanceId, reason))
        return pb.RewindInstanceResponse()

    @answering
    def RestartInstance(self, request: pb.RestartInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Run an instance that has ended once more."""
        new_id = self.kernel.new_id() + self.kernel.new_id() if request.restartWithNewInstanceId else None
        instance_id = self.kernel.execute(lambda transaction: transaction.restart_instance(request.instanceId, new_id))
        return pb.RestartInstanceResponse(instanceId=instance_id)

    @answering
    def SkipGracefulOrchestrationTerminations(
        self, request: pb.SkipGracefulOrchestrationTerminationsRequest, context: grpc.ServicerContext
    ) -> Any:
        """End instances without asking their code."""
        reason = events.optional(request, "reason")
        ids = list(request.instanceBatch.instanceIds)
        unterminated = self.kernel.execute(
            lambda transaction: [each for each in ids if not transaction.terminate_now(each, reason)]
        )
        return pb.SkipGracefulOrchestrationTerminationsResponse(unterminatedInstanceIds=unterminated)

    # -- queries ---------------------------------------------------------------------------------------------------

    @answering
    def QueryInstances(self, request: pb.QueryInstancesRequest, context: grpc.ServicerContext) -> Any:
        """Return a page of instances, by when they were created."""
        query = request.query
        wanted = InstanceFilter(
            statuses=frozenset(query.runtimeStatus),
            id_prefix=query.instanceIdPrefix.value,
            created_from=_optional_time(query, "createdTimeFrom"),
            created_to=_optional_time(query, "createdTimeTo"),
        )
        limit = min(query.maxInstanceCount or _PAGE, _PAGE)
        response = pb.QueryInstancesResponse()
        with self.kernel.reading() as reader:
            page = reader.query(wanted, limit, _number_pair(query.continuationToken.value, context))
            size = 0
            for instance in page.instances:
                state = instance_state(reader, instance, query.fetchInputsAndOutputs)
                size += state.ByteSize()
                if size > _PAGE_BYTES and response.orchestrationState:
                    break
                response.orchestrationState.append(state)
        shown = len(response.orchestrationState)
        if shown < len(page.instances) or page.after is not None:
            last = page.instances[shown - 1]
            response.continuationToken.value = f"{last.created_at}|{last.key}"
        return response

    @answering
    def ListInstanceIds(self, request: pb.ListInstanceIdsRequest, context: grpc.ServicerContext) -> Any:
        """Return a page of ids of instances that have ended, by when they did."""
        wanted = InstanceFilter(
            statuses=frozenset(request.runtimeStatus),
            completed_from=_optional_time(request, "completedTimeFrom"),
            completed_to=_optional_time(request, "completedTimeTo"),
        )
        after = None
        if request.lastInstanceKey.value:
            time, _, instance_id = request.lastInstanceKey.value.partition("|")
            after = _number(time, context), instance_id
        limit = min(request.pageSize or 100, _PAGE)
        with self.kernel.reading() as reader:
            found = reader.completed(wanted, limit + 1, after)
        response = pb.ListInstanceIdsResponse(instanceIds=[each.instance_id for each in found[:limit]])
        if len(found) > limit:
            last = found[limit - 1]
            response.lastInstanceKey.value = f"{last.completed_at}|{last.instance_id}"
        return response

    def StreamInstanceHistory(
        self, request: pb.StreamInstanceHistoryRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.HistoryChunk]:
        """Stream the history of an instance's latest execution."""
        chunks = self._history(request, context)
        for group in events.groups_of(chunks, _PAGE_BYTES):
            yield pb.HistoryChunk(events=events.past_events(group))

    @answering
    def _history(self, request: pb.StreamInstanceHistoryRequest, context: grpc.ServicerContext) -> list[bytes]:
        with self.kernel.reading() as reader:
            instance = reader.instance(request.instanceId)
            if instance is None:
                raise InstanceNotFoundError(request.instanceId)
            return list(reader.history(instance))

    @answering
    def PurgeInstances(self, request: pb.PurgeInstancesRequest, context: grpc.ServicerContext) -> Any:
        """Delete instances that have ended."""
        if request.HasField("purgeInstanceFilter"):
            return self._purge_filter(request, context)
        ids = [request.instanceId] if request.instanceId else list(request.instanceBatch.instanceIds)
        count = self._purge(ids, request.recursive)
        return _purged(count, is_complete=True)

    def _purge(self, instance_ids: Iterable[str], recursive: bool) -> int:
        remaining, count = iter(instance_ids), 0
        while some := list(itertools.islice(remaining, _PURGED_AT_ONCE)):
            count += self.kernel.execute(functools.partial(_purge, some, recursive))
        return count

    def _purge_filter(self, request: pb.PurgeInstancesRequest, context: grpc.ServicerContext) -> Any:
        asked = request.purgeInstanceFilter
        wanted = InstanceFilter(
            statuses=frozenset(asked.runtimeStatus) & TERMINAL if asked.runtimeStatus else TERMINAL,
            created_from=_optional_time(asked, "createdTimeFrom"),
            created_to=_optional_time(asked, "createdTimeTo"),
        )
        if not wanted.statuses:
            return _purged(0, is_complete=True)
        timeout = asked.timeout.ToMicroseconds() / 1_000_000 if asked.HasField("timeout") else None
        end = None if timeout is None else time.monotonic() + timeout
        count, after = 0, None
        while context.is_active():
            with self.kernel.reading() as reader:
                page = reader.query(wanted, _PURGED_AT_ONCE, after)
            count += self._purge([each.instance_id for each in page.instances], request.recursive)
            after = page.after
            if after is None:
                return _purged(count, is_complete=True)
            if end is not None and time.monotonic() > end:
                break
        return _purged(count, is_complete=False)

    # -- entities --------------------------------------------------------------------------------------------------

    @answering
    def SignalEntity(self, request: pb.SignalEntityRequest, context: grpc.ServicerContext) -> Any:
        """Give an entity an operation that has no result."""
        due = _optional_time(request, "scheduledTime")
        event = events.signal(
            self.kernel.clock.now(),
            request.instanceId,
            request.name,
            request.requestId,
            request.input if request.HasField("input") else None,
            request.scheduledTime if request.HasField("scheduledTime") else None,
        )
        self.kernel.execute(lambda transaction: transaction.signal_entity(request.instanceId, event, due))
        return pb.SignalEntityResponse()

    @answering
    def GetEntity(self, request: pb.GetEntityRequest, context: grpc.ServicerContext) -> Any:
        """Return an entity."""
        with self.kernel.reading() as reader:
            entity = reader.entity(request.instanceId)
            if entity is None:
                return pb.GetEntityResponse(exists=False)
            pending = len(reader.operations(request.instanceId))
        return pb.GetEntityResponse(exists=True, entity=_metadata(entity, pending, request.includeState))

    @answering
    def QueryEntities(self, request: pb.QueryEntitiesRequest, context: grpc.ServicerContext) -> Any:
        """Return a page of entities, by id."""
        query = request.query
        limit = min(query.pageSize.value or _PAGE, _PAGE)
        with self.kernel.reading() as reader:
            found = reader.entities(
                query.instanceIdStartsWith.value,
                _optional_time(query, "lastModifiedFrom"),
                _optional_time(query, "lastModifiedTo"),
                query.includeTransient,
                limit + 1,
                query.continuationToken.value,
            )
        response = pb.QueryEntitiesResponse(
            entities=[_metadata(entity, pending, query.includeState) for entity, pending in found[:limit]]
        )
        if len(found) > limit:
            response.continuationToken.value = found[limit - 1][0].entity_id
        return response

    @answering
    def CleanEntityStorage(self, request: pb.CleanEntityStorageRequest, context: grpc.ServicerContext) -> Any:
        """Delete empty entities, and free those whose holder is no more."""
        removed, released = self.kernel.execute(
            lambda transaction: transaction.clean_entities(
                remove_empty=request.removeEmptyEntities, release_orphaned=request.releaseOrphanedLocks
            )
        )
        return pb.CleanEntityStorageResponse(emptyEntitiesRemoved=removed, orphanedLocksReleased=released)

    # -- workers ---------------------------------------------------------------------------------------------------

    def GetWorkItems(self, request: pb.GetWorkItemsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        """Stream work items to a worker, within the limits that it declares."""
        stream = self._open_stream(request, context)
        try:
            while True:
                try:
                    work = stream.outbox.get(timeout=self.health_ping)
                except queue.Empty:
                    work = pb.WorkItem(healthPing=pb.HealthPing())
                if work is None:
                    return
                yield self._encode(work)
        finally:
            self.kernel.close_stream(stream)

    @answering
    def _open_stream(self, request: pb.GetWorkItemsRequest, context: grpc.ServicerContext) -> WorkerStream:
        limits: dict[WorkKind, int] = {
            TURN: request.maxConcurrentOrchestrationWorkItems or UNLIMITED,
            ACTIVITY: request.maxConcurrentActivityWorkItems or UNLIMITED,
            BATCH: request.maxConcurrentEntityWorkItems or UNLIMITED,
        }
        stream = WorkerStream(limits, worker_id=request.worker_instance_id, expires=not self._in_process)
        if request.HasField("workItemFilters"):
            asked = request.workItemFilters
            stream.names = {
                TURN: filters([(each.name, each.versions) for each in asked.orchestrations]),
                ACTIVITY: filters([(each.name, each.versions) for each in asked.activities]),
                BATCH: filters([(each.name, ()) for each in asked.entities]),
            }
        stream.peer = context.peer() if not self._in_process else "this process"
        stream.connected_at = self.kernel.clock.now()
        metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        holding: bytes | None = metadata.get(HELD_LEASES)
        stream.number = _number(metadata.get(STREAM_NUMBER, "0"), context)
        stream.is_leaving = LEAVING in metadata
        stream.keeps_sessions = SESSIONS in metadata
        lost = self.kernel.open_stream(stream, None if holding is None else _leases_by_id(holding))
        if holding is not None:
            try:
                # Before any item, since the worker waits for it.
                context.send_initial_metadata(_ended(_leases_by_id(holding), lost))
            except BaseException:  # The worker has gone already.
                self.kernel.close_stream(stream)
                raise
        # The generator is closed only when gRPC next asks for an item; this comes when the connection breaks.
        if not context.add_callback(lambda: self.kernel.close_stream(stream)):
            self.kernel.close_stream(stream)
        return stream

    @answering
    def CompleteOrchestratorTask(self, request: pb.OrchestratorResponse, context: grpc.ServicerContext) -> Any:
        """Commit a turn."""
        token = _token(request.completionToken, TurnToken)
        if token is None:
            return pb.CompleteTaskResponse()
        if request.requiresHistory:
            self.kernel.send_history(token.lease, token.instance_id)
            return pb.CompleteTaskResponse()
        if request.isPartial:
            self._partial.setdefault(request.completionToken, pb.OrchestratorResponse()).MergeFrom(request)
            return pb.CompleteTaskResponse()
        before = self._partial.pop(request.completionToken, None)
        if before is not None:
            before.MergeFrom(request)
            request = before
        if not self.kernel.complete(token.lease, lambda transaction: transaction.complete_turn(token, request)):
            _logger.info("Ignoring the stale result of a turn of '%s'", request.instanceId)
        return pb.CompleteTaskResponse()

    @answering
    def CompleteActivityTask(self, request: pb.ActivityResponse, context: grpc.ServicerContext) -> Any:
        """Take the outcome of an activity."""
        token = _token(request.completionToken, TaskToken)
        if token is None:
            return pb.CompleteTaskResponse()
        if not self.kernel.complete(token.lease, lambda transaction: transaction.complete_activity(token, request)):
            _logger.info("Ignoring the stale result of activity %s of '%s'", request.taskId, request.instanceId)
        return pb.CompleteTaskResponse()

    @answering
    def CompleteEntityTask(self, request: pb.EntityBatchResult, context: grpc.ServicerContext) -> Any:
        """Commit a batch of operations."""
        token = _token(request.completionToken, BatchToken)
        if token is None:
            return pb.CompleteTaskResponse()
        if not self.kernel.complete(token.lease, lambda transaction: transaction.complete_batch(token, request)):
            _logger.info("Ignoring the stale result of a batch of '%s'", token.entity_id)
        return pb.CompleteTaskResponse()

    @answering
    def AbandonTaskOrchestratorWorkItem(
        self, request: pb.AbandonOrchestrationTaskRequest, context: grpc.ServicerContext
    ) -> Any:
        """Take a turn back."""
        self._abandon(request.completionToken)
        return pb.AbandonOrchestrationTaskResponse()

    @answering
    def AbandonTaskActivityWorkItem(self, request: pb.AbandonActivityTaskRequest, context: grpc.ServicerContext) -> Any:
        """Take an activity back."""
        self._abandon(request.completionToken)
        return pb.AbandonActivityTaskResponse()

    @answering
    def AbandonTaskEntityWorkItem(self, request: pb.AbandonEntityTaskRequest, context: grpc.ServicerContext) -> Any:
        """Take a batch of operations back."""
        self._abandon(request.completionToken)
        return pb.AbandonEntityTaskResponse()

    def _abandon(self, text: str) -> None:
        try:
            token = tokens.parse(text)
        except tokens.InvalidTokenError:
            _logger.info("A worker gives back an item of another engine's")
            return
        self.kernel.abandon(token.lease)

    # -- task hubs -------------------------------------------------------------------------------------------------

    def CreateTaskHub(self, request: pb.CreateTaskHubRequest, context: grpc.ServicerContext) -> Any:
        """Do nothing: an engine is one task hub, and it exists."""
        return pb.CreateTaskHubResponse()

    def DeleteTaskHub(self, request: pb.DeleteTaskHubRequest, context: grpc.ServicerContext) -> Any:
        """Refuse: an engine is one task hub, which goes with its file."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "an engine is one task hub; to delete it, delete its file")


_Condition = Callable[[Instance], bool]


def _has_started(instance: Instance) -> bool:
    return instance.status != transitions.PENDING


def _has_ended(instance: Instance) -> bool:
    return instance.status in TERMINAL


_Token = TypeVar("_Token", TurnToken, TaskToken, BatchToken)


def _token(text: str, kind: type[_Token]) -> _Token | None:
    """Read a token; one of another engine's is the token of something that is not to be done any more."""
    try:
        token = tokens.parse(text)
    except tokens.InvalidTokenError:
        token = None
    if isinstance(token, kind):
        return token
    _logger.info("Ignoring a result with the completion token %r, which is not from this engine", text)
    return None


def _leases_by_id(holding: bytes) -> frozenset[str]:
    return frozenset(holding[start : start + 8].hex() for start in range(0, len(holding), 8))


def _ended(held: frozenset[str], lost: frozenset[str]) -> tuple[tuple[str, bytes], ...]:
    """Say which of the leases that a worker has listed have ended; nothing if there are too many."""
    key, leases = min(((LOST_LEASES, lost), (KEPT_LEASES, held - lost)), key=lambda each: len(each[1]))
    if len(leases) > _ANSWERED_LEASES:
        return ()
    return ((key, b"".join(bytes.fromhex(lease) for lease in leases)),)


def instance_state(reader: Reader, instance: Instance, with_payloads: bool) -> pb.OrchestrationState:
    """Describe an instance as clients know it."""
    payloads: Mapping[str, str | bytes] = {}
    if with_payloads or instance.status == transitions.FAILED:
        payloads = reader.payloads(instance)
    state = pb.OrchestrationState(
        instanceId=instance.instance_id,
        name=instance.name,
        version=events.string_value(instance.version),
        orchestrationStatus=instance.status,  # type: ignore[arg-type]
        createdTimestamp=events.timestamp(instance.created_at),
        lastUpdatedTimestamp=events.timestamp(instance.updated_at),
        customStatus=events.string_value(instance.custom_status),
        executionId=events.string_value(instance.execution_id),
        tags=instance.tags,
    )
    if instance.completed_at is not None:
        state.completedTimestamp.CopyFrom(events.timestamp(instance.completed_at))
    if instance.scheduled_at is not None:
        state.scheduledStartTimestamp.CopyFrom(events.timestamp(instance.scheduled_at))
    if instance.parent is not None:
        state.parentInstanceId.value = instance.parent.instance_id
    failure = payloads.get("failure")
    if isinstance(failure, bytes):
        state.failureDetails.MergeFromString(failure)
    if with_payloads:
        for name in ("input", "output"):
            value = payloads.get(name)
            if isinstance(value, str):
                getattr(state, name).value = value
    return state


def _metadata(entity: Entity, pending: int, with_state: bool) -> pb.EntityMetadata:
    return pb.EntityMetadata(
        instanceId=entity.entity_id,
        lastModifiedTime=events.timestamp(entity.modified_at),
        backlogQueueSize=pending,
        lockedBy=None if entity.lock is None else events.string_value(entity.lock.instance_id),
        serializedState=events.string_value(entity.state) if with_state else None,
    )


def _purge(instance_ids: list[str], recursive: bool, transaction: Transaction) -> int:
    return sum(transaction.purge(each, recursive=recursive) for each in instance_ids)


def _purged(count: int, *, is_complete: bool) -> pb.PurgeInstancesResponse:
    response = pb.PurgeInstancesResponse(deletedInstanceCount=count)
    response.isComplete.value = is_complete
    return response


def _optional_time(message: Any, field: str) -> int | None:
    return events.microseconds(getattr(message, field)) if message.HasField(field) else None


def _number(text: str, context: grpc.ServicerContext) -> int:
    try:
        return int(text)
    except ValueError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{text!r} is not a continuation token of this engine")
        raise


def _number_pair(text: str, context: grpc.ServicerContext) -> tuple[int, int] | None:
    if not text:
        return None
    first, _, second = text.partition("|")
    return _number(first, context), _number(second, context)
