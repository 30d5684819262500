"""The source files that a resolver follows: which file an import refers to, read when it is first requested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from durabletask_aio.sandbox.code.scopes import Scope
from durabletask_aio.sandbox.code.sources import Source, decoded, parse, source_of
from durabletask_aio.sandbox.code.values import Value
from durabletask_aio.sandbox.rules.ownership import installed_roots, is_standard_module


@dataclass(eq=False)
class SourceModule(Value):
    """A source file of the project; as a value, the module that an import of it returns."""

    name: str
    filename: str
    text: str = field(repr=False)
    is_package: bool
    root: Path | None = None
    """The folder from which its top-level package is imported."""
    io_only: bool = False
    """Whether it belongs to a package that is followed for files, network, processes and threads only."""
    names: dict[str, Any] | None = field(default=None, repr=False)
    """What its variables hold, if it is a module of this process."""

    def parsed(self) -> Source:
        """Parse without keeping the result: a syntax tree takes many times the memory of its text."""
        return parse(self.filename, self.text)

    @cached_property
    def source(self) -> Source:
        loaded = None if self.names is None else source_of(self.filename, self.names)
        return loaded if loaded is not None else self.parsed()

    @cached_property
    def scope(self) -> Scope:
        body = self.source.tree.body if self.source.tree is not None else []
        return Scope(self, source=self.source, is_module=True, statements=body)

    def absolute(self, name: str) -> str:
        """The full name of a module that this one imports as `name`, which may begin with dots."""
        if not name.startswith("."):
            return name
        level = len(name) - len(name.lstrip("."))
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        base = package[: len(package) - level + 1]
        return ".".join([*base, name.lstrip(".")]).rstrip(".")


class SourceModules:
    """Source files by the name under which a module imports them.

    Two files of a tree may have the same name, such as the `helpers.py` of two services. An import therefore looks
    below the root of the importing file first, and then below all `roots`.
    """

    def __init__(self, roots: list[Path], followed: Mapping[str, bool]) -> None:
        self._roots = roots
        self._followed = followed
        """Installed packages to follow, by import name; the value says whether for I/O only."""
        self._by_file: dict[Path, SourceModule] = {}
        self._imported: set[int] = set()
        self._by_name: dict[tuple[Path | None, str], SourceModule | None] = {}

    def add(self, name: str, path: Path, text: str) -> SourceModule:
        """Add a file that is to be checked."""
        root = _root_of(name, path)
        module = SourceModule(name, str(path), text, path.name == "__init__.py", root)
        self._by_file[_key(path)] = module
        self._by_name[module.root, name] = module
        return module

    def parsed(self) -> list[SourceModule]:
        """The modules whose syntax tree was needed, but for those of installed packages that are followed for I/O."""
        return [each for each in self._by_file.values() if "source" in vars(each) and not each.io_only]

    def consulted(self) -> list[SourceModule]:
        """The modules that were parsed, and those that imports have led to."""
        return [each for each in self._by_file.values() if "source" in vars(each) or id(each) in self._imported]

    def missing(self) -> list[tuple[Path | None, str]]:
        """The names that were looked for in vain, each with the root of the importing file."""
        return [key for key, module in self._by_name.items() if module is None]

    def find(self, name: str, importer: SourceModule | None = None) -> SourceModule | None:
        """The project's module of this name, or one of a followed package."""
        root = importer.root if importer is not None else None
        if (root, name) not in self._by_name:
            self._by_name[root, name] = None
            self._by_name[root, name] = self._found(name, root)
        module = self._by_name[root, name]
        if module is not None:
            self._imported.add(id(module))
        return module

    def _found(self, name: str, root: Path | None) -> SourceModule | None:
        path = _file_of(name, self._roots if root is None else [root, *self._roots])
        if path is not None:
            known = self._by_file.get(_key(path))
            return known if known is not None else self.add(name, path, read_source(path))
        io_only = self._is_followed(name)
        path = _file_of(name, installed_roots()) if io_only is not None else None
        if path is None:
            return None
        known = self._by_file.get(_key(path))
        module = known if known is not None else self.add(name, path, read_source(path))
        # An installed package imports other installed packages, which are followed only if they are listed.
        module.root = None
        module.io_only = bool(io_only)
        return module

    def _is_followed(self, name: str) -> bool | None:
        """Whether the module is followed for I/O only; `None` if it is not followed."""
        if not self._followed or is_standard_module(name):
            return None
        found = [io_only for package, io_only in self._followed.items() if f"{name}.".startswith(f"{package}.")]
        return all(found) if found else self._followed.get("*")


def read_source(path: Path) -> str:
    """The text of a file. Bytes that cannot be decoded are replaced, so that the parser can report them."""
    return decoded(path.read_bytes())


def _resolved(folder: Path) -> Path:
    return _resolve(folder if folder.is_absolute() else Path.cwd() / folder)


@lru_cache(maxsize=4096)
def _resolve(absolute: Path) -> Path:
    return absolute.resolve()


def _key(path: Path) -> Path:
    return _resolved(path.parent) / path.name


def _root_of(name: str, path: Path) -> Path:
    folder = _resolved(path.parent)
    levels = name.count(".") + (path.name == "__init__.py")
    return folder.parents[levels - 1] if 0 < levels <= len(folder.parents) else folder


def _file_of(name: str, roots: Iterable[Path]) -> Path | None:
    """The file that an import of `name` would run, if it is below one of `roots`."""
    for root in roots:
        base = root.joinpath(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None
