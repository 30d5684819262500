"""Each decision that nothing but a proof can defend has one: undone, a test that we name turns red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import planted_defects
import pytest
from planted_defects import DEFECTS, VARIABLE

TESTS = Path(__file__).parent.parent
SUPPORT = Path(planted_defects.__file__).parent

TWINS = "proof/test_twins.py::test_the_first_random_programs_act_alike_as_generators_and_as_coroutines"
CONCURRENT = "proof/test_concurrent_programs.py::"
VALUES = "proof/test_deterministic_values.py::"

NOTICED_BY = {
    "scheduling_at_the_await": TWINS,
    "hashes_by_address": CONCURRENT + "test_random_concurrent_programs_equal_their_replay_at_every_event",
    "hashes_without_a_salt": CONCURRENT + "test_tasks_of_two_instances_hash_differently",
    "ready_queue_left_undrained": CONCURRENT + "test_the_order_of_work_does_not_depend_on_how_events_are_batched",
    "work_left_to_the_end_of_the_batch": CONCURRENT
    + "test_the_order_of_work_does_not_depend_on_how_events_are_batched",
    "user_code_inside_of_upstreams_event": CONCURRENT
    + "test_a_waiter_that_is_registered_while_its_event_is_delivered_misses_nothing",
    "event_wait_not_taken_back": TWINS,
    "timer_not_taken_back": TWINS,
    "wake_up_call_missed": "test_smoke.py",
    "unordered_start_let_through": CONCURRENT
    + "test_bare_coroutines_that_would_start_in_the_order_of_addresses_are_refused",
    "cleanups_not_run": "test_cleanup.py",
    "uuids_out_of_the_stream_of_random_numbers": VALUES
    + "test_random_numbers_and_uuids_come_from_streams_of_their_own",
    "streams_seeded_by_the_process": VALUES + "test_neither_the_hash_seed_nor_the_time_zone_changes_a_value",
    "streams_seeded_by_the_instance_alone": VALUES + "test_executions_of_one_instance_differ_after_continue_as_new",
    "metadata_not_sent_again": "proof/test_retries.py::"
    "test_a_retried_call_carries_the_metadata_of_the_moment_it_was_made",
    "retry_timeout_by_the_wall_clock": "proof/test_retries.py::"
    "test_retry_timeout_is_measured_on_the_clock_of_the_workflow",
    "entities_left_locked": "proof/test_twins.py::"
    "test_a_lock_left_with_a_call_outstanding_is_released_where_upstream_keeps_it",
    "failures_recorded_under_our_types": TWINS,
    "task_names_numbered_by_the_process": CONCURRENT + "test_a_random_concurrent_program_is_the_same_on_every_python",
    "running_loop_left_behind": "proof/test_threads.py::test_a_thread_is_left_as_it_was_found",
}


def outcome(*tests: str, defect: str | None = None) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    if defect is not None:
        environment[VARIABLE] = defect
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "planted_defects", "-p", "no:cacheprovider"]
        + [str(TESTS / test) for test in tests],
        cwd=TESTS.parent.parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    return process.returncode, process.stdout + process.stderr


def test_every_defect_is_to_be_noticed_by_a_test():
    assert set(NOTICED_BY) == set(DEFECTS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_defect_these_tests_pass():
    status, output = outcome(*dict.fromkeys(NOTICED_BY.values()))

    assert status == pytest.ExitCode.OK, output


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("defect", NOTICED_BY)
def test_a_defect_turns_its_test_red(defect: str):
    status, output = outcome(NOTICED_BY[defect], defect=defect)

    assert status == pytest.ExitCode.TESTS_FAILED, output
    # Red for what the test asserts, not for a fixture or the planting.
    assert "FAILED" in output, output
