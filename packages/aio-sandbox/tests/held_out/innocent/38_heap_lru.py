"""I38: heapq, deque, OrderedDict and bisect."""

# expect: innocent

import bisect
import heapq
from collections import Counter, OrderedDict, deque

from durabletask.aio import AsyncWorkflowContext


async def workflow(ctx: AsyncWorkflowContext, input):
    heap = [(len(item), item) for item in input["items"]]
    heapq.heapify(heap)
    recent = deque(maxlen=2)
    seen = OrderedDict()
    while heap:
        size, item = heapq.heappop(heap)
        recent.append(await ctx.call_activity("load", input=item))
        seen[item] = size
    slot = bisect.bisect([1, 4, 9], 5)
    return [list(recent), list(seen), slot, Counter("banana").most_common(1)]
