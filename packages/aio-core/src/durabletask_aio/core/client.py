"""`WorkflowClient` and `AsyncWorkflowClient`: start workflows and get handles of their instances.

The public import path of this module is `durabletask.aio.client`.  It is imported by programs that only use clients,
and imports upstream's clients, which no other module of the core needs.
"""

# ruff: noqa: A002 - `input` is what upstream calls it

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

from durabletask_aio.core._upstream import task
from durabletask_aio.core._upstream_client import AsyncTaskHubGrpcClient, TaskHubGrpcClient
from durabletask_aio.core.client_errors import (
    RequestRefusedError,
    RequestUnansweredError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)
from durabletask_aio.core.context import AsyncWorkflowContext
from durabletask_aio.core.errors import WorkflowValidationError, shown
from durabletask_aio.core.functions import function_name
from durabletask_aio.core.handles import AsyncWorkflowHandle, WorkflowHandle, result_type

__all__ = [
    "AsyncWorkflowClient",
    "AsyncWorkflowHandle",
    "RequestRefusedError",
    "RequestUnansweredError",
    "WorkflowClient",
    "WorkflowFailedError",
    "WorkflowHandle",
    "WorkflowNotFoundError",
    "WorkflowTerminatedError",
]

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")
TClient = TypeVar("TClient")


class _Client(Generic[TClient]):
    """What both clients are made of."""

    _client_type: type[Any]
    _other: str
    _other_type: type[Any]

    def __init__(self, client: TClient) -> None:
        if not isinstance(client, self._client_type):
            name = type(self).__name__
            right = f"{name}({self._client_type.__name__}(host_address=...))"
            if isinstance(client, self._other_type):
                right = f"{self._other}(client), or {right}"
            raise WorkflowValidationError(
                f"{name} takes upstream's {self._client_type.__name__}, and not {shown(client)}\n"
                f"  wrong: {name}({type(client).__name__}(...))\n"
                f"  right: {right}"
            )
        self._client = client

    @property
    def client(self) -> TClient:
        """Upstream's client, for what has no method here."""
        return self._client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {type(self._client).__name__}>"


def _name(workflow: object, method: str) -> str:
    if isinstance(workflow, str) and workflow:
        return workflow
    if not callable(workflow):
        raise WorkflowValidationError(
            f"{method}() takes a workflow function, or the name it is registered under, and not {shown(workflow)}\n"
            f"  wrong: client.{method}({shown(workflow)})\n"
            f"  right: client.{method}(order, input=...)"
        )
    return function_name(workflow)


def _options(
    instance_id: str | None, start_at: datetime | None, version: str | None, tags: Mapping[str, str] | None
) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "start_at": start_at,
        "version": version,
        "tags": None if tags is None else dict(tags),
    }


