"""B49: A thread computes, and the workflow joins it."""

# expect: bad: threads

import threading

from durabletask.aio import AsyncWorkflowContext


def crunch(items, into):
    into.append(sum(map(len, items)))


async def workflow(ctx: AsyncWorkflowContext, input):
    results = []
    thread = threading.Thread(target=crunch, args=(input["items"], results))
    thread.start()
    thread.join()
    return await ctx.call_activity("save", input=results)
