"""Events as engines of other projects deliver them: leftovers of the previous execution, events of other instances."""

from datetime import timedelta

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask.aio import as_orchestrator
from google.protobuf.wrappers_pb2 import StringValue
from turns import Instance as UpstreamsInstance
from turns import canonical, new_executor, timestamp

from durabletask_aio.core.hosting import turn_scope


class Instance(UpstreamsInstance):
    """One instance on a host that knows the core; each turn is a full replay, and so is the check after it."""

    def turn(self, *events, advance=timedelta(milliseconds=1)):
        past = list(self.history)
        self.now += advance
        batch = self.batch(*events)
        with turn_scope():
            actions = list(new_executor(self).execute(self.instance_id, past, batch).actions)
        with turn_scope():
            again = list(new_executor(self).execute(self.instance_id, past, batch).actions)
        assert canonical(actions) == canonical(again)
        self.history += batch
        for action in actions:
            self._apply(action)
        self.asserted = len(self.history)
        return actions


def fired_for(instance, step, moment):
    return pb.HistoryEvent(eventId=-1, timerFired=pb.TimerFiredEvent(timerId=step, fireAt=timestamp(moment)))


def sent_to(instance, number, name, data, instance_id=None):
    sent = pb.EventSentEvent(instanceId=instance_id or instance.instance_id, name=name, input=StringValue(value=data))
    return pb.HistoryEvent(eventId=number, eventSent=sent)


async def sleeper(ctx):
    await ctx.sleep(60)
    return "slept"


class TestATimerOfThePreviousExecution:
    def test_does_not_end_the_timer_of_the_same_number(self):
        instance = Instance(as_orchestrator(sleeper)).start()
        instance.turn(fired_for(instance, 1, instance.now + timedelta(seconds=5)))
        assert instance.outcome is None

        instance.turn(instance.fired(1))
        assert instance.result == "slept"

    def test_is_ignored_in_the_turn_that_starts_the_new_one_too(self):
        instance = Instance(as_orchestrator(sleeper))
        instance.turn(instance.started, fired_for(instance, 1, instance.now + timedelta(seconds=5)))
        assert instance.outcome is None

        instance.turn(instance.fired(1))
        assert instance.result == "slept"

    def test_is_told_apart_by_its_time_alone(self):
        """An engine that rounds a time, or leaves it out, fires the timer."""
        for moment in (60.0, 59.995, 61.0):
            instance = Instance(as_orchestrator(sleeper)).start()
            instance.turn(fired_for(instance, 1, instance.now + timedelta(seconds=moment)))
            assert instance.result == "slept"
        instance = Instance(as_orchestrator(sleeper)).start()
        instance.turn(pb.HistoryEvent(eventId=-1, timerFired=pb.TimerFiredEvent(timerId=1)))
        assert instance.result == "slept"


async def receiver(ctx):
    first = await ctx.wait_for_external_event("news")
    await ctx.call_activity("note", input=first)
    return [first, await ctx.wait_for_external_event("news")]


class TestAnEventThatArrivesAsTheSendersOwn:
    def test_is_an_event(self):
        instance = Instance(as_orchestrator(receiver)).start()
        instance.turn(sent_to(instance, 1, "news", '"one"'))
        # Its number is the sender's; here it is that of an activity which is confirmed.
        instance.turn(sent_to(instance, 1, "NEWS", '"two"'))
        instance.turn(instance.completed(1))

        assert instance.result == ["one", "two"]

    def test_waits_while_the_instance_is_suspended(self):
        instance = Instance(as_orchestrator(receiver)).start()
        instance.turn(pb.HistoryEvent(eventId=-1, executionSuspended=pb.ExecutionSuspendedEvent()))
        assert instance.turn(sent_to(instance, 7, "news", '"one"')) == []
        instance.turn(pb.HistoryEvent(eventId=-1, executionResumed=pb.ExecutionResumedEvent()))

        assert instance.steps("scheduleTask") == [1]

    def test_is_no_confirmation_of_an_event_to_another_instance(self):
        async def sender(ctx):
            await ctx.sleep(1)
            ctx.send_event("other", "news", data="mine")
            return await ctx.wait_for_external_event("news")

        instance = Instance(as_orchestrator(sender)).start()
        instance.turn(instance.fired(1))
        # The action of number 2 is confirmed by now, and this is another instance's.
        instance.turn(sent_to(instance, 2, "news", '"theirs"'))

        assert instance.result == "theirs"

    def test_to_itself_is_confirmed_and_then_received(self):
        async def narcissus(ctx):
            ctx.send_event(ctx.instance_id, "news", data="mine")
            return await ctx.wait_for_external_event("news")

        instance = Instance(as_orchestrator(narcissus)).start()
        assert instance.outcome is None
        instance.turn(sent_to(instance, 1, "news", '"mine"'))

        assert instance.result == "mine"

    def test_of_another_instance_is_still_a_step_that_the_code_does_not_have(self):
        instance = Instance(as_orchestrator(receiver)).start()
        instance.turn(sent_to(instance, 3, "news", '"one"', instance_id="other"))

        assert instance.failure.errorType == "durabletask.aio.HistoryDivergenceError"
