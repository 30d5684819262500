"""Both workflow clients and their handles: on this project's engine, in process and over gRPC, and on upstream's.

The same tests run on the client of a `WorkflowEnvironment`, whose time is virtual.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import inspect
import itertools
import logging
import pickle
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest
from durabletask.aio import AsyncWorkflowContext, WorkflowCancelledError, WorkflowValidationError, as_orchestrator
from durabletask.aio.client import (
    AsyncWorkflowClient,
    AsyncWorkflowHandle,
    WorkflowClient,
    WorkflowFailedError,
    WorkflowHandle,
    WorkflowNotFoundError,
    WorkflowTerminatedError,
)
from durabletask.aio.engine import Engine
from durabletask.aio.testing import WorkflowEnvironment, WorkflowStuckError, local_backend
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationFailedError, OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

from durabletask_aio.core import handles

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name
SECONDS = 30.0
"""The limit of the waits that end long before it."""


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Order:
    id: str
    size: Size = Size.SMALL


@dataclass
class Receipt:
    order: Order
    total: int


def charge(ctx: Any, order: Order) -> int:
    if order.id == "declined":
        raise ValueError("the card has expired")
    return 3


async def buy(ctx: AsyncWorkflowContext, order: Order) -> Receipt:
    return Receipt(order, await ctx.call_activity(charge, input=order))


async def buy_all(ctx: AsyncWorkflowContext, orders: list[Order]) -> dict[str, Receipt]:
    return {order.id: await buy(ctx, order) for order in orders}


async def approval(ctx: AsyncWorkflowContext) -> str:
    return f"approved by {await ctx.wait_for_external_event('approved')}"


async def wrapping(ctx: AsyncWorkflowContext) -> None:
    try:
        await ctx.call_activity(charge, input=Order("declined"))
    except Exception as error:
        raise LookupError("no receipt") from error


async def answering(ctx: AsyncWorkflowContext) -> None:
    async for request in ctx.requests("count", data_type=int):
        request.answer(2 * request.data)


async def slow(ctx: AsyncWorkflowContext, days: int) -> int:
    await ctx.sleep(timedelta(days=days))
    return days


async def facts(ctx: AsyncWorkflowContext) -> list[Any]:
    return [ctx.instance_id, ctx.version]


async def patient(ctx: AsyncWorkflowContext) -> str:
    try:
        return str(await ctx.wait_for_external_event("approved"))
    except asyncio.CancelledError:
        await ctx.call_activity(charge, input=Order("cleanup"))
        raise


def generator(ctx: Any, order: Order) -> Any:
    total = yield ctx.call_activity(charge, input=order)
    return total


@as_orchestrator(name="purchase")
async def decorated(ctx: AsyncWorkflowContext, order: Order) -> Receipt:
    return await buy(ctx, order)


class Clients(NamedTuple):
    """How to reach one engine."""

    client: Callable[[], TaskHubGrpcClient]
    async_client: Callable[[], AsyncTaskHubGrpcClient]
    worker: Callable[[], TaskHubGrpcWorker]


def at(address: str) -> Clients:
    return Clients(
        lambda: TaskHubGrpcClient(host_address=address, logger=QUIET),
        lambda: AsyncTaskHubGrpcClient(host_address=address, logger=QUIET),
        lambda: TaskHubGrpcWorker(host_address=address, logger=QUIET),
    )


@contextlib.contextmanager
def engine_in_process() -> Iterator[Clients]:
    with Engine() as engine:
        yield Clients(
            lambda: engine.client(logger=QUIET),
            lambda: engine.async_client(logger=QUIET),
            lambda: engine.worker(logger=QUIET),
        )


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


ENGINES = [engine_in_process, engine_over_grpc, upstreams_engine]
ORCHESTRATORS: list[Any] = [buy, buy_all, approval, wrapping, patient, facts, generator, decorated]


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[Any], Clients]]:
    """Starts each engine when it is first asked for."""
    with contextlib.ExitStack() as stack:
        running: dict[Any, Clients] = {}

        def start(engine: Any) -> Clients:
            if engine not in running:
                clients = running[engine] = stack.enter_context(engine())
                worker = stack.enter_context(clients.worker())
                worker.add_orchestrators(*ORCHESTRATORS)
                worker.add_activities(charge)
                worker.start()
            return running[engine]

        yield start


class Case:
    """One of the two clients, with its methods as coroutines."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def call(self, method: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(*args, **keywords)
        return await asyncio.to_thread(method, *args, **keywords)

    async def start(self, *args: Any, **keywords: Any) -> Any:
        return await self.call(self.client.start, *args, **keywords)

    async def reached(self, handle: Any, status: OrchestrationStatus) -> None:
        """Wait until an instance has a status."""
        end = time.monotonic() + SECONDS
        while await self.call(handle.status) is not status:
            assert time.monotonic() < end, f"it has not become {status}"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def environment() -> AsyncIterator[Case]:
    now = datetime.now(timezone.utc)  # as on the machine's clock, which a test of scheduled starts uses
    async with WorkflowEnvironment(orchestrators=ORCHESTRATORS, activities=[charge], start_time=now) as env:
        yield Case(env.client)


