"""``durabletask-aio timeline``: a recorded history as a page, or as text."""

from __future__ import annotations

import argparse
from pathlib import Path

from durabletask_aio.testing import terminal
from durabletask_aio.testing.history import History
from durabletask_aio.testing.timeline_html import render_html
from durabletask_aio.testing.timeline_text import render_text

_EXAMPLES = """\
examples:
  durabletask-aio timeline histories/order-17.json
  durabletask-aio timeline histories/order-17.json -o order-17.html

Histories come from History.save, from `pytest --record-histories DIR`, or from the page of `durabletask-aio dev --ui`.
"""


class TimelineCommand:
    """Status 0, or 2 if the history cannot be read or the page not be written."""

    help = "draw a recorded history as a self-contained HTML page, or as text"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = _EXAMPLES
        parser.add_argument(
            "history", metavar="HISTORY", help="a file written by History.save or by upstream's history export"
        )
        parser.add_argument(
            "-o", "--output", metavar="FILE", type=Path, help="the page to write; without it, text for the terminal"
        )
        parser.add_argument("--redact", action="store_true", help="hide inputs, results and messages of failures")

    def run(self, arguments: argparse.Namespace) -> int:
        try:
            history = History.load(arguments.history)
            if history.workflow_name is None:
                raise ValueError(
                    f"{arguments.history} does not say which workflow was started; is it the whole history?"
                )
            if arguments.redact:
                history = history.redacted()
            if arguments.output is None:
                terminal.write(render_text(history) + "\n")
            else:
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                arguments.output.write_text(render_html(history), encoding="utf-8")
                print(f"wrote {arguments.output}")
        except (OSError, ValueError) as error:
            terminal.complain("timeline", error)
            return 2
        return 0


COMMAND = TimelineCommand()
