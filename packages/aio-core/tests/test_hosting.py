"""The interface for hosts: what it exports, the check of its version, and `TurnExecutor` on its own."""

import ast
import asyncio
from pathlib import Path

import pytest
from durabletask import task
from durabletask.aio import ActivityFailedError, HistoryDivergenceError, as_orchestrator
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import FAILED, Instance, canonical, new_executor
from workflows import boom, finished

import durabletask_aio.core
from durabletask_aio.core import hosting, installation

PACKAGES = Path(durabletask_aio.core.__file__).parents[4]


# -- the names --------------------------------------------------------------------------------------------------------


def test_every_name_of_the_interface_exists():
    missing = [name for name in hosting.__all__ if not hasattr(hosting, name)]
    assert not missing


def names_from_hosting(module):
    """The names that a module imports from the interface, or looks up on it."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "durabletask_aio.core.hosting":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "durabletask_aio.core":
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == "hosting"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield node.attr


def test_companions_use_only_what_the_interface_exports():
    sources = [module for name in ("sandbox", "testing", "worker") for module in companion_sources(name)]
    if not sources:
        pytest.skip("not run from the source tree")
    other = [
        f"{module.relative_to(PACKAGES)}: {name}"
        for module in sources
        for name in names_from_hosting(module)
        if name not in hosting.__all__
    ]
    assert not other, "\n".join(other)


def companion_sources(name):
    return (PACKAGES / f"aio-{name}" / "src").rglob("*.py")


# -- its version ------------------------------------------------------------------------------------------------------


def test_a_companion_of_the_same_version_is_accepted():
    hosting.require_version(hosting.VERSION, "durabletask-aio-worker")


@pytest.mark.parametrize("other", [hosting.VERSION - 1, hosting.VERSION + 1])
def test_a_companion_of_another_version_is_refused_by_the_names_and_versions_of_both(monkeypatch, other):
    versions = {"durabletask-aio-core": "1.2.3", "durabletask-aio-engine": "4.5.6"}
    monkeypatch.setattr(installation, "version", versions.__getitem__)
    with pytest.raises(ImportError) as refused:
        hosting.require_version(other, "durabletask-aio-engine")
    assert str(refused.value) == (
        f"durabletask-aio-engine 4.5.6 was written for version {other} of the core's hosting interface, and "
        f"durabletask-aio-core 1.2.3 has version {hosting.VERSION}\n"
        "  pip install --upgrade durabletask-aio-core durabletask-aio-engine"
    )


# -- the running execution --------------------------------------------------------------------------------------------


def test_the_running_execution_is_that_of_the_workflow_on_the_stack():
    found = []

    async def workflow(ctx):
        found.append(hosting.running_execution().instance_id)
        await ctx.sleep(1)

    assert hosting.running_execution() is None
    finished(workflow, instance_id="this-one")
    assert set(found) == {"this-one"}
    assert hosting.running_execution() is None


async def test_another_event_loop_runs_no_execution():
    assert hosting.running_execution() is None


# -- `TurnExecutor`: a live instance that is continued equals a full replay -------------------------------------------


async def activities(ctx):
    results = [await ctx.call_activity("double", input=n) for n in range(3)]
    try:
        await ctx.call_activity("boom")
    except ActivityFailedError as error:
        results.append(error.details.error_type)
    return results


async def concurrent(ctx):
    async def part(n):
        await asyncio.sleep(n)
        return await ctx.call_activity("double", input=n)

    return await ctx.with_timeout(asyncio.gather(*map(part, range(4))), 60)


async def events(ctx):
    ctx.set_custom_status("waiting")
    taken = [await ctx.wait_for_external_event("go"), await ctx.wait_for_external_event("go")]
    ctx.set_custom_status(taken)
    return taken


async def continued(ctx):
    await ctx.sleep(1)
    ctx.continue_as_new("next", save_events=True)


async def failing(ctx):
    await ctx.call_activity("double", input=1)
    raise LookupError("at the end")


WORKFLOWS = [activities, concurrent, events, continued, failing]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.__name__)
def test_a_continued_instance_answers_as_a_full_replay_does(workflow, batch):
    instance = Instance(as_orchestrator(workflow)).run(
        {"double": lambda n: n * 2, "boom": boom}, events=[(1, "go", 1), (2, "go", 2)], batch=batch
    )
    assert instance.outcome is not None
    kept, runs = new_executor(instance), []
    for end, recorded, status in zip(instance.cuts, instance.turns, instance.custom_statuses, strict=True):
        begin = instance.batch_begin(end)
        past, new = instance.history[:begin], instance.history[begin:end]
        with hosting.turn_scope() as scope:
            live = kept.execute(instance.instance_id, past, new)
            scope.keep()
        runs += scope.runs
        kept.processed = end
        with hosting.turn_scope():
            full = new_executor(instance).execute(instance.instance_id, past, new)
        assert canonical(live.actions) == canonical(full.actions) == canonical(recorded)
        assert live.encoded_custom_status == full.encoded_custom_status == status
    assert len(runs) == 1, "a continued instance runs its code once"
    assert runs[0].is_finished
    assert kept.is_complete


def test_what_ends_an_instance_is_kept_as_it_was_raised():
    problem = LookupError("no such order")

    async def workflow(ctx):
        raise problem

    instance = Instance(as_orchestrator(workflow))
    kept = new_executor(instance)
    with hosting.turn_scope():
        kept.execute(instance.instance_id, [], instance.batch(instance.started))
    assert kept.error is problem
    (action,) = kept.actions
    assert action.completeOrchestration.orchestrationStatus == FAILED


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), Unprintable()], ids=repr)
def test_what_upstream_would_not_survive_fails_the_one_instance(error):
    def generator(ctx, input):
        yield ctx.call_activity("first")
        raise error

    instance = Instance(generator, name="generator").start()
    with hosting.turn_scope():
        executor = new_executor(instance)
        result = executor.execute(
            instance.instance_id, instance.history, instance.batch(instance.completed(1), instance.raised("more"))
        )
    (action,) = result.actions
    assert action.completeOrchestration.orchestrationStatus == FAILED
    assert action.completeOrchestration.failureDetails.errorType.endswith(type(error).__name__)


def test_events_after_the_end_are_not_fed_to_the_code():
    async def workflow(ctx):
        return "done"

    instance = Instance(as_orchestrator(workflow))
    executor = new_executor(instance)
    executor.open(instance.instance_id)
    with hosting.turn_scope():
        for event in [*instance.batch(instance.started), instance.raised("late")]:
            executor.feed(event)
    (action,) = executor.take_actions()
    assert action.completeOrchestration.result.value == '"done"'


# -- `TurnExecutor.raises_divergence` ---------------------------------------------------------------------------------


async def calls_a(ctx):
    await ctx.call_activity("a")
    await ctx.wait_for_external_event("go")


async def calls_b(ctx):
    await ctx.call_activity("b")
    await ctx.wait_for_external_event("go")


async def returns_at_once(ctx):
    return "done"


async def raises_it_itself(ctx):
    await ctx.call_activity("a")
    raise task.NonDeterminismError("of the user's own")


async def locks(ctx):
    async with ctx.lock_entities([EntityInstanceId("counter", "a")]):
        await ctx.call_activity("a")


async def locks_and_calls_b(ctx):
    async with ctx.lock_entities([EntityInstanceId("counter", "a")]):
        await ctx.call_activity("b")


def under_other_code(old, new, *events, answer=None):
    """An executor for an instance that began with `old`, the history and the batch of its turn under `new`."""
    instance = Instance(as_orchestrator(old, name="wf")).start()
    if answer is not None:
        instance.turn(answer(instance))
    instance.orchestrator = as_orchestrator(new, name="wf")
    executor = new_executor(instance)
    executor.raises_divergence = True
    return executor, instance.instance_id, instance.history, instance.batch(*(event(instance) for event in events))


def completion(instance):
    return instance.completed(1, "x")


def termination(instance):
    return pb.HistoryEvent(eventId=-1, executionTerminated=pb.ExecutionTerminatedEvent())


@pytest.mark.not_replayed("the code is changed half-way")
@pytest.mark.parametrize("new", [calls_b, returns_at_once], ids=lambda function: function.__name__)
def test_a_history_that_does_not_fit_is_raised_on_request(new):
    executor, *turn = under_other_code(calls_a, new, completion)
    with hosting.turn_scope(), pytest.raises(hosting.TurnDiverged) as raised:
        executor.execute(*turn)

    assert isinstance(raised.value.error, HistoryDivergenceError)
    assert "at step 1: the history has activity 'a', and the code" in str(raised.value.error)
    assert "[workflow 'wf', instance 'instance-1', step 1]" in str(raised.value.error)


@pytest.mark.not_replayed("the code is changed half-way")
def test_a_history_that_does_not_fit_fails_the_instance_otherwise():
    executor, *turn = under_other_code(calls_a, calls_b, completion)
    executor.raises_divergence = False
    with hosting.turn_scope():
        result = executor.execute(*turn)

    (action,) = [action for action in result.actions if action.HasField("completeOrchestration")]
    assert action.completeOrchestration.orchestrationStatus == FAILED
    assert action.completeOrchestration.failureDetails.errorType == "durabletask.aio.HistoryDivergenceError"


@pytest.mark.not_replayed("the code is changed half-way")
def test_an_error_of_that_type_which_the_workflow_raises_itself_fails_the_instance():
    executor, *turn = under_other_code(calls_a, raises_it_itself, completion)
    with hosting.turn_scope():
        (action,) = executor.execute(*turn).actions

    assert action.completeOrchestration.orchestrationStatus == FAILED


async def three_steps(ctx):
    for name in ("a", "b", "c"):
        await ctx.call_activity(name)
    await ctx.wait_for_external_event("go")


def raising_after(steps):
    async def three_steps(ctx):
        for number, name in enumerate(("a", "b", "c")):
            if number == steps:
                raise ValueError("not with this code")
            await ctx.call_activity(name)
        if steps == 3:
            raise ValueError("not with this code")
        await ctx.wait_for_external_event("go")
        raise ValueError("only now")

    return three_steps


@pytest.mark.not_replayed("the code is changed half-way")
@pytest.mark.parametrize("answered", range(4))
@pytest.mark.parametrize("raising", range(5))
def test_an_exception_on_replay_is_a_divergence_exactly_if_the_history_went_further(answered, raising):
    """The old code has `answered` results in its history; the new code raises after so many."""
    instance = Instance(as_orchestrator(three_steps, name="wf")).start()
    for step in range(1, answered + 1):
        instance.turn(instance.completed(step))
    instance.orchestrator = as_orchestrator(raising_after(raising), name="wf")
    executor = new_executor(instance)
    executor.raises_divergence = True
    new = instance.completed(answered + 1) if answered < 3 else instance.raised("go")
    turn = (instance.instance_id, instance.history, instance.batch(new))

    with hosting.turn_scope():
        if raising <= answered:
            with pytest.raises(hosting.TurnDiverged) as raised:
                executor.execute(*turn)
            assert isinstance(raised.value.error, HistoryDivergenceError)
            assert str(raised.value.error).startswith(
                "history and code diverge: on replay, the code raises ValueError at "
            )
            assert "test_hosting.py:" in str(raised.value.error)
            assert "where the history continues: not with this code. Either the workflow" in str(raised.value.error)
            assert str(raised.value.error).endswith("[workflow 'wf', instance 'instance-1']")
        else:
            failed = [
                action.completeOrchestration.failureDetails.errorMessage
                for action in executor.execute(*turn).actions
                if action.HasField("completeOrchestration")
            ]
            now = {(0, 1), (1, 2), (2, 3)}
            expected = ["not with this code"] if (answered, raising) in now else ["only now"] if answered == 3 else []
            assert failed == expected


@pytest.mark.not_replayed("the code is changed half-way")
def test_an_exception_on_replay_fails_the_instance_after_a_rewind():
    """The history of a rewound instance may have what the code raised for."""
    instance = Instance(as_orchestrator(calls_a, name="wf")).start()
    instance.turn(instance.completed(1))
    instance.orchestrator = as_orchestrator(raises_it_itself, name="wf")
    executor = new_executor(instance)
    executor.raises_divergence = True
    rewound = pb.HistoryEvent(eventId=-1, executionRewound=pb.ExecutionRewoundEvent())
    with hosting.turn_scope():
        (action,) = executor.execute(instance.instance_id, instance.history, instance.batch(rewound)).actions

    assert action.completeOrchestration.orchestrationStatus == FAILED


@pytest.mark.not_replayed("the code is changed half-way")
def test_an_instance_of_an_unknown_name_diverges_if_it_has_a_history():
    executor, *turn = under_other_code(calls_a, calls_a, completion)
    executor._registry.orchestrators.clear()
    with hosting.turn_scope(), pytest.raises(hosting.TurnDiverged) as raised:
        executor.execute(*turn)
    assert str(raised.value.error) == "no orchestrator 'wf' is registered here, nor any other orchestrator"

    instance = Instance(as_orchestrator(calls_a, name="wf"))
    executor = new_executor(instance)
    executor.raises_divergence = True
    executor._registry.orchestrators.clear()
    with hosting.turn_scope():
        (action,) = executor.execute(instance.instance_id, [], instance.batch(instance.started)).actions
    assert action.completeOrchestration.failureDetails.errorMessage == str(raised.value.error)


@pytest.mark.not_replayed("the code is changed half-way")
@pytest.mark.parametrize("new", [calls_b, returns_at_once], ids=lambda function: function.__name__)
def test_an_instance_that_does_not_fit_can_be_terminated(new):
    executor, *turn = under_other_code(calls_a, new, termination)
    with hosting.turn_scope():
        (action,) = executor.execute(*turn).actions

    assert action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED


@pytest.mark.not_replayed("the code is changed half-way")
def test_an_instance_that_does_not_fit_releases_its_locks_when_it_is_terminated():
    def lock_granted(instance):
        (request,) = [action for action in instance.turns[0] if action.HasField("sendEntityMessage")]
        granted = pb.EntityLockGrantedEvent(
            criticalSectionId=request.sendEntityMessage.entityLockRequested.criticalSectionId
        )
        return pb.HistoryEvent(eventId=-1, entityLockGranted=granted)

    executor, *turn = under_other_code(locks, locks_and_calls_b, termination, answer=lock_granted)
    with hosting.turn_scope():
        actions = executor.execute(*turn).actions

    assert [action.sendEntityMessage.HasField("entityUnlockSent") for action in actions] == [True, False]
    assert actions[-1].completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED
