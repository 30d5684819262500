"""Workers in processes of their own, which the tests kill, and what the tests wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dapr_cluster import START_SECONDS, Cluster, ProcessEndedError

T = TypeVar("T")


class WorkerProcess:
    """A program that prints `ready` when its workflow runtime is connected to a sidecar.

    Args:
        cluster: Whose sidecar it uses.
        program: Its path, and arguments.
        replica: The number of the sidecar.
    """

    def __init__(self, cluster: Cluster, *program: str | Path, replica: int = 0) -> None:
        self._cluster = cluster
        self._command = [sys.executable, *map(str, program)]
        self._replica = replica
        self._process: subprocess.Popen[str] | None = None
        self.log = cluster.folder / f"worker-{replica}.log"

    def start(self) -> WorkerProcess:
        """Start the program, and wait until it is ready."""
        variables = {**os.environ, **self._cluster.environment(self._replica)}
        variables |= {"SCENARIO_FOLDER": str(self._cluster.folder), "PYTHONUNBUFFERED": "1"}
        with self.log.open("a", encoding="utf-8") as log:
            begin = log.tell()
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=variables, text=True)

        def is_ready() -> bool:
            assert self._process is not None
            said = self.log.read_text(encoding="utf-8")[begin:]
            if self._process.poll() is not None:
                raise ProcessEndedError(f"the worker ended with status {self._process.returncode}: {said[-4000:]}")
            return "ready\n" in said

        wait_for(is_ready, START_SECONDS)
        return self

    def end(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """End it with a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(sig)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Kill it, and start another one."""
        self.end()
        self.start()

    def cpu_seconds(self) -> float:
        """Processor time that it has used until now; Linux only."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(find: Callable[[], T], seconds: float = 60.0) -> T:
    """Call a function until it returns something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > end:
            raise AssertionError(f"{getattr(find, '__qualname__', find)} was not true within {seconds:.0f} seconds")
        time.sleep(0.02)
    return found


def wait_for_status(client: Any, instance_id: str, text: str) -> None:
    """Wait until an instance has a custom status.

    Args:
        client: A `DaprWorkflowClient`.
        instance_id: The instance.
        text: The custom status, which on Dapr is text and not JSON.
    """

    def has_status() -> bool:
        state = client.get_workflow_state(instance_id)
        return state is not None and state.serialized_custom_status == text

    wait_for(has_status)
