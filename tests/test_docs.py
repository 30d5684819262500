"""The Python in README.md and docs/ is real: it type-checks, it runs, and it does what the page says.

The blocks of a page, in their order, are one module.  `PAGES` says what comes before them (names that a fragment
leaves to the reader) and which of their workflows are run, with what outcome.  A page with Python that the table does
not know fails.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from durabletask.aio.testing import local_backend
from durabletask.aio.worker import TaskHubGrpcWorker as AsyncWorker
from durabletask.client import TaskHubGrpcClient
from durabletask.task import RetryPolicy
from durabletask.worker import TaskHubGrpcWorker

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The contents of the fenced blocks in `language`, without the indentation of their fences."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        for match in FENCE.finditer(text)
        if match[2] == language
    ]


@dataclass
class Run:
    """One instance of a workflow of the page."""

    workflow: str
    input: Any
    outcome: Any
    activities: tuple[str, ...] = ("fetch",)
    events: tuple[tuple[str, Any], ...] = ()
    children: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    version: str | None = None


@dataclass
class Page:
    before: str = ""
    runs: list[Run] = field(default_factory=list)
    needs_python: tuple[int, int] = (3, 10)


INDEX_LEAVES_OUT = """
import asyncio

from durabletask.task import ActivityContext

from durabletask.aio import AsyncWorkflowContext


def charge(ctx: ActivityContext, amount: int) -> str:
    return f"receipt for {amount} euros"


def ship(ctx: ActivityContext, receipt: str) -> str:
    return f"shipped, {receipt}"

"""

PACKAGE_PAGES = {
    f"packages/aio-{part}/README.md": Page() for part in ("core", "sandbox", "worker", "testing", "engine")
}
TWO_TEAS = {"item": "tea", "count": 2}

PAGES = {
    "README.md": Page(),
    "docs/index.md": Page(
        before=INDEX_LEAVES_OUT,
        runs=[Run("order", 5, "shipped, receipt for 5 euros", ("charge", "ship"))],
    ),
    "docs/quick-start.md": Page(),
    "docs/agents.md": Page(
        runs=[
            Run(
                "assistant",
                "Where is order 7?",
                "Done: refunded 7 euros.",
                ("call_model", "look_up", "refund"),
                events=(("approval", True),),
            )
        ]
    ),
    "docs/asyncio.md": Page(
        runs=[
            Run("side_by_side", None, ["<second>", "<first>", "<first>"]),
            Run("fan_out", ["a", "b"], ["<<a>>", "<<b>>"]),
            Run("wait_for_approval", None, "no answer after 2 seconds"),
            Run("race", ["a", "b"], "there was a winner"),
            Run("collect", 2, ["a", "b"], events=(("arrived", "a"), ("arrived", "b"))),
            Run("pipeline", ["b", "a"], ["<a>", "<b>"]),
            Run("draw", None, True),
            Run("with_a_cleanup", "a", "<a>"),
        ]
    ),
    "docs/cancellation.md": Page(
        runs=[Run("trip", "Oslo", "seat 7", ("reserve", "release"), events=(("confirmed", "seat 7"),))]
    ),
    "docs/migration.md": Page(
        runs=[
            Run(workflow, ["cup", "pot"], ["charged 2", "packed cup", "packed pot"], ("charge", "pack"))
            for workflow in ("order", "order_async")
        ]
    ),
    "docs/steps.md": Page(runs=[Run("order", "tea", "charged: payment of tea", ())]),
    "docs/patches.md": Page(
        runs=[
            Run("deliver", "tea", "tea by air", ("ship", "ship_by_air")),
            Run("deliver_2", "tea", "tea by air", ("ship_by_air",)),
        ]
    ),
    "docs/clients.md": Page(),
    "docs/comparison.md": Page(runs=[Run("total", ["tea", "cake"], 7, ("price",))]),
    "docs/failures.md": Page(
        runs=[
            Run("order", 5, "charged 5", ("reserve", "charge", "release")),
            Run("order", 500, "released the lamp", ("reserve", "charge", "release")),
            Run(
                "delivery",
                "lamp",
                ["builtins.RuntimeError: cannot ship", "builtins.ConnectionError: the carrier does not answer"],
                ("ship",),
            ),
        ]
    ),
    "docs/observability.md": Page(runs=[Run("tea_time", "Assam", "a cup of Assam", ("brew",))]),
    "docs/production.md": Page(
        runs=[Run("report", "May", "report of May", ("render",)), Run("ping", None, "pong", ())]
    ),
    "docs/web.md": Page(),
    "docs/data.md": Page(),
    "docs/requests.md": Page(),
    "docs/sandbox.md": Page(),
    "docs/reference/libraries.md": Page(),
    "docs/testing.md": Page(),
    "docs/worker.md": Page(
        runs=[
            Run("order", [3, 5], ["receipt for 3", "receipt for 5"], ("charge",)),
            Run("ship", None, {"region": "eu"}, ("read",)),
        ]
    ),
    **PACKAGE_PAGES,
    "docs/workflows.md": Page(
        runs=[
            Run("buy", TWO_TEAS, 12, ("charge",)),
            Run("buy_with_retries", TWO_TEAS, 6, ("charge",)),
            Run("buy_unless_refused", TWO_TEAS, 6, ("charge",)),
            Run("buy_by_card", TWO_TEAS, "ask for another card: declined with code 51", ("pay_by_card",)),
            Run("buy_with_declared_types", TWO_TEAS, "declined", ("charge_card",)),
            Run("compare", ["tea", "cake"], 3, ("quote",)),
            Run("buy_all", [TWO_TEAS, {"item": "cup", "count": 1}], 18, ("charge",), children=("buy",)),
            Run("pay", ["Ada", "Bob"], [-5, 5], (), entities=("account",)),
            Run("countdown", 2, "lift-off", ()),
            Run("brew", 3, "ready", ()),
        ]
    ),
    "docs/upgrading.md": Page(
        runs=[
            Run("order", "tea", ["charged tea"], ("charge",)),
            Run("order_2", "tea", ["reserved tea", "charged tea"], ("charge", "reserve")),
            Run("order_of_any_version", "tea", ["charged tea"], ("charge", "reserve")),
            Run("order_of_any_version", "tea", ["reserved tea", "charged tea"], ("charge", "reserve"), version="2"),
        ]
    ),
    "docs/conformance.md": Page(),
    "docs/engine/running.md": Page(),
    "docs/errors.md": Page(runs=[Run("careful", 7, "refused: cannot charge 7", ("risky",))]),
}
RUNS = [pytest.param(page, run, id=f"{page}: {run.workflow}") for page, that in PAGES.items() for run in that.runs]


def write_module(page: str, folder: Path) -> Path:
    path = folder / (re.sub(r"\W+", "_", page.removesuffix(".md").lower()) + "_page.py")
    code = PAGES[page].before + "\n\n".join(blocks(page, "python"))
    path.write_text(re.sub(r"^from order import .*\n", "", code, flags=re.MULTILINE), encoding="utf-8")
    return path


OPTIONAL_PACKAGES = ("fastapi", "opentelemetry", "pydantic")
"""Packages that pages may import although no package of this project requires them."""


def execute(path: Path) -> dict[str, Any]:
    """Import the module: a real one, since dataclasses and upstream's search for types look at those."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL_PACKAGES:
            raise
        pytest.skip(f"the page imports {error.name}, which is not installed")
    return vars(module)


