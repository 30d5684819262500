"""Chains of activities and a wide fan-out on a Dapr sidecar: Dapr's own runtime with generators, and this project's.

    python benchmarks/dapr_turns.py                   # about three minutes on two quiet cores
    python benchmarks/dapr_turns.py chain --steps 300 --rounds 5

Needs `durabletask-aio-dapr` and the sidecar of its tests: `python packages/aio-dapr/tests/support/dapr_binary.py`.

The sidecar with its state in SQLite, the worker and the client run in processes of their own.  The two kinds of worker
take turns, so that what else the machine does hits both alike.  The activities do nothing, and each round begins with
instances that are not measured.  The best round of each counts.  Printed are milliseconds per step: of wall time as the
client sees it, of CPU time of the worker's process, and of CPU time inside `_execute_orchestrator`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).resolve().parent.parent / "packages" / "aio-dapr" / "tests" / "support"
KINDS = ("generators", "async")
DEFAULT_STEPS = {"chain": [300, 1000], "fan_out": [200]}
COLUMNS = {"wall": "wall", "cpu": "worker cpu", "turns": "in turns"}

Rounds = dict[tuple[str, int, str], list[dict[str, float]]]


# -- the worker's process ---------------------------------------------------------------------------------------------


def plain(ctx: Any, value: int) -> int:
    return value


def generator_workflows() -> tuple[Any, list[Any]]:
    from dapr.ext.workflow import WorkflowRuntime, when_all

    def chain(ctx: Any, steps: int) -> Any:
        for index in range(steps):
            yield ctx.call_activity(plain, input=index)
        return steps

    def fan_out(ctx: Any, width: int) -> Any:
        results = yield when_all([ctx.call_activity(plain, input=index) for index in range(width)])
        return len(results)

    return WorkflowRuntime(), [chain, fan_out]


def async_workflows() -> tuple[Any, list[Any]]:
    from durabletask_aio.dapr import WorkflowContext, WorkflowRuntime

    async def chain(ctx: WorkflowContext, steps: int) -> int:
        for index in range(steps):
            await ctx.call_activity(plain, input=index)
        return steps

    async def fan_out(ctx: WorkflowContext, width: int) -> int:
        return len(await ctx.gather(*[ctx.call_activity(plain, input=index) for index in range(width)]))

    return WorkflowRuntime(), [chain, fan_out]


def work(kind: str) -> None:
    """Work at the sidecar that the environment names; answer each line with what was used since the one before."""
    runtime, workflows = async_workflows() if kind == "async" else generator_workflows()
    runtime.register_activity(plain)
    for workflow in workflows:
        runtime.register_workflow(workflow)
    worker = runtime._WorkflowRuntime__worker
    execute, turns, cpu = worker._execute_orchestrator, 0.0, 0.0

    def timed(*arguments: Any) -> None:
        nonlocal turns
        begin = time.thread_time()
        try:
            execute(*arguments)
        finally:
            turns += time.thread_time() - begin

    worker._execute_orchestrator = timed
    runtime.start()
    for _ in sys.stdin:
        print(json.dumps({"cpu": time.process_time() - cpu, "turns": turns}), flush=True)
        cpu, turns = time.process_time(), 0.0
    runtime.shutdown()


# -- the client -------------------------------------------------------------------------------------------------------


def run_instance(client: Any, workflow: str, steps: int) -> float:
    """Run one instance, and return its seconds."""
    begin = time.perf_counter()
    instance_id = client.schedule_new_workflow(workflow, input=steps)
    state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=3600)
    seconds = time.perf_counter() - begin
    assert state is not None
    assert state.serialized_output == str(steps), state
    client.purge_workflow(instance_id)
    return seconds


def one_round(kind: str, cluster: Any, client: Any, sizes: dict[str, list[int]], rounds: Rounds) -> None:
    """Measure each size once on a fresh worker."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", kind],
        env={**os.environ, **cluster.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def used() -> dict[str, float]:
        print(file=process.stdin, flush=True)
        answer: dict[str, float] = json.loads(process.stdout.readline())
        return answer

    used()
    for workflow in DEFAULT_STEPS:
        run_instance(client, workflow, 20)
    for workflow, several in sizes.items():
        for steps in several:
            used()
            wall = run_instance(client, workflow, steps)
            rounds.setdefault((workflow, steps, kind), []).append({"wall": wall, **used()})
            print(f"  {workflow} {steps}, {kind}: {wall / steps * 1000:.2f} ms", file=sys.stderr, flush=True)
    process.communicate()


def best(rounds: Rounds, workflow: str, steps: int, kind: str, column: str) -> float:
    """Milliseconds per step in the best round."""
    return min(result[column] for result in rounds[workflow, steps, kind]) / steps * 1000


def report(rounds: Rounds, sizes: dict[str, list[int]]) -> None:
    print(f"\n{'ms per step':>12} {'':>12}" + "".join(f" {title:>11}" for title in COLUMNS.values()) + "   median wall")
    for workflow, several in sizes.items():
        for steps in several:
            name = f"{workflow} {steps}"
            for kind in KINDS:
                figures = "".join(f" {best(rounds, workflow, steps, kind, column):11.2f}" for column in COLUMNS)
                median = statistics.median(each["wall"] for each in rounds[workflow, steps, kind]) / steps * 1000
                print(f"{name:>12} {kind:>12}{figures}   {median:11.2f}")
            ratios = [
                best(rounds, workflow, steps, "async", column) / best(rounds, workflow, steps, "generators", column)
                for column in COLUMNS
            ]
            print(f"{name:>12} {'ratio':>12}" + "".join(f" {ratio:11.2f}" for ratio in ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", choices=sorted(DEFAULT_STEPS), nargs="?", help="by default one after the other")
    parser.add_argument("--steps", type=int, nargs="+", help="300 and 1,000 for the chain, 200 for the fan-out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return

    sys.path.insert(0, str(SUPPORT))
    import dapr_binary
    from dapr.ext.workflow import DaprWorkflowClient
    from dapr_cluster import Cluster

    sizes = {options.workflow: options.steps or DEFAULT_STEPS[options.workflow]} if options.workflow else DEFAULT_STEPS
    rounds: Rounds = {}
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f} before", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), dapr_binary.build(), options.store)
        with cluster.running():
            client = DaprWorkflowClient(host="127.0.0.1", port=str(cluster.grpc_port()))
            for _ in range(options.rounds):
                for kind in KINDS:
                    one_round(kind, cluster, client, sizes, rounds)
            client.close()
    report(rounds, sizes)


if __name__ == "__main__":
    main()
