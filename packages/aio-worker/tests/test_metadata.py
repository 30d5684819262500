"""Metadata from the client to the activity, end to end, and as headers."""

from __future__ import annotations

import json
from concurrent import futures
from datetime import timedelta
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as stubs
import grpc
import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.task import RetryPolicy
from durabletask.testing import create_test_backend
from worker_support import QUIET, finished, run, started

from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker import metadata
from durabletask_aio.worker.metadata import MetadataInterceptor, to_tags

TENANT = {"tenant": "acme"}


async def get(ctx: Any, _: Any) -> Any:
    return ctx.get_metadata()


async def read(ctx: Any, _: Any) -> Any:
    return ctx.metadata


def sync_read(ctx: Any, _: Any) -> Any:
    return ctx.metadata


def outcome(client: TaskHubGrpcClient, name: str, input: Any = None, tags: Any = None) -> Any:
    output = run(client, name, input, tags=tags).serialized_output
    return None if output is None else json.loads(output)


@pytest.mark.parametrize("sessions", [0, 10])
def test_travels_from_the_client_to_workflows_activities_and_sub_orchestrations(
    engine: LocalBackend, client: TaskHubGrpcClient, sessions: int
) -> None:
    async def parent(ctx: Any, _: Any) -> Any:
        seeded = ctx.get_metadata()
        before = await ctx.call_activity("read")
        ctx.set_metadata({"tenant": "other", "user": "u"})
        return [
            seeded,
            before,
            await ctx.call_activity("read"),
            await ctx.call_activity("sync_read"),
            await ctx.call_sub_orchestrator("get"),
        ]

    worker = started(engine, read, sync_read, orchestrators=[parent, get], max_extended_sessions=sessions)
    try:
        result = outcome(client, "parent", tags={**to_tags(TENANT), "colour": "red"})
    finally:
        worker.stop()

    changed = {"tenant": "other", "user": "u"}
    assert result == [TENANT, TENANT, changed, changed, changed]


def test_is_none_before_anything_was_set_and_empty_after_that_was_set(
    engine: LocalBackend, client: TaskHubGrpcClient
) -> None:
    async def emptying(ctx: Any, _: Any) -> Any:
        before = [ctx.get_metadata(), await ctx.call_activity("read")]
        ctx.set_metadata({})
        return [*before, ctx.get_metadata(), await ctx.call_activity("read")]

    worker = started(engine, read, orchestrators=[emptying])
    try:
        result = outcome(client, "emptying", tags={"colour": "red"})
    finally:
        worker.stop()

    assert result == [None, None, {}, {}]


def test_is_there_again_on_every_retry(engine: LocalBackend, client: TaskHubGrpcClient) -> None:
    attempts: list[Any] = []

    async def flaky(ctx: Any, _: Any) -> None:
        attempts.append(["activity", ctx.metadata])
        raise ValueError("again")

    async def flaky_child(ctx: Any, _: Any) -> None:
        attempts.append(["child", ctx.get_metadata()])
        raise ValueError("again")

    async def retrying(ctx: Any, _: Any) -> Any:
        policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=1), max_number_of_attempts=2)
        for call in (ctx.call_activity, ctx.call_sub_orchestrator):
            name = "flaky" if call == ctx.call_activity else "flaky_child"
            try:
                await call(name, retry_policy=policy)
            except Exception:
                continue

    worker = started(engine, flaky, orchestrators=[retrying, flaky_child])
    try:
        outcome(client, "retrying", tags=to_tags(TENANT))
    finally:
        worker.stop()

    assert attempts == [["activity", TENANT], ["activity", TENANT], ["child", TENANT], ["child", TENANT]]


def test_that_a_client_set_survives_continue_as_new(engine: LocalBackend, client: TaskHubGrpcClient) -> None:
    async def rounds(ctx: Any, seen: Any) -> Any:
        seen = [*(seen or []), ctx.get_metadata()]
        if len(seen) < 3:
            ctx.continue_as_new(seen)
        return seen

    worker = started(engine, orchestrators=[rounds])
    try:
        result = outcome(client, "rounds", tags={**to_tags(TENANT), "colour": "red"})
    finally:
        worker.stop()

    assert result == [TENANT, TENANT, TENANT]


