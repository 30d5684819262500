"""`ctx.wait_for_task`: tasks that upstream's context, or a library that was given it, has made."""

import asyncio
from datetime import timedelta

import pytest
from durabletask import task
from durabletask.aio import ActivityFailedError, WorkflowTimeoutError, as_orchestrator
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import Instance, canonical
from workflows import boom, failure_of, finished, result_of, started

VALIDATION = "durabletask.aio.WorkflowValidationError"


class Answer:
    def __init__(self, text):
        self.text = text


class Refused(Exception):
    """An error of the library's own."""


class LibraryError(task.TaskFailedError):
    """An error of the library's that is one of upstream's."""


class LibraryTask(task.CompositeTask, task.CompletableTask):
    """A task as libraries write it: one task of upstream's, whose result it turns into an object of its own."""

    def __init__(self, inner, convert=Answer):
        self.convert = convert
        super().__init__([inner])

    def on_child_completed(self, task):
        if self.is_complete:
            return
        if task.is_failed:
            self.fail("the agent failed", task.get_exception())
            return
        try:
            self.complete(self.convert(task.get_result()))
        except Exception as error:
            self.fail("the answer is unreadable", error)


class RaisingTask(task.CompositeTask):
    """Completes with its one part, and raises an error of its own when it is asked for the result."""

    def __init__(self, inner, error):
        self.error = error
        super().__init__([inner])

    def on_child_completed(self, task):
        self._is_complete = True
        self._notify_parent()

    def get_result(self):
        raise self.error


def run_agent(ctx, value):
    """What a library does with the context it was given."""
    return LibraryTask(ctx.call_activity("agent", input=value))


def test_a_task_of_a_library_is_awaited_for_its_own_object():
    async def workflow(ctx):
        answer = await ctx.wait_for_task(run_agent(ctx.upstream_context, "tea"))
        assert isinstance(answer, Answer)
        return answer.text

    assert result_of(workflow, activities={"agent": str.upper}) == "TEA"


def test_the_actions_are_those_of_the_generator():
    policy = task.RetryPolicy(first_retry_interval=timedelta(seconds=2), max_number_of_attempts=3)
    account = EntityInstanceId("account", "a")

    def schedule(ctx):
        return [
            run_agent(ctx, "a"),
            ctx.call_sub_orchestrator("child", input=1),
            ctx.call_activity("agent", input="b", retry_policy=policy),
            task.when_all([run_agent(ctx, "c"), ctx.create_timer(timedelta(seconds=5))]),
            task.when_any([ctx.wait_for_external_event("go"), ctx.call_activity("agent", input="d")]),
            ctx.call_entity(account, "get"),
        ]

    def generator(ctx, _):
        tasks = schedule(ctx)
        first = yield tasks[0]
        yield ctx.call_activity("next", input=first.text)
        rest = yield task.when_all(tasks[1:5])
        return [rest[0], rest[1], rest[2][0].text, rest[3] is not None]

    async def workflow(ctx):
        tasks = schedule(ctx.upstream_context)
        first = await ctx.wait_for_task(tasks[0])
        await ctx.call_activity("next", input=first.text)
        rest = await ctx.gather(*map(ctx.wait_for_task, tasks[1:5]))
        return [rest[0], rest[1], rest[2][0].text, rest[3] is not None]

    theirs = Instance(generator, name="workflow").run({"agent": str.upper})
    ours = Instance(as_orchestrator(workflow)).run({"agent": str.upper})
    assert ours.result == theirs.result == [1, "B", "C", True]
    assert list(map(canonical, ours.turns)) == list(map(canonical, theirs.turns))


def test_a_task_that_is_complete_is_awaited_at_once():
    async def workflow(ctx):
        complete = task.CompletableTask()
        complete.complete("ready")
        operation = ctx.wait_for_task(complete)
        assert operation.done()
        return [await operation, (await ctx.wait_for_task(LibraryTask(complete))).text]

    assert result_of(workflow) == ["ready", "ready"]


def test_a_task_can_be_awaited_more_than_once_and_after_it_is_done():
    async def workflow(ctx):
        agent = run_agent(ctx.upstream_context, 1)
        first, second = ctx.wait_for_task(agent), ctx.wait_for_task(agent)
        answers = [await first, await second, await first, await ctx.wait_for_task(agent)]
        assert len(set(map(id, answers))) == 1
        return answers[0].text

    assert result_of(workflow) == 1


def test_tasks_are_combined_with_operations():
    async def workflow(ctx):
        agents = [run_agent(ctx.upstream_context, number) for number in range(3)]
        answers = await ctx.when_all([ctx.wait_for_task(agent) for agent in agents])
        winner = await ctx.when_any_with_result([ctx.wait_for_external_event("never"), ctx.wait_for_task(agents[1])])
        async with asyncio.timeout(5) if hasattr(asyncio, "timeout") else ctx:
            last = await ctx.wait_for_task(run_agent(ctx.upstream_context, 7))
        first = await asyncio.gather(ctx.wait_for_task(agents[0]), ctx.call_activity("b", input=8))
        return [[answer.text for answer in answers], winner[0], winner[1].text, last.text, first[0].text, first[1]]

    assert result_of(workflow) == [[0, 1, 2], 1, 1, 7, 0, 8]


def test_the_winner_of_upstreams_race_is_the_task_that_won():
    async def workflow(ctx):
        upstream = ctx.upstream_context
        slow, quick = upstream.create_timer(timedelta(hours=1)), upstream.call_activity("quick")
        winner = await ctx.wait_for_task(task.when_any([slow, quick]))
        slow.cancel()
        return winner is quick

    assert result_of(workflow) is True


