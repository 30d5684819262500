"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import importlib.util
import json

import pytest
from durabletask.aio.testing import History

pytest_plugins = ["pytester"]

PREAMBLE = """
import asyncio
import pytest

def double(context, value):
    return value * 2

async def order(ctx, value):
    doubled = await ctx.call_activity(double, input=value)
    if value == 13:
        raise ValueError("bad luck")
    return await ctx.call_activity("ship", input=doubled)
"""


@pytest.fixture
def run(pytester):
    """Run a test file with this plugin and one for async tests, and no others."""

    def run(body, *arguments, ini="", plugin="asyncio", start=pytester.runpytest_inprocess):
        pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}")
        marker = {"asyncio": "pytest.mark.asyncio", "anyio": "pytest.mark.anyio"}[plugin]
        text = PREAMBLE + f"\npytestmark = {marker}\n"
        if plugin == "anyio":
            text += "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
        pytester.makepyfile(text + body)
        other = ["-p", "no:anyio"] if plugin == "asyncio" else ["-p", "no:asyncio"]
        return start("-p", "no:cacheprovider", *other, *arguments)

    return run


TWO_STEPS = """
async def test_it(workflow_env):
    async with workflow_env(orchestrators=[order], activities=[double]) as env:
        env.stub("ship", returns="shipped")
        assert await env.execute(order, input=4) == "shipped"
"""

has_anyio = importlib.util.find_spec("anyio") is not None


class TestFixtures:
    @pytest.mark.parametrize(
        "plugin",
        ["asyncio", pytest.param("anyio", marks=pytest.mark.skipif(not has_anyio, reason="anyio is not installed"))],
    )
    def test_workflow_env_works_with(self, run, plugin):
        run(TWO_STEPS, plugin=plugin).assert_outcomes(passed=1)

    def test_local_backend_and_grpc_worker(self, run):
        run(
            """
async def test_it(local_backend, grpc_worker):
    from durabletask.client import AsyncTaskHubGrpcClient
    grpc_worker(orchestrators={"order": order}, activities=[double], entities={"counter": lambda ctx, value: value})
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        instance_id = await client.schedule_new_orchestration("order", input=13)
        state = await client.wait_for_orchestration_completion(instance_id, timeout=60)
        assert state.failure_details.message.startswith("bad luck")
"""
        ).assert_outcomes(passed=1)

    def test_they_need_no_plugin_for_async_tests(self, pytester):
        pytester.makepyfile("""
def order(ctx, value):
    return value
    yield

def test_it(local_backend, grpc_worker):
    from durabletask.client import TaskHubGrpcClient
    grpc_worker(orchestrators=[order])
    with TaskHubGrpcClient(host_address=local_backend.address) as client:
        instance_id = client.schedule_new_orchestration("order", input=13)
        assert client.wait_for_orchestration_completion(instance_id, timeout=60).get_output() == 13

def test_that(workflow_env):
    import asyncio
    async def run():
        async with workflow_env(orchestrators=[order]) as env:
            assert await env.execute(order, input=4) == 4
    asyncio.run(run())
""")
        pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "no:anyio").assert_outcomes(passed=2)

    @pytest.mark.parametrize(
        "others", [("-p", "no:asyncio", "-p", "no:anyio"), ("-o", "asyncio_mode=strict"), ("-o", "asyncio_mode=auto")]
    )
    def test_async_tests_need_no_configuration(self, pytester, others):
        pytester.makepyfile("""
import asyncio
import contextvars
import pytest

names = contextvars.ContextVar("names", default="none")
runs = []

async def order(ctx, value):
    await ctx.sleep(86_400)
    return value

@pytest.mark.parametrize("value", [1, 2])
class TestOrder:
    async def test_it(self, workflow_env, value, tmp_path):
        runs.append(value)
        async with workflow_env(orchestrators=[order]) as env:
            assert await env.execute(order, input=value) == value

async def test_that_fails(workflow_env):
    await asyncio.sleep(0)
    assert runs == []

@pytest.mark.asyncio
async def test_that_is_marked(workflow_env):
    runs.append("marked")

def test_each_was_run_once():
    assert runs == [1, 2, "marked"]
""")
        result = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestUnknownMarkWarning", *others
        )
        result.assert_outcomes(passed=4, failed=1)
        result.stdout.fnmatch_lines(["*assert*1, 2*== *"])

    @pytest.mark.parametrize("others", [("-p", "no:asyncio", "-p", "no:anyio")])
    def test_other_async_tests_are_left_to_pytest_which_refuses_them(self, pytester, others):
        pytester.makepyfile("async def test_it(tmp_path): ...")
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *others)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])

    def test_a_run_without_workflows_imports_one_small_module(self, run, pytester):
        result = run(
            """
async def test_it():
    import sys
    assert [name for name in sys.modules if name.startswith(("durabletask", "grpc", "google"))] == [
        "durabletask_aio",
        "durabletask_aio.testing",
        "durabletask_aio.testing.pytest_plugin",
    ]

async def test_that_fails():
    assert False
""",
            start=pytester.runpytest_subprocess,
        )
        result.assert_outcomes(passed=1, failed=1)