@contextlib.asynccontextmanager
async def synchronous(clients: Clients) -> AsyncIterator[Case]:
    with clients.client() as upstream:
        yield Case(WorkflowClient(upstream))


@contextlib.asynccontextmanager
async def asynchronous(clients: Clients) -> AsyncIterator[Case]:
    async with clients.async_client() as upstream:
        yield Case(AsyncWorkflowClient(upstream))


@pytest.fixture(
    params=[*itertools.product([synchronous, asynchronous], ENGINES), None],
    ids=lambda param: "environment" if param is None else "-".join(each.__name__ for each in param),
)
async def case(request: pytest.FixtureRequest, started: Callable[[Any], Clients]) -> AsyncIterator[Case]:
    async with environment() if request.param is None else request.param[0](started(request.param[1])) as case:
        yield case


class TestResult:
    async def test_is_of_the_type_that_the_workflow_says(self, case: Case) -> None:
        handle = await case.start(buy, input=Order("a", Size.LARGE))

        assert await case.call(handle.result, timeout=SECONDS) == Receipt(Order("a", Size.LARGE), 3)
        assert await case.call(handle.result) == Receipt(Order("a", Size.LARGE), 3)
        assert await case.call(handle.result, timeout=0) == Receipt(Order("a", Size.LARGE), 3)
        assert await case.call(handle.status) is OrchestrationStatus.COMPLETED

    async def test_may_be_nested_in_the_annotation(self, case: Case) -> None:
        handle = await case.start(buy_all, input=[Order("a"), Order("b")])

        assert await case.call(handle.result, timeout=SECONDS) == {
            "a": Receipt(Order("a"), 3),
            "b": Receipt(Order("b"), 3),
        }

    async def test_of_what_as_orchestrator_made_has_its_name_and_type(self, case: Case) -> None:
        handle = await case.start(decorated, input=Order("a"))

        assert await case.call(handle.result, timeout=SECONDS) == Receipt(Order("a"), 3)
        assert (await case.call(handle.state)).name == "purchase"

    async def test_is_plain_data_for_a_name_and_for_a_generator_without_a_type(self, case: Case) -> None:
        named = await case.start("buy", input=Order("a"))
        of_generator = await case.start(generator, input=Order("a"))

        assert await case.call(named.result, timeout=SECONDS) == {"order": {"id": "a", "size": "small"}, "total": 3}
        assert await case.call(named.result, return_type=Receipt) == Receipt(Order("a"), 3)
        assert await case.call(of_generator.result, timeout=SECONDS) == 3

    async def test_of_a_handle_for_an_instance_started_elsewhere(self, case: Case) -> None:
        started = await case.start(buy, input=Order("a"))
        await case.call(started.result, timeout=SECONDS)

        typed = case.client.get_handle(started.instance_id, buy)
        assert await case.call(typed.result) == Receipt(Order("a"), 3)
        assert (await case.call(case.client.get_handle(started.instance_id).result))["total"] == 3

    async def test_is_waited_for_longer_than_one_call_waits(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handles, "_LONGEST_WAIT", 0.05)
        handle = await case.start(approval)
        waiting = asyncio.ensure_future(case.call(handle.result))
        with pytest.raises(TimeoutError):
            await case.call(handle.result, timeout=0.2)  # Several calls of the other one have timed out by now.
        await case.call(handle.raise_event, "approved", "Ada")

        assert await asyncio.wait_for(waiting, SECONDS) == "approved by Ada"

    async def test_that_is_late_is_a_timeout_that_names_the_instance(self, case: Case) -> None:
        handle = await case.start(approval)
        await case.reached(handle, OrchestrationStatus.RUNNING)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError) as caught:
                await case.call(handle.result, timeout=timeout)
            assert str(caught.value) == (
                f"workflow 'approval', instance {handle.instance_id!r}, has not ended within {timeout} seconds; it is "
                "RUNNING"
            )
        await case.call(handle.terminate)

    @pytest.mark.parametrize(
        ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError)]
    )
    async def test_needs_a_timeout_that_is_a_number_of_seconds(self, case: Case, timeout: Any, error: Any) -> None:
        with pytest.raises(error, match="timeout"):
            await case.call(case.client.get_handle("any").result, timeout=timeout)


