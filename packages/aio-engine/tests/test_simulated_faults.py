"""Faults that the simulation or the review for it has found, each as the shortest story that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_support import (
    SECOND,
    Engine,
    activity,
    call,
    child,
    end,
    failed,
    lock,
    new_events,
    rewound,
    timer,
)

from durabletask_aio.engine import events, transitions
from durabletask_aio.engine.crash_loops import CrashLoops
from durabletask_aio.engine.kernel import EngineBusyError
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.transitions import TERMINAL


@pytest.fixture
def engine() -> Engine:
    return Engine()


def events_left(engine: Engine, instance_id: str = "x") -> int:
    return len(engine.store.inbox(engine.instance(instance_id)))


class TestSuspension:
    def test_a_suspension_that_repeats_one_in_the_inbox_is_dropped(self, engine: Engine) -> None:
        """Upstream's worker would hold back the second one until it resumes, and be suspended again."""
        engine.start()
        for _ in range(2):
            engine.execute(lambda transaction: transaction.suspend("x", None))

        assert new_events(engine.turn()) == ["orchestratorStarted", "executionStarted"]
        assert new_events(engine.turn()) == ["orchestratorStarted", "executionSuspended"]
        assert engine.status() == "SUSPENDED"

    def test_a_suspension_after_a_resumption_that_waits_is_kept(self, engine: Engine) -> None:
        engine.start()
        engine.turn()
        engine.execute(lambda transaction: transaction.suspend("x", None))
        engine.turn()
        engine.kernel.close_stream(engine.stream)
        engine.execute(lambda transaction: transaction.resume("x", None))
        engine.execute(lambda transaction: transaction.suspend("x", None))

        engine.stream = engine.connect()

        assert new_events(engine.turn()) == ["orchestratorStarted", "executionResumed", "executionSuspended"]
        assert engine.status() == "SUSPENDED"

    def test_continue_as_new_keeps_a_suspension_of_the_same_turn(self, engine: Engine) -> None:
        engine.kernel.close_stream(engine.stream)
        engine.start()
        engine.execute(lambda transaction: transaction.suspend("x", None))
        engine.stream = engine.connect()

        engine.turn(end("CONTINUED_AS_NEW"))

        assert new_events(engine.turn()) == ["orchestratorStarted", "executionStarted", "executionSuspended"]
        assert engine.status() == "SUSPENDED"

    def test_continue_as_new_keeps_a_termination_of_the_same_turn(self, engine: Engine) -> None:
        engine.kernel.close_stream(engine.stream)
        engine.start()
        engine.execute(lambda transaction: transaction.terminate("x", None, False))
        engine.stream = engine.connect()

        engine.turn(end("CONTINUED_AS_NEW"))

        assert new_events(engine.receive()) == ["orchestratorStarted", "executionStarted", "executionTerminated"]

    def test_a_rewound_instance_is_suspended_if_its_history_suspends_it(self, engine: Engine) -> None:
        engine.kernel.close_stream(engine.stream)
        engine.start()
        engine.execute(lambda transaction: transaction.suspend("x", None))
        engine.stream = engine.connect()
        engine.turn(failed())

        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        item = engine.receive()
        assert engine.answer(item, rewound(item))

        assert engine.status() == "SUSPENDED"
        assert engine.is_idle()
        engine.execute(lambda transaction: transaction.resume("x", None))
        engine.turn(end())
        assert engine.status() == "COMPLETED"

    def test_what_a_suspended_instance_asks_for_as_it_is_terminated_is_not_done_again(self, engine: Engine) -> None:
        """Upstream's worker has held back the events that say it has been asked for, and sends it once more."""
        engine.kernel.close_stream(engine.stream)
        engine.start()
        engine.execute(lambda transaction: transaction.suspend("x", None))
        engine.stream = engine.connect()
        engine.turn(activity(0))
        engine.receive()
        engine.execute(lambda transaction: transaction.terminate("x", None, False))

        engine.turn(activity(0), end("TERMINATED"))

        assert engine.status() == "TERMINATED"
        assert engine.history().count("taskScheduled") == 1
        assert engine.is_idle()

    def test_an_instance_that_is_set_aside_has_no_suspension_in_its_inbox(self, engine: Engine) -> None:
        engine.kernel.close_stream(engine.stream)
        engine.start()
        engine.execute(lambda transaction: transaction.suspend("x", None))
        engine.execute(lambda transaction: transaction.set_aside("x", "it ends the process"))
        engine.stream = engine.connect()
        assert engine.is_idle()

        engine.execute(lambda transaction: transaction.resume("x", None))

        assert new_events(engine.turn()) == ["orchestratorStarted", "executionStarted", "executionResumed"]
        assert engine.status() == "RUNNING"


