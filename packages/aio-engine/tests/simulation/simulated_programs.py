"""Random programs for `simulated_workflows`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from simulated_workflows import Step

SECOND = 1_000_000

ENTITIES = ("@counter@a", "@counter@b", "@counter@c")

EVENT_NAMES = ("go", "stop")

ROOTS = tuple(f"i{number}" for number in range(5))

CHILDREN = ("c0", "c1")

Weights = Mapping[str, float]
"""By how much more often than usual something is chosen."""

NO_WEIGHTS: Weights = {}


class Programs:
    """Makes random programs: each method returns the arguments of a step."""

    def __init__(self, rng: random.Random, weights: Weights = NO_WEIGHTS) -> None:
        self.rng = rng
        self._weights = [weight * weights.get(name, 1) for name, (weight, _) in _STEPS.items()]

    def program(self, depth: int = 2) -> dict[str, Any]:
        """Return the input of an instance: what it does, and which events it has seen before."""
        return {"steps": self._steps(depth), "seen": []}

    def _steps(self, depth: int) -> list[Step]:
        steps: list[Step] = []
        for _ in range(self.rng.randint(1, 3)):
            name = self.rng.choices(list(_STEPS), weights=self._weights)[0]
            steps.append([name, *_STEPS[name][1](self, depth)])
            if name in ("continue", "fail"):
                break
        return steps

    def _inner(self, depth: int) -> dict[str, Any]:
        """Return a program that another one starts."""
        return self.program(depth - 1) if depth > 0 else {"steps": [], "seen": []}

    def _delay(self) -> int:
        return self.rng.choice([0, 1, SECOND // 2, SECOND, 5 * SECOND, 30 * SECOND])

    def _operation(self) -> str:
        return self.rng.choices(["add", "fail", "delete", "forward", "start"], weights=[10, 1, 2, 2, 1])[0]

    def activities(self, depth: int) -> list[Any]:
        return [self.rng.randint(1, 3), self.rng.choice(["work", "work", "flaky"])]

    def fan_out(self, depth: int) -> list[Any]:
        timers = [self._delay()] * self.rng.randint(0, 2)
        children = [self._inner(depth) for _ in range(self.rng.randint(0, 2))] if depth > 0 else []
        return [self.rng.randint(0, 3), timers, children]

    def race(self, depth: int) -> list[Any]:
        return [self.rng.randint(0, 2), self._delay(), self.rng.choice([None, *ENTITIES])]

    def timer(self, depth: int) -> list[Any]:
        return [self._delay()]

    def child(self, depth: int) -> list[Any]:
        child_id = self.rng.choice(["", "", "", *CHILDREN, self.rng.choice(ROOTS)])
        return [child_id, self._inner(depth), self.rng.random() < 0.3]

    def send(self, depth: int) -> list[Any]:
        return [self.rng.choice(ROOTS + CHILDREN), self.rng.choice(EVENT_NAMES)]

    def wait(self, depth: int) -> list[Any]:
        return [self.rng.choice(EVENT_NAMES), self._delay()]

    def continue_as_new(self, depth: int) -> list[Any]:
        return [self._inner(depth)]

    def call(self, depth: int) -> list[Any]:
        return [self.rng.choice(ENTITIES), self._operation()]

    def signal(self, depth: int) -> list[Any]:
        return [self.rng.choice(ENTITIES), self._operation(), self._delay()]

    def lock(self, depth: int) -> list[Any]:
        entity_ids = self.rng.sample(ENTITIES, self.rng.randint(1, 2))
        inner: list[Step] = []
        for _ in range(self.rng.randint(0, 3)):
            inner.append(
                self.rng.choice(
                    [
                        ["call", self.rng.choice(entity_ids), "add"],
                        ["activities", 1, self.rng.choice(["work", "flaky"])],
                        ["timer", self._delay()],
                        ["signal", self.rng.choice(ENTITIES), "add", 0],
                    ]
                )
            )
        if self.rng.random() < 0.15:
            inner.append(["fail"] if self.rng.random() < 0.5 else ["continue", self._inner(1)])
        return [entity_ids, inner]

    def status(self, depth: int) -> list[Any]:
        return [self.rng.choice(["", "half", "done"])]

    def fail(self, depth: int) -> list[Any]:
        return []


_STEPS: dict[str, tuple[float, Callable[[Programs, int], list[Any]]]] = {
    "activities": (6, Programs.activities),
    "fan_out": (4, Programs.fan_out),
    "race": (3, Programs.race),
    "timer": (2, Programs.timer),
    "child": (3, Programs.child),
    "send": (2, Programs.send),
    "wait": (3, Programs.wait),
    "continue": (2, Programs.continue_as_new),
    "call": (3, Programs.call),
    "signal": (2, Programs.signal),
    "lock": (3, Programs.lock),
    "status": (1, Programs.status),
    "fail": (1, Programs.fail),
}
