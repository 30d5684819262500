"""What is known about libraries: which of their calls break a rule, and what their functions return.

The data is in `libraries.json`, and in mappings of the same shape that other distributions provide through the entry
point group `durabletask.aio.sandbox.libraries`:

- `calls`: by rule code, full names below the library; a condition may follow after `?` (see `conditions`). A name that
  ends with `.*` stands for all public methods of a class, and of what its attributes hold.
- `bases`: by rule code, classes; creating an object of a class of the user that is based on one breaks the rule.
- `results`: by function, the full name of the class of what it returns; `Class.__call__` and `Class.__getitem__` stand
  for calling and indexing an object.
- `generators`: what makes a random generator, which breaks a rule when it is kept outside of a workflow.
- `creators`: class methods that create an object of the class they are called on.
- `pure`: methods of the classes under `calls` that do no harm.

Nothing of a library is imported: its names are compared with import statements, and with modules that are imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any, Final, cast

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.sandbox.rules.catalogue import Call, Catalogue
from durabletask_aio.sandbox.rules.conditions import is_condition

GROUP: Final = "durabletask.aio.sandbox.libraries"
"""The entry point group of distributions that describe more libraries."""
_KEYS: Final = ("calls", "bases", "results", "generators", "creators", "pure")
_ALL_METHODS: Final = ".*"


def shipped_libraries() -> dict[str, Any]:
    """The content of `libraries.json`."""
    text = files("durabletask_aio.sandbox.rules").joinpath("libraries.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def add_libraries(catalogue: Catalogue) -> None:
    """Enter the shipped libraries, and those that installed distributions describe."""
    add_library_data(catalogue, shipped_libraries(), "libraries.json")
    for point in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        described = point.load()
        add_library_data(
            catalogue,
            described() if callable(described) else described,
            f"the entry point {point.name!r} of the group {GROUP!r} ({point.value})",
        )


def add_library_data(catalogue: Catalogue, libraries: object, origin: str) -> None:
    """Enter descriptions of libraries, by import name.

    Raises `WorkflowValidationError`, with `origin` and the place, for data of another shape.
    """
    for library, description in _mapping(libraries, origin).items():
        where = f"{origin}: {library}"
        parts = _mapping(description, where)
        unknown = [key for key in parts if key not in _KEYS]
        if unknown:
            msg = f"{where} has no key {unknown[0]!r}; the keys are {', '.join(_KEYS)}."
            raise WorkflowValidationError(msg)
        _add_calls(catalogue, library, _mapping(parts.get("calls", {}), f"{where}: calls"), where)
        for code, names in _mapping(parts.get("bases", {}), f"{where}: bases").items():
            for name in _names(names, f"{where}: bases: {code}"):
                call = _entry(catalogue, f"{library}.{name}", code, where)
                catalogue.add([call])
                catalogue.inherited[call.name] = call
        results = _mapping(parts.get("results", {}), f"{where}: results")
        catalogue.results.update({f"{library}.{name}": str(made) for name, made in results.items()})
        for key in ("generators", "creators", "pure"):
            names = {f"{library}.{name}" for name in _names(parts.get(key, ()), f"{where}: {key}")}
            setattr(catalogue, key, getattr(catalogue, key) | names)


def _add_calls(catalogue: Catalogue, library: str, calls: Mapping[str, Any], where: str) -> None:
    for code, names in calls.items():
        for name in _names(names, f"{where}: calls: {code}"):
            call = _entry(catalogue, f"{library}.{name}", code, where)
            if call.name.endswith(_ALL_METHODS):
                owner = call.name.removesuffix(_ALL_METHODS)
                catalogue.methods[owner] = replace(call, name=owner)
                catalogue.version += 1
            else:
                catalogue.add([call])


def _entry(catalogue: Catalogue, text: str, code: str, where: str) -> Call:
    name, _, condition = text.partition("?")
    if condition and not is_condition(condition):
        msg = f"{where}: {text!r} has an unknown condition {condition!r}."
        raise WorkflowValidationError(msg)
    try:
        return Call(name, catalogue.rule(code), condition or None)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise WorkflowValidationError(msg) from None


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{where} must be a mapping, not {value!r}."
        raise WorkflowValidationError(msg)
    return cast("Mapping[str, Any]", value)


def _names(value: object, where: str) -> Sequence[str]:
    names = [*cast("Sequence[object]", value)] if isinstance(value, (list, tuple)) else [None]
    if not all(isinstance(name, str) for name in names):
        msg = f"{where} must be a list of names, not {value!r}."
        raise WorkflowValidationError(msg)
    return cast("list[str]", names)
