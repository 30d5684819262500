"""Which SDK runs the workflows of this process: Microsoft's `durabletask`, or the executor in Dapr's SDK.

Both are the same code by origin, speak different dialects of one protocol, and register protobuf messages of the same
names.  So a process can have one of them, and the core of this project is bound to it when it is imported: the public
exceptions are subclasses of the SDK's.  The import path of the user chooses: `durabletask.aio` the one,
`durabletask_aio.dapr` the other.  The core without a choice takes Microsoft's.

This module is apart from the core, because it must be imported before it, and imports nothing of either SDK.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

__all__ = ["DAPR", "MICROSOFT", "Family", "FamilyConflictError", "choose", "chosen"]


class Family(NamedTuple):
    """An SDK that can run the workflows of this project."""

    title: str
    """What messages call it."""
    import_path: str
    """The import path of this project for it."""
    dialect: str
    """The module with what the core needs of it: the names that `durabletask_aio.core._upstream_dialect` lists."""
    messages: str
    """A module of the SDK whose import registers its protobuf messages."""
    distribution: str
    """The distribution of the SDK."""
    required_by: str
    """The distribution of this project whose metadata has the range of versions."""
    last_tested: tuple[int, int]
    """Newest minor version that the tests of this version of `required_by` have run on.

    The range that the metadata allows goes further; `installation.verify_installation` decides about the rest of it.
    """
    conflicting: tuple[str, ...] = ()
    """Distributions that install a package of the same name over the SDK's."""


class FamilyConflictError(ImportError):
    """Two SDKs were asked for in one process; the message names both, and who came first."""


MICROSOFT = Family(
    "Microsoft's durabletask",
    "durabletask.aio",
    "durabletask_aio.core._upstream_microsoft",
    "durabletask.task",
    "durabletask",
    "durabletask-aio-core",
    (1, 12),
    ("durabletask-dapr",),
)
DAPR = Family(
    "Dapr's workflow SDK",
    "durabletask_aio.dapr",
    "durabletask_aio.dapr._upstream_dapr",
    "dapr.ext.workflow",
    "dapr",
    "durabletask-aio-dapr",
    (1, 19),
)

_choice: tuple[Family, str] | None = None
"""What was chosen, and where."""


def choose(family: Family) -> None:
    """Choose the SDK of this process; does nothing if it has been chosen already.

    Args:
        family: `MICROSOFT` or `DAPR`.

    Raises:
        FamilyConflictError: if the other one was chosen or imported before.
    """
    global _choice
    if _choice is not None:
        if _choice[0] is not family:
            raise _conflict(family, f"{_choice[0].title}, chosen first at {_choice[1]}")
        return
    other = DAPR if family is MICROSOFT else MICROSOFT
    if other.messages in sys.modules:
        raise _conflict(family, f"{other.title}, which other code in it has imported first ({other.messages})")
    _choice = (family, _call_site())


def chosen() -> Family:
    """Return the SDK of this process; Microsoft's, from now on, if none has been chosen.

    Raises:
        FamilyConflictError: if none has been chosen, and other code has imported Dapr's.
    """
    if _choice is None:
        choose(MICROSOFT)
    assert _choice is not None
    return _choice[0]


def _conflict(family: Family, first: str) -> FamilyConflictError:
    return FamilyConflictError(
        f"{family.import_path} needs {family.title} (imported at {_call_site()}), and this process has {first}: both "
        f"register protobuf messages of the same names, so a process can have one of them\n"
        f"  wrong: a module that imports {MICROSOFT.import_path} and one that imports {DAPR.import_path}\n"
        f"  right: one of the two, each in a process of its own"
    )


def _call_site() -> str:
    """Return `file:line` of the import that led here, without the frames of this project and of the import system."""
    frame = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - there is no public one
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if not f"{name}.".startswith(("durabletask_aio.", "durabletask.", "importlib.", "_frozen_importlib")):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
