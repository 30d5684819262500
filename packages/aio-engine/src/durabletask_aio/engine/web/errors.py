"""What went wrong, in words for users."""

from __future__ import annotations

from typing import Any, cast

import grpc


class PageError(Exception):
    """A request that cannot be answered as asked.

    Attributes:
        status: of HTTP.
        title: in a few words.
        text: what happened, and what to do.
    """

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.title = title
        self.text = text


_KINDS: dict[grpc.StatusCode, tuple[int, str]] = {
    grpc.StatusCode.NOT_FOUND: (404, "Not found"),
    grpc.StatusCode.ALREADY_EXISTS: (409, "It exists already"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "Not possible in this state"),
    grpc.StatusCode.INVALID_ARGUMENT: (400, "The engine does not accept this"),
    grpc.StatusCode.UNIMPLEMENTED: (501, "The engine does not offer this"),
    grpc.StatusCode.UNAUTHENTICATED: (502, "The engine refuses this page"),
    grpc.StatusCode.PERMISSION_DENIED: (502, "The engine refuses this page"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (502, "Too large"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "The engine does not answer in time"),
    grpc.StatusCode.UNAVAILABLE: (503, "The engine does not answer"),
    grpc.StatusCode.CANCELLED: (503, "The engine does not answer"),
}
_ADVICE: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "It may be busy; try again.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "The answer is larger than this page's connection to the engine accepts; raise "
        "grpc.max_receive_message_length of its channel."
    ),
    grpc.StatusCode.UNAUTHENTICATED: "The page's connection needs the engine's token.",
    grpc.StatusCode.UNAVAILABLE: "Is it running, and can this machine reach it? The page tries again.",
    grpc.StatusCode.CANCELLED: "Is it running, and can this machine reach it? The page tries again.",
    grpc.StatusCode.UNIMPLEMENTED: "The page works with the engine of durabletask-aio-engine.",
}


def explained(error: grpc.RpcError) -> PageError:
    """Return what an error of the engine, or of the way to it, means to a user."""
    call = cast("Any", error)
    code: grpc.StatusCode = call.code()
    status, title = _KINDS.get(code, (502, "The engine has failed"))
    details = str(call.details() or "").strip()
    advice = _ADVICE.get(code, "")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or not details:
        text = advice or f"It reports {code.name}."
    else:
        sentence = details[:1].upper() + details[1:]
        text = " ".join(part for part in (sentence if sentence.endswith(".") else f"{sentence}.", advice) if part)
    return PageError(status, title, text)