class TestRewind:
    def fail_with_an_outstanding_activity(self, engine: Engine) -> None:
        engine.start()
        engine.turn(activity(0), timer(1, engine.clock.now() + SECOND))
        self.item = engine.receive()
        engine.later(1)
        engine.turn(failed())

    def test_the_result_of_an_activity_that_comes_during_a_rewind_is_its_only_one(self, engine: Engine) -> None:
        self.fail_with_an_outstanding_activity(engine)
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()
        assert engine.answer(self.item)

        assert engine.answer(turn, rewound(turn))

        assert list(engine.store.tasks()) == []
        assert new_events(engine.turn()) == ["orchestratorStarted", "taskCompleted"]
        assert engine.is_idle()

    def test_an_activity_that_is_still_running_is_not_run_again(self, engine: Engine) -> None:
        self.fail_with_an_outstanding_activity(engine)
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()

        assert engine.answer(turn, rewound(turn))

        assert len(list(engine.store.tasks())) == 1

    def test_an_operation_that_an_entity_has_not_executed_is_not_sent_again(self, engine: Engine) -> None:
        engine.start()
        engine.turn(call(0), timer(1, engine.clock.now() + SECOND))
        engine.receive()
        engine.later(1)
        engine.turn(failed())
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()

        assert engine.answer(turn, rewound(turn))

        assert len(engine.store.operations("@counter@a")) == 1

    def test_the_parent_of_a_child_that_is_rewound_by_itself_gets_no_second_outcome(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(child(0, "c"), activity(1))
        engine.turn(failed())
        engine.receive()
        assert new_events(engine.turn()) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]

        engine.execute(lambda transaction: transaction.rewind_instance("c", None))
        turn = engine.receive()
        assert engine.answer(turn, rewound(turn))
        engine.turn(end())

        assert engine.status("c") == "COMPLETED"
        assert events_left(engine) == 0
        assert engine.instance("c").parent.instance_id == "x"

    def test_a_parent_that_is_rewound_later_gets_the_outcome_of_such_a_child(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(child(0, "c"))
        engine.turn(failed())
        engine.turn(failed())
        engine.execute(lambda transaction: transaction.rewind_instance("c", None))
        turn = engine.receive()
        assert engine.answer(turn, rewound(turn))
        engine.turn(end())
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()

        assert engine.answer(turn, rewound(turn, without=["subOrchestrationInstanceFailed"]))

        assert new_events(engine.turn(end())) == ["orchestratorStarted", "subOrchestrationInstanceCompleted"]

    def test_a_parent_that_is_rewound_meanwhile_gets_the_outcome_of_such_a_child(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(child(0, "c"))
        engine.turn(failed())
        engine.turn(failed())
        engine.execute(lambda transaction: transaction.rewind_instance("c", None))
        turn = engine.receive()
        assert engine.answer(turn, rewound(turn))
        of_child = engine.receive()
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()
        assert engine.answer(turn, rewound(turn, without=["subOrchestrationInstanceFailed"]))
        engine.turn()

        assert engine.answer(of_child, end())

        assert new_events(engine.turn(end())) == ["orchestratorStarted", "subOrchestrationInstanceCompleted"]

    def test_a_restarted_parent_does_not_get_the_outcome_of_a_child_of_the_run_before(self, engine: Engine) -> None:
        """The child was rewound by itself, and has the id and the number that the new run asks for."""
        engine.start("x")
        engine.turn(child(0, "c"))
        engine.turn(failed())
        engine.turn(failed())
        engine.execute(lambda transaction: transaction.rewind_instance("c", None))
        turn = engine.receive()
        assert engine.answer(turn, rewound(turn))
        of_child = engine.receive()
        engine.execute(lambda transaction: transaction.restart_instance("x", None))
        engine.turn(child(0, "c"))
        assert new_events(engine.turn(failed())) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        assert engine.answer(of_child, end())
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()

        assert engine.answer(turn, rewound(turn, without=["subOrchestrationInstanceFailed"]))

        answered = engine.receive()
        assert new_events(answered) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        failure = answered.orchestratorRequest.newEvents[-1].subOrchestrationInstanceFailed.failureDetails
        assert failure.errorType == "InstanceExists"

    def test_a_child_that_cannot_be_rewound_reports_its_failure_again(self, engine: Engine) -> None:
        """It failed inside a critical section, and another instance is in there by now."""
        engine.start("x")
        engine.turn(child(0, "c"))
        engine.turn(lock(0, "@counter@a"))
        engine.turn(failed())
        engine.turn(failed())
        engine.start("other")
        engine.turn(lock(0, "@counter@a"))
        engine.turn()
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))
        turn = engine.receive()

        assert engine.answer(turn, rewound(turn, without=["subOrchestrationInstanceFailed"]))

        assert engine.status("c") == "FAILED"
        assert new_events(engine.receive()) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]

    def test_a_turn_that_does_not_rewrite_the_history_ends_the_rewind(self, engine: Engine) -> None:
        engine.start()
        engine.turn(failed())
        engine.execute(lambda transaction: transaction.rewind_instance("x", None))

        engine.turn(failed("this worker cannot rewind"))

        assert not engine.instance().rewinding


