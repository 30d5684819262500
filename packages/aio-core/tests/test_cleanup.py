"""Cleanups: when they run, in which order, and what becomes of one that fails."""

import asyncio

import pytest
from durabletask.aio import WorkflowValidationError
from durabletask.internal import orchestrator_service_pb2 as pb
from turns import CONTINUED, replay
from workflows import failure_of, finished, result_of, started


def test_they_run_when_the_block_ends_the_latest_first():
    seen = []

    async def workflow(ctx):
        async with ctx as entered:
            assert entered is ctx
            ctx.add_cleanup(lambda: seen.append("first"))
            ctx.add_cleanup(lambda: seen.append("second"))
            seen.append("body")
        seen.append("after")

    finished(workflow)
    assert seen == ["body", "second", "first", "after"]


def test_outside_of_a_block_they_run_when_the_function_ends():
    seen = []

    async def workflow(ctx):
        ctx.add_cleanup(lambda: seen.append("cleanup"))
        seen.append("body")
        return "done"

    assert result_of(workflow) == "done"
    assert seen == ["body", "cleanup"]


def test_blocks_nest():
    seen = []

    async def workflow(ctx):
        ctx.add_cleanup(lambda: seen.append("function"))
        async with ctx:
            ctx.add_cleanup(lambda: seen.append("outer"))
            async with ctx:
                ctx.add_cleanup(lambda: seen.append("inner"))
            seen.append("between")
            ctx.add_cleanup(lambda: seen.append("outer, later"))

    finished(workflow)
    assert seen == ["inner", "between", "outer, later", "outer", "function"]


@pytest.mark.parametrize("seconds", [(1, 2), (2, 1)])
def test_blocks_of_tasks_side_by_side_clean_up_after_themselves(seconds):
    seen = []

    async def child(ctx, number):
        async with ctx:
            ctx.add_cleanup(lambda: seen.append(f"cleanup {number}"))
            await ctx.sleep(number)
            seen.append(f"end {number}")

    async def workflow(ctx):
        async with ctx:
            ctx.add_cleanup(lambda: seen.append("cleanup of all"))
            await asyncio.gather(*(child(ctx, number) for number in seconds))
            waiting.append(ctx.get_debug_info()["cleanups"])

    waiting = []
    finished(workflow)
    assert seen[-5:] == ["end 1", "cleanup 1", "end 2", "cleanup 2", "cleanup of all"]
    assert waiting[-1] == 1


def test_a_task_is_in_the_block_it_was_started_in_until_that_ends():
    seen = []

    async def child(ctx):
        ctx.add_cleanup(lambda: seen.append("added inside"))
        await ctx.sleep(2)
        ctx.add_cleanup(lambda: seen.append("added late"))

    async def workflow(ctx):
        async with ctx:
            task = asyncio.create_task(child(ctx))
            await ctx.sleep(1)
        seen.append("after the block")
        await task
        seen.append("end")

    finished(workflow)
    assert seen[-4:] == ["added inside", "after the block", "end", "added late"]


def test_an_async_cleanup_is_awaited_and_may_use_the_workflow():
    async def workflow(ctx):
        async def release():
            await ctx.call_activity("release")
            await asyncio.sleep(5)

        async with ctx:
            ctx.add_cleanup(release)
            ctx.add_cleanup(lambda: ctx.call_activity("notify"))
        return ctx.current_utc_datetime.second

    instance = finished(workflow)
    assert instance.result == 5
    names = [action.scheduleTask.name for turn in instance.turns for action in turn if action.HasField("scheduleTask")]
    assert names == ["notify", "release"]
    replay(instance)


def test_they_run_on_failure_and_the_failure_goes_on():
    seen = []

    async def workflow(ctx):
        ctx.add_cleanup(lambda: seen.append("cleanup"))
        raise ValueError("mine")

    assert failure_of(workflow).errorMessage == "mine"
    assert seen == ["cleanup"]


def test_they_run_on_cancellation():
    seen = []

    async def workflow(ctx):
        async def child():
            async with ctx:
                ctx.add_cleanup(lambda: seen.append("cleanup"))
                await ctx.sleep(3600)

        task = asyncio.create_task(child())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return seen[-1:]

    assert result_of(workflow) == ["cleanup"]


def test_they_run_on_continue_as_new():
    seen = []

    async def workflow(ctx):
        ctx.add_cleanup(lambda: seen.append("cleanup"))
        ctx.continue_as_new(1)

    assert finished(workflow).outcome.orchestrationStatus == CONTINUED
    assert seen == ["cleanup"]


