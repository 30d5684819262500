"""What the programs of the comparisons `engine_peers.py` and `steps_peers.py` have in common.

Commands come on standard input, answers go to standard output.  A command is a line of JSON:
`{"workload": "chain", "size": 500, "repeat": 1}`.  The answer is a line of JSON with the times, in seconds since 1970,
at which the workload began and ended.  The program ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Workload = Callable[[int], Awaitable[Any]]
"""Runs a workload of a size; returns once all of its instances have ended."""

STEPS_OF_MANY = 4
"""Steps of each instance of the workload `many`."""


class Arrivals:
    """Tells when so many instances have begun to wait for their event."""

    def __init__(self) -> None:
        self._instances: set[str] = set()
        self._wanted = 0
        self._all_there = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def expect(self, count: int) -> None:
        """Begin to count, up to a number."""
        self._instances.clear()
        self._wanted = count
        self._all_there.clear()
        self._loop = asyncio.get_running_loop()

    def arrived(self, instance_id: str) -> None:
        """Count an instance, once; called from any thread, also by the replay of a workflow."""
        self._instances.add(instance_id)
        if len(self._instances) == self._wanted:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._all_there.set)

    async def wait(self) -> None:
        """Return once all have arrived."""
        await self._all_there.wait()


async def obey(workloads: Mapping[str, Workload]) -> None:
    """Run what is asked for, until standard input ends; each workload once in a small size before."""
    for workload in workloads.values():
        await workload(3)
    _answer({})
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        workload = workloads[command["workload"]]
        begin = time.time()
        for _ in range(command["repeat"]):
            await workload(command["size"])
        _answer({"begin": begin, "end": time.time()})


def _answer(document: dict[str, float]) -> None:
    print(json.dumps(document), flush=True)


def check(found: object, expected: object) -> None:
    """Refuse a wrong result: a benchmark of what does not work says nothing."""
    if found != expected:
        raise AssertionError(f"the workload returned {found!r} and not {expected!r}")
