"""External events: waited for, raced, cancelled and iterated, with none lost on the way."""

# ruff: noqa: RET503 - a loop over events ends with the events of the test

import asyncio
from dataclasses import dataclass

import pytest
from durabletask.aio import EventStream, as_orchestrator
from turns import CONTINUED, Instance, canonical, replay
from workflows import finished, result_of, started


@dataclass
class Parcel:
    weight: int


def raise_each(instance, name, payloads):
    """One turn for each payload."""
    for payload in payloads:
        instance.turn(instance.raised(name, payload))


def test_an_event_that_came_before_the_wait_is_taken_from_the_buffer():
    async def workflow(ctx):
        await ctx.sleep(60)
        return [await ctx.wait_for_external_event("go"), await ctx.wait_for_external_event("GO")]

    assert result_of(workflow, events=[(1, "go", 1), (2, "Go", 2)]) == [1, 2]


def test_waits_are_served_in_the_order_they_were_made():
    async def workflow(ctx):
        first, second = ctx.wait_for_external_event("go"), ctx.wait_for_external_event("go")
        return [await second, await first]

    assert result_of(workflow, events=[(1, "go", 1), (2, "go", 2)]) == [2, 1]


def test_a_timed_out_wait_does_not_swallow_the_next_event():
    async def workflow(ctx):
        with pytest.raises(TimeoutError):
            await ctx.with_timeout(ctx.wait_for_external_event("go"), 5)
        return await ctx.wait_for_external_event("go")

    assert result_of(workflow, events=[(10, "go", "not lost")]) == "not lost"


def test_a_cancelled_wait_leaves_no_action_and_no_waiter():
    async def workflow(ctx):
        waiting = ctx.wait_for_external_event("go")
        waiting.cancel()
        await asyncio.sleep(0)
        return await ctx.wait_for_external_event("go")

    instance = finished(workflow, events=[(1, "go", 5)])
    assert instance.result == 5
    assert not instance.outstanding


