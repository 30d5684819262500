"""The catalogue in force in this process: the shipped rules and calls, and what `configure(forbid=...)` added."""

from __future__ import annotations

import functools

from durabletask_aio.sandbox.rules.calls import CALLS
from durabletask_aio.sandbox.rules.catalogue import Catalogue
from durabletask_aio.sandbox.rules.definitions import RULES
from durabletask_aio.sandbox.rules.libraries import add_libraries


@functools.cache
def default_catalogue() -> Catalogue:
    """The one catalogue that registration, the guard and the checker share; `configure(...)` changes it in place."""
    catalogue = Catalogue({rule.code: rule for rule in RULES})
    catalogue.add(CALLS)
    add_libraries(catalogue)
    return catalogue
