"""`docs/replay.md` quotes the messages of replay for twenty changes; they are compared with the real ones."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from durabletask.aio.testing import History, WorkflowEnvironment, replay

ROOT = Path(__file__).parents[3]
BENCHMARK = ROOT / "benchmarks" / "replay_histories.py"
PAGE = ROOT / "docs" / "replay.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is in the repository only")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("replay_histories", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["replay_histories"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def histories(benchmark):
    return await benchmark.record(110)  # among them, one that each of the changes breaks


async def test_the_unchanged_workflow_passes(benchmark, histories):
    workflow = benchmark.load(benchmark.ORDER)
    assert len([replay(history, workflow) for history in histories]) == 110


async def test_each_of_twenty_changes_is_found_and_quoted_word_for_word(benchmark, histories):
    page = PAGE.read_text(encoding="utf-8")
    assert len(benchmark.CHANGES) == 20
    quoted = page.partition(benchmark.BEGIN)[2].partition(benchmark.END)[0]
    expected = benchmark.sections(histories)
    assert quoted.strip() == expected.strip(), "run: python benchmarks/replay_histories.py --write-docs docs/replay.md"


def test_the_workflow_on_the_page_is_the_one_that_is_changed(benchmark):
    assert benchmark.shown_workflow() in PAGE.read_text(encoding="utf-8")


async def test_the_file_on_the_page_is_what_is_written():
    async def greet(ctx, name):
        return await ctx.call_activity("hello", input=name)

    async with WorkflowEnvironment(orchestrators=[greet]) as env:
        env.stub("hello", returns="Hello, Ada!")
        handle = await env.start(greet, input="Ada")
        await handle.result()
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert handle.history.to_json().startswith(shown)


async def test_the_folder_of_histories_is_what_was_recorded(benchmark, histories, tmp_path):
    benchmark.write(histories, tmp_path)
    assert [History.load(path) for path in sorted(tmp_path.iterdir())] == histories
