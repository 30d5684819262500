from collections.abc import Callable

from durabletask.aio.testing import WorkflowEnvironment
from shop import CardDeclined, charge, order, refund

Environments = Callable[..., WorkflowEnvironment]


async def test_a_declined_card_is_not_tried_again(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, refund]) as env:
        env.stub(charge, raises=CardDeclined("no"))
        assert await env.execute(order, input=5) == "declined"


async def test_an_order_is_picked_up(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, refund]) as env:
        handle = await env.start(order, input=5)
        await handle.raise_event("picked-up", "van 7")
        assert await handle.result() == "on its way with van 7, receipt for 5 euros"


async def test_an_order_that_nobody_picks_up_is_refunded(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, refund]) as env:
        started = env.now
        assert await env.execute(order, input=5) == "refunded"
        assert (env.now - started).days == 3
