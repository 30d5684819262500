"""One execution's connection to upstream: who the workflow is, and the context its operations go through.

Upstream's context holds our generator, and so would keep everything a workflow refers to in one reference cycle.  A
host that drops a suspended instance leaves that cycle to the garbage collector, which would run ``finally`` blocks of
the workflow at any time, on any thread.  Therefore nothing that workflow code can reach refers to upstream's context
while the code is not on the stack: the driver attaches it for each stretch and detaches it after.  What is left when
the cycle is collected is the coroutines alone, and :mod:`.disposal` closes those in good order.

The same mechanism is what catches a context that is used where it must not be: in place of upstream's context there
is then an object that answers every access with the right error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import MAXYEAR, datetime, timedelta
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from durabletask import task

from durabletask_aio.core import _upstream, sites
from durabletask_aio.core.errors import AsyncWorkflowError, InstanceEvicted, WorkflowValidationError

if TYPE_CHECKING:
    from durabletask_aio.core.loop import WorkflowTimerHandle

E = TypeVar("E", bound=AsyncWorkflowError)

_PATIENCE = 1_000
"""How many calls are refused while an instance is closed before they are let through, into nowhere.

Code that catches even :class:`InstanceEvicted`, in a loop around a call, would go round for ever.  An operation that
never completes makes it stop at its ``await``, where :mod:`.disposal` can give it up.
"""


class _Unavailable:
    """Stands in for upstream's context; any access raises what ``make`` makes of the accessed name."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], BaseException]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> NoReturn:
        raise self._make(name)


class Host:
    """What the rooms of the core know of the execution they work for."""

    __slots__ = (
        "continuation",
        "detached",
        "evicted",
        "instance_id",
        "logger",
        "refused",
        "started_at",
        "thread",
        "upstream",
        "wake",
        "workflow_name",
    )

    def __init__(self, upstream: task.OrchestrationContext, workflow_name: str) -> None:
        self.instance_id = upstream.instance_id
        self.workflow_name = workflow_name
        self.started_at: datetime = upstream.current_utc_datetime
        self.wake = _upstream.Wake()
        self.evicted = False
        self.refused = 0
        """How many calls were refused while the instance was closed."""
        self.thread = 0
        """The thread on which operations may be scheduled now; 0 if that may not be at all."""
        self.continuation: Continuation | None = None
        self.logger = ReplaySafeLogger(self)
        self.detached = cast("task.OrchestrationContext", _Unavailable(self._not_running))
        """Stands in for upstream's context while workflow code is not on the stack."""
        self.detach()

    # -- attaching and detaching ----------------------------------------------------------------------------------

    def attach(self, upstream: task.OrchestrationContext) -> None:
        """Workflow code is about to run."""
        self.upstream = upstream
        self.thread = get_ident()

    def detach(self) -> None:
        """Workflow code has left the stack."""
        self.upstream = self.detached
        self.thread = 0

    @property
    def attached(self) -> bool:
        """Whether workflow code is on the stack."""
        return not isinstance(cast(object, self.upstream), _Unavailable)

    def evict(self) -> None:
        """The coroutines are about to be closed: every access raises :class:`InstanceEvicted` from now on."""
        self.evicted = True
        self.wake = _upstream.Wake()  # the one upstream waits for stays incomplete from here on
        self.upstream = cast("task.OrchestrationContext", _Unavailable(self._evicted))
        self.thread = 0

    def end(self) -> None:
        """The coroutines have been closed: whoever kept the context gets an ordinary error from now on."""
        self.detach()

    def continue_as_new(self, continuation: Continuation) -> None:
        """Remember how to go on, and refuse whatever is scheduled from here to the end of the function."""
        self.continuation = continuation
        self.thread = 0

    def scheduler(self, method: str) -> task.OrchestrationContext:
        """Upstream's context, for a ``method`` of the workflow's that leaves a trace in the history.

        Raises, before anything is scheduled that could not be taken back, where the workflow is not running, or is on
        another thread, or has continued as new.
        """
        if self.thread != get_ident():
            self.refuse(method)
        return self.upstream

    def refuse(self, method: str) -> NoReturn:
        """Raise the error for scheduling with ``method`` from where that cannot be."""
        if not self.attached:
            getattr(self.upstream, method)  # raises
        if self.continuation is not None:
            raise self.error(AsyncWorkflowError, after_continue_as_new(f"ctx.{method}", self.continuation))
        raise self.wrong_thread()

    def _not_running(self, name: str) -> BaseException:
        msg = (
            f"ctx.{name} was used at {sites.here()} while the workflow it belongs to is not running: a context works "
            f"inside its own workflow function only, and not in an activity, another workflow or the application\n"
            f"  wrong: an activity, a thread or a callback that calls ctx.{name}\n"
            f"  right: client.raise_orchestration_event({self.instance_id!r}, 'name') there, and "
            f"'await ctx.wait_for_external_event('name')' in the workflow"
        )
        return self.error(AsyncWorkflowError, msg)

    def wrong_thread(self) -> AsyncWorkflowError:
        """The error for a context that was handed to another thread, which runs while the workflow does."""
        msg = (
            f"a workflow's context was used at {sites.here()} on thread {threading.current_thread().name!r}, which is "
            f"not the one the workflow runs on: threads finish in an order of their own\n"
            f"  wrong: threading.Thread(target=work, args=(ctx,)).start()\n"
            f"  right: await ctx.call_activity(work, input=value)"
        )
        return self.error(AsyncWorkflowError, msg)

    def _evicted(self, name: str) -> BaseException:
        return self.refusal(f"ctx.{name}")

    def refusal(self, what: str) -> InstanceEvicted:
        """The exception for ``what`` while the coroutines are closed."""
        self.refused += 1
        if self.refused >= _PATIENCE:
            nowhere = _upstream.Nowhere(self.instance_id, self.started_at)
            self.upstream = cast("task.OrchestrationContext", nowhere)
            self.thread = get_ident()
        return InstanceEvicted(f"instance {self.instance_id!r} is being closed; {what} no longer counts")

    @property
    def patience_is_over(self) -> bool:
        """Whether calls are let through, into nowhere, although the coroutines are being closed."""
        return self.refused >= _PATIENCE

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        return True if self.evicted else self.upstream.is_replaying

    def elapsed(self) -> timedelta:
        """Workflow time since this execution started."""
        return self.upstream.current_utc_datetime - self.started_at

    def error(self, kind: type[E], message: str, *, step: int | None = None) -> E:
        """An error of ``kind`` that says which workflow and instance it is about."""
        return kind(message, instance_id=self.instance_id, workflow_name=self.workflow_name, step=step)

    def slip(
        self,
        what: str,
        wrong: str | None = None,
        right: str | None = None,
        *,
        step: int | None = None,
        place: str | None = None,
    ) -> WorkflowValidationError:
        """The error for a wrong call: what it was and where, and the wrong form beside the right one.

        The ``place`` is that of the call on the stack, unless it has left the stack.
        """
        shown = "" if wrong is None else f"\n  wrong: {wrong}\n  right: {right}"
        return self.error(WorkflowValidationError, f"{what} ({place or sites.here()}){shown}", step=step)

    def beyond_the_calendar(self, delay: Any, call: str) -> WorkflowValidationError:
        """The error for a timer that is so long that no ``datetime`` can say when it fires.

        ``call`` is the wrong call, with ``{}`` where the delay belongs.
        """
        return self.slip(
            f"a timer of {delay!r} would fire after the year {MAXYEAR}",
            call.format(repr(delay)),
            f"{call.format(None)}, if there is to be no limit"
            if "timeout" in call
            else "await ctx.wait_for_external_event('name'), if it is to wait until somebody ends it",
        )

    # -- timers of the loop ---------------------------------------------------------------------------------------

    def start_timer(self, delay: timedelta, handle: WorkflowTimerHandle) -> int:
        """Create a durable timer that tells ``handle`` when it fires; returns its sequence number."""
        timer = self.scheduler("create_timer").create_timer(delay)
        sequence = _upstream.sequence_number(self.upstream)
        _upstream.subscribe(timer, handle)
        return sequence

    def cancel_timer(self, sequence: int, listener: _upstream.Listener) -> None:
        """Take a timer back: it is not created if its action has not gone out yet, and ignored if it has."""
        timer = _upstream.pending_task(self.upstream, sequence, listener)
        if isinstance(timer, task.TimerTask):
            _upstream.cancel_timer(self.upstream, timer, sequence)


