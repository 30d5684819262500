"""Combinations of operations, tasks and coroutines: `when_all`, `when_any`, `gather` and `with_timeout`.

Each is an operation itself, so it can be awaited twice, raced and cancelled.  They listen to operations directly, and
not through the loop's ready queue, which makes them cheaper than `asyncio.gather` (`benchmarks/core_replay.py`).
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from durabletask_aio.core import _interpreter
from durabletask_aio.core._upstream import task
from durabletask_aio.core.descriptions import close_if_coroutine
from durabletask_aio.core.errors import NonDeterministicUseError, WorkflowTimeoutError, WorkflowValidationError, shown
from durabletask_aio.core.failures import foreign_future
from durabletask_aio.core.operations import ScheduledOperation, is_done
from durabletask_aio.core.timers import in_words

if TYPE_CHECKING:
    from durabletask_aio.core.loop import WorkflowLoop
    from durabletask_aio.core.operations import OperationListener

T = TypeVar("T")


def as_future(loop: WorkflowLoop, awaitable: Any, function: str) -> asyncio.Future[Any]:
    """Return a future for anything that can be awaited; a coroutine becomes a task.

    Raises:
        WorkflowValidationError: for what cannot be awaited; the message names the `function` it was given to.
    """
    if isinstance(awaitable, asyncio.Future):
        if awaitable.get_loop() is not loop:
            raise foreign_future(loop.execution, f"ctx.{function} was given", _shown(awaitable))
        return awaitable  # pyright: ignore[reportUnknownVariableType]
    if inspect.iscoroutine(awaitable):
        return loop.create_task(awaitable)
    if isinstance(awaitable, task.Task):
        raise loop.execution.usage_error(
            f"ctx.{function} was given a task of upstream's own context, which cannot be awaited as it is",
            f"await ctx.{function}([ctx.upstream_context.call_activity(...)])",
            f"await ctx.{function}([ctx.call_activity(...)]), or for a library's task "
            f"await ctx.{function}([ctx.wait_for_task(agent.run(...))])",
        )
    if inspect.isawaitable(awaitable):
        return loop.create_task(_awaiting(awaitable))
    if function == "gather" and isinstance(awaitable, list | tuple | set | frozenset | Iterator):
        kind = "generator" if isinstance(awaitable, Iterator) else type(cast(object, awaitable)).__name__
        raise loop.execution.usage_error(
            f"ctx.gather takes awaitables, and was given a {kind} of them",
            "await ctx.gather([first, second])",
            "await ctx.gather(first, second) or await ctx.gather(*several)",
        )
    kind = type(awaitable).__name__
    form = {"gather": "ctx.gather({0})", "with_timeout": "ctx.with_timeout({0}, 30)"}
    call = form.get(function, f"ctx.{function}([{{0}}])")
    raise loop.execution.usage_error(
        f"ctx.{function} takes operations, tasks and coroutines, and not {kind!r}: {shown(awaitable)}",
        "await " + call.format("work" if callable(awaitable) else shown(awaitable)),
        "await " + call.format("ctx.call_activity(work)"),
    )


def futures_of(loop: WorkflowLoop, awaitables: Iterable[Any], function: str) -> list[asyncio.Future[Any]]:
    """Return the futures of several awaitables, in order.

    As with `asyncio.gather`, an awaitable that is given twice is one part; and if one cannot be awaited, those before
    it have been started.  The coroutines after it are closed.
    """
    made: dict[int, asyncio.Future[Any]] = {}
    futures: list[asyncio.Future[Any]] = []
    try:
        for awaitable in awaitables:
            future = made.get(id(awaitable)) if made else None
            if future is None:
                future = as_future(loop, awaitable, function)
                if future is not awaitable:  # Its task refers to it, so that its id stays unique.
                    made[id(awaitable)] = future
            futures.append(future)
    except WorkflowValidationError:
        for awaitable in awaitables if isinstance(awaitables, Sequence) else ():
            if id(awaitable) not in made:
                close_if_coroutine(awaitable)
        raise
    return futures


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _shown(value: Any) -> str:
    return value.description if isinstance(value, ScheduledOperation) else repr(value)


def parts_of(
    loop: WorkflowLoop, awaitables: Any, function: str, separate: tuple[Any, ...] = ()
) -> list[asyncio.Future[Any]]:
    """Return the futures of an iterable of awaitables, in order; `separate` are wrong additional arguments."""
    given: object = awaitables
    if separate or isinstance(given, asyncio.Future) or not isinstance(given, Iterable):
        for value in (awaitables, *separate):
            close_if_coroutine(value)
        raise loop.execution.usage_error(
            f"ctx.{function} takes one list of awaitables, and was given {shown(awaitables)}",
            f"await ctx.{function}(first, second)",
            f"await ctx.{function}([first, second])",
        )
    mapping: Mapping[object, object] = cast("Any", given) if isinstance(given, Mapping) else {}
    if mapping and not any(map(inspect.isawaitable, mapping)):
        for value in mapping.values():
            close_if_coroutine(value)
        raise loop.execution.usage_error(
            f"ctx.{function} takes a list of awaitables, and was given a mapping, which lists its keys",
            f"await ctx.{function}(operations)",
            f"await ctx.{function}(operations.values())",
        )
    several: Iterable[Any] = awaitables
    if isinstance(given, set | frozenset) and any(map(inspect.iscoroutine, several)):
        for value in several:
            close_if_coroutine(value)
        raise loop.execution.error(
            NonDeterministicUseError,
            f"ctx.{function} was given a set of coroutines, which would start in the order of their memory addresses, "
            f"and that is another one on replay\n"
            f"  wrong: await ctx.{function}({{work(x) for x in values}})\n"
            f"  right: await ctx.{function}([work(x) for x in values])",
        )
    return futures_of(loop, several, function)


class Combination(ScheduledOperation[T]):
    """An operation made of others.  `cancel` cancels the parts, and takes effect when the last of them is done."""

    __slots__ = ("_cancel_message", "_cancel_requested", "_parts")

    def __init__(self, loop: WorkflowLoop, kind: str, parts: Sequence[asyncio.Future[Any]]) -> None:
        super().__init__(loop, kind, f"{len(parts)} awaitables", None)
        self._parts = parts
        self._cancel_requested = False
        self._cancel_message: Any = None
        loop.unawaited[id(self)] = self

    def __await__(self) -> Generator[Any, None, T]:
        self._loop.unawaited.pop(id(self), None)
        return super().__await__()

    def add_listener(self, listener: OperationListener) -> None:
        """Call `listener` when this combination, which is pending, is done."""
        self._loop.unawaited.pop(id(self), None)
        super().add_listener(listener)

    def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
        """Call a function when this combination is done, as `asyncio.wait` does."""
        self._loop.unawaited.pop(id(self), None)
        super().add_done_callback(*args, **kwargs)

    def _listen(self, part: asyncio.Future[Any]) -> None:
        if isinstance(part, ScheduledOperation):
            part.add_listener(self)
        else:
            part.add_done_callback(self.operation_done)

    def _ignore(self, part: asyncio.Future[Any]) -> None:
        if isinstance(part, ScheduledOperation):
            part.remove_listener(self)
        else:
            part.remove_done_callback(self.operation_done)

    def operation_done(self, operation: asyncio.Future[Any]) -> None:
        """Take note that a part is done; called by the part."""
        raise NotImplementedError

    def _succeed(self, result: Any) -> None:
        self.set_result(result)
        self._finished()

    def _fail(self, error: BaseException) -> None:
        self.set_exception(error)
        # As with any operation, a failure that is never retrieved is not reported: it may have lost a race.
        _interpreter.mute_exception(self)
        self._finished()

    def _cancelled(self, error: BaseException | None = None) -> None:
        """Finish as cancelled: as was asked for, or as the part was that raised `error`."""
        msg = self._cancel_message if self._cancel_requested or error is None else message_of(error)
        super(ScheduledOperation, self).cancel(msg)  # The future alone: there is no task of upstream's to cancel.
        self._finished()

    def _finished(self) -> None:
        self.order = next(self._loop.completions)
        self.notify_listeners()

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the parts; takes effect when the last of them is done.

        Args:
            msg: the message of the `CancelledError` that awaiting the combination raises; of several, the last.

        Returns:
            `False` if the combination was done already.
        """
        if is_done(self):
            return False
        self.mark_used()
        self._cancel_requested = True
        self._cancel_message = msg
        for part in self._parts:
            part.cancel(msg)
        return True


