"""`durabletask-aio dev --ui`: real requests to the page while a real worker runs."""

from __future__ import annotations

import html
import http.client
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from durabletask.aio import as_orchestrator
from durabletask.aio.worker import TaskHubGrpcWorker

from durabletask_aio.testing import dev_page
from durabletask_aio.testing.dev_ui import MOST_INSTANCES, DevUi, overview
from durabletask_aio.testing.history import History
from durabletask_aio.testing.local import local_backend as start_engine

psutil = pytest.importorskip("psutil")

QUICK_START = Path(__file__).parents[3] / "examples" / "quick_start.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>document.title='owned'</script>\"'&<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def ui(local_backend):
    with DevUi(local_backend) as ui:
        yield ui


def ask(ui, path, *, host=None, method="GET", address="127.0.0.1"):
    connection = http.client.HTTPConnection(address, ui.port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True)
        for each in [host or f"localhost:{ui.port}"] if not isinstance(host, list) else host:
            connection.putheader("Host", each)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def instances(ui):
    status, headers, body = ask(ui, "/instances.json")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    return json.loads(body)


def timeline(ui, instance_id):
    return ask(ui, f"/timeline?id={urllib.parse.quote(instance_id, safe='')}")


def echo(context, value):
    return value


async def waits(ctx, value):
    ctx.set_custom_status({"waits for": "go"})
    await ctx.call_activity(echo, input=value)
    return await ctx.wait_for_external_event("go")


def test_the_quick_start_can_be_watched(ui, local_backend, client):
    spec = importlib.util.spec_from_file_location("quick_start_watched", QUICK_START)
    quick_start = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quick_start)
    assert instances(ui)["total"] == 0
    with TaskHubGrpcWorker(host_address=local_backend.address) as worker:
        worker.add_orchestrator(quick_start.enhanced_workflow)
        for activity in (quick_start.my_activity, quick_start.task_0, quick_start.task_1, quick_start.task_2):
            worker.add_activity(activity)
        worker.start()
        instance_id = client.schedule_new_orchestration("enhanced_workflow", input="world")
        client.wait_for_orchestration_completion(instance_id, timeout=60)
        found = instances(ui)
        assert (found["workers"], found["total"]) == (1, 1)
    row = found["instances"][0]
    assert (row["id"], row["name"], row["status"]) == (instance_id, "enhanced_workflow", "completed")
    assert '"result": "Hello, world!"' in row["outcome"]
    assert row["created"] <= row["updated"]
    status, _, page = timeline(ui, instance_id)
    assert status == 200
    for activity in ("my_activity", "task_0", "task_1", "task_2"):
        assert f">{activity}<" in page
    status, _, text = ask(ui, f"/history.json?id={instance_id}")
    assert status == 200
    assert History.from_json(text) == local_backend.history(instance_id)


def test_the_list_follows_an_instance_from_its_start_to_its_end(ui, local_backend, client, wait_until):
    def row():
        return instances(ui)["instances"][0]

    instance_id = client.schedule_new_orchestration("waits", input=1)
    assert row()["status"] == "pending"
    assert instances(ui)["workers"] == 0
    status, _, page = timeline(ui, instance_id)
    assert status == 200
    assert "waits waits for a worker" in page
    assert "data-live='yes'" in page
    with TaskHubGrpcWorker(host_address=local_backend.address) as worker:
        worker.add_orchestrator(waits)
        worker.add_activity(echo)
        worker.start()
        wait_until(lambda: row()["custom_status"] == '{"waits for": "go"}', "the custom status")
        assert row()["status"] == "running"
        page = timeline(ui, instance_id)[2]
        assert "data-live='yes'" in page
        assert "<dt>custom status</dt><dd><code>{&quot;waits for&quot;: &quot;go&quot;}</code></dd>" in page
        client.suspend_orchestration(instance_id)
        wait_until(lambda: row()["status"] == "suspended", "the suspension")
        assert "suspended; follows the instance by itself" in timeline(ui, instance_id)[2]
        client.resume_orchestration(instance_id)
        client.raise_orchestration_event(instance_id, "go", data="done")
        wait_until(lambda: row()["status"] == "completed", "the end")
    assert row()["outcome"] == '"done"'
    assert "data-live='no'" in timeline(ui, instance_id)[2]
    wait_until(lambda: instances(ui)["workers"] == 0, "the worker to be gone")


