"""Wrong uses: type checkers must complain about each line that ends in `# wrong`, and about no other."""

# ruff: noqa: B018

from __future__ import annotations

from durabletask import task
from durabletask.aio import AsyncWorkflowContext, Operation, as_orchestrator, raises
from durabletask.entities import EntityInstanceId


def charge(ctx: task.ActivityContext, order: str) -> int:
    return 1


async def charge_async(ctx: task.ActivityContext, order: str) -> int:
    return 1


async def child(ctx: AsyncWorkflowContext, order: str) -> bytes:
    return b""


def plain(ctx: AsyncWorkflowContext, order: str) -> int:
    return 1


async def forgotten_await(ctx: AsyncWorkflowContext, order: str) -> int:
    total: int = ctx.call_activity(charge, input=order)  # wrong
    ctx.call_activity(charge, input=order) + total  # wrong
    len(ctx.call_activity("names"))  # wrong
    ctx.call_activity("order")["id"]  # wrong
    ctx.call_activity("order").total  # wrong
    int(ctx.call_activity("number"))  # wrong
    return total


async def returned_unawaited(ctx: AsyncWorkflowContext, order: str) -> int:
    return ctx.call_activity(charge, input=order)  # wrong


async def wrong_result(ctx: AsyncWorkflowContext, order: str) -> str:
    return await ctx.call_activity(charge, input=order)  # wrong


async def wrong_arguments(ctx: AsyncWorkflowContext, order: str) -> None:
    await ctx.call_activity(charge, order)  # wrong
    await ctx.call_activity(5)  # wrong
    await ctx.with_timeout(5, ctx.call_activity(charge))  # wrong
    await ctx.with_timeout(ctx.call_activity(charge), "5")  # wrong
    await ctx.sleep("5")  # wrong
    await ctx.create_timer(None)  # wrong
    await ctx.when_any(ctx.call_activity(charge), ctx.call_activity(charge))  # wrong
    await ctx.when_all(ctx.call_activity(charge), ctx.call_activity(charge))  # wrong
    await ctx.when_any_with_result([1, 2])  # wrong
    await ctx.gather([ctx.call_activity(charge)])  # wrong
    await ctx.wait_for_external_event("go", data_type=5)  # wrong
    ctx.set_metadata({"n": 1})  # wrong
    ctx.add_cleanup(5)  # wrong
    ctx.now("Asia/Tokyo")  # wrong
    ctx.signal_entity("counter", "add")  # wrong
    await ctx.call_entity(EntityInstanceId("counter", "a"), 5)  # wrong
    await ctx.lock_entities(EntityInstanceId("counter", "a"))  # wrong
    await ctx.call_activity(charge, input=order, raises="CardDeclined")  # wrong
    await ctx.call_activity(charge, input=order, raises=(SystemExit,))  # wrong
    await ctx.wait_for_task(ctx.call_activity(charge, input=order))  # wrong


async def wrong_child(ctx: AsyncWorkflowContext, order: str) -> None:
    text: str = await ctx.call_sub_orchestrator(child, input=order)  # wrong
    await ctx.call_sub_orchestrator(child(ctx, order))  # wrong
    print(text)


async def no_such_name(ctx: AsyncWorkflowContext, order: str) -> None:
    await ctx.call_activty(charge)  # wrong


async def activity_of_the_wrong_kind(ctx: AsyncWorkflowContext, order: str) -> None:
    charge(ctx, order)  # wrong
    await charge_async(ctx, order)  # wrong


as_orchestrator(plain, sandbox_mode=5)  # wrong
as_orchestrator(child, name=5)  # wrong
as_orchestrator(5)  # wrong
raises(5)(charge)  # wrong

wrong: Operation[str] = Operation()  # wrong
