"""`Registry`: upstream's registry of functions, whose errors list the registered names."""

from __future__ import annotations

from typing import Any

from durabletask.worker import ActivityNotRegisteredError, EntityNotRegisteredError, OrchestratorNotRegisteredError

from durabletask_aio.core import hosting
from durabletask_aio.core.hosting import describe_unregistered
from durabletask_aio.testing._upstream import UpstreamRegistry


class Registry(UpstreamRegistry):
    """Upstream's registry; a name that is not registered is an error with a suggestion."""

    def get_orchestrator(self, name: str) -> Any:
        if name == hosting.REPLY_WORKFLOW:
            return hosting.reply
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
            others = {other: self.names(other) for other in ("orchestrator", "activity") if other != kind}
            raise error(describe_unregistered(kind, name, self.names(kind), others))
        return function
