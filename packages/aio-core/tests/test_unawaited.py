"""Operations that nothing waits for: a warning when the workflow returns, and none for what is used."""

import asyncio
import inspect
import logging
from datetime import timedelta

import pytest
from durabletask.entities import EntityInstanceId
from durabletask.task import RetryPolicy
from step_runners import StepsAtOnce
from workflows import boom, failure_of, finished, line_in, result_of

POLICY = RetryPolicy(first_retry_interval=timedelta(hours=1), max_number_of_attempts=3)
ENTITY = EntityInstanceId("counter", "a")


@pytest.fixture
def warnings(caplog):
    """Return the distinct warnings: a test runs each workflow several times."""
    caplog.set_level(logging.DEBUG)
    return lambda: list(dict.fromkeys(each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING))


@pytest.mark.parametrize(
    ("forget", "what", "call"),
    [
        (lambda ctx: ctx.call_activity("charge"), "activity 'charge'", "ctx.call_activity('charge')"),
        (
            lambda ctx: ctx.call_sub_orchestrator("ship"),
            "sub-orchestration 'ship'",
            "ctx.call_sub_orchestrator('ship')",
        ),
        (lambda ctx: ctx.sleep(3600), "timer '3600'", "ctx.create_timer(...)"),
        (lambda ctx: ctx.wait_for_external_event("go"), "external event 'go'", "ctx.wait_for_external_event('go')"),
        (lambda ctx: ctx.call_entity(ENTITY, "get"), "entity operation '@counter@a.get'", "ctx.call_entity(...)"),
        (lambda ctx: ctx.lock_entities([ENTITY]), "entity lock '@counter@a'", "ctx.lock_entities(...)"),
        (lambda ctx: ctx.gather(ctx.sleep(9)), "gather '1 awaitables'", "ctx.gather(...)"),
        (lambda ctx: ctx.when_all([ctx.sleep(9)]), "when_all '1 awaitables'", "ctx.when_all(...)"),
        (lambda ctx: ctx.when_any([ctx.sleep(9)]), "when_any '1 awaitables'", "ctx.when_any(...)"),
        (lambda ctx: ctx.with_timeout(ctx.sleep(9), 5), "with_timeout '1 awaitables'", "ctx.with_timeout(...)"),
        (lambda ctx: ctx.with_timeout(ctx.sleep(9), 0), "with_timeout '1 awaitables'", "ctx.with_timeout(...)"),
    ],
)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
def test_an_operation_that_is_outstanding_in_the_end_is_warned_of(forget, what, call, kept, warnings):
    async def workflow(ctx):
        operation = forget(ctx)
        if not kept:
            del operation
        return "done"

    assert result_of(workflow) == "done"

    line = f"{inspect.getsourcefile(forget)}:{forget.__code__.co_firstlineno}"
    (warning,) = warnings()
    assert warning == (
        f"workflow instance-1: {what} ({line}) was never awaited, and the workflow returned without waiting for it\n"
        f"  wrong: {call}\n"
        f"  right: await {call}"
    )


@pytest.mark.parametrize(
    "forget",
    [
        lambda ctx: ctx.call_activity("charge"),
        lambda ctx: ctx.call_activity("fail"),
        lambda ctx: ctx.sleep(1),
        lambda ctx: ctx.gather(ctx.sleep(1)),
        lambda ctx: ctx.wait_for_external_event("early"),
    ],
)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
def test_an_operation_that_was_done_long_before_the_end_is_warned_of(forget, kept, warnings):
    async def workflow(ctx):
        operation = forget(ctx)
        if not kept:
            del operation
        for _ in range(5):
            await ctx.sleep(10)

    finished(workflow, activities={"fail": boom}, events=[(5, "early", 1)])

    (warning,) = warnings()
    assert "was never awaited" in warning


async def _awaited_in_a_row(ctx):
    started = [ctx.call_activity("work", input=number) for number in range(3)]
    await ctx.sleep(60)
    return [await operation for operation in started]


async def _gathered_by_asyncio_when_done(ctx):
    started = [ctx.call_activity("work", input=number) for number in range(3)]
    await ctx.sleep(60)
    return await asyncio.gather(*started)


async def _gathered_by_asyncio(ctx):
    return await asyncio.gather(ctx.call_activity("work"), ctx.when_all([ctx.call_activity("work")]))


async def _waited_for(ctx):
    done, pending = await asyncio.wait([ctx.call_activity("work"), ctx.sleep(100), ctx.gather(ctx.sleep(50))])
    return len(done) + len(pending)


async def _first_of(ctx):
    done, _ = await asyncio.wait([ctx.call_activity("work"), ctx.sleep(100)], return_when=asyncio.FIRST_COMPLETED)
    return len(done)


async def _as_completed(ctx):
    return [await each for each in asyncio.as_completed([ctx.call_activity("work"), ctx.sleep(1)])]


async def _combined(ctx):
    first = await ctx.when_any([ctx.call_activity("work"), ctx.sleep(100)])
    return [first, await ctx.with_timeout(ctx.gather(ctx.sleep(1), ctx.call_activity("work")), 5)]


async def _combined_when_done(ctx):
    first, second = ctx.call_activity("work"), ctx.call_activity("work")
    await ctx.sleep(60)
    return [await ctx.gather(first), await ctx.when_any([second])]


async def _limited(ctx):
    await asyncio.wait_for(ctx.call_activity("work"), 5)
    async with asyncio.timeout(5):
        await asyncio.shield(ctx.call_activity("work"))


