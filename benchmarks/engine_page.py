"""How long the page takes to list instances of a database that has 100,000 of them.

    python benchmarks/engine_page.py [INSTANCES]

Measured is an HTTP request on a socket, answered by `PageServer` on an engine in the same process, over the channel of
that engine: the median and the slowest of 20 requests for each query.  Exits with 1 if a median is over LIMIT.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.state import Parent, StartInstance
from durabletask_aio.engine.web.server import PageServer

LIMIT = 0.2
ROUNDS = 20
GROUP = 1000
"""Instances that are stored in one transaction."""

QUERIES: dict[str, dict[str, str]] = {
    "first page": {},
    "roots and children": {"children": "all"},
    "oldest first": {"order": "oldest"},
    "status: terminated": {"status": "terminated"},
    "status: failed (there is none)": {"status": "failed"},
    "name": {"name": "workflow-3"},
    "id prefix": {"prefix": "order-0099"},
    "search: many have it": {"q": "77"},
    "search: none has it": {"q": "no such text"},
    "tag": {"tag": "region=eu"},
    "created in the last hour": {"created": "1h"},
    "updated in the last hour": {"updated": "1h"},
}


def fill(engine: Engine, count: int) -> None:
    """Store instances of ten orchestrators: of ten of them nine are roots, and one of twenty is terminated."""

    def store(first: int, transaction: Transaction) -> None:
        for number in range(first, min(first + GROUP, count)):
            parent = None if number % 10 else Parent(f"order-{max(number - 5, 1):06}", "execution", 0)
            transaction.start_instance(
                StartInstance(
                    f"order-{number:06}",
                    f"workflow-{number % 10}",
                    input='{"total": 5}',
                    tags={"region": "eu" if number % 100 == 1 else "us"},
                    parent=parent,
                )
            )
            if number % 20 == 1:
                transaction.terminate_now(f"order-{number:06}", "cancelled")

    for first in range(0, count, GROUP):
        engine.kernel.execute(lambda transaction, first=first: store(first, transaction))  # type: ignore[misc]


def seconds(url: str) -> list[float]:
    """Return how long each of several requests takes."""
    result = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with urllib.request.urlopen(url) as response:
            response.read()
        result.append(time.perf_counter() - started)
    return result


def main() -> int:
    """Store, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=int, nargs="?", default=100_000)
    count: int = parser.parse_args().instances
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, Engine(Path(folder) / "engine.db", durability="os") as engine:
        started = time.perf_counter()
        fill(engine, count)
        print(f"{count} instances stored in {time.perf_counter() - started:.1f} s")
        print(f"{'query':40} {'median ms':>10} {'slowest ms':>10}")
        with PageServer(engine.channel) as page:
            urllib.request.urlopen(page.url).close()
            for name, query in QUERIES.items():
                times = seconds(f"{page.url}?{urlencode(query)}")
                median = statistics.median(times)
                slowest = max(slowest, median)
                print(f"{name:40} {median * 1000:10.1f} {max(times) * 1000:10.1f}")
            times = seconds(f"{page.url}engine")
            print(f"{'the page of the engine':40} {statistics.median(times) * 1000:10.1f} {max(times) * 1000:10.1f}")
    return 1 if slowest > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
