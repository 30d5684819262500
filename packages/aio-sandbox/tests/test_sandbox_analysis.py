"""Static analysis of loaded functions: what is found, what is followed, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import datetime as dt
import functools
import itertools
import json
import logging
import os
import random
import sys
import textwrap
import threading
import time
import traceback
import types
from collections.abc import Iterator
from datetime import datetime as DateTime
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core import SandboxMode, SandboxViolationError, WorkflowValidationError
from durabletask_aio.sandbox.rules.allowance import allow, configure
from durabletask_aio.sandbox.rules.catalogue import Severity
from durabletask_aio.sandbox.runtime.sandbox import SANDBOX
from durabletask_aio.sandbox.static.analysis import check

SEEN: list[Any] = []
GENERATOR = random.Random(7)
COUNT = 0
NUMBERS = itertools.count()
TABLE = {"read": time.time}
now_alias = DateTime.now
draw = random.random
logger = logging.getLogger(__name__)


def codes(target: Any, **options: Any) -> list[str]:
    return [each.rule.code for each in check(target, **options)]


def calls(target: Any) -> set[str | None]:
    return {each.call for each in check(target)}


def charge(ctx: Any, order: Any) -> float:
    """An activity."""
    return time.time()


def read() -> float:
    return time.time()


def unique(items: list[str]) -> list[str]:
    return list(set(items))


class Tally:
    count = 0

    def more(self) -> None:
        type(self).count += 1
        self.__class__.count += 1


def apply(function: Any) -> Any:
    return function()


@contextlib.contextmanager
def timed() -> Iterator[float]:
    yield time.time()


@functools.singledispatch
def shown(value: object) -> str:
    return str(value)


@shown.register
def _(value: int) -> str:
    return str(random.random())


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        time.monotonic()
        return function(*args)

    return wrapper


@logged
def decorated() -> str:
    return os.getcwd()


class Clock:
    """Every way in which a class runs code."""

    def __init__(self) -> None:
        self.started = time.time_ns()

    @property
    def now(self) -> float:
        return time.perf_counter()

    @functools.cached_property
    def host(self) -> int:
        return os.getpid()

    def __enter__(self) -> Clock:  # noqa: PYI034
        time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __add__(self, other: object) -> float:
        return random.uniform(0, 1)

    @staticmethod
    def of_today() -> dt.date:
        return dt.date.today()


class MadeUp:
    known = 1

    def __init__(self) -> None:
        self.given = 1

    def __getattr__(self, name: str) -> str:
        return os.environ[name]


class Stamped(type):
    def __call__(cls, *args: Any) -> Any:
        made = super().__call__(*args)
        made.stamp = time.time()
        return made


class Letter(metaclass=Stamped):
    stamp: float


SETTINGS = MadeUp()


class Moment(dt.datetime):
    """A subclass, as date libraries define."""


class TestFollowing:
    def test_helpers_are_followed_and_the_path_is_shown(self) -> None:
        def outer() -> float:
            return read()

        async def workflow(ctx: Any) -> float:
            return outer()

        (finding,) = check(workflow)

        assert finding.reached == ("workflow", "outer", "read")
        assert "  reached by workflow() -> outer() -> read()" in finding.text()

    def test_partial_wraps_and_context_managers_are_followed(self) -> None:
        async def workflow(ctx: Any) -> None:
            functools.partial(read)()
            decorated()
            with timed():
                pass

        assert {"time.time", "time.monotonic", "os.getcwd"} == calls(workflow)

    def test_single_dispatch_is_followed_to_every_implementation(self) -> None:
        async def workflow(ctx: Any) -> str:
            return shown(3)

        assert {"random.random"} == calls(workflow)

    def test_classes_are_followed_through_properties_operators_and_blocks(self) -> None:
        async def workflow(ctx: Any) -> Any:
            with Clock() as clock:
                return clock.now, clock.host, clock + 1, Clock.of_today()

        assert {
            "time.time_ns",
            "time.perf_counter",
            "os.getpid",
            "time.process_time",
            "random.uniform",
            "datetime.date.today",
        } == calls(workflow)

    def test_methods_that_are_called_implicitly_are_followed(self) -> None:
        class Odd:
            def __len__(self) -> int:
                return time.time_ns()

            def __bool__(self) -> bool:
                return random.random() > 0.5

            def __str__(self) -> str:
                return os.getcwd()

            def __hash__(self) -> int:
                return os.getpid()

            def unused(self) -> None:
                Path("x").unlink()

        async def workflow(ctx: Any) -> Any:
            if Odd():
                ctx.set_custom_status(f"{Odd()}")
            return len(Odd()), {Odd(): 1}

        assert {"time.time_ns", "random.random", "os.getcwd", "os.getpid"} == calls(workflow)

    def test_attributes_provided_by_getattr_are_followed(self) -> None:
        class Local:
            known = 1

            def __init__(self) -> None:
                self.given = 1

            def __getattr__(self, name: str) -> str:
                return os.getcwd()

        async def made_up(ctx: Any) -> Any:
            return SETTINGS.region, Local().region

        async def real(ctx: Any) -> Any:
            return SETTINGS.known, SETTINGS.given, Local().known, Local().given, MadeUp().given, MadeUp.known

        assert {"os.environ", "os.getcwd"} == calls(made_up)
        assert calls(real) == set()

    def test_what_a_metaclass_does_when_an_object_is_made_is_followed(self) -> None:
        async def workflow(ctx: Any) -> Any:
            return Letter()

        assert {"time.time"} == calls(workflow)

    def test_a_bound_method_is_followed_with_its_object(self) -> None:
        class Flow:
            clock = staticmethod(time.time)

            async def run(self, ctx: Any) -> Any:
                return self.clock(), self.helper()

            def helper(self) -> float:
                return random.random()

        assert {"time.time", "random.random"} == calls(Flow().run)

    def test_functions_passed_to_the_standard_library_are_followed(self) -> None:
        async def workflow(ctx: Any, items: list[Any]) -> Any:
            return sorted(items, key=lambda item: random.random()), list(map(apply, [])), max(items, key=hash_of)

        assert {"random.random", "os.getpid"} == calls(workflow)

    def test_functions_passed_to_the_users_own_are_followed(self) -> None:
        async def workflow(ctx: Any) -> Any:
            return apply(time.time)

        assert {"time.time"} == calls(workflow)

    def test_an_activity_passed_by_reference_is_not_followed(self) -> None:
        async def workflow(ctx: Any, order: Any) -> Any:
            first = ctx.call_activity(charge, input=order)
            return await ctx.when_all([first, ctx.call_activity(charge, input=order)])

        assert check(workflow) == []

    def test_a_function_in_a_table_is_followed(self) -> None:
        async def workflow(ctx: Any) -> Any:
            return TABLE["read"]()

        assert {"time.time"} == calls(workflow)

    def test_a_module_that_is_imported_inside_is_read_from_its_source(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "late_helper.py").write_text("import time\ndef wait():\n    time.sleep(1)\n")
        monkeypatch.syspath_prepend(str(tmp_path))

        async def workflow(ctx: Any) -> None:
            from late_helper import wait  # type: ignore[import-not-found]

            wait()

        assert {"time.sleep"} == calls(workflow)
        assert "late_helper" not in sys.modules

    def test_equal_functions_of_two_modules_are_both_found(self, tmp_path: Path) -> None:
        # Code objects compare by value and do not compare their file names.
        text = "import time\ndef read():\n    return time.time()\n"
        modules = []
        for name in ("first_twin", "second_twin"):
            (tmp_path / f"{name}.py").write_text(text)
            module = types.ModuleType(name)
            exec(compile(text, str(tmp_path / f"{name}.py"), "exec"), vars(module))
            modules.append(module)
        first, second = modules
        assert first.read.__code__ == second.read.__code__

        async def workflow(ctx: Any) -> None:
            first.read()
            second.read()

        assert [Path(each.file).name for each in check(workflow)] == ["first_twin.py", "second_twin.py"]


def hash_of(item: Any) -> int:
    return os.getpid()


class TestBindings:
    @pytest.mark.parametrize(
        "expression",
        [
            "time.time()",
            "DateTime.now()",
            "dt.datetime.now()",
            "now_alias()",
            "Moment.now()",
            "draw()",
            "TABLE['read']()",
            "getattr(time, 'time')()",
            "(lambda: time.time())()",
            "[time.time() for _ in range(1)]",
            "os.environ['HOME']",
            "os.environ.get('HOME')",
            "Path('x').read_text()",
            "(Path('a') / 'b').exists()",
            "random.Random()",
            "time.localtime()",
            "open('x')",
        ],
    )
    def test_a_call_is_found_under_every_binding(self, expression: str, tmp_path: Path) -> None:
        names = "time, DateTime, dt, now_alias, Moment, draw, TABLE, os, Path, random"
        text = f"async def workflow(ctx):\n    return {expression}\n"
        file = tmp_path / f"module_{abs(hash(expression))}.py"
        file.write_text(text)
        module = {name: globals()[name] for name in names.split(", ")}
        exec(compile(text, str(file), "exec"), module)

        assert len({each.rule.code for each in check(module["workflow"])}) == 1

    def test_default_arguments_closures_and_imports_inside_are_found(self) -> None:
        clock = time.time

        async def workflow(ctx: Any, read: Any = time.monotonic) -> None:
            import secrets

            clock()
            read()
            secrets.token_hex()

        assert {"time.time", "time.monotonic", "secrets.token_hex"} == calls(workflow)


class TestBeyondSingleCalls:
    def test_a_set_whose_order_reaches_an_operation(self) -> None:
        async def workflow(ctx: Any, names: set[str]) -> None:
            for name in {"a", "b"}:
                await ctx.call_activity("greet", input=name)
            await ctx.when_all([ctx.call_activity("greet", input=name) for name in set(names)])
            await ctx.call_activity("greet", input=list({"a", "b"}))

        assert codes(workflow) == ["DET703"] * 3

    def test_a_set_order_returned_by_a_helper(self) -> None:
        async def workflow(ctx: Any, items: list[str]) -> None:
            for item in unique(items):
                await ctx.call_activity("x", input=item)
            await ctx.call_activity("x", input=unique(items))
            await ctx.call_activity("x", input=sorted(unique(items)))

        assert codes(workflow) == ["DET703"] * 2

    def test_the_first_element_of_a_set(self) -> None:
        async def workflow(ctx: Any, items: list[str]) -> None:
            todo = set(items)
            while todo:
                await ctx.call_activity("x", input=todo.pop())
            await ctx.call_activity("x", input=next(iter(set(items))))
            await ctx.call_activity("x", input=", ".join({"a", "b"}))
            await ctx.call_activity("x", input=min(set(items)))
            await ctx.call_activity("x", input=items.pop())

        assert codes(workflow) == ["DET703"] * 3

    def test_sets_without_consequences_are_fine(self) -> None:
        async def workflow(ctx: Any, names: set[str]) -> int:
            for name in sorted({"a", "b"}):
                await ctx.call_activity("greet", input=name)
            total = 0
            for name in set(names):
                total += len(name)
            return total + len(set(names))

        assert codes(workflow) == []

    def test_writing_module_state(self) -> None:
        async def workflow(ctx: Any) -> None:
            global COUNT
            COUNT = 1
            SEEN.append(1)
            TABLE["read"] = read
            Clock.shared = 1  # type: ignore[attr-defined]

        assert codes(workflow) == ["DET801"] * 4

    def test_changing_classes_and_iterators_of_the_module(self) -> None:
        async def workflow(ctx: Any) -> None:
            Tally.count += 1
            Tally().more()
            next(NUMBERS)
            mine = iter([1, 2])
            next(mine)

        assert codes(workflow) == ["DET801"] * 4

    def test_local_state_is_fine(self) -> None:
        async def workflow(ctx: Any) -> list[int]:
            seen = [1]
            seen.append(2)
            clock = types.SimpleNamespace()
            clock.value = len(SEEN)
            return seen

        assert codes(workflow) == []

    def test_a_generator_that_outlives_the_workflow(self) -> None:
        async def workflow(ctx: Any) -> float:
            return GENERATOR.random()

        assert codes(workflow) == ["DET203"]

    def test_operations_and_coroutines_that_are_not_awaited(self) -> None:
        async def step(ctx: Any) -> None:
            await ctx.sleep(1)

        async def workflow(ctx: Any) -> None:
            ctx.call_activity("notify")
            step(ctx)  # type: ignore[unused-coroutine]
            task = ctx.call_activity("notify")
            await task
            ctx.set_custom_status("done")

        findings = check(workflow)

        assert [each.rule.code for each in findings] == ["DET802"] * 2
        assert "`await ctx.call_activity('notify')`" in findings[0].message

    def test_cancellation_that_is_swallowed(self) -> None:
        async def workflow(ctx: Any) -> None:
            try:
                await ctx.sleep(1)
            except asyncio.CancelledError:
                ctx.set_custom_status("cancelled")
            try:
                await ctx.sleep(1)
            except BaseException:
                raise
            try:
                await ctx.sleep(1)
            except Exception:
                ctx.set_custom_status("failed")

        assert codes(workflow) == ["DET803"]

    def test_cancellation_raised_by_async_for_and_async_with_is_swallowed_too(self) -> None:
        async def workflow(ctx: Any) -> None:
            with contextlib.suppress(BaseException):
                async for event in ctx.events("news"):
                    ctx.set_custom_status(event)
            with contextlib.suppress(BaseException):
                async with ctx.lock_entities([]):
                    ctx.set_custom_status("locked")
            with contextlib.suppress(BaseException):
                ctx.set_custom_status([event async for event in ctx.events("news")])
            with contextlib.suppress(BaseException):
                ctx.set_custom_status([event.upper() for event in ("a", "b")])

        assert codes(workflow) == ["DET803"] * 3

    def test_cancellation_that_is_suppressed(self) -> None:
        async def workflow(ctx: Any) -> None:
            with contextlib.suppress(BaseException):
                await ctx.sleep(1)
            with contextlib.suppress(ValueError, asyncio.CancelledError):
                await ctx.sleep(1)
            with contextlib.suppress(ValueError):
                await ctx.sleep(1)
            with contextlib.suppress(BaseException):
                ctx.set_custom_status("x")

        assert codes(workflow) == ["DET803"] * 2

    def test_executors_of_the_running_loop(self) -> None:
        async def workflow(ctx: Any) -> None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, sum, [1])

        assert codes(workflow) == ["DET601"]

    def test_wait_for_is_reported_only_if_notes_are_requested(self) -> None:
        async def workflow(ctx: Any) -> None:
            await asyncio.wait_for(ctx.sleep(5), 1)

        assert codes(workflow) == []
        assert [(each.rule.code, each.severity) for each in check(workflow, notes=True)] == [("DET604", Severity.NOTE)]

    def test_as_completed_and_blocking_calls(self) -> None:
        async def step(ctx: Any) -> None:
            await ctx.sleep(1)

        async def workflow(ctx: Any) -> None:
            for done in asyncio.as_completed([step(ctx), step(ctx)]):
                await done
            threading.Event().wait()
            time.sleep(1)

        assert codes(workflow) == ["DET605", "DET804", "DET110"]

    def test_clocks_that_pass_through_the_local_zone(self) -> None:
        async def workflow(ctx: Any) -> Any:
            return (
                DateTime.fromtimestamp(1),
                DateTime.fromtimestamp(1, dt.timezone.utc),
                time.localtime(1),
                time.gmtime(1),
                ctx.now().astimezone(),
                ctx.now().astimezone(dt.timezone.utc),
            )

        assert codes(workflow) == ["DET102"] * 3

    def test_computed_names_on_catalogued_modules(self) -> None:
        async def workflow(ctx: Any, name: str) -> Any:
            return getattr(time, name)(), getattr(ctx, name), eval(name)

        assert codes(workflow) == ["DET704"] * 2

    def test_computed_names_on_an_object_with_catalogued_methods(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library: Any = types.ModuleType("library_with_clock")
        library.clock = types.SimpleNamespace(read=lambda: 1)
        monkeypatch.setitem(sys.modules, library.__name__, library)
        undo = configure(forbid={"library_with_clock.clock.read": "DET101"})

        async def workflow(ctx: Any, name: str) -> Any:
            return getattr(library.clock, name)()

        try:
            assert codes(workflow) == ["DET704"]
        finally:
            undo()


@dataclasses.dataclass
class Order:
    number: int
    lines: list[int] = dataclasses.field(default_factory=list)


class TestInnocent:
    def test_ordinary_workflow_code_has_no_findings(self) -> None:
        async def workflow(ctx: Any, order: Order) -> Any:
            logger.info("started %s", order)
            kept = copy.deepcopy(order)
            text = json.dumps(dataclasses.asdict(kept))
            rng = random.Random(order.number)
            rng.shuffle(kept.lines)
            zone = dt.timezone(dt.timedelta(hours=2))
            try:
                when = DateTime(2024, 1, 1, tzinfo=zone) + dt.timedelta(days=1)
                await ctx.create_timer(when)
                await asyncio.sleep(1)
                async with asyncio.timeout(3):  # type: ignore[attr-defined,unused-ignore]
                    await ctx.call_activity(charge, input=order)
            except ValueError:
                traceback.format_exc()
            tasks = [asyncio.create_task(ctx.sleep(n)) for n in range(3)]
            await asyncio.gather(*tasks)
            return text, Path("a") / "b", ctx.now(), ctx.random().random(), ctx.uuid4(), time.strftime("%Y", (0,) * 9)

        assert check(workflow) == []

    def test_pydantic_models_are_fine(self) -> None:
        pydantic = pytest.importorskip("pydantic")

        class Model(pydantic.BaseModel):  # type: ignore[name-defined]
            number: int
            when: dt.datetime | None = None

        async def workflow(ctx: Any) -> Any:
            return Model(number=1).model_dump_json()

        assert check(workflow) == []


class TestAllowing:
    def test_a_pragma_allows_a_line(self) -> None:
        async def workflow(ctx: Any) -> None:
            time.time()  # determinism: allow[DET101] only logged
            time.time()  # determinism: allow[clock] only logged
            time.time()  # determinism: allow only logged
            time.time()  # determinism: allow[random] which does not cover it

        assert codes(workflow) == ["DET101"]

    def test_a_pragma_covers_a_statement_over_several_lines(self) -> None:
        async def workflow(ctx: Any) -> Any:
            return [
                time.time(),
                1,
            ]  # determinism: allow[DET101] only logged

        assert codes(workflow) == []

    def test_a_block_and_a_decorator_allow(self) -> None:
        @allow("time.monotonic")
        def helper() -> None:
            time.monotonic()
            time.time()

        async def workflow(ctx: Any) -> None:
            with allow("file", reason="a cache"):
                Path("x").exists()
            helper()

        assert {"time.time"} == calls(workflow)

    def test_names_can_be_allowed_for_one_check(self) -> None:
        async def workflow(ctx: Any) -> None:
            time.time()
            random.random()

        assert codes(workflow, allow=["time"]) == ["DET201"]

    def test_an_unknown_name_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(WorkflowValidationError, match=r"'clok' is not a name that can be allowed.*DET101"):
            allow("clok")
        with pytest.raises(WorkflowValidationError, match=r"write a list: allow=\['clock'\]"):
            check(read, allow="clock")


class TestRegistration:
    def test_strict_refuses_with_every_finding_and_its_correction(self) -> None:
        async def workflow(ctx: Any) -> Any:
            started = time.time()
            return started, random.randint(1, 6)

        with pytest.raises(SandboxViolationError) as caught:
            SANDBOX.guard(workflow, SandboxMode.STRICT, workflow_name="billing")

        line = workflow.__code__.co_firstlineno + 1
        assert "it has 2 calls or constructs that would differ on replay" in str(caught.value)
        assert f"test_sandbox_analysis.py:{line}:23 in workflow()" in caught.value.message
        assert "started = ctx.now().timestamp()" in caught.value.message
        assert "return started, ctx.random().randint(1, 6)" in caught.value.message
        assert caught.value.workflow_name == "billing"

    def test_strict_only_warns_about_what_is_not_certain(self) -> None:
        async def workflow(ctx: Any, names: set[str]) -> None:
            for name in set(names):
                await ctx.call_activity("greet", input=name)

        with pytest.warns(match="goes through a set"):
            assert SANDBOX.guard(workflow, SandboxMode.STRICT, workflow_name="workflow") is not None

    def test_best_effort_warns_at_the_users_line(self) -> None:
        async def workflow(ctx: Any) -> float:
            return time.time()

        with pytest.warns(match=r"`time\.time\(\)` is not deterministic") as caught:
            SANDBOX.guard(workflow, SandboxMode.BEST_EFFORT, workflow_name="workflow")

        assert (__file__, workflow.__code__.co_firstlineno + 1) == (caught[0].filename, caught[0].lineno)

    def test_a_defect_of_the_analysis_does_not_keep_a_workflow_from_being_registered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def workflow(ctx: Any) -> None:
            return None

        def fail(*args: Any) -> None:
            raise KeyError("x")

        monkeypatch.setattr("durabletask_aio.sandbox.static.analysis.analyse", fail)

        with pytest.warns(RuntimeWarning, match="The static analysis of workflow 'flow' failed with KeyError: 'x'"):
            assert SANDBOX.guard(workflow, SandboxMode.STRICT, workflow_name="flow") is not None

    def test_advice_warns_and_changes_nothing(self) -> None:
        async def workflow(ctx: Any) -> float:
            return time.time()

        code = workflow.__code__
        with pytest.warns(match="DET101"):
            SANDBOX.advise(workflow, workflow_name="workflow")

        assert workflow.__code__ is code

    def test_generator_orchestrators_get_their_own_alternatives(self) -> None:
        def orchestrator(ctx: Any, _: Any) -> Any:
            started = DateTime.utcnow()
            yield ctx.create_timer(started)
            time.sleep(5)

        first, second = check(orchestrator)

        assert "started = ctx.current_utc_datetime" in first.text()
        assert "yield ctx.create_timer(timedelta(seconds=5))" in second.text()

    def test_code_without_source_is_no_error(self) -> None:
        names: dict[str, Any] = {"time": time}
        exec("async def workflow(ctx):\n    return time.time()", names)

        assert check(names["workflow"]) == []

    def test_something_else_than_a_function_is_refused(self) -> None:
        with pytest.raises(WorkflowValidationError, match=r"check\(\) needs a workflow function, and 3 is not one"):
            check(3)  # type: ignore[arg-type]


def test_a_large_module_is_analysed_in_a_few_milliseconds(tmp_path: Path) -> None:
    body = textwrap.dedent(
        """
        def helper{n}(x):
            return [y for y in range(x) if y % 2]
        """
    )
    text = "".join(body.format(n=n) for n in range(300)) + "async def workflow(ctx):\n    return helper7(3)\n"
    file = tmp_path / "large.py"
    file.write_text(text)
    names: dict[str, Any] = {}
    exec(compile(text, str(file), "exec"), names)
    check(names["workflow"])
    best = 1e9
    for _ in range(5):
        started = time.thread_time()
        check(names["workflow"])
        best = min(best, time.thread_time() - started)

    # The file is already parsed by then. CPU time is measured, so that load on the machine does not matter.
    assert best < 0.02
