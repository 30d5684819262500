"""Which code the rules apply to: the user's own, and installed packages that are followed.

Findings are reported at lines of the user's own code. Following the standard library or installed packages by default
would report what their authors do for good reasons (`logging` reads the clock), at lines that the user cannot change.
Packages can be followed on request, completely or for I/O only; I/O in a package is reported at the user's line that
calls into it.
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
# durabletask, and every part of durabletask_aio; editable installs spread them over several folders.
_OURS: Final = _as_prefixes([*durabletask.__path__, *durabletask_aio.__path__])
_THIS: Final = _as_prefixes([os.path.dirname(os.path.dirname(__file__))])


class RuleScope(enum.Enum):
    """Which rules apply to a file."""

    NOTHING = "nothing"
    IO = "io"
    """Those of `IO_RULES`, in a followed package; reported at the user's line that calls into it."""
    EVERYTHING = "everything"
    """All of them, in the user's own code."""


class CodeOwnership:
    """Decides for each file which rules apply to it.

    A file is the user's own if it is outside the standard library and `site-packages`. A package inside `site-packages`
    counts as the user's once a workflow of it is registered (applications are often installed), or when it is followed.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, RuleScope] = {}
        self._user_packages: set[str] = set()
        self._io_packages: set[str] = set()
        self.packages: dict[str, bool] = {}
        """The followed packages by import name; the value says whether for I/O only."""
        self.scopes_by_code: dict[int, tuple[types.CodeType, RuleScope]] = {}
        """By id of a code object; the object is kept so that its id is not reused. See `scope_of`."""

    def add_user_package(self, filename: str) -> None:
        """Treat the installed package that `filename` belongs to as the user's: a workflow is registered from it."""
        package = _package_of(_CASE(filename))
        if package is not None and package not in self._user_packages:
            self._user_packages.add(package)
            self._forget()

    def follow(self, packages: Sequence[str], *, io_only: bool) -> Callable[[], None]:
        """Apply rules to installed packages too; the returned function undoes this.

        Raises `ValueError` for a name that is not installed; see `paths_of_package`.
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
        """Whether the file is the user's own, so that findings may be reported at its lines."""
        return self._scope_of(filename) is RuleScope.EVERYTHING

    def is_followed(self, filename: str) -> bool:
        """Whether any rule applies to the file."""
        return self._scope_of(filename) is not RuleScope.NOTHING

    def is_runtime_file(self, filename: str) -> bool:
        """Whether the file belongs to durabletask or durabletask_aio (but not to the sandbox): it drives workflows."""
        path = _CASE(filename)
        return path.startswith(_OURS) and not path.startswith(_THIS)

    def is_installed(self, filename: str) -> bool:
        """Whether the file belongs to an installed package, which may stop being followed later."""
        return _package_of(_CASE(filename)) is not None

    def applies(self, filename: str, rule: Rule) -> bool:
        """Whether a violation of `rule` in this file is to be reported."""
        interest = self._scope_of(filename)
        return interest is RuleScope.EVERYTHING or (interest is RuleScope.IO and rule.code in IO_RULES)

    def scope_of(self, code: types.CodeType) -> tuple[types.CodeType, RuleScope]:
        """The scope of the file that `code` comes from, with the code object; remembered in `scopes_by_code`."""
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
            # `<stdin>`, `<string>` and notebook cells are the user's own; `<frozen importlib._bootstrap>` is not.
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
    """The paths of an installed package; for `"*"`, the folders that packages are installed in.

    Raises `ValueError` if the package is not installed.
    """
    if package == "*":
        return [directory.removesuffix(os.sep) for directory in _PACKAGES if _holds_packages(directory)]
    relative = _CASE(package.replace(".", os.sep))
    found = [f"{directory}{relative}" for directory in _PACKAGES if _holds_packages(directory)]
    present = [path for path in found if os.path.isdir(path) or os.path.isfile(f"{path}.py")]
    if not present:
        msg = (
            f"{package!r} is not the import name of an installed package, so there is nothing to follow. Code outside"
            " site-packages is always checked."
        )
        raise ValueError(msg)
    return present


def _lies_in(path: str, packages: set[str]) -> bool:
    """Whether `path` belongs to one of `packages`, which are paths of folders, or of modules without their suffix."""
    return any(path.startswith(f"{package}{os.sep}") or path == f"{package}.py" for package in packages)


def _package_of(path: str) -> str | None:
    """The path of the top-level package or module below `site-packages`, or `None` for a file that is elsewhere."""
    for directory in _PACKAGES:
        if path.startswith(directory) and _holds_packages(directory):
            first = path[len(directory) :].split(os.sep, 1)[0]
            return directory + first.removesuffix(".py")
    return None


def is_standard_module(name: str) -> bool:
    """Whether `name` is a module of the standard library."""
    return name.partition(".")[0] in sys.stdlib_module_names


OWNERSHIP: Final = CodeOwnership()
"""The code ownership of this process."""
