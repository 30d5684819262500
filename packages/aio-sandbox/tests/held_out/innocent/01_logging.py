"""I01: A module logger, with extra fields and the level asked for."""

# expect: innocent

import logging

log = logging.getLogger(__name__)


async def workflow(ctx, input):
    log.info("order %s", input["order"], extra={"amount": input["amount"]})
    if log.isEnabledFor(logging.DEBUG):
        log.debug("details: %r", input)
    return await ctx.call_activity("charge", input=input["amount"])
