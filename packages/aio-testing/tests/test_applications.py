"""What an application's workflows wait for, in this process and in one of its own."""

from __future__ import annotations

import asyncio
import textwrap
from datetime import datetime, timezone
from pathlib import Path

import pytest
from durabletask import task
from durabletask.serialization import JsonDataConverter
from durabletask.worker import TaskHubGrpcWorker as UpstreamWorker

from durabletask_aio.core import as_orchestrator
from durabletask_aio.engine.web.waiting import Awaited, WaitingUnknownError
from durabletask_aio.testing import History, WorkflowEnvironment
from durabletask_aio.testing.application_process import ApplicationProcess, describe
from durabletask_aio.testing.applications import Application, UnknownWorkflowError, load_application
from durabletask_aio.testing.divergence import ReplayError
from durabletask_aio.testing.orchestrators import OrchestratorLookupError
from durabletask_aio.worker.worker import TaskHubGrpcWorker

FUTURE = datetime(2100, 1, 1, tzinfo=timezone.utc)


def charge(ctx, amount):
    return amount


async def child(ctx, who):
    return await ctx.wait_for_external_event(f"Approved by {who}")


async def order(ctx, who):
    await ctx.call_activity(charge, input=1)
    return await asyncio.wait_for(child(ctx, who), 60)


async def gathering(ctx, _):
    return await asyncio.gather(*[ctx.wait_for_external_event(f"E{n}") for n in range(5)], ctx.sleep(1000))


async def with_tasks(ctx, _):
    tasks = [
        asyncio.create_task(child(ctx, "Ada"), name="ada"),
        asyncio.create_task(asyncio.Queue().get(), name="reader"),
    ]
    await ctx.call_sub_orchestrator("child", input="Eve", instance_id="child-1")
    await asyncio.gather(*tasks)


async def awaiting_a_task(ctx, _):
    await asyncio.create_task(child(ctx, "Ada"), name="ada")


async def racing(ctx, _):
    return await ctx.when_any([ctx.wait_for_external_event("Left"), ctx.sleep(100)])


async def ending(ctx, _):
    return "done"


def generator(ctx, kind):
    if kind == "event":
        yield ctx.wait_for_external_event("Paid")
    elif kind == "timer":
        yield ctx.create_timer(FUTURE)
    elif kind == "child":
        yield ctx.call_sub_orchestrator("child", input="Eve", instance_id="child-1")
    else:
        parts = [ctx.wait_for_external_event("One"), ctx.create_timer(FUTURE)]
        yield task.when_any(parts) if kind == "any" else task.when_all(parts)


ORCHESTRATORS = [child, order, gathering, with_tasks, awaiting_a_task, racing, ending, generator]
APPLICATION = Application({each.__name__: each for each in ORCHESTRATORS})


async def history_of(workflow, value=None):
    async with WorkflowEnvironment(
        orchestrators=ORCHESTRATORS, activities=[charge], verify=False, auto_skip=False
    ) as env:
        handle = await env.start(workflow, input=value)
        await env.advance(0)
        return handle.history


async def waits(workflow, value=None):
    found = APPLICATION.waits(await history_of(workflow, value))
    return [(wait.what, wait.event, wait.task, [frame.name for frame in wait.frames]) for wait in found]


