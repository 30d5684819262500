"""Random concurrent workflows in Dapr's dialect are their own replay: cut at every turn, and under two hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import random_turns
from random_turns import digest, run, without_stack_traces
from scale import seeds
from turns_in_process import replayed_actions

SEEDS = seeds(40)
PARTS = 4


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # Exceptions of the programs that are never retrieved are logged.
    caplog.set_level("CRITICAL", logger="durabletask.aio")


@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
@pytest.mark.parametrize("part", range(PARTS))
def test_a_program_is_its_own_replay_cut_at_every_turn(part: int, cancelled: bool) -> None:
    turns = 0
    for seed in range(part, SEEDS, PARTS):
        instance = run(seed, sessions=10, cancelled=cancelled)
        turns += len(instance.actions)
        stats = instance.turns.stats
        assert (stats.hits, stats.misses) == (len(instance.actions) - 1, 0), seed
        assert without_stack_traces(replayed_actions(instance)) == without_stack_traces(instance.actions), seed
        instance.turns.close()
    assert turns > 3 * SEEDS / PARTS


@pytest.mark.parametrize("part", range(PARTS))
def test_a_program_does_not_depend_on_when_its_session_is_evicted(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    evictions = Random(part)
    turn = random_turns.Instance.turn

    def after_an_eviction(self, *events):
        if evictions.random() < 0.4:
            self.turns.close()
        return turn(self, *events)

    for seed in range(part, SEEDS, PARTS):
        expected = run(seed, sessions=10)
        with monkeypatch.context() as patch:
            patch.setattr(random_turns.Instance, "turn", after_an_eviction)
            instance = run(seed, sessions=10)
        assert without_stack_traces(instance.actions) == without_stack_traces(expected.actions), seed
        for each in (instance, expected):
            each.turns.close()


def test_programs_do_not_depend_on_the_hash() -> None:
    script = Path(random_turns.__file__)

    def printed(hash_seed: str) -> list[str]:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, str(script), "0", str(SEEDS // 2)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=170)
        return done.stdout.splitlines()

    first = printed("1")
    assert len(first) == SEEDS // 2
    assert printed("31337") == first


def test_digests_tell_programs_apart() -> None:
    assert len({digest(run(seed, sessions=0)) for seed in range(5)}) == 5
