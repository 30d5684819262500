"""The public errors: what they are also, what they carry, how they read."""

import asyncio
import copy
import pickle

import pytest
from durabletask import aio, task

from durabletask_aio.core.errors import PUBLIC_ERRORS, add_note

ERRORS = [error for error in PUBLIC_ERRORS if issubclass(error, aio.AsyncWorkflowError)]


@pytest.mark.parametrize("error", PUBLIC_ERRORS, ids=lambda error: error.__name__)
def test_each_is_found_under_the_name_that_it_shows(error):
    assert error.__module__ == "durabletask.aio"
    assert getattr(aio, error.__name__) is error
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (aio.WorkflowValidationError, (TypeError, ValueError)),
        (aio.UnsupportedInWorkflowError, (NotImplementedError,)),
        (aio.WorkflowTimeoutError, (TimeoutError, asyncio.TimeoutError)),
        (aio.ActivityFailedError, (task.TaskFailedError,)),
        (aio.SubOrchestrationFailedError, (task.TaskFailedError,)),
        (aio.HistoryDivergenceError, (task.NonDeterminismError,)),
        (aio.NonDeterminismWarning, (UserWarning,)),
    ],
)
def test_what_upstream_or_python_has_a_type_for_is_of_that_type_too(error, bases):
    for base in bases:
        assert issubclass(error, base)


def test_eviction_gets_past_except_exception():
    assert not issubclass(aio.InstanceEvicted, Exception)


def test_without_facts_the_message_is_the_text():
    error = aio.AsyncWorkflowError("what went wrong")
    assert str(error) == "what went wrong"
    assert (error.instance_id, error.workflow_name, error.step) == (None, None, None)


def test_facts_follow_the_first_line():
    error = aio.WorkflowValidationError("what\n  wrong: a\n  right: b", instance_id="i", workflow_name="w", step=3)
    assert str(error) == "what [workflow 'w', instance 'i', step 3]\n  wrong: a\n  right: b"
    assert error.message == "what\n  wrong: a\n  right: b"


def test_facts_that_are_missing_are_left_out():
    assert str(aio.DeadlockError("what", workflow_name="w")) == "what [workflow 'w']"
    assert str(aio.DeadlockError("what", step=0)) == "what [step 0]"


@pytest.mark.parametrize("error", [error for error in ERRORS if "Failed" not in error.__name__])
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_copies_and_pickles_keep_the_facts(error, copied):
    original = error("what", instance_id="i", workflow_name="w", step=3)
    again = copied(original)
    assert type(again) is error
    assert (str(again), again.step) == (str(original), 3)


@pytest.mark.parametrize("error", [aio.ActivityFailedError, aio.SubOrchestrationFailedError])
def test_a_failed_operation_wraps_upstreams_error(error):
    upstream = task.TaskFailedError("activity failed", ValueError("boom"))
    ours = error(upstream, what="activity 'a'", instance_id="i", workflow_name="w", step=1)

    assert str(ours) == "activity 'a' failed with builtins.ValueError: boom [workflow 'w', instance 'i', step 1]"
    assert ours.details == upstream.details
    assert ours.task_error is upstream
    for again in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(again) is error
        assert (str(again), again.step, again.message) == (str(ours), 1, ours.message)
        assert type(again.task_error) is task.TaskFailedError
        assert (str(again.task_error), again.task_error.details.message) == ("activity failed", "boom")
        assert (again.details.error_type, again.details.message) == ("builtins.ValueError", "boom")


def test_notes_are_added_on_every_python():
    error = ValueError("mine")
    add_note(error, "first")
    add_note(error, "second")
    assert error.__notes__ == ["first", "second"]
