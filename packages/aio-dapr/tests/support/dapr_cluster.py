"""Dapr's processes on the loopback interface: placement, scheduler, sidecars of one application, and Redis if wanted.

Started as a program, it runs a cluster until it is interrupted, and prints the ports of its sidecars:

    python dapr_cluster.py --store redis --replicas 2
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import dapr_binary

if sys.platform != "win32":  # where the tests on a sidecar are skipped
    import fcntl

Store = Literal["sqlite", "redis"]

START_SECONDS = 120.0
"""The longest wait for a process that starts, on a busy machine."""

PORT_BLOCKS = range(14000, 30000, 50)
"""First ports of the blocks of which each cluster takes one: below the ports that the kernel gives to clients."""

REDIS, PLACEMENT, RAFT, SCHEDULER, ETCD, ETCD_PEERS = range(6)
"""Which port of a block is whose."""

FIRST_REPLICA, PORTS_PER_REPLICA, MAX_REPLICAS = 10, 10, 4

CONFIGURATION = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: tests
spec:
  tracing:
    samplingRate: "0"
  metric:
    enabled: false
  nameResolution:
    component: sqlite
    version: v1
    configuration:
      connectionString: {names}
"""

COMPONENT = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.{store}
  version: v1
  metadata:
  - name: actorStateStore
    value: "true"
