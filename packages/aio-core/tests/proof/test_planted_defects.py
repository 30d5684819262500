"""Each planted defect makes the named test fail, by an assertion about the workflow and not by the planting."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import planted_defects
import pytest
from planted_defects import DEFECTS, REPORT_VARIABLE, VARIABLE

TESTS = Path(__file__).parent.parent
SUPPORT = Path(planted_defects.__file__).parent

TWINS = "proof/test_twins.py::test_the_first_random_programs_act_alike_as_generators_and_as_coroutines"
CONCURRENT = "proof/test_concurrent_programs.py::"
REQUESTS = "test_requests.py::"
STEPS = "test_steps.py::"
STEP_PROGRAMS = "proof/test_step_programs.py::test_random_programs_with_steps_equal_their_replay"
CANCELLATION = "test_graceful_cancellation.py::"
SURFACE = "asyncio_surface/"
VALUES = "proof/test_deterministic_values.py::"

FOUND_BY = {
    "scheduling_at_the_await": TWINS,
    "hashes_by_address": CONCURRENT + "test_random_concurrent_programs_equal_their_replay_at_every_event",
    "hashes_without_the_instance_id": CONCURRENT + "test_tasks_of_two_instances_hash_differently",
    "ready_queue_left_undrained": CONCURRENT + "test_the_order_of_work_does_not_depend_on_how_events_are_batched",
    "workflow_resumed_once_per_batch": CONCURRENT + "test_the_order_of_work_does_not_depend_on_how_events_are_batched",
    "user_code_inside_of_upstreams_event": CONCURRENT
    + "test_a_waiter_that_is_registered_while_its_event_is_delivered_misses_nothing",
    "event_wait_not_taken_back": TWINS,
    "timer_not_taken_back": TWINS,
    "loop_not_woken": "test_smoke.py::test_a_workflow_with_a_bit_of_everything_completes_and_replays",
    "unordered_start_accepted": CONCURRENT
    + "test_bare_coroutines_that_would_start_in_the_order_of_addresses_are_refused",
    "cleanups_not_run": "test_cleanup.py::test_they_run_when_the_block_ends_the_latest_first",
    "uuids_from_the_stream_of_random_numbers": VALUES + "test_random_numbers_and_uuids_come_from_streams_of_their_own",
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
    "cancel_requests_not_recognised": CANCELLATION + "TestTheWorkflow::test_gets_a_cancelled_error_with_the_reason",
    "cancel_requests_waited_for": CANCELLATION + "TestTheEvent::test_leaves_a_deadlock_one",
    "cancel_requests_interrupt_the_cleanup": CANCELLATION + "TestFurtherRequests::test_do_not_interrupt_the_cleanup",
    "cancel_requests_delivered_inside_of_upstreams_event": CANCELLATION
    + "TestTheWorkflow::test_takes_back_what_it_waits_for",
    "cancel_requests_not_carried_over": CANCELLATION
    + "TestContinueAsNew::test_carries_a_request_over_that_came_after_it",
    "requests_not_carried_over": REQUESTS + "TestEnd::test_continue_as_new_carries_over_what_was_not_taken",
    "open_requests_not_told_of_the_end": REQUESTS + "TestEnd::test_clients_are_told_that_the_workflow_has_completed",
    "wait_for_a_request_not_taken_back": REQUESTS + "TestStream::test_a_wait_that_was_cancelled_takes_no_request",
    "requests_answered_more_than_once": REQUESTS + "TestAnswer::test_a_second_answer_is_an_error_that_names_the_first",
    "children_not_asked_to_cancel": CANCELLATION
    + "TestChildren::test_that_nothing_waits_for_get_the_request_when_the_parent_ends",
    "messages_of_cancellations_dropped": SURFACE
    + "test_cancellation.py::TestMessages::test_go_through_a_combination_that_a_task_awaits",
    "cancel_deliveries_not_parked": SURFACE
    + "test_anyio.py::test_a_task_that_waits_in_a_cancelled_scope_for_a_shielded_one_waits_for_its_end",
    "async_generators_left_open": "test_disposal.py::test_an_open_async_generator_is_closed_with_its_instance",
    "ends_of_steps_in_the_order_of_their_calls": STEP_PROGRAMS,
    "stale_wake_ups_counted": STEPS + "test_wake_ups_of_an_earlier_execution_have_no_effect",
    "steps_run_again_on_replay": STEP_PROGRAMS,
    "arguments_of_steps_by_reference": STEPS
    + "test_arguments_are_copies_and_results_are_what_the_converter_makes_of_them",
    "steps_begin_before_earlier_records_are_durable": STEPS + "test_a_chain_of_steps_is_recorded_one_by_one",
    "patches_turned_on_by_a_replay": "test_patches.py::"
    "test_an_instance_under_way_takes_the_branch_of_the_place_that_it_has_reached",
    "running_loop_left_behind": "proof/test_threads.py::test_a_thread_is_left_as_it_was_found",
}


# What an error in the planting itself, or in what it patches, shows: a defect has to be found by its effect.
ERRORS_OF_THE_PLANTING = re.compile(r"\b(AttributeError|ImportError|ModuleNotFoundError|NameError)\b")


class Failure(NamedTuple):
    """A failure of a test in a run with a defect."""

    test: str
    phase: str
    types: list[str]
    text: str


def outcome(report: Path, *tests: str, defect: str | None = None) -> tuple[int, str, list[Failure]]:
    """Run tests in another process.

    Args:
        report: a file that does not exist.
        tests: their ids, relative to the folder of the core's tests.
        defect: the defect to plant.

    Returns:
        The exit status of pytest, its output, and the failures.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    environment[REPORT_VARIABLE] = str(report)
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
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return process.returncode, process.stdout + process.stderr, [Failure(*json.loads(line)) for line in lines]


def test_every_defect_has_a_test_that_must_find_it():
    assert set(FOUND_BY) == set(DEFECTS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_defect_these_tests_pass(tmp_path: Path):
    status, output, failures = outcome(tmp_path / "report", *dict.fromkeys(FOUND_BY.values()))

    assert status == pytest.ExitCode.OK, output
    assert not failures


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("defect", FOUND_BY)
def test_a_defect_is_found_by_an_assertion_of_its_test(defect: str, tmp_path: Path):
    status, output, failures = outcome(tmp_path / "report", FOUND_BY[defect], defect=defect)

    assert status == pytest.ExitCode.TESTS_FAILED, output
    found = failures[0]
    path, _, name = FOUND_BY[defect].partition("::")
    assert f"{path}::{name}" in found.test, output
    assert found.phase == "call", output
    assert "AssertionError" in found.types or found.types[0] == "Failed", found.text
    assert not ERRORS_OF_THE_PLANTING.search(found.text), found.text