async def _in_a_group(ctx):
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.call_activity("work"))


async def _handed_to_a_task(ctx):
    asyncio.create_task(ctx.call_activity("work"))


async def _with_a_callback(ctx):
    ctx.call_activity("work").add_done_callback(lambda done: None)
    await ctx.sleep(60)


async def _cancelled(ctx):
    ctx.wait_for_external_event("go").cancel()
    ctx.gather(ctx.sleep(5)).cancel()
    ctx.when_any([ctx.sleep(5)]).cancel()
    ctx.with_timeout(ctx.sleep(5), 4).cancel()
    await ctx.sleep(60)


async def _polled(ctx):
    timer, work = ctx.create_timer(60), ctx.call_activity("work")
    rounds = 0
    while not timer.done():
        await ctx.sleep(25)
        rounds += 1
    return [rounds, work.exception()]


async def _locked(ctx):
    async with ctx.lock_entities([ENTITY]):
        ctx.signal_entity(ENTITY, "add", 1)


async def _sent(ctx):
    ctx.send_event("other", "paid", data=1)
    ctx.signal_entity(ENTITY, "add", 1)


async def _streamed(ctx):
    async for _ in ctx.events("early"):
        return


async def _generator_based(ctx):
    class Awaitable:
        def __await__(self):
            return (yield from ctx.call_activity("work"))

    return await Awaitable()


async def _of_a_function_that_is_suspended(ctx):
    async def later():
        work = ctx.call_activity("work")
        await ctx.sleep(1_000)
        return await work

    background = asyncio.create_task(later())
    await ctx.sleep(60)
    return background.done()


async def _continued(ctx, rounds):
    await ctx.call_activity("work")
    if rounds:
        ctx.continue_as_new(rounds - 1)


async def _failed(ctx):
    ctx.call_activity("work")
    raise ValueError("before the await")


USES = [
    value for name, value in sorted(globals().items()) if name.startswith("_") and asyncio.iscoroutinefunction(value)
]


@pytest.mark.parametrize("workflow", USES, ids=lambda workflow: workflow.__name__)
def test_a_use_is_not_warned_of(workflow, warnings):
    if "timeout(" in inspect.getsource(workflow) or "TaskGroup" in inspect.getsource(workflow):
        pytest.importorskip("asyncio.taskgroups")

    finished(workflow, 1 if workflow is _continued else None, events=[(5, "early", 1)])

    assert warnings() == []


@pytest.mark.parametrize(
    ("forget", "calls"),
    [
        (lambda ctx: [ctx.run(abs, 1)], ["abs"]),
        (lambda ctx: [ctx.run(boom, 1, retry_policy=POLICY)], ["boom"]),
        (lambda ctx: [ctx.run(abs, 1), ctx.run(abs, 2, name="second")], ["abs", "second"]),
    ],
    ids=["alone", "between attempts", "waits for the record of another"],
)
def test_a_step_that_is_outstanding_in_the_end_is_warned_of(forget, calls, warnings):
    async def workflow(ctx):
        forget(ctx)
        await ctx.sleep(60)
        forget(ctx)
        return "done"

    assert finished(workflow, steps=StepsAtOnce()).result == "done"

    (warning,) = warnings()
    line = f"{inspect.getsourcefile(forget)}:{forget.__code__.co_firstlineno}"
    assert warning.splitlines()[1:] == [f"  {line}: await ctx.run({name}, ...)" for name in calls * 2]


def test_a_step_that_was_done_long_before_the_end_and_was_not_awaited_is_warned_of(warnings):
    async def workflow(ctx):
        forgotten = ctx.run(abs, 1)
        await ctx.run(abs, 2)
        await ctx.sleep(60)
        del forgotten

    finished(workflow, steps=StepsAtOnce())

    (warning,) = warnings()
    assert "step 'abs'" in warning
    assert "was never awaited" in warning


def test_steps_that_are_awaited_or_cancelled_are_not_warned_of(warnings):
    async def workflow(ctx):
        first, second = ctx.run(abs, 1), ctx.run(abs, 2)
        ctx.run(abs, 3).cancel()
        return [await second, await first]

    assert finished(workflow, steps=StepsAtOnce()).result == [2, 1]
    assert warnings() == []


def test_several_are_listed_in_the_order_of_their_calls(warnings):
    async def workflow(ctx):
        early = ctx.call_activity("early")
        await ctx.sleep(60)
        for number in range(11):
            ctx.call_activity(f"late {number}")  # <-
        del early

    finished(workflow)

    (warning,) = warnings()
    first, *lines = warning.splitlines()
    assert first == (
        "workflow instance-1: 12 operations were never awaited, and the workflow returned without waiting for them"
    )
    assert lines[0].endswith(": await ctx.call_activity('early')")
    assert lines[1:10] == [f"  {line_in(workflow)}: await ctx.call_activity('late {number}')" for number in range(9)]
    assert lines[10:] == ["  and 2 more"]


def test_a_workflow_that_fails_says_why_it_failed_and_no_more(warnings):
    assert failure_of(_failed).errorType == "builtins.ValueError"
    assert warnings() == []


def test_an_operation_whose_retries_wait_is_found(warnings):
    policy = RetryPolicy(first_retry_interval=timedelta(hours=1), max_number_of_attempts=3)

    async def workflow(ctx):
        ctx.call_activity("fail", retry_policy=policy)
        await ctx.sleep(60)

    finished(workflow, activities={"fail": boom})

    (warning,) = warnings()
    assert "activity 'fail'" in warning
