"""The workflows of `workflows.py` on Microsoft's SDK and the local engine: `python on_engine.py`."""

from __future__ import annotations

import asyncio

import workflows
from durabletask.aio.testing import WorkflowEnvironment


async def run(orders: list[list[str]]) -> list[object]:
    """Run orders, and return what became of them."""
    results: list[object] = []
    async with WorkflowEnvironment(
        orchestrators=[workflows.order, workflows.ship], activities=[workflows.charge, workflows.pack]
    ) as environment:
        for items in orders:
            handle = await environment.start(workflows.order, input=items)
            await handle.raise_event("approved", "Ada")
            results.append(await handle.result())
    return results


if __name__ == "__main__":
    print(asyncio.run(run([["book", "pen"], []])))
