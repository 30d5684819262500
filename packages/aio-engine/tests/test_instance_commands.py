"""The commands for instances, against an engine that listens, on a file, and on upstream's in-memory engine."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from durabletask.aio.engine import Engine
from durabletask.aio.worker import TaskHubGrpcWorker
from durabletask.client import TaskHubGrpcClient
from durabletask.testing import create_test_backend

from durabletask_aio.core import StepFailedError
from durabletask_aio.core.cli import main


def price(item: str) -> int:
    if item == "gold":
        raise ValueError("it is not for sale")
    return len(item)


async def order(ctx: Any, what: Any) -> Any:
    if what == "steps":
        prices = [await ctx.run(price, "tea")]
        with contextlib.suppress(StepFailedError):
            await ctx.run(price, "gold", name="price of gold")
        ctx.patched("with-tax")
        return prices
    if what == "unknown":
        raise ValueError("there is no such thing")
    if what == "later":
        return await ctx.wait_for_external_event("paid")
    return {"shipped": what}


@pytest.fixture(params=["ours", "upstreams"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an engine that a worker is connected to."""
    if request.param == "ours":
        with Engine() as engine:
            server = engine.listen()
            with TaskHubGrpcWorker(host_address=server.address) as worker:
                worker.add_orchestrator(order)
                worker.start()
                yield server.address
            server.stop()
        return
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    backend = create_test_backend(port=port)
    try:
        with TaskHubGrpcWorker(host_address=f"localhost:{port}") as worker:
            worker.add_orchestrator(order)
            worker.start()
            yield f"localhost:{port}"
    finally:
        backend.stop()


