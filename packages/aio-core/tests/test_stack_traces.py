"""The stack traces and messages of failures on their way to an engine."""

from typing import Any

from durabletask import task
from durabletask.aio import as_orchestrator
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance
from workflows import boom

from durabletask_aio.core.hosting import activity_failure_details, describe_failure
from durabletask_aio.core.stack_traces import own_traceback


def raised(function: Any) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def fail() -> None:
    raise ValueError("mine")


def test_a_traceback_begins_with_the_users_frame():
    host: dict[str, Any] = {"__name__": "durabletask.worker", "fail": fail}
    exec("def call():\n    fail()", host)
    error = raised(host["call"])

    found = own_traceback(error)
    while found.tb_frame.f_code.co_name == "raised":  # this test's own frame, which comes first
        found = found.tb_next
    assert found.tb_frame.f_code.co_name == "call"
    error.__traceback__ = found
    assert own_traceback(error).tb_frame.f_code.co_name == "fail"


def test_a_traceback_without_a_frame_of_the_users_is_kept():
    host: dict[str, Any] = {"__name__": "durabletask.worker"}
    exec("def call():\n    raise ValueError", host)
    error = raised(host["call"])
    error.__traceback__ = error.__traceback__.tb_next

    assert own_traceback(error) is error.__traceback__
    assert "in call" in activity_failure_details(error, None, None).stackTrace.value


def test_an_exception_type_with_an_odd_with_traceback_is_recorded():
    class Odd(Exception):
        def with_traceback(self, tb):
            raise RuntimeError("no")

    assert activity_failure_details(Odd("x"), None, None).errorMessage == "x"


def test_what_is_described_for_the_engine_changes_no_action_of_a_replay():
    async def workflow(ctx):
        await ctx.call_activity("boom", input=1)

    instance = Instance(as_orchestrator(workflow), name="w").run({"boom": boom})
    recorded = instance.failure
    assert "Activity task #1 failed" in recorded.errorMessage


def failing(details):
    return [helpers.new_complete_orchestration_action(1, pb.ORCHESTRATION_STATUS_FAILED, None, details)]


def test_without_the_exception_nothing_changes():
    actions = failing(activity_failure_details(raised(fail), None, None))
    before = actions[0].SerializeToString(deterministic=True)

    describe_failure(actions, None)

    assert actions[0].SerializeToString(deterministic=True) == before


def test_a_failed_operation_without_a_description_keeps_upstreams_message():
    details = activity_failure_details(raised(fail), None, None)
    failed = task.TaskFailedError("Activity task #1 failed: mine", details)
    actions = failing(activity_failure_details(failed, None, None))

    describe_failure(actions, failed)

    described = actions[0].completeOrchestration.failureDetails
    assert described.errorMessage == "Activity task #1 failed: mine"
    assert described.innerFailure == details
    assert "Caused by builtins.ValueError: mine\n" in described.stackTrace.value


def test_an_action_that_ends_nothing_is_left_alone():
    actions = [helpers.new_schedule_task_action(1, "work", None, None)]
    describe_failure(actions, raised(fail))
    assert not actions[0].HasField("completeOrchestration")
