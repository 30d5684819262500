"""The Quick Start in one process: engine, worker and client.

Run it with `python3 scripts/quickstart.py`, or in an environment that has `durabletask-aio-core[all]` installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import fields
from datetime import datetime
from typing import Any

from durabletask.aio import AsyncWorkflowContext, SandboxMode
from durabletask.aio.testing import local_backend
from durabletask.client import TaskHubGrpcClient
from durabletask.history import HistoryEvent
from durabletask.task import ActivityContext
from durabletask.worker import TaskHubGrpcWorker

COLOURS = sys.stdout.isatty()


# The workflow ------------------------------------------------------------------------------------------------


async def enhanced_workflow(ctx: AsyncWorkflowContext, input_data: Any) -> dict[str, Any]:
    # A time limit for a durable operation. The timer is durable, too.
    try:
        result = await ctx.with_timeout(ctx.call_activity("my_activity", input=input_data), 30.0)
    except TimeoutError:
        result = "Activity timed out"

    # Three activities run concurrently; the first result is used.
    tasks = [ctx.call_activity(f"task_{i}") for i in range(3)]
    completed_index, _ = await ctx.when_any_with_result(tasks)

    # Time, random numbers and identifiers that are the same on every replay.
    return {
        "result": result,
        "first_completed": completed_index,
        "timestamp": ctx.now().isoformat(),
        "random": ctx.random().random(),
        "id": str(ctx.uuid4()),
    }


# The activities: ordinary functions, which need not be deterministic -----------------------------------------


def my_activity(ctx: ActivityContext, name: str) -> str:
    return f"Hello, {name}!"


def task_0(ctx: ActivityContext, _: Any) -> str:
    return "zero"


def task_1(ctx: ActivityContext, _: Any) -> str:
    return "one"


def task_2(ctx: ActivityContext, _: Any) -> str:
    return "two"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the Quick Start on a local engine inside this process.")
    parser.add_argument("--port", type=int, default=4001, help="port of the engine (default: %(default)s)")
    parser.add_argument("--name", default="durable world", help="input of the workflow (default: %(default)s)")
    arguments = parser.parse_args()

    # Upstream logs every connection and every turn; keep the output to the result and the history.
    quiet = logging.getLogger("quick_start")
    quiet.setLevel(logging.ERROR)

    with (
        local_backend(port=arguments.port) as backend,
        TaskHubGrpcWorker(host_address=backend.address, logger=quiet) as worker,
        TaskHubGrpcClient(host_address=backend.address, logger=quiet) as client,
    ):
        worker.add_orchestrator(enhanced_workflow, sandbox_mode=SandboxMode.BEST_EFFORT)
        for activity in (my_activity, task_0, task_1, task_2):
            worker.add_activity(activity)
        worker.start()

        instance_id = client.schedule_new_orchestration(enhanced_workflow, input=arguments.name)
        state = client.wait_for_orchestration_completion(instance_id, timeout=60)
        if state is None:
            print("The workflow was not found.", file=sys.stderr)
            return 1
        history = client.get_orchestration_history(instance_id)

    print(f"{bold('enhanced_workflow')} on a local engine at {backend.address}")
    print(f"instance {instance_id}: {state.runtime_status.name.lower()}\n")
    state.raise_if_failed()
    print_result(json.loads(state.serialized_output or "null"))
    print_history(history)
    return 0


# Printing ----------------------------------------------------------------------------------------------------


def print_result(result: dict[str, Any]) -> None:
    print(bold("Result"))
    width = max(len(key) for key in result)
    for key, value in result.items():
        print(f"  {key:<{width}}  {value}")
    print()


def print_history(history: list[HistoryEvent]) -> None:
    print(bold("History") + faint("   (seconds since the start; on replay, a worker reads these events)"))
    started = min(event.timestamp for event in history)
    names: dict[int, str] = {}
    for event in history:
        name = getattr(event, "name", None)
        if isinstance(name, str):
            names[event.event_id] = name
        line = describe(event, names, started)
        if line:
            moment = (event.timestamp - started).total_seconds()
            print(f"  {faint(f'{moment:7.3f}')}  {line}")


def describe(event: HistoryEvent, names: dict[int, str], started: datetime) -> str:
    """Return one line for an event, or an empty string for the events that mark the start and end of a turn."""
    kind = type(event).__name__.removesuffix("Event")
    about = {field.name: getattr(event, field.name) for field in fields(event)}
    scheduled = names.get(about.get("task_scheduled_id", -1), "?")
    if kind == "ExecutionStarted":
        return f"workflow started      {bold(about['name'])}({about['input']})"
    if kind == "TaskScheduled":
        return f"activity scheduled    {about['name']}({about['input'] or ''})"
    if kind == "TaskCompleted":
        return f"activity completed    {scheduled} -> {about['result']}"
    if kind == "TaskFailed":
        return f"activity failed       {scheduled}: {about['failure_details'].message}"
    if kind == "TimerCreated":
        return f"timer created         fires after {(about['fire_at'] - started).total_seconds():.0f} s"
    if kind == "TimerFired":
        return "timer fired"
    if kind == "ExecutionCompleted":
        return bold("workflow completed")
    return "" if kind in ("OrchestratorStarted", "OrchestratorCompleted") else kind


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if COLOURS else text


def faint(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if COLOURS else text


if __name__ == "__main__":
    sys.exit(main())
