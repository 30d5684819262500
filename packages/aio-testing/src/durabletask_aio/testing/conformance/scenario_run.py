"""`ScenarioRun`: what a scenario is given, which is a client, workers, names of its own, and ways to wait."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
from durabletask.client import (
    OrchestrationQuery,
    OrchestrationState,
    OrchestrationStatus,
    TaskHubGrpcClient,
)
from durabletask.entities import EntityInstanceId
from durabletask.worker import ConcurrencyOptions, OrchestrationWorkItemFilter, VersioningOptions, WorkItemFilters

from durabletask_aio.testing._upstream import pb
from durabletask_aio.testing.conformance.outcomes import Hangs, Lost, UnexpectedOutcome, refusal, status_code
from durabletask_aio.testing.conformance.settings import Settings
from durabletask_aio.worker.worker import TaskHubGrpcWorker

_Function = TypeVar("_Function", bound=Callable[..., Any])

_POLL_SECONDS = 0.02

_TERMINAL = frozenset({OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED})

_TERMINATION_SECONDS = 2.0

_CLEAN_UP_SECONDS = 8.0

_STOP_SECONDS = 5.0


class EngineControl(Protocol):
    """The engine's process, for scenarios that kill it."""

    def kill(self) -> None:
        """End the engine with SIGKILL."""

    def start(self) -> None:
        """Start the engine, and wait until it answers."""


