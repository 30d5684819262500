"""What the sandbox costs, as ratios to mode "off", on six kinds of step.

The same history is replayed through upstream's executor, without gRPC, in alternation between the modes and with the
garbage collector off; the best of many rounds counts, since noise only ever adds.  "off twice" is the noise itself: two
identical workflows in mode "off".  Also measured: registration, and unrelated code in another thread.

``python benchmarks/sandbox_overhead.py [--quick] [kind ...]``
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core_replay import one_after_another, replays
from durabletask.aio import NonDeterminismWarning, as_orchestrator

STEPS = 200
NEW = sys.version_info >= (3, 12)
LIMITS = {"best_effort": 1.05, "strict": 1.05 if NEW else 1.8}
DENSE_LIMITS = {"best_effort": 1.05, "strict": 1.5 if NEW else 6.5}
# The profile hook of 3.10 and 3.11 sees every call that the standard library makes on the workflow's behalf.
DENSE = {"callbacks", "compute"} if NEW else {"callbacks", "compute", "stdlib"}


@dataclass
class Order:
    number: int
    lines: list[int]

    def total(self) -> int:
        return sum(self.lines)


def scaled(value: int, factor: int) -> int:
    return value * factor % 1009


def checked(value: int) -> int:
    return scaled(value, 3) + 1 if value >= 0 else 0


OPERATIONS: dict[str, Callable[[int], int]] = {"checked": checked, "negated": lambda value: -value}

# The kinds are text, compiled once per mode: each mode needs functions of its own, since redirection edits them.
KINDS = {
    "bare": "        total += await ctx.call_activity('work', input=step)",
    "typical": """
        order = Order(step, [step, step + 1, total])
        total += await ctx.call_activity('work', input=order.number)
        if order.total() > 10 and str(total).isdigit():
            total = checked(total)""",
    "compute": """
        total += await ctx.call_activity('work', input=step)
        for index in range(30):
            total = checked(total) + scaled(index, 7)""",
    "loops": """
        total += await ctx.call_activity('work', input=step)
        for index in range(400):
            total = (total * 31 + index) % 1009""",
    "stdlib": """
        total += await ctx.call_activity('work', input=step)
        kept = copy.deepcopy({'step': step, 'parts': [1, 2, {'x': 3}]})
        total += len(json.dumps(kept))""",
    "callbacks": """
        total += await ctx.call_activity('work', input=step)
        local = checked
        for index in range(12):
            total = local(total) + OPERATIONS['checked'](index)""",
}


def workflow(kind: str, mode: str) -> Any:
    """A workflow of one kind in one mode, in a module of its own."""
    head = "async def workflow(ctx, size):\n    total = 0\n    for step in range(size):\n"
    names: dict[str, Any] = {"__name__": f"benchmark_{kind}_{mode}", "Order": Order, "copy": copy, "json": json}
    helpers = {
        name: type(checked)(function.__code__.replace(), names, name, function.__defaults__)
        for name, function in (("scaled", scaled), ("checked", checked))
    }
    names.update(helpers)
    names["OPERATIONS"] = {"checked": helpers["checked"]}
    exec(compile(f"{head}{KINDS[kind]}\n    return total\n", f"<{kind} {mode}>", "exec"), names)
    return names["workflow"]


def best_of(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The shortest time of each, taken in alternation."""
    best = [float("inf")] * len(functions)
    gc.disable()
    try:
        for _ in range(rounds):
            for index, function in enumerate(functions):
                # CPU time of this thread, so that whatever else the machine does counts for little.
                started = time.thread_time()
                function()
                best[index] = min(best[index], time.thread_time() - started)
            gc.collect()
    finally:
        gc.enable()
    return best


def ratios(kind: str, rounds: int) -> dict[str, float]:
    events = one_after_another(STEPS)
    modes = ("off", "off twice", "best_effort", "strict")
    runs: list[Callable[[], Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonDeterminismWarning)
        for mode in modes:
            orchestrator = as_orchestrator(workflow(kind, mode), sandbox_mode=mode.split()[0])
            runs.append(replays(orchestrator, events))
    for run in runs:
        run()
    times = best_of(runs, rounds)
    return {
        "us per step": times[0] / STEPS * 1e6,
        **{mode: each / times[0] for mode, each in zip(modes, times, strict=True)},
    }


def registration(rounds: int) -> float:
    """Milliseconds of CPU time to register a workflow of a module that was analysed before."""
    times: list[float] = []
    for index in range(rounds):
        function = workflow("typical", f"registered{index}")
        started = time.thread_time()
        as_orchestrator(function, sandbox_mode="strict")
        times.append((time.thread_time() - started) * 1e3)
    return min(times)


def elsewhere(rounds: int) -> float:
    """Code in another thread: its time beside a strict workflow over its time beside the same workflow unwatched."""
    times = {mode: beside(mode, rounds) for mode in ("off", "strict")}
    return times["strict"] / times["off"]


def beside(mode: str, rounds: int) -> float:
    run = replays(as_orchestrator(workflow("typical", f"beside {mode}"), sandbox_mode=mode), one_after_another(50))
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            run()

    worker = threading.Thread(target=loop)
    worker.start()
    # CPU time of this thread alone: the two threads share one interpreter lock.
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        total = 0
        for value in range(20_000):
            total += checked(value)
        best = min(best, time.thread_time() - started)
    stop.set()
    worker.join()
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for a look, not for a figure")
    options = parser.parse_args()
    rounds = 5 if options.quick else 40
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"Python {version}; ratios to mode off, best of {rounds}")
    print(f"{'kind':<12}{'us/step':>9}{'off twice':>11}{'best_effort':>13}{'strict':>8}")
    missed: list[str] = []
    for kind in options.kinds or KINDS:
        found = ratios(kind, rounds)
        print(
            f"{kind:<12}{found['us per step']:>9.1f}{found['off twice']:>11.2f}"
            f"{found['best_effort']:>13.2f}{found['strict']:>8.2f}"
        )
        limits = DENSE_LIMITS if kind in {"callbacks", "compute"} else LIMITS
        missed += [
            f"{kind} {mode}: {found[mode]:.2f} > {limit}" for mode, limit in limits.items() if found[mode] > limit
        ]
    print(f"registration: {registration(10):.1f} ms")
    print(f"unrelated code in another thread: {elsewhere(20 if options.quick else 100):.2f}")
    for each in missed:
        print("over the limit:", each)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
