"""I31: Objects with methods called now, uuid4, sleep and getenv."""

# expect: innocent

from durabletask.aio import AsyncWorkflowContext


class Simulation:
    def __init__(self):
        self.clock = 0

    def now(self):
        return self.clock

    def sleep(self, ticks):
        self.clock += ticks

    def uuid4(self):
        return f"sim-{self.clock}"

    def getenv(self, name):
        return {"REGION": "eu"}.get(name)


async def workflow(ctx: AsyncWorkflowContext, input):
    time = Simulation()
    time.sleep(5)
    return await ctx.call_activity("run", input=[time.now(), time.uuid4(), time.getenv("REGION")])
