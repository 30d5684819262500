"""CPython's own asyncio tests, run as workflows on a virtual clock.

Every interpreter contains them, in `test.test_asyncio`.  Two kinds are adapted.  A test method that is a
coroutine becomes a workflow, which the harness runs turn by turn (so that its beginning is replayed in every turn),
and which is then replayed from its history.  A test method that is a plain function and drives a loop itself
(`self.loop.run_until_complete(...)`) is given the loop of a live workflow instance, extended by just that.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import importlib
import inspect
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, cast
from unittest import mock

from durabletask.aio import AsyncWorkflowContext, as_orchestrator
from turns import Instance, new_executor, replay

from durabletask_aio.core import _interpreter
from durabletask_aio.core.hosting import turn_scope
from durabletask_aio.core.loop import WorkflowFuture, WorkflowLoop

MODULES = ("locks", "queues", "timeouts", "taskgroups", "waitfor")
"""What is run whole, where the interpreter has it."""

FROM_TASKS = ("SleepTests", "WaitTests", "FutureGatherTests", "CoroutineGatherTests", "CTask_CFuture_Tests")
"""Of `test_tasks`: sleep, gather, wait, as_completed, shield and tasks; the rest tests other implementations."""

USE_TIME = ("timeouts", "waitfor")
"""Modules that look at the clock themselves, with the module `time`."""


class Case(NamedTuple):
    """One test method of CPython's."""

    module: str
    cls: type[unittest.TestCase]
    method: str

    @property
    def name(self) -> str:
        return f"{self.module}.{self.cls.__name__}.{self.method}"

    @property
    def is_async(self) -> bool:
        if not issubclass(self.cls, unittest.IsolatedAsyncioTestCase):
            return False
        method = getattr(self.cls, self.method)
        return inspect.iscoroutinefunction(method) or "get_event_loop" not in method.__code__.co_names


def imported(module: str) -> types.ModuleType | None:
    """CPython's test module for `module`; `None` where this Python has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module(f"test.test_asyncio.test_{module}")
        except ModuleNotFoundError:
            return None


def cases() -> Iterator[Case]:
    """Yield the cases of this interpreter that are run here."""
    for module in (*MODULES, "tasks"):
        source = imported(module)
        if source is None:
            continue
        for name, cls in vars(source).items():
            if not (inspect.isclass(cls) and issubclass(cls, unittest.TestCase)) or cls.__module__ != source.__name__:
                continue
            if module == "tasks" and name not in FROM_TASKS:
                continue
            for method in unittest.TestLoader().getTestCaseNames(cls):
                yield Case(module, cls, method)


def run(case: Case) -> None:
    """Run one case; raises what the test raises, `unittest.SkipTest` included."""
    method = getattr(case.cls, case.method)
    for marked in (case.cls, method):
        if getattr(marked, "__unittest_skip__", False):
            raise unittest.SkipTest(getattr(marked, "__unittest_skip_why__", ""))
    if case.is_async:
        _run_as_workflow(case)
    else:
        _run_on_live_loop(case)


class WorkflowTime:
    """Stands in for the module `time` in CPython's test module: its clocks are the workflow's."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    perf_counter = time = monotonic


# -- test methods that are coroutines --------------------------------------------------------------------------------


def _run_as_workflow(case: Case) -> None:
    problems: list[BaseException] = []

    @as_orchestrator
    async def workflow(ctx: AsyncWorkflowContext) -> None:
        problems.clear()  # only those of the last replay
        try:
            await _test(case)
        except (Exception, asyncio.CancelledError) as problem:
            problems.append(problem)

    source = sys.modules[case.cls.__module__]
    had_time = vars(source).get("time")
    if had_time is not None:
        source.time = WorkflowTime  # type: ignore[attr-defined]
    try:
        instance = Instance(workflow, instance_id=case.name).run(limit=500)
        if problems:
            raise problems[0]
        assert instance.result is None
        replay(instance)
        if problems:
            raise AssertionError("another outcome on replay") from problems[0]
    finally:
        if had_time is not None:
            source.time = had_time  # type: ignore[attr-defined]


async def _test(case: Case) -> None:
    """What `IsolatedAsyncioTestCase.run` does, without its own loop."""
    test: Any = case.cls(case.method)
    try:
        test.setUp()
        await test.asyncSetUp()
        try:
            returned = getattr(test, case.method)()
            if inspect.isawaitable(returned):
                await returned
        finally:
            await test.asyncTearDown()
            test.tearDown()
    finally:
        while test._cleanups:
            function, args, kwargs = test._cleanups.pop()
            returned = function(*args, **kwargs)
            if inspect.isawaitable(returned):
                await returned


# -- test methods that drive a loop themselves -----------------------------------------------------------------------


