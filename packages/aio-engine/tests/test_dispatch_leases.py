"""What becomes of the leases of a worker whose stream ends, and that comes back or not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from durabletask_aio.engine.dispatch import Dispatcher
from durabletask_aio.engine.kept_leases import KEEP_LEASE_AFTER
from durabletask_aio.engine.streams import ACTIVITY, BATCH, TURN, Lease, WorkerStream, WorkItem, WorkKind

PERIOD = 30.0


class Dispatch:
    """A dispatcher with a clock that the test sets; a stream's outbox gets the leases."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        numbers = itertools.count()
        self.dispatcher = Dispatcher(
            lambda lease: lease,
            lambda: f"{next(numbers):016x}",
            lambda: self.now,
            reconnect_period=PERIOD,
            **options,
        )

    def add(self, *keys: str, kind: WorkKind = ACTIVITY) -> None:
        for key in keys:
            self.dispatcher.add(WorkItem(kind, key, "name", payload=key))

    def connect(
        self,
        worker_id: str = "w",
        *,
        limit: int = 10,
        holding: list[Lease] | None = None,
        leaving: bool = False,
        number: int = 0,
    ) -> WorkerStream:
        limits: dict[WorkKind, int] = {TURN: limit, ACTIVITY: limit, BATCH: limit}
        stream = WorkerStream(limits, worker_id=worker_id, is_leaving=leaving, number=number)
        self.dispatcher.open(stream, None if holding is None else frozenset(each.id for each in holding))
        return stream

    def later(self, seconds: float) -> float | None:
        self.now += seconds
        return self.dispatcher.check()


def received(stream: WorkerStream) -> list[Lease]:
    """What has been put on the way to a worker since the last call."""
    leases: list[Lease] = []
    while not stream.outbox.empty():
        lease = stream.outbox.get()
        if lease is not None:
            assert isinstance(lease, Lease)
            leases.append(lease)
    return leases


def keys(leases: list[Lease]) -> list[str]:
    return [each.item.key for each in leases]


@pytest.mark.parametrize("kind", [TURN, ACTIVITY, BATCH])
def test_what_a_worker_says_it_still_has_is_not_dispatched_again(kind: WorkKind) -> None:
    dispatch = Dispatch()
    before = dispatch.connect()
    dispatch.add("a", "b", kind=kind)
    leases = received(before)
    dispatch.dispatcher.close(before)

    after = dispatch.connect(holding=leases)
    dispatch.later(10 * PERIOD if kind is ACTIVITY else PERIOD)

    assert received(after) == []
    assert (after.held[kind], dispatch.dispatcher.out(kind), dispatch.dispatcher.queued(kind)) == (2, 2, 0)
    assert [dispatch.dispatcher.finish(each.id) for each in leases] == [each.item for each in leases]
    assert after.held[kind] == 0


def test_what_a_worker_does_not_have_any_more_is_dispatched_at_once_in_its_old_order() -> None:
    dispatch = Dispatch()
    before = dispatch.connect(limit=4)
    dispatch.add("a", "b", "c", "d", "e")
    leases = received(before)
    dispatch.dispatcher.close(before)

    after = dispatch.connect(limit=2, holding=[leases[1]])

    assert keys(received(after)) == ["a"]
    assert after.held[ACTIVITY] == 2
    dispatch.dispatcher.finish(leases[1].id)
    assert keys(received(after)) == ["c"]
    other = dispatch.connect("other")
    assert keys(received(other)) == ["d", "e"]


def test_a_worker_that_comes_back_with_nothing_gets_all_of_it_again() -> None:
    dispatch = Dispatch()
    before = dispatch.connect()
    dispatch.add("a", "b", "c")
    dispatch.dispatcher.close(before)

    after = dispatch.connect(holding=[])

    assert keys(received(after)) == ["a", "b", "c"]
    assert after.held[ACTIVITY] == 3


