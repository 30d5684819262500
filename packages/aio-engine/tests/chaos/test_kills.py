"""Real processes that are killed, stopped and cut off at random: no instance is lost, wrong, or counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_processes import Faults, Mix, Setup
from scale import wait

pytestmark = pytest.mark.slow

COUNT = 300
WORKERS = 3
SLOW_SECONDS = wait(short=1.5, long=5.0)
PER_SECOND = wait(short=12, long=5)
SCALE = wait(short=0.1, long=1.0)
FAULTS = {"kill worker": 20, "kill engine": 10, "pause worker": 4, "pause engine": 3, "stall": 3}
PAUSES = (0.05, wait(short=0.3, long=1.2))
SEEDS = range(int(wait(short=1, long=5)))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The seconds that the mix takes without any fault."""
    setup = Setup(tmp_path_factory.mktemp("undisturbed") / "run", WORKERS, SLOW_SECONDS, SCALE)
    with setup.running():
        mix = Mix(setup, COUNT, PER_SECOND)
        seconds = mix.run(limit=120)
        assert (mix.wrong(), mix.twice(), mix.rerun()) == ([], [], ([], []))
    return seconds


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_workers_and_engine_are_killed_and_connections_cut(undisturbed: float, tmp_path: Path, seed: int) -> None:
    setup = Setup(tmp_path / "run", WORKERS, SLOW_SECONDS, SCALE)
    with setup.running():
        setup.proxy.cut_every(2.0)
        mix = Mix(setup, COUNT, PER_SECOND)
        with Faults(setup, FAULTS, PAUSES, seed) as faults:
            seconds = mix.run(limit=5 * undisturbed)
        lost = [each for each, status in mix.states().items() if status != "COMPLETED"]
        unexplained, by_engine = mix.rerun()
        print(
            f"undisturbed {undisturbed:.1f} s, disturbed {seconds:.1f} s; {dict(faults.done)}; {len(setup.runs)} runs; "
            f"{len(by_engine)} run again after a kill of the engine: {by_engine}"
        )
        assert dict(faults.done) == FAULTS
        assert (lost, mix.wrong(), mix.twice(), unexplained) == ([], [], [], [])
        assert seconds < 3 * undisturbed
