"""State that outlives a workflow, and the order of sets, in the shapes that people write them."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from pathlib import Path
from typing import Any

import pytest

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
    seen: list[str] = []  # the mistake that this is about
    total = 0

    @classmethod
    def add(cls, item: str) -> int:
        cls.total += 1
        cls.seen.append(item)
        return cls.total


class Steps:
    done: list[str] = []  # what there is to know of the attribute; each object has its own
    undone: list[str] = []  # the mistake again

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

    def test_a_default_is_fine_where_something_is_given_or_put_in_its_place(self) -> None:
        async def workflow(ctx: Any) -> Any:
            own: list[str] = []

            def nested(item: str, kept: list[str] = []) -> None:  # noqa: B006
                kept.append(item)  # made anew each time that the workflow runs

            nested("x")
            given = {"item": "e", "seen": own}
            made = [*map(collect, ["f"], [own]), collect(**given)]
            return [collect("a", own), collect("b", seen=own), collect(*["c"], seen=own), collected("d"), made]

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

    def test_the_checker_knows_them_too(self, tmp_path: Path) -> None:
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
    def test_what_operators_make_of_views_is_a_set(self) -> None:
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

    def test_the_hash_of_what_is_text_for_sure(self, tmp_path: Path) -> None:
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


class TestCancelling:
    def test_waiting_for_the_end_of_what_was_cancelled_swallows_nothing(self) -> None:
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
