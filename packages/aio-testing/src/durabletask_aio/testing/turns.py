"""`Turns`: runs the turns of workflows without a worker; history in, actions out.

An instance stays alive between its turns and receives only the new events, as on a worker with extended sessions.
Otherwise a workflow of ten thousand steps would be replayed ten thousand times, and a test that takes milliseconds
would take minutes.  Code that behaves differently when replayed is found nevertheless: the environment replays every
execution once when it closes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durabletask.serialization import DataConverter

from durabletask_aio.core import hosting
from durabletask_aio.testing._upstream import OrchestrationInstance, helpers, pb, suppress_spans
from durabletask_aio.testing.executor import VirtualTimeExecutor
from durabletask_aio.testing.registry import Registry

_logger = logging.getLogger("durabletask.aio.testing")


@dataclass
class _LiveInstance:
    """An instance between two turns: its executor, and the coroutines that its turns have started."""

    execution: int
    executor: VirtualTimeExecutor
    runs: list[hosting.WorkflowRun]

    def close(self) -> None:
        for run in self.runs:
            run.dispose()
        self.executor.close()


class Turns:
    """Runs the turns of the instances of one engine."""

    def __init__(self, registry: Registry, converter: DataConverter, maximum_timer_interval: timedelta | None) -> None:
        self._registry = registry
        self._converter = converter
        self._maximum_timer_interval = maximum_timer_interval
        self._live: dict[str, _LiveInstance] = {}
        self.errors: dict[str, BaseException] = {}
        """The exceptions that failed instances, by instance id; the history has only a description of them."""

    def run(self, instance: OrchestrationInstance, execution: int, token: str) -> pb.OrchestratorResponse:
        """Run the turn that the engine has dispatched for this instance.

        Args:
            instance: the instance, with its history and the events of the turn.
            execution: the number of the execution; after continue-as-new it is another one.
            token: the completion token of the work item.

        Returns:
            The actions and the custom status, as a worker would send them.
        """
        instance_id = instance.instance_id
        live = self._live.pop(instance_id, None)
        if live is not None and live.execution != execution:
            live.close()
            live = None
        executor = live.executor if live is not None else self._new_executor()
        past, new = instance.history, instance.dispatched_events
        metadata = hosting.metadata_from_tags(_tags(past) or _tags(new))
        response = pb.OrchestratorResponse(instanceId=instance_id, completionToken=token)
        with suppress_spans(), hosting.turn_scope(metadata=metadata) as scope:
            try:
                results = executor.execute(instance_id, past, new)
            except Exception as error:
                # Upstream's worker also fails the instance for what its executor does not handle, such as an error of
                # a data converter.
                executor.error = error
                details = hosting.failure_details(error, None, _logger)
                failed = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_FAILED, "", details)
                response.actions.append(failed)
            else:
                response.actions.extend(results.actions)
                response.customStatus.CopyFrom(helpers.get_string_value_or_empty(results.encoded_custom_status))
                if not executor.is_complete:
                    scope.keep()
                    live = live or _LiveInstance(execution, executor, [])
                    live.runs += scope.runs
                    executor.processed = len(past) + len(new)
                    self._live[instance_id] = live
                    return response
        if live is not None:
            live.close()
        if executor.error is not None:
            self.errors[instance_id] = executor.error
        return response

    def _new_executor(self) -> VirtualTimeExecutor:
        return VirtualTimeExecutor(self._registry, self._converter, self._maximum_timer_interval)

    def awaited_events(self, instance_id: str) -> list[str]:
        """Return the names of the external events that a live instance waits for."""
        live = self._live.get(instance_id)
        return [] if live is None else live.executor.awaited_events

    def close(self) -> None:
        """Dispose of every live instance, in this thread and marked as replaying, so that nothing is logged."""
        for live in self._live.values():
            live.close()
        self._live.clear()


def _tags(events: Sequence[pb.HistoryEvent]) -> Any:
    # The start is among the first few events of a history, so this is cheap for a long one too.
    return next((event.executionStarted.tags for event in events if event.HasField("executionStarted")), None)
