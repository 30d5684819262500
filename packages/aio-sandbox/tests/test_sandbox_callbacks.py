"""Functions of the user's own that a library calls: found on every Python; and the log formatters, which are exempt."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from durabletask_aio.core import NonDeterminismWarning, SandboxMode
from durabletask_aio.sandbox.runtime import execution, profiling
from durabletask_aio.sandbox.runtime.callbacks import functions_held_by
from durabletask_aio.sandbox.runtime.sandbox import WorkflowSandbox

MODELS = """
import time
import pydantic

class Checked(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def stamp(cls, value):
        return f"{value}{time.time()}"

class Inner(pydantic.BaseModel):
    at: float = 0

    @pydantic.model_validator(mode="before")
    @classmethod
    def read_clock(cls, data):
        return {"at": time.time()}

class Outer(pydantic.BaseModel):
    inner: Inner

async def validates_a_field(ctx):
    return Checked.model_validate({"text": "a"}).text

async def validates_a_nested_model(ctx):
    return Outer(inner={}).inner.at

async def validates_by_an_adapter(ctx):
    return pydantic.TypeAdapter(list[Outer]).validate_python([{"inner": {}}])[0].inner.at
"""

has_pydantic = importlib.util.find_spec("pydantic") is not None


def read_clock(value: Any) -> float:
    return time.time()


class Field:
    """As the fields of attrs: a library's object that holds a converter of the user's."""

    def __init__(self, converter: Callable[[Any], Any]) -> None:
        self.converter = converter


class Converted:
    fields = (Field(lambda value: time.time()),)


class Stamp:
    def __get__(self, owner: Any, kind: Any = None) -> float:
        return time.time()


class Described:
    at = Stamp()


class Held:
    nested = {"inner": [functools.partial(read_clock)]}

    def __del__(self) -> None:
        time.time()


class Payments:
    @staticmethod
    def charge(item: str) -> float:
        return time.time()


def convert(kind: Any, value: Any) -> Any:
    """The code of a library: it is not followed."""
    return kind.fields[0].converter(value)


convert.__code__ = convert.__code__.replace(co_filename=logging.__file__)


async def uses_a_descriptor(ctx: Any) -> float:
    return Described().at


async def has_a_converter_called(ctx: Any) -> Any:
    return convert(Converted, 1)


@pytest.mark.parametrize("workflow", [uses_a_descriptor, has_a_converter_called], ids=lambda each: each.__name__)
def test_what_a_library_calls_is_watched(workflow: Any, strict: Any, best_effort: Any) -> None:
    assert "`time.time()` is not deterministic" in str(strict(workflow).violation)
    outcome = best_effort(workflow)
    assert outcome.error is None
    assert len(outcome.warnings) == 1


@pytest.mark.skipif(not has_pydantic, reason="pydantic is not installed")
@pytest.mark.parametrize("name", ["validates_a_field", "validates_a_nested_model", "validates_by_an_adapter"])
def test_validators_of_models_are_watched(
    name: str, strict: Any, best_effort: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models_of_callbacks.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "models_of_callbacks", raising=False)
    workflow = getattr(importlib.import_module("models_of_callbacks"), name)

    assert "`time.time()` is not deterministic" in str(strict(workflow).violation)
    assert len(best_effort(workflow).warnings) == 1


def held_by(function: Any) -> list[types.FunctionType]:
    return functions_held_by([function])


def test_what_a_class_holds_is_found_but_not_its_finalizer() -> None:
    async def uses(ctx: Any) -> Any:
        return Held.nested.get("inner")

    async def mentions_an_activity(ctx: Any) -> Any:
        return await ctx.call_activity(Payments.charge)

    async def mentions_a_class(ctx: Any) -> Any:
        return convert(Payments, 1)

    assert [each.__qualname__ for each in held_by(uses)] == ["read_clock"]
    assert held_by(mentions_an_activity) == []
    assert [each.__qualname__ for each in held_by(mentions_a_class)] == ["Payments.charge"]


class ClockFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{time.time()} {record.getMessage()}"


@pytest.mark.parametrize("mode", ["best_effort", "strict"])
def test_log_formatters_may_read_the_clock(mode: str, request: pytest.FixtureRequest) -> None:
    logger = logging.Logger("shop")  # noqa: LOG001 - not to be found by name
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(handler.format(record))  # type: ignore[method-assign]
    handler.setFormatter(ClockFormatter())
    logger.addHandler(handler)

    async def workflow(ctx: Any) -> str:
        assert ClockFormatter  # so that its methods are redirected, too
        logger.warning("hello")
        return "done"

    before = time.time()
    outcome = request.getfixturevalue(mode)(workflow)

    assert (outcome.result, outcome.violation, outcome.warnings) == ("done", None, [])
    assert float(seen[0].split()[0]) >= before


@pytest.mark.skipif(not profiling.IS_SUPPORTED, reason="the profile hook serves Python 3.10 and 3.11")
def test_a_profiler_that_takes_the_place_of_the_hook_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, make_execution: Any
) -> None:
    monkeypatch.setattr(execution, "_warned", set())

    async def workflow(ctx: Any) -> None:
        return None

    guard = WorkflowSandbox().guard(workflow, SandboxMode.STRICT, workflow_name="workflow")
    assert guard is not None
    watch = guard.begin(make_execution())
    assert watch is not None

    def other(*_: Any) -> None:
        """Another profiler."""

    sys.setprofile(other)
    try:
        with pytest.warns(NonDeterminismWarning, match="Another profiler has the profile hook of this thread"):
            watch.enter()
        watch.exit()
        watch.enter()  # Warnings are errors here.
        watch.exit()
    finally:
        sys.setprofile(None)