def test_every_page_with_python_is_known() -> None:
    patterns = ("README.md", "packages/*/README.md", "docs/*.md", "docs/engine/*.md", "docs/reference/*.md")
    pages = [path for pattern in patterns for path in ROOT.glob(pattern)]
    names = [path.relative_to(ROOT).as_posix() for path in pages]
    with_python = {name for name in names if blocks(name, "python")}
    assert with_python == set(PAGES)


# The quick start ----------------------------------------------------------------------------------------------


def commands(page: str) -> list[tuple[str, str]]:
    """The commands of the page's console blocks, each with the output below it."""
    text = "".join(blocks(page, "console")).replace("\\\n", "")
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    return [(command.partition("   #")[0], output) for command, output in found]


def without_figures(output: str) -> str:
    return re.sub(r"\d+", "0", output)


def test_the_program_of_the_quick_start_is_the_same_everywhere() -> None:
    def code(text: str) -> str:
        """Without its docstring and comments; imports in the order of the pages."""
        lines = [re.sub(r" *#.*", "", line) for line in text.partition("import asyncio")[2].splitlines()]
        imports = sorted(line for line in lines if line.startswith("from "))
        return "\n".join([*imports, *(line for line in lines if line and not line.startswith("from "))])

    example = code((ROOT / "examples" / "order.py").read_text(encoding="utf-8"))
    assert code(blocks("README.md", "python")[0]) == example
    assert code(blocks("docs/quick-start.md", "python")[0]) == example