class LiveLoop(WorkflowLoop):
    """The loop of a live workflow instance, and what a plain test function needs to drive it, an iteration at a time.

    An iteration at a time, because tests of this kind say after how many of them something has happened.
    """

    live: LiveInstance
    _stopping = False

    def set_task_factory(self, factory: Any) -> None:
        """The tests set one that makes a certain kind of task; here tasks are to be the workflow's."""

    def _run_once(self) -> None:
        """One iteration as other loops have it: what is ready now, and not what becomes ready meanwhile."""
        current, self._ready = self._ready, collections.deque()
        saved = _interpreter.swap_loop(self)
        try:
            while current:
                handle = current.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            _interpreter.restore_loop(saved)
            self._ready.extendleft(reversed(current))

    def run_forever(self) -> None:
        self._stopping = False
        while not self._stopping:
            if not self._ready:
                self.live.fire_next_timer()
            self._run_once()

    def run_until_complete(self, future: Any) -> Any:
        new = not asyncio.isfuture(future)
        future = asyncio.ensure_future(future, loop=self)
        future.add_done_callback(self._done)
        try:
            self.run_forever()
        except BaseException:
            if new and future.done() and not future.cancelled():
                future.exception()
            raise
        finally:
            future.remove_done_callback(self._done)
        if not future.done():
            msg = "Event loop stopped before Future completed."
            raise RuntimeError(msg)
        return future.result()

    def _done(self, future: Any) -> None:
        if not future.cancelled() and isinstance(future.exception(), SystemExit | KeyboardInterrupt):
            return  # the loop raises it of itself
        self.stop()

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self.live.close()

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self) -> None:
        pass

    def advance_time(self, advance: float) -> None:
        self.live.advance(advance)


class LiveInstance:
    """A workflow instance that stays suspended while a plain function uses its loop."""

    def __init__(self) -> None:
        loops: list[WorkflowLoop] = []

        @as_orchestrator
        async def host(ctx: AsyncWorkflowContext) -> None:
            loops.append(asyncio.get_running_loop())  # type: ignore[arg-type]
            await ctx.wait_for_external_event("the end")

        self._instance = Instance(host)
        self._actions: dict[int, Any] = {}
        executor = new_executor(self._instance)
        executor.open(self._instance.instance_id)
        executor.set_replaying(False)
        executor.keep_actions_in(self._actions)
        self._scope = turn_scope()
        with self._scope:
            for event in self._instance.batch(self._instance.started):
                executor.feed(event)
            self._scope.keep()
        self.context = executor.context
        self.loop = cast(LiveLoop, loops[0])
        self.loop.__class__ = LiveLoop  # type: ignore[type-abstract]
        self.loop.live = self
        self._now = self._instance.now
        self._attach()

    def _attach(self) -> None:
        self.loop.execution.attach(self.context)

    def fire_next_timer(self) -> None:
        """Let the engine fire the earliest timer; the clock moves to its time."""
        timers = [
            (action.createTimer.fireAt.ToDatetime(), step)
            for step, action in self._actions.items()
            if action.HasField("createTimer")
        ]
        if not timers:
            msg = "nothing is ready, and there is no timer: a real loop would wait forever"
            raise AssertionError(msg)
        when, step = min(timers)
        self._now = max(self._now, when)
        self.context.current_utc_datetime = self._now
        del self._actions[step]
        timer = self.context._pending_tasks.pop(step)
        timer.complete(None)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self.context.current_utc_datetime = self._now

    def close(self) -> None:
        for run_ in self._scope.runs:
            run_.dispose()


def _run_on_live_loop(case: Case) -> None:
    live: list[LiveInstance] = []

    def new_test_loop(self: Any, gen: Callable[..., Any] | None = None) -> Any:
        asyncio.set_event_loop(None)
        instance = LiveInstance()
        live.append(instance)
        return instance.loop

    replaced = {
        "new_test_loop": new_test_loop,
        "set_event_loop": _set_event_loop,
        "new_task": _new_task,
        "new_future": _new_future,
    }
    if issubclass(case.cls, unittest.IsolatedAsyncioTestCase):
        replaced |= {name: vars(unittest.TestCase)[name] for name in _CALLS_OF_UNITTEST}
        replaced["run"] = _run_plainly
    adapted = type(case.cls.__name__, (case.cls,), replaced)
    test: Any = adapted(case.method)
    result = unittest.TestResult()
    try:
        # Some tests make their loop with the public function.
        with warnings.catch_warnings(), mock.patch("asyncio.new_event_loop", functools.partial(new_test_loop, test)):
            # CPython's runner shows them, and some tests provoke them.
            warnings.simplefilter("ignore")
            test.run(result)
    finally:
        for instance in live:
            instance.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(None)  # as CPython's test modules leave it
    if result.skipped:
        raise unittest.SkipTest(result.skipped[0][1])
    for _, trace in (*result.errors, *result.failures):
        raise AssertionError(trace)


_CALLS_OF_UNITTEST = ("_callSetUp", "_callTestMethod", "_callTearDown", "_callCleanup")


def _new_task(self: Any, loop: Any, coro: Any, name: str = "TestTask", context: Any = None, **kwargs: Any) -> Any:
    return loop.create_task(coro, name=name, context=context, **kwargs)


def _new_future(self: Any, loop: Any) -> Any:
    # Not loop.create_future(): the tests let that call this.
    return WorkflowFuture(loop) if isinstance(loop, WorkflowLoop) else loop.create_future()


def _run_plainly(self: Any, result: Any = None) -> None:
    """A plain test method of an `IsolatedAsyncioTestCase`, which looks for its loop with `get_event_loop`."""
    asyncio.set_event_loop(self.new_test_loop())
    try:
        unittest.TestCase.run(self, result)
    finally:
        asyncio.set_event_loop(None)


def _set_event_loop(self: Any, loop: Any, *, cleanup: bool = True) -> None:
    """As upstream's, without closing an executor that there is not."""
    asyncio.set_event_loop(None)
