"""An engine that has stored many instances: how fast it starts, finds and lists, and how much memory it takes.

    python benchmarks/engine_stored.py [INSTANCES]     # 100,000 by default, half of them completed

The instances are made through the engine's own transactions, without workers.  The engine is then started in a new
process.  Exits with 1 beyond one of the limits below.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from durabletask.internal import orchestrator_service_pb2 as pb

from durabletask_aio.engine import tokens
from durabletask_aio.engine.clock import SystemClock
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import StartInstance
from durabletask_aio.engine.streams import WorkerStream

START_UP = 5.0
"""Seconds until the engine has started."""

PAGE = 0.2
"""Seconds until a page of a hundred instances is there."""

MEMORY = 64.0
"""Megabytes by which the process may grow: SQLite's page cache and the engine's own are bounded."""

AT_ONCE = 1000

SEARCHES: dict[str, dict[str, Any]] = {
    "newest": {},
    "oldest": {"newest_first": False},
    "completed": {"statuses": [1]},
    "by name": {"names": ["order"]},
    "by prefix": {"id_prefix": "order-00009"},
    "by part of the id": {"id_contains": "9999"},
    "by tag": {"tags": {"tenant": "t3"}},
}


def fill(path: Path, count: int) -> None:
    """Store instances: those with an odd number have ended, the others wait for an event."""
    kernel = Kernel(SqliteStore(path, "os"), SystemClock())
    stream = WorkerStream()
    kernel.open_stream(stream)
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))

        def start(transaction: Any, numbers: range = numbers) -> None:
            for number in numbers:
                tags = {"tenant": f"t{number % 10}"}
                transaction.start_instance(StartInstance(f"order-{number:08}", "order", input="{}", tags=tags))

        kernel.execute(start)
        works: list[Any] = [stream.outbox.get() for _ in numbers]

        def complete(transaction: Any, works: list[Any] = works) -> None:
            for work in works:
                token = tokens.parse(work.token)
                assert isinstance(token, tokens.TurnToken)
                transaction.complete_turn(token, answer(token.instance_id))
                transaction.finished = token.lease

        kernel.execute(complete)
    kernel.stop()


def answer(instance_id: str) -> pb.OrchestratorResponse:
    """Return what a worker would say to the first turn."""
    response = pb.OrchestratorResponse()
    if int(instance_id[-1]) % 2:
        action = response.actions.add(id=1)
        action.completeOrchestration.orchestrationStatus = pb.ORCHESTRATION_STATUS_COMPLETED
        action.completeOrchestration.result.value = '"done"'
    return response


def look(path: str) -> None:
    """Start the engine on the file, in a process of its own, and print what was measured as JSON."""
    import psutil
    from durabletask.aio.engine import Engine

    from durabletask_aio.engine.management.management_pb2 import SearchInstancesRequest

    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    with Engine(path) as engine:
        found: dict[str, float] = {"start-up": time.perf_counter() - began}
        client = engine.management()
        for name, wanted in SEARCHES.items():
            request = SearchInstancesRequest(**{"newest_first": True, "page_size": 100, **wanted})
            began = time.perf_counter()
            assert client.search_page(request).instances
            found[name] = time.perf_counter() - began
        began = time.perf_counter()
        client.statistics()
        found["statistics"] = time.perf_counter() - began
        found["memory"] = (psutil.Process().memory_info().rss - before) / 1e6
    print(json.dumps(found))


def main() -> int:
    """Fill a file, look at it in a new process, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", nargs="?", type=int, default=100_000)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        look(options.look)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stored.db")
        fill(path, options.instances)
        size = path.stat().st_size
        command = [sys.executable, __file__, "--look", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{options.instances:,} instances stored, {size / options.instances:.0f} bytes of the file each")
    memory = found.pop("memory")
    failed = memory > MEMORY
    print(f"  {'memory':18} {memory:8.1f} MB  ({memory * 1e6 / options.instances:.0f} bytes an instance)")
    for name, seconds in found.items():
        limit = START_UP if name == "start-up" else PAGE
        failed |= seconds > limit
        print(f"  {name:18} {seconds * 1000:8.1f} ms{'  over the limit' if seconds > limit else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