"""


class ProcessEndedError(Exception):
    """A process of the cluster ended, or did not become healthy, while it was waited for."""


class Ports:
    """A block of free ports that no other cluster on this machine takes, also in other processes of pytest."""

    def __init__(self) -> None:
        for first in PORT_BLOCKS:
            lock = self._lock(first)
            if lock is None:
                continue
            if all(_is_free(first + offset) for offset in range(PORT_BLOCKS.step)):
                self.first = first
                self._file = lock
                return
            lock.close()
        raise OSError(f"no {PORT_BLOCKS.step} ports in sequence are free from {PORT_BLOCKS[0]} to {PORT_BLOCKS.stop}")

    @staticmethod
    def _lock(first: int) -> IO[bytes] | None:
        path = Path(tempfile.gettempdir(), f"durabletask-aio-dapr-{os.getuid()}-{first}.lock")
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file

    def __getitem__(self, offset: int) -> int:
        return self.first + offset

    def release(self) -> None:
        self._file.close()


class Cluster:
    """The processes of one application on Dapr, each of which can be killed and started again.

    Args:
        folder: Where its files are kept: state, configuration, and one log for each process, `<name>.log`.
        binary: The program that `dapr_binary` builds.
        store: Where workflows are kept. Replicas should share Redis: SQLite is one writer at a time.
        app_id: The id of the application.
        log_level: Of Dapr's processes.
    """

    def __init__(
        self, folder: Path, binary: Path, store: Store = "sqlite", app_id: str = "app", log_level: str = "info"
    ) -> None:
        self.folder = folder
        self.store = store
        self.app_id = app_id
        self._binary = str(binary)
        self._log_level = log_level
        self._ports = Ports()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = folder
        self._write_configuration()

    # Start and stop -----------------------------------------------------------------------------------------

    @contextmanager
    def running(self, replicas: int = 1) -> Iterator[Cluster]:
        """Run the cluster, with so many sidecars, while the block is entered."""
        try:
            self.start(replicas)
            yield self
        finally:
            self.stop()

    def start(self, replicas: int = 1) -> None:
        """Start all processes, and wait until they are healthy."""
        if self.store == "redis":
            self.start_redis()
        self.start_control_plane()
        for replica in range(replicas):
            self.start_sidecar(replica, wait=False)
        for replica in range(replicas):
            self.wait_for_sidecar(replica)

    def start_redis(self) -> None:
        """Start Redis with its data in the folder, each write of which is on disk before it is answered."""
        port = self._ports[REDIS]
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._start("redis", command)
        self._wait_for_port("redis", port)

    def start_control_plane(self) -> None:
        """Start the placement and the scheduler service."""
        self.start_placement(wait=False)
        self.start_scheduler(wait=False)
        self._wait_for_port("placement", self._ports[PLACEMENT])
        self._wait_for_port("scheduler", self._ports[SCHEDULER])

    def start_placement(self, *, wait: bool = True) -> None:
        port = self._ports[PLACEMENT]
        command = [self._binary, "placement", "--port", str(port), "--listen-address", "127.0.0.1"]
        command += ["--initial-cluster", f"dapr-placement-0=127.0.0.1:{self._ports[RAFT]}"]
        self._start("placement", [*command, "--log-level", self._log_level])
        if wait:
            self._wait_for_port("placement", port)

    def start_scheduler(self, *, wait: bool = True) -> None:
        port = self._ports[SCHEDULER]
        command = [self._binary, "scheduler", "--port", str(port), "--listen-address", "127.0.0.1"]
        command += ["--etcd-data-dir", str(self.folder / "etcd"), "--etcd-client-port", str(self._ports[ETCD])]
        command += ["--etcd-client-listen-address", "127.0.0.1"]
        command += ["--etcd-initial-cluster", f"dapr-scheduler-server-0=http://127.0.0.1:{self._ports[ETCD_PEERS]}"]
        command += ["--identity-directory-write", str(self.folder / "identity")]
        self._start("scheduler", [*command, "--log-level", self._log_level])
        if wait:
            self._wait_for_port("scheduler", port)

    def start_sidecar(self, replica: int = 0, *, wait: bool = True) -> None:
        """Start a sidecar of the application. Its gRPC port is `grpc_port(replica)`."""
        grpc = self.grpc_port(replica)
        command = [self._binary, "daprd", "--app-id", self.app_id, "--log-level", self._log_level]
        command += ["--dapr-grpc-port", str(grpc), "--dapr-http-port", str(self.http_port(replica))]
        command += ["--dapr-internal-grpc-port", str(grpc + 2), "--dapr-internal-grpc-listen-address", "127.0.0.1"]
        command += ["--dapr-listen-addresses", "127.0.0.1", "--enable-metrics=false"]
        command += ["--resources-path", str(self.folder / "components"), "--config", str(self.folder / "config.yaml")]
        command += ["--placement-host-address", f"127.0.0.1:{self._ports[PLACEMENT]}"]
        command += ["--scheduler-host-address", f"127.0.0.1:{self._ports[SCHEDULER]}"]
        command += ["--dapr-graceful-shutdown-seconds", "1"]
        # The address that the other sidecars are told.
        self._start(f"sidecar-{replica}", command, {"DAPR_HOST_IP": "127.0.0.1"})
        if wait:
            self.wait_for_sidecar(replica)

    def wait_for_sidecar(self, replica: int = 0) -> None:
        """Wait until a sidecar says that its applications can use all of it."""
        url = f"http://127.0.0.1:{self.http_port(replica)}/v1.0/healthz/outbound"
        self._wait(f"sidecar-{replica}", lambda: _answers(url), f"no success from {url}")

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends a process, and wait for its end.

        Args:
            name: `redis`, `placement`, `scheduler`, or `sidecar-<replica>`.
            sig: The signal.
        """
        process = self._processes.pop(name)
        process.send_signal(sig)
        process.wait()

    def stop(self) -> None:
        """End all processes, sidecars first, and give the ports back."""
        for name in sorted(self._processes, key=lambda name: (not name.startswith("sidecar"), name)):
            process = self._processes.pop(name)
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._ports.release()

    # What tests ask for -------------------------------------------------------------------------------------

    def grpc_port(self, replica: int = 0) -> int:
        """The port that workers and clients connect to, at 127.0.0.1."""
        if not 0 <= replica < MAX_REPLICAS:
            raise ValueError(f"replica must be from 0 to {MAX_REPLICAS - 1}, not {replica}")
        return self._ports[FIRST_REPLICA + replica * PORTS_PER_REPLICA]

    def http_port(self, replica: int = 0) -> int:
        return self.grpc_port(replica) + 1

    def environment(self, replica: int = 0) -> Mapping[str, str]:
        """The variables by which Dapr's SDK finds a sidecar."""
        return {
            "DAPR_GRPC_PORT": str(self.grpc_port(replica)),
            "DAPR_HTTP_PORT": str(self.http_port(replica)),
            "DAPR_RUNTIME_HOST": "127.0.0.1",
            "APP_ID": self.app_id,
        }

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def logs(self, lines: int = 40) -> dict[str, str]:
        """The last lines that each process has logged, by its name."""
        found = {}
        for path in sorted(self.folder.glob("*.log")):
            with path.open(encoding="utf-8", errors="replace") as file:
                found[path.stem] = "".join(file.readlines()[-lines:])
        return found

    # Inside -------------------------------------------------------------------------------------------------

    def _write_configuration(self) -> None:
        (self.folder / "components").mkdir(parents=True, exist_ok=True)
        metadata = {"connectionString": str(self.folder / "state.db")}
        if self.store == "redis":
            metadata = {"redisHost": f"127.0.0.1:{self._ports[REDIS]}", "redisPassword": ""}
        lines = [f'  - name: {name}\n    value: "{value}"\n' for name, value in metadata.items()]
        component = COMPONENT.format(store=self.store) + "".join(lines)
        (self.folder / "components" / "state.yaml").write_text(component, encoding="utf-8")
        configuration = CONFIGURATION.format(names=self.folder / "names.db")
        (self.folder / "config.yaml").write_text(configuration, encoding="utf-8")

    def _start(self, name: str, command: list[str], variables: Mapping[str, str] | None = None) -> None:
        if name in self._processes:
            raise ValueError(f"{name} runs already")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(variables or {})}
            )

    def _wait_for_port(self, name: str, port: int) -> None:
        self._wait(name, lambda: not _is_free(port) and _accepts(port), f"nothing accepts connections at {port}")

    def _wait(self, name: str, is_true: Callable[[], bool], complaint: str) -> None:
        process = self._processes[name]
        end = time.monotonic() + START_SECONDS
        while not is_true():
            if process.poll() is not None:
                complaint = f"ended with status {process.returncode}"
            elif time.monotonic() < end:
                time.sleep(0.05)
                continue
            raise ProcessEndedError(f"{name}: {complaint}; its log ends with:\n{self.logs()[name]}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return 200 <= answer.status < 300
    except (OSError, urllib.error.URLError):
        return False


def main() -> None:
    """Run a cluster until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run Dapr's processes until interrupted.")
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--app-id", default="app")
    parser.add_argument("--binary", type=Path, help="Dapr's program; the one that dapr_binary builds, if not given")
    parser.add_argument("--folder", type=Path, help="for state and logs; a temporary one if not given")
    arguments = parser.parse_args()
    binary = arguments.binary or dapr_binary.build()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="durabletask-aio-dapr-"))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        started = time.monotonic()
        with Cluster(folder, binary, arguments.store, arguments.app_id).running(arguments.replicas) as cluster:
            print(f"Healthy after {time.monotonic() - started:.1f} seconds. Logs are in {folder}.")
            for replica in range(arguments.replicas):
                variables = " ".join(f"{name}={value}" for name, value in cluster.environment(replica).items())
                print(f"sidecar-{replica}: {variables}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
