"""The worker classes that users construct."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.hosting import (
    check_functions,
    check_is_function,
    check_is_no_activity,
    check_name_is_free,
    function_name,
    validate_workflow_function,
)
from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import GrpcChannelOptions, task
from durabletask_aio.worker.activity_functions import check_activity, is_async
from durabletask_aio.worker.binding import Binding, bind, binding_of
from durabletask_aio.worker.entities import check_entity
from durabletask_aio.worker.lifecycle import stop_from_loop, stop_signals, wait_for_signal
from durabletask_aio.worker.options import Settings, show_options, take_options
from durabletask_aio.worker.registration import refuse_while_running, registrar

if TYPE_CHECKING:
    import logging

    import grpc
    from typing_extensions import Self, Unpack

    from durabletask_aio.core import AsyncWorkflowContext, SandboxMode
    from durabletask_aio.worker.activity_context import ActivityContext
    from durabletask_aio.worker.options import WorkerOptions
    from durabletask_aio.worker.sessions import ExtendedSessionStats

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")

_DEFAULT_TIMER_INTERVAL = timedelta(days=3)


class AsyncOrchestratorMixin:
    """Makes a worker class accept async orchestrators and activities.

    It goes first among the bases, before a class derived from upstream's `TaskHubGrpcWorker`:

        class Worker(AsyncOrchestratorMixin, DurableTaskSchedulerWorker): ...

    Args:
        *args: Positional arguments of the other class.
        **keywords: Keyword arguments of the other class, and those of
            [`WorkerOptions`][durabletask.aio.worker.WorkerOptions].

    Raises:
        TypeError: If the class is not derived from upstream's `TaskHubGrpcWorker`, or an option has a value of a wrong
            type.
        ValueError: If an option is out of range.
        WorkflowValidationError: If `sandbox_mode` is not a mode.
    """

    __module__ = "durabletask.aio.worker"

    @overload
    def __init__(self, *args: Any, **options: Unpack[WorkerOptions]) -> None: ...

    @overload
    def __init__(self, *args: Any, **keywords: Any) -> None: ...

    def __init__(self, *args: Any, **keywords: Any) -> None:
        if not isinstance(self, _upstream.TaskHubGrpcWorker):
            raise TypeError(
                f"{type(self).__name__} is no worker: AsyncOrchestratorMixin adds to a class derived from upstream's "
                "TaskHubGrpcWorker\n"
                "  right: class Worker(AsyncOrchestratorMixin, TaskHubGrpcWorker): ..."
            )
        settings = Settings.checked(take_options(keywords), generator_sessions=True)
        super().__init__(*args, **keywords)
        bind(self, settings, lifecycle=False)

    # -- registration ---------------------------------------------------------------------------------------------

    @overload
    def add_orchestrator(
        self,
        fn: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]],
        *,
        name: str | None = None,
        sandbox_mode: SandboxMode | str | None = None,
    ) -> str: ...

    @overload
    def add_orchestrator(
        self,
        fn: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]],
        *,
        name: str | None = None,
        sandbox_mode: SandboxMode | str | None = None,
    ) -> str: ...

    @overload
    def add_orchestrator(
        self,
        fn: Callable[[task.OrchestrationContext, TInput], Any],
        *,
        name: str | None = None,
        sandbox_mode: None = None,
    ) -> str: ...

    def add_orchestrator(
        self, fn: Any, *, name: str | None = None, sandbox_mode: SandboxMode | str | None = None
    ) -> str:
        """Register an async workflow, or a generator orchestrator as upstream does.

        Registering the same workflow again under the same name changes its sandbox mode if one is given, and otherwise
        changes nothing.

        Args:
            fn: A coroutine function, or a generator orchestrator.
            name: The name under which instances are started; by default that of the function.
            sandbox_mode: The mode of this async workflow; by default that of the worker.

        Returns:
            The name under which it is registered.

        Raises:
            RuntimeError: If the worker is running.
            ValueError: If the name belongs to another function.
            WorkflowValidationError: If `fn` cannot be a workflow, or `sandbox_mode` is not a mode or is given for a
                function that is not async.
            SandboxViolationError: If the mode is `"strict"` and static analysis finds code that is not deterministic.
        """
        worker = self._worker()
        if is_async(fn):
            return registrar.add_orchestrator(worker, fn, name=name, sandbox_mode=sandbox_mode)
        if inspect.iscoroutine(fn) or inspect.isasyncgenfunction(fn):
            validate_workflow_function(fn)
        if sandbox_mode is not None:
            shown = function_name(fn)
            raise WorkflowValidationError(
                f"sandbox_mode= is for async workflows, and {shown!r} is not one\n"
                f"  wrong: worker.add_orchestrator({shown}, sandbox_mode=...)\n"
                f"  right: worker.add_orchestrator({shown})"
            )
        check_is_function("add_orchestrator", fn)
        check_is_no_activity(fn)
        if not _upstream.is_running(worker):
            shown = name or function_name(fn)
            check_name_is_free("orchestrator", shown, _upstream.find_orchestrator(worker, shown), fn)
        if name is None:
            return super().add_orchestrator(fn)  # type: ignore[misc, no-any-return]
        refuse_while_running(worker, "Orchestrators")
        function: Any = fn  # whose type the checks above have narrowed
        _upstream.register_orchestrator(worker, name, function)
        return name

    def add_activity(self, fn: Callable[[ActivityContext, TInput], Any], *, name: str | None = None) -> str:
        """Register an activity, `async` or not.

        Async activities run on the event loop that `async with worker` or `await worker.run()` was called on or, after
        a plain `start()`, on an event loop of the worker. Other activities run in upstream's thread pool.

        Args:
            fn: A function or coroutine function of an [`ActivityContext`][durabletask.aio.worker.ActivityContext] and
                an input.
            name: The name under which workflows call it; by default that of the function.

        Returns:
            The name under which it is registered.

        Raises:
            RuntimeError: If the worker is running.
            ValueError: If the name is taken.
            WorkflowValidationError: If `fn` is a coroutine or an async generator function.
        """
        if name is None and not is_async(fn):
            check_activity(fn)
            worker, shown = self._worker(), function_name(fn)
            if not _upstream.is_running(worker):
                check_name_is_free("activity", shown, _upstream.find_activity(worker, shown), fn)
            return super().add_activity(fn)  # type: ignore[misc, no-any-return]
        return registrar.add_activity(self._worker(), fn, name=name)

    def add_orchestrators(self, *fns: Callable[..., Any]) -> list[str]:
        """Register several orchestrators, async workflows and generators, each as `add_orchestrator` does.

        Args:
            *fns: The functions, in the order in which they are registered.

        Returns:
            The names under which they are registered.

        Raises:
            RuntimeError: If the worker is running.
            ValueError: If a name belongs to another function.
            WorkflowValidationError: If an argument cannot be a workflow, such as a list of functions.
            SandboxViolationError: If the sandbox mode of the worker is `"strict"` and static analysis finds code that
                is not deterministic.
        """
        check_functions("add_orchestrators", fns)
        return [self.add_orchestrator(fn) for fn in fns]

    def add_activities(self, *fns: Callable[..., Any]) -> list[str]:
        """Register several activities, each as `add_activity` does.

        Args:
            *fns: The functions, in the order in which they are registered.

        Returns:
            The names under which they are registered.

        Raises:
            RuntimeError: If the worker is running.
            ValueError: If a name is taken.
            WorkflowValidationError: If an argument cannot be an activity, such as a list of functions.
        """
        check_functions("add_activities", fns)
        return [self.add_activity(fn) for fn in fns]

    def add_entity(self, fn: task.Entity[Any, Any], name: str | None = None) -> str:
        """Register an entity as upstream does.

        Args:
            fn: An entity function, or a class derived from `DurableEntity`.
            name: The name of the entity; by default that of the function or class.

        Returns:
            The name under which it is registered.

        Raises:
            RuntimeError: If the worker is running.
            ValueError: If the name is taken.
            WorkflowValidationError: If an operation is async.
        """
        check_entity(fn)
        return super().add_entity(fn, name)  # type: ignore[misc, no-any-return]

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to take work from the engine, in background threads.

        Raises:
            RuntimeError: If the worker is already running.
        """
        self._binding().start(super().start)  # type: ignore[misc]

    def stop(self) -> None:
        """Stop taking work, and wait for the work that is being done. Does nothing if the worker is not running.

        Async activities have the grace period (`stop_grace_period`) to finish. Those that have not are cancelled, and
        the engine delivers them again. Turns have as long, and at least two seconds; one that has not ended is given
        back to the engine, and its thread is left behind. Sync activities cannot be cancelled; the worker waits for
        them.

        Raises:
            RuntimeError: If called on the event loop that runs this worker's async activities, since they could not
                finish while it waits.
        """
        self._binding().stop(super().stop)  # type: ignore[misc]

    def __enter__(self) -> Self:
        """Enter upstream's context manager; it stops the worker at the end of the block.

        Returns:
            This worker.
        """
        super().__enter__()  # type: ignore[misc]
        return self

    async def __aenter__(self) -> Self:
        """Have async activities run on the running event loop. Like `with`, this does not start the worker.

        Returns:
            This worker.
        """
        self._binding().loop.attach(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *details: object) -> None:
        """Stop the worker as `stop` does, without blocking the event loop."""
        binding = self._binding()
        try:
            await stop_from_loop(binding, self.stop)
        finally:
            binding.loop.detach()

    async def run(self, *, handle_signals: bool = True) -> None:
        """Start the worker, and stop it when this coroutine is cancelled or SIGINT or SIGTERM arrives.

        Async activities run on the running event loop. A signal makes `run` return once the worker has stopped; a
        cancellation is raised once the worker has stopped.

        Args:
            handle_signals: Whether to handle SIGINT and SIGTERM. They are handled in the main thread only. A second
                signal ends the grace period. Then, or at the end, the previous handlers are restored.

        Raises:
            RuntimeError: If the worker is already running, which it continues to do; or if a Dapr sidecar is at its
                address.
        """
        if _upstream.is_running(self._worker()):
            raise RuntimeError(
                "run() starts the worker itself, and it is already running\n"
                "  wrong: worker.start(); await worker.run()\n"
                "  right: await worker.run()"
            )
        binding = self._binding()
        with stop_signals(binding.cancel_now, handle_signals=handle_signals) as signals:
            async with self:
                self.start()
                received = await wait_for_signal(signals, binding.refusal)
                binding.logger.info("Received %s: stopping", received)

    # -- statistics -----------------------------------------------------------------------------------------------

    @property
    def extended_session_stats(self) -> ExtendedSessionStats:
        """Live counters of this worker's extended sessions."""
        return self._binding().stats

    def _worker(self) -> _upstream.TaskHubGrpcWorker:
        assert isinstance(self, _upstream.TaskHubGrpcWorker)
        return self

    def _binding(self) -> Binding:
        binding = binding_of(self._worker())
        assert binding is not None
        return binding


