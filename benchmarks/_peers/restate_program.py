"""The workloads of the comparisons on Restate, as it comes: `python restate_program.py SERVER FOLDER`.

The server is a process of its own; this one holds the handlers, served by Hypercorn, and calls them by HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import hypercorn.asyncio
import restate
from peer_driver import STEPS_OF_MANY, Arrivals, check, obey

arrivals = Arrivals()
bench = restate.Service("bench")
waiting = restate.Workflow("waiting")


async def step(number: int) -> int:
    return number


@bench.handler()
async def chain(ctx: restate.Context, size: int) -> int:
    for number in range(size):
        await ctx.run_typed("step", step, number=number)
    return size


@bench.handler()
async def fan_out(ctx: restate.Context, size: int) -> int:
    steps = [ctx.run_typed("step", step, number=number) for number in range(size)]
    return len(await restate.gather(*steps))


@waiting.main()
async def run(ctx: restate.WorkflowContext, _: int) -> int:
    arrivals.arrived(ctx.key())
    return await ctx.promise("go", type_hint=int).value()


@waiting.handler()
async def go(ctx: restate.WorkflowSharedContext, value: int) -> None:
    await ctx.promise("go", type_hint=int).resolve(value)


class Ingress:
    """Calls handlers as a client does."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address
        self._keys = itertools.count()

    async def call(self, path: str, value: int) -> Any:
        async with self._session.post(f"{self._address}/{path}", json=value) as response:
            if response.status >= 300:
                raise AssertionError(f"{path}: {response.status} {await response.text()}")
            return await response.json(content_type=None)

    async def chain(self, size: int) -> None:
        check(await self.call("bench/chain", size), size)

    async def many(self, size: int) -> None:
        found = await asyncio.gather(*(self.call("bench/chain", STEPS_OF_MANY) for _ in range(size)))
        check(found, [STEPS_OF_MANY] * size)

    async def fan_out(self, size: int) -> None:
        check(await self.call("bench/fan_out", size), size)

    async def waits(self, size: int) -> None:
        arrivals.expect(size)
        keys = [next(self._keys) for _ in range(size)]
        results = asyncio.gather(*(self.call(f"waiting/{key}/run", 0) for key in keys))
        await arrivals.wait()
        await asyncio.gather(*(self.call(f"waiting/{key}/go", 1) for key in keys))
        check(await results, [1] * size)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def server(program: str, folder: str, ports: list[int]) -> Iterator[None]:
    fabric, ingress, admin = ports
    environment = {
        **os.environ,
        "RESTATE_BIND_IP": "127.0.0.1",
        "RESTATE_BIND_PORT": str(fabric),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RUST_LOG": "off",
    }
    command = [program, "--base-dir", folder, "--no-logo"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def until(session: aiohttp.ClientSession, method: str, address: str, **options: Any) -> None:
    """Repeat a request until it is answered."""
    for _ in range(600):
        try:
            async with session.request(method, address, **options) as response:
                if response.status < 300:
                    return
                problem = await response.text()
        except aiohttp.ClientConnectionError as error:
            problem = str(error)
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{address}: {problem}")


async def main() -> None:
    program, folder = sys.argv[1:]
    logging.disable(logging.WARNING)
    fabric, ingress, admin, handlers = free_ports(4)
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{handlers}"]
    stopped = asyncio.Event()
    app: Any = restate.app([bench, waiting])
    with server(program, folder, [fabric, ingress, admin]):
        serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stopped.wait))
        connector, no_limit = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=no_limit) as session:
            await until(session, "GET", f"http://127.0.0.1:{admin}/health")
            deployment = {"uri": f"http://127.0.0.1:{handlers}"}
            await until(session, "POST", f"http://127.0.0.1:{admin}/deployments", json=deployment)
            await until(session, "GET", f"http://127.0.0.1:{ingress}/restate/health")
            calls = Ingress(session, f"http://127.0.0.1:{ingress}")
            await obey({"chain": calls.chain, "many": calls.many, "fan-out": calls.fan_out, "waits": calls.waits})
        stopped.set()
        await serving


if __name__ == "__main__":
    asyncio.run(main())
