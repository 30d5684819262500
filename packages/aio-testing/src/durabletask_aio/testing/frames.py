"""Removing the frames of libraries from tracebacks, so that a report begins at the user's code."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType


def strip_frames(traceback: TracebackType | None, packages: Collection[str]) -> TracebackType | None:
    """Return the traceback without the frames of these top-level packages, unchanged if no other frame is left."""
    kept: list[TracebackType] = []
    current = traceback
    while current is not None:
        if current.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in packages:
            kept.append(current)
        current = current.tb_next
    stripped: TracebackType | None = None
    for entry in reversed(kept):
        stripped = TracebackType(stripped, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return stripped if stripped is not None else traceback
