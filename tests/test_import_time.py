"""What `import durabletask.aio` adds to the import of upstream's worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
def test_importing_adds_at_most_thirty_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of many fresh interpreters: noise only adds, so one undisturbed sample is the truth."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import import_time

    benchmark: Any = import_time
    rounds: list[float] = []
    while len(rounds) < 5:  # a machine that is busy for one round may not be so for the next
        _, added, _ = benchmark.measure(samples=15)
        rounds.append(added[0])
        if added[0] <= benchmark.LIMIT:
            return
    pytest.fail(f"milliseconds added, round by round: {rounds}")
