"""What the protocol of upstream has no call for, with its typed client, in process and over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from channel_support import wait_until

from durabletask_aio.engine.embedded import Engine
from durabletask_aio.engine.management.client import EngineClient

pytest.importorskip("durabletask_aio.worker", reason="the workflows need durabletask-aio-worker")

COMPLETED, FAILED, RUNNING = 1, 3, 0


class Shop:
    """An engine on a file with a few instances."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.client = engine.client()
        self.prices: list[int] = []

    def price(self, ctx: Any, item: int) -> int:
        """Count the runs."""
        self.prices.append(item)
        return item * 2

    def started(self, name: str, instance_id: str, **options: Any) -> str:
        """Start an instance, and wait until it has ended, or waits."""
        self.client.schedule_new_orchestration(name, instance_id=instance_id, **options)
        if name == "waiter":
            wait_until(lambda: self.engine.management().statistics().timers == 1)  # that of its child
        else:
            self.client.wait_for_orchestration_completion(instance_id, timeout=30)
        return instance_id


async def order(ctx: Any, count: int) -> int:
    total: int = 0
    for item in range(count):
        total += await ctx.call_activity("price", input=item)
    return total


async def refused(ctx: Any, _: Any) -> None:
    raise ValueError("no such card")


async def waiter(ctx: Any, _: Any) -> None:
    await ctx.call_sub_orchestrator("sleeper", instance_id=f"{ctx.instance_id}-child")


async def sleeper(ctx: Any, _: Any) -> None:
    await ctx.sleep(3600)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    path = tmp_path_factory.mktemp("management") / "shop.db"
    with Engine(path) as engine, engine.worker() as worker:
        shop = Shop(engine)
        for each in (order, refused, waiter, sleeper):
            worker.add_orchestrator(each)
        worker.add_activity(shop.price)
        worker.start()
        shop.started("order", "order-1", input=3, tags={"region": "eu", "tenant": "acme"})
        shop.started("order", "ORDER-2", input=1, tags={"region": "us"})
        shop.started("refused", "card-3")
        shop.started("waiter", "waits-4")
        yield shop


@pytest.fixture(params=["in process", "gRPC"])
def client(shop: Shop, request: pytest.FixtureRequest) -> Iterator[EngineClient]:
    if request.param == "in process":
        yield shop.engine.management()
        return
    server = shop.engine.listen()
    with grpc.insecure_channel(server.address) as channel:
        yield EngineClient(channel)
    server.stop()


ALL = ["waits-4-child", "waits-4", "card-3", "ORDER-2", "order-1"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ALL),
        ({"newest_first": False}, ALL[::-1]),
        ({"page_size": 1}, ALL),
        ({"names": ["order", "refused"]}, ["card-3", "ORDER-2", "order-1"]),
        ({"statuses": [COMPLETED]}, ["ORDER-2", "order-1"]),
        ({"statuses": [FAILED, RUNNING]}, ["waits-4-child", "waits-4", "card-3"]),
        ({"tags": {"region": "eu"}}, ["order-1"]),
        ({"tags": {"region": "eu", "tenant": "other"}}, []),
        ({"id_prefix": "order"}, ["order-1"]),
        ({"id_contains": "-4"}, ["waits-4-child", "waits-4"]),
        ({"text": "ORDER"}, ["ORDER-2", "order-1"]),
        ({"text": "refUSED"}, ["card-3"]),
        ({"parent_id": "waits-4"}, ["waits-4-child"]),
        ({"only_roots": True}, ["waits-4", "card-3", "ORDER-2", "order-1"]),
        ({"text": "nothing"}, []),
    ],
    ids=str,
)
def test_search(client: EngineClient, wanted: dict[str, Any], found: list[str]) -> None:
    assert [each.instance_id for each in client.search(**wanted)] == found


