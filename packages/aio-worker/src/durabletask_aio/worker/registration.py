"""Registration of async functions: on upstream's class by entry point, on other worker classes through the mixin."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from durabletask_aio.core import SandboxMode, as_orchestrator, plugins
from durabletask_aio.core.hosting import (
    function_name,
    orchestrator_info,
    set_registrar,
    unset_registrar,
    validate_workflow_function,
)
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.activity_functions import check_activity, show_types, with_type_hints
from durabletask_aio.worker.binding import bind, binding_of


class WorkerRegistrar:
    """Accepts async functions for any instance of upstream's worker class.

    The core loads it when the first async function is registered.
    """

    protocol_version = plugins.PROTOCOL_VERSION

    def add_orchestrator(
        self, worker: Any, function: Callable[..., Any], *, name: str | None, sandbox_mode: Any
    ) -> str:
        """Register a coroutine function; see `AsyncOrchestratorMixin.add_orchestrator`."""
        if _upstream.is_running(worker):
            raise RuntimeError("Orchestrators cannot be added while the worker is running.")
        mode = None if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
        validate_workflow_function(function)
        registered_as = function_name(function) if name is None else name
        existing = _upstream.find_orchestrator(worker, registered_as)
        is_same = existing is not None and _async_function(existing) == function
        if is_same and mode is None:
            return registered_as
        binding = binding_of(worker)
        default = SandboxMode.OFF if binding is None else binding.settings.sandbox_mode
        orchestrator = as_orchestrator(function, name=registered_as, sandbox_mode=default if mode is None else mode)
        if not inspect.isroutine(function):
            show_types(function, orchestrator)
        if is_same:
            _upstream.replace_orchestrator(worker, registered_as, orchestrator)
        else:
            _upstream.register_orchestrator(worker, registered_as, orchestrator)
        bind(worker)
        return registered_as

    def add_activity(self, worker: Any, function: Callable[..., Any], *, name: str | None) -> str:
        """Register an activity, async or (with `name=`) plain."""
        check_activity(function)
        if _upstream.is_running(worker):
            raise RuntimeError("Activities cannot be added while the worker is running.")
        registered_as = function_name(function) if name is None else name
        _upstream.register_activity(worker, registered_as, with_type_hints(function, registered_as))
        bind(worker)
        return registered_as


def _async_function(orchestrator: Any) -> Any:
    """Return the coroutine function of a registered orchestrator, or `None` if it is a generator."""
    info = orchestrator_info(orchestrator)
    return None if info is None else info.function


registrar = WorkerRegistrar()


def install() -> None:
    """Let every instance of upstream's `TaskHubGrpcWorker` accept async functions.

    Called by the core when the first async function is registered (entry point group
    `durabletask.aio.integrations`).  It sets two class attributes, `add_orchestrator` and `add_activity`; a worker that
    is never given async code keeps all other methods of upstream's.
    """
    set_registrar(registrar)


def uninstall() -> None:
    """Restore upstream's own two methods.  Workers that have already been given async code keep working."""
    unset_registrar()
