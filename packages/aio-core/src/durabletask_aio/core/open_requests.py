"""`OpenRequests`: the requests of clients that an execution has not answered, and what becomes of them at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durabletask_aio.core import _upstream_events
from durabletask_aio.core._upstream import task
from durabletask_aio.core.replies import ANSWER_EVENT, asked_in, is_request, unanswered_payload


class OpenRequests:
    """The requests of one execution."""

    __slots__ = ("returns", "taken")

    def __init__(self) -> None:
        self.taken: dict[str, None] = {}
        """The instances to reply to, of the requests that the code has taken and not answered, in this order."""
        self.returns: list[Callable[[task.OrchestrationContext], None]] = []
        """What returns a request that a stream has and the code has not taken, in the order of their creation."""

    def carry_over(self, upstream: task.OrchestrationContext) -> None:
        """Return what was not taken to upstream's buffer, from where the next execution gets it."""
        for return_unconsumed in reversed(self.returns):
            return_unconsumed(upstream)

    def end(self, upstream: task.OrchestrationContext, how: str, *, continues: bool) -> None:
        """Tell the clients of open requests that the execution has ended.

        Args:
            upstream: upstream's context.
            how: how it has ended; it follows "the workflow has".
            continues: whether requests that were not taken go to the next execution.
        """
        receivers = list(self.taken)
        self.taken.clear()
        if not continues:
            self.carry_over(upstream)
            asked = map(asked_in, _upstream_events.take_events(upstream, is_request))
            receivers += [each.reply_to for each in asked if each is not None]
        payload: Any = unanswered_payload(how)
        for reply_to in receivers:
            upstream.send_event(reply_to, ANSWER_EVENT, data=payload)
