"""The pytest plugin, in runs of its own."""

from __future__ import annotations

import importlib.util
import json

import pytest

from durabletask_aio.testing.history import History

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
    """Run a test file with nothing but our plugin and one for async tests."""

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
    grpc_worker(orchestrators=[order], activities={"double": double}.values())
    async with AsyncTaskHubGrpcClient(host_address=local_backend.address) as client:
        instance_id = await client.schedule_new_orchestration("order", input=13)
        state = await client.wait_for_orchestration_completion(instance_id, timeout=60)
        assert state.failure_details.message.startswith("bad luck")
"""
        ).assert_outcomes(passed=1)

    def test_the_plugin_imports_nothing_of_durabletask_by_itself(self, run, pytester):
        result = run(
            """
async def test_it():
    import sys
    assert "durabletask_aio.testing.pytest_plugin" in sys.modules
    assert "durabletask" not in sys.modules
""",
            start=pytester.runpytest_subprocess,
        )
        result.assert_outcomes(passed=1)


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

    def test_a_mode_that_there_is_not(self, run):
        result = run(TWO_STEPS, ini="workflow_sandbox = severe")
        result.stderr.fnmatch_lines(["*workflow_sandbox = severe: use one of off, best_effort, strict*"])

    def test_a_marker_that_says_nothing(self, run):
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
                "├─ ✓ activity double *13 → 26",
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