class TestFailure:
    async def test_has_type_message_and_causes(self, case: Case) -> None:
        handle = await case.start(wrapping)
        with pytest.raises(WorkflowFailedError) as caught:
            await case.call(handle.result, timeout=SECONDS)
        error = caught.value

        assert isinstance(error, OrchestrationFailedError)
        assert (error.details.error_type.rpartition(".")[2], error.details.message) == ("LookupError", "no receipt")
        assert error.failure_details is error.details
        assert error.details.is_caused_by(LookupError)
        assert (error.instance_id, error.workflow_name) == (handle.instance_id, "wrapping")
        assert len(error.causes) >= 1
        assert "the card has expired" in error.causes[0].message
        lines = str(error).splitlines()
        assert lines[0] == (
            f"the workflow failed with {error.details.error_type}: no receipt "
            f"[workflow 'wrapping', instance {handle.instance_id!r}]"
        )
        assert lines[1].startswith(f"  caused by {error.causes[0].error_type}: ")
        assert await case.call(handle.status) is OrchestrationStatus.FAILED

    async def test_of_an_activity_names_it(self, case: Case) -> None:
        handle = await case.start(buy, input=Order("declined"))

        with pytest.raises(WorkflowFailedError, match="the card has expired"):
            await case.call(handle.result, timeout=SECONDS)

    async def test_can_be_pickled(self, case: Case) -> None:
        handle = await case.start(wrapping)
        with pytest.raises(WorkflowFailedError) as caught:
            await case.call(handle.result, timeout=SECONDS)
        copy = pickle.loads(pickle.dumps(caught.value))

        assert (str(copy), copy.details, copy.causes) == (str(caught.value), caught.value.details, caught.value.causes)

    async def test_is_another_one_than_a_termination(self, case: Case) -> None:
        handle = await case.start(approval)
        await case.reached(handle, OrchestrationStatus.RUNNING)
        await case.call(handle.terminate, {"by": "Ada"})
        with pytest.raises(WorkflowTerminatedError) as caught:
            await case.call(handle.result, timeout=SECONDS)

        assert not isinstance(caught.value, OrchestrationFailedError)
        assert caught.value.output == {"by": "Ada"}
        assert str(caught.value) == (
            "the workflow was terminated, with the output {'by': 'Ada'} "
            f"[workflow 'approval', instance {handle.instance_id!r}]"
        )
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.output) == (str(caught.value), caught.value.output)


class TestActing:
    async def test_events_suspending_resuming_and_the_history(self, case: Case) -> None:
        handle = await case.start(approval)
        await case.reached(handle, OrchestrationStatus.RUNNING)
        await case.call(handle.suspend, "a holiday")
        await case.reached(handle, OrchestrationStatus.SUSPENDED)
        await case.call(handle.resume, "over")
        await case.call(handle.raise_event, "approved", "Ada")

        assert await case.call(handle.result, timeout=SECONDS) == "approved by Ada"
        kinds = [type(event).__name__ for event in await case.call(handle.history)]
        assert {"ExecutionStartedEvent", "EventRaisedEvent", "ExecutionCompletedEvent"} <= set(kinds)

    @pytest.mark.parametrize("reason", ["the customer has left", None])
    async def test_cancelling_is_told_apart_from_a_failure(self, case: Case, reason: str | None) -> None:
        handle = await case.start(patient)
        await case.reached(handle, OrchestrationStatus.RUNNING)
        await case.call(handle.cancel, reason)
        with pytest.raises(WorkflowCancelledError) as caught:
            await case.call(handle.result, timeout=SECONDS)

        assert caught.value.reason == reason
        assert (caught.value.instance_id, caught.value.workflow_name) == (handle.instance_id, "patient")
        assert await case.call(handle.status) is OrchestrationStatus.FAILED
        kinds = [type(event).__name__ for event in await case.call(handle.history)]
        assert "TaskCompletedEvent" in kinds  # of the activity that cleans up
        wrong: Any = 5
        with pytest.raises(WorkflowValidationError, match="reason of a cancellation"):
            await case.call(handle.cancel, wrong)

    async def test_options_of_a_start(self, case: Case) -> None:
        instance_id = f"order-{time.monotonic_ns()}"
        soon = datetime.now(timezone.utc) + timedelta(milliseconds=50)
        handle = await case.start(facts, instance_id=instance_id, version="1.5", tags={"a": "b"}, start_at=soon)

        assert handle.instance_id == instance_id
        assert await case.call(handle.result, timeout=SECONDS) == [instance_id, "1.5"]
        assert handle.instance_id in repr(handle)


