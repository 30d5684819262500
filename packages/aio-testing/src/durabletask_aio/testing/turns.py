"""`Turns`: runs the turns of workflows without a worker; history in, actions out.

An instance stays alive between its turns and receives only the new events, as on a worker with extended sessions.
Otherwise a workflow of ten thousand steps would be replayed ten thousand times, and a test that takes milliseconds
would take minutes.  Code that behaves differently when replayed is found nevertheless: the environment replays every
execution once when it closes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from durabletask.serialization import DataConverter

from durabletask_aio.core import hosting
from durabletask_aio.engine import events
from durabletask_aio.engine.work import TurnWork
from durabletask_aio.testing._upstream import helpers, pb, suppress_spans
from durabletask_aio.testing.executor import VirtualTimeExecutor
from durabletask_aio.testing.registry import Registry

_logger = logging.getLogger("durabletask.aio.testing")


@dataclass
class _LiveInstance:
    """An instance between two turns.

    Attributes:
        execution_id: the execution; after continue-as-new it is another one.
        executor: its executor.
        runs: the coroutines that its turns have started.
        history: the events that it has processed.
        chunk_count: the number of chunks of the committed history that `history` has, by turns.
        event_count: the number of events that it has of the next chunk: those that the last turn was given.
    """

    execution_id: str
    executor: VirtualTimeExecutor
    runs: list[hosting.WorkflowRun] = field(default_factory=list[hosting.WorkflowRun])
    history: list[pb.HistoryEvent] = field(default_factory=list[pb.HistoryEvent])
    chunk_count: int = 0
    event_count: int = 0

    def read_history(self, work: TurnWork) -> None:
        """Parse what has been committed since the last turn, but for the events of that turn."""
        if work.chunk_count > self.chunk_count:
            committed = events.past_events(work.chunks[self.chunk_count : work.chunk_count])
            self.history += committed[self.event_count :]

    def add_events(self, work: TurnWork, new: Sequence[pb.HistoryEvent]) -> None:
        """The events of a turn have been processed; its commit puts them at the beginning of the next chunk."""
        self.history += new
        self.chunk_count, self.event_count = work.chunk_count, len(new)

    def close(self) -> None:
        for run in self.runs:
            run.dispose()
        self.executor.close()


class Turns:
    """Runs the turns of the instances of one engine."""

    def __init__(
        self,
        registry: Registry,
        converter: DataConverter,
        maximum_timer_interval: timedelta | None,
        steps: hosting.StepRunner,
    ) -> None:
        self._steps = steps
        self._registry = registry
        self._converter = converter
        self._maximum_timer_interval = maximum_timer_interval
        self._live: dict[str, _LiveInstance] = {}
        self.errors: dict[str, BaseException] = {}
        """The exceptions that failed instances, by instance id; the history has only a description of them."""

    def run(self, work: TurnWork) -> pb.OrchestratorResponse:
        """Run a turn.

        Args:
            work: the turn.

        Returns:
            The actions and the custom status, as a worker would send them.
        """
        instance_id, execution_id = work.instance.instance_id, work.instance.execution_id
        live = self._live.pop(instance_id, None)
        if live is None or live.execution_id != execution_id:
            if live is not None:
                live.close()
            live = _LiveInstance(execution_id, self._new_executor())
        executor = live.executor
        live.read_history(work)
        past, new = live.history, [pb.HistoryEvent.FromString(each) for each in work.new()]
        response = pb.OrchestratorResponse(instanceId=instance_id)
        metadata = hosting.metadata_from_tags(work.instance.tags)
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
                    live.runs += scope.runs
                    live.add_events(work, new)
                    executor.processed = len(live.history)
                    self._live[instance_id] = live
                    return response
        live.close()
        hosting.describe_failure(response.actions, executor.error)
        if executor.error is not None:
            self.errors[instance_id] = executor.error
        return response

    def _new_executor(self) -> VirtualTimeExecutor:
        executor = VirtualTimeExecutor(self._registry, self._converter, self._maximum_timer_interval)
        executor.step_runner = self._steps
        return executor

    def awaited_events(self, instance_id: str) -> list[str]:
        """Return the names of the external events that a live instance waits for."""
        live = self._live.get(instance_id)
        return [] if live is None else live.executor.awaited_events

    def close(self) -> None:
        """Dispose of every live instance, in this thread and marked as replaying, so that nothing is logged."""
        for live in self._live.values():
            live.close()
        self._live.clear()
