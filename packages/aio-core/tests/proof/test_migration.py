"""A running instance continues, after a deployment, as the other kind of function than it began as."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from scale import seeds
from turns import Instance, canonical
from twins import Captured, TwinEngine, twins

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

Recorded = list[tuple[list[list[bytes]], list[str | None], list[bytes]]]
"""Of each execution: the actions and the custom status of each turn, and the history."""


def run(seed: int, first: str, second: str, switch_after: int) -> tuple[Recorded, int, str]:
    """Run the program of `seed`; each of its executions changes its kind after `switch_after` turns."""
    random = Random(seed)
    pair = twins(random)
    generator = Captured(pair.generator)
    kinds: dict[str, Any] = {"generator": generator, "async": pair.asynchronous}
    engine = TwinEngine(random, pair)
    instance: Instance | None = Instance(kinds[first], 0, name="program", instance_id=f"moving-{seed}")
    recorded: Recorded = []
    switches = 0
    while instance is not None:
        engine.run(instance, turns=switch_after)
        if instance.outcome is None:
            switches += 1
        instance.orchestrator = kinds[second]
        engine.run(instance)
        history = [event.SerializeToString(deterministic=True) for event in instance.history]
        recorded.append(([canonical(turn) for turn in instance.turns], instance.custom_statuses, history))
        instance.orchestrator = kinds[first]
        instance = engine.next_execution(instance)
    generator.close()
    return recorded, switches, repr(pair)


def check(seed: int, switch_after: int) -> int:
    """Both ways of changing the kind, against never changing it; returns how many changed it while running."""
    never, _, text = run(seed, "generator", "generator", switch_after)
    there, switched, _ = run(seed, "generator", "async", switch_after)
    back, switched_back, _ = run(seed, "async", "generator", switch_after)
    assert there == never, f"from generator to async after turn {switch_after}, seed {seed}: {text}"
    assert back == never, f"from async to generator after turn {switch_after}, seed {seed}: {text}"
    return switched + switched_back


@hypothesis.settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.integers(0, 1_000_000), st.integers(1, 8))
def test_an_instance_finishes_as_the_other_kind_of_function_after_any_turn(seed: int, switch_after: int):
    check(seed, switch_after)


@pytest.mark.slow
@pytest.mark.seeds
@pytest.mark.timeout(seeds(900))
@pytest.mark.parametrize("part", range(10))
def test_a_thousand_random_programs_finish_as_the_other_kind_of_function(part: int):
    size = seeds(100)
    switched = sum(check(seed, 1 + Random(seed).randrange(8)) for seed in range(part * size, (part + 1) * size))

    # A program has about 3.5 executions, counted for both directions; the others end before the switch.
    assert switched > size
