"""What the sandbox costs, as ratios to mode "off", on six kinds of step, with the limits it must keep.

The same history is replayed through upstream's executor, without gRPC, in turns between the modes and with the garbage
collector off; the best of many rounds counts, since noise only ever adds.  That is done in several processes, one after
another, and the median of their ratios is what is printed.  "off twice" is the noise itself: two identical workflows in
mode "off"; if it is far from 1.00, the machine was too busy to say anything.  Also measured: unrelated code in another
thread during a strict workflow, and registration; what the first one of a process brings in any mode is over by then,
and shown by `import_time.py`.

`python benchmarks/sandbox_overhead.py [--quick] [kind ...]`; the exit status is 1 if a limit was missed.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import importlib
import json
import operator
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from core_replay import one_after_another, replays
from durabletask.aio import NonDeterminismWarning, as_orchestrator

STEPS = 200
NEW = sys.version_info >= (3, 12)
BEST_EFFORT = 1.05
# The profile hook of 3.10 and 3.11 sees every call that the workflow makes, and those of the standard library on its
# behalf: its limit is for steps as workflows have them, and the kinds that do little but call are measured only.
STRICT = (
    {"bare": 1.05, "typical": 1.05, "compute": 1.05, "loops": 1.05, "stdlib": 1.05, "callbacks": 1.5}
    if NEW
    else {"bare": 1.8, "typical": 1.8, "loops": 1.8}
)
NOISE = 0.05
REGISTRATION = 10.0
"""Milliseconds."""
ELSEWHERE = 1.02
PROCESSES = 5


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
        name: FunctionType(function.__code__.replace(), names, name, function.__defaults__)
        for name, function in (("scaled", scaled), ("checked", checked))
    }
    names.update(helpers)
    names["OPERATIONS"] = {"checked": helpers["checked"]}
    exec(compile(f"{head}{KINDS[kind]}\n    return total\n", f"<{kind} {mode}>", "exec"), names)
    return names["workflow"]


def best_of(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The shortest time of each, taken in turns; who goes first changes, since going first costs something."""
    best = [float("inf")] * len(functions)
    indexes = list(range(len(functions)))
    gc.disable()
    try:
        for _ in range(rounds):
            for index in indexes:
                # CPU time of this thread, so that whatever else the machine does counts for little.
                started = time.thread_time()
                functions[index]()
                best[index] = min(best[index], time.thread_time() - started)
            gc.collect()
            indexes.append(indexes.pop(0))
    finally:
        gc.enable()
    return best


def ratios(kind: str, rounds: int) -> dict[str, float]:
    events = one_after_another(STEPS)
    runs: list[Callable[[], Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonDeterminismWarning)
        for mode in ("off", "off twice", "best_effort", "strict"):
            orchestrator = as_orchestrator(workflow(kind, mode), sandbox_mode=mode.split()[0])
            runs.append(replays(orchestrator, events))
    for run in runs:
        run()
    off, again, best_effort, strict = best_of(runs, rounds)
    return {
        "us per step": off / STEPS * 1e6,
        "off twice": again / off,
        # Two measurements of the same thing: their mean is the better denominator.
        "best_effort": best_effort / ((off + again) / 2),
        "strict": strict / ((off + again) / 2),
    }


def registration(rounds: int) -> dict[str, float]:
    """Milliseconds of CPU time: to import the sandbox, to register the first workflow, and to register one after it."""
    functions = [workflow("typical", f"registered{index}") for index in range(rounds)]
    times = [timed(lambda: importlib.import_module("durabletask_aio.sandbox.runtime.sandbox"))]
    times += [timed(functools.partial(as_orchestrator, each, sandbox_mode="strict")) for each in functions]
    return {"import": times[0], "first": times[1], "next": min(times[2:])}


def timed(run: Callable[[], Any]) -> float:
    started = time.thread_time()
    run()
    return (time.thread_time() - started) * 1e3


def elsewhere(rounds: int) -> float:
    """Code in another thread: its time during a strict workflow divided by its time during an unwatched one."""
    best = {"off": float("inf"), "strict": float("inf")}
    events = one_after_another(50)
    runs = {
        mode: replays(as_orchestrator(workflow("typical", f"beside {mode}"), sandbox_mode=mode), events)
        for mode in best
    }
    # In turns, so that both meet the same machine.
    for _ in range(4):
        for mode, run in runs.items():
            best[mode] = min(best[mode], beside(run, rounds // 4))
    return best["strict"] / best["off"]


def beside(run: Callable[[], Any], rounds: int) -> float:
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


def measure(kinds: list[str], rounds: int) -> dict[str, Any]:
    """Everything, in this process."""
    # Registration comes first, while the sandbox is not imported yet.
    return {
        "registration": registration(10),
        "kinds": {kind: ratios(kind, rounds) for kind in kinds},
        "elsewhere": elsewhere(5 * rounds),
    }


def in_processes(kinds: list[str], rounds: int, processes: int) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, *kinds, "--rounds", str(rounds), "--json"]
    return [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(processes)
    ]


def report(kinds: list[str], found: list[dict[str, Any]]) -> list[str]:
    """Print the medians; what misses its limit is returned."""
    missed: list[str] = []

    def middle(*path: str) -> float:
        values: list[Any] = [functools.reduce(operator.getitem, path, each) for each in found]
        return float(statistics.median(values))

    def judged(label: str, value: float, limit: float | None) -> str:
        if limit is not None and round(value, 2) > limit:
            missed.append(f"{label}: {value:.2f} > {limit}")
        return f"{value:.2f}" + ("" if limit is None else f" ({limit})")

    print(f"{'kind':<12}{'us/step':>9}{'off twice':>11}{'best_effort':>16}{'strict':>16}    (limit)")
    for kind in kinds:
        row = {name: middle("kinds", kind, name) for name in found[0]["kinds"][kind]}
        if abs(row["off twice"] - 1) > NOISE:
            missed.append(f"{kind} off twice: {row['off twice']:.2f}, so the machine is too noisy to measure on")
        best_effort = judged(f"{kind} best_effort", row["best_effort"], BEST_EFFORT)
        strict = judged(f"{kind} strict", row["strict"], STRICT.get(kind))
        print(f"{kind:<12}{row['us per step']:>9.1f}{row['off twice']:>11.2f}{best_effort:>16}{strict:>16}")
    first = judged("first registration", middle("registration", "first"), REGISTRATION)
    following = judged("registration", middle("registration", "next"), REGISTRATION)
    print(f"registration: {first} ms for the first workflow, {following} ms for one after it")
    print(f"import of the sandbox, once in a process: {middle('registration', 'import'):.0f} ms")
    print(f"unrelated code in another thread: {judged('code in another thread', middle('elsewhere'), ELSEWHERE)}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="one process, few rounds: for a look, not for a figure")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="measure in this process, and print what was found")
    options = parser.parse_args()
    kinds: list[str] = options.kinds or list(KINDS)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"there is no kind {unknown[0]!r}; there are: {', '.join(KINDS)}")
    if options.json:
        print(json.dumps(measure(kinds, options.rounds)))
        return 0
    rounds, processes = (5, 1) if options.quick else (options.rounds, PROCESSES)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}; ratios to mode off: median of {processes} processes, in each the best of {rounds}")
    started = time.monotonic()
    missed = report(kinds, in_processes(kinds, rounds, processes))
    print(f"measured in {time.monotonic() - started:.0f} s")
    for each in missed:
        print("over the limit:", each)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
