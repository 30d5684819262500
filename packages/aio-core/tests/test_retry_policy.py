"""`RetryPolicy`: upstream's, and the failures after which nothing is tried again."""

import pickle
from datetime import timedelta

import pytest
from durabletask import task
from durabletask.aio import RetryPolicy, WorkflowValidationError, as_orchestrator
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance
from workflows import failure_of, started


class PaymentError(Exception):
    pass


class CardDeclined(PaymentError):
    pass


CALLS = ["call_activity", "call_sub_orchestrator"]


def policy(*non_retryable, **options):
    options = {"first_retry_interval": timedelta(seconds=10), "max_number_of_attempts": 3, **options}
    return RetryPolicy(**options, non_retryable=non_retryable)


def details_of(kind, *bases):
    details = pb.TaskFailureDetails(errorType=kind, errorMessage="no")
    for base in bases:
        details.properties["durabletask.aio.bases"].list_value.values.add(string_value=base)
    return details


DECLINED = details_of(helpers.get_qualified_name(CardDeclined), helpers.get_qualified_name(PaymentError))


def failed(instance, details):
    """The event that the one call that is outstanding has failed with these details."""
    [step] = [step for step, action in instance.outstanding.items() if not action.HasField("createTimer")]
    event = instance.failed(step, Exception())
    event_of = event.taskFailed if event.HasField("taskFailed") else event.subOrchestrationInstanceFailed
    event_of.failureDetails.CopyFrom(details)
    return event


def attempts(retry_policy, *failures, call="call_activity"):
    """How many attempts there were, of which each but the last has a failure of this list; then the last one again."""

    async def workflow(ctx):
        try:
            await getattr(ctx, call)("work", retry_policy=retry_policy)
        except task.TaskFailedError as error:
            return error.details.error_type

    instance = started(workflow)
    for number in range(1, 10):
        instance.turn(failed(instance, failures[min(number, len(failures)) - 1]))
        if instance.outcome is not None:
            assert instance.result == failures[min(number, len(failures)) - 1].errorType
            return number
        [timer] = instance.steps("createTimer")
        instance.turn(instance.fired(timer))
    raise AssertionError("tried without end")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("non_retryable", "expected"),
    [
        ((CardDeclined,), 1),
        ((PaymentError,), 1),
        ((ValueError, CardDeclined), 1),
        (("CardDeclined",), 1),
        (("PaymentError",), 1),
        ((helpers.get_qualified_name(CardDeclined),), 1),
        ((Exception,), 1),
        ((), 3),
        ((ValueError,), 3),
        (("shop.CardDeclined",), 3),
        (("carddeclined",), 3),
    ],
    ids=str,
)
def test_a_failure_of_such_a_type_is_the_last_one(non_retryable, expected, call):
    assert attempts(policy(*non_retryable), DECLINED, call=call) == expected
    assert attempts(policy(*non_retryable, backoff_coefficient=2.0), DECLINED, call=call) == expected
    assert attempts(policy(*non_retryable, retry_timeout=timedelta(days=1)), DECLINED, call=call) == expected


@pytest.mark.parametrize("call", CALLS)
def test_other_failures_are_tried_again_until_one_is_final(call):
    unsteady = details_of("builtins.ConnectionResetError")
    final = details_of("builtins.PermissionError")
    assert attempts(policy(PermissionError), unsteady, final, unsteady, call=call) == 2
    assert attempts(policy(ConnectionError), unsteady, call=call) == 1, "a subtype"
    assert attempts(policy(PermissionError), unsteady, call=call) == 3


def test_a_name_of_another_language():
    refused = details_of("Shop.Payments.CardDeclinedException")
    assert attempts(policy("Shop.Payments.CardDeclinedException"), refused) == 1
    assert attempts(policy("CardDeclinedException"), refused) == 1
    assert attempts(policy(CardDeclined), refused) == 3


def test_what_a_child_has_not_caught_counts():
    passed_on = details_of("durabletask.task.TaskFailedError")
    passed_on.innerFailure.CopyFrom(DECLINED)
    assert attempts(policy(PaymentError), passed_on, call="call_sub_orchestrator") == 1
    other = details_of("builtins.ValueError")
    other.innerFailure.CopyFrom(DECLINED)
    assert attempts(policy(PaymentError), other, call="call_sub_orchestrator") == 3