def test_a_worker_that_does_not_say_what_it_has_waits_for_the_end_of_the_period() -> None:
    dispatch = Dispatch()
    before = dispatch.connect()
    dispatch.add("a")
    dispatch.dispatcher.close(before)

    after = dispatch.connect()

    assert dispatch.later(PERIOD - 1) == 1
    assert received(after) == []
    dispatch.later(1)
    assert keys(received(after)) == ["a"]
    assert (after.held[ACTIVITY], dispatch.dispatcher.out(ACTIVITY)) == (1, 1)


def test_after_the_period_other_workers_get_it_and_a_late_answer_is_of_no_lease() -> None:
    dispatch = Dispatch()
    before = dispatch.connect(limit=2)
    dispatch.add("a", "b", "c")
    leases = received(before)
    dispatch.dispatcher.close(before)
    other = dispatch.connect("other")
    assert keys(received(other)) == ["c"]

    dispatch.later(PERIOD)

    assert keys(received(other)) == ["a", "b"]
    after = dispatch.connect(holding=leases)
    assert (after.held[ACTIVITY], received(after)) == (0, [])
    assert dispatch.dispatcher.finish(leases[0].id) is None
    assert other.held[ACTIVITY] == 3


def test_a_worker_without_a_name_gives_everything_back_at_once() -> None:
    dispatch = Dispatch()
    before = dispatch.connect("", limit=2)
    dispatch.add("a", "b", "c")
    dispatch.dispatcher.close(before)

    after = dispatch.connect("", holding=received(before))

    assert keys(received(after)) == ["a", "b", "c"]


def test_a_stream_of_which_the_engine_does_not_know_that_it_is_broken_gets_nothing_more() -> None:
    dispatch = Dispatch()
    before = dispatch.connect()
    dispatch.add("a", "b")
    leases = received(before)

    after = dispatch.connect(holding=[leases[0]])
    dispatch.add("c", "d")

    assert keys(received(after)) == ["b", "c", "d"]
    assert received(before) == []
    assert (before.is_open, before.held[ACTIVITY], after.held[ACTIVITY]) == (False, 0, 4)
    dispatch.dispatcher.close(before)  # the engine notices
    dispatch.later(PERIOD)
    assert after.held[ACTIVITY] == dispatch.dispatcher.out(ACTIVITY) == 4


def test_a_stream_that_was_held_up_on_its_way_does_not_take_over() -> None:
    dispatch = Dispatch()
    before = dispatch.connect(holding=[], number=1)
    dispatch.add("a")
    leases = received(before)
    dispatch.dispatcher.close(before)
    last = dispatch.connect(holding=leases, number=3)

    late = dispatch.connect(holding=[], number=2)

    assert (late.is_open, late.outbox.get_nowait()) == (False, None)
    assert (last.is_open, last.held[ACTIVITY], received(last)) == (True, 1, [])
    dispatch.dispatcher.close(late)
    dispatch.dispatcher.close(last)
    later = dispatch.connect(holding=[], number=2)  # nor while the worker is away
    assert (later.is_open, dispatch.dispatcher.out(ACTIVITY)) == (False, 1)
    dispatch.later(PERIOD)
    assert dispatch.dispatcher.queued(ACTIVITY) == 1
    assert dispatch.connect(holding=[], number=1).is_open  # by then it is forgotten


def test_two_workers_of_one_name_that_say_nothing_of_leases_do_not_disturb_each_other() -> None:
    dispatch = Dispatch()
    first, second = dispatch.connect(limit=1), dispatch.connect(limit=1)
    dispatch.add("a", "b", "c")

    dispatch.dispatcher.close(first)

    assert keys(received(second)) == ["b"]
    dispatch.later(PERIOD)
    third = dispatch.connect("other")
    assert keys(received(third)) == ["a", "c"]
    assert (second.held[ACTIVITY], third.held[ACTIVITY]) == (1, 2)