def message_of(error: BaseException) -> Any:
    """Return the message that a cancellation was requested with, or `None`; it need not be text."""
    return error.args[0] if error.args else None


def failure_of(part: asyncio.Future[Any]) -> BaseException | None:
    """Return the exception of a done future, a cancellation included; it then counts as retrieved."""
    if part.cancelled():
        try:
            part.result()
        except asyncio.CancelledError as error:
            # With its message, by which libraries recognise their own cancellations.
            return error.with_traceback(None)
    return part.exception()


def _outcome(part: asyncio.Future[Any]) -> Any:
    """Return the result of a done future, or its exception."""
    failure = failure_of(part)
    return part.result() if failure is None else failure


class WhenAll(Combination[list[Any]]):
    """The results of all parts, in the order they were given."""

    __slots__ = ("_fail_fast", "_first_failure", "_left", "_return_exceptions")

    def __init__(
        self,
        loop: WorkflowLoop,
        kind: str,
        parts: Sequence[asyncio.Future[Any]],
        *,
        fail_fast: bool,
        return_exceptions: bool = False,
    ) -> None:
        super().__init__(loop, kind, parts)
        self._fail_fast = fail_fast
        self._return_exceptions = return_exceptions
        self._first_failure: BaseException | None = None
        # By id, which is faster than by our hash; a part that was given twice is listened to once.
        distinct = parts if len(set(map(id, parts))) == len(parts) else dict.fromkeys(parts)
        done = [part for part in distinct if part.done()]
        self._left = len(distinct) - len(done)
        for part in distinct:
            if not done or not part.done():
                self._listen(part)
        for part in done:
            if not is_done(self):
                self._note_failure(part)
        if not self._left and not is_done(self):
            self._finish()

    def operation_done(self, operation: asyncio.Future[Any]) -> None:
        """Count the part, and finish with the last one or, if asked to, with the first failure."""
        self._left -= 1
        if (operation.cancelled() or operation.exception() is not None) and not is_done(self):
            self._note_failure(operation)
        if not self._left and not is_done(self):
            self._finish()

    def _note_failure(self, part: asyncio.Future[Any]) -> None:
        failure = failure_of(part)
        if failure is None or self._return_exceptions:
            return
        if self._first_failure is None:
            self._first_failure = failure
        if self._fail_fast and not self._cancel_requested:
            self._settle_failure(failure)

    def _settle_failure(self, failure: BaseException) -> None:
        if isinstance(failure, asyncio.CancelledError):
            self._cancelled(failure)
        else:
            self._fail(failure)

    def _finish(self) -> None:
        if self._cancel_requested:
            self._cancelled()
        elif self._first_failure is not None:
            self._settle_failure(self._first_failure)
        elif self._return_exceptions:
            self._succeed([_outcome(part) for part in self._parts])
        else:
            self._succeed([part.result() for part in self._parts])


