"""Twins of functions: the same code, which finds other objects under some of its global names."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any


def twin(function: Any, **names: Any) -> Callable[..., Any]:
    """The same code as ``function``, but with other objects under these global names.

    Raises :class:`ImportError` if the code does not use one of the names, since the twin would then silently do what
    the original does.
    """
    absent = [name for name in names if name not in function.__code__.co_names]
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
