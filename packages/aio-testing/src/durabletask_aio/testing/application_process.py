"""Asks an application what its instances wait for, in a process of its own.

Finding out runs the code of workflows.  In another process, code that blocks, exits or prints does no harm to the
engine, and a changed file only needs a new process.  Requests and answers are lines of JSON.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from durabletask_aio.core import hosting
from durabletask_aio.engine.web.waiting import Awaited, WaitingUnknownError
from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.applications import Application, UnknownWorkflowError, load_application
from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.history import History
from durabletask_aio.testing.orchestrators import OrchestratorLookupError

START_TIMEOUT = 60.0
"""Seconds for the import of the application."""

ANSWER_TIMEOUT = 20.0
"""Seconds for a replay."""

_Stamps = dict[str, tuple[int, int] | None]


class ApplicationProcess:
    """Runs an application's workflows over histories, to tell what they wait for.  Thread-safe.

    It is the `describe_waiting` of the engine's page.  The process is replaced when a file of the application has
    changed.
    """

    def __init__(self, references: Sequence[str], *, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        """Name the application; nothing is imported yet.

        Args:
            references: see `load_application`.
            answer_timeout: seconds for a replay.
        """
        self._references = references
        self._answer_timeout = answer_timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stamps: _Stamps = {}

    def start(self) -> ApplicationProcess:
        """Import the application.

        Returns:
            This object.

        Raises:
            OrchestratorLookupError: if it cannot be imported, or has no workflows.
        """
        with self._lock:
            try:
                self._ensure_current()
            except WaitingUnknownError as error:
                raise OrchestratorLookupError(str(error)) from error
        return self

    def __call__(self, instance_id: str, history: Sequence[pb.HistoryEvent]) -> Sequence[Awaited]:
        """Tell what an instance waits for.

        Args:
            instance_id: its id.
            history: its history so far.

        Returns:
            The places at which its code waits.

        Raises:
            WaitingUnknownError: if that is not known; the message says why.
        """
        chunk = pb.HistoryChunk(events=history).SerializeToString()
        with self._lock:
            self._ensure_current()
            answer = self._ask({"instance_id": instance_id, "history": base64.b64encode(chunk).decode()})
        return [Awaited(**each) for each in answer["awaited"]]

    def stop(self) -> None:
        """End the process.  May be called twice."""
        with self._lock:
            self._end()

    def __enter__(self) -> ApplicationProcess:  # noqa: PYI034 - typing has Self from 3.11 on
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _ensure_current(self) -> None:
        """Start a process if there is none, or if the files of the one there is have changed."""
        if self._process is not None and (self._process.poll() is not None or _stamps(self._stamps) != self._stamps):
            self._end()
        if self._process is None:
            command = [sys.executable, "-m", "durabletask_aio.testing.application_process", *self._references]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
                **_OWN_GROUP,
            )
            self._read(START_TIMEOUT)

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, which reading reports
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read(self._answer_timeout)

    def _read(self, seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        line = process.stdout.readline()
        has_expired = not timer.is_alive()
        timer.cancel()
        if not line:
            self._end()
            reason = f"has not answered within {seconds:g} s" if has_expired else "has ended its process"
            raise WaitingUnknownError(f"{', '.join(self._references)} {reason}")
        answer: dict[str, Any] = json.loads(line)
        self._stamps = _stamps(answer["files"])
        if "error" in answer:
            if not answer["is_ready"]:
                self._end()
            raise WaitingUnknownError(answer["error"])
        return answer

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what is not written is for a process that has ended
                stream.close()
        process.wait()


# Ctrl-C in the terminal of the command is for the command alone.
_OWN_GROUP: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)


def _stamps(files: Iterable[str]) -> _Stamps:
    return {file: _stamp(file) for file in files}


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


# -- the other process ---------------------------------------------------------------------------------------------


def serve(references: Sequence[str], requests: TextIO, answers: TextIO) -> None:
    """Load an application, and answer requests until there are no more.

    Args:
        references: see `load_application`.
        requests: a line of JSON for each.
        answers: likewise; the first line is that of the start.
    """

    def answer(document: dict[str, Any]) -> None:
        # With each answer: workflows import modules while they run.
        answers.write(json.dumps({**document, "files": _own_files()}) + "\n")
        answers.flush()

    try:
        application = load_application(references)
    except OrchestratorLookupError as error:
        answer({"error": str(error), "is_ready": False})
        return
    answer({})
    for line in requests:
        answer(_answer(application, json.loads(line)))


def _answer(application: Application, request: dict[str, str]) -> dict[str, Any]:
    chunk = pb.HistoryChunk.FromString(base64.b64decode(request["history"]))
    history = History(chunk.events, instance_id=request["instance_id"])
    try:
        return {"awaited": [asdict(each) for each in describe(application.waits(history))]}
    except (UnknownWorkflowError, ReplayError) as error:
        return {"error": str(error), "is_ready": True}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "is_ready": True}


def describe(waits: Iterable[hosting.Wait]) -> list[Awaited]:
    """Return what an instance waits for in the form of the engine's page.

    Args:
        waits: what its code waits for, the main task first.

    Returns:
        The same for people; a line of code that was shown before is not repeated.
    """
    described: list[Awaited] = []
    for wait in waits:
        what = f"{wait.what}, in {wait.task!r}" if wait.task and described else wait.what
        if not wait.frames:
            described.append(Awaited(what, wait.event))
            continue
        innermost = wait.frames[-1]
        location = f"{_shortened(innermost.filename)}:{innermost.lineno} in {innermost.name}"
        is_shown = any(each.location == location for each in described)
        line = "" if is_shown else (innermost.line or "").strip()
        stack = "".join(traceback.format_list(list(wait.frames))) if len(wait.frames) > 1 else ""
        described.append(Awaited(what, wait.event, location, line, stack))
    return described


def _shortened(filename: str) -> str:
    """Return a path relative to the current directory, if it is below it."""
    try:
        return str(Path(filename).relative_to(os.getcwd()))
    except ValueError:
        return filename


def _own_files() -> list[str]:
    """Return the files of the modules that are neither installed nor of the standard library."""
    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    files = {getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())}
    return sorted(file for file in files if isinstance(file, str) and not file.startswith(installed))


def _main() -> None:
    # What the application prints goes to standard error: standard output is for the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    serve(sys.argv[1:], sys.stdin, answers)


if __name__ == "__main__":
    _main()