SHOW_MODE = """
async def test_it(workflow_env):
    env = workflow_env(orchestrators=[order])
    print("MODE", env.registry.orchestrators["order"].__durabletask_aio__.sandbox_mode.value)
"""


class TestSandboxMode:
    @pytest.mark.parametrize(
        ("body", "arguments", "ini", "mode"),
        [
            pytest.param(SHOW_MODE, [], "", "strict", id="strict by default"),
            pytest.param(SHOW_MODE, ["--workflow-sandbox=best_effort"], "", "best_effort", id="an option"),
            pytest.param(SHOW_MODE, [], "workflow_sandbox = off", "off", id="the ini file"),
            pytest.param(
                SHOW_MODE, ["--workflow-sandbox=off"], "workflow_sandbox = best_effort", "off", id="option before ini"
            ),
            pytest.param(
                SHOW_MODE.replace("async def", "@pytest.mark.workflow_sandbox('off')\nasync def"),
                ["--workflow-sandbox=strict"],
                "",
                "off",
                id="a marker before all",
            ),
        ],
    )
    def test_it_comes_from(self, run, body, arguments, ini, mode):
        result = run(body, "-s", "--strict-markers", *arguments, ini=ini)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"*MODE {mode}"])

    def test_an_unknown_mode(self, run):
        result = run(TWO_STEPS, ini="workflow_sandbox = severe")
        result.stderr.fnmatch_lines(["*workflow_sandbox = severe: use one of off, best_effort, strict*"])

    def test_a_marker_without_a_mode(self, run):
        result = run(TWO_STEPS.replace("async def", "@pytest.mark.workflow_sandbox\nasync def"))
        assert "@pytest.mark.workflow_sandbox takes one of 'off', 'best_effort', 'strict'" in result.stdout.str()


class TestRecording:
    def test_histories_of_environments(self, run, pytester):
        run(TWO_STEPS, "--record-histories=recorded").assert_outcomes(passed=1)
        (path,) = (pytester.path / "recorded").glob("*/*.json")
        assert path.name == "order-1.json"
        assert path.parent.name.endswith("test_it")
        assert History.load(path).workflow_name == "order"

    def test_executions_that_continued_as_new(self, run, pytester):
        run(
            """
async def rounds(ctx, left):
    await ctx.sleep(60)
    if left:
        ctx.continue_as_new(left - 1)

async def test_it(workflow_env):
    async with workflow_env(orchestrators=[rounds]) as env:
        await env.execute(rounds, input=2)
""",
            "--record-histories=recorded",
        ).assert_outcomes(passed=1)
        names = sorted(path.name for path in (pytester.path / "recorded").glob("*/*.json"))
        assert names == ["rounds-1.2.json", "rounds-1.3.json", "rounds-1.json"]

    def test_histories_of_the_local_engine(self, run, pytester):
        run(
            """
async def test_it(local_backend, grpc_worker):
    from durabletask.client import AsyncTaskHubGrpcClient
    grpc_worker(orchestrators=[order], activities=[double])
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        await client.schedule_new_orchestration("order", input=13, instance_id="the order")
        await client.wait_for_orchestration_completion("the order", timeout=60)
""",
            "--record-histories=recorded",
        ).assert_outcomes(passed=1)
        (path,) = (pytester.path / "recorded").glob("*/the_order.json")
        assert json.loads(path.read_text())["instance_id"] == "the order"

    def test_a_test_with_a_long_name(self, run, pytester):
        run(
            """
@pytest.mark.parametrize("name", ["ü" * 300, "ü" * 300 + "y"])
async def test_it(workflow_env, name):
    async with workflow_env(orchestrators=[order], activities=[double]) as env:
        env.stub("ship", returns="shipped")
        await env.execute(order, input=4, instance_id=name)
""",
            "--record-histories=recorded",
        ).assert_outcomes(passed=2)
        paths = list((pytester.path / "recorded").glob("*/*.json"))
        assert len(paths) == 2
        assert max(len(path.name.encode()) for path in paths) < 210

    def test_nothing_is_written_without_the_option(self, run, pytester):
        run(TWO_STEPS)
        assert not list(pytester.path.glob("**/order-1.json"))


