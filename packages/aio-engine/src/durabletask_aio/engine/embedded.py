"""`Engine`: the engine in a program of one's own."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from durabletask_aio.engine._upstream import SERVICE, AsyncTaskHubGrpcClient, TaskHubGrpcClient
from durabletask_aio.engine.channel import InProcessChannel
from durabletask_aio.engine.channel_aio import InProcessAioChannel
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD, TURN_LEASE
from durabletask_aio.engine.file_lock import FileLock
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.management.client import EngineClient
from durabletask_aio.engine.management.rpc import SERVICE as MANAGEMENT
from durabletask_aio.engine.management.service import ManagementService
from durabletask_aio.engine.opening import open_kernel
from durabletask_aio.engine.server import Access, Server
from durabletask_aio.engine.service import TaskHubService

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc
    from durabletask.aio.worker import TaskHubGrpcWorker
    from starlette.applications import Starlette

    from durabletask_aio.engine.web.waiting import DescribeWaiting

_logger = logging.getLogger("durabletask.aio.engine")

WORKERS_GROUP = "durabletask.aio.workers"
"""The worker class of `Engine.worker`, which the worker package announces as `default`."""

Durability = Literal["fsync", "os"]


def page_needs(error: ModuleNotFoundError) -> str:
    """Return what to install for the page, whose import has failed."""
    return f'the page needs {error.name}, which is not installed: pip install "durabletask-aio-engine[ui]"'


class Engine:
    """A durable engine in this process, with its state in one file, or in memory.

    It runs from `start` to `stop`, or for the length of a `with` or `async with` block.  Its `worker`, `client` and
    `async_client` reach it without a socket; `listen` lets others in.

    Example:
        ```python
        async with Engine("orders.db") as engine:
            async with engine.worker() as worker:
                name = worker.add_orchestrator(order)
                worker.add_activity(charge)
                worker.start()
                client = engine.async_client()
                instance_id = await client.schedule_new_orchestration(name, input=5)
                await client.wait_for_orchestration_completion(instance_id)
        ```

    What a call acknowledges is committed: a start, an event, the result of an activity.  An activity runs at least
    once; it runs again if the process ends before its result is committed.  After a restart with the same file
    everything continues where it was.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: Durability = "fsync",
        wait: float = 0.0,
        turn_lease: float = TURN_LEASE,
        activity_lease: float | None = None,
        reconnect_period: float = RECONNECT_PERIOD,
    ) -> None:
        """Describe an engine; nothing is opened before it starts.

        Args:
            path: the database, on a local file system, which is created if it does not exist; `None` keeps everything
                in memory until the engine stops.
            durability: with `"fsync"`, what is acknowledged survives a power cut; with `"os"` it survives the end of
                every process, but a power cut can undo the last acknowledged starts, events and results.
            wait: seconds for which to wait for an engine that still uses the file, for restarts that overlap.
            turn_lease: seconds after which a turn, or a batch of entity operations, is dispatched again if a worker of
                another process has not answered.
            activity_lease: the same for activities; by default they may take any time.
            reconnect_period: seconds for which a worker of another process that has named itself keeps what it works on
                after its connection has broken.

        Raises:
            ValueError: for another durability, a negative number of seconds, or a lease of none.
        """
        if durability not in ("fsync", "os"):
            raise ValueError(f"durability={durability!r} is neither 'fsync' nor 'os'")
        for name, value in (("wait", wait), ("reconnect_period", reconnect_period)):
            if value < 0:
                raise ValueError(f"{name}={value!r} is negative")
        for name, lease in (("turn_lease", turn_lease), ("activity_lease", activity_lease)):
            if lease is not None and lease <= 0:
                raise ValueError(f"{name}={lease!r} is not a positive number of seconds")
        self.path = None if path is None else Path(path)
        self.durability = durability
        self._wait = wait
        self._turn_lease = turn_lease
        self._activity_lease = activity_lease
        self._reconnect_period = reconnect_period
        self._lock: FileLock | None = None
        self._kernel: Kernel | None = None
        self._servicers: dict[Any, object] = {}
        self._channel: InProcessChannel | None = None
        self._servers: list[Server] = []
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    # -- running ---------------------------------------------------------------------------------------------------

    def start(self) -> Engine:
        """Open the database and continue with what it holds.

        Does nothing if the engine runs already.

        Returns:
            This object.

        Raises:
            StoreError: if the file is in use by another engine, damaged, written by a newer version, or not an
                engine's; the message says what to do.
        """
        if self._kernel is not None:
            return self
        began = time.monotonic()
        kernel, self._lock = open_kernel(
            self.path,
            self.durability,
            wait=self._wait,
            turn_lease=self._turn_lease,
            activity_lease=self._activity_lease,
            reconnect_period=self._reconnect_period,
        )
        kernel.start()
        self._kernel = kernel
        self._servicers = {SERVICE: TaskHubService(kernel, in_process=True), MANAGEMENT: ManagementService(kernel)}
        self._channel = InProcessChannel(self._servicers, blocking_loops=self._loops.__contains__)
        turns, activities, entities = kernel.loaded
        _logger.info(
            "Engine started on %s (%s) in %.2f s: %d turns, %d activities and %d entities to continue with",
            "memory" if self.path is None else self.path,
            "nothing is kept" if self.path is None else f"durability {self.durability}",
            time.monotonic() - began,
            turns,
            activities,
            entities,
        )
        return self

    def stop(self, grace: float = 0.0) -> None:
        """Stop: no new work is given out, waiting clients get `UNAVAILABLE`, and the file is closed.

        Does nothing if the engine does not run.  What workers have not answered runs again after the next start.

        Args:
            grace: seconds for which the answers of workers are still taken.
        """
        kernel = self._kernel
        if kernel is None:
            return
        kernel.pause()
        end = time.monotonic() + grace
        while kernel.is_busy and time.monotonic() < end:
            time.sleep(0.01)
        kernel.stop()
        for server in self._servers:
            server.stop(0)
        self._servers.clear()
        if self._channel is not None:
            self._channel.close()
        self._kernel = self._channel = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        _logger.info("Engine stopped")

    @property
    def is_running(self) -> bool:
        """Whether the engine has been started and not stopped."""
        return self._kernel is not None

    def __enter__(self) -> Engine:  # noqa: PYI034 - typing has Self from 3.11 on
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Engine:  # noqa: PYI034
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.start)
        self._loops.add(loop)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # Shielded, so that a cancelled task does not leave the file locked.
        await asyncio.shield(asyncio.to_thread(self.stop))

    # -- who uses it -----------------------------------------------------------------------------------------------

    def worker(self, **options: Any) -> TaskHubGrpcWorker:
        """Make a worker of this engine; it has to be started and stopped as any other.

        Args:
            **options: those of [`TaskHubGrpcWorker`][durabletask.aio.worker.TaskHubGrpcWorker].

        Returns:
            A worker that reaches the engine in this process.

        Raises:
            ImportError: if `durabletask-aio-worker` is not installed.
            RuntimeError: if the engine does not run.
        """
        channel = self._running_channel()
        for entry in entry_points(group=WORKERS_GROUP, name="default"):
            return cast("TaskHubGrpcWorker", entry.load()(channel=channel, **options))
        raise ImportError(
            "a worker needs durabletask-aio-worker, which is not installed: "
            'pip install "durabletask-aio-core[engine,worker]"'
        )

    def client(self, **options: Any) -> TaskHubGrpcClient:
        """Make a client of this engine.

        Args:
            **options: those of upstream's `TaskHubGrpcClient`.

        Returns:
            A client that reaches the engine in this process.

        Raises:
            RuntimeError: if the engine does not run.
        """
        return TaskHubGrpcClient(channel=self._running_channel(), **options)

    def async_client(self, **options: Any) -> AsyncTaskHubGrpcClient:
        """Make an async client of this engine.

        Args:
            **options: those of upstream's `AsyncTaskHubGrpcClient`.

        Returns:
            A client that reaches the engine in this process.  Waiting clients occupy no threads.

        Raises:
            RuntimeError: if the engine does not run.
        """
        self._running_channel()
        channel = InProcessAioChannel(self._servicers)
        return AsyncTaskHubGrpcClient(channel=cast("Any", channel), **options)

    def management(self) -> EngineClient:
        """Make a client of what the engine offers beyond upstream's protocol: search, details, fork, statistics.

        Returns:
            A client that reaches the engine in this process.

        Raises:
            RuntimeError: if the engine does not run.
        """
        return EngineClient(self._running_channel())

    def _running_channel(self) -> InProcessChannel:
        if self._channel is None:
            raise RuntimeError("the engine does not run; write `with Engine(...) as engine:` or call its start()")
        return self._channel

    def listen(self, port: int = 0, access: Access | None = None) -> Server:
        """Let workers and clients of other processes in, until the engine stops.

        Args:
            port: where to listen; 0 takes a free port.
            access: who may connect; programs on this machine by default.

        Returns:
            The server, which listens.

        Raises:
            OSError: if the port is taken.
            RuntimeError: if the engine does not run.
        """
        server = Server(self.kernel, port, access)
        server.start()
        self._servers.append(server)
        return server

    def page(
        self,
        *,
        token: str | None = None,
        names: Sequence[str] = (),
        any_address: bool = False,
        describe_waiting: DescribeWaiting | None = None,
    ) -> Starlette:
        """Make the page of this engine, an ASGI application to be served on its own or mounted in another one.

        Example:
            ```python
            @asynccontextmanager
            async def lifespan(app: FastAPI) -> AsyncIterator[None]:
                async with Engine("orders.db") as engine:
                    app.mount("/workflows", engine.page(token=token, names=["shop.example"]))
                    yield
            ```

        Args:
            token: what users have to enter, and programs to send as `authorization: Bearer TOKEN`; `None` for no check.
            names: host names under which the page answers, in addition to `localhost` and the loopback addresses.
            any_address: whether it also answers under every IP address.
            describe_waiting: finds out what an instance awaits; called with an instance id and its history.

        Returns:
            The application.

        Raises:
            ImportError: if the extra `ui` is not installed.
            RuntimeError: if the engine does not run.
        """
        channel = self._running_channel()
        try:
            from durabletask_aio.engine.web.app import create_app
        except ModuleNotFoundError as error:
            raise ImportError(page_needs(error)) from error
        return create_app(
            cast("grpc.Channel", channel),
            token=token,
            names=names,
            any_address=any_address,
            describe_waiting=describe_waiting,
        )

    @property
    def channel(self) -> InProcessChannel:
        """A gRPC channel to the engine's services, without a socket."""
        return self._running_channel()

    @property
    def kernel(self) -> Kernel:
        """The running engine without its transport, for this package."""
        if self._kernel is None:
            raise RuntimeError("the engine does not run; write `with Engine(...) as engine:` or call its start()")
        return self._kernel

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the database while the engine runs.

        Args:
            target: the new file.

        Raises:
            StoreError: if that file exists.
        """
        self.kernel.backup(target)
