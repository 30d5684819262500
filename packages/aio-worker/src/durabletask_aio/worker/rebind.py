"""`rebind_globals`: copies a function so that it finds other objects under some of its global names.

The copy runs the original's code object, so it cannot differ from the original in anything but those names.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any


def rebind_globals(function: Any, **names: Any) -> Callable[..., Any]:
    """Return a copy of a function with other objects under some of its global names.

    Args:
        function: A plain function.
        **names: The objects, by global name.

    Returns:
        A function with the same code, defaults and closure; `function` itself is not changed.

    Raises:
        ImportError: If the code does not use one of the names; the copy would silently do what the original does.
    """
    used = _names_in(function.__code__)
    absent = [name for name in names if name not in used]
    if absent:
        raise ImportError(
            f"{function.__qualname__} of durabletask no longer uses {', '.join(absent)}; this release of "
            "durabletask-aio-worker does not fit it"
        )
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _names_in(code: CodeType) -> set[str]:
    """Return the global names that a function may use, and those that the functions in it do: they share globals."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))
