"""Extended sessions answer every turn as a full replay would: each condition, and that its test can fail.

Most tests here run twice: with the code as it is, and with the condition they are about removed on purpose (`Defect`).
Then they must fail, and in the way that the defect predicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest
from durabletask.entities import EntityInstanceId
from durabletask.worker import VersionFailureStrategy, VersioningOptions, VersionMatchStrategy
from session_hub import Difference, Hub, Losing, Recorder, each_proof

from durabletask_aio.core.orchestrator import as_orchestrator
from durabletask_aio.engine import tokens
from durabletask_aio.engine.sessions import Sessions
from durabletask_aio.worker import _upstream, sessions, turns
from durabletask_aio.worker.binding import binding_of
from durabletask_aio.worker.session_executor import SessionExecutor
from durabletask_aio.worker.worker import TaskHubGrpcWorker

pytestmark = pytest.mark.usefixtures(each_proof.__name__)

# -- workflows --------------------------------------------------------------------------------------------------------


async def echo(ctx: Any, value: Any) -> Any:
    return value


def plain_echo(ctx: Any, value: Any) -> Any:
    return value


def broken(ctx: Any, value: Any) -> Any:
    raise ValueError(f"broken {value}")


async def chain(ctx: Any, count: int) -> Any:
    return [await ctx.call_activity("plain_echo", input=index) for index in range(count)]


async def collect(ctx: Any, names: list[str]) -> Any:
    return [await ctx.wait_for_external_event(name) for name in names]


async def clock(ctx: Any, _: Any) -> Any:
    times = []
    for name in ("a", "b"):
        await ctx.wait_for_external_event(name)
        times.append(str(ctx.current_utc_datetime))
        ctx.set_custom_status(times)
    return times


async def again(ctx: Any, count: int) -> Any:
    first = await ctx.wait_for_external_event("go")
    await ctx.call_activity("plain_echo", input=[count, first])
    if count < 3:
        ctx.continue_as_new(count + 1, save_events=True)
        return None
    return [count, first]


async def fails_late(ctx: Any, _: Any) -> Any:
    await ctx.call_activity("plain_echo", input=1)
    return await ctx.call_activity("sometimes", input=2)


async def locks(ctx: Any, _: Any) -> Any:
    counter = EntityInstanceId("counter", "one")
    async with ctx.lock_entities([counter]):
        before = await ctx.call_entity(counter, "get")
        await ctx.wait_for_external_event("go")
        after = await ctx.call_entity(counter, "add", 5)
    return [before, after, await ctx.call_entity(counter, "get")]


def counter(ctx: Any, value: Any) -> Any:
    state = ctx.get_state(int, 0)
    if ctx.operation == "add":
        state += value
        ctx.set_state(state)
    return state


def register(worker: TaskHubGrpcWorker) -> None:
    for workflow in (chain, collect, clock, again, fails_late, locks):
        worker.add_orchestrator(workflow)
    worker.add_activity(plain_echo)
    worker.add_activity(broken)
    worker.add_activity(sometimes)
    worker.add_entity(counter)


_is_broken = [False]


def sometimes(ctx: Any, value: Any) -> Any:
    if _is_broken[0]:
        raise ValueError("not now")
    return value


# -- the code without a condition -------------------------------------------------------------------------------------


def without_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.History, "continues", lambda self, fingerprint: True)


def with_length_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.History, "continues", lambda self, fingerprint: len(self._bytes) >= fingerprint.length)


def without_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.SessionCache, "checkout", lambda self, key: self._sessions.get(key))


def without_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    original = turns.Delivery.__init__

    def init(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.is_delivered = True

    monkeypatch.setattr(turns.Delivery, "__init__", init)
    without_proof(monkeypatch)


def without_rewind_check(monkeypatch: pytest.MonkeyPatch) -> None:
    original = turns.session_miss_reason

    def session_miss_reason(session: Any, request: Any, history: Any, function: Any) -> str | None:
        reason = original(session, request, history, function)
        return None if reason == "rewound" else reason

    monkeypatch.setattr(turns, "session_miss_reason", session_miss_reason)


def without_restart_check(monkeypatch: pytest.MonkeyPatch) -> None:
    original = turns.session_miss_reason

    def session_miss_reason(session: Any, request: Any, history: Any, function: Any) -> str | None:
        reason = original(session, request, history, function)
        return None if reason in ("restarted", "history") else reason

    monkeypatch.setattr(turns, "session_miss_reason", session_miss_reason)


def without_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionExecutor, "is_complete", property(lambda self: self.context is None))
    without_proof(monkeypatch)


def without_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the context alone, as a first prototype did."""
    original = SessionExecutor.detach_request

    def detach(self: Any) -> None:
        original(self)
        self._is_suspended, self._suspended_events = False, []

    monkeypatch.setattr(SessionExecutor, "detach_request", detach)


def without_replay_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SessionExecutor.process_event

    def process_event(self: Any, ctx: Any, event: Any) -> None:
        if self.processed is not None:
            ctx._is_replaying = False
        original(self, ctx, event)

    monkeypatch.setattr(SessionExecutor, "process_event", process_event)