@pytest.fixture
def run(address: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command against that engine; returns exit code, output and errors."""

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments, "--address", address])
        return (code, *capsys.readouterr())

    return command


@pytest.fixture
def client(address: str) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=address) as client:
        yield client


def test_start_prints_the_id_and_with_wait_the_result(run: Any, client: TaskHubGrpcClient) -> None:
    assert run("start", "order", "--input", '"tea"', "--id", "o-1") == (0, "o-1\n", "")
    assert client.wait_for_orchestration_completion("o-1", timeout=30).get_output() == {"shipped": "tea"}

    code, output, errors = run("start", "order", "--input", '["tea"]', "--id", "o-2", "--wait")
    assert (code, json.loads(output)) == (0, {"shipped": ["tea"]})
    assert errors == "Started o-2; waiting for its end.\n"


def test_start_with_wait_says_how_an_instance_has_failed(run: Any) -> None:
    code, output, errors = run("start", "order", "--input", '"unknown"', "--id", "o-1", "--wait")
    assert (code, output) == (1, "")
    assert errors.endswith("o-1 is failed: builtins.ValueError: there is no such thing\n")

    code, output, _ = run("start", "order", "--input", '"unknown"', "--id", "o-2", "--wait", "--json")
    document = json.loads(output)
    assert (code, document["status"], document["failure"]["type"]) == (1, "failed", "builtins.ValueError")


@pytest.mark.parametrize("value", ["tea", "{'a': 1}", ""])
def test_an_input_that_is_not_json_is_refused_before_anything_is_started(run: Any, value: str) -> None:
    code, _, errors = run("start", "order", "--input", value)
    assert code == 2
    assert "is not JSON" in errors
    assert f"a text is written with quotes: '\"{value}\"'" in errors
    assert run("list") == (0, "No instances.\n", "")


def test_list_shows_the_newest_first(run: Any, client: TaskHubGrpcClient) -> None:
    for number in range(3):
        run("start", "order", "--input", "1", "--id", f"o-{number}", "--wait")
    run("start", "order", "--input", '"unknown"', "--id", "bad\x1b[2J", "--wait")

    _, output, _ = run("list")
    assert [line.split()[:3] for line in output.splitlines()] == [
        ["INSTANCE", "WORKFLOW", "STATUS"],
        ["bad\\x1b[2J", "order", "failed"],
        ["o-2", "order", "completed"],
        ["o-1", "order", "completed"],
        ["o-0", "order", "completed"],
    ]
    found = json.loads(run("list", "--status", "completed", "--prefix", "o-", "--limit", "2", "--json")[1])["instances"]
    assert [each["instance_id"] for each in found] == ["o-2", "o-1"]
    assert found[0]["created_at"].endswith("+00:00")
    assert json.loads(run("list", "--name", "other", "--json")[1]) == {"instances": []}


def test_show_has_what_is_known(run: Any, client: TaskHubGrpcClient) -> None:
    run("start", "order", "--input", '"tea"', "--id", "o-1", "--wait")
    _, output, _ = run("show", "o-1")
    lines = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert (lines["instance"], lines["workflow"], lines["status"]) == ("o-1", "order", "completed")
    assert (lines["input"], lines["result"]) == ('"tea"', '{"shipped": "tea"}')

    run("start", "order", "--input", '"unknown"', "--id", "o-2", "--wait")
    _, output, _ = run("show", "o-2")
    assert "failure        builtins.ValueError: there is no such thing\n" in output
    assert 'raise ValueError("there is no such thing")' in output


def test_an_event_ends_the_wait_for_it(run: Any, client: TaskHubGrpcClient) -> None:
    run("start", "order", "--input", '"later"', "--id", "o-1")
    assert run("raise", "o-1", "paid", "--data", '{"euros": 5}') == (0, "Sent paid to o-1.\n", "")
    assert client.wait_for_orchestration_completion("o-1", timeout=30).get_output() == {"euros": 5}


def test_a_suspended_instance_rests_until_it_is_resumed(run: Any, client: TaskHubGrpcClient) -> None:
    run("start", "order", "--input", '"later"', "--id", "o-1")
    client.wait_for_orchestration_start("o-1", timeout=30)
    assert run("suspend", "o-1") == (0, "Suspended o-1.\n", "")
    run("raise", "o-1", "paid", "--data", "5")
    assert json.loads(run("show", "o-1", "--json")[1])["status"] == "suspended"
    assert json.loads(run("resume", "o-1", "--json")[1]) == {"instance_id": "o-1"}
    assert client.wait_for_orchestration_completion("o-1", timeout=30).get_output() == 5


def test_a_cancelled_and_a_terminated_instance_are_told_apart(run: Any, client: TaskHubGrpcClient) -> None:
    for instance_id in ("o-1", "o-2"):
        run("start", "order", "--input", '"later"', "--id", instance_id)
        client.wait_for_orchestration_start(instance_id, timeout=30)
    assert run("cancel", "o-1", "--reason", "not wanted") == (0, "Asked o-1 to cancel itself.\n", "")
    assert run("terminate", "o-2", "--reason", "not wanted") == (0, "Terminated o-2.\n", "")
    for instance_id in ("o-1", "o-2"):
        client.wait_for_orchestration_completion(instance_id, timeout=30)

    statuses = {each["instance_id"]: each["status"] for each in json.loads(run("list", "--json")[1])["instances"]}
    assert statuses == {"o-1": "cancelled", "o-2": "terminated"}
    assert "status         cancelled\n" in run("show", "o-1")[1]
    assert "failure        not wanted\n" in run("show", "o-1")[1]


@pytest.mark.parametrize("command", [["raise", "paid"], ["suspend"], ["resume"], ["cancel"], ["terminate"]])
def test_instances_that_do_not_exist_or_have_ended_are_refused(run: Any, command: list[str]) -> None:
    run("start", "order", "--input", "1", "--id", "o-1", "--wait")
    name, *rest = command
    assert run(name, "o-1", *rest) == (2, "", "error: the instance 'o-1' has ended already: completed\n")
    assert run(name, "nobody", *rest) == (2, "", "error: there is no instance 'nobody'\n")


def test_show_refuses_an_unknown_instance(run: Any) -> None:
    assert run("show", "nobody") == (2, "", "error: there is no instance 'nobody'\n")


def test_a_file_that_no_engine_uses_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "orders.db")
    Engine(path).start().stop()
    assert main(["start", "order", "--id", "o-1", "--db", path]) == 0
    assert main(["list", "--db", path]) == 0
    assert "o-1       order     pending" in capsys.readouterr().out


def test_show_has_the_steps_of_an_instance(run: Any, client: TaskHubGrpcClient) -> None:
    run("start", "order", "--input", '"steps"', "--id", "o-1", "--wait")

    code, output, _ = run("show", "o-1", "--steps")
    assert code == 0
    assert output.splitlines()[-3:] == [
        'step           price ["tea"] -> 3',
        'step           price of gold ["gold"] -> ValueError: it is not for sale',
        "patch          with-tax",
    ]
    steps = json.loads(run("show", "o-1", "--steps", "--json")[1])["steps"]
    assert [each["name"] for each in steps] == ["price", "price of gold", "with-tax"]
    assert steps[0] == {
        "kind": "step",
        "name": "price",
        "input": '["tea"]',
        "result": "3",
        "failure": None,
        "note": None,
    }
    assert steps[1]["failure"] == {"type": "builtins.ValueError", "message": "it is not for sale"}
