"""Steps: functions that a workflow runs in place, with `ctx.run`, and whose results its history records."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from durabletask_aio.core import _upstream, _upstream_journal, arguments
from durabletask_aio.core._upstream import RetryPolicy, TaskFailedError, pb
from durabletask_aio.core.declared_failures import declared_by, new_failure
from durabletask_aio.core.descriptions import close_if_coroutine
from durabletask_aio.core.errors import StepFailedError, shown
from durabletask_aio.core.failures import of_activity, recordable
from durabletask_aio.core.functions import is_coroutine_callable, is_plain_wrapper, unwrap_partial
from durabletask_aio.core.journal import NO_HOST, refusal
from durabletask_aio.core.operations import STEP, ScheduledOperation, T, is_done
from durabletask_aio.core.recorded_types import is_of_type, record_bases
from durabletask_aio.core.retries import RetryPolicy as OwnRetryPolicy
from durabletask_aio.core.retries import delay_after
from durabletask_aio.core.timers import in_words

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.journal import Journal, StepRunner
    from durabletask_aio.core.loop import WorkflowLoop

Recorded: TypeAlias = Literal["now", "lazily"] | None
"""When a step is recorded; see `AsyncWorkflowContext.run`."""

DEFAULT_TIMEOUT = 30.0
"""Seconds that a step may take: a turn waits for it, and an engine does not wait for a turn forever."""

MAX_TIMEOUT = 60.0
"""The longest limit of a step: half of what a worker of upstream's allows a stream to be silent."""

SLOW_STEP = 2.0
"""Seconds after which a step is warned of."""

_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None))

_LOGGER = logging.getLogger("durabletask.aio")


