"""Each private name of `durabletask` that the core uses: if upstream changes one, a test fails with a sentence."""

import hashlib
import inspect
import logging
import re
import textwrap
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from durabletask import task
from durabletask.entities import EntityInstanceId, EntityLock
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.json_encode_output_exception import JsonEncodeOutputException
from durabletask.serialization import JsonDataConverter
from durabletask.worker import _OrchestrationExecutor, _Registry, _RuntimeOrchestrationContext
from workflows import started

from durabletask_aio.core import _upstream, _upstream_activities, _upstream_events, _upstream_retries, retries
from durabletask_aio.core.divergence import describe_action, describe_event

T = TypeVar("T")


class Listener:
    def __init__(self):
        self.completed = []

    def on_child_completed(self, task):
        self.completed.append(task)


def new_context():
    context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
    context.current_utc_datetime = datetime(2026, 1, 1)
    return context


@pytest.fixture
def context():
    return new_context()


POLICY = task.RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=3)


def test_upstream_is_as_expected():
    assert _upstream.self_check() is None


def test_a_task_calls_the_listeners_in_its_parents_when_it_completes(context):
    timer, listener = context.create_timer(timedelta(seconds=1)), Listener()
    _upstream.add_listener(timer, id(listener), listener)
    timer.complete(None)
    assert listener.completed == [timer], "Task._parents is no longer a mapping of listeners"


def test_the_sequence_number_is_that_of_the_latest_action(context):
    context.create_timer(timedelta(seconds=1))
    context.call_activity("a")
    assert _upstream.sequence_number(context) == 2 == context._sequence_number


def scheduled_state(context):
    """What scheduling leaves behind in a context."""
    pending = {step: (type(made), made._expected_type) for step, made in context._pending_tasks.items()}
    return context._sequence_number, context._pending_actions, pending


async def typed(context, value: int) -> Listener:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("activity", "options"),
    [
        ("a", {}),
        ("a", {"input": [1]}),
        ("a", {"input": "None"}),
        ("a", {"tags": {"k": "v"}, "return_type": Listener}),
        ("a", {"retry_policy": POLICY}),
        (typed, {"input": 1}),
    ],
)
def test_scheduling_an_activity_leaves_in_a_context_what_upstreams_own_method_leaves(activity, options):
    given = {"input": None, "retry_policy": None, "tags": None, "return_type": None, **options}
    ours, theirs = new_context(), new_context()
    made = _upstream_activities.call_activity(ours, activity, *given.values())
    theirs.call_activity(activity, **given)

    assert type(ours) is _upstream_activities._known_context, (
        "upstream's call_activity has changed, so it is called as it is, which is slower: see _upstream_activities"
    )
    assert made is ours._pending_tasks[1]
    assert scheduled_state(ours) == scheduled_state(theirs)


def test_a_context_with_a_call_activity_of_its_own_is_asked(context):
    class Host(_RuntimeOrchestrationContext):
        def call_activity(self, activity, *, input=None, retry_policy=None, tags=None, return_type=None):
            return super().call_activity(
                f"hosted-{activity}", input=input, retry_policy=retry_policy, tags=tags, return_type=return_type
            )

    other = Host("i", _Registry(), JsonDataConverter())
    for each in (context, other, context, other):
        _upstream_activities.call_activity(each, "a", 1, None, {"k": "v"}, None)
    names = [action.scheduleTask.name for action in other._pending_actions.values()]
    assert names == ["hosted-a", "hosted-a"]
    assert [action.scheduleTask.name for action in context._pending_actions.values()] == ["a", "a"]


def _activity(x: int) -> str:
    return str(x)


@pytest.mark.parametrize("is_replaying", [True, False])
@pytest.mark.parametrize("tags", [None, {}, {"key": "value"}])
@pytest.mark.parametrize("activity", ["name", _activity])
@pytest.mark.parametrize("trace", [None, pb.TraceContext(traceParent="00-1-2-00", spanID="2")], ids=["none", "trace"])
def test_the_action_of_an_activity_is_upstreams(is_replaying, tags, activity, trace):
    actions = []
    calls: list[Any] = [_upstream_activities.call_activity, _RuntimeOrchestrationContext.call_activity]
    for call in calls:
        context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
        context._is_replaying = is_replaying
        context._parent_trace_context = trace
        made: Any
        if call is _upstream_activities.call_activity:
            made = call(context, activity, {"x": [1]}, None, tags, None)
        else:
            made = call(context, activity, input={"x": [1]}, tags=tags)
        assert context._pending_tasks == {1: made}
        if not is_replaying:  # Where OpenTelemetry is set up, each call then begins a span of its own.
            context._pending_actions[1].scheduleTask.ClearField("parentTraceContext")
        actions.append((dict(context._pending_actions), made._expected_type))
    assert actions[0] == actions[1]
    assert actions[0][0][1].scheduleTask.input.value == '{"x": [1]}'


