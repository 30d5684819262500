"""Requests to running workflows and their answers: both clients on three engines, and in the test environment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from durabletask.aio import AsyncWorkflowContext, WorkflowValidationError
from durabletask.aio.client import (
    AsyncWorkflowClient,
    RequestRefusedError,
    RequestUnansweredError,
    WorkflowClient,
    WorkflowNotFoundError,
)
from durabletask.aio.engine import Engine
from durabletask.aio.testing import WorkflowEnvironment, WorkflowStuckError, local_backend
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

from durabletask_aio.core.replies import REPLY_WORKFLOW

SECONDS = 30.0
"""The limit of the waits that end long before it."""


@dataclass
class Approval:
    by: str
    amount: int


@dataclass
class Receipt:
    total: int


async def order(ctx: AsyncWorkflowContext, limit: int) -> str:
    """Answer approvals up to a limit, and end with the approval of nothing."""
    async for request in ctx.requests("approve", Approval):
        if request.data.amount > limit:
            request.refuse("too much")
        else:
            request.answer(Receipt(request.data.amount))
            if request.data.amount == 0:
                return f"ended by {request.data.by}"
    return "never"


async def renewing(ctx: AsyncWorkflowContext, count: int) -> int:
    """Answer one request in each execution."""
    request = await ctx.requests("count").__anext__()
    request.answer(count)
    if request.data == "last":
        return count
    ctx.continue_as_new(count + 1)
    return count


async def silent(ctx: AsyncWorkflowContext) -> None:
    """Take a request, and end without answering."""
    await ctx.requests("approve").__anext__()


async def failing(ctx: AsyncWorkflowContext) -> None:
    await ctx.requests("approve").__anext__()
    raise ValueError("boom")


async def eternal(ctx: AsyncWorkflowContext) -> None:
    await ctx.wait_for_external_event("never")


class Clients(NamedTuple):
    """How to reach one engine."""

    client: Callable[[], TaskHubGrpcClient]
    async_client: Callable[[], AsyncTaskHubGrpcClient]
    worker: Callable[..., TaskHubGrpcWorker]


def at(address: str) -> Clients:
    return Clients(
        lambda: TaskHubGrpcClient(host_address=address),
        lambda: AsyncTaskHubGrpcClient(host_address=address),
        lambda **options: TaskHubGrpcWorker(host_address=address, **options),
    )


@contextlib.contextmanager
def engine_in_process() -> Iterator[Clients]:
    with Engine() as engine:
        yield Clients(engine.client, engine.async_client, engine.worker)


@contextlib.contextmanager
def engine_over_grpc() -> Iterator[Clients]:
    with local_backend() as backend:
        yield at(backend.address)


@contextlib.contextmanager
def upstreams_engine() -> Iterator[Clients]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = InMemoryOrchestrationBackend(port=port)
    address = backend.start()
    try:
        yield at(address)
    finally:
        backend.stop()


@pytest.fixture(
    scope="module",
    params=[(engine_in_process, 100), (engine_in_process, 0), (engine_over_grpc, 100), (upstreams_engine, 0)],
    ids=["in process", "without sessions", "over gRPC", "upstream's engine"],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Clients]:
    open_engine, sessions = request.param
    with open_engine() as clients:
        worker = clients.worker(max_extended_sessions=sessions)
        worker.add_orchestrators(order, renewing, silent, failing, eternal)
        worker.start()
        yield clients
        worker.stop()


@pytest.fixture(autouse=True)
def patient_cleanup(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the tests find nothing that was left behind."""
    monkeypatch.setattr("durabletask_aio.core.asking._END", SECONDS)


