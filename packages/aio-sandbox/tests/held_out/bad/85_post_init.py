"""B85: A dataclass fills a field in __post_init__."""

# expect: bad: clock

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass
class Lease:
    holder: str
    until: datetime = None

    def __post_init__(self):
        if self.until is None:
            self.until = datetime.now() + timedelta(minutes=5)


async def workflow(ctx, input):
    lease = Lease(input["order"])
    return await ctx.call_activity("renew", input=lease.until.isoformat())
