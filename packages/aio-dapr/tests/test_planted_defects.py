"""Each part of the dialect, changed on purpose in a copy of the sources, turns a named test red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "durabletask_aio" / "dapr"

pytestmark = pytest.mark.slow


class Defect(NamedTuple):
    """The file, a line of it, its replacement, and the test that has to notice."""

    file: str
    line: str
    instead: str
    noticed_by: str


TWINS = "test_dialect.py::test_an_async_workflow_emits_the_actions_of_its_generator"
REPLAYS = "test_programs.py::test_a_program_is_its_own_replay_cut_at_every_turn"

DEFECTS = {
    "the optional timer of a wait reserves no number": Defect(
        "_upstream_dapr.py",
        "        if name == CANCEL_EVENT:\n            return self._wait_for_request(name)",
        "        if timeout is None:\n            return self._wait_for_request(name)",
        f"{TWINS}[stages-sessions]",
    ),
    "the wait for a request to cancel reserves a number": Defect(
        "_upstream_dapr.py", "if name == CANCEL_EVENT:", "if False:", f"{TWINS}[chain-sessions]"
    ),
    "a cancelled wait consumes the next event": Defect(
        "_upstream_dapr.py",
        "several.remove(waiting)",
        "pass",
        "test_dialect.py::test_a_cancelled_wait_does_not_consume_the_next_event",
    ),
    "a cancelled timer is sent": Defect(
        "_upstream_tasks.py",
        "self.context._pending_actions.pop(self.number, None)",
        "pass",
        "test_dialect.py::test_a_cancelled_timer_is_taken_back_before_it_is_sent_and_forgotten_after_that",
    ),
    "a task tells one listener alone": Defect(
        "_upstream_tasks.py",
        "for listener in list(self.values()):",
        "for listener in list(self.values())[:0]:",
        f"{TWINS}[chain-replay]",
    ),
    "falsy payloads are not carried over": Defect(
        "_upstream_dapr.py",
        "                    if payload is not None:",
        "                    if payload:",
        "test_dialect.py::test_falsy_payloads_are_carried_over_by_continue_as_new",
    ),
    "a custom status is always JSON": Defect(
        "_upstream_dapr.py",
        "custom_status if is_text else shared.to_json(custom_status)",
        "shared.to_json(custom_status)",
        f"{TWINS}[status-sessions]",
    ),
    "another application is not told to the retry": Defect(
        "_upstream_runtime.py",
        'keywords["app_id"] = app_id',
        "pass",
        "test_dialect.py::test_app_id_routes_activities_and_children_to_another_application",
    ),
    "the history is not compared": Defect(
        "turns.py",
        "return all(mine is theirs or mine == theirs for mine, theirs in zip(self.seen, history, strict=False))",
        "return True",
        "test_dialect.py::test_a_history_that_does_not_begin_with_what_the_instance_has_seen_is_replayed",
    ),
    "a session counts too few events as processed": Defect(
        "turns.py", "executor.processed = len(seen)", "executor.processed = len(seen) - 1", REPLAYS
    ),
    "version and patches are not expected in the history": Defect(
        "_upstream_dapr.py",
        "committed[position] = started",
        "pass",
        "test_dialect.py::test_a_session_expects_the_version_and_the_patches_that_the_sidecar_notes_in_the_history",
    ),
    "an evicted instance is not closed": Defect(
        "turns.py",
        "            if each is not None:\n                each.dispose()",
        "            pass",
        "test_dialect.py::test_the_instance_that_was_used_longest_ago_is_evicted",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_noticed(name: str, tmp_path: Path) -> None:
    defect = DEFECTS[name]
    file = copied(tmp_path) / defect.file
    source = file.read_text(encoding="utf-8")
    assert source.count(defect.line) == 1, f"{defect.file} has no such line any more: plant this defect in another way"
    file.write_text(source.replace(defect.line, defect.instead), encoding="utf-8")

    output, code = run_tests([defect.noticed_by], tmp_path)

    assert " failed" in output, output
    assert code == 1, f"nothing noticed that {name}:\n{output}"


def test_without_a_defect_the_same_tests_pass(tmp_path: Path) -> None:
    copied(tmp_path)

    output, code = run_tests(list(dict.fromkeys(defect.noticed_by for defect in DEFECTS.values())), tmp_path)

    assert code == 0, output


def copied(folder: Path) -> Path:
    """Copy the sources, to where the process of `run_tests` imports them from."""
    target = folder / "durabletask_aio" / "dapr"
    shutil.copytree(SOURCES, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def run_tests(names: list[str], sources: Path) -> tuple[str, int]:
    """Run these tests against the package in `sources`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = os.pathsep.join([str(sources), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment |= {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "", "--timeout", "60"]
    done = subprocess.run(
        [*command, *(str(TESTS / name) for name in names)],
        cwd=TESTS.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    return done.stdout + done.stderr, done.returncode