class TestStarts:
    def test_a_start_that_is_repeated_after_the_end_does_not_start_again(self, engine: Engine) -> None:
        engine.start(execution_id="mine", replaceable=TERMINAL)
        engine.turn(end())

        assert engine.start(execution_id="mine", replaceable=TERMINAL) == "x"

        assert engine.status() == "COMPLETED"
        assert engine.is_idle()


class TestDispatch:
    def test_a_new_execution_does_not_wait_for_the_turn_of_the_one_before(self, engine: Engine) -> None:
        """Its worker may never answer."""
        engine.start()
        engine.receive()
        engine.execute(lambda transaction: transaction.terminate_now("x", None))

        engine.start(replaceable=TERMINAL)

        assert new_events(engine.receive()) == ["orchestratorStarted", "executionStarted"]

    def test_a_batch_under_a_lock_does_not_wait_for_one_from_before_the_lock(self, engine: Engine) -> None:
        """That one does not count any more, and its worker may never answer."""
        engine.start("other")
        engine.turn(lock(0, "@counter@b"))
        engine.start("x")
        assert engine.receive().orchestratorRequest.instanceId == "other"
        engine.turn(lock(0, "@counter@a", "@counter@b"))
        signal = events.signal(0, "@counter@a", "add", "1", None)
        engine.execute(lambda transaction: transaction.signal_entity("@counter@a", signal, None))
        before = engine.receive()
        assert before.HasField("entityRequestV2")

        engine.execute(lambda transaction: transaction.terminate_now("other", None))
        engine.turn(call(1, "@counter@a"))

        (operation,) = engine.receive().entityRequestV2.operationRequests
        assert operation.entityOperationCalled.requestId == "call 1"
        assert not engine.answer(before)

    def test_activities_of_an_instance_that_is_replaced_are_not_dispatched_again(self, engine: Engine) -> None:
        engine.start()
        engine.turn(activity(0), activity(1))
        other = engine.connect()
        engine.receive()
        item = engine.receive()
        engine.kernel.abandon(item.completionToken.split(":")[1])

        engine.start(replaceable=TERMINAL | {transitions.RUNNING})
        engine.kernel.close_stream(engine.stream)
        engine.later(1)

        assert engine.receive(other).HasField("orchestratorRequest")
        assert engine.is_idle(other)

    def test_an_activity_that_is_done_is_not_dispatched_again_with_its_second_lease(self, engine: Engine) -> None:
        engine = Engine(activity_lease=10.0)
        engine.start()
        engine.turn(activity(0))
        first = engine.receive()
        engine.later(11)
        engine.receive()
        assert engine.answer(first)
        engine.turn()

        other = engine.connect()
        engine.kernel.close_stream(engine.stream)

        assert engine.is_idle(other)

    def test_room_is_filled_when_there_is_nothing_left_of_what_expires(self, engine: Engine) -> None:
        engine = Engine(turn_lease=5.0)
        engine.kernel.close_stream(engine.stream)
        engine.stream = engine.connect(limit=1)
        engine.start("x")
        engine.start("y")
        engine.receive()
        engine.execute(lambda transaction: transaction.terminate_now("x", None))

        engine.later(6)

        assert engine.receive().orchestratorRequest.instanceId == "y"

    def test_an_item_that_cannot_be_read_is_tried_again(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "history", lambda *arguments: 1 / 0)
            engine.start()
            assert engine.is_idle()

        engine.later(1)

        assert new_events(engine.receive()) == ["orchestratorStarted", "executionStarted"]
        assert "tried again" in caplog.text


