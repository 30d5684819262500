"""A TCP proxy between a worker and its engine that cuts connections, holds them up, and lets none through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

_SECONDS = 10.0
"""The longest wait for the proxy's own thread."""


class TcpProxy:
    """Passes on connections to a port of this machine, on a thread of its own, until the `with` block ends.

    Attributes:
        port: where it listens.
        accepted: how many connections it has accepted.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._flowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[Any]] = set()
        self._cutting: asyncio.Task[None] | None = None
        self.port = 0
        self.accepted = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> TcpProxy:  # noqa: PYI034 - typing has Self from 3.11 on
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    # -- faults ----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Break all connections, with a reset as when a process is killed."""
        self._soon(self._cut)

    def cut_every(self, seconds: float) -> None:
        """Break all connections at intervals, until the end."""

        async def cutting() -> None:
            while True:
                await asyncio.sleep(seconds)
                self._cut()

        async def begin() -> None:
            self._cutting = asyncio.create_task(cutting())

        self._call(begin())

    def refuse(self) -> None:
        """Break all connections, and accept no new ones until `accept`."""

        async def refuse() -> None:
            await self._stop_listening()
            self._cut()

        self._call(refuse())

    def accept(self) -> None:
        """Accept connections again."""
        self._call(self._listen())

    def stall(self) -> None:
        """Let the connections stand, and pass nothing on until `flow`."""
        self._soon(self._flowing.clear)

    def flow(self) -> None:
        """Pass on what has come meanwhile, and what comes."""
        self._soon(self._flowing.set)

    # -- inside, on the proxy's thread -----------------------------------------------------------------------------

    async def _open(self) -> None:
        self._flowing.set()
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _close(self) -> None:
        await self._stop_listening()
        if self._cutting is not None:
            self._cutting.cancel()
        self._flowing.set()
        while self._serving:
            self._cut()
            await asyncio.wait(self._serving, timeout=0.1)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:  # the engine is not there
            writer.transport.abort()
            return
        self._writers.add(other_writer)
        await asyncio.gather(self._pass_on(reader, other_writer), self._pass_on(other_reader, writer))
        self._writers -= {writer, other_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    # -- from other threads ----------------------------------------------------------------------------------------

    def _soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    def _call(self, coroutine: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)
