"""What belongs to one execution, in one place: the driver makes it, and the context is its face to the user."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, cast

from durabletask import task

from durabletask_aio.core import _upstream, metadata
from durabletask_aio.core.cleanup import Cleanups
from durabletask_aio.core.debug import OperationHistory
from durabletask_aio.core.deterministic import Streams
from durabletask_aio.core.events import EventStream
from durabletask_aio.core.host import Host
from durabletask_aio.core.loop import WorkflowLoop
from durabletask_aio.core.operations import Operation, RetriedOperation
from durabletask_aio.core.settings import SandboxMode, step_budget


class WorkflowState:
    """One execution of one workflow.  Implements :class:`~.plugins.Execution` for the sandbox."""

    __slots__ = (
        "_tags_of",
        "cleanups",
        "event_streams",
        "history",
        "host",
        "loop",
        "metadata",
        "sandbox_mode",
        "streams",
    )

    def __init__(
        self,
        upstream: task.OrchestrationContext,
        workflow_name: str,
        sandbox_mode: SandboxMode,
        *,
        seeded: Mapping[str, str] | None,
        debug: bool,
    ) -> None:
        self.host = Host(upstream, workflow_name)
        self.loop = WorkflowLoop(self.host, step_budget=step_budget())  # type: ignore[abstract]  # see refusals
        self.sandbox_mode = sandbox_mode
        self.streams = Streams(upstream.instance_id, upstream.current_utc_datetime)
        self.cleanups = Cleanups()
        self.event_streams: list[EventStream[Any]] = []
        self.history = self.loop.history = OperationHistory(self.loop) if debug else None
        self.metadata: dict[str, str] | None = None if seeded is None else dict(seeded)
        self._tags_of: dict[int | None, dict[str, str]] | None = None

    # -- for the sandbox ------------------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        return self.host.instance_id

    @property
    def workflow_name(self) -> str:
        return self.host.workflow_name

    @property
    def is_replaying(self) -> bool:
        return self.host.is_replaying

    def now(self) -> datetime:
        return self.host.upstream.current_utc_datetime.replace(tzinfo=timezone.utc)

    def stream(self, purpose: str) -> random.Random:
        return self.streams.stream(purpose)

    # -- scheduling -----------------------------------------------------------------------------------------------

    def track(
        self,
        upstream_task: task.Task[Any],
        kind: str,
        name: str,
        *,
        traced: bool = True,
        retried: bool = False,
        make: type[Operation[Any]] = Operation,
    ) -> Operation[Any]:
        """The operation for a task that upstream has just scheduled.

        ``traced`` says that the history will have it under the latest sequence number, as is so for everything but
        the wait for an external event.
        """
        upstream = self.host.upstream
        if retried:
            make = cast("type[Operation[Any]]", RetriedOperation)
            _upstream.retry_on_workflow_time(upstream, upstream_task)
        operation = make(loop=self.loop)
        step = _upstream.sequence_number(upstream) if traced else None
        operation.begin(self.loop, kind, name, step, upstream_task)
        return operation

    def tags(self, given: dict[str, str] | None) -> dict[str, str] | None:
        """The tags for an activity: the user's, and the metadata where there is any."""
        if self.metadata is None:
            return given
        return {**(given or {}), **metadata.encode(self.metadata)}

    def carry_metadata(self, step: int | None) -> None:
        """Have a sub-orchestration, or with ``None`` the next execution, carry the metadata of this moment."""
        if self.metadata is None:
            return
        if self._tags_of is None:
            self._tags_of = {}
            _upstream.tag_actions(self.host.upstream, self._tags_of)
        self._tags_of[step] = metadata.encode(self.metadata)

    def apply_continuation(self, upstream: task.OrchestrationContext) -> None:
        """Tell upstream how to go on, now that the workflow function has returned."""
        continuation = self.host.continuation
        assert continuation is not None
        self.host.attach(upstream)
        self.carry_metadata(None)
        if continuation.save_events:
            for stream in reversed(self.event_streams):
                stream.give_back(upstream)
        upstream.continue_as_new(
            continuation.new_input, save_events=continuation.save_events, new_version=continuation.new_version
        )
