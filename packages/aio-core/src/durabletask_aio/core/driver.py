"""`WorkflowRun`: takes one instance of a workflow through its turns.

To upstream a workflow is a generator that yields one and the same task, the loop's `WakeTask`, over and over.  Upstream
resumes it after every event that completed something; the driver then lets the loop run until nothing is ready, and
yields again.  Because the loop runs after each event, and not once for a batch of events, the order in which workflow
code runs does not depend on how the engine batched them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

from durabletask_aio.core import _interpreter, _upstream, _upstream_journal, disposal, failures, plugins
from durabletask_aio.core._upstream import task
from durabletask_aio.core.call_sites import waiting_line
from durabletask_aio.core.cancel_requests import CancelRequests
from durabletask_aio.core.cancellation import Cancellation
from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.continuation import after_continue_as_new
from durabletask_aio.core.descriptions import AWAITABLES
from durabletask_aio.core.errors import AsyncWorkflowError, DeadlockError, InstanceEvicted
from durabletask_aio.core.execution import Execution
from durabletask_aio.core.functions import OrchestratorInfo
from durabletask_aio.core.loop import WorkflowLoop, WorkflowTask
from durabletask_aio.core.operation_log import OperationLog
from durabletask_aio.core.operations import ScheduledOperation
from durabletask_aio.core.settings import SandboxMode, debug_enabled, detection_disabled, step_budget
from durabletask_aio.core.unawaited import unawaited_error, unawaited_operations
from durabletask_aio.core.usage_refusals import warn_of_recorded
from durabletask_aio.core.wrong_calls import missing_input


@functools.cache
def _combined(guarded: Any, context_type: Any) -> Any:
    """Return the context class of a guard, with the methods of `context_type`."""
    if issubclass(guarded, context_type):
        return guarded
    return type(context_type.__name__, (guarded, context_type), {"__slots__": ()})


class WorkflowRun:
    """One live instance of a workflow: its execution, its loop, its context and its main task.

    Created for each execution, and again for each replay of it.
    """

    context_type: type[AsyncWorkflowContext] = AsyncWorkflowContext
    """The class of the context that workflow code gets; that of Dapr's workflows has Dapr's names too."""

    def __init__(
        self, upstream: task.OrchestrationContext, info: OrchestratorInfo, guard: plugins.WorkflowGuard | None
    ) -> None:
        """Create the run of an execution that starts.

        Args:
            upstream: upstream's context.
            info: the workflow function, its name and its sandbox mode.
            guard: what the sandbox has prepared for it at registration.
        """
        budget = step_budget()
        self.execution = Execution(
            upstream, info.name, info.sandbox_mode, metadata=disposal.current_metadata(), step_budget=budget
        )
        self.loop = WorkflowLoop(self.execution, step_budget=budget)  # type: ignore[abstract]  # see refusals
        # The environment is read when the execution starts, so that it does not change while an instance lives.
        if debug_enabled():
            self.loop.operation_log = OperationLog(self.execution.logger)
        self.loop.journal = _upstream_journal.journal_of(upstream)
        if self.loop.journal is not None:
            self.loop.journal.loop = self.loop
        self.loop.user_globals = getattr(inspect.unwrap(info.function), "__globals__", None)
        context_type = self.context_type
        self._guard: plugins.ExecutionGuard | None = None
        if guard is not None and not detection_disabled():
            self._guard = guard.begin(self.execution)
            if self._guard is not None and guard.context_type is not None:
                guarded: Any = guard.context_type
                wanted: Any = context_type
                context_type = cast("type[AsyncWorkflowContext]", _combined(guarded, wanted))
        self._check_suspended: Any = getattr(self._guard, "check_suspended", None)
        self.context = context_type(self.execution, self.loop)
        self._main: WorkflowTask[Any] | None = None
        self.is_finished = False
        """Whether the workflow function has returned or failed."""
        self._disposed = False

    @property
    def instance_id(self) -> str:
        """The id of the instance."""
        return self.execution.instance_id

    @property
    def workflow_name(self) -> str:
        """The name under which the workflow is registered."""
        return self.execution.workflow_name

    @property
    def is_executing(self) -> bool:
        """Whether code of the workflow is being executed, in any thread."""
        return any(_interpreter.is_executing(task.get_coro()) for task in self.loop.tasks)

    def drive(
        self, upstream: task.OrchestrationContext, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Generator[task.Task[Any], Any, Any]:
        """Run the workflow; this is the generator that upstream drives.

        Args:
            upstream: upstream's context.
            function: the workflow function, or the sandbox's copy of it.
            arguments: the input, if the function takes one.

        Yields:
            The loop's wake task, whenever the workflow waits.

        Returns:
            The result of the workflow.

        Raises:
            Exception: what fails the instance.
        """
        disposal.dispose_pending()
        self.loop.asyncgen_hooks_set = disposal.register(self)
        failure: Exception | None = None
        result: Any = None
        suspended = False
        execution, loop = self.execution, self.loop
        run_ready = loop.run_ready if self._guard is None else functools.partial(self._run_guarded, self._guard)
        _upstream.on_failure(upstream, functools.partial(failures.translate, execution, loop, function))
        try:
            main = self._start(upstream, function, arguments)
            while True:
                execution.run_attached(upstream, run_ready)
                if main.done():
                    break
                if execution.refusal is not None:
                    raise execution.refusal
                if execution.continuation is not None:
                    raise self._awaiting_after_continuation(main)
                if not loop.outstanding:
                    raise self._deadlock()
                loop.wake.is_complete = False
                suspended = True
                yield loop.wake
                suspended = False
            result = self._result(main, upstream)
        except BaseException as error:
            if suspended and isinstance(error, GeneratorExit):  # and not one that the workflow raised
                disposal.enqueue_disposal(self)
                raise
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                # Ctrl-C while an in-process environment runs this on the main thread.
                self._finish()
                raise
            if execution.cancellation is not None and isinstance(error, asyncio.CancelledError):
                self._cancel_children(upstream, execution.cancellation)
            missing = missing_input(function, arguments, self.workflow_name)
            failure = failures.as_recorded(error, execution, type(self.context), missing)
        self._end_requests(upstream, failure)
        self._finish()
        if failure is not None:
            try:
                # Outside of the except block, or the error it was made from would be recorded as its context.
                raise failure
            finally:
                del failure  # its traceback refers to this frame
        return result

    def _start(
        self, upstream: task.OrchestrationContext, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> WorkflowTask[Any]:
        main = self.loop.create_task(self._run(function, arguments), name=self.workflow_name)
        self._main = self.loop.main = cast("WorkflowTask[Any]", main)
        CancelRequests(self.loop, self._main).listen(upstream)
        return self._main

    def _run_guarded(self, guard: plugins.ExecutionGuard) -> None:
        """Let the loop run until nothing is ready, watched by the sandbox."""
        guard.enter()
        violation: BaseException | None = None
        try:
            self.loop.run_ready()
            if self._check_suspended is not None:
                self._check_suspended(self._suspended())
        finally:
            violation = guard.exit()
        if violation is not None:
            try:
                raise violation
            finally:
                del violation  # its traceback refers to this frame

    def _suspended(self) -> Iterator[Any]:
        for waiting in self.loop.tasks:
            yield from _interpreter.await_chain(waiting.get_coro())

    def _finish(self) -> None:
        self.is_finished = True
        self.dispose()

    async def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run the user's function, and the cleanups registered outside of any block: the main task."""
        execution = self.execution
        try:
            result = await function(self.context, *arguments)
        except (GeneratorExit, InstanceEvicted):
            raise
        except BaseException as error:
            if not execution.evicted:
                await execution.cleanups.close(error)
            raise
        else:
            await execution.cleanups.close(None)
            return result
        finally:
            self.loop.clear_ready()

    def _result(self, main: WorkflowTask[Any], upstream: task.OrchestrationContext) -> Any:
        refusal = self.execution.refusal
        if refusal is not None and (main.cancelled() or main.exception() is not refusal):
            raise refusal
        result = main.result()
        if isinstance(result, (task.Task, *AWAITABLES)):
            raise failures.unawaited_result(self.execution, result)
        if unawaited := unawaited_operations(self.loop, upstream):
            self._report_unawaited(unawaited, upstream)
        if self.execution.continuation is not None:
            self.execution.apply_continuation(upstream)
        return result

    def _cancel_children(self, upstream: task.OrchestrationContext, cancellation: Cancellation) -> None:
        """Pass the cancellation on to the children that the workflow has not waited for."""
        self.execution.attach(upstream)
        try:
            for child in list(self.loop.linked_children):
                child.request_cancellation(cancellation.reason)
        finally:
            self.execution.detach()

    def _end_requests(self, upstream: task.OrchestrationContext, failure: Exception | None) -> None:
        """Tell the clients that ask this instance, and have no answer, that there will be none."""
        continues = failure is None and self.execution.continuation is not None
        how = "failed" if failure is not None else "continued as new" if continues else "completed"
        self.execution.requests.end(upstream, how, continues=continues)

    def _report_unawaited(self, unawaited: list[ScheduledOperation[Any]], upstream: task.OrchestrationContext) -> None:
        """Fail the workflow in strict mode, and otherwise log a warning, once: the logger is silent on replay."""
        error = unawaited_error(self.execution, unawaited)
        if self._guard is not None and self.execution.sandbox_mode is SandboxMode.STRICT:
            if not upstream.is_replaying:
                raise error
            warn_of_recorded(error)
        self.execution.run_attached(upstream, lambda: self.execution.logger.warning("%s", error.message))

    def _awaiting_after_continuation(self, main: WorkflowTask[Any]) -> AsyncWorkflowError:
        assert self.execution.continuation is not None
        what = f"the workflow awaits something durable at {waiting_line(main)}"
        return self.execution.error(AsyncWorkflowError, after_continue_as_new(what, self.execution.continuation))

    def _deadlock(self) -> AsyncWorkflowError:
        waits = "\n".join(f"  {task.get_name()}: at {waiting_line(task)}" for task in self.loop.tasks)
        msg = (
            "nothing is ready and nothing durable is outstanding, so the workflow would wait for ever; "
            f"its tasks wait\n{waits}"
        )
        return self.execution.error(DeadlockError, msg)

    def dispose(self) -> None:
        """Close what is left of the instance in this thread, without effect outside; repeating it does nothing.

        Child tasks are closed first, the latest before the earlier ones, as nested blocks would close; the main task
        is closed last.
        """
        if self._disposed:
            return
        self._disposed = True
        disposal.unregister(self)
        if self.loop.journal is not None:
            self.loop.journal.abandon()
        tasks = self.loop.tasks
        self.execution.begin_closing()
        self.loop.evict()
        main = self._main
        children = [task for task in reversed(tasks) if task is not main]
        if main is not None and not main.done():
            children.append(main)
        disposal.close_coroutines(self.loop, children)
        disposal.close_generators(self.loop, self.loop.generators.take_suspended())
        self.execution.end_closing()