@pytest.mark.parametrize("sessions", [0, 10])
def test_that_a_workflow_set_survives_continue_as_new(
    engine: LocalBackend, client: TaskHubGrpcClient, sessions: int
) -> None:
    seen: list[Any] = []

    async def flaky(ctx: Any, _: Any) -> None:
        seen.append(["activity", ctx.metadata, ctx.tags["colour"]])
        raise ValueError("again")

    async def flaky_child(ctx: Any, _: Any) -> None:
        seen.append(["child", ctx.get_metadata()])
        raise ValueError("again")

    async def changing(ctx: Any, round: int) -> Any:
        if round == 1:
            ctx.set_metadata({"user": "u"})  # without the tenant
            ctx.continue_as_new(2)
        elif round == 2:
            policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=1), max_number_of_attempts=2)
            for operation in (
                ctx.call_activity("flaky", retry_policy=policy, tags={"colour": "blue"}),
                ctx.call_sub_orchestrator("flaky_child", retry_policy=policy),
            ):
                try:
                    await operation
                except Exception:
                    continue
            ctx.continue_as_new(3)
        return ctx.get_metadata()

    worker = started(engine, flaky, orchestrators=[changing, flaky_child], max_extended_sessions=sessions)
    try:
        result = outcome(client, "changing", 1, tags={**to_tags(TENANT), "colour": "red"})
    finally:
        worker.stop()

    user = {"user": "u"}
    assert result == user
    assert sorted(seen, key=str) == [
        *[["activity", user, "blue"]] * 2,
        *[["child", user]] * 2,
    ]


@pytest.mark.parametrize("sessions", [0, 10])
def test_that_is_emptied_stays_empty_over_continue_as_new(
    engine: LocalBackend, client: TaskHubGrpcClient, sessions: int
) -> None:
    async def emptied(ctx: Any, round: int) -> Any:
        if round == 1:
            ctx.set_metadata({})
            ctx.continue_as_new(2)
        return ctx.get_metadata()

    worker = started(engine, orchestrators=[emptied], max_extended_sessions=sessions)
    try:
        result = outcome(client, "emptied", 1, tags=to_tags(TENANT))
    finally:
        worker.stop()

    assert result == {}


def test_degrades_to_none_on_upstreams_own_engine() -> None:
    port = _free_port()
    backend = create_test_backend(port=port)
    try:
        client = TaskHubGrpcClient(host_address=f"localhost:{port}", logger=QUIET)

        async def parent(ctx: Any, seen: Any) -> Any:
            if seen is None:
                ctx.set_metadata(TENANT)
                ctx.continue_as_new([ctx.get_metadata(), await ctx.call_activity("read")])
                return None
            return [*seen, ctx.get_metadata()]

        class Engine:
            address = f"localhost:{port}"

        engine: Any = Engine()
        worker = started(engine, read, orchestrators=[parent])
        try:
            state = finished(client, client.schedule_new_orchestration("parent"))
        finally:
            worker.stop()
            client.close()
    finally:
        backend.stop()

    assert json.loads(state.serialized_output or "") == [TENANT, None, None]


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"a": 1}, "metadata keys and values are strings"),
            (["a"], "metadata is a mapping of strings to strings"),
            ({"a": "x" * 10_000}, "metadata takes 10,001 bytes"),
        ],
    )
    def test_is_named_to_clients_too(self, value: Any, message: str) -> None:
        with pytest.raises(WorkflowValidationError, match=message):
            to_tags(value)


class TestHeaders:
    def test_of_a_start_carry_the_metadata_and_nothing_else(self) -> None:
        request = pb.CreateInstanceRequest(tags={**to_tags({"Tenant": "acme", "name": "Zoë"}), "colour": "red"})

        assert MetadataInterceptor.headers("/TaskHubSidecarService/StartInstance", request) == [
            ("durabletask-aio-md-tenant", "acme"),
            ("durabletask-aio-md-name", "Zo%C3%AB"),
        ]
        assert MetadataInterceptor.headers("/TaskHubSidecarService/GetInstance", pb.GetInstanceRequest()) == []

    def test_arrive_at_the_server(self) -> None:
        received: list[dict[str, str]] = []

        class Service(stubs.TaskHubSidecarServiceServicer):
            def StartInstance(self, request: Any, context: Any) -> pb.CreateInstanceResponse:
                received.append(dict(context.invocation_metadata()))
                return pb.CreateInstanceResponse(instanceId=request.instanceId)

        server = grpc.server(futures.ThreadPoolExecutor(2))
        stubs.add_TaskHubSidecarServiceServicer_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        client = TaskHubGrpcClient(
            host_address=f"127.0.0.1:{port}",
            logger=QUIET,
            interceptors=[MetadataInterceptor()],
            metadata=[("other", "kept")],
        )
        try:
            client.schedule_new_orchestration("any", tags=to_tags(TENANT))
        finally:
            client.close()
            server.stop(None)

        (headers,) = received
        assert headers[metadata.HEADER_PREFIX + "tenant"] == "acme"
        assert headers["other"] == "kept"
