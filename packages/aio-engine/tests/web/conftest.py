"""An engine with a worker, and the page as a client of tests sees it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from durabletask_aio.engine.embedded import Engine

TIMEOUT = 30.0


@pytest.fixture(scope="session")
def gate() -> threading.Event:
    """Activities called `slow` wait until this is set."""
    return threading.Event()


@pytest.fixture(scope="session")
def engine(gate: threading.Event) -> Iterator[Engine]:
    """An engine in memory, with a worker in this process."""
    pytest.importorskip("durabletask_aio.worker", reason="the workflows need durabletask-aio-worker")
    with Engine() as engine, engine.worker() as worker:
        for orchestrator in _orchestrators():
            worker.add_orchestrator(orchestrator)
        for activity in _activities(gate):
            worker.add_activity(activity)
        worker.add_entity(_counter())
        worker.start()
        yield engine
        gate.set()


def _counter() -> Any:
    from durabletask import entities

    class Counter(entities.DurableEntity):
        def add(self, amount: int) -> int:
            self.set_state(self.get_state(int, 0) + amount)
            return self.get_state(int, 0)

        def text(self, value: str) -> None:
            self.set_state(value)

    return Counter


def _activities(gate: threading.Event) -> list[Callable[..., Any]]:
    def price(ctx: Any, item: str) -> dict[str, Any]:
        return {"item": item, "price": 12.5}

    def charge(ctx: Any, order: Any) -> str:
        if order == "bad":
            raise ValueError("the card <b>is declined</b>")
        return "paid"

    def slow(ctx: Any, value: Any) -> Any:
        gate.wait(TIMEOUT)
        return value

    return [price, charge, slow]


def _orchestrators() -> list[Callable[..., Any]]:
    async def order(ctx: Any, card: str) -> Any:
        ctx.set_custom_status("pricing")
        prices = await asyncio.gather(*[ctx.call_activity("price", input=f"item {i}") for i in range(8)])
        await ctx.sleep(0.01)
        return [await ctx.call_activity("charge", input=card), prices[0]]

    def weigh(item: str) -> int:
        if item == "feather":
            raise ValueError("it flies away")
        return len(item)

    async def steps(ctx: Any, _: None) -> Any:
        weight = await ctx.run(weigh, "lamp")
        with contextlib.suppress(Exception):
            await ctx.run(weigh, "feather", name="weigh again")
        ctx.patched("light")
        async for request in ctx.requests("approve"):
            request.answer("fine")
            break
        return weight

    async def waiter(ctx: Any, name: str | None) -> Any:
        return await ctx.wait_for_external_event(name or "go")

    async def parent(ctx: Any, count: int) -> Any:
        await asyncio.gather(
            *[
                ctx.call_sub_orchestrator("waiter", input="go", instance_id=f"{ctx.instance_id}/child-{number}")
                for number in range(count)
            ]
        )

    async def many(ctx: Any, _: None) -> None:
        await asyncio.gather(
            ctx.call_activity("slow", input=1),
            ctx.sleep(3600),
            ctx.call_sub_orchestrator("waiter", input="go", instance_id=f"{ctx.instance_id}/child"),
        )

    async def holder(ctx: Any, key: str) -> None:
        from durabletask import entities

        entity = entities.EntityInstanceId("Counter", key)
        async with ctx.lock_entities([entity]):
            await ctx.call_entity(entity, "add", 1)
            await ctx.wait_for_external_event("release")

    return [order, steps, waiter, parent, many, holder]


@pytest.fixture(scope="session")
def client(engine: Engine) -> Any:
    """Upstream's client."""
    return engine.client()


@pytest.fixture(scope="session")
def start(client: Any) -> Callable[..., str]:
    """Start an instance, and wait for a status where one is given."""

    def start(name: str, instance_id: str | None = None, *, status: str = "", **options: Any) -> str:
        started: str = client.schedule_new_orchestration(name, instance_id=instance_id, **options)
        if status:
            wait_for(lambda: client.get_orchestration_state(started).runtime_status.name == status)
        return started

    return start


def wait_for(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Return the first true value of a condition."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with contextlib.suppress(AttributeError):
            value = condition()
            if value:
                return value
        time.sleep(0.02)
    raise TimeoutError("the condition did not become true")


@pytest.fixture(scope="session", name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def page(engine: Engine) -> Iterator[Any]:
    """The page without a socket."""
    pytest.importorskip("jinja2", reason="the page needs the extra 'ui'")
    testclient = pytest.importorskip("starlette.testclient", reason="the page needs the extra 'ui'")
    from durabletask_aio.engine.web.app import create_app

    with testclient.TestClient(create_app(engine.channel), base_url="http://localhost") as page:
        yield page


@pytest.fixture
def act(page: Any) -> Callable[..., Any]:
    """Send an action as the page's forms do; returns the answer to the script."""

    def act(name: str, /, **fields: str) -> Any:
        fields = {"form_token": form_token(page), **fields}
        return page.post(f"/actions/{name}", data=fields, headers={"accept": "application/json"})

    return act


def form_token(page: Any, path: str = "/") -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.get(path).text)
    assert found
    return found[1]


@pytest.fixture
def support() -> SimpleNamespace:
    return SimpleNamespace(form_token=form_token)
