"""Requests in workflow code: `ctx.requests` as an async iterator, and what happens to requests that stay open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_origin

from durabletask_aio.core import _upstream, _upstream_events, arguments
from durabletask_aio.core._upstream import converter_of, task
from durabletask_aio.core.call_sites import call_site
from durabletask_aio.core.errors import shown
from durabletask_aio.core.operations import REQUEST, ScheduledOperation
from durabletask_aio.core.replies import (
    ANSWER_EVENT,
    answer_payload,
    asked_in,
    event_of,
    refusal_payload,
)

if TYPE_CHECKING:
    from durabletask_aio.core.execution import Execution
    from durabletask_aio.core.loop import WorkflowLoop

T = TypeVar("T")


class Request(Generic[T]):
    """A request of a client, which waits for the answer in `handle.ask`.

    Answer it with `answer` or `refuse`, once, at any time until the workflow function returns.  A client whose request
    has not been answered by then is told so.

    Attributes:
        name: the name of the request.
        data: what the client has sent, of the type that `ctx.requests` was given.
    """

    __slots__ = ("_answered_at", "_execution", "_reply_to", "data", "name")

    name: str
    data: T

    def __init__(self, execution: Execution, name: str, reply_to: str, data: T) -> None:
        self._execution = execution
        self._reply_to = reply_to
        self._answered_at = ""
        self.name = name
        self.data = data

    @property
    def is_answered(self) -> bool:
        """Whether it has been answered or refused."""
        return bool(self._answered_at)

    def answer(self, value: Any = None) -> None:
        """Answer the request: `handle.ask` returns the value.

        Args:
            value: the answer, which the worker's data converter can serialise.

        Raises:
            WorkflowValidationError: if the value cannot be serialised, or the request has been answered already.
        """
        execution = self._execution
        execution.scheduler("requests")
        arguments.serializable(execution, value, "request.answer(", "answer")
        self._send(answer_payload(value), "request.answer(...)")

    def refuse(self, reason: str) -> None:
        """Refuse the request: `handle.ask` raises `RequestRefusedError` with the reason.

        Args:
            reason: why; for the client.

        Raises:
            WorkflowValidationError: if the reason is no text or empty, or the request has been answered already.
        """
        execution = self._execution
        execution.scheduler("requests")
        arguments.check_text(execution, reason, "the reason of a refusal", "request.refuse(")
        self._send(refusal_payload(reason), "request.refuse(...)")

    def _send(self, payload: dict[str, Any], call: str) -> None:
        execution = self._execution
        upstream = execution.scheduler("requests")
        if self._answered_at:
            raise execution.usage_error(
                f"the request {self.name!r} was answered at {self._answered_at}, and is answered once only",
                f"request.answer(1); {call}",
                f"if not request.is_answered: {call}",
            )
        self._answered_at = call_site()
        execution.requests.taken.pop(self._reply_to, None)
        upstream.send_event(self._reply_to, ANSWER_EVENT, data=payload)

    def __repr__(self) -> str:
        return f"<Request {self.name!r} {'answered' if self._answered_at else 'open'}>"


class RequestOperation(ScheduledOperation[Any]):
    """The wait for a request: for the event of it, under the name of the request."""

    __slots__ = ()

    def _take_back(self) -> None:
        waiting = _upstream.pending_event(self._loop.execution.upstream, event_of(self.name), id(self))
        if waiting is not None:
            waiting.cancel()


class RequestStream(AsyncIterator["Request[T]"]):
    """`async for request in ctx.requests("name")`: the requests of that name, in the order in which they arrived.

    No request is lost: an iteration that is cancelled after its request has arrived, for example by a timeout, keeps it
    for the next iteration, and `continue_as_new` carries over what was not taken.  It never ends by itself.
    """

    def __init__(self, execution: Execution, loop: WorkflowLoop, name: str, data_type: Any) -> None:
        self._execution = execution
        self._loop = loop
        self._name = name
        self._type = data_type
        self._next: RequestOperation | None = None
        execution.requests.returns.append(self._return_unconsumed)

    def __aiter__(self) -> RequestStream[T]:
        return self

    async def __anext__(self) -> Request[T]:
        while True:
            waiting = self._next
            if waiting is None or waiting.cancelled():
                waiting = self._next = self._wait()
            payload = await waiting
            if self._next is not waiting:
                continue  # Another task iterates over the same stream, and has taken it.
            self._next = None
            request = self._request(payload)
            if request is not None:
                return request

    def _wait(self) -> RequestOperation:
        waiting = self._execution.scheduler("requests").wait_for_external_event(event_of(self._name))
        return RequestOperation(self._loop, REQUEST, self._name, None, waiting)

    def _request(self, payload: Any) -> Request[T] | None:
        """Return the request of a payload; `None` if its data is not of the type, and it has been refused."""
        execution = self._execution
        asked = asked_in(payload)
        if asked is None:
            execution.logger.warning("a request %r without an id to reply to is ignored", self._name)
            return None
        request: Request[Any] = Request(execution, self._name, asked.reply_to, asked.data)
        execution.requests.taken[asked.reply_to] = None
        try:
            request.data = converted(converter_of(execution.upstream), asked.data, self._type)
        except Exception as error:  # Whatever the data converter, or the type itself, raises.
            request.refuse(f"the data of the request {self._name!r} is no {type_name(self._type)}: {error}")
            return None
        return cast("Request[T]", request)

    def _return_unconsumed(self, upstream: task.OrchestrationContext) -> None:
        """Return a request that arrived here but was not taken to upstream's buffer."""
        waiting = self._next
        self._next = None
        if waiting is not None and waiting.done() and not waiting.cancelled():
            _upstream_events.return_event(upstream, event_of(self._name), waiting.result())


def converted(converter: Any, data: Any, expected: Any) -> Any:
    """Return plain data as `expected`.

    Raises:
        Exception: what the converter or the type raises for data that does not fit.
        TypeError: if the converter returned something else.
    """
    if expected is None:
        return data
    value = converter.coerce(data, expected)
    if not _is_instance(value, get_origin(expected) or expected):
        raise TypeError(f"it is {shown(data)}")
    return value


def type_name(expected: Any) -> str:
    """Return the name of a type, for messages."""
    return getattr(expected, "__name__", None) or str(expected)


def _is_instance(value: Any, type_: Any) -> bool:
    """Whether a value is an instance of a type, as far as the type can be asked."""
    if not isinstance(type_, type) or type_.__module__ in ("types", "typing"):
        return True
    if type_ is float and type(value) is int:
        return True  # JSON does not tell 1.0 from 1.
    try:
        return isinstance(value, type_)
    except TypeError:  # A TypedDict, or a protocol.
        return True
