"""The specification's Python blocks run as printed.

Each block is cut out of the Markdown document byte for byte (less the indentation of its fence, which Markdown does
not count as content) and executed from a file.  What a block leaves to the reader is supplied from outside, and the
table `RUNNERS` says what that is; a block that the table does not know fails.
"""

from __future__ import annotations

import ast
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from durabletask.aio import SandboxMode
from durabletask.aio.testing import local_backend
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "spec" / "ENHANCED_ASYNC_FEATURES.md"
SHARED_DOCUMENT = ROOT.parent / "shared" / "spec" / "ENHANCED_ASYNC_FEATURES.md"
TIMEOUT = 60
"""Seconds to wait for an instance on a machine that may be busy with other things."""


# Cutting -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced Python block; `name` is its section's heading and its number within that section."""

    name: str
    source: str
    line: int


def python_blocks(text: str) -> list[Block]:
    blocks: list[Block] = []
    heading, count, opened, body = "", 0, None, []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        fence = re.fullmatch(r"( *)```(\w*)\s*", line)
        if opened is None and fence:
            opened, indent, language = number, fence[1], fence[2]
        elif opened is not None and fence and not fence[2]:
            if language == "python":
                count += 1
                blocks.append(Block(f"{heading} {count}", "".join(body), opened))
            opened, body = None, []
        elif opened is not None:
            body.append(line.removeprefix(indent))
        elif line.startswith("#"):
            heading, count = line.lstrip("#").strip(), 0
    return blocks


BLOCKS = {block.name: block for block in python_blocks(DOCUMENT.read_text(encoding="utf-8"))}


# Executing ---------------------------------------------------------------------------------------------------


class Stage:
    """A local engine, and what is needed to run blocks on it."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.client = TaskHubGrpcClient(host_address=address)
        self._folder = folder

    def compile(self, block: Block, *, flags: int = 0) -> Any:
        """Code of the block, in a file of its own as a user would have it."""
        path = self._folder / (re.sub(r"\W+", "_", block.name).lower() + ".py")
        path.write_bytes(block.source.encode())
        return compile(path.read_bytes(), str(path), "exec", flags=flags)

    def execute(self, block: Block, **names: Any) -> dict[str, Any]:
        """Run the block as a module; the result is its namespace."""
        namespace: dict[str, Any] = {"__name__": "block", **names}
        exec(self.compile(block), namespace)
        return namespace

    def worker(self, activities: Mapping[str, Callable[..., Any]] | None = None) -> TaskHubGrpcWorker:
        worker = TaskHubGrpcWorker(host_address=self.address)
        for name, function in (activities or {}).items():
            function.__name__ = name
            worker.add_activity(function)
        return worker

    def outcome(self, workflow: Any, input_data: Any = None) -> Any:
        """Schedule an instance and return its output; a failed instance fails the test with its own message."""
        instance_id = self.client.schedule_new_orchestration(workflow, input=input_data)
        state = self.client.wait_for_orchestration_completion(instance_id, timeout=TIMEOUT)
        assert state is not None
        state.raise_if_failed()
        assert state.runtime_status is OrchestrationStatus.COMPLETED
        return state.get_output()

    def run_workflow_of(
        self, block: Block, name: str, activities: Mapping[str, Callable[..., Any]], input_data: Any = None
    ) -> Any:
        """Register the workflow that the block defines under `name`, and return the outcome of one instance."""
        workflow = self.execute(block)[name]
        with self.worker(activities) as worker:
            worker.add_orchestrator(workflow)
            worker.start()
            return self.outcome(workflow, input_data)

    def run_as_workflow_code(
        self,
        block: Block,
        activities: Mapping[str, Callable[..., Any]],
        prepare: Callable[[Any], Mapping[str, Any]],
        report: Callable[[Mapping[str, Any]], Any],
    ) -> Any:
        """Run a fragment in the middle of a workflow: `ctx` and what `prepare` returns are its names."""
        code = self.compile(block, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        async def fragment_host(ctx: Any, _: Any) -> Any:
            namespace: dict[str, Any] = {"ctx": ctx, **prepare(ctx)}
            awaited = eval(code, namespace)
            if awaited is not None:
                await awaited
            return report(namespace)

        with self.worker(activities) as worker:
            worker.add_orchestrator(fragment_host)
            worker.start()
            return self.outcome(fragment_host)


@contextmanager
def stage(folder: Path, *, port: int = 0) -> Iterator[Stage]:
    with local_backend(port=port) as backend:
        it = Stage(backend.address, folder)
        try:
            yield it
        finally:
            it.client.close()


# One runner per block ----------------------------------------------------------------------------------------


def run_quick_start(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the port the block takes for granted, and upstream's `start` wrapped: activities before, a run after."""
    outputs: list[Any] = []
    original = TaskHubGrpcWorker.start

    wait_until_free(4001)
    with stage(folder, port=4001) as it:

        def start(worker: TaskHubGrpcWorker) -> None:
            for name, function in named_activities("my_activity", "task_0", "task_1", "task_2").items():
                function.__name__ = name
                worker.add_activity(function)
            original(worker)
            outputs.append(it.outcome("enhanced_workflow", "the input"))

        monkeypatch.setattr(TaskHubGrpcWorker, "start", start)
        it.execute(block)

    (output,) = outputs
    assert set(output) == {"result", "first_completed", "timestamp", "random", "id"}
    assert output["result"] == "my_activity got 'the input'"
    assert output["first_completed"] in (0, 1, 2)
    assert datetime.fromisoformat(output["timestamp"]).tzinfo is not None
    assert isinstance(output["random"], float)
    assert 0 <= output["random"] < 1
    assert uuid.UUID(output["id"]).version == 4


