"""The adapter to Dapr's `WorkflowRuntime` and to its worker: their private names; see `_upstream_dapr`."""

# Dapr's SDK is typed in parts.
# mypy: disable-error-code="no-untyped-call"
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dapr.ext.workflow as dapr_workflow
from dapr.ext.workflow import _model_protocol
from dapr.ext.workflow._durabletask import worker
from durabletask_aio.dapr._upstream_tasks import with_listeners

__all__ = [
    "input_converter",
    "name_of",
    "policy_of",
    "registry_of",
    "routed",
    "run_turns_with",
    "with_listeners",
    "worker_of",
]


def worker_of(runtime: dapr_workflow.WorkflowRuntime) -> Any:
    """Return the worker of a runtime."""
    return runtime._WorkflowRuntime__worker  # type: ignore[attr-defined]


def run_turns_with(runtime: dapr_workflow.WorkflowRuntime, make_executor: Callable[..., Any]) -> None:
    """Have the worker of a runtime execute its turns with what `make_executor(registry, logger)` returns.

    Dapr's worker names the class of its executor in `_execute_orchestrator`.  That method is given another module
    namespace here, in which the name is `make_executor`; the rest of the method, which differs between the versions of
    Dapr's SDK, stays theirs.
    """
    bound = worker_of(runtime)
    original: Any = worker.TaskHubGrpcWorker._execute_orchestrator
    names = {**vars(worker), "_OrchestrationExecutor": make_executor}
    rebound = types.FunctionType(
        original.__code__, names, original.__name__, original.__defaults__, original.__closure__
    )
    rebound.__kwdefaults__ = original.__kwdefaults__
    bound._execute_orchestrator = types.MethodType(rebound, bound)


def registry_of(runtime: dapr_workflow.WorkflowRuntime) -> Any:
    """Return the registry of a runtime."""
    return worker_of(runtime)._registry


def input_converter(function: Any) -> Callable[[Any], Any]:
    """Return what makes the input of a workflow from JSON's values, by its annotation, as Dapr's runtime does."""
    _, model = _model_protocol.resolve_input(function)

    def convert(value: Any) -> Any:
        if value is None or model is None or isinstance(value, model):
            return value
        return _model_protocol.coerce_to_model(value, model)

    return convert


def name_of(function: Any) -> Any:
    """Return the name under which a decorated function is registered; anything else as it is."""
    return getattr(function, "_dapr_alternate_name", function)


def policy_of(policy: Any) -> Any:
    """Return the executor's policy of one of Dapr's public class; anything else as it is."""
    return policy.obj if isinstance(policy, dapr_workflow.RetryPolicy) else policy


@contextmanager
def routed(context: Any, app_id: str | None, propagation: Any) -> Iterator[None]:
    """Have what is scheduled inside go to another application, or carry history."""
    if app_id is None and propagation is None:
        yield
        return
    original = context.call_activity_function_helper

    def call_activity_function_helper(*arguments: Any, **keywords: Any) -> None:
        if app_id is not None:
            keywords["app_id"] = app_id
        if propagation is not None:
            keywords["propagation"] = propagation
        original(*arguments, **keywords)

    replaced = vars(context).get("call_activity_function_helper")
    context.call_activity_function_helper = call_activity_function_helper
    try:
        yield
    finally:
        if replaced is None:
            del context.call_activity_function_helper
        else:
            context.call_activity_function_helper = replaced
