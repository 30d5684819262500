"""Both stores do the same, and a transaction that is rolled back leaves nothing of itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from engine_harness import Harness, stores

from durabletask_aio.engine.memory import MemoryStore
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import (
    Changes,
    Entity,
    EventKind,
    InboxEvent,
    Instance,
    Lock,
    LockRequest,
    Parent,
    Task,
    Timer,
    TimerKind,
)
from durabletask_aio.engine.store import InstanceFilter, Store, StoreError, all_instances

IDS = [f"instance-{number}" for number in range(6)]
EXECUTIONS = [f"execution-{number}" for number in range(6)]
ENTITIES = ["@counter@one", "@counter@two", "@other@one"]
STATUSES = [0, 1, 3, 5]


class Writer:
    """Makes the same random changes on every store, from one seed."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.now = self.starts = 0

    def transaction(self) -> bool:
        """Make some changes; returns whether they were committed."""
        self.store.begin()
        for _ in range(self.chance.randrange(1, 8)):
            self.now += self.chance.randrange(3)
            self.chance.choice(CHANGES)(self)
        if self.chance.random() < 0.3:
            self.store.rollback()
            return False
        self.store.commit()
        return True

    def apply(self) -> None:
        instance_id = self.chance.choice(IDS)
        before = self.store.instance(instance_id)
        parent = Parent(self.chance.choice(IDS), "any", 1) if self.chance.random() < 0.4 else None
        if before is None or self.chance.random() < 0.2:
            key = 0 if before is None else before.key
            self.starts += 1
            instance = Instance(
                key, instance_id, f"start {self.starts}", "turn", "name", None, 0, self.now, self.now, self.now
            )._replace(parent=parent, tags={"color": self.chance.choice(["red", "blue"])})
        else:
            ended = self.now if self.chance.random() < 0.3 else None
            instance = before._replace(
                status=self.chance.choice(STATUSES),
                updated_at=self.now,
                completed_at=ended,
                turn_id=str(self.now),
                event_count=before.event_count + 1,
            )
        inbox = [] if before is None else list(self.store.inbox(before))
        changes = Changes(instance)
        changes.clear_history = self.chance.random() < 0.2
        changes.history = self.chance.choice([b"", b"", b"chunk %d" % self.now])
        changes.drop_inbox = self.chance.random() < 0.2
        changes.consumed = self.chance.choice(inbox).seq if inbox and self.chance.random() < 0.5 else 0
        changes.inbox = [InboxEvent(0, b"event %d" % self.now, EventKind.OTHER, self.chance.choice([None, "some"]))]
        changes.payloads = {self.chance.choice(["input", "output"]): self.chance.choice([None, "text"])}
        self.store.apply(changes)

    def delete(self) -> None:
        instance = self.store.instance(self.chance.choice(IDS))
        if instance is not None:
            self.store.delete(instance)

    def add_task(self) -> None:
        self.store.add_task(Task(0, "nonce", "any", self.chance.choice(EXECUTIONS), 1, "act", None, b"request"))

    def drop_task(self) -> None:
        tasks = list(self.store.tasks())
        if tasks:
            self.store.drop_task(self.chance.choice(tasks))

    def keep_lease(self) -> None:
        tasks = list(self.store.tasks())
        if tasks:
            self.store.keep_lease(self.chance.choice(tasks), f"lease {self.now}", "worker")
        self.store.keep_lease(Task(10**12, "nonce", "any", "gone", 1, "act", None, b""), "lease", "worker")

    def drop_lease(self) -> None:
        tasks = list(self.store.tasks())
        if tasks:
            self.store.drop_lease(self.chance.choice(tasks))

    def add_timer(self) -> None:
        kind = self.chance.choice(list(TimerKind))
        execution = "" if kind is TimerKind.SIGNAL else self.chance.choice(EXECUTIONS)
        self.store.add_timer(Timer(self.now + self.chance.randrange(9), kind, "any", execution, b"event"))

    def fire(self) -> None:
        for timer in self.store.due_timers(self.now, 2):
            self.store.drop_timer(timer)

    def put_entity(self) -> None:
        lock = Lock("section", "any", self.chance.choice(EXECUTIONS)) if self.chance.random() < 0.5 else None
        state = self.chance.choice([None, "1"])
        self.store.put_entity(Entity(self.chance.choice(ENTITIES), "revision", state, self.now, lock, stored=False))

    def delete_entity(self) -> None:
        self.store.delete_entity(self.chance.choice(ENTITIES))

    def add_operation(self) -> None:
        self.store.add_operation(self.chance.choice(ENTITIES), b"operation", self.chance.choice([None, "some"]))

    def drop_operations(self) -> None:
        entity_id = self.chance.choice(ENTITIES)
        waiting = list(self.store.operations(entity_id))
        self.store.drop_operations(entity_id, [each.seq for each in waiting[: self.chance.randrange(3)]])

    def add_lock_request(self) -> None:
        lock = Lock("section", "any", self.chance.choice(EXECUTIONS))
        self.store.add_lock_request(LockRequest(0, lock, tuple(self.chance.sample(ENTITIES, 2))))

    def drop_lock_request(self) -> None:
        requests = list(self.store.lock_requests())
        if requests:
            self.store.drop_lock_request(self.chance.choice(requests).seq)

    def end_execution(self) -> None:
        self.store.end_execution(self.chance.choice(EXECUTIONS), self.chance.random() < 0.5)

    def clear(self) -> None:
        if self.chance.random() < 0.1:
            self.store.clear()


