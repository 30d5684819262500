"""Failures as the engine's second service writes them: the type, a colon and the message."""

from __future__ import annotations

from typing import NamedTuple

from durabletask_aio.core.hosting import cancellation_reason, is_cancellation


class _Failure(NamedTuple):
    error_type: str
    message: str


def _as_failure(text: str) -> _Failure:
    kind, _, message = text.partition(": ")
    return _Failure(kind, message)


def is_cancelled(text: str) -> bool:
    """Whether the failure is that of an instance that was cancelled."""
    return is_cancellation(_as_failure(text))


def cancellation_text(text: str) -> str:
    """Return why an instance was cancelled."""
    return cancellation_reason(_as_failure(text)) or "no reason was given"
