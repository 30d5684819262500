"""Wrong steps and requests: type checkers must complain about each line that ends in `# wrong`, and about no other."""

from __future__ import annotations

from dataclasses import dataclass

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.client import AsyncWorkflowHandle, WorkflowHandle


@dataclass
class Order:
    id: str


def price(order: Order) -> float:
    return 1.0


async def charge(order: Order, currency: str) -> bytes:
    return b""


class Model:
    def count(self, text: str) -> int:
        return len(text)


async def steps(ctx: AsyncWorkflowContext, order: Order) -> None:
    await ctx.run(price, "1")  # wrong
    await ctx.run(price)  # wrong
    await ctx.run(price, order, "EUR")  # wrong
    await ctx.run(charge, "EUR", order)  # wrong
    await ctx.run(charge, order)  # wrong
    await ctx.run(charge, order, currency="EUR")  # wrong
    await ctx.run(Model().count, 5)  # wrong
    await ctx.run(price(order))  # wrong
    await ctx.run("price", order)  # wrong
    text: str = await ctx.run(price, order)  # wrong
    cost: float = ctx.run(price, order)  # wrong
    ctx.run(price, order) + 1  # wrong
    await ctx.run(price, order, recorded="later")  # wrong
    await ctx.run(price, order, recorded=True)  # wrong
    await ctx.run(price, order, timeout="5")  # wrong
    await ctx.run(price, order, name=5)  # wrong
    await ctx.run(price, order, retry_policy=3)  # wrong
    ctx.patched(5)  # wrong
    ctx.deprecate_patch()  # wrong
    print(text, cost)


async def requests(ctx: AsyncWorkflowContext, order: Order) -> None:
    ctx.requests(5)  # wrong
    ctx.requests("order", "Order")  # wrong
    for _ in ctx.requests("order"):  # wrong
        pass
    async for request in ctx.requests("order", Order):
        number: int = request.data  # wrong
        request.refuse()  # wrong
        request.refuse(5)  # wrong
        request.answer(1, 2)  # wrong
        print(number)


def ask(handle: WorkflowHandle[int]) -> None:
    handle.ask(5)  # wrong
    handle.ask("order", None, 5)  # wrong
    handle.ask("order", timeout="5")  # wrong
    number: int = handle.ask("order", return_type=Order)  # wrong
    print(number)


async def ask_async(handle: AsyncWorkflowHandle[int]) -> None:
    await handle.ask("order", answer_type=Order)  # wrong
    number: int = handle.ask("order")  # wrong
    text: str = await handle.ask("order", return_type=Order)  # wrong
    print(number, text)
