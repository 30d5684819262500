"""Runs commands in transactions, and publishes what they have changed once it is committed.

A caller runs its command on its own thread, in one transaction with the commands of all callers that wait behind it:
their commits become one, so that a disk that has to flush is asked less often.  The exception is the main thread, where
a KeyboardInterrupt may come at any point: its commands, and those of event loops, run on the engine's own thread.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

from durabletask_aio.engine import entity_transitions, transitions
from durabletask_aio.engine.clock import Clock
from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.crash_loops import CrashLoops, set_aside
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD, TURN_LEASE, Dispatcher
from durabletask_aio.engine.pending import PendingCommand
from durabletask_aio.engine.reading import Queries
from durabletask_aio.engine.retention import Retention
from durabletask_aio.engine.sessions import Sessions
from durabletask_aio.engine.sqlite import DISK_ERRORS
from durabletask_aio.engine.state import Instance, Task
from durabletask_aio.engine.store import ClosableReader, Reader, RolledBackError, Store, StoreError
from durabletask_aio.engine.streams import ACTIVITY, BATCH, TURN, WORK_KINDS, Lease, WorkerStream, WorkItem
from durabletask_aio.engine.tokens import BatchToken, TaskToken, TurnToken
from durabletask_aio.engine.transitions import Context
from durabletask_aio.engine.watchers import Watcher, Watchers
from durabletask_aio.engine.work import BatchWork, TaskWork, TurnWork, activity_item, is_of, task_of

_logger = logging.getLogger("durabletask.aio.engine")

T = TypeVar("T")

_TIMERS_AT_ONCE = 100
"""Timers that fire in one transaction; after a long stop there may be many."""


_MAX_WAIT = 1.0
"""Seconds after which the engine's thread looks at the clock again: the wall clock may have been set."""

_CLOCK_MARGIN = 2_000_000
"""Microseconds added to the last time in the file, which is written now and then only."""


class EngineStoppedError(Exception):
    """The engine has been stopped."""


class EngineBusyError(Exception):
    """A command could not be written; it may be tried again."""


