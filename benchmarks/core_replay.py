"""What an async workflow costs compared with the generator orchestrator that does the same, as ratios.

Both sides of a ratio are replayed from the same history through upstream's executor, without gRPC, in alternation and
with the garbage collector off; the best of many rounds counts, since noise only ever adds.  Absolute times are shown
for orientation only.  Exits with 1 when a limit is passed.

`python benchmarks/core_replay.py [--quick] [case ...]`
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any

from durabletask import task
from durabletask.aio import AsyncWorkflowContext, as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.serialization import JsonDataConverter
from durabletask.worker import _OrchestrationExecutor, _Registry
from google.protobuf import timestamp_pb2, wrappers_pb2

from durabletask_aio.core.disposal import turn_scope

QUIET = logging.getLogger("benchmark")
QUIET.setLevel(logging.CRITICAL)
CONVERTER = JsonDataConverter()
START = datetime(2026, 1, 1, tzinfo=timezone.utc)

Execute = Callable[[], Any]


# -- histories --------------------------------------------------------------------------------------------------------


class History:
    """Events, each a millisecond after the one before."""

    def __init__(self) -> None:
        self.events: list[pb.HistoryEvent] = []

    def add(self, event_id: int = -1, **what: Any) -> None:
        stamp = timestamp_pb2.Timestamp()
        stamp.FromDatetime(START + timedelta(milliseconds=len(self.events)))
        self.events.append(pb.HistoryEvent(eventId=event_id, timestamp=stamp, **what))

    def start(self, size: int) -> None:
        self.turn()
        instance = pb.OrchestrationInstance(instanceId="benchmark")
        size_given = wrappers_pb2.StringValue(value=str(size))
        self.add(
            executionStarted=pb.ExecutionStartedEvent(name="workflow", orchestrationInstance=instance, input=size_given)
        )

    def turn(self) -> None:
        self.add(orchestratorStarted=pb.OrchestratorStartedEvent())

    def scheduled(self, step: int) -> None:
        self.add(step, taskScheduled=pb.TaskScheduledEvent(name="work"))

    def completed(self, step: int) -> None:
        result = wrappers_pb2.StringValue(value="1")
        self.add(taskCompleted=pb.TaskCompletedEvent(taskScheduledId=step, result=result))


def one_after_another(size: int) -> list[pb.HistoryEvent]:
    history = History()
    history.start(size)
    for step in range(1, size + 1):
        history.scheduled(step)
        history.turn()
        history.completed(step)
    return history.events


def all_at_once(size: int) -> list[pb.HistoryEvent]:
    history = History()
    history.start(size)
    for step in range(1, size + 1):
        history.scheduled(step)
    history.turn()
    for step in range(1, size + 1):
        history.completed(step)
    return history.events


def executor(orchestrator: Any) -> _OrchestrationExecutor:
    registry = _Registry()
    registry.add_named_orchestrator("workflow", orchestrator)
    return _OrchestrationExecutor(registry, QUIET, CONVERTER)


def replays(orchestrator: Any, events: list[pb.HistoryEvent]) -> Execute:
    """A function that replays the whole history, and checks that the orchestrator comes to its end."""

    def execute() -> None:
        with turn_scope():
            result = executor(orchestrator).execute("benchmark", events[:-1], events[-1:])
        last = result.actions[-1].completeOrchestration
        assert last.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED, last.failureDetails.errorMessage

    return execute


# -- what is compared -------------------------------------------------------------------------------------------------


def sequence_generator(ctx: task.OrchestrationContext, size: int) -> Generator[task.Task[Any], Any, int]:
    total = 0
    for _ in range(size):
        total += yield ctx.call_activity("work", input=1)
    return total


@as_orchestrator
async def sequence(ctx: AsyncWorkflowContext, size: int) -> int:
    total = 0
    for _ in range(size):
        total += await ctx.call_activity("work", input=1)
    return total


def when_all_generator(ctx: task.OrchestrationContext, size: int) -> Generator[task.Task[Any], Any, int]:
    results: list[int] = yield task.when_all([ctx.call_activity("work", input=1) for _ in range(size)])
    return sum(results)


@as_orchestrator
async def when_all(ctx: AsyncWorkflowContext, size: int) -> int:
    return sum(await ctx.when_all([ctx.call_activity("work", input=1) for _ in range(size)]))


@as_orchestrator
async def gather(ctx: AsyncWorkflowContext, size: int) -> int:
    return sum(await ctx.gather(*[ctx.call_activity("work", input=1) for _ in range(size)]))


@as_orchestrator
async def asyncio_gather(ctx: AsyncWorkflowContext, size: int) -> int:
    return sum(await asyncio.gather(*[ctx.call_activity("work", input=1) for _ in range(size)]))


async def helper(ctx: AsyncWorkflowContext) -> int:
    return await ctx.call_activity("work", input=1)


@as_orchestrator
async def gathered_helpers(ctx: AsyncWorkflowContext, size: int) -> int:
    return sum(await asyncio.gather(*[helper(ctx) for _ in range(size)]))


@as_orchestrator
async def task_group(ctx: AsyncWorkflowContext, size: int) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(helper(ctx)) for _ in range(size)]
    return sum(task.result() for task in tasks)


# -- time -------------------------------------------------------------------------------------------------------------


def best_times(executions: dict[str, Execute], rounds: int) -> dict[str, float]:
    """The best time of each, in seconds of this thread; they take turns, so that a busy machine is busy for all."""
    best = dict.fromkeys(executions, float("inf"))
    for _ in range(rounds):
        for name, execute in executions.items():
            gc.collect()
            gc.disable()
            try:
                begin = time.thread_time()
                execute()
                best[name] = min(best[name], time.thread_time() - begin)
            finally:
                gc.enable()
    return best


NEWER = sys.version_info >= (3, 12)
LIMITS = {
    "sequence": 1.18 if NEWER else 1.25,
    "ctx.when_all": 1.12,
    "ctx.gather": 1.15,
    "asyncio.gather": 1.25,
    "TaskGroup": 1.70,
}
"""How many times the generator's time each may take."""


