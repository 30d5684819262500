"""`durabletask-aio dev`, as a user runs it: a process of its own."""

from __future__ import annotations

import html
import importlib.util
import ipaddress
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from durabletask.client import TaskHubGrpcClient

from durabletask_aio.core.command_line import run_command
from durabletask_aio.testing.dev import DEFAULT_PORT
from durabletask_aio.testing.dev import dev as command
from durabletask_aio.worker.worker import TaskHubGrpcWorker

psutil = pytest.importorskip("psutil")


async def order(ctx, _):
    return await ctx.wait_for_external_event("Paid")


def is_loopback(text):
    address = ipaddress.ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def listening_ports(pid):
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}


needs_page = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jinja2", "starlette", "uvicorn")),
    reason="the page needs the extra 'ui' of the engine",
)


class Dev:
    def __init__(self, *arguments, cwd=None):
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "durabletask_aio", "dev", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=cwd,
        )
        self._lines = queue.Queue()
        self.output = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self):
        line = self._lines.get(timeout=60)
        self.output += line
        return line

    def end(self, number):
        self.process.send_signal(number)
        status = self.process.wait(60)
        while not self._lines.empty():
            self.line()
        return status


@pytest.fixture
def dev():
    running = []

    def start(*arguments, **options):
        running.append(Dev(*arguments, **options))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()
        each.process.stdout.close()
        each.process.stderr.close()


def test_it_says_where_it_listens_and_that_it_forgets(dev):
    engine = dev("--port", "0")
    address = re.match(r"Local engine listening on (localhost:\d+) \(this machine only\)\.", engine.line())[1]
    assert f'TaskHubGrpcWorker(host_address="{address}")' in engine.line()
    assert engine.line() == "It keeps everything in memory and forgets it on exit. Ctrl-C stops it.\n"
    with TaskHubGrpcClient(host_address=address) as client:
        client.schedule_new_orchestration("any")


def test_it_listens_on_loopback_only(dev):
    engine = dev("--port", "0")
    port = int(re.search(r"localhost:(\d+)", engine.line())[1])
    listening = [
        connection.laddr
        for connection in psutil.Process(engine.process.pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.port for address in listening} == {port}
    assert all(is_loopback(address.ip) for address in listening), listening


@pytest.mark.skipif(sys.platform == "win32", reason="a process of its own cannot be sent Ctrl-C there")
@pytest.mark.parametrize("options", [(), pytest.param(("--ui-port", "0"), marks=needs_page)])
def test_json_is_one_line_with_the_addresses(dev, options):
    engine = dev("--port", "0", "--json", *options)
    document = json.loads(engine.line())
    assert document["address"] == f"localhost:{document['port']}"
    assert (document["ui"] is not None) == bool(options)
    if options:
        with urllib.request.urlopen(document["ui"], timeout=60) as answer:
            assert answer.status == 200
    with TaskHubGrpcClient(host_address=document["address"]) as client:
        client.schedule_new_orchestration("any")
    assert engine.end(signal.SIGINT) == 0
    assert engine.output.count("\n") == 1
    assert engine.process.stderr.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="a process of its own cannot be sent Ctrl-C there")
def test_it_goes_on_when_nobody_reads_what_it_prints():
    command = [sys.executable, "-m", "durabletask_aio", "dev", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.close()
            deadline = time.monotonic() + 60
            while not (ports := listening_ports(process.pid)) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(0.5)  # it has printed by then
            with TaskHubGrpcClient(host_address=f"localhost:{ports.pop()}") as client:
                client.schedule_new_orchestration("any")
        finally:
            process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, id="SIGTERM"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="a process of its own cannot be sent Ctrl-C there")
def test_it_ends_with_status_zero_and_says_what_it_forgot(dev, number):
    engine = dev("--port", "0")
    address = re.search(r"localhost:\d+", engine.line())[0]
    engine.line(), engine.line()
    with TaskHubGrpcClient(host_address=address) as client:
        client.schedule_new_orchestration("any")
    assert engine.end(number) == 0
    assert engine.output.endswith("\nStopped; 1 instance forgotten.\n")
    assert engine.process.stderr.read() == ""


def test_a_port_in_use_is_one_clear_sentence_and_status_two(dev, local_backend):
    engine = dev("--port", str(local_backend.port))
    assert engine.process.wait(60) == 2
    assert engine.process.stderr.read() == (
        f"error: port {local_backend.port} on localhost is in use by another program, so the engine "
        "cannot listen there; stop that program or choose another port (0 takes a free one).\n"
        "For example: durabletask-aio dev --port 0\n"
    )


