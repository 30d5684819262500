"""What an instance did and when, as rows of bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from durabletask_aio.engine.web.formats import duration
from durabletask_aio.engine.web.history import Event

_GROUP = 6
"""Operations of one kind and name in a row that become a group."""

_MAX_FIRST, _MAX_LAST = 100, 400
"""Rows that are shown of a history that has more: the first and the last."""

_STARTS = {
    "taskScheduled": "activity",
    "timerCreated": "timer",
    "subOrchestrationInstanceCreated": "child",
    "entityOperationCalled": "entity",
    "entityLockRequested": "lock",
}
_ENDS = {
    "taskCompleted": ("activity", "completed"),
    "taskFailed": ("activity", "failed"),
    "timerFired": ("timer", "completed"),
    "subOrchestrationInstanceCompleted": ("child", "completed"),
    "subOrchestrationInstanceFailed": ("child", "failed"),
    "entityOperationCompleted": ("entity", "completed"),
    "entityOperationFailed": ("entity", "failed"),
    "entityLockGranted": ("lock", "completed"),
}
_MOMENTS = {
    "eventRaised": "event",
    "eventSent": "event",
    "entityOperationSignaled": "entity",
    "entityUnlockSent": "lock",
    "executionTerminated": "end",
    "executionRewound": "end",
}


@dataclass
class Bar:
    """An operation on the time axis.

    Attributes:
        kind: activity, step, patch, timer, child, entity, lock, event, request, answer or end.
        name: what it is of.
        started: the event that began it.
        ended: the event that ended it, `None` if none has.
        outcome: running, completed, failed, or dropped if the instance ended before it.
        start: milliseconds from the start of the instance.
        end: the same for its end; `None` while it runs.
        due: when a timer is due, on the same scale.
        worker: who works on it.
    """

    kind: str
    name: str
    started: Event
    outcome: str
    start: float
    ended: Event | None = None
    end: float | None = None
    due: float | None = None
    worker: str = ""

    @property
    def is_moment(self) -> bool:
        """Whether it has no length."""
        return self.outcome == "moment"

    def length(self) -> str:
        """Return its duration as text, empty while it runs."""
        if self.end is None or self.is_moment:
            return ""
        return duration(timedelta(milliseconds=self.end - self.start))


@dataclass
class Group:
    """Bars of one kind and name that follow each other, shown as one row that can be opened.

    Attributes:
        kind: of each.
        name: of each.
        bars: in order; one alone is no group to users.
    """

    kind: str
    name: str
    bars: list[Bar]

    def count(self, outcome: str) -> int:
        """Return how many of the bars have an outcome."""
        return sum(bar.outcome == outcome for bar in self.bars)


@dataclass
class Timeline:
    """The rows of an instance.

    Attributes:
        start: of the axis.
        length: of the axis up to the last event, in milliseconds.
        groups: the rows.
        left_out: how many rows are not shown, after `_MAX_FIRST` of them.
        turns: when turns began, in milliseconds.
        suspensions: from when to when it was suspended; `None` if it is.
    """

    start: datetime
    length: float
    groups: list[Group]
    left_out: int = 0
    turns: list[float] = field(default_factory=list[float])
    suspensions: list[tuple[float, float | None]] = field(default_factory=list[tuple[float, "float | None"]])

    @property
    def operations(self) -> int:
        """How many operations there are."""
        return sum(len(group.bars) for group in self.groups) + self.left_out


def timeline(events: Sequence[Event], start: datetime, *, has_ended: bool) -> Timeline:
    """Read a history.

    Args:
        events: its events.
        start: when the instance was created.
        has_ended: whether operations without an outcome will not get one.

    Returns:
        The rows, in the order in which operations began.
    """
    first = min([start, *(event.time for event in events if event.time is not None)])
    reader = _Reader(first)
    for event in events:
        reader.add(event)
    return reader.end(has_ended=has_ended)


class _Reader:
    """Reads events in order."""

    def __init__(self, first: datetime) -> None:
        self._result = Timeline(first, 0.0, [])
        self._bars: list[Bar] = []
        self._running: dict[tuple[str, str], Bar] = {}
        self._suspended: float | None = None

    def add(self, event: Event) -> None:
        result = self._result
        if event.time is not None:
            result.length = max(result.length, (event.time - result.start).total_seconds() * 1000)
        when = result.length
        if event.kind in _STARTS:
            kind = _STARTS[event.kind]
            bar = Bar(kind, event.subject or kind, event, "running", when, due=_due(event, result.start))
            self._running[kind, event.reference or str(event.id)] = bar
            self._bars.append(bar)
        elif event.kind in _ENDS:
            kind, outcome = _ENDS[event.kind]
            ending = self._running.pop((kind, event.reference), None)
            if ending is not None:
                ending.ended, ending.outcome, ending.end = event, outcome, when
        elif event.kind in _MOMENTS and event.recorded != "wake-up":
            kind = event.recorded or _MOMENTS[event.kind]
            self._bars.append(Bar(kind, event.subject or event.title, event, "moment", when, end=when))
        elif event.is_turn:
            result.turns.append(when)
        elif event.kind == "executionSuspended":
            self._suspended = when
        elif event.kind == "executionResumed" and self._suspended is not None:
            result.suspensions.append((self._suspended, when))
            self._suspended = None

    def end(self, *, has_ended: bool) -> Timeline:
        result, bars = self._result, self._bars
        if self._suspended is not None:
            result.suspensions.append((self._suspended, result.length if has_ended else None))
        if has_ended:
            for bar in self._running.values():
                bar.outcome, bar.end = "dropped", result.length
        if len(bars) > _MAX_FIRST + _MAX_LAST:
            result.left_out = len(bars) - _MAX_FIRST - _MAX_LAST
            bars = bars[:_MAX_FIRST] + bars[-_MAX_LAST:]
        result.groups = list(_grouped(bars))
        return result


def _due(event: Event, first: datetime) -> float | None:
    for name, value in event.facts:
        if name == "fire at" and isinstance(value, datetime):
            return (value - first).total_seconds() * 1000
    return None


def _grouped(bars: Sequence[Bar]) -> Iterable[Group]:
    for (kind, name), some in groupby(bars, key=lambda bar: (bar.kind, bar.name)):
        members = list(some)
        if len(members) >= _GROUP:
            yield Group(kind, name, members)
        else:
            yield from (Group(kind, name, [bar]) for bar in members)