def run_registration(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def my_async_workflow(ctx: Any, _: Any) -> Any:
        return await ctx.call_activity("greet", input="registration")

    with stage(folder) as it, it.worker(named_activities("greet")) as worker:
        it.execute(block, worker=worker, my_async_workflow=my_async_workflow)
        worker.start()
        assert it.outcome("my_async_workflow") == "greet got 'registration'"


def run_sandbox_modes(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def workflow(ctx: Any, _: Any) -> Any:
        return await ctx.call_activity("greet", input="modes")

    with stage(folder) as it, it.worker(named_activities("greet")) as worker:
        it.execute(block, worker=worker, workflow=workflow, SandboxMode=SandboxMode)
        worker.start()
        assert it.outcome("workflow") == "greet got 'modes'"


def run_metadata(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(folder) as it:
        output = it.run_as_workflow_code(
            block,
            {},
            lambda ctx: {"trace_id": "00-trace-01"},
            lambda names: [names["md_before"], names["headers"], names["ctx"].get_metadata()],
        )
    # The second call replaces what the first one set: headers are the metadata by another name.
    assert output == [None, {"region": "us-east"}, {"region": "us-east"}]


def run_timeout_in_time(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(folder) as it:
        output = it.run_workflow_of(block, "workflow_with_timeout", named_activities("slow_activity"))
    assert output == "slow_activity got None"


def run_timeout_too_late(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def slow_activity(ctx: Any, _: Any) -> str:
        released.wait(TIMEOUT)
        return "far too late"

    with stage(folder) as it:
        workflow = it.execute(block)["workflow_with_timeout"]
        with it.worker({"slow_activity": slow_activity}) as worker:
            worker.add_orchestrator(workflow)
            worker.start()
            try:
                assert it.outcome(workflow) == "Operation timed out"
            finally:
                released.set()


def run_when_any(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("task_0", "task_1", "task_2")
    with stage(folder) as it:
        output = it.run_as_workflow_code(
            block,
            named_activities(*names),
            lambda ctx: {"tasks": [ctx.call_activity(name) for name in names]},
            lambda names: [names["winner_index"], names["winner_value"]],
        )
    index, value = output
    assert index in (0, 1, 2)
    assert value == f"task_{index} got None"


def run_competitive(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = named_activities("provider_a", "provider_b", "provider_c")
    with stage(folder) as it:
        output = it.run_workflow_of(block, "competitive_workflow", providers)
    match = re.fullmatch(r"Provider ([012]) won with: provider_([abc]) got None", output)
    assert match
    assert "abc"[int(match[1])] == match[2]


def run_error_handling(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def risky_activity(ctx: Any, _: Any) -> None:
        raise ValueError("the disk is full")

    with stage(folder) as it:
        output = it.run_workflow_of(block, "robust_workflow", {"risky_activity": risky_activity})
    assert "the disk is full" in output["error"]
    assert isinstance(output["debug"], dict)
    assert output["debug"]["workflow_name"] == "robust_workflow"


def run_cleanup(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    with stage(folder) as it:
        workflow = it.execute(block, print=printed.append)["workflow_with_cleanup"]
        with it.worker(named_activities("main_work")) as worker:
            worker.add_orchestrator(workflow)
            worker.start()
            assert it.outcome(workflow) == "main_work got None"
    assert printed == ["Workflow completed"]


def run_mode_by_environment(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def some_workflow(ctx: Any, _: Any) -> None: ...

    with stage(folder) as it:
        for env, expected in (("dev", SandboxMode.BEST_EFFORT), ("prod", SandboxMode.OFF)):
            monkeypatch.setenv("ENV", env)
            mode = it.execute(block, os=os)["sandbox_mode"]
            assert SandboxMode(mode) is expected
            cast(Any, it.worker()).add_orchestrator(some_workflow, sandbox_mode=mode)


def run_external_timeout(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(folder) as it:
        output = it.run_as_workflow_code(
            block, named_activities("external_api"), lambda ctx: {}, lambda names: names["result"]
        )
    assert output == "external_api got None"


def run_add_cleanup(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []
    with stage(folder) as it:
        it.run_as_workflow_code(
            block,
            {},
            lambda ctx: {"cleanup_resources": lambda: cleaned.append("resources")},
            lambda names: cleaned.append("end of the workflow"),
        )
    assert cleaned == ["end of the workflow", "resources"]


Runner = Callable[[Block, Path, pytest.MonkeyPatch], None]

RUNNERS: dict[str, list[Runner]] = {
    "Quick Start 1": [run_quick_start],
    "Registration 1": [run_registration],
    "Sandbox Modes 1": [run_sandbox_modes],
    "Workflow Metadata and Headers (Async Only) 1": [run_metadata],
    "Timeout Support 1": [run_timeout_in_time, run_timeout_too_late],
    "Enhanced when_any 1": [run_when_any],
    "Enhanced when_any 2": [run_competitive],
    "Error Handling with Context 1": [run_error_handling],
    "Cleanup Tasks 1": [run_cleanup],
    "Best Practices 1": [run_mode_by_environment],
    "Best Practices 2": [run_external_timeout],
    "Best Practices 3": [run_add_cleanup],
}
SLOW = {run_timeout_too_late}


def named_activities(*names: str) -> dict[str, Callable[..., Any]]:
    """Activities that say who they are and what they were given."""

    def make(name: str) -> Callable[..., Any]:
        def activity(ctx: Any, given: Any) -> str:
            return f"{name} got {given!r}"

        return activity

    return {name: make(name) for name in names}


def wait_until_free(port: int) -> None:
    """Wait for someone else's run of this very test on this machine to be over; a port that stays taken fails later."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.5)


# Tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "runner"),
    [
        pytest.param(name, runner, id=runner.__name__, marks=[pytest.mark.slow] if runner in SLOW else [])
        for name, runners in RUNNERS.items()
        for runner in runners
    ],
)
def test_block_runs_as_printed(name: str, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(BLOCKS[name], tmp_path, monkeypatch)


def test_every_python_block_of_the_document_is_known() -> None:
    assert list(BLOCKS) == list(RUNNERS)


def test_blocks_are_cut_byte_for_byte() -> None:
    text = DOCUMENT.read_bytes()
    unindented = [block for block in BLOCKS.values() if not block.name.startswith("Best Practices")]
    assert all(b"```python\n" + block.source.encode() + b"```\n" in text for block in unindented)
    assert text.count(b"```python\n") == len(BLOCKS)


@pytest.mark.skipif(not SHARED_DOCUMENT.exists(), reason="only where the original lies beside us")
def test_our_copy_of_the_document_is_the_original() -> None:
    assert DOCUMENT.read_bytes() == SHARED_DOCUMENT.read_bytes()