def test_with_raises_the_last_failure_is_of_the_declared_type():
    async def workflow(ctx):
        try:
            await ctx.call_activity("work", retry_policy=policy(PaymentError), raises=(CardDeclined,))
        except CardDeclined as error:
            return isinstance(error, task.TaskFailedError) and error.details.message

    instance = started(workflow)
    instance.turn(failed(instance, DECLINED))
    assert instance.result == "no"


def test_a_failure_that_arrives_while_the_instance_is_suspended_is_final_when_it_goes_on():
    async def workflow(ctx):
        await ctx.call_activity("work", retry_policy=policy(PaymentError))

    instance = started(workflow)
    instance.turn(pb.HistoryEvent(eventId=-1, executionSuspended=pb.ExecutionSuspendedEvent()))
    instance.turn(failed(instance, DECLINED))
    assert instance.outcome is None
    instance.turn(pb.HistoryEvent(eventId=-1, executionResumed=pb.ExecutionResumedEvent()))
    assert instance.failure.innerFailure.errorType == DECLINED.errorType


def test_many_policies_at_once():
    async def workflow(ctx):
        calls = [
            ctx.call_activity("work", retry_policy=policy(kind), raises=(PaymentError,))
            for kind in (CardDeclined, ValueError, PaymentError)
        ]
        return [type(each).__name__ for each in await ctx.gather(*calls, return_exceptions=True)]

    instance = started(workflow)
    while instance.outcome is None:
        events = []
        for step in list(instance.outstanding):
            if instance.outstanding[step].HasField("createTimer"):
                events.append(instance.fired(step))
            else:
                event = instance.failed(step, Exception())
                event.taskFailed.failureDetails.CopyFrom(DECLINED)
                events.append(event)
        instance.turn(*events)
    assert instance.result == ["PaymentError"] * 3
    timers = [action for turn in instance.turns for action in turn if action.HasField("createTimer")]
    assert len(timers) == 2, "of the second call alone"


# -- the object -------------------------------------------------------------------------------------------------------


def test_it_is_one_of_upstreams_with_the_same_arguments_and_defaults():
    made = policy("a", ValueError, max_retry_interval=timedelta(minutes=1), backoff_coefficient=None)
    theirs = task.RetryPolicy(
        first_retry_interval=timedelta(seconds=10),
        max_number_of_attempts=3,
        backoff_coefficient=None,
        max_retry_interval=timedelta(minutes=1),
    )
    assert issubclass(RetryPolicy, task.RetryPolicy)
    for name in (
        "first_retry_interval",
        "max_number_of_attempts",
        "backoff_coefficient",
        "max_retry_interval",
        "retry_timeout",
    ):
        assert getattr(made, name) == getattr(theirs, name)
    assert made.non_retryable == ("a", ValueError)
    assert policy().non_retryable == ()
    assert pickle.loads(pickle.dumps(made)).non_retryable == ("a", ValueError)
    with pytest.raises(ValueError, match="max_number_of_attempts must be >= 1"):
        policy(max_number_of_attempts=0)


@pytest.mark.parametrize("call", CALLS)
def test_upstreams_own_is_accepted(call):
    theirs = task.RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=2)
    assert attempts(theirs, DECLINED, call=call) == 2


@pytest.mark.parametrize(
    "given", ["CardDeclined", CardDeclined, 5, [5], [""], [int], [None], [ValueError("x")]], ids=str
)
def test_anything_but_types_and_names_is_refused(given):
    with pytest.raises(WorkflowValidationError) as raised:
        RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2, non_retryable=given)
    assert str(raised.value).startswith("non_retryable= takes a list of exception types or their names, and not ")


def test_a_policy_that_is_none_is_refused_as_before():
    async def workflow(ctx):
        ctx.call_activity("work", retry_policy=3)

    assert "the retry_policy of ctx.call_activity is a RetryPolicy, and not 3" in failure_of(workflow).errorMessage


def test_the_actions_until_the_final_failure_are_those_of_upstreams_policy():
    def workflow_with(retry_policy):
        async def workflow(ctx):
            await ctx.call_activity("work", retry_policy=retry_policy)

        instance = Instance(as_orchestrator(workflow)).start()
        instance.turn(failed(instance, details_of("builtins.ConnectionResetError")))
        return instance.turns

    theirs = task.RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=3)
    assert workflow_with(policy(CardDeclined)) == workflow_with(theirs)
