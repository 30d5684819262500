"""Every workflow that a test of the core runs turn by turn is replayed when the test is over, cut at every event."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cpython_counts import counts, pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown
from replays import assert_replays, recorded_instances

__all__ = ["counts", "pytest_sessionfinish", "pytest_terminal_summary", "pytest_testnodedown"]

NOT_REPLAYED = {
    # Tests whose workflow is another one the second time, because that is what they are about.
    "test_divergence_names_step_history_code_and_line": "the code changes between two turns",
    "test_the_environment_is_read_when_an_execution_starts": "the environment changes between two instances",
    "test_any_of_the_words_in_any_case_will_do": "the environment changes between two instances",
    "test_a_logger_of_ones_own_can_be_made_replay_safe": "the workflow asserts that it is not replaying",
}
"""The whole list of exceptions, with the reason for each; a test elsewhere is marked ``not_replayed(reason)``."""

MARKER = "not_replayed(reason): the workflows of this test are not their own replay, on purpose or by its means"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(autouse=True)
def _every_workflow_is_its_own_replay(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,  # so that its patches are still in place when this fixture ends
) -> Iterator[None]:
    marker = request.node.get_closest_marker("not_replayed")
    if marker is not None or request.node.originalname in NOT_REPLAYED:
        assert marker is None or marker.args or marker.kwargs, "not_replayed wants a reason"
        yield
        return
    with recorded_instances() as instances:
        yield
    for instance in instances:
        if instance.turns:
            assert_replays(instance)
