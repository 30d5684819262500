"""What a failure says: to clients, to parents, and in the log."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from durabletask.client import OrchestrationFailedError, TaskHubGrpcClient
from durabletask.task import RetryPolicy
from worker_support import QUIET, run, started, wait_until

from durabletask_aio.core import SubOrchestrationFailedError
from durabletask_aio.testing.environment import WorkflowEnvironment
from durabletask_aio.testing.local import LocalBackend
from durabletask_aio.worker.log_filter import UpstreamLogFilter
from durabletask_aio.worker.worker import TaskHubGrpcWorker

THREE = RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=3)


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.of: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.of.append(record)

    def texts(self, level: int = logging.WARNING) -> list[str]:
        return [record.getMessage() for record in self.of if record.levelno >= level]


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def logger(records: Records) -> logging.Logger:
    made = logging.Logger("test.failures")  # noqa: LOG001 - not to be found by name
    made.addHandler(records)
    return made


def lookup(ctx: Any, key: str) -> str:
    return {"a": "1"}[key]  # <- fails


async def lookup_async(ctx: Any, key: str) -> str:
    return {"a": "1"}[key]  # <- fails


async def child(ctx: Any, name: str) -> Any:
    return await ctx.call_activity(name, input="k")  # <- calls


async def child_of_its_own(ctx: Any, _: Any) -> None:
    raise LookupError("of the child")


async def wrapping(ctx: Any, name: str) -> None:
    try:
        await ctx.call_activity(name, input="k")
    except Exception as error:
        raise OSError("not found") from error


async def parent(ctx: Any, which: list[str]) -> Any:
    try:
        return await ctx.call_sub_orchestrator(which[0], input=which[1], instance_id=f"{ctx.instance_id}-child")
    except SubOrchestrationFailedError as error:
        inner = error.details.inner_failure
        return [error.details.error_type, error.details.message, inner and [inner.error_type, inner.message]]


@pytest.fixture
def worker(engine: LocalBackend, logger: logging.Logger) -> Iterator[Any]:
    worker = started(
        engine,
        lookup,
        lookup_async,
        orchestrators=(child, child_of_its_own, wrapping, parent, flaky, by_generator),
        logger=logger,
    )
    yield worker
    worker.stop()


async def flaky(ctx: Any, name: str) -> Any:
    return await ctx.call_activity(name, input="k", retry_policy=THREE)


def by_generator(ctx: Any, name: str) -> Any:
    return (yield ctx.call_activity(name, input="k", retry_policy=THREE))


@pytest.mark.parametrize("name", ["lookup", "lookup_async"])
def test_a_failed_workflow_names_activity_and_workflow_and_shows_the_lines_of_both(
    worker: Any, client: TaskHubGrpcClient, name: str
) -> None:
    state = run(client, child, name)

    failure = state.failure_details
    assert failure is not None
    assert failure.stack_trace is not None
    assert failure.error_type == "durabletask.task.TaskFailedError"
    assert failure.message == (
        f"activity '{name}' failed with builtins.KeyError: 'k' "
        f"[workflow 'child', instance '{state.instance_id}', step 1]"
    )
    frames = [line.strip().split(", in ")[-1] for line in failure.stack_trace.splitlines() if "File" in line]
    assert frames == ["child", name]
    assert "\nCaused by builtins.KeyError: 'k'\n" in failure.stack_trace
    assert failure.inner_failure is not None
    assert failure.inner_failure.error_type == "builtins.KeyError"


def test_a_workflow_that_raises_from_the_failure_of_an_activity_keeps_its_own(
    worker: Any, client: TaskHubGrpcClient
) -> None:
    failure = run(client, wrapping, "lookup").failure_details

    assert failure is not None
    assert (failure.error_type, failure.message) == ("builtins.OSError", "not found")
    assert failure.inner_failure is not None
    assert failure.inner_failure.message.startswith("activity 'lookup' failed with builtins.KeyError: 'k' [workflow ")
    assert "Caused by builtins.KeyError" in (failure.stack_trace or "")


def test_a_parent_gets_type_and_message_of_its_child_and_the_cause(worker: Any, client: TaskHubGrpcClient) -> None:
    own = run(client, parent, ["child_of_its_own", ""]).get_output()
    of_activity = run(client, parent, ["child", "lookup"], instance_id="family")

    assert own == ["builtins.LookupError", "of the child", None]
    assert of_activity.get_output() == [
        "durabletask.task.TaskFailedError",
        "activity 'lookup' failed with builtins.KeyError: 'k' [workflow 'child', instance 'family-child', step 1]",
        ["builtins.KeyError", "'k'"],
    ]


@pytest.mark.parametrize("orchestrator", [flaky, by_generator])
@pytest.mark.parametrize("name", ["lookup", "lookup_async"])
def test_every_failed_attempt_is_logged_once_with_its_cause(
    worker: Any, client: TaskHubGrpcClient, records: Records, orchestrator: Any, name: str
) -> None:
    state = run(client, orchestrator, name)

    lines = [line.split("\n") for line in records.texts()]
    assert [line[0] for line in lines] == [
        f"{state.instance_id}: activity '{name}' failed, attempt 1 of 3, next try in 0.01 s: builtins.KeyError: 'k'",
        f"{state.instance_id}: activity '{name}' failed, attempt 2 of 3, next try in 0.01 s: builtins.KeyError: 'k'",
        f"{state.instance_id}: activity '{name}' failed, attempt 3 of 3, no other attempt: builtins.KeyError: 'k'",
    ]
    for line in lines:
        assert line[1].endswith(f"in {name}")
        assert f'File "{__file__}"' in line[1]


def test_a_failed_child_is_logged_and_a_replay_does_not_repeat_it(
    engine: LocalBackend, client: TaskHubGrpcClient, records: Records, logger: logging.Logger
) -> None:
    async def patient(ctx: Any, _: Any) -> None:
        try:
            await ctx.call_sub_orchestrator("child_of_its_own")
        except SubOrchestrationFailedError:
            await ctx.sleep(0.01)
            await ctx.sleep(0.01)

    worker = started(engine, orchestrators=(patient, child_of_its_own), logger=logger, max_extended_sessions=0)
    state = run(client, "patient")
    worker.stop()

    (line,) = records.texts()
    assert line.startswith(
        f"{state.instance_id}: sub-orchestration 'child_of_its_own' failed, attempt 1 of 1: builtins.LookupError: of"
    )


# -- the loggers of workflows and activities --------------------------------------------------------------------------

PROGRAM = """
import logging
{configuration}
from durabletask.client import TaskHubGrpcClient
from durabletask.aio.testing import local_backend
from durabletask.aio.worker import TaskHubGrpcWorker

