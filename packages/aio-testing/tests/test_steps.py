"""Steps and patches in the test environment and in replays of recorded histories."""

import functools
import re
from datetime import timedelta

import pytest

from durabletask_aio.core import RetryPolicy, StepFailedError, as_orchestrator
from durabletask_aio.testing import NEVER, ReplayError, WorkflowEnvironment, replay, verify_deterministic
from durabletask_aio.testing.timeline_text import render_text


async def call_model(prompt):
    raise AssertionError("the real model was called")


def search(query, limit):
    return [query] * limit


async def agent(ctx, question):
    answer = await ctx.run(call_model, question)
    found = await ctx.run(search, answer, 2)
    if ctx.patched("polite"):
        found.append("please")
    return found


async def test_a_step_is_replaced_by_name_and_its_history_replays():
    async with WorkflowEnvironment(orchestrators=[agent]) as env:
        env.stub("call_model", calls=lambda prompt: f"{prompt}!")
        handle = await env.start(agent, input="why")
        assert await handle.result() == ["why!", "why!", "please"]
        history = handle.history
    assert replay(history, agent).steps == 4
    verify_deterministic(history, agent, hash_seeds=())


async def renamed(ctx, question):
    answer = await ctx.run(call_model, question, name="ask_model")
    return await ctx.run(search, answer, 2)


async def test_a_renamed_step_is_found_by_replay():
    async with WorkflowEnvironment(orchestrators=[agent]) as env:
        env.stub("call_model", returns="x")
        handle = await env.start(agent, input="why")
        await handle.result()
        history = handle.history
    with pytest.raises(ReplayError, match="call_model"):
        replay(history, as_orchestrator(renamed, name="agent"))


async def test_a_renamed_step_is_shown_with_its_arguments():
    async with WorkflowEnvironment(orchestrators=[agent]) as env:
        env.stub("call_model", returns="x")
        handle = await env.start(agent, input="why")
        await handle.result()
    with pytest.raises(ReplayError, match=r"history:  run\('call_model', \[\"why\"\]\)"):
        replay(handle.history, as_orchestrator(renamed, name="agent"))


def unlucky(number):
    raise ValueError(f"not {number}")


async def approved(ctx, question):
    found = await ctx.run(search, question, 2)
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=2)
    try:
        await ctx.run(unlucky, 13, retry_policy=policy)
    except StepFailedError:
        ctx.patched("polite")
    async for request in ctx.requests("approve"):
        if request.data:
            request.answer("thank you")
            return found
        request.refuse("say yes")
    return None


async def test_a_history_is_shown_with_steps_patches_and_requests_by_name():
    async with WorkflowEnvironment(orchestrators=[approved]) as env:
        handle = await env.start(approved, input="why")
        with pytest.raises(Exception, match="say yes"):
            await handle.ask("approve", False)
        await handle.ask("approve", True)
        await handle.result()
    redacted = handle.history.redacted()
    assert replay(redacted, approved, payloads=False).steps == replay(handle.history, approved).steps
    assert not re.search("why|say yes|thank you|not 13", redacted.to_json())
    rows = [re.sub(r"  +", "  ", line).strip() for line in render_text(handle.history).splitlines()[2:]]
    assert rows == [
        '├─ ✓ step search  start  ["why", 2]  → ["why", "why"]',
        "├─ ✗ step unlucky  start  [13]  ValueError: not 13",
        "├─ ◷ timer until 2024-01-01 00:00:05  start  5 s",
        "├─ ✗ request approve  start  5 s  false  refused: say yes",
        "├─ ✗ step unlucky  +5 s  [13]  ValueError: not 13",
        "├─ • patch polite  +5 s",
        '├─ ✓ request approve  +5 s  0 ms  true  → "thank you"',
        '└─ returned ["why", "why"]',
    ]


async def with_keywords(ctx, question):
    return await ctx.run(functools.partial(search, limit=3), question)


async def call_twice(ctx, question):
    outcomes = []
    for _ in range(3):
        try:
            outcomes.append(await ctx.run(search, question, 1))
        except StepFailedError as error:
            outcomes.append(error.details.message)
    return outcomes


async def test_the_stub_of_a_step_has_its_arguments_and_calls():
    async with WorkflowEnvironment(orchestrators=[with_keywords, call_twice]) as env:
        stub = env.stub(search, calls=lambda query, limit: f"{query} {limit}")
        assert await env.execute(with_keywords, input="why", instance_id="i") == "why 3"
        (call,) = stub.calls
        assert (call.name, call.input, call.instance_id, call.task_id) == ("search", ["why"], "i", 1)
        assert (call.result, call.is_done, call.at.isoformat()) == ("why 3", True, "2024-01-01T00:00:00+00:00")

        stub = env.stub("search", sequence=["found", ValueError("nothing"), NEVER])
        assert await env.execute(call_twice, input="why") == [
            "found",
            "nothing",
            "the stub of the step never ends, so that its time is over",
        ]
        assert [type(call.error) for call in stub.calls] == [type(None), ValueError, TimeoutError]
