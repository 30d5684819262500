"""Step runners for tests: one that runs each step at once, and one whose steps end in a random order."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from random import Random
from typing import Any


class StepsAtOnce:
    """Runs each function when it is submitted, and lists the names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        self.names.append(name)
        future: Future[Any] = Future()
        thread = threading.Thread(target=_run, args=(function, future))  # which has no running loop
        thread.start()
        thread.join()
        return future


class StepsInRandomOrder:
    """Ends the steps that run at the same time in an order of its own."""

    def __init__(self, seed: object) -> None:
        self._random = Random(f"steps/{seed}")
        self._waiting: list[tuple[Callable[[], Any], Future[Any]]] = []
        self.names: list[str] = []

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        self.names.append(name)
        future: Future[Any] = Future()
        self._waiting.append((function, future))
        # The turn begins to wait when its code has submitted all that it submits.
        timer = threading.Timer(0.001, self._end_one)
        timer.start()
        return future

    def _end_one(self) -> None:
        function, future = self._waiting.pop(self._random.randrange(len(self._waiting)))
        if future.set_running_or_notify_cancel():
            _run(function, future)


def _run(function: Callable[[], Any], future: Future[Any]) -> None:
    async def awaited(value: Any) -> Any:
        return await value

    try:
        result = function()
        if inspect.isawaitable(result):
            result = asyncio.run(awaited(result))
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
