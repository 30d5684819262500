"""Random simulations of the engine: whatever fails, nothing is lost, doubled or confused, and everything ends.

A failure prints its seed and the shortest list of steps that still fails; `simulation.run_steps` runs that again.
"""

from __future__ import annotations

import pytest
from scale import LONG
from simulation import run_seed

PARTS = 10
MANY = 100_000 if LONG else 2_500
"""Seeds of the slow test."""


def test_the_invariants_hold_in_random_simulations():
    for seed in range(50):
        run_seed(seed)


@pytest.mark.slow
@pytest.mark.seeds
@pytest.mark.timeout(4 * 3600 if LONG else 1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_invariants_hold_in_many_random_simulations(part: int):
    size = MANY // PARTS
    for seed in range(1000 + part * size, 1000 + (part + 1) * size):
        run_seed(seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_simulation_is_decided_by_its_seed(seed: int):
    assert run_seed(seed).log == run_seed(seed).log


def test_simulations_meet_every_kind_of_fault():
    happened: set[str] = set()
    for seed in range(40):
        happened |= run_seed(seed).happened

    assert happened >= {
        "crash before a commit",
        "crash after a commit",
        "crash outside of a commit",
        "not written",
        "answer sent",
        "answer later",
        "answer lost",
        "answer twice",
        "answer abandoned",
        "stale answer",
        "stream ended",
        "came back and said what it held",
        "came back before its end was noticed",
        "clock set",
        "rewound",
        "continued as new",
        "locked",
        "purged",
        "power cut",
    }
