"""Realistic code of a client that type checkers must accept, with the types they must find.  Checked, and never run."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from durabletask import task
from durabletask.aio import AsyncWorkflowContext, as_orchestrator
from durabletask.aio.client import (
    AsyncWorkflowClient,
    AsyncWorkflowHandle,
    WorkflowClient,
    WorkflowFailedError,
    WorkflowHandle,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationState, OrchestrationStatus, TaskHubGrpcClient
from durabletask.history import HistoryEvent
from typing_extensions import assert_type


@dataclass
class Order:
    id: str


@dataclass
class Receipt:
    total: float


async def order(ctx: AsyncWorkflowContext, x: Order) -> Receipt:
    return Receipt(1.0)


async def maybe(ctx: AsyncWorkflowContext, x: Order | None) -> str:
    return ""


async def defaulted(ctx: AsyncWorkflowContext, x: int = 5) -> bool:
    return True


async def nightly(ctx: AsyncWorkflowContext) -> list[Receipt]:
    return []


def generator(ctx: task.OrchestrationContext, x: Order) -> Generator[task.Task[Any], Any, int]:
    result: int = yield ctx.call_activity("charge", input=x)
    return result


@as_orchestrator(name="orders")
async def decorated(ctx: AsyncWorkflowContext, x: Order) -> bytes:
    return b""


class Shop:
    async def sell(self, ctx: AsyncWorkflowContext, x: Order) -> Receipt:
        return Receipt(1.0)


def synchronous(upstream: TaskHubGrpcClient) -> None:
    client = WorkflowClient(upstream)
    assert_type(client.client, TaskHubGrpcClient)
    handle = client.start(
        order, input=Order("1"), instance_id="a", start_at=datetime.now(), version="1", tags={"a": "b"}
    )
    assert_type(handle, WorkflowHandle[Receipt])
    assert_type(handle.result(), Receipt)
    assert_type(handle.result(timeout=5), Receipt)
    assert_type(handle.result(return_type=Order), Order)
    assert_type(handle.instance_id, str)
    assert_type(handle.status(), OrchestrationStatus)
    assert_type(handle.state(), OrchestrationState)
    assert_type(handle.history(), list[HistoryEvent])
    handle.raise_event("approved", Order("1"))
    handle.cancel("enough")
    handle.suspend("later")
    handle.resume()
    handle.terminate({"by": "me"}, recursive=False)
    assert_type(client.start(maybe), WorkflowHandle[str])
    assert_type(client.start(maybe, input=Order("1")), WorkflowHandle[str])
    assert_type(client.start(defaulted), WorkflowHandle[bool])
    assert_type(client.start(defaulted, input=7), WorkflowHandle[bool])
    assert_type(client.start(nightly), WorkflowHandle[list[Receipt]])
    assert_type(client.start(generator, input=Order("1")), WorkflowHandle[int])
    assert_type(client.start(decorated, input=Order("1")), WorkflowHandle[bytes])
    assert_type(client.start(Shop().sell, input=Order("1")), WorkflowHandle[Receipt])
    assert_type(client.start("orders", input={"id": 1}), WorkflowHandle[Any])
    assert_type(client.get_handle("a"), WorkflowHandle[Any])
    assert_type(client.get_handle("a", "orders"), WorkflowHandle[Any])
    assert_type(client.get_handle("a", order), WorkflowHandle[Receipt])
    assert_type(client.get_handle("a", nightly), WorkflowHandle[list[Receipt]])
    assert_type(client.get_handle("a", generator), WorkflowHandle[int])
    assert_type(client.get_handle("a", decorated), WorkflowHandle[bytes])


async def in_a_test(env: WorkflowEnvironment) -> None:
    client = env.client
    assert_type(client, AsyncWorkflowClient)
    assert_type(client.client, AsyncTaskHubGrpcClient)
    handle = await client.start(order, input=Order("1"))
    assert_type(handle, AsyncWorkflowHandle[Receipt])
    assert_type(await handle.result(timeout=5), Receipt)
    assert_type(await handle.history(), list[HistoryEvent])
    assert_type(client.get_handle("a", nightly), AsyncWorkflowHandle[list[Receipt]])


async def asynchronous(upstream: AsyncTaskHubGrpcClient) -> Receipt | None:
    client = AsyncWorkflowClient(upstream)
    handle = await client.start(order, input=Order("1"), instance_id="a")
    assert_type(handle, AsyncWorkflowHandle[Receipt])
    assert_type(await handle.result(return_type=Order), Order)
    assert_type(await handle.status(), OrchestrationStatus)
    assert_type(await handle.state(), OrchestrationState)
    assert_type(await handle.history(), list[HistoryEvent])
    await handle.raise_event("approved", True)
    await handle.cancel()
    await handle.suspend()
    await handle.resume("now")
    await handle.terminate()
    assert_type(await client.start(maybe), AsyncWorkflowHandle[str])
    assert_type(await client.start(defaulted), AsyncWorkflowHandle[bool])
    assert_type(await client.start(nightly), AsyncWorkflowHandle[list[Receipt]])
    assert_type(await client.start(generator, input=Order("1")), AsyncWorkflowHandle[int])
    assert_type(await client.start("orders", input=5), AsyncWorkflowHandle[Any])
    assert_type(client.get_handle("a"), AsyncWorkflowHandle[Any])
    assert_type(client.get_handle("a", order), AsyncWorkflowHandle[Receipt])
    try:
        return await handle.result(timeout=5)
    except WorkflowFailedError as error:
        assert_type(error.details.error_type, str)
        assert_type(error.causes, tuple[task.FailureDetails, ...])
    except WorkflowTerminatedError as error:
        assert_type(error.output, Any)
    except WorkflowNotFoundError as error:
        assert_type(error.instance_id, str | None)
    return None
