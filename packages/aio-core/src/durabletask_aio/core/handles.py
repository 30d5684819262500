"""`WorkflowHandle` and `AsyncWorkflowHandle`: one instance, as a client sees it.

Both have the same methods; those of the second are awaited.  What does not wait for the engine is in `_Handle`.
"""

from __future__ import annotations

import inspect
import math
import time
import typing
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast, overload

from durabletask_aio.core._upstream_client import (
    AsyncTaskHubGrpcClient,
    FailureDetails,
    HistoryEvent,
    OrchestrationState,
    OrchestrationStatus,
    TaskHubGrpcClient,
    has_ended,
    not_found_as,
    output_of,
)
from durabletask_aio.core.asking import Asking, ask, ask_async, check_timeout, missing
from durabletask_aio.core.cancellation import is_cancellation, request_cancellation
from durabletask_aio.core.client_errors import WorkflowFailedError, WorkflowNotFoundError, WorkflowTerminatedError
from durabletask_aio.core.errors import WorkflowCancelledError
from durabletask_aio.core.functions import unwrap_partial

T = TypeVar("T")
TOutput = TypeVar("TOutput")
TClient = TypeVar("TClient")

_LONGEST_WAIT = 60.0
"""Seconds that one call waits for the end of an instance: proxies end calls on which nothing happens."""


def result_type(workflow: Callable[..., Any] | str | None) -> Any:
    """Return the type that a workflow says its result has; `None` if it does not say, or it cannot be resolved."""
    if workflow is None or isinstance(workflow, str):
        return None
    function: Any = inspect.unwrap(unwrap_partial(workflow))
    if not inspect.isroutine(function):
        function = function.__call__
    try:
        found = typing.get_type_hints(function, include_extras=True).get("return")
    except Exception:  # A name that exists for type checkers only, for example.
        return None
    if typing.get_origin(found) is Generator:
        arguments = typing.get_args(found)
        found = arguments[2] if len(arguments) == 3 else None
    return None if found is type(None) or found is Any else found


class _Handle(Generic[TClient, TOutput]):
    """What both kinds of handles are made of."""

    def __init__(self, client: TClient, instance_id: str, expected_type: Any = None, *, is_known: bool = False) -> None:
        self._client = client
        self._expected_type = expected_type
        self._is_known = is_known
        """Whether the engine has said that there is this instance; some engines wait for those that do not exist."""
        self.instance_id = instance_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.instance_id!r}>"

    def _requiring_instance(self) -> AbstractContextManager[None]:
        return not_found_as(self._missing())

    def _missing(self) -> WorkflowNotFoundError:
        return missing(self.instance_id)

    def _found(self, state: OrchestrationState | None) -> OrchestrationState:
        if state is None:
            raise self._missing()
        self._is_known = True
        return state

    def _result(self, state: OrchestrationState, return_type: Any) -> Any:
        """Return the result of an instance that has ended, or raise the error that says how it ended."""
        if state.runtime_status is OrchestrationStatus.FAILED:
            details = state.failure_details or FailureDetails("", "an unknown error", None)
            if is_cancellation(details):
                raise WorkflowCancelledError(details.message, instance_id=self.instance_id, workflow_name=state.name)
            raise WorkflowFailedError(details, instance_id=self.instance_id, workflow_name=state.name)
        if state.runtime_status is OrchestrationStatus.TERMINATED:
            output = output_of(state, None)
            raise WorkflowTerminatedError(output, instance_id=self.instance_id, workflow_name=state.name)
        return output_of(state, self._expected_type if return_type is None else return_type)

    def _still_running(self, state: OrchestrationState, timeout: float | None) -> TimeoutError:
        return TimeoutError(
            f"workflow {state.name!r}, instance {self.instance_id!r}, has not ended within {timeout:g} seconds; it is "
            f"{state.runtime_status.name}"
        )


