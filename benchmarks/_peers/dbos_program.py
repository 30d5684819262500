"""The workloads of the comparisons on DBOS, with SQLite as it comes: `python dbos_program.py FILE`."""

from __future__ import annotations

import asyncio
import sys

from dbos import DBOS
from peer_driver import STEPS_OF_MANY, Arrivals, check, obey

arrivals = Arrivals()


@DBOS.step()
async def step(number: int) -> int:
    return number


@DBOS.workflow()
async def chain(size: int) -> int:
    for number in range(size):
        await step(number)
    return size


@DBOS.workflow()
async def fan_out(size: int) -> int:
    return len(await asyncio.gather(*(step(number) for number in range(size))))


@DBOS.workflow()
async def wait() -> int:
    assert DBOS.workflow_id is not None
    arrivals.arrived(DBOS.workflow_id)
    return await DBOS.recv_async("go", timeout_seconds=600)


async def run_chain(size: int) -> None:
    check(await chain(size), size)


async def run_many(size: int) -> None:
    handles = await asyncio.gather(*(DBOS.start_workflow_async(chain, STEPS_OF_MANY) for _ in range(size)))
    found = await asyncio.gather(*(handle.get_result() for handle in handles))
    check(found, [STEPS_OF_MANY] * size)


async def run_fan_out(size: int) -> None:
    check(await fan_out(size), size)


async def run_waits(size: int) -> None:
    arrivals.expect(size)
    handles = await asyncio.gather(*(DBOS.start_workflow_async(wait) for _ in range(size)))
    await arrivals.wait()
    await asyncio.gather(*(DBOS.send_async(handle.get_workflow_id(), 1, "go") for handle in handles))
    check(await asyncio.gather(*(handle.get_result() for handle in handles)), [1] * size)


async def main() -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{sys.argv[1]}",
            "log_level": "ERROR",
            "enable_otlp": False,
        }
    )
    DBOS.launch()
    await obey({"chain": run_chain, "many": run_many, "fan-out": run_fan_out, "waits": run_waits})
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