def test_a_task_that_upstream_makes_otherwise_is_left_to_upstream(context, monkeypatch):
    class Task(task.CompletableTask[T]):
        def __init__(self, expected_type=None):
            super().__init__(expected_type)
            self.new_in_this_version = True

    monkeypatch.setattr(task, "CompletableTask", Task)
    monkeypatch.setattr(_upstream_activities, "_known_context", None)
    _upstream_activities._is_known.cache_clear()
    try:
        made = _upstream_activities.call_activity(context, "a", 1, None, None, None)
    finally:
        _upstream_activities._is_known.cache_clear()
    assert type(made) is Task


def test_a_context_keeps_incomplete_tasks_by_sequence_number(context):
    listener, timer = Listener(), context.create_timer(timedelta(seconds=1))
    _upstream.add_listener(timer, id(listener), listener)
    assert _upstream.pending_task(context, 1, id(listener)) is timer, (
        "_pending_tasks no longer holds tasks by sequence number"
    )
    assert _upstream.pending_task(context, 7, id(listener)) is timer, (
        "found under another number too, as a long timer's chunks are"
    )
    assert _upstream.pending_task(context, 1, id(Listener())) is None
    assert _upstream.listeners_of_step(context, 1) == [listener]
    assert _upstream.listeners_of_step(context, 2) == []


def test_a_context_keeps_waits_for_events_by_casefolded_name(context):
    listener, waiting = Listener(), context.wait_for_external_event("Go")
    _upstream.add_listener(waiting, id(listener), listener)
    assert _upstream.pending_event(context, "gO", id(listener)) is waiting, (
        "_pending_events no longer holds lists by folded name"
    )
    assert _upstream.pending_event(context, "other", id(listener)) is None


def test_a_retried_task_is_found_while_it_runs_and_while_it_waits_to_be_retried(context):
    listener, retried = Listener(), context.call_activity("a", retry_policy=POLICY)
    _upstream.add_listener(retried, id(listener), listener)
    assert _upstream_retries.retryable_task(context, 1, id(listener)) is retried

    del context._pending_tasks[1]
    context.create_timer_internal(timedelta(seconds=1), retried)
    assert _upstream_retries.retryable_task(context, 1, id(listener)) is retried, (
        "TimerTask._retryable_parent no longer names the task"
    )
    assert _upstream_retries.retryable_task(context, 1, id(Listener())) is None


def test_stopping_retries_cancels_the_timer_and_further_attempts(context):
    listener, retried = Listener(), context.call_activity("a", retry_policy=POLICY)
    _upstream.add_listener(retried, id(listener), listener)
    del context._pending_tasks[1]
    timer = context.create_timer_internal(timedelta(seconds=1), retried)
    _upstream_retries.stop_retrying(context, retried, 1, id(listener))
    assert timer.is_cancelled
    assert retried.compute_next_delay() is None, "RetryableTask.compute_next_delay no longer decides about retries"


def test_a_cancelled_timer_whose_action_has_not_gone_out_leaves_nothing(context):
    timer = context.create_timer(timedelta(seconds=1))
    _upstream.cancel_timer(context, timer, 1)
    assert (context._pending_tasks, context._pending_actions) == ({}, {})


def test_a_cancelled_timer_that_the_engine_has_leaves_a_task_to_fire_into(context):
    timer = context.create_timer(timedelta(seconds=1))
    context._pending_actions.clear()
    _upstream.cancel_timer(context, timer, 1)
    assert isinstance(context._pending_tasks[1], task.TimerTask)


def test_the_delay_before_a_retry_is_upstreams_formula(context):
    start = datetime.now()
    context.current_utc_datetime = start
    for policy in (
        POLICY,
        task.RetryPolicy(
            first_retry_interval=timedelta(seconds=2),
            max_number_of_attempts=5,
            backoff_coefficient=2.5,
            max_retry_interval=timedelta(seconds=20),
            retry_timeout=timedelta(days=2),
        ),
        task.RetryPolicy(
            first_retry_interval=timedelta(seconds=2),
            max_number_of_attempts=3,
            backoff_coefficient=None,
            retry_timeout=timedelta(days=2),
        ),
    ):
        theirs = context.call_activity("a", retry_policy=policy)
        ours = context.call_activity("a", retry_policy=policy)
        retries.use_workflow_clock(context, ours)
        for _ in range(policy.max_number_of_attempts + 1):
            assert ours.compute_next_delay() == theirs.compute_next_delay()
            ours.increment_attempt_count()
            theirs.increment_attempt_count()