def waits_of(timeout: float | None) -> Iterator[float]:
    """Return the timeouts of the calls that wait, one after the other, until `timeout` seconds have passed."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    while (remaining := end - time.monotonic()) > 0:
        yield min(remaining, _LONGEST_WAIT)


class WorkflowHandle(_Handle[TaskHubGrpcClient, TOutput]):
    """A workflow instance, to wait for and to act on.

    Returned by the methods of [`WorkflowClient`][durabletask.aio.client.WorkflowClient], not made directly.  Its
    methods raise gRPC's errors if the engine cannot be reached.

    Attributes:
        instance_id: the id of the instance.
    """

    @overload
    def result(self, *, timeout: float | None = None) -> TOutput: ...

    @overload
    def result(self, *, timeout: float | None = None, return_type: type[T]) -> T: ...

    def result(self, *, timeout: float | None = None, return_type: Any = None) -> Any:
        """Wait for the end of the instance, and return its result.

        Args:
            timeout: how long to wait, in seconds; by default without limit.
            return_type: the type of the result, if not the one that the workflow is annotated with.

        Returns:
            The result of the workflow.

        Raises:
            WorkflowFailedError: if it failed.
            WorkflowCancelledError: if it was asked to cancel itself, and ended because of that.
            WorkflowTerminatedError: if it was terminated.
            WorkflowNotFoundError: if there is no such instance.
            TimeoutError: if it has not ended in time; it continues.
            ValueError: if `timeout` is negative.
            TypeError: if `timeout` is no number.
        """
        check_timeout(timeout)
        if not self._is_known:
            self.status()
        for wait in waits_of(timeout):
            try:
                state = self._client.wait_for_orchestration_completion(self.instance_id, timeout=wait)
            except TimeoutError:
                continue
            return self._result(self._found(state), return_type)
        state = self.state()
        if not has_ended(state):
            raise self._still_running(state, timeout)
        return self._result(state, return_type)

    def status(self) -> OrchestrationStatus:
        """Return the status of the instance.

        Returns:
            Upstream's `OrchestrationStatus`.

        Raises:
            WorkflowNotFoundError: if there is no such instance.
        """
        return self._found(self._client.get_orchestration_state(self.instance_id, fetch_payloads=False)).runtime_status

    def state(self) -> OrchestrationState:
        """Return everything that the engine tells of the instance at once.

        Returns:
            Upstream's `OrchestrationState`: name, status, times, input, output, custom status, failure.

        Raises:
            WorkflowNotFoundError: if there is no such instance.
        """
        return self._found(self._client.get_orchestration_state(self.instance_id))

    def history(self) -> list[HistoryEvent]:
        """Return the history of the latest execution.

        Returns:
            The events so far, in their order.

        Raises:
            WorkflowNotFoundError: if there is no such instance.
        """
        with self._requiring_instance():
            return self._client.get_orchestration_history(self.instance_id)

    def raise_event(self, name: str, data: Any = None) -> None:
        """Send the instance an external event; it is kept if the instance does not wait for it yet.

        Args:
            name: the name of the event; upper and lower case are the same.
            data: the payload, encoded by the client's data converter.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            self._client.raise_orchestration_event(self.instance_id, name, data=data)

    @overload
    def ask(self, name: str, data: Any = None, *, timeout: float | None = None) -> Any: ...

    @overload
    def ask(self, name: str, data: Any = None, *, timeout: float | None = None, return_type: type[T]) -> T: ...

    def ask(self, name: str, data: Any = None, *, timeout: float | None = None, return_type: Any = None) -> Any:
        """Send the instance a request, and wait for the answer: `ctx.requests` in the workflow gets it.

        The request is kept if the workflow does not ask for requests yet, and while it is suspended.  It needs a worker
        of `durabletask-aio-worker`, which also passes on the answer.

        Args:
            name: the name of the request; upper and lower case are the same.
            data: what the workflow gets, encoded by the client's data converter.
            timeout: how long to wait, in seconds; by default without limit.  The request is not withdrawn by it.
            return_type: the type of the answer; by default plain data.

        Returns:
            The answer.

        Raises:
            RequestRefusedError: if the workflow refuses the request, or its data.
            RequestUnansweredError: if the instance has ended, or ends without answering.
            WorkflowNotFoundError: if there is no such instance.
            TimeoutError: if there is no answer in time.
            WorkflowValidationError: if the name is no string, or empty.
            ValueError: if `timeout` is negative.
            TypeError: if `timeout` is no number, or the answer is not of `return_type`.
        """
        asking = Asking(self.instance_id, name, data, timeout)
        return ask(self._client, asking, return_type)

    def cancel(self, reason: str | None = None) -> None:
        """Ask the instance to cancel itself: its main task gets `asyncio.CancelledError(reason)`, and can clean up.

        Returns at once.  The workflow may ignore the request, as any asyncio task may; a generator always does.

        Args:
            reason: the message of the `CancelledError`, and of the error that `result` raises.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
            WorkflowValidationError: if the reason is no text.
        """
        with self._requiring_instance():
            request_cancellation(self._client, self.instance_id, reason)

    def terminate(self, output: Any = None, *, recursive: bool = True) -> None:
        """End the instance without running its code again.

        Args:
            output: the output of the instance, encoded by the client's data converter.
            recursive: whether to terminate its sub-orchestrations too.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            self._client.terminate_orchestration(self.instance_id, output=output, recursive=recursive)

    def suspend(self, reason: str | None = None) -> None:
        """Suspend the instance: what happens is kept for it until `resume`.

        Args:
            reason: recorded in the history.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            self._client.suspend_orchestration(self.instance_id, reason=reason)

    def resume(self, reason: str | None = None) -> None:
        """Resume a suspended instance with what has happened meanwhile.

        Args:
            reason: recorded in the history.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            self._client.resume_orchestration(self.instance_id, reason=reason)


class AsyncWorkflowHandle(_Handle[AsyncTaskHubGrpcClient, TOutput]):
    """A workflow instance, to wait for and to act on, with the methods of `WorkflowHandle` as coroutines.

    Returned by the methods of [`AsyncWorkflowClient`][durabletask.aio.client.AsyncWorkflowClient], not made directly.
    Its methods raise gRPC's errors if the engine cannot be reached.

    Attributes:
        instance_id: the id of the instance.
    """

    @overload
    async def result(self, *, timeout: float | None = None) -> TOutput: ...

    @overload
    async def result(self, *, timeout: float | None = None, return_type: type[T]) -> T: ...

    async def result(self, *, timeout: float | None = None, return_type: Any = None) -> Any:
        """Wait for the end of the instance, and return its result.

        Args:
            timeout: how long to wait, in seconds; by default without limit.
            return_type: the type of the result, if not the one that the workflow is annotated with.

        Returns:
            The result of the workflow.

        Raises:
            WorkflowFailedError: if it failed.
            WorkflowCancelledError: if it was asked to cancel itself, and ended because of that.
            WorkflowTerminatedError: if it was terminated.
            WorkflowNotFoundError: if there is no such instance.
            TimeoutError: if it has not ended in time; it continues.
            ValueError: if `timeout` is negative.
            TypeError: if `timeout` is no number.
        """
        check_timeout(timeout)
        if not self._is_known:
            await self.status()
        for wait in self._waits(timeout):
            try:
                state = await self._client.wait_for_orchestration_completion(self.instance_id, timeout=wait)
            except TimeoutError:
                continue
            return self._result(self._found(state), return_type)
        state = await self.state()
        if not has_ended(state):
            raise self._still_running(state, timeout)
        return self._result(state, return_type)

    def _waits(self, timeout: float | None) -> Iterator[float]:
        """Return the timeouts of the calls that wait for the end; the test kit's are seconds of another clock."""
        return waits_of(timeout)

    async def status(self) -> OrchestrationStatus:
        """Return the status of the instance.

        Returns:
            Upstream's `OrchestrationStatus`.

        Raises:
            WorkflowNotFoundError: if there is no such instance.
        """
        state = await self._client.get_orchestration_state(self.instance_id, fetch_payloads=False)
        return self._found(state).runtime_status

    async def state(self) -> OrchestrationState:
        """Return everything that the engine tells of the instance at once.

        Returns:
            Upstream's `OrchestrationState`: name, status, times, input, output, custom status, failure.

        Raises:
            WorkflowNotFoundError: if there is no such instance.
        """
        return self._found(await self._client.get_orchestration_state(self.instance_id))

    async def history(self) -> list[HistoryEvent]:
        """Return the history of the latest execution.

        Returns:
            The events so far, in their order.

        Raises:
            WorkflowNotFoundError: if there is no such instance.
        """
        with self._requiring_instance():
            return await self._client.get_orchestration_history(self.instance_id)

    async def raise_event(self, name: str, data: Any = None) -> None:
        """Send the instance an external event; it is kept if the instance does not wait for it yet.

        Args:
            name: the name of the event; upper and lower case are the same.
            data: the payload, encoded by the client's data converter.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            await self._client.raise_orchestration_event(self.instance_id, name, data=data)

    @overload
    async def ask(self, name: str, data: Any = None, *, timeout: float | None = None) -> Any: ...

    @overload
    async def ask(self, name: str, data: Any = None, *, timeout: float | None = None, return_type: type[T]) -> T: ...

    async def ask(self, name: str, data: Any = None, *, timeout: float | None = None, return_type: Any = None) -> Any:
        """Send the instance a request, and wait for the answer: `ctx.requests` in the workflow gets it.

        The request is kept if the workflow does not ask for requests yet, and while it is suspended.  It needs a worker
        of `durabletask-aio-worker`, which also passes on the answer.

        Args:
            name: the name of the request; upper and lower case are the same.
            data: what the workflow gets, encoded by the client's data converter.
            timeout: how long to wait, in seconds; by default without limit.  The request is not withdrawn by it.
            return_type: the type of the answer; by default plain data.

        Returns:
            The answer.

        Raises:
            RequestRefusedError: if the workflow refuses the request, or its data.
            RequestUnansweredError: if the instance has ended, or ends without answering.
            WorkflowNotFoundError: if there is no such instance.
            TimeoutError: if there is no answer in time.
            WorkflowValidationError: if the name is no string, or empty.
            ValueError: if `timeout` is negative.
            TypeError: if `timeout` is no number, or the answer is not of `return_type`.
        """
        asking = Asking(self.instance_id, name, data, timeout)
        return await ask_async(self._client, asking, return_type)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the instance to cancel itself: its main task gets `asyncio.CancelledError(reason)`, and can clean up.

        Returns at once.  The workflow may ignore the request, as any asyncio task may; a generator always does.

        Args:
            reason: the message of the `CancelledError`, and of the error that `result` raises.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
            WorkflowValidationError: if the reason is no text.
        """
        with self._requiring_instance():
            await request_cancellation(self._client, self.instance_id, reason)

    async def terminate(self, output: Any = None, *, recursive: bool = True) -> None:
        """End the instance without running its code again.

        Args:
            output: the output of the instance, encoded by the client's data converter.
            recursive: whether to terminate its sub-orchestrations too.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            await self._client.terminate_orchestration(self.instance_id, output=output, recursive=recursive)

    async def suspend(self, reason: str | None = None) -> None:
        """Suspend the instance: what happens is kept for it until `resume`.

        Args:
            reason: recorded in the history.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            await self._client.suspend_orchestration(self.instance_id, reason=reason)

    async def resume(self, reason: str | None = None) -> None:
        """Resume a suspended instance with what has happened meanwhile.

        Args:
            reason: recorded in the history.

        Raises:
            WorkflowNotFoundError: if the engine says that there is no such instance.
        """
        with self._requiring_instance():
            await self._client.resume_orchestration(self.instance_id, reason=reason)


for _public in (WorkflowHandle, AsyncWorkflowHandle):
    cast(Any, _public).__module__ = "durabletask.aio.client"
