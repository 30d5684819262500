"""A timeline as text: the operations of an instance as a tree with columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from durabletask_aio.testing.history import History
from durabletask_aio.testing.steps import truncate
from durabletask_aio.testing.timeline import Bar, Kind, Outcome, Row, Timeline, duration_text, offset_text, payload_text

_MARKS = {
    Outcome.COMPLETED: "✓",
    Outcome.FAILED: "✗",
    Outcome.RUNNING: "…",
    Outcome.DROPPED: "○",
    Outcome.WAITED: "◷",
    Outcome.MOMENT: "•",
}

_MAX_FAILURE_LENGTH = 300


@dataclass
class _Line:
    """A line of the tree, in columns."""

    operation: str
    at: str
    took: str
    detail: str


def render_text(history: History) -> str:
    """Return the operations as a tree, one line each, with offsets, durations, payloads and failures.

    Raises:
        ValueError: if the history has no start.
    """
    timeline = Timeline.of(history)
    took = duration_text(timeline.end - timeline.start)
    turns = f"{len(timeline.turns)} turn{'' if len(timeline.turns) == 1 else 's'}"
    call = f"{timeline.workflow_name}({payload_text(timeline.input)})"
    head = f"{call}  {timeline.instance_id}  {timeline.status.name} after {took}, {turns}"
    end = [f"└─ {line}" for line in _end_lines(timeline)]
    lines = [_suspension(timeline, *times) for times in timeline.suspensions]
    for position, row in enumerate(timeline.rows):
        is_last = position == len(timeline.rows) - 1 and not end
        lines += _row_lines(timeline, row, is_last=is_last)
    return "\n".join([head, *_in_columns(lines), *end])


def _end_lines(timeline: Timeline) -> list[str]:
    if timeline.failure:
        return [f"✗ failed: {_one_line(timeline.failure)}"]
    return [f"returned {payload_text(timeline.result)}"] if timeline.result else []


def _in_columns(lines: list[_Line]) -> list[str]:
    if not lines:
        return []
    lines = [_Line("", "at", "took", "input → result"), *lines]
    operation, at, took = (max(len(getattr(line, name)) for line in lines) for name in ("operation", "at", "took"))
    return [
        f"{line.operation:<{operation}}  {line.at:>{at}}  {line.took:>{took}}  {line.detail}".rstrip() for line in lines
    ]


def _suspension(timeline: Timeline, start: datetime, end: datetime) -> _Line:
    return _Line("├─ ‖ suspended", offset_text(timeline, start), duration_text(end - start), "")


def _row_lines(timeline: Timeline, row: Row, *, is_last: bool) -> list[_Line]:
    branch, stem = ("└─", "  ") if is_last else ("├─", "│ ")
    took = duration_text(row.end - row.start) if row.has_duration else ""
    operation = f"{branch} {_MARKS[row.outcome]} {row.kind.value} {row.name}"
    lines = [_Line(operation, offset_text(timeline, row.start), took, _detail(row))]
    if len(row.attempts) > 1:
        for number, bar in enumerate(row.attempts, start=1):
            fork = "└─" if number == len(row.attempts) else "├─"
            text = _one_line(bar.text) if bar.outcome is Outcome.FAILED else payload_text(bar.text)
            attempt = f"{stem} {fork} {_MARKS[bar.outcome]} attempt {number}"
            lines.append(_Line(attempt, offset_text(timeline, bar.start), duration_text(bar.duration), text))
    return lines


def _detail(row: Row) -> str:
    detail = payload_text(row.input)
    if len(row.attempts) > 1:
        return f"{detail}  {len(row.attempts)} attempts".strip()
    if row.kind is Kind.TIMER and len(row.bars) > 1:
        detail = f"recorded as {len(row.bars)} timers"
    return f"{detail}  {_instance(row)}{_outcome(row.bars[-1])}".strip()


def _one_line(failure: str) -> str:
    return truncate(" ".join(failure.split()), _MAX_FAILURE_LENGTH)


def _instance(row: Row) -> str:
    return f"instance {row.target}  " if row.target else ""


def _outcome(bar: Bar) -> str:
    if bar.outcome is Outcome.COMPLETED:
        return f"→ {payload_text(bar.text) or 'None'}"
    if bar.outcome is Outcome.FAILED:
        return _one_line(bar.text)
    return {Outcome.RUNNING: "no outcome yet", Outcome.DROPPED: "not waited for any more"}.get(bar.outcome, "")
