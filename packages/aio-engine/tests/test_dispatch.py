"""Which worker gets what, and when: queues, limits, filters, fairness and the ends of leases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from durabletask_aio.engine.abandoned import ABANDON_PAUSE, MAX_ABANDON_PAUSE
from durabletask_aio.engine.dispatch import Dispatcher
from durabletask_aio.engine.streams import (
    ACTIVITY,
    BATCH,
    TURN,
    Lease,
    Names,
    WorkerStream,
    WorkItem,
    WorkKind,
    filters,
)


class Dispatch(Dispatcher):
    """A dispatcher whose clock the test sets; the outbox of a stream gets the leases."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.gone: set[str] = set()
        numbers = itertools.count()
        super().__init__(self.prepare, lambda: str(next(numbers)), lambda: self.now, **options)

    def prepare(self, lease: Lease) -> Lease | None:
        return None if lease.item.key in self.gone else lease

    def put(self, *keys: str, kind: WorkKind = ACTIVITY, name: str = "work", **fields: Any) -> None:
        for key in keys:
            self.add(WorkItem(kind, key, name, **fields))

    def connect(self, limit: int = 10, names: Names = None, **fields: Any) -> WorkerStream:
        kinds = (TURN, ACTIVITY, BATCH)
        stream = WorkerStream(dict.fromkeys(kinds, limit), dict.fromkeys(kinds, names), **fields)
        self.open(stream)
        return stream


def received(stream: WorkerStream) -> list[Lease]:
    leases: list[Lease] = []
    while not stream.outbox.empty():
        lease = stream.outbox.get()
        if isinstance(lease, Lease):
            leases.append(lease)
    return leases


def keys(stream: WorkerStream) -> list[str]:
    return [each.item.key for each in received(stream)]


@pytest.fixture
def dispatch() -> Dispatch:
    return Dispatch(turn_lease=60.0)


