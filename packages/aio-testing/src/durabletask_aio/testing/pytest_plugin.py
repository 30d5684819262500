"""The pytest plugin: fixtures, the sandbox mode of a test's workflows, recorded histories, failure reports.

It is loaded by its entry point in every pytest run of an environment that has this package, so it imports nothing of
``durabletask`` until a fixture is used.  No fixture is async: they work with pytest-asyncio, anyio and neither.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from durabletask_aio.testing.environment import WorkflowEnvironment
    from durabletask_aio.testing.history import History
    from durabletask_aio.testing.local import LocalBackend
    from durabletask_aio.worker.worker import TaskHubGrpcWorker

_MODES = ("off", "best_effort", "strict")
_SANDBOX_GROUP = "durabletask.aio.sandbox"
_environments: pytest.StashKey[list[Any]] = pytest.StashKey()
_backends: pytest.StashKey[Any] = pytest.StashKey()
_MOST_TREES = 5
_LONGEST_TREE = 30
_LONGEST_NAME = 200
"""Bytes of a file's name; file systems take 255."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("durabletask-aio", "durable workflows")
    group.addoption(
        "--workflow-sandbox",
        choices=_MODES,
        default=None,
        help="sandbox mode of async workflows in tests that use workflow_env or grpc_worker "
        "(default: strict if the sandbox is installed)",
    )
    group.addoption(
        "--record-histories",
        metavar="DIR",
        default=None,
        help="save the history of every instance of workflow_env and local_backend there, for durabletask-aio replay",
    )
    parser.addini("workflow_sandbox", "sandbox mode of async workflows in tests: off, best_effort or strict")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "workflow_sandbox(mode): the sandbox mode of async workflows in this test: off, best_effort, strict"
    )
    mode = config.getini("workflow_sandbox")
    if mode and mode not in _MODES:
        raise pytest.UsageError(f"workflow_sandbox = {mode}: use one of {', '.join(_MODES)}")


def _sandbox_mode(request: pytest.FixtureRequest) -> str | None:
    """What the nearest marker says, or the command line, or the ini file; else strict, where that is possible."""
    marker = request.node.get_closest_marker("workflow_sandbox")
    if marker is not None:
        if len(marker.args) != 1 or marker.args[0] not in _MODES:
            raise pytest.UsageError(f"@pytest.mark.workflow_sandbox takes one of {', '.join(map(repr, _MODES))}")
        return str(marker.args[0])
    asked = request.config.getoption("--workflow-sandbox") or request.config.getini("workflow_sandbox")
    if asked:
        return str(asked)
    return "strict" if entry_points(group=_SANDBOX_GROUP) else None


@pytest.fixture
def workflow_env(request: pytest.FixtureRequest) -> Iterator[Callable[..., WorkflowEnvironment]]:
    """Makes workflow environments, in the sandbox mode of the test::

    async def test_order(workflow_env):
        async with workflow_env(orchestrators=[order], activities=[charge]) as env:
            assert await env.execute(order, input=5) == "receipt 7"

    Takes what :class:`WorkflowEnvironment` takes.
    """
    from durabletask_aio.testing.environment import WorkflowEnvironment

    environments: list[WorkflowEnvironment] = []
    request.node.stash[_environments] = environments

    def make(**settings: Any) -> WorkflowEnvironment:
        settings.setdefault("sandbox_mode", _sandbox_mode(request))
        environments.append(WorkflowEnvironment(**settings))
        return environments[-1]

    yield make
    for environment in environments:
        _record(request, environment.histories)


@pytest.fixture
def local_backend(request: pytest.FixtureRequest) -> Iterator[LocalBackend]:
    """A local engine on a free port, for the length of the test."""
    from durabletask_aio.testing.local import local_backend as start_backend

    with start_backend() as backend:
        request.node.stash[_backends] = backend
        yield backend
        _record(request, [backend.history(instance_id) for instance_id in backend.instances()])


