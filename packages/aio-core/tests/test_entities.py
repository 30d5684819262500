"""Entities: calls, signals and locks, and locks that are released whatever happens."""

import asyncio
import contextlib
import re

import pytest
from durabletask import task
from durabletask.aio import ActivityFailedError, HeldLock, as_orchestrator
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from turns import COMPLETED, Instance, canonical, execute, replay
from workflows import failure_of, finished, line_in, started

A, B = EntityInstanceId("account", "a"), EntityInstanceId("account", "b")


def messages(instance, kind, turn=-1):
    """The entity messages of that kind that a turn sent."""
    return [
        getattr(action.sendEntityMessage, kind)
        for action in instance.turns[turn]
        if action.HasField("sendEntityMessage") and action.sendEntityMessage.HasField(kind)
    ]


def answered(instance, output, turn=-1):
    """The event that answers the entity call of that turn."""
    (call,) = messages(instance, "entityOperationCalled", turn)
    event = pb.EntityOperationCompletedEvent(requestId=call.requestId, output=StringValue(value=output))
    return pb.HistoryEvent(eventId=-1, entityOperationCompleted=event)


def granted(instance, turn=-1):
    """The event that grants the lock asked for in that turn."""
    (request,) = messages(instance, "entityLockRequested", turn)
    event = pb.EntityLockGrantedEvent(criticalSectionId=request.criticalSectionId)
    return pb.HistoryEvent(eventId=-1, entityLockGranted=event)


def unlocked(instance, turn=-1):
    return [message.targetInstanceId.value for message in messages(instance, "entityUnlockSent", turn)]


def test_a_call_returns_what_the_entity_answers():
    async def workflow(ctx):
        return await ctx.call_entity(A, "balance", {"at": 1})

    instance = started(workflow)
    (call,) = messages(instance, "entityOperationCalled")
    assert (call.operation, call.input.value, call.targetInstanceId.value) == ("balance", '{"at": 1}', "@account@a")
    instance.turn(answered(instance, "42"))
    assert instance.result == 42
    replay(instance)


def test_return_type_reconstructs_the_answer():
    async def workflow(ctx):
        return type(await ctx.call_entity(A, "balance", return_type=float)).__name__

    instance = started(workflow)
    instance.turn(answered(instance, "42.5"))
    assert instance.result == "float"


def test_a_failed_call_raises_and_is_recorded_as_the_generator_s():
    async def workflow(ctx):
        await ctx.call_entity(A, "withdraw", 5)

    async def caught(ctx):
        try:
            await ctx.call_entity(A, "withdraw", 5)
        except ActivityFailedError as error:
            return [str(error).partition(" failed with ")[0], error.step]

    def generator(ctx, _):
        yield ctx.call_entity(A, "withdraw", 5)

    def run(orchestrator):
        instance = Instance(orchestrator, name="w").start()
        (call,) = messages(instance, "entityOperationCalled")
        details = pb.TaskFailureDetails(errorType="builtins.ValueError", errorMessage="too little")
        event = pb.EntityOperationFailedEvent(requestId=call.requestId, failureDetails=details)
        instance.turn(pb.HistoryEvent(eventId=-1, entityOperationFailed=event))
        return instance

    ours, theirs = run(as_orchestrator(workflow)), run(generator)
    assert canonical(ours.turns[-1]) == canonical(theirs.turns[-1])
    assert "too little" in ours.failure.errorMessage
    assert run(as_orchestrator(caught)).result == ["entity operation '@account@a.withdraw'", 1]


def test_a_signal_waits_for_nothing():
    async def workflow(ctx):
        ctx.signal_entity(A, "deposit", 5)
        return "done"

    instance = started(workflow)
    (signal,) = messages(instance, "entityOperationSignaled")
    assert (signal.operation, signal.input.value) == ("deposit", "5")
    assert instance.result == "done"