def test_they_run_again_on_replay_like_the_lines_around_them():
    seen = []

    async def workflow(ctx):
        async with ctx:
            ctx.add_cleanup(lambda: seen.append(ctx.is_replaying))
        await ctx.call_activity("a")

    finished(workflow)
    assert seen == [False, True]


def test_they_do_not_run_when_the_instance_is_dropped():
    seen = []

    async def workflow(ctx):
        ctx.add_cleanup(lambda: seen.append("function"))
        async with ctx:
            ctx.add_cleanup(lambda: seen.append("block"))
            await ctx.call_activity("a")

    started(workflow)
    assert seen == []


def test_they_do_not_run_when_the_instance_is_terminated():
    seen = []

    async def workflow(ctx):
        async with ctx:
            ctx.add_cleanup(lambda: seen.append("block"))
            await ctx.call_activity("a")

    instance = started(workflow)
    instance.turn(pb.HistoryEvent(eventId=-1, executionTerminated=pb.ExecutionTerminatedEvent()))
    assert instance.outcome.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED
    assert seen == []


def fails(text):
    def cleanup():
        raise KeyError(text)

    return cleanup


def test_one_that_fails_fails_the_workflow_and_the_others_still_run():
    seen = []

    async def workflow(ctx):
        ctx.add_cleanup(lambda: seen.append("first"))
        ctx.add_cleanup(fails("second"))
        ctx.add_cleanup(lambda: seen.append("third"))

    details = failure_of(workflow)
    assert (details.errorType, details.errorMessage) == ("builtins.KeyError", "'second'")
    assert seen == ["third", "first"]


def test_one_that_fails_does_not_replace_the_exception_of_the_block():
    error = ValueError("mine")

    async def workflow(ctx):
        async with ctx:
            ctx.add_cleanup(fails("first"))
            ctx.add_cleanup(fails("second"))
            raise error

    assert failure_of(workflow).errorMessage == "mine"
    assert error.__notes__[:2] == [
        "a cleanup failed too, with KeyError: 'second'",
        "a cleanup failed too, with KeyError: 'first'",
    ]


def test_the_first_that_fails_carries_the_others_as_notes():
    caught = []

    async def workflow(ctx):
        try:
            async with ctx:
                ctx.add_cleanup(fails("last to run"))
                ctx.add_cleanup(fails("first to run"))
        except KeyError as error:
            caught.append(error)

    finished(workflow)
    assert str(caught[0]) == "'first to run'"
    assert caught[0].__notes__ == ["a cleanup failed too, with KeyError: 'last to run'"]


class Guarded(Exception):
    def __setattr__(self, name, value):
        raise RuntimeError("read only")

    def add_note(self, note):
        raise RuntimeError("read only")


class Falsy(Exception):
    def __bool__(self):
        return False


class Speechless(Exception):
    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize("kind", [Guarded, Falsy, ValueError])
def test_the_exception_of_the_block_wins_and_all_cleanups_run_whatever_the_exceptions_are_like(kind):
    seen = []

    def speechless():
        raise Speechless

    async def workflow(ctx):
        async with ctx:
            ctx.add_cleanup(lambda: seen.append("first"))
            ctx.add_cleanup(speechless)
            raise kind("mine")

    details = failure_of(workflow)
    assert (details.errorType.rpartition(".")[2], details.errorMessage) == (kind.__name__, "mine")
    assert seen == ["first"]


def test_a_cleanup_may_add_another():
    seen = []

    async def workflow(ctx):
        async with ctx:
            ctx.add_cleanup(lambda: ctx.add_cleanup(lambda: seen.append("added")))
        seen.append("after")

    finished(workflow)
    assert "added" in seen


async def release():
    pass


@pytest.mark.parametrize(("wrong", "kind"), [(release, "coroutine"), (lambda: 5, "int"), (lambda: None, "NoneType")])
def test_a_call_in_place_of_a_callable_is_refused(wrong, kind, recwarn):
    async def workflow(ctx):
        with pytest.raises(WorkflowValidationError) as caught:
            ctx.add_cleanup(wrong())
        return str(caught.value)

    message = result_of(workflow)
    assert f"ctx.add_cleanup was given something that cannot be called, of type {kind!r} ({__file__}:" in message
    assert "  wrong: ctx.add_cleanup(release(resource))" in message
    assert "  right: ctx.add_cleanup(lambda: release(resource))" in message
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_the_spec_s_way_works():
    seen = []

    async def workflow_with_cleanup(ctx, input_data):
        async with ctx:
            ctx.add_cleanup(lambda: seen.append("Workflow completed"))
            return await ctx.call_activity("main_work")

    assert result_of(workflow_with_cleanup, None, {"main_work": lambda _: 42}) == 42
    assert seen == ["Workflow completed"]
