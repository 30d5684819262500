"""Dapr's clients, which also send events whose data counts as false, such as `0`, `""`, `[]` and `False`."""

from __future__ import annotations

from typing import Any

import dapr.ext.workflow as dapr_workflow
from dapr.ext.workflow import aio as dapr_workflow_aio
from durabletask_aio.dapr import _upstream_client


class DaprWorkflowClient(dapr_workflow.DaprWorkflowClient):
    """Dapr's client, which drops no data of events."""

    def raise_workflow_event(self, instance_id: str, event_name: str, *, data: Any = None, **keywords: Any) -> None:
        """Raise an event for a running workflow.

        Args:
            instance_id: the instance.
            event_name: the name of the event; upper and lower case are the same.
            data: what Dapr's SDK can write as JSON; Dapr's own client sends none for `0`, `""`, `[]` or `False`.
            **keywords: as for Dapr's.
        """
        _upstream_client.raise_event(self, instance_id, event_name, data, keywords)


class AsyncDaprWorkflowClient(dapr_workflow_aio.DaprWorkflowClient):
    """The client of `dapr.ext.workflow.aio`, which drops no data of events."""

    async def raise_workflow_event(
        self, instance_id: str, event_name: str, *, data: Any = None, **keywords: Any
    ) -> None:
        """Raise an event for a running workflow.

        Args:
            instance_id: the instance.
            event_name: the name of the event; upper and lower case are the same.
            data: what Dapr's SDK can write as JSON; Dapr's own client sends none for `0`, `""`, `[]` or `False`.
            **keywords: as for Dapr's.
        """
        await _upstream_client.raise_event(self, instance_id, event_name, data, keywords)
