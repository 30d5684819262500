"""From a coroutine function to an orchestrator that upstream can run, and through each of its turns.

Towards upstream a workflow is a generator that yields one and the same task, :class:`~._upstream.Wake`, over and over.
Upstream resumes it after every event that completed something; the driver then lets the loop run until it is quiet,
and yields again.  Draining after each event, and not once per batch of events, makes the order in which workflow code
runs independent of how the engine happened to batch them.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Generator
from threading import get_ident
from typing import Any, NamedTuple, TypeVar, cast, overload

from durabletask import task

from durabletask_aio.core import _upstream, debug, disposal, failures, installation, plugins, validation
from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.disposal import turn_scope
from durabletask_aio.core.errors import (
    AsyncWorkflowError,
    DeadlockError,
    InstanceEvicted,
)
from durabletask_aio.core.host import after_continue_as_new
from durabletask_aio.core.loop import WorkflowTask
from durabletask_aio.core.settings import SandboxMode, debug_enabled, detection_disabled
from durabletask_aio.core.state import WorkflowState

__all__ = ["OrchestratorInfo", "WorkflowRun", "as_orchestrator", "turn_scope"]

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")


class OrchestratorInfo(NamedTuple):
    """What :func:`as_orchestrator` remembers of the function it was given."""

    function: Callable[..., Coroutine[Any, Any, Any]]
    name: str
    sandbox_mode: SandboxMode


@overload
def as_orchestrator(
    fn: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]],
    *,
    name: str | None = None,
    sandbox_mode: SandboxMode | str | None = None,
) -> task.Orchestrator[TInput, TOutput]: ...


@overload
def as_orchestrator(
    fn: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]],
    *,
    name: str | None = None,
    sandbox_mode: SandboxMode | str | None = None,
) -> task.Orchestrator[Any, TOutput]: ...


@overload
def as_orchestrator(
    fn: task.Orchestrator[TInput, TOutput],
    *,
    name: str | None = None,
    sandbox_mode: SandboxMode | str | None = None,
) -> task.Orchestrator[TInput, TOutput]: ...


@overload
def as_orchestrator(
    fn: None = None, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
) -> Callable[
    [Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]]], task.Orchestrator[TInput, TOutput]
]: ...


def as_orchestrator(fn: Any = None, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None) -> Any:
    """Turn an ``async def`` workflow into an orchestrator that any host of upstream's can run.

    Also a decorator, with or without arguments.  The result goes to ``add_orchestrator`` of any worker, to
    ``schedule_new_orchestration`` and to ``call_sub_orchestrator``; giving it to ``as_orchestrator`` again returns it
    as it is.  ``name`` is what it is registered under, by default the function's name.

    Raises :class:`WorkflowValidationError` for anything that is not a coroutine function of the context, or of the
    context and the input; and in a ``sandbox_mode`` other than ``"off"`` whatever the sandbox has to say at
    registration.
    """
    if fn is None:
        return functools.partial(as_orchestrator, name=name, sandbox_mode=sandbox_mode)
    if validation.is_orchestrator(fn):
        return _again(fn, name, sandbox_mode)
    installation.check()
    validation.validate_workflow_function(fn)
    mode = SandboxMode.OFF if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
    info = OrchestratorInfo(fn, name or validation.callable_name(fn), mode)
    guard = plugins.guard_for(fn, info.name, mode)
    function = fn if guard is None else guard.function
    takes_input = _takes_input(fn)

    def orchestrator(ctx: task.OrchestrationContext, input: Any = None) -> Any:  # noqa: A002 - upstream's name
        arguments = (input,) if takes_input else ()
        return WorkflowRun(ctx, info, guard).drive(ctx, function, arguments)

    # __wrapped__ is also how upstream finds the type of the input.
    functools.update_wrapper(orchestrator, fn, assigned=_assigned(fn))
    orchestrator.__name__ = info.name
    orchestrator.__qualname__ = info.name if name else getattr(fn, "__qualname__", info.name)
    setattr(orchestrator, validation.ORCHESTRATOR_ATTRIBUTE, info)
    return orchestrator


def _again(fn: Any, name: str | None, sandbox_mode: SandboxMode | str | None) -> Any:
    info: OrchestratorInfo = getattr(fn, validation.ORCHESTRATOR_ATTRIBUTE)
    mode = info.sandbox_mode if sandbox_mode is None else SandboxMode.parse(sandbox_mode)
    if (name or info.name) == info.name and mode == info.sandbox_mode:
        return fn
    return as_orchestrator(info.function, name=name or info.name, sandbox_mode=mode)


def _assigned(fn: Any) -> tuple[str, ...]:
    return tuple(name for name in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, name))


def _takes_input(fn: Any) -> bool:
    try:
        return validation.accepts(inspect.signature(fn), 2)
    except (TypeError, ValueError):
        return True


class WorkflowRun:
    """One live instance of a workflow: its loop, its context, its main task.

    Created for each execution, and again for each replay of it.
    """

    def __init__(
        self, upstream: task.OrchestrationContext, info: OrchestratorInfo, guard: plugins.WorkflowGuard | None
    ) -> None:
        # Read when the execution starts, so that an instance behaves in one way from its beginning to its end.
        self.state = WorkflowState(
            upstream, info.name, info.sandbox_mode, seeded=disposal.current_metadata(), debug=debug_enabled()
        )
        self.host = self.state.host
        self.loop = self.state.loop
        self.loop.home = getattr(inspect.unwrap(info.function), "__globals__", None)
        context_type = AsyncWorkflowContext
        self._guard: plugins.ExecutionGuard | None = None
        if guard is not None and not detection_disabled():
            self._guard = guard.begin(self.state)
            if self._guard is not None and guard.context_type is not None:
                context_type = guard.context_type
        self.context = context_type(self.state)
        self._main: WorkflowTask[Any] | None = None
        self.is_finished = False
        """Whether the workflow function has returned or failed."""
        self._disposed = False

    @property
    def instance_id(self) -> str:
        return self.host.instance_id

    @property
    def workflow_name(self) -> str:
        return self.host.workflow_name

    def drive(
        self, upstream: task.OrchestrationContext, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Generator[task.Task[Any], Any, Any]:
        """The generator that upstream runs; its return value is the result of the workflow."""
        disposal.close_buried()
        self.loop.hooked = disposal.register(self)
        failure: Exception | None = None
        result: Any = None
        suspended = False
        host, loop, guard, wake = self.host, self.loop, self._guard, self.host.wake
        _upstream.on_failure(upstream, functools.partial(failures.translate, self.host, self.loop, function))
        try:
            main = self._start(upstream, function, arguments)
            while True:
                # attach() and detach(), two calls less for each step
                host.upstream = upstream
                host.thread = get_ident()
                try:
                    if guard is None:
                        loop.run_ready()
                    else:
                        guard.enter()
                        violation: BaseException | None = None
                        try:
                            loop.run_ready()
                        finally:
                            violation = guard.exit()
                        if violation is not None:
                            try:
                                raise violation
                            finally:
                                del violation  # its traceback refers to this frame
                finally:
                    host.upstream = host.detached
                    host.thread = 0
                if main.done():
                    break
                if host.continuation is not None:
                    raise self._awaiting_after_continuation(main)
                if not loop.outstanding:
                    raise self._deadlock()
                wake.is_complete = False
                suspended = True
                yield wake
                suspended = False
            result = self._result(main, upstream)
        except BaseException as error:
            if suspended and isinstance(error, GeneratorExit):  # and not one that the workflow raised
                disposal.bury(self)
                raise
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                # Somebody pressed Ctrl-C while an in-process environment ran this on the main thread.
                self._finish()
                raise
            failure = failures.as_recorded(error, self.host, self.loop)
        self._finish()
        if failure is not None:
            try:
                # Out here, or the error it was made from would be recorded as its context.
                raise failure
            finally:
                del failure  # its traceback refers to this frame
        return result

    def _start(
        self, upstream: task.OrchestrationContext, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> WorkflowTask[Any]:
        self.host.attach(upstream)
        main = self.loop.create_task(self._run(function, arguments), name=self.workflow_name)
        self._main = cast("WorkflowTask[Any]", main)
        return self._main

    def _finish(self) -> None:
        self.is_finished = True
        self.dispose()

    async def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """The main task: the user's function, and the cleanups registered outside of any block."""
        try:
            result = await function(self.context, *arguments)
        except (GeneratorExit, InstanceEvicted):
            raise
        except BaseException as error:
            if not self.host.evicted:
                await self.state.cleanups.close(error)
            raise
        else:
            await self.state.cleanups.close(None)
            return result
        finally:
            # The workflow is over: what other tasks had still to do in this turn does not count any more.
            self.loop.ready.clear()

    def _result(self, main: WorkflowTask[Any], upstream: task.OrchestrationContext) -> Any:
        result = main.result()
        if isinstance(result, (task.Task, *debug.AWAITABLES)):
            raise failures.unawaited_result(self.host, result)
        if self.host.continuation is not None:
            self.state.apply_continuation(upstream)
        return result

    def _awaiting_after_continuation(self, main: WorkflowTask[Any]) -> AsyncWorkflowError:
        assert self.host.continuation is not None
        what = f"the workflow awaits something durable at {debug.where(main)}"
        return self.host.error(AsyncWorkflowError, after_continue_as_new(what, self.host.continuation))

    def _deadlock(self) -> AsyncWorkflowError:
        waits = "\n".join(f"  {task.get_name()}: at {debug.where(task)}" for task in self.loop.tasks)
        msg = (
            "nothing is ready and nothing durable is outstanding, so the workflow would wait for ever; "
            f"its tasks wait\n{waits}"
        )
        return self.host.error(DeadlockError, msg)

    def dispose(self) -> None:
        """Close what is left of the instance, in this thread and mute; see :mod:`.disposal`.  Harmless to repeat."""
        if self._disposed:
            return
        self._disposed = True
        disposal.unregister(self)
        tasks = self.loop.tasks
        self.host.evict()
        self.loop.evict()
        main = self._main
        # Children first, the latest before the earlier ones, as nested blocks would close; the main task last.
        children = [task for task in reversed(tasks) if task is not main]
        if main is not None and not main.done():
            children.append(main)
        disposal.close_coroutines(self.loop, children)
        self.host.end()