class TestLocks:
    def locked_by(self, workflow):
        """An instance after the grant of the lock that `workflow` asks for."""
        instance = started(workflow)
        instance.turn(granted(instance))
        return instance

    def test_async_with_releases_at_the_end_of_the_block(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A, B]) as lock:
                assert type(lock) is HeldLock
                await ctx.call_activity("inside")
            return await ctx.call_activity("outside")

        instance = self.locked_by(workflow)
        assert unlocked(instance) == []
        instance.turn(instance.completed(instance.steps("scheduleTask")[0]))
        assert sorted(unlocked(instance)) == ["@account@a", "@account@b"]

    @pytest.mark.parametrize("form", ["with", "async with", "release"])
    def test_awaiting_it_gives_the_lock(self, form):
        async def workflow(ctx):
            lock = await ctx.lock_entities([A])
            if form == "with":
                with lock:
                    await ctx.call_activity("inside")
            elif form == "async with":
                async with lock:
                    await ctx.call_activity("inside")
            else:
                await ctx.call_activity("inside")
                lock.release()
                lock.release()
            await ctx.call_activity("outside")

        instance = self.locked_by(workflow)
        instance.turn(instance.completed(instance.steps("scheduleTask")[0]))
        assert unlocked(instance) == ["@account@a"]

    def test_it_emits_what_the_generator_emits(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A, B]):
                balance = await ctx.call_entity(A, "balance")
                ctx.signal_entity(EntityInstanceId("log", "x"), "write", balance)
            return balance

        def generator(ctx, _):
            with (yield ctx.lock_entities([A, B])):
                balance = yield ctx.call_entity(A, "balance")
                ctx.signal_entity(EntityInstanceId("log", "x"), "write", balance)
            return balance

        def run(orchestrator):
            instance = Instance(orchestrator, name="w").start()
            instance.turn(granted(instance))
            instance.turn(answered(instance, "42"))
            return instance

        ours, theirs = run(as_orchestrator(workflow)), run(generator)
        assert [canonical(turn) for turn in ours.turns] == [canonical(turn) for turn in theirs.turns]
        assert ours.result == 42
        replay(ours)

    def test_left_by_an_exception_it_is_released(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A]):
                raise ValueError("mine")

        instance = self.locked_by(workflow)
        assert instance.failure.errorMessage == "mine"
        assert unlocked(instance) == ["@account@a"]

    def test_left_by_a_timeout_while_a_call_is_outstanding_every_entity_is_unlocked(self):
        """Upstream forgets the entity that was called; timeouts make this an everyday case here."""

        async def workflow(ctx):
            async with ctx.lock_entities([A, B]):
                with contextlib.suppress(TimeoutError):
                    await ctx.with_timeout(ctx.call_entity(A, "slow"), 5)
            return await ctx.call_activity("outside")

        instance = self.locked_by(workflow)
        instance.turn(instance.fired(instance.steps("createTimer")[0]))
        assert sorted(unlocked(instance)) == ["@account@a", "@account@b"]

    def test_returning_inside_the_block_releases(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A]):
                return "early"

        instance = self.locked_by(workflow)
        assert instance.result == "early"
        assert unlocked(instance) == ["@account@a"]

    def test_a_request_that_was_cancelled_is_released_when_it_is_granted(self):
        async def workflow(ctx):
            request = ctx.lock_entities([A])
            request.cancel()
            return await ctx.wait_for_external_event("go")

        instance = self.locked_by(workflow)
        assert unlocked(instance) == ["@account@a"]
        instance.turn(instance.raised("go", "on"))
        assert instance.result == "on"
        replay(instance)

    def test_a_request_that_timed_out_is_released_when_it_is_granted(self):
        async def workflow(ctx):
            try:
                await ctx.with_timeout(ctx.lock_entities([A]), 5)
            except TimeoutError:
                return await ctx.wait_for_external_event("go")

        instance = started(workflow)
        instance.turn(instance.fired(instance.steps("createTimer")[0]))
        instance.turn(granted(instance, 0))
        assert unlocked(instance) == ["@account@a"]

    def test_locking_inside_a_lock_is_refused_by_upstream(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A]), ctx.lock_entities([B]):
                pass

        instance = self.locked_by(workflow)
        assert instance.failure.errorType == "builtins.RuntimeError"

    def test_a_dropped_instance_releases_nothing(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A]):
                await ctx.call_activity("inside")

        instance = self.locked_by(workflow)
        before = len(instance.history)
        again = execute(instance, instance.history[:-1], instance.history[-1:])
        assert not [action for action in again.actions if "entityUnlockSent" in str(action)]
        assert len(instance.history) == before

    def test_the_block_may_hold_concurrent_work(self):
        async def workflow(ctx):
            async with ctx.lock_entities([A, B]):
                return await asyncio.gather(ctx.call_entity(A, "x"), ctx.call_entity(B, "y"))

        instance = self.locked_by(workflow)
        calls = messages(instance, "entityOperationCalled")
        events = [
            pb.HistoryEvent(
                eventId=-1,
                entityOperationCompleted=pb.EntityOperationCompletedEvent(
                    requestId=call.requestId, output=StringValue(value=str(n))
                ),
            )
            for n, call in enumerate(calls)
        ]
        instance.turn(*reversed(events))
        assert instance.outcome.orchestrationStatus == COMPLETED
        assert instance.result == [0, 1]
        assert sorted(unlocked(instance)) == ["@account@a", "@account@b"]


def test_failures_of_entities_are_upstream_s_failures_too():
    assert issubclass(ActivityFailedError, task.TaskFailedError)


@pytest.mark.parametrize("wrong", [[], "abc", A, [A, "@account@b"], 5], ids=["none", "text", "one", "mixed", "number"])
def test_what_is_no_list_of_entities_cannot_be_locked(wrong):
    async def workflow(ctx):
        async with ctx.lock_entities(wrong):  # <-
            pass

    details = failure_of(workflow)
    assert details.errorType == "durabletask.aio.WorkflowValidationError"
    assert details.errorMessage.startswith(
        f"ctx.lock_entities takes a list of one or more EntityInstanceId, and not {without_address(wrong)} "
        f"({line_in(workflow)}) [workflow 'workflow'"
    )
    assert details.errorMessage.endswith(
        "\n  right: async with ctx.lock_entities([EntityInstanceId('account', 'a')]): ..."
    )


@pytest.mark.parametrize("method", ["call_entity", "signal_entity"])
def test_what_is_no_entity_is_not_called_and_waited_for_in_vain(method):
    async def workflow(ctx):
        getattr(ctx, method)("@account@a", "get")  # <-

    instance = finished(workflow)
    assert instance.failure.errorMessage == (
        f"ctx.{method} takes an EntityInstanceId, and not '@account@a' ({line_in(workflow)}) "
        f"[workflow 'workflow', instance 'instance-1']\n"
        f"  wrong: ctx.{method}('@account@a', 'get')\n"
        f"  right: ctx.{method}(EntityInstanceId('counter', 'key'), 'get')"
    )


def test_an_operation_of_an_entity_is_a_string():
    async def workflow(ctx):
        await ctx.call_entity(A, 5)

    assert "the operation of an entity is a string, and not 5" in failure_of(workflow).errorMessage


def without_address(value):
    return re.sub(" at 0x[0-9A-Fa-f]+", "", repr(value))