class ScenarioRun:
    """One run of a scenario: its client, its workers, and names that no other scenario has.

    Functions are registered under names of this run, and instance ids begin with its prefix, since workers and
    instances of other scenarios may be on the engine.

    Args:
        name: The name of the scenario.
        settings: The settings; `timeout` is the limit of this scenario.
        engine: The engine's process, if it was started by a command.
    """

    def __init__(self, name: str, settings: Settings, engine: EngineControl) -> None:
        self.settings = settings
        self._engine = engine
        self.prefix = f"conformance-{settings.run_id}-{name}-"
        self._ids = 0
        self._orchestrators: list[Callable[..., Any]] = []
        self._activities: list[Callable[..., Any]] = []
        self._entities: list[Callable[..., Any]] = []
        self._entity_ids: list[EntityInstanceId] = []
        self._workers: list[TaskHubGrpcWorker] = []
        self._processes: list[subprocess.Popen[str]] = []

    # -- the engine's users ---------------------------------------------------------------------------------------

    @cached_property
    def client(self) -> TaskHubGrpcClient:
        """Upstream's client, connected to the engine."""
        return self.settings.new_client()

    @cached_property
    def folder(self) -> Path:
        """A temporary folder, which processes of this scenario share."""
        self._temporary = tempfile.TemporaryDirectory(prefix="conformance-")
        return Path(self._temporary.name)

    @property
    def wait_timeout(self) -> float:
        """Seconds to wait for something that should happen at once."""
        return self.settings.wait_timeout

    def orchestrator(self, function: _Function) -> _Function:
        """Register an orchestrator with the workers that are started from now on.

        Args:
            function: The orchestrator; its name becomes one of this run.

        Returns:
            The function.
        """
        return self._register(function, self._orchestrators)

    def activity(self, function: _Function) -> _Function:
        """Register an activity with the workers that are started from now on.

        Args:
            function: The activity; its name becomes one of this run.

        Returns:
            The function.
        """
        return self._register(function, self._activities)

    def entity(self, function: _Function) -> _Function:
        """Register an entity with the workers that are started from now on.

        Args:
            function: The entity, a function or a class; its name becomes one of this run.

        Returns:
            The function.
        """
        return self._register(function, self._entities)

    def _register(self, function: _Function, functions: list[Callable[..., Any]]) -> _Function:
        if not function.__name__.startswith(self.prefix):
            function.__name__ = self.prefix + function.__name__
        functions.append(function)
        return function

    def start_worker(
        self,
        *functions: Callable[..., Any],
        concurrency: ConcurrencyOptions | None = None,
        versioning: VersioningOptions | None = None,
        filters: WorkItemFilters | None = None,
        filtered: bool = False,
        **options: Any,
    ) -> TaskHubGrpcWorker:
        """Start a worker.

        Args:
            *functions: Which of the registered functions it has; none means all.
            concurrency: Its limits.
            versioning: Its version.
            filters: The work items that it asks for.
            filtered: Whether it asks for work items of its functions only.
            **options: Other keywords of the worker.

        Returns:
            The worker, which is stopped at the end of the scenario.
        """
        worker = TaskHubGrpcWorker(**self.settings.connection(), concurrency_options=concurrency, **options)
        chosen = functions or (*self._orchestrators, *self._activities, *self._entities)
        for function in chosen:
            if function in self._orchestrators:
                worker.add_orchestrator(function)
            elif function in self._activities:
                worker.add_activity(function)
            else:
                worker.add_entity(function, function.__name__)
        if versioning is not None:
            worker.use_versioning(versioning)
        if filters is not None:
            worker.use_work_item_filters(filters)
        elif filtered or self.settings.filters:
            worker.use_work_item_filters()
        worker.start()
        self._workers.append(worker)
        return worker

    def start_worker_process(self, *functions: Callable[..., Any], sessions: bool = True) -> subprocess.Popen[str]:
        """Start a worker in a process of its own, and wait until it runs.

        Args:
            *functions: Functions on the top level of a module; those that are named `..._activity` are activities, and
                all others orchestrators. They find the shared folder in the environment variable
                `CONFORMANCE_FOLDER`.
            sessions: Whether the worker keeps instances in memory between their turns.

        Returns:
            The process, which is killed at the end of the scenario.
        """
        program = "durabletask_aio.testing.conformance.worker_process"
        references = [f"{each.__module__}:{each.__qualname__}" for each in functions]
        arguments = [self.settings.to_json(), self.prefix, str(self.folder), "sessions" if sessions else "replay"]
        process = subprocess.Popen(
            [sys.executable, "-m", program, *arguments, *references],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "started":
            raise UnexpectedOutcome(f"the worker process ended with exit code {process.wait()}")
        return process

    # -- instances ------------------------------------------------------------------------------------------------

    def new_id(self, label: str = "") -> str:
        """Return a new instance id.

        Args:
            label: What to add to it.
        """
        self._ids += 1
        return f"{self.prefix}{self._ids}{label}"

    def entity_id(self, entity: Callable[..., Any], key: str = "key") -> EntityInstanceId:
        """Return the id of an entity.

        Args:
            entity: The registered function or class.
            key: Tells entities of that name apart.
        """
        found = EntityInstanceId(entity.__name__, key)
        if found not in self._entity_ids:
            self._entity_ids.append(found)
        return found

    def entity_state(self, entity: EntityInstanceId) -> Any:
        """Return the state of an entity; `None` if it has none.

        Args:
            entity: Its id.
        """
        found = self.client.get_entity(entity)
        return None if found is None or not found.get_state() else found.get_typed_state()

    def schedule(
        self,
        orchestrator: Callable[..., Any] | str,
        input: Any = None,  # noqa: A002 - upstream's name for it
        *,
        instance_id: str | None = None,
        start_at: datetime | None = None,
        reuse_id_policy: pb.OrchestrationIdReusePolicy | None = None,
        tags: dict[str, str] | None = None,
        version: str | None = None,
    ) -> str:
        """Start an instance with an id of this run.

        Args:
            orchestrator: The registered function, or its name.
            input: Its input.
            instance_id: Its id, by default a new one.
            start_at: When it starts.
            reuse_id_policy: Which instance of that id it replaces.
            tags: Its tags.
            version: Its version.

        Returns:
            The id.
        """
        return self.client.schedule_new_orchestration(
            orchestrator if isinstance(orchestrator, str) else orchestrator.__name__,
            input=input,
            instance_id=instance_id or self.new_id(),
            start_at=start_at,
            reuse_id_policy=reuse_id_policy,
            tags=tags,
            version=version,
        )

    def output(self, orchestrator: Callable[..., Any], input: Any = None, *, tags: dict[str, str] | None = None) -> Any:  # noqa: A002
        """Run an orchestrator to its end, on a worker that is started if there is none.

        Args:
            orchestrator: The registered function.
            input: Its input.
            tags: Its tags.

        Returns:
            Its output.

        Raises:
            Hangs: It does not end.
            UnexpectedOutcome: It does not complete.
        """
        if not self._workers:
            self.start_worker()
        return self.wait(self.schedule(orchestrator, input, tags=tags)).get_output()

    def state(self, instance_id: str) -> OrchestrationState:
        """Return the state of an instance that must exist.

        Args:
            instance_id: Its id.

        Raises:
            Lost: There is no such instance.
        """
        found = self.client.get_orchestration_state(instance_id)
        if found is None:
            raise Lost(f"there is no instance {self.short(instance_id)}")
        return found

    def wait(
        self,
        instance_id: str,
        status: OrchestrationStatus | None = OrchestrationStatus.COMPLETED,
        *,
        extra_seconds: float = 0.0,
    ) -> OrchestrationState:
        """Wait until an instance has ended.

        Args:
            instance_id: Its id.
            status: How it should end; `None` for any way.
            extra_seconds: How long it may take in addition to what is usual.

        Returns:
            Its last state.

        Raises:
            Hangs: It does not end.
            Lost: There is no such instance.
            UnexpectedOutcome: It ends in another way.
        """
        seconds = self.wait_timeout + extra_seconds
        try:
            found = self.client.wait_for_orchestration_completion(instance_id, timeout=seconds)
        except TimeoutError:
            state = self.state(instance_id)
            raise Hangs(f"{self.short(instance_id)} is {state.runtime_status.name} after {seconds:g} s") from None
        if found is None:
            raise Lost(f"there is no instance {self.short(instance_id)}")
        if status is not None and found.runtime_status is not status:
            failure = found.failure_details
            reason = f": {failure.error_type}: {failure.message}" if failure is not None else ""
            raise UnexpectedOutcome(
                f"{self.short(instance_id)} is {found.runtime_status.name}, not {status.name}{reason}"
            )
        return found

    def wait_for_status(self, instance_id: str, status: OrchestrationStatus) -> OrchestrationState:
        """Wait until an instance has a status.

        Args:
            instance_id: Its id.
            status: The status.

        Returns:
            Its state.

        Raises:
            Hangs: It does not get that status.
        """
        what = f"{self.short(instance_id)} to be {status.name}"
        self.wait_until(
            lambda: self.state(instance_id).runtime_status is status,
            what,
            lambda: self.state(instance_id).runtime_status.name,
        )
        return self.state(instance_id)

    def wait_until(self, condition: Callable[[], bool], what: str, found: Callable[[], object] | None = None) -> None:
        """Wait until a condition holds.

        Args:
            condition: What to wait for.
            what: Its description: `still waiting for ...`.
            found: Returns what is there instead.

        Raises:
            Hangs: It does not hold in time.
        """
        deadline = time.monotonic() + self.wait_timeout
        while not condition():
            if time.monotonic() > deadline:
                instead = "" if found is None else f", found {found()}"
                raise Hangs(f"still waiting for {what} after {self.wait_timeout:g} s{instead}")
            time.sleep(_POLL_SECONDS)

    def check_stays(self, condition: Callable[[], bool], what: str, seconds: float = 1.0) -> None:
        """Fail the scenario if a condition does not hold for a while.

        Args:
            condition: What must hold.
            what: What is wrong if it does not.
            seconds: How long it must hold.

        Raises:
            UnexpectedOutcome: It did not hold.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not condition():
                raise UnexpectedOutcome(what)
            time.sleep(_POLL_SECONDS)

    def refused(self, call: Callable[[], object]) -> grpc.StatusCode | None:
        """Make a call that the engine may refuse.

        Args:
            call: The call.

        Returns:
            The code of the refusal, `None` if the call was accepted.
        """
        try:
            call()
        except grpc.RpcError as error:
            code = refusal(error)
            if code is None:
                raise
            return code
        return None

    def kill_engine(self) -> None:
        """End the engine with SIGKILL."""
        self._engine.kill()

    def start_engine(self) -> None:
        """Start the engine that was killed, and wait until the client is connected to it."""
        self._engine.start()
        self.wait_until(self._is_connected, "the client to connect again")

    def _is_connected(self) -> bool:
        try:
            self.client.get_orchestration_state(self.prefix)
        except grpc.RpcError as error:
            if status_code(error) is grpc.StatusCode.UNAVAILABLE:
                return False
            raise
        return True

    def mine(self, states: Iterable[OrchestrationState]) -> list[OrchestrationState]:
        """Return those of the states that are of instances of this run.

        Args:
            states: States of any instances.
        """
        return [each for each in states if each.instance_id.startswith(self.prefix)]

    def short(self, instance_id: str) -> str:
        """Return an instance id without the prefix of this run, for messages.

        Args:
            instance_id: The id.
        """
        return f"instance {instance_id.removeprefix(self.prefix)}"

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Terminate and purge the instances of this run, delete its entities, and stop its workers."""
        for process in self._processes:
            process.kill()
            process.wait()
        with suppress(grpc.RpcError):
            remove_instances(self.settings, self.client, self.prefix)
            self._delete_entities()
        # A worker waits for its sync activities, and one of them may be what hangs.
        stopping = [threading.Thread(target=worker.stop, daemon=True) for worker in self._workers]
        for each in stopping:
            each.start()
        deadline = time.monotonic() + _STOP_SECONDS
        for each in stopping:
            each.join(max(0.0, deadline - time.monotonic()))
        self.client.close()
        if "folder" in vars(self):
            self._temporary.cleanup()

    def _delete_entities(self) -> None:
        for each in self._entity_ids:
            self.client.signal_entity(each, "delete")


def remove_instances(settings: Settings, client: TaskHubGrpcClient, prefix: str) -> None:
    """Terminate and purge all instances whose ids begin with a prefix.

    An engine may need a worker to terminate an instance that has not started; if so, there is one for that time.

    Args:
        settings: How to connect.
        client: A client of the engine.
        prefix: Where their ids begin.
    """
    query = OrchestrationQuery(instance_id_prefix=prefix)

    def instances() -> list[OrchestrationState]:
        return [each for each in client.get_all_orchestration_states(query) if each.instance_id.startswith(prefix)]

    def alive() -> list[OrchestrationState]:
        return [each for each in instances() if each.runtime_status not in _TERMINAL]

    def wait(seconds: float) -> list[OrchestrationState]:
        deadline = time.monotonic() + seconds
        while (left := alive()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return left

    for each in alive():
        client.terminate_orchestration(each.instance_id, recursive=True)
    if left := wait(_TERMINATION_SECONDS):
        names = [OrchestrationWorkItemFilter(name) for name in {each.name for each in left}]
        worker = TaskHubGrpcWorker(**settings.connection())
        worker.use_work_item_filters(WorkItemFilters(orchestrations=names))
        with worker:
            worker.start()
            wait(_CLEAN_UP_SECONDS)
    for each in instances():
        client.purge_orchestration(each.instance_id, recursive=False)
