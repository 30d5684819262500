"""Upstream's service, `TaskHubSidecarService`: requests in, commands out."""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.answering import answering, to_number
from durabletask_aio.engine.client_waits import ClientWaits, has_ended, has_started
from durabletask_aio.engine.commands import InstanceNotFoundError, Transaction
from durabletask_aio.engine.descriptions import entity_metadata, instance_state
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.state import NO_TAGS, StartInstance
from durabletask_aio.engine.store import InstanceFilter
from durabletask_aio.engine.transitions import TERMINAL
from durabletask_aio.engine.worker_calls import ENGINE, WorkerCalls

_PAGE = 1000
_PAGE_BYTES = 2 * 1024 * 1024
"""A page ends after that much, below the 4 MiB that gRPC clients accept by default."""

_PURGED_AT_ONCE = 50
"""Roots that one transaction purges: others get their turn in between."""


class TaskHubService(WorkerCalls):
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
        super().__init__(kernel, in_process=in_process, encode=encode)
        self._waits = ClientWaits(kernel)
        self.futures: Mapping[str, Callable[[Any], Future[Any]]] = {
            "WaitForInstanceStart": functools.partial(self._waits.future, has_started),
            "WaitForInstanceCompletion": functools.partial(self._waits.future, has_ended),
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
        return self._waits.wait(has_started, request, context)

    @answering
    def WaitForInstanceCompletion(self, request: pb.GetInstanceRequest, context: grpc.ServicerContext) -> Any:
        """Answer once an instance has ended; at once if there is none, or when it is purged."""
        return self._waits.wait(has_ended, request, context)

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
            after = to_number(time, context), instance_id
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
        return pb.GetEntityResponse(exists=True, entity=entity_metadata(entity, pending, request.includeState))

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
            entities=[entity_metadata(entity, pending, query.includeState) for entity, pending in found[:limit]]
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

    # -- task hubs -------------------------------------------------------------------------------------------------

    def CreateTaskHub(self, request: pb.CreateTaskHubRequest, context: grpc.ServicerContext) -> Any:
        """Do nothing: an engine is one task hub, and it exists."""
        return pb.CreateTaskHubResponse()

    def DeleteTaskHub(self, request: pb.DeleteTaskHubRequest, context: grpc.ServicerContext) -> Any:
        """Refuse: an engine is one task hub, which goes with its file."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "an engine is one task hub; to delete it, delete its file")


def _purge(instance_ids: list[str], recursive: bool, transaction: Transaction) -> int:
    return sum(transaction.purge(each, recursive=recursive) for each in instance_ids)


def _purged(count: int, *, is_complete: bool) -> pb.PurgeInstancesResponse:
    response = pb.PurgeInstancesResponse(deletedInstanceCount=count)
    response.isComplete.value = is_complete
    return response


def _optional_time(message: Any, field: str) -> int | None:
    return events.microseconds(getattr(message, field)) if message.HasField(field) else None


def _number_pair(text: str, context: grpc.ServicerContext) -> tuple[int, int] | None:
    if not text:
        return None
    first, _, second = text.partition("|")
    return to_number(first, context), to_number(second, context)
