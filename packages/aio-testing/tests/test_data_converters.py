"""The data converters at work: activities, children, events and entities, with worker, client and environment."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from durabletask.aio import AsyncWorkflowContext
from durabletask.aio.client import WorkflowClient, WorkflowFailedError
from durabletask.aio.engine import Engine
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.client import OrchestrationFailedError, TaskHubGrpcClient
from durabletask.serialization import DataConverter
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker

if TYPE_CHECKING:
    import pydantic
    from durabletask.aio.data import CattrsDataConverter, PydanticDataConverter
else:
    pytest.importorskip("cattrs")
    pydantic = pytest.importorskip("pydantic")
    from durabletask.aio.data import CattrsDataConverter, PydanticDataConverter

QUIET = logging.Logger("quiet", level=logging.CRITICAL)  # noqa: LOG001 - not to be found by name
DUE = dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc)
ID = UUID(int=7)


@dataclass
class Order:
    id: UUID
    due: dt.datetime
    prices: dict[str, Decimal] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


class Customer(pydantic.BaseModel):
    id: UUID
    born: dt.date
    friends: set[str] = set()


def postpone(ctx: Any, order: Order) -> Order:
    assert isinstance(order.due, dt.datetime)
    return Order(order.id, order.due + dt.timedelta(days=1), order.prices, order.tags)


def total(ctx: Any, prices: list[Decimal]) -> Decimal:
    return sum(prices, Decimal(0))


def befriend(ctx: Any, customers: list[Customer]) -> dict[str, Customer]:
    friends = {customer.id.hex for customer in customers}
    return {customer.id.hex: customer.model_copy(update={"friends": friends}) for customer in customers}


async def handle_order(ctx: AsyncWorkflowContext, order: Order) -> tuple[Order, Decimal]:
    later = await ctx.call_activity(postpone, input=order)
    assert isinstance(later.due, dt.datetime)
    return later, await ctx.call_activity(total, input=list(order.prices.values()))


async def know_each_other(ctx: AsyncWorkflowContext, customers: list[Customer]) -> dict[str, Customer]:
    assert all(isinstance(customer, Customer) for customer in customers)
    newcomer = await ctx.wait_for_external_event("joined", data_type=Customer)
    return await ctx.call_activity(befriend, input=[*customers, newcomer])


async def parent(ctx: AsyncWorkflowContext, order: Order) -> Decimal:
    _, price = await ctx.call_sub_orchestrator(handle_order, input=order, return_type=tuple[Order, Decimal])
    return price


WORKFLOWS = (handle_order, know_each_other, parent)
ACTIVITIES = (postpone, total, befriend)
ORDER = Order(ID, DUE, {"tea": Decimal("1.50"), "cake": Decimal("0.1")}, frozenset({"b", "a"}))
LATER = Order(ID, DUE + dt.timedelta(days=1), ORDER.prices, ORDER.tags)
CONVERTERS = pytest.mark.parametrize(
    "converter", [CattrsDataConverter(), PydanticDataConverter()], ids=lambda converter: type(converter).__name__
)


@contextmanager
def client_of(converter: DataConverter, *, of_upstream: bool = False) -> Iterator[WorkflowClient]:
    """A client of an engine, with a worker, either this project's in process or upstream's own over gRPC."""
    with Engine() as engine:
        address = f"localhost:{engine.listen().port}"
        options: dict[str, Any] = {"data_converter": converter, "logger": QUIET}
        worker: Any = UpstreamWorker(host_address=address, **options) if of_upstream else engine.worker(**options)
        with worker, TaskHubGrpcClient(host_address=address, **options) as client:
            worker.add_orchestrators(*WORKFLOWS)
            worker.add_activities(*ACTIVITIES)
            worker.start()
            yield WorkflowClient(client)


@CONVERTERS
@pytest.mark.parametrize("of_upstream", [False, True], ids=["our worker", "upstream's worker"])
def test_types_of_the_standard_library_go_through_worker_engine_and_client(
    converter: DataConverter, of_upstream: bool
) -> None:
    with client_of(converter, of_upstream=of_upstream) as client:
        assert client.start(handle_order, input=ORDER).result(timeout=60) == (LATER, Decimal("1.60"))
        assert client.start(parent, input=ORDER).result(timeout=60) == Decimal("1.60")


@CONVERTERS
async def test_types_of_the_standard_library_in_an_environment(converter: DataConverter) -> None:
    async with WorkflowEnvironment(
        orchestrators=WORKFLOWS, activities=ACTIVITIES, data_converter=converter
    ) as environment:
        handle = await environment.start(handle_order, input=ORDER)
        assert await handle.result(tuple[Order, Decimal]) == (LATER, Decimal("1.60"))
        assert await (await environment.start(parent, input=ORDER)).result(Decimal) == Decimal("1.60")


def test_models_of_pydantic_go_through_worker_engine_and_client() -> None:
    ada, bob = Customer(id=ID, born=dt.date(1815, 12, 10)), Customer(id=UUID(int=8), born=dt.date(1900, 1, 1))
    both = {ada.id.hex, bob.id.hex}
    with client_of(PydanticDataConverter()) as client:
        handle = client.start(know_each_other, input=[ada])
        handle.raise_event("joined", bob)
        known = handle.result(timeout=60)

    assert known == {each.id.hex: each.model_copy(update={"friends": both}) for each in (ada, bob)}


async def test_models_of_pydantic_in_an_environment() -> None:
    ada, bob = Customer(id=ID, born=dt.date(1815, 12, 10)), Customer(id=UUID(int=8), born=dt.date(1900, 1, 1))
    async with WorkflowEnvironment(
        orchestrators=WORKFLOWS, activities=ACTIVITIES, data_converter=PydanticDataConverter()
    ) as environment:
        handle = await environment.start(know_each_other, input=[ada])
        await handle.raise_event("joined", bob)
        known = await handle.result(dict[str, Customer])

    assert set(known) == {ada.id.hex, bob.id.hex}
    assert known[bob.id.hex].born == bob.born


@CONVERTERS
def test_an_input_that_does_not_fit_fails_the_instance_and_says_why(converter: DataConverter) -> None:
    with client_of(converter) as client:
        wrong: Any = {"id": "no id", "due": "2024-01-01T00:00:00"}
        with pytest.raises(WorkflowFailedError, match="a payload cannot be read as Order: ") as caught:
            client.start("handle_order", input=wrong).result(timeout=60)
    assert isinstance(caught.value, OrchestrationFailedError)
    assert caught.value.details.error_type.endswith("PayloadTypeError")


async def test_without_a_converter_the_message_names_one() -> None:
    async def born(ctx: AsyncWorkflowContext) -> Any:
        return {"customer": Customer(id=ID, born=dt.date(1815, 12, 10))}

    async def due(ctx: AsyncWorkflowContext) -> Any:
        return await ctx.call_activity("postpone", input=[Order(ID, DUE)])

    hint = "# or data_converter={}DataConverter() of durabletask-aio-core[{}]"
    async with WorkflowEnvironment(orchestrators=[born, due], activities=ACTIVITIES, verify=False) as environment:
        for workflow, where, named in (
            (born, "result['customer']", hint.format("Pydantic", "pydantic")),
            (due, "input[0].id", hint.format("Cattrs", "cattrs")),
        ):
            with pytest.raises(OrchestrationFailedError) as caught:
                await environment.execute(workflow)
            assert where in str(caught.value)
            assert str(caught.value).endswith(named)
