"""`ask` of both kinds of handles: a request to an instance, and the wait for its answer; see `replies`.

What waits for the engine is written twice, in `ask` and `ask_async`; the rest is in `Asking`.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Iterator
from typing import Any

from durabletask_aio.core import replies
from durabletask_aio.core._upstream import converter_of
from durabletask_aio.core._upstream_client import (
    AsyncTaskHubGrpcClient,
    OrchestrationState,
    OrchestrationStatus,
    RpcError,
    TaskHubGrpcClient,
    has_ended,
    not_found_as,
)
from durabletask_aio.core.client_errors import RequestRefusedError, RequestUnansweredError, WorkflowNotFoundError
from durabletask_aio.core.errors import WorkflowValidationError, shown
from durabletask_aio.core.requests import converted, type_name

_logger = logging.getLogger("durabletask.aio")

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0
"""Seconds between two looks at whether the instance still runs: they become longer while nothing happens."""

_GRACE = 2.0
"""Seconds in which an answer may still arrive that an instance has sent before it ended."""

_LIMIT_AFTER_TIMEOUT = 60.0
"""Seconds after the timeout at which the reply workflow ends by itself, for a client whose process has ended."""

_END = 1.0
"""Seconds that the reply workflow of an abandoned request has to end, so that it can be purged."""


def missing(instance_id: str) -> WorkflowNotFoundError:
    """Return the error for an instance that does not exist."""
    return WorkflowNotFoundError(f"there is no instance {instance_id!r}; it was never started, or was purged")


def check_timeout(timeout: object) -> None:
    """Raise `TypeError` or `ValueError` for what is no number of seconds to wait, and not `None`."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds, or None for no limit, and not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout={timeout!r} is no number of seconds to wait")


