"""`WorkflowRuntime`: Dapr's runtime, which accepts `async def` workflows and generators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import dapr.ext.workflow as dapr_workflow
from durabletask_aio.core import SandboxMode, as_orchestrator
from durabletask_aio.core.hosting import FunctionKind, WorkflowRun, function_kind
from durabletask_aio.dapr import _upstream_runtime
from durabletask_aio.dapr.context import WorkflowContext
from durabletask_aio.dapr.turns import SessionStats, Turns

if TYPE_CHECKING:
    from typing_extensions import Self

# A process has one SDK, so all of its async workflows are Dapr's.
WorkflowRun.context_type = WorkflowContext

DEFAULT_MAX_SESSIONS = 1_000


class WorkflowRuntime(dapr_workflow.WorkflowRuntime):
    """Dapr's `WorkflowRuntime` that also takes `async def` workflows.

    Generator workflows and activities, sync and async, are Dapr's own, and can be mixed with async workflows.

        runtime = WorkflowRuntime()

        @runtime.workflow
        async def greeting(ctx: WorkflowContext, name: str) -> str:
            return await ctx.call_activity(hello, input=name)
    """

    def __init__(self, *args: Any, max_sessions: int = DEFAULT_MAX_SESSIONS, **keywords: Any) -> None:
        """Create the runtime.

        Args:
            *args: as for Dapr's.
            max_sessions: how many suspended instances are kept between their turns; 0 replays the history in each turn.
            **keywords: as for Dapr's.
        """
        super().__init__(*args, **keywords)
        self._turns = Turns(max_sessions)
        _upstream_runtime.run_turns_with(self, self._turns.make_executor)

    @property
    def session_stats(self) -> SessionStats:
        """How the turns of async workflows were served."""
        return self._turns.stats

    # -- registration -------------------------------------------------------------------------------------------------

    def register_workflow(
        self, fn: Any, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
    ) -> None:
        """Register a workflow, async or generator.

        Args:
            fn: the function.
            name: the name it is registered under; by default the function's.
            sandbox_mode: how non-deterministic calls of an async workflow are treated; by default `"off"`.

        Raises:
            WorkflowValidationError: for a function that cannot be an async workflow.
            ValueError: if the name is taken.
        """
        if not _is_async(fn):
            parent: Any = super()
            parent.register_workflow(fn, name=name)
            return
        registered, orchestrator = _orchestrator(fn, name, sandbox_mode)
        _upstream_runtime.registry_of(self).add_named_orchestrator(registered, orchestrator)

    def register_versioned_workflow(
        self,
        fn: Any,
        *,
        name: str,
        version_name: str | None = None,
        is_latest: bool,
        sandbox_mode: SandboxMode | str | None = None,
    ) -> None:
        """Register a version of a workflow, async or generator.

        Args:
            fn: the function.
            name: the name of the workflow.
            version_name: the name of the version; by default the function's.
            is_latest: whether new instances start with this version.
            sandbox_mode: as for `register_workflow`.

        Raises:
            WorkflowValidationError: for a function that cannot be an async workflow.
            ValueError: if the name and the version are taken.
        """
        if not _is_async(fn):
            parent: Any = super()
            parent.register_versioned_workflow(fn, name=name, version_name=version_name, is_latest=is_latest)
            return
        registered, orchestrator = _orchestrator(fn, name, sandbox_mode)
        version = version_name if version_name is not None else fn.__name__
        _upstream_runtime.registry_of(self).add_named_orchestrator(
            registered, orchestrator, version_name=version, is_latest=is_latest
        )

    def workflow(
        self, fn: Any = None, /, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
    ) -> Any:
        """Register a workflow, as a decorator with or without arguments.

        Args:
            fn: the function.
            name: as for `register_workflow`.
            sandbox_mode: as for `register_workflow`.

        Returns:
            The async function itself; for a generator what Dapr's decorator returns.
        """

        def register(function: Any) -> Any:
            if not _is_async(function):
                parent: Any = super(WorkflowRuntime, self)
                return parent.workflow(function, name=name)
            self.register_workflow(function, name=name, sandbox_mode=sandbox_mode)
            return function

        return register if fn is None else register(fn)

    # -- life cycle ---------------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Stop to take work, and close the instances that are kept between turns."""
        parent: Any = super()
        parent.shutdown()
        self._turns.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.shutdown)

    async def run(self) -> None:
        """Start, and work until this is cancelled."""
        async with self:
            await asyncio.Event().wait()


def _is_async(fn: Any) -> bool:
    return function_kind(fn) in (FunctionKind.COROUTINE, FunctionKind.ASYNC_GENERATOR, FunctionKind.ORCHESTRATOR)


def _orchestrator(
    fn: Any, name: str | None, sandbox_mode: SandboxMode | str | None
) -> tuple[str, Callable[[Any, Any], Any]]:
    """Return the name to register, and the function that Dapr's executor calls."""
    registered: str = name or getattr(fn, "_dapr_alternate_name", None) or fn.__name__
    make: Any = as_orchestrator
    run = make(fn, name=registered, sandbox_mode=sandbox_mode)
    convert = _upstream_runtime.input_converter(fn)

    def orchestrator(ctx: Any, input: Any = None) -> Any:  # noqa: A002 - the SDK's name for it
        ctx.is_async = True
        return run(ctx, convert(input))

    # By which Dapr's client finds the name of a function that it is given.
    fn.__dict__["_dapr_alternate_name"] = registered
    return registered, orchestrator
