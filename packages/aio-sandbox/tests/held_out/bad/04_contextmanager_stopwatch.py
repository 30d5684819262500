"""B04: A contextmanager helper measures monotonic time."""

# expect: bad: clock

from contextlib import contextmanager
from time import monotonic

from durabletask.aio import AsyncWorkflowContext


@contextmanager
def stopwatch(into):
    begin = monotonic()
    try:
        yield
    finally:
        into["took"] = monotonic() - begin


async def workflow(ctx: AsyncWorkflowContext, input):
    report = {}
    with stopwatch(report):
        await ctx.call_activity("work", input=input["order"])
    return report
