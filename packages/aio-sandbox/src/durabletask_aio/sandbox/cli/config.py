"""The settings of the checker in `pyproject.toml`, table `[tool.durabletask-aio.check]`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.static.checker import Settings

TABLE: Final = "tool.durabletask-aio.check"
_LISTS: Final = ("allow", "exclude", "orchestrators", "follow", "follow-io")
_FLAGS: Final = ("errors-only", "notes")
_KEYS: Final = (*_LISTS, *_FLAGS, "forbid")


def read_settings(start: Path) -> Settings:
    """The settings of the nearest `pyproject.toml` at or above `start`; the defaults if there is none.

    Raises `WorkflowValidationError`, with the file and the key, for an unknown key or a wrong type.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _settings(path)
    return Settings()


def _settings(path: Path) -> Settings:
    text = path.read_text(encoding="utf-8")
    if f"[{TABLE}" not in text:
        return Settings()
    table: Any = _parse(path, text)
    for part in TABLE.split("."):
        table = table.get(part, {})
    for key, value in table.items():
        _validate(path, key, value)
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
    expected = "a list of strings" if key in _LISTS else "true or false" if key in _FLAGS else "a table"
    if key in _LISTS:
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)  # pyright: ignore[reportUnknownVariableType]
    elif key in _FLAGS:
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not fits:
        msg = f"{path}: [{TABLE}] {key} must be {expected}, not {value!r}."
        raise WorkflowValidationError(msg)


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
    msg = f"{path} has a table [{TABLE}], and Python 3.10 cannot read it without a package: pip install tomli"
    raise WorkflowValidationError(msg)