def test_a_failed_task_raises_the_rich_failure():
    async def workflow(ctx):
        try:
            await ctx.wait_for_task(ctx.upstream_context.call_activity("boom"))
        except ActivityFailedError as error:
            return [error.details.error_type, str(error)]

    [kind, text] = result_of(workflow, activities={"boom": boom})
    assert kind == "builtins.ValueError"
    assert text.startswith("task 'CompletableTask' failed with builtins.ValueError: boom [workflow 'workflow'")


def test_an_uncaught_failure_is_recorded_as_the_generators_is():
    def generator(ctx, _):
        yield run_agent(ctx, 1)

    async def workflow(ctx):
        await ctx.wait_for_task(run_agent(ctx.upstream_context, 1))

    theirs = Instance(generator, name="workflow").run({"agent": boom}).turns
    ours = Instance(as_orchestrator(workflow)).run({"agent": boom}).turns
    assert list(map(canonical, ours)) == list(map(canonical, theirs))


def test_a_task_that_has_failed_before_raises_when_it_is_awaited():
    async def workflow(ctx):
        failed = task.CompletableTask()
        failed.fail("no", ValueError("too late"))
        with pytest.raises(ActivityFailedError, match="too late"):
            await ctx.wait_for_task(failed)
        return "caught"

    assert result_of(workflow) == "caught"


@pytest.mark.parametrize(
    "error",
    [Refused("the model refused"), LibraryError("limit", pb.TaskFailureDetails(errorType="x", errorMessage="limit"))],
    ids=["a type of its own", "a subtype of upstream's"],
)
def test_an_error_of_the_librarys_own_is_raised_as_it_is(error):
    async def workflow(ctx):
        try:
            await ctx.wait_for_task(RaisingTask(ctx.upstream_context.call_activity("a"), error))
        except type(error) as raised:
            return raised is error

    assert result_of(workflow) is True


def test_a_task_that_raises_stop_iteration_does_not_end_the_workflow_silently():
    async def workflow(ctx):
        await ctx.wait_for_task(RaisingTask(ctx.upstream_context.call_activity("a"), StopIteration(1)))

    failure = failure_of(workflow)
    assert (failure.errorType, failure.errorMessage) == (
        "builtins.RuntimeError",
        "task 'RaisingTask' raised StopIteration",
    )


def test_a_task_that_is_cancelled_cancels_the_operation():
    async def workflow(ctx):
        timer = ctx.upstream_context.create_timer(timedelta(hours=1))
        operation = ctx.wait_for_task(timer)
        timer.cancel()
        try:
            await operation
        except asyncio.CancelledError as error:
            return [operation.cancelled(), *error.args]

    assert result_of(workflow) == [True, "The task was cancelled."]


def test_waiting_can_be_cancelled_and_timed_out_and_the_task_goes_on():
    async def workflow(ctx):
        agent = run_agent(ctx.upstream_context, "late")
        operation = ctx.wait_for_task(agent)
        with pytest.raises(WorkflowTimeoutError, match=r"task 'LibraryTask' \(.*\) did not finish within 0 seconds"):
            await ctx.with_timeout(operation, 0)
        assert operation.cancelled()
        assert not agent.is_complete
        return (await ctx.wait_for_task(agent)).text

    assert result_of(workflow) == "late"


def test_what_is_waited_for_is_outstanding():
    async def workflow(ctx):
        return await ctx.wait_for_task(ctx.upstream_context.wait_for_external_event("go"))

    instance = started(workflow)
    assert instance.outcome is None, "no deadlock"
    instance.turn(instance.raised("go", 5))
    assert instance.result == 5


def test_the_operation_says_what_it_waits_for():
    async def workflow(ctx):
        operation = ctx.wait_for_task(run_agent(ctx.upstream_context, 1))
        shown = [operation.kind, operation.name, operation.step, repr(operation)]
        await operation
        return shown

    assert result_of(workflow) == ["task", "LibraryTask", None, "<Operation task 'LibraryTask' pending>"]


class WithoutConstructor(task.Task):
    def __init__(self):
        pass


async def coroutine():
    pass


@pytest.mark.parametrize(
    ("make", "given", "right"),
    [
        (lambda ctx: 5, "5", "await ctx.wait_for_task(ctx.upstream_context.call_activity('work'))"),
        (lambda ctx: None, "None", "await ctx.wait_for_task(ctx.upstream_context.call_activity('work'))"),
        (lambda ctx: ctx.call_activity("a"), "activity 'a' (", "await ctx.call_activity('a')"),
        (lambda ctx: coroutine(), "a coroutine, coroutine(...),", "await work()"),
        (lambda ctx: WithoutConstructor(), "<", "await ctx.wait_for_task(ctx.upstream_context.call_activity('work'))"),
    ],
    ids=["number", "nothing", "operation", "coroutine", "task without upstream's constructor"],
)
def test_anything_else_is_refused(make, given, right):
    async def workflow(ctx):
        await ctx.wait_for_task(make(ctx))

    failure = failure_of(workflow)
    assert failure.errorType == VALIDATION
    assert f"ctx.wait_for_task takes a task of upstream's, and was given {given}" in failure.errorMessage
    assert failure.errorMessage.endswith(f"  wrong: await ctx.wait_for_task(work)\n  right: {right}")


def test_nothing_is_waited_for_after_continue_as_new():
    async def workflow(ctx):
        waiting = ctx.upstream_context.call_activity("a")
        ctx.continue_as_new(1)
        ctx.wait_for_task(waiting)

    assert "ctx.wait_for_task after ctx.continue_as_new()" in finished(workflow).failure.errorMessage
