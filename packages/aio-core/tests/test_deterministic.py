"""Deterministic values: equal on replay, different everywhere else."""

import os
import subprocess
import sys
import uuid
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from durabletask.aio import as_orchestrator
from turns import START, Instance, replay
from workflows import finished, result_of

from durabletask_aio.core.deterministic import Streams


async def draw(ctx):
    first = [ctx.random().random(), ctx.random().getrandbits(64), str(ctx.uuid4()), str(ctx.uuid4()), ctx.new_uuid()]
    await ctx.call_activity("a")
    return [*first, ctx.random().random(), str(ctx.uuid4())]


def test_values_are_the_same_on_replay_and_different_within_an_execution():
    instance = finished(draw)
    assert len(set(instance.result)) == len(instance.result)
    replay(instance)
    assert finished(draw).result == instance.result


def test_instances_differ():
    values = [value for name in ("a", "b") for value in finished(draw, instance_id=name).result]
    assert len(set(values)) == len(values)


def test_executions_of_one_instance_differ():
    later = START + timedelta(microseconds=1)
    values = [value for start in (START, later) for value in Instance(as_orchestrator(draw), start=start).run().result]
    assert len(set(values) - {values[4]}) >= len(values) - 2, "upstream's new_uuid knows milliseconds only"


def test_random_is_one_object_per_execution():
    async def workflow(ctx):
        return ctx.random() is ctx.random()

    assert result_of(workflow)


def test_uuids_are_of_version_4():
    async def workflow(ctx):
        made = [ctx.uuid4() for _ in range(100)]
        assert {(type(each), each.version, each.variant) for each in made} == {(uuid.UUID, 4, uuid.RFC_4122)}
        return len(set(made))

    assert result_of(workflow) == 100


def test_random_and_uuid4_do_not_disturb_each_other():
    async def uuids_first(ctx):
        ctx.uuid4()
        return ctx.random().random()

    async def random_alone(ctx):
        return ctx.random().random()

    assert result_of(uuids_first) == result_of(random_alone)


def test_streams_of_different_purposes_are_independent():
    streams = Streams("i", START)
    assert streams.stream("a") is streams.stream("a")
    assert streams.stream("a").random() != streams.stream("b").random()


def test_an_instance_id_with_lone_surrogates_is_fine():
    Streams("\ud800", START).uuid4()


GOLDEN = ["0x1.520d2dc794f33p-1", "10856151549796497524", "e66a106e-4cc9-4995-8b1f-99f74b0f504c"]
PROGRAM = """
from datetime import datetime
from durabletask_aio.core.deterministic import Streams
streams = Streams("order-1", datetime(2026, 1, 1, 12, 0, 0, 1000))
print(streams.stream("random").random().hex(), streams.stream("random").getrandbits(64), streams.uuid4())
"""


def values_with(**environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "environment", [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}, {"TZ": "Asia/Tokyo"}, {"TZ": "America/New_York"}]
)
def test_neither_hash_seed_nor_time_zone_nor_python_changes_them(environment):
    """The same on every Python and machine: histories outlive both."""
    assert values_with(**environment) == GOLDEN


def test_the_clock_of_a_workflow_does_not_depend_on_the_time_zone():
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent / 'support')!r})\n"
        "from workflows import result_of\n"
        "async def clock(ctx):\n"
        "    return [ctx.now().isoformat(), ctx.current_utc_datetime.isoformat(), str(ctx.uuid4()), ctx.new_uuid()]\n"
        "print(result_of(clock))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
        ).stdout
        for zone in ("UTC", "Asia/Tokyo", "America/New_York")
    }
    assert len(found) == 1
    assert datetime(2026, 1, 1, 12, 0, 0, 1000).isoformat() in found.pop()
