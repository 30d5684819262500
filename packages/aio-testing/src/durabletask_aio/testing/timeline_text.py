"""A timeline for the terminal: the operations of an instance as a tree."""

from __future__ import annotations

from durabletask_aio.testing.history import History
from durabletask_aio.testing.timeline import Kind, Outcome, Row, Timeline, duration_text, payload_text

_MARKS = {
    Outcome.COMPLETED: "✓",
    Outcome.FAILED: "✗",
    Outcome.RUNNING: "…",
    Outcome.DROPPED: "○",
    Outcome.WAITED: "◷",
    Outcome.MOMENT: "•",
}


def render_text(history: History) -> str:
    """The operations as a tree, one line each, with offsets from the start, durations, payloads and failures."""
    timeline = Timeline.of(history)
    took = duration_text(timeline.end - timeline.start)
    call = f"{timeline.workflow_name}({payload_text(timeline.given)})"
    lines = [f"{call}  {timeline.instance_id}  {timeline.status.name} after {took}, {len(timeline.turns)} turns"]
    width = max((len(_label(row)) for row in timeline.rows), default=0)
    for position, row in enumerate(timeline.rows):
        last = position == len(timeline.rows) - 1 and not timeline.result and not timeline.failure
        lines += _row_lines(timeline, row, "└─" if last else "├─", width)
    for start, end in timeline.suspensions:
        lines.insert(1, f"├─ suspended at +{duration_text(start - timeline.start)} for {duration_text(end - start)}")
    if timeline.failure:
        lines.append(f"└─ ✗ failed: {timeline.failure}")
    elif timeline.result:
        lines.append(f"└─ returned {payload_text(timeline.result)}")
    return "\n".join(lines)


def _label(row: Row) -> str:
    return f"{row.kind.value} {row.name}" if row.kind is not Kind.TIMER else f"timer {row.name}"


def _row_lines(timeline: Timeline, row: Row, branch: str, width: int) -> list[str]:
    offset = f"+{duration_text(row.start - timeline.start)}"
    took = "" if row.outcome is Outcome.MOMENT and len(row.bars) == 1 else duration_text(row.end - row.start)
    attempts = row.attempts
    line = f"{branch} {_MARKS[row.outcome]} {_label(row):<{width}}  {offset:>12}  {took:>12}  {_detail(row)}".rstrip()
    if len(attempts) <= 1 or row.kind is Kind.EVENT:
        return [line]
    stem = "  " if branch.startswith("└") else "│ "
    lines = [line]
    for number, bar in enumerate(attempts, start=1):
        fork = "└─" if number == len(attempts) else "├─"
        at = f"+{duration_text(bar.start - timeline.start)}"
        text = bar.text if bar.outcome is Outcome.FAILED else payload_text(bar.text)
        lines.append(f"{stem} {fork} {_MARKS[bar.outcome]} attempt {number}  {at:>12}  {text}".rstrip())
    return lines


def _detail(row: Row) -> str:
    bar = row.bars[-1]
    if row.kind is Kind.EVENT:
        return payload_text(row.given)
    if len(row.attempts) > 1:
        return f"{payload_text(row.given)}  {len(row.attempts)} attempts".strip()
    if bar.outcome is Outcome.FAILED:
        return f"{payload_text(row.given)}  {bar.text}".strip()
    if bar.outcome is Outcome.COMPLETED:
        return f"{payload_text(row.given)} → {payload_text(bar.text) or 'None'}".strip()
    if bar.outcome is Outcome.RUNNING:
        return f"{payload_text(row.given)}  no outcome yet".strip()
    if bar.outcome is Outcome.DROPPED:
        return f"{payload_text(row.given)}  not waited for any more".strip()
    return payload_text(row.given)
