"""The life of a patch: histories of each stage, replayed by the code of each stage."""

import json

import pytest
from step_runners import StepsAtOnce
from turns import FAILED, execute
from workflows import finished, started

from durabletask_aio.core import as_orchestrator


async def old(ctx):
    await ctx.call_activity("pack")
    return await ctx.call_activity("ship")


async def patched(ctx):
    await ctx.call_activity("pack")
    if ctx.patched("ship-by-air"):
        return await ctx.call_activity("ship-by-air")
    return await ctx.call_activity("ship")


async def deprecated(ctx):
    await ctx.call_activity("pack")
    ctx.deprecate_patch("ship-by-air")
    return await ctx.call_activity("ship-by-air")


async def removed(ctx):
    await ctx.call_activity("pack")
    return await ctx.call_activity("ship-by-air")


STAGES = [old, patched, deprecated, removed]
ACTIVITIES = {"pack": lambda _: None, "ship": lambda _: "by sea", "ship-by-air": lambda _: "by air"}

REPLAYED_BY = {
    old: [old, patched],
    patched: [patched, deprecated],
    deprecated: [patched, deprecated, removed],
    removed: [deprecated, removed],
}
"""Which code replays the histories of which."""


def replayed(instance, code):
    """What another code returns at the end of a recorded history, or the type of its failure in any turn."""
    orchestrator = as_orchestrator(code, name=instance.name)
    for end in instance.cuts:
        begin = instance.batch_begin(end)
        past, new = instance.history[:begin], instance.history[begin:end]
        complete = execute(instance, past, new, orchestrator=orchestrator).actions[-1].completeOrchestration
        if complete.orchestrationStatus == FAILED:
            return complete.failureDetails.errorType
    return json.loads(complete.result.value)


@pytest.mark.parametrize("code", STAGES)
@pytest.mark.parametrize("recorded_by", STAGES)
def test_a_history_of_each_stage_is_replayed_by_the_code_of_the_stages_beside_it(recorded_by, code):
    instance = finished(recorded_by, None, ACTIVITIES, steps=StepsAtOnce())
    assert instance.result == ("by sea" if recorded_by is old else "by air")
    replays = code in REPLAYED_BY[recorded_by]
    assert replayed(instance, code) == (instance.result if replays else "durabletask.aio.HistoryDivergenceError")


@pytest.mark.not_replayed("the code changes between two turns")
@pytest.mark.parametrize(("turns", "result"), [(1, "by air"), (2, "by sea")])
def test_an_instance_under_way_takes_the_branch_of_the_place_that_it_has_reached(turns, result):
    instance = started(old, steps=StepsAtOnce())
    while len(instance.turns) < turns:
        instance.turn(instance.completed(*instance.outstanding))
    instance.orchestrator = as_orchestrator(patched, name=instance.name)
    assert instance.run(ACTIVITIES).result == result
