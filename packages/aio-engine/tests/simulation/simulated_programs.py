"""Random programs for `simulated_workflows`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from simulated_workflows import Step

SECOND = 1_000_000

ENTITIES = ("@counter@a", "@counter@b", "@counter@c")

EVENT_NAMES = ("go", "stop")

ROOTS = tuple(f"i{number}" for number in range(5))

CHILDREN = ("c0", "c1")


def random_program(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """Return the input of an instance: what it does, and which events it has seen before."""
    return {"steps": random_steps(rng, depth), "seen": []}


def random_steps(rng: random.Random, depth: int) -> list[Step]:
    steps: list[Step] = []
    for _ in range(rng.randint(1, 3)):
        name = rng.choices(list(_STEPS), weights=[weight for weight, _ in _STEPS.values()])[0]
        steps.append([name, *_STEPS[name][1](rng, depth)])
        if name in ("continue", "fail"):
            break
    return steps


def _delay(rng: random.Random) -> int:
    return rng.choice([0, 1, SECOND // 2, SECOND, 5 * SECOND, 30 * SECOND])


def _children(rng: random.Random, depth: int) -> list[dict[str, Any]]:
    return [random_program(rng, depth - 1) for _ in range(rng.randint(0, 2))] if depth > 0 else []


def _target(rng: random.Random) -> str:
    return rng.choice(ROOTS + CHILDREN)


def _section(rng: random.Random, depth: int) -> list[Any]:
    entity_ids = rng.sample(ENTITIES, rng.randint(1, 2))
    inner: list[Step] = []
    for _ in range(rng.randint(0, 3)):
        inner.append(
            rng.choice(
                [
                    ["call", rng.choice(entity_ids), "add"],
                    ["activities", 1, rng.choice(["work", "flaky"])],
                    ["timer", _delay(rng)],
                    ["signal", rng.choice(ENTITIES), "add", 0],
                ]
            )
        )
    if rng.random() < 0.15:
        inner.append(["fail"] if rng.random() < 0.5 else ["continue", random_program(rng, 0)])
    return [entity_ids, inner]


def _operation(rng: random.Random) -> str:
    return rng.choices(["add", "fail", "delete", "forward", "start"], weights=[10, 1, 2, 2, 1])[0]


_STEPS: dict[str, tuple[int, Callable[[random.Random, int], list[Any]]]] = {
    "activities": (6, lambda rng, depth: [rng.randint(1, 3), rng.choice(["work", "work", "flaky"])]),
    "fan_out": (4, lambda rng, depth: [rng.randint(0, 3), [_delay(rng)] * rng.randint(0, 2), _children(rng, depth)]),
    "race": (3, lambda rng, depth: [rng.randint(0, 2), _delay(rng), rng.choice([None, *ENTITIES])]),
    "timer": (2, lambda rng, depth: [_delay(rng)]),
    "child": (
        3,
        lambda rng, depth: [
            rng.choice(["", *CHILDREN, rng.choice(ROOTS)]),
            random_program(rng, depth - 1) if depth > 0 else {"steps": [], "seen": []},
            rng.random() < 0.3,
        ],
    ),
    "send": (2, lambda rng, depth: [_target(rng), rng.choice(EVENT_NAMES)]),
    "wait": (3, lambda rng, depth: [rng.choice(EVENT_NAMES), _delay(rng)]),
    "continue": (2, lambda rng, depth: [random_program(rng, depth - 1) if depth > 0 else {"steps": [], "seen": []}]),
    "call": (3, lambda rng, depth: [rng.choice(ENTITIES), _operation(rng)]),
    "signal": (2, lambda rng, depth: [rng.choice(ENTITIES), _operation(rng), _delay(rng)]),
    "lock": (3, _section),
    "status": (1, lambda rng, depth: [rng.choice(["", "half", "done"])]),
    "fail": (1, lambda rng, depth: []),
}
