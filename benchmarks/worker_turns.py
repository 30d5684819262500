"""A long chain of activities (or a wide fan-out), end to end: upstream's worker with generators, and this project's.

    python benchmarks/worker_turns.py            # both: about five minutes on two quiet cores
    python benchmarks/worker_turns.py chain      # 50 and 1,000 steps, best of five
    python benchmarks/worker_turns.py fan-out    # 1,000 wide, best of five
    python benchmarks/worker_turns.py chain --steps 50 1000 3000 --against OTHER/bin/python

The last one compares with this project's worker in another environment, such as one of an earlier commit.  With
`--engine upstream` the engine is upstream's in-memory one, which sends the whole history with each turn to either; the
project's own sends its worker only what is new to a live instance.

The engine runs in a process of its own, each worker in another, and the two kinds of worker take turns, so that what
else the machine does hits both alike.  The best round of each counts.  Printed are milliseconds per step: of wall time
as the client sees it, of CPU time of the worker's process (its client included), of CPU time inside
`_execute_orchestrator`, and of CPU time of the engine.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

QUIET = logging.CRITICAL


@contextmanager
def engine_of(name: str) -> Iterator[tuple[Any, str]]:
    """An engine that can be reset, and its address."""
    if name == "own":
        from durabletask_aio.testing.local import local_backend

        with local_backend() as backend:
            yield backend, backend.address
        return
    from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    in_memory = InMemoryOrchestrationBackend(port=port)
    in_memory.start()
    try:
        yield in_memory, f"127.0.0.1:{port}"
    finally:
        in_memory.stop()


def serve_engine(connection: Connection, name: str) -> None:
    with engine_of(name) as (backend, address):
        connection.send(address)
        while connection.recv() == "reset":
            backend.reset()
            connection.send(time.process_time())


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


WORKFLOWS: dict[str, dict[str, Any]] = {
    "chain": {"upstream": generator_chain, "ours": async_chain},
    "fan-out": {"upstream": generator_fan_out, "ours": async_fan_out},
}


def measure(connection: Connection | Printer, kind: str, shape: str, steps: int, address: str) -> None:
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
    stats = getattr(worker, "extended_session_stats", None)
    before = 0 if stats is None else stats.hits
    cpu, wall = time.process_time(), time.perf_counter()
    instance_id = client.schedule_new_orchestration(workflow.__name__, input=steps)
    state = client.wait_for_orchestration_completion(instance_id, timeout=3600)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert state is not None
    assert state.serialized_output == str(steps), state
    client.close()
    worker.stop()
    result = {"wall": wall, "cpu": cpu, "turns": inside[0], "hits": 0, "misses": 0}
    if stats is not None:
        result |= {"hits": stats.hits - before, "misses": sum(stats.misses.values())}
    connection.send(result)


def in_process(context: Any, target: Any, *arguments: Any) -> tuple[Any, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()  # or a process that dies would leave us waiting forever
    return process, ours


class Printer:
    """The end of a connection that is another process's standard output."""

    def send(self, result: dict[str, float]) -> None:
        print(json.dumps(result))


