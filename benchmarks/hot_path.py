"""What each unusual piece of code on the hot path of a replay saves: the same replay with and without it.

Every entry undoes one trick by replacing it with the ordinary form while a history is replayed, in alternation with
the replay as it is.  The median of the differences between neighbours counts: what else the machine does hits both
alike.  Run it on every supported version of Python before a trick is added or removed.  The comments in the source name
the entry.

`python benchmarks/hot_path.py [--rounds N] [entry ...]`
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from core_replay import (  # pyright: ignore[reportImplicitRelativeImport]
    all_at_once,
    gathered_helpers,
    one_after_another,
    replays,
    sequence,
)
from durabletask import task

from durabletask_aio.core import _interpreter, context, disposal, execution, loop, operations

SIZE = 500
Undo = Callable[[], Any]

ENTRIES: dict[str, tuple[str, Any, Undo]] = {}
"""By name: what the ordinary form is, the workload, and a context manager that puts the ordinary form in place."""


def entry(ordinary: str, workload: str = "sequence") -> Callable[[Undo], Undo]:
    def register(undo: Undo) -> Undo:
        ENTRIES[undo.__name__] = (ordinary, workload, contextmanager(undo))
        return undo

    return register


@entry("context.call_activity(...) of upstream")
def call_activity() -> Iterator[None]:
    def ordinary(ctx: Any, activity: Any, input: Any, retry_policy: Any, tags: Any, return_type: Any) -> Any:  # noqa: A002
        return ctx.call_activity(activity, input=input, retry_policy=retry_policy, tags=tags, return_type=return_type)

    with mock.patch.object(context, "call_activity", ordinary):
        yield


@entry("super().__init__(...), in a function of its own, which costs a call more")
def init_future() -> Iterator[None]:
    def ordinary(self: Any, *, loop: Any) -> None:
        super(operations.ScheduledOperation, self).__init__(loop=loop)

    with mock.patch.object(operations, "_init_future", ordinary):
        yield


@entry("an __await__ for every operation")
def await_future() -> Iterator[None]:
    kind: Any = operations.ScheduledOperation
    kind.__await__ = operations._NotesAwaits.__await__
    try:
        yield
    finally:
        del kind.__await__


class _Composite(task.CompositeTask[Any]):
    """The public way to be told when a task completes."""

    def __init__(self, upstream_task: task.Task[Any], listener: Any) -> None:
        self._listener = listener
        super().__init__([upstream_task])

    def on_child_completed(self, task: task.Task[Any]) -> None:
        self._listener.on_child_completed(task)


class _Subscribing(dict[int, Any]):
    def __init__(self, upstream_task: Any) -> None:
        super().__init__()
        self._task = upstream_task

    def __setitem__(self, key: int, listener: Any) -> None:
        _Composite(self._task, listener)


@entry("a CompositeTask for each task")
def composite_task() -> Iterator[None]:
    with mock.patch.object(operations, "listeners_by_key", _Subscribing):
        yield


@entry("attach() and detach() around each stretch of code")
def run_attached() -> Iterator[None]:
    def ordinary(self: Any, upstream: Any, code: Callable[[], None]) -> None:
        self.attach(upstream)
        try:
            code()
        finally:
            self.detach()

    with mock.patch.object(execution.Execution, "run_attached", ordinary):
        yield


@entry("no look at the caller in create_future and create_task", "gathered_helpers")
def caller_checks() -> Iterator[None]:
    def unchecked(*args: Any) -> None:
        """Let everything through."""

    with mock.patch.object(loop, "check_new_future", unchecked), mock.patch.object(loop, "check_new_task", unchecked):
        yield


@entry("hooks set and reset around each stretch of code")
def asyncgen_hooks() -> Iterator[None]:
    original = disposal.register

    def register(run: Any) -> bool:
        original(run)
        return False

    def abandon() -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, _interpreter._leave_generator)
        return hooks

    with (
        mock.patch.object(disposal, "register", register),
        mock.patch.object(_interpreter, "abandon_async_generators", abandon),
    ):
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("entries", nargs="*", metavar="entry", help=f"one of {', '.join(ENTRIES)}")
    arguments = parser.parse_args()
    unknown = set(arguments.entries) - set(ENTRIES)
    if unknown:
        parser.error(f"there is no entry {', '.join(sorted(unknown))}")
    workloads = {
        "sequence": replays(sequence, one_after_another(SIZE)),
        "gathered_helpers": replays(gathered_helpers, all_at_once(SIZE)),
    }
    print(f"Python {sys.version.split()[0]}; microseconds per activity, medians of {arguments.rounds} rounds")
    for name in arguments.entries or ENTRIES:
        ordinary, workload, undo = ENTRIES[name]
        with_trick, saved = _alternate(workloads[workload], undo, arguments.rounds)
        print(
            f"  {name:<16}{with_trick:7.2f} us, saves {saved:5.2f} us, {saved / with_trick:6.1%}"
            f"   ({workload}; instead: {ordinary})",
            flush=True,
        )
    return 0


def _alternate(execute: Callable[[], Any], undo: Undo, rounds: int) -> tuple[float, float]:
    """Return the microseconds per activity with the trick, and how many it saves."""
    taken: list[float] = []
    saved: list[float] = []
    gc.disable()
    try:
        for number in range(rounds):
            gc.collect()
            without = 0.0
            if number % 2:
                with undo():
                    without = _time(execute)
            taken.append(_time(execute))
            if not number % 2:
                with undo():
                    without = _time(execute)
            saved.append(without - taken[-1])
    finally:
        gc.enable()
    return statistics.median(taken) / SIZE * 1e6, statistics.median(saved) / SIZE * 1e6


def _time(execute: Callable[[], Any]) -> float:
    started = time.process_time()
    execute()
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
