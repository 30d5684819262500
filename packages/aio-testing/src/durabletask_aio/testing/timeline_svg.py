"""The drawing of a timeline: one lane for each kind of operation, one row for each operation, as SVG."""

from __future__ import annotations

from durabletask_aio.testing.markup import Markup, element, join
from durabletask_aio.testing.timeline import (
    RESOLUTION,
    Bar,
    Kind,
    Outcome,
    Row,
    Timeline,
    duration_text,
    offset_text,
    payload_text,
)
from durabletask_aio.testing.timeline_axis import Axis

OUTCOME_TEXTS = {
    Outcome.COMPLETED: "done",
    Outcome.FAILED: "failed",
    Outcome.WAITED: "waiting on purpose",
    Outcome.RUNNING: "no outcome yet",
    Outcome.DROPPED: "not waited for any more",
}

_LANE_HEADINGS = {
    Kind.ACTIVITY: "Activities",
    Kind.STEP: "Steps",
    Kind.TIMER: "Timers",
    Kind.EVENT: "Events",
    Kind.REQUEST: "Requests",
    Kind.PATCH: "Patches",
    Kind.CHILD: "Sub-orchestrations",
    Kind.ENTITY: "Entities",
}

# All sizes are in pixels of the drawing, which the page scales to its width.
_LABEL_WIDTH, _PLOT_WIDTH, _RIGHT_MARGIN = 250, 880, 70
_WIDTH = _LABEL_WIDTH + _PLOT_WIDTH + _RIGHT_MARGIN
_TOP_MARGIN, _LANE_HEIGHT, _ROW_HEIGHT = 58.0, 30, 26
_MIN_BAR_WIDTH = 5.0
_LETTER_WIDTH, _MIN_LETTERS = 6.2, 5
_MAX_LABEL_LETTERS = 34


