"""Realistic user code that type checkers must accept, with the types they must find.  Checked, and never run."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from durabletask import task
from durabletask.aio import (
    ActivityFailedError,
    AsyncWorkflowContext,
    EventStream,
    HeldLock,
    Operation,
    RetryPolicy,
    SandboxMode,
    WorkflowFunction,
    WorkflowTimeoutError,
    as_orchestrator,
    raises,
)
from durabletask.client import TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.worker import TaskHubGrpcWorker
from typing_extensions import assert_type


@dataclass
class Order:
    id: str
    total: float


def charge(ctx: task.ActivityContext, order: Order) -> int:
    return 1


async def charge_async(ctx: task.ActivityContext, order: Order) -> int:
    return 1


def notify(ctx: task.ActivityContext, text: str) -> None: ...


async def child(ctx: AsyncWorkflowContext, order: Order) -> list[str]:
    return [order.id]


async def without_input(ctx: AsyncWorkflowContext) -> float:
    return 1.0


def generator(ctx: task.OrchestrationContext, order: Order) -> Generator[task.Task[Any], Any, int]:
    result: int = yield ctx.call_activity(charge, input=order)
    return result


@as_orchestrator
async def decorated(ctx: AsyncWorkflowContext, order: Order) -> bytes:
    return b""


@as_orchestrator(name="orders", sandbox_mode=SandboxMode.STRICT)
async def decorated_with_arguments(ctx: AsyncWorkflowContext, order: Order) -> str:
    return order.id


@as_orchestrator(name="report")
async def decorated_without_input(ctx: AsyncWorkflowContext) -> str:
    return ctx.instance_id


async def activities(ctx: AsyncWorkflowContext, order: Order) -> int:
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=3)
    assert_type(ctx.call_activity(charge, input=order), Operation[int])
    assert_type(await ctx.call_activity(charge, input=order, retry_policy=policy, tags={"tenant": "acme"}), int)
    assert_type(await ctx.call_activity(charge_async, input=order), int)
    assert_type(await ctx.call_activity(charge), int)
    assert_type(await ctx.call_activity("charge", input=order), Any)
    assert_type(await ctx.call_activity("charge", input=order, return_type=Order), Order)
    assert_type(await ctx.call_activity(charge, input=order, return_type=Order), Order)
    await ctx.call_activity(notify, input="hello")
    return await ctx.call_activity(charge, input=order)


async def children(ctx: AsyncWorkflowContext, order: Order) -> None:
    assert_type(await ctx.call_sub_orchestrator(child, input=order, instance_id="child-1", version="1.0"), list[str])
    assert_type(await ctx.call_sub_orchestrator(without_input), float)
    await ctx.call_sub_orchestrator(generator, input=order)
    assert_type(await ctx.call_sub_orchestrator(decorated, input=order), bytes)
    assert_type(await ctx.call_sub_orchestrator(decorated_with_arguments, input=order), str)
    assert_type(await ctx.call_sub_orchestrator("child", input=order), Any)
    assert_type(await ctx.call_sub_orchestrator("child", return_type=Order), Order)


async def timers_and_events(ctx: AsyncWorkflowContext, _: None) -> None:
    assert_type(ctx.create_timer(5), Operation[None])
    await ctx.sleep(1.5)
    await ctx.sleep(timedelta(days=1))
    await ctx.create_timer(ctx.now())
    await ctx.create_timer(datetime(2030, 1, 1))
    assert_type(await ctx.wait_for_external_event("approval"), Any)
    assert_type(await ctx.wait_for_external_event("approval", data_type=Order), Order)
    assert_type(ctx.events("order", data_type=Order), EventStream[Order])
    async for order in ctx.events("order", data_type=Order):
        assert_type(order, Order)
    ctx.send_event("other", "approval", data={"ok": True})


async def entities(ctx: AsyncWorkflowContext, _: None) -> None:
    counter = EntityInstanceId("counter", "a")
    assert_type(await ctx.call_entity(counter, "get", return_type=int), int)
    assert_type(await ctx.call_entity(counter, "get"), Any)
    ctx.signal_entity(counter, "add", 1)
    async with ctx.lock_entities([counter]) as lock:
        assert_type(lock, HeldLock)
    with await ctx.lock_entities([counter]) as held:
        assert_type(held, HeldLock)


async def combining(ctx: AsyncWorkflowContext, order: Order) -> None:
    charges: list[Operation[int]] = [ctx.call_activity(charge, input=order) for _ in range(3)]
    assert_type(await ctx.when_all(charges), list[int])
    assert_type(await ctx.when_any(charges), int)
    assert_type(await ctx.when_any_with_result(charges), tuple[int, int])
    index, value = await ctx.when_any_with_result(charges)
    assert_type(index, int)
    assert_type(value, int)
    assert_type(await ctx.with_timeout(ctx.call_activity(charge, input=order), 30.0), int)
    assert_type(await ctx.with_timeout(child(ctx, order), timedelta(minutes=1)), list[str])
    assert_type(await ctx.gather(*charges), list[int])
    assert_type(await ctx.gather(*charges, return_exceptions=True), list[Any])
    assert_type(await ctx.gather(), list[Any])
    assert_type(await ctx.gather(charges[0], child(ctx, order)), list[Any])
    number, nothing = await ctx.gather(ctx.call_activity(charge), ctx.call_activity(notify))
    total: float = number
    await ctx.call_activity(notify, input=f"{total} {nothing}")
    assert_type(await asyncio.gather(*charges), list[int])
    first, second = await asyncio.gather(ctx.call_activity(charge), child(ctx, order))
    assert_type(first, int)
    assert_type(second, list[str])
    assert_type(await asyncio.wait_for(ctx.call_activity(charge), 5), int)
    assert_type(await asyncio.shield(ctx.call_activity(charge)), int)
    done, pending = await asyncio.wait(charges)
    assert_type(done, set[Operation[int]])
    assert_type(pending, set[Operation[int]])


async def mixed(ctx: AsyncWorkflowContext, order: Order) -> None:
    # Of one type to some checkers, of any to others; accepted by all.
    await ctx.when_all([ctx.call_activity(charge, input=order), ctx.call_activity(notify)])
    await ctx.when_all([ctx.call_activity(charge), child(ctx, order), asyncio.sleep(1)])
    await ctx.when_any([ctx.call_activity(charge), ctx.sleep(30)])
    winner, _ = await ctx.when_any_with_result([ctx.wait_for_external_event("paid", data_type=Order), ctx.sleep(30)])
    assert_type(winner, int)


class Warehouse:
    def __call__(self, ctx: task.ActivityContext, order: Order) -> float:
        return 1.0

    def count(self, ctx: task.ActivityContext, order: Order | None = None) -> bool:
        return True

    async def ship(self, ctx: AsyncWorkflowContext, order: Order) -> bytes:
        return b""


def prefixed(prefix: str, ctx: task.ActivityContext, order: Order) -> str:
    return prefix


async def callables(ctx: AsyncWorkflowContext, order: Order) -> None:
    warehouse = Warehouse()
    assert_type(await ctx.call_activity(warehouse, input=order), float)
    assert_type(await ctx.call_activity(warehouse.count), bool)
    assert_type(await ctx.call_activity(warehouse.count, input=order), bool)
    assert_type(await ctx.call_activity(partial(prefixed, "order-"), input=order), str)
    assert_type(await ctx.call_sub_orchestrator(warehouse.ship, input=order), bytes)


async def everything_else(ctx: AsyncWorkflowContext, _: None) -> None:
    assert_type(ctx.now(), datetime)
    assert_type(ctx.random(), Random)
    assert_type(ctx.uuid4(), UUID)
    assert_type(ctx.new_uuid(), str)
    assert_type(ctx.instance_id, str)
    assert_type(ctx.parent_instance_id, "str | None")
    assert_type(ctx.is_replaying, bool)
    assert_type(ctx.get_metadata(), "dict[str, str] | None")
    assert_type(ctx.get_debug_info(), dict[str, Any])
    ctx.set_metadata({"tenant": "acme"})
    ctx.set_headers({"tenant": "acme"})
    ctx.logger.info("hello %s", "world")
    ctx.add_cleanup(lambda: None)
    ctx.add_cleanup(partial(print, "done"))
    async with ctx as entered:
        assert_type(entered, AsyncWorkflowContext)
    try:
        await ctx.call_activity(charge)
    except ActivityFailedError as error:
        assert_type(error.step, "int | None")
        assert_type(error.details, task.FailureDetails)
    except WorkflowTimeoutError as error:
        assert_type(error.instance_id, "str | None")
    ctx.continue_as_new(None, save_events=True, new_version="2.0")


protocol: WorkflowFunction[Order, list[str]] = child


def registration(worker: TaskHubGrpcWorker, client: TaskHubGrpcClient) -> None:
    worker.add_orchestrator(as_orchestrator(child))
    worker.add_orchestrator(as_orchestrator(without_input))
    worker.add_orchestrator(as_orchestrator(child, name="renamed", sandbox_mode="best_effort"))
    worker.add_orchestrator(decorated)
    worker.add_orchestrator(decorated_without_input)
    worker.add_orchestrator(as_orchestrator(decorated))
    client.schedule_new_orchestration(decorated, input=Order("o-1", 1.0))
    assert_type(as_orchestrator(child), task.Orchestrator[Order, list[str]])
    assert_type(decorated_with_arguments, task.Orchestrator[Order, str])
    assert_type(decorated_without_input, task.Orchestrator[Any, str])


class Declined(Exception):
    pass


@raises(Declined, ValueError)
def declaring(ctx: task.ActivityContext, order: Order) -> int:
    return 1


@raises(Declined)
async def declaring_child(ctx: AsyncWorkflowContext, order: Order) -> list[str]:
    return [order.id]


async def catching(ctx: AsyncWorkflowContext, order: Order) -> int:
    final = RetryPolicy(
        first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2, non_retryable=[Declined, "shop.Refused"]
    )
    upstreams = task.RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2)
    assert_type(final.non_retryable, tuple[type[BaseException] | str, ...])
    try:
        assert_type(await ctx.call_activity(declaring, input=order, retry_policy=final), int)
        assert_type(await ctx.call_activity(charge, input=order, raises=Declined, retry_policy=upstreams), int)
        assert_type(await ctx.call_activity(charge_async, input=order, raises=(Declined, ValueError)), int)
        assert_type(await ctx.call_activity("charge", return_type=int, raises=(Declined,)), int)
        assert_type(await ctx.call_sub_orchestrator(declaring_child, input=order, raises=()), list[str])
        assert_type(await ctx.call_sub_orchestrator(generator, input=order, retry_policy=final), int)
        await ctx.call_entity(EntityInstanceId("account", "a"), "get", return_type=int, raises=Declined)
    except Declined:
        return 0
    return 1


async def with_a_library(ctx: AsyncWorkflowContext, order: Order) -> int:
    call: task.CompletableTask[int] = ctx.upstream_context.call_activity(charge, input=order)
    assert_type(ctx.wait_for_task(call), Operation[int])
    assert_type(await ctx.wait_for_task(task.when_all([call])), list[int])
    return await ctx.with_timeout(ctx.wait_for_task(call), 5)