class Asking:
    """One request, as far as both kinds of clients are the same."""

    def __init__(self, instance_id: str, name: object, data: Any, timeout: float | None) -> None:
        """Check the arguments of `ask`.

        Raises:
            WorkflowValidationError: if the name is no string, or empty.
            TypeError, ValueError: if the timeout is no number of seconds to wait.
        """
        check_timeout(timeout)
        if not isinstance(name, str) or not name:
            raise WorkflowValidationError(
                f"the name of a request is a string that is not empty, and not {shown(name)}\n"
                f"  wrong: handle.ask({shown(name)})\n"
                "  right: handle.ask('approve', data)"
            )
        self.instance_id = instance_id
        self.name = name
        self.timeout = timeout
        self.missing = missing(instance_id)
        self.reply_to = f"durabletask-aio.reply-{uuid.uuid4().hex}"
        self.event = replies.event_of(name)
        self.payload = replies.request_payload(self.reply_to, data)
        limit = None if timeout is None else timeout + _LIMIT_AFTER_TIMEOUT
        self.reply_input = replies.reply_input(instance_id, name, limit)
        self._has_ended = False

    def waits(self) -> Iterator[float]:
        """Return the timeouts of the calls that wait, one after the other, until the timeout is over."""
        end = math.inf if self.timeout is None else time.monotonic() + self.timeout
        wait = _FIRST_WAIT
        while (remaining := end - time.monotonic()) > 0:
            yield min(remaining, _GRACE if self._has_ended else wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def check_running(self, state: OrchestrationState | None) -> None:
        """Raise an error unless the instance can take a request."""
        if state is None:
            raise self.missing
        if has_ended(state):
            raise self._unanswered(state.name, f"{_ENDS[state.runtime_status]}, and takes no requests")

    def look_again(self, state: OrchestrationState | None) -> None:
        """Raise an error if the instance has ended, the second time: its answer may be on the way."""
        if state is None:
            raise self.missing
        if self._has_ended:
            raise self._unanswered(state.name, f"{_ENDS[state.runtime_status]} without answering")
        self._has_ended = has_ended(state)

    def answer(self, state: OrchestrationState | None, return_type: Any) -> Any:
        """Return the answer that the reply workflow has returned.

        Raises:
            RequestRefusedError: if the request was refused.
            RequestUnansweredError: if there is none, and will be none.
        """
        if state is None or state.runtime_status is not OrchestrationStatus.COMPLETED:
            details = None if state is None else state.failure_details
            raise self._unanswered(
                None,
                f"may have answered, but the instance that waits for the answer, {self.reply_to!r}, "
                f"{'has gone' if state is None else _ENDS[state.runtime_status]}"
                f"{'' if details is None else f': {details.message}'}; every worker has to be one of "
                "durabletask-aio-worker, in a version with requests",
            )
        outcome = replies.outcome_in(state.get_output())
        if outcome is None:
            raise self._unanswered(None, "has not answered")
        if outcome.refusal is not None:
            raise RequestRefusedError(self.name, outcome.refusal, instance_id=self.instance_id)
        if outcome.unanswered is not None:
            raise self._unanswered(None, f"has {outcome.unanswered} without answering")
        try:
            return converted(converter_of(state), outcome.answer, return_type)
        except Exception as error:  # Whatever the data converter, or the type itself, raises.
            msg = f"the answer to the request {self.name!r} is no {type_name(return_type)}: {error}"
            raise TypeError(msg) from error

    def timed_out(self, state: OrchestrationState | None, reply: OrchestrationState | None) -> TimeoutError:
        """Return the error for a timeout.

        Args:
            state: the instance that was asked.
            reply: the instance of the reply workflow.
        """
        workflow = "" if state is None else f"workflow {state.name!r}, "
        status = "it is gone" if state is None else f"it is {state.runtime_status.name}"
        hint = ""
        if reply is not None and reply.runtime_status is OrchestrationStatus.PENDING:
            hint = ", and no worker of durabletask-aio-worker has taken the request to reply: is one connected?"
        return TimeoutError(
            f"{workflow}instance {self.instance_id!r}, has not answered the request {self.name!r} within "
            f"{self.timeout:g} seconds; {status}{hint}"
        )

    def _unanswered(self, workflow_name: str | None, what: str) -> RequestUnansweredError:
        return RequestUnansweredError(
            f"the request {self.name!r} has no answer: the workflow {what}",
            instance_id=self.instance_id,
            workflow_name=workflow_name,
        )

    def not_purged(self, error: Exception) -> None:
        """Log that the instance of the reply workflow is still there."""
        _logger.warning("%s, which waited for the answer to a request, has not been purged: %s", self.reply_to, error)


_ENDS = {
    OrchestrationStatus.COMPLETED: "has completed",
    OrchestrationStatus.FAILED: "has failed",
    OrchestrationStatus.TERMINATED: "was terminated",
}


def ask(client: TaskHubGrpcClient, asking: Asking, return_type: Any) -> Any:
    """Send a request, and wait for its answer."""
    asking.check_running(client.get_orchestration_state(asking.instance_id, fetch_payloads=False))
    client.schedule_new_orchestration(replies.REPLY_WORKFLOW, input=asking.reply_input, instance_id=asking.reply_to)
    is_replied = False
    try:
        with not_found_as(asking.missing):
            client.raise_orchestration_event(asking.instance_id, asking.event, data=asking.payload)
        for wait in asking.waits():
            try:
                reply = client.wait_for_orchestration_completion(asking.reply_to, timeout=wait)
            except TimeoutError:  # noqa: PERF203 - an iteration waits for seconds
                asking.look_again(client.get_orchestration_state(asking.instance_id, fetch_payloads=False))
            else:
                is_replied = True
                return asking.answer(reply, return_type)
        reply = client.get_orchestration_state(asking.reply_to, fetch_payloads=False)
        raise asking.timed_out(client.get_orchestration_state(asking.instance_id, fetch_payloads=False), reply)
    finally:
        try:
            if not is_replied:
                client.terminate_orchestration(asking.reply_to)
                client.wait_for_orchestration_completion(asking.reply_to, timeout=_END)
            client.purge_orchestration(asking.reply_to)
        except (RpcError, TimeoutError) as error:
            asking.not_purged(error)


async def ask_async(client: AsyncTaskHubGrpcClient, asking: Asking, return_type: Any) -> Any:
    """Send a request, and wait for its answer."""
    asking.check_running(await client.get_orchestration_state(asking.instance_id, fetch_payloads=False))
    await client.schedule_new_orchestration(
        replies.REPLY_WORKFLOW, input=asking.reply_input, instance_id=asking.reply_to
    )
    is_replied = False
    try:
        with not_found_as(asking.missing):
            await client.raise_orchestration_event(asking.instance_id, asking.event, data=asking.payload)
        for wait in asking.waits():
            try:
                reply = await client.wait_for_orchestration_completion(asking.reply_to, timeout=wait)
            except TimeoutError:  # noqa: PERF203 - an iteration waits for seconds
                asking.look_again(await client.get_orchestration_state(asking.instance_id, fetch_payloads=False))
            else:
                is_replied = True
                return asking.answer(reply, return_type)
        reply = await client.get_orchestration_state(asking.reply_to, fetch_payloads=False)
        raise asking.timed_out(await client.get_orchestration_state(asking.instance_id, fetch_payloads=False), reply)
    finally:
        try:
            if not is_replied:
                await client.terminate_orchestration(asking.reply_to)
                await client.wait_for_orchestration_completion(asking.reply_to, timeout=_END)
            await client.purge_orchestration(asking.reply_to)
        except (RpcError, TimeoutError) as error:
            asking.not_purged(error)
