"""The settings of the checker in `pyproject.toml`, table `[tool.durabletask-aio.check]`.

Each file has the settings of the nearest `pyproject.toml` at or above it that has the table, unless `--config` names a
file for all. Options of the command line add to them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.cli.selection import ALL, is_selected, is_selected_by_name, selectors
from durabletask_aio.sandbox.rules import allowance
from durabletask_aio.sandbox.rules.catalogue import Severity, allows
from durabletask_aio.sandbox.rules.findings import Finding
from durabletask_aio.sandbox.static.checker import Settings
from durabletask_aio.sandbox.static.targets import matches

TABLE: Final = "tool.durabletask-aio.check"
_LISTS: Final = ("allow", "exclude", "orchestrators", "follow", "follow-io", "select", "ignore")
_FLAGS: Final = ("errors-only", "notes", "force-exclude")
_TABLES: Final = ("forbid", "per-file-ignores")
_TEXTS: Final = ("docs-url", "baseline")
_KEYS: Final = (*_LISTS, *_FLAGS, *_TEXTS, *_TABLES)


@dataclass(frozen=True)
class Configuration:
    """The settings of some files: what the checker looks for, and what is reported of it."""

    folder: Path
    """The folder of the settings file, to which patterns are relative."""
    settings: Settings = field(default_factory=Settings)
    select: tuple[str, ...] = (ALL,)
    ignore: tuple[str, ...] = ()
    per_file_ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    force_exclude: bool = False
    docs_url: str | None = None
    baseline: Path | None = None

    def is_excluded(self, path: Path, root: Path) -> bool:
        """Whether a pattern of `exclude` matches: the name, the whole path, or the path below a folder.

        The folder is `root`, the target that the user named, or that of the settings file.
        """
        return any(matches(path, pattern, root, self.folder) for pattern in self.settings.exclude)

    def is_reported(self, finding: Finding) -> bool:
        """Whether a finding in a file with these settings is reported."""
        rule, settings = finding.rule, self.settings
        if allows(settings.allow, rule, finding.call):
            return False
        if rule.severity is Severity.NOTE and not (settings.notes or is_selected_by_name(rule, self.select)):
            return False
        if settings.errors_only and rule.severity is not Severity.ERROR:
            return False
        path = Path(finding.file)
        here = [
            each
            for pattern, given in self.per_file_ignores
            for each in given
            if _matches_file(path, pattern, self.folder)
        ]
        # A file's own list wins over `select`, however specific that is.
        return is_selected(rule, self.select, self.ignore) and not is_selected(rule, here, ())


def _matches_file(path: Path, pattern: str, folder: Path) -> bool:
    """Whether a pattern of `per-file-ignores` matches; `!` in front of it negates it."""
    negated = pattern.startswith("!")
    return matches(path, pattern.removeprefix("!"), folder) is not negated


@dataclass(frozen=True)
class Options:
    """What the command line adds to the settings."""

    allow: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    orchestrators: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    follow_io: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    errors_only: bool = False
    notes: bool = False
    force_exclude: bool = False

    def added_to(self, found: Configuration) -> Configuration:
        """The settings with these options; `--select` replaces the selection, all others add to it."""
        before = found.settings
        select = selectors(self.select, "--select") or found.select
        settings = replace(
            before,
            allow=allowance.checked([*before.allow, *self.allow]),
            exclude=(*before.exclude, *self.exclude),
            orchestrators=before.orchestrators | set(self.orchestrators),
            follow=allowance.checked_packages([*before.follow, *self.follow], "follow"),
            follow_io=allowance.checked_packages([*before.follow_io, *self.follow_io], "follow-io"),
            errors_only=before.errors_only or self.errors_only,
            notes=before.notes or self.notes,
        )
        return replace(
            found,
            settings=settings,
            select=select,
            ignore=(*found.ignore, *selectors(self.ignore, "--ignore")),
            force_exclude=found.force_exclude or self.force_exclude,
        )


class Configurations:
    """The settings of files, found by their folders."""

    def __init__(self, options: Options, config: Path | None = None) -> None:
        """Use `config` for all files if it is given, otherwise the nearest settings file of each."""
        self._options = options
        self._by_folder: dict[Path, Configuration] = {}
        self._none = options.added_to(Configuration(Path.cwd()))
        self._fixed = None if config is None else options.added_to(read_configuration(config))

    def of_folder(self, folder: Path) -> Configuration:
        """The settings of the files in a folder."""
        if self._fixed is not None:
            return self._fixed
        found = self._by_folder.get(folder)
        if found is None:
            found = self._by_folder[folder] = self._nearest(folder)
        return found

    def of_file(self, path: Path) -> Configuration:
        return self.of_folder(path.parent)

    def _nearest(self, folder: Path) -> Configuration:
        resolved = folder.resolve()
        if resolved != folder:
            return self.of_folder(resolved)
        path = folder / "pyproject.toml"
        if path.is_file() and f"[{TABLE}" in path.read_text(encoding="utf-8", errors="replace"):
            return self._options.added_to(read_configuration(path))
        return self._none if folder.parent == folder else self.of_folder(folder.parent)


def read_configuration(path: Path) -> Configuration:
    """The settings in a TOML file: the table of `pyproject.toml`, or the keys of a file that has no such table.

    Raises `WorkflowValidationError`, with the file and the key, for an unknown key or a wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        msg = f"{path} is not valid TOML: it is not in UTF-8"
        raise WorkflowValidationError(msg) from None
    table: Any = _parse(path, text)
    if path.name == "pyproject.toml" or "tool" in table:
        for part in TABLE.split("."):
            table = table.get(part, {})
    for key, value in table.items():
        _validate(path, key, value)
    ignored: dict[str, list[str]] = table.get("per-file-ignores", {})
    return Configuration(
        folder=path.resolve().parent,
        settings=_settings(table),
        select=selectors(table.get("select", (ALL,)), f"{path}: select"),
        ignore=selectors(table.get("ignore", ()), f"{path}: ignore"),
        per_file_ignores=tuple(
            (pattern, selectors(given, f"{path}: per-file-ignores {pattern!r}")) for pattern, given in ignored.items()
        ),
        force_exclude=table.get("force-exclude", False),
        docs_url=table.get("docs-url"),
        baseline=path.resolve().parent / table["baseline"] if "baseline" in table else None,
    )


