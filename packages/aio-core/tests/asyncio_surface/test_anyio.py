"""anyio, of which many libraries are made: its asyncio backend runs on a workflow's loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from typing import Any, cast

import pytest
from surface import complete, failure_of, kinds, result_of, seconds

from durabletask_aio.core import _compat_anyio, cancel_deliveries
from durabletask_aio.core.loop import WorkflowTask

anyio = pytest.importorskip("anyio")
backend = pytest.importorskip("anyio._backends._asyncio")


async def doubled(ctx, n):
    return await ctx.call_activity("double", input=n)


def test_a_task_group_runs_its_tasks_concurrently():
    async def workflow(ctx):
        results = {}

        async def member(n):
            results[str(n)] = await doubled(ctx, n)

        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(member, n)
        return results

    instance = complete(workflow)
    assert instance.result == {"0": 0, "1": 2, "2": 4}
    assert kinds(instance.turns[0]) == ["scheduleTask"] * 3


def test_a_task_group_cancels_the_others_when_one_fails():
    async def workflow(ctx):
        cleaned = []

        async def member(n):
            try:
                await anyio.sleep(100)
            finally:
                cleaned.append(n)

        async def fail():
            await anyio.sleep(1)
            raise ValueError("broken")

        try:
            async with anyio.create_task_group() as group:
                for n in range(5):
                    group.start_soon(member, n)
                group.start_soon(fail)
        except BaseException as error:
            return [sorted(cleaned), repr(cast(Any, error).exceptions[0]), seconds()]

    assert result_of(workflow) == [[0, 1, 2, 3, 4], "ValueError('broken')", 1.0]


def test_start_waits_until_the_task_says_that_it_has_started():
    async def workflow(ctx):
        async def serve(*, task_status=anyio.TASK_STATUS_IGNORED):
            task_status.started(await doubled(ctx, 4))
            await anyio.sleep(1)

        async with anyio.create_task_group() as group:
            return await group.start(serve)

    assert result_of(workflow) == 8


def test_move_on_after_moves_on():
    async def workflow(ctx):
        with anyio.move_on_after(2) as scope:
            await anyio.sleep(100)
        return [scope.cancelled_caught, seconds()]

    assert result_of(workflow) == [True, 2.0]


def test_move_on_after_takes_its_timer_back():
    async def workflow(ctx):
        with anyio.move_on_after(1000) as scope:
            await doubled(ctx, 1)
        await anyio.sleep(1)
        return scope.cancelled_caught

    assert result_of(workflow) is False


def test_fail_after_raises_timeout_error():
    async def workflow(ctx):
        with anyio.fail_after(1):
            await ctx.wait_for_external_event("never")

    assert failure_of(workflow).errorType == "builtins.TimeoutError"


def test_fail_after_does_not_swallow_the_next_event():
    async def workflow(ctx):
        try:
            with anyio.fail_after(1):
                await ctx.wait_for_external_event("go")
        except TimeoutError:
            return await ctx.wait_for_external_event("go")

    assert result_of(workflow, events=[(5, "go", "kept")]) == "kept"


def test_a_shielded_scope_finishes_what_it_has_begun():
    async def workflow(ctx):
        log = []
        with anyio.move_on_after(1):
            try:
                await anyio.sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    log.append(await doubled(ctx, 3))
                    await anyio.sleep(2)
                    log.append(seconds())
        return log

    assert result_of(workflow) == [6, 3.0]


def test_a_cancel_scope_cancels_by_hand():
    async def workflow(ctx):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 100)
                await anyio.sleep(1)
                scope.cancel()
        return [scope.cancel_called, seconds()]

    assert result_of(workflow) == [True, 1.0]


def test_events_locks_and_limiters_work():
    async def workflow(ctx):
        event, lock, limiter, order = anyio.Event(), anyio.Lock(), anyio.CapacityLimiter(1), []

        async def member(n):
            await event.wait()
            async with limiter, lock:
                order.append(await doubled(ctx, n))

        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(member, n)
            await anyio.sleep(1)
            event.set()
        return order

    assert sorted(result_of(workflow)) == [0, 2, 4]


def test_memory_streams_work():
    async def workflow(ctx):
        send, receive = anyio.create_memory_object_stream(1)

        async def produce():
            async with send:
                for n in range(3):
                    await send.send(await doubled(ctx, n))

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            async with receive:
                return [item async for item in receive]

    assert result_of(workflow) == [0, 2, 4]


def test_the_order_of_a_cancelled_group_is_the_same_each_time():
    async def workflow(ctx):
        order = []

        async def member(n):
            try:
                await anyio.sleep(100)
            finally:
                order.append(n)

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(member, n)
            await anyio.sleep(1)
            group.cancel_scope.cancel()
        return order

    first = result_of(workflow)
    ballast = [object() for _ in range(5_000)]
    assert result_of(workflow) == first
    del ballast


@pytest.mark.parametrize("call", [lambda: anyio.to_thread.run_sync(print), lambda: anyio.open_file(__file__)])
def test_threads_are_refused_before_there_is_one(call):
    async def workflow(ctx):
        await call()

    before = set(threading.enumerate())
    failure = failure_of(workflow)
    assert set(threading.enumerate()) <= before
    assert failure.errorType == "durabletask.aio.UnsupportedInWorkflowError"
    assert (
        "anyio.to_thread cannot be used in a workflow: threads finish in an order of their own" in failure.errorMessage
    )


# -- the names of anyio that the event loop recognises ----------------------------------------------------------------


def test_the_installed_anyio_has_the_names_that_the_loop_recognises():
    assert _compat_anyio.self_check() is None


@pytest.mark.parametrize(
    ("owner", "name", "shown"),
    [
        (backend.CancelScope, "_deliver_cancellation", "CancelScope._deliver_cancellation"),
        (backend, "WorkerThread", "WorkerThread"),
        (backend.AsyncIOBackend, "current_time", "AsyncIOBackend.current_time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_of_anyio_that_is_gone_is_reported_in_a_sentence(monkeypatch, owner, name, shown):
    monkeypatch.delattr(owner, name)
    assert _compat_anyio.self_check() == (
        f"anyio has changed under durabletask-aio-core: {shown} of anyio._backends._asyncio is gone, so that cancel "
        "scopes and anyio.to_thread in workflows are not recognised; see durabletask_aio/core/_compat_anyio.py"
    )


def test_without_anyio_there_is_nothing_to_check(monkeypatch):
    monkeypatch.setitem(sys.modules, "anyio._backends", None)
    assert _compat_anyio.self_check() is None


HOWS = {
    "asyncio.wait_for": lambda ctx, never: asyncio.wait_for(never(), 50),
    "asyncio.gather": lambda ctx, never: asyncio.gather(never(), never()),
    "asyncio.shield": lambda ctx, never: asyncio.shield(never()),
    "ctx.gather": lambda ctx, never: ctx.gather(never(), never()),
    "ctx.gather, return_exceptions": lambda ctx, never: ctx.gather(never(), never(), return_exceptions=True),
    "ctx.when_all": lambda ctx, never: ctx.when_all([never(), never()]),
    "ctx.when_any": lambda ctx, never: ctx.when_any([never(), never()]),
    "ctx.with_timeout": lambda ctx, never: ctx.with_timeout(never(), 50),
    "nested": lambda ctx, never: ctx.gather(ctx.with_timeout(ctx.when_all([never()]), 50), never()),
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("part", ["operation", "task"])
def test_a_scope_recognises_its_cancellation_that_went_through(how, part):
    async def workflow(ctx):
        async def wait():
            await ctx.wait_for_external_event("never")

        def never():
            return wait() if part == "task" else ctx.wait_for_external_event("never")

        with anyio.move_on_after(5) as scope:
            await HOWS[how](ctx, never)
        return scope.cancelled_caught

    assert result_of(workflow) is True


async def tidy(ctx, log):
    try:
        await anyio.sleep(100)
    finally:
        log.append(await doubled(ctx, 4))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups came with Python 3.11")
def test_a_group_of_asyncio_in_a_cancelled_scope_waits_for_the_cleanup_of_its_tasks():
    async def workflow(ctx):
        log = []
        with anyio.move_on_after(1) as scope:
            async with asyncio.TaskGroup() as group:
                group.create_task(tidy(ctx, log))
                group.create_task(tidy(ctx, log))
        return [log, scope.cancelled_caught]

    instance = complete(workflow)
    assert instance.result == [[8, 8], True]


def test_a_task_that_waits_in_a_cancelled_scope_for_a_shielded_one_waits_for_its_end():
    async def workflow(ctx):
        log = []
        with anyio.move_on_after(1) as scope:
            cleanup = asyncio.create_task(doubled(ctx, 4))
            await anyio.sleep(0)
            later = asyncio.create_task(tidy_later(ctx, log))
            while not later.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(later)
            log.append(await cleanup)
        return [log, scope.cancelled_caught]

    async def tidy_later(ctx, log):
        await ctx.sleep(3)
        log.append(await doubled(ctx, 1))

    assert result_of(workflow)[0][0] == 2


def test_a_task_that_catches_some_cancellations_is_still_cancelled():
    async def workflow(ctx):
        caught = 0
        ctx.call_activity("double", input=1)
        with anyio.move_on_after(1) as scope:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    caught += 1
                    if caught == cancel_deliveries.MAX_IDLE_ROUNDS // 2:
                        raise
        return [caught, scope.cancelled_caught, seconds()]

    assert result_of(workflow) == [cancel_deliveries.MAX_IDLE_ROUNDS // 2, True, 1.0]


def test_an_operation_that_is_begun_in_a_cancelled_scope_is_cancelled_at_once():
    async def workflow(ctx):
        with anyio.move_on_after(1) as scope:
            try:
                await anyio.sleep(100)
            finally:
                await ctx.sleep(50)
        return [scope.cancelled_caught, seconds()]

    assert result_of(workflow) == [True, 1.0]


def tasks_in_memory():
    gc.collect()
    return sum(type(each) is WorkflowTask for each in gc.get_objects())


def test_a_scope_in_an_async_generator_that_is_left_keeps_nothing_in_memory():
    async def workflow(ctx):
        async def numbers():
            with anyio.move_on_after(5):
                yield 1
                yield 2

        async for _ in numbers():
            break
        return 1

    assert result_of(workflow) == 1
    before = tasks_in_memory()
    for _ in range(5):
        assert result_of(workflow) == 1
    assert tasks_in_memory() <= before
