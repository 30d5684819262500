"""``durabletask-aio timeline``: a recorded history as a page, or as text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from durabletask_aio.testing.history import History
from durabletask_aio.testing.timeline_html import render_html
from durabletask_aio.testing.timeline_text import render_text


class TimelineCommand:
    """Status 0, or 2 if the history cannot be read."""

    help = "draw a recorded history as a self-contained HTML page, or as text"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("history", help="a file written by History.save or upstream's history export")
        parser.add_argument("-o", "--output", type=Path, help="the page to write; without it, text on standard output")
        parser.add_argument("--redact", action="store_true", help="hide inputs, results and messages of failures")

    def run(self, arguments: argparse.Namespace) -> int:
        try:
            history = History.load(arguments.history)
            if arguments.redact:
                history = history.redacted()
            if arguments.output is None:
                _print(render_text(history))
            else:
                arguments.output.write_text(render_html(history), encoding="utf-8")
                print(f"wrote {arguments.output}")
        except (OSError, ValueError) as error:
            print(f"durabletask-aio timeline: {error}", file=sys.stderr)
            return 2
        return 0


def _print(text: str) -> None:
    # A console that has no box-drawing characters gets question marks, not a traceback.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, errors="replace").decode(encoding))


COMMAND = TimelineCommand()
