"""Random numbers and uuids: the same on replay and everywhere, and otherwise never the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from durabletask.aio import as_orchestrator
from replays import assert_replays
from turns import CONTINUED, Instance

from durabletask_aio.core.deterministic import Streams

SUPPORT = Path(__file__).parent.parent / "support"


PINNED = [
    [0.24257673724041107, 4500182097156763942, "c3308230-ca73-4972-9c2f-abeb745ac729"],
    [0.023109991486079395, 11470892927077907073, "afbc8ca3-d8a4-4cb7-9bcc-69e85b354c97"],
]
"""What running workflows have drawn, and must draw again after an upgrade: never to be changed."""


async def draws(ctx: Any, rounds: int) -> Any:
    values: list[Any] = []
    for number in range(rounds):
        values.append([ctx.random().random(), ctx.random().getrandbits(64), str(ctx.uuid4()), ctx.new_uuid()])
        await ctx.call_activity("step", input=[number, ctx.random().random(), str(ctx.uuid4())])
    return [values, str(ctx.now()), str(ctx.current_utc_datetime)]


def drawn(instance_id: str = "instance-1", rounds: int = 3) -> Instance:
    return Instance(as_orchestrator(draws), rounds, instance_id=instance_id).run()


def test_values_are_the_same_wherever_the_history_is_cut():
    assert_replays(drawn())


def test_the_first_values_of_an_instance_are_these_on_every_python():
    (first, second, _third), *_ = drawn().result

    assert first[:3] == PINNED[0]
    assert second[:3] == PINNED[1]


def test_random_numbers_and_uuids_come_from_streams_of_their_own():
    async def with_uuids(ctx: Any, _: Any) -> Any:
        numbers = []
        for _ in range(3):
            numbers.append(ctx.random().random())
            ctx.uuid4()
        return numbers

    async def without(ctx: Any, _: Any) -> Any:
        return [ctx.random().random() for _ in range(3)]

    results = [Instance(as_orchestrator(each), name="same").start().result for each in (with_uuids, without)]

    assert results[0] == results[1]


def test_calls_within_one_turn_differ():
    async def many(ctx: Any, _: Any) -> Any:
        numbers = {ctx.random().random() for _ in range(500)}
        uuids = {str(ctx.uuid4()) for _ in range(500)} | {ctx.new_uuid() for _ in range(500)}
        return [len(numbers), len(uuids)]

    assert Instance(as_orchestrator(many)).start().result == [500, 1000]


def test_instances_differ_even_if_they_start_at_the_same_moment():
    values = [json.dumps(drawn(f"instance-{number}").result[0]) for number in range(20)]

    assert len(set(values)) == 20


def test_executions_of_one_instance_differ_after_continue_as_new():
    async def goes_on(ctx: Any, generation: int) -> Any:
        values = [ctx.random().random(), str(ctx.uuid4())]
        ctx.set_custom_status(values)
        ctx.continue_as_new(generation + 1)

    orchestrator = as_orchestrator(goes_on)
    seen = set()
    first = Instance(orchestrator, 0)
    moment = first.now
    for generation in range(5):
        instance = Instance(orchestrator, generation, start=moment).start()
        assert instance.outcome is not None
        assert instance.outcome.orchestrationStatus == CONTINUED
        seen.add(instance.custom_status)
        moment = instance.now

    assert len(seen) == 5


def test_streams_differ_by_purpose_instance_and_microsecond():
    moment = Instance(as_orchestrator(draws)).now
    seeds = [
        Streams(instance, when).stream(purpose).random()
        for instance in ("a", "b", "a\0", "\0a")
        for when in (moment, moment.replace(microsecond=1))
        for purpose in ("random", "uuid4", "sandbox")
    ]

    assert len(set(seeds)) == len(seeds)


def test_a_uuid_is_one_of_version_4_in_form():
    async def one(ctx: Any, _: Any) -> Any:
        return str(ctx.uuid4())

    found = uuid.UUID(Instance(as_orchestrator(one)).start().result)

    assert (found.version, found.variant) == (4, uuid.RFC_4122)


def test_an_instance_id_that_is_no_valid_text_is_no_obstacle():
    moment = Instance(as_orchestrator(draws)).now

    assert 0 <= Streams("half a pair \ud800", moment).stream("random").random() < 1


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "4242"}, {"TZ": "Asia/Tokyo"}, {"TZ": "America/St_Johns"}],
    ids=lambda environment: "-".join(map("=".join, environment.items())),
)
def test_neither_the_hash_seed_nor_the_time_zone_changes_a_value(environment: dict[str, str]):
    path = os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)])
    code = "import json, test_deterministic_values as t; print(json.dumps(t.drawn().result))"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([path, *sys.path]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == drawn().result
