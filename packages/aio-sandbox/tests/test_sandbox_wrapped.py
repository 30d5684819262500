"""Wrapped functions: a `functools.partial`, the wrapper of a decorator, the default factory of a field."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import random
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from durabletask_aio.sandbox.rules.allowance import configure
from durabletask_aio.sandbox.static.analysis import check

seeded = functools.partial(random.Random, 7)
unseeded = functools.partial(random.Random)
year = functools.partial(time.strftime, "%Y", time.gmtime(0))
year_of = functools.partial(time.strftime, "%Y")
in_utc = functools.partial(dt.datetime.fromtimestamp, tz=dt.timezone.utc)
epoch = functools.partial(time.gmtime, 0)
dice = functools.partial(random.randint, 1, 6)


@contextlib.contextmanager
def stream() -> Iterator[int]:
    """Stands for `httpx.stream`, which is in the catalogue."""
    yield 1


@contextlib.contextmanager
def section() -> Iterator[int]:
    yield 2


def plainly(function: Callable[[], Any]) -> Callable[[], Any]:
    def wrapper() -> Any:
        return function()

    return wrapper


@plainly
def one() -> int:
    return 1


@plainly
def read() -> float:
    return time.time()


@dataclasses.dataclass
class Entry:
    kinds: ClassVar[int] = 2
    text: str
    key: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    at: dt.datetime = dataclasses.field(default_factory=dt.datetime.now)


def found_in(body: Callable[[Any], Any]) -> list[tuple[str, str | None]]:
    async def workflow(ctx: Any) -> Any:
        return body(ctx)

    return [(each.rule.code, each.call) for each in check(workflow)]


class TestPartial:
    """The arguments that a partial holds are part of the call."""

    @pytest.mark.parametrize(
        ("body", "result"),
        [
            (lambda: seeded().random(), random.Random(7).random()),
            (lambda: year(), "1970"),
            (lambda: year_of(time.gmtime(0)), "1970"),
            (lambda: in_utc(0).year, 1970),
            (lambda: epoch().tm_year, 1970),
            (lambda: functools.partial(time.gmtime, 0)().tm_year, 1970),
            (lambda: functools.partial(functools.partial(random.Random), 7)().random(), random.Random(7).random()),
            (lambda: [each.year for each in map(in_utc, [0])], [1970]),
            (lambda: [each.tm_year for each in map(time.gmtime, [0])], [1970]),
        ],
    )
    def test_a_seed_a_time_or_a_zone_inside_counts(self, best_effort: Any, strict: Any, body: Any, result: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return body()

        for driver in (best_effort, strict):
            outcome = driver(workflow)
            assert (outcome.error, outcome.warnings, outcome.result) == (None, [], result)
        assert check(workflow) == []

    @pytest.mark.parametrize(
        ("body", "call"),
        [
            (lambda: unseeded().random(), "random.Random()"),
            (lambda: year_of(), "time.strftime()"),
            (lambda: dice(), "random.randint()"),
        ],
    )
    def test_a_partial_without_them_is_found(self, strict: Any, body: Any, call: str) -> None:
        async def workflow(ctx: Any) -> Any:
            return body()

        assert call in str(strict(workflow).violation)
        assert [each.call for each in check(workflow)] == [call.removesuffix("()")]

    def test_a_call_of_a_partial_has_no_mechanical_correction(self) -> None:
        async def workflow(ctx: Any) -> int:
            return dice()

        (finding,) = check(workflow)

        # `ctx.random().randint()` would lack the arguments that the partial holds.
        assert finding.corrected_line is None
        assert finding.advice == "`ctx.random()`, or `await ctx.run(...)`"

    def test_the_checker_finds_it_too(self, tmp_path: Path) -> None:
        text = """
        import random, time
        from datetime import datetime, timezone
        from functools import partial
        from durabletask.aio import AsyncWorkflowContext

        make = partial(random.Random, 7)
        year = partial(time.strftime, "%Y", time.gmtime(0))

        async def good(ctx: AsyncWorkflowContext, times):
            in_utc = partial(datetime.fromtimestamp, tz=timezone.utc)
            return make().random(), year(), in_utc(0), [*map(in_utc, times)], [*map(time.gmtime, times)]

        async def bad(ctx: AsyncWorkflowContext, times):
            later = partial(time.strftime, "%Y")
            return later(), partial(partial(random.Random))()
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        found = [(each.function, each.call) for each in check(tmp_path / "flow.py")]

        assert found == [("bad", "time.strftime"), ("bad", "random.Random")]


