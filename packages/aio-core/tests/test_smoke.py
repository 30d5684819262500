"""The whole of the core in a few lines: a workflow that sequences, fans out, races, times out and waits."""

import asyncio

from durabletask.aio import AsyncWorkflowContext, as_orchestrator
from turns import Instance, replay


@as_orchestrator
async def tour(ctx: AsyncWorkflowContext, start: int):
    doubled = await ctx.call_activity("double", input=start)
    together = await asyncio.gather(*(ctx.call_activity("double", input=n) for n in range(3)))
    await asyncio.sleep(60)
    index, first = await ctx.when_any_with_result([ctx.call_activity("double", input=n) for n in (5, 6)])
    try:
        await ctx.with_timeout(ctx.wait_for_external_event("never"), 1.5)
    except TimeoutError:
        timed_out = True
    approved = await ctx.wait_for_external_event("approval")
    return [doubled, together, index, first, timed_out, approved, str(ctx.uuid4()), ctx.random().random()]


def test_a_workflow_with_a_bit_of_everything_completes_and_replays():
    instance = Instance(tour, 21).run({"double": lambda n: n * 2}, events=[(100, "approval", True)])
    assert instance.result[:6] == [42, [0, 2, 4], 0, 10, True, True]
    replay(instance)
