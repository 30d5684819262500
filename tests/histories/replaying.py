"""Runs the turns of a recorded history again.  `_executor` and `_run` are all that knows how a turn is run."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from durabletask.aio import as_orchestrator
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.serialization import JsonDataConverter
from durabletask.worker import _Registry
from google.protobuf import json_format
from histories.recording import Recording, Turn, canonical

from durabletask_aio.core.hosting import (
    FunctionKind,
    TurnExecutor,
    WorkflowRun,
    function_kind,
    metadata_from_tags,
    turn_scope,
)

_QUIET = logging.getLogger("histories")
_QUIET.setLevel(logging.CRITICAL)

Answer = tuple[list[pb.OrchestratorAction], "str | None"]


def _executor(recording: Recording, workflow: Callable[..., Any]) -> TurnExecutor:
    """What runs the turns of an instance in a worker, before the first turn."""
    facts = recording.facts
    name = recording.history.workflow_name or ""
    is_async = function_kind(workflow) is FunctionKind.COROUTINE
    registry = _Registry()
    registry.add_named_orchestrator(
        name, as_orchestrator(workflow, name=name, sandbox_mode=facts.sandbox_mode) if is_async else workflow
    )
    options: dict[str, Any] = {}
    if facts.timer_interval is not None:
        options["maximum_timer_interval"] = timedelta(seconds=facts.timer_interval)
    executor = TurnExecutor(registry, _QUIET, JsonDataConverter(), **options)
    executor.is_async = is_async
    executor.recorded = recording.history.protobuf
    return executor


def full_replays(recording: Recording, workflow: Callable[..., Any]) -> Iterator[tuple[Turn, Answer]]:
    """Each turn with what the workflow answers to it now, if every turn replays the history from its beginning."""
    for turn in recording.turns:
        with turn_scope(metadata=_metadata(recording)):
            yield turn, _run(recording, turn, _executor(recording, workflow))


def continued(recording: Recording, workflow: Callable[..., Any]) -> Iterator[tuple[Turn, Answer]]:
    """Each turn with what the workflow answers to it now, if one execution stays alive, as in a worker's session."""
    executor = _executor(recording, workflow)
    runs: list[WorkflowRun] = []
    try:
        for turn in recording.turns:
            with turn_scope(metadata=_metadata(recording)) as scope:
                answer = _run(recording, turn, executor)
                scope.keep()
                runs += scope.runs
            executor.processed = turn.past + turn.new
            if executor.is_complete:  # what has ended is not kept; only a rewind follows
                executor = _executor(recording, workflow)
            yield turn, answer
    finally:
        for run in runs:
            run.dispose()


def _run(recording: Recording, turn: Turn, executor: TurnExecutor) -> Answer:
    events = recording.history.protobuf
    past, new = events[: turn.past], events[turn.past : turn.past + turn.new]
    results = executor.execute(recording.history.instance_id or "", past, new)
    return list(results.actions), results.encoded_custom_status


def _metadata(recording: Recording) -> dict[str, str] | None:
    started = next(e.executionStarted for e in recording.history.protobuf if e.HasField("executionStarted"))
    return metadata_from_tags(started.tags)


def difference(turn: Turn, answer: Answer) -> str:
    """What is different between the recorded answer and the one of now, for people; empty if they are equal."""
    actions, custom_status = answer
    if canonical(turn.actions) == canonical(actions) and turn.custom_status == custom_status:
        return ""
    recorded, now = _lines(turn.actions, turn.custom_status), _lines(actions, custom_status)
    return "\n".join(difflib.unified_diff(recorded, now, "recorded", "now", lineterm=""))


def _lines(actions: Any, custom_status: str | None) -> list[str]:
    lines: list[str] = []
    for action in canonical(actions):
        plain = json_format.MessageToDict(pb.OrchestratorAction.FromString(action))
        lines += json.dumps(plain, indent=1, ensure_ascii=False).splitlines()
    return [*lines, f"custom status: {custom_status}"]
