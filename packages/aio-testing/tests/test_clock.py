"""`SystemClock` and `VirtualClock`."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

import pytest

from durabletask_aio.testing.clock import SystemClock, VirtualClock

NEW_YEAR = datetime(2024, 1, 1, tzinfo=timezone.utc)


class TestSystemClock:
    @pytest.fixture
    def clock(self):
        clock = SystemClock()
        clock.start()
        yield clock
        clock.stop()

    def test_due_callbacks_run_in_order_of_time_then_of_registration(self, clock):
        ran, done = [], threading.Event()
        base = clock.now() + timedelta(milliseconds=50)
        clock.call_at(base + timedelta(milliseconds=20), lambda: (ran.append("last"), done.set()))
        clock.call_at(base, lambda: ran.append("first"))
        clock.call_at(base, lambda: ran.append("second"))
        assert done.wait(30)
        assert ran == ["first", "second", "last"]

    def test_no_callback_runs_early(self, clock):
        done, times = threading.Event(), []
        when = clock.now() + timedelta(milliseconds=200)
        clock.call_at(when, lambda: (times.append(clock.now()), done.set()))
        assert done.wait(30)
        assert times[0] >= when

    def test_a_callback_that_fails_is_logged_and_the_next_one_runs(self, clock, caplog):
        done = threading.Event()

        def fail():
            raise ValueError("broken")

        clock.call_at(clock.now(), fail)
        clock.call_at(clock.now(), done.set)
        assert done.wait(30)
        assert "A timer of the local engine failed" in caplog.text

    def test_callbacks_that_become_due_while_stopped_run_after_the_next_start(self):
        clock, done = SystemClock(), threading.Event()
        clock.start()
        clock.stop()
        clock.call_at(clock.now(), done.set)
        assert not done.wait(0.1)
        clock.start()
        assert done.wait(30)
        clock.stop()

    def test_clear_drops_pending_callbacks(self):
        clock, done = SystemClock(), threading.Event()
        clock.call_at(clock.now(), done.set)
        clock.clear()
        clock.start()
        clock.call_at(clock.now() + timedelta(milliseconds=50), lambda: None)
        assert not done.wait(0.1)
        clock.stop()


class TestVirtualClock:
    def test_time_does_not_pass_by_itself(self):
        clock = VirtualClock(NEW_YEAR)
        assert clock.now() == clock.now() == NEW_YEAR

    def test_advance_runs_one_callback_at_a_time(self):
        clock, seen = VirtualClock(NEW_YEAR), []
        clock.call_at(NEW_YEAR + timedelta(days=2), lambda: seen.append(clock.now()))
        clock.call_at(NEW_YEAR + timedelta(days=1), lambda: seen.append(clock.now()))
        goal = NEW_YEAR + timedelta(days=3)
        assert [clock.advance_to(goal), clock.advance_to(goal), clock.advance_to(goal)] == [True, True, False]
        assert seen == [NEW_YEAR + timedelta(days=1), NEW_YEAR + timedelta(days=2)]
        assert clock.now() == goal

    def test_time_never_goes_back(self):
        clock = VirtualClock(NEW_YEAR)
        clock.call_at(NEW_YEAR - timedelta(days=1), lambda: None)
        assert clock.advance_to(NEW_YEAR)
        assert clock.now() == NEW_YEAR
        clock.advance_to(NEW_YEAR - timedelta(days=2))
        assert clock.now() == NEW_YEAR

    def test_a_callback_may_schedule_another_before_the_next_one(self):
        clock, seen = VirtualClock(NEW_YEAR), []
        later = NEW_YEAR + timedelta(days=5)
        clock.call_at(NEW_YEAR + timedelta(days=1), lambda: clock.call_at(clock.now(), lambda: seen.append("nested")))
        clock.call_at(NEW_YEAR + timedelta(days=2), lambda: seen.append("next"))
        while clock.advance_to(later):
            pass
        assert seen == ["nested", "next"]
