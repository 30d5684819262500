"""Cancelling: what can be undone is undone, nothing is left behind, and asyncio's rules hold."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta

import pytest
import turns
from durabletask.aio import ActivityFailedError, RetryPolicy, as_orchestrator
from surface import ACTIVITIES, complete, failure_of, kinds, records_of, result_of, seconds
from turns import Instance, replay

if sys.version_info >= (3, 11):
    from builtins import ExceptionGroup
else:
    from exceptiongroup import ExceptionGroup

NEEDS_GROUPS = pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups came with Python 3.11")
MANY = 40
THREE_TIMES = RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=3)


def started(workflow, **options):
    return Instance(as_orchestrator(workflow), **options).start()


class TestTimers:
    def test_cancelled_in_the_turn_of_its_making_is_never_created_and_leaves_a_gap_in_the_numbers(self):
        async def workflow(ctx):
            timer = ctx.create_timer(100)
            was_pending = timer.cancel()
            return [was_pending, timer.cancelled(), timer.cancel(), await ctx.call_activity("double", input=2)]

        instance = complete(workflow)
        assert instance.result == [True, True, False, 4]
        assert [(action.id, kinds([action])[0]) for action in instance.turns[0]] == [(2, "scheduleTask")]

    def test_cancelled_later_emits_nothing(self):
        async def workflow(ctx):
            timer = ctx.create_timer(100)
            await ctx.call_activity("double", input=1)
            timer.cancel()
            await ctx.call_activity("double", input=2)
            return "done"

        instance = complete(workflow)
        assert instance.result == "done"
        assert [kinds(turn) for turn in instance.turns] == [
            ["createTimer", "scheduleTask"],
            ["scheduleTask"],
            ["completeOrchestration"],
        ]

    @pytest.mark.parametrize("kind", ["operation", "sleep", "timeout"])
    def test_that_fire_after_they_were_cancelled_wake_nobody_and_log_nothing(self, kind):
        async def workflow(ctx):
            if kind == "operation":
                timer = ctx.create_timer(5)
            elif kind == "sleep":
                timer = asyncio.create_task(asyncio.sleep(5))
            else:
                timer = asyncio.get_running_loop().call_later(5, print)
            await asyncio.sleep(1)
            timer.cancel()
            await ctx.wait_for_external_event("go")
            return "done"

        with records_of(turns.LOGGER.name) as messages:
            instance = started(workflow)
            short = min(
                instance.steps("createTimer"), key=lambda n: instance.outstanding[n].createTimer.fireAt.ToJsonString()
            )
            instance.turn(instance.fired(short))
            [late] = instance.steps("createTimer")
            assert instance.turn(instance.fired(late)) == []
            instance.turn(instance.raised("go"))
        assert instance.result == "done"
        assert messages == []
        replay(instance)

    def test_a_timer_nobody_made_still_warns(self):
        # The silence above is about timers we cancelled, and not about a history that is wrong.
        async def workflow(ctx):
            await ctx.wait_for_external_event("go")

        with records_of(turns.LOGGER.name) as messages:
            instance = started(workflow)
            stray = turns.pb.HistoryEvent(eventId=-1, timerFired=turns.pb.TimerFiredEvent(timerId=77))
            instance.turn(stray)
        assert len(messages) == 1
        assert "unexpected timerFired" in messages[0]

    def test_a_long_timer_cancelled_between_its_parts_stops_going_on(self):
        async def workflow(ctx):
            timer = ctx.create_timer(10 * 86_400)
            await asyncio.sleep(4 * 86_400)
            timer.cancel()
            await asyncio.sleep(20 * 86_400)
            return [timer.cancelled(), round(seconds() / 86_400)]

        assert result_of(workflow) == [True, 24]

    def test_a_cancelled_wait_wakes_its_task_in_the_same_turn(self):
        async def workflow(ctx):
            async def wait():
                try:
                    await ctx.create_timer(100)
                except asyncio.CancelledError:
                    return await ctx.call_activity("double", input=5)

            task = asyncio.create_task(wait())
            await asyncio.sleep(1)
            task.cancel()
            return await task

        assert result_of(workflow) == 10

    def test_a_task_that_sleeps_again_when_it_is_cancelled_is_no_deadlock(self):
        async def workflow(ctx):
            async def stubborn():
                try:
                    await asyncio.sleep(100)
                finally:
                    await asyncio.sleep(2)

            task = asyncio.create_task(stubborn())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.wait([task])
            return [task.cancelled(), seconds()]

        assert result_of(workflow) == [True, 3.0]


class TestEvents:
    def test_a_cancelled_wait_leaves_the_event_to_the_next_one(self):
        async def workflow(ctx):
            first, second = ctx.wait_for_external_event("go"), ctx.wait_for_external_event("GO")
            first.cancel()
            return [await second, first.cancelled()]

        assert result_of(workflow, events=[(1, "Go", "payload")]) == ["payload", True]

    def test_cancelling_the_only_wait_keeps_the_event_for_later(self):
        async def workflow(ctx):
            ctx.wait_for_external_event("go").cancel()
            await asyncio.sleep(10)
            return await ctx.wait_for_external_event("go")

        assert result_of(workflow, events=[(1, "go", "kept")]) == "kept"

    def test_nothing_is_outstanding_any_more_so_that_waiting_on_is_a_deadlock(self):
        async def workflow(ctx):
            ctx.wait_for_external_event("go").cancel()
            await asyncio.Event().wait()

        assert failure_of(workflow).errorType == "durabletask.aio.DeadlockError"


class TestActivities:
    def test_cancelled_goes_on_at_the_engine_and_its_result_is_dropped(self):
        async def workflow(ctx):
            operation = ctx.call_activity("double", input=1)
            operation.cancel()
            try:
                await operation
            except asyncio.CancelledError:
                await asyncio.sleep(10)
                return "went on"

        instance = complete(workflow)
        assert instance.result == "went on"
        assert kinds(instance.turns[0]) == ["scheduleTask", "createTimer"]

    def test_cancelled_while_it_runs_is_not_retried(self):
        async def workflow(ctx):
            operation = ctx.call_activity("fail", input="broken", retry_policy=THREE_TIMES)
            await ctx.create_timer(0.001)
            operation.cancel()
            await asyncio.sleep(1000)
            return operation.cancelled()

        instance = complete(workflow)
        assert instance.result is True
        assert sum(kinds(turn).count("scheduleTask") for turn in instance.turns) == 1

    def test_cancelled_between_two_attempts_is_not_retried_and_its_timer_is_silent(self):
        async def workflow(ctx):
            operation = ctx.call_activity("fail", input="broken", retry_policy=THREE_TIMES)
            await asyncio.sleep(5)
            operation.cancel()
            await asyncio.sleep(1000)
            return operation.cancelled()

        with records_of(turns.LOGGER.name) as messages:
            instance = complete(workflow)
        assert instance.result is True
        assert sum(kinds(turn).count("scheduleTask") for turn in instance.turns) == 1
        assert messages == []

    @pytest.mark.parametrize("waiting", [False, True], ids=["while they run", "while they wait to be retried"])
    def test_many_of_them_are_cancelled_without_a_search_through_all_for_each(self, waiting, monkeypatch):
        looked_at = 0

        class Counted(dict):
            def items(self):
                nonlocal looked_at
                looked_at += len(self)
                return super().items()

            def values(self):
                nonlocal looked_at
                looked_at += len(self)
                return super().values()

        async def workflow(ctx):
            operations = [ctx.call_activity("fail", input=n, retry_policy=THREE_TIMES) for n in range(MANY)]
            await ctx.wait_for_external_event("now")
            upstream = ctx.upstream_context
            upstream._pending_tasks = Counted(upstream._pending_tasks)
            for operation in operations:
                operation.cancel()
            upstream._pending_tasks = dict(upstream._pending_tasks)
            await asyncio.sleep(1000)
            return all(operation.cancelled() for operation in operations)

        instance = turns.Instance(as_orchestrator(workflow)).start()
        if waiting:
            instance.turn(*[instance.failed(step, ValueError("no")) for step in instance.steps("scheduleTask")])
        instance.turn(instance.raised("now"))
        instance.run({})
        assert instance.result is True
        assert len([1 for turn in instance.turns for kind in kinds(turn) if kind == "scheduleTask"]) == MANY
        assert looked_at <= 2 * MANY * len(instance.turns)

    def test_that_is_not_cancelled_is_retried_to_the_end(self):
        async def workflow(ctx):
            try:
                await ctx.call_activity("fail", input="broken", retry_policy=THREE_TIMES)
            except ActivityFailedError:
                return seconds() > 15

        instance = complete(workflow)
        assert instance.result is True
        assert sum(kinds(turn).count("scheduleTask") for turn in instance.turns) == 3

    def test_a_cancelled_sub_orchestration_goes_on_and_its_result_is_dropped(self):
        async def workflow(ctx):
            child = ctx.call_sub_orchestrator("child", input=1)
            await asyncio.sleep(0.001)
            child.cancel("not needed")
            await asyncio.sleep(10)
            return child.cancelled()

        assert result_of(workflow, activities={**ACTIVITIES, "child": lambda n: n}) is True


class TestCombinations:
    @pytest.mark.parametrize("combine", ["when_all", "gather"])
    def test_cancelling_all_cancels_the_parts_and_then_raises(self, combine):
        async def workflow(ctx):
            parts = [ctx.create_timer(100), ctx.wait_for_external_event("go"), asyncio.create_task(asyncio.sleep(50))]
            together = ctx.when_all(parts) if combine == "when_all" else ctx.gather(*parts)
            await asyncio.sleep(1)
            assert together.cancel()
            try:
                await together
            except asyncio.CancelledError:
                return [[part.cancelled() for part in parts], seconds()]

        assert result_of(workflow) == [[True, True, True], 1.0]

    def test_cancelling_a_race_leaves_the_runners_alone(self):
        async def workflow(ctx):
            timer = ctx.create_timer(5)
            race = ctx.when_any([timer, ctx.wait_for_external_event("go")])
            race.cancel()
            await timer
            return [race.cancelled(), timer.cancelled(), seconds()]

        assert result_of(workflow) == [True, False, 5.0]

    def test_a_time_limit_that_was_met_takes_its_timer_back(self):
        async def workflow(ctx):
            await ctx.with_timeout(ctx.call_activity("double", input=1), 1000)
            await asyncio.Event().wait()

        instance = complete(workflow)
        assert instance.failure.errorType == "durabletask.aio.DeadlockError", "at once, there being no timer"
        assert instance.steps("createTimer") == [2], "which the engine has not fired yet"

    def test_cancelling_a_time_limit_cancels_what_it_limits_and_the_timer(self):
        async def workflow(ctx):
            waiting = ctx.wait_for_external_event("go")
            limited = ctx.with_timeout(waiting, 1000)
            await asyncio.sleep(1)
            limited.cancel()
            try:
                await limited
            except asyncio.CancelledError:
                assert waiting.cancelled()
            await asyncio.Event().wait()

        instance = complete(workflow)
        assert instance.failure.errorType == "durabletask.aio.DeadlockError", "at once, there being no timer"
        assert instance.steps("createTimer") == [1], "which the engine has not fired yet"

    @pytest.mark.parametrize("combine", ["when_all", "gather"])
    def test_cancelling_all_takes_effect_when_the_last_part_is_done(self, combine):
        async def workflow(ctx):
            async def stubborn():
                try:
                    await ctx.sleep(100)
                finally:
                    await ctx.sleep(2)

            parts = [ctx.create_timer(100), asyncio.create_task(stubborn())]
            together = ctx.when_all(parts) if combine == "when_all" else ctx.gather(*parts)
            await asyncio.sleep(1)
            together.cancel()
            try:
                await together
            except asyncio.CancelledError:
                return seconds()

        assert result_of(workflow) == 3.0

    @pytest.mark.parametrize("make", ["asyncio", "ctx"])
    def test_a_task_that_waits_for_a_gather_passes_its_cancellation_on(self, make):
        async def workflow(ctx):
            timers = [ctx.create_timer(100) for _ in range(3)]

            async def wait():
                await (asyncio.gather(*timers) if make == "asyncio" else ctx.gather(*timers))

            task = asyncio.create_task(wait())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.wait([task])
            return [task.cancelled(), [timer.cancelled() for timer in timers]]

        assert result_of(workflow) == [True, [True, True, True]]


class TestTasks:
    def test_a_message_arrives(self):
        async def workflow(ctx):
            async def wait():
                await ctx.create_timer(100)

            task = asyncio.create_task(wait())
            await asyncio.sleep(1)
            task.cancel("enough")
            try:
                await task
            except asyncio.CancelledError as error:
                return list(error.args)

        # Up to 3.10 only the task has it, and not who awaits it.
        assert result_of(workflow) == (["enough"] if sys.version_info >= (3, 11) else [])

    def test_cancelled_before_it_began_never_runs(self):
        async def workflow(ctx):
            ran = []

            async def run():
                ran.append(True)

            task = asyncio.create_task(run())
            task.cancel()
            await asyncio.wait([task])
            return [ran, task.cancelled()]

        assert result_of(workflow) == [[], True]

    def test_may_refuse_to_be_cancelled(self):
        async def workflow(ctx):
            async def refuse():
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    return "refused"

            task = asyncio.create_task(refuse())
            await asyncio.sleep(1)
            task.cancel()
            return [await task, task.cancelled()]

        assert result_of(workflow) == ["refused", False]

    def test_a_main_that_is_cancelled_fails_the_instance_and_nothing_else(self):
        async def workflow(ctx):
            asyncio.current_task().cancel("by itself")
            await asyncio.sleep(1)

        failure = failure_of(workflow)
        assert failure.errorType == "durabletask.task.TaskCancelledError"
        assert "the workflow was cancelled" in failure.errorMessage

    def test_cleanup_code_may_wait_for_durable_operations(self):
        async def workflow(ctx):
            log = []

            async def guarded():
                try:
                    await asyncio.sleep(100)
                finally:
                    log.append(await ctx.call_activity("double", input=1))
                    await asyncio.sleep(1)
                    log.append(await ctx.call_activity("double", input=2))

            task = asyncio.create_task(guarded())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.wait([task])
            return log

        assert result_of(workflow) == [2, 4]

    @NEEDS_GROUPS
    def test_a_group_that_aborts_takes_back_what_its_tasks_wait_for(self):
        async def workflow(ctx):
            waits = []

            async def wait(operation):
                waits.append(operation)
                await operation

            async def fail():
                await asyncio.sleep(1)
                raise ValueError

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(wait(ctx.create_timer(100)))
                    group.create_task(wait(ctx.wait_for_external_event("go")))
                    group.create_task(fail())
            except ExceptionGroup:
                cancelled = [operation.cancelled() for operation in waits]
            return [cancelled, await ctx.wait_for_external_event("go")]

        assert result_of(workflow, events=[(5, "go", "kept")]) == [[True, True], "kept"]

    def test_what_is_pending_when_the_workflow_returns_goes_quietly(self, caplog):
        async def workflow(ctx):
            asyncio.create_task(asyncio.sleep(100))
            asyncio.create_task(ctx.wait_for_external_event("go"))
            asyncio.gather(ctx.create_timer(50), ctx.call_activity("fail", input="late"))
            await asyncio.sleep(1)
            return "done"

        with caplog.at_level(logging.DEBUG):
            assert result_of(workflow) == "done"
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


COMBINATIONS = {
    "gather": lambda ctx, parts: ctx.gather(*parts),
    "gather, return_exceptions": lambda ctx, parts: ctx.gather(*parts, return_exceptions=True),
    "when_all": lambda ctx, parts: ctx.when_all(parts),
    "when_any": lambda ctx, parts: ctx.when_any(parts),
    "when_any_with_result": lambda ctx, parts: ctx.when_any_with_result(parts),
    "with_timeout": lambda ctx, parts: ctx.with_timeout(parts[0], 50),
    "with_timeout without one": lambda ctx, parts: ctx.with_timeout(parts[0], None),
    "with_timeout of when_all": lambda ctx, parts: ctx.with_timeout(ctx.when_all(parts), 50),
    "gather of when_any": lambda ctx, parts: ctx.gather(ctx.when_any(parts), parts[0]),
    "shield": lambda ctx, parts: asyncio.shield(ctx.gather(*parts)),
}
PARTS = {
    "operation": lambda ctx: ctx.wait_for_external_event("never"),
    "timer": lambda ctx: ctx.create_timer(100),
    "activity": lambda ctx: ctx.call_activity("double", input=1),
    "task": lambda ctx: asyncio.create_task(asyncio.sleep(100)),
}


class TestMessages:
    """Libraries recognise their own cancellations by the message, so each has to arrive."""

    @pytest.mark.parametrize("part", PARTS)
    @pytest.mark.parametrize("combination", COMBINATIONS)
    def test_go_through_a_combination(self, combination, part):
        async def workflow(ctx):
            combined = COMBINATIONS[combination](ctx, [PARTS[part](ctx), PARTS[part](ctx)])
            combined.cancel(("own", 7))
            try:
                await combined
            except asyncio.CancelledError as error:
                return [str(arg) for arg in error.args]

        assert result_of(workflow) == [str(("own", 7))]

    @pytest.mark.parametrize("combination", COMBINATIONS)
    def test_go_through_a_combination_that_a_task_awaits(self, combination):
        seen = []

        async def workflow(ctx):
            async def wait():
                try:
                    await COMBINATIONS[combination](ctx, [PARTS["operation"](ctx), PARTS["task"](ctx)])
                except asyncio.CancelledError as error:
                    seen.append(error.args)
                    raise

            task = asyncio.create_task(wait())
            await asyncio.sleep(1)
            task.cancel("enough")
            await asyncio.wait([task])
            return task.cancelled()

        assert result_of(workflow) is True
        assert set(seen) == {("enough",)}

    @pytest.mark.parametrize("combination", ["gather", "when_all", "when_any", "when_any_with_result", "with_timeout"])
    @pytest.mark.parametrize("is_done", [False, True])
    def test_of_a_part_are_those_of_the_combination(self, combination, is_done):
        async def workflow(ctx):
            parts = [ctx.wait_for_external_event("never") for _ in range(2)]
            if is_done:
                parts[0].cancel("the part")
            combined = COMBINATIONS[combination](ctx, parts)
            for part in parts:
                part.cancel("the part")
            try:
                await combined
            except asyncio.CancelledError as error:
                return list(error.args)

        assert result_of(workflow) == ["the part"]

    def test_of_a_part_are_among_the_results(self):
        async def workflow(ctx):
            parts = [ctx.wait_for_external_event("never") for _ in range(2)]
            combined = ctx.gather(*parts, return_exceptions=True)
            parts[0].cancel("one")
            parts[1].cancel()
            return [list(error.args) for error in await combined]

        assert result_of(workflow) == [["one"], []]

    def test_of_several_cancellations_the_last_one_counts(self):
        async def workflow(ctx):
            async def stubborn():
                try:
                    await asyncio.sleep(100)
                finally:
                    await asyncio.sleep(1)

            combined = ctx.gather(stubborn(), stubborn())
            await asyncio.sleep(1)
            combined.cancel("first")
            await asyncio.sleep(0.5)
            combined.cancel("second")
            try:
                await combined
            except asyncio.CancelledError as error:
                return list(error.args)

        assert result_of(workflow) == ["second"]

    @NEEDS_GROUPS
    def test_of_a_timeout_of_asyncio_are_none_and_it_is_recognised(self):
        async def workflow(ctx):
            try:
                async with asyncio.timeout(1):
                    await ctx.gather(ctx.with_timeout(ctx.create_timer(100), 50), asyncio.sleep(100))
            except TimeoutError:
                return [seconds(), asyncio.current_task().cancelling()]

        assert result_of(workflow) == [1.0, 0]

    @NEEDS_GROUPS
    def test_of_a_task_group_do_not_hide_the_failure(self):
        async def workflow(ctx):
            async def fail():
                await asyncio.sleep(1)
                raise ValueError("broken")

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await ctx.gather(ctx.with_timeout(ctx.create_timer(100), 50), ctx.create_timer(100))
            except ExceptionGroup as error:
                return [str(error.exceptions[0]), asyncio.current_task().cancelling()]

        assert result_of(workflow) == ["broken", 0]

    @NEEDS_GROUPS
    def test_are_counted_by_uncancel(self):
        async def workflow(ctx):
            task = asyncio.current_task()
            asyncio.get_running_loop().call_later(1, task.cancel, "once")
            try:
                await ctx.gather(ctx.create_timer(100), ctx.create_timer(200))
            except asyncio.CancelledError as error:
                counts = [task.cancelling(), task.uncancel()]
                await ctx.create_timer(1)
                return [*error.args, *counts, seconds()]

        assert result_of(workflow) == ["once", 1, 0, 2.0]