def without_entity_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep everything between turns but the locks that the instance holds."""
    original = SessionExecutor.detach_request

    def detach(self: Any) -> None:
        original(self)
        kind = type(self.context._entity_context)
        self.context._entity_context = kind(self.context.instance_id)

    monkeypatch.setattr(SessionExecutor, "detach_request", detach)


def without_span_check(monkeypatch: pytest.MonkeyPatch) -> None:
    original = turns.session_miss_reason

    def session_miss_reason(session: Any, request: Any, history: Any, function: Any) -> str | None:
        reason = original(session, request, history, function)
        return None if reason == "trace" else reason

    monkeypatch.setattr(turns, "session_miss_reason", session_miss_reason)


def without_function_check(monkeypatch: pytest.MonkeyPatch) -> None:
    original = turns.session_miss_reason

    def session_miss_reason(session: Any, request: Any, history: Any, function: Any) -> str | None:
        reason = original(session, request, history, function)
        return None if reason == "replaced" else reason

    monkeypatch.setattr(turns, "session_miss_reason", session_miss_reason)


def without_eviction_at_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.SessionCache, "close", lambda self: [])


def without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    original = sessions.SessionCache.__init__

    def init(self: Any, limit: int, *arguments: Any, **keywords: Any) -> None:
        original(self, 1000, *arguments, **keywords)

    monkeypatch.setattr(sessions.SessionCache, "__init__", init)


def without_disposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is evicted is dropped, as a plain cache would; it is closed all the same once the test is over."""
    dropped: list[Any] = []
    original = sessions.Session.dispose
    monkeypatch.setattr(sessions.Session, "dispose", lambda self: dropped.append(self))

    def close_after_all() -> None:
        for session in dropped:
            original(session)

    _after_the_test.append(close_after_all)


_after_the_test: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def after_the_test() -> Iterator[None]:
    yield
    while _after_the_test:
        _after_the_test.pop()()


OTHER_SPAN = "00f067aa0ba902b8"

# -- the defects, and how they show -----------------------------------------------------------------------------------


class Defect(NamedTuple):
    """A condition that is removed, and the failure that shows it."""

    plant: Callable[[pytest.MonkeyPatch], None]
    error: type[AssertionError]
    evidence: str
    """Searched in the message of the failure; a dot matches line breaks too."""

    @property
    def name(self) -> str:
        return self.plant.__name__


def answers_differ(plant: Callable[[pytest.MonkeyPatch], None], full_replay: str, this_worker: str) -> Defect:
    """A defect whose turn is answered with `this_worker`, where a full replay answers with `full_replay`."""
    evidence = f"^full replay:((?!this worker:).)*{full_replay}.*this worker:\n.*{this_worker}"
    return Defect(plant, Difference, evidence)


def fails(plant: Callable[[pytest.MonkeyPatch], None], assertion: str) -> Defect:
    """A defect that makes an assertion fail; `assertion` is the beginning of pytest's message."""
    return Defect(plant, AssertionError, f"^{re.escape(assertion)}")


def stays_alive(plant: Callable[[pytest.MonkeyPatch], None]) -> Defect:
    """A defect that keeps an instance which has ended."""
    return fails(plant, "assert 1 == 0\n +  where 1 = live()")


