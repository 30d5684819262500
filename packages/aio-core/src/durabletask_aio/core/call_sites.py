"""Where in the user's code something was called, or waits: `file:line` for messages."""

from __future__ import annotations

import asyncio
import sysconfig
import traceback
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

from durabletask_aio.core import _interpreter

_PACKAGE = "durabletask_aio."
_LIBRARIES = (_PACKAGE, "durabletask.", "asyncio.")

_LOOP = "durabletask_aio.core.loop"

UNKNOWN_LINE = "an unknown line"


def first_foreign_frame(frame: FrameType | None) -> FrameType:
    """Return the innermost frame from `frame` outwards that is outside of this package."""
    last = frame
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            return frame
        last, frame = frame, frame.f_back
    assert last is not None
    return last


def call_site() -> str:
    """Return `file:line` of the user's call that led to this one, without the frames of asyncio and upstream."""
    frame: FrameType | None = _interpreter.calling_frame(1)
    while frame is not None:
        if is_user_code(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return UNKNOWN_LINE


def own_call_site(main: asyncio.Task[Any] | None) -> str:
    """Return `file:line` of the user's own line that led to this call, where installed libraries may be in between.

    In a task that a library has started it is the line that the main task waits at.  For an application that is
    installed itself it is the innermost call.
    """
    frame: FrameType | None = _interpreter.calling_frame(1)
    while frame is not None and frame.f_globals.get("__name__") != _LOOP:  # what calls the loop is no workflow code
        if _is_own(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    awaitables = [] if main is None else list(_interpreter.await_chain(main.get_coro()))
    for awaitable in reversed(awaitables):
        frame = getattr(awaitable, "cr_frame", None)
        if frame is not None and _is_own(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return call_site()


def _is_own(frame: FrameType) -> bool:
    """Whether a frame is user code outside of the standard library and of installed packages."""
    return is_user_code(frame) and not frame.f_code.co_filename.startswith(_installed_folders())


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def line_of(code: CodeType, instruction: int) -> int:
    """Return the line of the instruction at an offset into `code`."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


def waiting_line(task: asyncio.Task[Any]) -> str:
    """Return `file:line in function` of the innermost line of user code that `task` waits at."""
    return suspended_line(task.get_coro())


def suspended_line(coroutine: Any) -> str:
    """Return `file:line in function` of the innermost line of user code that `coroutine` is suspended at.

    Of an asynchronous generator it is the line of its own.
    """
    user: FrameType | None = getattr(coroutine, "ag_frame", None)
    last: FrameType | None = None
    for awaitable in _interpreter.await_chain(coroutine):
        last = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if last is not None and is_user_code(last):
            user = last
    if user is not None:
        return f"{user.f_code.co_filename}:{user.f_lineno} in {user.f_code.co_name}"
    # A task made for an operation, as by TaskGroup.create_task(ctx.call_activity(...)), has no line of the user's own;
    # the coroutine that the loop made for it has the operation in this variable.
    operation = None if last is None else last.f_locals.get("future")
    described: str = getattr(operation, "description", UNKNOWN_LINE)
    return described


def is_user_code(frame: FrameType) -> bool:
    """Whether a frame belongs neither to this package, nor to upstream, nor to asyncio."""
    module = frame.f_globals.get("__name__", "")
    return module != "asyncio" and not module.startswith(_LIBRARIES)


def user_lines(error: BaseException) -> list[str]:
    """Return `file:line in function` of the user's lines that `error` was raised through, outermost first."""
    return [
        f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_user_code(frame)
    ]