class WorkflowClient(_Client[TaskHubGrpcClient]):
    """Starts workflows, and returns handles of their instances, whose result has the type that the workflow returns.

    Example:
        ```python
        client = WorkflowClient(TaskHubGrpcClient(host_address="localhost:4001"))
        handle = client.start(order, input=Order("A-17"))
        receipt = handle.result(timeout=60)
        ```

    It can be used by several threads at once.  Closing upstream's client remains the task of the code that made it.

    Args:
        client: upstream's `TaskHubGrpcClient`, or a client derived from it.

    Raises:
        WorkflowValidationError: for anything else, such as the async client.
    """

    __module__ = "durabletask.aio.client"

    _client_type = TaskHubGrpcClient
    _other, _other_type = "AsyncWorkflowClient", AsyncTaskHubGrpcClient

    @overload
    def start(
        self,
        workflow: str,
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> WorkflowHandle[Any]: ...

    @overload
    def start(
        self,
        workflow: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]],
        *,
        input: TInput,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> WorkflowHandle[TOutput]: ...

    @overload
    def start(
        self,
        workflow: Callable[[AsyncWorkflowContext, None], Coroutine[Any, Any, TOutput]],
        *,
        input: None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> WorkflowHandle[TOutput]: ...

    @overload
    def start(
        self,
        workflow: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]],
        *,
        input: None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> WorkflowHandle[TOutput]: ...

    @overload
    def start(
        self,
        workflow: Callable[[task.OrchestrationContext, TInput], Generator[task.Task[Any], Any, TOutput]],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> WorkflowHandle[TOutput]: ...

    @overload
    def start(
        self,
        workflow: task.Orchestrator[TInput, TOutput],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> WorkflowHandle[TOutput]: ...

    def start(
        self,
        workflow: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        start_at: datetime | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> WorkflowHandle[Any]:
        """Start a workflow.

        Args:
            workflow: the function, async or a generator, or the name it is registered under.
            input: the input of the workflow, encoded by the client's data converter.
            instance_id: the id of the instance; by default a random one.
            start_at: when it starts; by default now.
            version: the version of the instance; by default the client's `default_version`.
            tags: the tags of the instance.

        Returns:
            A handle of the instance.

        Raises:
            WorkflowValidationError: if `workflow` is neither a function nor a name.
        """
        options = _options(instance_id, start_at, version, tags)
        started = self._client.schedule_new_orchestration(_name(workflow, "start"), input=input, **options)
        return WorkflowHandle(self._client, started, result_type(workflow), is_known=True)

    @overload
    def get_handle(self, instance_id: str, workflow: str | None = ...) -> WorkflowHandle[Any]: ...

    @overload
    def get_handle(
        self, instance_id: str, workflow: Callable[..., Coroutine[Any, Any, TOutput]]
    ) -> WorkflowHandle[TOutput]: ...

    @overload
    def get_handle(
        self, instance_id: str, workflow: Callable[..., Generator[task.Task[Any], Any, TOutput]]
    ) -> WorkflowHandle[TOutput]: ...

    @overload
    def get_handle(self, instance_id: str, workflow: task.Orchestrator[Any, TOutput]) -> WorkflowHandle[TOutput]: ...

    def get_handle(self, instance_id: str, workflow: Any = None) -> WorkflowHandle[Any]:
        """Return a handle of an instance that was started elsewhere, without asking the engine.

        Args:
            instance_id: the id of the instance.
            workflow: the function of the instance, from which the handle takes the type of the result.

        Returns:
            A handle; its methods raise `WorkflowNotFoundError` if there is no such instance.

        Raises:
            WorkflowValidationError: if `instance_id` is no text or empty.
        """
        return WorkflowHandle(self._client, _checked_id(instance_id), result_type(workflow))


class AsyncWorkflowClient(_Client[AsyncTaskHubGrpcClient]):
    """Starts workflows, and returns handles of their instances, whose result has the type that the workflow returns.

    Example:
        ```python
        client = AsyncWorkflowClient(AsyncTaskHubGrpcClient(host_address="localhost:4001"))
        handle = await client.start(order, input=Order("A-17"))
        receipt = await handle.result(timeout=60)
        ```

    It has the methods of `WorkflowClient` as coroutines, except for `get_handle`, which waits for nothing.  It belongs
    to the event loop of upstream's client.  Closing upstream's client remains the task of the code that made it.

    Args:
        client: upstream's `AsyncTaskHubGrpcClient`, or a client derived from it.

    Raises:
        WorkflowValidationError: for anything else, such as the synchronous client.
    """

    __module__ = "durabletask.aio.client"

    _client_type = AsyncTaskHubGrpcClient
    _other, _other_type = "WorkflowClient", TaskHubGrpcClient

    @overload
    async def start(
        self,
        workflow: str,
        *,
        input: Any = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> AsyncWorkflowHandle[Any]: ...

    @overload
    async def start(
        self,
        workflow: Callable[[AsyncWorkflowContext, TInput], Coroutine[Any, Any, TOutput]],
        *,
        input: TInput,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> AsyncWorkflowHandle[TOutput]: ...

    @overload
    async def start(
        self,
        workflow: Callable[[AsyncWorkflowContext, None], Coroutine[Any, Any, TOutput]],
        *,
        input: None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> AsyncWorkflowHandle[TOutput]: ...

    @overload
    async def start(
        self,
        workflow: Callable[[AsyncWorkflowContext], Coroutine[Any, Any, TOutput]],
        *,
        input: None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> AsyncWorkflowHandle[TOutput]: ...

    @overload
    async def start(
        self,
        workflow: Callable[[task.OrchestrationContext, TInput], Generator[task.Task[Any], Any, TOutput]],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> AsyncWorkflowHandle[TOutput]: ...

    @overload
    async def start(
        self,
        workflow: task.Orchestrator[TInput, TOutput],
        *,
        input: TInput | None = ...,
        instance_id: str | None = ...,
        start_at: datetime | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> AsyncWorkflowHandle[TOutput]: ...

    async def start(
        self,
        workflow: Any,
        *,
        input: Any = None,
        instance_id: str | None = None,
        start_at: datetime | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AsyncWorkflowHandle[Any]:
        """Start a workflow.

        Args:
            workflow: the function, async or a generator, or the name it is registered under.
            input: the input of the workflow, encoded by the client's data converter.
            instance_id: the id of the instance; by default a random one.
            start_at: when it starts; by default now.
            version: the version of the instance; by default the client's `default_version`.
            tags: the tags of the instance.

        Returns:
            A handle of the instance.

        Raises:
            WorkflowValidationError: if `workflow` is neither a function nor a name.
        """
        name = _name(workflow, "start")
        options = _options(instance_id or self._new_id(name), start_at, version, tags)
        started = await self._client.schedule_new_orchestration(name, input=input, **options)
        return self._handle(started, result_type(workflow), is_known=True)

    @overload
    def get_handle(self, instance_id: str, workflow: str | None = ...) -> AsyncWorkflowHandle[Any]: ...

    @overload
    def get_handle(
        self, instance_id: str, workflow: Callable[..., Coroutine[Any, Any, TOutput]]
    ) -> AsyncWorkflowHandle[TOutput]: ...

    @overload
    def get_handle(
        self, instance_id: str, workflow: Callable[..., Generator[task.Task[Any], Any, TOutput]]
    ) -> AsyncWorkflowHandle[TOutput]: ...

    @overload
    def get_handle(
        self, instance_id: str, workflow: task.Orchestrator[Any, TOutput]
    ) -> AsyncWorkflowHandle[TOutput]: ...

    def get_handle(self, instance_id: str, workflow: Any = None) -> AsyncWorkflowHandle[Any]:
        """Return a handle of an instance that was started elsewhere, without asking the engine.

        Args:
            instance_id: the id of the instance.
            workflow: the function of the instance, from which the handle takes the type of the result.

        Returns:
            A handle; its methods raise `WorkflowNotFoundError` if there is no such instance.

        Raises:
            WorkflowValidationError: if `instance_id` is no text or empty.
        """
        return self._handle(_checked_id(instance_id), result_type(workflow), is_known=False)

    # What the test kit's client does in another way.

    def _new_id(self, name: str) -> str | None:
        """Return the id of an instance that is started without one; `None` leaves the choice to upstream's client."""
        return None

    def _handle(self, instance_id: str, expected_type: Any, *, is_known: bool) -> AsyncWorkflowHandle[Any]:
        return AsyncWorkflowHandle(self._client, instance_id, expected_type, is_known=is_known)


def _checked_id(instance_id: object) -> str:
    if isinstance(instance_id, str) and instance_id:
        return instance_id
    raise WorkflowValidationError(
        f"get_handle() takes the id of an instance, and not {shown(instance_id)}\n"
        f"  wrong: client.get_handle({shown(instance_id)})\n"
        "  right: client.get_handle('order-17')"
    )
