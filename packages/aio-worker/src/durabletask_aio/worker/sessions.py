"""Extended sessions: instances that stay alive between their turns, so that a turn processes its new events only.

A session may serve a turn only if a full replay would have the same result.  These rules ensure that:

* **Fingerprint.**  The history that comes with the turn must begin, byte for byte, with the history that the session
  has processed, instance id and execution id included (`History`).  Its length or its last events are not enough:
  another worker may have continued the instance as new, or a turn whose response was lost may be delivered again with a
  later clock.
* **Bytes.**  An engine that sends the whole history with each turn sends it with the bytes of the last turn, as a rule.
  Then these are the proof, and what the session has processed is not even parsed (`RawHistory`).  With an engine that
  writes the same history in different ways, `History` remains the proof.
* **Checkout.**  A session in use is not in the cache, so the same turn delivered twice finds it once.
* **Delivery.**  A session is stored only after the engine has accepted its response.  The next turn may arrive before
  that is known; it waits on the same thread (`instance_threads`).
* **Less than the history.**  An engine of this project sends a worker that keeps sessions only what has been committed
  since the worker's last turn, and names that turn (`ContinuedHistory`).  If the session is of another turn, or gone,
  the worker asks for the whole history.
* **Ends.**  An instance that has ended in any way is not stored, and a rewind is always a full replay (a history that
  is about to be rewound still begins with what the session has processed).

Rejected: comparing messages with `==` (twice the time, and it keeps the old history in memory), a hash of each event
(six times the time), and comparing only the first and last events (fast, but no proof).
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from google.protobuf.message import Message  # type: ignore[import-untyped, unused-ignore]

from durabletask_aio.worker._upstream import pb
from durabletask_aio.worker.raw_requests import RawRequest, Sections
from durabletask_aio.worker.spans import workflow_spans

if TYPE_CHECKING:
    from durabletask_aio.core.hosting import WorkflowRun
    from durabletask_aio.worker.session_executor import SessionExecutor

CONTINUES = "durabletask-aio-continues"
"""Property of a request that has only what follows the worker's answer to a turn, from an engine of this project; its
value names that turn, by the worker's lease on it."""

_LAST_HISTORY_FIELD = pb.OrchestratorRequest.DESCRIPTOR.fields_by_name["pastEvents"].number


# -- the proof --------------------------------------------------------------------------------------------------------


class HistoryFingerprint:
    """The length of a history in bytes and in events, and the hash of all its bytes.

    Attributes:
        length: In bytes.
        events: In events.
        answer: The worker's lease on the turn that has ended with this history; empty without one.
        raw: That of the bytes as the engine sends them; `None` if these prove nothing.
    """

    __slots__ = ("_hash", "answer", "events", "length", "raw")

    def __init__(self, digest: Any, length: int, events: int) -> None:
        self._hash = digest
        self.length = length
        self.events = events
        self.answer = ""
        self.raw: RawFingerprint | None = None

    def followed_by(self, data: bytes, events: int) -> HistoryFingerprint:
        """Return the fingerprint of a longer history, by the bytes and the number of the further events."""
        digest = self._hash.copy()
        digest.update(data)
        return HistoryFingerprint(digest, self.length + len(data), self.events + events)

    def digest(self) -> bytes:
        """Return the hash, which differs for histories that differ."""
        result: bytes = self._hash.digest()
        return result


class RawFingerprint(NamedTuple):
    """The length of a history in bytes, as the engine has sent it, and the hash of these bytes."""

    length: int
    hash: Any


class Proof(Protocol):
    """Tells whether the history of a request continues the one that a session has processed."""

    @property
    def is_provable(self) -> bool:
        """Whether that can be told at all."""
        ...

    def continues(self, fingerprint: HistoryFingerprint) -> bool:
        """Whether the history begins with the one that has this fingerprint."""
        ...

    def fingerprint_after_turn(self) -> HistoryFingerprint:
        """Return the fingerprint of the history with the new events of the request appended to it."""
        ...


class PartialProof(Proof, Protocol):
    """A proof with which a session processes a request without its whole history."""

    @property
    def request(self) -> pb.OrchestratorRequest:
        """The request, with the events that the session has not processed; once `continues` is true."""
        ...


