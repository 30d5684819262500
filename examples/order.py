"""An order that survives the death of its process.

Run it with `python3 scripts/quickstart.py`, or in an environment that has `durabletask-aio-core[all]` installed:

    python examples/order.py --demo     # kills its own process in the middle, starts again, shows what happened
    python examples/order.py            # runs the order, or continues it
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.engine import Engine
from durabletask.client import OrchestrationStatus
from durabletask.task import ActivityContext

ORDER_ID = "order-1"
FOLDER = Path()
DIES_WHILE_SHIPPING = False


# The workflow ------------------------------------------------------------------------------------------------


async def order(ctx: AsyncWorkflowContext, amount: int) -> str:
    receipt = await ctx.call_activity(charge, input=amount)
    await asyncio.sleep(1)  # a durable timer
    return await ctx.call_activity(ship, input=receipt)


# The activities: ordinary functions, with effects on the world -----------------------------------------------


def charge(ctx: ActivityContext, amount: int) -> str:
    say(f"charging {amount} euros")
    with (FOLDER / "charges.txt").open("a") as ledger:
        ledger.write(f"{amount} euros\n")
    return f"receipt for {amount} euros"


def ship(ctx: ActivityContext, receipt: str) -> str:
    say("shipping")
    if DIES_WHILE_SHIPPING:
        say("killed with SIGKILL")
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return f"shipped, {receipt}"


# One process: engine, worker and client ----------------------------------------------------------------------


async def run() -> str | None:
    quiet = logging.getLogger("order")  # upstream logs every connection and every turn
    quiet.setLevel(logging.CRITICAL)
    async with Engine(FOLDER / "orders.db") as engine, engine.worker(logger=quiet) as worker:
        worker.add_orchestrator(order)
        worker.add_activity(charge)
        worker.add_activity(ship)
        client = engine.async_client(logger=quiet)
        if await client.get_orchestration_state(ORDER_ID) is None:
            say(f"starting {ORDER_ID}")
            await client.schedule_new_orchestration(order, input=5, instance_id=ORDER_ID)
        else:
            say(f"continuing {ORDER_ID}")
        worker.start()
        state = await client.wait_for_orchestration_completion(ORDER_ID, timeout=60)
        if state is None or state.runtime_status is not OrchestrationStatus.COMPLETED:
            return None
        output: str = state.get_output()
        return output


def say(text: str) -> None:
    print(f"process {os.getpid()}: {text}", flush=True)


def demo() -> int:
    """Run the order in a process that is killed, and in another one that continues."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--folder", folder]
        first = subprocess.run([*command, "--die-while-shipping"], check=False)
        print(f"(the process has ended with {first.returncode}; its engine, worker and client are gone)\n", flush=True)
        second = subprocess.run(command, check=False)
        charges = (Path(folder) / "charges.txt").read_text().splitlines()
    print(f"\n{len(charges)} charge in {time.monotonic() - started:.1f} seconds, two processes, one file.")
    return second.returncode or int(len(charges) != 1)


def main() -> int:
    global DIES_WHILE_SHIPPING, FOLDER
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="kill the process in the middle, and start it again")
    parser.add_argument("--die-while-shipping", action="store_true", help="kill this process when it ships")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files are (default: here)")
    arguments = parser.parse_args()
    if arguments.demo:
        return demo()
    FOLDER, DIES_WHILE_SHIPPING = arguments.folder, arguments.die_while_shipping
    output = asyncio.run(run())
    say(f"{ORDER_ID} is completed: {output}" if output else f"{ORDER_ID} has failed")
    return 0 if output else 1


if __name__ == "__main__":
    sys.exit(main())
