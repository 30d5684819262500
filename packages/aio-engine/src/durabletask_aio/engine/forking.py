"""Where a fork cuts a history, and the instance that begins with the part before the cut.

A turn cannot be cut: what it asked for belongs together.  But the events that it was given can be given to code once
more.  So the events that the other instance has received up to the cut are kept, and the turn that received the last of
them is run again, by the code of today.  An event that records what a turn asked for is kept with the whole turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from durabletask_aio.engine import events, turns
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.state import Changes, EventKind, InboxEvent, Instance
from durabletask_aio.engine.transitions import RUNNING, SUSPENDED, TERMINAL, Context, NotAllowedError

RECEIVED = frozenset(
    {
        "entityLockGranted",
        "entityOperationCompleted",
        "entityOperationFailed",
        "eventRaised",
        "executionResumed",
        "executionSuspended",
        "subOrchestrationInstanceCompleted",
        "subOrchestrationInstanceFailed",
        "taskCompleted",
        "taskFailed",
        "timerFired",
    }
)
"""What an instance receives, and a fork can receive once more; not its start, its termination and its rewinds."""

_BEFORE_THE_CODE = frozenset({"orchestratorStarted", "executionStarted", "executionTerminated", "executionRewound"})
"""What stands at the beginning of a turn, and cannot be received once more."""

_KINDS = {"executionSuspended": EventKind.SUSPEND, "executionResumed": EventKind.RESUME}

_ENDS = {
    "taskCompleted": "taskScheduledId",
    "taskFailed": "taskScheduledId",
    "timerFired": "timerId",
    "subOrchestrationInstanceCompleted": "taskScheduledId",
    "subOrchestrationInstanceFailed": "taskScheduledId",
}
"""The events that end a step, with the field that has its number."""

_SHOWN_NAMES = 10


class Cut(NamedTuple):
    """The part of a history that a fork begins with.

    Attributes:
        kept: whole turns, which are only replayed.
        received: events that the next turn is given.
    """

    kept: list[pb.HistoryEvent]
    received: list[pb.HistoryEvent]


def after_turns(source: Instance, history: Sequence[pb.HistoryEvent], keep: int) -> Cut:
    """Cut after a number of turns; after all but the one that ended the instance if it is 0.

    Raises:
        NotAllowedError: if there are not so many.
    """
    starts = _starts(history)
    available = len(starts) - (source.status in TERMINAL)
    if not 0 <= keep <= len(starts) or available < 1:
        raise NotAllowedError(
            f"Orchestration instance '{source.instance_id}' has had {len(starts)} turns; keep from 1 to {len(starts)}"
        )
    return _whole(history, starts, keep or available)


def after_event(source: Instance, history: Sequence[pb.HistoryEvent], number: int) -> Cut:
    """Cut after an event, by its position from 0.

    Raises:
        NotAllowedError: if there is no such event, or nothing before the first turn's end would be kept.
    """
    if not 0 <= number < len(history):
        raise NotAllowedError(
            f"Orchestration instance '{source.instance_id}' has {len(history)} events, with the numbers from 0 to "
            f"{len(history) - 1}, and none with the number {number}"
        )
    starts = _starts(history)
    turn = sum(1 for start in starts if start <= number)
    if _kind(history[number]) not in RECEIVED and _kind(history[number]) not in _BEFORE_THE_CODE:
        return _whole(history, starts, turn)
    if turn < 2:
        raise NotAllowedError(
            f"cannot fork there: the code of '{source.instance_id}' has not run before this event; restart it instead"
        )
    begin = starts[turn - 1]
    return Cut(
        [each for each in history[:begin] if _kind(each) != "executionCompleted"],
        [each for each in history[begin : number + 1] if _kind(each) in RECEIVED],
    )


def after_step(source: Instance, history: Sequence[pb.HistoryEvent], step: str) -> Cut:
    """Cut after the event that ended a step: an activity, a child, a timer or an external event.

    Args:
        source: the instance.
        history: its history.
        step: the name of the activity, child or event, or `#` and the number of the action.

    Raises:
        NotAllowedError: if none of that name has ended, or more than one.
    """
    names: dict[int, str] = {}
    ends: dict[str, list[int]] = {}
    for number, event in enumerate(history):
        kind = _kind(event)
        if kind in ("taskScheduled", "subOrchestrationInstanceCreated"):
            names[event.eventId] = getattr(event, kind).name
        elif kind == "eventRaised":
            ends.setdefault(event.eventRaised.name, []).append(number)
        elif kind in _ENDS:
            action = getattr(getattr(event, kind), _ENDS[kind])
            ends.setdefault(f"#{action}", []).append(number)
            if action in names:
                ends.setdefault(names[action], []).append(number)
    found = ends.get(step, [])
    if len(found) == 1:
        return after_event(source, history, found[0])
    if found:
        raise NotAllowedError(
            f"'{step}' has ended {len(found)} times in '{source.instance_id}'; fork after one of the events "
            f"{', '.join(map(str, found))}"
        )
    known = ", ".join([name for name in ends if not name.startswith("#")][:_SHOWN_NAMES]) or "none"
    raise NotAllowedError(f"no step '{step}' has ended in '{source.instance_id}'; there are: {known}")


def fork(source: Instance, new_id: str, cut: Cut, context: Context) -> Changes:
    """Start an instance whose history so far is the beginning of another one's.

    Args:
        source: the other instance.
        new_id: the id of the new one.
        cut: what it begins with.
        context: time and ids.

    Raises:
        NotAllowedError: if the history leaves a child or a critical section open: these belong to the other instance.
    """
    history = [*cut.kept, *cut.received]
    for event in turns.unanswered(history):
        if event.HasField("subOrchestrationInstanceCreated"):
            child = event.subOrchestrationInstanceCreated.instanceId
            raise NotAllowedError(f"cannot fork there: the sub-orchestration '{child}' is under way; fork elsewhere")
    if turns.held_locks(history):
        raise NotAllowedError("cannot fork there: it is inside a critical section; fork elsewhere")
    forked = source._replace(
        key=0,
        instance_id=new_id,
        execution_id=context.new_id(),
        turn_id=context.new_id(),
        status=SUSPENDED if turns.is_suspended(cut.kept) else RUNNING,
        created_at=context.now,
        turn_time=max(events.microseconds(event.timestamp) for event in cut.kept),
        completed_at=None,
        scheduled_at=None,
        parent=None,
        rewinding=False,
    )
    response = pb.OrchestratorResponse()
    action = response.actions.add(id=-1)
    action.rewindOrchestration.newHistory.extend(cut.kept)
    inbox = [
        InboxEvent(0, event.SerializeToString(), _KINDS.get(_kind(event), EventKind.OTHER)) for event in cut.received
    ]
    turn = turns.Turn((), inbox, forked.turn_time, response)
    changes = turns.complete_turn(forked, turn, pb.ExecutionStartedEvent, lambda event: False, context)
    changes.inbox += inbox
    return changes


def _whole(history: Sequence[pb.HistoryEvent], starts: Sequence[int], keep: int) -> Cut:
    kept = history[: starts[keep]] if keep < len(starts) else history
    return Cut([each for each in kept if _kind(each) != "executionCompleted"], [])


def _starts(history: Sequence[pb.HistoryEvent]) -> list[int]:
    return [number for number, event in enumerate(history) if event.HasField("orchestratorStarted")]


def _kind(event: pb.HistoryEvent) -> str:
    return event.WhichOneof("eventType") or ""
