from collections.abc import Callable

from durabletask.aio.testing import WorkflowEnvironment
from shop import charge, order, ship

Environments = Callable[..., WorkflowEnvironment]


async def test_an_order_is_shipped(workflow_env: Environments) -> None:
    async with workflow_env(orchestrators=[order], activities=[charge, ship]) as env:
        assert await env.execute(order, input=5) == "shipped, receipt for 5 euros"
