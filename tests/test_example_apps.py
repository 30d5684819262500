"""The programs in `examples/` whose processes are killed: they continue where they were."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from durabletask.aio.sandbox import check

ROOT = Path(__file__).resolve().parent.parent
ORDER = ROOT / "examples" / "order.py"
WEB = ROOT / "examples" / "web"


@pytest.mark.slow
def test_the_order_is_charged_once_although_its_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    demo = runpy.run_path(str(ROOT / "scripts" / "quickstart.py"))["demo"]

    assert demo(sys.executable, str(tmp_path)) == 0
    lines = [re.sub(r"code -?\d+", "code N", line) for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        "$ python examples/order.py --crash",
        "charging 5 euros",
        "shipping",
        "(killed: exit code N)",
        "$ python examples/order.py",
        "shipping",
        "shipped, receipt for 5 euros",
        "1 charge, two processes, one file.",
    ]


@pytest.mark.parametrize("path", [ORDER, WEB / "app.py"], ids=["order", "web"])
def test_the_checker_finds_nothing(path: Path) -> None:
    assert check(path) == []


# The web application ------------------------------------------------------------------------------------------


class Server:
    """The application under uvicorn, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.database = folder / "orders.db"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(WEB), "--port", str(self.port)],
            env={**os.environ, "ORDERS_DB": str(self.database)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: self.call("GET", "/orders/none")[0] == 404)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, path: str) -> tuple[int, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, None
        except OSError:
            return 0, None

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            text: str = response.read().decode()
        return text

    def charges(self) -> list[str]:
        return Path(f"{self.database}.charges").read_text(encoding="utf-8").splitlines()


def wait_until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it has not come true in time"
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    if sys.platform == "win32":
        pytest.skip("there is no SIGKILL on Windows")
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the application uses asyncio.timeout")
@pytest.mark.slow
def test_the_web_application_continues_after_it_is_killed(server: Server) -> None:
    for number in range(20):
        assert server.call("POST", f"/orders/o{number}?amount={number}")[0] == 202
    wait_until(lambda: server.call("GET", "/orders/o7")[1]["custom"] == "waiting for approval")
    server.kill()
    server.start()
    for number in range(20):
        assert server.call("POST", f"/orders/o{number}/approval")[0] == 202
    server.kill()
    server.start()
    for number in range(20):
        path = f"/orders/o{number}"
        wait_until(lambda path=path: server.call("GET", path)[1]["status"] == "COMPLETED")  # type: ignore[misc]
        assert server.call("GET", path)[1]["result"] == f"shipped, receipt for {number} euros"

    charged = server.charges()
    assert set(charged) == {f"o{number}" for number in range(20)}
    assert charged.count("o7") == 1  # its result was on disk before the first kill


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the application uses asyncio.timeout")
@pytest.mark.slow
def test_the_web_application_has_the_page_of_its_engine(server: Server) -> None:
    assert server.call("POST", "/orders/o1?amount=1")[0] == 202

    assert "/workflows/instance?id=o1" in server.page("/workflows/")
