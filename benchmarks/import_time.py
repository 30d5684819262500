"""What `import durabletask.aio` adds to `import durabletask.worker`, which every user imports anyway.

Each sample is a fresh interpreter that imports upstream's worker, then `durabletask.aio`, and reports how long each
took: measured in one process, so that the load of the machine is in both.  The best of many samples counts, since noise
only ever adds.  The first registration of a workflow is shown too, for what is imported and read as late as that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

PROGRAM = """
import time
start = time.perf_counter()
import durabletask.worker
between = time.perf_counter()
import durabletask.aio
imported = time.perf_counter()
async def workflow(ctx): ...
durabletask.aio.as_orchestrator(workflow)
end = time.perf_counter()
print(between - start, imported - between, end - imported)
"""


LIMIT = 30.0
"""Milliseconds that we may add."""


def sample(bytecode: str) -> tuple[float, ...]:
    """Milliseconds for upstream's worker, for what we add, and for a first workflow, in a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    command = [sys.executable, "-c", PROGRAM]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return tuple(float(seconds) * 1000 for seconds in output.split())


def measure(samples: int) -> list[list[float]]:
    """For each of the three, its samples, the best first."""
    with tempfile.TemporaryDirectory(prefix="import-time") as bytecode:
        sample(bytecode)  # compiles, as installing does
        return [sorted(times) for times in zip(*(sample(bytecode) for _ in range(samples)), strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    arguments = parser.parse_args()
    upstream, ours, registration = measure(arguments.samples)
    for what, times in (
        ("import durabletask.worker", upstream),
        ("then import durabletask.aio", ours),
        ("then as_orchestrator(workflow)", registration),
    ):
        print(f"{what:<31}best {times[0]:6.1f} ms   median {statistics.median(times):6.1f} ms")
    print(f"the import of ours may take at most {LIMIT:.0f} ms")
    return 1 if ours[0] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