class TestReports:
    FAILING = """
async def test_it(workflow_env):
    async with workflow_env(orchestrators=[order], activities=[double]) as env:
        env.stub("ship", returns="shipped")
        assert await env.execute(order, input={value}) == "late"
"""

    def test_a_workflow_that_fails_is_shown_as_a_tree(self, run):
        result = run(self.FAILING.replace("{value}", "13"))
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "*workflow order, instance order-1*",
                "order(13)  order-1  FAILED after *",
                "├─ ✓ activity double *13  → 26",
                "└─ ✗ failed: ValueError: bad luck*",
            ]
        )

    def test_the_drivers_stack_is_not_shown(self, run):
        output = run(self.FAILING.replace("{value}", "13")).stdout.str()
        assert 'raise ValueError("bad luck")' in output
        assert "durabletask_aio/core/driver.py" not in output
        assert "durabletask/worker.py" not in output

    def test_an_assertion_that_fails_shows_the_workflows_of_the_test(self, run):
        result = run(self.FAILING.replace("{value}", "4"))
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["order(4)  order-1  COMPLETED after *", '└─ returned "shipped"'])

    def test_a_nondeterministic_workflow_is_reported_without_frames_of_the_library(self, run):
        result = run(
            """
async def sneaky(ctx):
    if not ctx.is_replaying:
        await ctx.call_activity("ship")

async def test_it(workflow_env):
    async with workflow_env(orchestrators=[sneaky], sandbox_mode="off") as env:
        env.stub("ship", returns=1)
        await env.execute(sneaky)
"""
        )
        result.stdout.fnmatch_lines(["E *workflow 'sneaky' is not deterministic*", "sneaky()  sneaky-1  COMPLETED *"])
        assert "replayer.py" not in result.stdout.str()
        assert "environment.py" not in result.stdout.str()

    CLOCK = """
import time

async def clock(ctx):
    return time.time()

async def test_it(workflow_env):
    workflow_env(orchestrators=[clock])
"""

    def test_a_sandbox_violation_is_reported_without_frames_of_the_library(self, run):
        result = run(self.CLOCK)
        result.stdout.fnmatch_lines([">*workflow_env(orchestrators=[[]clock])", "E *DET101*"])
        assert "driver.py" not in result.stdout.str()
        assert "orchestrator.py" in run(self.CLOCK, "--full-trace").stdout.str()

    def test_an_environment_that_the_test_makes_itself_is_shown_too(self, run):
        result = run(
            """
async def test_it():
    from durabletask.aio.testing import WorkflowEnvironment
    async with WorkflowEnvironment(orchestrators=[order], activities=[double]) as env:
        env.stub("ship", returns="shipped")
        assert await env.execute(order, input=4) == "late"
"""
        )
        result.stdout.fnmatch_lines(["order(4)  order-1  COMPLETED after *"])

    def test_the_sub_orchestration_that_failed_is_shown_after_its_parent(self, run):
        result = run(
            """
async def parent(ctx):
    await ctx.call_sub_orchestrator(order, input=4, instance_id="fine")
    await ctx.call_sub_orchestrator(order, input=13, instance_id="unlucky")

async def test_it(workflow_env):
    async with workflow_env(orchestrators=[parent, order], activities=[double]) as env:
        env.stub("ship", returns=1)
        await env.execute(parent)
"""
        )
        result.stdout.fnmatch_lines(["parent()  parent-1  FAILED *", "order(13)  unlucky  FAILED *"])
        assert "order(4)" not in result.stdout.str()

    def test_the_middle_of_a_long_workflow_is_omitted(self, run):
        result = run(
            """
async def many(ctx):
    await asyncio.gather(*(ctx.call_activity("ship", input=n) for n in range(100)))
    raise ValueError("after all")

async def test_it(workflow_env):
    async with workflow_env(orchestrators=[many]) as env:
        env.stub("ship", returns=1)
        await env.execute(many)
"""
        )
        result.stdout.fnmatch_lines(["│  … 73 more lines …", "├─ ✓ activity ship *99  → 1", "└─ ✗ failed: ValueError*"])
        assert "activity ship  start  0 ms  50" not in result.stdout.str()

    def test_instances_on_the_local_engine_are_shown(self, run):
        result = run(
            """
async def test_it(local_backend, grpc_worker):
    from durabletask.client import AsyncTaskHubGrpcClient
    grpc_worker(orchestrators=[order], activities=[double])
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        await client.schedule_new_orchestration("order", input=13, instance_id="the order")
        state = await client.wait_for_orchestration_completion("the order", timeout=60)
        assert state.failure_details is None
"""
        )
        result.stdout.fnmatch_lines(["order(13)  the order  FAILED after *"])


