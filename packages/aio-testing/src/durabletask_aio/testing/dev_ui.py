"""The page of `durabletask-aio dev --ui`: instances and their timelines, live, for a browser on this machine.

It listens on the loopback addresses and answers only those who call it by a loopback name, since any site a browser
visits may point a name of its own at 127.0.0.1.  It reads; nothing can be started, ended or changed through it.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
import threading
from datetime import datetime, timezone
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from durabletask.client import OrchestrationStatus

from durabletask_aio.engine.loopback import free_port, has_ipv6_loopback, port_in_use
from durabletask_aio.engine.state import Instance
from durabletask_aio.engine.store import InstanceFilter, Reader
from durabletask_aio.testing import dev_page
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.history import History
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.testing.timeline import payload_text
from durabletask_aio.testing.timeline_html import render_html
from durabletask_aio.testing.virtual_time import to_datetime

_logger = logging.getLogger("durabletask.aio.testing")

MOST_INSTANCES = 500
"""So many of the newest are listed: a browser redraws them every second."""

_LONGEST_TEXT = 200
_ENDED = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)
_OUR_HOSTS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class DevUi:
    """Serves the page from `start` to `stop`; the backend is the caller's to start and stop."""

    def __init__(self, backend: LocalBackend, port: int = 0) -> None:
        self._backend = backend
        self._wanted_port = port
        self._servers: list[_Server] = []
        self._threads: list[threading.Thread] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    def start(self) -> DevUi:
        """Listen on 127.0.0.1 and, where there is one, ::1.  `OSError` if the port is taken."""
        self._servers, self.port = _listen(self._backend, self._wanted_port)
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="durabletask-aio-ui", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        """Stop listening.  May be called twice."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()
        self._servers, self._threads = [], []

    def __enter__(self) -> DevUi:  # noqa: PYI034 - typing has Self from 3.11 on
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class _Server(ThreadingMixIn, TCPServer):
    # http.server's own class asks the name service for the name of the host it is bound to, which may take seconds.
    daemon_threads = True
    block_on_close = False
    # On Windows the option would let two programs share the port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, backend: LocalBackend, address: str, port: int) -> None:
        self.backend = backend
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that has disconnected is no error.
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            _logger.error("the page of durabletask-aio dev could not answer", exc_info=error)


def _listen(backend: LocalBackend, port: int) -> tuple[list[_Server], int]:
    for _ in range(20):
        found = free_port(port)
        servers: list[_Server] = []
        if found is not None:
            try:
                for address in ("127.0.0.1", "::1") if has_ipv6_loopback() else ("127.0.0.1",):
                    servers.append(_Server(backend, address, found))  # noqa: PERF401 - closed below if one fails
                return servers, found
            except OSError:
                for server in servers:
                    server.server_close()  # the port was taken meanwhile
        if port:
            break
    raise port_in_use(port, "the page of instances")


class _Handler(BaseHTTPRequestHandler):
    timeout = 30
    server_version = "durabletask-aio"
    sys_version = ""

    @property
    def _backend(self) -> LocalBackend:
        return cast(_Server, self.server).backend

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the standard library
        """Nothing: the terminal belongs to the command."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _OUR_HOSTS.fullmatch(hosts[0].strip()):
            self._page(
                HTTPStatus.MISDIRECTED_REQUEST,
                dev_page.message_page("Not under this name", "This page answers to localhost, 127.0.0.1 and [::1]."),
            )
            return
        target = urlsplit(self.path)
        instance_id = parse_qs(target.query, keep_blank_values=True).get("id", [""])[0]
        if target.path == "/":
            self._page(
                HTTPStatus.OK, dev_page.list_page(self._backend.address, dev_page.describe_store(self._backend.path))
            )
        elif target.path == "/instances.json":
            self._answer(HTTPStatus.OK, "application/json", json.dumps(overview(self._backend)))
        elif target.path in ("/timeline", "/history.json"):
            self._instance(target.path, instance_id)
        else:
            self._page(HTTPStatus.NOT_FOUND, dev_page.message_page("No such page", "The instances are at /."))

    def _instance(self, path: str, instance_id: str) -> None:
        with self._backend.kernel.reading() as reader:
            instance = reader.instance(instance_id)
        if instance is None:
            note = dev_page.describe_store(self._backend.path)
            text = f"There is no instance {instance_id!r} on this engine. {note}"
            self._page(HTTPStatus.NOT_FOUND, dev_page.message_page("No such instance", text))
            return
        history = self._backend.history(instance_id)
        if path == "/history.json":
            self._answer(HTTPStatus.OK, "application/json", history.to_json())
        else:
            self._page(HTTPStatus.OK, _timeline(instance, history))

    def _page(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, "text/html", text)

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        # An id or a payload may hold half of a surrogate pair, which UTF-8 has no place for.
        body = text.encode("utf-8", errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", dev_page.POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _timeline(instance: Instance, history: History) -> str:
    status = OrchestrationStatus(instance.status)
    live = status not in _ENDED
    above = dev_page.navigation(instance.instance_id, status.name.lower(), live=live)
    if history.workflow_name is None:
        text = "No worker has taken it yet. Is one connected that has this workflow registered?"
        page = dev_page.message_page(f"{instance.name} waits for a worker", text, above)
    else:
        page = render_html(
            history,
            above=above,
            custom_status=instance.custom_status or "",
            until=datetime.now(timezone.utc) if live else None,
        )
    return dev_page.with_script(page)


def overview(backend: LocalBackend) -> dict[str, Any]:
    """What the list shows: the newest instances, newest first, how many there are, and who is connected."""
    kernel = backend.kernel
    with kernel.reading() as reader:
        newest = reader.query(InstanceFilter(), MOST_INSTANCES, newest_first=True).instances
        rows = [_row(reader, each) for each in newest]
        total = reader.count(InstanceFilter())
    return {
        "engine": backend.address,
        "workers": len(kernel.dispatcher.streams),
        "total": total,
        "instances": rows,
    }


def _row(reader: Reader, instance: Instance) -> dict[str, str]:
    payloads = reader.payloads(instance)
    outcome, failure = payloads.get("output") or "", payloads.get("failure")
    if isinstance(failure, bytes):
        details = pb.TaskFailureDetails.FromString(failure)
        outcome = f"{details.errorType.rpartition('.')[2]}: {details.errorMessage}"
    return {
        "id": instance.instance_id,
        "name": instance.name,
        "status": OrchestrationStatus(instance.status).name.lower(),
        "created": to_datetime(instance.created_at).isoformat(),
        "updated": to_datetime(instance.updated_at).isoformat(),
        "custom_status": payload_text(instance.custom_status or "", _LONGEST_TEXT),
        "outcome": payload_text(str(outcome), _LONGEST_TEXT),
    }
