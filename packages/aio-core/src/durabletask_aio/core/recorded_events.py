"""What the events stand for with which steps, patches and requests are recorded, for those who show a history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from durabletask_aio.core import _upstream_journal
from durabletask_aio.core._upstream import pb
from durabletask_aio.core.journal import PATCH, STEP, WAKE_UP
from durabletask_aio.core.replies import ANSWER_EVENT, REQUEST_PREFIX, asked_in, is_request, outcome_in

Recorded: TypeAlias = Literal["step", "patch", "wake-up", "request", "answer"]


@dataclass(frozen=True)
class RecordedEvent:
    """A step, patch, request or answer, or the wake-up of an instance after its steps were recorded."""

    kind: Recorded
    name: str
    """The name of the step, patch or request; empty for an answer, until `EventReader` finds its request."""

    input: str | None = None
    """Encoded: the arguments of a step as a list, or the data of a request; `None` if it has none."""

    result: str | None = None
    """Encoded: the result of a step, or an answer; `None` if there is none."""

    failure: pb.TaskFailureDetails | None = None
    """How an attempt of a step has failed."""

    note: str = ""
    """What became of it otherwise: a step was cancelled, a request refused."""

    reply_to: str = ""
    """The instance that waits for the answer."""


class EventReader:
    """Tells which events of one history are reserved, and what they stand for, in the order of the history."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}

    def sent(self, receiver: str, name: str, data: str) -> RecordedEvent | None:
        """Return what an event that the instance has sent stands for; `None` if it is the user's.

        Args:
            receiver: the instance that it is sent to.
            name: of the event.
            data: its encoded data.
        """
        if name == ANSWER_EVENT:
            return self._answer(receiver, data)
        if name.startswith(WAKE_UP):
            return RecordedEvent("wake-up", "")
        if receiver != _upstream_journal.NOBODY:
            return None
        if name.startswith(STEP):
            return _step(name[len(STEP) :], _fields(data))
        return RecordedEvent("patch", name[len(PATCH) :]) if name.startswith(PATCH) else None

    def received(self, name: str, data: str) -> RecordedEvent | None:
        """Return what an event that the instance has received stands for; `None` if it is the user's.

        Args:
            name: of the event.
            data: its encoded data.
        """
        if name.startswith(WAKE_UP):
            return RecordedEvent("wake-up", "")
        asked = asked_in(_fields(data)) if is_request(name) else None
        if asked is None:
            return None
        request = name[len(REQUEST_PREFIX) :]
        self._requests[asked.reply_to] = request
        return RecordedEvent("request", request, _encoded(asked.data), reply_to=asked.reply_to)

    def _answer(self, receiver: str, data: str) -> RecordedEvent | None:
        outcome = outcome_in(_fields(data))
        if outcome is None:
            return None
        name = self._requests.get(receiver, "")
        if outcome.refusal is not None:
            return RecordedEvent("answer", name, note=f"refused: {outcome.refusal}", reply_to=receiver)
        if outcome.unanswered is not None:
            note = f"not answered: the workflow has {outcome.unanswered}"
            return RecordedEvent("answer", name, note=note, reply_to=receiver)
        return RecordedEvent("answer", name, result=_encoded(outcome.answer), reply_to=receiver)


def _step(name: str, record: dict[str, Any]) -> RecordedEvent:
    failure = record.get("failure")
    details = None
    if isinstance(failure, dict):
        details = _upstream_journal.failure_from_dict(cast("dict[str, Any]", failure))
    note = "cancelled" if record.get("cancelled") else "" if "end" in record else "not waited for"
    return RecordedEvent("step", name, _text(record.get("input")), _text(record.get("result")), details, note)


def _fields(data: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _encoded(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
