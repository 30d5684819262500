"""A timeline for programs: the operations of an instance with their times, as one JSON document."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from durabletask_aio.testing.timeline import Bar, Row, Timeline


def timeline_to_dict(timeline: Timeline) -> dict[str, Any]:
    """Describe a timeline with values that the `json` module encodes; the keys are stable.

    Args:
        timeline: The timeline of an instance.

    Returns:
        Times are ISO 8601 in UTC, durations are seconds. Inputs and results are texts as the data converter encoded
        them, as in a history; `null` if there is none.
    """
    return {
        "workflow": timeline.workflow_name,
        "instance_id": timeline.instance_id,
        "status": timeline.status.name,
        **_span(timeline.start, timeline.end),
        "turns": len(timeline.turns),
        "input": timeline.input or None,
        "result": timeline.result or None,
        "failure": timeline.failure or None,
        "suspensions": [_span(start, end) for start, end in timeline.suspensions],
        "operations": [_operation(row) for row in timeline.rows],
    }


def _operation(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind.value,
        "name": row.name,
        "number": row.number if row.number >= 0 else None,  # an event that arrived has none
        "instance_id": row.target or None,
        "outcome": row.outcome.value,
        **_span(row.start, row.end),
        "input": row.input or None,
        "attempts": [_attempt(bar) for bar in row.attempts],
    }


def _attempt(bar: Bar) -> dict[str, Any]:
    return {"outcome": bar.outcome.value, **_span(bar.start, bar.end), "detail": bar.text or None}


def _span(start: datetime, end: datetime) -> dict[str, Any]:
    return {"start": start.isoformat(), "end": end.isoformat(), "seconds": round((end - start).total_seconds(), 6)}
