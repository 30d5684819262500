"""Extended sessions: instances that stay alive between their turns, so that a turn costs its new events only.

A session may serve a turn only if that turn would have been the same after a full replay.  What makes sure of it:

* **Proof.**  The history that comes with the turn must begin, byte for byte, with the history the session has seen,
  instance id and execution id included (:class:`History`).  Its length or its last events would not do: another worker
  may have continued the instance as new, or a lost response may have come back with a later clock.
* **Checkout.**  A session in use is in nobody's cache: the same turn delivered twice finds it once.
* **Delivery.**  A session is stored only after its response has reached the engine.  The next turn may be here
  before that is known; it waits on the same thread (:mod:`.homes`).
* **Ends.**  Nothing that has ended in any way is stored, and a rewind is always a full replay (a history that is about
  to be rewound still begins with what the session saw).

Considered and dropped: comparing messages with ``==`` (twice the time, and it keeps the old history in memory), a hash
per event (six times the time), and remembering only the first and last events (fast, but no proof).
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message  # type: ignore[import-untyped, unused-ignore]

from durabletask_aio.worker._upstream import OrchestrationExecutor, pb
from durabletask_aio.worker.spans import workflow_spans

if TYPE_CHECKING:
    from durabletask_aio.core.driver import WorkflowRun

_LAST_HISTORY_FIELD = pb.OrchestratorRequest.DESCRIPTOR.fields_by_name["pastEvents"].number


# The proof ------------------------------------------------------------------------------------------------------


class Seal:
    """A fixed-size memory of a history: how long it was, and the hash of all its bytes."""

    __slots__ = ("_hash", "events", "length")

    def __init__(self, digest: Any, length: int, events: int) -> None:
        self._hash = digest
        self.length = length
        self.events = events

    def digest(self) -> bytes:
        """Two histories that differ anywhere do not have the same one."""
        result: bytes = self._hash.digest()
        return result


class History:
    """The bytes of what a request says about the past: instance id, execution id and committed events.

    They are the beginning of the request in protobuf's field order, and an event's bytes do not depend on what comes
    after it, so the bytes of a longer history begin with those of a shorter one.  ``seal_after_turn`` goes on where
    ``continues`` has stopped hashing, so a turn serialises and hashes its history once.
    """

    def __init__(self, request: pb.OrchestratorRequest) -> None:
        # Everything is taken now: with a payload store, upstream fills large payloads into the request in place.
        appended = pb.OrchestratorRequest()
        appended.pastEvents.extend(request.newEvents)
        self._appended = appended.SerializeToString(deterministic=True)
        self._events = len(request.pastEvents) + len(request.newEvents)
        data = request.SerializeToString(deterministic=True)
        rest = _after_history(request)
        # If the bytes were not laid out as described (unknown fields of a newer engine, say), nothing is provable.
        self.is_provable = data.endswith(rest)
        self._bytes = memoryview(data)[: len(data) - len(rest)]
        self._hashed = 0
        # Not blake2b, which is the faster one on paper: OpenSSL's sha256 uses the processor's own instructions.
        self._hash = sha256()

    def continues(self, seal: Seal) -> bool:
        """Whether this history begins with the one that was sealed."""
        if not self.is_provable or len(self._bytes) < seal.length:
            return False
        self._hash_up_to(seal.length)
        return self._hash.digest() == seal.digest()

    def seal_after_turn(self) -> Seal:
        """The history as it will begin once the engine has appended this request's new events to it."""
        self._hash_up_to(len(self._bytes))
        digest = self._hash.copy()
        digest.update(self._appended)
        return Seal(digest, len(self._bytes) + len(self._appended), self._events)

    def _hash_up_to(self, length: int) -> None:
        if length < self._hashed:
            self._hashed, self._hash = 0, sha256()
        self._hash.update(self._bytes[self._hashed : length])
        self._hashed = length


def _after_history(request: pb.OrchestratorRequest) -> bytes:
    """What follows the committed history in the bytes of ``request``."""
    rest = pb.OrchestratorRequest()
    for descriptor, value in request.ListFields():
        if descriptor.number <= _LAST_HISTORY_FIELD:
            continue
        if isinstance(value, Message):
            getattr(rest, descriptor.name).CopyFrom(value)
        elif hasattr(value, "MergeFrom"):
            getattr(rest, descriptor.name).MergeFrom(value)
        else:
            setattr(rest, descriptor.name, value)
    data: bytes = rest.SerializeToString(deterministic=True)
    return data


