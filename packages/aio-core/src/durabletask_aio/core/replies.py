"""Requests and their answers as clients, workers and workflows see them: reserved names, payloads, the reply workflow.

A client that asks an instance starts an instance of `REPLY_WORKFLOW` and raises an event at the instance it asks, with
the id of the former.  The workflow answers by an event to that id; the reply workflow returns what it gets, the client
takes the result and purges the instance.  So an answer is delivered on each engine that delivers events, at most once,
and is recorded in the history of the workflow as an event it has sent.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any, NamedTuple, cast

from durabletask_aio.core._upstream import task

REPLY_WORKFLOW = "durabletask-aio.reply"
"""The name under which workers register `reply`; reserved."""

REQUEST_PREFIX = "durabletask-aio.request."
"""What the events of requests begin with; the name of the request follows.  Reserved, and in lower case."""

ANSWER_EVENT = "durabletask-aio.answer"
"""The event that an instance of the reply workflow waits for."""

_ANSWER, _REFUSAL, _UNANSWERED = "answer", "refusal", "unanswered"


class Asked(NamedTuple):
    """The payload of a request."""

    reply_to: str
    """The instance of the reply workflow."""

    data: Any
    """What the client has sent, as plain data."""


def event_of(name: str) -> str:
    """Return the name of the event of a request."""
    return REQUEST_PREFIX + name


def is_request(event_name: str) -> bool:
    """Whether an event is a request, by its name in any case."""
    return event_name.casefold().startswith(REQUEST_PREFIX)


def request_payload(reply_to: str, data: Any) -> dict[str, Any]:
    """Return the payload of a request, which every data converter can serialise if it can serialise `data`."""
    return {"reply_to": reply_to, "data": data}


def asked_in(payload: object) -> Asked | None:
    """Return what the payload of a request asks; `None` if it is none."""
    if not isinstance(payload, dict):
        return None
    fields = cast("dict[str, Any]", payload)
    reply_to = fields.get("reply_to")
    # An id with an @ in front is that of an entity.
    is_instance = isinstance(reply_to, str) and bool(reply_to.strip()) and not reply_to.startswith("@")
    return Asked(cast(str, reply_to), fields.get("data")) if is_instance else None


def answer_payload(value: Any) -> dict[str, Any]:
    """Return the payload of an answer."""
    return {_ANSWER: value}


def refusal_payload(reason: str) -> dict[str, Any]:
    """Return the payload for a request that the workflow has refused."""
    return {_REFUSAL: reason}


def unanswered_payload(how: str) -> dict[str, Any]:
    """Return the payload for a request that is open at the end of the execution; `how` says how that has ended."""
    return {_UNANSWERED: how}


class Outcome(NamedTuple):
    """What has become of a request."""

    answer: Any
    refusal: str | None
    """Why it was refused, or `None`."""

    unanswered: str | None
    """How the execution ended that has not answered it, or `None`."""


def outcome_in(payload: object) -> Outcome | None:
    """Return what the payload of an answer says; `None` if it is none."""
    fields = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
    if _ANSWER in fields:
        return Outcome(fields[_ANSWER], None, None)
    if _REFUSAL in fields:
        return Outcome(None, str(fields[_REFUSAL]), None)
    return Outcome(None, None, str(fields[_UNANSWERED])) if _UNANSWERED in fields else None


def reply_input(instance_id: str, name: str, limit: float | None) -> dict[str, Any]:
    """Return the input of an instance of the reply workflow.

    Args:
        instance_id: the instance that is asked.
        name: the name of the request.
        limit: the seconds after which the reply workflow ends by itself; `None` for no limit.
    """
    return {"instance_id": instance_id, "request": name, "limit": limit}


def reply(ctx: task.OrchestrationContext, given: dict[str, Any] | None) -> Generator[task.Task[Any], Any, Any]:
    """Wait for an answer, and return it: the workflow that workers register as `REPLY_WORKFLOW`.

    Args:
        ctx: upstream's context.
        given: the result of `reply_input`.

    Yields:
        The task that it waits for.

    Returns:
        The payload of the answer; `None` if the limit is over, so that the instance of a client that has died ends.
    """
    answer = ctx.wait_for_external_event(ANSWER_EVENT)
    limit = (given or {}).get("limit")
    if limit is None:
        return (yield answer)
    winner = yield task.when_any([answer, ctx.create_timer(timedelta(seconds=limit))])
    return answer.get_result() if winner is answer else None