class TestAnUnknownInstance:
    async def test_is_named(self, case: Case) -> None:
        handle = case.client.get_handle("nobody")
        calls = [
            *(handle.status, handle.state, handle.history, handle.suspend, handle.resume, handle.cancel),
            *(handle.result, functools.partial(handle.raise_event, "approved")),
        ]
        for call in calls:
            with pytest.raises(WorkflowNotFoundError) as caught:
                await case.call(call)
            assert str(caught.value) == "there is no instance 'nobody'; it was never started, or was purged"
            assert isinstance(caught.value, LookupError)


class TestMistakes:
    def test_an_async_client_in_place_of_the_other_one(self) -> None:
        with Engine() as engine, engine.client() as upstream:
            wrong: Any = AsyncWorkflowClient
            with pytest.raises(WorkflowValidationError) as caught:
                wrong(upstream)
        lines = str(caught.value).splitlines()
        assert lines[0].startswith("AsyncWorkflowClient takes upstream's AsyncTaskHubGrpcClient, and not <")
        assert lines[1:] == [
            "  wrong: AsyncWorkflowClient(TaskHubGrpcClient(...))",
            "  right: WorkflowClient(client), or AsyncWorkflowClient(AsyncTaskHubGrpcClient(host_address=...))",
        ]

    def test_no_client_at_all(self) -> None:
        wrong: Any = WorkflowClient
        with pytest.raises(WorkflowValidationError, match=r"right: WorkflowClient\(TaskHubGrpcClient\(host_address"):
            wrong("localhost:4001")

    async def test_what_cannot_be_started(self, case: Case) -> None:
        for wrong in (None, 5, "", buy(None, None)):
            with pytest.raises(WorkflowValidationError, match=r"start\(\) takes a workflow function, or the name"):
                await case.start(wrong)
            if inspect.iscoroutine(wrong):
                wrong.close()

    @pytest.mark.parametrize("wrong", [None, "", 5])
    async def test_what_is_no_id(self, case: Case, wrong: Any) -> None:
        with pytest.raises(WorkflowValidationError, match=r"get_handle\(\) takes the id of an instance, and not"):
            case.client.get_handle(wrong)


