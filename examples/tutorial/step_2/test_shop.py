from collections.abc import Callable

from durabletask.aio.testing import WorkflowEnvironment
from shop import CardDeclined, charge, order, ship

Environments = Callable[..., WorkflowEnvironment]


async def test_an_order_is_shipped(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, ship]) as env:
        assert await env.execute(order, input=5) == "shipped, receipt for 5 euros"


async def test_a_declined_card_is_not_tried_again(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, ship]) as env:
        env.stub(charge, raises=CardDeclined("no"))
        assert await env.execute(order, input=5) == "declined"
        assert [call.name for call in env.calls] == ["charge"]


async def test_a_bank_that_is_busy_is_asked_again(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, ship]) as env:
        env.stub(charge, sequence=[ConnectionError("busy"), ConnectionError("busy"), "receipt 7"])
        started = env.now
        assert await env.execute(order, input=5) == "shipped, receipt 7"
        assert (env.now - started).total_seconds() == 5 + 10
