"""Whose code is it: the user's, which the sandbox answers for, or somebody else's, which it leaves alone.

Only the user's own lines are blamed.  Following the standard library or a third-party package would report what
their authors do for good reasons (``logging`` reads the clock), at places the user cannot change.  What a package does
to files, the network, processes and threads is another matter: that can be asked for, and is said of the user's line
that leads there.
"""

from __future__ import annotations

import enum
import os
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import durabletask

import durabletask_aio
from durabletask_aio.sandbox.rules.catalogue import IO_RULES, Rule

_CASE: Final = os.path.normcase


def _directories() -> tuple[tuple[str, ...], tuple[str, ...]]:
    paths = sysconfig.get_paths()
    standard = {paths["stdlib"], paths["platstdlib"], os.path.dirname(os.__file__)}
    packages = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    return _as_prefixes(standard), _as_prefixes(packages)


def _as_prefixes(directories: Iterable[str]) -> tuple[str, ...]:
    found = {_CASE(path) for directory in directories for path in (directory, os.path.realpath(directory))}
    return tuple(sorted((os.path.join(path, "") for path in found), key=len, reverse=True))


_STANDARD, _PACKAGES = _directories()
# Upstream and every part of durabletask_aio, which editable installs spread over several folders.
_OURS: Final = _as_prefixes([*durabletask.__path__, *durabletask_aio.__path__])
_THIS: Final = _as_prefixes([os.path.dirname(os.path.dirname(__file__))])


class RuleScope(enum.Enum):
    """What the sandbox looks for in a file."""

    NOTHING = "nothing"
    IO = "io"
    """A followed package's: files, network, processes and threads; the line to blame is the user's that leads there."""
    EVERYTHING = "everything"
    """The user's own."""


class CodeOwnership:
    """Which files the sandbox looks at, and what for.

    A file is the user's if it is outside of the standard library and of ``site-packages``.  A package inside
    ``site-packages`` is once a workflow of it was registered (people install their applications), or when it is
    followed by choice, for everything or for I/O alone.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, RuleScope] = {}
        self._user_packages: set[str] = set()
        self._io_packages: set[str] = set()
        self.packages: dict[str, bool] = {}
        """By import name, the packages that are followed; whether for I/O alone."""
        self.scopes_by_code: dict[int, tuple[types.CodeType, RuleScope]] = {}
        """By id of a code object, with the object kept so that the id stays its own; see :meth:`of_code`."""

    def add_user_package(self, filename: str) -> None:
        """The package that ``filename`` belongs to is the user's: a workflow was registered from it."""
        package = _package_of(_CASE(filename))
        if package is not None and package not in self._user_packages:
            self._user_packages.add(package)
            self._forget()

    def follow(self, packages: Sequence[str], *, io_only: bool) -> Callable[[], None]:
        """Look into installed packages too; the function that is returned takes it back.

        Raises :class:`ValueError` for a name that is not installed; see :func:`paths_of`.
        """
        followed = self._io_packages if io_only else self._user_packages
        added = {path for package in packages for path in paths_of_package(package)} - followed
        followed.update(added)
        before = dict(self.packages)
        self.packages.update(dict.fromkeys(packages, io_only))
        self._forget()

        def undo() -> None:
            followed.difference_update(added)
            self.packages = before
            self._forget()

        return undo

    def is_user_file(self, filename: str) -> bool:
        """Whether a line of this file can be blamed."""
        return self._scope_of(filename) is RuleScope.EVERYTHING

    def is_followed(self, filename: str) -> bool:
        """Whether this file is looked at, for whatever reason."""
        return self._scope_of(filename) is not RuleScope.NOTHING

    def is_runtime_file(self, filename: str) -> bool:
        """Whether this file is one that drives workflows: frames outside of it are not the workflow's."""
        path = _CASE(filename)
        return path.startswith(_OURS) and not path.startswith(_THIS)

    def is_installed(self, filename: str) -> bool:
        """Whether this file belongs to an installed package, which may be followed now and not later."""
        return _package_of(_CASE(filename)) is not None

    def applies(self, filename: str, rule: Rule) -> bool:
        """Whether breaking ``rule`` in this file is worth a word."""
        interest = self._scope_of(filename)
        return interest is RuleScope.EVERYTHING or (interest is RuleScope.IO and rule.code in IO_RULES)

    def scope_of(self, code: types.CodeType) -> tuple[types.CodeType, RuleScope]:
        """The interest in the file that ``code`` comes from; remembered in :attr:`by_code`."""
        known = self.scopes_by_code[id(code)] = (code, self._scope_of(code.co_filename))
        return known

    def _forget(self) -> None:
        self._scopes.clear()
        self.scopes_by_code.clear()

    def _scope_of(self, filename: str) -> RuleScope:
        answer = self._scopes.get(filename)
        if answer is None:
            answer = self._scopes[filename] = self._decide(filename)
        return answer

    def _decide(self, filename: str) -> RuleScope:
        if filename.startswith("<"):
            # "<stdin>", "<string>" and notebook cells are the user's; "<frozen importlib._bootstrap>" is not.
            is_known = filename.startswith(("<frozen", "<__array_function__", "<attrs generated"))
            return RuleScope.NOTHING if is_known else RuleScope.EVERYTHING
        path = _CASE(filename)
        if path.startswith(_OURS):
            return RuleScope.NOTHING
        if _package_of(path) is not None:
            if _lies_in(path, self._user_packages):
                return RuleScope.EVERYTHING
            return RuleScope.IO if _lies_in(path, self._io_packages) else RuleScope.NOTHING
        return RuleScope.NOTHING if path.startswith(_STANDARD) else RuleScope.EVERYTHING


def installed_roots() -> list[Path]:
    """The folders that packages are installed in."""
    return [Path(directory) for directory in _PACKAGES if _holds_packages(directory)]


def _holds_packages(directory: str) -> bool:
    return "site-packages" in directory or "dist-packages" in directory


def paths_of_package(package: str) -> list[str]:
    """Where an installed package is; for ``"*"``, where all of them are.

    Raises :class:`ValueError` for a package that is not there.
    """
    if package == "*":
        return [directory.removesuffix(os.sep) for directory in _PACKAGES if _holds_packages(directory)]
    relative = _CASE(package.replace(".", os.sep))
    found = [f"{directory}{relative}" for directory in _PACKAGES if _holds_packages(directory)]
    present = [path for path in found if os.path.isdir(path) or os.path.isfile(f"{path}.py")]
    if not present:
        msg = (
            f"{package!r} is not the import name of an installed package, so there is nothing to follow. Code outside"
            " of site-packages is looked at as it is."
        )
        raise ValueError(msg)
    return present


def _lies_in(path: str, packages: set[str]) -> bool:
    """Whether ``path`` is a module of ``packages``, which are paths without the suffix of a single file."""
    return any(path.startswith(f"{package}{os.sep}") or path == f"{package}.py" for package in packages)


def _package_of(path: str) -> str | None:
    """The first folder (or module) below ``site-packages``, or ``None`` for a file that is elsewhere."""
    for directory in _PACKAGES:
        if path.startswith(directory) and _holds_packages(directory):
            first = path[len(directory) :].split(os.sep, 1)[0]
            return directory + first.removesuffix(".py")
    return None


def is_standard_module(name: str) -> bool:
    """Whether ``name`` is a module of the standard library."""
    return name.partition(".")[0] in sys.stdlib_module_names


OWNERSHIP: Final = CodeOwnership()
"""The code ownership of this process."""
