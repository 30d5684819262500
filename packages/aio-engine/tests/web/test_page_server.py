"""`PageServer` on a real socket."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

pytest.importorskip("starlette", reason="the page needs the extra 'ui'")
pytest.importorskip("jinja2", reason="the page needs the extra 'ui'")
pytest.importorskip("uvicorn", reason="the page needs the extra 'ui'")

from durabletask_aio.engine.clock import SystemClock
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.server import Server
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.web.server import PageServer


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    kernel = Kernel(SqliteStore(), SystemClock())
    kernel.start()
    server = Server(kernel)
    with grpc.insecure_channel(server.start()) as channel:
        yield channel
    server.stop()
    kernel.stop()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def test_it_listens_from_start_to_stop(channel: grpc.Channel) -> None:
    page = PageServer(channel)
    with page:
        assert "Instances" in get(page.url)
        assert "Instances" in get(f"http://127.0.0.1:{page.port}/")
    with pytest.raises(OSError, match="refused"):
        get(page.url)


def test_it_can_start_again_on_the_same_port(channel: grpc.Channel) -> None:
    page = PageServer(channel)
    with page:
        port = page.port
    with page:
        assert page.port == port
        assert "Instances" in get(page.url)
    page.stop()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_port_in_use_is_reported(channel: grpc.Channel, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on {host} is in use by another program"):
            PageServer(channel, host=host, port=port).start()


def test_an_address_that_others_can_reach_needs_tls_or_a_word(channel: grpc.Channel) -> None:
    with pytest.raises(ValueError, match=r"^0\.0\.0\.0 can be reached by others: give a certificate and a key for TLS"):
        PageServer(channel, host="0.0.0.0")
    with pytest.raises(ValueError, match="TLS takes a certificate and its private key"):
        PageServer(channel, host="0.0.0.0", certificate="server.pem")
    with PageServer(channel, host="0.0.0.0", insecure=True, token="sesame") as page:
        assert get(f"http://127.0.0.1:{page.port}/healthz") == "ok\n"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"http://127.0.0.1:{page.port}/")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_it_speaks_tls(channel: grpc.Channel, tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    options = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *options, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(certificate))
    with PageServer(channel, certificate=certificate, key=key) as page:
        assert page.url.startswith("https://localhost:")
        with urllib.request.urlopen(page.url, timeout=10, context=context) as answer:
            assert "Secure" in answer.headers["set-cookie"]


def test_serve_has_the_page(tmp_path: Path) -> None:
    pytest.importorskip("durabletask_aio.core", reason="the command comes with durabletask-aio-core")
    command = [sys.executable, "-m", "durabletask_aio", "serve", "--db", str(tmp_path / "a.db"), "--port", "0"]
    with subprocess.Popen([*command, "--ui-port", "0", "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["ui"]
            assert str(tmp_path / "a.db") in get(f"{url}engine")
        finally:
            process.terminate()
        assert process.wait(timeout=30) == 0