class TestWrappers:
    def test_a_context_manager_is_not_taken_for_another_one(self, watched: Any) -> None:
        # Both run the code of one function in contextlib; on 3.10 and 3.11 the hook sees nothing else.
        undo = configure(forbid={f"{__name__}.stream": "DET502"})
        try:

            async def good(ctx: Any) -> int:
                with section() as number:
                    return number

            async def bad(ctx: Any) -> int:
                with stream() as number:
                    return number

            assert (watched(good).result, watched(good).violation) == (2, None)
            assert "stream()" in str(watched(bad).violation)
        finally:
            undo()

    def test_each_function_that_a_decorator_wraps_is_analysed(self) -> None:
        # Both wrappers share their code and are told apart by their closures.
        assert found_in(lambda ctx: (one(), read())) == [("DET101", "time.time")]


class TestFieldsOfObjects:
    def test_a_default_factory_is_found(self) -> None:
        found = found_in(lambda ctx: Entry("x"))

        assert found == [("DET301", "uuid.uuid4"), ("DET101", "datetime.datetime.now")]

    def test_a_field_that_is_given_is_fine(self) -> None:
        assert found_in(lambda ctx: Entry("x", "key", ctx.now())) == []
        assert found_in(lambda ctx: Entry("x", at=ctx.now(), key="key")) == []

    def test_the_message_says_which_field_to_give(self) -> None:
        async def workflow(ctx: Any) -> Entry:
            return Entry("x", "key")

        (finding,) = check(workflow)

        assert finding.advice == "`ctx.now()`, or `await ctx.run(...)` for the machine's clock, given as `at=`"
        assert finding.corrected_line is None

    def test_models_of_pydantic(self, best_effort: Any, strict: Any) -> None:
        pydantic = pytest.importorskip("pydantic")

        class Payment(pydantic.BaseModel):  # type: ignore[name-defined]
            amount: int
            key: str = pydantic.Field(default_factory=lambda: uuid.uuid4().hex, alias="reference")
            at: dt.datetime = pydantic.Field(default_factory=dt.datetime.now)

        async def bad(ctx: Any) -> str:
            return str(Payment(amount=1).key)

        async def good(ctx: Any) -> str:
            return str(Payment(amount=1, reference="key", at=dt.datetime(2024, 1, 1)).key)

        assert [each.call for each in check(bad)] == ["uuid.uuid4", "datetime.datetime.now"]
        # The compiled core of pydantic calls the lambda; no line of the user's does.
        assert "uuid.uuid4()" in str(strict(bad).violation)
        assert best_effort(bad).result == best_effort(bad).result
        assert check(good) == []
        assert strict(good).violation is None

    def test_the_checker_knows_which_fields_are_given(self, tmp_path: Path) -> None:
        text = """
        import uuid
        from dataclasses import dataclass, field
        from datetime import datetime
        from typing import ClassVar
        from pydantic import BaseModel, Field
        from durabletask.aio import AsyncWorkflowContext

        @dataclass
        class Line:
            currency: ClassVar[str] = "EUR"
            item: str
            key: str = field(default_factory=uuid.uuid4)

        class Order(BaseModel):
            key: str = Field(default_factory=lambda: uuid.uuid4().hex, alias="reference")
            at: datetime = Field(default_factory=datetime.now)

        async def good(ctx: AsyncWorkflowContext, row):
            return Order(reference="1", at=ctx.now()), Order(key="1", at=ctx.now()), Order(**row), Line("tea", "1")

        async def bad(ctx: AsyncWorkflowContext, row):
            return Order(key="1")
        """
        (tmp_path / "flow.py").write_text(textwrap.dedent(text))

        assert [(each.call, each.reached[0]) for each in check(tmp_path / "flow.py")] == [
            ("datetime.datetime.now", "bad")
        ]
