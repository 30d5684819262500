"""Saga: when a step fails, compensate the completed steps in reverse order."""

import asyncio
from collections.abc import Callable
from typing import Any

from durabletask.aio import ActivityFailedError, AsyncWorkflowContext
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.task import ActivityContext


def book_flight(ctx: ActivityContext, trip: str) -> str:
    return f"flight to {trip}"


def book_hotel(ctx: ActivityContext, trip: str) -> str:
    return f"hotel in {trip}"


def book_car(ctx: ActivityContext, trip: str) -> str:
    raise LookupError(f"no car in {trip}")


def cancel(ctx: ActivityContext, booking: str) -> None:
    print(f"cancelled {booking}")


STEPS: tuple[Callable[[ActivityContext, str], str], ...] = (book_flight, book_hotel, book_car)


async def journey(ctx: AsyncWorkflowContext, trip: str) -> list[str]:
    booked: list[str] = []
    try:
        for step in STEPS:
            booking = await ctx.call_activity(step, input=trip)
            booked.append(booking)
    except ActivityFailedError as error:
        while booked:
            await ctx.call_activity(cancel, input=booked.pop())
        ctx.set_custom_status(error.details.message)
    return booked


async def main() -> None:
    activities: list[Callable[..., Any]] = [*STEPS, cancel]
    async with WorkflowEnvironment(orchestrators=[journey], activities=activities) as env:
        handle = await env.start(journey, input="Oslo")
        print(await handle.result(), handle.custom_status)


if __name__ == "__main__":
    asyncio.run(main())
