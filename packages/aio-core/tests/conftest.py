"""After each test of the core, every workflow that it ran is replayed, with its history cut at every event.

The replays take 30 % of the suite's time.  `replays.MAX_CUTS` and `MAX_REPLAYED` bound them for each instance, and
an instance whose replay the test itself has asserted is not replayed again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cpython_counts import counts, pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown
from replays import assert_replays, recorded_instances

__all__ = ["counts", "pytest_sessionfinish", "pytest_terminal_summary", "pytest_testnodedown"]

NOT_REPLAYED = {
    # Tests in which the workflow or its environment changes between two turns, on purpose.
    "test_divergence_names_step_history_code_and_line": "the code changes between two turns",
    "test_the_environment_is_read_when_an_execution_starts": "the environment changes between two instances",
    "test_any_of_the_words_in_any_case_will_do": "the environment changes between two instances",
    "test_a_logger_of_ones_own_can_be_made_replay_safe": "the workflow asserts that it is not replaying",
}
"""With the reason for each; tests of other packages are marked `not_replayed(reason)`."""

MARKER = "not_replayed(reason): do not replay the workflows of this test, which differ from their replay on purpose"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(autouse=True)
def _every_workflow_equals_its_replay(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,  # so that its patches are still in place when this fixture ends
) -> Iterator[None]:
    marker = request.node.get_closest_marker("not_replayed")
    if marker is not None or request.node.originalname in NOT_REPLAYED:
        assert marker is None or marker.args or marker.kwargs, "not_replayed needs a reason"
        yield
        return
    with recorded_instances() as instances:
        yield
    for instance in instances:
        if instance.turns and instance.asserted != len(instance.history):
            assert_replays(instance)
