"""The engine's time never goes back, whatever the clocks of the machine do."""

from __future__ import annotations

import pytest

from durabletask_aio.engine.clock import SystemClock, VirtualClock

SECOND = 1_000_000


class Machine:
    """The clocks of a machine, in seconds."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000.0, 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self, last: int = 0) -> SystemClock:
        return SystemClock(last, wall=lambda: self.wall, monotonic=lambda: self.monotonic)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_is_the_wall_clock(machine: Machine):
    clock = machine.clock()
    assert clock.now() == 1_000 * SECOND

    machine.pass_time(1.5)

    assert clock.now() == 1_001.5 * SECOND


def test_it_advances_at_the_ordinary_speed_when_the_wall_clock_is_set_back(machine: Machine):
    clock = machine.clock()
    clock.now()
    machine.wall -= 600

    machine.pass_time(2)

    assert clock.now() == 1_002 * SECOND


def test_it_follows_a_wall_clock_that_is_set_ahead(machine: Machine):
    clock = machine.clock()
    clock.now()

    machine.wall += 3600

    assert clock.now() == 4_600 * SECOND


def test_after_a_wall_clock_that_was_ahead_it_continues_from_there(machine: Machine):
    clock = machine.clock()
    machine.wall += 3600
    clock.now()
    machine.wall -= 3600

    machine.pass_time(1)

    assert clock.now() == 4_601 * SECOND


def test_it_continues_from_the_time_of_the_life_before(machine: Machine):
    clock = machine.clock(last=5_000 * SECOND)
    assert clock.now() == 5_000 * SECOND

    machine.pass_time(1)

    assert clock.now() == 5_001 * SECOND


def test_a_monotonic_clock_that_goes_back_does_no_harm(machine: Machine):
    clock = machine.clock(last=5_000 * SECOND)
    clock.now()

    machine.monotonic -= 10

    assert clock.now() == 5_000 * SECOND


def test_the_machine_s_own_clocks_never_go_back():
    clock = SystemClock()
    times = [clock.now() for _ in range(1000)]

    assert times == sorted(times)


def test_a_virtual_clock_stands_still_and_moves_ahead_only():
    clock = VirtualClock(10)
    assert clock.now() == clock.now() == 10

    clock.advance_to(20)
    clock.advance_to(15)

    assert clock.now() == 20
