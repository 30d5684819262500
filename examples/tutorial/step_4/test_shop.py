from collections.abc import Callable
from pathlib import Path

from durabletask.aio.testing import History, WorkflowEnvironment, replay
from shop import charge, order, refund, thank

Environments = Callable[..., WorkflowEnvironment]


async def test_a_customer_is_thanked(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, refund, thank]) as env:
        handle = await env.start(order, input=5)
        await handle.raise_event("picked-up", "van 7")
        assert await handle.result() == "on its way with van 7, receipt for 5 euros"
        assert [call.name for call in env.calls] == ["charge", "thank"]


def test_an_order_of_last_week_fits_the_code_of_today() -> None:
    replay(History.load(Path(__file__).with_name("order-1.json")), order)