VERIFIED = """
import pytest

pytestmark = pytest.mark.asyncio

async def by_set(ctx, value):
    for name in {"reserve", "charge", "ship", "mail", "pack", "wrap", "label"}:
        await ctx.call_activity(name)

async def sorted_set(ctx, value):
    for name in sorted({"reserve", "charge", "ship", "mail", "pack", "wrap", "label"}):
        await ctx.call_activity(name)

async def record(workflow_env, workflow, **settings):
    async with workflow_env(orchestrators=[workflow], sandbox_mode="off", **settings) as env:
        for name in ("reserve", "charge", "ship", "mail", "pack", "wrap", "label"):
            env.stub(name, returns=name)
        await env.execute(workflow)
"""


class TestVerifyingASession:
    """`durable_verify`: the histories of a session, replayed at its end under other hash seeds."""

    @pytest.fixture
    def session(self, pytester):
        def session(body, *arguments, ini=""):
            pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}")
            pytester.makepyfile(test_verified=VERIFIED + body)
            return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:anyio", *arguments)

        return session

    def test_is_off_by_default(self, session):
        result = session("async def test_it(workflow_env):\n    await record(workflow_env, by_set)\n")
        result.assert_outcomes(passed=1)
        result.stdout.no_fnmatch_line("*hash seeds*")

    @pytest.mark.slow
    def test_names_what_differs_and_what_cannot_be_imported(self, session):
        result = session(
            """
async def test_by_set(workflow_env):
    await record(workflow_env, by_set)

async def test_sorted(workflow_env):
    await record(workflow_env, sorted_set)

async def test_local(workflow_env):
    async def local(ctx, value):
        return value
    await record(workflow_env, local)

async def test_converter(workflow_env):
    from durabletask.serialization import JsonDataConverter
    await record(workflow_env, converted, data_converter=JsonDataConverter())

async def converted(ctx, value):
    return value

async def test_unverified(workflow_env):
    await record(workflow_env, by_set, verify=False)
""",
            ini="durable_verify = importable",
        )
        result.assert_outcomes(passed=5)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(
            [
                "*durable workflows under other hash seeds*",
                "2 histories replayed, 1 of them with a difference",
                "DIFFERS test_verified.py::test_by_set",
                "    with PYTHONHASHSEED=*, so probably by the order of a set:",
                "not verified: converted: its data converter or its timers are those of the test",
                "not verified: local: 'test_local.<locals>.local' is not a function of a module",
            ]
        )

    def test_leaves_failed_tests_out(self, session):
        body = "async def test_it(workflow_env):\n    await record(workflow_env, by_set)\n    assert False\n"
        result = session(body, "--durable-verify=importable")
        result.stdout.fnmatch_lines(["0 histories replayed, 0 of them with a difference"])

    @pytest.mark.slow
    def test_includes_the_local_engine_and_passes_on_what_is_the_same(self, session):
        result = session(
            """
async def fine(ctx, value):
    return value

async def test_it(local_backend, grpc_worker):
    from durabletask.client import AsyncTaskHubGrpcClient
    grpc_worker(orchestrators={"named": fine})
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        instance_id = await client.schedule_new_orchestration("named", input=13)
        await client.wait_for_orchestration_completion(instance_id, timeout=60)
""",
            "--durable-verify=importable",
        )
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["1 histories replayed, 0 of them with a difference"])

    def test_refuses_another_value(self, session):
        result = session("", ini="durable_verify = always")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: durable_verify = always: use one of off, importable"])
