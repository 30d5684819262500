"""Runs workflows on Dapr's executor in this process: histories are made as the sidecar makes them, without one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext
from dapr.ext.workflow._durabletask import worker
from dapr.ext.workflow._durabletask.internal import helpers, protos, shared

from durabletask_aio.dapr.runtime import _orchestrator
from durabletask_aio.dapr.turns import Turns

LOGGER = logging.getLogger("turns")
START = datetime(2026, 1, 1)


class Instance:
    """One instance: its history, and what it has asked for.

    Args:
        workflow: An async function, or a generator of Dapr's.
        value: Its input.
        sessions: How many instances are kept between turns.
        version: The version that the workflow is registered as.
    """

    def __init__(
        self, workflow: Callable[..., Any], value: Any = None, *, sessions: int = 10, version: str | None = None
    ) -> None:
        self.turns = Turns(sessions)
        # Generators run as Dapr's own worker runs them.
        self._make_executor = self.turns.make_executor if _is_async(workflow) else worker._OrchestrationExecutor
        self.registry = worker._Registry()
        if _is_async(workflow):
            registered = _orchestrator(workflow, None, None)
        else:

            def orchestrator(ctx: Any, input: Any = None) -> Any:
                return workflow(DaprWorkflowContext(ctx), input)

            registered = workflow.__name__, orchestrator
        self.registry.add_named_orchestrator(*registered, version_name=version, is_latest=version is not None)
        self.history: list[Any] = []
        self.cuts: list[int] = []
        self.now = START
        self.actions: list[list[Any]] = []
        self.batches: list[list[Any]] = []
        self.status: str | None = None
        encoded = None if value is None else shared.to_json(value)
        self.turn(helpers.new_execution_started_event(workflow.__name__, "i", encoded))

    def turn(self, *events: Any) -> list[Any]:
        """Process new events, and commit them with what the workflow asks for."""
        self.now += timedelta(seconds=1)
        new = [helpers.new_workflow_started_event(self.now), *events]
        self.cuts.append(len(self.history))
        self.batches.append(list(new))
        results = self._make_executor(self.registry, LOGGER).execute("i", list(self.history), new)
        self.status = results.encoded_custom_status
        if results.version_name or results.patches:
            # The sidecar notes them in the event that it keeps.
            new[0] = helpers.new_workflow_started_event(self.now)
            if results.version_name:
                new[0].workflowStarted.version.name = results.version_name
            new[0].workflowStarted.version.patches.extend(results.patches or ())
        self.history += new
        for action in results.actions:
            confirmed = _confirmation(action)
            if confirmed is not None:
                self.history.append(confirmed)
        self.actions.append(list(results.actions))
        return self.actions[-1]

    def complete(self, number: int, result: Any) -> list[Any]:
        """Complete the activity with that number."""
        return self.turn(helpers.new_task_completed_event(number, shared.to_json(result)))

    def fail(self, number: int, error: Exception) -> list[Any]:
        """Fail the activity with that number."""
        return self.turn(helpers.new_task_failed_event(number, error))

    def fire(self, number: int) -> list[Any]:
        """Fire the timer with that number."""
        fires_at = next(
            action.createTimer.fireAt
            for turn in self.actions
            for action in turn
            if action.id == number and action.HasField("createTimer")
        )
        return self.turn(helpers.new_timer_fired_event(number, fires_at))

    def event(self, name: str, value: Any = None) -> list[Any]:
        """Raise an event."""
        return self.turn(helpers.new_event_raised_event(name, None if value is None else shared.to_json(value)))

    @property
    def end(self) -> Any:
        """The action that has ended the instance, or `None`."""
        ends = [action.completeWorkflow for action in self.actions[-1] if action.HasField("completeWorkflow")]
        return ends[0] if ends else None

    @property
    def result(self) -> Any:
        """What the instance has returned."""
        assert self.end is not None, self.actions[-1]
        assert self.end.workflowStatus == protos.ORCHESTRATION_STATUS_COMPLETED, self.end
        return shared.from_json(self.end.result.value) if self.end.HasField("result") else None

    def kinds(self) -> list[list[tuple[int, str]]]:
        """The numbers and kinds of the actions of each turn."""
        return [[(each.id, each.WhichOneof("workflowActionType")) for each in turn] for turn in self.actions]


def _is_async(workflow: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(workflow)


def _confirmation(action: Any) -> Any:
    """Return the event with which the sidecar confirms an action."""
    kind = action.WhichOneof("workflowActionType")
    if kind == "scheduleTask":
        return helpers.new_task_scheduled_event(action.id, action.scheduleTask.name)
    if kind == "createTimer":
        event = helpers.new_timer_created_event(action.id, action.createTimer.fireAt)
        origin = action.createTimer.WhichOneof("origin")
        if origin is not None:
            getattr(event.timerCreated, origin).CopyFrom(getattr(action.createTimer, origin))
        return event
    if kind == "createChildWorkflow":
        child = action.createChildWorkflow
        return helpers.new_child_workflow_created_event(action.id, child.name, child.instanceId)
    return None


def replayed(instance: Instance) -> list[list[bytes]]:
    """Return the actions of each turn when it is replayed in full, as the sidecar gets them."""
    return [serialized(turn) for turn in replayed_actions(instance)]


def replayed_actions(instance: Instance) -> list[list[Any]]:
    """Return the actions of each turn when it is replayed in full: what it did as it was cut there."""
    found = []
    for cut, batch in zip(instance.cuts, instance.batches, strict=True):
        fresh = Turns(0).make_executor(instance.registry, LOGGER)
        found.append(list(fresh.execute("i", instance.history[:cut], batch).actions))
    return found


def serialized(actions: Sequence[Any]) -> list[bytes]:
    """Return actions as the sidecar gets them."""
    return [action.SerializeToString(deterministic=True) for action in actions]
