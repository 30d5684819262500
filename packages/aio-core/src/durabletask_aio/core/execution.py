"""`Execution`: what belongs to one execution of one workflow, except the code that runs.

It holds the identity, the clock, the connection to upstream's context and the state that the context's methods read and
write.  Loop, context and run are built on it; it knows none of them.

Upstream's context holds our generator, and so would keep everything a workflow refers to in one reference cycle.  A
host that drops a suspended instance leaves that cycle to the garbage collector, which would run `finally` blocks of the
workflow at any time, on any thread.  Therefore nothing that workflow code can reach refers to upstream's context while
the code is not on the stack: the driver attaches it for each stretch of code and detaches it afterwards.  When the
cycle is collected, only the coroutines are left, and `disposal` closes those in a defined order.

The same mechanism detects a context that is used where it must not be: a `DetachedContext` stands in upstream's place,
and answers every access with the right error.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from threading import get_ident
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from durabletask_aio.core import _upstream_events, _upstream_journal
from durabletask_aio.core._upstream import NullContext, task
from durabletask_aio.core.call_sites import call_site
from durabletask_aio.core.cancellation import CANCEL_EVENT
from durabletask_aio.core.cleanup import Cleanups
from durabletask_aio.core.continuation import Continuation, after_continue_as_new
from durabletask_aio.core.detached import DetachedContext
from durabletask_aio.core.deterministic import Streams
from durabletask_aio.core.errors import AsyncWorkflowError, InstanceEvicted, StepBudgetError, WorkflowValidationError
from durabletask_aio.core.journal import WAKE_UP
from durabletask_aio.core.metadata import WorkflowMetadata
from durabletask_aio.core.open_requests import OpenRequests
from durabletask_aio.core.replies import is_request
from durabletask_aio.core.settings import DEFAULT_STEP_BUDGET
from durabletask_aio.core.workflow_logger import ReplaySafeLogger

if TYPE_CHECKING:
    from durabletask_aio.core.cancellation import Cancellation
    from durabletask_aio.core.settings import SandboxMode

E = TypeVar("E", bound=AsyncWorkflowError)

MAX_REFUSED_CALLS = 1_000
"""Calls refused during disposal before a `NullContext` accepts them, so that `except BaseException` loops end."""


class Execution:
    """One execution of one workflow; implements `plugins.Execution` for the sandbox."""

    __slots__ = (
        "_clock",
        "_clock_reads",
        "_detached",
        "_refused_calls",
        "_thread",
        "cancellation",
        "cleanups",
        "continuation",
        "event_streams",
        "evicted",
        "instance_id",
        "logger",
        "metadata",
        "parent_instance_id",
        "refusal",
        "requests",
        "sandbox_mode",
        "started_at",
        "step_budget",
        "streams",
        "upstream",
        "version",
        "workflow_name",
    )

    def __init__(
        self,
        upstream: task.OrchestrationContext,
        workflow_name: str,
        sandbox_mode: SandboxMode,
        *,
        metadata: Mapping[str, str] | None = None,
        step_budget: int = DEFAULT_STEP_BUDGET,
    ) -> None:
        self.instance_id = upstream.instance_id
        self.workflow_name = workflow_name
        self.parent_instance_id = upstream.parent_instance_id
        self.version = upstream.version
        self.sandbox_mode = sandbox_mode
        self.started_at: datetime = upstream.current_utc_datetime
        self.streams = Streams(self.instance_id, self.started_at)
        self.cleanups = Cleanups()
        self.event_streams: list[Callable[[task.OrchestrationContext], None]] = []
        """What returns the unconsumed events of each stream to upstream's buffer, in the order of their creation."""
        self.requests = OpenRequests()
        self.metadata = WorkflowMetadata(metadata)
        self.continuation: Continuation | None = None
        self.cancellation: Cancellation | None = None
        """The request to cancel this instance that is in progress: its main task has not called `uncancel()`."""
        self.refusal: WorkflowValidationError | None = None
        """What fails the instance, even if its code catches it; see `usage_refusals`."""
        self.logger = ReplaySafeLogger(self)
        self.evicted = False
        """Whether the coroutines are being closed, or have been."""
        self.step_budget = step_budget
        self._clock: datetime | None = None
        """What the clock showed when it was read last; another object in each turn."""
        self._clock_reads = 0
        """How often it has shown that."""
        self._refused_calls = 0
        self._detached = cast("task.OrchestrationContext", DetachedContext(self._not_running))
        self._thread = 0
        """The thread on which operations may be scheduled now; 0 if they may not be at all."""
        self.upstream: task.OrchestrationContext = self._detached
        """Upstream's context while workflow code is on the stack; otherwise a `DetachedContext` that raises."""

    # -- attaching and detaching ----------------------------------------------------------------------------------

    def attach(self, upstream: task.OrchestrationContext) -> None:
        """Connect upstream's context: workflow code is about to run on this thread."""
        self.upstream = upstream
        self._thread = get_ident()

    def detach(self) -> None:
        """Disconnect upstream's context: workflow code has left the stack."""
        self.upstream = self._detached
        self._thread = 0

    def run_attached(self, upstream: task.OrchestrationContext, code: Callable[[], None]) -> None:
        """Run `code` between `attach` and `detach`.

        Both are written out here, two calls less for each step; see `benchmarks/hot_path.py`, `run_attached`.
        """
        self.upstream = upstream
        self._thread = get_ident()
        try:
            code()
        finally:
            self.upstream = self._detached
            self._thread = 0

    @property
    def attached(self) -> bool:
        """Whether workflow code is on the stack."""
        return not isinstance(cast(object, self.upstream), DetachedContext)

    # -- the end --------------------------------------------------------------------------------------------------

    def begin_closing(self) -> None:
        """Make every access raise `InstanceEvicted`: the coroutines are about to be closed."""
        self.evicted = True
        self.upstream = cast(
            "task.OrchestrationContext", DetachedContext(lambda name: self.refused_call(f"ctx.{name}"))
        )
        self._thread = 0

    def end_closing(self) -> None:
        """Make every access raise an ordinary error: the coroutines have been closed."""
        self.detach()

    def refused_call(self, what: str) -> InstanceEvicted:
        """Count a call that is refused while the coroutines are closed, and return the exception for it."""
        self._refused_calls += 1
        if self.refusals_exhausted:
            null = NullContext(self.instance_id, self.started_at)
            self.upstream = cast("task.OrchestrationContext", null)
            self._thread = get_ident()
        return InstanceEvicted(f"instance {self.instance_id!r} is being closed; {what} no longer counts")

    @property
    def refusals_exhausted(self) -> bool:
        """Whether calls are accepted without effect, although the coroutines are being closed."""
        return self._refused_calls >= MAX_REFUSED_CALLS

    def continue_as_new(self, continuation: Continuation) -> None:
        """Remember how to continue, and refuse whatever is scheduled from here to the end of the function."""
        self.continuation = continuation
        self._thread = 0

    def apply_continuation(self, upstream: task.OrchestrationContext) -> None:
        """Tell upstream how to continue; the workflow function has returned."""
        continuation = self.continuation
        assert continuation is not None
        self.attach(upstream)
        if not continuation.save_events:
            _upstream_events.carry_over(upstream, lambda name: name == CANCEL_EVENT or is_request(name))
        self.metadata.carry(upstream, None)
        if continuation.save_events:
            _upstream_journal.forget_events(upstream, WAKE_UP)
            for return_unconsumed in reversed(self.event_streams):
                return_unconsumed(upstream)
        self.requests.carry_over(upstream)
        upstream.continue_as_new(
            continuation.new_input, save_events=continuation.save_events, new_version=continuation.new_version
        )

    # -- use of the context ---------------------------------------------------------------------------------------

    def scheduler(self, method: str) -> task.OrchestrationContext:
        """Return upstream's context, for a `method` of the workflow's context that is recorded in the history.

        Raises:
            AsyncWorkflowError: where the workflow is not running, on another thread, or after `continue_as_new`.
            InstanceEvicted: while the coroutines are closed.
        """
        if self._thread != get_ident():
            self._refuse(method)
        return self.upstream

    def _refuse(self, method: str) -> NoReturn:
        if not self.attached:
            getattr(self.upstream, method)  # raises
        if self.continuation is not None:
            raise self.error(AsyncWorkflowError, after_continue_as_new(f"ctx.{method}", self.continuation))
        raise self._wrong_thread()

    def check_live(self, member: str) -> None:
        """Raise as `scheduler` does, except after `continue_as_new`: for what leaves nothing in the history.

        Args:
            member: the member of the workflow's context that is used, for the message.
        """
        if not self.attached:
            getattr(self.upstream, member)  # raises
        if self._thread != get_ident() and self.continuation is None:
            raise self._wrong_thread()

    def _not_running(self, name: str) -> BaseException:
        msg = (
            f"ctx.{name} was used at {call_site()} while the workflow it belongs to is not running: a context works "
            f"inside its own workflow function only, and not in an activity, another workflow or the application\n"
            f"  wrong: an activity, a thread or a callback that calls ctx.{name}\n"
            f"  right: client.raise_orchestration_event({self.instance_id!r}, 'name') there, and "
            f"'await ctx.wait_for_external_event('name')' in the workflow"
        )
        return self.error(AsyncWorkflowError, msg)

    def _wrong_thread(self) -> AsyncWorkflowError:
        """Return the error for a context that was given to another thread, which runs while the workflow does."""
        msg = (
            f"a workflow's context was used at {call_site()} on thread {threading.current_thread().name!r}, which is "
            f"not the one the workflow runs on: threads finish in an order of their own\n"
            f"  wrong: threading.Thread(target=work, args=(ctx,)).start()\n"
            f"  right: await ctx.call_activity(work, input=value)"
        )
        return self.error(AsyncWorkflowError, msg)

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        """Whether the code has run before and only rebuilds its state; also true while it is closed."""
        return True if self.evicted else self.upstream.is_replaying

    @property
    def is_muted(self) -> bool:
        """Whether nothing that the code does now may be seen from outside: it is replaying, or being closed."""
        return self.evicted or (self.attached and self.is_replaying)

    def read_clock(self, member: str) -> datetime:
        """Return the workflow's clock for user code: naive, UTC, and unchanged until the next turn.

        Args:
            member: the member of the workflow's context or loop that is read, for messages.

        Raises:
            StepBudgetError: if the clock was read as often as the step budget allows, and stood still.
        """
        if not self.attached:
            getattr(self.upstream, member)  # raises
        clock = self.upstream.current_utc_datetime
        if clock is not self._clock:
            self._clock = clock
            self._clock_reads = 0
        self._clock_reads += 1
        if self._clock_reads > self.step_budget:
            raise self._clock_stands_still(member)
        return clock

    def _clock_stands_still(self, member: str) -> StepBudgetError:
        """Return the error for a loop that waits for the clock; without it, the turn would never end."""
        shown = {"now": "ctx.now()", "time": "loop.time()"}.get(member, f"ctx.{member}")
        msg = (
            f"{shown} was read {self._clock_reads - 1:,} times within one turn ({call_site()}), and the clock of a "
            f"workflow stands still until the workflow waits for something durable\n"
            f"  wrong: while {shown} < end: pass\n"
            f"  right: await ctx.sleep(seconds)"
        )
        return self.error(StepBudgetError, msg)

    def now(self) -> datetime:
        """Return the workflow's clock: aware, UTC, and unchanged until the next turn."""
        return self.upstream.current_utc_datetime.replace(tzinfo=timezone.utc)

    def elapsed(self) -> timedelta:
        """Return the workflow time since this execution started."""
        return self.upstream.current_utc_datetime - self.started_at

    def stream(self, purpose: str) -> random.Random:
        """Return the random stream for `purpose`; streams of different purposes are independent."""
        return self.streams.stream(purpose)

    # -- errors ---------------------------------------------------------------------------------------------------

    def error(self, kind: type[E], message: str, *, step: int | None = None) -> E:
        """Return an error of `kind` that names this workflow and instance."""
        return kind(message, instance_id=self.instance_id, workflow_name=self.workflow_name, step=step)

    def usage_error(
        self,
        what: str,
        wrong: str | None = None,
        right: str | None = None,
        *,
        step: int | None = None,
        place: str | None = None,
    ) -> WorkflowValidationError:
        """Return the error for a wrong call.

        Args:
            what: what was wrong.
            wrong: the wrong form, as code.
            right: the right form, as code; required with `wrong`.
            step: the sequence number of the operation concerned.
            place: `file:line` of the call; by default that of the call on the stack.

        Returns:
            The error, to be raised by the caller.
        """
        shown = "" if wrong is None else f"\n  wrong: {wrong}\n  right: {right}"
        return self.error(WorkflowValidationError, f"{what} ({place or call_site()}){shown}", step=step)
