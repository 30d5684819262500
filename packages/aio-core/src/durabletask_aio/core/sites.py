"""Where in the user's code something was called."""

from __future__ import annotations

from types import CodeType, FrameType

from durabletask_aio.core import _interpreter

_PACKAGE = "durabletask_aio."
_NOT_USERS = (_PACKAGE, "durabletask.", "asyncio.")


def caller(frame: FrameType | None) -> FrameType:
    """The innermost frame from ``frame`` outwards that is not ours."""
    last = frame
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            return frame
        last, frame = frame, frame.f_back
    assert last is not None
    return last


def here() -> str:
    """``file:line`` of the user's call that led to this one; neither asyncio's nor upstream's lines count."""
    frame: FrameType | None = _interpreter.calling_frame(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "asyncio" and not name.startswith(_NOT_USERS):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown line"


def line_of(code: CodeType, instruction: int) -> int:
    """The line of the instruction at an offset into ``code``."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