class TestWaits:
    async def test_an_event_with_its_line_and_the_way_there(self):
        found = APPLICATION.waits(await history_of(child, "Ada"))
        (wait,) = found
        assert (wait.what, wait.event, wait.task) == ("external event 'Approved by Ada'", "Approved by Ada", "child")
        (frame,) = wait.frames
        assert (frame.name, frame.filename) == ("child", __file__)
        assert frame.line == 'return await ctx.wait_for_external_event(f"Approved by {who}")'

    async def test_what_it_waits_for_after_results_of_activities(self):
        found = await waits(order, "Ada")
        assert ("external event 'Approved by Ada'", "Approved by Ada") in [each[:2] for each in found]
        assert found[-1][3][-1] == "child"

    async def test_each_event_of_a_gather(self):
        names = [f"E{n}" for n in range(5)]
        main, *events = await waits(gathering)
        text = ", ".join(f"external event {name!r}" for name in names)
        assert main == (f"gather of {text} and 1 more", "", "gathering", ["gathering"])
        assert [each[:3] for each in events] == [(f"external event {name!r}", name, "") for name in names]

    async def test_tasks_in_the_order_of_their_creation(self):
        main, ada, reader = await waits(with_tasks)
        assert main == ("sub-orchestration 'child'", "", "with_tasks", ["with_tasks"])
        assert ada == ("external event 'Approved by Ada'", "Approved by Ada", "ada", ["child"])
        assert reader == ("its other tasks, or a queue, lock or event of asyncio", "", "reader", [])

    async def test_a_task_that_awaits_another(self):
        main, _ = await waits(awaiting_a_task)
        assert main == ("task 'ada'", "", "awaiting_a_task", ["awaiting_a_task"])

    async def test_a_combination_and_the_event_in_it(self):
        assert await waits(racing) == [
            ("ctx.when_any of 2 awaitables", "", "racing", ["racing"]),
            ("external event 'Left'", "Left", "", ["racing"]),
        ]

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("event", [("external event 'paid'", "paid", "", ["generator"])]),
            ("timer", [("timer", "", "", ["generator"])]),
            ("child", [("'child'", "", "", ["generator"])]),
            ("any", [("when_any of 2 tasks", "", "", ["generator"]), ("external event 'one'", "one", "", [])]),
            ("all", [("when_all of 2 tasks", "", "", ["generator"]), ("external event 'one'", "one", "", [])]),
        ],
    )
    async def test_a_generator(self, kind, expected):
        found = await waits(generator, kind)
        # Upstream forgets the name of a sub-orchestration whose start is confirmed.
        assert [(what.replace("'#1'", "'child'"), *rest) for what, *rest in found] == expected

    async def test_nothing_once_it_has_ended(self):
        assert await waits(ending) == []

    async def test_code_that_does_not_fit_is_told(self):
        history = await history_of(order, "Ada")
        with pytest.raises(ReplayError, match="no longer does what the history"):
            Application({"order": child}).waits(history)

    async def test_a_workflow_that_is_not_in_the_application(self):
        with pytest.raises(UnknownWorkflowError, match="no orchestrator 'order' is registered here; there are: orde"):
            Application({"orde": child}).waits(await history_of(order, "Ada"))


async def test_the_page_names_the_task_and_shows_each_line_once(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    described = describe(APPLICATION.waits(await history_of(gathering)))
    assert [each.event for each in described] == ["", "E0", "E1", "E2", "E3", "E4"]
    assert described[0].line.startswith("return await asyncio.gather(")
    assert [each.line for each in described[2:]] == [""] * 4
    _, ada, reader = describe(APPLICATION.waits(await history_of(with_tasks)))
    assert ada.what == "external event 'Approved by Ada', in 'ada'"
    assert reader == Awaited("its other tasks, or a queue, lock or event of asyncio, in 'reader'")
    (direct,) = describe(APPLICATION.waits(await history_of(child, "Ada")))
    assert direct.location == f"test_applications.py:{child.__code__.co_firstlineno + 1} in child"
    assert direct.stack == ""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, from which applications are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(path, text):
    path.write_text(textwrap.dedent(text), encoding="utf-8")


class TestLoading:
    def test_the_orchestrators_of_a_module(self, folder):
        write(folder / "app_of_functions.py", "async def one(ctx, _): ...\ndef two(ctx, _): yield\ndef three(): ...\n")
        assert sorted(load_application(["app_of_functions"]).orchestrators) == ["one", "two"]
        assert list(load_application(["app_of_functions:one=first"]).orchestrators) == ["first"]

    @pytest.mark.parametrize("kind", [TaskHubGrpcWorker, UpstreamWorker])
    def test_what_a_worker_has_registered(self, folder, kind):
        class Converter(JsonDataConverter):
            pass

        converter = Converter()
        worker = kind(data_converter=converter, maximum_timer_interval=None)
        worker.add_orchestrator(as_orchestrator(child))
        write(
            folder / f"app_of_{kind.__module__.partition('.')[0]}.py", "worker = None\nasync def other(ctx, _): ...\n"
        )
        module = __import__(f"app_of_{kind.__module__.partition('.')[0]}")
        vars(module)["worker"] = worker
        for reference in (module.__name__, f"{module.__name__}:worker"):
            found = load_application([reference])
            assert list(found.orchestrators) == ["child"]
            assert found.data_converter is converter
            assert found.maximum_timer_interval is None

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("no_such_app", "cannot import 'no_such_app': No module named 'no_such_app'"),
            ("app_that_is_empty", "module 'app_that_is_empty' has no orchestrators"),
            ("app_that_is_empty:worker", "module 'app_that_is_empty' has no function 'worker'"),
        ],
    )
    def test_what_cannot_be_loaded_is_said(self, folder, reference, message):
        write(folder / "app_that_is_empty.py", "")
        with pytest.raises(OrchestratorLookupError, match=message):
            load_application([reference])


