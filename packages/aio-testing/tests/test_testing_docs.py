"""Runs the tests that `docs/testing.md` and the README show."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from pathlib import Path

import pytest
from durabletask.aio.testing import WorkflowEnvironment
from durabletask.client import OrchestrationFailedError
from durabletask.task import RetryPolicy

from durabletask_aio.testing.timeline_text import render_text

ROOT = Path(__file__).parents[3]
PAGES = {"docs/testing.md": 7, "packages/aio-testing/README.md": 1}

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the documentation is in the repository only")


def load(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names = {"__name__": "page"}
    exec(compile("\n\n".join(blocks), page, "exec"), names)
    return names, {name: function for name, function in names.items() if name.startswith("test_")}


@pytest.mark.parametrize("page", PAGES)
async def test_every_test_on_the_page_passes(page, tmp_path):
    names, tests = load(page)
    ran = 0
    for function in tests.values():
        parameters = list(inspect.signature(function).parameters)
        if parameters not in ([], ["path"]) or not (inspect.iscoroutinefunction(function) or parameters):
            continue  # the one over gRPC has a test of its own
        result = function(*([await names["record"](tmp_path)] if parameters else []))
        if inspect.iscoroutine(result):
            await result
        ran += 1
    assert ran == PAGES[page]


def test_the_page_shows_what_the_dev_command_says():
    from durabletask_aio.testing import dev

    page = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
    source = Path(dev.__file__).read_text(encoding="utf-8")
    for line in re.search(r"\$ durabletask-aio dev --ui\n(.*?)```", page, re.DOTALL)[1].splitlines():
        constant = re.split(r"localhost:\d+|http://localhost:\d+/", line)[0]
        assert constant in source, line
    assert str(dev.DEFAULT_UI_PORT) in page


async def test_the_page_shows_a_failure_as_it_is_reported():
    async def order(ctx, order):
        patient = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=2)
        await ctx.call_activity("charge", input=order["amount"], retry_policy=patient)

    async with WorkflowEnvironment(orchestrators=[order]) as env:
        env.stub("charge", raises=ConnectionError("busy"))
        handle = await env.start(order, input={"amount": 5})
        with pytest.raises(OrchestrationFailedError):
            await handle.result()
    assert f"```text\n{render_text(handle.history)}\n```" in (ROOT / "docs/testing.md").read_text(encoding="utf-8")