class StepOperation(ScheduledOperation[T]):
    """A step: an operation that may wait for earlier records, run, and wait for its next attempt."""

    __slots__ = (
        "_arguments",
        "_attempts",
        "_commit",
        "_function",
        "_journal",
        "_pause",
        "_policy",
        "_result_type",
        "_started_at",
        "_timeout",
        "deadline",
        "is_async",
        "record",
        "recorded",
    )

    def __init__(
        self,
        loop: WorkflowLoop,
        journal: Journal,
        function: Callable[..., Any],
        arguments_: tuple[Any, ...],
        *,
        name: str,
        policy: RetryPolicy | None,
        timeout: float,
        recorded: Recorded,
    ) -> None:
        super().__init__(loop, STEP, name, None)
        self.raises = declared_by(unwrap_partial(function))
        self.record: dict[str, Any] | None = None
        """What the past has of the present attempt."""
        self.recorded: Recorded = recorded
        self.is_async = is_coroutine_callable(function) and not is_plain_wrapper(function)
        self.deadline = 0.0
        """When the function has to have ended, on the clock of `time.monotonic`."""
        self._journal = journal
        self._function = function
        self._arguments = arguments_
        self._policy = policy
        self._timeout = timeout
        self._attempts = 0
        upstream = loop.execution.upstream
        self._started_at: datetime = upstream.current_utc_datetime
        self._result_type = _upstream_journal.result_type(upstream, unwrap_partial(function))
        self._pause: Any = None
        self._commit: Callable[[], None] | None = None
        loop.operation_started()
        if loop.operation_log is not None:
            loop.operation_log.add(self)
        journal.unfinished[id(self)] = self
        self.begin()

    @property
    def must_be_committed(self) -> bool:
        """Whether no other step begins before this one is recorded."""
        return self.recorded != "lazily"

    @property
    def recorded_end(self) -> int | None:
        """The ordinal of the end that the past has; `None` if it has none, because the step was cancelled."""
        return None if self.record is None else self.record.get("end")

    # -- an attempt -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin an attempt, or wait until the records before it are durable."""
        self._commit = self._pause = None
        loop = self._loop
        if is_done(self) or loop.execution.evicted:
            return
        upstream = loop.execution.scheduler("run")
        if self.must_be_committed and self._journal.wait_until_committed(upstream, loop.execution, self.begin):
            self._commit = self.begin
            return
        self._attempts += 1
        self._journal.start(self, upstream, loop.execution)

    def submit(self, runner: StepRunner) -> Future[Any]:
        """Have the function run, with copies of its arguments; its time begins now."""
        self.deadline = time.monotonic() + self._timeout
        keywords: dict[str, Any] = {}
        function, values = self._function, self._arguments
        while isinstance(function, functools.partial):  # whose values are arguments too
            values = (*function.args, *values)
            keywords = {**function.keywords, **keywords}
            function = function.func
        try:
            if not all(type(value) in _IMMUTABLE for value in (*values, *keywords.values())):
                values, keywords = copy.deepcopy((values, keywords))
        except Exception as error:
            failed: Future[Any] = Future()
            failed.set_exception(
                TypeError(
                    f"the arguments of the step cannot be copied: {type(error).__name__}: {error}. A step gets copies, "
                    f"so that what it does with them is the same live and on replay; pass data, and let the function "
                    f"have its clients from elsewhere"
                )
            )
            return failed
        return runner.submit(functools.partial(function, *values, **keywords), is_async=self.is_async, name=self.name)

    def outcome(self, upstream: Any, future: Future[Any] | None) -> dict[str, Any]:
        """Return the record of an attempt that has ended, or, without a future, whose time is over."""
        took = time.monotonic() - self.deadline + self._timeout
        if took > SLOW_STEP:
            self._loop.execution.logger.warning(
                "step %r took %.1f s, in which the workflow could do nothing else; long work is an activity",
                self.name,
                took,
            )
        record = self.new_record(upstream)
        try:
            record["result"] = _upstream_journal.encoded(upstream, self._result_of(future))
        except BaseException as error:
            record["failure"] = self._described(error)
        return record

    def _result_of(self, future: Future[Any] | None) -> Any:
        if future is None:
            raise TimeoutError(
                f"the step did not end within {in_words(self._timeout)}; long work is an activity, and timeout= sets "
                f"another limit"
            )
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the task of the step was cancelled") from None

    def new_record(self, upstream: Any, *, cancelled: bool = False) -> dict[str, Any]:
        """Return the record of an attempt without an end."""
        record: dict[str, Any] = {"cancelled": True} if cancelled else {}
        if self._arguments:
            try:
                record["input"] = _upstream_journal.encoded(upstream, list(self._arguments))
            except Exception:  # The arguments are for people to read; what is no data is not recorded.
                _LOGGER.debug("The arguments of step %r are not recorded", self.name, exc_info=True)
        return record

    def too_large(self, size: int, others: int, limit: int) -> dict[str, Any]:
        """Return the record of an attempt whose result does not fit into the turn."""
        error = ValueError(
            f"the record of the step has {size:,} bytes, and those before it in this turn {others:,}: a turn takes at "
            f"most {limit:,}. Return less, or keep large data in a store and pass its key"
        )
        return {"failure": self._described(error)}

    def _described(self, error: BaseException) -> dict[str, Any]:
        described = cast("Exception", recordable(of_activity(error)))
        details = _upstream.new_failure_details(described, None, _LOGGER)
        if not details.errorMessage and not isinstance(error, Exception):
            details.errorMessage = repr(error)
        record_bases(details, type(error))
        return _upstream_journal.failure_to_dict(details)

    # -- ends -----------------------------------------------------------------------------------------------------

    def pass_on(self, upstream: Any, record: dict[str, Any]) -> None:
        """Take over the end of an attempt: the last one, or one after a pause after which the next one begins."""
        self.record = record
        delay = self._retry_delay(upstream) if "failure" in record else None
        if delay is not None:
            self._loop.call_soon(self._pause_for, delay)
        elif self.recorded == "now":
            self._loop.call_soon(self._wait_for_commit)
        else:
            self._complete(upstream)

    def _retry_delay(self, upstream: Any) -> timedelta | None:
        policy = self._policy
        if policy is None:
            return None
        details = self._error().details
        if isinstance(policy, OwnRetryPolicy) and any(is_of_type(details, kind) for kind in policy.non_retryable):
            return None
        timeout = policy.retry_timeout
        # Naive, as upstream's clock.
        expires_at = datetime.max if timeout is None else self._started_at + timeout  # noqa: DTZ901
        return delay_after(self._attempts, policy, now=upstream.current_utc_datetime, expires_at=expires_at)

    def _pause_for(self, delay: timedelta) -> None:
        if not is_done(self):
            self._pause = self._loop.call_later(delay.total_seconds(), self.begin)

    def _wait_for_commit(self) -> None:
        if is_done(self):
            return
        execution = self._loop.execution
        if self._journal.wait_until_committed(execution.scheduler("run"), execution, self._committed):
            self._commit = self._committed
        else:
            self._committed()

    def _committed(self) -> None:
        self._commit = None
        self._complete(self._loop.execution.upstream)

    def _error(self) -> TaskFailedError:
        assert self.record is not None
        details: pb.TaskFailureDetails = _upstream_journal.failure_from_dict(self.record["failure"])
        instance_id = self._loop.execution.instance_id
        return TaskFailedError(f"{instance_id}: Step task #{self.step} failed: {details.errorMessage}", details)

    def _complete(self, upstream: Any) -> None:
        assert self.record is not None
        if "failure" in self.record:
            self._end(error=self._error())
            return
        try:
            result = _upstream_journal.decoded(upstream, self.record.get("result"), self._result_type)
        except Exception as error:
            self._end(error=TaskFailedError(str(error), error))
        else:
            self._end(result)

    def _end(self, result: Any = None, error: TaskFailedError | None = None) -> None:
        self._journal.unfinished.pop(id(self), None)
        ended: Any = _Ended(result, error)
        self.on_child_completed(ended)

    def _failure(self, error: TaskFailedError) -> BaseException:
        execution = self._loop.execution
        return new_failure(
            StepFailedError,
            self.raises,
            error,
            what=f"step {self.name!r}",
            instance_id=execution.instance_id,
            workflow_name=execution.workflow_name,
            step=self.step,
        )

    def _take_back(self) -> None:
        self._journal.unfinished.pop(id(self), None)
        self._journal.withdraw(self, self._loop.execution.upstream)
        if self._commit is not None:
            self._journal.forget(self._commit)
        if self._pause is not None:
            self._pause.cancel()


