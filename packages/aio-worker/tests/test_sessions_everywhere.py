"""The tests that run real workers pass with extended sessions forced on, evicted all the time, and off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Each in a process of its own, as in other runs: some install what others must do without.
SUITES = {
    "worker": ["packages/aio-worker/tests"],
    "scenarios": ["packages/aio-testing/tests/test_executions.py", "packages/aio-testing/tests/test_scenarios.py"],
    "spec": ["tests/test_spec.py"],
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("sessions", ["100000", "1", "0"], ids=["on", "evicted all the time", "off"])
def test_the_suites_pass_whatever_is_kept(suite: str, sessions: str) -> None:
    environment = {**os.environ, "DT_MAX_EXTENDED_SESSIONS": sessions, "PYTHONDONTWRITEBYTECODE": "1"}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *SUITES[suite]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )

    assert done.returncode == 0, done.stdout + done.stderr
