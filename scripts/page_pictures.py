"""Makes the pictures of the page in docs/assets: `python scripts/page_pictures.py`, in the environment of the tests.

Needs Chromium.  The fonts are those that the machine has for `system-ui` and `ui-monospace`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from durabletask import entities
from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.engine import Engine
from playwright.sync_api import sync_playwright

from durabletask_aio.engine.web.server import PageServer

ASSETS = Path(__file__).resolve().parent.parent / "docs" / "assets"
ITEMS = ("lamp", "desk", "chair", "shelf", "rug", "clock", "vase", "mirror")

NUMBERS = range(4711, 4739)
SHOWN = 4736

finished = threading.Event()


def price(ctx: object, item: str) -> dict[str, Any]:
    """Look a price up."""
    time.sleep(0.05 + 0.04 * (len(item) % 4))
    return {"item": item, "price": 12.5 * len(item)}


def reserve(ctx: object, order: dict[str, Any]) -> bool:
    """Reserve the items."""
    time.sleep(0.25)
    return True


def charge(ctx: object, order: dict[str, Any]) -> str:
    """Charge the card."""
    time.sleep(0.4)
    if order["card"] == "expired":
        raise ValueError("the card expired on 2026-10-31")
    return f"receipt-{order['number']}"


def pack(ctx: object, order: dict[str, Any]) -> str:
    """Pack the parcel, which takes as long as the pictures."""
    finished.wait(60)
    return "packed"


async def delivery(ctx: AsyncWorkflowContext, order: dict[str, Any]) -> str:
    """Wait for the carrier."""
    await asyncio.sleep(0.5)
    carrier: str = await ctx.wait_for_external_event("picked up")
    return carrier


async def order(ctx: AsyncWorkflowContext, order: dict[str, Any]) -> dict[str, Any]:
    """Sell something."""
    ctx.set_custom_status("pricing")
    prices = await asyncio.gather(*[ctx.call_activity(price, input=item) for item in order["items"]])
    await ctx.call_activity(reserve, input=order)
    ctx.set_custom_status("charging")
    receipt = await ctx.call_activity(charge, input=order)
    async with ctx.lock_entities([entities.EntityInstanceId("Stock", "berlin")]):
        await ctx.call_entity(entities.EntityInstanceId("Stock", "berlin"), "take", len(prices))
    if order.get("gift"):
        ctx.set_custom_status("waits for approval")
        await ctx.wait_for_external_event("approval")
    if order.get("slow"):
        ctx.set_custom_status("packing")
        await asyncio.gather(
            ctx.call_activity(pack, input=order),
            ctx.call_sub_orchestrator(delivery, input=order, instance_id=f"{ctx.instance_id}/delivery"),
            asyncio.sleep(3 * 86_400),
        )
    ctx.set_custom_status("done")
    return {"receipt": receipt, "total": sum(each["price"] for each in prices)}


class Stock(entities.DurableEntity):
    """What a warehouse has."""

    def take(self, count: int) -> int:
        """Take items out."""
        self.set_state(self.get_state(int, 500) - count)
        return int(self.get_state(int, 0))


def run(engine: Engine) -> None:
    """Start orders, and wait until they are where the pictures show them."""
    client = engine.client()
    for number in NUMBERS:
        given: dict[str, Any] = {"number": number, "items": ITEMS[: 2 + number % 5], "card": "visa"}
        if number % 9 == 4:
            given["card"] = "expired"
        elif number % 7 == 1:
            given["gift"] = True
        elif number == SHOWN:
            given.update(slow=True, items=ITEMS)
        tags = {"region": ("eu", "us")[number % 2]}
        client.schedule_new_orchestration("order", input=given, instance_id=f"order-{number}", tags=tags)
    end = time.monotonic() + 60
    while not all(_is_ready(client.get_orchestration_state(f"order-{number}")) for number in NUMBERS):
        if time.monotonic() > end:
            raise TimeoutError("the orders are not where they should be")
        time.sleep(0.1)
    client.suspend_orchestration("order-4719")
    client.terminate_orchestration("order-4726", output="cancelled by the customer")


def _is_ready(state: Any) -> bool:
    waits = ('"packing"', '"waits for approval"')
    return state.runtime_status.name != "RUNNING" or state.serialized_custom_status in waits


def main() -> None:
    """Make the pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with Engine() as engine, engine.worker() as worker:
        worker.add_orchestrator(order)
        worker.add_orchestrator(delivery)
        for activity in (price, reserve, charge, pack):
            worker.add_activity(activity)
        worker.add_entity(Stock)
        worker.start()
        run(engine)
        with PageServer(engine.channel) as server, sync_playwright() as playwright:
            arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
            for name, path, scheme in (
                ("page-list", f"?open=order-{SHOWN}", "light"),
                ("page-instance", f"instance?id=order-{SHOWN}", "dark"),
            ):
                page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 820}, locale="en-GB")  # type: ignore[arg-type]
                page.goto(server.url + path)
                page.wait_for_timeout(3000)
                page.screenshot(path=ASSETS / f"{name}.png")
            browser.close()
        finished.set()


if __name__ == "__main__":
    main()
