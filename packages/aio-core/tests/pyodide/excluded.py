"""A plugin of pytest: which of the core's tests cannot run under Pyodide, and why.

Each entry begins the id of some tests; one that begins none, of a module that was collected, is an error.
"""

from __future__ import annotations

from collections import Counter

import pytest

THREADS = "no threads"
PROCESSES = "no processes"
SOCKETS = "no unix sockets"
GRPC = "no grpc"
LOOP = "asyncio.run is Pyodide's own, which wants the JavaScript around it"
CPYTHON = "comes without CPython's tests"
PLATFORM = "no time.tzset"
STACK = "the stack of WebAssembly ends before Python's does"

EXCLUDED = {
    "tests/asyncio_surface/test_anyio.py::test_threads_are_refused": THREADS,
    "tests/asyncio_surface/test_cpython.py::test_cpython": CPYTHON,
    "tests/asyncio_surface/test_cpython.py::test_this_python_brought_its_tests_along": CPYTHON,
    "tests/asyncio_surface/test_refusals.py::TestFunctionsOfAsyncio::test_that_need_the_world_outside_are_refused"
    "[open_unix_connection-": SOCKETS,
    "tests/asyncio_surface/test_refusals.py::TestFunctionsOfAsyncio::test_that_need_the_world_outside_are_refused"
    "[start_unix_server-": SOCKETS,
    "tests/asyncio_surface/test_synchronization.py::TestTheThread::test_keeps_its_own_running_loop_and_task": LOOP,
    "tests/asyncio_surface/test_synchronization.py::TestTheThread::test_may_be_any": THREADS,
    "tests/proof/test_concurrent_programs.py::test_random_concurrent_programs_do_not_depend_on_the_hash": PROCESSES,
    "tests/proof/test_deterministic_values.py::test_neither_the_hash_seed_nor_the_time_zone_changes_a_value": PROCESSES,
    "tests/proof/test_threads.py::test_instances_in_four_threads_do_what_they_do_alone": THREADS,
    "tests/proof/test_threads.py::test_random_programs_in_four_threads_do_what_they_do_alone": THREADS,
    "tests/proof/test_threads.py::test_a_thread_is_left_as_it_was_found": THREADS,
    "tests/proof/test_threads.py::test_a_workflow_runs_inside_of_another_loop_of_the_same_thread": LOOP,
    "tests/proof/test_threads.py::test_an_instance_whose_turns_are_taken_by_different_threads": THREADS,
    "tests/test_cli.py::test_it_can_be_run_as_a_module": PROCESSES,
    "tests/test_deterministic.py::test_neither_hash_seed_nor_time_zone_nor_python_changes_them": PROCESSES,
    "tests/test_deterministic.py::test_the_clock_of_a_workflow_does_not_depend_on_the_time_zone": PLATFORM,
    "tests/test_disposal.py::test_the_collector_only_hands_a_dropped_run_over": THREADS,
    "tests/test_disposal.py::test_a_turn_inside_a_running_loop_of_the_application": LOOP,
    "tests/test_disposal.py::test_at_exit_what_is_left_is_closed_muted": PROCESSES,
    "tests/test_disposal.py::test_code_that_cannot_be_closed_does_not_keep_the_process": PROCESSES,
    "tests/test_disposal_worker.py::": GRPC,
    "tests/test_exports.py::test_importing_": PROCESSES,
    "tests/test_failures.py::test_what_is_meant_for_the_process_fails_the_instance": THREADS,
    "tests/test_failures.py::test_a_result_that_the_converter_fails_on_in_another_way_fails_the_instance": STACK,
    "tests/test_failures.py::test_in_a_background_task_they_fail_the_instance_too": THREADS,
    "tests/test_operations.py::test_an_operation_cannot_be_created_from_another_thread": THREADS,
    "tests/test_operations.py::test_what_is_not_scheduled_but_ordered_is_refused_to_other_threads": THREADS,
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, counted, unused = [], Counter[str](), dict.fromkeys(EXCLUDED)
    for item in items:
        prefix = next((prefix for prefix in EXCLUDED if item.nodeid.startswith(prefix)), None)
        if prefix is None:
            kept.append(item)
        else:
            counted[EXCLUDED[prefix]] += 1
            unused.pop(prefix, None)
    modules = {item.nodeid.partition("::")[0] for item in items}
    stale = [prefix for prefix in unused if prefix.partition("::")[0] in modules]
    if stale and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"excluded, but not there: {', '.join(stale)}")
    config.stash[COUNTED] = counted
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


COUNTED = pytest.StashKey[Counter[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("Left out, by reason")
    for reason, count in config.stash.get(COUNTED, Counter[str]()).most_common():
        terminalreporter.write_line(f"{count:4} {reason}")
