"""The workflows of `workflows.py` on Dapr: `dapr run --app-id orders -- python on_dapr.py`."""

from __future__ import annotations

import json

import workflows

from durabletask_aio.dapr import DaprWorkflowClient, WorkflowRuntime


def run(orders: list[list[str]]) -> list[object]:
    """Run orders, and return what became of them."""
    runtime = WorkflowRuntime()
    runtime.register_workflow(workflows.order)
    runtime.register_workflow(workflows.ship)
    runtime.register_activity(workflows.charge)
    runtime.register_activity(workflows.pack)
    runtime.start()
    client = DaprWorkflowClient()
    try:
        results: list[object] = []
        for items in orders:
            instance_id = client.schedule_new_workflow(workflows.order, input=items)
            client.raise_workflow_event(instance_id, "approved", data="Ada")
            state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=30)
            assert state is not None
            results.append(json.loads(state.serialized_output or "null"))
        return results
    finally:
        client.close()
        runtime.shutdown()


if __name__ == "__main__":
    print(run([["book", "pen"], []]))
