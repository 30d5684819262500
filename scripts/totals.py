"""Add up pytest's summary lines from a log: `totals.py < log` prints `N passed, N failed, ...`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable

SUMMARY = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s")
KINDS = {"error": "errors", "warning": "warnings"}


def totals(lines: Iterable[str]) -> Counter[str]:
    found: Counter[str] = Counter(passed=0, failed=0)
    for line in lines:
        if match := SUMMARY.match(re.sub(r"\x1b\[\d*(?:;\d+)*m", "", line)):
            for number, kind in re.findall(r"(\d+) ([a-z]+)", match[1]):
                found[KINDS.get(kind, kind)] += int(number)
    return found


if __name__ == "__main__":
    counted = totals(sys.stdin)
    del counted["deselected"]  # in one run what another run is for
    print(", ".join(f"{number} {kind}" for kind, number in counted.items()))