class WhenAny(Combination[Any]):
    """The index and the value of the part that is done first; the others continue."""

    __slots__ = ("_with_index",)

    def __init__(
        self, loop: WorkflowLoop, kind: str, parts: Sequence[asyncio.Future[Any]], *, with_index: bool
    ) -> None:
        super().__init__(loop, kind, parts)
        self._with_index = with_index
        done = [part for part in parts if part.done()]
        if done:
            self._won_by(min(done, key=_completion_order))
            return
        for part in dict.fromkeys(parts):
            self._listen(part)

    def operation_done(self, operation: asyncio.Future[Any]) -> None:
        """Finish with this part, the winner, and stop listening to the others."""
        if is_done(self):
            return
        for part in self._parts:
            if part is not operation:
                # Otherwise an operation that takes part in race after race in a loop keeps a listener of each.
                self._ignore(part)
        self._won_by(operation)

    def _won_by(self, winner: asyncio.Future[Any]) -> None:
        index = next(index for index, part in enumerate(self._parts) if part is winner)
        failure = failure_of(winner)
        if failure is None:
            self._succeed((index, winner.result()) if self._with_index else winner.result())
            return
        with contextlib.suppress(AttributeError):  # An exception type with slots.
            failure.winner_index = index  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(failure, asyncio.CancelledError):
            self._cancelled(failure)
        else:
            self._fail(failure)

    def cancel(self, msg: Any = None) -> bool:
        """Stop waiting; the parts continue, as the losers of a race do, and can still be awaited."""
        if is_done(self):
            return False
        self.mark_used()
        for part in self._parts:
            self._ignore(part)
        self._cancel_message = msg
        self._cancelled()
        return True