class Continuation:
    """What ``continue_as_new`` was called with; applied when the workflow function has returned.

    Upstream ends the execution at the call.  Waiting for the return makes it possible to fail an instance that goes
    on scheduling, awaiting or raising afterwards, and changes no action of one that does not.
    """

    __slots__ = ("new_input", "new_version", "save_events", "site")

    def __init__(self, new_input: Any, *, save_events: bool, new_version: str | None, site: str) -> None:
        self.new_input = new_input
        self.save_events = save_events
        self.new_version = new_version
        self.site = site


def after_continue_as_new(what: str, continuation: Continuation) -> str:
    """The message for something done after ``continue_as_new``."""
    return (
        f"{what} after ctx.continue_as_new(), which was called at {continuation.site} and ends this execution\n"
        f"  wrong: ctx.continue_as_new(state); await ctx.sleep(60)\n"
        f"  right: await ctx.sleep(60); ctx.continue_as_new(state); return"
    )


if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # not subscriptable at run time before 3.11


class ReplaySafeLogger(_Adapter):
    """Logs to ``durabletask.aio``, or the logger given, unless the workflow is replaying.

    Records carry ``instance_id`` and ``workflow_name`` as attributes, and begin with both.
    """

    def __init__(self, host: Host, logger: logging.Logger | None = None) -> None:
        extra = {"instance_id": host.instance_id, "workflow_name": host.workflow_name}
        super().__init__(logger or logging.getLogger("durabletask.aio"), extra)
        self._host = host

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging calls
        return not self._host.is_replaying and self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return f"{self._host.workflow_name} {self._host.instance_id}: {msg}", kwargs
