"""The bytes of a work item are those of its message, and what is on its way to a worker does not change."""

from __future__ import annotations

import itertools
import random

import pytest
from engine_harness import CONTINUE, Harness, activity, end

from durabletask_aio.engine import events
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.encoding import to_bytes, to_message
from durabletask_aio.engine.state import Task
from durabletask_aio.engine.tokens import TaskToken
from durabletask_aio.engine.work import TaskWork, TurnWork

TAGS = {f"key-{number}": "value" * number for number in range(9)}
FAILED = pb.ORCHESTRATION_STATUS_FAILED


class Instance:
    """One instance to which everything happens, whose every work item is compared."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.steps = 0
        self.harness.start("one", tags=TAGS)

    def take(self) -> pb.WorkItem:
        work = self.harness.kernel.take(self.harness.worker)
        assert work is not None
        item = pb.WorkItem.FromString(to_bytes(work))
        if isinstance(work, TurnWork):
            assert list(item.orchestratorRequest.pastEvents) == self.harness.history("one")
            assert item.orchestratorRequest.newEvents == list(map(pb.HistoryEvent.FromString, work.new()))
            assert item.orchestratorRequest.executionId.value == work.instance.execution_id
        assert item == to_message(work)
        assert item.completionToken == str(work.token)
        return item

    def turn(self, *actions: pb.OrchestratorAction) -> None:
        self.harness.complete_turn(self.take(), *actions)

    def step(self) -> None:
        self.steps += 1
        self.turn(activity(self.steps, tags=TAGS))
        self.harness.complete_activity(self.take(), "r" * self.steps)

    def requeue(self) -> None:
        self.harness.requeue(self.take())

    def continue_as_new(self) -> None:
        self.turn(CONTINUE)

    def rewind(self) -> None:
        self.turn(end(FAILED))
        self.harness.call("RewindInstance", pb.RewindInstanceRequest(instanceId="one"))
        item = self.take()
        changed = [*item.orchestratorRequest.pastEvents][:-1]
        action = pb.OrchestratorAction(id=98, rewindOrchestration=pb.RewindOrchestrationAction(newHistory=changed))
        self.harness.complete_turn(item, action)

    def purge(self) -> None:
        self.turn(end(FAILED))
        self.harness.call("PurgeInstances", pb.PurgeInstancesRequest(instanceId="one"))
        self.harness.start("one", tags=TAGS)

    def restart(self) -> None:
        self.turn(end(FAILED))
        self.harness.call("RestartInstance", pb.RestartInstanceRequest(instanceId="one"))


WHAT_MAY_HAPPEN = ("requeue", "continue_as_new", "rewind", "purge", "restart")


@pytest.mark.parametrize("what", WHAT_MAY_HAPPEN)
def test_a_work_item_has_the_bytes_of_its_message(what):
    instance = Instance()
    for _ in range(4):
        instance.step()
    getattr(instance, what)()
    for _ in range(8):
        instance.step()
    assert instance.steps == 12


@pytest.mark.parametrize("seed", range(20))
def test_a_work_item_has_the_bytes_of_its_message_in_any_order_of_what_may_happen(seed):
    chance = random.Random(seed)
    instance = Instance()
    for _ in range(60):
        getattr(instance, chance.choice(["step"] * 8 + list(WHAT_MAY_HAPPEN)))()


@pytest.mark.parametrize("what", ["event", "step", "restart"])
def test_a_turn_that_has_been_taken_does_not_change(what):
    instance = Instance()
    instance.step()
    work = instance.harness.kernel.take(instance.harness.worker)
    before = to_bytes(work)
    instance.harness.raise_event("one")
    if what != "event":
        instance.harness.complete_turn(to_message(work), activity(2))
        instance.turn()
        instance.harness.complete_activity(instance.take())
        instance.turn()
    if what == "restart":
        instance.harness.raise_event("one")
        instance.restart()
    assert to_bytes(work) == before


def test_an_encoded_event_is_that_of_the_message():
    created = pb.TimerCreatedEvent(fireAt=events.timestamp(5))
    for number in (-1, 0, 7, 300, 2**31 - 1):
        for time in (0, 1, 1_000_000, 1_500_000, 1_704_067_200_000_001):
            message = pb.HistoryEvent(eventId=number, timestamp=events.timestamp(time), timerCreated=created)
            encoded = events.encode(time, "timerCreated", created.SerializeToString(), number)
            assert encoded == message.SerializeToString()


def test_lengths_of_any_size_are_written_as_protobuf_does():
    for length in (0, 1, 127, 128, 16383, 16384, 2_097_151, 2_097_152):
        item = pb.WorkItem(completionToken="x" * length)
        assert item.SerializeToString()[1:].startswith(events.varint(length)) or not length


TRACE = pb.TraceContext(traceParent="00-1-2-01", spanID="2")

CALLS = [
    pb.ScheduleTaskAction(
        name=name,
        version=events.string_value(version),
        input=events.string_value(given),
        tags=tags,
        parentTraceContext=trace,
    )
    for name, version, given, tags, trace in itertools.product(
        ("", "plain", "größe" * 40), (None, "", "1.0"), (None, "", "x" * 300), ({}, TAGS), (None, TRACE)
    )
]


def same_fields(message, asked):
    for field in ("version", "input", "parentTraceContext"):
        if asked.HasField(field):
            getattr(message, field).CopyFrom(getattr(asked, field))
    return message


@pytest.mark.parametrize("asked", CALLS)
def test_the_call_of_an_activity_is_encoded_as_its_messages_are(asked):
    event = same_fields(pb.TaskScheduledEvent(name=asked.name, tags=asked.tags), asked)
    assert pb.TaskScheduledEvent.FromString(events.task_scheduled(asked, events.called(asked))) == event
    for number in (0, 1, 128, 2**31 - 1, -1):
        instance = pb.OrchestrationInstance(instanceId="ö" * 100)
        request = pb.ActivityRequest(name=asked.name, taskId=number, orchestrationInstance=instance, tags=asked.tags)
        same_fields(request, asked)
        for source in (asked, event):
            encoded = events.activity_request(instance.instanceId, number, source, events.called(source))
            assert pb.ActivityRequest.FromString(encoded) == request
            if asked.name and not asked.tags:
                assert encoded == request.SerializeToString()


def test_fields_of_newer_protocols_are_not_carried_over_into_other_messages():
    asked = pb.ScheduleTaskAction.FromString(pb.ScheduleTaskAction(name="plain").SerializeToString() + b"\x32\x02no")
    call = events.called(asked)
    assert events.task_scheduled(asked, call) == pb.TaskScheduledEvent(name="plain").SerializeToString()
    encoded = events.activity_request("one", 1, asked, call)
    assert not pb.ActivityRequest.FromString(encoded).HasField("parentTraceContext")


@pytest.mark.parametrize("number", [0, 1, 128, 2**31 - 1, -1])
@pytest.mark.parametrize("result", [None, "", "r", "größe" * 100])
def test_the_result_of_an_activity_is_encoded_as_its_message_is(number, result):
    response = pb.ActivityResponse(taskId=number, result=events.string_value(result))
    body = pb.TaskCompletedEvent(taskScheduledId=number, result=events.string_value(result))
    event = pb.HistoryEvent(eventId=-1, timestamp=events.timestamp(5), taskCompleted=body)
    assert events.activity_outcome(5, response) == event.SerializeToString()


def test_an_activity_on_its_way_is_encoded_as_its_message_is():
    request = pb.ActivityRequest(name="plain", taskId=3)
    task = Task(7, "nonce", "one", "execution", 3, "plain", None, request.SerializeToString())
    work = TaskWork(TaskToken("lease", 7, "nonce"), task)
    assert pb.WorkItem.FromString(to_bytes(work)) == pb.WorkItem(
        completionToken="a:lease:7:nonce", activityRequest=request
    )