def _further_history(request: pb.OrchestratorRequest) -> tuple[bytes, int]:
    """Return the bytes and the number of the events that a request adds to what a session has processed."""
    further = pb.OrchestratorRequest()
    further.pastEvents.extend(request.pastEvents)
    further.pastEvents.extend(request.newEvents)
    data: bytes = further.SerializeToString(deterministic=True)
    return data, len(further.pastEvents)


class ContinuedHistory:
    """A request with less than the whole history: the engine says which turn of this worker's it continues.

    The name of a turn is a random number that the engine has made, and the engine has committed one answer to it.  So
    the history up to that answer is the one that the session has processed, and the request has what follows.
    """

    is_provable = True

    def __init__(self, request: pb.OrchestratorRequest) -> None:
        self.request = request
        self._answer: str = request.properties[CONTINUES].string_value
        self._further = _further_history(request)
        self._before: HistoryFingerprint | None = None

    @staticmethod
    def is_in(request: pb.OrchestratorRequest) -> bool:
        """Whether a request is such a one."""
        return CONTINUES in request.properties

    def continues(self, fingerprint: HistoryFingerprint) -> bool:
        """Whether the request follows the turn after which the history had this fingerprint."""
        self._before = fingerprint
        return bool(self._answer) and fingerprint.answer == self._answer

    def fingerprint_after_turn(self) -> HistoryFingerprint:
        """Return the fingerprint of the whole history, for an engine that sends all of it next."""
        assert self._before is not None
        return self._before.followed_by(*self._further)


class RawHistory:
    """The history of a request by its bytes as the engine has sent them, of which only what is new is parsed.

    The fingerprint after the turn has both hashes, so that the next turn can be proven by either.
    """

    def __init__(self, request: RawRequest) -> None:
        self._raw = request
        self._before: HistoryFingerprint | None = None
        self._request: pb.OrchestratorRequest | None = None
        self._further = (b"", 0)
        self._sections: Sections | None = None

    @property
    def is_provable(self) -> bool:
        """Whether the bytes have the order of fields by which they can be compared."""
        return self._sections is not None

    @property
    def request(self) -> pb.OrchestratorRequest:
        """The request, with the events that follow the history with which `continues` was called."""
        assert self._request is not None
        return self._request

    def continues(self, fingerprint: HistoryFingerprint) -> bool:
        """Whether the bytes begin with those of the history that has this fingerprint."""
        if self._before is fingerprint:
            return True
        raw, body = fingerprint.raw, self._raw.body
        if raw is None or sha256(memoryview(body)[: raw.length]).digest() != raw.hash.digest():
            return False
        self._sections = self._raw.sections(raw.length)
        if self._sections is None:
            return False
        self._before = fingerprint
        self._request = self._raw.after(raw.length)
        # Serialised now, because with a payload store upstream fills large payloads into the request in place.
        self._further = _further_history(self._request)
        return True

    def fingerprint_after_turn(self) -> HistoryFingerprint:
        """Return the fingerprint of the history with the new events of the request appended to it."""
        before, sections = self._before, self._sections
        assert before is not None
        assert before.raw is not None
        assert sections is not None
        fingerprint = before.followed_by(*self._further)
        fingerprint.raw = _raw_fingerprint(self._raw, before.raw, sections)
        return fingerprint


def _raw_fingerprint(request: RawRequest, before: RawFingerprint, sections: Sections) -> RawFingerprint:
    """Return the fingerprint of the bytes after a turn, by that of those they begin with."""
    digest = before.hash.copy()
    digest.update(memoryview(request.body)[before.length : sections.history_end])
    digest.update(sections.appended)
    return RawFingerprint(sections.history_end + len(sections.appended), digest)