def test_what_is_done_while_a_worker_is_away_leaves_no_lease() -> None:
    dispatch = Dispatch()
    before = dispatch.connect()
    dispatch.add("a", "b")
    leases = received(before)
    dispatch.dispatcher.close(before)
    dispatch.dispatcher.finish(leases[0].id)
    dispatch.dispatcher.abandon(leases[1].id)

    after = dispatch.connect(holding=leases)

    assert (after.held[ACTIVITY], dispatch.dispatcher.out(ACTIVITY)) == (0, 0)
    dispatch.later(1)
    assert keys(received(after)) == ["b"]


def test_a_worker_that_leaves_keeps_what_it_lists_and_gets_nothing() -> None:
    dispatch = Dispatch()
    before = dispatch.connect()
    other = dispatch.connect("other", limit=1)
    dispatch.add("a", "b", "c")
    leases = received(before)
    assert keys(leases) == ["a", "c"]
    assert keys(received(other)) == ["b"]

    last = dispatch.connect(holding=[leases[0]], leaving=True)
    dispatch.add("d")

    assert received(last) == []
    assert (last.held[ACTIVITY], dispatch.dispatcher.queued(ACTIVITY)) == (1, 2)
    third = dispatch.connect("third")
    assert keys(received(third)) == ["c", "d"]
    dispatch.dispatcher.close(last)
    assert keys(received(third)) == ["a"]


class TestKeptLeases:
    def test_are_those_on_activities_of_workers_with_a_name_that_have_lasted_for_a_while(self) -> None:
        dispatch = Dispatch(keep_leases=True)
        stream = dispatch.connect()
        nameless = dispatch.connect("", limit=1)
        dispatch.add("a", "b")
        dispatch.add("turn", kind=TURN)
        long = received(stream)[0]
        assert keys(received(nameless))[0] == "b"
        dispatch.later(KEEP_LEASE_AFTER)
        dispatch.add("c")

        assert dispatch.dispatcher.leases_to_keep() == ([long], [])
        assert dispatch.dispatcher.leases_to_keep() == ([], [])

    def test_a_short_activity_is_not_written(self) -> None:
        dispatch = Dispatch(keep_leases=True)
        stream = dispatch.connect()
        dispatch.add("a")
        dispatch.dispatcher.finish(received(stream)[0].id)
        dispatch.later(KEEP_LEASE_AFTER)

        assert dispatch.dispatcher.leases_to_keep() == ([], [])

    def test_one_that_is_over_is_told_once(self) -> None:
        dispatch = Dispatch(keep_leases=True)
        stream = dispatch.connect()
        dispatch.add("a", "b", "c")
        done, _lost, abandoned = received(stream)
        dispatch.later(KEEP_LEASE_AFTER)
        assert len(dispatch.dispatcher.leases_to_keep()[0]) == 3

        dispatch.dispatcher.finish(done.id)
        dispatch.dispatcher.abandon(abandoned.id)
        dispatch.connect(holding=[])

        leases, over = dispatch.dispatcher.leases_to_keep()
        assert leases == []
        assert sorted(each.key for each in over) == ["b", "c"]

    def test_a_restored_one_is_its_workers_for_the_period(self) -> None:
        dispatch = Dispatch(keep_leases=True)
        for number, worker in enumerate(["w", "gone"]):
            dispatch.dispatcher.restore(WorkItem(ACTIVITY, worker, "name"), f"{number + 100:016x}", worker)
        other = dispatch.connect("other")
        dispatch.add("w", "gone")  # as if the store had told of them again
        assert received(other) == []

        back = WorkerStream({}, worker_id="w")
        dispatch.dispatcher.open(back, frozenset([f"{100:016x}"]))
        dispatch.later(PERIOD)

        assert keys(received(other)) == ["gone"]
        assert (back.held[ACTIVITY], received(back)) == (1, [])
        assert [each.key for each in dispatch.dispatcher.leases_to_keep()[1]] == ["gone"]
