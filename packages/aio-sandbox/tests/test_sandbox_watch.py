"""Mode strict at run time: what the layer that sees calls detects by itself, and what it ignores."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import functools
import importlib
import json
import logging
import os
import random
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core import NonDeterminismWarning, SandboxMode, SandboxViolationError
from durabletask_aio.sandbox.rules.allowance import allow
from durabletask_aio.sandbox.runtime import execution, monitoring
from durabletask_aio.sandbox.runtime.sandbox import Layer, WorkflowSandbox
from durabletask_aio.sandbox.static.call_index import call_index

logger = logging.getLogger("watched")


class Moment(dt.datetime):
    """A subclass, as date libraries define."""


class Clock:
    def read(self) -> float:
        return time.time()


class Odd:
    """Methods that Python calls implicitly."""

    def __len__(self) -> int:
        return time.time_ns()

    def __getattr__(self, name: str) -> int:
        return os.getpid()


class Quiet:
    def read(self) -> int:
        return 1


class Settings:
    """Reads the environment without an explicit call."""

    def __getattr__(self, name: str) -> str:
        return os.environ["PATH"]


class Stamped(type):
    def __call__(cls, *args: Any) -> Any:
        made = super().__call__(*args)
        made.stamp = time.time()
        return made


class Letter(metaclass=Stamped):
    stamp: float


SETTINGS = Settings()
BY_REGION = {"north": SETTINGS}


def read(*args: Any) -> float:
    return time.time()


def violates(driver: Any, body: Callable[[], Any]) -> str | None:
    """The message of the violation that `body` causes."""

    async def workflow(ctx: Any) -> Any:
        return body()

    outcome = driver(workflow)
    assert outcome.violation is outcome.error
    if outcome.error is not None:
        assert isinstance(outcome.error, SandboxViolationError), outcome.error
        return outcome.error.message.split("`")[1]
    return None


class TestCaught:
    def test_dynamic_attributes(self, watched: Any) -> None:
        assert violates(watched, lambda: getattr(time, "".join(["ti", "me"]))()) == "time.time()"

    def test_a_table_entry(self, watched: Any) -> None:
        assert violates(watched, lambda: {"read": time.time}["read"]()) == "time.time()"

    def test_a_subclass_of_datetime(self, watched: Any) -> None:
        assert violates(watched, lambda: Moment.now()) == "datetime.datetime.now()"

    def test_a_python_function_of_the_standard_library(self, watched: Any) -> None:
        assert violates(watched, lambda: uuid.uuid4()) == "uuid.uuid4()"
        assert violates(watched, lambda: random.randint(1, 6)) == "random.randint()"

    def test_a_helper_called_with_starred_arguments(self, watched: Any) -> None:
        # Python 3.12.1 reports no call event for f(*args) of a Python function.
        assert violates(watched, lambda: read(*[1, 2])) == "time.time()"

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="the profile hook does not see calls from C")
    def test_a_function_called_from_c(self, watched: Any) -> None:
        clocks = {"read": time.time}

        assert violates(watched, lambda: next(iter(clocks["read"], None))) == "time.time()"
        assert violates(watched, lambda: list(map(len, ["x"]))) is None

    def test_a_partial(self, watched: Any) -> None:
        assert violates(watched, lambda: functools.partial(read, 1)()) == "time.time()"

    def test_a_call_site_whose_callee_changes(self, watched: Any) -> None:
        def use() -> Any:
            result = None
            for function in [*[lambda: 1] * 100, time.time]:
                result = function()
            return result

        assert violates(watched, use) == "time.time()"

    def test_a_method_call_site_with_objects_of_two_classes(self, watched: Any) -> None:
        objects: list[Any] = [Quiet(), Quiet(), Clock()]

        assert violates(watched, lambda: [each.read() for each in objects]) == "time.time()"

    def test_methods_that_are_called_implicitly(self, watched: Any) -> None:
        assert violates(watched, lambda: len(Odd())) == "time.time_ns()"
        assert violates(watched, lambda: Odd().anything) == "os.getpid()"

    def test_a_module_imported_while_running(
        self, watched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "imported_late.py").write_text("import time\ndef pause():\n    time.sleep(0)\n")
        monkeypatch.syspath_prepend(str(tmp_path))

        def use() -> None:
            from importlib import import_module as find

            find("imported_late").pause()

        everywhere = "durabletask_aio.sandbox.runtime.execution.allowance.everywhere"
        monkeypatch.setattr(everywhere, lambda: frozenset({"dynamic-code"}))
        assert violates(watched, use) == "time.sleep()"

    def test_each_of_several_violations_in_one_turn(self, watched: Any) -> None:
        # The interpreter removes a profile hook that raises; the next call must be seen all the same.
        caught: list[str] = []

        async def workflow(ctx: Any) -> None:
            for function in (time.time, os.getpid, uuid.uuid4):
                try:
                    function()
                except SandboxViolationError as error:
                    caught.append(error.message.split("`")[1])

        outcome = watched(workflow)

        assert caught[0] == "time.time()"
        assert sys.version_info < (3, 12) or caught == ["time.time()", "os.getpid()", "uuid.uuid4()"]
        assert outcome.violation is not None

    def test_a_seeded_generator_never_and_an_unseeded_one_always(self, watched: Any) -> None:
        assert violates(watched, lambda: random.Random(7).random()) is None
        assert violates(watched, lambda: random.Random(7).choice("ab")) is None
        assert violates(watched, lambda: random.Random()) == "random.Random()"

    def test_times_that_are_given_are_fine(self, watched: Any) -> None:
        moment = time.gmtime(0)

        assert violates(watched, lambda: time.strftime("%Y", moment)) is None
        assert violates(watched, lambda: time.strftime("%Y")) == "time.strftime()"


class TestHidden:
    """Calls behind methods that Python calls implicitly, and in code that is compiled from text."""

    @pytest.mark.parametrize(
        "use",
        [
            lambda: SETTINGS.region,
            lambda: BY_REGION["north"].region,
            lambda: Settings().region,
            lambda: vars()["x"] if False else getattr(SETTINGS, "region"),  # noqa: B009
        ],
    )
    def test_the_environment_behind_an_attribute(self, strict: Any, use: Callable[[], Any]) -> None:
        assert violates(strict, use) == "os.environ"

    def test_the_environment_behind_an_object_that_is_made_by_a_function(self, strict: Any) -> None:
        made = functools.partial(Settings)

        assert violates(strict, lambda: made().region) == "os.environ"

    def test_the_environment_behind_a_module(
        self, strict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lazy_settings.py").write_text("import os\ndef __getattr__(name):\n    return os.environ['PATH']\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        module = importlib.import_module("lazy_settings")
        monkeypatch.setitem(globals(), "lazy_settings", module)

        assert violates(strict, lambda: lazy_settings.region) == "os.environ"  # type: ignore[name-defined]  # noqa: F821

    def test_the_environment_under_another_name(self, watched: Any) -> None:
        assert violates(watched, lambda: vars(os)["environ"].get("PATH")) == "os.environ"
        assert violates(watched, lambda: {"a": 1}.get("PATH")) is None

    @pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.monitoring tells of no subscripts")
    def test_the_environment_under_another_name_by_a_subscript(self, watched: Any) -> None:
        assert violates(watched, lambda: vars(os)["environ"]["PATH"]) == "os.environ"

    def test_a_metaclass(self, strict: Any) -> None:
        assert violates(strict, lambda: Letter()) == "time.time()"

    @pytest.mark.parametrize("made", ["time.time()", b"time.time()", "  [time.time() for _ in [1]]"])
    def test_text_that_is_evaluated(self, strict: Any, made: Any) -> None:
        with allow("dynamic-code"):
            assert violates(strict, lambda: eval(made)) == "time.time()"

    def test_text_that_is_run(self, strict: Any) -> None:
        text = "def later():\n    return time.time()"

        def use() -> Any:
            names: dict[str, Any] = {"time": time}
            exec(text, names)
            return names["later"]()

        with allow("dynamic-code"):
            assert violates(strict, use) == "time.time()"

    def test_code_that_was_compiled_before(self, strict: Any) -> None:
        code = compile("time.time()", "<formula>", "eval")

        with allow("dynamic-code"):
            assert violates(strict, lambda: eval(code)) == "time.time()"

    def test_a_violation_in_text_is_reported_at_the_line_that_runs_it(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return eval("time.time()")

        with allow("dynamic-code"):
            message = strict(workflow).violation.message

        assert f"test_sandbox_watch.py:{workflow.__code__.co_firstlineno + 1}" in message
        assert "which leads to <string>:1 in <module>()" in message


class TestEvalAndExec:
    """`eval` and `exec` work as without the sandbox, in every mode, inside and outside workflows."""

    @pytest.fixture(params=["strict", "best_effort"])
    def driver(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue(request.param)

    def result(self, driver: Any, body: Callable[[], Any]) -> Any:
        async def workflow(ctx: Any) -> Any:
            return body()

        with allow("dynamic-code"):
            outcome = driver(workflow)
        assert outcome.error is None
        # Also in an activity that shares the function.
        assert body() == outcome.result
        return outcome.result

    def test_names_are_those_of_the_caller(self, driver: Any) -> None:
        def body() -> Any:
            number = 2  # noqa: F841  # for the text
            return eval("number + len(SETTLED)"), eval(" number ", {"number": 3}), eval("number", None, {"number": 4})

        assert self.result(driver, body) == (5, 3, 4)

    def test_exec_can_bind_names(self, driver: Any) -> None:
        def body() -> Any:
            names: dict[str, Any] = {}
            exec("total = 1 + 1", names)
            inner: dict[str, Any] = {}
            exec("total = 3", {}, inner)
            return sorted(names.keys() - {"__builtins__"}), names["total"], inner

        assert self.result(driver, body) == (["total"], 2, {"total": 3})

    def test_future_statements_are_those_of_the_caller(self, driver: Any) -> None:
        def body() -> Any:
            names: dict[str, Any] = {}
            exec("def f(x: missing): ...", names)
            return names["f"].__annotations__

        # This file has `from __future__ import annotations`.
        assert self.result(driver, body) == {"x": "missing"}

    def test_mistakes_in_the_text_are_raised(self, driver: Any) -> None:
        def body() -> Any:
            try:
                eval("1 +")
            except SyntaxError as error:
                return error.filename, error.lineno
            return None

        assert self.result(driver, body) == ("<string>", 1)

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="keywords came with Python 3.13")
    def test_namespaces_by_keyword(self, driver: Any) -> None:
        def body() -> Any:
            number = 2
            assert number
            return eval("number", globals={"number": 5}), eval("number", locals={"number": 6})

        assert self.result(driver, body) == (5, 6)

    def test_text_is_not_kept(self, strict: Any) -> None:
        def body() -> Any:
            return sum(eval(f"{number} + 1") for number in range(100))

        before = len(_watched_codes())
        self.result(strict, body)
        assert len(_watched_codes()) - before < 50


def _watched_codes() -> dict[int, Any]:
    return monitoring.monitor(call_index)._codes


SETTLED = ["one", "two", "three"]


class TestInnocent:
    def test_calls_inside_libraries_are_ignored(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            logger.warning("logging reads the clock")
            kept = copy.deepcopy({"a": [1, 2]})
            try:
                raise ValueError("x")
            except ValueError:
                traceback.format_exc()
            return json.loads(json.dumps(kept)), asyncio.Event(), dt.datetime(2024, 1, 1), sorted("ba"), len("x")

        outcome = strict(workflow)

        assert (outcome.error, outcome.violation, outcome.warnings) == (None, None, [])

    def test_code_in_other_threads_is_not_checked(self, watched: Any) -> None:
        results: list[Any] = []
        entered, read_there = threading.Event(), threading.Event()

        def activity() -> None:
            entered.wait(30)
            results.append(read())
            read_there.set()

        thread = threading.Thread(target=activity)
        thread.start()

        def pause() -> None:
            entered.set()
            read_there.wait(30)

        async def workflow(ctx: Any) -> float:
            wait()
            return read()

        wait = pause
        try:
            outcome = watched(workflow)
        finally:
            thread.join()

        assert isinstance(results[0], float)
        assert isinstance(outcome.error, SandboxViolationError)

    def test_the_same_function_outside_of_a_workflow_is_not_checked(self, watched: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return read()

        assert watched(workflow).violation is not None
        assert isinstance(read(), float)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
class TestMonitoring:
    def test_stable_call_sites_are_disabled_and_others_are_not(self, watched: Any) -> None:
        seen: list[str] = []
        tool = monitoring.monitor(call_index)
        check_call = tool._check_call

        def counting(code: Any, offset: int, called: Any, first: Any) -> Any:
            seen.append(getattr(called, "__name__", ""))
            return check_call(code, offset, called, first)

        async def workflow(ctx: Any) -> None:
            local = len
            for _ in range(10):
                len("x")
                local("x")

        tool._check_call = counting  # type: ignore[method-assign]
        tool.stop()
        try:
            assert watched(workflow).error is None
        finally:
            tool._check_call = check_call  # type: ignore[method-assign]
            tool.stop()

        # The local is seen ten times, the global once.
        assert seen.count("len") == 11

    def test_the_tool_takes_none_of_the_reserved_ids(self, watched: Any) -> None:
        async def workflow(ctx: Any) -> None:
            return None

        watched(workflow)
        tool = monitoring.monitor(call_index)

        assert tool.tool in (3, 4, 5)
        assert sys.monitoring.get_tool(tool.tool) == "durabletask-aio"  # type: ignore[attr-defined,unused-ignore]

    def test_without_a_free_id_strict_warns_once_and_continues(self) -> None:
        api: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        monitoring.monitor(call_index).stop()
        execution._warned.clear()
        taken = [number for number in (3, 4, 5) if api.get_tool(number) is None]
        for number in taken:
            api.use_tool_id(number, "another")

        async def workflow(ctx: Any) -> float:
            return time.time()

        sandbox = WorkflowSandbox(frozenset({Layer.REDIRECT, Layer.MONITORING}))
        try:
            with pytest.warns(NonDeterminismWarning, match=r"All tool ids of sys\.monitoring .* are taken"):
                guard = sandbox.guard(workflow, SandboxMode.STRICT, workflow_name="workflow")
            # The second registration does not warn again; warnings are errors here.
            sandbox.guard(workflow, SandboxMode.STRICT, workflow_name="workflow")
        finally:
            for number in taken:
                api.free_tool_id(number)
        assert guard is not None

    def test_code_outside_workflows_has_no_events(self, watched: Any) -> None:
        async def workflow(ctx: Any) -> None:
            return None

        def elsewhere() -> None:
            return None

        watched(workflow)
        tool = monitoring.monitor(call_index)
        api: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]

        assert api.get_local_events(tool.tool, workflow.__code__) == api.events.CALL
        assert api.get_local_events(tool.tool, elsewhere.__code__) == 0
        assert api.get_events(tool.tool) == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the profile hook serves Python 3.10 and 3.11")
class TestProfiling:
    def test_the_hook_is_set_only_while_the_workflow_runs(self, watched: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return None

        assert sys.getprofile() is None
        watched(workflow)
        assert sys.getprofile() is None

    def test_another_profiler_stays(self, watched: Any) -> None:
        seen: list[str] = []

        def other(frame: Any, event: str, argument: Any) -> None:
            seen.append(frame.f_code.co_name)

        async def workflow(ctx: Any) -> None:
            return None

        sys.setprofile(other)
        try:
            watched(workflow)
            assert sys.getprofile() is other
        finally:
            sys.setprofile(None)
        assert "workflow" in seen
