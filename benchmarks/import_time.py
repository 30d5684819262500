"""What ``import durabletask.aio`` adds to ``import durabletask.worker``, which every user imports anyway.

Each sample is a fresh interpreter that imports upstream's worker, then ours, and reports how long the second
import took: both measured side by side in one process, so that the machine's mood is in both.  The best of many
samples counts, since noise only ever adds.
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
end = time.perf_counter()
print(between - start, end - between)
"""


LIMIT = 30.0
"""Milliseconds that we may add."""


def sample(bytecode: str) -> tuple[float, float]:
    """Milliseconds for upstream's worker and for what we add, in a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    command = [sys.executable, "-c", PROGRAM]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    upstream, ours = output.split()
    return float(upstream) * 1000, float(ours) * 1000


def measure(samples: int) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory(prefix="import-time") as bytecode:
        sample(bytecode)  # compiles, as installing does
        upstream, ours = zip(*(sample(bytecode) for _ in range(samples)), strict=True)
    return sorted(upstream), sorted(ours)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    arguments = parser.parse_args()
    upstream, ours = measure(arguments.samples)
    print(f"import durabletask.worker      best {upstream[0]:6.1f} ms   median {statistics.median(upstream):6.1f} ms")
    print(f"then import durabletask.aio    best {ours[0]:6.1f} ms   median {statistics.median(ours):6.1f} ms")
    print(f"allowed                        {LIMIT:11.1f} ms")
    return 1 if ours[0] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
