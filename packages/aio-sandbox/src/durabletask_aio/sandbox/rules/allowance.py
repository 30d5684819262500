"""How users relax and extend the sandbox: for a line, a block, a function or the whole process.

A line is allowed by a pragma, `# determinism: allow[clock] only logged`; a block or a function by `allow`; the process
by `configure`. The narrowest of these that works is the best choice. An allowed call is neither reported nor replaced:
it returns its real value in best_effort mode too.
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

# The names that blocks allow are kept in a context variable. Each asyncio task has its own copy of the context, so
# another task of the same workflow that runs meanwhile is not affected.
_in_block: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("durabletask_aio_allow", default=())
_everywhere: set[str] = set()


class allow:  # noqa: N801  # used like contextlib's managers, and like them named as a verb
    """Allow calls that the sandbox would report, for a block or a function.

    Use it as a context manager, `with allow("file"):`, or as a decorator, `@allow("file")`. An allowed call is neither
    reported nor replaced. A block applies to the current asyncio task only.

    Args:
        *names: What to allow. Each is a rule code (`"DET501"`), the slug or category of a rule (`"file"`), the full
            name of a call (`"time.time"`), or the module or class before it (`"time"`). Without names, everything is
            allowed.
        reason: Why the call is safe, for readers of the code.

    Raises:
        WorkflowValidationError: A name is none of these.
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
    """Return `names`; raise `WorkflowValidationError` if the catalogue does not know one of them."""
    if isinstance(names, str):
        msg = f"allow={names!r} is one string; write a list: allow=[{names!r}]."
        raise WorkflowValidationError(msg)
    known = default_catalogue()
    for name in names:
        if name != "*" and not known.is_known_name(name):
            rules = ", ".join(f"{rule.code} ({rule.slug})" for rule in known.rules.values())
            msg = (
                f"{name!r} is not a name that can be allowed. Give a rule, a category, or a call by its full"
                f" name (such as 'time.time'). The rules are: {rules}."
            )
            raise WorkflowValidationError(msg)
    return tuple(names)


def checked_packages(packages: Iterable[str], keyword: str) -> tuple[str, ...]:
    """Return `packages`; raise `WorkflowValidationError`, naming the option `keyword`, if one is not installed."""
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
    """Change the sandbox for the whole process; call it before workflows are registered.

    Args:
        allow: Names to allow everywhere, as for [`allow`][durabletask.aio.sandbox.allow].
        forbid: Calls to add to the catalogue: the full name of each call, with the code of the rule that it breaks, as
            in `{"mylib.clock.read": "DET101"}`.
        follow: Installed packages, by import name, whose code is checked as if it were yours; `"*"` stands for all.
        follow_io: Installed packages, by import name, that are checked for files, network, processes and threads only.
            What is found is reported at the line of your code that calls into the package; `"*"` stands for all.

    Returns:
        A function without arguments that undoes this change.

    Raises:
        WorkflowValidationError: A name, rule code or package is unknown. Nothing is changed then.
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
    """The names that are allowed in the whole process."""
    return frozenset(_everywhere)


def in_block() -> tuple[str, ...]:
    """The names that the `with allow(...)` blocks around the running code allow."""
    return _in_block.get()


def of_function(function: object) -> tuple[str, ...]:
    """The names that `@allow(...)` on `function` allows."""
    names: tuple[str, ...] = getattr(function, ALLOW_ATTRIBUTE, ())
    return names
