"""State that outlives a workflow, and the order of sets, as they occur in real code."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import textwrap
from pathlib import Path
from typing import Any

import pytest

from durabletask_aio.core import SandboxViolationError
from durabletask_aio.sandbox.static.analysis import check

ALLOWED = frozenset({"read", "write", "admin"})


class Retrying:
    limit = 3

    def __init__(self) -> None:
        self.attempts = 0

    async def __call__(self, ctx: Any) -> Any:
        self.attempts += 1
        return await ctx.call_activity("work", input=self.attempts)

    def note(self) -> None:
        self.attempts = 0


class Local:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


class Totals:
    seen: list[str] = []  # the mistake under test
    total = 0

    @classmethod
    def add(cls, item: str) -> int:
        cls.total += 1
        cls.seen.append(item)
        return cls.total


class Steps:
    done: list[str] = []  # a declaration; each object has its own list
    undone: list[str] = []  # the mistake under test

    def __init__(self) -> None:
        self.done = []

    def add(self, step: str) -> None:
        self.done.append(step)

    def undo(self, step: str) -> None:
        self.undone.append(step)


retrying = Retrying()


def collect(item: str, seen: list[str] = []) -> list[str]:  # noqa: B006
    seen.append(item)
    return seen


def collected(item: str, seen: list[str] | None = None, *, more: list[str] = []) -> list[str]:  # noqa: B006
    seen = seen or []
    seen.append(item)
    return [*seen, *more]


def shard(key: str) -> int:
    return hash(key) % 8


def found(workflow: Any) -> list[str]:
    return [each.rule.code for each in check(workflow)]


def checked(folder: Path, text: str) -> list[tuple[int, str]]:
    path = folder / "flow.py"
    path.write_text(textwrap.dedent(text))
    return [(each.line or 0, each.rule.code) for each in check(path)]


class TestState:
    def test_a_default_that_all_calls_share(self) -> None:
        async def workflow(ctx: Any) -> Any:
            return collect("a")

        (finding,) = check(workflow)

        assert finding.summary == (
            "`seen.append()` changes a default of the parameter `seen` that outlives the workflow (DET801)."
        )

    def test_a_default_that_is_not_used_is_fine(self) -> None:
        async def workflow(ctx: Any) -> Any:
            own: list[str] = []

            def nested(item: str, kept: list[str] = []) -> None:  # noqa: B006
                kept.append(item)  # created again in each execution

            nested("x")
            given: Any = {"item": "e", "seen": own}
            made = [*map(collect, ["f"], [own]), collect(**given)]
            return [collect("a", own), collect("b", seen=own), collect(*["c"], seen=own), collected("d"), made]  # type: ignore[misc,arg-type]

        assert found(workflow) == []

    def test_the_input_of_a_workflow_is_always_given(self) -> None:
        async def workflow(ctx: Any, items: list[int] = []) -> Any:  # noqa: B006
            items.append(1)

        assert found(workflow) == []

    def test_an_object_at_the_top_of_a_module(self) -> None:
        async def called(ctx: Any) -> Any:
            return await retrying(ctx)

        async def by_method(ctx: Any) -> None:
            retrying.note()

        async def from_outside(ctx: Any) -> None:
            retrying.attempts = 2

        for workflow in (called, by_method, from_outside):
            (finding,) = check(workflow)
            assert "an object of the class Retrying that outlives the workflow" in finding.summary

    def test_a_function_that_remembers(self) -> None:
        async def workflow(ctx: Any) -> None:
            shard.calls = 1  # type: ignore[attr-defined]

        assert "the function shard that outlives the workflow" in check(workflow)[0].summary

    def test_objects_that_the_workflow_makes_are_its_own(self) -> None:
        async def workflow(ctx: Any) -> int:
            counter = Local()
            counter.count = 3
            return counter.add()

        assert found(workflow) == []

    def test_an_attribute_of_the_class_that_each_object_replaces_is_not_shared(self) -> None:
        async def good(ctx: Any) -> None:
            steps = Steps()
            steps.add("book")
            steps.done.append("pay")

        async def bad(ctx: Any) -> None:
            Steps().undo("book")

        assert found(good) == []
        assert found(bad) == ["DET801"]

    def test_the_checker_finds_them_too(self, tmp_path: Path) -> None:
        text = """
        from durabletask.aio import AsyncWorkflowContext

        class Counter:
            seen: list = []
            total = 0

            def __init__(self):
                self.count = 0

            def add(self):
                self.count += 1
                return self.count

            @classmethod
            def note(cls, item):
                cls.total += 1
                cls.seen.append(item)

        counter = Counter()

        def collect(item, seen=[]):
            seen.append(item)
            return seen

        async def bad(ctx: AsyncWorkflowContext, _):
            counter.add()
            Counter.note(1)
            collect(1)

        async def good(ctx: AsyncWorkflowContext, _):
            own = Counter()
            own.add()
            collect(1, [])
            collect(*[1], *[[]])
        """
        assert checked(tmp_path, text) == [(12, "DET801"), (17, "DET801"), (18, "DET801"), (23, "DET801")]

    def test_paths_made_of_paths_are_paths(self, tmp_path: Path) -> None:
        text = """
        from pathlib import Path
        from durabletask.aio import AsyncWorkflowContext

        CONFIG = Path(__file__).with_name("config.json")
        BASE = Path(__file__).parent.parent / "data"

        async def bad(ctx: AsyncWorkflowContext, _):
            CONFIG.read_text()
            (BASE / "a").with_suffix(".csv").exists()
            Path("x").parent.joinpath("y").mkdir()

        async def good(ctx: AsyncWorkflowContext, _):
            return CONFIG.with_suffix(".txt").name, BASE.parent.name, str(Path("a") / "b")
        """
        assert checked(tmp_path, text) == [(9, "DET501"), (10, "DET501"), (11, "DET501")]

    def test_live_paths_made_of_paths_are_paths(self) -> None:
        async def workflow(ctx: Any) -> Any:
            Path("x").parent.joinpath("y").mkdir()

        assert found(workflow) == ["DET501"]


class TestOrder:
    def test_operators_on_views_return_sets(self) -> None:
        async def bad(ctx: Any, wanted: dict[str, int], there: dict[str, int]) -> Any:
            return await ctx.when_all([ctx.call_activity("work", input=name) for name in wanted.keys() - there.keys()])

        async def good(ctx: Any, wanted: dict[str, int], there: dict[str, int]) -> Any:
            for name in sorted(wanted.keys() & there.keys()):
                await ctx.call_activity("work", input=name)
            for name in wanted.keys():  # noqa: SIM118
                await ctx.call_activity("work", input=name in wanted.keys() | there.keys())

        assert (found(bad), found(good)) == (["DET703"], [])

    def test_a_set_at_the_top_of_a_module(self, tmp_path: Path) -> None:
        async def joined(ctx: Any) -> Any:
            return await ctx.call_activity("work", input=",".join(ALLOWED))

        async def listed(ctx: Any) -> Any:
            return await ctx.call_activity("work", input=[*(ALLOWED - {"read"})])

        assert (found(joined), found(listed)) == (["DET703"], ["DET703"])
        text = """
        from durabletask.aio import AsyncWorkflowContext

        ALLOWED = frozenset({"read", "write"})
        PLAIN = {"a", "b"}
        MADE = set(["a", "b"])

        async def bad(ctx: AsyncWorkflowContext, _):
            await ctx.call_activity("work", input=",".join(ALLOWED))
            for name in PLAIN:
                await ctx.call_activity(name)
            for name in MADE | {"c"}:
                await ctx.call_activity(name)

        async def good(ctx: AsyncWorkflowContext, name):
            if name in ALLOWED and name in PLAIN:
                await ctx.call_activity("work", input=sorted(MADE))
        """
        assert checked(tmp_path, text) == [(9, "DET703"), (10, "DET703"), (12, "DET703")]

    def test_the_hash_of_certain_text(self, tmp_path: Path) -> None:
        text = """
        from durabletask.aio import AsyncWorkflowContext

        def shard(key: str, number: int) -> int:
            return hash(key) % 8 + hash(number)

        async def flow(ctx: AsyncWorkflowContext, given):
            shard(given, 1)
            hash(ctx.instance_id)
            hash(str(given))
            hash((1, 2))
        """
        assert checked(tmp_path, text) == [(5, "DET702"), (9, "DET702"), (10, "DET702")]


class TestTasks:
    """`asyncio.all_tasks()` is a set: the order in which it iterates differs on replay."""

    CERTAIN = (
        "for task in asyncio.all_tasks():\n    await ctx.call_activity(task.get_name())",
        "await ctx.when_all([ctx.call_activity(task.get_name()) for task in asyncio.all_tasks()])",
    )
    REPORTED = (
        "for task in asyncio.all_tasks():\n    task.cancel()",
        "for task in asyncio.all_tasks() - {asyncio.current_task()}:\n    task.cancel()",
        "for task in {each for each in asyncio.all_tasks() if not each.done()}:\n    task.cancel()",
        "for task in set(asyncio.all_tasks()):\n    task.cancel()",
        "for task in {*asyncio.all_tasks()}:\n    task.cancel()",
        "tasks = list(asyncio.all_tasks())\nfor task in tasks:\n    await task",
        "tasks = [*asyncio.all_tasks()]",
        "tasks = [task for task in asyncio.all_tasks() if not task.done()]",
        "names = {task.get_name(): task for task in asyncio.all_tasks()}",
        "first = next(iter(asyncio.all_tasks()))",
        "numbered = sorted(enumerate(asyncio.all_tasks()))",
        "await asyncio.gather(*asyncio.all_tasks())",
    )
    FINE = (
        "for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):\n    await task",
        "for name in sorted(task.get_name() for task in asyncio.all_tasks()):\n    await ctx.call_activity(name)",
        "for name in sorted(map(str, list(asyncio.all_tasks()))):\n    await ctx.call_activity(name)",
        "count = len(asyncio.all_tasks())",
        "done = all(task.done() for task in asyncio.all_tasks()) and any([t.done() for t in asyncio.all_tasks()])",
        "mine = asyncio.current_task() in asyncio.all_tasks()",
        "others = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}",
        "await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})",
        "await asyncio.wait([*asyncio.all_tasks()])",
    )

    @pytest.mark.parametrize("body", [*CERTAIN, *REPORTED, *FINE])
    def test_the_checker_and_the_analysis_of_functions_agree(self, tmp_path: Path, body: str) -> None:
        header = "import asyncio\nfrom durabletask.aio import AsyncWorkflowContext\n\n"
        text = f"{header}async def flow(ctx: AsyncWorkflowContext, _):\n{textwrap.indent(body, '    ')}\n"
        path = tmp_path / "flow.py"
        path.write_text(text)
        namespace: dict[str, Any] = {}
        exec(compile(text, str(path), "exec"), namespace)

        for findings in (check(path), check(namespace["flow"])):
            assert [each.rule.code for each in findings] == ([] if body in self.FINE else ["DET703"])
            assert [each.certain for each in findings] == ([] if body in self.FINE else [body in self.CERTAIN])

    def test_the_message_shows_how_to_sort_them(self) -> None:
        async def workflow(ctx: Any) -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        (finding,) = check(workflow)
        assert finding.message == (
            "The code iterates over the set of `asyncio.all_tasks()`, whose order differs on replay (DET703)."
            " Use `sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda task: task.get_name())`."
        )

    def test_a_line_can_be_allowed(self) -> None:
        async def workflow(ctx: Any) -> int:
            total = 0
            for _task in asyncio.all_tasks():  # determinism: allow[set-order] the order does not matter
                total += 1
            return total

        assert found(workflow) == []


class TestFuturesOfThreads:
    ADVICE = "Use an activity for the work behind the future: its result is recorded and read back on replay."

    def test_wrap_future_is_reported(self, tmp_path: Path) -> None:
        async def workflow(ctx: Any) -> Any:
            return await asyncio.wrap_future(ctx.future)

        text = """
        import asyncio
        from durabletask.aio import AsyncWorkflowContext

        async def flow(ctx: AsyncWorkflowContext, future):
            return await asyncio.wrap_future(future)
        """
        assert checked(tmp_path, text) == [(6, "DET601")]
        for (finding,) in (check(workflow), check(tmp_path / "flow.py")):
            assert finding.message == (
                "`asyncio.wrap_future()` is not deterministic: work is handed to another thread or process (DET601)."
                f" {self.ADVICE}"
            )

    def test_wrap_future_is_refused_at_run_time(self, strict: Any) -> None:
        async def workflow(ctx: Any) -> Any:
            return await asyncio.wrap_future(concurrent.futures.Future[int]())

        violation = strict(workflow).violation
        assert isinstance(violation, SandboxViolationError)
        assert self.ADVICE.rstrip(".") in str(violation)


class TestCancelling:
    def test_awaiting_a_cancelled_task_swallows_nothing(self) -> None:
        async def suppressed(ctx: Any) -> None:
            task = asyncio.create_task(asyncio.sleep(3600))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async def caught(ctx: Any) -> None:
            tasks = [asyncio.create_task(asyncio.sleep(3600))]
            for task in tasks:
                task.cancel()
            for task in tasks:
                try:
                    await task
                except (asyncio.CancelledError, ValueError):
                    ctx.set_custom_status("stopped")

        assert (found(suppressed), found(caught)) == ([], [])

    @pytest.mark.parametrize("kind", ["asyncio.CancelledError", "BaseException"])
    def test_anything_else_does(self, tmp_path: Path, kind: str) -> None:
        text = f"""
        import asyncio, contextlib
        from durabletask.aio import AsyncWorkflowContext

        async def flow(ctx: AsyncWorkflowContext, _):
            task = asyncio.create_task(asyncio.sleep(1))
            with contextlib.suppress({kind}):
                await task
                await ctx.sleep(1)
            other = asyncio.create_task(asyncio.sleep(1))
            other.cancel()
            with contextlib.suppress(BaseException):
                await other
        """
        assert checked(tmp_path, text) == [(7, "DET803"), (12, "DET803")]
