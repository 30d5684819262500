"""Rewinding failed instances: what failed runs again, and what was handled before stays handled."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.task import RetryPolicy
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from worker_support import QUIET, finished

from durabletask_aio.engine.embedded import Engine
from durabletask_aio.worker.worker import TaskHubGrpcWorker

TWICE = RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=2)


@pytest.fixture(params=["this project's engine", "upstream's engine"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if request.param == "this project's engine":
        with Engine() as engine:
            engine.listen(port)
            yield f"127.0.0.1:{port}"
    else:
        backend = InMemoryOrchestrationBackend(port=port)
        backend.start()
        yield f"127.0.0.1:{port}"
        backend.stop()


class Bank:
    """Activities that count their runs; `pay` fails until it is repaired."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.is_broken = True

    def flaky(self, ctx: Any, _: Any) -> str:
        self.ran.append("flaky")
        if self.ran.count("flaky") == 1:
            raise ConnectionError("busy")
        return "answered"

    def refuse(self, ctx: Any, _: Any) -> None:
        self.ran.append("refuse")
        raise PermissionError("no")

    def pay(self, ctx: Any, _: Any) -> str:
        self.ran.append("pay")
        if self.is_broken:
            raise RuntimeError("the bank is broken")
        return "paid"

    def note(self, ctx: Any, text: str) -> str:
        self.ran.append("note")
        return text


async def handled(ctx: Any) -> str:
    """Retries one failure and catches another."""
    answer: str = await ctx.call_activity("flaky", retry_policy=TWICE)
    try:
        await ctx.call_activity("refuse")
    except Exception:
        answer += await ctx.call_activity("note", input=", refused")
    return answer


HANDLED = ["flaky", "flaky", "refuse", "note"]


async def paying(ctx: Any, _: Any) -> list[str]:
    return [await handled(ctx), await ctx.call_activity("pay")]


async def paying_with_retries(ctx: Any, _: Any) -> list[str]:
    return [await handled(ctx), await ctx.call_activity("pay", retry_policy=TWICE)]


async def parent(ctx: Any, _: Any) -> list[str]:
    return [await handled(ctx), *(await ctx.call_sub_orchestrator("paying_alone", instance_id=f"{ctx.instance_id}-c"))]


async def paying_alone(ctx: Any, _: Any) -> list[str]:
    return [await ctx.call_activity("pay")]


def by_generator(ctx: Any, _: Any) -> Any:
    answer = yield ctx.call_activity("flaky", retry_policy=TWICE)
    try:
        yield ctx.call_activity("refuse")
    except Exception:
        answer += yield ctx.call_activity("note", input=", refused")
    paid = yield ctx.call_activity("pay")
    return [answer, paid]


@pytest.mark.parametrize("sessions", [0, None], ids=["without sessions", "with sessions"])
@pytest.mark.parametrize(
    ("workflow", "before"),
    [
        (paying, ["pay"]),
        (paying_with_retries, ["pay", "pay"]),
        (parent, ["pay"]),
        (by_generator, ["pay"]),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_failed_runs_again_and_what_was_handled_does_not(
    address: str, workflow: Any, before: list[str], sessions: int | None
) -> None:
    bank = Bank()
    with (
        TaskHubGrpcWorker(host_address=address, logger=QUIET, max_extended_sessions=sessions) as worker,
        TaskHubGrpcClient(host_address=address, logger=QUIET) as client,
    ):
        for each in (paying, paying_with_retries, parent, paying_alone, by_generator):
            worker.add_orchestrator(each)
        for activity in (bank.flaky, bank.refuse, bank.pay, bank.note):
            worker.add_activity(activity)
        worker.start()
        instance_id = client.schedule_new_orchestration(workflow)
        assert finished(client, instance_id).runtime_status.name == "FAILED"
        assert bank.ran == [*HANDLED, *before]

        # Once in vain, and then with success: a rewind can be repeated.
        client.rewind_orchestration(instance_id)
        client.wait_for_orchestration_start(instance_id, timeout=30)
        assert finished(client, instance_id).runtime_status.name == "FAILED"
        assert bank.ran == [*HANDLED, *before, "pay"]
        bank.is_broken = False
        client.rewind_orchestration(instance_id)
        client.wait_for_orchestration_start(instance_id, timeout=30)
        state = finished(client, instance_id)

    assert state.get_output() == ["answered, refused", "paid"]
    assert bank.ran == [*HANDLED, *before, "pay", "pay"]
