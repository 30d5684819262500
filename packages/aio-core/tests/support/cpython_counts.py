"""Prints how many of CPython's own tests passed inside workflows, also when several processes have run them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

COUNTS: pytest.StashKey[Counter[tuple[str, str]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def counts(pytestconfig: pytest.Config) -> Counter[tuple[str, str]]:
    """What became of CPython's tests, by `(module, outcome)`."""
    return pytestconfig.stash.setdefault(COUNTS, Counter())


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # there in a process of pytest-xdist only
    if output is not None:
        found = session.config.stash.get(COUNTS, Counter())
        output["cpython_counts"] = [[module, outcome, number] for (module, outcome), number in found.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    found = node.config.stash.setdefault(COUNTS, Counter())
    for module, outcome, number in getattr(node, "workeroutput", {}).get("cpython_counts", ()):
        found[module, outcome] += number


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(COUNTS, None)
    if not found:
        return
    terminalreporter.section("CPython's own asyncio tests, run inside workflows")
    modules = list(dict.fromkeys(module for module, _ in found))
    total, passed = 0, 0
    for module in modules:
        ran = found[module, "passed"] + found[module, "failed"]
        left_out = {outcome: n for (name, outcome), n in found.items() if name == module and outcome not in OUTCOMES}
        total, passed = total + ran, passed + found[module, "passed"]
        reasons = "".join(f", {n} left out ({reason})" for reason, n in sorted(left_out.items()))
        terminalreporter.line(f"{module:<12}{found[module, 'passed']:>4} of {ran:>4} pass{reasons}")
    terminalreporter.line(f"{'total':<12}{passed:>4} of {total:>4} pass")


OUTCOMES = ("passed", "failed")
