"""What an engine has acknowledged, and therefore may not lose.

The commands of a simulation report what they have done while their transaction is open; it counts once that is
committed, also if the process ends before the client gets the answer.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from invariants import InstanceCheck, Tables, Violation, control_is_lost, expect, raised

from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import EventKind, Instance, TimerKind
from durabletask_aio.engine.transitions import FAILED, TERMINAL


@dataclass
class Life:
    """An instance from its start to its end, over continue-as-new.

    Attributes:
        execution_id: its execution.
        status: when it was last changed.
        events: the external events that it was given, by their data.
        control: what clients have asked for last: `"suspend"`, `"resume"`, or nothing.
        is_terminated: whether its end has been asked for.
        started_at: when its execution started, in its own time.
    """

    execution_id: str
    status: int
    events: Counter[str] = field(default_factory=Counter[str])
    control: str = ""
    is_terminated: bool = False
    started_at: int = 0


class Model:
    """What is known to have been committed."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.sent: dict[str, Counter[str]] = {}
        """The operations that entities were sent, by their input."""
        self.executed: dict[str, Counter[str]] = {}
        self.purged: set[str] = set()
        """Executions whose instance has been purged."""
        self.touched: set[str] = set()
        """Instances to be checked."""
        self.time = 0
        """The engine's, at the latest commit."""
        self._pending: list[Callable[[], None]] = []

    def copy(self) -> Model:
        """Return what is known to have been committed by now."""
        found = Model()
        found.lives = copy.deepcopy(self.lives)
        found.sent, found.executed = copy.deepcopy(self.sent), copy.deepcopy(self.executed)
        found.purged, found.time = set(self.purged), self.time
        return found

    # -- transactions ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._pending.clear()

    def commit(self) -> None:
        for effect in self._pending:
            effect()
        self._pending.clear()

    def after(self, transaction: Transaction, *, continued: str = "") -> None:
        """Note what a command has changed; `continued` is the instance that has continued as new."""
        now = transaction.context.now

        def apply() -> None:
            expect(now >= self.time, f"the engine's time goes back from {self.time} to {now}")
            self.time = now

        self._pending.append(apply)
        for instance_id, instance in transaction.touched.items():
            self._observe(transaction, instance_id, instance, is_same_life=instance_id == continued)

    def _observe(
        self, transaction: Transaction, instance_id: str, instance: Instance | None, is_same_life: bool
    ) -> None:
        received: Counter[str] = Counter()
        control = ""
        if instance is not None:
            assert isinstance(transaction.store, SqliteStore)
            tables = Tables(transaction.store)
            received = Counter(tables.input(instance)["seen"])
            if instance.status in TERMINAL:
                history = tables.history(instance)
                received += raised(history)
                for event in history:
                    if event.HasField("executionSuspended"):
                        control = "suspend"
                    elif event.HasField("executionResumed"):
                        control = "resume"

        def apply() -> None:
            self.touched.add(instance_id)
            before = self.lives.get(instance_id)
            if before is not None and instance is not None and before.execution_id != instance.execution_id:
                is_later = instance.started_at > before.started_at
                expect(is_later, f"two executions of {instance_id} start at the same time")
            if instance is None:
                if before is not None:
                    self.purged.add(before.execution_id)
                    del self.lives[instance_id]
                return
            if before is None or (before.execution_id != instance.execution_id and not is_same_life):
                before = self.lives[instance_id] = Life(instance.execution_id, instance.status, received)
            if instance.status in TERMINAL and before.status not in TERMINAL:
                # What has come too late for its last turn is gone with the rest of the inbox.
                before.events, before.control, before.is_terminated = received, control, False
            elif before.status in TERMINAL and before.execution_id == instance.execution_id:
                expect(
                    instance.status in TERMINAL or (before.status == FAILED and instance.rewinding),
                    f"{instance_id} runs again after its end, without a rewind",
                )
            before.execution_id, before.status = instance.execution_id, instance.status
            before.started_at = instance.started_at

        self._pending.append(apply)

    # -- what clients and workers do -------------------------------------------------------------------------------

    def give(self, instance_id: str, change: Callable[[Life], None]) -> None:
        """Note something that a running instance was given, and one that has ended was not."""

        def apply() -> None:
            life = self.lives.get(instance_id)
            if life is not None and life.status not in TERMINAL:
                change(life)

        self._pending.append(apply)

    def raise_event(self, instance_id: str, data: str) -> None:
        def change(life: Life) -> None:
            life.events[data] += 1

        self.give(instance_id, change)

    def control(self, instance_id: str, control: str) -> None:
        def change(life: Life) -> None:
            life.control = control

        self.give(instance_id, change)

    def terminate(self, instance_id: str) -> None:
        def change(life: Life) -> None:
            life.is_terminated = True

        self.give(instance_id, change)

    def send(self, entity_id: str, key: str) -> None:
        self._pending.append(lambda: self.sent.setdefault(entity_id, Counter()).update([key]))

    def execute(self, entity_id: str, key: str) -> None:
        self._pending.append(lambda: self.executed.setdefault(entity_id, Counter()).update([key]))

    # -- checks ----------------------------------------------------------------------------------------------------

    def check_instance(self, tables: Tables, instance_id: str) -> None:
        """Check an instance, and that what it was given is there."""
        instance = tables.instance(instance_id)
        life = self.lives.get(instance_id)
        if instance is None:
            expect(life is None, f"{instance_id} has been started and does not exist")
            expect(instance_id not in tables.store._cache, f"{instance_id} is in memory only")
            return
        if life is None:
            raise Violation(f"{instance_id} exists and has not been started, or has been purged")
        found = instance.execution_id, instance.status in TERMINAL
        if found != (life.execution_id, life.status in TERMINAL):
            raise Violation(f"{instance_id} is {instance}, it should be {life}")
        check = InstanceCheck(tables, instance)
        check.run()
        if not check.is_live:
            return
        received = Counter(tables.input(instance)["seen"]) + raised(check.history) + raised(check.arriving)
        if received != life.events:
            raise Violation(f"{instance_id} has the events {received}, and was given {life.events}")
        expect(
            not control_is_lost(instance, check.inbox, life.control),
            f"{instance_id} has the status {instance.status} after a client's {life.control}",
        )
        if life.is_terminated:
            kinds = {each.kind for each in check.inbox}
            expect(
                kinds & {EventKind.TERMINATE, EventKind.TERMINATE_RECURSIVELY},
                f"{instance_id} was terminated, and continues",
            )

    def check_operations(self, tables: Tables) -> None:
        """Check that every operation was executed once, or waits."""
        waiting: dict[str, Counter[str]] = {}
        rows = tables.rows("SELECT entity_id, event FROM operations")
        rows += tables.rows("SELECT target, event FROM timers WHERE kind=?", TimerKind.SIGNAL.value)
        for entity_id, body in rows:
            waiting.setdefault(entity_id, Counter()).update([operation_key(pb.HistoryEvent.FromString(body))])
        for entity_id in self.sent.keys() | waiting.keys() | self.executed.keys():
            found = self.executed.get(entity_id, Counter()) + waiting.get(entity_id, Counter())
            sent = self.sent.get(entity_id, Counter())
            if found != sent:
                raise Violation(f"{entity_id} was sent {sent - found} in vain, and {found - sent} not at all")

    def check_purged(self, tables: Tables) -> None:
        """Check that nothing is left of what has been purged."""
        for table in ("tasks", "timers", "lock_requests"):
            for execution_id in tables.column(f"SELECT execution_id FROM {table}"):
                expect(execution_id not in self.purged, f"{table} has rows of {execution_id}, which was purged")


def operation_key(event: pb.HistoryEvent) -> str:
    """Return what tells an operation from all others."""
    body = getattr(event, event.WhichOneof("eventType") or "")
    key: str = body.input.value
    return key


def sent_operations(response: pb.OrchestratorResponse) -> list[tuple[str, str]]:
    """Return the operations that a turn sends: the entity and the key of each."""
    found: list[tuple[str, str]] = []
    for action in response.actions:
        if action.HasField("sendEntityMessage"):
            field = action.sendEntityMessage.WhichOneof("EntityMessageType") or ""
            if field in ("entityOperationCalled", "entityOperationSignaled"):
                body = getattr(action.sendEntityMessage, field)
                found.append((body.targetInstanceId.value, body.input.value))
    return found
