"""Mode best_effort: the values that workflow code gets from the clock, random and uuid functions."""

from __future__ import annotations

import datetime as dt
import os
import random
import secrets
import subprocess
import sys
import time
import uuid
from datetime import date
from datetime import datetime as DateTime
from random import random as draw
from typing import Any

import pytest

MODULE_ALIAS = time.time


class Moment(dt.datetime):
    """A subclass, as date libraries define."""


def by_default(clock: Any = time.monotonic) -> Any:
    return clock()


class TestClock:
    def test_every_way_of_reading_the_clock_gives_the_time_of_the_workflow(
        self, best_effort: Any, moment: dt.datetime
    ) -> None:
        async def workflow(ctx: Any) -> list[Any]:
            return [
                time.time(),
                time.monotonic(),
                time.perf_counter(),
                MODULE_ALIAS(),
                by_default(),
                time.time_ns() / 1e9,
                DateTime.now(dt.timezone.utc).timestamp(),
                dt.datetime.utcnow().replace(tzinfo=dt.timezone.utc).timestamp(),
                dt.datetime.now().replace(tzinfo=dt.timezone.utc).timestamp(),
                Moment.now(tz=dt.timezone.utc).timestamp(),
            ]

        outcome = best_effort(workflow)

        assert outcome.error is None
        assert [moment.timestamp()] * 10 == pytest.approx(outcome.result, abs=1e-6)

    def test_dates_and_formatted_times_are_in_utc(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> list[Any]:
            return [date.today(), time.localtime().tm_hour, time.strftime("%Y-%m-%d %H"), time.ctime()]

        outcome = best_effort(workflow)

        assert [date(2024, 1, 2), 3, "2024-01-02 03", "Tue Jan  2 03:04:05 2024"] == outcome.result

    def test_an_explicit_time_is_formatted_unchanged(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> str:
            return time.strftime("%Y", time.gmtime(86400 * 366))

        outcome = best_effort(workflow)

        assert (outcome.result, outcome.warnings) == ("1971", [])

    def test_the_class_itself_is_still_the_class(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> list[bool]:
            now = DateTime.now()
            return [isinstance(now, DateTime), type(now) is DateTime, DateTime(2024, 1, 1) < now]

        assert best_effort(workflow).result == [True, True, True]

    def test_a_subclass_makes_its_own_kind(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> type:
            return type(Moment.now())

        assert Moment is best_effort(workflow).result

    def test_the_same_values_come_in_every_time_zone(self) -> None:
        program = (
            "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
            "from conftest import Driver, Layer\nimport time, datetime\n"
            "async def workflow(ctx):\n"
            "    return [time.time(), datetime.datetime.now(), time.localtime()[:6], datetime.date.today()]\n"
            "print(Driver('best_effort', Layer.REDIRECT)(workflow).result)\n"
        )
        here = os.path.dirname(os.path.abspath(__file__))

        def run(zone: str) -> str:
            environment = {**os.environ, "TZ": zone, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            command = [sys.executable, "-c", program, here]
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

        assert run("UTC") == run("Asia/Tokyo") != ""


class TestRandom:
    def test_values_are_equal_on_replay_and_differ_between_calls(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> list[Any]:
            return [random.random(), draw(), random.randint(1, 10**9), uuid.uuid4(), uuid.uuid4(), uuid.uuid1()]

        first, second = best_effort(workflow), best_effort(workflow)

        assert first.result == second.result
        assert len(set(first.result)) == 6
        assert (first.result[3].version, first.result[5].version) == (4, 1)

    def test_instances_draw_different_values(self, best_effort: Any, make_execution: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return random.random()

        assert (
            best_effort(workflow, execution=make_execution("a")).result
            != best_effort(workflow, execution=make_execution("b")).result
        )

    def test_an_unseeded_generator_is_seeded_from_the_execution(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return random.Random().random()

        assert best_effort(workflow).result == best_effort(workflow).result

    def test_a_seeded_generator_is_not_changed(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> list[int]:
            items = list(range(9))
            random.Random(7).shuffle(items)
            return items

        expected = list(range(9))
        random.Random(7).shuffle(expected)
        outcome = best_effort(workflow)

        assert (expected, []) == (outcome.result, outcome.warnings)

    def test_secrets_are_warned_about_and_never_replaced(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> tuple[str, bytes]:
            return secrets.token_hex(16), os.urandom(16)

        first, second = best_effort(workflow), best_effort(workflow)

        assert first.result != second.result
        assert len(first.warnings) == 2


class TestFrozenClock:
    def test_a_loop_that_waits_for_the_clock_is_stopped_with_an_explanation(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> None:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                pass

        outcome = best_effort(workflow)

        assert "A loop waits for a clock that stands still: `time.monotonic` was read 100,000 times" in str(
            outcome.error
        )
        assert "Use `await ctx.sleep(seconds)` in the loop" in str(outcome.error)
        assert outcome.violation is outcome.error


class TestImportsInside:
    def test_modules_and_functions_imported_inside_give_the_same_values(
        self, best_effort: Any, moment: dt.datetime
    ) -> None:
        async def workflow(ctx: Any) -> list[Any]:
            import datetime  # noqa: ICN001  # as users write it
            import random as chance
            import time as clock
            import uuid
            from datetime import date, timezone
            from datetime import datetime as Stamp
            from random import randint
            from time import monotonic

            assert clock.struct_time is time.struct_time
            now = Stamp.now(timezone.utc)
            assert isinstance(now, Stamp)
            assert type(now) is dt.datetime
            assert isinstance(dt.datetime(2024, 1, 1), datetime.datetime)
            assert Stamp(2024, 1, 1) == dt.datetime(2024, 1, 1)
            assert Stamp == dt.datetime
            assert Stamp.fromisoformat("2024-01-01") == datetime.datetime.strptime("2024", "%Y")
            assert datetime.timedelta is dt.timedelta
            times = [clock.time(), monotonic(), now.timestamp(), datetime.datetime.now(timezone.utc).timestamp()]
            return [times, date.today(), chance.random(), randint(1, 10**9), uuid.uuid4(), uuid.UUID(int=1)]

        first, second = best_effort(workflow), best_effort(workflow)

        assert first.error is None
        assert first.result == second.result
        assert first.result[0] == pytest.approx([moment.timestamp()] * 4, abs=1e-6)
        assert first.result[1] == date(2024, 1, 2)

    def test_functions_that_make_classes_keep_their_imports(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> type:
            from datetime import datetime

            class Own(datetime):
                pass

            return type(Own(2024, 1, 1))

        assert best_effort(workflow).result.__name__ == "Own"

    def test_the_modules_themselves_are_not_changed(self) -> None:
        assert sys.modules["time"] is time
        assert sys.modules["datetime"] is dt


class TestOutsideOfWorkflows:
    def test_a_shared_helper_gives_true_values(self, best_effort: Any) -> None:
        async def workflow(ctx: Any) -> float:
            return by_default()

        replaced = best_effort(workflow).result
        before = time.monotonic()

        assert before <= by_default() <= time.monotonic()
        assert replaced != by_default()

    def test_a_patched_name_reaches_redirected_code(self, best_effort: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async def workflow(ctx: Any) -> float:
            return time.time()

        best_effort(workflow)
        monkeypatch.setattr(time, "time", lambda: 12.5)

        assert best_effort(workflow).result == 12.5