class TestQueues:
    def test_what_waits_is_dispatched_in_its_order(self, dispatch: Dispatch) -> None:
        dispatch.put("a", name="one")
        dispatch.put("b", name="two")
        dispatch.put("c", name="one")

        assert keys(dispatch.connect()) == ["a", "b", "c"]

    def test_what_waits_or_is_out_is_not_added_again(self, dispatch: Dispatch) -> None:
        dispatch.put("a", "a")
        stream = dispatch.connect()
        dispatch.put("a")

        assert keys(stream) == ["a"]
        assert dispatch.queued(ACTIVITY) == 0

    def test_kinds_do_not_mix(self, dispatch: Dispatch) -> None:
        for kind in (TURN, ACTIVITY, BATCH):
            dispatch.put("a", kind=kind)

        assert [each.item.kind for each in received(dispatch.connect())] == [TURN, ACTIVITY, BATCH]

    def test_what_need_not_be_done_any_more_is_left_out(self, dispatch: Dispatch) -> None:
        dispatch.put("a", "b", "c", "d")
        dispatch.discard(ACTIVITY, "a")
        dispatch.discard_if(ACTIVITY, lambda item: item.key == "b")
        dispatch.gone.add("c")

        assert keys(dispatch.connect(limit=1)) == ["d"]

    def test_nothing_is_dispatched_once_it_is_stopping(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect()
        dispatch.stop()

        dispatch.put("a")
        dispatch.connect()

        assert keys(stream) == []
        assert dispatch.queued(ACTIVITY) == 1


class TestLimits:
    def test_a_worker_gets_what_it_can_hold_and_the_next_for_each_answer(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect(limit=2)
        dispatch.put("a", "b", "c", "d")
        first, second = received(stream)
        assert [first.item.key, second.item.key] == ["a", "b"]

        assert dispatch.finish(second.id) is second.item
        assert keys(stream) == ["c"]
        assert stream.held[ACTIVITY] == 2

        assert dispatch.finish(second.id) is None
        assert keys(stream) == []

    def test_kinds_are_limited_one_by_one(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect(limit=1)

        for kind in (TURN, ACTIVITY, BATCH):
            dispatch.put("a", "b", kind=kind)

        assert len(received(stream)) == 3

    def test_workers_share_what_comes(self, dispatch: Dispatch) -> None:
        streams = [dispatch.connect(limit=4), dispatch.connect(limit=4), dispatch.connect(limit=2)]

        dispatch.put(*"abcdefgh")

        counts = [len(keys(each)) for each in streams]
        assert sum(counts) == 8
        assert max(counts[:2]) - min(counts[:2]) <= 1
        assert 1 <= counts[2] <= 2

    def test_a_worker_without_limits_gets_everything(self, dispatch: Dispatch) -> None:
        stream = WorkerStream()
        dispatch.open(stream)

        dispatch.put(*(str(number) for number in range(1000)))

        assert len(keys(stream)) == 1000


class TestNames:
    def test_a_worker_gets_what_it_serves(self, dispatch: Dispatch) -> None:
        dispatch.put("a", name="one")
        dispatch.put("b", name="two")

        assert keys(dispatch.connect(names=filters([("two", [])]))) == ["b"]
        assert dispatch.queued(ACTIVITY) == 1
        assert keys(dispatch.connect()) == ["a"]

    def test_versions_are_part_of_it(self, dispatch: Dispatch) -> None:
        for version in ("1", "2", None):
            dispatch.put(str(version), name="one", version=version)

        assert keys(dispatch.connect(names=filters([("one", ["1"]), ("one", [""])]))) == ["1", "None"]
        assert keys(dispatch.connect(names=filters([("one", [])]))) == ["2"]

    def test_a_worker_that_serves_nothing_gets_nothing(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect(names={})
        dispatch.put("a")

        assert keys(stream) == []


class TestAffinity:
    def test_turns_go_to_the_worker_that_had_the_last_one(self, dispatch: Dispatch) -> None:
        streams = [dispatch.connect(), dispatch.connect()]
        for number in range(6):
            dispatch.put(str(number), kind=TURN, affinity=str(number))
        before = [received(each) for each in streams]
        for lease in itertools.chain(*before):
            dispatch.finish(lease.id)

        for number in reversed(range(6)):
            dispatch.put(str(number), kind=TURN, affinity=str(number))

        after = [keys(each) for each in streams]
        assert [sorted(each) for each in after] == [sorted(each.item.key for each in leases) for leases in before]

    def test_it_is_a_hint_only(self, dispatch: Dispatch) -> None:
        first, second = dispatch.connect(limit=1), dispatch.connect(limit=1)
        dispatch.put("x", kind=TURN, affinity="x")
        (lease,) = received(first)
        dispatch.finish(lease.id)
        dispatch.put("y", kind=TURN, affinity="y")
        dispatch.put("x", kind=TURN, affinity="x")

        assert sorted(keys(first) + keys(second)) == ["x", "y"]


class TestEndsOfLeases:
    @pytest.mark.parametrize("kind", [TURN, BATCH])
    def test_a_turn_or_a_batch_that_is_not_answered_in_time_goes_to_another_worker(
        self, dispatch: Dispatch, kind: WorkKind
    ) -> None:
        first = dispatch.connect(limit=1)
        dispatch.put("a", kind=kind)
        (lease,) = received(first)
        second = dispatch.connect()

        dispatch.now = 59.0
        assert dispatch.check() == pytest.approx(1.0)
        assert keys(second) == []
        dispatch.now = 60.0
        dispatch.check()

        assert keys(first) + keys(second) == ["a"]
        assert dispatch.finish(lease.id) is None

    def test_an_activity_has_all_the_time_it_needs(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect()
        dispatch.put("a")
        received(stream)

        dispatch.now = 1e6
        assert dispatch.check() is None

        assert keys(stream) == []

    def test_unless_it_is_told_otherwise(self) -> None:
        dispatch = Dispatch(activity_lease=10.0)
        stream = dispatch.connect()
        dispatch.put("a")
        received(stream)

        dispatch.now = 10.0
        dispatch.check()

        assert keys(stream) == ["a"]

    def test_in_this_process_nothing_expires(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect(expires=False)
        dispatch.put("a", kind=TURN)
        received(stream)

        dispatch.now = 1e6
        dispatch.check()

        assert keys(stream) == []

    def test_what_a_worker_gives_back_is_dispatched_again_after_a_pause(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect(limit=1)
        dispatch.put("a", "b")
        (lease,) = received(stream)

        dispatch.abandon(lease.id)
        assert keys(stream) == ["b"]
        assert dispatch.check() == pytest.approx(ABANDON_PAUSE)
        other = dispatch.connect()
        dispatch.now = ABANDON_PAUSE
        dispatch.check()

        assert keys(other) == ["a"]

    def test_what_no_worker_can_do_is_dispatched_ever_more_rarely_until_another_worker_comes(
        self, dispatch: Dispatch
    ) -> None:
        stream = dispatch.connect()
        dispatch.put("a")
        pauses = []
        for _ in range(6):
            (lease,) = received(stream)
            dispatch.abandon(lease.id)
            pause = dispatch.check()
            assert pause is not None
            pauses.append(pause)
            dispatch.now += pause + 1e-9
            dispatch.check()
        (lease,) = received(stream)
        dispatch.abandon(lease.id)
        other = dispatch.connect()

        assert pauses == pytest.approx([ABANDON_PAUSE, 1, 4, 16, MAX_ABANDON_PAUSE, MAX_ABANDON_PAUSE])
        (lease,) = received(other)
        dispatch.abandon(lease.id)
        assert dispatch.check() == pytest.approx(MAX_ABANDON_PAUSE), "both have abandoned it"

    def test_a_pause_is_short_if_another_worker_has_come_meanwhile(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect()
        dispatch.put("a")
        for _ in range(5):
            (lease,) = received(stream)
            dispatch.abandon(lease.id)
            dispatch.now += MAX_ABANDON_PAUSE
            dispatch.check()
        (lease,) = received(stream)
        other = dispatch.connect()
        dispatch.abandon(lease.id)

        assert dispatch.check() == pytest.approx(ABANDON_PAUSE)
        dispatch.now += ABANDON_PAUSE + 1e-9
        dispatch.check()
        assert keys(other) == ["a"]

    def test_what_is_done_meanwhile_is_not(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect()
        dispatch.put("a", "b")
        for lease in received(stream):
            dispatch.abandon(lease.id)
        dispatch.discard(ACTIVITY, "a")
        dispatch.discard_if(ACTIVITY, lambda item: item.key == "b")

        dispatch.now = 1.0
        dispatch.check()

        assert keys(stream) == []

    def test_the_worker_of_what_is_discarded_keeps_its_place_and_no_other_gets_it(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect(limit=1)
        dispatch.put("a", kind=TURN)
        (lease,) = received(stream)

        dispatch.discard(TURN, "a")
        dispatch.put("a", kind=TURN)
        assert keys(stream) == []
        other = dispatch.connect()
        assert keys(other) == ["a"]
        dispatch.close(stream)

        assert keys(other) == []
        assert dispatch.finish(lease.id) is None

    def test_a_discarded_item_that_is_given_back_does_not_come_again(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect()
        dispatch.put("a")
        (lease,) = received(stream)
        dispatch.discard(ACTIVITY, "a")

        dispatch.abandon(lease.id)
        dispatch.now = 1.0
        dispatch.check()

        assert keys(stream) == []
        assert stream.held[ACTIVITY] == 0

    def test_a_stream_that_ends_twice_ends_once(self, dispatch: Dispatch) -> None:
        stream = dispatch.connect()
        dispatch.put("a")

        dispatch.close(stream)
        dispatch.close(stream)

        assert dispatch.queued(ACTIVITY) == 1
        assert keys(dispatch.connect()) == ["a"]
