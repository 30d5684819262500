"""The engine, started by a command so that scenarios can kill it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc

from durabletask_aio.testing.conformance.settings import Settings

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


class EngineStartError(Exception):
    """The engine's command ended, or did not make an engine answer."""


def answers(settings: Settings, seconds: float) -> bool:
    """Return whether an engine answers at the address.

    Args:
        settings: How to connect.
        seconds: How long to try.
    """
    options = settings.connection()
    target: str = options["host_address"]
    credentials = grpc.ssl_channel_credentials()
    channel = grpc.secure_channel(target, credentials) if settings.tls else grpc.insecure_channel(target)
    with channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
    return True


def last_line(log: Path) -> str:
    """Return the last line of a log, for messages.

    Args:
        log: The file.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


class EngineProcess:
    """The engine's command and the process that runs it.

    Args:
        command: The command line; it has to listen on the address of the settings.
        settings: How to connect.
        log: Where its output goes.
    """

    def __init__(self, command: str, settings: Settings, log: Path) -> None:
        self._command = shlex.split(command, posix=sys.platform != "win32")
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the command, and wait until the engine answers.

        Raises:
            EngineStartError: It does not.
            OSError: The command cannot be run.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self._settings, 0.5):
            if self._process.poll() is not None:
                raise EngineStartError(
                    f"the engine's command ended with exit code {self._process.returncode}: {last_line(self._log)}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise EngineStartError(f"no engine answers at {self._settings.address} after {_START_SECONDS:g} s")

    def kill(self) -> None:
        """End the engine, and the processes that it has started, with SIGKILL."""
        self._end(getattr(signal, "SIGKILL", signal.SIGTERM))

    def stop(self) -> None:
        """Ask the engine to end, and kill it if it does not."""
        if self._process is None:
            return
        self._send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._send(number)
            self._process.wait()

    def _send(self, number: int) -> None:
        assert self._process is not None
        if sys.platform == "win32":
            self._process.send_signal(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
