"""`PageServer` on a real socket."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator

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
