"""`durabletask-aio timeline`: a recorded history as a page, as text or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import click

from durabletask_aio.core.command_line import CommandError, json_option, write, write_report
from durabletask_aio.testing.history import History
from durabletask_aio.testing.timeline import Timeline
from durabletask_aio.testing.timeline_html import render_html
from durabletask_aio.testing.timeline_json import timeline_to_dict
from durabletask_aio.testing.timeline_text import render_text

_EPILOG = """\
\b
examples:
  durabletask-aio timeline histories/order-17.json
  durabletask-aio timeline histories/order-17.json -o order-17.html

Histories come from History.save, from `pytest --record-histories DIR`, or from the page of `durabletask-aio dev --ui`.
"""


@click.command(
    "timeline",
    short_help="Draw a recorded history as a self-contained HTML page, or as text.",
    epilog=_EPILOG,
)
@click.argument("path", metavar="HISTORY", type=click.Path(path_type=Path))
@json_option
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The page to write, or with --json the document; without it, text for the terminal.",
)
@click.option("--redact", is_flag=True, help="Hide inputs, results and messages of failures.")
def timeline(path: Path, as_json: bool, output: Path | None, redact: bool) -> None:
    """Draw a recorded history as a self-contained HTML page, or as text.

    HISTORY is a file written by History.save or by upstream's history export.
    """
    try:
        history = History.load(path)
        if history.workflow_name is None:
            raise ValueError(f"{path} does not say which workflow was started; is it the whole history?")
        if redact:
            history = history.redacted()
        if as_json:
            text = json.dumps(timeline_to_dict(Timeline.of(history)), indent=2) + "\n"
        else:
            text = render_text(history) + "\n" if output is None else render_html(history)
    except ValueError as error:  # a file that is not a history, or one that holds what no history does
        raise CommandError(str(error)) from error
    write_report(text, output)
    if output is not None and not as_json:
        write(f"wrote {output}\n")