class TestOnAVirtualClock:
    async def test_time_passes_while_a_result_is_waited_for(self) -> None:
        async with WorkflowEnvironment(orchestrators=[slow, approval], stuck_timeout=0.05) as env:
            started = env.now
            handle = await env.client.start(slow, input=30)
            assert (handle.instance_id, await handle.status()) == ("slow-1", OrchestrationStatus.RUNNING)
            with pytest.raises(TimeoutError, match="has not ended within 3600 seconds; it is RUNNING"):
                await handle.result(timeout=3600)
            assert env.now - started == timedelta(hours=1)
            assert await handle.result() == 30
            assert env.now - started == timedelta(days=30)
            # The limits of the waits are gone with them: no time passes for what cannot happen.
            assert await handle.result(timeout=5) == 30
            await env.client.client.wait_for_orchestration_completion(handle.instance_id, timeout=5)
            waiting = await env.client.start(approval)
            with pytest.raises(WorkflowStuckError, match="waits for the event 'approved'"):
                await env.client.get_handle(waiting.instance_id).result()
            assert env.now - started == timedelta(days=30)

    async def test_a_request_is_answered_and_waited_for_in_virtual_time(self) -> None:
        async with WorkflowEnvironment(orchestrators=[answering, slow]) as env:
            handle = await env.client.start(answering)
            assert await handle.ask("count", 2, return_type=int) == 4
            started = env.now
            silent = await env.client.start(slow, input=30)
            with pytest.raises(TimeoutError, match="has not answered the request 'count' within 3600 seconds"):
                await silent.ask("count", 2, timeout=3600)
            assert env.now - started == timedelta(hours=1)
            with pytest.raises(WorkflowNotFoundError):
                await env.client.get_handle("nobody").ask("count", 2)

    async def test_limits_of_several_waits_are_kept_in_order(self) -> None:
        async with WorkflowEnvironment(orchestrators=[slow]) as env:
            started = env.now
            handles = [await env.client.start(slow, input=days) for days in (1, 2, 9)]
            results = [handle.result(timeout=5 * 86_400) for handle in handles]
            outcomes = await asyncio.gather(*results, return_exceptions=True)
            assert outcomes[:2] == [1, 2]
            assert isinstance(outcomes[2], TimeoutError)
            assert env.now - started == timedelta(days=5)

    async def test_without_skipping_time_is_the_tests(self) -> None:
        async with WorkflowEnvironment(orchestrators=[slow], auto_skip=False, stuck_timeout=0.05) as env:
            handle = await env.client.start(slow, input=2)
            with pytest.raises(WorkflowStuckError, match="auto_skip is off, so time has to be advanced"):
                await handle.result(timeout=60)
            waiting = asyncio.ensure_future(handle.result(timeout=86_400))
            await asyncio.sleep(0)
            await env.advance(timedelta(days=1))
            with pytest.raises(TimeoutError):
                await waiting
            await env.advance(timedelta(days=1))
            assert await handle.result() == 2

    async def test_a_failure_has_the_exception_of_the_workflow_and_the_histories(self) -> None:
        async with WorkflowEnvironment(orchestrators=[wrapping], activities=[charge]) as env:
            handle = await env.client.start(wrapping)
            with pytest.raises(WorkflowFailedError, match="no receipt") as caught:
                await handle.result()
            assert isinstance(caught.value.__cause__, LookupError)
            assert [each.instance_id for each in vars(caught.value)["workflow_histories"]] == ["wrapping-1"]

    async def test_names_that_are_not_registered_are_refused_at_once(self) -> None:
        async with WorkflowEnvironment(orchestrators=[approval]) as env:
            with pytest.raises(LookupError, match=r"no orchestrator 'approva' is registered here; .* mean 'approval'"):
                await env.client.start("approva")
            with pytest.raises(LookupError, match="no entity 'counter' is registered here"):
                await env.client.client.signal_entity(EntityInstanceId("counter", "a"), "add")

    async def test_what_has_happened_can_be_read_when_the_environment_is_closed(self) -> None:
        async with WorkflowEnvironment(orchestrators=[approval]) as env:
            handle = await env.client.start(approval, instance_id="a")
            assert (await env.client.client.wait_for_orchestration_start("a", timeout=5)) is not None
            assert env.client is env.client
        assert await handle.status() is OrchestrationStatus.RUNNING
        assert (await env.client.client.get_all_orchestration_states())[0].instance_id == "a"
        with pytest.raises(RuntimeError, match="this workflow environment has been closed"):
            await handle.raise_event("approved")


async def test_a_handle_of_an_environment_cancels_as_one_of_a_client() -> None:
    async with WorkflowEnvironment(orchestrators=[patient], activities=[charge]) as environment:
        started = await environment.start(patient)
        handle = environment.get_handle(started.instance_id)
        await handle.cancel("the customer has left")

        with pytest.raises(OrchestrationFailedError, match="the customer has left") as caught:
            await handle.result()
        assert caught.value.failure_details.error_type == "durabletask.aio.WorkflowCancelledError"
        assert [call.name for call in environment.calls] == ["charge"]
        with pytest.raises(KeyError, match="no instance 'nobody'"):
            environment.get_handle("nobody")


def test_both_kinds_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: inspect.signature(method).replace(return_annotation=inspect.Signature.empty)
            for name, method in found
            if not name.startswith("_")
        }

    assert methods(WorkflowHandle) == methods(AsyncWorkflowHandle)
    assert methods(WorkflowClient) == methods(AsyncWorkflowClient)


class TestTypeOfTheResult:
    def test_of_functions_of_all_kinds(self) -> None:
        class Shop:
            async def sell(self, ctx: AsyncWorkflowContext, order: Order) -> Receipt: ...

            async def __call__(self, ctx: AsyncWorkflowContext) -> Order: ...

        assert handles.result_type(buy) is Receipt
        assert handles.result_type(functools.partial(buy)) is Receipt
        assert handles.result_type(decorated) is Receipt
        assert handles.result_type(Shop().sell) is Receipt
        assert handles.result_type(Shop()) is Order
        assert handles.result_type(buy_all) == dict[str, Receipt]

    def test_is_unknown_where_nothing_says_it(self) -> None:
        async def unresolved(ctx: AsyncWorkflowContext) -> "Missing": ...  # type: ignore[name-defined]  # noqa: F821

        for workflow in (None, "buy", wrapping, generator, unresolved, print):
            assert handles.result_type(workflow) is None
