"""What an instance awaits, as code of the user's own application can find out: events, and the `await` line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from durabletask_aio.engine._upstream import pb


class WaitingUnknownError(Exception):
    """What an instance awaits is not known; the message is for the page, and says why."""


@dataclass(frozen=True)
class Awaited:
    """Something that an instance awaits.

    Attributes:
        what: a phrase, such as `the event 'approval'`.
        event: the name of an external event that it awaits, empty if it awaits something else.
        location: the file and line of the `await`, such as `shop/orders.py:12`.
        line: the source of that line.
        stack: the frames that lead there, outermost first, as `traceback` formats them.
    """

    what: str
    event: str = ""
    location: str = ""
    line: str = ""
    stack: str = ""


DescribeWaiting = Callable[[str, "Sequence[pb.HistoryEvent]"], "Sequence[Awaited]"]
"""Takes an instance id and the history so far, and returns what the instance awaits.

It is called on a thread of the web server, whenever a page is sent that its browser does not have.  An error that it
raises is logged and shown on the page, a `WaitingUnknownError` only shown.
"""
