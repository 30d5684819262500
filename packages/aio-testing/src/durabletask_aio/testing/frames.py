"""Tracebacks without the frames that say nothing to who reads them."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType


def without(packages: Collection[str], traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of these top-level packages; whole, if that would leave none."""
    frames: list[TracebackType] = []
    each = traceback
    while each is not None:
        if each.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in packages:
            frames.append(each)
        each = each.tb_next
    kept: TracebackType | None = None
    for each in reversed(frames):
        kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept if kept is not None else traceback
