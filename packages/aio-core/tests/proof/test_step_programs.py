"""Random programs with steps, patches and requests equal their own replay, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import step_programs
from replays import NoSteps, assert_replays
from scale import seeds
from turns import execute


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # Their exceptions that are never retrieved are logged, as they should be.
    caplog.set_level("CRITICAL", logger="durabletask.aio")


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_programs_with_steps_equal_their_replay(first: int):
    for seed in range(first, first + seeds(10)):
        instance = step_programs.run(seed)
        assert instance.result is not None
        assert_replays(instance, seed=seed)
        # What is committed needs none of its steps again, whatever comes next.
        for end in instance.cuts[1:]:
            begin = instance.batch_begin(end)
            execute(instance, instance.history[:begin], instance.batch(), runner=NoSteps())


def test_random_programs_with_steps_are_replayed_alike_under_two_hash_seeds(tmp_path: Path):
    file = tmp_path / "recorded"
    digests = step_programs.record(range(100, 100 + seeds(10)), file)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", step_programs.__file__, str(file)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "31337")
    ]
    for process in processes:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert output.split() == digests
