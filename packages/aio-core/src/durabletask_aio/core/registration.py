"""The methods of upstream's worker that accept async functions once `durabletask.aio` is imported.

Exactly `TaskHubGrpcWorker.add_orchestrator` and `.add_activity` are wrapped, on the class, because existing programs
construct that class themselves; `add_orchestrators` and `add_activities`, which call them for several functions, are
added.  Functions that are not async go straight to upstream's own methods.  Async functions go to a `Registrar`: the
worker package has one; without it they are refused at once, because upstream would accept a coroutine function and fail
each instance later with "the orchestration result could not be encoded".
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from durabletask_aio.core import installation, plugins
from durabletask_aio.core._upstream import TaskHubGrpcWorker
from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.functions import check_functions, function_name, is_coroutine_callable, is_plain_wrapper
from durabletask_aio.core.registration_checks import annotated_kind, check_is_no_activity, check_is_no_workflow
from durabletask_aio.core.validation import validate_workflow_function


class Originals(NamedTuple):
    """Upstream's own methods, as they were before `install`."""

    add_orchestrator: Callable[..., str]
    add_activity: Callable[..., str]


class RefusingRegistrar:
    """Refuses async functions while the worker package is not installed, or cannot be loaded.

    Args:
        broken: a sentence for each integration that could not be loaded.
    """

    protocol_version = plugins.PROTOCOL_VERSION

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self._broken = broken

    def add_orchestrator(self, worker: Any, function: Any, *, name: str | None, sandbox_mode: Any) -> str:
        """Refuse an async workflow, with the two ways to run it."""
        shown = name or function_name(function)
        msg = (
            f"{shown!r} is an async function, and upstream's worker runs generator orchestrators only\n"
            f"  either: {self._remedy()}   # then add_orchestrator({shown}) works as it is\n"
            f"  or:     worker.add_orchestrator(durabletask.aio.as_orchestrator({shown}))"
        )
        raise WorkflowValidationError(msg)

    def add_activity(self, worker: Any, function: Any, *, name: str | None) -> str:
        """Refuse an async activity; pass a plain function around one to upstream."""
        is_async = is_coroutine_callable(function) or _is_misplaced_async(function)
        if is_plain_wrapper(function):
            if name is None and originals is not None:
                return originals.add_activity(worker, function)  # It may run the coroutine itself.
            is_async = False
        shown = name or function_name(function)
        if not is_async:
            msg = f"add_activity(..., name={name!r}) needs durabletask-aio-worker: {self._remedy()}"
            raise WorkflowValidationError(msg)
        msg = (
            f"{shown!r} is an async function, and upstream's worker runs plain activities only\n"
            f"  either: {self._remedy()}   # then add_activity({shown}) works as it is\n"
            f"  or:     def {shown}(ctx, input): ...         # without async"
        )
        raise WorkflowValidationError(msg)

    def _remedy(self) -> str:
        """Say what makes the worker package available: installing it, or repairing what is installed."""
        return f"repair this: {'; '.join(self._broken)}" if self._broken else "pip install durabletask-aio-worker"


class LateRegistrar:
    """Loads the integrations when the first async function is registered; one of them then replaces it.

    Not when `durabletask.aio` is imported: the search reads the metadata of all distributions, and the integration
    imports its own modules, in every program, also in those that never give async code to that class.
    """

    protocol_version = plugins.PROTOCOL_VERSION

    def add_orchestrator(self, worker: Any, function: Any, *, name: str | None, sandbox_mode: Any) -> str:
        """Register an async workflow with the registrar of the integration."""
        return self._found().add_orchestrator(worker, function, name=name, sandbox_mode=sandbox_mode)

    def add_activity(self, worker: Any, function: Any, *, name: str | None) -> str:
        """Register an async activity with the registrar of the integration."""
        return self._found().add_activity(worker, function, name=name)

    def _found(self) -> plugins.Registrar:
        installation.verify_installation()
        broken = plugins.load_integrations()  # The worker package's calls install() with its own registrar.
        if _registrar is self:
            install(RefusingRegistrar(broken))
        return _registrar