class TestUi:
    def ui_of(self, engine):
        for _ in range(3):
            found = re.match(r"Instances and their timelines: (http://localhost:(\d+)/)\n", engine.line())
            if found:
                return found[1], int(found[2])
        raise AssertionError(engine.output)

    @pytest.mark.parametrize("options", [("--ui-port", "0"), ("--ui", "--ui-port", "0")])
    @needs_page
    def test_it_says_where_the_page_is(self, dev, options):
        engine = dev("--port", "0", *options)
        url, _ = self.ui_of(engine)
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
        assert "<h1>Instances</h1>" in text
        assert "Everything is in the memory of the engine" in text
        address = re.search(r"listening on (localhost:\d+)", engine.output)[1]
        assert f'host_address="{address}"' in text

    @needs_page
    def test_the_page_shows_what_a_workflow_waits_for_if_it_is_told_the_application(self, dev, tmp_path):
        (tmp_path / "shop_of_dev.py").write_text(
            'async def order(ctx, _):\n    return await ctx.wait_for_external_event("Paid")\n', encoding="utf-8"
        )
        engine = dev("--port", "0", "--ui-port", "0", "--app", "shop_of_dev", cwd=tmp_path)
        url, _ = self.ui_of(engine)
        address = re.search(r"listening on (localhost:\d+)", engine.output)[1]
        with TaskHubGrpcWorker(host_address=address) as worker, TaskHubGrpcClient(host_address=address) as client:
            worker.add_orchestrator(order)
            worker.start()
            client.schedule_new_orchestration("order", instance_id="one")
            client.wait_for_orchestration_start("one", timeout=60)
            text, deadline = "", time.monotonic() + 60
            while "shop_of_dev.py" not in text and time.monotonic() < deadline:
                with urllib.request.urlopen(f"{url}instance?id=one", timeout=60) as answer:
                    text = html.unescape(answer.read().decode())
        assert "external event 'Paid'" in text
        assert "shop_of_dev.py:2 in order" in text
        assert 'return await ctx.wait_for_external_event("Paid")' in text
        assert 'data-fill-name="Paid"' in text

    def test_an_application_that_cannot_be_imported_is_one_sentence(self, dev):
        engine = dev("--port", "0", "--app", "no_such_app")
        assert engine.process.wait(60) == 2
        assert engine.process.stderr.read() == "error: cannot import 'no_such_app': No module named 'no_such_app'\n"

    def test_what_the_page_needs_is_named_where_it_is_not_installed(self):
        program = (
            "import sys; sys.modules['starlette'] = None; "
            "sys.argv = ['durabletask-aio', 'dev', '--port=0', '--ui-port=0']; "
            "from durabletask_aio.__main__ import main; sys.exit(main())"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the page needs ")
        assert done.stderr.endswith('which is not installed: pip install "durabletask-aio-engine[ui]"\n')

    @needs_page
    def test_engine_and_page_listen_on_loopback_only(self, dev):
        engine = dev("--port", "0", "--ui-port", "0")
        _, port = self.ui_of(engine)
        listening = [
            connection.laddr
            for connection in psutil.Process(engine.process.pid).net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len({address.port for address in listening}) == 2
        assert port in {address.port for address in listening}
        assert all(is_loopback(address.ip) for address in listening), listening

    @pytest.mark.skipif(sys.platform == "win32", reason="a process of its own cannot be sent Ctrl-C there")
    @needs_page
    def test_ctrl_c_ends_it_even_while_a_browser_holds_a_connection(self, dev):
        engine = dev("--port", "0", "--ui-port", "0")
        _, port = self.ui_of(engine)
        engine.line()
        with socket.create_connection(("127.0.0.1", port)):
            assert engine.end(signal.SIGINT) == 0
        assert engine.output.endswith("\nStopped; 0 instances forgotten.\n")
        assert engine.process.stderr.read() == ""

    @needs_page
    def test_a_port_in_use_names_the_option_for_it(self, dev, local_backend):
        engine = dev("--port", "0", "--ui-port", str(local_backend.port))
        assert engine.process.wait(60) == 2
        error = engine.process.stderr.read()
        assert "so the page cannot listen there" in error
        assert error.endswith("For example: durabletask-aio dev --ui-port 0\n")

    def test_without_it_there_is_no_page(self):
        parameters = command.make_context("dev", []).params
        assert (parameters["ui"], parameters["ui_port"]) == (False, None)


def test_the_default_port_is_the_one_that_workers_and_clients_look_for():
    from durabletask.worker import TaskHubGrpcWorker

    assert command.make_context("dev", []).params["port"] == DEFAULT_PORT
    assert TaskHubGrpcWorker()._host_address == f"localhost:{DEFAULT_PORT}"


@pytest.mark.parametrize("option", ["--port", "--ui-port"])
@pytest.mark.parametrize("value", ["99999", "-1", "abc"])
def test_what_is_no_port_is_said_so(option, value, capsys):
    assert run_command(command, [f"{option}={value}"], prog_name="durabletask-aio dev") == 2
    assert f"{option}': a port is a number from 0 to 65535, not {value!r}" in capsys.readouterr().err
