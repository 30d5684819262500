"""What the engine remembers of the instances that workers keep alive between turns.

With the next turn such a worker is given only what has been committed since its last one, and not the whole history.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from durabletask_aio.engine import transitions
from durabletask_aio.engine.commands import Recorded, Transaction
from durabletask_aio.engine.dispatch import Dispatcher
from durabletask_aio.engine.state import Instance
from durabletask_aio.engine.streams import WorkerStream

MAX_SESSIONS = 10_000
"""Instances whose last turn is remembered."""


class Session(NamedTuple):
    """An instance that a worker may keep alive.

    Attributes:
        stream: of the worker.
        lease_id: the worker's on its last turn, which names that turn: it is random, and one answer to it counts.
        turn_id: of the commit of that turn.
        rest: what that commit has recorded beyond the events that the turn was given.
    """

    stream: WorkerStream
    lease_id: str
    turn_id: str
    rest: bytes


class Sessions:
    """The instances that workers keep alive, the least recently kept first.  Called under the kernel's lock."""

    def __init__(self) -> None:
        self._by_instance: OrderedDict[str, Session] = OrderedDict()

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_instance)

    def committed(self, transactions: Sequence[Transaction], dispatcher: Dispatcher) -> None:
        """Note the turns that have been committed, and forget the instances that have ended or are gone."""
        for transaction in transactions:
            if transaction.finished and transaction.recorded is not None:
                self._keep(dispatcher.stream_of(transaction.finished), transaction.finished, transaction.recorded)
            for instance_id, instance in transaction.touched.items():
                if instance is None or instance.status in transitions.TERMINAL:
                    self.drop(instance_id)

    def _keep(self, stream: WorkerStream | None, lease_id: str, recorded: Recorded) -> None:
        instance = recorded.instance
        self.drop(instance.instance_id)
        if stream is None or not stream.keeps_sessions:
            return
        self._by_instance[instance.instance_id] = Session(stream, lease_id, instance.turn_id, recorded.rest)
        if len(self._by_instance) > MAX_SESSIONS:
            self._by_instance.popitem(last=False)

    def continued(self, instance: Instance, stream: WorkerStream | None) -> Session | None:
        """Return the session of an instance if its next turn goes to the worker that has it, else forget it."""
        session = self._by_instance.get(instance.instance_id)
        if session is None or (session.turn_id == instance.turn_id and session.stream is stream):
            return session
        self.drop(instance.instance_id)
        return None

    def drop(self, instance_id: str) -> bool:
        """Forget an instance; returns whether there was a session."""
        return self._by_instance.pop(instance_id, None) is not None
