"""The events of a history for a page: names for users, payloads, failures, and what belongs together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_aio.core.hosting import EventReader, RecordedEvent, cancellation_reason, is_cancellation
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.forking import RECEIVED
from durabletask_aio.engine.web.formats import to_datetime

TITLES = {
    "executionStarted": "Started",
    "executionCompleted": "Ended",
    "executionTerminated": "Terminated",
    "executionSuspended": "Suspended",
    "executionResumed": "Resumed",
    "executionRewound": "Rewound",
    "taskScheduled": "Activity scheduled",
    "taskCompleted": "Activity completed",
    "taskFailed": "Activity failed",
    "subOrchestrationInstanceCreated": "Child started",
    "subOrchestrationInstanceCompleted": "Child completed",
    "subOrchestrationInstanceFailed": "Child failed",
    "timerCreated": "Timer created",
    "timerFired": "Timer fired",
    "orchestratorStarted": "Turn started",
    "orchestratorCompleted": "Turn ended",
    "eventSent": "Event sent",
    "eventRaised": "Event received",
    "continueAsNew": "Continued as new",
    "entityOperationCalled": "Entity called",
    "entityOperationSignaled": "Entity signaled",
    "entityOperationCompleted": "Entity operation completed",
    "entityOperationFailed": "Entity operation failed",
    "entityLockRequested": "Lock requested",
    "entityLockGranted": "Lock granted",
    "entityUnlockSent": "Lock released",
}
"""What the page calls the kinds of events; others it calls as the protocol does."""

RECORDED_TITLES = {
    "step": "Step",
    "patch": "Patch",
    "wake-up": "Pause until steps are recorded",
    "request": "Request received",
    "answer": "Request answered",
}
"""What it calls events that stand for something else."""

_PAYLOADS = frozenset({"input", "result", "output", "data", "reason", "carryoverData"})
"""Fields that hold what user code has encoded."""

_REFERENCES = ("taskScheduledId", "timerId", "requestId", "criticalSectionId")
"""Fields that tell which action an event belongs to."""

_HIDDEN = frozenset({"instanceId", "orchestrationInstance", "parentTraceContext", "traceContext", *_REFERENCES})
"""Fields that are shown elsewhere, or mean something to tracing only."""


@dataclass(frozen=True)
class Failure:
    """A failure with those that caused it.

    Attributes:
        kind: the type of the error.
        message: its message.
        stack: its stack trace, empty if there is none.
        is_final: whether it is not to be retried.
        cause: the failure that it wraps, `None` if there is none.
    """

    kind: str
    message: str
    stack: str
    is_final: bool
    cause: Failure | None = None

    @property
    def chain(self) -> list[Failure]:
        """This failure, its cause, the cause of that, and so on."""
        chain: list[Failure] = []
        each: Failure | None = self
        while each is not None:
            chain.append(each)
            each = each.cause
        return chain

    @property
    def error_type(self) -> str:
        """The type of the error, as clients call it."""
        return self.kind

    @property
    def is_cancellation(self) -> bool:
        """Whether the instance was cancelled."""
        return is_cancellation(self)

    @property
    def reason(self) -> str | None:
        """Why the instance was cancelled, `None` if no reason was given."""
        return cancellation_reason(self)

    @property
    def short_kind(self) -> str:
        """The type without its module."""
        return self.kind.rpartition(".")[2] or self.kind


@dataclass
class Event:
    """An event of a history.

    Attributes:
        number: its position, from 0.
        turn: the number of its turn, from 1; 0 before the first.
        kind: what the protocol calls it.
        subject: the name of what it is about.
        time: when it was recorded; `None` if it does not say.
        id: the number of the action that it records, or -1.
        reference: what tells which action it is the outcome of, empty if it is none.
        payloads: names and values of what user code has encoded.
        facts: names and values of the other fields.
        failure: the failure that it records.
        target: the instance or entity that it is about, empty if it is about this one.
        recorded: what it stands for, if it is an event with which a step, patch or request is recorded: step, patch,
            wake-up, request or answer.
    """

    number: int
    turn: int
    kind: str
    subject: str
    time: datetime | None
    id: int
    reference: str
    payloads: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    facts: list[tuple[str, str | datetime]] = field(default_factory=list[tuple[str, "str | datetime"]])
    failure: Failure | None = None
    target: str = ""
    recorded: str = ""

    @property
    def title(self) -> str:
        """Its kind for users."""
        if self.recorded == "wake-up" and self.kind == "eventRaised":
            return "Steps are recorded"
        return RECORDED_TITLES.get(self.recorded) or TITLES.get(self.kind, self.kind)

    @property
    def is_failure(self) -> bool:
        """Whether it records a failure."""
        return self.failure is not None

    @property
    def is_turn(self) -> bool:
        """Whether it begins a turn."""
        return self.kind == "orchestratorStarted"

    @property
    def can_fork(self) -> bool:
        """Whether an instance can begin with it as the last event; otherwise one begins with its whole turn."""
        return self.turn > 1 and self.kind in RECEIVED

    @property
    def is_child(self) -> bool:
        """Whether its target is an instance."""
        return self.kind.startswith("subOrchestration") or self.kind == "eventSent"


def read(history: Sequence[pb.HistoryEvent]) -> list[Event]:
    """Return the events of a history for a page."""
    subjects: dict[tuple[str, str], str] = {}
    targets: dict[tuple[str, str], str] = {}
    events: list[Event] = []
    reader = EventReader()
    turn = 0
    for number, event in enumerate(history):
        kind = event.WhichOneof("eventType") or ""
        turn += kind == "orchestratorStarted"
        shown = _event(number, turn, kind, event)
        recorded = _recorded(reader, kind, event)
        if recorded is not None:
            _describe(shown, recorded)
            events.append(shown)
            continue
        key = (_family(kind), shown.reference or str(shown.id))
        if shown.subject:
            subjects[key] = shown.subject
        else:
            shown.subject = subjects.get(key, "")
        if shown.target:
            targets[key] = shown.target
        else:
            shown.target = targets.get(key, "")
        events.append(shown)
    return events


def _recorded(reader: EventReader, kind: str, event: pb.HistoryEvent) -> RecordedEvent | None:
    if kind == "eventSent":
        sent = event.eventSent
        return reader.sent(sent.instanceId, sent.name, sent.input.value)
    if kind == "eventRaised":
        return reader.received(event.eventRaised.name, event.eventRaised.input.value)
    return None


def _describe(shown: Event, recorded: RecordedEvent) -> None:
    """Show an event as what it stands for."""
    shown.recorded, shown.subject = recorded.kind, recorded.name
    shown.target = ""  # No instance, this one, or one that the client purges when it has the answer.
    given = "arguments" if recorded.kind == "step" else "data"
    got = "result" if recorded.kind == "step" else "answer"
    payloads = ((given, recorded.input), (got, recorded.result))
    shown.payloads = [(name, text) for name, text in payloads if text is not None]
    if recorded.failure is not None:
        shown.failure = failure_of(recorded.failure)
    if recorded.note:
        shown.facts.append(("outcome", recorded.note))


def _family(kind: str) -> str:
    """Return what the events of one action have in common."""
    return re.sub(r"(Scheduled|Completed|Failed|Created|Fired|Called|Requested|Granted)$", "", kind)


def _event(number: int, turn: int, kind: str, event: pb.HistoryEvent) -> Event:
    shown = Event(number, turn, kind, "", _time(event.timestamp), event.eventId, "")
    if not kind:
        return shown
    body: Any = getattr(event, kind)
    for descriptor, value in body.ListFields():
        _add_field(shown, kind, descriptor.name, value)
    for name in _REFERENCES:
        if name in body.DESCRIPTOR.fields_by_name:
            shown.reference = str(getattr(body, name))
    if kind in ("entityOperationCalled", "entityOperationSignaled"):
        shown.subject = body.operation
        shown.target = body.targetInstanceId.value
    elif kind == "entityLockRequested":
        shown.subject = ", ".join(body.lockSet)
    elif kind == "executionCompleted":
        shown.subject = pb.OrchestrationStatus.Name(body.orchestrationStatus).rpartition("STATUS_")[2].lower()
    return shown


def _add_field(shown: Event, kind: str, name: str, value: Any) -> None:
    if name in _PAYLOADS:
        shown.payloads.append((name, _text(value)))
    elif name == "failureDetails":
        shown.failure = failure_of(value)
    elif name == "name":
        shown.subject = _text(value)
    elif name == "instanceId" and kind != "executionStarted":
        shown.target = _text(value)
    elif name not in _HIDDEN:
        shown.facts.extend(_facts(name, value))


def _facts(name: str, value: Any) -> Iterator[tuple[str, str | datetime]]:
    if isinstance(value, Timestamp):
        yield _words(name), to_datetime(value)
    elif hasattr(value, "ListFields") and not _is_wrapper(value):
        for descriptor, inner in value.ListFields():
            yield from _facts(f"{name} {descriptor.name}", inner)
    elif hasattr(value, "items"):
        yield from ((f"{_words(name)} {key}", str(inner)) for key, inner in value.items())
    elif isinstance(value, str | bytes | int | float):
        yield _words(name), str(value)
    elif _is_wrapper(value):
        yield _words(name), _text(value)
    else:
        yield _words(name), ", ".join(map(str, value))


def _is_wrapper(value: Any) -> bool:
    return hasattr(value, "value")


def _text(value: Any) -> str:
    return str(value.value if _is_wrapper(value) else value)


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: f" {match[1].lower()}", name)


def _time(when: Timestamp) -> datetime | None:
    # An engine that does not set a time leaves it at zero.
    return to_datetime(when) if when.seconds > 0 else None


def failure_of(details: pb.TaskFailureDetails) -> Failure:
    """Return a failure for a page."""
    chain = [details]
    while chain[-1].HasField("innerFailure"):
        chain.append(chain[-1].innerFailure)
    cause: Failure | None = None
    for each in reversed(chain):
        cause = Failure(
            each.errorType, each.errorMessage, each.stackTrace.value.strip("\n"), each.isNonRetriable, cause
        )
    assert cause is not None
    return cause


def failed_operations(events: Iterable[Event]) -> list[Event]:
    """Return the events that record the failure of an activity, a step, a child or an operation of an entity."""
    return [event for event in events if event.failure is not None and event.kind != "executionCompleted"]


def started_at(events: Iterable[Event]) -> datetime:
    """Return the time of the first event that has one."""
    return next((event.time for event in events if event.time is not None), datetime.now(timezone.utc))