class History:
    """The bytes of a request's instance id, execution id and committed events.

    They are the beginning of the request in protobuf's field order, and an event's bytes do not depend on what comes
    after it, so the bytes of a longer history begin with those of a shorter one.  `fingerprint_after_turn` continues
    the hash where `continues` has stopped, so a turn serialises and hashes its history once.

    Args:
        request: The request.
        raw: Its bytes, if the next turn may be proven by them.
    """

    def __init__(self, request: pb.OrchestratorRequest, raw: RawRequest | None = None) -> None:
        self._raw = raw
        # Serialised now, because with a payload store upstream fills large payloads into the request in place.
        appended = pb.OrchestratorRequest()
        appended.pastEvents.extend(request.newEvents)
        self._appended = appended.SerializeToString(deterministic=True)
        self._events = len(request.pastEvents) + len(request.newEvents)
        data = request.SerializeToString(deterministic=True)
        rest = _after_history(request)
        # With another layout of the bytes, for example unknown fields of a newer engine, nothing can be proved.
        self.is_provable = data.endswith(rest)
        self._bytes = memoryview(data)[: len(data) - len(rest)]
        self._hashed = 0
        # Faster than blake2b in practice: OpenSSL's sha256 uses the processor's SHA instructions.
        self._hash = sha256()

    def continues(self, fingerprint: HistoryFingerprint) -> bool:
        """Whether this history begins with the one that has this fingerprint."""
        if not self.is_provable or len(self._bytes) < fingerprint.length:
            return False
        self._hash_up_to(fingerprint.length)
        if self._hash.digest() != fingerprint.digest():
            return False
        # The bytes were looked at before, and are others: the engine does not write an event always alike.
        self._raw = None
        return True

    def fingerprint_after_turn(self) -> HistoryFingerprint:
        """Return the fingerprint of this history with the new events of the request appended to it."""
        self._hash_up_to(len(self._bytes))
        digest = self._hash.copy()
        digest.update(self._appended)
        fingerprint = HistoryFingerprint(digest, len(self._bytes) + len(self._appended), self._events)
        sections = None if self._raw is None else self._raw.sections()
        if self._raw is not None and sections is not None:
            fingerprint.raw = _raw_fingerprint(self._raw, RawFingerprint(0, sha256()), sections)
        return fingerprint

    def _hash_up_to(self, length: int) -> None:
        if length < self._hashed:
            self._hashed, self._hash = 0, sha256()
        self._hash.update(self._bytes[self._hashed : length])
        self._hashed = length


def _after_history(request: pb.OrchestratorRequest) -> bytes:
    """Serialise the fields of a request that follow the committed history."""
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


def execution_started(request: pb.OrchestratorRequest) -> pb.ExecutionStartedEvent:
    """Return the event with which the execution started; an empty one if there is none, for upstream to fail."""
    events = chain(request.pastEvents, request.newEvents)
    return next((e.executionStarted for e in events if e.HasField("executionStarted")), pb.ExecutionStartedEvent())


def kept_start(request: pb.OrchestratorRequest) -> pb.HistoryEvent:
    """Return a copy of that event without its input: what a turn reads of it after the first one."""
    kept = pb.HistoryEvent(eventId=-1)
    kept.executionStarted.CopyFrom(execution_started(request))
    kept.executionStarted.ClearField("input")
    return kept


# -- the sessions -----------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """One live instance, and what proves which history it has processed."""

    instance_id: str
    function: Callable[..., Any]
    executor: SessionExecutor
    runs: Sequence[WorkflowRun]
    fingerprint: HistoryFingerprint
    started: pb.HistoryEvent = field(repr=False)
    """The event that started the execution, for turns that come without it."""
    idle_since: float = 0.0

    def dispose(self) -> None:
        """Close the instance in this thread; its code can neither log nor reach the engine meanwhile."""
        if self.runs:
            with workflow_spans():
                for run in self.runs:
                    run.dispose()
        self.executor.close()


