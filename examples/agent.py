"""An agent that survives the death of its process: an activity calls its model, and its quick tools are steps."""

import asyncio
from time import gmtime
from typing import Any

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.engine import Engine
from durabletask.task import ActivityContext

DEGREES = {"Lisbon": 31, "Oslo": 12}
TOOLS: dict[str, Any] = {
    "find_cities": lambda text: [city for city in DEGREES if city in text],
    "warmest": lambda cities: max(cities, key=DEGREES.__getitem__),
    "hour": lambda: gmtime().tm_hour,
}


async def call_model(ctx: ActivityContext, messages: list[Any]) -> list[Any]:
    await asyncio.sleep(1)  # call your model here; this one follows a plan
    plan = [["find_cities", messages[0]], ["warmest", messages[-1]], ["hour"], ["answer", messages[2:]]]
    return plan[len(messages) - 1]


async def agent(ctx: AsyncWorkflowContext, question: str) -> Any:
    messages: list[Any] = [question]
    while True:
        tool, *arguments = await ctx.call_activity(call_model, input=messages)
        if tool == "answer":
            return arguments[0]
        messages.append(await ctx.run(TOOLS[tool], *arguments, name=tool))


async def main() -> None:
    async with Engine("agent.db") as engine, engine.worker() as worker:
        worker.add_orchestrators(agent)
        worker.add_activities(call_model)
        worker.start()
        client = engine.async_client()
        if await client.get_orchestration_state("trip") is None:
            await client.schedule_new_orchestration("agent", input="Oslo or Lisbon?", instance_id="trip")
        state = await client.wait_for_orchestration_completion("trip")
        print(state and state.get_output())


if __name__ == "__main__":
    asyncio.run(main())
