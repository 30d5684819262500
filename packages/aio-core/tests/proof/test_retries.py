"""What a retry is: the same call again, at a time that the history decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from durabletask import task
from durabletask.aio import as_orchestrator
from replays import assert_replays
from turns import Instance

from durabletask_aio.core.metadata import decode

POLICY = task.RetryPolicy(first_retry_interval=timedelta(seconds=10), max_number_of_attempts=3)


def test_a_retried_call_carries_the_metadata_of_the_moment_it_was_made():
    async def retries(ctx: Any, _: Any) -> Any:
        ctx.set_metadata({"tenant": "acme"})
        calls = [
            ctx.call_activity("unsteady", retry_policy=POLICY),
            ctx.call_sub_orchestrator("unsteady", retry_policy=POLICY),
        ]
        ctx.set_metadata({"tenant": "other"})
        return await ctx.gather(*calls, return_exceptions=True) and None

    instance = Instance(as_orchestrator(retries)).start()
    sent = [*instance.turns[0]]
    for _ in range(2):
        instance.turn(instance.failed(1, ValueError("again")), instance.failed(2, ValueError("again")))
        sent += instance.turn(*(instance.fired(step) for step in instance.steps("createTimer")))

    tags = [
        each.scheduleTask.tags if each.HasField("scheduleTask") else each.createSubOrchestration.tags for each in sent
    ]
    assert [decode(dict(each)) for each in tags] == [{"tenant": "acme"}] * 6
    assert_replays(instance)


def test_retry_timeout_is_measured_on_the_clock_of_the_workflow():
    # Which is long before the wall's here, so that upstream would not try again at all.
    policy = task.RetryPolicy(
        first_retry_interval=timedelta(seconds=10), max_number_of_attempts=9, retry_timeout=timedelta(seconds=25)
    )

    async def retries(ctx: Any, _: Any) -> Any:
        await ctx.call_activity("unsteady", retry_policy=policy)

    instance = Instance(as_orchestrator(retries)).start()
    attempts = 1
    while instance.outcome is None:
        [step] = instance.outstanding
        if instance.outstanding[step].HasField("createTimer"):
            instance.turn(instance.fired(step))
            attempts += 1
        else:
            instance.turn(instance.failed(step, ValueError("again")))

    assert attempts == 4  # after 0, 10 and 20 seconds; and at 30, since the failure at 20 is within the 25
    assert_replays(instance)
