"""`PausedTurns`: turns whose code waits for a step, and which have given up their thread meanwhile.

A thread belongs to many instances, and a step may take seconds.  So after a short time the turn is paused: the executor
leaves its loop over the events (`TurnPaused`), and what the turn consists of is kept here.  When a step has ended, the
work item is executed once more, on the same thread: it finds its turn here, and the executor continues after the event
at which it stopped.

A turn on a thread of the pool stays there, since it could not come back to it; the pool has one thread more meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durabletask_aio.worker.spans import workflow_spans

if TYPE_CHECKING:
    from durabletask_aio.core.hosting import WorkflowRun
    from durabletask_aio.worker._upstream import pb
    from durabletask_aio.worker.raw_requests import RawRequest
    from durabletask_aio.worker.session_executor import SessionExecutor
    from durabletask_aio.worker.sessions import Proof
    from durabletask_aio.worker.step_threads import StepThreads


@dataclass
class PausedTurn:
    """A turn that is to be continued."""

    delivered: pb.OrchestratorRequest | RawRequest
    """What the engine has sent; the turn is found by it."""
    request: pb.OrchestratorRequest
    turn: Any
    executor: SessionExecutor
    started: pb.ExecutionStartedEvent
    past_events: int
    history: Proof | None
    reason: str
    runs: Sequence[WorkflowRun]
    """What has to be disposed if it is not continued."""

    def dispose(self) -> None:
        """Close the instance in this thread: the turn is not continued."""
        with workflow_spans():
            for run in self.runs:
                run.dispose()
        self.executor.close()


class PausedTurns:
    """The paused turns of one worker, by their requests.  Thread-safe."""

    def __init__(self, steps: StepThreads) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self._turns: dict[int, PausedTurn] = {}
        self._may_pause: set[int] = set()

    def allow(self, request: pb.OrchestratorRequest | RawRequest) -> None:
        """Allow the turn of a request to be paused; the caller has to call `continue_later` after it."""
        with self._lock:
            self._may_pause.add(id(request))

    def may_pause(self, request: pb.OrchestratorRequest | RawRequest) -> bool:
        """Whether the turn of a request may be paused."""
        return id(request) in self._may_pause

    def add(self, turn: PausedTurn) -> None:
        """Keep a turn until `take`."""
        with self._lock:
            self._turns[id(turn.delivered)] = turn

    def take(self, request: pb.OrchestratorRequest | RawRequest) -> PausedTurn | None:
        """Return the turn of a request, which is kept no longer; `None` if it was not paused."""
        with self._lock:
            return self._turns.pop(id(request), None)

    def continue_later(self, request: pb.OrchestratorRequest | RawRequest, resume: Callable[[], None]) -> bool:
        """Call a function, once and on any thread, when a step has ended or its time is over.

        Returns:
            Whether the turn of this request is paused; otherwise it has ended.
        """
        with self._lock:
            self._may_pause.discard(id(request))
            paused = self._turns.get(id(request))
        if paused is None:
            return False
        journal = paused.executor.journal
        assert journal is not None
        once = _Once(resume)
        deadline = journal.next_deadline
        if deadline is not None:
            self._steps.call_at(deadline, once)
        journal.call_when_ended(once)
        return True

    def discard(self, request: pb.OrchestratorRequest | RawRequest) -> None:
        """Dispose of the turn of a request, which has been given back to the engine."""
        with self._lock:
            self._may_pause.discard(id(request))
        paused = self.take(request)
        if paused is not None:
            paused.dispose()

    def close(self) -> None:
        """Dispose of all turns: the worker has stopped, and has given them back."""
        with self._lock:
            turns, self._turns = list(self._turns.values()), {}
            self._may_pause.clear()
        for turn in turns:
            turn.dispose()


class _Once:
    """Calls a function at the first call."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._was_called = False

    def __call__(self) -> None:
        with self._lock:
            if self._was_called:
                return
            self._was_called = True
        self._function()