def _completion_order(future: asyncio.Future[Any]) -> float:
    """Return the place of a done future among all that has completed.

    A task gets its place by a callback, one step after it is done; one without a place is therefore the latest.
    """
    return getattr(future, "order", 0) or math.inf


class Timeout(Combination[Any]):
    """The outcome of one part, unless a timer is done before it."""

    __slots__ = ("_expired", "_seconds", "_timer")

    def __init__(
        self,
        loop: WorkflowLoop,
        part: asyncio.Future[Any],
        seconds: float | None,
        timer: ScheduledOperation[Any] | None,
    ) -> None:
        super().__init__(loop, "with_timeout", [part])
        self._seconds = seconds
        self._timer = timer
        self._expired = False
        if part.done():
            self.operation_done(part)
            return
        self._listen(part)
        if timer is not None:
            timer.add_listener(self)
        elif seconds is not None:  # No time at all: as in asyncio.wait_for, what is not done by now has timed out.
            self._expire(part)

    def operation_done(self, operation: asyncio.Future[Any]) -> None:
        """Finish with the part, or, if it was the timer, cancel the part."""
        part = self._parts[0]
        if operation is not part:
            self._when_running(self._expire, part)
            return
        if self._timer is not None:
            self._timer.remove_listener(self)
            self._when_running(self._timer.cancel)
        if is_done(self):
            return
        if part.cancelled():
            if self._expired and not self._cancel_requested:
                self._fail(self._timeout(part))
            else:
                self._cancelled(failure_of(part))
        elif (failure := part.exception()) is not None:
            self._fail(failure)
        else:
            self._succeed(part.result())

    def _when_running(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` where upstream can be called: now, or, from within one of upstream's events, right after it.

        It is then run before everything that this event makes ready.
        """
        if self._loop.execution.attached:
            function(*args)
        else:
            self._loop.call_soon(function, *args)

    def _expire(self, part: asyncio.Future[Any]) -> None:
        self._expired = True
        part.cancel()

    def _timeout(self, part: asyncio.Future[Any]) -> WorkflowTimeoutError:
        what = part.description if isinstance(part, ScheduledOperation) else "the awaitable"
        return self._loop.execution.error(
            WorkflowTimeoutError,
            f"{what} did not finish within {in_words(self._seconds or 0)}",
            step=part.step if isinstance(part, ScheduledOperation) else None,
        )
