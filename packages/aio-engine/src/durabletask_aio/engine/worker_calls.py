"""The calls of workers: the stream of work items, and what workers answer."""

# ruff: noqa: N802 - methods named as the RPCs they answer

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from durabletask_aio.engine import tokens
from durabletask_aio.engine._upstream import Servicer, pb
from durabletask_aio.engine.answering import answering, to_number
from durabletask_aio.engine.encoding import to_message
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.streams import ACTIVITY, BATCH, TURN, UNLIMITED, WorkerStream, WorkKind, filters
from durabletask_aio.engine.tokens import BatchToken, TaskToken, TurnToken

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


class WorkerCalls(Servicer):
    """The part of upstream's service that workers use.  Thread-safe.

    Attributes:
        kernel: the engine.
        health_ping: seconds of silence after which a stream says that it lives.
    """

    def __init__(self, kernel: Kernel, *, in_process: bool, encode: Callable[[object], Any] = to_message) -> None:
        """Serve a kernel.

        Args:
            kernel: the engine.
            in_process: whether workers live and die with the engine.
            encode: makes what goes to a worker.
        """
        self.kernel = kernel
        self.health_ping = HEALTH_PING
        self._in_process = in_process
        self._encode = encode
        self._partial: dict[str, pb.OrchestratorResponse] = {}

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
        stream.number = to_number(metadata.get(STREAM_NUMBER, "0"), context)
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
