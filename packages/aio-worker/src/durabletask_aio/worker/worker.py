"""The worker classes that users construct."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from durabletask import task
from durabletask import worker as upstream
from durabletask.grpc_options import GrpcChannelOptions

from durabletask_aio.core.errors import WorkflowValidationError
from durabletask_aio.core.functions import function_name as callable_name
from durabletask_aio.core.functions import is_coroutine_callable
from durabletask_aio.core.validation import validate_workflow_function
from durabletask_aio.worker import _upstream
from durabletask_aio.worker.binding import Binding, bind, binding_of, checked_entity
from durabletask_aio.worker.lifecycle import stop_from_loop, wait_for_signal
from durabletask_aio.worker.options import WorkerOptions
from durabletask_aio.worker.registration import check_activity, registrar

if TYPE_CHECKING:
    import logging

    import grpc
    from durabletask.exception_properties import ExceptionPropertiesProvider
    from durabletask.grpc_options import GrpcWorkerResiliencyOptions
    from durabletask.payload.store import PayloadStore
    from durabletask.serialization import DataConverter
    from typing_extensions import Self

    from durabletask_aio.core.context import AsyncWorkflowContext
    from durabletask_aio.core.settings import SandboxMode
    from durabletask_aio.worker.activities import ActivityContext
    from durabletask_aio.worker.options import Seconds
    from durabletask_aio.worker.sessions import ExtendedSessionStats

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")

_DEFAULT_TIMER_INTERVAL = timedelta(days=3)


class AsyncOrchestratorMixin:
    """Makes any worker class derived from upstream's ``TaskHubGrpcWorker`` accept async orchestrators and activities.

    Put it first: ``class Worker(AsyncOrchestratorMixin, DurableTaskSchedulerWorker): ...``.  The constructor takes
    these keywords beside those of the other class:

    * ``sandbox_mode``: the mode of workflows registered without one; ``"off"`` by default.
    * ``max_extended_sessions``: how many suspended instances stay alive between their turns; ``0`` switches extended
      sessions off.  By default 1,000, or the environment variable ``DT_MAX_EXTENDED_SESSIONS``.
    * ``extended_session_idle_timeout``: seconds or ``timedelta`` after which an idle instance is let go; five minutes.
    * ``shadow_replay_rate``: the share, between 0 and 1, of session turns that are replayed from history as well and
      compared, in order to find non-deterministic code before a restart does; none by default.
    * ``stop_grace_period``: seconds or ``timedelta`` that async activities have when the worker stops, before they are
      cancelled and left to be handed out again; ten seconds.
    * ``slow_turn_warning``: seconds or ``timedelta`` after which a turn that still runs is named in a warning; two
      seconds, ``None`` for never.
    * ``history_size_warning``: number of events at which a history is named in a warning, and again at each doubling;
      5,000, ``None`` for never.

    ``TypeError`` or ``ValueError``, naming the keyword, if one of them makes no sense.
    """

    __module__ = "durabletask.aio.worker"

    def __init__(
        self,
        *args: Any,
        sandbox_mode: SandboxMode | str | None = None,
        max_extended_sessions: int | None = None,
        extended_session_idle_timeout: Seconds = 300.0,
        shadow_replay_rate: float = 0.0,
        stop_grace_period: Seconds = 10.0,
        slow_turn_warning: Seconds | None = 2.0,
        history_size_warning: int | None = 5000,
        **keywords: Any,
    ) -> None:
        if not isinstance(self, upstream.TaskHubGrpcWorker):
            raise TypeError(
                f"{type(self).__name__} is no worker: AsyncOrchestratorMixin adds to a class derived from upstream's "
                "TaskHubGrpcWorker\n"
                "  right: class Worker(AsyncOrchestratorMixin, TaskHubGrpcWorker): ..."
            )
        options = WorkerOptions.of(
            sandbox_mode=sandbox_mode,
            max_extended_sessions=max_extended_sessions,
            extended_session_idle_timeout=extended_session_idle_timeout,
            shadow_replay_rate=shadow_replay_rate,
            stop_grace_period=stop_grace_period,
            slow_turn_warning=slow_turn_warning,
            history_size_warning=history_size_warning,
            generator_sessions=True,
        )
        super().__init__(*args, **keywords)
        bind(self, options, lifecycle=False)

    # Registration -------------------------------------------------------------------------------------------

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
        """Register an async workflow, or a generator orchestrator as upstream does; returns the name.

        ``name`` is by default the function's.  ``sandbox_mode`` is by default the worker's; registering the same
        function again changes its mode, and without one leaves everything as it is.

        Raises :class:`RuntimeError` while the worker is running, :class:`ValueError` if the name belongs to another
        function, and :class:`WorkflowValidationError` for what cannot be a workflow or a mode.
        """
        worker = self._worker()
        if is_coroutine_callable(fn):
            return registrar.add_orchestrator(worker, fn, name=name, sandbox_mode=sandbox_mode)
        if inspect.iscoroutine(fn) or inspect.isasyncgenfunction(fn):
            validate_workflow_function(fn)
        if sandbox_mode is not None:
            shown = callable_name(fn)
            raise WorkflowValidationError(
                f"sandbox_mode= is for async workflows, and {shown!r} is not one\n"
                f"  wrong: worker.add_orchestrator({shown}, sandbox_mode=...)\n"
                f"  right: worker.add_orchestrator({shown})"
            )
        if name is None:
            return super().add_orchestrator(fn)  # type: ignore[misc, no-any-return]
        if _upstream.is_running(worker):
            raise RuntimeError("Orchestrators cannot be added while the worker is running.")
        function: Any = fn
        _upstream.register_orchestrator(worker, name, function)
        return name

    def add_activity(self, fn: Callable[[ActivityContext, TInput], Any], *, name: str | None = None) -> str:
        """Register an activity, ``async`` or not; returns the name, by default the function's.

        Async activities run on the event loop that ``async with worker`` or ``await worker.run()`` was called on, or,
        after a plain ``start()``, on one long-lived loop of the worker.  Others run in upstream's thread pool.

        Raises :class:`RuntimeError` while the worker is running, :class:`ValueError` if the name is taken, and
        :class:`WorkflowValidationError` for coroutines and async generators.
        """
        if name is None and not is_coroutine_callable(fn):
            check_activity(fn)
            return super().add_activity(fn)  # type: ignore[misc, no-any-return]
        return registrar.add_activity(self._worker(), fn, name=name)

    def add_entity(self, fn: task.Entity[Any, Any], name: str | None = None) -> str:
        """Register an entity as upstream does; raises :class:`WorkflowValidationError` if an operation is async."""
        return super().add_entity(checked_entity(fn), name)  # type: ignore[misc, no-any-return]

    # Lifecycle ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to work in background threads; :class:`RuntimeError` if the worker is running already."""
        self._binding().start(super().start)  # type: ignore[misc]

    def stop(self) -> None:
        """Stop, and wait for the work under way; harmless if the worker is not running.

        Async activities have the grace period to end.  Then they are cancelled, and the engine hands them out again.
        Sync activities cannot be cancelled, and are waited for.  :class:`RuntimeError` on the event loop that runs this
        worker's async activities, since they could never end.
        """
        self._binding().stop(super().stop)  # type: ignore[misc]

    def __enter__(self) -> Self:
        """As upstream's, which type checkers are told returns upstream's class."""
        super().__enter__()  # type: ignore[misc]
        return self

    async def __aenter__(self) -> Self:
        """Choose the running loop for async activities.  Like ``with``, this does not start the worker."""
        self._binding().loop.attach(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *details: object) -> None:
        """Stop as :meth:`stop` does, without blocking the loop."""
        binding = self._binding()
        try:
            await stop_from_loop(binding, self.stop)
        finally:
            binding.loop.detach()

    async def run(self, *, handle_signals: bool = True) -> None:
        """Start, work until cancelled or until SIGINT or SIGTERM arrives, and stop.

        The running loop is the one for async activities.  Signals are handled in the main thread only, and what handled
        them before is put back.  A cancellation is raised after the worker has stopped; a signal ends ``run`` normally.
        :class:`RuntimeError` if the worker is running already, and it goes on.
        """
        if _upstream.is_running(self._worker()):
            raise RuntimeError(
                "run() starts the worker itself, and it is already running\n"
                "  wrong: worker.start(); await worker.run()\n"
                "  right: await worker.run()"
            )
        async with self:
            self.start()
            received = await wait_for_signal(handle_signals=handle_signals)
            self._binding().logger.info("Received %s: stopping", received)

    # What it does -------------------------------------------------------------------------------------------

    @property
    def extended_session_stats(self) -> ExtendedSessionStats:
        """Live counters of this worker's extended sessions."""
        return self._binding().stats

    def _worker(self) -> upstream.TaskHubGrpcWorker:
        assert isinstance(self, upstream.TaskHubGrpcWorker)
        return self

    def _binding(self) -> Binding:
        binding = binding_of(self._worker())
        assert binding is not None
        return binding


