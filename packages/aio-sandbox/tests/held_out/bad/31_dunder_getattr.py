"""B31: Settings read the environment in __getattr__."""

# expect: bad: environment

import os


class Settings:
    def __getattr__(self, name):
        try:
            return os.environ[f"SHOP_{name.upper()}"]
        except KeyError:
            return "eu"


settings = Settings()


async def workflow(ctx, input):
    return await ctx.call_activity("route", input=settings.region)
