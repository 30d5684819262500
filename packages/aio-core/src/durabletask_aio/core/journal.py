"""`Journal`: the records of one execution, with which values computed by its code survive a replay.

The protocol has no call for that, but a history keeps each event that a workflow sends: receiver, name and data.  A
record is an event sent to an instance that does not exist.  It is durable as soon as the turn that sends it has been
committed, and no instance receives it.

**Look-ahead.**  A record stands in the history behind all events of the turn that wrote it.  So the records of the past
are known before the code runs, by their numbers, and a replayed call finds its own at its number.  What is in the past
is decided by that and not by `is_replaying`: tools that replay a recorded turn as if it were new know its records too.

**The order of ends.**  A turn waits for the steps that run when its code has nothing else to do, before the next event,
and passes on one end at a time; then the code runs until it waits again.  Each record has the ordinal of its end, and a
replay passes the ends on in that order, at the same places.

**Wake-ups.**  A step that must not begin before earlier records are durable sends an event to its own instance, and
waits for it.  The wake-up is committed together with the records of its turn, so when it arrives they are durable.  Its
name has the start of the execution: an event that is left over from the execution before `continue_as_new` has
another name, and no effect.  Whether a call had to wait is decided by the past as well: the data of a wake-up names the
call, by the ordinal of its check.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from durabletask_aio.core import _upstream_journal
from durabletask_aio.core._upstream import pb
from durabletask_aio.core.errors import AsyncWorkflowError, HistoryDivergenceError
from durabletask_aio.core.rewinding import REQUESTS

if TYPE_CHECKING:
    from concurrent.futures import Future

    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop
    from durabletask_aio.core.steps import StepOperation

PREFIX = "$"
"""Names of events that begin with it are the journal's."""

STEP = "$step."
PATCH = "$patch."
WAKE_UP = "$wake-up."

MAX_TURN_BYTES = 3_500_000
"""How large the records of one turn may be together: gRPC refuses an answer of more than 4 MiB."""

FIRST_PATCH_NUMBER = 1_000_000_000
"""The number of the first patch's record.  Patches have numbers of their own, so that the numbers of all else are the
same with and without them."""

NO_HOST = (
    "steps and patches need a worker that knows the history of a turn before it runs, and this workflow runs on "
    "another host: install durabletask-aio-worker and register the workflow with its TaskHubGrpcWorker, or call an "
    "activity"
)


class StepRunner(Protocol):
    """Runs the functions of steps, outside of the thread of the turn."""

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        """Run a function that takes no arguments.

        Args:
            function: it returns the result, or something to await for it.
            is_async: whether calling it returns something to await.
            name: of the step, for the names of threads and tasks.

        Returns:
            The future of the result; cancelling it also cancels the task of an async function.
        """
        ...


class RecordedSteps:
    """The step runner of a replay of a recorded history, in which no step runs."""

    def submit(self, function: Callable[[], Any], *, is_async: bool, name: str) -> Future[Any]:
        """Run nothing: a journal that is recorded does not call this."""
        raise NotImplementedError