class TestStream:
    def test_it_yields_every_event_in_order(self):
        async def workflow(ctx):
            seen = []
            async for payload in ctx.events("order"):
                seen.append(payload)
                if payload == "last":
                    return seen

        instance = finished(workflow, events=[(n, "order", p) for n, p in enumerate(["a", "b", "last"])])
        assert instance.result == ["a", "b", "last"]
        replay(instance)

    def test_it_is_an_async_iterator_of_a_public_type(self):
        async def workflow(ctx):
            stream = ctx.events("order")
            return [type(stream) is EventStream, aiter_is_itself(stream), await stream.__anext__()]

        def aiter_is_itself(stream):
            return stream.__aiter__() is stream

        assert result_of(workflow, events=[(1, "order", 7)]) == [True, True, 7]

    def test_several_events_of_one_batch_are_all_seen(self):
        async def workflow(ctx):
            stream = ctx.events("order")
            return [await stream.__anext__() for _ in range(4)]

        instance = started(workflow)
        instance.turn(*(instance.raised("order", n) for n in range(4)))
        assert instance.result == [0, 1, 2, 3]

    def test_a_cancelled_iteration_keeps_its_event_for_the_next_one(self):
        """The event and the timeout arrive together: what the cancelled iteration had in hand is not lost."""

        async def workflow(ctx):
            stream = ctx.events("order")
            seen = []
            while len(seen) < 3:
                task = asyncio.create_task(stream.__anext__())
                timer = ctx.sleep(1)
                await asyncio.wait([task, timer], return_when=asyncio.FIRST_COMPLETED)
                timer.cancel()
                if not task.cancel():
                    seen.append(task.result())
                else:
                    await asyncio.wait([task])
            return seen

        instance = started(workflow)
        for payload in range(3):
            timer = instance.steps("createTimer")[-1]
            instance.turn(instance.fired(timer), instance.raised("order", payload))
        assert instance.run().result == [0, 1, 2]

    def test_a_timeout_around_each_iteration_loses_nothing(self):
        async def workflow(ctx):
            stream, seen = ctx.events("order"), []
            while len(seen) < 3:
                try:
                    seen.append(await ctx.with_timeout(stream.__anext__(), 5))
                except TimeoutError:
                    seen.append("timeout")
            return seen

        assert result_of(workflow, events=[(2, "order", 1), (20, "order", 2)]) == [1, "timeout", "timeout"]

    def test_what_was_not_consumed_is_carried_over(self):
        async def workflow(ctx):
            stream = ctx.events("order")
            first = await stream.__anext__()
            await ctx.wait_for_external_event("stop")
            ctx.continue_as_new(first, save_events=True)

        instance = started(workflow)
        raise_each(instance, "order", ["a", "b", "c"])
        instance.turn(instance.raised("stop"))
        assert carried(instance) == [("order", '"b"'), ("order", '"c"')]

    def test_an_event_that_a_stream_has_in_hand_is_carried_over_first(self):
        async def workflow(ctx):
            await ctx.wait_for_external_event("stop")
            stream = ctx.events("order")
            iteration = asyncio.ensure_future(stream.__anext__())
            stream._next = ctx.wait_for_external_event("order")  # delivered, and not yet picked up
            iteration.cancel()
            ctx.continue_as_new(None, save_events=True)

        instance = started(workflow)
        raise_each(instance, "order", ["a", "b"])
        instance.turn(instance.raised("stop"))
        assert carried(instance) == [("order", '"a"'), ("order", '"b"')]

    def test_events_that_arrive_after_continue_as_new_in_the_same_batch_are_carried_over(self):
        async def workflow(ctx):
            iteration = asyncio.ensure_future(ctx.events("order").__anext__())
            await ctx.wait_for_external_event("stop")
            iteration.cancel()
            ctx.continue_as_new(None, save_events=True)

        instance = started(workflow)
        instance.turn(instance.raised("stop"), instance.raised("order", "a"), instance.raised("order", "b"))
        assert carried(instance) == [("order", '"a"'), ("order", '"b"')]

    def test_without_save_events_nothing_is_carried_over(self):
        async def workflow(ctx):
            await ctx.wait_for_external_event("stop")
            ctx.continue_as_new(None)

        instance = started(workflow)
        raise_each(instance, "order", ["a"])
        instance.turn(instance.raised("stop"))
        assert carried(instance) == []

    def test_over_many_executions_every_event_is_seen_once(self):
        """A consumer that continues as new after each event, as the documentation advises."""

        async def consumer(ctx, seen):
            async for payload in ctx.events("order"):
                seen.append(payload)
                if len(seen) == 6:
                    return seen
                ctx.continue_as_new(seen, save_events=True)
                return None

        pending = [("order", n) for n in range(6)]
        state, executions = [], 0
        while True:
            executions += 1
            instance = Instance(as_orchestrator(consumer), state).start()
            instance.turn(*(instance.raised(*event) for event in pending))
            if instance.outcome.orchestrationStatus != CONTINUED:
                break
            state = instance.converter.deserialize(instance.outcome.result.value)
            pending = [(name, int(payload)) for name, payload in carried(instance)]
        assert instance.result == [0, 1, 2, 3, 4, 5]
        assert executions == 6

    def test_a_data_type_reconstructs_each_payload(self):
        async def workflow(ctx):
            seen = []
            async for parcel in ctx.events("n", data_type=Parcel):
                seen.append(repr(parcel))
                if len(seen) == 2:
                    return seen

        events = [(1, "n", {"weight": 2}), (2, "n", {"weight": 3})]
        assert result_of(workflow, events=events) == ["Parcel(weight=2)", "Parcel(weight=3)"]

    def test_two_streams_of_one_name_share_the_events(self):
        async def workflow(ctx):
            first, second = ctx.events("order"), ctx.events("order")
            return await asyncio.gather(first.__anext__(), second.__anext__())

        assert result_of(workflow, events=[(1, "order", 1), (2, "order", 2)]) == [1, 2]


def carried(instance):
    assert instance.outcome.orchestrationStatus == CONTINUED
    return [(event.eventRaised.name, event.eventRaised.input.value) for event in instance.outcome.carryoverEvents]


def test_the_generator_s_loop_over_events_emits_the_same():
    async def workflow(ctx):
        total = 0
        async for n in ctx.events("n"):
            total += await ctx.call_activity("double", input=n)
            if n == 3:
                return total

    def generator(ctx, _):
        total = 0
        while True:
            n = yield ctx.wait_for_external_event("n")
            total += yield ctx.call_activity("double", input=n)
            if n == 3:
                return total

    events = [(n, "n", n) for n in range(1, 4)]
    ours = Instance(as_orchestrator(workflow), name="w").run({"double": lambda n: n * 2}, events=events)
    theirs = Instance(generator, name="w").run({"double": lambda n: n * 2}, events=events)
    assert ours.result == theirs.result == 12
    assert [canonical(turn) for turn in ours.turns] == [canonical(turn) for turn in theirs.turns]
