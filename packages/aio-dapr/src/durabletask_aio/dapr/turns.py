"""`Turns`: executes the turns of one runtime, and keeps suspended async workflows between them.

A turn continues a live instance if the history begins with the very events that the instance has seen.  Then a full
replay would have the same result.  A response that the sidecar has not taken needs no other check: its events are not
in the history of the next turn, which therefore does not begin with what the instance has seen.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from durabletask_aio.core.hosting import TurnExecutor, WorkflowRun, turn_scope
from durabletask_aio.dapr._upstream_dapr import as_committed


@dataclass
class SessionStats:
    """How the turns of async workflows were served."""

    hits: int = 0
    """Turns that continued a live instance."""
    misses: int = 0
    """Turns for which a live instance was there, and did not fit the history."""
    replays: int = 0
    """Turns that replayed the whole history, the first ones of instances included."""


@dataclass
class Session:
    """A suspended instance, and the events that it has seen."""

    executor: TurnExecutor
    runs: list[WorkflowRun]
    seen: list[Any]

    def continues(self, history: Sequence[Any]) -> bool:
        """Whether a history begins with the events that this instance has seen."""
        if len(history) < len(self.seen):
            return False
        # Events that Dapr's worker keeps between turns are the same objects.
        return all(mine is theirs or mine == theirs for mine, theirs in zip(self.seen, history, strict=False))

    def dispose(self) -> None:
        """Close the coroutines of the instance."""
        for run in self.runs:
            run.dispose()
        self.executor.close()


class Turns:
    """Executes the turns of one runtime; called on many threads at a time."""

    def __init__(self, max_sessions: int) -> None:
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        self.stats = SessionStats()

    def make_executor(self, registry: Any, logger: logging.Logger) -> Turn:
        """Return what executes one turn; called by Dapr's worker in place of the class of its executor."""
        return Turn(self, registry, logger)

    def checkout(self, instance_id: str, history: Sequence[Any]) -> Session | None:
        """Take the session out that can continue that history; one that cannot is disposed of."""
        with self._lock:
            session = self._sessions.pop(instance_id, None)
        fits = session is not None and session.continues(history)
        with self._lock:
            self.stats.hits += fits
            self.stats.misses += session is not None and not fits
            self.stats.replays += not fits
        if session is not None and not fits:
            session.dispose()
            return None
        return session

    def store(self, instance_id: str, session: Session) -> None:
        """Keep a session for the next turn; the one that was used longest ago has to go if there are too many."""
        with self._lock:
            evicted = [self._sessions.pop(instance_id, None)]
            self._sessions[instance_id] = session
            if len(self._sessions) > self._max_sessions:
                evicted.append(self._sessions.popitem(last=False)[1])
        for each in evicted:
            if each is not None:
                each.dispose()

    def close(self) -> None:
        """Dispose of all sessions."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), OrderedDict()
        for session in sessions:
            session.dispose()

    @property
    def keeps_sessions(self) -> bool:
        """Whether instances are kept between turns."""
        return self._max_sessions > 0


class Turn:
    """One turn; stands in the place of Dapr's executor."""

    def __init__(self, turns: Turns, registry: Any, logger: logging.Logger) -> None:
        self._turns = turns
        self._registry = registry
        self._logger = logger

    def execute(
        self, instance_id: str, old_events: Sequence[Any], new_events: Sequence[Any], propagated_history: Any = None
    ) -> Any:
        """Run the turn.

        Args:
            instance_id: the instance.
            old_events: its whole committed history.
            new_events: the events of this turn.
            propagated_history: what the caller of the workflow has passed on.

        Returns:
            The results, as Dapr's worker sends them.
        """
        session = self._turns.checkout(instance_id, old_events)
        # Dapr's executor, unlike Microsoft's, takes no data converter.
        new = cast("Any", TurnExecutor)
        executor: Any = new(self._registry, self._logger) if session is None else session.executor
        executor.propagated_history = propagated_history
        is_kept = False
        with turn_scope() as scope:
            try:
                result = executor.execute(instance_id, old_events, new_events)
                runs = list(scope.runs) if session is None else session.runs
                is_kept = self._turns.keeps_sessions and bool(runs) and not executor.is_complete
            finally:
                if session is not None and not is_kept:
                    session.dispose()
            if is_kept:
                scope.keep()
        if is_kept:
            executor.detach_request()
            seen = [*old_events, *as_committed(new_events, result)]
            executor.processed = len(seen)
            self._turns.store(instance_id, Session(executor, runs, seen))
        elif session is None and scope.runs:
            executor.close()
        return result