class Journal:
    """The records of one execution.  Its methods are called on the thread of the turn, except where noted."""

    def __init__(self, runner: StepRunner | None, refusal: str, *, is_recorded: bool = False) -> None:
        """Create the journal of an execution that starts or is replayed.

        Args:
            runner: runs the functions of steps; `None` if this host has no journal.
            refusal: why it has none.
            is_recorded: whether a recorded history is replayed, with no step or patch that it does not have.
        """
        self.runner = runner
        self._is_recorded = is_recorded
        self.refusal = refusal
        self.past_events: Sequence[pb.HistoryEvent] = ()
        """The history of the present turn, until it has been read."""
        self.own_actions: Sequence[pb.OrchestratorAction] = ()
        """The actions of the turn that is run once more, for tools that replay one."""
        self.new_events: Sequence[pb.HistoryEvent] = ()
        self.loop: WorkflowLoop | None = None
        """The loop of the run that the journal belongs to."""
        self.divergence: HistoryDivergenceError | None = None
        """How history and code differ; raised when the code has nothing else to do, so that it cannot be caught."""
        self.is_used = False
        """Whether the code has run a step: until then, nothing has to be looked at after an event."""
        self.running: dict[int, StepOperation[Any]] = {}
        """The steps whose ends the code waits for, by their numbers, in the order of their calls."""
        self.unfinished: dict[int, StepOperation[Any]] = {}
        """The steps that have no outcome for the code yet, by their identity, in the order of their calls."""
        self.bytes = 0
        """The size of the records that this turn has written."""
        self._live: dict[int, Future[Any]] = {}
        self._known: dict[int, pb.EventSentEvent | None] | None = None
        self._patches_known: dict[str, tuple[int, pb.EventSentEvent]] = {}
        self._patches: dict[str, bool] = {}
        self._next_patch = FIRST_PATCH_NUMBER
        self._is_rewound = False
        self._ends = 0
        self._checks = 0
        self._uncommitted: set[int] = set()
        self._wake_up: int | None = None
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._ended: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._notify: Callable[[], None] | None = None

    # -- the past -------------------------------------------------------------------------------------------------

    def begin_turn(
        self,
        past: Sequence[pb.HistoryEvent],
        new: Sequence[pb.HistoryEvent] = (),
        own: Sequence[pb.OrchestratorAction] = (),
    ) -> None:
        """Hand over the events of a turn before it runs.

        Args:
            past: the whole history, large payloads included; empty for an instance that has processed it.
            new: the new events.
            own: the actions of this turn, if it is run once more.
        """
        self.past_events = past
        self.new_events = new
        self.own_actions = own
        self.bytes = 0

    def end_turn(self) -> None:
        """Drop the past, which may be large: all that an instance that stays alive does from now on is new."""
        self._known = {}
        self.past_events = self.new_events = self.own_actions = ()

    def abandon(self) -> None:
        """Wait for no step any more, and cancel those that run: the execution has ended, or is closed."""
        live, self._live = self._live, {}
        self.running.clear()
        for future in live.values():
            future.cancel()

    def _read(self) -> dict[int, pb.EventSentEvent | None]:
        known: dict[int, pb.EventSentEvent | None] = {}
        for event in self.past_events:
            kind = event.WhichOneof("eventType")
            if kind == "eventSent":
                self._note_sent(known, event.eventId, event.eventSent)
            elif kind in REQUESTS:
                known[event.eventId] = None
            elif kind == "executionRewound":
                self._is_rewound = True
        for action in self.own_actions:
            if action.HasField("sendEvent"):
                sent = action.sendEvent
                event_sent = pb.EventSentEvent(instanceId=sent.instance.instanceId, name=sent.name, input=sent.data)
                self._note_sent(known, action.id, event_sent)
            elif not action.HasField("completeOrchestration"):
                known[action.id] = None
        self._is_rewound |= any(event.HasField("executionRewound") for event in self.new_events)
        self._known = known
        return known

    def _note_sent(self, known: dict[int, pb.EventSentEvent | None], number: int, sent: pb.EventSentEvent) -> None:
        if sent.name.startswith(PATCH):
            self._patches_known[sent.name[len(PATCH) :]] = (number, sent)
            self._next_patch = max(self._next_patch, number + 1)
        else:
            known[number] = sent

    @property
    def known(self) -> dict[int, pb.EventSentEvent | None]:
        """What the past has at each number: an event that was sent, or `None` for anything else."""
        return self._known if self._known is not None else self._read()

    def _may_run(self, upstream: Any) -> bool:
        """Whether what the past does not have is new, and not a difference between history and code."""
        return not self._is_recorded and (self._is_rewound or not upstream.is_replaying)

    def diverge(self, execution: Execution, message: str, step: int | None) -> None:
        """Note that history and code differ."""
        if self.divergence is None:
            text = (
                f"history and code diverge at step {step}: {message}. Either the workflow was changed while this "
                f"instance was running, or it decides by something that is not the same on replay"
            )
            self.divergence = execution.error(HistoryDivergenceError, text, step=step)

    @property
    def is_busy(self) -> bool:
        """Whether the code waits for steps, or has diverged from its history."""
        return bool(self.running) or self.divergence is not None

    # -- steps ----------------------------------------------------------------------------------------------------

    def start(self, operation: StepOperation[Any], upstream: Any, execution: Execution) -> None:
        """Begin an attempt of a step, under the next number."""
        self.is_used = True
        number = _upstream_journal.next_number(upstream)
        name = STEP + operation.name
        operation.step = number
        operation.record = None
        if number in self.known:
            sent = self.known[number]
            if sent is None or sent.name != name:
                has = "another operation" if sent is None else _described(sent)
                self.diverge(execution, f"the history has {has}, and the code runs {operation.description}", number)
                return
            _upstream_journal.take_number(upstream)
            _upstream_journal.send(upstream, number, sent.instanceId, sent.name, sent.input.value)
            record = _read_record(sent.input.value)
            if record is None:
                self.diverge(execution, f"the record of step {operation.name!r} cannot be read", number)
                return
            operation.record = record
            self.running[number] = operation
            return
        if not self._may_run(upstream):
            self.diverge(execution, f"the code runs {operation.description}, which the history does not have", number)
            return
        assert self.runner is not None
        _upstream_journal.take_number(upstream)
        _upstream_journal.send(upstream, number, _upstream_journal.NOBODY, name, "{}")
        self.running[number] = operation
        future = operation.submit(self.runner)
        self._live[number] = future
        future.add_done_callback(lambda future: self._has_ended(number, future))

    def withdraw(self, operation: StepOperation[Any], upstream: Any) -> None:
        """Do not wait for a step any more: it was cancelled.  That it was called stays recorded."""
        number = operation.step
        if number is None or self.running.pop(number, None) is None:
            return
        future = self._live.pop(number, None)
        if future is not None:
            future.cancel()
            self._write(upstream, number, operation.new_record(upstream, cancelled=True))

    def _has_ended(self, number: int, future: Future[Any]) -> None:
        """Called on any thread, when the function of a step has ended."""
        with self._lock:
            self._ended.put((number, future))
            notify, self._notify = self._notify, None
        if notify is not None:
            notify()

    def call_when_ended(self, function: Callable[[], None]) -> None:
        """Call a function once, on any thread, when the function of a step has ended; at once if one has."""
        with self._lock:
            if self._ended.empty():
                self._notify = function
                return
        function()

    @property
    def next_deadline(self) -> float | None:
        """When the first of the running steps has to have ended, on the clock of `time.monotonic`."""
        deadlines = [self.running[number].deadline for number in self._live]
        return min(deadlines, default=None)

    @property
    def has_live_steps(self) -> bool:
        """Whether the function of a step is running, or has ended and was not passed on."""
        return bool(self._live)

    def pass_on_recorded(self, upstream: Any) -> bool:
        """Pass on the end that came first of those that the past has; returns whether there was one."""
        first: StepOperation[Any] | None = None
        for number, operation in self.running.items():
            if number not in self._live and operation.recorded_end is not None:
                end = operation.recorded_end
                if first is None or first.recorded_end is None or end < first.recorded_end:
                    first = operation
        if first is None:
            return False
        assert first.step is not None
        assert first.recorded_end is not None
        assert first.record is not None
        self._ends = max(self._ends, first.recorded_end)
        del self.running[first.step]
        first.pass_on(upstream, first.record)
        return True

    def pass_on_ended(self, upstream: Any, timeout: float | None) -> bool:
        """Wait until the function of a step has ended or its time is over, write the record, and pass the end on.

        Args:
            upstream: upstream's context.
            timeout: how many seconds to wait at most; `None` for as long as steps may take.

        Returns:
            Whether one has ended.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        while self._live:
            number, future = self._next_end(give_up)
            if number is None:
                return False
            if number in self._live:
                break
        else:
            return False
        operation = self.running.pop(number)
        self._live.pop(number).cancel()
        self._ends += 1
        record = operation.outcome(upstream, future)
        record["end"] = self._ends
        size = len(json.dumps(record))
        if self.bytes + size > MAX_TURN_BYTES:
            record = operation.too_large(size, self.bytes, MAX_TURN_BYTES)
            record["end"] = self._ends
        self._write(upstream, number, record)
        if operation.must_be_committed:
            self._uncommitted.add(number)
        operation.pass_on(upstream, record)
        return True

    def _next_end(self, give_up: float | None) -> tuple[int | None, Future[Any] | None]:
        """Return the next step that has ended; without a future if its time is over, without a number at `give_up`."""
        while True:
            number, deadline = min(
                ((number, self.running[number].deadline) for number in self._live), key=lambda each: each[1]
            )
            until = deadline if give_up is None else min(deadline, give_up)
            try:
                return self._ended.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                now = time.monotonic()
                if now >= deadline:
                    return number, None
                if give_up is not None and now >= give_up:
                    return None, None

    def _write(self, upstream: Any, number: int, record: dict[str, Any]) -> None:
        data = json.dumps(record, separators=(",", ":"))
        self.bytes += len(data)
        _upstream_journal.set_data(upstream, number, data)

    # -- wake-ups -------------------------------------------------------------------------------------------------

    def wait_until_committed(self, upstream: Any, execution: Execution, function: Callable[[], None]) -> bool:
        """Have `function` called when all records are durable; returns whether that has to be waited for.

        While a wake-up is outstanding each check waits for it, so that a replay, which knows the wake-ups and not when
        each record became durable, does the same.
        """
        self.is_used = True
        self._checks += 1
        number = _upstream_journal.next_number(upstream)
        sent = self.known.get(number)
        if number in self.known:
            is_needed = sent is not None and sent.name.startswith(WAKE_UP) and sent.input.value == str(self._checks)
        else:
            covered = self._wake_up is not None and self._wake_up in self._uncommitted
            is_needed = self._may_run(upstream) and not covered and bool(self._uncommitted)
        if is_needed:
            started = execution.started_at
            name = f"{WAKE_UP}{started:%Y%m%d%H%M%S}{started.microsecond:06}.{number}"
            _upstream_journal.take_number(upstream)
            _upstream_journal.send(upstream, number, execution.instance_id, name, str(self._checks))
            self._wake_up = number
            if number not in self.known:
                self._uncommitted.add(number)
            self._waiting[name] = [function]
            return True
        if self._waiting:
            self._waiting[next(reversed(self._waiting))].append(function)
            return True
        return False

    def forget(self, function: Callable[[], None]) -> None:
        """Do not call `function` any more, for which `wait_until_committed` has returned true."""
        for waiting in self._waiting.values():
            if function in waiting:
                waiting.remove(function)

    @property
    def awaits_wake_up(self) -> bool:
        """Whether a wake-up is outstanding."""
        return bool(self._waiting)

    def wake_up(self, name: str) -> None:
        """Call what waits for a wake-up; one that is not known, of an earlier execution, has no effect."""
        assert self.loop is not None
        for function in self._waiting.pop(name, ()):
            self.loop.call_soon(function)

    def confirmed(self, number: int) -> None:
        """Note that the engine has recorded the event of that number."""
        self._uncommitted.discard(number)

    # -- patches --------------------------------------------------------------------------------------------------

    def patched(self, patch: str, upstream: Any, *, deprecated: bool) -> bool:
        """Whether this execution takes the code of a patch; the first call decides for the whole execution."""
        answer = self._patches.get(patch)
        if answer is None:
            _ = self.known
            found = self._patches_known.get(patch)
            answer = found is not None or not (upstream.is_replaying or self._is_recorded)
            if found is not None:
                number, sent = found
                _upstream_journal.send(upstream, number, sent.instanceId, sent.name, sent.input.value)
            elif answer:
                data = '{"deprecated":true}' if deprecated else "{}"
                _upstream_journal.send(upstream, self._next_patch, _upstream_journal.NOBODY, PATCH + patch, data)
                self._next_patch += 1
            self._patches[patch] = answer
        return answer

    def check_host(self, execution: Execution, method: str) -> None:
        """Refuse a call where this host has no journal."""
        if self.runner is None:
            raise refusal(execution, method, self.refusal)


def refusal(execution: Execution, method: str, reason: str) -> AsyncWorkflowError:
    """Return the error for a method of the context that needs a journal, on a host that has none."""
    return execution.error(AsyncWorkflowError, f"ctx.{method} cannot be used here: {reason}")


def is_deprecated_patch(sent: pb.EventSentEvent) -> bool:
    """Whether a sent event is the record of a patch that code may no longer ask for."""
    return sent.name.startswith(PATCH) and bool((_read_record(sent.input.value) or {}).get("deprecated"))


def is_step(sent: pb.EventSentEvent) -> bool:
    """Whether a sent event is the record of a step."""
    return sent.name.startswith(STEP) and sent.instanceId == _upstream_journal.NOBODY


def _read_record(data: str) -> dict[str, Any] | None:
    try:
        record: Any = json.loads(data or "{}")
    except ValueError:
        return None
    return record if isinstance(record, dict) else None  # pyright: ignore[reportUnknownVariableType]


def describe_record(name: str) -> str | None:
    """Say what a record is of, by the name of its event; `None` if the event is no record."""
    if name.startswith(STEP):
        return f"step {name[len(STEP) :]!r}"
    if name.startswith(PATCH):
        return f"patch {name[len(PATCH) :]!r}"
    if name.startswith(WAKE_UP):
        return "a pause until the steps before it were recorded"
    return None


def _described(sent: pb.EventSentEvent) -> str:
    return describe_record(sent.name) or f"event {sent.name!r} sent to {sent.instanceId!r}"
