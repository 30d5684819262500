"""Agents of `agent-framework-durabletask`, whose tasks are of a class of its own, awaited in an async workflow.

Skipped where it is not installed; the language model is a function of the messages.
"""

from __future__ import annotations

from typing import Any

import pytest
from durabletask.aio import ActivityFailedError, AsyncWorkflowContext, WorkflowTimeoutError
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from worker_support import QUIET, run

from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

framework: Any = pytest.importorskip("agent_framework")
durable: Any = pytest.importorskip("agent_framework_durabletask")


class Model(framework.BaseChatClient):
    """Answers at once, with the last message in capital letters and the number of messages it was given."""

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **_: Any) -> Any:
        if stream:
            raise NotImplementedError  # The library then asks for the whole answer.

        async def answer() -> Any:
            text = f"{messages[-1].text.upper()} ({len(messages)})"
            return framework.ChatResponse(messages=[framework.Message("assistant", [text])])

        return answer()


def agent_of(ctx: AsyncWorkflowContext) -> Any:
    return durable.DurableAIAgentOrchestrationContext(ctx.upstream_context).get_agent("writer")


async def in_turn(ctx: AsyncWorkflowContext) -> list[str]:
    agent = agent_of(ctx)
    session = agent.create_session()
    first = await ctx.wait_for_task(agent.run("hello", session=session))
    second = await ctx.wait_for_task(agent.run(f"you said {first.text}", session=session))
    return [first.text, second.text]


async def at_once(ctx: AsyncWorkflowContext) -> list[str]:
    agent = agent_of(ctx)
    answers = await ctx.gather(*(ctx.wait_for_task(agent.run(word)) for word in ("tea", "milk", "sugar")))
    return [answer.text for answer in answers]


async def limited(ctx: AsyncWorkflowContext) -> str:
    agent = agent_of(ctx)
    answer = await ctx.with_timeout(ctx.wait_for_task(agent.run("quick")), 60)
    try:
        await ctx.with_timeout(ctx.wait_for_external_event("never"), 0.01)
    except WorkflowTimeoutError:
        return str(answer.text)
    return ""


async def fire_and_forget(ctx: AsyncWorkflowContext) -> str:
    accepted = await ctx.wait_for_task(agent_of(ctx).run("note it", options={"wait_for_response": False}))
    return str(accepted.messages[0].role)


async def unreadable(ctx: AsyncWorkflowContext) -> str:
    answer = agent_of(ctx).run("hello")
    answer._response_format = dict  # it has no method to validate with, so the library fails to read the answer
    try:
        await ctx.wait_for_task(answer)
    except ActivityFailedError as error:
        return str(error)
    return ""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "replayed"])
@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        (in_turn, ["HELLO (1)", "YOU SAID HELLO (1) (3)"]),
        (at_once, ["TEA (1)", "MILK (1)", "SUGAR (1)"]),
        (limited, "QUICK (1)"),
        (fire_and_forget, "system"),
    ],
)
def test_agents_are_awaited(
    engine: LocalBackend, client: TaskHubGrpcClient, workflow: Any, expected: Any, sessions: bool
) -> None:
    state = run_with_agent(engine, client, workflow, sessions)
    assert state.runtime_status == OrchestrationStatus.COMPLETED, state.failure_details
    assert state.get_output() == expected


def test_a_failure_of_the_library_is_a_failure_of_the_task(engine: LocalBackend, client: TaskHubGrpcClient) -> None:
    state = run_with_agent(engine, client, unreadable, sessions=True)
    assert state.get_output().startswith("task 'DurableAgentTask' failed with ")


def run_with_agent(engine: LocalBackend, client: TaskHubGrpcClient, workflow: Any, sessions: bool) -> Any:
    """Return the state of an instance of `workflow` at its end, on a worker that has the agent."""
    worker = TaskHubGrpcWorker(host_address=engine.address, logger=QUIET, max_extended_sessions=None if sessions else 0)
    durable.DurableAIAgentWorker(worker).add_agent(framework.Agent(client=Model(), name="writer"))
    worker.add_orchestrator(workflow)
    with worker:
        worker.start()
        return run(client, workflow)