def test_what_runs_is_drawn_up_to_now(ui, local_backend, client, wait_until):
    release = threading.Event()

    def hangs(context, _):
        release.wait(60)

    async def slow(ctx):
        await ctx.call_activity(hangs)

    with TaskHubGrpcWorker(host_address=local_backend.address) as worker:
        worker.add_orchestrator(slow)
        worker.add_activity(hangs)
        worker.start()
        instance_id = client.schedule_new_orchestration("slow")

        def drawn():
            return re.search(r"no outcome yet, (\d+) ms", timeline(ui, instance_id)[2])

        wait_until(drawn, "the activity to be drawn")
        before = int(drawn()[1])
        wait_until(lambda: drawn() is None or int(drawn()[1]) > before, "its bar to grow")
        release.set()
        client.wait_for_orchestration_completion(instance_id, timeout=60)


def test_the_newest_come_first_and_no_more_than_a_browser_can_take(ui, local_backend, client):
    for number in range(MOST_INSTANCES + 3):
        client.schedule_new_orchestration("any", instance_id=f"i{number}")
    found = overview(local_backend)
    assert found["total"] == MOST_INSTANCES + 3
    assert [each["id"] for each in found["instances"]] == [f"i{n}" for n in range(MOST_INSTANCES + 2, 2, -1)]


def test_reading_while_instances_run_never_fails(ui, local_backend, client):
    async def busy(ctx, count):
        for number in range(count):
            ctx.set_custom_status(number)
            await ctx.call_activity(echo, input=number)

    with TaskHubGrpcWorker(host_address=local_backend.address) as worker:
        worker.add_orchestrator(busy)
        worker.add_activity(echo)
        worker.start()
        ids = [client.schedule_new_orchestration("busy", input=10) for _ in range(8)]
        answers = []
        while any(each["status"] != "completed" for each in instances(ui)["instances"]):
            answers += [timeline(ui, each)[0] for each in ids]
            answers += [ask(ui, f"/history.json?id={each}")[0] for each in ids]
    assert set(answers) <= {200}


class TestHostileInput:
    @pytest.fixture
    def hostile(self, ui, local_backend, client, wait_until):
        async def workflow(ctx, value):
            ctx.set_custom_status(HOSTILE)
            await ctx.call_activity(HOSTILE, input=value)
            raise ValueError(HOSTILE)

        def activity(context, value):
            return HOSTILE

        with TaskHubGrpcWorker(host_address=local_backend.address) as worker:
            worker._registry.add_named_activity(HOSTILE, activity)
            worker._registry.add_named_orchestrator(HOSTILE, as_orchestrator(workflow, name=HOSTILE))
            worker.start()
            client.schedule_new_orchestration(HOSTILE, input=HOSTILE, instance_id=HOSTILE)
            client.wait_for_orchestration_completion(HOSTILE, timeout=60)
        wait_until(lambda: overview(local_backend)["workers"] == 0, "the worker to be gone")
        client.schedule_new_orchestration("never " + HOSTILE, instance_id="never " + HOSTILE)
        return HOSTILE

    def test_no_markup_of_theirs_is_on_any_page(self, ui, hostile):
        pages = [ask(ui, "/"), timeline(ui, hostile), timeline(ui, "never " + hostile), timeline(ui, "no " + hostile)]
        assert [status for status, _, _ in pages] == [200, 200, 200, 404]
        for _, headers, page in pages:
            assert headers["Content-Type"] == "text/html; charset=utf-8"
            assert "<script>document" not in page
            assert "<img" not in page
            assert page.count("<script") <= 1
        assert html.escape(hostile) in pages[1][2]

    def test_json_is_not_taken_for_a_page(self, ui, hostile):
        quoted = urllib.parse.quote(hostile, safe="")
        for path in ("/instances.json", f"/history.json?id={quoted}"):
            status, headers, _ = ask(ui, path)
            assert status == 200
            assert headers["Content-Type"] == "application/json; charset=utf-8"
            assert headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.slow
    @pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
    def test_a_browser_runs_our_scripts_and_not_theirs(self, ui, hostile, tmp_path):
        quoted = urllib.parse.quote(hostile, safe="")
        for number, (path, expected) in enumerate(
            [("", "2 instances"), (f"timeline?id={quoted}", "this instance has ended")]
        ):
            dump = _browse(ui.url + path, tmp_path / str(number))
            assert expected in dump
            assert "<title>owned" not in dump
            assert "<img" not in dump
            assert "&lt;img src=x" in dump  # it is there, as text


