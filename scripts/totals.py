"""Add up pytest's summary lines from a log: `totals.py < log` prints `N passed, N failed, ...`.

Before it, the tests that failed and passed when they were run once more: each is a test, or a product, to be fixed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable

SUMMARY = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s")
RERUN = re.compile(r"^RERUN (.+?)(?: - .*)?$")
KINDS = {"error": "errors", "warning": "warnings", "rerun": "run twice"}


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[\d*(?:;\d+)*m", "", line)


def totals(lines: Iterable[str]) -> Counter[str]:
    found: Counter[str] = Counter(passed=0, failed=0)
    for line in lines:
        if match := SUMMARY.match(_plain(line)):
            for number, kind in re.findall(r"(\d+) ([a-z]+)", match[1]):
                found[KINDS.get(kind, kind)] += int(number)
    return found


def run_twice(lines: Iterable[str]) -> list[str]:
    """Return the names of the tests that were run once more, each once."""
    return sorted({match[1] for line in lines if (match := RERUN.match(_plain(line.rstrip())))})


if __name__ == "__main__":
    log = list(sys.stdin)
    for name in run_twice(log):
        print(f"Failed once: {name}")
    counted = totals(log)
    del counted["deselected"]  # in one run what another run is for
    print(", ".join(f"{number} {kind}" for kind, number in counted.items()))
