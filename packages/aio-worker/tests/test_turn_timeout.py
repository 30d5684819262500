"""Turns that never end: what is interrupted, what fails, and what cannot be interrupted."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import ConcurrencyOptions
from worker_support import QUIET, finished, recorded, run, started, wait_until

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.interruption import Interruption, TurnInterrupted

LOGGER = "test.turn_timeout"
ONE_THREAD = ConcurrencyOptions(maximum_thread_pool_workers=1)


async def fine(ctx: Any, value: int) -> int:
    await ctx.sleep(0)
    return value


@contextmanager
def worker_of(engine: LocalBackend, *orchestrators: Any, **options: Any) -> Iterator[Any]:
    """A running worker that interrupts turns after a fifth of a second, on one thread."""
    given = {"turn_timeout": 0.2, "concurrency_options": ONE_THREAD, "logger": logging.getLogger(LOGGER), **options}
    worker = started(engine, *given.pop("activities", ()), orchestrators=[*orchestrators, fine], **given)
    try:
        yield worker
    finally:
        worker.stop()


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == LOGGER and each.levelno >= logging.ERROR]


class TestAWorkflowThatSpins:
    def test_fails_by_name_and_its_thread_goes_on(
        self, engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def spinning(ctx: Any, _: Any) -> None:
            while ctx.instance_id:
                pass

        with worker_of(engine, spinning):
            state = run(client, "spinning")
            after = run(client, "fine", 7)

        assert state.runtime_status == OrchestrationStatus.FAILED
        assert state.failure_details is not None
        assert state.failure_details.error_type == "durabletask.aio.TurnTimeoutError"
        assert state.failure_details.message.startswith(
            f"the turn ran longer than turn_timeout and was interrupted at {__file__}:"
        )
        assert " in spinning. Workflow code must not block" in state.failure_details.message
        assert state.failure_details.message.endswith(f"[workflow 'spinning', instance '{state.instance_id}']")
        assert "while ctx.instance_id" in str(state.failure_details.stack_trace)
        assert after.serialized_output == "7"
        (error,) = errors_in(caplog)
        assert error.startswith(f"{state.instance_id}: a turn of orchestrator spinning has been running for ")
        assert "longer than turn_timeout, and is interrupted at " in error

    def test_fails_whatever_it_does_with_the_interruption(
        self, engine: LocalBackend, client: TaskHubGrpcClient
    ) -> None:
        """A replay would not be interrupted, so nothing that follows from it may reach the history as a result."""
        release = threading.Event()

        async def catching(ctx: Any, _: Any) -> str:
            try:
                while not release.is_set():
                    pass
            except Exception:
                return "an Exception"
            except BaseException:
                pass
            return "a result"

        def generator(ctx: Any, _: Any) -> Any:
            try:
                while not release.is_set():
                    pass
            except BaseException:
                ctx.continue_as_new(1)
            return "a result"
            yield

        with worker_of(engine, catching, generator, logger=QUIET):
            states = [run(client, "catching"), run(client, "generator")]
            release.set()

        assert [state.runtime_status for state in states] == [OrchestrationStatus.FAILED] * 2
        assert [state.failure_details.error_type for state in states if state.failure_details] == [
            "durabletask.aio.TurnTimeoutError"
        ] * 2

    def test_in_a_session_fails_too(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        async def later(ctx: Any, _: Any) -> None:
            await ctx.wait_for_external_event("go")
            while True:
                pass

        with worker_of(engine, later, logger=QUIET, max_extended_sessions=10) as worker:
            instance_id = client.schedule_new_orchestration("later")
            assert wait_until(lambda: worker.extended_session_stats.live == 1)
            client.raise_orchestration_event(instance_id, "go")
            state = finished(client, instance_id)
            assert worker.extended_session_stats.live == 0
            assert run(client, "fine", 1).serialized_output == "1"

        assert state.failure_details is not None
        assert state.failure_details.error_type == "durabletask.aio.TurnTimeoutError"

    def test_on_replay_schedules_nothing_again(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        replaying = threading.Event()
        calls: list[int] = []

        def charge(_: Any, amount: int) -> None:
            calls.append(amount)
            replaying.set()

        async def order(ctx: Any, _: Any) -> None:
            charged = ctx.call_activity("charge", input=3)
            while replaying.is_set():
                pass
            await charged

        options = {"max_extended_sessions": 0, "on_divergence": "fail", "logger": QUIET}
        with worker_of(engine, order, activities=[charge], **options):
            state = run(client, "order")

        assert state.runtime_status == OrchestrationStatus.FAILED
        assert calls == [3]
        assert sum(event.HasField("taskScheduled") for event in recorded(engine, state.instance_id)) == 1

    def test_on_replay_is_given_back_as_code_that_does_not_fit(
        self, engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        spins = threading.Event()

        async def changed(ctx: Any, _: Any) -> str:
            while spins.is_set():
                pass
            return str(await ctx.wait_for_external_event("go"))

        with worker_of(engine, changed, max_extended_sessions=0) as worker:
            instance_id = client.schedule_new_orchestration("changed")
            assert wait_until(lambda: len(recorded(engine, instance_id)) > 0)
            spins.set()
            client.raise_orchestration_event(instance_id, "go", data="went")
            assert wait_until(lambda: worker.extended_session_stats.diverged_turns == 1)
            spins.clear()
            state = finished(client, instance_id)

        assert state.serialized_output == '"went"'
        assert any("does not fit the code: the turn ran longer than turn_timeout" in each for each in errors_in(caplog))

    def test_can_be_terminated(self, engine: LocalBackend, client: TaskHubGrpcClient) -> None:
        async def woken(ctx: Any, _: Any) -> None:
            await ctx.wait_for_external_event("go")
            while True:
                pass

        with worker_of(engine, woken, logger=QUIET, max_extended_sessions=10) as worker:
            instance_id = client.schedule_new_orchestration("woken")
            assert wait_until(lambda: worker.extended_session_stats.live == 1)
        client.raise_orchestration_event(instance_id, "go")
        client.terminate_orchestration(instance_id, output="enough")
        with worker_of(engine, woken, logger=QUIET):
            state = finished(client, instance_id)

        assert state.runtime_status == OrchestrationStatus.TERMINATED
        assert state.serialized_output == '"enough"'

    def test_runs_on_without_the_option(
        self, engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def slow(ctx: Any, _: Any) -> str:
            while "has been running" not in caplog.text:
                pass
            return "done"

        with worker_of(engine, slow, turn_timeout=None, slow_turn_warning=0.1):
            assert run(client, "slow").serialized_output == '"done"'
        assert errors_in(caplog) == []


def test_a_turn_that_waits_for_a_lock_is_named_with_its_stack_and_fails_when_it_has_it(
    engine: LocalBackend, client: TaskHubGrpcClient, caplog: pytest.LogCaptureFixture
) -> None:
    lock = threading.Lock()

    async def locked(ctx: Any, _: Any) -> str:
        with lock:
            return "had it"

    with worker_of(engine, locked), lock:
        instance_id = client.schedule_new_orchestration("locked")
        assert wait_until(lambda: any("cannot be interrupted" in error for error in errors_in(caplog)))
        lock.release()
        state = finished(client, instance_id)
        after = run(client, "fine", 2)
        lock.acquire()

    assert state.failure_details is not None
    assert state.failure_details.error_type == "durabletask.aio.TurnTimeoutError"
    assert after.serialized_output == "2"
    first, second = errors_in(caplog)
    assert "is interrupted at" in first
    assert second.startswith(f"{instance_id}: a turn of orchestrator locked has been running for ")
    assert f'File "{__file__}", line ' in second
    assert "    with lock:" in second


class TestTheInterruption:
    def test_reaches_nothing_but_the_function(self) -> None:
        """Requested at any time, it ends the function or has no effect, and never comes after it."""
        current: list[Interruption] = []
        finished = threading.Event()

        def request() -> None:
            while not finished.is_set():
                for each in current[-1:]:
                    each.request()

        requesting = threading.Thread(target=request)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(0.0001)
        requesting.start()
        outcomes = {"interrupted": 0, "returned": 0}
        deadline = time.monotonic() + 60
        try:
            number = 0
            while min(outcomes.values()) < 50 and time.monotonic() < deadline:
                number += 1
                interruption = Interruption()
                current.append(interruption)
                try:
                    result = interruption.run(lambda steps=number % 40 * 10: sum(range(steps)))  # type: ignore[misc]
                except TurnInterrupted:
                    outcomes["interrupted"] += 1
                else:
                    outcomes["returned"] += 1
                    assert result == sum(range(number % 40 * 10))
                assert not interruption.request()
                current.clear()
        finally:
            finished.set()
            requesting.join()
            sys.setswitchinterval(interval)

        assert min(outcomes.values()) >= 50, outcomes

    def test_of_a_function_that_raises_is_what_counts(self) -> None:
        interruption = Interruption()

        def function() -> None:
            assert interruption.request()
            try:
                while True:
                    pass
            except BaseException:
                raise ValueError("something else") from None

        with pytest.raises(TurnInterrupted):
            interruption.run(function)

    def test_of_code_that_waits_does_not_stop_threads_with_a_trace_function(self) -> None:
        """As in a debugger: a traced thread of CPython 3.11 calls nothing while an exception is pending for another."""
        interruption, lock, outcomes = Interruption(), threading.Lock(), []
        running = threading.Event()

        def waiting() -> None:
            running.set()
            with lock:
                pass

        def run_it() -> None:
            sys.settrace(lambda frame, event, argument: None)
            try:
                interruption.run(waiting)
            except TurnInterrupted:
                outcomes.append("interrupted")

        thread, before = threading.Thread(target=run_it, daemon=True), sys.gettrace()
        with lock:
            thread.start()
            running.wait()
            sys.settrace(before or (lambda frame, event, argument: None))
            try:
                assert interruption.request()
                assert wait_until(lambda: True)
            finally:
                sys.settrace(before)
        thread.join(timeout=10)

        assert outcomes == ["interrupted"]

    def test_is_refused_when_nothing_runs(self) -> None:
        interruption = Interruption()

        assert not interruption.request()
        assert interruption.run(lambda: 5) == 5
        assert not interruption.request()

    def test_leaves_other_exceptions_alone(self) -> None:
        def function() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            Interruption().run(function)
