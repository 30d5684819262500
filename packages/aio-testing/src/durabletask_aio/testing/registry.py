"""`Registry`: upstream's registry of functions, whose errors list the registered names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from durabletask.worker import ActivityNotRegisteredError, EntityNotRegisteredError, OrchestratorNotRegisteredError

from durabletask_aio.testing._upstream import UpstreamRegistry


class Registry(UpstreamRegistry):
    """Upstream's registry; a name that is not registered is an error with a suggestion."""

    def get_orchestrator(self, name: str) -> Any:
        return self._require(super().get_orchestrator(name), "orchestrator", name, OrchestratorNotRegisteredError)

    def get_activity(self, name: str) -> Any:
        return self._require(super().get_activity(name), "activity", name, ActivityNotRegisteredError)

    def get_entity(self, name: str) -> Any:
        return self._require(super().get_entity(name), "entity", name, EntityNotRegisteredError)

    def names(self, kind: str) -> list[str]:
        """Return the registered names of a kind: `"orchestrator"`, `"activity"` or `"entity"`."""
        registered: dict[str, Any] = {
            "orchestrator": self.orchestrators,
            "activity": self.activities,
            "entity": self.entities,
        }
        return list(registered[kind])

    def _require(self, function: Any, kind: str, name: str, error: type[Exception]) -> Any:
        if function is None:
            raise error(describe_unregistered(kind, name, self.names(kind)))
        return function


def describe_unregistered(kind: str, name: str, names: Sequence[str]) -> str:
    """Return the message for a name that is not registered, with the names that are."""
    if not names:
        return f"no {kind} {name!r} is registered here, nor any other {kind}"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"no {kind} {name!r} is registered here; there are: {', '.join(sorted(names))}{hint}"
