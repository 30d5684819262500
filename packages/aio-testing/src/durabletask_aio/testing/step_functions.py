"""`StepFunctions`: runs the functions of steps in an environment, or the stubs that take their place."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from durabletask_aio.testing.stubs import NEVER, Stub


class StepFunctions:
    """Runs the steps of one environment; implements the core's `StepRunner`.

    In one thread, one after the other in the order of their calls, so that a test always sees the same order.
    """

    def __init__(self, stubs: dict[str, Stub]) -> None:
        self._stubs = stubs
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        """Run a function, or the stub of that name.

        Returns:
            The future of its result.
        """
        stub = self._stubs.get(name)
        if stub is not None:
            function = functools.partial(_answer, stub, function)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="durabletask-aio-testing-steps")
        return self._thread.submit(_run, function)

    def close(self) -> None:
        """End the thread, after the function that runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()


def _answer(stub: Stub, function: Callable[[], Any]) -> Any:
    values: tuple[Any, ...] = getattr(function, "args", ())
    answer = stub.answer(None, None) if stub.replacement is None else stub.replacement(*values)
    if answer is NEVER:
        raise TimeoutError("the stub of the step never ends, so that its time is over")
    return answer


def _run(function: Callable[[], Any]) -> Any:
    result = function()
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(value: Any) -> Any:
    return await value