class Kernel:
    """The engine without its transport.  Thread-safe."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        new_id: Callable[[], str] = lambda: os.urandom(8).hex(),
        monotonic: Callable[[], float] = time.monotonic,
        turn_lease: float = TURN_LEASE,
        activity_lease: float | None = None,
        reconnect_period: float = RECONNECT_PERIOD,
    ) -> None:
        """Take over a store: what it says is to be done is queued.

        Args:
            store: an open store, which is the kernel's from now on.
            clock: engine time.
            new_id: makes random ids.
            monotonic: the clock of leases, in seconds.
            turn_lease: seconds, see `Dispatcher`.
            activity_lease: seconds, see `Dispatcher`.
            reconnect_period: seconds, see `Dispatcher`.
        """
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self.dispatcher = Dispatcher(
            self._prepare,
            new_id,
            monotonic,
            turn_lease=turn_lease,
            activity_lease=activity_lease,
            reconnect_period=reconnect_period,
            keep_leases=store.path is not None,
        )
        self._lock = threading.Lock()
        self._pending: deque[PendingCommand] = deque()
        self._wake = threading.Condition(threading.Lock())
        self._is_woken = False
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._watchers = Watchers()
        self._sessions = Sessions()
        self._observers: list[Callable[[], None]] = []
        self._idle_readers: deque[ClosableReader] = deque()
        self._time_written = 0
        self._busy_until = 0.0
        self._asleep_until = 0.0
        self._retention = Retention()
        self.is_forked: Callable[[], bool] = lambda: False
        self.started_at = clock.now()
        self.command_count = 0
        """Commands that have run."""
        self.commit_count = 0
        """Commits that have made them durable."""
        self._crash_loops = CrashLoops(store)
        self.loaded = self._load()

    def _load(self) -> tuple[int, int, int]:
        """Queue what is to be done; returns the numbers of turns, activities and entities."""
        turns = batches = activities = 0
        if self.store.path is not None:
            for instance_id in self._crash_loops.start():
                self._run([PendingCommand(partial(set_aside, instance_id))])
        for instance in self.store.waiting_instances():
            if self._queue_turn(instance):
                turns += 1
        leases = {seq: (lease_id, worker_id) for seq, lease_id, worker_id in self.store.leases()}
        for task in self.store.tasks():
            if task.seq in leases:
                self.dispatcher.restore(activity_item(task), *leases[task.seq])
            else:
                self._queue_task(task)
            activities += 1
        for entity_id in self.store.waiting_entities():
            self._queue_batch(entity_id)
            batches += 1
        return turns, activities, batches

    # -- commands --------------------------------------------------------------------------------------------------

    def execute(self, command: Callable[[Transaction], T]) -> T:
        """Run a command; returns when it is committed.

        Raises:
            EngineBusyError: if it could not be written; the store is as before.
            EngineStoppedError: if the engine has been stopped.
            Exception: what the command raises; the store is as before.
        """
        if self._thread is not None and threading.current_thread() is threading.main_thread():
            return self.submit(command).result()
        entry = self._enter(PendingCommand(command))
        with self._lock:
            # Another caller may have run it together with its own while this one waited for the lock.
            if not entry.is_done:
                self._run_pending()
        if entry.error is not None:
            raise entry.error
        result: T = entry.result
        return result

    def submit(self, command: Callable[[Transaction], T]) -> Future[T]:
        """Have the engine's thread run a command."""
        future: Future[T] = Future()
        self._enter(PendingCommand(command, future))
        self.wake()
        return future

    def _enter(self, entry: PendingCommand) -> PendingCommand:
        self._check_open()
        self._pending.append(entry)
        return entry

    def _run_pending(self) -> None:
        """Run all commands that wait, in one transaction.  Called under the lock."""
        group: list[PendingCommand] = []
        while self._pending:
            entry = self._pending.popleft()
            if entry.future is None or entry.future.set_running_or_notify_cancel():
                group.append(entry)
        if group:
            self._run(group)

    def _run(self, group: list[PendingCommand]) -> None:
        if self._is_closed:
            for entry in group:
                entry.finish(None, EngineStoppedError("the engine has been stopped"))
            return
        outcomes: list[tuple[PendingCommand, Any, BaseException | None]] = []
        transactions: list[Transaction] = []
        try:
            self.store.begin()
            for entry in group:
                transaction = Transaction(self.store, Context(self.clock.now(), self.new_id))
                try:
                    result = entry.command(transaction)
                except Exception as error:
                    if transaction.has_written or isinstance(error, DISK_ERRORS):
                        raise
                    outcomes.append((entry, None, error))
                else:
                    outcomes.append((entry, result, None))
                    transactions.append(transaction)
            if any(each.has_written for each in transactions):
                now = self._write_time(transactions[-1].context.now)
                self._keep_leases(transactions[-1])
                self.store.commit()
                self._time_written = now
                self.commit_count += 1
            else:
                self.store.rollback()
        except BaseException as error:
            self._undo(group, error)
            return
        self.command_count += len(group)
        try:
            self._publish(transactions)
        except Exception:
            # What is committed is committed: those who wait for it get their answers.
            _logger.exception("What a command has changed could not be published")
        for entry, result, failed in outcomes:
            entry.finish(result, failed)

    def _undo(self, group: list[PendingCommand], error: BaseException) -> None:
        """A transaction has failed and is rolled back; its commands are tried again one by one."""
        try:
            self.store.rollback()
        except Exception as second:
            error = second
        if len(group) > 1:
            for entry in group:
                self._run([entry])
            return
        is_busy = isinstance(error, (RolledBackError, *DISK_ERRORS))
        if not is_busy:
            _logger.error("A command has failed", exc_info=error)
        for entry in group:
            entry.finish(None, EngineBusyError(f"not written: {error}") if is_busy else error)

    def _write_time(self, now: int) -> int:
        """Keep the time for the engine's next life; returns the time that is kept once this is committed."""
        # At most once a second: what the file says is a little behind, which `_CLOCK_MARGIN` makes up for.
        if now - self._time_written <= 1_000_000:
            return self._time_written
        self.store.set_meta("time", now)
        return now

    def _keep_leases(self, transaction: Transaction) -> None:
        """Write which workers have had activities for a while.

        If the transaction is rolled back, that is not written, and after a restart those activities may run again.
        """
        leases, over = self.dispatcher.leases_to_keep()
        if leases or over:
            kept = [(task_of(each.item), each.id, each.worker_id) for each in leases]
            transaction.keep_leases(kept, [task_of(each) for each in over])

    @staticmethod
    def last_time(store: Store) -> int:
        """Return a time that is not before any that the engine of a store has used."""
        written = store.meta("time")
        return 0 if written is None else written + _CLOCK_MARGIN

    # -- after the commit ------------------------------------------------------------------------------------------

    def _publish(self, transactions: list[Transaction]) -> None:
        self._sessions.committed(transactions, self.dispatcher)
        # What is gone comes first, since a worker that has answered is given something else at once.
        gone = self._discard_dropped(transactions)
        finished = [self.dispatcher.finish(each.finished) for each in transactions if each.finished]
        touched: dict[str, Instance | None] = {}
        for transaction in transactions:
            touched.update(transaction.touched)
        for instance_id, instance in touched.items():
            if instance is None:
                self.dispatcher.discard(TURN, instance_id)
            else:
                self._queue_turn(instance)
            self._crash_loops.committed(instance_id, instance)
            self._watchers.notify(instance_id, instance)
        for transaction in transactions:
            for task in transaction.new_tasks:
                if task.execution_id not in gone:
                    self._queue_task(task)
            for entity_id in transaction.entities:
                self._queue_batch(entity_id)
        for item in finished:
            if item is not None and item.key not in touched:
                self._offer_again(item)
        for observer in self._observers:
            observer()
        due = self.store.next_due()
        keep_due = self.dispatcher.keep_due
        if (due is not None and due < self._busy_until) or (keep_due is not None and keep_due < self._asleep_until):
            self.wake()

    def _discard_dropped(self, transactions: list[Transaction]) -> frozenset[str]:
        """Discard activities that are done, or not to be done any more; returns the executions of the latter."""
        for transaction in transactions:
            for task in transaction.dropped_tasks:
                self.dispatcher.discard(ACTIVITY, task.nonce)
        if not any(each.dropped_executions for each in transactions):
            return frozenset()
        gone = frozenset(itertools.chain.from_iterable(each.dropped_executions for each in transactions))
        self.dispatcher.discard_if(ACTIVITY, partial(is_of, gone))
        return gone

    def _queue_turn(self, instance: Instance) -> bool:
        lease = self.dispatcher.holder(TURN, instance.instance_id)
        if lease is not None:
            if lease.basis == instance.turn_id:
                return False
            self.dispatcher.discard(TURN, instance.instance_id)
        queued = self.dispatcher.queued_item(TURN, instance.instance_id)
        if queued is not None and (queued.name, queued.version) != (instance.name, instance.version):
            self.dispatcher.discard(TURN, instance.instance_id)
        if not transitions.is_ready(instance, self.store.inbox(instance)) or self._crash_loops.holds_back(instance):
            return False
        self.dispatcher.add(
            WorkItem(
                TURN,
                instance.instance_id,
                instance.name,
                instance.version,
                affinity=instance.instance_id,
            )
        )
        return True

    def _queue_task(self, task: Task) -> None:
        self.dispatcher.add(activity_item(task))

    def _queue_batch(self, entity_id: str) -> None:
        lease = self.dispatcher.holder(BATCH, entity_id)
        if lease is not None:
            entity = self.store.entity(entity_id)
            if entity is not None and lease.basis == entity.revision:
                return
            self.dispatcher.discard(BATCH, entity_id)
        self.dispatcher.add(WorkItem(BATCH, entity_id, entity_transitions.entity_name(entity_id)))

    def _offer_again(self, item: WorkItem) -> None:
        """A worker has answered for this item; there may be more to do, or the answer did not count."""
        if item.kind is BATCH:
            self._queue_batch(item.key)
        elif item.kind is TURN:
            instance = self.store.instance(item.key)
            if instance is not None:
                self._queue_turn(instance)

    def _prepare(self, lease: Lease) -> TurnWork | TaskWork | BatchWork | None:
        """Make what a lease carries, from what is committed; `None` if there is nothing to do any more."""
        item = lease.item
        if item.kind is ACTIVITY:
            task = task_of(item)
            return TaskWork(TaskToken(lease.id, task.seq, task.nonce), task)
        if item.kind is BATCH:
            entity = self.store.entity(item.key)
            if entity is None:
                return None
            operations = list(entity_transitions.batch(entity, self.store.operations(item.key)))
            if not operations:
                return None
            lease.basis = entity.revision
            holder = "" if entity.lock is None else entity.lock.execution_id
            batch = BatchToken(lease.id, entity.revision, operations[-1].seq, len(operations), holder, item.key)
            return BatchWork(batch, entity, operations)
        instance = self.store.instance(item.key)
        inbox = () if instance is None else self.store.inbox(instance)
        if instance is None or not transitions.is_ready(instance, inbox):
            return None
        self._crash_loops.dispatched(instance.instance_id)
        lease.basis = instance.turn_id
        given = list(transitions.turn_events(instance, inbox))
        time = transitions.turn_time(instance, given, self.clock.now())
        token = TurnToken(lease.id, instance.turn_id, given[-1].seq, len(given), time, instance.instance_id)
        session = self._sessions.continued(instance, lease.stream)
        if session is not None:
            return TurnWork(token, instance, [session.rest], 1, given, time, session.lease_id)
        chunks = self.store.history(instance)
        assert isinstance(chunks, list)
        return TurnWork(token, instance, chunks, len(chunks), given, time)

    # -- answers ---------------------------------------------------------------------------------------------------

    def complete(self, lease_id: str, command: Callable[[Transaction], bool]) -> bool:
        """Take the answer of a worker; returns whether it counted."""

        def work(transaction: Transaction) -> bool:
            transaction.finished = lease_id
            return command(transaction)

        try:
            return self.execute(work)
        except EngineStoppedError:
            raise
        except Exception:
            self.abandon(lease_id)
            raise

    def abandon(self, lease_id: str) -> None:
        """A worker gives an item back."""
        with self._lock:
            self.dispatcher.abandon(lease_id)
        self.wake()

    def send_history(self, lease_id: str, instance_id: str) -> None:
        """Have a turn dispatched again with its whole history: its worker does not keep the instance alive."""
        with self._lock:
            if not self._sessions.drop(instance_id):
                self.dispatcher.abandon(lease_id)
            else:
                self.dispatcher.requeue(lease_id)
        self.wake()

    def requeue(self, lease_id: str) -> None:
        """Have an item dispatched again at once; what its worker still answers may count or not."""
        with self._lock:
            self.dispatcher.requeue(lease_id)

    # -- streams ---------------------------------------------------------------------------------------------------

    def take(self, stream: WorkerStream) -> TurnWork | TaskWork | BatchWork | None:
        """Lease the next item to a stream that is pulled; `None` if nothing waits."""
        with self._lock:
            return cast("TurnWork | TaskWork | BatchWork | None", self.dispatcher.take(stream))

    def open_stream(self, stream: WorkerStream, holding: frozenset[str] | None = None) -> frozenset[str]:
        """A worker has come; returns those of the leases it says it has that have ended."""
        with self._lock:
            self._check_open()
            if not stream.expires and self.store.path is not None:
                self._crash_loops.worker_joined()
            return self.dispatcher.open(stream, holding)

    def close_stream(self, stream: WorkerStream) -> None:
        """A worker's stream has ended."""
        with self._lock:
            self.dispatcher.close(stream)
        self.wake()

    # -- watching --------------------------------------------------------------------------------------------------

    def watch(self, instance_id: str, watcher: Watcher) -> Callable[[], None]:
        """Call a function with an instance now and after each of its commits, until it returns `True`.

        Returns:
            A function that ends it.
        """
        with self._lock:
            if watcher(self.store.instance(instance_id)):
                return lambda: None
            self._watchers.add(instance_id, watcher)
        return lambda: self._unwatch(instance_id, watcher)

    def _unwatch(self, instance_id: str, watcher: Watcher) -> None:
        with self._lock:
            self._watchers.remove(instance_id, watcher)

    @property
    def watcher_count(self) -> int:
        """How many functions watch instances."""
        with self._lock:
            return len(self._watchers)

    def observe(self, observer: Callable[[], None]) -> None:
        """Call a function after each commit, on the thread that made it and under the lock."""
        self._observers.append(observer)

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Give a reader of what is committed; in memory, no command runs meanwhile."""
        self._check_open()
        reader = self._idle_reader() or self.store.reader()
        if reader is None:
            with self._lock:
                yield self.store
            return
        try:
            yield reader
        finally:
            if self.is_stopped:
                reader.close()
            else:
                self._idle_readers.append(reader)

    @contextmanager
    def queries(self) -> Iterator[Queries]:
        """Give a reader as `reading`, for what the state machine does not ask for; `StoreError` without a database."""
        with self.reading() as reader:
            if not isinstance(reader, Queries):
                raise StoreError("this engine has no database")
            yield reader

    def _idle_reader(self) -> ClosableReader | None:
        try:
            return self._idle_readers.pop()
        except IndexError:
            return None

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineStoppedError("the engine has been stopped")
        if self.is_forked():
            raise EngineStoppedError(
                f"this process ({os.getpid()}) was forked from the one that the engine runs in, and cannot use it; "
                "start the engine after forking, or connect to it over gRPC"
            )

    @contextmanager
    def locked(self) -> Iterator[Store]:
        """Give the store while no command runs."""
        with self._lock:
            yield self.store

    # -- time ------------------------------------------------------------------------------------------------------

    def next_due(self) -> int | None:
        """Return when the next timer is due, in the engine's time."""
        with self._lock:
            return self.store.next_due()

    def fire_due(self) -> int:
        """Let what is due happen; returns how many timers that were."""
        due = self.next_due()
        if due is None or due > self.clock.now():
            return 0
        return self.execute(lambda transaction: transaction.fire_timers(_TIMERS_AT_ONCE))

    def start(self) -> None:
        """Start the engine's thread: timers, leases, and the commands of those that do not run their own."""
        self._thread = threading.Thread(target=self._serve, name="durabletask-aio-engine", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the engine's thread look around."""
        with self._wake:
            self._is_woken = True
            self._wake.notify()

    def _serve(self) -> None:
        while not self._is_closed:
            try:
                pause = self._serve_once()
            except Exception:
                _logger.exception("The engine's thread has met an error")
                pause = _MAX_WAIT
            with self._wake:
                if not self._is_woken:
                    self._wake.wait(pause)
                self._is_woken = False

    def _serve_once(self) -> float:
        with self._lock:
            self._run_pending()
            pause = self.dispatcher.check()
            keep_due = self.dispatcher.keep_due
        if keep_due is not None and keep_due <= time.monotonic():
            self.execute(self._keep_leases)
        while self.fire_due():
            pass
        if self._retention.apply(self):
            self.wake()
        self._run_suspect()
        due = self.next_due()
        pauses = [_MAX_WAIT] if pause is None else [_MAX_WAIT, pause]
        if due is not None:
            pauses.append(max((due - self.clock.now()) / 1_000_000, 0.0))
        shortest = min(pauses)
        self._busy_until = self.clock.now() + shortest * 1_000_000
        self._asleep_until = time.monotonic() + shortest
        return shortest

    def _run_suspect(self) -> None:
        """Queue the turn of the next instance that may be ending the process."""
        with self._lock:
            before = self._crash_loops.running
            suspect = self._crash_loops.next(partial(self.dispatcher.is_out, TURN))
            if suspect is None:
                return
            if before is not None:
                self.dispatcher.discard(TURN, before)
            instance = self.store.instance(suspect)
            if instance is None or not self._queue_turn(instance):
                self._crash_loops.committed(suspect, None)

    # -- ending ----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Give out no work from now on; answers are still taken."""
        with self._lock:
            self.dispatcher.stop()

    @property
    def is_busy(self) -> bool:
        """Whether workers hold anything."""
        return any(self.dispatcher.out(kind) for kind in WORK_KINDS)

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy what is committed into a new file, while commands run.

        Args:
            target: the new file.

        Raises:
            StoreError: if that file exists.
        """
        if os.path.exists(target):
            raise StoreError(f"{os.fspath(target)} exists already; a backup goes into a new file")
        with self.queries() as reader:
            reader.backup(target)

    def stop(self, *, keep_store: bool = False) -> None:
        """End every stream and every wait, and close the store.

        Args:
            keep_store: leave the store open, for another kernel.
        """
        with self._lock:
            if self._is_closed:
                return
            self.dispatcher.stop()
            self._run_pending()
            for stream in list(self.dispatcher.streams):
                self.dispatcher.close(stream)
            self._is_closed = True
            watchers = self._watchers.clear()
        self.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for watcher in watchers:
            watcher(None)
        with self._lock:
            self._run_pending()
            self.store.set_meta("time", self.clock.now())
            self._crash_loops.stop()
            while self._idle_readers:
                self._idle_readers.pop().close()
            if not keep_store:
                self.store.close()

    @property
    def is_stopped(self) -> bool:
        """Whether it has been stopped."""
        return self._is_closed