def measure_elsewhere(python: str, shape: str, steps: int, address: str) -> dict[str, float]:
    """Measure this project's worker in the environment of another interpreter."""
    code = f"import worker_turns as w; w.measure(w.Printer(), 'ours', {shape!r}, {steps}, {address!r})"
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    done = subprocess.run([python, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def one_round(context: Any, control: Connection, kind: str, shape: str, steps: int, address: str) -> dict[str, float]:
    """One instance on a fresh worker and an empty engine."""
    control.send("reset")
    engine_before = control.recv()
    if kind in WORKFLOWS[shape]:
        process, connection = in_process(context, measure, kind, shape, steps, address)
        try:
            result: dict[str, float] = connection.recv()
        except EOFError:
            process.join()
            raise SystemExit(f"the worker's process ended with {process.exitcode}; what it said is above") from None
        process.join()
    else:
        result = measure_elsewhere(kind, shape, steps, address)
    control.send("reset")
    result["engine"] = control.recv() - engine_before
    return result


COLUMNS = {"wall": "wall", "cpu": "worker cpu", "turns": "in turns", "engine": "engine cpu"}
Rounds = dict[tuple[int, str], list[dict[str, float]]]


def best(rounds: Rounds, steps: int, kind: str, column: str) -> float:
    """Milliseconds per step in the best round."""
    return min(result[column] for result in rounds[steps, kind]) / steps * 1000


def report(shape: str, rounds: Rounds, count: int, other: str) -> None:
    print(f"\n{shape}, best of {count}, ms per step")
    print(f"{'steps':>6} {'':>10}" + "".join(f" {title:>11}" for title in COLUMNS.values()) + "   median wall")
    sizes = sorted({steps for steps, _ in rounds})
    for steps in sizes:
        for kind in (other, "ours"):
            figures = "".join(f" {best(rounds, steps, kind, column):11.2f}" for column in COLUMNS)
            median = statistics.median(result["wall"] for result in rounds[steps, kind]) / steps * 1000
            shown = "other" if kind == other != "upstream" else kind
            print(f"{steps:>6} {shown:>10}{figures}   {median:11.2f}")
        ratios = {key: best(rounds, steps, other, key) / best(rounds, steps, "ours", key) for key in COLUMNS}
        print(f"{steps:>6} {'ratio':>10}" + "".join(f" {ratio:10.2f}x" for ratio in ratios.values()))
    print()
    for steps in sizes:
        ratios = {key: best(rounds, steps, other, key) / best(rounds, steps, "ours", key) for key in COLUMNS}
        print(
            f"{shape} of {steps}: ours is {ratios['wall']:.2f} times as fast, takes {ratios['cpu']:.2f} times less CPU "
            f"in the worker's process, and {ratios['turns']:.2f} times less in _execute_orchestrator"
        )
        kept = rounds[steps, "ours"]
        turns = sum(result["hits"] + result["misses"] for result in kept)
        print(f"{shape} of {steps}: {sum(result['hits'] for result in kept):.0f} of {turns:.0f} turns from sessions")
    if len(sizes) > 1:
        for kind in (other, "ours"):
            growth = (
                f"{best(rounds, sizes[-1], kind, key) / best(rounds, sizes[0], kind, key):.2f} times the {title}"
                for key, title in COLUMNS.items()
            )
            print(f"{shape}, {kind}: a step of {sizes[-1]} takes {', '.join(growth)} of a step of {sizes[0]}")


DEFAULT_STEPS = {"chain": [50, 1000], "fan-out": [1000]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(WORKFLOWS), nargs="?", help="by default one after the other")
    parser.add_argument("--steps", type=int, nargs="+", help="50 and 1,000 for the chain, 1,000 for the fan-out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="PYTHON", help="the interpreter of another environment, for upstream")
    parser.add_argument("--engine", choices=("own", "upstream"), default="own")
    parser.add_argument("--json", action="store_true", help="print every round as JSON as well")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    engine, control = in_process(context, serve_engine, options.engine)
    address = control.recv()
    other = options.against or "upstream"
    started = time.monotonic()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {load()} before", flush=True)
    for shape in [options.shape] if options.shape else DEFAULT_STEPS:
        rounds: Rounds = {}
        for steps in options.steps or DEFAULT_STEPS[shape]:
            for number in range(options.rounds):
                for kind in (other, "ours"):
                    result = one_round(context, control, kind, shape, steps, address)
                    rounds.setdefault((steps, kind), []).append(result)
                    wall = result["wall"] / steps * 1000
                    print(f"  {shape} {steps}, round {number + 1}, {kind}: {wall:.2f} ms", file=sys.stderr, flush=True)
        report(shape, rounds, options.rounds, other)
        if options.json:
            print(json.dumps({f"{shape} {steps} {kind}": results for (steps, kind), results in rounds.items()}))
    control.send("stop")
    engine.join()
    print(f"\ntook {time.monotonic() - started:.0f} s, load {load()} after")


def load() -> str:
    """The load of the last minute: the figures mean little if it is not low before."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    main()
