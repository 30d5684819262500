"""How users relax and extend the sandbox: for a process, a function, a block, or a line.

The narrowest one that works is the best one.  A line: ``# determinism: allow[clock] only logged``.  A block or a
function: :class:`allow`.  A process: :func:`configure`.  What is allowed is neither reported nor replaced: a call in an
allowed block gives its true value in best_effort mode too.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.rules.ownership import OWNERSHIP, paths_of_package

_F = TypeVar("_F", bound="Callable[..., Any]")

ALLOW_ATTRIBUTE: Final = "__durabletask_aio_allow__"

# Blocks follow tasks, so they are kept in the context, which every asyncio task has its own copy of: another task of
# the same workflow that runs while this one waits is not in the block.
_in_block: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("durabletask_aio_allow", default=())
_everywhere: set[str] = set()


class allow:  # noqa: N801  # used like contextlib's managers, and like them named as a verb
    """Allow what the sandbox would object to, for a block (``with allow("file"):``) or a function (``@allow("file")``).

    Each name is a rule code (``"DET501"``), a rule's slug or category (``"file"``), a full call (``"time.time"``) or
    the module before it (``"time"``); no name at all allows everything.  ``reason`` is for the next reader.

    Raises :class:`WorkflowValidationError` for a name that is none of these.
    """

    def __init__(self, *names: str, reason: str = "") -> None:
        self.names = checked(names) or ("*",)
        self.reason = reason
        self._tokens: list[contextvars.Token[tuple[str, ...]]] = []

    def __call__(self, function: _F) -> _F:
        vars(function)[ALLOW_ATTRIBUTE] = (*of_function(function), *self.names)
        return function

    def __enter__(self) -> allow:  # noqa: PYI034  # typing.Self came with Python 3.11
        self._tokens.append(_in_block.set((*_in_block.get(), *self.names)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _in_block.reset(self._tokens.pop())


ALLOW_NAMES: Final = frozenset({"durabletask.aio.sandbox.allow", f"{allow.__module__}.{allow.__qualname__}"})
"""Full names of `allow`: the public one, and the one of the class itself."""


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` if the catalogue knows each; raises :class:`WorkflowValidationError` otherwise."""
    if isinstance(names, str):
        msg = f"allow={names!r} is one string; write a list: allow=[{names!r}]."
        raise WorkflowValidationError(msg)
    known = default_catalogue()
    for name in names:
        if name != "*" and not known.is_known_name(name):
            rules = ", ".join(f"{rule.code} ({rule.slug})" for rule in known.rules.values())
            msg = (
                f"{name!r} is nothing that the sandbox could allow. Give a rule, a category, or a call by its full"
                f" name (such as 'time.time'). The rules are: {rules}."
            )
            raise WorkflowValidationError(msg)
    return tuple(names)


def checked_packages(packages: Iterable[str], keyword: str) -> tuple[str, ...]:
    """``packages`` if each is installed; raises :class:`WorkflowValidationError` otherwise."""
    if isinstance(packages, str):
        msg = f"{keyword}={packages!r} is one string; write a list: {keyword}=[{packages!r}]."
        raise WorkflowValidationError(msg)
    names = tuple(packages)
    try:
        for name in names:
            paths_of_package(name)
    except ValueError as error:
        raise WorkflowValidationError(str(error)) from None
    return names


def configure(
    *,
    allow: Iterable[str] = (),
    forbid: Mapping[str, str] | None = None,
    follow: Iterable[str] = (),
    follow_io: Iterable[str] = (),
) -> Callable[[], None]:
    """Change the sandbox for this process; call it before workflows are registered.

    ``allow`` relaxes, with the names that :class:`allow` takes.  ``forbid`` extends the catalogue: full names of calls,
    each with the code of the rule that it breaks, as in ``{"mylib.clock.read": "DET101"}``.

    Installed packages are left alone unless they are named, by the name that is imported: those in ``follow`` are
    treated as if they were yours; those in ``follow_io`` are looked at for files, network, processes and threads only,
    and what they do is said of your line that leads there.  ``"*"`` stands for all installed packages.

    Returns a function that takes all of it back.  Raises :class:`WorkflowValidationError` for unknown names and codes.
    """
    following = [(checked_packages(follow, "follow"), False), (checked_packages(follow_io, "follow_io"), True)]
    added = set(checked(allow)) - _everywhere
    current = default_catalogue()
    before = dict(current.calls)
    try:
        for name, code in (forbid or {}).items():
            current.forbid(name, code=code)
    except ValueError as error:
        current.calls = before
        raise WorkflowValidationError(str(error)) from None
    _everywhere.update(added)
    unfollow = [OWNERSHIP.follow(packages, io_only=io_only) for packages, io_only in following if packages]

    def undo() -> None:
        for take_back in unfollow:
            take_back()
        _everywhere.difference_update(added)
        if current.calls != before:
            current.calls = before
            current.version += 1

    return undo


def everywhere() -> frozenset[str]:
    """What is allowed in the whole process."""
    return frozenset(_everywhere)


def in_block() -> tuple[str, ...]:
    """What the ``with allow(...)`` blocks around the running code allow."""
    return _in_block.get()


def of_function(function: object) -> tuple[str, ...]:
    """What ``@allow(...)`` on ``function`` allows."""
    names: tuple[str, ...] = getattr(function, ALLOW_ATTRIBUTE, ())
    return names
