"""`raises=` and `non_retryable=` on a worker and an engine; what is recorded is what the test kit records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.entities import EntityContext, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.task import ActivityContext, OrchestrationContext, TaskFailedError
from worker_support import QUIET, finished, recorded, run, started

from durabletask_aio.core import AsyncWorkflowContext, RetryPolicy, SubOrchestrationFailedError, raises
from durabletask_aio.testing import WorkflowEnvironment
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.worker import TaskHubGrpcWorker

pytestmark = pytest.mark.timeout(120)


class PaymentError(Exception):
    pass


class CardDeclined(PaymentError):
    def __init__(self, card: str, *, code: int) -> None:
        super().__init__(f"card {card} declined")
        self.code = code


class OrderFailed(Exception):
    pass


class Rejected(OrderFailed):
    pass


@raises(PaymentError)
def charge(ctx: ActivityContext, card: str) -> str:
    raise CardDeclined(card, code=51)


async def charge_async(ctx: ActivityContext, card: str) -> str:
    raise CardDeclined(card, code=51)


def account(ctx: EntityContext, card: str) -> str:
    raise CardDeclined(card, code=51)


async def child(ctx: AsyncWorkflowContext, how: str) -> None:
    if how == "own":
        raise Rejected("no tea")
    await ctx.call_activity(charge, input="1")


def generator_child(ctx: OrchestrationContext, how: str) -> Iterator[Any]:
    if how == "own":
        raise Rejected("no tea")
    yield ctx.call_activity(charge, input="1")


async def catches(ctx: AsyncWorkflowContext) -> list[Any]:
    caught: list[Any] = []

    async def note(call: Any, kind: type[Exception]) -> None:
        try:
            await call
        except kind as error:
            caught.append(type(error).__name__ if isinstance(error, TaskFailedError) else "")

    await note(ctx.call_activity(charge, input="1"), PaymentError)
    await note(ctx.call_activity("charge", input="1", raises=CardDeclined), CardDeclined)
    await note(ctx.call_activity(charge_async, input="1", raises=(PaymentError,)), PaymentError)
    await note(ctx.call_entity(EntityInstanceId("account", "a"), "x", "1", raises=PaymentError), PaymentError)
    for orchestrator in (child, "generator_child"):
        await note(ctx.call_sub_orchestrator(orchestrator, input="own", raises=OrderFailed), OrderFailed)
        await note(ctx.call_sub_orchestrator(orchestrator, input="", raises=PaymentError), PaymentError)
        await note(ctx.call_sub_orchestrator(orchestrator, input=""), SubOrchestrationFailedError)
    return caught


CAUGHT = ["PaymentError", "CardDeclined", "PaymentError", "PaymentError"]
CAUGHT += ["OrderFailed", "PaymentError", "SubOrchestrationFailedError"] * 2


def worker_of(engine: Any, sessions: bool = True, **options: Any) -> Any:
    worker = TaskHubGrpcWorker(
        **{"host_address": engine.address, "logger": QUIET, "max_extended_sessions": None if sessions else 0, **options}
    )
    for activity in (charge, charge_async):
        worker.add_activity(activity)
    worker.add_entity(account)
    for orchestrator in (child, generator_child, catches):
        worker.add_orchestrator(orchestrator)
    return worker


@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "replayed"])
def test_failures_are_caught_by_their_own_type(engine: LocalBackend, client: TaskHubGrpcClient, sessions: bool) -> None:
    with worker_of(engine, sessions) as worker:
        worker.start()
        state = run(client, catches)
    assert state.failure_details is None
    assert state.get_output() == CAUGHT


def failures_of(history: Any, instance_id: str) -> list[pb.TaskFailureDetails]:
    """The failures that a history records, without their stack traces and the id of the instance."""
    found = []
    for event in history:
        for kind in ("taskFailed", "subOrchestrationInstanceFailed", "entityOperationFailed"):
            if event.HasField(kind):
                details = pb.TaskFailureDetails()
                details.CopyFrom(getattr(event, kind).failureDetails)
                for each in (details, details.innerFailure):
                    each.ClearField("stackTrace")
                    each.errorMessage = each.errorMessage.replace(instance_id, "instance")
                found.append(details)
    return found


def test_the_test_kit_records_what_the_engine_records(engine: LocalBackend, client: TaskHubGrpcClient) -> None:
    with worker_of(engine) as worker:
        worker.start()
        instance_id = client.schedule_new_orchestration("catches")
        finished(client, instance_id)
    on_the_engine = failures_of(recorded(engine, instance_id), instance_id)

    async def in_the_environment() -> Any:
        async with WorkflowEnvironment(
            orchestrators=[child, generator_child, catches], activities=[charge, charge_async], entities=[account]
        ) as env:
            handle = await env.start(catches)
            assert await handle.result() == CAUGHT
            return failures_of(handle.history.protobuf, handle.instance_id)

    in_process = asyncio.run(in_the_environment())
    assert in_process == on_the_engine
    assert len(on_the_engine) == len(CAUGHT)
    [bases] = {tuple(value.string_value for value in _bases(details)) for details in on_the_engine[:4]}
    assert bases == (f"{__name__}.PaymentError",)


def _bases(details: pb.TaskFailureDetails) -> Any:
    return details.properties["durabletask.aio.bases"].list_value.values


# -- retries ----------------------------------------------------------------------------------------------------------

FINAL = RetryPolicy(
    first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=3, non_retryable=[PaymentError]
)


async def gives_up(ctx: AsyncWorkflowContext) -> str:
    try:
        await ctx.call_activity(charge, input="1", retry_policy=FINAL)
    except PaymentError:
        return "declined"
    return ""


async def gives_up_a_child(ctx: AsyncWorkflowContext) -> str:
    try:
        await ctx.call_sub_orchestrator(child, input="", retry_policy=FINAL, raises=CardDeclined)
    except CardDeclined:
        return "declined"
    return ""


def generator_gives_up(ctx: OrchestrationContext, _: Any) -> Generator[Any, Any, str]:
    try:
        yield ctx.call_activity(charge, input="1", retry_policy=FINAL)
    except TaskFailedError:
        return "declined"
    return ""


@pytest.mark.parametrize("workflow", [gives_up, gives_up_a_child, generator_gives_up])
def test_a_final_failure_is_not_tried_again(engine: LocalBackend, client: TaskHubGrpcClient, workflow: Any) -> None:
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.Logger("gives up", level=logging.WARNING)  # noqa: LOG001 - not to be found by name
    logger.addHandler(handler)
    worker = started(engine, charge, orchestrators=[workflow, child], logger=logger)
    try:
        instance_id = client.schedule_new_orchestration(workflow)
        assert finished(client, instance_id).get_output() == "declined"
    finally:
        worker.stop()
    kinds = [event.WhichOneof("eventType") for event in recorded(engine, instance_id)]
    assert "timerCreated" not in kinds
    attempts = [text for text in records if text.startswith(f"{instance_id}: ") and " failed, " in text]
    assert [text.partition(" failed, ")[2].partition(": ")[0] for text in attempts] == [
        "attempt 1 of 3, no other attempt"
    ]