class TaskHubGrpcWorker(AsyncOrchestratorMixin, _upstream.TaskHubGrpcWorker):
    """Upstream's gRPC worker, which also takes async orchestrators and async activities.

        async with TaskHubGrpcWorker(host_address="localhost:4001") as worker:
            worker.add_orchestrator(order)
            worker.add_activity(charge)
            worker.start()
            ...

    Unless `channel_options` set a `max_receive_message_length`, it receives histories of any size; upstream's class
    stops at gRPC's limit of 4 MiB.

    Args:
        host_address: See upstream's `TaskHubGrpcWorker`, as for all keywords that are not named here.
        channel_options: gRPC options of the channel that the worker opens.
        **options: The keywords of [`WorkerOptions`][durabletask.aio.worker.WorkerOptions].

    Raises:
        TypeError: If an option has a value of a wrong type.
        ValueError: If an option is out of range.
        WorkflowValidationError: If `sandbox_mode` is not a mode.
    """

    __module__ = "durabletask.aio.worker"

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            host_address: str | None = None,
            metadata: list[tuple[str, str]] | None = None,
            log_handler: logging.Handler | None = None,
            log_formatter: logging.Formatter | None = None,
            logger: logging.Logger | None = None,
            channel: grpc.Channel | None = None,
            secure_channel: bool = False,
            interceptors: Sequence[Any] | None = None,
            channel_options: GrpcChannelOptions | None = None,
            resiliency_options: _upstream.GrpcWorkerResiliencyOptions | None = None,
            concurrency_options: _upstream.ConcurrencyOptions | None = None,
            maximum_timer_interval: timedelta | None = _DEFAULT_TIMER_INTERVAL,
            payload_store: _upstream.PayloadStore | None = None,
            data_converter: _upstream.DataConverter | None = None,
            exception_properties_provider: _upstream.ExceptionPropertiesProvider | None = None,
            emit_trace_spans: bool = True,
            **options: Unpack[WorkerOptions],
        ) -> None: ...

    else:

        def __init__(self, **keywords: Any) -> None:
            if keywords.get("channel") is None:
                keywords["channel_options"] = _without_receive_limit(keywords.get("channel_options"))
            super().__init__(**keywords)


show_options(AsyncOrchestratorMixin.__init__)
show_options(TaskHubGrpcWorker.__init__, _upstream.TaskHubGrpcWorker.__init__)


def _without_receive_limit(options: GrpcChannelOptions | None) -> GrpcChannelOptions:
    """Return `options` without gRPC's limit of 4 MiB on received messages, unless they set a limit.

    The limit protects a server from its callers. A worker that receives a larger history ends its stream of work
    items, for all instances, each time the engine delivers that turn.
    """
    options = options if options is not None else GrpcChannelOptions()
    raw = [name for name, _ in options.raw_options]
    if options.max_receive_message_length is not None or "grpc.max_receive_message_length" in raw:
        return options
    return dataclasses.replace(options, max_receive_message_length=-1)