class TaskHubGrpcWorker(AsyncOrchestratorMixin, upstream.TaskHubGrpcWorker):
    """Upstream's gRPC worker, for async orchestrators and activities beside generator orchestrators and plain ones.

    Takes upstream's keywords and those of :class:`AsyncOrchestratorMixin`::

        async with TaskHubGrpcWorker(host_address="localhost:4001") as worker:
            worker.add_orchestrator(order)
            worker.add_activity(charge)
            worker.start()
            ...

    Without a ``max_receive_message_length`` in ``channel_options`` it receives histories of any size, where upstream's
    stops at gRPC's 4 MiB.
    """

    __module__ = "durabletask.aio.worker"

    if not TYPE_CHECKING:

        def __init__(self, **keywords: Any) -> None:
            if keywords.get("channel") is None:
                keywords["channel_options"] = _receiving_everything(keywords.get("channel_options"))
            super().__init__(**keywords)

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
            resiliency_options: GrpcWorkerResiliencyOptions | None = None,
            concurrency_options: upstream.ConcurrencyOptions | None = None,
            maximum_timer_interval: timedelta | None = _DEFAULT_TIMER_INTERVAL,
            payload_store: PayloadStore | None = None,
            data_converter: DataConverter | None = None,
            exception_properties_provider: ExceptionPropertiesProvider | None = None,
            emit_trace_spans: bool = True,
            sandbox_mode: SandboxMode | str | None = None,
            max_extended_sessions: int | None = None,
            extended_session_idle_timeout: Seconds = 300.0,
            shadow_replay_rate: float = 0.0,
            stop_grace_period: Seconds = 10.0,
            slow_turn_warning: Seconds | None = 2.0,
            history_size_warning: int | None = 5000,
        ) -> None: ...


def _receiving_everything(options: GrpcChannelOptions | None) -> GrpcChannelOptions:
    """``options`` without gRPC's limit of 4 MiB on what is received, unless they set one.

    The limit guards a server against its callers.  Here it would be met by a turn whose history has grown beyond it,
    and what it then does is to end the stream of work items, for all instances, each time that turn is handed out.
    """
    options = options if options is not None else GrpcChannelOptions()
    raw = [name for name, _ in options.raw_options]
    if options.max_receive_message_length is not None or "grpc.max_receive_message_length" in raw:
        return options
    return dataclasses.replace(options, max_receive_message_length=-1)
