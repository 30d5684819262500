"""`ShadowReplay`: compares the actions of a sample of session turns with those of a full replay.

A session hides non-deterministic workflow code until the worker restarts.  A shadow replay finds it earlier: history
and new events are processed by a second, fresh executor, which is marked as replaying from start to end so that
replay-safe logging stays silent, and its actions are compared with those of the live instance.  It only reports; the
engine gets the actions of the live instance.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from durabletask_aio.core.hosting import metadata_from_tags, turn_scope
from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import pb, tracing
from durabletask_aio.worker.sessions import execution_started

if TYPE_CHECKING:
    from durabletask_aio.worker.session_executor import SessionExecutor
    from durabletask_aio.worker.sessions import ExtendedSessionStats

_SILENT = logging.Logger(  # noqa: LOG001 - no configuration should reach it
    "durabletask-aio-shadow", level=logging.CRITICAL + 1
)


class ShadowReplay:
    """Replays a sample of one worker's session turns."""

    def __init__(self, worker: _upstream.Worker, rate: float, stats: ExtendedSessionStats) -> None:
        self._worker = worker
        self._rate = rate
        self._stats = stats

    def is_due(self) -> bool:
        """Whether this turn is in the sample."""
        # Workflow code cannot observe the sampling, so that the global, thread-safe generator will do.
        return self._rate > 0 and random.random() < self._rate

    def compare(
        self, live: SessionExecutor, actions: Sequence[pb.OrchestratorAction], request: pb.OrchestratorRequest
    ) -> None:
        """Replay, and report a difference from `actions` as an error in the worker's log and in the statistics.

        Of `live` only the settings are used, since it may be evicted and closed meanwhile.
        """
        started = execution_started(request)
        with turn_scope(metadata=metadata_from_tags(started.tags)):
            replayed = _replay(live, request, actions)
        difference = _difference(actions, replayed)
        with self._stats.lock:
            self._stats.shadow_replays += 1
            self._stats.divergences += difference is not None
        if difference is None:
            return
        _upstream.logger_of(self._worker).error(
            "%s: a shadow replay of orchestrator %s is non-deterministic: %s. The live instance continues, but its "
            "next full replay (after a restart, an eviction, or on another worker) is likely to fail with a "
            "NonDeterminismError; look for clocks, random values, sets and I/O in the workflow",
            request.instanceId,
            started.name,
            difference,
        )


def _replay(
    live: SessionExecutor, request: pb.OrchestratorRequest, actions: Sequence[pb.OrchestratorAction]
) -> list[pb.OrchestratorAction]:
    """Return the actions of this turn after a full replay in a fresh executor that is replaying from start to end."""
    executor: SessionExecutor = live.fresh_copy(_SILENT)
    executor.is_async = live.is_async
    executor.step_runner, executor.step_refusal = live.step_runner, live.step_refusal
    executor.remember(request.pastEvents, request.newEvents, actions)
    executor.open(request.instanceId)
    with executor.turn_context(), tracing.suppress_span_emission():
        try:
            for event in (*request.pastEvents, *request.newEvents):
                executor.process_event(executor.context, event)
        except Exception as error:
            executor.fail(error)
        return executor.take_actions()


def _difference(live: Any, replayed: Any) -> str | None:
    """Describe the first action in which two turns differ; `None` if there is none."""
    ours, theirs = [_comparable(action) for action in live], [_comparable(action) for action in replayed]
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f"action {index + 1} was {_shown(live[index])} live and {_shown(replayed[index])} on replay"
    if len(ours) != len(theirs):
        return f"{len(ours)} action(s) live and {len(theirs)} on replay"
    return None


def _comparable(action: pb.OrchestratorAction) -> bytes:
    """Serialise an action without what differs between any two replays: the ids of spans, and stack traces."""
    copy = pb.OrchestratorAction()
    copy.CopyFrom(action)
    for kind in ("scheduleTask", "createSubOrchestration"):
        if copy.HasField(kind):  # pyright: ignore[reportArgumentType]
            getattr(copy, kind).ClearField("parentTraceContext")
    if copy.HasField("completeOrchestration"):
        details: Any = copy.completeOrchestration.failureDetails
        while details is not None:
            details.ClearField("stackTrace")
            details = details.innerFailure if details.HasField("innerFailure") else None
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


def _shown(action: pb.OrchestratorAction) -> str:
    kind = action.WhichOneof("orchestratorActionType")
    name = getattr(getattr(action, kind), "name", "") if kind else ""
    return f"{kind} {name!r} (ID {action.id})" if name else f"{kind} (ID {action.id})"
