"""Steps and patches in the test environment and in replays of recorded histories."""

import pytest

from durabletask_aio.core import as_orchestrator
from durabletask_aio.testing import ReplayError, WorkflowEnvironment, replay, verify_deterministic


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
