"""Every public name of this Python's asyncio is accounted for, and each one that works has a test here that uses it."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from asyncio_names import LOOP_WORKS, NAMES, PAGE, Outside, Refused, Works, page, refused_by_loop
from surface import result_of

PUBLIC = sorted(name for name in asyncio.__all__ if not name.startswith("_"))
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
PARTS_OF_OTHERS = {"Task", "Future", "Handle", "TimerHandle", "Timeout"}
"""Types whose objects one gets from functions that are tested under their own names."""


def test_each_name_is_known_to_work_or_to_be_refused_or_to_be_none_of_a_workflows_business():
    new = [f"asyncio.{name}" for name in PUBLIC if not isinstance(NAMES.get(name), Works | Refused | Outside)]
    assert not new, f"new in this Python, to be tried and listed in asyncio_names.py: {new}"


def test_each_name_that_works_or_is_refused_has_a_test_that_uses_it():
    names = [name for name in PUBLIC if not isinstance(NAMES.get(name), Outside) and name not in PARTS_OF_OTHERS]
    assert names
    unused = [f"asyncio.{name}" for name in names if not re.search(rf"\basyncio\.{name}\b", TESTS)]
    assert not unused, f"no test uses these names: {unused}"


def test_since_when_is_right():
    major_minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    newer = {
        name
        for name, verdict in NAMES.items()
        if isinstance(verdict, Works) and verdict.since and int(verdict.since[2:]) > int(major_minor[2:])
    }
    missing = {name for name, verdict in NAMES.items() if isinstance(verdict, Works) and not hasattr(asyncio, name)}
    assert missing <= newer
    assert not {name for name in newer if hasattr(asyncio, name)} - {"TaskGroup"}


def test_the_loop_has_exactly_the_methods_that_the_page_says_work():
    surface = {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")}
    assert surface - refused_by_loop() - {"slow_callback_duration"} == set(LOOP_WORKS)


def test_the_page_of_the_documentation_says_the_same():
    assert PAGE.read_text(encoding="utf-8") == page(), "run packages/aio-core/tests/support/asyncio_names.py"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("make", ["eager_task_factory", "create_eager_task_factory"])
def test_eager_factories_are_refused_where_they_are_set(make: str):
    async def workflow(ctx):
        loop = asyncio.get_running_loop()
        if make == "eager_task_factory":
            factory: Any = asyncio.eager_task_factory
        else:
            factory = asyncio.create_eager_task_factory(asyncio.Task)
        try:
            loop.set_task_factory(factory)
        except NotImplementedError as error:
            return str(error)

    assert "made by its loop" in result_of(workflow)


def test_small_helpers_answer_as_ever():
    async def workflow(ctx):
        async def work():
            pass

        coroutine = work()
        answers: list[Any] = [asyncio.iscoroutine(coroutine), asyncio.isfuture(coroutine)]
        await coroutine
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        try:
            future.set_result(2)
        except asyncio.InvalidStateError:
            answers.append("already done")
        _, pending = await asyncio.wait([future], return_when=asyncio.ALL_COMPLETED)
        return [*answers, len(pending)]

    assert result_of(workflow) == [True, False, "already done", 0]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="deprecated since Python 3.14")
def test_iscoroutinefunction_answers_as_ever():
    async def workflow(ctx):
        return [asyncio.iscoroutinefunction(workflow), asyncio.iscoroutinefunction(print)]

    assert result_of(workflow) == [True, False]
