"""A timeline as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import accumulate

from durabletask_aio.testing.history import History
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
from durabletask_aio.testing.timeline_style import STYLE

_LABELS, _PLOT, _RIGHT = 250, 880, 70
_WIDTH = _LABELS + _PLOT + _RIGHT
_ROW, _TOP, _LANE = 26, 58, 30
_SHORTEST_BAR = 5.0
_BETWEEN_TICKS = 78.0
_LETTER, _FEWEST_LETTERS = 6.2, 5

_LANES = {
    Kind.ACTIVITY: "Activities",
    Kind.TIMER: "Timers",
    Kind.EVENT: "Events",
    Kind.CHILD: "Sub-orchestrations",
    Kind.ENTITY: "Entities",
}

_LEGEND = {
    Outcome.COMPLETED: "done",
    Outcome.FAILED: "failed",
    Outcome.WAITED: "waiting on purpose",
    Outcome.RUNNING: "no outcome yet",
    Outcome.DROPPED: "not waited for any more",
}


def render_html(history: History, *, above: str = "", custom_status: str = "", until: datetime | None = None) -> str:
    """The page.  Payloads appear on it as they are in the history: redact first what must not be shown.

    ``above`` is HTML that goes before the heading, for a page that is part of something larger.
    ``custom_status``, encoded, is what the history does not have: the engine knows it.
    ``until`` is how far to draw what has not ended; by default as far as the last event.
    """
    timeline = Timeline.of(history, until=until)
    axis = _Axis(timeline)
    title = f"{timeline.workflow_name} · {timeline.instance_id}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body><main>\n{above}"
        f"{_header(timeline, custom_status, until)}\n<figure>{_drawing(timeline, axis)}</figure>\n"
        f"{_legend(timeline)}\n{_table(timeline)}\n"
        "</main></body></html>\n"
    )


class _Axis:
    """Where a moment is drawn.

    A workflow waits for days and then does ten things in a second.  Drawn to scale one would see a line; so each gap
    between two moments takes a width that grows with its logarithm.
    """

    def __init__(self, timeline: Timeline) -> None:
        moments = {timeline.start, timeline.end}
        for row in timeline.rows:
            for bar in row.bars:
                moments |= {bar.start, bar.end}
        for start, end in timeline.suspensions:
            moments |= {start, end}
        self.moments = sorted(moments)
        weights = [
            1 + math.log10(1 + (after - before).total_seconds() * 1000)
            for before, after in zip(self.moments, self.moments[1:], strict=False)
        ]
        scale = _PLOT / sum(weights) if weights else 0.0
        offsets = accumulate((weight * scale for weight in weights), initial=float(_LABELS))
        self._at = dict(zip(self.moments, offsets, strict=True))

    def __call__(self, moment: datetime) -> float:
        """Where it is; within a gap, moments are spread evenly."""
        if moment in self._at:
            return self._at[moment]
        following = min(max(bisect(self.moments, moment), 1), len(self.moments) - 1)
        before, after = self.moments[following - 1], self.moments[following]
        part = min(max((moment - before) / (after - before), 0.0), 1.0)
        return self._at[before] + part * (self._at[after] - self._at[before])

    def ticks(self, timeline: Timeline) -> list[tuple[float, str]]:
        """As many moments as have room for their label: position, and time since the start.

        Two seconds after two days is "+2 d" as well, so such a label says how long after the one before.
        """
        ticks: list[tuple[float, str]] = []
        previous = timeline.start
        last_offset = ""
        for moment in self.moments:
            x = self(moment)
            if ticks and (x - ticks[-1][0] < _BETWEEN_TICKS or moment - previous < RESOLUTION):
                continue
            offset = offset_text(timeline, moment)
            ticks.append((x, offset if offset != last_offset else f"{duration_text(moment - previous)} later"))
            previous, last_offset = moment, offset
        return ticks


def _header(timeline: Timeline, custom_status: str, until: datetime | None) -> str:
    status = timeline.status.name.lower().replace("_", " ")
    ended = f"<dt>failed with</dt><dd class='failure'>{escape(timeline.failure)}</dd>" if timeline.failure else ""
    if custom_status:
        ended += f"<dt>custom status</dt><dd><code>{escape(payload_text(custom_status, 300))}</code></dd>"
    if timeline.result:
        ended += f"<dt>result</dt><dd><code>{escape(payload_text(timeline.result, 300))}</code></dd>"
    given = f"<dt>input</dt><dd><code>{escape(payload_text(timeline.input, 300))}</code></dd>" if timeline.input else ""
    turns = f"{duration_text(timeline.end - timeline.start)} in {_count(len(timeline.turns), 'turn')}"
    so_far = turns if until is not None else f"{turns}, up to the last event"
    took = f"<dt>took</dt><dd>{turns}</dd>" if timeline.ended else f"<dt>so far</dt><dd>{so_far}</dd>"
    return (
        f"<header><h1>{escape(timeline.workflow_name)} <span class='status {status.split()[0]}'>{status}</span></h1>"
        f"<dl><dt>instance</dt><dd><code>{escape(timeline.instance_id)}</code></dd>"
        f"<dt>started</dt><dd>{timeline.start:%Y-%m-%d %H:%M:%S} UTC</dd>{took}{given}{ended}</dl></header>"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _drawing(timeline: Timeline, axis: _Axis) -> str:
    parts: list[str] = []
    y = float(_TOP)
    for kind, heading in _LANES.items():
        rows = [row for row in timeline.rows if row.kind is kind]
        if not rows:
            continue
        parts.append(f"<text class='lane' x='12' y='{y + 20:.0f}'>{heading}</text>")
        y += _LANE
        for row in rows:
            parts.append(_row(timeline, axis, row, y))
            y += _ROW
        y += 6
    height = y + 8
    ticks = "".join(
        f"<line class='grid' x1='{x:.1f}' y1='44' x2='{x:.1f}' y2='{height - 8:.0f}'/>"
        f"<text class='tick' x='{x:.1f}' y='16'>{escape(text)}</text>"
        for x, text in axis.ticks(timeline)
    )
    shades = "".join(
        f"<rect class='suspended' x='{axis(start):.1f}' y='44' width='{max(axis(end) - axis(start), 2):.1f}' "
        f"height='{height - 52:.0f}'><title>suspended for {duration_text(end - start)}</title></rect>"
        for start, end in timeline.suspensions
    )
    turns = "".join(
        f"<line class='turn' x1='{axis(at):.1f}' y1='27' x2='{axis(at):.1f}' y2='41'>"
        f"<title>turn {number}, at {offset_text(timeline, at)}</title></line>"
        for number, at in enumerate(timeline.turns, start=1)
    )
    x, width = axis(timeline.start), max(axis(timeline.end) - axis(timeline.start), _SHORTEST_BAR)
    instance = f"<rect class='instance' x='{x:.1f}' y='30' width='{width:.1f}' height='8' rx='4'/>"
    return (
        f"<svg viewBox='0 0 {_WIDTH} {height:.0f}' role='img' aria-label='Timeline; the table below says the same'>"
        "<defs><pattern id='wait' width='7' height='7' patternUnits='userSpaceOnUse' patternTransform='rotate(45)'>"
        "<rect width='7' height='7' class='wait-ground'/><rect width='2.5' height='7' class='wait-line'/>"
        "</pattern></defs>"
        f"{ticks}{shades}<text class='name' x='12' y='38'>workflow and its turns</text>{instance}{turns}"
        f"{''.join(parts)}</svg>"
    )


def _row(timeline: Timeline, axis: _Axis, row: Row, y: float) -> str:
    attempts = len(row.attempts)
    name = f"{row.name} ({attempts} attempts)" if attempts > 1 else row.name
    label = name if len(name) <= 34 else f"{name[:33]}…"
    bars = "".join(_bar(timeline, axis, row, bar, y) for bar in row.bars)
    lasted = row.end - row.start
    took = duration_text(lasted) if lasted >= RESOLUTION and row.outcome is not Outcome.DROPPED else ""
    more = payload_text(row.input, 24) if row.outcome is Outcome.MOMENT else ""
    if row.outcome is Outcome.RUNNING:
        more = _LEGEND[row.outcome]
    return (
        f"<g class='row'><rect class='hover' x='0' y='{y:.0f}' width='{_WIDTH}' height='{_ROW}'/>"
        f"<text class='name' x='24' y='{y + 17:.0f}'>{escape(label)}<title>{escape(_given(row))}</title></text>"
        f"{bars}{_beside(axis, row, ', '.join(filter(None, (took, more))), y + 17)}</g>"
    )


def _beside(axis: _Axis, row: Row, text: str, y: float) -> str:
    """What is written after the last bar or, where the drawing ends, before the first."""
    x, anchor = axis(row.end) + 9, "start"
    if x + len(text) * _LETTER > _WIDTH and axis(row.start) - len(text) * _LETTER > _LABELS:
        x, anchor = axis(row.start) - 9, "end"
    return f"<text class='took' x='{x:.1f}' y='{y:.0f}' text-anchor='{anchor}'>{escape(text)}</text>" if text else ""


def _bar(timeline: Timeline, axis: _Axis, row: Row, bar: Bar, y: float) -> str:
    title = f"<title>{escape(_hover(timeline, row, bar))}</title>"
    x = axis(bar.start)
    if bar.outcome is Outcome.MOMENT:
        middle = y + _ROW / 2
        points = f"{x:.1f},{middle - 7:.1f} {x + 7:.1f},{middle:.1f} {x:.1f},{middle + 7:.1f} {x - 7:.1f},{middle:.1f}"
        return f"<polygon class='moment' points='{points}'>{title}</polygon>"
    width = max(axis(bar.end) - x, _SHORTEST_BAR)
    thin = bar.outcome is Outcome.WAITED
    top, height = (y + 9, _ROW - 18) if thin else (y + 4, _ROW - 8)
    rectangle = (
        f"<rect class='bar {bar.outcome.value}' x='{x:.1f}' y='{top:.0f}' width='{width:.1f}' height='{height:.0f}' "
        f"rx='{2 if thin else 4}'>{title}</rect>"
    )
    return rectangle + _inside(row, bar, x, y, width)


def _inside(row: Row, bar: Bar, x: float, y: float, width: float) -> str:
    """What was given, or how it failed, written into the bar if it fits."""
    text = {Outcome.COMPLETED: payload_text(row.input, 1000), Outcome.FAILED: bar.text}.get(bar.outcome, "")
    room = int((width - 12) / _LETTER)
    if not text or room < _FEWEST_LETTERS:
        return ""
    shown = text if len(text) <= room else f"{text[: room - 1]}…"
    return f"<text class='inside' x='{x + 7:.1f}' y='{y + 17:.0f}'>{escape(shown)}</text>"


def _given(row: Row) -> str:
    number = f" #{row.number}" if row.number > 0 else ""
    number += f", instance {row.target}" if row.target else ""
    return f"{row.kind.value} {row.name}{number}" + (f"\ninput: {payload_text(row.input, 1000)}" if row.input else "")


def _hover(timeline: Timeline, row: Row, bar: Bar) -> str:
    lines = [_given(row), f"at {offset_text(timeline, bar.start)}"]
    if bar.outcome is not Outcome.MOMENT:
        lines.append(f"{_LEGEND[bar.outcome]}, {duration_text(bar.duration)}")
    if bar.text:
        shown = bar.text if bar.outcome is not Outcome.COMPLETED else f"result: {payload_text(bar.text, 1000)}"
        lines.append(shown)
    return "\n".join(lines)


def _legend(timeline: Timeline) -> str:
    used = {bar.outcome for row in timeline.rows for bar in row.bars}
    items = [f"<li><i class='bar {each.value}'></i>{text}</li>" for each, text in _LEGEND.items() if each in used]
    if Outcome.MOMENT in used:
        items.append("<li><i class='moment'></i>event or message</li>")
    if timeline.suspensions:
        items.append("<li><i class='suspended'></i>suspended</li>")
    items.append("<li><i class='turn'></i>a turn of the workflow's code</li>")
    at_once = any(
        after - before < RESOLUTION for before, after in zip(timeline.turns, timeline.turns[1:], strict=False)
    )
    together = " Turns of one instant are drawn one after the other." if at_once else ""
    return (
        f"<ul class='legend'>{''.join(items)}</ul><p class='note'>Time runs to the right; long gaps are shortened, so "
        f"lengths do not compare.{together} Point at anything for its input, result and times."
        "<span class='narrow'> The drawing is wider than this window: scroll it sideways.</span></p>"
    )


def _table(timeline: Timeline) -> str:
    rows = "".join(_table_row(timeline, row) for row in timeline.rows)
    return (
        "<details><summary>The same as a table</summary><div class='wide'><table><thead><tr>"
        "<th>at</th><th>what</th><th>took</th><th>input</th><th>outcome</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _table_row(timeline: Timeline, row: Row) -> str:
    outcomes: Sequence[str] = [
        f"{'attempt ' + str(number) + ': ' if len(row.attempts) > 1 else ''}{_outcome(bar)}"
        for number, bar in enumerate(row.attempts, start=1)
    ]
    lasted = row.end - row.start
    took = duration_text(lasted) if lasted >= RESOLUTION else ""
    return (
        f"<tr><td>{offset_text(timeline, row.start)}</td><td>{row.kind.value} <b>{escape(row.name)}</b></td>"
        f"<td>{took}</td><td><code>{escape(payload_text(row.input, 200))}</code></td>"
        f"<td>{'<br>'.join(escape(each) for each in outcomes)}</td></tr>"
    )


def _outcome(bar: Bar) -> str:
    if bar.outcome is Outcome.COMPLETED:
        return payload_text(bar.text, 200) or "done"
    if bar.outcome is Outcome.MOMENT:
        return "arrived or sent"
    return bar.text or _LEGEND[bar.outcome]
