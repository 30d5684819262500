"""The adapter to upstream's registry: the names under which functions are registered with a worker."""

from __future__ import annotations

from typing import Any


def registered_names(executor: Any) -> dict[str, list[str]]:
    """Return the names that are registered with the worker of `executor`, by kind."""
    registry = executor._registry
    return {"orchestrator": list(registry.orchestrators), "activity": list(registry.activities)}