@pytest.mark.parametrize("kind", ["created", "updated", "completed"])
def test_search_by_time(client: EngineClient, kind: str) -> None:
    now = datetime.now(timezone.utc)
    limit: dict[str, Any] = {kind: (now - timedelta(hours=1), None)}
    recent = {each.instance_id for each in client.search(**limit)}
    assert recent == (set(ALL) if kind != "completed" else {"card-3", "ORDER-2", "order-1"})
    limit = {kind: (None, now - timedelta(hours=1))}
    assert list(client.search(**limit)) == []
    limit = {kind: (datetime(2026, 1, 1), None)}
    with pytest.raises(ValueError, match="has no time zone; write datetime"):
        list(client.search(**limit))


def test_details(client: EngineClient) -> None:
    details = client.details("waits-4")
    assert (details.instance.name, details.instance.status) == ("waiter", RUNNING)
    assert [(each.name, each.target) for each in details.pending] == [("sleeper", "waits-4-child")]
    assert [each.instance_id for each in details.children] == ["waits-4-child"]
    assert client.details("waits-4-child").instance.parent_id == "waits-4"
    with pytest.raises(grpc.RpcError) as raised:
        client.details("nothing")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_overview_and_statistics(client: EngineClient, shop: Shop) -> None:
    overview = client.overview()
    assert {"order", "refused", "sleeper", "waiter"} <= set(overview.names)
    assert overview.workers == 1
    assert overview.path == str(shop.engine.path)
    assert overview.instances[FAILED] == 1
    statistics = client.statistics()
    assert (statistics.path, statistics.durability) == (str(shop.engine.path), "fsync")
    assert statistics.instances == overview.instances
    assert statistics.timers == 1


def test_a_summary_has_the_outcome_if_it_is_asked_for(client: EngineClient) -> None:
    from durabletask_aio.engine.management import management_pb2 as messages

    page = client.search_page(messages.SearchInstancesRequest(with_outcome=True))
    found = {each.instance_id: each for each in page.instances}
    assert (found["order-1"].result, found["order-1"].HasField("failure")) == ("6", False)
    assert found["card-3"].failure == "builtins.ValueError: no such card"
    assert not found["card-3"].HasField("result")
    assert found["waits-4"].child_count == 1
    page = client.search_page(messages.SearchInstancesRequest())
    assert not any(each.HasField("result") or each.HasField("failure") for each in page.instances)


def test_a_fork_continues_without_running_again_what_it_keeps(client: EngineClient, shop: Shop) -> None:
    before = len(shop.prices)
    forked = client.fork("order-1", turns=3)
    state = shop.client.wait_for_orchestration_completion(forked, timeout=30)
    assert state is not None
    assert state.get_output() == 6
    assert shop.prices[before:] == [2], "the results of the first two are kept"
    with pytest.raises(grpc.RpcError) as raised:
        client.fork("order-1", "order-1")
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    shop.client.purge_orchestration(forked)


def test_a_backup_holds_what_is_committed_while_the_engine_works(
    client: EngineClient, shop: Shop, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    assert client.backup(str(copy)) == copy.stat().st_size
    with Engine(copy) as engine:
        assert [each.instance_id for each in engine.management().search()] == ALL
        assert engine.kernel.loaded[0] == 0
    with pytest.raises(grpc.RpcError, match="exists already"):
        client.backup(str(copy))


def test_old_instances_are_purged_with_their_children(shop: Shop) -> None:
    client = shop.engine.management()
    shop.started("refused", "old")
    assert client.purge_older(timedelta(days=1)) == 0
    assert client.purge_older(timedelta(), statuses=[FAILED], dry_run=True) == 2
    assert client.purge_older(timedelta(), statuses=[COMPLETED], dry_run=True) == 2
    shop.client.purge_orchestration("old")
    before, after = client.vacuum()
    assert 0 < after <= before
    client.set_retention(timedelta(days=30))
    assert client.statistics().retention.age.ToTimedelta() == timedelta(days=30)
    client.set_retention(None)
    assert not client.statistics().retention.HasField("age")
