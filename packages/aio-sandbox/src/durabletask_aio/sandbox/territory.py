"""Whose code is it: the user's, which the sandbox answers for, or somebody else's, which it leaves alone.

Only the user's own lines are blamed.  Following the standard library or a third-party package would report what
their authors do for good reasons (``logging`` reads the clock), at places the user cannot change.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final

import durabletask

import durabletask_aio

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


class Territory:
    """The files that count as the user's.

    A file does if it is outside of the standard library and of ``site-packages``.  A package inside ``site-packages``
    does once a workflow of it was registered (people install their applications), or when it is followed by choice.
    """

    def __init__(self) -> None:
        self._answers: dict[str, bool] = {}
        self._adopted: set[str] = set()

    def adopt(self, filename: str) -> None:
        """The package that ``filename`` belongs to is the user's: a workflow was registered from it."""
        package = _package_of(_CASE(filename))
        if package is not None and package not in self._adopted:
            self._adopted.add(package)
            self._answers.clear()

    def follow(self, package: str) -> None:
        """Treat an installed package as if it were the user's."""
        for directory in _PACKAGES:
            self._adopted.add(f"{directory}{_CASE(package.replace('.', os.sep))}")
        self._answers.clear()

    def is_user_file(self, filename: str) -> bool:
        answer = self._answers.get(filename)
        if answer is None:
            answer = self._answers[filename] = self._decide(filename)
        return answer

    def _decide(self, filename: str) -> bool:
        if filename.startswith("<"):
            # "<stdin>", "<string>" and notebook cells are the user's; "<frozen importlib._bootstrap>" is not.
            return not filename.startswith(("<frozen", "<__array_function__", "<attrs generated"))
        path = _CASE(filename)
        if path.startswith(_OURS):
            return False
        package = _package_of(path)
        if package is not None:
            return package in self._adopted
        return not path.startswith(_STANDARD)


def _package_of(path: str) -> str | None:
    """The first folder (or module) below ``site-packages``, or ``None`` for a file that is elsewhere."""
    for directory in _PACKAGES:
        if path.startswith(directory) and ("site-packages" in directory or "dist-packages" in directory):
            first = path[len(directory) :].split(os.sep, 1)[0]
            return directory + first.removesuffix(".py")
    return None


def is_standard_module(name: str) -> bool:
    """Whether ``name`` is a module of the standard library."""
    return name.partition(".")[0] in sys.stdlib_module_names


TERRITORY: Final = Territory()
"""The territory of this process."""