@pytest.fixture
def shop(folder):
    write(
        folder / "shop.py",
        """
        import os
        import time

        async def child(ctx, who):
            print("printed by the workflow")
            return await ctx.wait_for_external_event("first")
        """,
    )
    with ApplicationProcess(["shop"], answer_timeout=60) as process:
        yield process


@pytest.fixture
async def history():
    return await history_of(child, "Ada")


def rewrite(folder, old, new):
    path = folder / "shop.py"
    # Another length, so that the change shows on file systems with coarse times too.
    write(path, path.read_text(encoding="utf-8").replace(old, new) + "# changed\n")


class TestProcess:
    async def test_it_tells_what_an_instance_waits_for(self, shop, history):
        (found,) = shop("one", history.protobuf)
        assert found == Awaited(
            "external event 'first'",
            "first",
            "shop.py:7 in child",
            'return await ctx.wait_for_external_event("first")',
        )
        assert shop("one", history.protobuf) == [found]

    async def test_a_changed_file_is_read_again(self, shop, history, folder):
        rewrite(folder, '"first"', '"second"')
        assert [each.event for each in shop("one", history.protobuf)] == ["second"]

        rewrite(folder, "return await", "return wait")
        with pytest.raises(WaitingUnknownError, match=r"cannot import 'shop': SyntaxError: .*shop\.py, line 7"):
            shop("one", history.protobuf)

        rewrite(folder, "return wait", "return await")
        assert [each.event for each in shop("one", history.protobuf)] == ["second"]

    async def test_code_that_ends_the_process_ends_that_one(self, shop, history, folder):
        rewrite(folder, "print(", "os._exit(3) or print(")
        for _ in range(2):
            with pytest.raises(WaitingUnknownError, match=r"^shop has ended its process$"):
                shop("one", history.protobuf)

    async def test_code_that_blocks_is_stopped(self, shop, history, folder):
        shop._answer_timeout = 1.0
        rewrite(folder, "print(", "time.sleep(600) or print(")
        with pytest.raises(WaitingUnknownError, match=r"^shop has not answered within 1 s$"):
            shop("one", history.protobuf)

    async def test_a_history_of_other_code_is_told(self, shop, folder):
        with pytest.raises(WaitingUnknownError, match=r"^no orchestrator 'order' is registered here"):
            shop("one", (await history_of(order, "Ada")).protobuf)
        rewrite(folder, "async def child", "async def order")
        with pytest.raises(WaitingUnknownError, match="'order' no longer does what the history"):
            shop("one", (await history_of(order, "Ada")).protobuf)

    def test_a_history_without_a_start_is_told(self, shop):
        with pytest.raises(WaitingUnknownError, match="no orchestrator ''"):
            shop("one", History([]).protobuf)

    def test_an_application_that_cannot_be_imported_does_not_start(self, folder):
        process = ApplicationProcess(["no_such_app"])
        with pytest.raises(OrchestratorLookupError, match=r"^cannot import 'no_such_app'"):
            process.start()
        process.stop()

    async def test_it_starts_by_itself_and_stops_twice(self, shop, history):
        shop.stop()
        assert len(shop("one", history.protobuf)) == 1
        shop.stop()
        shop.stop()
