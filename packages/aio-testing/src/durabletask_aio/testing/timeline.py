"""An instance as rows of bars: what ran when, how long it took, how it ended.  From a history alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, cast

from durabletask.client import OrchestrationStatus

from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.history import History
from durabletask_aio.testing.steps import Step, is_longest_timer, step_of_event

NOTICEABLE = timedelta(milliseconds=1)
"""What is closer together happened at one time, as far as anybody is told."""

_NO_TIME = datetime(1980, 1, 1, tzinfo=timezone.utc)
"""Upstream's own engine leaves most timestamps at zero."""

_STEP = timedelta(microseconds=1)


class Outcome(str, Enum):
    """How a bar ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    RUNNING = "running"
    """It had not ended when the history was taken."""

    DROPPED = "dropped"
    """The instance ended first: the loser of a race, or what was left when it failed."""

    WAITED = "waited"
    """Time that passed on purpose: a timer, a pause before a retry, a wait for an event."""

    MOMENT = "moment"
    """No duration: an event that arrived or was sent, a signal."""


class Kind(str, Enum):
    """Which lane a row belongs to, in the order in which lanes are drawn."""

    ACTIVITY = "activity"
    TIMER = "timer"
    EVENT = "event"
    CHILD = "sub-orchestration"
    ENTITY = "entity"


@dataclass
class Bar:
    """One stretch of a row."""

    start: datetime
    end: datetime
    outcome: Outcome
    text: str = ""
    """The result, the failure, or what was waited for."""

    @property
    def duration(self) -> timedelta:
        """To the millisecond."""
        return timedelta(milliseconds=round((self.end - self.start) / NOTICEABLE))


@dataclass
class Row:
    """One durable operation with all its attempts, or one external event."""

    kind: Kind
    name: str
    number: int
    given: str
    """The encoded input."""

    bars: list[Bar]

    target: str = ""
    """The instance that a sub-orchestration is."""

    @property
    def start(self) -> datetime:
        return self.bars[0].start

    @property
    def end(self) -> datetime:
        return self.bars[-1].end

    @property
    def attempts(self) -> list[Bar]:
        """The bars that are the operation itself, without the pauses between; of what is not retried, the last."""
        if self.kind in (Kind.TIMER, Kind.EVENT):
            return self.bars[-1:]
        return [bar for bar in self.bars if bar.outcome is not Outcome.WAITED]

    @property
    def outcome(self) -> Outcome:
        return self.bars[-1].outcome


@dataclass
class Timeline:
    """Everything that is drawn."""

    workflow_name: str
    instance_id: str
    status: OrchestrationStatus
    start: datetime
    end: datetime
    given: str
    result: str
    failure: str
    rows: list[Row]
    ended: bool
    turns: list[datetime]
    suspensions: list[tuple[datetime, datetime]]

    @classmethod
    def of(cls, history: History, *, until: datetime | None = None) -> Timeline:
        """Read a history, as it looks at its last event or ``until`` later.  ``ValueError`` if it has no start."""
        return _Reader(history).read(until)


_OPERATIONS = {
    "taskScheduled": Kind.ACTIVITY,
    "timerCreated": Kind.TIMER,
    "subOrchestrationInstanceCreated": Kind.CHILD,
    "entityOperationCalled": Kind.ENTITY,
    "entityLockRequested": Kind.ENTITY,
}
_COMPLETIONS = {"taskCompleted", "subOrchestrationInstanceCompleted", "entityOperationCompleted", "entityLockGranted"}
_FAILURES = {"taskFailed", "subOrchestrationInstanceFailed", "entityOperationFailed"}


class _Reader:
    def __init__(self, history: History) -> None:
        if history.workflow_name is None:
            raise ValueError(f"{history!r} does not say which workflow was started; is it the whole history?")
        self._history = history
        self._rows: list[Row] = []
        self._open: dict[int, Row] = {}
        self._by_reference: dict[str, int] = {}
        self._fired_now: dict[int, Row] = {}
        self._by_number: dict[int, Row] = {}
        self._now = self._turn_ended = _NO_TIME
        self._instant: datetime = _NO_TIME
        self._later = timedelta(0)
        self._turns: list[datetime] = []
        self._suspensions: list[tuple[datetime, datetime]] = []
        self._suspended_since: datetime | None = None

    def read(self, until: datetime | None) -> Timeline:
        started = ended = None
        for event in self._history.protobuf:
            kind = event.WhichOneof("eventType") or ""
            self._tell_time(event, kind)
            if kind == "executionStarted":
                started = event.executionStarted
            elif kind == "executionCompleted":
                ended = event.executionCompleted
            else:
                self._read(event, kind)
        self._now = max(self._now, until or self._now)
        for row in self._open.values():
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
            given=started.input.value,
            result=ended.result.value if ended is not None else "",
            failure=_failure(failure) if failure is not None else "",
            rows=self._rows,
            ended=ended is not None,
            turns=self._turns,
            suspensions=self._suspensions,
        )

    def _tell_time(self, event: pb.HistoryEvent, kind: str) -> None:
        stamped = event.timestamp.ToDatetime(tzinfo=timezone.utc)
        if stamped > _NO_TIME:
            if kind == "orchestratorStarted":
                # On a virtual clock whole workflows take no time; a step for each turn keeps their turns apart.
                self._later = self._later + _STEP if stamped == self._instant else timedelta(0)
                self._instant = stamped
            # What happened before its turn began is recorded after the turn's start.
            self._now = stamped + (self._later if stamped == self._instant else timedelta(0))
        if kind == "orchestratorStarted":
            self._turns.append(self._now)
            self._fired_now = {}

    def _read(self, event: pb.HistoryEvent, kind: str) -> None:
        body: Any = getattr(event, kind)
        if kind in _OPERATIONS and event.eventId >= 0:
            self._begin(event, kind, body)
        elif kind in _COMPLETIONS or kind in _FAILURES:
            self._end(kind, body)
        elif kind == "timerFired":
            self._fire(body.timerId)
        elif kind in ("eventSent", "entityOperationSignaled", "entityUnlockSent"):
            self._moment(event)
        elif kind == "eventRaised":
            self._receive(body.name, body.input.value)
        elif kind == "executionSuspended":
            self._suspended_since = self._now
        elif kind == "executionResumed" and self._suspended_since is not None:
            self._suspensions.append((self._suspended_since, self._now))
            self._suspended_since = None
        elif kind == "orchestratorCompleted":
            self._turn_ended = self._now

    def _begin(self, event: pb.HistoryEvent, kind: str, body: Any) -> None:
        step = step_of_event(event)
        assert step is not None
        bar = Bar(self._now, self._now, Outcome.RUNNING)
        retried = self._by_number.get(event.eventId)
        if retried is not None and kind in ("taskScheduled", "subOrchestrationInstanceCreated"):
            self._take_pause(retried)
            retried.bars.append(bar)
            self._open[event.eventId] = retried
            return
        name = _timer_name(body) if kind == "timerCreated" else _name(step)
        row = Row(_OPERATIONS[kind], name, event.eventId, step.payload or "", [bar])
        if kind == "timerCreated":
            row = self._continued(row) or row
        elif kind == "subOrchestrationInstanceCreated":
            row.target = step.target
        if row.bars[0] is bar:
            self._rows.append(row)
        self._open[event.eventId] = self._by_number[event.eventId] = row
        reference = getattr(body, "requestId", "") or getattr(body, "criticalSectionId", "")
        if reference:
            self._by_reference[reference] = event.eventId

    def _continued(self, timer: Row) -> Row | None:
        """The row of the wait that this timer goes on with, if it does: one of three days that has just run out."""
        for number, row in list(self._fired_now.items()):
            if is_longest_timer(row.bars[-1].duration):
                del self._fired_now[number]
                row.bars[-1].text, timer.bars[0].text = row.name, timer.name
                row.bars += timer.bars
                row.name = timer.name
                return row
        return None

    def _take_pause(self, retried: Row) -> None:
        """Move the timer that ran out for this retry from a row of its own into the row of what is retried."""
        for number, pause in list(self._fired_now.items()):
            if pause.start >= retried.end and retried.outcome is Outcome.FAILED:
                self._rows.remove(pause)
                del self._fired_now[number]
                for bar in pause.bars:
                    bar.text = f"pause before attempt {len(retried.attempts) + 1}"
                    retried.bars.append(bar)
                return

    def _end(self, kind: str, body: Any) -> None:
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

    def _fire(self, number: int) -> None:
        row = self._open.pop(number, None)
        if row is not None:
            row.bars[-1].end = self._now
            row.bars[-1].outcome = Outcome.WAITED
            self._fired_now[number] = row

    def _moment(self, event: pb.HistoryEvent) -> None:
        step = step_of_event(event)
        if step is None:
            return
        kind = Kind.EVENT if step.kind == "send_event" else Kind.ENTITY
        self._rows.append(
            Row(
                kind,
                _name(step),
                step.number,
                step.payload or "",
                [Bar(self._now, self._now, Outcome.MOMENT, step.kind)],
            )
        )

    def _receive(self, name: str, data: str) -> None:
        """An event has arrived; if nothing else was being done, it is what the instance had been waiting for."""
        bars = [Bar(self._now, self._now, Outcome.MOMENT, data)]
        idle = not any(row.kind is not Kind.TIMER for row in self._open.values())
        if idle and self._turn_ended > _NO_TIME and self._now - self._turn_ended >= NOTICEABLE:
            bars.insert(0, Bar(self._turn_ended, self._now, Outcome.WAITED, f"waited for {name!r}"))
        self._rows.append(Row(Kind.EVENT, name, -1, data, bars))


def _name(step: Step) -> str:
    """What a row is called: of entities, also which one it is and what becomes of its lock."""
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
    """``start``, or how long after it."""
    offset = moment - timeline.start
    return f"+{duration_text(offset)}" if offset >= NOTICEABLE else "start"


def duration_text(duration: timedelta) -> str:
    """``340 ms``, ``2.5 s``, ``3 min 20 s``, ``2 d 4 h``."""
    seconds = duration.total_seconds()
    # The limits are where rounding reaches the next unit: "1000 ms" and "60 s" are said differently.
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    left, parts = round(seconds), cast("list[str]", [])
    for name, size in units:
        if left >= size:
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2])


def payload_text(payload: str, length: int = 60) -> str:
    """A payload as its author would write it, shortened."""
    try:
        text = json.dumps(json.loads(payload), ensure_ascii=False) if payload else ""
    except ValueError:
        text = payload
    return text if len(text) <= length else f"{text[: length - 1]}…"
