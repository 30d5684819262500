"""How long the tests of all packages may take: `DURABLETASK_AIO_TEST_LONG=1` asks for all that `.ci/long` runs.

Without it, long waits are shortened as far as they still show what they are for, and random programs are fewer.
"""

from __future__ import annotations

import os

LONG = os.environ.get("DURABLETASK_AIO_TEST_LONG", "0") not in ("", "0")
SEEDS_FACTOR = 10


def seeds(number: int) -> int:
    """Return how many random programs to run: `number`, or ten times as many in a long run."""
    return number * SEEDS_FACTOR if LONG else number


def wait(*, short: float, long: float) -> float:
    """Return the seconds that a test waits: `long` in a long run, otherwise `short`."""
    return long if LONG else short