def _settings(table: Mapping[str, Any]) -> Settings:
    return Settings(
        allow=tuple(table.get("allow", ())),
        exclude=tuple(table.get("exclude", ())),
        orchestrators=frozenset(table.get("orchestrators", ())),
        forbid=dict(table.get("forbid", {})),
        follow=tuple(table.get("follow", ())),
        follow_io=tuple(table.get("follow-io", ())),
        errors_only=table.get("errors-only", False),
        notes=table.get("notes", False),
    )


def _validate(path: Path, key: str, value: Any) -> None:
    if key not in _KEYS:
        msg = f"{path}: [{TABLE}] has no key {key!r}; the keys are {', '.join(_KEYS)}."
        raise WorkflowValidationError(msg)
    if key in _LISTS:
        expected, fits = "a list of strings", _is_list_of_strings(value)
    elif key in _FLAGS:
        expected, fits = "true or false", isinstance(value, bool)
    elif key in _TEXTS:
        expected, fits = "a string", isinstance(value, str)
    elif key == "forbid":
        expected, fits = "a table of strings", _is_table(value, str)
    else:
        expected, fits = "a table of lists of strings", _is_table(value, list)
    if not fits:
        msg = f"{path}: [{TABLE}] {key} must be {expected}, not {value!r}."
        raise WorkflowValidationError(msg)


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)  # pyright: ignore[reportUnknownVariableType]


def _is_table(value: Any, kind: type[str | list[Any]]) -> bool:
    if not isinstance(value, dict):
        return False
    values: list[Any] = list(value.values())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return all(isinstance(each, str) if kind is str else _is_list_of_strings(each) for each in values)


def _parse(path: Path, text: str) -> dict[str, Any]:
    for name in ("tomllib", "tomli"):
        try:
            # tomllib is part of Python 3.11 and later; for 3.10, tomli provides the same if it is installed.
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        try:
            parsed: dict[str, Any] = module.loads(text)
        except ValueError as error:
            msg = f"{path} is not valid TOML: {error}"
            raise WorkflowValidationError(msg) from None
        return parsed
    msg = f"{path} has settings of the checker, and Python 3.10 cannot read them without a package: pip install tomli"
    raise WorkflowValidationError(msg)
