"""B18: An enum's auto values are drawn at random on import."""

# expect: bad: random

import secrets
from enum import Enum, auto


class Channel(Enum):
    @staticmethod
    def _generate_next_value_(name, start, count, last_values):
        return f"{name.lower()}-{secrets.token_hex(4)}"

    MAIL = auto()
    SMS = auto()


async def workflow(ctx, input):
    return await ctx.call_activity("notify", input=Channel.MAIL.value)