@dataclass
class ExtendedSessionStats:
    """Counters of one worker's extended sessions, updated while the worker runs.

    They can be read at any time from any thread.  All of them but `live` and `paused_turns` only increase.
    """

    hits: int = 0
    """Turns that continued a session."""

    misses: Counter[str] = field(default_factory=Counter[str])
    """Turns that were full replays although sessions are enabled, by reason; the first turn of an instance is neither
    hit nor miss.

    - `"absent"`: the instance was never seen by this worker, was evicted, is in use, or its last response was not
      delivered;
    - `"history"`: the history does not continue the one that the session has processed;
    - `"rewound"`: the instance has been rewound;
    - `"restarted"`: an instance of the same id starts;
    - `"trace"`: the turn belongs to another tracing span;
    - `"replaced"`: another function is registered under the name;
    - `"empty"`: the turn has no events;
    - `"unprovable"`: the request has fields that this release does not know.
    """

    evictions: Counter[str] = field(default_factory=Counter[str])
    """Sessions that were closed, by reason: `"limit"`, `"idle"` or `"stop"`."""

    live: int = 0
    """Sessions that wait for their next turn now."""

    shadow_replays: int = 0
    """Turns of sessions that were also replayed in full."""

    divergences: int = 0
    """Shadow replays whose actions differed from those of the session."""

    diverged_turns: int = 0
    """Turns without a result, because the history did not fit the code, that were given back to the engine or will be
    (`on_divergence="retry"`)."""

    paused_turns: int = 0
    """Of these, those that wait now for the end of their pause."""

    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while counters change; hold it to read several of them consistently."""


# Not in the class body, because `dataclass` looks up the module of the class in `sys.modules`.
ExtendedSessionStats.__module__ = "durabletask.aio.worker"


class SessionCache:
    """Suspended instances by id, bounded by count and by idle time.  Safe to use from any thread.

    It closes no session: those that are evicted are returned, for the caller to close on their own threads.
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
        """Whether instances are kept between turns."""
        return self._limit > 0 and not self._closed

    def checkout(self, instance_id: str) -> Session | None:
        """Take the session out of the cache, so that no other turn gets it."""
        with self._lock:
            session = self._sessions.pop(instance_id, None)
            self.stats.live = len(self._sessions)
            return session

    def store(self, session: Session) -> list[Session]:
        """Store a session as the most recently used one, and return the sessions that this evicts."""
        with self._lock:
            if self._closed or self._limit <= 0:
                return [session]
            # Two deliveries of one turn can both arrive here.  The later one is stored; if the engine has ignored its
            # response, the next turn does not match its fingerprint.
            earlier = self._sessions.pop(session.instance_id, None)
            evicted = [] if earlier is None else [earlier]
            session.idle_since = self._clock()
            self._sessions[session.instance_id] = session
            while len(self._sessions) > self._limit:
                evicted.append(self._sessions.popitem(last=False)[1])
                self.stats.evictions["limit"] += 1
            self.stats.live = len(self._sessions)
            return evicted

    def expire(self) -> list[Session]:
        """Take out and return the sessions that have been idle for longer than the idle timeout."""
        with self._lock:
            limit = self._clock() - self._idle_timeout
            evicted: list[Session] = []
            while self._sessions:
                oldest = next(iter(self._sessions.values()))
                if oldest.idle_since > limit:
                    break
                evicted.append(self._sessions.popitem(last=False)[1])
                self.stats.evictions["idle"] += 1
            self.stats.live = len(self._sessions)
            return evicted

    def close(self) -> list[Session]:
        """Take out and return all sessions, and store none until `open`; called when the worker stops."""
        with self._lock:
            self._closed = True
            evicted = list(self._sessions.values())
            self._sessions.clear()
            self.stats.evictions["stop"] += len(evicted)
            self.stats.live = 0
            return evicted

    def open(self) -> None:
        """Accept sessions (again); called when the worker starts."""
        with self._lock:
            self._closed = False

    def count_hit(self) -> None:
        """Count a turn that continues a session."""
        with self._lock:
            self.stats.hits += 1

    def count_miss(self, reason: str) -> None:
        """Count a turn that is a full replay."""
        with self._lock:
            self.stats.misses[reason] += 1


def session_miss_reason(
    session: Session, request: pb.OrchestratorRequest, history: Proof, function: object
) -> str | None:
    """Return the reason why this session must not serve this turn; `None` if it may."""
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
    if not history.continues(session.fingerprint):
        return "history"
    span_id = request.orchestrationTraceContext.spanID.value or None
    # With an engine that does not send the span back, each full replay would start a new one.
    if span_id is not None and span_id != session.executor.span_id:
        return "trace"
    return None