class _Ended:
    """The end of a step, in place of the task of upstream's that an operation takes its end from."""

    def __init__(self, result: Any, error: TaskFailedError | None) -> None:
        self._result = result
        self._error = error

    def get_result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


def run(
    execution: Execution,
    loop: WorkflowLoop,
    function: Any,
    values: tuple[Any, ...],
    *,
    name: str | None,
    retry_policy: RetryPolicy | None,
    timeout: Any,
    recorded: Recorded,
) -> StepOperation[Any]:
    """Run a function as a step; see `AsyncWorkflowContext.run`."""
    if not callable(function):
        close_if_coroutine(function)
        called = getattr(function, "__name__", "work")
        raise execution.usage_error(
            f"ctx.run takes a function and its arguments, and not {shown(function)}"
            if not inspect.iscoroutine(function)
            else f"ctx.run takes a function and its arguments, and {called!r} was called already",
            f"await ctx.run({called}(value))",
            f"await ctx.run({called}, value)",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise execution.usage_error(
            f"a step is a function that returns its result, and {name_of(function)!r} is a generator",
            f"await ctx.run({name_of(function)})",
            "await ctx.run(lambda: list(generator()), name='items')",
        )
    if name is None:
        name = name_of(function)
    else:
        arguments.check_text(execution, name, "the name of a step", f"ctx.run({name_of(function)}, name=")
    if retry_policy is not None:
        retry_policy = arguments.check_retry_policy(execution, retry_policy, "run")
    if recorded not in (None, "now", "lazily"):
        raise execution.usage_error(
            f"recorded= of ctx.run is 'now' or 'lazily', or is left out, and not {shown(recorded)}",
            f"await ctx.run({name}, recorded={shown(recorded)})",
            f"await ctx.run({name}, recorded='lazily')",
        )
    seconds = _seconds(execution, name, timeout)
    execution.scheduler("run")  # raises where the workflow is not running
    journal = loop.journal
    if journal is None:
        raise refusal(execution, "run", NO_HOST)
    journal.check_host(execution, "run")
    return StepOperation(
        loop, journal, function, values, name=name, policy=retry_policy, timeout=seconds, recorded=recorded
    )


def name_of(function: Any) -> str:
    """Return the name of the step that runs `function`, unless it is given another one."""
    plain = unwrap_partial(function)
    return str(getattr(plain, "__name__", None) or type(plain).__name__)


def _seconds(execution: Execution, name: str, timeout: Any) -> float:
    if timeout is None:
        return DEFAULT_TIMEOUT
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= MAX_TIMEOUT:
        return float(seconds)
    raise execution.usage_error(
        f"the timeout of a step is more than 0 and at most {MAX_TIMEOUT:.0f} seconds, and not {shown(timeout)}: the "
        f"workflow does nothing else while a step runs; long work is an activity",
        f"await ctx.run({name}, timeout={shown(timeout)})",
        f"await ctx.run({name}, timeout=10), or await ctx.call_activity(...)",
    )