def render_svg(timeline: Timeline) -> Markup:
    """Return the drawing as an `svg` element; its classes and colours are in `data/timeline.css`."""
    axis = Axis(timeline, left=float(_LABEL_WIDTH), width=_PLOT_WIDTH)
    lanes, height = _lanes(timeline, axis)
    x = axis.position(timeline.start)
    width = max(axis.position(timeline.end) - x, _MIN_BAR_WIDTH)
    pattern = element(
        "pattern",
        element("rect", width=7, height=7, class_="wait-ground"),
        element("rect", width=2.5, height=7, class_="wait-line"),
        id="wait",
        width=7,
        height=7,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    return element(
        "svg",
        element("defs", pattern),
        *(_tick(x, text, height) for x, text in axis.ticks(timeline)),
        *_suspensions(timeline, axis, height),
        element("text", "workflow and its turns", class_="name", x=12, y=38),
        element("rect", class_="instance", x=x, y=30, width=width, height=8, rx=4),
        *_turns(timeline, axis),
        *lanes,
        viewBox=f"0 0 {_WIDTH} {height:.0f}",
        role="img",
        aria_label="Timeline; the table below says the same",
    )


def _lanes(timeline: Timeline, axis: Axis) -> tuple[list[Markup], float]:
    """Return the lanes that have rows, and the height of the drawing."""
    parts: list[Markup] = []
    y = _TOP_MARGIN
    for kind, heading in _LANE_HEADINGS.items():
        rows = [row for row in timeline.rows if row.kind is kind]
        if not rows:
            continue
        parts.append(element("text", heading, class_="lane", x=12, y=y + 20))
        y += _LANE_HEIGHT
        for row in rows:
            parts.append(_row(timeline, axis, row, y))
            y += _ROW_HEIGHT
        y += 6
    return parts, y + 8


def _tick(x: float, text: str, height: float) -> Markup:
    line = element("line", class_="grid", x1=x, y1=44, x2=x, y2=height - 8)
    return join([line, element("text", text, class_="tick", x=x, y=16)])


def _suspensions(timeline: Timeline, axis: Axis, height: float) -> list[Markup]:
    return [
        element(
            "rect",
            element("title", f"suspended for {duration_text(end - start)}"),
            class_="suspended",
            x=axis.position(start),
            y=44,
            width=max(axis.position(end) - axis.position(start), 2.0),
            height=height - 52,
        )
        for start, end in timeline.suspensions
    ]


def _turns(timeline: Timeline, axis: Axis) -> list[Markup]:
    marks: list[Markup] = []
    for number, moment in enumerate(timeline.turns, start=1):
        x = axis.position(moment)
        title = element("title", f"turn {number}, at {offset_text(timeline, moment)}")
        marks.append(element("line", title, class_="turn", x1=x, y1=27, x2=x, y2=41))
    return marks


def _row(timeline: Timeline, axis: Axis, row: Row, y: float) -> Markup:
    attempts = len(row.attempts)
    name = f"{row.name} ({attempts} attempts)" if attempts > 1 else row.name
    label = name if len(name) <= _MAX_LABEL_LETTERS else f"{name[: _MAX_LABEL_LETTERS - 1]}…"
    return element(
        "g",
        element("rect", class_="hover", x=0, y=y, width=_WIDTH, height=_ROW_HEIGHT),
        element("text", label, element("title", _describe_row(row)), class_="name", x=24, y=y + 17),
        *(_bar(timeline, axis, row, bar, y) for bar in row.bars),
        _caption(axis, row, y + 17),
        class_="row",
    )


def _caption(axis: Axis, row: Row, y: float) -> Markup:
    """Return the text next to the bars: after the last one or, where the drawing ends, before the first."""
    duration = row.end - row.start
    took = duration_text(duration) if duration >= RESOLUTION and row.outcome is not Outcome.DROPPED else ""
    note = payload_text(row.input, 24) if row.outcome is Outcome.MOMENT else ""
    if row.outcome is Outcome.RUNNING:
        note = OUTCOME_TEXTS[row.outcome]
    text = ", ".join(filter(None, (took, note)))
    if not text:
        return Markup()
    x, anchor = axis.position(row.end) + 9, "start"
    width = len(text) * _LETTER_WIDTH
    if x + width > _WIDTH and axis.position(row.start) - width > _LABEL_WIDTH:
        x, anchor = axis.position(row.start) - 9, "end"
    return element("text", text, class_="took", x=x, y=y, text_anchor=anchor)


def _bar(timeline: Timeline, axis: Axis, row: Row, bar: Bar, y: float) -> Markup:
    title = element("title", _describe_bar(timeline, row, bar))
    x = axis.position(bar.start)
    if bar.outcome is Outcome.MOMENT:
        middle = y + _ROW_HEIGHT / 2
        points = f"{x:.1f},{middle - 7:.1f} {x + 7:.1f},{middle:.1f} {x:.1f},{middle + 7:.1f} {x - 7:.1f},{middle:.1f}"
        return element("polygon", title, class_="moment", points=points)
    width = max(axis.position(bar.end) - x, _MIN_BAR_WIDTH)
    is_thin = bar.outcome is Outcome.WAITED
    margin, radius = (9, 2) if is_thin else (4, 4)
    rectangle = element(
        "rect",
        title,
        class_=f"bar {bar.outcome.value}",
        x=x,
        y=y + margin,
        width=width,
        height=_ROW_HEIGHT - 2 * margin,
        rx=radius,
    )
    return join([rectangle, _text_in_bar(row, bar, x, y, width)])


def _text_in_bar(row: Row, bar: Bar, x: float, y: float, width: float) -> Markup:
    """Return the input or the failure, as far as it fits into the bar."""
    text = {Outcome.COMPLETED: payload_text(row.input, 1000), Outcome.FAILED: bar.text}.get(bar.outcome, "")
    letters = int((width - 12) / _LETTER_WIDTH)
    if not text or letters < _MIN_LETTERS:
        return Markup()
    shown = text if len(text) <= letters else f"{text[: letters - 1]}…"
    return element("text", shown, class_="inside", x=x + 7, y=y + 17)


def _describe_row(row: Row) -> str:
    number = f" #{row.number}" if row.number > 0 else ""
    instance = f", instance {row.target}" if row.target else ""
    given = f"\ninput: {payload_text(row.input, 1000)}" if row.input else ""
    return f"{row.kind.value} {row.name}{number}{instance}{given}"


def _describe_bar(timeline: Timeline, row: Row, bar: Bar) -> str:
    lines = [_describe_row(row), f"at {offset_text(timeline, bar.start)}"]
    if bar.outcome is not Outcome.MOMENT:
        took = f", {duration_text(bar.duration)}" if row.has_duration else ""
        lines.append(f"{OUTCOME_TEXTS[bar.outcome]}{took}")
    if bar.text:
        is_result = bar.outcome is Outcome.COMPLETED
        lines.append(f"result: {payload_text(bar.text, 1000)}" if is_result else bar.text)
    return "\n".join(lines)
