"""From what the user names to files: files, folders and modules, what is excluded, and the name each file has."""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from durabletask_aio.core import WorkflowValidationError

_EXCLUDED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist", "build", "venv"})
"""Names of folders that are never looked into, in addition to those that begin with a dot."""


def files_of(target: str | Path, is_excluded: Callable[[Path, Path], bool] | None = None) -> Iterator[Path]:
    """The Python files of a target: a file, a folder, or a module by its dotted name.

    `is_excluded` is asked for each file and folder below a folder, with that folder. Hidden folders, virtual
    environments and the like are always left out.

    Raises `WorkflowValidationError` for a target that is neither a path nor a module on the search path.
    """
    path = Path(target)
    if not path.exists():
        found = _module_path(str(target))
        if found is None:
            msg = (
                f"{str(target)!r} is neither a file or folder nor a module on the search path. Give paths relative to"
                f" {os.getcwd()}, or the dotted name of a module."
            )
            raise WorkflowValidationError(msg)
        path = found
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        kept = sorted(each for each in folders if not each.startswith(".") and each not in _EXCLUDED)
        folders[:] = [each for each in kept if is_excluded is None or not is_excluded(Path(folder, each), path)]
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("."):
                file = Path(folder, name)
                if is_excluded is None or not is_excluded(file, path):
                    yield file


def matches(path: Path, pattern: str, *folders: Path) -> bool:
    """Whether a pattern matches the name of a file or folder, its whole path, or its path below one of `folders`."""
    absolute = path if path.is_absolute() else Path.cwd() / path
    texts = [path.name, path.as_posix(), absolute.as_posix()]
    texts += [
        each.relative_to(folder).as_posix()
        for folder in folders
        for each in (path, absolute)
        if each.is_relative_to(folder)
    ]
    return any(fnmatch.fnmatch(text, pattern) for text in texts)


def _module_path(name: str) -> Path | None:
    """The file or folder of a module, located as an import would, without importing anything."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    # The current folder is not on the search path of an installed command, but the user's modules are there.
    for entry in (os.getcwd(), *sys.path):
        base = Path(entry or ".").joinpath(*name.split("."))
        for path in (base, base.with_suffix(".py")):
            if path.is_file() or (path.is_dir() and any(path.glob("*.py"))):
                return path
    return None


class Packages:
    """Where packages begin: what an import of a file would need on the search path. Folders are looked at once."""

    def __init__(self) -> None:
        self._roots: dict[Path, Path] = {}

    def root_of(self, path: Path) -> Path:
        """The folder that contains the top-level package of the file."""
        folder = path.parent
        root = self._roots.get(folder)
        if root is None:
            root = folder.resolve()
            while (root / "__init__.py").is_file():
                root = root.parent
            self._roots[folder] = root
        return root

    def name_of(self, path: Path) -> str:
        """The dotted name by which the file is imported."""
        parts = [*path.parent.resolve().relative_to(self.root_of(path)).parts, path.stem]
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