CHANGES: list[Callable[[Writer], None]] = [
    *[Writer.apply] * 4,
    Writer.delete,
    Writer.add_task,
    Writer.drop_task,
    Writer.keep_lease,
    Writer.drop_lease,
    Writer.add_timer,
    Writer.fire,
    Writer.put_entity,
    Writer.delete_entity,
    Writer.add_operation,
    Writer.drop_operations,
    Writer.add_lock_request,
    Writer.drop_lock_request,
    Writer.end_execution,
    Writer.clear,
]

FILTERS = [
    InstanceFilter(),
    InstanceFilter(statuses=frozenset({1, 3})),
    InstanceFilter(names=frozenset({"nobody"})),
    InstanceFilter(id_prefix="instance-1"),
    InstanceFilter(id_contains="ce-2"),
    InstanceFilter(text="CE-3"),
    InstanceFilter(text="stanc"),
    InstanceFilter(tags={"color": "red"}),
    InstanceFilter(only_roots=True),
    InstanceFilter(parent_id=IDS[0]),
    InstanceFilter(created_from=5, created_to=50),
    InstanceFilter(completed_from=20),
    InstanceFilter(updated_to=30),
]


def _without_numbers(value: Any, numbers: dict[int, int]) -> Any:
    """Replace what each store counts for itself by the order in which it is met."""
    if isinstance(value, Instance):
        return value._replace(key=0, tags=dict(value.tags))
    if hasattr(value, "seq"):
        return value._replace(seq=numbers.setdefault(value.seq, len(numbers)))
    return value


def everything(store: Store) -> dict[str, Any]:
    """All that a store can be asked."""
    numbers: dict[int, int] = {}

    def plain(values: Any) -> list[Any]:
        return [_without_numbers(each, numbers) for each in values]

    instances = list(all_instances(store))
    found: dict[str, Any] = {
        "instances": plain(instances),
        "inboxes": [plain(store.inbox(each)) for each in instances],
        "histories": [list(store.history(each)) for each in instances],
        "payloads": [dict(store.payloads(each)) for each in instances],
        "waiting": plain(store.waiting_instances()),
        "tasks": plain(store.tasks()),
        "leases": [(numbers.get(seq), *rest) for seq, *rest in store.leases()],
        "tasks of": [plain(store.tasks(each)) for each in EXECUTIONS],
        "due": plain(store.due_timers(10**9, 1000)),
        "next": store.next_due(),
        "entities": [store.entity(each) for each in ENTITIES],
        "locked": sorted(store.locked_entities()),
        "locked by": [sorted(store.locked_entities(each)) for each in EXECUTIONS],
        "operations": [plain(store.operations(each)) for each in ENTITIES],
        "waiting entities": list(store.waiting_entities()),
        "has first": [store.first_operation(each) is not None for each in ENTITIES],
        "requests": plain(store.lock_requests()),
        "children": [plain(store.children(each)) for each in IDS],
        "two children": [plain(store.children(each, 2)) for each in IDS],
    }
    for number, wanted in enumerate(FILTERS):
        found[f"count {number}"] = store.count(wanted)
        found[f"completed {number}"] = plain(store.completed(wanted, 3))
        for newest_first in (False, True):
            page = store.query(wanted, 2, newest_first=newest_first)
            pages = [plain(page.instances)]
            while page.after is not None:
                page = store.query(wanted, 2, page.after, newest_first=newest_first)
                pages.append(plain(page.instances))
            found[f"query {number} {newest_first}"] = pages
    for transient in (True, False):
        found[f"entities {transient}"] = list(store.entities("@counter", 3, 1000, transient, 2))
        found[f"entities {transient}, next"] = list(store.entities("", None, None, transient, 2, ENTITIES[0]))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_both_stores_do_the_same(seed):
    memory, database = Writer(MemoryStore(), seed), Writer(SqliteStore(), seed)
    for _ in range(40):
        assert memory.transaction() == database.transaction()
        assert everything(memory.store) == everything(database.store)
    memory.store.close()
    database.store.close()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", stores(), ids=lambda each: each.__name__)
def test_a_transaction_that_is_rolled_back_leaves_nothing(kind, seed):
    store = kind()
    writer = Writer(store, seed)
    rolled_back = 0
    for _ in range(60):
        before = everything(store)
        if not writer.transaction():
            rolled_back += 1
            assert everything(store) == before
    assert rolled_back > 5
    store.close()


@pytest.mark.parametrize("kind", stores(), ids=lambda each: each.__name__)
def test_values_are_kept_by_name(kind):
    store = kind()
    assert store.meta("retention") is None
    store.begin()
    store.set_meta("retention", 5)
    store.commit()
    assert store.meta("retention") == 5
    store.set_crashes({"one": ("turn", 2)})
    assert store.crashes() == {"one": ("turn", 2)}
    store.set_crashes({})
    assert store.crashes() == {}
    store.close()


def test_a_store_of_python_objects_has_no_file_to_copy(tmp_path):
    kernel = Harness(MemoryStore()).kernel
    with pytest.raises(StoreError, match="this engine has no database"):
        kernel.backup(tmp_path / "copy")