# The sessions ---------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """One live instance, and the seal of the history it has seen."""

    instance_id: str
    function: Callable[..., Any]
    executor: OrchestrationExecutor
    runs: Sequence[WorkflowRun]
    seal: Seal
    idle_since: float = 0.0

    def dispose(self) -> None:
        """Close the instance in this thread, silently; its code can no longer reach the engine."""
        if self.runs:
            with workflow_spans():
                for run in self.runs:
                    run.dispose()
        self.executor.close()


@dataclass
class ExtendedSessionStats:
    """Live counters of one worker's extended sessions; read them whenever you like, they never go backwards.

    ``misses`` counts by reason: ``"absent"`` (never seen here, evicted, in use, or its last response was not
    delivered), ``"history"`` (the history does not continue the one the session saw), ``"rewound"``, ``"restarted"``
    (the id starts anew), ``"trace"`` (another tracing span), ``"replaced"`` (another function under the name),
    ``"empty"`` and ``"unprovable"``.  The first turn of an instance is neither hit nor miss.  ``evictions`` counts by
    ``"limit"``, ``"idle"`` and ``"stop"``.
    """

    hits: int = 0
    misses: Counter[str] = field(default_factory=Counter[str])
    evictions: Counter[str] = field(default_factory=Counter[str])
    live: int = 0
    shadow_replays: int = 0
    divergences: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


# Not in the class body: dataclasses look the module up while it is being imported.
ExtendedSessionStats.__module__ = "durabletask.aio.worker"


class SessionCache:
    """Suspended instances by id, bounded by count and by idle time.  Safe to use from any thread.

    It never disposes: what falls out is returned, for the caller to close at home.
    """

    def __init__(
        self, limit: int, idle_timeout: float, stats: ExtendedSessionStats, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._clock = clock
        self._lock = stats.lock
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._closed = False
        self.stats = stats

    @property
    def is_enabled(self) -> bool:
        return self._limit > 0 and not self._closed

    def checkout(self, instance_id: str) -> Session | None:
        """Take the session out of the cache; whoever has it is the only one."""
        with self._lock:
            session = self._sessions.pop(instance_id, None)
            self.stats.live = len(self._sessions)
            return session

    def store(self, session: Session) -> list[Session]:
        """Put a session back as the most recently used one; the sessions this pushed out are returned."""
        with self._lock:
            if self._closed or self._limit <= 0:
                return [session]
            # Two deliveries of one turn can both arrive here.  The later one stays; if it is the one whose response the
            # engine ignored, the proof of the next turn will say so.
            twin = self._sessions.pop(session.instance_id, None)
            fallen = [] if twin is None else [twin]
            session.idle_since = self._clock()
            self._sessions[session.instance_id] = session
            while len(self._sessions) > self._limit:
                fallen.append(self._sessions.popitem(last=False)[1])
                self.stats.evictions["limit"] += 1
            self.stats.live = len(self._sessions)
            return fallen

    def expire(self) -> list[Session]:
        """Take out what has been idle for longer than the idle timeout."""
        with self._lock:
            limit = self._clock() - self._idle_timeout
            fallen: list[Session] = []
            while self._sessions:
                oldest = next(iter(self._sessions.values()))
                if oldest.idle_since > limit:
                    break
                fallen.append(self._sessions.popitem(last=False)[1])
                self.stats.evictions["idle"] += 1
            self.stats.live = len(self._sessions)
            return fallen

    def close(self) -> list[Session]:
        """Take out everything and accept nothing until :meth:`open`: the worker stops."""
        with self._lock:
            self._closed = True
            fallen = list(self._sessions.values())
            self._sessions.clear()
            self.stats.evictions["stop"] += len(fallen)
            self.stats.live = 0
            return fallen

    def open(self) -> None:
        """The worker starts (again)."""
        with self._lock:
            self._closed = False

    def count(self, *, hit: bool = False, miss: str | None = None) -> None:
        """Note how a turn was served."""
        with self._lock:
            if hit:
                self.stats.hits += 1
            if miss is not None:
                self.stats.misses[miss] += 1


def why_not(session: Session, request: pb.OrchestratorRequest, history: History, function: object) -> str | None:
    """Why this session must not serve this turn, or ``None`` if it provably may."""
    if not request.newEvents:
        return "empty"  # upstream fails such a turn
    for event in request.newEvents:
        if event.HasField("executionRewound"):
            return "rewound"
        if event.HasField("executionStarted"):
            return "restarted"
    if session.function is not function:
        return "replaced"
    if not history.is_provable:
        return "unprovable"
    if not history.continues(session.seal):
        return "history"
    span_id = request.orchestrationTraceContext.spanID.value or None
    # An engine that does not bring the span back would have a full replay invent a new one each turn.
    if span_id is not None and span_id != session.executor.span_id:
        return "trace"
    return None