class Case:
    """One of the two clients, with its methods as coroutines."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def call(self, method: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        if asyncio.iscoroutinefunction(method):
            return await method(*args, **keywords)
        return await asyncio.to_thread(method, *args, **keywords)

    async def start(self, *args: Any, **keywords: Any) -> Any:
        return await self.call(self.client.start, *args, **keywords)

    async def replies(self) -> list[Any]:
        """The instances of the reply workflow that are left."""
        states = await self.call(self.client.client.get_all_orchestration_states)
        return [state for state in states if state.name == REPLY_WORKFLOW]


@pytest.fixture(params=["sync", "async"])
async def case(request: pytest.FixtureRequest, engine: Clients) -> AsyncIterator[Case]:
    if request.param == "sync":
        with engine.client() as upstream:
            case = Case(WorkflowClient(upstream))
            yield case
            assert await case.replies() == []
    else:
        async with engine.async_client() as upstream:
            case = Case(AsyncWorkflowClient(upstream))
            yield case
            assert await case.replies() == []


class TestAnswers:
    async def test_come_back_as_plain_data_or_as_a_type(self, case: Case) -> None:
        handle = await case.start(order, input=10)

        assert await case.call(handle.ask, "approve", Approval("ann", 5), timeout=SECONDS) == {"total": 5}
        answer = await case.call(handle.ask, "Approve", {"by": "ann", "amount": 0}, return_type=Receipt)
        assert answer == Receipt(0)
        assert await case.call(handle.result, timeout=SECONDS) == "ended by ann"

    async def test_of_another_type_are_an_error(self, case: Case) -> None:
        handle = await case.start(order, input=10)

        with pytest.raises(TypeError, match="the answer to the request 'approve' is no Approval"):
            await case.call(handle.ask, "approve", Approval("ann", 0), timeout=SECONDS, return_type=Approval)

    async def test_may_be_refusals(self, case: Case) -> None:
        handle = await case.start(order, input=10)

        with pytest.raises(RequestRefusedError, match="the request 'approve' was refused: too much") as caught:
            await case.call(handle.ask, "approve", Approval("ann", 50), timeout=SECONDS)
        assert (caught.value.reason, caught.value.instance_id) == ("too much", handle.instance_id)
        with pytest.raises(RequestRefusedError, match="the data of the request 'approve' is no Approval: it is 7"):
            await case.call(handle.ask, "approve", 7, timeout=SECONDS)
        await case.call(handle.ask, "approve", Approval("ann", 0), timeout=SECONDS)

    async def test_go_each_to_its_own_client(self, case: Case) -> None:
        handle = await case.start(order, input=100)

        asked = [case.call(handle.ask, "approve", Approval("ann", n), timeout=SECONDS) for n in range(1, 9)]
        assert await asyncio.gather(*asked) == [{"total": n} for n in range(1, 9)]
        await case.call(handle.terminate)

    async def test_follow_the_instance_through_its_executions(self, case: Case) -> None:
        handle = await case.start(renewing, input=0)

        asked = [case.call(handle.ask, "count", n, timeout=SECONDS) for n in range(5)]
        assert sorted(await asyncio.gather(*asked)) == [0, 1, 2, 3, 4]
        assert await case.call(handle.ask, "count", "last", timeout=SECONDS) == 5


class TestWithoutAnswer:
    @pytest.mark.parametrize(("workflow", "how"), [(silent, "completed"), (failing, "failed")])
    async def test_the_end_of_the_workflow_is_told(self, case: Case, workflow: Any, how: str) -> None:
        handle = await case.start(workflow)

        with pytest.raises(RequestUnansweredError) as caught:
            await case.call(handle.ask, "approve", timeout=SECONDS)
        assert caught.value.message == f"the request 'approve' has no answer: the workflow has {how} without answering"
        with pytest.raises(RequestUnansweredError, match=f"the workflow has {how}, and takes no requests"):
            await case.call(handle.ask, "approve", timeout=SECONDS)

    async def test_a_termination_is_noticed(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("durabletask_aio.core.asking._GRACE", 0.05)
        handle = await case.start(eternal)
        asked = asyncio.ensure_future(case.call(handle.ask, "approve", timeout=SECONDS))
        while not await case.replies():
            await asyncio.sleep(0.01)
        await case.call(handle.terminate)

        with pytest.raises(RequestUnansweredError, match="the workflow was terminated"):
            await asked

    async def test_a_timeout_says_what_the_instance_does(self, case: Case) -> None:
        handle = await case.start(eternal, instance_id=None)
        while await case.call(handle.status) is not OrchestrationStatus.RUNNING:
            await asyncio.sleep(0.01)

        with pytest.raises(TimeoutError) as caught:
            await case.call(handle.ask, "approve", timeout=0.1)
        assert str(caught.value) == (
            f"workflow 'eternal', instance {handle.instance_id!r}, has not answered the request 'approve' within 0.1 "
            "seconds; it is RUNNING"
        )
        await case.call(handle.terminate)

    async def test_an_instance_that_does_not_exist_is_said(self, case: Case) -> None:
        with pytest.raises(WorkflowNotFoundError, match="there is no instance 'nowhere'"):
            await case.call(case.client.get_handle("nowhere").ask, "approve", timeout=SECONDS)

    @pytest.mark.parametrize("name", ["", None, 7])
    async def test_a_wrong_name_is_refused_at_once(self, case: Case, name: Any) -> None:
        with pytest.raises(WorkflowValidationError, match="the name of a request is a string"):
            await case.call(case.client.get_handle("any").ask, name)

    @pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("5", TypeError)])
    async def test_a_wrong_timeout_is_refused_at_once(self, case: Case, timeout: Any, error: Any) -> None:
        with pytest.raises(error, match="timeout"):
            await case.call(case.client.get_handle("any").ask, "approve", timeout=timeout)


async def test_cancelling_the_wait_leaves_nothing_behind(engine: Clients) -> None:
    async with engine.async_client() as upstream:
        case = Case(AsyncWorkflowClient(upstream))
        handle = await case.start(eternal)
        asked = asyncio.ensure_future(handle.ask("approve"))
        while not await case.replies():
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await case.replies() == []
        await handle.terminate()


def test_a_missing_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durabletask_aio.core.asking._END", 0.01)
    with engine_in_process() as clients, clients.client() as upstream:
        client = WorkflowClient(upstream)
        handle = client.start(eternal)
        with pytest.raises(TimeoutError, match="is one connected"):
            handle.ask("approve", timeout=0.1)


class TestEnvironment:
    async def test_answers_and_refuses(self) -> None:
        async with WorkflowEnvironment(orchestrators=[order]) as env:
            handle = await env.start(order, input=10)
            assert await handle.ask("approve", Approval("ann", 5), return_type=Receipt) == Receipt(5)
            with pytest.raises(RequestRefusedError, match="too much"):
                await handle.ask("approve", Approval("ann", 50))
            assert await handle.ask("approve", Approval("ann", 0)) == {"total": 0}
            assert await handle.result() == "ended by ann"
            assert [history.workflow_name for history in env.histories] == ["order"]

    async def test_lets_time_pass_on_its_clock_only(self) -> None:
        async with WorkflowEnvironment(orchestrators=[eternal]) as env:
            handle = await env.start(eternal)
            before = env.now
            with pytest.raises(TimeoutError, match="has not answered the request 'approve' within 3600 seconds"):
                await handle.ask("approve", timeout=3600)
            assert (env.now - before).total_seconds() == 3600
            await handle.terminate()

    async def test_says_what_ended_and_what_is_stuck(self) -> None:
        async with WorkflowEnvironment(orchestrators=[silent, eternal, failing], stuck_timeout=0.05) as env:
            for workflow, how in ((silent, "completed"), (failing, "failed")):
                handle = await env.start(workflow)
                with pytest.raises(RequestUnansweredError, match=f"has {how} without answering"):
                    await handle.ask("approve")
            handle = await env.start(eternal)
            with pytest.raises(WorkflowStuckError, match="the event 'never'"):
                await handle.ask("approve")
            await handle.terminate()
            with pytest.raises(RequestUnansweredError, match="was terminated, and takes no requests"):
                await handle.ask("approve")

    async def test_follows_an_instance_through_its_executions(self) -> None:
        async with WorkflowEnvironment(orchestrators=[renewing]) as env:
            handle = await env.start(renewing, input=0)
            assert [await handle.ask("count", n) for n in range(3)] == [0, 1, 2]
            assert await handle.ask("count", "last") == 3
