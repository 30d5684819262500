"""The engine as the page uses it: upstream's service and the second one, over a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from durabletask_aio.engine._upstream import TaskHubGrpcClient, pb, pb_grpc
from durabletask_aio.engine.exporting import history_json, silent_logger
from durabletask_aio.engine.management.client import EngineClient

TIMEOUT = 20.0
"""Seconds for a call."""

_HEALTH_TIMEOUT = 5.0


class Backend:
    """Calls of both services.  Errors are `grpc.RpcError`.  Thread-safe."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Use a channel.

        Args:
            channel: to the engine.
        """
        self.management = EngineClient(channel, timeout=TIMEOUT)
        self._stub = pb_grpc.TaskHubSidecarServiceStub(channel)
        self._client = TaskHubGrpcClient(channel=channel, logger=silent_logger)

    def call(self, method: str, request: Any) -> Any:
        """Call a method of upstream's service."""
        return getattr(self._stub, method)(request, timeout=TIMEOUT)

    def check(self) -> None:
        """Raise if the engine does not answer."""
        self._stub.Hello(Empty(), timeout=_HEALTH_TIMEOUT)

    def state(self, instance_id: str) -> pb.OrchestrationState | None:
        """Return an instance with its payloads, `None` if there is none."""
        response = self.call("GetInstance", pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True))
        return response.orchestrationState if response.exists else None

    def history(self, instance_id: str) -> Sequence[pb.HistoryEvent]:
        """Return the events of an instance's latest execution."""
        request = pb.StreamInstanceHistoryRequest(instanceId=instance_id)
        return [event for chunk in self.call("StreamInstanceHistory", request) for event in chunk.events]

    def exported_history(self, instance_id: str) -> str:
        """Return the history of an instance's latest execution as a JSON document."""
        return history_json(instance_id, self._client.get_orchestration_history(instance_id))

    def entities(self, prefix: str, page_size: int, token: str) -> pb.QueryEntitiesResponse:
        """Return a page of entities, by id, with their states."""
        query = pb.EntityQuery(includeState=True, includeTransient=True)
        query.pageSize.value = page_size
        if prefix:
            query.instanceIdStartsWith.value = prefix
        if token:
            query.continuationToken.value = token
        response: pb.QueryEntitiesResponse = self.call("QueryEntities", pb.QueryEntitiesRequest(query=query))
        return response
