"""Each condition of extended sessions, dropped on purpose in a copy of the sources, turns a named test red.

Most conditions are also dropped by their own test in `test_sessions.py`, which shows that *that* test can fail.  Here
it is the line itself that goes, so that no line is there which no test would miss.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PACKAGES = {"core": TESTS.parents[1] / "aio-core", "worker": TESTS.parent}


class Defect(NamedTuple):
    """The file, by package and path, a line of it, its replacement, and the test that has to notice."""

    file: str
    line: str
    instead: str
    noticed_by: str


DEFECTS = {
    "the history is compared by its length alone": Defect(
        "worker/sessions.py",
        "if self._hash.digest() != fingerprint.digest():",
        "if False:",
        "test_sessions.py::TestConditions::test_an_id_is_used_again_after_a_purge",
    ),
    "the history is not compared at all": Defect(
        "worker/sessions.py",
        "if not history.continues(session.fingerprint):",
        "if False:",
        "test_sessions.py::TestConditions::test_another_worker_did_a_turn_in_between",
    ),
    "less than the history is taken for what follows any turn": Defect(
        "worker/sessions.py",
        "return bool(self._answer) and fingerprint.answer == self._answer",
        "return True",
        "test_sessions.py::TestConditions::test_another_worker_did_a_turn_in_between",
    ),
    "less than the history is taken for what follows a turn without a name": Defect(
        "worker/sessions.py",
        "return bool(self._answer) and fingerprint.answer == self._answer",
        "return fingerprint.answer == self._answer",
        "test_sessions.py::TestLessThanTheHistory::test_without_a_name_is_of_no_turn",
    ),
    "a session does not know on which answer it stands": Defect(
        "worker/turns.py",
        "answer = lease_of(completion_token) if delivery.is_delivered else None",
        'answer = turn.session.fingerprint.answer if turn.session else ""',
        "test_sessions.py::TestLessThanTheHistory::test_names_the_turn_that_was_answered_last",
    ),
    "the whole history is proven without what came of it in pieces": Defect(
        "worker/sessions.py",
        "digest.update(data)",
        "pass",
        "test_sessions.py::TestLessThanTheHistory::test_is_followed_by_the_whole_history",
    ),
    "the bytes of a history are not compared": Defect(
        "worker/sessions.py",
        "sha256(memoryview(body)[: raw.length]).digest() != raw.hash.digest()",
        "False",
        "test_sessions.py::TestConditions::test_another_worker_did_a_turn_in_between",
    ),
    "what a turn adds is not among the bytes of its history": Defect(
        "worker/sessions.py",
        "digest.update(sections.appended)",
        "pass",
        "test_raw_requests.py::TestASession::test_has_the_history_parsed_once",
    ),
    "a history that was proven by its bytes is proven by nothing else afterwards": Defect(
        "worker/sessions.py",
        "fingerprint = before.followed_by(*self._further)",
        "fingerprint = before.followed_by(sections.appended, self._further[1])",
        "test_raw_requests.py::TestASession::test_survives_bytes_that_change_once",
    ),
    "unknown fields are taken for what follows a history": Defect(
        "worker/raw_requests.py",
        "elif field not in _AFTER_HISTORY:",
        "elif False:",
        "test_raw_requests.py::TestParts::test_are_unknown_with",
    ),
    "a past event is part of the history wherever it is": Defect(
        "worker/raw_requests.py",
        "if field == _PAST_EVENT and begin == history_end:",
        "if field == _PAST_EVENT:",
        "test_raw_requests.py::TestParts::test_are_unknown_with",
    ),
    "a turn that has diverged is tried again without its history": Defect(
        "worker/turns.py",
        "self.diverged.add(whole_request(turn.delivered), stub",
        "self.diverged.add(request, stub",
        "test_raw_requests.py::TestASession::test_that_has_diverged_is_given_back_with_its_whole_history",
    ),
    "a turn that waits for a step is kept under another request": Defect(
        "worker/turns.py",
        "self.paused.may_pause(turn.delivered)",
        "self.paused.may_pause(request)",
        "test_raw_requests.py::TestOverGrpc::test_a_turn_that_waits_for_a_step_continues",
    ),
    "the trace context of the start is dropped": Defect(
        "worker/sessions.py",
        'kept.executionStarted.ClearField("input")',
        'kept.executionStarted.ClearField("input")\n    kept.executionStarted.ClearField("parentTraceContext")',
        "test_sessions.py::TestWhatIsKeptOfTheStart::test_serves_the_turns_that_follow",
    ),
    "a session in use stays in the cache": Defect(
        "worker/sessions.py",
        "session = self._sessions.pop(instance_id, None)\n            self.stats.live",
        "session = self._sessions.get(instance_id)\n            self.stats.live",
        "test_sessions.py::TestConditions::test_a_turn_is_delivered_again_while_the_first_is_inside_user_code",
    ),
    "a session is stored before its response was delivered": Defect(
        "worker/turns.py",
        "            delivered\n            and",
        "            True\n            and",
        "test_sessions.py::TestConditions::test_a_response_was_lost_and_the_turn_comes_again_with_a_later_clock",
    ),
    "the next turn does not wait for a session that is on its way": Defect(
        "worker/work_items.py",
        "if self._turns.may_keep(item.request):",
        "if False:",
        "test_instance_threads.py::test_the_next_turn_finds_the_session_whose_delivery_has_not_returned_yet",
    ),
    "what has ended is kept": Defect(
        "worker/turns.py",
        "            and not executor.is_complete\n",
        "",
        "test_sessions.py::TestConditions::test_nothing_that_has_ended_is_kept",
    ),
    "a rewind is served from the session": Defect(
        "worker/sessions.py",
        'if event.HasField("executionRewound"):',
        "if False:",
        "test_sessions.py::TestConditions::test_a_rewind_is_always_a_full_replay",
    ),
    "a start is served from the session": Defect(
        "worker/sessions.py",
        'if event.HasField("executionStarted"):\n            return "restarted"',
        'if False:\n            return "restarted"',
        "test_sessions.py::TestConditions::test_an_id_is_used_again_at_the_same_worker",
    ),
    "another function under the name is served from the session": Defect(
        "worker/sessions.py",
        "if session.function is not function:",
        "if False:",
        "test_sessions.py::TestConditions::test_another_function_was_registered_under_the_name",
    ),
    "a turn without events is served from the session": Defect(
        "worker/sessions.py",
        "if not request.newEvents:",
        "if False:",
        "test_sessions.py::TestConditions::test_a_turn_without_new_events_is_upstreams_business",
    ),
    "a turn of another span is served from the session": Defect(
        "worker/sessions.py",
        "if span_id is not None and span_id != session.executor.span_id:",
        "if False:",
        "test_sessions.py::TestConditions::test_a_turn_is_answered_in_the_span_it_comes_with",
    ),
    "events that happened elsewhere are left out": Defect(
        "core/_upstream.py",
        "unseen = old_events[processed:]",
        "unseen = old_events[len(old_events) :]",
        "test_sessions.py::TestConditions::test_user_code_sees_is_replaying_as_it_would_in_a_full_replay",
    ),
    "events are processed twice": Defect(
        "core/_upstream.py",
        "unseen = old_events[processed:]",
        "unseen = old_events",
        "test_sessions.py::TestServing::test_every_turn_after_the_first_is_served_from_the_session",
    ),
    "events that happened elsewhere pass for live": Defect(
        "core/_upstream.py",
        "ctx._is_replaying = True\n            for event in unseen:",
        "ctx._is_replaying = False\n            for event in unseen:",
        "test_sessions.py::TestConditions::test_user_code_sees_is_replaying_as_it_would_in_a_full_replay",
    ),
    "new events pass for replayed ones": Defect(
        "core/_upstream.py",
        "ctx._is_replaying = False\n            for event in new_events:",
        "ctx._is_replaying = True\n            for event in new_events:",
        "test_sessions.py::TestConditions::test_user_code_sees_is_replaying_as_it_would_in_a_full_replay",
    ),
    "what is confirmed during a suspension is sent again": Defect(
        "core/turn_executor.py",
        "if kind in rewinding.REQUESTS and self._drives_async(ctx):",
        "if False:",
        "test_suspension.py::test_what_was_asked_for_can_be_taken_back_after_the_resume",
    ),
    "a suspension ends with the first confirmation": Defect(
        "core/turn_executor.py",
        "        finally:\n            self.is_suspended = True",
        "        finally:\n            pass",
        "test_suspension.py::test_what_was_asked_for_can_be_taken_back_after_the_resume",
    ),
    "sessions are without number": Defect(
        "worker/sessions.py",
        "while len(self._sessions) > self._limit:",
        "while False:",
        "test_sessions.py::TestBounds::test_the_least_recently_used_are_let_go_and_closed_once",
    ),
    "the most recently used goes first": Defect(
        "worker/sessions.py",
        'evicted.append(self._sessions.popitem(last=False)[1])\n                self.stats.evictions["limit"]',
        'evicted.append(self._sessions.popitem(last=True)[1])\n                self.stats.evictions["limit"]',
        "test_sessions.py::TestBounds::test_the_one_that_goes_is_the_least_recently_used",
    ),
    "idle sessions stay": Defect(
        "worker/sessions.py",
        "if oldest.idle_since > limit:",
        "if True:",
        "test_sessions.py::TestBounds::test_idle_ones_are_let_go",
    ),
    "what falls out of the cache is not closed": Defect(
        "worker/turns.py",
        "                self._threads.dispose(evicted)\n",
        "                pass\n",
        "test_sessions.py::TestBounds::test_the_least_recently_used_are_let_go_and_closed_once",
    ),
    "a session that may not serve is not closed": Defect(
        "worker/turns.py",
        "        if session is not None:\n            session.dispose()\n        return None, reason",
        "        return None, reason",
        "test_sessions.py::TestBounds::test_one_that_may_not_serve_is_closed",
    ),
    "a session whose response was lost is not closed": Defect(
        "worker/turns.py",
        "        elif turn.session is not None:\n            turn.session.dispose()",
        "",
        "test_sessions.py::TestBounds::test_one_whose_response_was_lost_is_closed",
    ),
    "a dropped instance is left to the garbage collector": Defect(
        "worker/turns.py",
        "            turn.executor.close()\n",
        "            pass\n",
        "test_turns.py::TestAnInstanceThatIsDropped::test_is_out_of_memory_before_the_garbage_collector_looks",
    ),
    "an evicted instance is left to the garbage collector": Defect(
        "worker/sessions.py",
        "        self.executor.close()\n",
        "",
        "test_turns.py::TestAnInstanceThatIsDropped::test_is_out_of_memory_before_the_garbage_collector_looks",
    ),
    "a worker that stopped stores sessions": Defect(
        "worker/sessions.py",
        "        with self._lock:\n            self._closed = True",
        "        with self._lock:\n            self._closed = False",
        "test_sessions.py::TestBounds::test_nothing_is_stored_once_the_worker_has_stopped",
    ),
    "a live instance goes from thread to thread": Defect(
        "worker/work_items.py",
        "if self._turns.may_keep(item.request):",
        "if False:",
        "test_instance_threads.py::test_what_a_workflow_keeps_in_a_thread_local_lasts_across_its_awaits",
    ),
    "an instance has another thread each time": Defect(
        "worker/instance_threads.py",
        "index = zlib.crc32(instance_id.encode()) % self._number",
        "index = int.from_bytes(__import__('os').urandom(2), 'big') % self._number",
        "test_instance_threads.py::test_what_a_workflow_keeps_in_a_thread_local_lasts_across_its_awaits",
    ),
    "the limits are not kept": Defect(
        "worker/work_items.py",
        "if self._running >= self._limit:",
        "if False:",
        "test_work_items.py::TestLimits::test_at_most_so_many_of_a_kind_run_at_a_time",
    ),
    "what waits in a queue is executed after its stream has ended": Defect(
        "worker/work_items.py",
        "queue.take(lambda item: item.stream is stream and item.lease is None)",
        "[]",
        "test_work_items.py::TestAStreamThatEnds::test_what_waits_in_the_queue_is_abandoned_at_once",
    ),
    "what waits for a thread is executed after its stream has ended": Defect(
        "worker/work_items.py",
        "return item.stream is None or not item.stream.is_stale",
        "return True",
        "test_work_items.py::TestAStreamThatEnds::test_what_waits_for_a_thread_is_abandoned",
    ),
    "a worker that stops does not wait for what it has taken": Defect(
        "worker/work_items.py",
        "if not self._is_shut_down or (self._unfinished and not self._is_left):",
        "if not self._is_shut_down:",
        "test_work_items.py::TestStopping::test_waits_for_all_that_the_worker_has_taken",
    ),
    "the stream ends before the results of what runs": Defect(
        "worker/work_items.py",
        "while self._bound_to_stream:",
        "while False:",
        "test_work_items.py::TestStopping::test_the_stream_ends_after_what_the_worker_has_taken",
    ),
    "a busy stream is taken for a dead one": Defect(
        "worker/work_stream.py",
        "if now - told >= self._interval:",
        "if told < 0:",
        "test_work_items.py::TestTheStream::test_is_not_taken_for_dead_while_it_brings_work",
    ),
    "a channel that was replaced is kept for ever": Defect(
        "worker/work_items.py",
        "            item.release()\n",
        "            pass\n",
        "test_work_items.py::TestTheChannel::test_is_released_by_every_item",
    ),
    "replay starts spans": Defect(
        "worker/session_executor.py",
        "return orchestration_spans(self._orchestration_span) if self.is_async else nullcontext()",
        "return nullcontext()",
        "test_user_spans.py::TestOfAnyProvider::test_each_span_is_there_once_if_the_worker_emits_none",
    ),
    "what user code raises ends the worker": Defect(
        "core/turn_executor.py",
        "        self.fail(failure_details(error, self.exception_properties_provider, self.logger))\n"
        "        raise TurnAborted from None",
        "        return",
        "test_turns.py::TestNothingKillsTheWorker",
    ),
    "an interrupted replay schedules again what its history has": Defect(
        "core/_upstream.py",
        "            ctx._pending_actions.clear()",
        "            pass",
        "test_turn_timeout.py::TestAWorkflowThatSpins::test_on_replay_schedules_nothing_again",
    ),
    "a turn that does not end is given back before its stream has ended": Defect(
        "worker/work_items.py",
        "waits = not item.outlives_stream and item.stream is not None and not item.stream.has_ended",
        "waits = False",
        "test_stuck_turns.py::test_stop_leaves_it_behind_and_another_worker_has_it_and_what_waited_behind_it",
    ),
}


def sources(package: str) -> Path:
    return PACKAGES[package] / "src" / "durabletask_aio" / package


def copied(tmp_path: Path) -> Path:
    """Copy both packages, the core too because the worker's turn executor is the core's."""
    for package in PACKAGES:
        target = tmp_path / "durabletask_aio" / package
        shutil.copytree(sources(package), target, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "durabletask_aio"


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_can_be_planted(name: str) -> None:
    defect = DEFECTS[name]
    package, _, file = defect.file.partition("/")
    source = (sources(package) / file).read_text()
    assert source.count(defect.line) == 1, f"{defect.file} has no such line any more: plant this defect in another way"


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_noticed(name: str, tmp_path: Path) -> None:
    defect = DEFECTS[name]
    file = copied(tmp_path) / defect.file
    file.write_text(file.read_text().replace(defect.line, defect.instead))

    output, code = run_tests(defect.noticed_by, tmp_path)

    assert "passed" in output or "failed" in output, output
    assert code == 1, f"nothing noticed that {name}:\n{output}"


@pytest.mark.slow
def test_without_a_defect_the_same_tests_pass(tmp_path: Path) -> None:
    """Or the tests above would prove nothing."""
    copied(tmp_path)

    output, code = run_tests(" ".join(dict.fromkeys(defect.noticed_by for defect in DEFECTS.values())), tmp_path)

    assert code == 0, output


def run_tests(names: str, sources: Path) -> tuple[str, int]:
    """Run these tests against the packages in `sources`."""
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "", "--timeout", "60"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(sources), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *(str(TESTS / each) for each in names.split())],
        cwd=TESTS.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    return done.stdout + done.stderr, done.returncode
