"""Async functions meet a worker: upstream's class by entry point, ours and other classes through the mixin."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from durabletask_aio.core import plugins
from durabletask_aio.core import registration as core_registration
from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.functions import (
    ORCHESTRATOR_ATTRIBUTE,
    is_coroutine_callable,
    is_plain_wrapper,
    unwrap_partial,
)
from durabletask_aio.core.functions import describe_function as describe
from durabletask_aio.core.functions import function_name as callable_name
from durabletask_aio.core.orchestrator import as_orchestrator
from durabletask_aio.core.settings import SandboxMode
from durabletask_aio.core.validation import validate_workflow_function
from durabletask_aio.worker import _upstream


class WorkerRegistrar:
    """Accepts async functions for any instance of upstream's worker class.

    What running them takes is imported when the first one is registered: ``import durabletask.aio`` imports this module
    in every program, also in those that never run a worker.
    """

    protocol_version = plugins.PROTOCOL_VERSION

    def add_orchestrator(
        self, worker: Any, function: Callable[..., Any], *, name: str | None, sandbox_mode: Any
    ) -> str:
        """Register a coroutine function; see :meth:`AsyncOrchestratorMixin.add_orchestrator`."""
        if _upstream.is_running(worker):
            raise RuntimeError("Orchestrators cannot be added while the worker is running.")
        mode = None if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
        validate_workflow_function(function)
        registered_as = callable_name(function) if name is None else name
        existing = _upstream.find_orchestrator(worker, registered_as)
        is_same = existing is not None and _async_function(existing) == function
        if is_same and mode is None:
            return registered_as
        from durabletask_aio.worker.binding import bind, binding_of

        binding = binding_of(worker)
        default = SandboxMode.OFF if binding is None else binding.settings.sandbox_mode
        orchestrator = as_orchestrator(function, name=registered_as, sandbox_mode=default if mode is None else mode)
        if not inspect.isroutine(function):
            _show_types(function, orchestrator)
        if is_same:
            _upstream.replace_orchestrator(worker, registered_as, orchestrator)
        else:
            _upstream.register_orchestrator(worker, registered_as, orchestrator)
        bind(worker)
        return registered_as

    def add_activity(self, worker: Any, function: Callable[..., Any], *, name: str | None) -> str:
        """Register an activity, async or (with ``name=``) plain."""
        check_activity(function)
        if _upstream.is_running(worker):
            raise RuntimeError("Activities cannot be added while the worker is running.")
        registered_as = callable_name(function) if name is None else name
        _upstream.register_activity(worker, registered_as, discoverable(function, registered_as))
        from durabletask_aio.worker.binding import bind

        bind(worker)
        return registered_as


def _async_function(orchestrator: Any) -> Any:
    """The coroutine function behind a registered orchestrator, if there is one."""
    info = getattr(orchestrator, ORCHESTRATOR_ATTRIBUTE, None)
    return None if info is None else info.function


def _show_types(function: Callable[..., Any], stand_in: Any) -> bool:
    """Let upstream read the types of ``function`` from ``stand_in``, which is called in its place.

    Upstream resolves annotations with :func:`typing.get_type_hints`, which knows nothing of partials and of objects
    with ``__call__``; under ``from __future__ import annotations`` their types would silently be lost.
    """
    plain = unwrap_partial(function)
    try:
        hints = typing.get_type_hints(plain if inspect.isroutine(plain) else type(plain).__call__)
        signature = inspect.signature(function)
    except Exception:
        return False
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    stand_in.__signature__ = signature.replace(
        parameters=parameters, return_annotation=hints.get("return", signature.return_annotation)
    )
    stand_in.__annotations__ = {
        parameter.name: hints[parameter.name] for parameter in parameters if parameter.name in hints
    }
    return True


def check_activity(function: Any) -> None:
    """Refuse, with the wrong form beside the right one, what each call of would fail.

    Raises :class:`WorkflowValidationError` for a coroutine in place of its function, and for an async generator.
    """
    if inspect.iscoroutine(function):
        name = function.__name__
        function.close()  # or Python complains, on top, that it was never awaited
        raise WorkflowValidationError(
            f"{name}(...) was called, and its coroutine given in place of the function\n"
            f"  wrong: add_activity({name}(...))\n"
            f"  right: add_activity({name})"
        )
    if inspect.isasyncgenfunction(unwrap_partial(function)):
        name = callable_name(function)
        raise WorkflowValidationError(
            f"{describe(function)} is an async generator: it has 'yield' in an 'async def' body, and an activity has "
            "one result\n"
            f"  wrong: async def {name}(ctx, input): yield item\n"
            f"  right: async def {name}(ctx, input): return [item]"
        )


_PLAIN_WRAPPER = "__durabletask_aio_plain_wrapper__"
"""On a stand-in: it stands for a plain function around an async one."""


def only_a_call_tells(activity: Any) -> bool:
    """Whether a registered ``activity`` may return a coroutine or a result: see :func:`is_plain_wrapper`."""
    return is_plain_wrapper(activity) or getattr(activity, _PLAIN_WRAPPER, False)


def discoverable(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """``function``, or a stand-in of this name from which upstream can read the types of input and result."""
    if inspect.isroutine(function):
        return function

    # Named like the function, but without ``__wrapped__``, which would lead upstream past the types shown here.
    async def activity(ctx: Any, value: Any) -> Any:
        return await function(ctx, value)

    def plain_activity(ctx: Any, value: Any) -> Any:
        return function(ctx, value)

    is_wrapper = is_plain_wrapper(function)
    stand_in = activity if is_coroutine_callable(function) and not is_wrapper else plain_activity
    stand_in.__name__ = stand_in.__qualname__ = name
    setattr(stand_in, _PLAIN_WRAPPER, is_wrapper)
    return stand_in if _show_types(function, stand_in) else function


registrar = WorkerRegistrar()


def install() -> None:
    """Let every instance of upstream's ``TaskHubGrpcWorker`` accept async functions.

    Called when ``durabletask.aio`` is imported (entry point group ``durabletask.aio.integrations``).  It sets two class
    attributes, ``add_orchestrator`` and ``add_activity``; a worker that is never given async code keeps the rest.
    """
    core_registration.install(registrar)


def uninstall() -> None:
    """Put upstream's own two methods back.  Workers that have already been given async code keep working."""
    core_registration.uninstall()
