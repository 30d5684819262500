"""A web application that holds its own durable engine: its lifespan runs the engine and a worker.

    pip install "durabletask-aio-core[engine,worker]" "durabletask-aio-engine[ui]" fastapi uvicorn
    uvicorn app:app --app-dir examples/web                # one process: the file belongs to it

The page of the engine is at http://localhost:8000/workflows/.

Kill the server whenever you like: orders that have been accepted continue when it starts again.  With several processes
(`uvicorn --workers 4`), run `durabletask-aio serve --db orders.db` as a process of its own, and connect to that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.engine import Engine
from durabletask.client import AsyncTaskHubGrpcClient
from durabletask.task import ActivityContext
from fastapi import Depends, FastAPI, HTTPException, Request

DATABASE = os.environ.get("ORDERS_DB", "orders.db")


async def charge(ctx: ActivityContext, amount: int) -> str:
    """Charge the customer; the instance's id is the idempotency key of a real payment service."""
    with open(DATABASE + ".charges", "a", encoding="utf-8") as ledger:  # noqa: ASYNC230 - a line
        ledger.write(f"{ctx.orchestration_id}\n")
    await asyncio.sleep(0.1)
    return f"receipt for {amount} euros"


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    """Charge, wait for the approval of a person for up to a day, ship."""
    receipt = await ctx.call_activity(charge, input=amount)
    ctx.set_custom_status("waiting for approval")
    async with asyncio.timeout(24 * 60 * 60):
        await ctx.wait_for_external_event("approved")
    await asyncio.sleep(1)  # a durable timer
    return f"shipped, {receipt}"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # `wait`, since a restarted server may begin before the old one has ended.
    async with Engine(DATABASE, wait=30) as engine, engine.worker() as worker:
        worker.add_orchestrator(order)
        worker.add_activity(charge)
        worker.start()
        app.state.client = engine.async_client()
        app.mount("/workflows", engine.page())
        yield


app = FastAPI(lifespan=lifespan)


def client_of(request: Request) -> AsyncTaskHubGrpcClient:
    client: AsyncTaskHubGrpcClient = request.app.state.client
    return client


Client = Annotated[AsyncTaskHubGrpcClient, Depends(client_of)]


@app.post("/orders/{order_id}", status_code=202)
async def create(order_id: str, amount: int, client: Client) -> dict[str, str]:
    """Accept an order: once this has answered, the order is on disk."""
    if await client.get_orchestration_state(order_id) is None:
        await client.schedule_new_orchestration(order, input=amount, instance_id=order_id)
    return {"id": order_id}


@app.post("/orders/{order_id}/approval", status_code=202)
async def approve(order_id: str, client: Client) -> dict[str, str]:
    """Approve an order, which waits for that."""
    await client.raise_orchestration_event(order_id, "approved")
    return {"id": order_id}


@app.get("/orders/{order_id}")
async def show(order_id: str, client: Client) -> dict[str, Any]:
    """Say how far an order is."""
    state = await client.get_orchestration_state(order_id)
    if state is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return {
        "id": order_id,
        "status": state.runtime_status.name,
        "custom": state.get_custom_status(),
        "result": state.get_output(),
    }
