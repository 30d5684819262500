"""`StepFunctions`: runs the functions of steps in an environment, or the stubs that take their place."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

from durabletask_aio.core import hosting
from durabletask_aio.testing.stubs import NEVER, ActivityCall, Stub


class StepFunctions:
    """Runs the steps of one environment; implements the core's `StepRunner`.

    In one thread, one after the other in the order of their calls, so that a test always sees the same order.
    """

    def __init__(self, stubs: dict[str, Stub], now: Callable[[], datetime]) -> None:
        """Use the stubs of an environment, and its clock."""
        self._stubs = stubs
        self._now = now
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        """Run a function, or the stub of that name.

        Returns:
            The future of its result.
        """
        stub = self._stubs.get(name)
        if stub is not None:
            function = functools.partial(_answer, stub, function, self._record(stub, function))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="durabletask-aio-testing-steps")
        return self._thread.submit(_run, function)

    def _record(self, stub: Stub, function: Callable[[], Any]) -> ActivityCall:
        instance_id, number = hosting.submitted_step() or ("", -1)
        call = ActivityCall(stub.name, list(getattr(function, "args", ())), instance_id, number, self._now(), {})
        stub.calls.append(call)
        return call

    def close(self) -> None:
        """End the thread, after the function that runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()


def _answer(stub: Stub, function: Callable[[], Any], call: ActivityCall) -> Any:
    try:
        answer = _outcome(stub, function)
        if answer is NEVER:
            raise TimeoutError("the stub of the step never ends, so that its time is over")
        call.result = asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer
    except BaseException as error:
        call.error = error
        raise
    finally:
        call.is_done = True
    return call.result


def _outcome(stub: Stub, function: Callable[[], Any]) -> Any:
    values: tuple[Any, ...] = getattr(function, "args", ())
    if stub.replacement is None:
        return stub.answer(None, None)
    return stub.replacement(*values, **getattr(function, "keywords", {}))


def _run(function: Callable[[], Any]) -> Any:
    result = function()
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(value: Any) -> Any:
    return await value