@pytest.mark.parametrize("attempt", [1000, 1025, 5000])
def test_a_policy_with_a_longest_interval_can_go_on_for_ever(context, attempt):
    """Upstream's formula raises `OverflowError: math range error` from the 1,025th attempt on."""
    context.current_utc_datetime = datetime.now()
    policy = task.RetryPolicy(
        first_retry_interval=timedelta(seconds=1),
        max_number_of_attempts=1_000_000,
        backoff_coefficient=2.0,
        max_retry_interval=timedelta(minutes=1),
    )
    pending = context.call_activity("a", retry_policy=policy)
    retries.use_workflow_clock(context, pending)
    pending._attempt_count = attempt
    assert pending.compute_next_delay() == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("first", "attempt", "delay"),
    [(0, 5000, timedelta(0)), (1, 30, timedelta(seconds=2**29)), (1, 40, None), (1, 60, None), (1, 5000, None)],
)
def test_a_delay_beyond_the_calendar_ends_the_retries(context, first, attempt, delay):
    context.current_utc_datetime = datetime(2030, 1, 1)
    policy = task.RetryPolicy(
        first_retry_interval=timedelta(seconds=first), max_number_of_attempts=1_000_000, backoff_coefficient=2.0
    )
    pending = context.call_activity("a", retry_policy=policy)
    retries.use_workflow_clock(context, pending)
    pending._attempt_count = attempt
    assert pending.compute_next_delay() == delay


def test_a_context_makes_its_actions_in_get_actions(context):
    context.call_sub_orchestrator("child")
    _upstream.tag_actions(context, {1: {"tenant": "acme"}, None: {"tenant": "next"}})
    context.continue_as_new(None)
    child, end = context.get_actions()
    assert dict(child.createSubOrchestration.tags) == {"tenant": "acme"}
    assert dict(end.completeOrchestration.tags) == {"tenant": "next"}


def test_received_events_are_kept_as_numbered_json(context):
    context._received_events["go"] = [(4, '"later"')]
    _upstream_events.return_event(context, "Go", {"n": 1})
    _upstream_events.return_event(context, "other", None)
    assert context._received_events == {"go": [(3, '{"n": 1}'), (4, '"later"')], "other": [(-1, None)]}
    assert context.wait_for_external_event("go").get_result() == {"n": 1}


def test_a_context_fails_through_set_failed(context):
    _upstream.on_failure(context, lambda given, error: ValueError(f"{given is context} {error}"))
    context.set_failed(KeyError("k"))
    assert context.get_actions()[0].completeOrchestration.failureDetails.errorMessage == "True 'k'"


def test_a_mismatch_found_after_the_end_reopens_the_execution(context):
    _upstream.on_failure(context, lambda given, error: error)
    context.set_complete("done", pb.ORCHESTRATION_STATUS_COMPLETED)
    context.set_failed(task.NonDeterminismError("mismatch"))
    (action,) = context.get_actions()
    assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED


def test_an_end_is_known(context):
    assert not _upstream.is_finished(context)
    context.set_complete(None, pb.ORCHESTRATION_STATUS_TERMINATED)
    assert _upstream.is_finished(context)


def test_a_result_that_cannot_be_serialised_is_reported_with_the_object():
    assert _upstream.UnserializableResult is JsonEncodeOutputException
    assert JsonEncodeOutputException({1}).problem_object == {1}


def test_results_are_serialised_by_the_contexts_converter(context):
    assert _upstream.serializer(context)({"n": 1}) == '{"n": 1}'
    with pytest.raises(TypeError, match=r"object of type 'object'"):
        _upstream.serializer(context)(object())


def test_locks_are_left_through_the_context(context):
    context.call_activity("a")
    _upstream.exit_critical_section(context)
    assert len(context._pending_actions) == 1, "outside of a critical section nothing is sent"


def test_a_lock_leads_to_the_entities_it_holds(context):
    entities = context._entity_context
    lock = EntityLock(context)
    assert lock._context is context, "EntityLock._context is gone"
    assert {"available_locks", "critical_section_locks"} <= set(vars(entities))


def test_the_frames_of_a_mismatch_hold_event_context_and_action():
    async def old(ctx):
        await ctx.call_activity("a")

    instance = started(old)
    executor = _OrchestrationExecutor(_Registry(), logging.getLogger("turns"), JsonDataConverter())
    context = _RuntimeOrchestrationContext("i", _Registry(), JsonDataConverter())
    context.current_utc_datetime = datetime(2026, 1, 1)
    context.call_activity("b")
    scheduled = next(event for event in instance.history if event.HasField("taskScheduled"))
    try:
        executor.process_event(context, scheduled)
    except task.NonDeterminismError as error:
        found, event, action = _upstream.mismatch_context(error)
    assert found is context, "process_event no longer has a local 'ctx'"
    assert event is scheduled, "process_event no longer has a local 'event'"
    assert action.scheduleTask.name == "b", "process_event no longer has a local 'action'"