@contextlib.contextmanager
def detected(defect: Defect | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a block as it is without a defect; with one, expect the failure that shows the defect, and no other."""
    if defect is None:
        yield
        return
    defect.plant(monkeypatch)
    with pytest.raises(defect.error, match=f"(?s){defect.evidence}") as failure:
        yield
    assert failure.type is defect.error


def with_and_without(*defects: Defect) -> Any:
    """Run a test with the code as it is, and with each of the defects."""
    return pytest.mark.parametrize("defect", [None, *defects], ids=["as it is", *(defect.name for defect in defects)])


class TestServing:
    def test_every_turn_after_the_first_is_served_from_the_session(self) -> None:
        hub = Hub(register)
        hub.start("chain", "5")
        hub.drain()

        stats = hub.workers[0].extended_session_stats
        assert hub.output() == "[0, 1, 2, 3, 4]"
        assert (stats.hits, stats.live, dict(stats.misses)) == (5, 0, {})

    def test_generators_have_sessions_too(self) -> None:
        def generator(ctx: Any, count: int) -> Any:
            results = []
            for index in range(count):
                results.append((yield ctx.call_activity("plain_echo", input=index)))
            return results

        def register_generator(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(generator)
            worker.add_activity(plain_echo)

        hub = Hub(register_generator)
        hub.start("generator", "5")
        hub.drain()

        assert hub.output() == "[0, 1, 2, 3, 4]"
        assert hub.workers[0].extended_session_stats.hits == 5

    def test_none_are_kept_if_they_are_switched_off(self) -> None:
        hub = Hub(register, sessions=0)
        hub.start("chain", "5")
        hub.drain()

        stats = hub.workers[0].extended_session_stats
        assert (stats.hits, stats.live, dict(stats.misses)) == (0, 0, {})


class TestConditions:
    @with_and_without(answers_differ(without_proof, r'"\[2, \\"y\\"\]"', r'"\[1, \\"y\\"\]"'))
    def test_another_worker_did_a_turn_in_between(self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register, workers=2)
            hub.start("again", "1")
            hub.drain(worker=0)
            hub.raise_event("go", '"x"')
            hub.drain(worker=1)  # continues as new
            hub.raise_event("go", '"y"')
            hub.drain(worker=0)  # still has the session of the first execution
            hub.raise_event("go", '"z"')
            hub.drain(worker=1)

            assert json.loads(hub.output() or "") == [3, "z"]
            assert hub.workers[0].extended_session_stats.misses["history"] == 1

    @with_and_without(
        answers_differ(without_proof, r'"\[2, 1\]"', r'"\[1, 2\]"'),
        answers_differ(with_length_only, r'"\[2, 1\]"', r'"\[1, 2\]"'),
    )
    def test_an_id_is_used_again_after_a_purge(self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register, workers=2)
            hub.start("collect", '["a", "b"]')
            hub.drain(worker=0)
            hub.terminate()
            hub.drain(worker=1)
            hub.purge()
            hub.start("collect", '["b", "a"]')
            hub.drain(worker=1)
            hub.raise_event("a", "1")
            hub.drain(worker=0)
            hub.raise_event("b", "2")
            hub.drain(worker=0)

            assert hub.output() == "[2, 1]"

    @with_and_without(fails(without_restart_check, "assert 0 == 1"))
    def test_an_id_is_used_again_at_the_same_worker(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register, workers=2)
            hub.start("collect", '["a"]')
            hub.drain(worker=0)
            hub.terminate()
            hub.drain(worker=1)
            hub.purge()
            hub.start("collect", '["b"]')
            hub.drain(worker=0)

            assert hub.workers[0].extended_session_stats.misses["restarted"] == 1

    @with_and_without(stays_alive(without_delivery))
    def test_a_response_was_lost_and_the_turn_comes_again_with_a_later_clock(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register)
            hub.start("clock")
            hub.drain()
            hub.raise_event("a")
            item = hub.take()
            assert item is not None
            hub.lose(item)
            assert hub.live() == 0
            hub.advance(60)
            hub.drain()
            hub.raise_event("b")
            hub.drain()

            assert json.loads(hub.output() or "") == ["2024-05-01 12:01:00", "2024-05-01 12:01:00"]

    @with_and_without(fails(without_checkout, 'assert AssertionError("two turns share one live instance'))
    def test_a_turn_is_delivered_again_while_the_first_is_inside_user_code(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second: list[Callable[[], None]] = []

        async def reentrant(ctx: Any, _: Any) -> Any:
            await ctx.wait_for_external_event("a")
            if second and not ctx.is_replaying:
                second.pop()()
            await ctx.wait_for_external_event("b")
            return "done"

        with detected(defect, monkeypatch):
            hub = Hub(lambda worker: worker.add_orchestrator(reentrant) and None)
            hub.start("reentrant")
            hub.drain()
            hub.raise_event("a")
            item = hub.take()
            assert item is not None
            worker, other = hub.workers[0], Recorder()
            in_thread = _ThreadedTurn(lambda: hub.run(item, worker, other))
            binding = binding_of(worker)
            assert binding is not None
            cache = binding.turns.sessions
            taken: list[Any] = []

            def checkout(instance_id: str) -> Any:
                # Sharing an instance may end in anything, a hang included; so it is caught before it happens.
                session = type(cache).checkout(cache, instance_id)
                assert session is None or session not in taken, "two turns share one live instance"
                taken.append(session)
                return session

            monkeypatch.setattr(cache, "checkout", checkout)
            second.append(in_thread)
            mine = Recorder()
            hub.run(item, worker, mine)

            assert in_thread.error is None
            assert other.response is not None
            assert [a.WhichOneof("orchestratorActionType") for a in other.response.actions] == []
            assert mine.response is not None
            assert not mine.response.actions
            assert worker.extended_session_stats.misses["absent"] == 1

    @with_and_without(
        answers_differ(without_rewind_check, "rewindOrchestration", "failed with builtins.ValueError: not now")
    )
    def test_a_rewind_is_always_a_full_replay(self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register, workers=2)
            _is_broken[0] = True
            hub.start("fails_late")
            for worker in (0, 0, 0, 1, 1, 1, 1):  # the first turns here, the failing one elsewhere
                hub.turn(worker)
            assert hub.status() == "FAILED"
            assert hub.live(0) == 1
            _is_broken[0] = False
            hub.rewind()
            hub.drain(worker=0)

            assert hub.output() == "2"
            assert hub.workers[0].extended_session_stats.misses["rewound"] == 1

    @with_and_without(answers_differ(without_the_executor, r'"\[1, 2\]"', r'instanceId: "instance"\ncompletionToken'))
    def test_suspension_and_what_arrived_during_it_are_kept(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register)
            hub.start("collect", '["a", "b"]')
            hub.drain()
            hub.suspend()
            hub.raise_event("a", "1")
            hub.drain()  # one turn: suspended, and an event that has to wait
            hub.raise_event("b", "2")
            hub.resume()
            hub.drain()

            assert hub.output() == "[1, 2]"

    @with_and_without(stays_alive(without_ends))
    @pytest.mark.parametrize("end", ["terminate", "complete", "fail", "continue as new"])
    def test_nothing_that_has_ended_is_kept(
        self, defect: Defect | None, end: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def ending(ctx: Any, how: str) -> Any:
            await ctx.wait_for_external_event("go")
            if how == "fail":
                raise ValueError("as asked")
            if how == "continue as new":
                ctx.continue_as_new("again")
            return how

        with detected(defect, monkeypatch):
            hub = Hub(lambda worker: worker.add_orchestrator(ending) and None)
            hub.start("ending", json.dumps(end))
            hub.drain()
            assert hub.live() == 1
            hub.terminate() if end == "terminate" else hub.raise_event("go")
            item = hub.take()
            assert item is not None
            hub.do(item)

            assert hub.live() == 0

    @pytest.mark.parametrize(
        ("strategy", "defect"),
        [
            (VersionFailureStrategy.FAIL, None),
            (VersionFailureStrategy.FAIL, stays_alive(without_ends)),
            (VersionFailureStrategy.REJECT, None),
            (VersionFailureStrategy.REJECT, stays_alive(without_delivery)),
        ],
        ids=lambda each: getattr(each, "name", "as it is"),
    )
    def test_a_version_that_is_refused_leaves_nothing_behind(
        self, strategy: VersionFailureStrategy, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Unseen in turns: a refused instance comes back with its start, or not at all.  It would only take up room.
        with detected(defect, monkeypatch):
            hub = Hub(register)
            accept_only("1.0", hub, strategy)
            hub.start("chain", "2", version={"value": "2.0"})
            item = hub.take()
            assert item is not None
            hub.do(item)

            assert hub.live() == 0

    @with_and_without(answers_differ(without_eviction_at_stop, "VersionMismatch", r'"\[1\]"'))
    def test_a_version_that_a_restarted_worker_refuses_is_refused_in_the_middle_too(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register)
            accept_only("1.0", hub, VersionFailureStrategy.FAIL)
            hub.start("collect", '["a"]', version={"value": "1.0"})
            hub.drain()
            assert hub.live() == 1
            hub.evict()  # as stop() does; upstream allows another version only while the worker is stopped
            accept_only("2.0", hub, VersionFailureStrategy.FAIL)
            hub.raise_event("a", "1")
            hub.drain()

            assert hub.status() == "FAILED"

    @with_and_without(
        answers_differ(without_entity_state, "entityOperationCalled.*@counter@one", "Unexpected lock acquire")
    )
    def test_entity_locks_live_through_sessions(self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register)
            hub.start("locks")
            hub.drain()
            hub.raise_event("go")
            hub.drain()

            assert hub.output() == "[0, 5, 5]"
            assert hub.workers[0].extended_session_stats.hits > 3

    @with_and_without(fails(without_replay_flag, "assert [('b', False), ('c', False)] == [('b', True), ('c', False)]"))
    def test_user_code_sees_is_replaying_as_it_would_in_a_full_replay(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[str, bool]] = []

        async def watching(ctx: Any, _: Any) -> Any:
            for name in ("a", "b", "c"):
                await ctx.wait_for_external_event(name)
                seen.append((name, ctx.is_replaying))

        with detected(defect, monkeypatch):
            hub = Hub(lambda worker: worker.add_orchestrator(watching) and None, workers=2)
            hub.start("watching")
            hub.drain(worker=0)
            for name, worker in (("a", 0), ("b", 1), ("c", 0)):
                hub.raise_event(name)
                item = hub.take()
                assert item is not None
                seen.clear()
                recorder = Recorder()
                hub.run(item, hub.workers[worker], recorder)
                hub.deliver(recorder)

            # The session of worker 0 had seen a; b happened elsewhere.
            assert seen == [("b", True), ("c", False)]
            assert hub.workers[0].extended_session_stats.hits == 2

    @pytest.mark.parametrize(
        ("span_id", "defect"),
        [
            ("own", None),
            ("", None),
            (OTHER_SPAN, None),
            (OTHER_SPAN, Defect(without_span_check, AssertionError, f"^assert '[0-9a-f]{{16}}' == '{OTHER_SPAN}'")),
        ],
        ids=["own", "none", "another", "another, without_span_check"],
    )
    def test_a_turn_is_answered_in_the_span_it_comes_with(
        self, tracer_provider: Any, span_id: str, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with detected(defect, monkeypatch):
            hub = Hub(register)
            hub.start("collect", '["a", "b"]', parentTraceContext=TRACE_PARENT)
            item = hub.take()
            assert item is not None
            recorder = hub.execute(item)
            hub.deliver(recorder)
            assert recorder.response is not None
            own = recorder.response.orchestrationTraceContext.spanID.value
            assert own
            hub.raise_event("a")
            item = hub.take()
            assert item is not None
            item.orchestratorRequest.orchestrationTraceContext.spanID.value = own if span_id == "own" else span_id
            answer = hub.execute(item).response
            assert answer is not None

            # An engine that does not bring the span back would have a full replay invent one; the session's is as good.
            expected = span_id if span_id.startswith("00") else own
            assert answer.orchestrationTraceContext.spanID.value == expected
            assert hub.workers[0].extended_session_stats.misses["trace"] == (expected != own)

    @with_and_without(fails(without_ends, "assert ('FAILED', 1) == ('FAILED', 0)"))
    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
    def test_an_exception_in_user_code_ends_the_session(
        self, error: type[BaseException], defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def raising(ctx: Any, _: Any) -> Any:
            await ctx.wait_for_external_event("go")
            raise error("as asked")

        with detected(defect, monkeypatch):
            hub = Hub(lambda worker: worker.add_orchestrator(raising) and None)
            hub.start("raising")
            hub.drain()
            assert hub.live() == 1
            hub.raise_event("go")
            hub.drain()

            assert (hub.status(), hub.live()) == ("FAILED", 0)

    def test_an_exception_that_user_code_handles_does_not(self) -> None:
        async def handling(ctx: Any, _: Any) -> Any:
            try:
                await ctx.call_activity("broken", input=1)
            except Exception:
                return await ctx.call_activity("plain_echo", input="mended")

        def register_handling(worker: TaskHubGrpcWorker) -> None:
            register(worker)
            worker.add_orchestrator(handling)

        hub = Hub(register_handling)
        hub.start("handling")
        hub.drain()

        assert hub.output() == '"mended"'
        assert hub.workers[0].extended_session_stats.hits == 2

    @with_and_without(answers_differ(without_function_check, r'"\[\\"b\\", \\"a\\"\]"', r'"\[\\"a\\", \\"b\\"\]"'))
    def test_another_function_was_registered_under_the_name(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def backwards(ctx: Any, names: list[str]) -> Any:
            return (await collect(ctx, names))[::-1]

        with detected(defect, monkeypatch):
            hub = Hub(register)
            hub.start("collect", '["a", "b"]')
            hub.drain()
            for worker in (*hub.workers, hub.reference):
                _upstream.replace_orchestrator(worker, "collect", as_orchestrator(backwards, name="collect"))
            for name in ("a", "b"):
                hub.raise_event(name, f'"{name}"')
            hub.drain()

            assert json.loads(hub.output() or "") == ["b", "a"]
            assert hub.workers[0].extended_session_stats.misses["replaced"] == 1

    def test_a_turn_without_new_events_is_upstreams_business(self) -> None:
        hub = Hub(register)
        hub.start("collect", '["a"]')
        hub.drain()
        hub.raise_event("a")
        item = hub.take()
        assert item is not None
        del item.orchestratorRequest.newEvents[:]
        hub.execute(item)

        assert hub.workers[0].extended_session_stats.misses["empty"] == 1


def accept_only(version: str, hub: Hub, strategy: VersionFailureStrategy) -> None:
    for worker in (*hub.workers, hub.reference):
        worker.use_versioning(
            VersioningOptions(version=version, match_strategy=VersionMatchStrategy.STRICT, failure_strategy=strategy)
        )


class TestWhatIsKeptOfTheStart:
    def test_is_all_but_the_input(self) -> None:
        started = pb.ExecutionStartedEvent(name="flow", tags={"a": "b"}, parentTraceContext=TRACE_PARENT)
        started.input.value = "x" * 1000
        started.version.value = "1"
        started.parentInstance.taskScheduledId = 3
        started.orchestrationInstance.instanceId = "instance"
        before = started.SerializeToString(deterministic=True)
        request = pb.OrchestratorRequest(pastEvents=[pb.HistoryEvent(executionStarted=started)])

        kept = sessions.kept_start(request).executionStarted

        assert request.pastEvents[0].executionStarted.SerializeToString(deterministic=True) == before
        assert not kept.HasField("input")
        kept.input.CopyFrom(started.input)
        assert kept == started

    def test_serves_the_turns_that_follow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The span at the end has the name and the parent of the start; so has what an activity is told."""
        spans: list[Any] = []
        monkeypatch.setattr(
            _upstream.tracing,
            "emit_orchestration_span",
            lambda name, *_, parent_trace_context=None, **__: spans.append((name, parent_trace_context)),
        )
        hub = Hub(register)
        hub.start("collect", '["a", "b"]', parentTraceContext=TRACE_PARENT)
        for name in ("a", "b"):
            hub.drain()
            hub.raise_event(name, "1")
        hub.drain()

        assert (hub.output(), hub.workers[0].extended_session_stats.hits) == ("[1, 1]", 2)
        # Of the reference, and of the worker.
        assert spans == [("collect", TRACE_PARENT)] * 2


class TestLessThanTheHistory:
    """What an engine of this project sends a worker that says that it keeps sessions."""

    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Hub:
        monkeypatch.setattr(Hub, "proof", "turn")
        hub = Hub(register)
        hub.start("collect", '["a", "b"]')
        hub.drain()
        return hub

    def test_is_what_was_committed_since_the_last_turn(self, hub: Hub) -> None:
        hub.raise_event("a", "1")
        item = hub.take()

        assert item is not None
        assert [each.WhichOneof("eventType") for each in item.orchestratorRequest.pastEvents] == [
            "orchestratorCompleted"
        ]
        assert len(hub.whole(item).pastEvents) == 3

    def test_is_enough_for_an_instance_that_is_alive(self, hub: Hub) -> None:
        hub.raise_event("a", "1")
        item = hub.take()
        assert item is not None
        response = hub.execute(item).response

        assert response is not None
        assert not response.requiresHistory
        assert hub.workers[0].extended_session_stats.hits == 1

    def test_names_the_turn_that_was_answered_last(self, hub: Hub) -> None:
        for name in ("a", "b"):
            hub.raise_event(name, "1")
            hub.drain()

        assert (hub.workers[0].extended_session_stats.hits, hub.asked) == (2, 0)

    def test_is_followed_by_the_whole_history(self, hub: Hub) -> None:
        """As after the engine was restarted."""
        hub.raise_event("a", "1")
        hub.drain()
        hub.stream.keeps_sessions = False
        hub.kernel._sessions = Sessions()
        hub.raise_event("b", "2")
        hub.drain()

        assert hub.output() == "[1, 2]"
        assert hub.workers[0].extended_session_stats.hits == 2

    def test_is_not_enough_for_one_that_is_gone(self, hub: Hub) -> None:
        hub.evict()
        hub.raise_event("a", "1")
        item = hub.take()
        assert item is not None
        recorder = Recorder()
        hub.workers[0]._execute_orchestrator(item.orchestratorRequest, recorder, item.completionToken)
        assert recorder.response is not None
        assert recorder.response.requiresHistory
        hub.deliver(recorder)
        again = hub.take()
        assert again is not None

        assert not sessions.ContinuedHistory.is_in(again.orchestratorRequest)
        assert again.orchestratorRequest == pb.OrchestratorRequest(
            instanceId="instance",
            executionId=again.orchestratorRequest.executionId,
            pastEvents=hub.whole(again).pastEvents,
            newEvents=item.orchestratorRequest.newEvents,
        )
        assert hub.execute(again).response is not None
        assert hub.workers[0].extended_session_stats.misses == {"absent": 1}

    def test_of_another_turn_leaves_the_session_for_the_whole_history(self, hub: Hub) -> None:
        hub.raise_event("a", "1")
        item = hub.take()
        assert item is not None
        item.orchestratorRequest.properties[sessions.CONTINUES].string_value = "another"
        recorder = Recorder()
        hub.run(item, hub.workers[0], recorder)

        assert recorder.response is not None
        assert not recorder.response.requiresHistory
        assert hub.workers[0].extended_session_stats.hits == 1

    def test_without_a_name_is_of_no_turn(self, hub: Hub) -> None:
        """As after the answer to a token that is not of this project's engine."""
        hub.raise_event("a", "1")
        item = hub.take()
        assert item is not None
        item.orchestratorRequest.properties[sessions.CONTINUES].string_value = ""
        binding = binding_of(hub.workers[0])
        assert binding is not None
        session = binding.turns.sessions.checkout("instance")
        assert session is not None
        session.fingerprint.answer = ""
        binding.turns.sessions.store(session)
        recorder = Recorder()
        hub.workers[0]._execute_orchestrator(item.orchestratorRequest, recorder, item.completionToken)

        assert recorder.response is not None
        assert recorder.response.requiresHistory

    def test_is_asked_for_again_if_that_was_lost(self, hub: Hub) -> None:
        hub.evict()
        hub.raise_event("a", "1")
        item = hub.take()
        assert item is not None
        hub.workers[0]._execute_orchestrator(item.orchestratorRequest, Losing(), item.completionToken)
        hub.kernel.requeue(tokens.parse(item.completionToken).lease)
        hub.drain()
        hub.raise_event("b", "2")
        hub.drain()

        assert hub.output() == "[1, 2]"

    def test_counts_as_the_whole_history_for_the_warning_of_its_size(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(Hub, "proof", "turn")
        hub = Hub(register, history_size_warning=20, logger=logging.getLogger("size of histories"))
        hub.start("chain", "8")
        hub.drain()

        assert hub.workers[0].extended_session_stats.hits == 8
        assert "the history of orchestrator chain has" in caplog.text


class _ThreadedTurn:
    """The same turn, delivered once more while the first delivery is in user code."""

    def __init__(self, execute: Callable[[], None]) -> None:
        self._execute = execute
        self.error: BaseException | None = None

    def __call__(self) -> None:
        thread = threading.Thread(target=self._run)
        thread.start()
        thread.join()

    def _run(self) -> None:
        try:
            self._execute()
        except BaseException as error:
            self.error = error


TRACE_PARENT = pb.TraceContext(
    traceParent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", spanID="00f067aa0ba902b7"
)


class TestBounds:
    @with_and_without(
        fails(without_bound, "assert (10, 0) == (3, 7)"),
        fails(without_disposal, "assert 10 == 17\n +  where 10 = len(['i0', 'i1',"),
    )
    def test_the_least_recently_used_are_let_go_and_closed_once(
        self, defect: Defect | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[str] = []

        async def waiting(ctx: Any, _: Any) -> Any:
            instance_id = ctx.instance_id
            try:
                await ctx.wait_for_external_event("never")
            finally:
                closed.append(instance_id)

        with detected(defect, monkeypatch):
            hub = Hub(lambda worker: worker.add_orchestrator(waiting) and None, sessions=3)
            for index in range(10):
                hub.start("waiting", instance_id=f"i{index}")
            hub.drain()
            closed_by_reference = {f"i{index}" for index in range(10)}
            evicted = [name for name in closed if name in closed_by_reference]

            stats = hub.workers[0].extended_session_stats
            assert (stats.live, stats.evictions["limit"]) == (3, 7)
            # Ten times by the reference, which keeps nothing, and seven times by eviction.
            assert len(evicted) == 17
            hub.close()
            assert len(closed) == 20
            assert stats.evictions["stop"] == 3

    @pytest.fixture
    def closed(self) -> list[str]:
        """In which thread each instance of `waiting` was closed, the reference's not among them."""
        return []

    @pytest.fixture
    def waiting(self, closed: list[str]) -> Hub:
        """A hub whose first worker has the live session of an instance."""

        async def waiting(ctx: Any, _: Any) -> Any:
            mine = not is_reference[0]
            try:
                await ctx.wait_for_external_event("go")
            finally:
                if mine:
                    closed.append(threading.current_thread().name)

        is_reference = [False]
        hub = Hub(lambda worker: worker.add_orchestrator(waiting), workers=2)
        execute = hub.reference._execute_orchestrator

        def as_reference(*arguments: Any) -> None:
            is_reference[0] = True
            try:
                execute(*arguments)
            finally:
                is_reference[0] = False

        vars(hub.reference)["_execute_orchestrator"] = as_reference
        hub.start("waiting")
        hub.drain()
        assert (hub.live(), closed) == (1, [])
        return hub

    def test_one_that_may_not_serve_is_closed(self, waiting: Hub, closed: list[str]) -> None:
        waiting.terminate()
        waiting.drain(worker=1)
        closed.clear()
        waiting.purge()
        waiting.start("waiting")
        waiting.drain()

        assert len(closed) == 1
        assert waiting.live() == 1

    def test_one_whose_response_was_lost_is_closed(self, waiting: Hub, closed: list[str]) -> None:
        waiting.raise_event("other")
        item = waiting.take()
        assert item is not None
        waiting.lose(item)

        assert len(closed) == 1
        assert waiting.live() == 0

    def test_idle_ones_are_let_go(self) -> None:
        now = [0.0]
        stats = sessions.ExtendedSessionStats()
        cache = sessions.SessionCache(10, 5.0, stats, clock=lambda: now[0])
        first, second = fake_session("a"), fake_session("b")
        cache.store(first)
        now[0] = 3.0
        cache.store(second)
        now[0] = 6.0

        assert cache.expire() == [first]
        assert cache.checkout("a") is None
        assert cache.checkout("b") is second
        assert stats.evictions["idle"] == 1

    def test_the_one_that_goes_is_the_least_recently_used(self) -> None:
        cache = sessions.SessionCache(2, 5.0, sessions.ExtendedSessionStats())
        first, second, third = (fake_session(name) for name in "abc")
        for session in (first, second):
            cache.store(session)
        assert cache.checkout("a") is first
        assert cache.store(first) == []

        assert cache.store(third) == [second]

    def test_the_later_of_two_sessions_of_one_instance_stays(self) -> None:
        cache = sessions.SessionCache(10, 5.0, sessions.ExtendedSessionStats())
        first, second = fake_session("a"), fake_session("a")

        assert cache.store(first) == []
        assert cache.store(second) == [first]
        assert cache.checkout("a") is second

    def test_nothing_is_stored_once_the_worker_has_stopped(self) -> None:
        cache = sessions.SessionCache(10, 5.0, sessions.ExtendedSessionStats())
        cache.close()
        session = fake_session("a")

        assert cache.store(session) == [session]


def fake_session(instance_id: str) -> sessions.Session:
    from hashlib import sha256

    executor: Any = None
    fingerprint = sessions.HistoryFingerprint(sha256(), 0, 0)
    return sessions.Session(instance_id, plain_echo, executor, [], fingerprint, pb.HistoryEvent())


class TestTheProof:
    def request(self, names: list[str], new: list[str], **more: Any) -> pb.OrchestratorRequest:
        def event(name: str) -> pb.HistoryEvent:
            return pb.HistoryEvent(eventId=-1, eventRaised=pb.EventRaisedEvent(name=name))

        return pb.OrchestratorRequest(instanceId="i", pastEvents=map(event, names), newEvents=map(event, new), **more)

    @pytest.mark.parametrize(
        ("names", "holds"),
        [
            (["a", "b", "c"], True),
            (["a", "b", "c", "d", "e"], True),
            (["a", "b"], False),
            ([], False),
            (["a", "b", "x"], False),
            (["x", "b", "c", "d"], False),
            (["a", "b", "cc"], False),
            (["a", "c", "b", "d"], False),
        ],
    )
    def test_holds_for_longer_histories_that_begin_alike_and_for_no_others(self, names: list[str], holds: bool) -> None:
        fingerprint = sessions.History(self.request(["a", "b"], ["c"])).fingerprint_after_turn()

        assert sessions.History(self.request(names, ["z"])).continues(fingerprint) is holds
        assert fingerprint.events == 3

    def test_includes_instance_and_execution(self) -> None:
        fingerprint = sessions.History(self.request(["a"], ["b"])).fingerprint_after_turn()
        other = self.request(["a", "b"], ["c"])
        other.instanceId = "j"
        executed = self.request(["a", "b"], ["c"])
        executed.executionId.value = "e"

        assert not sessions.History(other).continues(fingerprint)
        assert not sessions.History(executed).continues(fingerprint)

    def test_leaves_out_everything_else_in_the_request(self) -> None:
        fingerprint = sessions.History(
            self.request(["a"], ["b"], requiresHistoryStreaming=True)
        ).fingerprint_after_turn()
        request = self.request(["a", "b"], ["c"])
        request.orchestrationTraceContext.spanID.value = "s"
        request.properties["key"].string_value = "value"
        request.entityParameters.entityMessageReorderWindow.FromSeconds(3)
        history = sessions.History(request)

        assert history.is_provable
        assert history.continues(fingerprint)

    def test_can_be_asked_again_and_continued(self) -> None:
        first = sessions.History(self.request(["a"], ["b"])).fingerprint_after_turn()
        history = sessions.History(self.request(["a", "b", "c"], ["d"]))

        assert history.continues(first)
        assert history.continues(first)
        second = history.fingerprint_after_turn()
        assert sessions.History(self.request(["a", "b", "c", "d"], ["e"])).continues(second)
        assert not sessions.History(self.request(["a", "b", "x", "d"], ["e"])).continues(second)

    def test_is_not_given_for_fields_it_does_not_know(self) -> None:
        request = self.request(["a"], ["b"])
        unknown = pb.OrchestratorRequest.FromString(request.SerializeToString() + b"\xba\x3e\x03abc")
        history = sessions.History(unknown)

        assert not history.is_provable or history.continues(sessions.History(request).fingerprint_after_turn()) is False


class TestShadowReplays:
    def test_find_code_that_is_not_deterministic(self, caplog: pytest.LogCaptureFixture) -> None:
        import logging

        calls = [0]

        async def unstable(ctx: Any, _: Any) -> Any:
            for _ in range(3):
                calls[0] += 1
                await ctx.call_activity("plain_echo", input=calls[0])

        def register_unstable(worker: TaskHubGrpcWorker) -> None:
            worker.add_orchestrator(unstable)
            worker.add_activity(plain_echo)

        logger = logging.getLogger("test.shadow")
        worker = TaskHubGrpcWorker(logger=logger, shadow_replay_rate=1.0, max_extended_sessions=9)
        register_unstable(worker)
        hub = Hub(register_unstable)
        hub.workers = [worker]
        hub.reference = worker  # two different answers are the point here
        hub.start("unstable")
        with caplog.at_level(logging.ERROR, logger="test.shadow"):
            for _ in range(4):
                item = hub.take()
                assert item is not None
                if item.HasField("orchestratorRequest"):
                    recorder = Recorder()
                    worker._execute_orchestrator(item.orchestratorRequest, recorder, item.completionToken)
                    hub.deliver(recorder)
                else:
                    hub.do(item)

        stats = worker.extended_session_stats
        assert stats.divergences >= 1
        assert stats.shadow_replays >= stats.divergences
        assert (
            "a shadow replay of orchestrator unstable is non-deterministic: action 1 was scheduleTask 'plain_echo'"
            in (caplog.text)
        )

    def test_agree_with_code_that_is(self) -> None:
        hub = Hub(register, shadow_replay_rate=1.0)
        hub.start("chain", "4")
        hub.drain()
        hub.start("clock", instance_id="second")
        hub.drain()
        hub.raise_event("a", instance_id="second")
        hub.drain()

        stats = hub.workers[0].extended_session_stats
        assert stats.shadow_replays == stats.hits == 5
        assert stats.divergences == 0

    def test_say_nothing_through_replay_safe_loggers(self, caplog: pytest.LogCaptureFixture) -> None:
        import logging

        async def talking(ctx: Any, _: Any) -> None:
            for name in ("a", "b"):
                await ctx.wait_for_external_event(name)
                ctx.logger.warning("got %s", name)

        hub = Hub(lambda worker: worker.add_orchestrator(talking) and None, shadow_replay_rate=1.0)
        hub.reference = hub.workers[0]
        hub.start("talking")
        with caplog.at_level(logging.WARNING):
            for name in ("a", "b"):
                for _ in range(2):
                    item = hub.take()
                    if item is None:
                        break
                    recorder = Recorder()
                    hub.workers[0]._execute_orchestrator(item.orchestratorRequest, recorder, item.completionToken)
                    hub.deliver(recorder)
                hub.raise_event(name)
            item = hub.take()
            assert item is not None
            hub.workers[0]._execute_orchestrator(item.orchestratorRequest, Recorder(), item.completionToken)

        assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["got a", "got b"]