async def work(ctx, _):
    ctx.logger.debug("activity, debug")
    ctx.logger.info("from the activity")

async def flow(ctx, _):
    ctx.logger.debug("workflow, debug")
    ctx.logger.info("from the workflow")
    await ctx.call_activity(work)

quiet = logging.Logger("quiet", logging.CRITICAL)
with local_backend() as engine, TaskHubGrpcWorker(host_address=engine.address, logger=quiet) as worker:
    worker.add_orchestrator(flow)
    worker.add_activity(work)
    worker.start()
    with TaskHubGrpcClient(host_address=engine.address, logger=quiet) as client:
        client.wait_for_orchestration_completion(client.schedule_new_orchestration("flow"), timeout=30)
"""


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ("", ["durabletask.aio INFO: flow ", "durabletask.aio.activity.work INFO: "]),
        ("logging.basicConfig(format='%(name)s')", []),
        ("logging.basicConfig(level='INFO', format='%(name)s')", ["durabletask.aio", "durabletask.aio.activity.work"]),
        ("logging.getLogger('durabletask.aio').setLevel('ERROR')", []),
        ("logging.getLogger('durabletask.aio').addHandler(logging.NullHandler())", []),
    ],
    ids=["nothing", "default level", "info", "own level", "own handler"],
)
def test_records_are_visible_unless_the_application_has_configured_logging(
    configuration: str, expected: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(configuration=configuration)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},  # gRPC logs to standard error too
    )

    lines = done.stderr.splitlines()
    assert len(lines) == len(expected), done.stderr
    for line, part in zip(lines, expected, strict=True):
        assert part in line


# -- upstream's lines -------------------------------------------------------------------------------------------------


async def sleeper(ctx: Any, _: Any) -> str:
    await ctx.sleep(0.01)
    return "slept"


@pytest.mark.parametrize("rewords", [True, False])
def test_upstreams_lines_are_reworded_unless_switched_off(
    engine: LocalBackend, client: TaskHubGrpcClient, records: Records, logger: logging.Logger, rewords: bool
) -> None:
    worker = started(engine, orchestrators=(sleeper,), logger=logger, reword_upstream_log=rewords)
    state = run(client, sleeper)
    assert wait_until(lambda: any("completed with status" in text for text in records.texts(logging.INFO)))
    worker.stop()

    yielded = [record.levelname for record in records.of if "yielded with" in record.getMessage()]
    assert yielded == (["DEBUG"] * 2 if rewords else ["INFO"] * 2)[: len(yielded)]
    assert yielded
    assert any("<unknown>" in text for text in records.texts(logging.DEBUG)) is not rewords
    assert state.get_output() == "slept"


def record_of(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("upstream", level, __file__, 1, message, None, None)


RPC_ERROR = """<_MultiThreadedRendezvous of RPC that terminated with:
\tstatus = StatusCode.UNAVAILABLE
\tdetails = "failed to connect to all addresses"
\tdebug_error_string = "UNKNOWN:Error received from peer {grpc_status:14}"
>"""


def test_an_error_of_grpc_takes_one_line() -> None:
    record = record_of(f"The sidecar at address x:1 is unavailable: {RPC_ERROR} - will continue retrying")

    assert UpstreamLogFilter(lambda: False).filter(record)
    assert record.getMessage() == (
        "The sidecar at address x:1 is unavailable: UNAVAILABLE: failed to connect to all addresses - will continue "
        "retrying"
    )


def test_the_end_of_the_stream_is_a_warning_unless_the_worker_stops() -> None:
    line = f"Error in work item stream: {RPC_ERROR}"

    assert UpstreamLogFilter(lambda: False).filter(record_of(line))
    assert not UpstreamLogFilter(lambda: True).filter(record_of(line))


def test_lines_of_this_project_are_left_alone() -> None:
    record = logging.LogRecord("ours", logging.WARNING, __file__, 1, "Error in work item stream: %s", ("x",), None)

    assert UpstreamLogFilter(lambda: True).filter(record)
    assert record.getMessage() == "Error in work item stream: x"


def test_the_switch_must_be_a_bool() -> None:
    wrong: Any = "no"
    with pytest.raises(TypeError, match=r"^reword_upstream_log must be a bool, not str$"):
        TaskHubGrpcWorker(logger=QUIET, reword_upstream_log=wrong)


def returns_set(ctx: Any, _: Any) -> Any:
    return {"tags": [{1, 2}]}


async def returns_set_async(ctx: Any, _: Any) -> Any:
    return {"tags": [{1, 2}]}


def forgets_await(ctx: Any, _: Any) -> Any:
    return {"receipt": lookup_async(ctx, "a")}


RETURNED = [
    (returns_set, "result['tags'][0]", "cannot be serialised: its type is 'set'", "set(...)", "sorted(value)"),
    (returns_set_async, "result['tags'][0]", "cannot be serialised: its type is 'set'", "set(...)", "sorted(value)"),
    (
        forgets_await,
        "result['receipt']",
        "is a coroutine, lookup_async(...), that",
        "work()",
        "await work()",
    ),
]


@pytest.mark.parametrize(("function", "part", "why", "wrong", "right"), RETURNED)
def test_a_result_that_cannot_be_serialised_is_named_with_its_part_and_what_to_return(
    engine: LocalBackend, client: TaskHubGrpcClient, function: Any, part: str, why: str, wrong: str, right: str
) -> None:
    worker = started(engine, function, orchestrators=[child])
    try:
        state = run(client, "child", function.__name__)
    finally:
        worker.stop()

    async def in_environment() -> str:
        async with WorkflowEnvironment(orchestrators=[child], activities=[function]) as environment:
            handle = await environment.start(child, input=function.__name__)
            with pytest.raises(OrchestrationFailedError) as failed:
                await handle.result()
            return str(failed.value)

    assert state.failure_details is not None
    first, *form = state.failure_details.message.splitlines()
    place = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    failed = f"failed with builtins.TypeError: {part} of activity {function.__name__!r} ({place}) {why}"
    assert failed in first
    assert form[0] == f"  wrong: return {wrong}"
    assert form[1].startswith(f"  right: return {right}")
    assert failed in asyncio.run(in_environment())
