"""Which events a rewind takes out of the history of a failed instance: what failed it, and nothing else.

Upstream takes out every failure, those that the workflow has handled too: attempts before a successful retry, and
failures that it has caught.  What the workflow did because of them stays, and on replay no code asks for it: the
instance fails again, with a divergence, and no other rewind can help.

Here the failure with which the instance ended decides.  It names the step that raised it, and the failure of that step
is taken out, with the request of its last attempt, so that it is asked for again.  If it names no step, the workflow
itself failed, and only its end is taken out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from durabletask_aio.core._upstream import CHILD_CREATED, CHILD_FAILED, pb
from durabletask_aio.core.replies import ANSWER_EVENT

_FAILED_OPERATION = "TaskFailedError"
_DIVERGENCE = "durabletask.aio.HistoryDivergenceError"
_CHAIN_LENGTH = 11

REQUESTS = frozenset(
    {
        "entityLockRequested",
        "entityOperationCalled",
        "entityOperationSignaled",
        "entityUnlockSent",
        "eventSent",
        CHILD_CREATED,
        "taskScheduled",
        "timerCreated",
    }
)
"""The events that record what a workflow has asked for: an engine confirms with them that it has taken an action.

None of them runs workflow code.
"""


def events_to_remove(history: Sequence[pb.HistoryEvent], instance_id: str) -> set[int] | None:
    """Return the positions of the events that a rewind takes out.

    Args:
        history: the whole history of the failed instance.
        instance_id: the instance.

    Returns:
        The positions; `None` if the end does not say which step failed, for upstream to decide.
    """
    ends = [position for position, event in enumerate(history) if event.HasField("executionCompleted")]
    if not ends or not history[ends[-1]].executionCompleted.HasField("failureDetails"):
        return None
    failure = history[ends[-1]].executionCompleted.failureDetails
    steps = _failed_steps(failure, instance_id)
    if steps is None:
        return None
    removed = set(ends)
    for step in steps:
        removed |= _last_attempt(history, step)
    begin = max(
        (at for at, event in enumerate(history[: ends[-1]]) if event.HasField("orchestratorStarted")), default=0
    )
    # The clients of open requests have been told of the end; code that continues does not tell them, and may answer.
    removed |= {at for at in range(begin, ends[-1]) if history[at].eventSent.name == ANSWER_EVENT}
    if failure.errorType == _DIVERGENCE:
        # Code that does not fit has asked for these; they have the numbers of steps that the history has already.
        removed |= {at for at in range(begin, ends[-1]) if (history[at].WhichOneof("eventType") or "") in REQUESTS}
    return removed


def _failed_steps(failure: pb.TaskFailureDetails, instance_id: str) -> set[int] | None:
    """Return the numbers of the steps that failed the instance; `None` if one failed and its number is not known."""
    level = failure
    for _ in range(_CHAIN_LENGTH):
        steps = _steps_in(level.errorMessage, instance_id)
        if level.errorType.endswith(_FAILED_OPERATION):
            return steps or None  # The causes of it are those of the activity or the child.
        if level.errorType.endswith("ExceptionGroup") and steps:
            return steps
        if not level.HasField("innerFailure"):
            break
        level = level.innerFailure
    return set()


def _steps_in(message: str, instance_id: str) -> set[int]:
    """Return the steps that a message names: upstream's names one at its beginning, this project's any number."""
    found = re.match(
        rf"(?:{re.escape(instance_id)}: (?:Activity|Step)|Sub-orchestration) task #(\d+) failed: ", message
    )
    if found is not None:
        return {int(found[1])}
    own = rf"instance {re.escape(repr(instance_id))}, step (\d+)\]"
    return {int(step) for step in re.findall(own, message)}


def _last_attempt(history: Sequence[pb.HistoryEvent], step: int) -> set[int]:
    """Return the positions of the last failure of a step and of the request that it answers.

    The request for a child stays: engines find the children to rewind by it.
    """
    for position in range(len(history) - 1, -1, -1):
        event = history[position]
        if event.HasField(CHILD_FAILED):
            if getattr(event, CHILD_FAILED).taskScheduledId == step:
                return {position}
        elif event.HasField("taskFailed") and event.taskFailed.taskScheduledId == step:
            before = range(position)
            requests = [at for at in before if history[at].HasField("taskScheduled") and history[at].eventId == step]
            return {position, *requests[-1:]}
        elif event.HasField("eventSent") and event.eventId == step and event.eventSent.name.startswith("$step."):
            return {position}  # the record of a step, which is tried again
    return set()
