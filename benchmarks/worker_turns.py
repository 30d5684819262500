"""A long chain of activities (or a wide fan-out), end to end: upstream's generator worker beside ours.

    python benchmarks/worker_turns.py chain --steps 50 1000 --rounds 5
    python benchmarks/worker_turns.py fan-out --steps 1000 --rounds 3

The engine runs in a process of its own, each worker in another, and the two kinds of worker take turns, so that what
else the machine does hits both alike.  The best round of each counts.  Printed are milliseconds per step: of wall time
as the client sees it, of CPU time of the worker's process, and of CPU time inside ``_execute_orchestrator``.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

QUIET = logging.CRITICAL


def serve_engine(connection: Connection) -> None:
    from durabletask_aio.testing.local import local_backend

    with local_backend() as backend:
        connection.send(backend.address)
        while connection.recv() == "reset":
            backend.reset()
            connection.send("done")


def plain(ctx: Any, value: int) -> int:
    return value


def generator_chain(ctx: Any, count: int) -> Any:
    for index in range(count):
        yield ctx.call_activity("plain", input=index)
    return count


async def async_chain(ctx: Any, count: int) -> Any:
    for index in range(count):
        await ctx.call_activity("plain", input=index)
    return count


def generator_fan_out(ctx: Any, count: int) -> Any:
    from durabletask import task

    results = yield task.when_all([ctx.call_activity("plain", input=index) for index in range(count)])
    return len(results)


async def async_fan_out(ctx: Any, count: int) -> Any:
    results = await ctx.when_all([ctx.call_activity("plain", input=index) for index in range(count)])
    return len(results)


WORKFLOWS = {
    "chain": {"upstream": generator_chain, "ours": async_chain},
    "fan-out": {"upstream": generator_fan_out, "ours": async_fan_out},
}


def measure(connection: Connection, kind: str, shape: str, steps: int, address: str) -> None:
    """In the worker's process: run one instance and send what it cost."""
    from durabletask.client import TaskHubGrpcClient
    from durabletask.worker import TaskHubGrpcWorker as Upstream

    logger = logging.Logger("quiet", level=QUIET)  # noqa: LOG001 - not to be found by name
    if kind == "ours":
        from durabletask_aio.worker.worker import TaskHubGrpcWorker

        worker: Any = TaskHubGrpcWorker(host_address=address, logger=logger)
    else:
        worker = Upstream(host_address=address, logger=logger)
    workflow = WORKFLOWS[shape][kind]
    worker.add_orchestrator(workflow)
    worker.add_activity(plain)
    turn, inside = worker._execute_orchestrator, [0.0]

    def timed(*arguments: Any) -> None:
        begin = time.thread_time()
        try:
            turn(*arguments)
        finally:
            inside[0] += time.thread_time() - begin

    worker._execute_orchestrator = timed
    worker.start()
    client = TaskHubGrpcClient(host_address=address, logger=logger)
    warm = client.schedule_new_orchestration(workflow.__name__, input=3)
    client.wait_for_orchestration_completion(warm, timeout=600)
    inside[0] = 0.0
    cpu, wall = time.process_time(), time.perf_counter()
    instance_id = client.schedule_new_orchestration(workflow.__name__, input=steps)
    state = client.wait_for_orchestration_completion(instance_id, timeout=3600)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert state is not None
    assert state.serialized_output == str(steps), state
    client.close()
    worker.stop()
    connection.send({"wall": wall, "cpu": cpu, "turns": inside[0]})


def in_process(context: Any, target: Any, *arguments: Any) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    return process, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(WORKFLOWS))
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print every round as JSON as well")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    engine, control = in_process(context, serve_engine)
    address = control.recv()
    rounds: dict[tuple[int, str], list[dict[str, float]]] = {}
    try:
        for steps in options.steps:
            for _ in range(options.rounds):
                for kind in ("upstream", "ours"):
                    control.send("reset")
                    control.recv()
                    process, connection = in_process(context, measure, kind, options.shape, steps, address)
                    rounds.setdefault((steps, kind), []).append(connection.recv())
                    process.join()
    finally:
        control.send("stop")
        engine.join()
    print(f"{options.shape}, best of {options.rounds}, ms per step, {os.cpu_count()} CPUs")
    print(f"{'steps':>6} {'':>10} {'wall':>8} {'cpu':>8} {'in turns':>9}   median wall")
    for (steps, kind), results in rounds.items():
        best = {key: min(result[key] for result in results) / steps * 1000 for key in ("wall", "cpu", "turns")}
        median = statistics.median(result["wall"] for result in results) / steps * 1000
        print(f"{steps:>6} {kind:>10} {best['wall']:8.2f} {best['cpu']:8.2f} {best['turns']:9.2f}   {median:.2f}")
        if kind == "ours":
            theirs = rounds[steps, "upstream"]
            ratios = {
                key: min(result[key] for result in theirs) / min(result[key] for result in results)
                for key in ("wall", "cpu", "turns")
            }
            print(f"{steps:>6} {'ratio':>10} {ratios['wall']:8.2f} {ratios['cpu']:8.2f} {ratios['turns']:9.2f}")
    if options.json:
        print(json.dumps({f"{steps} {kind}": results for (steps, kind), results in rounds.items()}))


if __name__ == "__main__":
    main()
