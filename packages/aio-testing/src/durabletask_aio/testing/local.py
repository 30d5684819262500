"""`local_backend`: the engine behind a gRPC server, which workers and clients connect to as to any other.

It listens on the loopback addresses only.  Its state is in memory, or in a file.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from durabletask.client import OrchestrationStatus

from durabletask_aio.engine import events
from durabletask_aio.engine.clock import SystemClock
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD
from durabletask_aio.engine.file_lock import FileLock
from durabletask_aio.engine.kernel import Kernel
from durabletask_aio.engine.opening import open_kernel
from durabletask_aio.engine.server import Server
from durabletask_aio.engine.sqlite import SqliteStore
from durabletask_aio.engine.store import Reader, Store, all_instances
from durabletask_aio.testing.history import History

_NOT_STARTED = "the local engine has not been started; write `with local_backend() as backend:` or call its start()"


class LocalBackend:
    """A local engine that workers and clients connect to over gRPC.

    It runs for the length of a `with` or `async with` block, or from `start` to `stop`.  It listens on the loopback
    addresses only, and its methods are thread-safe.

    Attributes:
        path: the file that keeps the instances, `None` if they are kept in memory.
    """

    def __init__(
        self, port: int = 0, *, db: str | os.PathLike[str] | None = None, reconnect_period: float = RECONNECT_PERIOD
    ) -> None:
        """Make a backend that does not listen yet.

        Args:
            port: see `local_backend`, as for the others.
            db: the file.
            reconnect_period: seconds.

        Raises:
            ValueError: if `reconnect_period` is negative.
        """
        if reconnect_period < 0:
            raise ValueError(f"reconnect_period={reconnect_period!r} is negative")
        self._port = port
        self._reconnect_period = reconnect_period
        self.path = None if db is None else os.fspath(db)
        self._memory = SqliteStore() if db is None else None
        """The store of instances in memory: it outlives a stop."""
        if self._memory is not None:
            weakref.finalize(self, self._memory.close)
        self._clock = SystemClock()
        self._file_lock: FileLock | None = None
        self._kernel: Kernel | None = None
        self._server: Server | None = None
        self._has_started = False

    @property
    def port(self) -> int:
        """The port it listens on; `RuntimeError` before the first start."""
        self._check_started()
        return self._port

    @property
    def address(self) -> str:
        """`"localhost:PORT"`, for the `host_address` of workers and clients; `RuntimeError` before the first start."""
        self._check_started()
        return f"localhost:{self._port}"

    @property
    def kernel(self) -> Kernel:
        """The running engine without its transport, for this package; `RuntimeError` if it does not run."""
        if self._kernel is None:
            raise RuntimeError(_NOT_STARTED)
        return self._kernel

    def _check_started(self) -> None:
        if not self._has_started:
            raise RuntimeError(_NOT_STARTED)

    def start(self) -> LocalBackend:
        """Start listening; a second call does nothing.

        Returns:
            This object.

        Raises:
            OSError: if the port is taken.
            durabletask_aio.engine.store.StoreError: if the file is in use by another engine, damaged, or not an
                engine's; the message says what to do.
        """
        if self._server is None:
            kernel = self._open()
            server = Server(kernel, self._port, who="the local engine")
            try:
                server.start()
            except BaseException:
                self._close(kernel)
                raise
            kernel.start()
            self._kernel, self._server, self._port = kernel, server, server.port
            self._has_started = True
        return self

    def _open(self) -> Kernel:
        if self.path is None:
            assert self._memory is not None
            return Kernel(self._memory, self._clock, reconnect_period=self._reconnect_period)
        kernel, self._file_lock = open_kernel(self.path, reconnect_period=self._reconnect_period)
        return kernel

    def _close(self, kernel: Kernel) -> None:
        kernel.stop(keep_store=self._memory is not None)
        if self._file_lock is not None:
            self._file_lock.release()
            self._file_lock = None

    def stop(self) -> None:
        """Stop listening; a second call does nothing.

        The instances stay: in memory until `reset` is called or the object is gone, or in the file.  A second `start`
        listens on the same port, and continues with them.
        """
        server, self._server = self._server, None
        kernel, self._kernel = self._kernel, None
        if server is not None and kernel is not None:
            self._close(kernel)
            server.stop(0)

    def reset(self) -> None:
        """Delete every instance, entity and timer.  Connected workers stay connected.

        Raises:
            RuntimeError: if the instances are in a file, and it is not open: the backend does not run.
        """
        if self._kernel is not None:
            self._kernel.execute(lambda transaction: transaction.clear())
        else:
            store = self._store()
            store.begin()
            store.clear()
            store.commit()

    def instances(self) -> dict[str, OrchestrationStatus]:
        """List the instances.

        Returns:
            The status of each instance by its id, in the order of creation.

        Raises:
            RuntimeError: if the instances are in a file, and it is not open: the backend does not run.
        """
        with self._reading() as reader:
            return {each.instance_id: OrchestrationStatus(each.status) for each in all_instances(reader)}

    def history(self, instance_id: str) -> History:
        """Return the history of an instance.

        Args:
            instance_id: the id of the instance.

        Returns:
            The history of its latest execution so far.

        Raises:
            KeyError: if there is no such instance; the message lists the instances.
            RuntimeError: if the instances are in a file, and it is not open: the backend does not run.
        """
        with self._reading() as reader:
            instance = reader.instance(instance_id)
            if instance is not None:
                return History(events.past_events(reader.history(instance)), instance_id=instance_id)
        known = ", ".join(self.instances()) or "none"
        raise KeyError(f"no instance {instance_id!r} on the local engine; there are: {known}")

    @contextmanager
    def _reading(self) -> Iterator[Reader]:
        if self._kernel is None:
            yield self._store()
            return
        with self._kernel.reading() as reader:
            yield reader

    def _store(self) -> Store:
        """The store of a backend that does not run."""
        if self._memory is None:
            raise RuntimeError(f"the local engine does not run, so its file is not open: {self.path}")
        return self._memory

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Block until a condition holds.

        Args:
            condition: called a hundred times a second.
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: if `condition()` has not become true by then.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the condition did not come true within {timeout:g} seconds")
            time.sleep(0.01)

    def __enter__(self) -> LocalBackend:  # noqa: PYI034 - typing has Self from 3.11 on
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> LocalBackend:  # noqa: PYI034
        return self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.stop)


def local_backend(
    port: int = 0, *, db: str | os.PathLike[str] | None = None, reconnect_period: float = RECONNECT_PERIOD
) -> LocalBackend:
    """Make a local engine, which is started by `with` or `async with` and stopped at the end of the block.

    Example:
        ```python
        with local_backend() as backend, TaskHubGrpcWorker(host_address=backend.address) as worker:
            ...
        ```

    Args:
        port: the port to listen on, on the loopback addresses; 0 takes a free one.
        db: a file that keeps the instances, created if there is none; by default they are kept in memory.
        reconnect_period: seconds for which a worker of this project keeps what it works on after its connection has
            ended, before another one gets it. A test that kills workers may want less than the default.

    Returns:
        A backend that does not listen yet.

    Raises:
        ValueError: if `reconnect_period` is negative.
    """
    return LocalBackend(port, db=db, reconnect_period=reconnect_period)
