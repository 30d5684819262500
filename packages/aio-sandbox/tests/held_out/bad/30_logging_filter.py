"""B30: A logging filter takes the record's time, and the workflow uses it."""

# expect: bad: clock

import logging

log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(logging.NullHandler())


class LastSeen(logging.Filter):
    at = 0.0

    def filter(self, record):
        self.at = record.created
        return True


last = LastSeen()
log.addFilter(last)


async def workflow(ctx, input):
    log.info("charging %s", input["order"])
    return await ctx.call_activity("charge", input={"logged_at": last.at})
