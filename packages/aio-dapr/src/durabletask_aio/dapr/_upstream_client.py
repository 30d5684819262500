"""The adapter to Dapr's clients: their private names."""

# Dapr's SDK is typed in parts.
# mypy: disable-error-code="no-untyped-call"
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dapr.ext.workflow._durabletask.internal import shared


class _Stub:
    """The stub of a client, which sends the given data with an event."""

    def __init__(self, stub: Any, encoded: str) -> None:
        self._stub = stub
        self._encoded = encoded

    def RaiseEvent(self, request: Any) -> Any:  # noqa: N802 - the name of the call
        """Send the event."""
        request.input.value = self._encoded
        return self._stub.RaiseEvent(request)


def raise_event(client: Any, instance_id: str, name: str, data: Any, keywords: dict[str, Any]) -> Any:
    """Raise an event with the code of Dapr's client, which would leave out data that counts as false.

    Returns:
        What Dapr's method returns: for an async client something to await.
    """
    inner = client._DaprWorkflowClient__obj
    if data is None or data:
        return inner.raise_orchestration_event(instance_id, name, data=data, **keywords)
    stub = _Stub(inner._get_stub() if hasattr(inner, "_get_stub") else inner._stub, shared.to_json(data))
    with_stub = SimpleNamespace(_stub=stub, _get_stub=lambda: stub, _logger=inner._logger)
    return type(inner).raise_orchestration_event(with_stub, instance_id, name, **keywords)
