"""What is installed: versions, requirements and entry points, read without `importlib.metadata`.

Its import takes longer than that of the whole core, and its search for entry points parses the metadata of every
distribution: in an environment with 300 of them, a fifth of a second for the first registration of a process.  Here a
folder `*.dist-info` is found by its name, and of its files only those are read that are asked for.

Other forms of installation (zip files, eggs, finders of other tools) are left to `importlib.metadata`.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib import metadata as standard

_SUFFIX = ".dist-info"


class _Installed(NamedTuple):
    """A distribution in a folder `name-version.dist-info`."""

    folder: str
    name: str
    version: str

    def read(self, file: str) -> str:
        """Return the text of one of its files; empty if there is none."""
        return self.read_bytes(file).decode("utf-8", "replace").replace("\r\n", "\n")

    def read_bytes(self, file: str) -> bytes:
        """Return the contents of one of its files; empty if there is none."""
        # Without a file object, in a third of the time: there are hundreds of files to look at.
        try:
            opened = os.open(f"{self.folder}/{file}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            return b""
        try:
            contents = b""
            while chunk := os.read(opened, 1 << 20):
                contents += chunk
            return contents
        finally:
            os.close(opened)

    def headers(self, name: str) -> list[str]:
        """Return the values of a header of its metadata."""
        prefix = f"{name}:"
        lines = self.read("METADATA").partition("\n\n")[0].splitlines()
        return [line[len(prefix) :].strip() for line in lines if line.startswith(prefix)]


class FoundEntryPoint(NamedTuple):
    """An entry point, with what is used of that of `importlib.metadata`."""

    name: str
    value: str
    group: str
    dist: _Installed

    def load(self) -> Any:
        """Import the module, and return the attribute."""
        module, _, path = self.value.partition("[")[0].strip().partition(":")
        found: Any = importlib.import_module(module.strip())
        for attribute in filter(None, path.strip().split(".")):
            found = getattr(found, attribute)
        return found


EntryPoint: TypeAlias = Union["standard.EntryPoint", FoundEntryPoint]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_folders: dict[str, tuple[int, list[_Installed]]] = {}
"""What is installed in each folder of the path, with the time at which the folder was changed."""


def _installed_in(path: str) -> list[_Installed]:
    try:
        changed = os.stat(path).st_mtime_ns
        known = _folders.get(path)
        if known is not None and known[0] == changed:
            return known[1]
        names = [entry[: -len(_SUFFIX)] for entry in os.listdir(path) if entry.endswith(_SUFFIX)]
    except OSError:
        return []
    found = [_Installed(f"{path}/{name}{_SUFFIX}", *name.partition("-")[::2]) for name in names]
    _folders[path] = changed, found
    return found


def _installed() -> Iterator[_Installed]:
    """Yield what is installed, in the order of the path; an earlier one hides a later one of the same name."""
    seen: set[str] = set()
    for path in sys.path:
        for each in _installed_in(path or "."):
            if each.name not in seen:
                seen.add(each.name)
                yield each


def _other_forms() -> bool:
    """Whether there may be distributions that are not found as folders `*.dist-info`."""
    for finder in sys.meta_path:
        if hasattr(finder, "find_distributions") and not finder.__module__.startswith(_FINDERS_OF_FOLDERS):
            return True
    return any(path.endswith((".zip", ".egg", ".whl")) and os.path.exists(path) for path in sys.path)


_FINDERS_OF_FOLDERS = ("_frozen_importlib", "importlib.", "importlib_metadata")
"""Modules of finders that find what is found here."""


def _find(name: str) -> _Installed | None:
    wanted = _normalized(name)
    # Most names differ in their first letter, which is cheaper to compare.
    first = wanted[0]
    return next(
        (each for each in _installed() if each.name[:1].lower() == first and _normalized(each.name) == wanted), None
    )


def version(name: str) -> str | None:
    """Return the version of a distribution, or `None` if it is not installed."""
    found = _find(name)
    if found is not None:
        return next(iter(found.headers("Version")), found.version)
    if not _other_forms():
        return None
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requires(name: str) -> list[str]:
    """Return the requirements of a distribution; empty if it has none or is not installed."""
    found = _find(name)
    if found is not None:
        return found.headers("Requires-Dist")
    if not _other_forms():
        return []
    from importlib import metadata

    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def entry_points(*, group: str) -> Iterable[EntryPoint]:
    """Return the entry points of a group."""
    if _other_forms():
        from importlib import metadata

        return metadata.entry_points(group=group)
    return [entry for each in _installed() for entry in _entry_points_of(each, group)]


def _entry_points_of(installed: _Installed, group: str) -> Iterator[EntryPoint]:
    if group.encode() not in installed.read_bytes("entry_points.txt"):
        return
    section = ""
    for line in map(str.strip, installed.read("entry_points.txt").splitlines()):
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == group and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            named = installed._replace(name=next(iter(installed.headers("Name")), installed.name))
            yield FoundEntryPoint(name.strip(), value.strip(), group, named)
