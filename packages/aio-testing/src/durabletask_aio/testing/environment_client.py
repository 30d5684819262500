"""`EnvironmentClient`: the async client of workflows, on the engine of an environment and on its virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationState

from durabletask_aio.core import AsyncWorkflowError
from durabletask_aio.core.client import AsyncWorkflowClient, AsyncWorkflowHandle
from durabletask_aio.testing.environment_channel import EnvironmentChannel
from durabletask_aio.testing.executor import silent_logger
from durabletask_aio.testing.handle import WorkflowHandle, attach_histories, cause_of_failure, histories_of_failure
from durabletask_aio.testing.runner import InProcessRunner

TOutput = TypeVar("TOutput")


class EnvironmentHandle(AsyncWorkflowHandle[TOutput]):
    """A handle of an instance in an environment."""

    def __init__(
        self,
        runner: InProcessRunner,
        client: AsyncTaskHubGrpcClient,
        instance_id: str,
        expected_type: Any,
        *,
        is_known: bool,
    ) -> None:
        super().__init__(client, instance_id, expected_type, is_known=is_known)
        self._runner = runner

    async def ask(self, name: str, data: Any = None, *, timeout: float | None = None, return_type: Any = None) -> Any:
        """Send a request and wait for the answer, on the environment's clock; see the base class."""
        __tracebackhide__ = True
        await self.status()  # that there is such an instance
        handle = WorkflowHandle(self._runner, self.instance_id)
        return await handle.ask(name, data, timeout=timeout, return_type=return_type)

    def _waits(self, timeout: float | None) -> Iterator[float]:
        """Wait once: no proxy ends the call, and how long it waits does not show on the machine's clock."""
        if timeout != 0:
            yield math.inf if timeout is None else timeout

    def _result(self, state: OrchestrationState, return_type: Any) -> Any:
        """Attach the workflow's exception and the histories, for the report of a failed test."""
        __tracebackhide__ = True
        try:
            return super()._result(state, return_type)
        except AsyncWorkflowError as error:
            attach_histories(error, histories_of_failure(self._runner, self.instance_id))
            raise error from cause_of_failure(self._runner, self.instance_id)


class EnvironmentClient(AsyncWorkflowClient):
    """A client of the workflows in an environment."""

    def __init__(self, runner: InProcessRunner, new_instance_id: Callable[[str], str]) -> None:
        """Create the client.

        Args:
            runner: the engine of the environment.
            new_instance_id: makes the ids of instances that are started without one, from the name of the workflow, so
                that each run of a test has the same.
        """
        channel: Any = EnvironmentChannel(runner)
        super().__init__(
            AsyncTaskHubGrpcClient(
                channel=channel, data_converter=runner.converter, logger=silent_logger, emit_trace_spans=False
            )
        )
        self._runner = runner
        self._new_instance_id = new_instance_id

    def _new_id(self, name: str) -> str:
        return self._new_instance_id(name)

    def _handle(self, instance_id: str, expected_type: Any, *, is_known: bool) -> AsyncWorkflowHandle[Any]:
        return EnvironmentHandle(self._runner, self._client, instance_id, expected_type, is_known=is_known)
