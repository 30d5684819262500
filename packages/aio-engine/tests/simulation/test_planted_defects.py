"""Small defects of the engine, planted one at a time: the simulation finds each within a number of seeds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation import FAILURES, failure_of

from durabletask_aio.engine import entity_transitions, kernel, transitions, turns
from durabletask_aio.engine.commands import Transaction
from durabletask_aio.engine.crash_loops import CrashLoops
from durabletask_aio.engine.dispatch import Dispatcher
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.streams import WorkerStream
from durabletask_aio.engine.tokens import BatchToken, TurnToken

MAX_SEEDS = 1_500

Plant = Callable[[pytest.MonkeyPatch], None]

DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    DEFECTS[plant.__name__] = plant
    return plant


def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace a function by one that is given the original as its first argument."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *arguments, **keywords: change(original, *arguments, **keywords))


def nothing(*arguments: Any, **keywords: Any) -> None:
    """Do nothing; stands in for a method."""


# -- answers of workers --------------------------------------------------------------------------------------------


@defect
def activity_counts_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqliteStore, "drop_task", nothing)


@defect
def turn_known_by_its_instance_alone(patch: pytest.MonkeyPatch) -> None:
    def complete(original: Any, transaction: Transaction, token: TurnToken, response: Any) -> bool:
        instance = transaction.store.instance(token.instance_id)
        if instance is not None:
            given = [each for each in transaction.store.inbox(instance) if each.seq <= token.upto]
            token = token._replace(turn_id=instance.turn_id, row_count=len(given))
        return original(transaction, token, response)

    wrap(patch, Transaction, "complete_turn", complete)


@defect
def batch_known_by_its_entity_alone(patch: pytest.MonkeyPatch) -> None:
    def complete(original: Any, transaction: Transaction, token: BatchToken, result: Any) -> bool:
        entity = transaction.store.entity(token.entity_id)
        if entity is not None:
            operations = entity_transitions.batch(entity, transaction.store.operations(token.entity_id))
            holder = "" if entity.lock is None else entity.lock.execution_id
            given = [each for each in operations if each.seq <= token.upto]
            token = token._replace(revision=entity.revision, row_count=len(given), holder=holder)
        return original(transaction, token, result)

    wrap(patch, Transaction, "complete_batch", complete)


@defect
def result_of_an_execution_that_is_over_accepted(patch: pytest.MonkeyPatch) -> None:
    def deliver(original: Any, instance: Any, message: Any, inbox: Any) -> Any:
        return original(instance, message._replace(execution_id=None), inbox)

    wrap(patch, transitions, "deliver", deliver)


@defect
def inbox_consumed_too_far(patch: pytest.MonkeyPatch) -> None:
    def apply(original: Any, store: SqliteStore, changes: Any) -> Any:
        return original(store, replace(changes, consumed=changes.consumed and 1 << 60))

    wrap(patch, SqliteStore, "apply", apply)


@defect
def inbox_lost_by_continue_as_new(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, turns, "Turn", lambda original, given, later, time, response: original(given, (), time, response))


# -- the store -----------------------------------------------------------------------------------------------------


@defect
def memory_kept_at_a_rollback(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqliteStore, "_forget", nothing)


@defect
def rollback_by_the_database_not_noticed(patch: pytest.MonkeyPatch) -> None:
    def existing(original: Any, transaction: Transaction, instance_id: str) -> Any:
        try:
            return original(transaction, instance_id)
        except sqlite3.OperationalError as error:
            raise kernel.EngineBusyError(str(error)) from error

    wrap(patch, Transaction, "_existing", existing)
    wrap(patch, SqliteStore, "commit", lambda original, store: original(store) if store.in_transaction else None)


@defect
def tasks_left_by_a_purge(patch: pytest.MonkeyPatch) -> None:
    def end(original: Any, store: SqliteStore, execution_id: str, drop_tasks: bool) -> bool:
        return original(store, execution_id, False)

    wrap(patch, SqliteStore, "end_execution", end)


@defect
def lease_in_the_file_kept_when_the_activity_is_done(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqliteStore, "drop_lease", nothing)


# -- time ----------------------------------------------------------------------------------------------------------


@defect
def timer_fired_early(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, SqliteStore, "next_due", lambda original, store: (due := original(store)) and due - 400_000)
    wrap(patch, SqliteStore, "due_timers", lambda original, store, now, limit: original(store, now + 400_000, limit))


@defect
def time_not_continued_over_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Kernel, "last_time", lambda store: 0)


@defect
def executions_start_at_the_same_time(patch: pytest.MonkeyPatch) -> None:
    for module in (transitions, turns):
        patch.setattr(module, "next_start", lambda before, wanted: (wanted, 0))


# -- entities ------------------------------------------------------------------------------------------------------


@defect
def lock_kept_at_the_end_of_its_holder(patch: pytest.MonkeyPatch) -> None:
    def locked(original: Any, store: SqliteStore, execution_id: str | None = None) -> Any:
        return original(store) if execution_id is None else []

    wrap(patch, SqliteStore, "locked_entities", locked)


@defect
def lock_request_kept_at_the_end_of_its_execution(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqliteStore, "drop_lock_request", nothing)


@defect
def entity_locked_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(entity_transitions, "_is_free", lambda *arguments: True)


@defect
def operations_of_others_executed_under_a_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(entity_transitions, "batch", lambda entity, operations: operations)


# -- the life of instances -----------------------------------------------------------------------------------------


@defect
def work_asked_for_again_by_a_rewind_while_it_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Transaction, "_is_outstanding", lambda *arguments: False)


@defect
def outcome_of_a_child_reported_again_after_its_rewind(patch: pytest.MonkeyPatch) -> None:
    def rewind(transaction: Transaction, instance_id: str, reason: str | None) -> None:
        transaction._rewind(transaction._existing(instance_id), reason)

    patch.setattr(Transaction, "rewind_instance", rewind)


@defect
def parent_not_told_of_the_end_of_a_child(patch: pytest.MonkeyPatch) -> None:
    for module in (transitions, turns):
        patch.setattr(module, "tell_parent", lambda *arguments: [])


@defect
def suspension_delivered_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "will_be_suspended", lambda status, inbox: status == transitions.SUSPENDED)


@defect
def requests_of_clients_lost_by_continue_as_new(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(turns._TurnCommit, "_unheeded", lambda commit: [])


# -- dispatch ------------------------------------------------------------------------------------------------------


@defect
def work_of_an_entity_not_queued_when_its_lock_is_released(patch: pytest.MonkeyPatch) -> None:
    def release(transaction: Transaction, entity: Any) -> None:
        transaction.store.put_entity(entity_transitions.release(entity))
        transaction._locks_changed = True

    patch.setattr(Transaction, "_release", release)


@defect
def limits_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerStream, "has_room", lambda stream, kind: stream.is_open)


@defect
def work_lost_at_the_end_of_a_stream(patch: pytest.MonkeyPatch) -> None:
    def requeue(dispatcher: Dispatcher, leases: Any) -> None:
        for lease in list(leases):
            dispatcher._forget(lease.id)

    patch.setattr(Dispatcher, "_requeue", requeue)


@defect
def activities_of_a_replaced_instance_dispatched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "discard_if", nothing)


@defect
def suspect_that_is_cleared_holds_back_the_others(patch: pytest.MonkeyPatch) -> None:
    def next_suspect(loops: CrashLoops, is_out: Any) -> str | None:
        if loops.running is not None or not loops._waiting:
            return None
        loops.running = loops._waiting.popleft()
        return loops.running

    patch.setattr(CrashLoops, "next", next_suspect)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFECTS)
def test_the_simulation_finds_a_planted_defect(name: str, monkeypatch: pytest.MonkeyPatch):
    DEFECTS[name](monkeypatch)

    for seed in range(MAX_SEEDS):
        error, _ = failure_of(seed)
        if error is not None:
            assert isinstance(error, FAILURES), f"seed {seed}: {error!r}"
            return
    pytest.fail(f"not found with {MAX_SEEDS} seeds")
