"""Realistic steps and requests that type checkers must accept, with the types that they must find.  Never run."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from durabletask.aio import AsyncWorkflowContext, Operation, Request, RetryPolicy, StepFailedError
from durabletask.aio.client import AsyncWorkflowHandle, RequestRefusedError, WorkflowHandle
from typing_extensions import assert_type


@dataclass
class Order:
    id: str
    total: float


def price(order: Order) -> float:
    return order.total


def find(query: str, limit: int = 5) -> list[str]:
    return [query] * limit


def notify(text: str) -> None: ...


async def charge(order: Order, currency: str) -> bytes:
    return b""


async def no_arguments() -> Order:
    return Order("1", 1.0)


class Model:
    def count(self, text: str) -> int:
        return len(text)

    async def answer(self, prompt: str) -> dict[str, str]:
        return {}

    @classmethod
    def load(cls, name: str) -> Model:
        return cls()

    @staticmethod
    def version() -> tuple[int, int]:
        return (1, 2)

    def __call__(self, prompt: str) -> str:
        return prompt


async def steps(ctx: AsyncWorkflowContext, order: Order) -> None:
    assert_type(ctx.run(price, order), Operation[float])
    assert_type(await ctx.run(price, order), float)
    assert_type(await ctx.run(charge, order, "EUR"), bytes)
    assert_type(await ctx.run(no_arguments), Order)
    assert_type(await ctx.run(find, "tea", 3), list[str])
    assert_type(await ctx.run(time.time), float)
    assert_type(await ctx.run(os.getcwd), str)
    assert_type(await ctx.run(Path("rates").read_text), str)
    assert_type(await ctx.run(lambda: 5), int)
    assert_type(await ctx.run(partial(find, limit=3), "tea"), list[str])
    assert_type(await ctx.run(partial(find, "tea", limit=3)), list[str])
    assert_type(await ctx.run(partial(charge, currency="EUR"), order), bytes)
    model = Model()
    assert_type(await ctx.run(model.count, "tea"), int)
    assert_type(await ctx.run(model.answer, "why"), dict[str, str])
    assert_type(await ctx.run(Model.load, "small"), Model)
    assert_type(await ctx.run(Model.version), tuple[int, int])
    assert_type(await ctx.run(model, "why"), str)
    await ctx.run(notify, "done")


async def options(ctx: AsyncWorkflowContext, order: Order) -> list[float]:
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2)
    assert_type(await ctx.run(price, order, name="cost", retry_policy=policy, timeout=5), float)
    assert_type(await ctx.run(charge, order, "EUR", timeout=timedelta(seconds=5), recorded="now"), bytes)
    assert_type(await ctx.run(time.time, recorded="lazily"), float)
    assert_type(await ctx.run(time.time, recorded=None, name=None), float)
    try:
        cost, receipt = await asyncio.gather(ctx.run(price, order), ctx.run(charge, order, "EUR"))
    except StepFailedError as error:
        assert_type(error.details.message, str)
        raise
    assert_type(cost, float)
    assert_type(receipt, bytes)
    assert_type(ctx.patched("by-air"), bool)
    ctx.deprecate_patch("by-air")
    return await ctx.gather(ctx.run(price, order), ctx.run(time.time))


async def requests(ctx: AsyncWorkflowContext, limit: float) -> None:
    async for request in ctx.requests("order", Order):
        assert_type(request, Request[Order])
        assert_type(request.data, Order)
        assert_type(request.name, str)
        if request.data.total > limit:
            request.refuse("too much")
        elif not request.is_answered:
            request.answer({"ok": True})
    async for other in ctx.requests("anything"):
        assert_type(other, Request[Any])
        other.answer()


def ask(handle: WorkflowHandle[int]) -> None:
    assert_type(handle.ask("order", Order("1", 1.0), timeout=5, return_type=Order), Order)
    assert_type(handle.ask("order"), Any)
    try:
        handle.ask("order", {"id": "1"}, timeout=None)
    except RequestRefusedError as error:
        assert_type(error.reason, str)


async def ask_async(handle: AsyncWorkflowHandle[int]) -> float:
    assert_type(await handle.ask("order", Order("1", 1.0), timeout=0.5), Any)
    order = await handle.ask("order", return_type=Order)
    assert_type(order, Order)
    return order.total
