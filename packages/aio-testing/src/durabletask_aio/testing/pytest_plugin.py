"""The pytest plugin: fixtures, sandbox modes, recorded histories, replays of a session's, failure reports.

Its entry point loads it in every pytest run of an environment that has this package, so it imports nothing of
`durabletask` until a fixture is used.  No fixture is async: they work with pytest-asyncio, with anyio, and with
neither.  An async test that uses one of them and that no other plugin runs is run by this one.
"""

from __future__ import annotations

import dataclasses
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
_VERIFY = ("off", "importable")
_verified: pytest.StashKey[Any] = pytest.StashKey()
"""Of a configuration: the histories to verify, and then what became of them; absent if nothing is to be verified."""
_failed_tests: pytest.StashKey[set[str]] = pytest.StashKey()
_orchestrators: pytest.StashKey[dict[str, tuple[Any, str | None, bool]]] = pytest.StashKey()
"""Of a test with `grpc_worker`: for each workflow the function, its sandbox mode, whether the worker has settings."""
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
    group.addoption(
        "--durable-verify",
        choices=_VERIFY,
        default=None,
        help="importable: replay the histories of the session at its end, in one process for each of two hash seeds",
    )
    parser.addini("durable_verify", "replay the histories of a session at its end: off (default) or importable")
    parser.addini("workflow_sandbox", "sandbox mode of async workflows in tests: off, best_effort or strict")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "workflow_sandbox(mode): the sandbox mode of async workflows in this test: off, best_effort, strict"
    )
    mode = config.getini("workflow_sandbox")
    if mode and mode not in _MODES:
        raise pytest.UsageError(f"workflow_sandbox = {mode}: use one of {', '.join(_MODES)}")
    verify = config.getoption("--durable-verify") or config.getini("durable_verify") or "off"
    if verify not in _VERIFY:
        raise pytest.UsageError(f"durable_verify = {verify}: use one of {', '.join(_VERIFY)}")
    if verify != "off":
        config.stash[_verified] = []
        config.stash[_failed_tests] = set()


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
    all_settings: list[dict[str, Any]] = []
    request.node.stash[_environments] = environments

    def make(**settings: Any) -> WorkflowEnvironment:
        settings.setdefault("sandbox_mode", _sandbox_mode(request))
        environments.append(WorkflowEnvironment(**settings))
        all_settings.append(settings)
        return environments[-1]

    yield make
    for environment, settings in zip(environments, all_settings, strict=True):
        _record(request, environment.histories)
        if settings.get("verify", True):
            has_settings = settings.get("data_converter") is not None or "maximum_timer_interval" in settings
            registered = _registered(settings.get("orchestrators", ()), settings["sandbox_mode"], has_settings)
            _keep_to_verify(request, environment.histories, registered)


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
        histories = [backend.history(instance_id) for instance_id in backend.instances()]
        _record(request, histories)
        _keep_to_verify(request, histories, request.node.stash.get(_orchestrators, {}))


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
    all_registered: dict[str, tuple[Any, str | None, bool]] = {}
    request.node.stash[_orchestrators] = all_registered

    def start(
        *, orchestrators: Any = (), activities: Any = (), entities: Any = (), **settings: Any
    ) -> TaskHubGrpcWorker:
        worker = TaskHubGrpcWorker(host_address=local_backend.address, **settings)
        for name, orchestrator in named_functions(orchestrators, "orchestrators"):
            mode = _sandbox_mode(request) if is_async(orchestrator) else None
            worker.add_orchestrator(orchestrator, name=name, sandbox_mode=mode)
            all_registered.update(_registered({name: orchestrator} if name else [orchestrator], mode, bool(settings)))
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


def _registered(
    orchestrators: Any, sandbox_mode: str | None, has_settings: bool
) -> dict[str, tuple[Any, str | None, bool]]:
    from durabletask_aio.core.hosting import function_name
    from durabletask_aio.testing.functions import named_functions

    return {
        name or function_name(function): (function, sandbox_mode, has_settings)
        for name, function in named_functions(orchestrators, "orchestrators")
    }


def _keep_to_verify(
    request: pytest.FixtureRequest, histories: list[History], registered: dict[str, tuple[Any, str | None, bool]]
) -> None:
    kept: list[Any] | None = request.config.stash.get(_verified, None)
    if kept is None:
        return
    from durabletask_aio.testing.session_verify import Recorded

    for history in histories:
        function, mode, has_settings = registered.get(history.workflow_name or "", (None, None, False))
        kept.append(Recorded(request.node.nodeid, history, function, mode, has_settings))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Replay the histories of the session; a difference fails it."""
    config = session.config
    if _verified not in config.stash:
        return
    from durabletask_aio.testing.session_verify import Verification, verify_session

    kept = config.stash[_verified]
    failed = config.stash[_failed_tests]
    verification = verify_session(
        each for each in kept if not isinstance(each, Verification) and each.test not in failed
    )
    for each in kept:
        if isinstance(each, Verification):
            verification.add(each)
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:  # a process of pytest-xdist, whose controller reports
        output["durable_verify"] = dataclasses.asdict(verification)
        return
    config.stash[_verified] = verification
    if verification.differences and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Keep what a process of pytest-xdist has found."""
    found = getattr(node, "workeroutput", {}).get("durable_verify")
    if found is not None:
        from durabletask_aio.testing.session_verify import Verification

        found["differences"] = [(test, difference) for test, difference in found["differences"]]
        node.config.stash[_verified].append(Verification(**found))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    verification = config.stash.get(_verified, None)
    if verification:
        terminalreporter.section("durable workflows under other hash seeds")
        for line in verification.lines():
            terminalreporter.line(line)


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
    if report.failed and _failed_tests in item.config.stash:
        item.config.stash[_failed_tests].add(item.nodeid)
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
