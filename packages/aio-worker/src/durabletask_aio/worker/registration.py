"""`WorkerRegistrar`: accepts async functions for instances of upstream's worker class.

`install` is the entry point that the core calls for upstream's own class; the mixin uses the registrar itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from durabletask_aio.core import SandboxMode, as_orchestrator, plugins
from durabletask_aio.core.hosting import (
    check_is_no_activity,
    check_name_is_free,
    function_name,
    orchestrator_info,
    set_registrar,
    unset_registrar,
    validate_workflow_function,
)
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.activity_functions import check_activity, copy_type_hints, with_type_hints
from durabletask_aio.worker.binding import bind, binding_of


def refuse_while_running(worker: _upstream.Worker, kind: str) -> None:
    """Refuse a registration with a worker that runs, as upstream does.

    Args:
        worker: The worker.
        kind: What is registered, in the plural.

    Raises:
        RuntimeError: The worker is running.
    """
    if _upstream.is_running(worker):
        raise RuntimeError(f"{kind} cannot be added while the worker is running.")


class WorkerRegistrar:
    """Accepts async functions for any instance of upstream's worker class."""

    protocol_version = plugins.PROTOCOL_VERSION

    def add_orchestrator(
        self, worker: Any, function: Callable[..., Any], *, name: str | None, sandbox_mode: Any
    ) -> str:
        """Register a coroutine function; see `AsyncOrchestratorMixin.add_orchestrator`."""
        refuse_while_running(worker, "Orchestrators")
        mode = None if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
        validate_workflow_function(function)
        check_is_no_activity(function)
        registered_as = function_name(function) if name is None else name
        existing = _upstream.find_orchestrator(worker, registered_as)
        info = orchestrator_info(existing)
        is_same = info is not None and info.function == function
        if is_same and mode is None:
            return registered_as
        if not is_same:
            check_name_is_free("orchestrator", registered_as, existing, function)
        binding = binding_of(worker)
        default = SandboxMode.OFF if binding is None else binding.settings.sandbox_mode
        orchestrator = as_orchestrator(function, name=registered_as, sandbox_mode=default if mode is None else mode)
        if not inspect.isroutine(function):
            copy_type_hints(function, orchestrator)
        if is_same:
            _upstream.replace_orchestrator(worker, registered_as, orchestrator)
        else:
            _upstream.register_orchestrator(worker, registered_as, orchestrator)
        bind(worker)
        return registered_as

    def add_activity(self, worker: Any, function: Callable[..., Any], *, name: str | None) -> str:
        """Register an activity, an async one or, under a name of its own, a plain one."""
        check_activity(function, name)
        refuse_while_running(worker, "Activities")
        registered_as = function_name(function) if name is None else name
        check_name_is_free("activity", registered_as, _upstream.find_activity(worker, registered_as), function)
        _upstream.register_activity(worker, registered_as, with_type_hints(function, registered_as))
        bind(worker)
        return registered_as


registrar = WorkerRegistrar()


def install() -> None:
    """Let every instance of upstream's `TaskHubGrpcWorker` accept async functions.

    It is called when the first async function is registered with that class, if `durabletask.aio` has been imported.
    Two methods of the class are wrapped, `add_orchestrator` and `add_activity`; a worker that is never given async code
    keeps all others.
    """
    set_registrar(registrar)


def uninstall() -> None:
    """Restore upstream's own two methods. Workers that have been given async code keep working."""
    unset_registrar()