def test_every_scheduling_event_of_the_history_can_be_described():
    described = {
        "taskScheduled": "activity 'n'",
        "subOrchestrationInstanceCreated": "sub-orchestration 'n'",
        "timerCreated": "a timer for 1970-01-01T00:00:00Z",
        "entityOperationCalled": "call of entity operation 'n'",
        "entityOperationSignaled": "signal of entity operation 'n'",
        "entityLockRequested": "entity lock of @counter@a",
        "eventSent": "event 'n' sent to 'i'",
        "executionResumed": "an event of type 'executionResumed'",
    }
    for kind, text in described.items():
        event = pb.HistoryEvent()
        part = getattr(event, kind)
        part.SetInParent()
        if kind == "entityLockRequested":
            part.lockSet.append(str(EntityInstanceId("counter", "a")))
        elif kind.startswith("entityOperation"):
            part.operation = "n"
        elif kind != "timerCreated" and hasattr(part, "name"):
            part.name = "n"
        if kind == "eventSent":
            part.instanceId = "i"
        assert describe_event(event) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"createTimer": pb.CreateTimerAction()}, "started a timer, with asyncio.sleep or a timeout"),
        ({"completeOrchestration": pb.CompleteOrchestrationAction()}, "had ended by then"),
        (
            {"terminateOrchestration": pb.TerminateOrchestrationAction()},
            "scheduled an action of type 'terminateOrchestration'",
        ),
    ],
)
def test_every_action_can_be_described(fields, text):
    assert describe_action(pb.OrchestratorAction(id=1, **fields)) == text


def test_no_action_can_be_described():
    assert describe_action(None) == "scheduled nothing by that number"


@pytest.mark.parametrize(
    ("owner", "name", "shown"),
    [
        (task.RetryableTask, "compute_next_delay", "RetryableTask.compute_next_delay"),
        (task.CancellableTask, "cancel", "CancellableTask.cancel"),
        (task.OrchestrationContext, "_exit_critical_section", "OrchestrationContext._exit_critical_section"),
    ],
)
def test_a_name_that_is_gone_is_reported_in_a_sentence(monkeypatch, owner, name, shown):
    monkeypatch.delattr(owner, name)
    assert _upstream.self_check() == (
        f"durabletask has changed under durabletask-aio-core: {shown} is gone; install a version of durabletask that "
        f"this durabletask-aio-core supports, or a newer durabletask-aio-core"
    )


@pytest.mark.parametrize("name", ["_parents", "_retryable_parent"])
def test_an_attribute_of_tasks_that_is_gone_is_reported(monkeypatch, name):
    original = task.TimerTask.__init__

    def without(self, *args, **kwargs):
        original(self, *args, **kwargs)
        delattr(self, name)

    monkeypatch.setattr(task.TimerTask, "__init__", without)
    assert f"Task.{name} is gone" in _upstream.self_check()


CONTEXT_ATTRIBUTES = [
    "_completion_status",
    "_data_converter",
    "_encoded_custom_status",
    "_entity_context",
    "_generator",
    "_is_complete",
    "_is_replaying",
    "_orchestration_trace_context",
    "_parent_trace_context",
    "_pending_actions",
    "_pending_events",
    "_pending_tasks",
    "_received_events",
    "_sequence_number",
]


@pytest.mark.parametrize("name", CONTEXT_ATTRIBUTES)
def test_the_attributes_of_the_runtime_context_are_still_there(context, name):
    assert hasattr(context, name), f"upstream's runtime context has no {name} any more: see _upstream.py"


def test_the_list_of_attributes_above_is_complete():
    used = set(re.findall(r"(?:context|ctx)\.(_[a-z_]+)", inspect.getsource(_upstream))) - {"_exit_critical_section"}
    assert used <= {*CONTEXT_ATTRIBUTES, "_context"}, (
        "a new private name is used, and nothing here would notice its end"
    )


@pytest.mark.parametrize("name", ["_retry_policy", "_start_time", "_attempt_count", "_retryable_parent", "_parents"])
def test_the_attributes_of_retried_tasks_are_still_there(context, name):
    assert hasattr(context.call_activity("a", retry_policy=POLICY), name), f"RetryableTask has no {name} any more"


EXECUTE_DIGESTS = {"7f5550cd5bc7514b"}
"""Of the source of `_OrchestrationExecutor.execute` in durabletask 1.12.0, which `continue_live` was compared with."""


def test_the_end_of_execute_is_still_the_one_that_continue_live_repeats():
    source = textwrap.dedent(inspect.getsource(_OrchestrationExecutor.execute))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]

    assert digest in EXECUTE_DIGESTS, (
        "upstream changed _OrchestrationExecutor.execute: compare it with HistoryExecutor.continue_live in "
        f"durabletask_aio.core._upstream, and then add {digest!r} here"
    )
