"""A timeline as one self-contained HTML page, without scripts and without requests to the network."""

from __future__ import annotations

from html import escape
from string import Template

from durabletask_aio.testing.history import History
from durabletask_aio.testing.markup import BREAK, Markup, element, join
from durabletask_aio.testing.package_data import read_data
from durabletask_aio.testing.timeline import (
    RESOLUTION,
    Bar,
    Outcome,
    Row,
    Timeline,
    duration_text,
    offset_text,
    payload_text,
)
from durabletask_aio.testing.timeline_svg import OUTCOME_TEXTS, render_svg

STYLE = read_data("timeline.css")

_PAGE = Template(read_data("timeline.html"))


def render_html(history: History) -> str:
    """Return the page.

    Payloads are shown as they are in the history; redact the history first if they must not be shown.

    Args:
        history: the history.

    Returns:
        The HTML document.

    Raises:
        ValueError: if the history has no start.
    """
    timeline = Timeline.of(history)
    return _PAGE.substitute(
        title=escape(f"{timeline.workflow_name} · {timeline.instance_id}"),
        style=STYLE,
        header=_header(timeline),
        drawing=render_svg(timeline),
        legend=_legend(timeline),
        table=_table(timeline),
    )


def _header(timeline: Timeline) -> Markup:
    status = timeline.status.name.lower().replace("_", " ")
    turns = f"{duration_text(timeline.end - timeline.start)} in {_count(len(timeline.turns), 'turn')}"
    entries = [
        element("dt", "instance"),
        element("dd", element("code", timeline.instance_id)),
        element("dt", "started"),
        element("dd", f"{timeline.start:%Y-%m-%d %H:%M:%S} UTC"),
        element("dt", "took" if timeline.ended else "so far"),
        element("dd", turns if timeline.ended else f"{turns}, up to the last event"),
        *_payload_entry("input", timeline.input),
    ]
    if timeline.failure:
        entries += [element("dt", "failed with"), element("dd", timeline.failure, class_="failure")]
    entries += _payload_entry("result", timeline.result)
    badge = element("span", status, class_=f"status {status.split()[0]}")
    return element("header", element("h1", timeline.workflow_name, " ", badge), element("dl", *entries))


def _payload_entry(term: str, payload: str) -> list[Markup]:
    if not payload:
        return []
    return [element("dt", term), element("dd", element("code", payload_text(payload, 300)))]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _legend(timeline: Timeline) -> Markup:
    used = {bar.outcome for row in timeline.rows for bar in row.bars}
    items = [(f"bar {outcome.value}", text) for outcome, text in OUTCOME_TEXTS.items() if outcome in used]
    if Outcome.MOMENT in used:
        items.append(("moment", "event or message"))
    if timeline.suspensions:
        items.append(("suspended", "suspended"))
    items.append(("turn", "a turn of the workflow's code"))
    entries = (element("li", element("i", class_=css_class), text) for css_class, text in items)
    pairs = zip(timeline.turns, timeline.turns[1:], strict=False)
    has_simultaneous_turns = any(after - before < RESOLUTION for before, after in pairs)
    note = element(
        "p",
        "Time runs to the right; long gaps are shortened, so lengths do not compare.",
        " Turns of one instant are drawn one after the other." if has_simultaneous_turns else "",
        " Point at anything for its input, result and times.",
        element("span", " The drawing is wider than this window: scroll it sideways.", class_="narrow"),
        class_="note",
    )
    return join([element("ul", *entries, class_="legend"), note])


def _table(timeline: Timeline) -> Markup:
    headings = (element("th", heading) for heading in ("at", "what", "took", "input", "outcome"))
    table = element(
        "table",
        element("thead", element("tr", *headings)),
        element("tbody", *(_table_row(timeline, row) for row in timeline.rows)),
    )
    return element("details", element("summary", "The same as a table"), element("div", table, class_="wide"))


def _table_row(timeline: Timeline, row: Row) -> Markup:
    attempts = row.attempts
    outcomes = (
        f"attempt {number}: {_outcome(bar)}" if len(attempts) > 1 else _outcome(bar)
        for number, bar in enumerate(attempts, start=1)
    )
    duration = row.end - row.start
    return element(
        "tr",
        element("td", offset_text(timeline, row.start)),
        element("td", f"{row.kind.value} ", element("b", row.name)),
        element("td", duration_text(duration) if duration >= RESOLUTION else ""),
        element("td", element("code", payload_text(row.input, 200))),
        element("td", join(outcomes, BREAK)),
    )


def _outcome(bar: Bar) -> str:
    if bar.outcome is Outcome.COMPLETED:
        return payload_text(bar.text, 200) or "done"
    if bar.outcome is Outcome.MOMENT:
        return "arrived or sent"
    return bar.text or OUTCOME_TEXTS[bar.outcome]
