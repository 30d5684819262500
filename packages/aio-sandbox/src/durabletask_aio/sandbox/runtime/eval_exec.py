"""`eval` and `exec` in a workflow: the text is compiled here first, so that the calls it makes can be watched.

`sys.monitoring` watches code objects, and `eval("...")` creates a new one. In place of `eval` and `exec`, the sandbox
compiles the text as they would, watches the code, and passes the code to them. Globals in such code are not redirected,
because its namespace may be a dictionary that the workflow iterates over afterwards.
"""

from __future__ import annotations
import __future__

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, Final, Protocol

EVAL_AND_EXEC: Final = frozenset({"builtins.eval", "builtins.exec"})
FILENAME: Final = "<string>"

_FUTURES: Final = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_LOCALS_ARE_A_VIEW: Final = sys.version_info >= (3, 13)
"""Whether `frame.f_locals` is a view in a function, while `locals()` returns a copy."""


class CodeWatcher(Protocol):
    """What watches code; implemented by `monitoring.Monitor`."""

    def watch_code(self, code: types.CodeType) -> None: ...

    def forget(self, code: types.CodeType) -> None: ...


def run(
    watcher: CodeWatcher | None,
    caller: types.FrameType,
    target: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call `target`, which is `eval` or `exec`, as if `caller` had called it, and watch the code that it runs.

    Both depend on their caller: names are looked up in its frame, and its `from __future__` imports apply.
    """
    source = args[0] if args else None
    if isinstance(source, types.CodeType):
        if watcher is not None:
            watcher.watch_code(source)
        return target(source, *_namespaces(caller, args[1:], kwargs), **kwargs)
    if not isinstance(source, (str, bytes)):
        return target(*args, **kwargs)
    mode = target.__name__
    if mode == "eval":
        source = source.lstrip(" \t") if isinstance(source, str) else source.lstrip(b" \t")
    code = compile(source, FILENAME, mode, caller.f_code.co_flags & _FUTURES, dont_inherit=True)
    if watcher is not None:
        watcher.watch_code(code)
    try:
        return target(code, *_namespaces(caller, args[1:], kwargs), **kwargs)
    finally:
        if watcher is not None:
            watcher.forget(code)


def _namespaces(caller: types.FrameType, given: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The positional arguments after the source; missing ones get the defaults that they have in `caller`."""
    if {"globals", "locals"} & kwargs.keys():
        return given if given or "globals" in kwargs else (caller.f_globals,)
    module = given[0] if given and given[0] is not None else None
    local = given[1] if len(given) > 1 and given[1] is not None else None
    if module is not None or local is not None:
        return (caller.f_globals if module is None else module, *(() if local is None else (local,)))
    is_function = bool(caller.f_code.co_flags & inspect.CO_OPTIMIZED)
    names = dict(caller.f_locals) if is_function and _LOCALS_ARE_A_VIEW else caller.f_locals
    return (caller.f_globals, names)
