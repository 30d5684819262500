"""Runs `benchmarks/workflow_environment.py` with small numbers."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "workflow_environment.py"

pytestmark = pytest.mark.skipif(not BENCHMARK.exists(), reason="the benchmarks are in the repository only")


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("workflow_environment", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "workflow_environment", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DAYS", 30)
    monkeypatch.setattr(module, "STEPS", 3)
    monkeypatch.setattr(module, "ENVIRONMENTS", 2)
    return module


async def test_virtual_days(benchmark, capsys):
    assert await benchmark.days()
    one, each = capsys.readouterr().out.splitlines()
    assert re.match(r"30 virtual days, one sleep +\d+ ms in +11 turns", one)
    assert re.match(r"30 virtual days, a sleep each day +\d+ ms in +31 turns", each)


async def test_steps_in_process_and_through_the_engine(benchmark, capsys):
    assert await benchmark.steps()
    assert re.search(r"in the environment, +[\d,]+ through the local gRPC engine", capsys.readouterr().out)


async def test_nothing_is_left(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "KIBIBYTES_PER_ENVIRONMENT", 1_000_000)  # two are too few to judge by
    assert await benchmark.leaks()
    assert "6 environments opened and closed" in capsys.readouterr().out
