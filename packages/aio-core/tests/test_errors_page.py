"""The page about errors shows what really happens: its programs are run, and their messages compared with the page."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from durabletask import task
from durabletask.aio import AsyncWorkflowContext, AsyncWorkflowError, as_orchestrator
from turns import FAILED, Instance

from durabletask_aio.core.errors import PUBLIC_ERRORS
from durabletask_aio.core.settings import DEFAULT_STEP_BUDGET, STEP_BUDGET_VARIABLE

PAGE = Path(__file__).resolve().parents[3] / "docs" / "errors.md"
EXAMPLE = re.compile(
    r"^### (?P<title>[^\n]+)\n(?:(?!^#).)*?"
    r"^```py title=\"order.py\"\n(?P<code>.*?)^```\n\n"
    r"```text\n(?P<message>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
BUDGET = 1_000
"""Enough to see the message about a workflow that spins; the default takes seconds."""

pytestmark = pytest.mark.not_replayed("the workflows of the page are wrong, and some of them differ from their replay")


def examples() -> dict[str, tuple[str, str]]:
    """Return the programs of the page with the messages that it shows, by their headings."""
    text = PAGE.read_text(encoding="utf-8")
    return {found["title"]: (found["code"], found["message"].rstrip()) for found in EXAMPLE.finditer(text)}


def names_of(code: str) -> dict[str, Any]:
    """Return what a program defines, executed as a module named `order`."""
    names: dict[str, Any] = {
        "__name__": "order",
        "asyncio": asyncio,
        "task": task,
        "timedelta": timedelta,
        "AsyncWorkflowContext": AsyncWorkflowContext,
    }
    exec(compile(code, "order.py", "exec"), names)
    return names


def failing(_: Any) -> Any:
    raise ValueError("the card has expired")


def message_of(code: str) -> str:
    """Return type and message of the failure of the workflow `order`, or of what `anywhere_else()` raises."""
    names = names_of(code)
    order = as_orchestrator(names["order"])
    first = Instance(
        as_orchestrator(names.get("order_yesterday", names["order"]), name="order"), "tea", instance_id="order-7"
    )
    if "anywhere_else" in names:
        first.start()
        with pytest.raises(AsyncWorkflowError) as caught:
            names["anywhere_else"]()
        return f"{type(caught.value).__name__}: {caught.value}"
    if "order_yesterday" in names:
        first.start()
        first.orchestrator = order
    else:
        Instance(order, "cake", instance_id="order-6").start()
    first.run({"charge": failing})
    if "application" in names:
        names["application"].close()
    assert first.outcome is not None
    assert first.outcome.orchestrationStatus == FAILED, first.outcome
    details = first.outcome.failureDetails
    message = re.sub(rf"(ran|read) {BUDGET:,} ", rf"\1 {DEFAULT_STEP_BUDGET:,} ", details.errorMessage)
    return f"{details.errorType.rpartition('.')[2]}: {message}"


@pytest.mark.parametrize("title", examples())
def test_the_page_shows_the_message_of_the_program(title: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(STEP_BUDGET_VARIABLE, str(BUDGET))
    code, shown = examples()[title]
    if "asyncio.timeout" in code and sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout came with 3.11")

    assert message_of(code).splitlines() == shown.splitlines()
    gc.collect()


def test_every_program_of_the_page_is_found():
    text = PAGE.read_text(encoding="utf-8")
    assert len(examples()) == text.count('```py title="order.py"') == text.count("```text")
    assert len(examples()) >= 15


def test_the_page_shows_the_errors_that_a_workflow_can_have():
    shown = {message.partition(":")[0] for _, message in examples().values()}
    of_the_sandbox = {"SandboxViolationError", "NonDeterminismWarning"}
    never_shown = {"AsyncWorkflowError", "InstanceEvicted", "SubOrchestrationFailedError", "ActivityFailedError"}
    never_shown.add("StepFailedError")  # as that of an activity
    never_shown.add("WorkflowCancelledError")  # has the message that the request gave
    of_the_worker = {"TurnTimeoutError"}  # which no program can have in the core's tests
    assert {error.__name__ for error in PUBLIC_ERRORS} - of_the_sandbox - of_the_worker - never_shown <= shown
    assert all(f"`{name}`: " in PAGE.read_text(encoding="utf-8") for name in of_the_worker)
