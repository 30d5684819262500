"""The list of scenarios, which a decorator fills."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from durabletask_aio.testing.conformance import scenarios

if TYPE_CHECKING:
    from durabletask_aio.testing.conformance.scenario_run import ScenarioRun

ScenarioFunction: TypeAlias = "Callable[[ScenarioRun], Coroutine[Any, Any, None] | None]"


@dataclass(frozen=True)
class Scenario:
    """A question to an engine."""

    subject: str
    """The name of the module that has it."""

    title: str
    """The name of the function."""

    description: str
    """The docstring of the function: the line in the table."""

    function: ScenarioFunction
    """Returns if the engine works, and raises otherwise."""

    time_factor: float
    """Multiplies the time limit."""

    long_activity: bool
    """Whether the time of the long activity is added to the limit."""

    alone: bool
    """Whether it runs while no other scenario does."""

    kills_engine: bool
    """Whether it needs an engine that it may kill."""

    python: tuple[int, int]
    """The oldest version of Python that has what it uses."""

    @property
    def name(self) -> str:
        """The name for `--only` and for documents: `subject.title`."""
        return f"{self.subject}.{self.title}"


_MARK = "_conformance_scenario"


def scenario(
    *,
    time_factor: float = 1.0,
    long_activity: bool = False,
    alone: bool = False,
    kills_engine: bool = False,
    python: tuple[int, int] = (3, 10),
) -> Callable[[ScenarioFunction], ScenarioFunction]:
    """Declare a function as a scenario; its docstring, of one line, says what the engine is asked for.

    Args:
        time_factor: Multiplies the time limit.
        long_activity: Whether the time that the long activity takes is added to the limit.
        alone: Whether the scenario runs while no other one does, because it would change their instances.
        kills_engine: Whether the scenario kills the engine; it then runs alone, and only with `--engine-command`.
        python: The oldest version of Python that it runs on.

    Returns:
        The decorator, which returns the function itself.
    """

    def declare(function: ScenarioFunction) -> ScenarioFunction:
        description = (function.__doc__ or "").strip()
        if not description or "\n" in description:
            raise ValueError(f"the scenario {function.__name__!r} needs a docstring of one line")
        subject = function.__module__.rpartition(".")[2]
        declared = Scenario(
            subject=subject,
            title=function.__name__,
            description=description,
            function=function,
            time_factor=time_factor,
            long_activity=long_activity,
            alone=alone or kills_engine,
            kills_engine=kills_engine,
            python=python,
        )
        setattr(function, _MARK, declared)
        return function

    return declare


def scenario_modules() -> list[str]:
    """Return the names of the modules of this package that have scenarios, in the order of the table."""
    return [f"{scenarios.__name__}.{each.name}" for each in pkgutil.iter_modules(scenarios.__path__)]


def load_scenarios(modules: Iterable[str]) -> list[Scenario]:
    """Import modules, and return the scenarios in them.

    Args:
        modules: Names of modules.

    Returns:
        The scenarios, in the order in which they are written.

    Raises:
        ImportError: There is no such module.
    """
    found: list[Scenario] = []
    for name in modules:
        values: list[object] = list(vars(import_module(name)).values())
        found += [each for value in values if isinstance(each := getattr(value, _MARK, None), Scenario)]
    return found


def select_scenarios(available: Sequence[Scenario], patterns: Sequence[str]) -> list[Scenario]:
    """Return the scenarios that match one of the patterns.

    Args:
        available: The scenarios to select from.
        patterns: Names, subjects or patterns with `*`, such as `events.*`; none selects all.

    Returns:
        The selected scenarios, in their order.

    Raises:
        LookupError: A pattern matches nothing.
    """
    for pattern in patterns:
        if not any(_matches(each, pattern) for each in available):
            subjects = ", ".join(dict.fromkeys(each.subject for each in available))
            raise LookupError(f"no scenario matches {pattern!r}; the subjects are: {subjects}")
    return [each for each in available if not patterns or any(_matches(each, pattern) for pattern in patterns)]


def _matches(each: Scenario, pattern: str) -> bool:
    return each.subject == pattern or fnmatchcase(each.name, pattern)
