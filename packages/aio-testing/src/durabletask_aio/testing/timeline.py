"""`Timeline`: the operations of an instance as rows of bars, read from its history: start, duration, outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, cast

from durabletask.client import OrchestrationStatus

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.history import History
from durabletask_aio.testing.steps import Step, is_maximum_timer, step_of_event

RESOLUTION = timedelta(milliseconds=1)
"""Times that are closer together are shown as equal."""

_UNSET_BEFORE = datetime(1980, 1, 1, tzinfo=timezone.utc)
"""Timestamps up to this one are unset: upstream's in-memory engine leaves most of them at zero."""

_TURN_OFFSET = timedelta(microseconds=1)
"""Added to the time of each further turn of the same instant, to keep the turns of a virtual clock apart."""


class Outcome(str, Enum):
    """How a bar ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    RUNNING = "running"
    """It had no outcome when the history was taken."""

    DROPPED = "dropped"
    """The instance ended before it: the loser of a race, or an operation that was running when the workflow failed."""

    WAITED = "waited"
    """Intended waiting: a timer, the delay before a retry, the wait for an event."""

    MOMENT = "moment"
    """No duration: an event that was received or sent, or a signal."""


class Kind(str, Enum):
    """The lane of a row, in the order in which lanes are drawn."""

    ACTIVITY = "activity"
    STEP = "step"
    TIMER = "timer"
    EVENT = "event"
    REQUEST = "request"
    PATCH = "patch"
    CHILD = "sub-orchestration"
    ENTITY = "entity"


@dataclass
class Bar:
    """One interval of a row."""

    start: datetime
    end: datetime
    outcome: Outcome
    text: str = ""
    """The encoded result, the failure, or the description of a wait."""

    @property
    def duration(self) -> timedelta:
        """The duration, rounded to milliseconds."""
        return timedelta(milliseconds=round((self.end - self.start) / RESOLUTION))


@dataclass
class Row:
    """One durable operation with all its attempts, or one external event."""

    kind: Kind
    name: str
    number: int
    """The sequence number of the operation, -1 for an event that was received."""

    input: str
    """The encoded input."""

    bars: list[Bar]

    target: str = ""
    """The instance id of a sub-orchestration."""

    @property
    def start(self) -> datetime:
        return self.bars[0].start

    @property
    def end(self) -> datetime:
        return self.bars[-1].end

    @property
    def attempts(self) -> list[Bar]:
        """The bars of the operation itself, without the delays before retries; of a timer or event, the last bar."""
        if self.kind in (Kind.TIMER, Kind.EVENT):
            return self.bars[-1:]
        return [bar for bar in self.bars if bar.outcome is not Outcome.WAITED]

    @property
    def outcome(self) -> Outcome:
        return self.bars[-1].outcome

    @property
    def has_duration(self) -> bool:
        """Whether the history tells how long it took; of a step it has the time of its record only."""
        return len(self.bars) > 1 or not (self.outcome is Outcome.MOMENT or self.kind is Kind.STEP)


@dataclass
class Timeline:
    """The rows of one execution, with its turns, suspensions and end."""

    workflow_name: str
    instance_id: str
    status: OrchestrationStatus
    start: datetime
    end: datetime
    input: str
    result: str
    failure: str
    rows: list[Row]
    ended: bool
    turns: list[datetime]
    suspensions: list[tuple[datetime, datetime]]

    @classmethod
    def of(cls, history: History) -> Timeline:
        """Read a history.

        Args:
            history: the history.

        Returns:
            The timeline.

        Raises:
            ValueError: if the history has no start.
        """
        return _TimelineReader(history).read()


_OPERATIONS = {
    "taskScheduled": Kind.ACTIVITY,
    "timerCreated": Kind.TIMER,
    "subOrchestrationInstanceCreated": Kind.CHILD,
    "entityOperationCalled": Kind.ENTITY,
    "entityLockRequested": Kind.ENTITY,
}
_COMPLETIONS = {"taskCompleted", "subOrchestrationInstanceCompleted", "entityOperationCompleted", "entityLockGranted"}
_FAILURES = {"taskFailed", "subOrchestrationInstanceFailed", "entityOperationFailed"}


class _TimelineReader:
    """Reads one history, event by event."""

    def __init__(self, history: History) -> None:
        if history.workflow_name is None:
            raise ValueError(f"{history!r} does not say which workflow was started; is it the whole history?")
        self._history = history
        self._rows: list[Row] = []
        self._open: dict[int, Row] = {}
        self._by_reference: dict[str, int] = {}
        self._fired_in_turn: dict[int, Row] = {}
        self._by_number: dict[int, Row] = {}
        self._reader = hosting.EventReader()
        self._requests: dict[str, Row] = {}
        """The rows of requests that were not answered, by the instance that waits for the answer."""
        self._now = self._turn_ended = _UNSET_BEFORE
        self._turn_time = _UNSET_BEFORE
        """The recorded time of the latest turn."""
        self._turn_offset = timedelta(0)
        self._turns: list[datetime] = []
        self._suspensions: list[tuple[datetime, datetime]] = []
        self._suspended_since: datetime | None = None

    def read(self) -> Timeline:
        started = ended = None
        for event in self._history.protobuf:
            kind = event.WhichOneof("eventType") or ""
            self._update_time(event, kind)
            if kind == "executionStarted":
                started = event.executionStarted
            elif kind == "executionCompleted":
                ended = event.executionCompleted
            else:
                self._add_event(event, kind)
        for row in [*self._open.values(), *self._requests.values()]:
            row.bars[-1].end = self._now
            if ended is not None:
                row.bars[-1].outcome = Outcome.DROPPED
        status = self._history.status
        if self._suspended_since is not None:
            self._suspensions.append((self._suspended_since, self._now))
            status = status if ended is not None else OrchestrationStatus.SUSPENDED
        assert started is not None
        failure = ended.failureDetails if ended is not None and ended.HasField("failureDetails") else None
        return Timeline(
            workflow_name=started.name,
            instance_id=self._history.instance_id or "",
            status=status,
            start=self._turns[0] if self._turns else self._now,
            end=self._now,
            input=started.input.value,
            result=ended.result.value if ended is not None else "",
            failure=_failure(failure) if failure is not None else "",
            rows=self._rows,
            ended=ended is not None,
            turns=self._turns,
            suspensions=self._suspensions,
        )

    def _update_time(self, event: pb.HistoryEvent, kind: str) -> None:
        stamped = event.timestamp.ToDatetime(tzinfo=timezone.utc)
        if stamped > _UNSET_BEFORE:
            if kind == "orchestratorStarted":
                # On a virtual clock, turns without a wait between them have the same time.
                same_time = stamped == self._turn_time
                self._turn_offset = self._turn_offset + _TURN_OFFSET if same_time else timedelta(0)
                self._turn_time = stamped
            # An event that happened before its turn began is recorded after the start of the turn.
            self._now = stamped + (self._turn_offset if stamped == self._turn_time else timedelta(0))
        if kind == "orchestratorStarted":
            self._turns.append(self._now)
            self._fired_in_turn = {}

    def _add_event(self, event: pb.HistoryEvent, kind: str) -> None:
        body: Any = getattr(event, kind)
        if kind in _OPERATIONS and event.eventId >= 0:
            self._operation_started(event, kind, body)
        elif kind in _COMPLETIONS or kind in _FAILURES:
            self._operation_ended(kind, body)
        elif kind == "timerFired":
            self._timer_fired(body.timerId)
        elif kind == "eventSent":
            recorded = self._reader.sent(body.instanceId, body.name, body.input.value)
            if recorded is None:
                self._message_sent(event)
            else:
                self._recorded(recorded, event.eventId)
        elif kind in ("entityOperationSignaled", "entityUnlockSent"):
            self._message_sent(event)
        elif kind == "eventRaised":
            recorded = self._reader.received(body.name, body.input.value)
            if recorded is None:
                self._event_received(body.name, body.input.value)
            else:
                self._recorded(recorded, -1)
        elif kind == "executionSuspended":
            self._suspended_since = self._now
        elif kind == "executionResumed" and self._suspended_since is not None:
            self._suspensions.append((self._suspended_since, self._now))
            self._suspended_since = None
        elif kind == "orchestratorCompleted":
            self._turn_ended = self._now

    def _operation_started(self, event: pb.HistoryEvent, kind: str, body: Any) -> None:
        step = step_of_event(event)
        assert step is not None
        bar = Bar(self._now, self._now, Outcome.RUNNING)
        retried = self._by_number.get(event.eventId)
        if retried is not None and kind in ("taskScheduled", "subOrchestrationInstanceCreated"):
            self._merge_retry_delay(retried)
            retried.bars.append(bar)
            self._open[event.eventId] = retried
            return
        name = _timer_name(body) if kind == "timerCreated" else _row_name(step)
        row = Row(_OPERATIONS[kind], name, event.eventId, step.payload or "", [bar])
        if kind == "timerCreated":
            row = self._row_of_long_wait(row) or row
        elif kind == "subOrchestrationInstanceCreated":
            row.target = step.target
        if row.bars[0] is bar:
            self._rows.append(row)
        self._open[event.eventId] = self._by_number[event.eventId] = row
        reference = getattr(body, "requestId", "") or getattr(body, "criticalSectionId", "")
        if reference:
            self._by_reference[reference] = event.eventId

    def _row_of_long_wait(self, timer: Row) -> Row | None:
        """Return the row of the long wait that this timer continues: one whose maximum timer has fired in this turn."""
        for number, row in list(self._fired_in_turn.items()):
            if is_maximum_timer(row.bars[-1].duration):
                del self._fired_in_turn[number]
                row.bars[-1].text, timer.bars[0].text = row.name, timer.name
                row.bars += timer.bars
                row.name = timer.name
                return row
        return None

    def _merge_retry_delay(self, retried: Row) -> None:
        """Move the timer of a retry from its own row into the row of the retried operation."""
        for number, delay in list(self._fired_in_turn.items()):
            if delay.start >= retried.end and retried.outcome is Outcome.FAILED:
                self._rows.remove(delay)
                del self._fired_in_turn[number]
                for bar in delay.bars:
                    bar.text = f"pause before attempt {len(retried.attempts) + 1}"
                    retried.bars.append(bar)
                return

    def _operation_ended(self, kind: str, body: Any) -> None:
        reference = getattr(body, "requestId", "") or getattr(body, "criticalSectionId", "")
        number = self._by_reference.get(reference, -1) if reference else body.taskScheduledId
        row = self._open.pop(number, None)
        if row is None:
            return
        bar = row.bars[-1]
        bar.end = self._now
        if kind in _FAILURES:
            bar.outcome, bar.text = Outcome.FAILED, _failure(body.failureDetails)
        else:
            result = getattr(body, "result", None) or getattr(body, "output", None)
            bar.outcome, bar.text = Outcome.COMPLETED, result.value if result is not None else ""

    def _timer_fired(self, number: int) -> None:
        row = self._open.pop(number, None)
        if row is not None:
            row.bars[-1].end = self._now
            row.bars[-1].outcome = Outcome.WAITED
            self._fired_in_turn[number] = row

    def _message_sent(self, event: pb.HistoryEvent) -> None:
        step = step_of_event(event)
        if step is None:
            return
        kind = Kind.EVENT if step.kind == "send_event" else Kind.ENTITY
        self._rows.append(
            Row(
                kind,
                _row_name(step),
                step.number,
                step.payload or "",
                [Bar(self._now, self._now, Outcome.MOMENT, step.kind)],
            )
        )

    def _recorded(self, recorded: hosting.RecordedEvent, number: int) -> None:
        """Add a step, patch or request, or the answer to the row of its request; a wake-up has none."""
        failure = "" if recorded.failure is None else _failure(recorded.failure)
        bar = Bar(self._now, self._now, Outcome.MOMENT, failure or recorded.result or recorded.note)
        row = Row(Kind.REQUEST, recorded.name, number, recorded.input or "", [bar])
        if recorded.kind == "step":
            row.kind = Kind.STEP
            bar.outcome = Outcome.FAILED if failure else Outcome.DROPPED if recorded.note else Outcome.COMPLETED
        elif recorded.kind == "patch":
            row.kind = Kind.PATCH
        elif recorded.kind == "request":
            bar.outcome = Outcome.RUNNING
            self._requests[recorded.reply_to] = row
        elif recorded.kind == "answer":
            row = self._requests.pop(recorded.reply_to, row)
            bar = row.bars[-1]
            bar.end, bar.text = self._now, recorded.note or recorded.result or ""
            bar.outcome = Outcome.FAILED if recorded.note else Outcome.COMPLETED
        if recorded.kind not in ("answer", "wake-up"):
            self._rows.append(row)

    def _event_received(self, name: str, data: str) -> None:
        """Add an event; if nothing else was running, the instance had been waiting for it."""
        bars = [Bar(self._now, self._now, Outcome.MOMENT, data)]
        idle = not any(row.kind is not Kind.TIMER for row in self._open.values())
        if idle and self._turn_ended > _UNSET_BEFORE and self._now - self._turn_ended >= RESOLUTION:
            bars.insert(0, Bar(self._turn_ended, self._now, Outcome.WAITED, f"waited for {name!r}"))
        self._rows.append(Row(Kind.EVENT, name, -1, data, bars))


def _row_name(step: Step) -> str:
    """Return the name of a row; for entities and messages it has the target too."""
    if step.kind == "call_entity":
        return f"{step.name} of {step.target}"
    if step.kind in ("send_event", "signal_entity"):
        return f"{step.name} → {step.target}"
    return {"lock_entities": "lock of ", "unlock_entities": "release of "}.get(step.kind, "") + step.name


def _timer_name(body: Any) -> str:
    return f"until {body.fireAt.ToDatetime():%Y-%m-%d %H:%M:%S}"


def _failure(details: Any) -> str:
    kind = details.errorType.rpartition(".")[2]
    return f"{kind}: {details.errorMessage}" if kind else str(details.errorMessage)


def offset_text(timeline: Timeline, moment: datetime) -> str:
    """Return `start`, or the time since the start, such as `+2.5 s`."""
    offset = moment - timeline.start
    return f"+{duration_text(offset)}" if offset >= RESOLUTION else "start"


def duration_text(duration: timedelta) -> str:
    """Return a duration such as `340 ms`, `2.5 s`, `3 min 20 s` or `2 d 4 h`."""
    seconds = duration.total_seconds()
    # The limits are where rounding reaches the next unit, so that there is no "1000 ms" and no "60 s".
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    remainder, parts = round(seconds), cast("list[str]", [])
    for name, size in units:
        if remainder >= size:
            parts.append(f"{remainder // size} {name}")
            remainder %= size
    return " ".join(parts[:2])


def payload_text(payload: str, length: int = 60) -> str:
    """Return a payload without the escapes of JSON, cut to `length` characters."""
    try:
        text = json.dumps(json.loads(payload), ensure_ascii=False) if payload else ""
        text.encode()
    except (ValueError, RecursionError):  # not JSON, without a form in UTF-8, or nested too deeply
        text = payload
    return text if len(text) <= length else f"{text[: length - 1]}…"
