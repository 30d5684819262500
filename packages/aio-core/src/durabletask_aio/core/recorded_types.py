"""Whether a recorded failure is of an exception type, decided by nothing but the record and the type's own name.

A record names the type of the exception.  The worker of this project adds the names of its bases, as a property of the
failure details; without them, as other workers record it, the exact name decides.  Python's own types and those of this
package are the same in every process, so their bases are not recorded.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, cast

from durabletask_aio.core._upstream import (
    EntityOperationFailedException,
    FailureDetails,
    TaskFailedError,
    pb,
    qualified_name,
)
from durabletask_aio.core.errors import PUBLIC_ERRORS

BASES = "durabletask.aio.bases"
"""The key of the property with the names of the base types, from the nearest to the most general."""

_KNOWN: dict[str, type[BaseException]] = {
    qualified_name(kind): kind
    for kind in (*vars(builtins).values(), *PUBLIC_ERRORS)
    if isinstance(kind, type) and issubclass(kind, BaseException)
}

_WRAPPERS = frozenset(map(qualified_name, (TaskFailedError, EntityOperationFailedException)))
"""The types under which upstream records that an orchestrator or an entity call has failed by another failure."""


def record_bases(details: pb.TaskFailureDetails, kind: type[BaseException]) -> None:
    """Add the names of the bases of `kind` to `details`, if they describe an exception of that type."""
    name = qualified_name(kind)
    if name in _KNOWN or details.errorType != name:
        return
    bases = [qualified_name(base) for base in _bases_of(kind)]
    if bases:
        property_ = details.properties[BASES]
        property_.Clear()
        for base in bases:
            property_.list_value.values.add(string_value=base)


def _bases_of(kind: type[BaseException]) -> list[type[BaseException]]:
    """Return the bases that distinguish an exception type from others."""
    general = (Exception, BaseException)
    return [base for base in kind.__mro__[1:] if issubclass(base, BaseException) and base not in general]


def cause_of(details: FailureDetails) -> FailureDetails:
    """Return the failure that upstream's `TaskFailedError` of an orchestrator or an entity call passes on."""
    while details.error_type in _WRAPPERS and details.inner_failure is not None:
        details = details.inner_failure
    return details


def is_of_type(details: FailureDetails, kind: type[BaseException] | str) -> bool:
    """Whether the failure, or the one that it passes on, is of a type or of a subtype.

    Args:
        details: what the history records.
        kind: the type, or its name with or without the module.
    """
    if kind in (Exception, BaseException):
        return True
    failures = [details, cause_of(details)]
    names = {name: None for failure in failures for name in _names(failure)}
    if isinstance(kind, str):
        return any(_is_name(recorded, kind) for recorded in names)
    name = qualified_name(kind)
    return any(recorded == name or ("." not in recorded and _is_name(recorded, name)) for recorded in names)


def _names(details: FailureDetails) -> Iterator[str]:
    """Return the recorded names of the type and its bases."""
    recorded: Any = (details.properties or {}).get(BASES)
    bases = cast("list[object]", recorded) if isinstance(recorded, list) else []
    for name in (details.error_type, *bases):
        if isinstance(name, str) and name:
            yield name
            known = _KNOWN.get(name)
            if known is not None:
                yield from map(qualified_name, _bases_of(known))


def _is_name(recorded: str, name: str) -> bool:
    """Whether two names are the same; one without a module is compared with the last part of the other."""
    if "." in recorded and "." in name:
        return recorded == name
    return recorded.rpartition(".")[2] == name.rpartition(".")[2]