originals: Originals | None = None
_registrar: plugins.Registrar = RefusingRegistrar()


def _add_orchestrators(self: TaskHubGrpcWorker, *fns: Callable[..., Any]) -> list[str]:
    """Register several orchestrators, each as `add_orchestrator` does, and return their names."""
    check_functions("add_orchestrators", fns)
    return [self.add_orchestrator(fn) for fn in fns]


def _add_activities(self: TaskHubGrpcWorker, *fns: Callable[..., Any]) -> list[str]:
    """Register several activities, each as `add_activity` does, and return their names."""
    check_functions("add_activities", fns)
    return [self.add_activity(fn) for fn in fns]


_ADDED = {"add_orchestrators": _add_orchestrators, "add_activities": _add_activities}
"""The methods that are added to upstream's class, unless a later version has such methods of its own."""


def install(registrar: plugins.Registrar | None = None) -> None:
    """Wrap the two methods and add those of `_ADDED`, unless that is done, and pass async functions to `registrar`.

    Without a registrar, async functions are refused.  Calling it again only changes the registrar.
    """
    global originals, _registrar
    _registrar = registrar if registrar is not None else RefusingRegistrar()
    if originals is not None:
        return
    kept = originals = Originals(TaskHubGrpcWorker.add_orchestrator, TaskHubGrpcWorker.add_activity)

    @functools.wraps(kept.add_orchestrator)
    def add_orchestrator(self: TaskHubGrpcWorker, fn: Any, *, name: str | None = None, sandbox_mode: Any = None) -> str:
        if is_coroutine_callable(fn):
            return _registrar.add_orchestrator(self, fn, name=name, sandbox_mode=sandbox_mode)
        if annotated_kind(fn) == "workflow":
            check_is_no_activity(fn)
        if _is_misplaced_async(fn) or name is not None or sandbox_mode is not None:
            _refuse_for_plain_function("add_orchestrator", fn, name=name, sandbox_mode=sandbox_mode)
        return kept.add_orchestrator(self, fn)

    @functools.wraps(kept.add_activity)
    def add_activity(self: TaskHubGrpcWorker, fn: Any, *, name: str | None = None) -> str:
        if is_coroutine_callable(fn) or _is_misplaced_async(fn) or name is not None:
            return _registrar.add_activity(self, fn, name=name)
        if annotated_kind(fn) == "workflow":
            check_is_no_workflow(fn)
        return kept.add_activity(self, fn)

    # Type checkers see upstream's signatures; the worker package's TaskHubGrpcWorker has the keywords in its own.
    setattr(TaskHubGrpcWorker, "add_orchestrator", add_orchestrator)  # noqa: B010
    setattr(TaskHubGrpcWorker, "add_activity", add_activity)  # noqa: B010
    for name, method in _ADDED.items():
        if not hasattr(TaskHubGrpcWorker, name):
            setattr(TaskHubGrpcWorker, name, method)


def uninstall() -> None:
    """Put upstream's own two methods back, and remove what was added."""
    global originals, _registrar
    if originals is None:
        return
    setattr(TaskHubGrpcWorker, "add_orchestrator", originals.add_orchestrator)  # noqa: B010
    setattr(TaskHubGrpcWorker, "add_activity", originals.add_activity)  # noqa: B010
    for name, method in _ADDED.items():
        if vars(TaskHubGrpcWorker).get(name) is method:
            delattr(TaskHubGrpcWorker, name)
    originals = None
    _registrar = RefusingRegistrar()


def _is_misplaced_async(function: Any) -> bool:
    return inspect.iscoroutine(function) or inspect.isasyncgenfunction(function)


def _refuse_for_plain_function(method: str, function: Any, *, name: str | None, sandbox_mode: Any) -> None:
    if _is_misplaced_async(function):
        validate_workflow_function(function)
    keyword = "sandbox_mode" if sandbox_mode is not None else "name"
    msg = (
        f"{keyword}= is for async workflows, and {function_name(function)!r} is not one\n"
        f"  wrong: worker.{method}({function_name(function)}, {keyword}=...)\n"
        f"  right: worker.{method}({function_name(function)})"
    )
    raise WorkflowValidationError(msg)
