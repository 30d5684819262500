"""Wrong uses of a client: type checkers must complain about each line that ends in `# wrong`, and about no other."""

from __future__ import annotations

from dataclasses import dataclass

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.client import AsyncWorkflowClient, WorkflowClient
from durabletask.client import AsyncTaskHubGrpcClient, TaskHubGrpcClient


@dataclass
class Order:
    id: str


async def order(ctx: AsyncWorkflowContext, x: Order) -> int:
    return 1


async def nightly(ctx: AsyncWorkflowContext) -> int:
    return 1


async def without_context(x: Order) -> int:
    return 1


def plain(ctx: AsyncWorkflowContext, x: Order) -> int:
    return 1


def synchronous(upstream: TaskHubGrpcClient, other: AsyncTaskHubGrpcClient) -> None:
    client = WorkflowClient(upstream)
    client.start(order, input="1")  # wrong
    client.start(order)  # wrong
    client.start(order, Order("1"))  # wrong
    client.start(nightly, input=5)  # wrong
    client.start(without_context, input=Order("1"))  # wrong
    client.start(plain, input=Order("1"))  # wrong
    client.start(order, input=Order("1"), instance=5)  # wrong
    client.start(order, input=Order("1"), tags={"n": 1})  # wrong
    text: str = client.start(order, input=Order("1")).result()  # wrong
    other_text: str = client.get_handle("a", order).result()  # wrong
    client.get_handle(5)  # wrong
    client.get_handle("a").result(5)  # wrong
    WorkflowClient(other)  # wrong
    print(text, other_text)


async def asynchronous(upstream: AsyncTaskHubGrpcClient, other: TaskHubGrpcClient) -> None:
    client = AsyncWorkflowClient(upstream)
    await client.start(order, input="1")  # wrong
    await client.start(order)  # wrong
    client.start(order, input=Order("1")).result()  # wrong
    started = await client.start(order, input=Order("1"))
    text: str = await started.result()  # wrong
    await started.raise_event(5)  # wrong
    AsyncWorkflowClient(other)  # wrong
    print(text)
