"""Engines and workers in processes of their own, which the tests kill, and what has become of a mix of instances."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import chaos_workflows
import grpc
from chaos_workflows import ACCOUNTS, COUNTER, EVENTS, EXPECTED, INPUTS, Run, account, read_log
from durabletask.client import TaskHubGrpcClient
from tcp_proxy import TcpProxy

from durabletask_aio.engine._upstream import pb, pb_grpc
from durabletask_aio.engine.dispatch import RECONNECT_PERIOD
from durabletask_aio.engine.loopback import free_port

SECONDS = 30.0
"""The longest wait for a process that starts, or an engine that is being started again."""

T = TypeVar("T")

LEASE_IS_KEPT = 1.0
"""Seconds from the beginning of an activity, by which a busy engine has its lease in the file."""


class EngineProcess:
    """`durabletask-aio serve` on a file, always on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        port = free_port(0)
        assert port is not None
        self.port = port
        self.kills: list[float] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("durabletask-aio")), "serve", "--json"]
        command += ["--db", str(self._folder / "engine.db"), "--port", str(self.port), *self._options]
        with open(self._folder / "engine.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("{"), (self._folder / "engine.log").read_text()[-2000:]

    def kill(self) -> None:
        """Kill it, and start it again."""
        self.kills.append(time.time())
        self.end()
        self.start()

    def pause(self, seconds: float) -> None:
        assert self._process is not None
        pause(self._process, seconds)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class WorkerProcess:
    """A worker with the workflows of `chaos_workflows`."""

    def __init__(self, folder: Path, address: str, slow_seconds: float, scale: float) -> None:
        self._folder = folder
        self._arguments = [address, str(folder / "runs"), str(slow_seconds), str(scale)]
        self._process: subprocess.Popen[bytes] | None = None
        self.killed: set[int] = set()

    def start(self) -> None:
        with open(self._folder / "worker.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, chaos_workflows.__file__, *self._arguments], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Kill it, and start another one."""
        assert self._process is not None
        self.killed.add(self._process.pid)
        self.end()
        self.start()

    def pause(self, seconds: float) -> None:
        assert self._process is not None
        pause(self._process, seconds)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def pause(process: subprocess.Popen[Any], seconds: float) -> None:
    """Stop a process with SIGSTOP for a while."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)


class Setup:
    """An engine, workers that reach it through a proxy, and a client that reaches it directly.

    Leases of absent workers last for `scale` times 30 seconds, and workers connect again as much sooner.
    """

    def __init__(self, folder: Path, workers: int, slow_seconds: float, scale: float) -> None:
        folder.mkdir()
        self.folder = folder
        self.engine = EngineProcess(folder, "--reconnect-period", str(scale * RECONNECT_PERIOD))
        self.proxy = TcpProxy(self.engine.port)
        self._slow_seconds = slow_seconds
        self._scale = scale
        self._worker_count = workers
        self.workers: list[WorkerProcess] = []

    @contextmanager
    def running(self) -> Iterator[Setup]:
        try:
            self.engine.start()
            with self.proxy:
                for _ in range(self._worker_count):
                    worker = WorkerProcess(self.folder, self.proxy.address, self._slow_seconds, self._scale)
                    self.workers.append(worker)
                    worker.start()
                yield self
        finally:
            for worker in self.workers:
                worker.end()
            self.engine.end()

    def call(self, function: Callable[[TaskHubGrpcClient], T]) -> T:
        """Call the engine, again while it is being started."""
        end = time.monotonic() + SECONDS
        while True:
            client = TaskHubGrpcClient(host_address=self.engine.address)
            try:
                return function(client)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise
                time.sleep(0.05)
            finally:
                client.close()

    @property
    def runs(self) -> list[Run]:
        return read_log(str(self.folder / "runs"))

    @property
    def killed_workers(self) -> set[int]:
        return {pid for worker in self.workers for pid in worker.killed}


class Mix:
    """Instances of all workflows, started at a steady pace."""

    def __init__(self, setup: Setup, count: int, per_second: float) -> None:
        self._setup = setup
        self._pause = 1 / per_second
        names = list(EXPECTED)
        self.names = {f"{names[number % len(names)]}-{number}": names[number % len(names)] for number in range(count)}

    def run(self, limit: float) -> float:
        """Start the instances, send them their events, and wait until all have ended; returns the seconds."""
        began = time.monotonic()
        for number, (instance_id, name) in enumerate(self.names.items()):
            self._start(instance_id, name, number)
            time.sleep(max(0.0, began + number * self._pause - time.monotonic()))
        for instance_id in self.names:
            left = began + limit - time.monotonic()
            self._wait(instance_id, max(left, 0.1))
        return time.monotonic() - began

    def _start(self, instance_id: str, name: str, number: int) -> None:
        value = INPUTS[name](number) if name in INPUTS else None

        def start(client: TaskHubGrpcClient) -> None:
            try:
                client.schedule_new_orchestration(name, input=value, instance_id=instance_id)
            except grpc.RpcError as error:
                # An attempt before this one had been accepted, and the engine was killed before it could answer.
                if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                    raise

        self._setup.call(start)
        if name == "events":
            for data, event in enumerate(EVENTS, 1):
                self._setup.call(
                    lambda client, event=event, data=data: client.raise_orchestration_event(  # type: ignore[misc]
                        instance_id, event, data=data
                    )
                )

    def _wait(self, instance_id: str, seconds: float) -> None:
        end = time.monotonic() + seconds

        def wait(client: TaskHubGrpcClient) -> None:
            left = max(end - time.monotonic(), 0.1)
            client.wait_for_orchestration_completion(instance_id, timeout=left)

        try:
            self._setup.call(wait)
        except TimeoutError:
            states = Counter(self.states().values())
            raise AssertionError(f"lost: {instance_id} has not ended after {seconds:.0f} s; {states}") from None

    def states(self) -> dict[str, str]:
        found = self._setup.call(lambda client: client.get_all_orchestration_states())
        return {each.instance_id: each.runtime_status.name for each in found}

    # -- what has come of them -------------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What differs from `EXPECTED`, in outputs and in the states of entities."""
        found: list[str] = []
        for instance_id, name in self.names.items():
            state = self._setup.call(lambda client, each=instance_id: client.get_orchestration_state(each))  # type: ignore[misc]
            output = None if state is None else json.loads(state.serialized_output or "null")
            if output != EXPECTED[name]:
                found.append(f"{instance_id}: {output!r} ({None if state is None else state.runtime_status})")
        balances = [self._balance(account(number)) for number in range(ACCOUNTS)]
        transfers = sum(1 for name in self.names.values() if name == "transfer")
        if sum(balances) or self._balance(COUNTER) != transfers:
            found.append(f"balances {balances}, {self._balance(COUNTER)} transfers instead of {transfers}")
        return found

    def _balance(self, entity: Any) -> int:
        found = self._setup.call(lambda client: client.get_entity(entity))
        return 0 if found is None else int(found.get_state(int) or 0)

    def twice(self) -> list[str]:
        """What the histories do not have exactly once: outcomes of what was scheduled, and ends."""
        found: list[str] = []
        with grpc.insecure_channel(self._setup.engine.address) as channel:
            stub = pb_grpc.TaskHubSidecarServiceStub(channel)
            for instance_id in self.states():
                chunks = stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id))
                history = [event for chunk in chunks for event in chunk.events]
                found += [f"{instance_id}: {each}" for each in unbalanced(history)]
        return found

    def rerun(self) -> tuple[list[str], list[str]]:
        """Activities that ran more often than once, and once more for each killed worker that had them.

        Returns:
            Those where a kill of the engine is no explanation either, and those that the engine may have dispatched
            just before it was killed, so that its file did not have their lease.
        """
        by_key: dict[str, list[Run]] = {}
        for run in self._setup.runs:
            by_key.setdefault(run.key, []).append(run)
        unexplained: list[str] = []
        by_engine: list[str] = []
        killed = self._setup.killed_workers
        for key, runs in by_key.items():
            extra = len(runs) - 1 - sum(1 for run in runs if run.pid in killed)
            if extra > 0:
                kills = sum(
                    any(abs(kill - run.time) < LEASE_IS_KEPT for run in runs[:-1]) for kill in self._setup.engine.kills
                )
                text = f"{key}: {len(runs)} runs at {[round(run.time - runs[0].time, 2) for run in runs]}"
                (by_engine if extra <= kills else unexplained).append(text)
        return unexplained, by_engine


def unbalanced(history: list[Any]) -> list[str]:
    """Return what a history has scheduled and not finished exactly once, and whether it has not ended exactly once."""
    scheduled: Counter[tuple[str, Any]] = Counter()
    finished: Counter[tuple[str, Any]] = Counter()
    ends = 0
    for event in history:
        kind = event.WhichOneof("eventType")
        value = getattr(event, kind)
        if kind == "taskScheduled":
            scheduled["activity", event.eventId] += 1
        elif kind in ("taskCompleted", "taskFailed"):
            finished["activity", value.taskScheduledId] += 1
        elif kind == "subOrchestrationInstanceCreated":
            scheduled["child", event.eventId] += 1
        elif kind in ("subOrchestrationInstanceCompleted", "subOrchestrationInstanceFailed"):
            finished["child", value.taskScheduledId] += 1
        elif kind == "timerCreated":
            scheduled["timer", event.eventId] += 1
        elif kind == "timerFired":
            finished["timer", value.timerId] += 1
        elif kind == "entityOperationCalled":
            scheduled["operation", value.requestId] += 1
        elif kind in ("entityOperationCompleted", "entityOperationFailed"):
            finished["operation", value.requestId] += 1
        elif kind == "executionCompleted":
            ends += 1
    found = [f"{key} scheduled {count} times" for key, count in scheduled.items() if count != 1]
    found += [f"{key} finished {finished[key]} times" for key in scheduled if finished[key] != 1]
    found += [f"{key} finished and never scheduled" for key in finished if key not in scheduled]
    return found + ([] if ends == 1 else [f"ended {ends} times"])


class Faults:
    """Faults in random order, on a thread of its own."""

    def __init__(self, setup: Setup, counts: dict[str, int], pauses: tuple[float, float], seed: int) -> None:
        self._setup = setup
        self._random = random.Random(seed)
        self._pauses = pauses
        self._plan = [name for name, count in counts.items() for _ in range(count)]
        self._random.shuffle(self._plan)
        self._thread = threading.Thread(target=self._run, name="faults")
        self._error: BaseException | None = None
        self.done: Counter[str] = Counter()

    def __enter__(self) -> Faults:  # noqa: PYI034
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._plan.clear()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._plan:
                time.sleep(self._random.uniform(*self._pauses))
                if self._plan:
                    name = self._plan.pop()
                    self._note(f"{name} begins")
                    self._inflict(name)
                    self._note(f"{name} has ended")
                    self.done[name] += 1
        except BaseException as error:
            self._error = error

    def _note(self, text: str) -> None:
        """Write what happens into a file, next to the logs of the processes."""
        with open(self._setup.folder / "faults.log", "a", encoding="utf-8") as log:
            log.write(f"{time.time():.3f} {text}\n")

    def _inflict(self, name: str) -> None:
        seconds = self._random.uniform(0.2, 1.5)
        worker = self._random.choice(self._setup.workers)
        if name == "kill worker":
            worker.kill()
        elif name == "kill engine":
            self._setup.engine.kill()
        elif name == "pause worker":
            worker.pause(seconds)
        elif name == "pause engine":
            self._setup.engine.pause(seconds)
        else:
            assert name == "stall"
            self._setup.proxy.stall()
            time.sleep(seconds)
            self._setup.proxy.flow()
