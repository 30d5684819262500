"""The pytest plugin: fixtures, the sandbox mode of a test's workflows, recorded histories, failure reports.

Its entry point loads it in every pytest run of an environment that has this package, so it imports nothing of
`durabletask` until a fixture is used.  No fixture is async: they work with pytest-asyncio, with anyio, and with
neither.  An async test that uses one of them and that no other plugin runs is run by this one.
"""

from __future__ import annotations

import hashlib
import inspect
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
_FIXTURES = frozenset({"workflow_env", "local_backend", "grpc_worker"})
_MAX_TREES = 5
"""Workflows that a failure report shows."""
_MAX_TREE_LINES = 30
_MAX_NAME_BYTES = 200
"""The length of file names; file systems allow 255 bytes."""


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


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that uses a fixture of this plugin, where no other plugin runs it.

    pytest-asyncio and anyio come before: one replaces the function, the other asks to be called first.  pytest itself,
    which refuses async tests, asks to be called last.
    """
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function) or _FIXTURES.isdisjoint(pyfuncitem.fixturenames):
        return None
    import asyncio

    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}
    asyncio.run(function(**arguments))
    return True


def _sandbox_mode(request: pytest.FixtureRequest) -> str | None:
    """Return the mode of the nearest marker, of the command line or of the ini file; else strict, where installed."""
    marker = request.node.get_closest_marker("workflow_sandbox")
    if marker is not None:
        if len(marker.args) != 1 or marker.args[0] not in _MODES:
            raise pytest.UsageError(f"@pytest.mark.workflow_sandbox takes one of {', '.join(map(repr, _MODES))}")
        return str(marker.args[0])
    mode = request.config.getoption("--workflow-sandbox") or request.config.getini("workflow_sandbox")
    if mode:
        return str(mode)
    return "strict" if entry_points(group=_SANDBOX_GROUP) else None


@pytest.fixture
def workflow_env(request: pytest.FixtureRequest) -> Iterator[Callable[..., WorkflowEnvironment]]:
    """Make workflow environments, in the sandbox mode of the test.

    Example:
        ```python
        async def test_order(workflow_env):
            async with workflow_env(orchestrators=[order], activities=[charge]) as env:
                assert await env.execute(order, input=5) == "receipt 7"
        ```

    Yields:
        A function with the parameters of [`WorkflowEnvironment`][durabletask.aio.testing.WorkflowEnvironment].
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
    """Run a local engine on a free port, for the length of the test.

    Yields:
        The [`LocalBackend`][durabletask.aio.testing.LocalBackend].
    """
    from durabletask_aio.testing.local import local_backend as start_backend

    with start_backend() as backend:
        request.node.stash[_backends] = backend
        yield backend
        _record(request, [backend.history(instance_id) for instance_id in backend.instances()])


@pytest.fixture
def grpc_worker(
    request: pytest.FixtureRequest, local_backend: LocalBackend
) -> Iterator[Callable[..., TaskHubGrpcWorker]]:
    """Start workers on the local engine of the test, and stop them at its end.

    Example:
        ```python
        def test_order(grpc_worker, local_backend):
            grpc_worker(orchestrators=[order], activities=[charge])
            client = TaskHubGrpcClient(host_address=local_backend.address)
            ...
        ```

    Yields:
        A function that takes `orchestrators`, `activities` and `entities`, in lists or, under other names than their
        own, in mappings, and keyword arguments for the constructor of the worker.  It returns the running worker.
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
            # One file for each execution of an instance that continued as new.
            history.save(folder / (f"{name}.json" if executions[name] == 1 else f"{name}.{executions[name]}.json"))


def _file_name(text: str) -> str:
    name = re.sub(r"[^\w.-]+", "_", text).strip("_")
    encoded = name.encode()
    if len(encoded) <= _MAX_NAME_BYTES:
        return name
    # A long test id, with large parameters for example.
    beginning = encoded[: _MAX_NAME_BYTES - 9].decode(errors="ignore")
    return f"{beginning}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and not item.config.getoption("fulltrace"):
        _hide_library_frames(call.excinfo)
    report = yield
    if call.excinfo is not None and call.when == "call":
        for history in _histories_of(item, call.excinfo.value):
            report.sections.append(
                (f"workflow {history.workflow_name}, instance {history.instance_id}", _render_tree(history))
            )
    return report


def _hide_library_frames(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Hide the frames of this library below an error that it raises on purpose.

    The frames of any other error stay: it may be a defect of the library.
    """
    if not excinfo.type.__module__.startswith("durabletask.aio"):
        return
    from durabletask_aio.testing.frames import strip_frames

    excinfo.traceback = type(excinfo.traceback)(strip_frames(excinfo.tb, ["durabletask_aio"]) or excinfo.tb)


def _histories_of(item: pytest.Item, error: BaseException) -> list[History]:
    """Return the histories attached to the error, or else those of the test's environments and local engine."""
    histories: list[History] = getattr(error, "workflow_histories", [])
    if not histories:
        default: list[WorkflowEnvironment] = []
        environments = item.stash.get(_environments, default)
        histories = [history for environment in environments for history in environment.histories]
        backend: LocalBackend | None = item.stash.get(_backends, None)
        if backend is not None:
            histories += [backend.history(instance_id) for instance_id in [*backend.instances()][-_MAX_TREES:]]
    return [history for history in histories if history.workflow_name is not None][-_MAX_TREES:]


def _render_tree(history: History) -> str:
    from durabletask_aio.testing.timeline_text import render_text

    try:
        lines = render_text(history).splitlines()
    except Exception as error:  # An error here would replace the report of the failed test.
        return f"(cannot be drawn: {error})"
    omitted = len(lines) - _MAX_TREE_LINES
    if omitted > 1:
        # The beginning and the end are kept: where it started, and where it failed.
        lines[_MAX_TREE_LINES // 2 : _MAX_TREE_LINES // 2 + omitted] = [f"│  … {omitted} more lines …"]
    return "\n".join(lines)
