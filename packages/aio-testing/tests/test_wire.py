"""The bytes of a turn are those of the message, whatever has happened to the instance, and cost its new events only."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import pytest

from durabletask_aio.testing import wire
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.clock import VirtualClock
from durabletask_aio.testing.engine import Engine
from durabletask_aio.testing.handouts import Taker

TAGS = {f"key-{number}": "value" * number for number in range(9)}
CONTINUED = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
FAILED = pb.ORCHESTRATION_STATUS_FAILED


class Difference(Exception):
    pass


class Adventure:
    """One instance to which everything happens, on an engine whose every turn is compared."""

    def __init__(self):
        self.engine = Engine(VirtualClock(datetime(2024, 1, 1, tzinfo=timezone.utc)))
        self.taker = Taker()
        self.turns = 0
        self.steps = 0

    def start(self):
        self.engine.StartInstance(pb.CreateInstanceRequest(instanceId="one", name="any", tags=TAGS), None)

    def event(self):
        self.engine.RaiseEvent(pb.RaiseEventRequest(instanceId="one", name="more"), None)

    def take(self):
        handout = self.engine.take(self.taker)
        assert handout.kind == "orchestration"
        self.turns += 1
        if handout.wire_format != handout.message.SerializeToString(deterministic=True):
            raise Difference
        return handout

    def turn(self, *actions):
        handout = self.take()
        response = pb.OrchestratorResponse(instanceId="one", completionToken=handout.token, actions=actions)
        self.engine.CompleteOrchestratorTask(response, None)

    def step(self):
        """A turn that schedules an activity with tags, whose result is the next turn's event."""
        self.steps += 1
        self.turn(pb.OrchestratorAction(id=self.steps, scheduleTask=pb.ScheduleTaskAction(name="act", tags=TAGS)))
        activity = self.engine.take(self.taker)
        assert activity.wire_format == activity.message
        response = pb.ActivityResponse(instanceId="one", taskId=self.steps, completionToken=activity.token)
        response.result.value = "r" * self.steps
        self.engine.CompleteActivityTask(response, None)

    def end(self, status):
        action = pb.CompleteOrchestrationAction(orchestrationStatus=status)
        self.turn(pb.OrchestratorAction(id=99, completeOrchestration=action))

    def redeliver(self):
        self.engine.take_back(self.take().token)

    def continue_as_new(self):
        self.end(CONTINUED)

    def rewind(self):
        self.end(FAILED)
        self.engine.RewindInstance(pb.RewindInstanceRequest(instanceId="one"), None)
        handout = self.take()
        # Another first event, and as many as before: only the list itself says that it is another history.
        changed = [*handout.message.orchestratorRequest.pastEvents]
        changed[0].eventId = 77
        action = pb.OrchestratorAction(id=98, rewindOrchestration=pb.RewindOrchestrationAction(newHistory=changed))
        response = pb.OrchestratorResponse(instanceId="one", completionToken=handout.token, actions=[action])
        self.engine.CompleteOrchestratorTask(response, None)

    def purge(self):
        self.end(FAILED)
        self.engine.PurgeInstances(pb.PurgeInstancesRequest(instanceId="one"), None)
        self.start()

    def restart(self):
        self.end(FAILED)
        self.engine.RestartInstance(pb.RestartInstanceRequest(instanceId="one"), None)


WHAT_MAY_HAPPEN = ("redeliver", "continue_as_new", "rewind", "purge", "restart")


@pytest.mark.parametrize("what", WHAT_MAY_HAPPEN)
def test_a_turn_has_the_bytes_of_its_message(what):
    adventure = Adventure()
    adventure.start()
    for _ in range(4):
        adventure.step()
    getattr(adventure, what)()
    for _ in range(8):
        adventure.step()
    assert adventure.turns >= 12


@pytest.mark.parametrize("seed", range(20))
def test_a_turn_has_the_bytes_of_its_message_in_any_order_of_what_may_happen(seed):
    chance = random.Random(seed)
    adventure = Adventure()
    adventure.start()
    for _ in range(60):
        getattr(adventure, chance.choice(["step"] * 8 + list(WHAT_MAY_HAPPEN)))()


@pytest.mark.parametrize("what", ["continue_as_new", "rewind"])
def test_that_test_fails_if_another_history_is_taken_for_the_same(what, monkeypatch):
    # A purged or restarted instance is another object, with bytes of its own.
    monkeypatch.setattr(wire.HistoryBytes, "_covers_beginning_of", lambda self, events: True)
    with pytest.raises(Difference):
        test_a_turn_has_the_bytes_of_its_message(what)


def test_each_event_is_serialised_once(monkeypatch):
    counts = []
    original = wire._serialised

    def counting(message):
        if isinstance(message, pb.OrchestratorRequest):
            counts.append(len(message.pastEvents))
        return original(message)

    monkeypatch.setattr(wire, "_serialised", counting)
    adventure = Adventure()
    adventure.start()
    for _ in range(20):
        adventure.step()
    adventure.event()
    adventure.take()
    assert sum(counts) == len(adventure.engine.history_of("one"))


def test_an_instance_that_has_ended_keeps_no_bytes():
    adventure = Adventure()
    adventure.start()
    adventure.step()
    adventure.end(FAILED)
    assert "_history_bytes" not in vars(adventure.engine.instance("one"))


def test_lengths_of_any_size_are_written_as_protobuf_does():
    for length in (0, 1, 127, 128, 16383, 16384, 2_097_151, 2_097_152):
        item = pb.WorkItem(completionToken="x" * length)
        assert item.SerializeToString()[1:].startswith(wire._varint(length)) or not length