def test_all_pages_show_the_same_two_runs() -> None:
    def runs(page: str) -> list[tuple[str, str]]:
        return [each for each in commands(page) if each[0].startswith("python order.py")]

    assert len(runs("README.md")) == 2
    assert runs("README.md") == runs("docs/quick-start.md") == runs("docs/index.md")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the shell of Windows prints no 'Killed'")
def test_the_commands_of_the_quick_start_print_what_the_page_shows(tmp_path: Path) -> None:
    page = "docs/quick-start.md"
    program, test = blocks(page, "python")
    (tmp_path / "order.py").write_text(program, encoding="utf-8")
    (tmp_path / "test_order.py").write_text(test, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    with_modules = {"python": [], "pytest": ["-m", "pytest"], "durabletask-aio": ["-m", "durabletask_aio"]}
    ran: list[str] = []
    for command, expected in commands(page):
        name, *arguments = command.split()
        if not expected or "serve" in arguments:  # what sets the environment up; a server
            continue
        done = subprocess.run(
            [sys.executable, *with_modules[name], *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == (-9 if "--crash" in arguments else 0), done.stdout + done.stderr
        assert without_figures(done.stdout) == without_figures(expected.replace("Killed\n", ""))
        ran.append(name)
    assert ran == ["python", "python", "durabletask-aio", "pytest"]


# Workflows of pages -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskHubGrpcClient]:
    """For all runs of a page one engine, one client, and one worker with what they need: stopping it takes a second."""
    page = PAGES[request.param]
    if sys.version_info < page.needs_python:
        pytest.skip(f"the page uses what came with Python {page.needs_python}")
    names = execute(write_module(request.param, tmp_path_factory.mktemp("page")))

    def those(kind: str) -> list[Any]:
        return [names[name] for name in dict.fromkeys(name for run in page.runs for name in getattr(run, kind))]

    with (
        local_backend() as engine,
        TaskHubGrpcWorker(host_address=engine.address) as worker,
        TaskHubGrpcClient(host_address=engine.address) as client,
    ):
        for workflow in dict.fromkeys([*(names[run.workflow] for run in page.runs), *those("children")]):
            worker.add_orchestrator(workflow)
        for activity in those("activities"):
            worker.add_activity(activity)
        for entity in those("entities"):
            worker.add_entity(entity)
        worker.start()
        yield client


@pytest.mark.parametrize(("client", "run"), RUNS, indirect=["client"])
def test_workflows_of_a_page_do_what_it_says(client: TaskHubGrpcClient, run: Run) -> None:
    instance_id = client.schedule_new_orchestration(run.workflow, input=run.input, version=run.version)
    for name, data in run.events:
        client.raise_orchestration_event(instance_id, name, data=data)
    state = client.wait_for_orchestration_completion(instance_id, timeout=60)
    assert state is not None
    state.raise_if_failed()
    assert state.get_output() == run.outcome


def is_waiting(client: TaskHubGrpcClient, instance_id: str) -> bool:
    state = client.get_orchestration_state(instance_id)
    return state is not None and state.serialized_custom_status == '"waiting"'


@pytest.mark.parametrize("failure", ["a bug", "a divergence"])
def test_the_recipe_for_failed_instances_recovers_them(tmp_path: Path, failure: str) -> None:
    page = execute(write_module("docs/upgrading.md", tmp_path))
    policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=2)
    ran: list[str] = []
    is_broken = [True]

    def flaky(ctx: Any, _: Any) -> str:
        ran.append("flaky")
        if ran.count("flaky") == 1:
            raise ConnectionError("busy")
        return "answered"

    def refuse(ctx: Any, _: Any) -> None:
        ran.append("refuse")
        raise PermissionError("no")

    def last(ctx: Any, _: Any) -> str:
        ran.append("last")
        return "done"

    async def flow(ctx: Any, _: Any) -> list[str]:
        answer = await ctx.call_activity(flaky, retry_policy=policy)
        try:
            await ctx.call_activity(refuse)
        except Exception:
            answer += ", refused"
        await ctx.call_activity(last if failure == "a bug" or not is_broken[0] or "go" not in ran else "renamed")
        ctx.set_custom_status("waiting")
        await ctx.wait_for_external_event("go")
        if is_broken[0]:
            raise RuntimeError("a bug")
        return [answer, await ctx.call_activity(last)]

    with (
        local_backend() as engine,
        AsyncWorker(host_address=engine.address, max_extended_sessions=0, on_divergence="fail") as worker,
        TaskHubGrpcClient(host_address=engine.address) as client,
    ):
        worker.add_orchestrator(flow)
        for activity in (flaky, refuse, last):
            worker.add_activity(activity)
        worker.start()
        instance_id = client.schedule_new_orchestration("flow")
        engine.wait_until(lambda: is_waiting(client, instance_id))
        ran.append("go")
        client.raise_orchestration_event(instance_id, "go")
        failed = client.wait_for_orchestration_completion(instance_id, timeout=60)
        assert failed is not None
        assert failed.failure_details is not None
        assert failed.failure_details.error_type.endswith("RuntimeError" if failure == "a bug" else "DivergenceError")
        is_broken[0] = False

        state = page["recover"](client, instance_id)

    assert state.get_output() == ["answered, refused", "done"]
    assert ran == ["flaky", "flaky", "refuse", "last", "go", "last"]


@pytest.mark.parametrize("page", [page for page in PAGES if not PAGES[page].runs])
def test_a_page_without_a_run_of_its_own_executes(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    execute(write_module(page, tmp_path))


async def test_the_tests_on_the_testing_page_pass(tmp_path: Path) -> None:
    page = execute(write_module("docs/testing.md", tmp_path))
    await page["test_a_customer_who_never_pays"]()
    await page["test_a_customer_who_pays"]()
    page["test_the_current_code_replays_the_history"](await page["record"](tmp_path))
    await asyncio.to_thread(page["test_over_grpc"])


async def test_the_program_on_the_page_about_clients_returns_what_the_page_says(tmp_path: Path) -> None:
    page = execute(write_module("docs/clients.md", tmp_path))
    lines = await page["main"]()
    assert lines == ["order-7 cost 60", "terminated: too many"]
    assert f"`{json.dumps(lines)}`" in (ROOT / "docs/clients.md").read_text(encoding="utf-8")


async def test_the_test_on_the_page_about_agents_passes(tmp_path: Path) -> None:
    await execute(write_module("docs/agents.md", tmp_path))["test_a_refusal_reaches_the_model"]()


async def test_the_application_on_the_page_about_the_web_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpx = pytest.importorskip("httpx")
    monkeypatch.chdir(tmp_path)
    page = execute(write_module("docs/web.md", tmp_path))
    app = page["app"]
    transport = httpx.ASGITransport(app=app)
    async with page["lifespan"](app), httpx.AsyncClient(transport=transport, base_url="http://test") as web:
        for _ in range(2):
            assert (await web.put("/orders/o1?amount=5")).status_code == 202
        await app.state.client.get_handle("o1").result(timeout=60)
        assert (await web.get("/orders/o1")).json() == {"status": "COMPLETED", "result": "receipt for 5 euros"}
        assert (await web.get("/orders/o2")).status_code == 404


async def test_the_test_on_the_page_about_patches_passes(tmp_path: Path) -> None:
    page = execute(write_module("docs/patches.md", tmp_path))
    await page["test_each_stage_replays_the_histories_of_the_one_before"]()


async def test_the_program_on_the_page_about_requests_returns_what_the_page_says(tmp_path: Path) -> None:
    page = execute(write_module("docs/requests.md", tmp_path))
    lines = await page["main"]()
    assert lines == ["the limit is 100", "thank you", "approved by Grace"]
    assert f"`{json.dumps(lines)}`" in (ROOT / "docs/requests.md").read_text(encoding="utf-8")


async def test_the_program_on_the_page_about_data_returns_what_the_page_says(tmp_path: Path) -> None:
    page = execute(write_module("docs/data.md", tmp_path))
    assert await page["main"]() == "4.50 until 15 February"
    assert "`4.50 until 15 February`" in (ROOT / "docs/data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *sorted(PACKAGE_PAGES)])
def test_links_into_the_repository_lead_somewhere(page: str) -> None:
    """Those between the pages of the docs are checked when these are built."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_console_commands_of_the_readme_exist() -> None:
    commands = re.findall(r"python3 (scripts/\w+\.py)", "".join(blocks("README.md", "console")))
    assert commands == ["scripts/quickstart.py", "scripts/test.py"]
    assert all((ROOT / command).exists() for command in commands)


# Types -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        write_module(page, folder)
    return folder


def check(folder: Path, *command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mypy_accepts_all_pages(modules: Path) -> None:
    check(modules, "mypy", "--strict", "--python-version", "3.11", ".")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pyright_accepts_all_pages(modules: Path) -> None:
    settings = '{"typeCheckingMode": "strict", "pythonVersion": "3.11", "reportMissingTypeStubs": false}'
    (modules / "pyrightconfig.json").write_text(settings)
    check(modules, "pyright", "--pythonpath", sys.executable)
