"""The data converters by name, each imported with its library when it is first used.

The public import path of this module is `durabletask.aio.data`.
"""

from __future__ import annotations

import importlib
from typing import Any

from durabletask_aio.core.converters import PayloadTypeError

__all__ = ["CONVERTERS", "PayloadTypeError", "load"]

CONVERTERS = {"CattrsDataConverter": "cattrs", "PydanticDataConverter": "pydantic"}
"""The converters, with the library that each needs, which is also the name of the extra."""

PayloadTypeError.__module__ = "durabletask.aio.data"


def load(name: str, module: str) -> Any:
    """Return a converter by its name.

    Args:
        name: the name of the class.
        module: the module that is asked for it, for the message.

    Returns:
        The class.

    Raises:
        AttributeError: if there is no such converter.
        ImportError: if its library is not installed; the message has the line to install it.
    """
    library = CONVERTERS.get(name)
    if library is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"durabletask_aio.core.{library}_converter"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in (library, "attrs", f"{library}_core"):
            raise
        raise ImportError(
            f'{name} needs {library}, which is not installed: pip install "durabletask-aio-core[{library}]"'
        ) from error