def _browse(url, profile):
    result = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"),
            *("--virtual-time-budget=3000", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        timeout=120,
    )
    return result.stdout


class TestWhoIsAnswered:
    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:4002", "[::1]"])
    def test_names_of_this_machine(self, ui, host):
        assert ask(ui, "/", host=host)[0] == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost@evil.example", "", "0.0.0.0",
         "localhost:80:80", ["localhost", "evil.example"], []],
    )  # fmt: skip
    @pytest.mark.parametrize("path", ["/", "/instances.json", "/timeline?id=secret", "/history.json?id=secret"])
    def test_no_other_name_since_any_site_may_point_one_at_this_machine(self, ui, client, host, path):
        client.schedule_new_orchestration("any", instance_id="secret", input="payload")
        status, headers, body = ask(ui, path, host=[host] if host == "" else host)
        assert status == 421
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert "This page answers to localhost, 127.0.0.1 and [::1]." in body
        assert "payload" not in body

    def test_it_listens_on_loopback_only_on_both_families(self, ui):
        listening = {
            connection.laddr.ip
            for connection in psutil.Process().net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == ui.port
        }
        assert "127.0.0.1" in listening
        assert listening <= {"127.0.0.1", "::1"}
        for address in listening:
            assert ask(ui, "/", address=address)[0] == 200

    def test_every_answer_forbids_scripts_from_elsewhere(self, ui):
        for path in ("/", "/instances.json", "/timeline?id=none", "/nothing"):
            policy = ask(ui, path)[1]["Content-Security-Policy"]
            assert policy == dev_page.POLICY
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy

    def test_nothing_can_be_changed_through_it(self, ui):
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask(ui, "/", method=method)[0] == 501

    def test_a_page_that_is_not_there(self, ui):
        status, _, body = ask(ui, "/../../etc/passwd")
        assert status == 404
        assert "No such page" in body

    def test_an_instance_that_is_not_there(self, ui):
        status, _, body = timeline(ui, "gone")
        assert status == 404
        assert "There is no instance &#x27;gone&#x27; on this engine. Everything here is in the memory" in body

    def test_head(self, ui):
        status, headers, body = ask(ui, "/", method="HEAD")
        assert (status, body) == (200, "")
        assert int(headers["Content-Length"]) > 1000


def test_it_says_that_everything_is_forgotten(ui):
    assert "Everything here is in the memory of this engine and is forgotten when it stops." in ask(ui, "/")[2]


def test_nothing_is_loaded_from_elsewhere(ui):
    assert not re.search(r"https?://|src=|@import|url\((?!#)", ask(ui, "/")[2])


def test_stopping_closes_the_port_and_ends_the_threads(local_backend):
    before = set(threading.enumerate())
    ui = DevUi(local_backend).start()
    port = ui.port
    assert ask(ui, "/")[0] == 200
    ui.stop()
    ui.stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert not {each for each in threading.enumerate() if each.name == "durabletask-aio-ui"} - before


def test_a_port_in_use_is_one_clear_sentence(ui, local_backend):
    with pytest.raises(OSError, match=f"port {ui.port} on localhost is in use by another program, so the page of"):
        DevUi(local_backend, ui.port).start()


def test_the_page_names_the_engine_and_how_to_reach_it(ui, local_backend):
    page = ask(ui, "/")[2]
    assert f'host_address="{local_backend.address}"' in page
    assert "find this engine without any setting" in dev_page.list_page("localhost:4001", "")


def test_an_instance_scheduled_for_later_is_pending(ui, client):
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    client.schedule_new_orchestration("any", start_at=later)
    assert instances(ui)["instances"][0]["status"] == "pending"


def test_two_engines_do_not_share_a_page(ui):
    with start_engine() as other, DevUi(other) as second:
        assert second.port != ui.port
        assert instances(second)["engine"] == other.address