@pytest.fixture
def grpc_worker(
    request: pytest.FixtureRequest, local_backend: LocalBackend
) -> Iterator[Callable[..., TaskHubGrpcWorker]]:
    """Starts workers on the test's local engine and stops them at its end::

    def test_order(grpc_worker, local_backend):
        grpc_worker(orchestrators=[order], activities=[charge])
        client = TaskHubGrpcClient(host_address=local_backend.address)
        ...

    Takes functions in lists or, under other names than their own, in mappings.  Further keyword arguments go to the
    worker's constructor.
    """
    from durabletask_aio.testing.functions import is_async, named_functions
    from durabletask_aio.worker.worker import TaskHubGrpcWorker

    workers: list[TaskHubGrpcWorker] = []

    def start(
        *, orchestrators: Any = (), activities: Any = (), entities: Any = (), **settings: Any
    ) -> TaskHubGrpcWorker:
        worker = TaskHubGrpcWorker(host_address=local_backend.address, **settings)
        for name, orchestrator in named_functions(orchestrators, "orchestrators"):
            mode = _sandbox_mode(request) if is_async(orchestrator) else None
            worker.add_orchestrator(orchestrator, name=name, sandbox_mode=mode)
        for name, activity in named_functions(activities, "activities"):
            worker.add_activity(activity, name=name)
        for name, entity in named_functions(entities, "entities"):
            worker.add_entity(entity, name)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in reversed(workers):
        worker.stop()


def _record(request: pytest.FixtureRequest, histories: list[History]) -> None:
    directory = request.config.getoption("--record-histories")
    if directory is None:
        return
    folder = Path(directory) / _file_name(request.node.nodeid)
    executions: Counter[str] = Counter()
    for history in histories:
        if len(history):
            name = _file_name(history.instance_id or "instance")
            executions[name] += 1
            # An instance that continued as new has several.
            history.save(folder / (f"{name}.json" if executions[name] == 1 else f"{name}.{executions[name]}.json"))


def _file_name(text: str) -> str:
    name = re.sub(r"[^\w.-]+", "_", text).strip("_")
    encoded = name.encode()
    if len(encoded) <= _LONGEST_NAME:
        return name
    # A test with large parameters.
    beginning = encoded[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{beginning}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and not item.config.getoption("fulltrace"):
        _hide_our_frames(call.excinfo)
    report = yield
    if call.excinfo is not None and call.when == "call":
        for history in _histories_of(item, call.excinfo.value):
            report.sections.append(
                (f"workflow {history.workflow_name}, instance {history.instance_id}", _tree(history))
            )
    return report


def _hide_our_frames(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Of an error that this library raises on purpose, show what the test did, not how the library found out.

    Of any other error the frames stay: it may be a defect of ours.
    """
    if not excinfo.type.__module__.startswith("durabletask.aio"):
        return
    from durabletask_aio.testing.frames import strip_frames

    excinfo.traceback = type(excinfo.traceback)(strip_frames(excinfo.tb, ["durabletask_aio"]) or excinfo.tb)


def _histories_of(item: pytest.Item, error: BaseException) -> list[History]:
    """Those the error is about, or else those of the test's environments and of its local engine."""
    about: list[History] = getattr(error, "workflow_histories", [])
    if not about:
        none: list[WorkflowEnvironment] = []
        environments = item.stash.get(_environments, none)
        about = [history for environment in environments for history in environment.histories]
        backend: LocalBackend | None = item.stash.get(_backends, None)
        if backend is not None:
            about += [backend.history(instance_id) for instance_id in [*backend.instances()][-_MOST_TREES:]]
    return [history for history in about if history.workflow_name is not None][-_MOST_TREES:]


def _tree(history: History) -> str:
    from durabletask_aio.testing.timeline_text import render_text

    try:
        lines = render_text(history).splitlines()
    except Exception as error:  # a report must not fail because of what it reports
        return f"(cannot be drawn: {error})"
    left_out = len(lines) - _LONGEST_TREE
    if left_out > 1:
        # The beginning, to see what it is about; the end, where it failed.
        lines[_LONGEST_TREE // 2 : _LONGEST_TREE // 2 + left_out] = [f"│  … {left_out} more lines …"]
    return "\n".join(lines)
