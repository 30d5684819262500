"""Locks of `threading` that workflow code holds while it waits: they are found in the `with` blocks it is suspended in.

Such a lock blocks every other instance that wants it, and with it the worker's thread on which that instance runs,
perhaps the one on which this instance would continue. An `acquire()` is found where it is called (rule DET804).
"""

from __future__ import annotations

import ast
import dis
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any, Final

from durabletask_aio.sandbox.code import _interpreter
from durabletask_aio.sandbox.code.sources import source_of

_ENTERS_BLOCK: Final = frozenset(
    dis.opmap[name] for name in ("SETUP_WITH", "BEFORE_WITH", "LOAD_SPECIAL") if name in dis.opmap
)

MAX_CHECKED: Final = 100
"""Maximum number of suspended coroutines that are looked at after each event."""


def has_with_block(code: types.CodeType) -> bool:
    """Whether `code` has a `with` statement; a few statements of other kinds may be taken for one."""
    return not _ENTERS_BLOCK.isdisjoint(code.co_code[::2])


def code_of(suspended: Any) -> types.CodeType | None:
    """The code of a coroutine or generator; `None` for one that is not written in Python."""
    return getattr(suspended, "cr_code", None) or getattr(suspended, "gi_code", None)


def frame_of(suspended: Any) -> types.FrameType | None:
    """The frame of a coroutine or generator; `None` if it has ended."""
    return getattr(suspended, "cr_frame", None) or getattr(suspended, "gi_frame", None)


def held_lock(suspended: Any) -> str | None:
    """The name of the type of a lock that a suspended coroutine or generator holds by a `with` block, or `None`."""
    for manager in _interpreter.entered_managers(suspended, frame_of(suspended)):
        for each in _managers_behind(manager):
            name = _lock_type(each)
            if name is not None:
                return name
    return None


def _managers_behind(manager: Any) -> Iterator[Any]:
    """`manager`, and what is held inside of a `contextlib.contextmanager` or a `contextlib.ExitStack`."""
    yield manager
    for inner in _interpreter.inner_managers(manager):
        yield from _managers_behind(inner)


def _lock_type(value: Any) -> str | None:
    for module, names in _LOCKS.items():
        loaded = sys.modules.get(module)
        for name in names:
            kind = getattr(loaded, name, None)
            if isinstance(kind, type) and isinstance(value, kind):
                return _PUBLIC_NAMES.get(kind.__name__, f"{module.partition('.')[0]}.{kind.__name__}")
    return None


_LOCKS: Final = {
    "_thread": ("LockType", "RLock"),
    "threading": ("_RLock", "Condition", "Semaphore"),
    "multiprocessing.synchronize": ("SemLock", "Condition"),
}
"""The types of locks, by the module that has them; a module that is not loaded is not imported."""

_PUBLIC_NAMES: Final = {type(threading.Lock()).__name__: "threading.Lock", "RLock": "threading.RLock"}
_PUBLIC_NAMES["_RLock"] = "threading.RLock"


def line_of_block(frame: types.FrameType) -> int:
    """The line of the innermost `with` statement around the line of `frame`, or that line if there is none."""
    line = frame.f_lineno
    source = source_of(frame.f_code.co_filename, frame.f_globals)
    if source is None or source.tree is None:
        return line
    around = [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.With) and node.lineno <= line <= (node.end_lineno or line)
    ]
    return max(around, default=line)
