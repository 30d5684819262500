"""All workflows of the core's tests answer alike under two hash seeds, and so in any two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from replays import TRACES_VARIABLE

TESTS = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]

STARTED_WHEN_RUN = (
    "test_retry_timeout_is_decided_on_the_workflows_clock",
    "test_the_branch_of_retry_timeout_is_the_generators_as_long_as_it_has_not_run_out",
)
"""Tests that compare the clock of the workflow with the wall's, and so start theirs at another time in each process."""


def traces(hash_seed: str, file: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """Of each instance of each test, in order: its id, and a digest of its answers at each cut."""
    process = subprocess.run(
        [*COMMAND, str(TESTS), "--ignore", str(TESTS / "proof")],
        cwd=TESTS.parent.parent.parent,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, TRACES_VARIABLE: str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert file.exists(), process.stdout[-3000:] + process.stderr[-1000:]
    found: dict[tuple[str, int], tuple[str, str]] = {}
    numbers: dict[str, int] = {}
    for line in file.read_text().splitlines():
        test, instance_id, digest = json.loads(line)
        numbers[test] = numbers.get(test, 0) + 1
        found[test, numbers[test]] = instance_id, digest
    return found


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_workflow_of_these_tests_answers_alike_under_two_hash_seeds(tmp_path: Path):
    first, second = (traces(seed, tmp_path / seed) for seed in ("1", "31337"))

    assert len(first) > 100
    differing = [test for test, digest in first.items() if second.get(test) != digest]
    assert [test for test, _ in differing if not any(name in test for name in STARTED_WHEN_RUN)] == []
    assert second.keys() == first.keys()