class Report:
    def __init__(self) -> None:
        self.failures: list[str] = []

    def line(self, what: str, value: str, limit: str = "", *, passed: bool = True) -> None:
        verdict = "" if not limit else f"   limit {limit}{'' if passed else '   <-- over'}"
        print(f"  {what:<46}{value:>14}{verdict}", flush=True)
        if not passed:
            self.failures.append(what)

    def ratio(self, name: str, size: int, measured: float, base: float) -> None:
        limit = LIMITS.get(name)
        ratio = measured / base
        shown = f"{ratio:.3f}x {measured / size * 1e6:6.1f} us"
        self.line(
            f"{name}, {size:,}", shown, "" if limit is None else f"{limit:.2f}x", passed=limit is None or ratio <= limit
        )


def run_sequence(report: Report, rounds: int) -> None:
    size = 500
    events = one_after_another(size)
    best = best_times(
        {"generator": replays(sequence_generator, events), "sequence": replays(sequence, events)}, rounds * 4
    )
    report.line(f"upstream's generator, {size:,} in sequence", f"{best['generator'] / size * 1e6:.1f} us")
    report.ratio("sequence", size, best["sequence"], best["generator"])


def run_fan_out(report: Report, rounds: int) -> None:
    per_activity: dict[str, list[float]] = {}
    for size, times in ((1_000, rounds), (10_000, max(3, rounds // 2))):
        events = all_at_once(size)
        shapes = {
            "upstream's when_all": when_all_generator,
            "ctx.when_all": when_all,
            "ctx.gather": gather,
            "asyncio.gather": asyncio_gather,
            "gather of helpers": gathered_helpers,
        }
        if hasattr(asyncio, "TaskGroup"):
            shapes["TaskGroup"] = task_group
        best = best_times({name: replays(shape, events) for name, shape in shapes.items()}, times)
        base = best["upstream's when_all"]
        report.line(f"upstream's when_all, {size:,}", f"{base / size * 1e6:.1f} us")
        for name, measured in best.items():
            per_activity.setdefault(name, []).append(measured / size / (base / size))
            if name != "upstream's when_all":
                report.ratio(name, size, measured, base)
    for name, (small, large) in per_activity.items():
        growth = large / small
        report.line(f"{name}: 10,000 beside 1,000, ratio of ratios", f"{growth:.2f}", "1.25", passed=growth <= 1.25)


# -- tasks among many live instances ----------------------------------------------------------------------------------


def run_create_task(report: Report, rounds: int) -> None:
    """Up to Python 3.13 all tasks of the process are in one weak set: unsalted hashes would make it a list."""
    tasks = 200
    taken: list[float] = []

    @as_orchestrator
    async def creates(ctx: AsyncWorkflowContext, size: int) -> int:
        async def nothing() -> None:
            await asyncio.sleep(0)

        begin = time.thread_time()
        created = [asyncio.create_task(nothing()) for _ in range(tasks)]
        taken.append((time.thread_time() - begin) / tasks)
        for each in created:
            await each
        return size

    @as_orchestrator
    async def waits(ctx: AsyncWorkflowContext, size: int) -> None:
        async def wait() -> None:
            await ctx.wait_for_external_event("never")

        await asyncio.gather(*(wait() for _ in range(4)))

    def measure() -> float:
        best = float("inf")
        for _ in range(rounds * 2):
            gc.collect()
            gc.disable()
            live_history = History()
            live_history.start(1)
            with turn_scope():
                executor(creates).execute("creator", [], live_history.events)
            gc.enable()
            best = min(best, taken.pop())
        return best

    alone = measure()
    history = History()
    history.start(1)
    with ExitStack() as stack:
        keep = []
        for number in range(2_000):
            scope = turn_scope()
            with scope:
                running = executor(waits)
                running.execute(f"live-{number}", [], history.events)
                scope.keep()
            keep.append((running, scope))
            for run in scope.runs:
                stack.callback(run.dispose)
        crowded = measure()
    report.line("create_task alone", f"{alone * 1e6:.2f} us")
    growth = crowded / alone
    report.line(
        "create_task beside 2,000 instances, 10,000 tasks",
        f"{growth:.2f}x {crowded * 1e6:5.2f} us",
        "1.50x",
        passed=growth <= 1.5,
    )


# -- memory -----------------------------------------------------------------------------------------------------------


def run_memory(report: Report, rounds: int) -> None:
    @as_orchestrator
    async def suspended(ctx: AsyncWorkflowContext, size: int) -> None:
        await ctx.call_activity("work", input=1)

    def suspended_generator(ctx: task.OrchestrationContext, size: int) -> Generator[task.Task[Any], Any, None]:
        yield ctx.call_activity("work", input=1)

    per_instance = _bytes_per_instance(suspended) / 1024
    generator = _bytes_per_instance(suspended_generator) / 1024
    report.line("KiB per suspended generator", f"{generator:.1f}")
    report.line("KiB per suspended async instance", f"{per_instance:.1f}", "12.0", passed=per_instance <= 12)
    upstream, ours = _bytes_per_operation()
    report.line("bytes per operation, upstream's part", f"{upstream:,.0f}")
    report.line("bytes per operation, ours on top", f"{ours:,.0f}", "480", passed=ours <= 480)


def _bytes_per_instance(orchestrator: Any, count: int = 300) -> float:
    history = History()
    history.start(1)

    def start(number: int) -> tuple[Any, Any]:
        running = executor(orchestrator)
        scope = turn_scope()
        contexts: list[Any] = []
        original = running.process_event

        def process_event(ctx: Any, event: Any) -> None:
            contexts.append(ctx)
            original(ctx, event)

        running.process_event = process_event  # type: ignore[method-assign]
        with scope:
            running.execute(f"suspended-{number}", [], history.events)
            scope.keep()
        context = contexts[0]
        return context, scope

    warm = [start(-number) for number in range(1, 20)]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [start(number) for number in range(count)]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    for _, scope in (*warm, *kept):
        for run in scope.runs:
            run.dispose()
    return grown / count


def _bytes_per_operation(count: int = 2_000) -> tuple[float, float]:
    measured: dict[str, float] = {}

    def growth(schedule: Callable[[], Any]) -> float:
        schedule()
        before = tracemalloc.get_traced_memory()[0]
        kept = [schedule() for _ in range(count)]
        grown = tracemalloc.get_traced_memory()[0] - before
        del kept
        return grown / count

    @as_orchestrator
    async def operations(ctx: AsyncWorkflowContext, size: int) -> None:
        upstream = ctx.upstream_context
        measured["upstream"] = growth(lambda: upstream.call_activity("work", input=1))
        measured["ours"] = growth(lambda: ctx.call_activity("work", input=1))

    history = History()
    history.start(1)
    tracemalloc.start()
    try:
        with turn_scope():
            executor(operations).execute("operations", [], history.events)
    finally:
        tracemalloc.stop()
    return measured["upstream"], measured["ours"] - measured["upstream"]


CASES: dict[str, Callable[[Report, int], None]] = {
    "sequence": run_sequence,
    "fan-out": run_fan_out,
    "create-task": run_create_task,
    "memory": run_memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"any of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to judge by")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    report = Report()
    print(f"Python {sys.version.split()[0]}")
    for name in arguments.cases or CASES:
        print(f"{name}:")
        CASES[name](report, 3 if arguments.quick else arguments.rounds)
    if report.failures and not arguments.quick:
        print(f"Over the limit: {', '.join(report.failures)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