class TestGroups:
    def test_an_instance_that_ends_and_is_purged_in_one_transaction_is_gone(self, engine: Engine) -> None:
        engine.start()
        item = engine.receive()

        assert engine.group(
            lambda transaction: transaction.terminate_now("x", None),
            lambda transaction: transaction.purge("x", recursive=False),
            lambda transaction: transaction.start_instance(transitions.StartInstance("y", "program")),
        ) == [True, 1, "y"]

        assert engine.store.instance("x") is None
        assert not engine.answer(item, end())
        assert engine.receive().orchestratorRequest.instanceId == "y"

    def test_commands_that_share_a_transaction_with_one_that_cannot_be_written_are_written(
        self, engine: Engine
    ) -> None:
        pages = engine.store._db.execute("PRAGMA page_count").fetchone()[0]
        engine.store._db.execute(f"PRAGMA max_page_count={pages + 20}")

        results = engine.group(
            lambda transaction: transaction.start_instance(transitions.StartInstance("a", "program")),
            lambda transaction: transaction.start_instance(
                transitions.StartInstance("b", "program", input="x" * 1_000_000)
            ),
            lambda transaction: transaction.start_instance(transitions.StartInstance("c", "program")),
        )

        assert results[0] == "a"
        assert isinstance(results[1], EngineBusyError)
        assert results[2] == "c"
        assert [engine.receive().orchestratorRequest.instanceId for _ in range(2)] == ["a", "c"]
        assert engine.store.instance("b") is None

    def test_a_full_disk_is_an_error_that_says_so(self, engine: Engine) -> None:
        pages = engine.store._db.execute("PRAGMA page_count").fetchone()[0]
        engine.store._db.execute(f"PRAGMA max_page_count={pages + 5}")

        with pytest.raises(EngineBusyError, match="not written: database or disk is full"):
            engine.start(input="x" * 1_000_000)

        assert engine.start("y") == "y"

    def test_the_time_is_written_again_after_a_commit_that_has_failed(self, engine: Engine) -> None:
        engine.later(10)
        pages = engine.store._db.execute("PRAGMA page_count").fetchone()[0]
        engine.store._db.execute(f"PRAGMA max_page_count={pages + 5}")
        with pytest.raises(EngineBusyError):
            engine.start(input="x" * 1_000_000)

        engine.start("y")

        assert engine.store.meta("time") == engine.clock.now()

    def test_an_error_after_the_commit_is_logged_and_the_command_is_acknowledged(
        self, engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        def observer() -> None:
            raise RuntimeError

        engine.kernel.observe(observer)

        assert engine.start() == "x"

        assert "could not be published" in caplog.text


class TestPurge:
    def test_an_instance_that_is_its_own_descendant(self, engine: Engine) -> None:
        engine.start("x")
        engine.turn(child(0, "c"), end())
        turn = engine.receive()
        assert engine.answer(turn, child(0, "x"), end())
        engine.turn(end())
        assert engine.instance("x").parent.instance_id == "c"
        assert engine.instance("c").parent.instance_id == "x"

        assert engine.execute(lambda transaction: transaction.purge("x", recursive=True)) == 2

    def test_a_long_line_of_descendants(self, engine: Engine) -> None:
        engine.start("0")
        for number in range(1, 1100):
            engine.turn(child(0, str(number)), end())
        engine.turn(end())

        assert engine.execute(lambda transaction: transaction.purge("0", recursive=True)) == 1100

        assert engine.store._db.execute("SELECT count(*) FROM history").fetchone() == (0,)


class TestPowerCuts:
    def test_a_turn_from_before_a_cut_that_undid_its_scheduled_start_does_not_count(self, tmp_path: Path) -> None:
        """Its worker, on another machine, answers for an instance whose start is in the future again."""
        engine = Engine()
        engine.start(scheduled_at=engine.clock.now() + 5 * SECOND)
        engine.store.backup(tmp_path / "undone.db")
        engine.later(5)
        turn = engine.receive()
        store = SqliteStore(tmp_path / "undone.db")
        engine = Engine(store)

        assert not engine.answer(turn, timer(0, engine.clock.now() + 60 * SECOND))

        assert engine.status() == "PENDING"
        engine.later(5)
        assert new_events(engine.turn(end())) == ["orchestratorStarted", "executionStarted"]
        assert engine.status() == "COMPLETED"
        store.close()


class TestCrashLoops:
    def test_a_suspect_that_is_cleared_while_it_waits_holds_back_no_others(self) -> None:
        store = SqliteStore()
        engine = Engine(store)
        engine.kernel.close_stream(engine.stream)
        for instance_id in ("x", "y", "z"):
            engine.start(instance_id)
        for _ in range(3):
            loops = CrashLoops(store)
            loops.start()
            loops.worker_joined()
        assert loops.next(lambda _: True) == "x"
        loops.committed("y", None)
        loops.committed("x", None)

        assert loops.next(lambda _: True) == "z"
        assert not loops.holds_back(engine.instance("z"))
