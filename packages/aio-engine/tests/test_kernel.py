"""The engine without a transport: commands in transactions, answers that count or do not, timers, entities, locks."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from engine_support import (
    SECOND,
    Engine,
    action,
    activity,
    call,
    child,
    end,
    failed,
    lock,
    new_events,
    timer,
    unlock,
)

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.commands import InstanceNotFoundError, Transaction
from durabletask_aio.engine.kernel import EngineStoppedError
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.state import Instance, StartInstance
from durabletask_aio.engine.transitions import TERMINAL, InstanceExistsError, NotAllowedError


@pytest.fixture
def engine() -> Engine:
    return Engine()


def start(instance_id: str) -> Any:
    return lambda transaction: transaction.start_instance(StartInstance(instance_id, "program"))


def signal(engine: Engine, entity_id: str = "@counter@a", due: int | None = None) -> None:
    event = events.signal(engine.clock.now(), entity_id, "add", "request", None)
    engine.execute(lambda transaction: transaction.signal_entity(entity_id, event, due))


def result(value: str) -> pb.OperationResult:
    return pb.OperationResult(success=pb.OperationResultSuccess(result=events.string_value(value)))


class TestGroups:
    def test_commands_that_wait_share_a_commit(self, engine: Engine) -> None:
        commits = engine.kernel.commit_count

        assert engine.group(start("a"), start("b"), start("c")) == ["a", "b", "c"]

        assert engine.kernel.commit_count == commits + 1
        assert [engine.receive().orchestratorRequest.instanceId for _ in range(3)] == ["a", "b", "c"]

    def test_a_refusal_does_not_concern_the_others(self, engine: Engine) -> None:
        first, refused, last = engine.group(start("a"), start("a"), start("b"))

        assert (first, last) == ("a", "b")
        assert isinstance(refused, InstanceExistsError)

    def test_an_error_undoes_its_own_command_only(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        def broken(transaction: Transaction) -> None:
            transaction.start_instance(StartInstance("broken", "program"))
            raise RuntimeError("after it has written")

        first, error, last = engine.group(start("a"), broken, start("b"))

        assert (first, last) == ("a", "b")
        assert isinstance(error, RuntimeError)
        assert "A command has failed" in caplog.text
        assert engine.store.instance("broken") is None
        assert [engine.receive().orchestratorRequest.instanceId for _ in range(2)] == ["a", "b"]
        assert engine.is_idle()

    def test_nothing_is_dispatched_or_told_before_the_commit(self, engine: Engine) -> None:
        seen: list[Any] = []

        def look(transaction: Transaction) -> None:
            seen.append((engine.is_idle(), statuses[:]))

        statuses: list[Instance | None] = []
        engine.kernel.watch("a", lambda instance: bool(statuses.append(instance)))
        engine.group(start("a"), look)

        assert seen == [(True, [None])]
        assert not engine.is_idle()
        assert len(statuses) == 2

    def test_commands_of_many_threads(self, engine: Engine) -> None:
        engine.kernel.start()
        threads = [
            threading.Thread(target=lambda part=part: [engine.start(f"{part}-{number}") for number in range(20)])
            for part in range(5)
        ]

        for each in threads:
            each.start()
        for each in threads:
            each.join()

        assert len({engine.receive().orchestratorRequest.instanceId for _ in range(100)}) == 100
        engine.kernel.stop()

    def test_after_the_end_there_are_no_commands(self, engine: Engine) -> None:
        statuses: list[Instance | None] = []
        engine.kernel.watch("x", lambda instance: bool(statuses.append(instance)))
        engine.kernel.stop()
        engine.kernel.stop()

        with pytest.raises(EngineStoppedError, match="the engine has been stopped"):
            engine.start()
        assert engine.stream.outbox.get_nowait() is None
        assert statuses == [None, None]


class TestTurns:
    def test_a_turn_has_the_history_and_the_new_events(self, engine: Engine) -> None:
        engine.start(input='"in"')
        first = engine.turn(activity(0))
        engine.answer(engine.receive(), result=events.string_value('"out"'))

        second = engine.receive()

        assert new_events(first) == ["orchestratorStarted", "executionStarted"]
        assert first.orchestratorRequest.newEvents[1].executionStarted.input.value == '"in"'
        assert new_events(second) == ["orchestratorStarted", "taskCompleted"]
        past = [each.WhichOneof("eventType") for each in second.orchestratorRequest.pastEvents]
        assert past == ["orchestratorStarted", "executionStarted", "taskScheduled", "orchestratorCompleted"]
        assert second.orchestratorRequest.executionId.value == engine.instance().execution_id

    def test_an_answer_counts_once(self, engine: Engine) -> None:
        engine.start()
        item = engine.receive()

        assert engine.answer(item, activity(0))
        assert not engine.answer(item, activity(0))

        assert engine.history().count("taskScheduled") == 1

    def test_events_that_come_during_a_turn_are_for_the_next(self, engine: Engine) -> None:
        engine.start()
        item = engine.receive()
        engine.execute(lambda transaction: transaction.raise_event("x", "go", "1"))
        assert engine.is_idle()

        assert engine.answer(item)

        assert new_events(engine.receive()) == ["orchestratorStarted", "eventRaised"]

    def test_the_answer_of_another_life_counts_if_nothing_else_has_happened(self) -> None:
        store = SqliteStore()
        before = Engine(store)
        before.start()
        item = before.receive()

        after = Engine(store)
        assert after.answer(item, end())

        assert after.status() == "COMPLETED"
        assert not after.answer(after.receive(), end())

    def test_what_ends_frees_the_waiter_and_gets_no_more_events(self, engine: Engine) -> None:
        ended: list[str] = []
        engine.start()
        engine.kernel.watch("x", lambda found: found is not None and found.status in TERMINAL and not ended.append("x"))
        engine.turn(end())

        engine.execute(lambda transaction: transaction.raise_event("x", "go", None))

        assert ended == ["x"]
        assert engine.is_idle()
        assert len(engine.kernel._watchers) == 0

    def test_the_result_for_an_execution_that_is_over_is_dropped(self, engine: Engine) -> None:
        engine.start()
        engine.turn(activity(0))
        item = engine.receive()
        engine.execute(lambda transaction: transaction.raise_event("x", "go", None))
        engine.turn(end("CONTINUED_AS_NEW"))
        turn = engine.receive()

        assert engine.answer(item)
        assert engine.answer(turn)

        assert engine.is_idle()
        assert "taskCompleted" not in engine.history()

    @pytest.mark.parametrize("failure", [False, True])
    def test_the_first_outcome_of_an_activity_counts(self, failure: bool) -> None:
        engine = Engine(activity_lease=1.0)
        engine.start()
        engine.turn(activity(0))
        first = engine.receive()
        engine.later(2)
        second = engine.receive()

        outcome = {"failureDetails": events.failure("No", "no")} if failure else {"result": events.string_value("1")}
        assert engine.answer(second, **outcome)
        assert not engine.answer(first, result=events.string_value("2"))

        expected = "taskFailed" if failure else "taskCompleted"
        assert new_events(engine.receive()) == ["orchestratorStarted", expected]


class TestCommands:
    @pytest.mark.parametrize(
        "command",
        [
            lambda transaction: transaction.raise_event("nobody", "go", None),
            lambda transaction: transaction.suspend("nobody", None),
            lambda transaction: transaction.resume("nobody", None),
            lambda transaction: transaction.rewind_instance("nobody", None),
            lambda transaction: transaction.restart_instance("nobody", None),
        ],
        ids=["raise", "suspend", "resume", "rewind", "restart"],
    )
    def test_what_does_not_exist_is_not_found(self, engine: Engine, command: Any) -> None:
        with pytest.raises(InstanceNotFoundError, match="Orchestration instance 'nobody' not found"):
            engine.execute(command)

    def test_a_suspended_instance_gets_its_events_when_it_is_resumed(self, engine: Engine) -> None:
        engine.start()
        engine.turn()
        engine.execute(lambda transaction: transaction.suspend("x", '"why"'))
        engine.turn()
        assert engine.status() == "SUSPENDED"
        engine.execute(lambda transaction: transaction.raise_event("x", "go", None))
        assert engine.is_idle()

        engine.execute(lambda transaction: transaction.resume("x", None))

        assert new_events(engine.turn()) == ["orchestratorStarted", "eventRaised", "executionResumed"]
        assert engine.status() == "RUNNING"

    def test_a_recursive_termination_reaches_grandchildren(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(child(0, "c"))
        engine.turn(child(0, "g"))
        engine.turn()
        engine.execute(lambda transaction: transaction.terminate("x", '"out"', True))
        for _ in range(3):
            item = engine.receive()
            assert "executionTerminated" in new_events(item)
            engine.answer(item, end("TERMINATED"))

        assert [engine.status(each) for each in "xcg"] == ["TERMINATED"] * 3

    def test_a_restart_runs_it_again_from_its_input(self, engine: Engine) -> None:
        engine.start(input='"in"', tags={"a": "1"})
        with pytest.raises(NotAllowedError, match="is not in a terminal state"):
            engine.execute(lambda transaction: transaction.restart_instance("x", None))
        engine.turn(failed())
        before = engine.instance().execution_id

        assert engine.execute(lambda transaction: transaction.restart_instance("x", None)) == "x"

        assert engine.instance().execution_id != before
        assert dict(engine.instance().tags) == {"a": "1"}
        assert engine.receive().orchestratorRequest.newEvents[1].executionStarted.input.value == '"in"'

    def test_a_purge_leaves_what_runs_and_takes_children_if_asked_to(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(child(0, "done"), child(1, "running"), end())
        engine.turn(end())
        item = engine.receive()
        assert engine.execute(lambda transaction: transaction.purge("running", recursive=True)) == 0

        assert engine.execute(lambda transaction: transaction.purge("x", recursive=True)) == 2

        assert engine.store.instance("done") is None
        assert engine.status("running") == "PENDING"
        assert engine.answer(item, end())

    def test_nothing_of_a_purged_instance_is_left(self, engine: Engine) -> None:
        engine.start()
        engine.turn(activity(0), activity(1), timer(2, engine.clock.now() + SECOND), lock(3, "@counter@a"))
        engine.receive()
        engine.execute(lambda transaction: transaction.terminate_now("x", None))

        engine.execute(lambda transaction: transaction.purge("x", recursive=False))

        tables = ("instances", "history", "inbox", "payloads", "tags", "tasks", "timers", "lock_requests")
        counts = [engine.store._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
        assert counts == [0] * len(tables)
        assert engine.store.locked_entities() == []

    def test_a_child_whose_id_is_taken_fails_in_its_parent(self, engine: Engine) -> None:
        engine.start("taken")
        engine.turn()
        engine.start("x")

        engine.turn(child(0, "taken"))

        (_, event) = engine.receive().orchestratorRequest.newEvents
        assert event.subOrchestrationInstanceFailed.failureDetails.errorType == "InstanceExists"


class TestTime:
    def test_a_timer_fires_when_it_is_due_and_not_before(self, engine: Engine) -> None:
        engine.start()
        engine.turn(timer(0, engine.clock.now() + 2 * SECOND))

        engine.later(1.999)
        assert engine.is_idle()
        engine.later(0.001)

        assert new_events(engine.receive()) == ["orchestratorStarted", "timerFired"]

    def test_many_timers_that_are_due_fire_in_their_order(self, engine: Engine) -> None:
        engine.start()
        now = engine.clock.now()
        engine.turn(*(timer(number, now + (500 - number) * 1000) for number in range(250)))
        engine.later(1)

        fired: list[int] = []
        while not engine.is_idle():
            item = engine.turn()
            fired += [
                each.timerFired.timerId for each in item.orchestratorRequest.newEvents if each.HasField("timerFired")
            ]

        assert fired == list(reversed(range(250)))

    def test_a_scheduled_start_waits(self, engine: Engine) -> None:
        engine.start(scheduled_at=engine.clock.now() + SECOND)
        assert engine.is_idle()

        engine.later(1)

        assert new_events(engine.receive()) == ["orchestratorStarted", "executionStarted"]
        assert engine.instance().scheduled_at is None

    def test_a_delayed_signal_waits(self, engine: Engine) -> None:
        signal(engine, due=engine.clock.now() + SECOND)
        assert engine.is_idle()

        engine.later(1)

        assert engine.receive().HasField("entityRequestV2")

    def test_the_timers_of_an_execution_end_with_it(self, engine: Engine) -> None:
        engine.start()
        engine.turn(timer(0, engine.clock.now() + SECOND), end())

        assert engine.store.next_due() is None


class TestEntities:
    def test_a_call_is_executed_and_answered(self, engine: Engine) -> None:
        engine.start()
        engine.turn(call(0))

        assert engine.answer(engine.receive(), results=[result("1")], entityState=events.string_value("7"))

        (_, event) = engine.receive().orchestratorRequest.newEvents
        assert (event.entityOperationCompleted.requestId, event.entityOperationCompleted.output.value) == (
            "call 0",
            "1",
        )
        assert engine.store.entity("@counter@a").state == "7"

    def test_operations_that_come_during_a_batch_are_for_the_next(self, engine: Engine) -> None:
        signal(engine)
        item = engine.receive()
        signal(engine)
        assert engine.is_idle()

        assert engine.answer(item, results=[result("1")])

        assert len(engine.receive().entityRequestV2.operationRequests) == 1
        assert not engine.answer(item, results=[result("1")])

    def test_an_answer_with_fewer_results_leaves_the_rest(self, engine: Engine) -> None:
        signal(engine)
        first = engine.receive()
        for _ in range(3):
            signal(engine)
        engine.answer(first, results=[result("1")])

        engine.answer(engine.receive(), results=[result("1")] * 2)

        assert len(engine.receive().entityRequestV2.operationRequests) == 1

    @pytest.mark.parametrize("fields", [{}, {"failureDetails": events.failure("No", "no")}])
    def test_a_batch_that_fails_fails_its_calls_and_changes_nothing(
        self, engine: Engine, fields: dict[str, Any]
    ) -> None:
        signal(engine)
        engine.answer(engine.receive(), results=[result("1")], entityState=events.string_value("7"))
        engine.start()
        engine.turn(call(0))

        engine.answer(engine.receive(), **fields, **({} if fields else {"entityState": events.string_value("7")}))

        (_, event) = engine.receive().orchestratorRequest.newEvents
        assert event.HasField("entityOperationFailed")
        assert engine.store.entity("@counter@a").state == "7"

    def test_an_entity_can_signal_and_start(self, engine: Engine) -> None:
        signal(engine)
        actions = [
            pb.OperationAction(sendSignal=pb.SendSignalAction(instanceId="@counter@b", name="add")),
            pb.OperationAction(startNewOrchestration=pb.StartNewOrchestrationAction(instanceId="new", name="program")),
        ]

        engine.answer(engine.receive(), results=[result("1")], actions=actions)

        items = [engine.receive() for _ in range(2)]
        assert {each.entityRequestV2.instanceId or each.orchestratorRequest.instanceId for each in items} == {
            "@counter@b",
            "new",
        }

    def test_empty_entities_are_cleaned_and_others_stay(self, engine: Engine) -> None:
        signal(engine, "@counter@empty")
        engine.answer(engine.receive(), results=[result("1")])
        signal(engine, "@counter@full")
        engine.answer(engine.receive(), results=[result("1")], entityState=events.string_value("7"))
        signal(engine, "@counter@waiting")

        counts = engine.execute(
            lambda transaction: transaction.clean_entities(remove_empty=True, release_orphaned=True)
        )

        assert counts == (1, 0)
        assert engine.store.entity("@counter@empty") is None
        assert engine.store.entity("@counter@full") is not None
        assert engine.answer(engine.receive(), results=[result("1")])


class TestLocks:
    def test_a_section_has_its_entities_for_itself(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(lock(0, "@counter@a"))
        assert new_events(engine.turn(call(1))) == ["orchestratorStarted", "entityLockGranted"]
        signal(engine)
        batch = engine.receive()
        assert len(batch.entityRequestV2.operationRequests) == 1
        engine.answer(batch, results=[result("1")])
        assert new_events(engine.receive()) == ["orchestratorStarted", "entityOperationCompleted"]
        assert engine.is_idle()

        engine.execute(lambda transaction: transaction.terminate_now("x", None))

        assert len(engine.receive().entityRequestV2.operationRequests) == 1

    def test_sections_come_one_after_the_other(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(lock(0, "@counter@a", "@counter@b"))
        item = engine.receive()
        for instance_id in "yz":
            engine.start(instance_id)
            engine.turn(lock(0, "@counter@a", "@counter@b"))

        for instance_id in "xyz":
            assert item.orchestratorRequest.instanceId == instance_id
            assert new_events(item) == ["orchestratorStarted", "entityLockGranted"]
            assert engine.is_idle()
            engine.answer(item, unlock(1, 0, "@counter@b"), unlock(2, 0, "@counter@a"), end())
            item = engine.receive() if instance_id != "z" else item

        assert engine.store.locked_entities() == []

    def test_what_was_sent_before_a_request_comes_before_it(self, engine: Engine) -> None:
        signal(engine)
        batch = engine.receive()
        engine.start()
        engine.turn(lock(0, "@counter@a"))
        assert engine.is_idle()

        engine.answer(batch, results=[result("1")])

        assert new_events(engine.receive()) == ["orchestratorStarted", "entityLockGranted"]

    @pytest.mark.parametrize(
        "ending", [end(), failed(), end("TERMINATED"), end("CONTINUED_AS_NEW")], ids=["end", "fail", "terminate", "new"]
    )
    def test_a_lock_ends_with_its_holder_however_it_ends(self, engine: Engine, ending: pb.OrchestratorAction) -> None:
        engine.start("x")
        engine.turn(lock(0, "@counter@a"))
        holder = engine.receive()
        engine.start("y")
        engine.turn(lock(0, "@counter@a"))

        engine.answer(holder, ending)

        lock_ = engine.store.entity("@counter@a").lock
        assert lock_ is not None
        assert lock_.instance_id == "y"

    def test_a_request_ends_with_its_execution(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(lock(0, "@counter@a"))
        holder = engine.receive()
        engine.start("y")
        engine.turn(lock(0, "@counter@a"))
        engine.execute(lambda transaction: transaction.terminate_now("y", None))

        engine.answer(holder, unlock(1, 0, "@counter@a"))

        assert engine.store.locked_entities() == []
        assert engine.store.lock_requests() == []

    def test_a_section_without_entities_begins_at_once(self, engine: Engine) -> None:
        engine.start()
        engine.turn(lock(0))

        assert new_events(engine.receive()) == ["orchestratorStarted", "entityLockGranted"]


def test_an_event_sent_to_itself_is_for_the_next_turn(engine: Engine):
    engine.start()
    sent = pb.SendEventAction(instance=pb.OrchestrationInstance(instanceId="x"), name="go")

    engine.turn(action(0, sendEvent=sent))

    assert new_events(engine.receive()) == ["orchestratorStarted", "eventRaised"]
